"""Dimensions and spaces: values, short forms, what is refused."""

import json

import numpy as np
import pytest

from effml.itemsets import Categorical, Integer, Real
from effml.itemsets.spaces import Space


def test_short_forms_are_the_dimensions_they_stand_for():
    space = Space({"a": ["x", "y"], "b": (1, 3), "c": (0.5, 2), "d": Real(1.0, 4.0, n=3, log=True)})
    assert space.dimensions == [Categorical(["x", "y"]), Integer(1, 3), Real(0.5, 2.0), Real(1.0, 4.0, n=3, log=True)]
    assert Space([(1, 3), ["x"]]).names == ["x0", "x1"]
    assert space.size == 2 * 3 * 33 * 3 == len(space.all_rows())


def test_grids():
    assert Real(0, 1, step=0.1).values[3] == pytest.approx(0.3) and len(Real(0, 1, step=0.1).values) == 11
    assert Real(1e-3, 10.0, n=5, log=True).values == pytest.approx((1e-3, 1e-2, 1e-1, 1.0, 10.0))
    assert Real(0.1, 0.7, n=4).values[-1] == 0.7 and Integer(-1, 1).values == (-1, 0, 1)


def test_points_and_rows_are_each_other():
    space = Space({"metal": ["steel", "brass"], "layers": (1, 3), "heat": Real(0.0, 1.0, n=5), "code": [10, 20, 30]})
    rows = space.all_rows()
    assert len(np.unique(rows, axis=0)) == space.size
    for row in rows[::7]:
        assert space.row(space.point(row)).tolist() == row.tolist()
    point = space.point(rows[-1])
    assert point == {"metal": "brass", "layers": 3, "heat": 1.0, "code": 30}
    assert [type(value) for value in point.values()] == [str, int, float, int]
    assert Space.from_json(json.loads(json.dumps(space.to_json()))).dimensions == space.dimensions


def test_neighbours_differ_in_one_dimension_and_stay_inside():
    space = Space({"a": list(range(40)), "b": (1, 9), "c": (0.0, 1.0)})
    row = space.row({"a": 3, "b": 9, "c": 0.5})
    near = space.neighbours(row, np.random.default_rng(0))
    assert ((near != row).sum(axis=1) == 1).all()
    assert np.count_nonzero(near[:, 0] != row[0]) == 16
    assert sorted(near[near[:, 1] != 9, 1]) == [1, 5, 7, 8]
    for one in near:
        assert space.row(space.point(one)).tolist() == one.tolist()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Categorical("abc"), TypeError, "'abc'"),
        (lambda: Categorical([]), ValueError, "at least one"),
        (lambda: Categorical(["a", "a"]), ValueError, "all different"),
        (lambda: Categorical(["a", 1]), TypeError, "all text or all numbers"),
        (lambda: Categorical([1.0, float("nan")]), TypeError, "all text or all numbers"),
        (lambda: Integer(3, 3), ValueError, r"Integer\(3, 3\)"),
        (lambda: Integer(1.5, 3), TypeError, "1.5"),
        (lambda: Real(0.0, 1.0, log=True), ValueError, "positive"),
        (lambda: Real(0.0, float("inf")), TypeError, "inf"),
        (lambda: Real(0.0, 1.0, n=1), ValueError, "got 1"),
        (lambda: Real(0.0, 1.0, step=2.0), ValueError, "2.0"),
        (lambda: Real(0.0, 1.0, n=3, step=0.5), ValueError, "neither n"),
        (lambda: Space({}), ValueError, "at least one dimension"),
        (lambda: Space({"a": 3}), TypeError, "'a'"),
        (lambda: Space({3: (1, 2)}), TypeError, "text"),
        (lambda: Space("ab"), TypeError, "dict or a list"),
    ],
)
def test_bad_dimensions_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"a": "z", "b": 1, "c": 0.5}, "a='z'"),
        ({"a": "x", "b": 9, "c": 0.5}, "b=9"),
        ({"a": "x", "b": 1.5, "c": 0.5}, "b=1.5"),
        ({"a": "x", "b": 1, "c": 2.0}, "c=2.0"),
        ({"a": "x", "b": 1, "c": float("nan")}, "c=nan"),
        ({"a": "x", "b": 1}, "lacks a value of 'c'"),
        ({"a": "x", "b": 1, "c": 0.5, "d": 1}, "'d'"),
    ],
)
def test_points_outside_the_space_are_named(point, message):
    with pytest.raises(ValueError, match=message):
        Space({"a": ["x", "y"], "b": (1, 3), "c": (0.0, 1.0)}).row(point)
