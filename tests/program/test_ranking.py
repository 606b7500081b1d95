"""Thresholds as ranks, and forests on integer rows: every test keeps its meaning."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from effml.program.buffers import Buffer
from effml.program.ranking import MAX_NARROW_COLUMNS, MAX_NARROW_CUTS, rank_tests, without_decided_splits
from effml.program.steps import ForestWalk


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 700), st.integers(1, 5), st.integers(1, 2000))
def test_a_test_of_a_rank_is_the_test_of_the_value(seed, n_tests, n_groups, n_levels):
    rng = np.random.default_rng(seed)
    _, group = np.unique(rng.integers(n_groups, size=n_tests), return_inverse=True)
    threshold = rng.integers(n_levels, size=n_tests).astype(float)
    position, rank, owners, cuts = rank_tests(group, threshold)
    np.testing.assert_array_equal(np.array(owners)[position], group)
    assert max(map(len, cuts)) <= MAX_NARROW_CUTS and len(cuts) <= MAX_NARROW_COLUMNS and rank.dtype == np.uint8
    for value in rng.uniform(-1, n_levels + 1, 20).round(1):
        ranks = np.array([np.searchsorted(cut, value, side="left") for cut in cuts])
        np.testing.assert_array_equal(ranks[position] > rank, value > threshold)


def test_wide_ranks_where_narrow_ones_would_be_too_many():
    threshold = np.arange(MAX_NARROW_CUTS * MAX_NARROW_COLUMNS + 1, dtype=float)
    _, rank, _, cuts = rank_tests(np.zeros(len(threshold), dtype=int), threshold)
    assert len(cuts) == 1 and rank.dtype == np.uint16
    _, rank, _, cuts = rank_tests(np.zeros(len(threshold) - 1, dtype=int), threshold[:-1])
    assert len(cuts) == MAX_NARROW_COLUMNS and rank.dtype == np.uint8


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 4))
def test_splits_that_the_type_decides_are_left_out(seed, n_splits, n_trees):
    rng = np.random.default_rng(seed)
    children, roots, n_leaves = [], [], 0
    for tree in range(n_trees):  # grow by turning a leaf into a split
        ends = [("root", tree)]
        roots.append(None)
        for _ in range(n_splits):
            place = ends.pop(rng.integers(len(ends)))
            number = len(children)
            children.append([None, None])
            _put(roots, children, place, number)
            ends += [(number, 0), (number, 1)]
        for place in ends:
            _put(roots, children, place, ~n_leaves)
            n_leaves += 1
    total = len(children)
    limit = rng.integers(-60, 320, size=total)  # uint8: below 0 all go right, from 255 on all go left
    walk = ForestWalk(
        inputs=("x",),
        output=Buffer("sums", "i32", 1),
        feature=rng.integers(3, size=total),
        threshold=limit.astype(np.int32),
        children=np.array(children),
        roots=np.array(roots),
        missing_right=np.zeros(total, dtype=bool),
        leaf=np.arange(n_leaves),
        values=rng.integers(-999, 999, size=(n_leaves, 1)).astype(np.int16),
        start=np.zeros(1, dtype=np.int32),
    )
    rows = rng.integers(0, 256, size=(200, 3)).astype(np.uint8)
    small = without_decided_splits(walk, walk.feature, np.clip(limit, -1, 255), np.uint8)
    assert small.threshold.dtype == np.uint8 and (small.threshold < 255).all()
    assert len(small.leaf) == len(small.feature) + n_trees
    np.testing.assert_array_equal(small.run(rows), walk.run(rows.astype(np.int32)))


def _put(roots, children, place, node):
    if place[0] == "root":
        roots[place[1]] = node
    else:
        children[place[0]][place[1]] = node
