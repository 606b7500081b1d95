import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from effml.selection import pareto_front
from effml.selection.pareto import pareto_layers


def brute_force(points, minimize):
    costs = np.where(minimize, points, -points)

    def beaten(i):
        earlier_twin = any((costs[j] == costs[i]).all() for j in range(i))
        dominated = any((other <= costs[i]).all() and (other < costs[i]).any() for other in costs)
        return earlier_twin or dominated or np.isnan(costs[i]).any()

    return [i for i in range(len(costs)) if not beaten(i)]


tables = hnp.arrays(
    np.float64,
    st.tuples(st.integers(0, 12), st.integers(1, 4)),
    # few distinct values, so that ties, duplicates, infinities and NaN meet
    elements=st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, np.inf, -np.inf, np.nan]),
)


@given(tables, st.data())
def test_front_equals_brute_force(points, data):
    minimize = data.draw(st.lists(st.booleans(), min_size=points.shape[1], max_size=points.shape[1]))
    assert pareto_front(points, minimize=minimize).tolist() == brute_force(points, minimize)


@given(tables)
def test_layers_peel_the_front(points):
    layers = pareto_layers(points)
    for layer in range(layers.max(initial=-1) + 1):
        rest = np.flatnonzero(layers >= layer)
        assert np.flatnonzero(layers == layer).tolist() == rest[pareto_front(points[rest])].tolist()
    assert ((layers == -1) == np.isnan(points).any(axis=1)).all()


def test_first_of_equal_rows_stays():
    assert pareto_front([[1, 1], [0, 2], [1, 1], [0, 2]]).tolist() == [0, 1]


def test_rows_with_nan_neither_stay_nor_dominate():
    assert pareto_front([[np.nan, 0], [1, 1]]).tolist() == [1]


def test_large_front_is_found():
    x = np.random.default_rng(0).permutation(2000).astype(float)
    dominated = np.column_stack([x + 0.5, 2000 - x])
    points = np.vstack([np.column_stack([x, 1999 - x]), dominated])
    assert pareto_front(points).tolist() == list(range(2000))


@pytest.mark.parametrize("points", [[1, 2, 3], np.zeros((2, 0)), 5])
def test_wrong_shape_is_an_error(points):
    with pytest.raises(ValueError, match="points must be a table"):
        pareto_front(points)


@pytest.mark.parametrize("minimize", [[True], "yes", [1, 0], [True, False, True]])
def test_wrong_minimize_is_an_error(minimize):
    with pytest.raises(ValueError, match="minimize must be a bool or 2 bools"):
        pareto_front([[1, 2]], minimize=minimize)
