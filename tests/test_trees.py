"""One flat view of every tree ensemble of scikit-learn."""

import functools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor
from threadpoolctl import threadpool_limits

from effml._trees import trees_of

IRIS, CANCER, DIABETES = (load(return_X_y=True) for load in (load_iris, load_breast_cancer, load_diabetes))


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


SINGLE = {
    "tree": (DecisionTreeClassifier(random_state=0), IRIS),
    "best_first": (DecisionTreeClassifier(max_leaf_nodes=9, random_state=0), CANCER),
    "pruned": (DecisionTreeClassifier(ccp_alpha=0.01, random_state=0), CANCER),
    "extra_tree": (ExtraTreeClassifier(random_state=0), IRIS),
    "regression_tree": (DecisionTreeRegressor(max_depth=6, random_state=0), DIABETES),
    "extra_regression_tree": (ExtraTreeRegressor(max_leaf_nodes=20, random_state=0), DIABETES),
}
FORESTS = {
    "forest": (RandomForestClassifier(7, random_state=0), IRIS),
    "forest_two_classes": (RandomForestClassifier(7, max_leaf_nodes=12, random_state=0), CANCER),
    "extra_trees": (ExtraTreesClassifier(7, max_depth=5, random_state=0), IRIS),
    "regression_forest": (RandomForestRegressor(6, max_leaf_nodes=30, random_state=0), DIABETES),
    "extra_trees_regressor": (ExtraTreesRegressor(6, max_depth=6, random_state=0), DIABETES),
}
BOOSTING = {
    "boosting": (GradientBoostingClassifier(n_estimators=6, max_leaf_nodes=6, random_state=0), IRIS),
    "boosting_two_classes": (GradientBoostingClassifier(n_estimators=6, init="zero", random_state=0), CANCER),
    "boosting_regressor": (GradientBoostingRegressor(n_estimators=6, loss="huber", random_state=0), DIABETES),
    "hist": (HistGradientBoostingClassifier(max_iter=6, random_state=0), IRIS),
    "hist_two_classes": (HistGradientBoostingClassifier(max_iter=6, random_state=0), CANCER),
    "hist_regressor": (HistGradientBoostingRegressor(max_iter=6, random_state=0), DIABETES),
}


@functools.cache
def _fitted(case):
    est, (X, y) = {**SINGLE, **FORESTS, **BOOSTING}[case]
    return est.fit(X, y), X


def _near_thresholds(trees, X, dtype, seed=0):
    """Rows of X with one value each put on, just below or just above a threshold."""
    rng = np.random.default_rng(seed)
    split = rng.integers(trees.n_splits, size=600)
    rows = X[rng.integers(len(X), size=600)].astype(dtype)
    at = trees.threshold[split].astype(dtype)
    beside = np.nextafter(at, np.array([-np.inf, np.inf], dtype=dtype)[rng.integers(2, size=600)], dtype=dtype)
    rows[np.arange(600), trees.feature[split]] = np.where(rng.integers(2, size=600), at, beside)
    return rows


def _assert_well_formed(trees):
    parent = np.arange(trees.n_splits)[:, None]
    assert ((trees.children < 0) | (trees.children > parent)).all()
    left = trees.children[:, 0]
    assert ((left < 0) | (left == parent[:, 0] + 1)).all()  # pre-order
    met = np.concatenate([~trees.children[trees.children < 0], ~trees.roots[trees.roots < 0]])
    np.testing.assert_array_equal(np.sort(met), np.arange(trees.n_leaves))
    reached = np.concatenate([trees.children[trees.children >= 0], trees.roots[trees.roots >= 0]])
    np.testing.assert_array_equal(np.sort(reached), np.arange(trees.n_splits))
    assert trees.n_leaves == trees.n_splits + trees.n_trees


@pytest.mark.parametrize("case", [*SINGLE, *FORESTS, *BOOSTING])
def test_splits_are_in_pre_order_and_leaves_from_left_to_right(case):
    trees = trees_of(_fitted(case)[0])
    _assert_well_formed(trees)
    by_hand = []

    def visit(node):
        if node < 0:
            by_hand.append(~node)
        else:
            visit(trees.children[node, 0])
            visit(trees.children[node, 1])

    for tree, root in enumerate(trees.roots):
        visit(root)
        assert trees.split_starts[tree + 1] - trees.split_starts[tree] == len(by_hand) - trees.leaf_starts[tree] - 1
    assert by_hand == list(range(trees.n_leaves))


@pytest.mark.parametrize("case", [*SINGLE, *FORESTS])
def test_leaves_are_those_of_apply(case):
    est, X = _fitted(case)
    trees = trees_of(est)
    rows = np.concatenate([X, _near_thresholds(trees, X, np.float32)])
    found, expected = trees.leaves_of(rows), est.apply(rows).reshape(len(rows), -1)
    for tree in range(trees.n_trees):  # the same leaves under other numbers
        pairs = np.unique(np.stack([found[:, tree], expected[:, tree]], axis=1), axis=0)
        assert len(pairs) == len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1]))
    value = trees.value[found]
    if hasattr(est, "classes_"):
        np.testing.assert_allclose(value.mean(axis=1), est.predict_proba(rows), atol=1e-12)
    else:
        np.testing.assert_allclose(value.mean(axis=1)[:, 0], est.predict(rows), rtol=1e-12)


@pytest.mark.parametrize("case", BOOSTING)
def test_boosting_adds_its_leaves_to_a_constant(case):
    est, X = _fitted(case)
    trees = trees_of(est)
    dtype = np.float64 if case.startswith("hist") else np.float32
    rows = np.concatenate([X, _near_thresholds(trees, X, dtype)])
    raw = est.decision_function(rows) if hasattr(est, "classes_") else est.predict(rows)
    constant = raw.reshape(len(rows), -1) - trees.value[trees.leaves_of(rows, dtype=dtype)].sum(axis=1)
    np.testing.assert_allclose(constant, np.repeat(constant[:1], len(rows), axis=0), atol=1e-9)


HIST = HistGradientBoostingClassifier(max_iter=4, max_depth=4, random_state=0)


@pytest.mark.parametrize(
    ("est", "trained_on_missing"),
    [
        (DecisionTreeClassifier(max_depth=6, random_state=0), True),
        (ExtraTreeClassifier(random_state=0), True),
        (RandomForestClassifier(5, random_state=0), True),
        (HIST, True),
        (HIST, False),  # the others refuse NaN rows unless they were trained on some
    ],
)
def test_missing_values_go_where_the_tree_sends_them(est, trained_on_missing):
    X, y = CANCER
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)
    est = est.fit(holes if trained_on_missing else X, y)
    trees = trees_of(est)
    if est is HIST:
        raw = trees.value[trees.leaves_of(holes, dtype=np.float64)].sum(axis=1)[:, 0] + est._baseline_prediction[0, 0]
        np.testing.assert_allclose(raw, est.decision_function(holes))
    else:
        np.testing.assert_allclose(
            trees.value[trees.leaves_of(holes)].mean(axis=1), est.predict_proba(holes), atol=1e-12
        )


def test_trees_of_one_leaf():
    X, y = IRIS
    forest = RandomForestClassifier(4, max_depth=1, min_samples_split=160, random_state=0).fit(X, y)
    trees = trees_of(forest)
    assert (trees.n_trees, trees.n_splits, trees.n_leaves, trees.depth()) == (4, 0, 4, 0)
    np.testing.assert_array_equal(trees.roots, [~0, ~1, ~2, ~3])
    np.testing.assert_array_equal(trees.leaves_of(X), np.repeat([[0, 1, 2, 3]], len(X), axis=0))


def test_depth_is_the_deepest_trees():
    est, _ = _fitted("forest")
    assert trees_of(est).depth() == max(tree.get_depth() for tree in est.estimators_)


@functools.cache
def _forest_with_a_leaf():
    X, y = IRIS
    forest = RandomForestClassifier(9, max_depth=3, random_state=1).fit(X, y)
    forest.estimators_[3] = DecisionTreeClassifier(min_samples_split=1000).fit(X, y)  # one leaf
    return trees_of(forest)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 8), max_size=12), st.integers(1, 150))
def test_subset_walks_as_the_trees_it_was_taken_from(chosen, n_rows):
    X, trees = IRIS[0], _forest_with_a_leaf()
    part = trees.subset(np.array(chosen, dtype=int))
    _assert_well_formed(part)
    np.testing.assert_array_equal(
        part.value[part.leaves_of(X[:n_rows])], trees.value[trees.leaves_of(X[:n_rows])][:, chosen]
    )


def test_subset_takes_a_mask():
    trees = trees_of(_fitted("forest")[0])
    mask = np.arange(trees.n_trees) % 2 == 0
    np.testing.assert_array_equal(trees.subset(mask).threshold, trees.subset(np.flatnonzero(mask)).threshold)


@pytest.mark.parametrize("case", [*SINGLE, *FORESTS, *BOOSTING])
def test_splits_between_equal_leaves_go(case):
    est, X = _fitted(case)
    trees = trees_of(est)
    coarse = replace(trees, value=np.rint(trees.value / (np.abs(trees.value).max() / 2 + 1e-300)))
    small = coarse.without_equal_leaves()
    _assert_well_formed(small)
    rows = np.concatenate([X, _near_thresholds(trees, X, np.float64)])
    np.testing.assert_array_equal(small.value[small.leaves_of(rows)], coarse.value[coarse.leaves_of(rows)])
    ends = (small.children < 0).all(axis=1)
    assert (small.value[~small.children[ends, 0]] != small.value[~small.children[ends, 1]]).any(axis=1).all()
    none = replace(trees, value=np.zeros_like(trees.value)).without_equal_leaves()
    assert none.n_splits == 0 and none.n_leaves == none.n_trees == trees.n_trees
    again = none.without_equal_leaves()
    np.testing.assert_array_equal(again.roots, none.roots)


def test_columns_beside_categories_keep_their_place():
    X, y = IRIS
    table = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    table["c"] = pd.Categorical(["only"] * len(X))
    est = HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=10).fit(table, y)
    trees = trees_of(est)
    assert 2 not in trees.feature
    rows = table.assign(c=0.0).to_numpy()
    raw = trees.value[trees.leaves_of(rows, dtype=np.float64)].sum(axis=1) + est._baseline_prediction
    np.testing.assert_allclose(raw, est.decision_function(table))


def test_splits_by_category_are_refused_by_name():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"size": rng.normal(size=300), "town": pd.Categorical(rng.choice(list("abc"), 300))})
    est = HistGradientBoostingClassifier(max_iter=3).fit(table, table["town"] == "b")
    with pytest.raises(ValueError, match="'town' by categories"):
        trees_of(est)


def test_several_outputs_other_estimators_and_unfitted_ones_are_refused():
    X, y = IRIS
    with pytest.raises(ValueError, match="2 outputs"):
        trees_of(RandomForestRegressor(2).fit(X, np.stack([y, y], axis=1)))
    with pytest.raises(TypeError, match="LogisticRegression"):
        trees_of(LogisticRegression())
    with pytest.raises(NotFittedError):
        trees_of(RandomForestClassifier())
