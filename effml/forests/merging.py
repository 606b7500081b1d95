"""Forests of scikit-learn with fewer different thresholds, for a smaller export."""

import copy

import numpy as np
from sklearn.utils.validation import check_is_fitted

from effml._trees import trees_of
from effml.forests.thresholds import merged_cuts

__all__ = ["merge_forest"]


def merge_forest(forest, max_cuts=255, X=None):
    """Return a copy of a fitted forest whose thresholds are merged to at most `max_cuts` a feature.

    The copy is an estimator of scikit-learn like the original: predict, score and export it. With at most 255 cuts a
    feature a split of the exported table takes 4 bytes.

    Parameters
    ----------
    forest : fitted DecisionTree*, ExtraTree(s)*, RandomForest* or GradientBoosting*
    max_cuts : int, default=255
        At least 1.
    X : array-like (n_rows, n_features) or None, default=None
        Training rows: with them thresholds are as far apart as there are rows between them, without by value.

    Returns
    -------
    estimator
        Leaf values stay as they are.

    Raises
    ------
    TypeError
        If the estimator holds no scikit-learn trees.
    ValueError
        If `max_cuts` is not positive.

    Examples
    --------
    >>> from effml.forests import merge_forest
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> forest = RandomForestClassifier(10, random_state=0).fit(X, y)
    >>> merged = merge_forest(forest, 4, X)
    >>> merged.score(X, y) > 0.9
    True
    """
    check_is_fitted(forest)
    merged = copy.deepcopy(forest)
    members = np.ravel(merged.estimators_) if hasattr(merged, "estimators_") else [merged]
    if not all(hasattr(member, "tree_") for member in members):
        raise TypeError(f"forest={type(forest).__name__} holds no trees of scikit-learn whose thresholds can move")
    trees = trees_of(forest)
    moved = merged_cuts(trees.feature, trees.threshold, max_cuts, None if X is None else np.asarray(X))
    tests = np.rec.fromarrays([trees.feature, trees.threshold])
    distinct, first = np.unique(tests, return_index=True)
    for member in members:
        tree = member.tree_
        splits = np.flatnonzero(tree.children_left >= 0)
        own = np.rec.fromarrays([tree.feature[splits].astype(np.int64), tree.threshold[splits]])
        tree.threshold[splits] = moved[first[np.searchsorted(distinct, own)]]
    return merged
