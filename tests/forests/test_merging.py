"""Forests with merged thresholds are scikit-learn's, only with fewer cuts."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier

import effml
from effml._trees import trees_of
from effml.forests import merge_forest, merge_to_cuts


def cuts(trees):
    return [len(np.unique(trees.threshold[trees.feature == k])) for k in np.unique(trees.feature)]


@pytest.mark.parametrize(
    "forest",
    [
        RandomForestClassifier(12, random_state=0),
        RandomForestClassifier(6, max_leaf_nodes=20, random_state=0),  # grown best first
        GradientBoostingClassifier(n_estimators=10, random_state=0),
        DecisionTreeClassifier(random_state=0),
    ],
)
@pytest.mark.parametrize("with_rows", [True, False])
def test_thresholds_move_to_at_most_so_many(forest, with_rows):
    X, y = load_breast_cancer(return_X_y=True)
    forest.fit(X, y)
    before = trees_of(forest).threshold.copy()
    merged = merge_forest(forest, 3, X if with_rows else None)
    assert max(cuts(trees_of(merged))) <= 3
    np.testing.assert_array_equal(trees_of(forest).threshold, before)
    rows = X.astype(np.float32)
    expected = merge_to_cuts(trees_of(forest), 3, X if with_rows else None)
    leaves, ours = trees_of(merged).leaves_of(rows), expected.leaves_of(rows)
    np.testing.assert_allclose(trees_of(merged).value[leaves], expected.value[ours])  # implied splits aside
    assert merged.score(X, y) > 0.9
    assert effml.compile_c(merged).agreement(rows).n_equal == len(X)


def test_regressors_and_cuts_that_are_few_enough():
    X, y = load_diabetes(return_X_y=True)
    forest = ExtraTreesRegressor(5, max_depth=5, random_state=0).fit(X, y)
    merged = merge_forest(forest, 10_000)
    np.testing.assert_array_equal(merged.predict(X.astype(np.float32)), forest.predict(X.astype(np.float32)))


def test_what_has_no_trees_is_named():
    X, y = load_breast_cancer(return_X_y=True)
    with pytest.raises(TypeError, match="HistGradientBoostingClassifier holds no trees"):
        merge_forest(HistGradientBoostingClassifier(max_iter=2).fit(X, y))
    with pytest.raises(ValueError, match="max_cuts must be at least 1, got 0"):
        merge_forest(DecisionTreeClassifier().fit(X, y), 0)
