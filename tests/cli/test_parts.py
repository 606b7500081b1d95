"""The held-out part and the folds: what must never be on both sides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effml._cli.errors import CommandError
from effml._cli.parts import split


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), test_size=st.floats(0.1, 0.5), n=st.integers(60, 200))
def test_every_row_is_in_exactly_one_part(seed, test_size, n):
    y = np.random.default_rng(seed).integers(0, 3, n)
    parts = split(y, test_size=test_size, seed=seed)
    assert np.array_equal(np.sort(np.concatenate([parts.train, parts.test])), np.arange(n))
    shares = np.abs(np.bincount(y[parts.test], minlength=3) / len(parts.test) - np.bincount(y, minlength=3) / n)
    assert shares.max() <= 1.5 / len(parts.test)


def test_seed_decides_the_split():
    y = np.arange(100) % 2
    assert np.array_equal(split(y, seed=3).test, split(y, seed=3).test)
    assert not np.array_equal(split(y, seed=3).test, split(y, seed=4).test)


def test_no_group_is_in_both_parts_or_in_two_folds():
    rng = np.random.default_rng(0)
    groups, y = rng.integers(0, 20, 400).astype(str), rng.integers(0, 2, 400)
    parts = split(y, groups=groups)
    assert not set(groups[parts.train]) & set(groups[parts.test])
    inner = groups[parts.train]
    for train, test in parts.cv.split(parts.train, y[parts.train], inner):
        assert not set(inner[train]) & set(inner[test])


def test_time_order_never_learns_from_the_future():
    y = np.arange(200) % 3
    parts = split(y, time_ordered=True, test_size=0.2)
    assert parts.test.tolist() == list(range(160, 200))
    for train, test in parts.cv.split(parts.train):
        assert train.max() < test.min()


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (np.arange(50) % 2, {"groups": np.arange(50) % 3}, "--group-column has 3 groups; --cv 5 needs at least 6"),
        (np.arange(50) % 2, {"groups": np.arange(50), "time_ordered": True}, "cannot be combined"),
        (np.repeat([0, 1], 50), {"time_ordered": True, "test_size": 0.6}, "training part has one class only, 0"),
        (np.arange(100) % 40, {"test_size": 0.2}, r"fewer rows than classes \(40\)"),
        (np.arange(8) % 2, {}, "too few"),
        (np.arange(12) % 4, {"test_size": 0.4, "n_folds": 3}, "No class has 3 rows"),
    ],
)
def test_impossible_splits_say_why(y, options, message):
    with pytest.raises(CommandError, match=message):
        split(y, **options)
