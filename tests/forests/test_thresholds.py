"""Merged thresholds: how many there are, which rows keep their path, and what is removed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from effml._trees import Trees, trees_of
from effml.forests.thresholds import (
    _by_feature,
    _intervals,
    _stab,
    drop_implied,
    float32_cuts,
    floor_integer_columns,
    merge_thresholds,
    merge_to_cuts,
    remove_splits,
    snap_to_quantiles,
    split_rows,
    with_thresholds,
)


def n_cuts(trees):
    return [len(np.unique(trees.threshold[trees.feature == k])) for k in np.unique(trees.feature)]


def leaf_values(trees, X):
    return trees.value[trees.leaves_of(X)]


def is_well_formed(trees):
    """Splits in pre-order tree by tree, every leaf reached once, from left to right."""
    splits, leaves = [], []
    for root in trees.roots.tolist():
        stack = [root]
        while stack:
            node = stack.pop()
            if node < 0:
                leaves.append(~node)
            else:
                splits.append(node)
                stack.extend(reversed(trees.children[node].tolist()))
    return splits == list(range(trees.n_splits)) and leaves == list(range(trees.n_leaves))


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    forest = RandomForestClassifier(20, max_depth=6, random_state=0).fit(X, y)
    return X.astype(np.float32), y, trees_of(forest)


@given(st.floats(allow_nan=False), st.floats(width=32, allow_nan=False))
def test_float32_cuts_send_every_float32_to_the_same_side(threshold, x):
    cut = float32_cuts(threshold)
    assert np.float32(cut) == cut or np.isinf(cut)
    with np.errstate(over="ignore"):
        above = np.nextafter(np.float32(cut), np.float32(np.inf))
    for value in (np.float32(x), np.float32(cut), above):
        assert (np.float64(value) <= threshold) == (np.float64(value) <= cut)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_sigma_0_keeps_the_path_of_every_training_row(seed, random_trees):
    rng = np.random.default_rng(seed)
    trees = random_trees(rng, 5, n_features=3, n_thresholds=6)
    X = (rng.integers(0, 14, (40, 3)) / 2).astype(np.float32)
    X[rng.random(X.shape) < rng.choice([0, 0.1])] = np.nan
    merged = merge_thresholds(trees, X, 0.0)
    assert is_well_formed(merged)
    np.testing.assert_array_equal(leaf_values(merged, X), leaf_values(trees, X))


def test_sigma_0_keeps_the_predictions_of_a_real_forest(cancer):
    X, _, trees = cancer
    merged = merge_thresholds(trees, X, 0.0)
    np.testing.assert_array_equal(leaf_values(merged, X), leaf_values(trees, X))
    assert sum(n_cuts(merged)) < 0.8 * sum(n_cuts(trees))


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.4])
def test_a_split_sends_at_most_a_share_of_its_rows_another_way(cancer, sigma):
    X, _, trees = cancer
    merged = with_thresholds(trees, trees.threshold).threshold.copy()
    rows = {split: (left, right) for split, left, right in split_rows(trees, X)}
    low, high, _ = _intervals(trees, X, sigma)
    for feature, splits in _by_feature(trees.feature):
        merged[splits] = _stab(low[splits], high[splits])
        for split in splits:
            left, right = rows[split]
            k = int(sigma * (len(left) + len(right)))
            assert (X[left, feature] > merged[split]).sum() <= k
            assert (X[right, feature] <= merged[split]).sum() <= k


def fewest_points(low, high):
    """Fewest points that hit all intervals [low, high): as many as there are disjoint ones, greedily by their end."""
    n, last = 0, -np.inf
    for start, end in sorted(zip(low, high, strict=True), key=lambda interval: interval[1]):
        if n == 0 or start >= last:
            n, last = n + 1, end
    return n


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), min_size=1, max_size=30))
def test_stabbing_points_lie_in_their_intervals_and_are_fewest(intervals):
    low = np.array([float(start) for start, _ in intervals])
    high = low + [length for _, length in intervals]
    points = _stab(low, high)
    assert ((low <= points) & (points < high)).all()
    assert len(np.unique(points)) == fewest_points(low, high)


def test_splits_that_may_send_all_rows_one_way_are_removed(cancer):
    X, _, trees = cancer
    sizes = [merge_thresholds(trees, X, sigma).n_splits for sigma in (0.0, 0.1, 0.3)]
    assert trees.n_splits >= sizes[0] > sizes[1] > sizes[2]
    assert is_well_formed(merge_thresholds(trees, X, 0.3))


@pytest.mark.parametrize("max_cuts", [1, 3, 8, 1000])
@pytest.mark.parametrize("with_rows", [True, False])
def test_no_feature_has_more_than_max_cuts(cancer, max_cuts, with_rows):
    X, _, trees = cancer
    merged = merge_to_cuts(trees, max_cuts, X if with_rows else None)
    assert max(n_cuts(merged)) <= max_cuts
    assert is_well_formed(merged)
    assert np.isin(merged.threshold, float32_cuts(trees.threshold)).all()
    if max_cuts == 1000:
        np.testing.assert_array_equal(leaf_values(merged, X), leaf_values(trees, X))


def test_merged_thresholds_move_to_the_nearest_kept_one(cancer):
    _, _, trees = cancer
    merged = merge_to_cuts(with_thresholds(trees, np.arange(trees.n_splits) % 10.0), 3)
    kept = {k: np.unique(merged.threshold[merged.feature == k]) for k in np.unique(merged.feature)}
    assert all(len(cuts) <= 3 for cuts in kept.values())
    single = merge_to_cuts(trees_of_one_feature([0, 0, 0, 0, 5, 9, 9.5, 10]), 3)
    assert sorted(single.threshold.tolist()) == [0, 0, 0, 0, 5, 9.5, 9.5, 9.5]


def trees_of_one_feature(thresholds):
    """One stump a threshold."""
    n = len(thresholds)
    children = np.stack([~(2 * np.arange(n)), ~(2 * np.arange(n) + 1)], axis=1)
    missing_right, roots = np.ones(n, dtype=bool), np.arange(n)
    value = np.arange(2.0 * n)[:, None]
    return Trees(np.zeros(n, dtype=np.int64), np.array(thresholds, float), children, missing_right, roots, value)


def test_quantile_cuts_are_values_of_the_training_data(cancer):
    X, _, trees = cancer
    snapped = snap_to_quantiles(trees, X, 7)
    assert max(n_cuts(snapped)) <= 7
    for k in np.unique(snapped.feature):
        cuts = np.unique(snapped.threshold[snapped.feature == k])
        assert np.isin(cuts, X[:, k]).all() and cuts.max() < X[:, k].max()


def test_enough_quantiles_keep_every_training_path(cancer):
    X, _, trees = cancer
    np.testing.assert_array_equal(leaf_values(snap_to_quantiles(trees, X, 10_000), X), leaf_values(trees, X))


def test_a_frequent_value_takes_one_share_of_the_quantiles():
    X = np.concatenate([np.zeros(900), np.arange(1, 101)]).astype(np.float32)[:, None]
    snapped = snap_to_quantiles(trees_of_one_feature(np.arange(0.5, 100)), X, 5)
    cuts = np.unique(snapped.threshold)
    assert cuts[0] == 0 and len(cuts) == 5
    assert np.diff(cuts).max() <= 26


def test_quantiles_follow_the_weights():
    X = np.arange(100, dtype=np.float32)[:, None]
    trees = trees_of_one_feature(np.arange(0.5, 99))
    weights = np.where(np.arange(100) < 50, 1e-6, 1.0)
    assert np.unique(snap_to_quantiles(trees, X, 4, weights).threshold)[:1] > 50
    twice = snap_to_quantiles(trees, X, 4, np.full(100, 2.0))
    np.testing.assert_array_equal(twice.threshold, snap_to_quantiles(trees, X, 4).threshold)


def test_whole_columns_get_whole_thresholds():
    X, y = load_iris(return_X_y=True)
    X[:, :2] = np.round(X[:, :2] * 10)
    trees = trees_of(RandomForestClassifier(10, random_state=0).fit(X, y))
    floored = floor_integer_columns(trees, X)
    whole = floored.feature < 2
    assert (floored.threshold[whole] == np.floor(floored.threshold[whole])).all()
    assert (floored.threshold[~whole] != np.floor(floored.threshold[~whole])).any()
    np.testing.assert_array_equal(leaf_values(floored, X), leaf_values(trees, X))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_implied_splits_change_nothing_for_any_row(seed, random_trees):
    rng = np.random.default_rng(seed)
    trees = random_trees(rng, 4, depth=6, n_features=2, n_thresholds=4)
    X = rng.choice([0, 0.5, 1, 1.5, 2, 3, 9, np.nan], (100, 2))
    shorter = drop_implied(trees)
    assert is_well_formed(shorter)
    np.testing.assert_array_equal(leaf_values(shorter, X), leaf_values(trees, X))
    every = np.stack(np.meshgrid(*2 * [[0, 1, 2, 3, 4, np.nan]]), axis=-1).reshape(-1, 2)
    assert len(np.unique(shorter.leaves_of(every))) == shorter.n_leaves  # each leaf is reached


def test_tree_that_loses_every_split_is_a_leaf():
    trees = trees_of_one_feature([1.0, 2.0])
    left = remove_splits(trees, np.array([1, -1]))
    assert left.roots.tolist() == [~0, 0] and left.value.ravel().tolist() == [1, 2, 3]
    assert is_well_formed(left)
    assert merge_to_cuts(remove_splits(trees, np.array([0, 0])), 3).n_splits == 0


@pytest.mark.parametrize("function", [merge_to_cuts, snap_to_quantiles, merge_thresholds])
def test_trees_without_splits_stay_as_they_are(function):
    X, y = np.zeros((10, 2), dtype=np.float32), np.arange(10) % 2
    trees = trees_of(RandomForestClassifier(3, random_state=0).fit(X, y))
    arguments = (trees, 3) if function is merge_to_cuts else (trees, X, 3 if function is snap_to_quantiles else 0.1)
    assert function(*arguments).value.tolist() == trees.value.tolist()


def test_splits_on_missing_values_survive(random_trees):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2)).astype(np.float32)
    y = rng.random(300) < 0.3
    X[y, 0] = np.nan
    for forest in (RandomForestClassifier(5, random_state=0), HistGradientBoostingClassifier(max_iter=5)):
        trees = trees_of(forest.fit(X, y))
        for merged in (
            merge_to_cuts(trees, 4, X),
            merge_thresholds(trees, X, 0.0),
            snap_to_quantiles(trees, X, 4),
            floor_integer_columns(trees, X),
        ):
            missing = merged.leaves_of(np.array([[np.nan, 0.0]]))
            assert (missing != merged.leaves_of(np.array([[0.0, 0.0]]))).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda trees, X: merge_to_cuts(trees, 0), "max_cuts must be at least 1, got 0"),
        (lambda trees, X: snap_to_quantiles(trees, X, 0), "n_cuts must be at least 1, got 0"),
        (lambda trees, X: merge_thresholds(trees, X, 1.0), r"sigma must be at least 0 and below 1, got 1\.0"),
    ],
)
def test_wrong_numbers_are_named(cancer, call, message):
    X, _, trees = cancer
    with pytest.raises(ValueError, match=message):
        call(trees, X)
