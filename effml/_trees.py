"""Many trees in flat arrays: one view of all of scikit-learn's tree ensembles, whatever library code grew them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.ensemble._forest import BaseForest
from sklearn.tree import BaseDecisionTree
from sklearn.utils.validation import check_is_fitted

__all__ = ["Trees", "trees_of"]

_BOOSTING = (GradientBoostingClassifier, GradientBoostingRegressor)
_HIST_BOOSTING = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
_BLOCK = 1 << 20  # (row, tree) pairs that are walked at once


@dataclass(frozen=True, eq=False)
class Trees:
    """Binary trees whose splits send a row left iff ``x[feature] <= threshold``.

    Splits of one tree are contiguous and in pre-order, so children have larger numbers than their parent; leaves are
    numbered tree by tree, from left to right.

    Attributes
    ----------
    feature : int64 array (n_splits,)
    threshold : float64 array (n_splits,)
    children : int64 array (n_splits, 2)
        Left and right: a split's number, or ``~leaf``.
    missing_right : bool array (n_splits,)
        Whether a NaN goes right.
    roots : int64 array (n_trees,)
        A split's number, or ``~leaf`` of a tree that is one leaf.
    value : float64 array (n_leaves, n_outputs)
        What a leaf adds.
    """

    feature: np.ndarray
    threshold: np.ndarray
    children: np.ndarray
    missing_right: np.ndarray
    roots: np.ndarray
    value: np.ndarray

    @property
    def n_trees(self) -> int:
        return len(self.roots)

    @property
    def n_splits(self) -> int:
        return len(self.feature)

    @property
    def n_leaves(self) -> int:
        return len(self.value)

    @property
    def n_outputs(self) -> int:
        return self.value.shape[1]

    @property
    def split_starts(self) -> np.ndarray:
        """First split of each tree, then `n_splits`: int64 (n_trees + 1,)."""
        own = np.append(np.where(self.roots >= 0, self.roots, self.n_splits), self.n_splits)
        return np.minimum.accumulate(own[::-1])[::-1]

    @property
    def leaf_starts(self) -> np.ndarray:
        """First leaf of each tree, then `n_leaves`: int64 (n_trees + 1,)."""
        return self.split_starts + np.arange(self.n_trees + 1)

    def leaves_of(self, X, *, dtype=np.float32) -> np.ndarray:
        """Return the leaf that each row reaches in each tree.

        Parameters
        ----------
        X : array (n_rows, n_features)
        dtype : {numpy.float32, numpy.float64}
            What `X` is cast to before it is compared with the float64 thresholds: float32 as scikit-learn's trees do,
            float64 as HistGradientBoosting does.

        Returns
        -------
        int64 array (n_rows, n_trees)
        """
        X = np.asarray(X, dtype=dtype)
        rows = max(1, _BLOCK // max(self.n_trees, 1))
        blocks = [self._walk(X[start : start + rows]) for start in range(0, len(X), rows)]
        return np.concatenate([np.empty((0, self.n_trees), dtype=np.int64), *blocks])

    def _walk(self, X):
        node = np.repeat(self.roots[None], len(X), axis=0)
        row, tree = np.nonzero(node >= 0)
        at = node[row, tree]
        while len(at):
            x = X[row, self.feature[at]]
            right = np.where(np.isnan(x), self.missing_right[at], x > self.threshold[at])
            at = self.children[at, right.astype(np.int64)]
            node[row, tree] = at
            inner = at >= 0
            row, tree, at = row[inner], tree[inner], at[inner]
        return ~node

    def depth(self) -> int:
        """Return the most splits that a row meets in one tree."""
        level, depth = self.roots[self.roots >= 0], 0
        while len(level):
            below = self.children[level].ravel()
            level, depth = below[below >= 0], depth + 1
        return depth

    def subset(self, trees) -> "Trees":
        """Return some of the trees, in the given order, renumbered.

        Parameters
        ----------
        trees : int or bool array
            Numbers of the trees, or a mask.
        """
        trees = np.arange(self.n_trees)[np.asarray(trees)].ravel()
        first_split, first_leaf = self.split_starts, self.leaf_starts
        n_splits = (first_split[1:] - first_split[:-1])[trees]
        splits = _runs(first_split[trees], n_splits)
        new_split = np.cumsum(n_splits) - n_splits
        new_leaf = new_split + np.arange(len(trees))
        split_shift, leaf_shift = new_split - first_split[trees], new_leaf - first_leaf[trees]

        def moved(node, trees_of_node):
            return np.where(node >= 0, node + split_shift[trees_of_node], ~(~node + leaf_shift[trees_of_node]))

        owner = np.repeat(np.arange(len(trees)), n_splits)
        return Trees(
            feature=self.feature[splits],
            threshold=self.threshold[splits],
            children=moved(self.children[splits], owner[:, None]),
            missing_right=self.missing_right[splits],
            roots=moved(self.roots[trees], np.arange(len(trees))),
            value=self.value[_runs(first_leaf[trees], n_splits + 1)],
        )

    def without_equal_leaves(self) -> "Trees":
        """Return the trees without splits both of whose sides add the same, whichever way a row goes."""
        _, payload = np.unique(self.value, axis=0, return_inverse=True)
        payload = np.append(payload.reshape(-1), -1)
        ends = np.arange(self.n_splits + 1)  # what a split leads to: itself, or ~leaf, the first of its equal ones
        while True:  # at most once for each level
            children = np.where(self.children < 0, self.children, ends[np.maximum(self.children, 0)])
            left, right = payload[np.where(children < 0, ~children, -1)].T
            equal = (left == right) & (left >= 0) & (ends[:-1] >= 0)
            if not equal.any():
                break
            ends[:-1][equal] = children[equal, 0]
        roots = np.where(self.roots < 0, self.roots, ends[np.maximum(self.roots, 0)])
        kept = ends[:-1] >= 0
        used = np.concatenate([children[kept].ravel(), roots])
        leaves, split_number = np.unique(~used[used < 0]), np.append(np.cumsum(kept) - 1, 0)

        def renumbered(node):
            return np.where(node >= 0, split_number[np.maximum(node, 0)], ~np.searchsorted(leaves, ~node))

        return Trees(
            feature=self.feature[kept],
            threshold=self.threshold[kept],
            children=renumbered(children[kept]),
            missing_right=self.missing_right[kept],
            roots=renumbered(roots),
            value=self.value[leaves],
        )


def trees_of(estimator) -> Trees:
    """Return the trees of a fitted scikit-learn tree or tree ensemble.

    Parameters
    ----------
    estimator : DecisionTree*, ExtraTree*, RandomForest*, ExtraTrees*, GradientBoosting* or HistGradientBoosting*
        Fitted, with one output.

    Returns
    -------
    Trees
        `value` holds class probabilities of classification trees and forests, means of regression trees and forests,
        and what a leaf adds to the raw prediction, learning rate included, of boosting (one column per class, or one).

    Raises
    ------
    TypeError
        Another kind of estimator.
    ValueError
        Several outputs, or a split on categories, which is no comparison with a threshold.

    Examples
    --------
    >>> from effml._trees import trees_of
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> forest = RandomForestClassifier(5, random_state=0).fit(X, y)
    >>> trees = trees_of(forest)
    >>> proba = trees.value[trees.leaves_of(X)].mean(axis=1)  # (n_rows, n_classes)
    >>> bool((proba.argmax(axis=1) == forest.predict(X)).all())
    True
    """
    known = (BaseDecisionTree, BaseForest, *_BOOSTING, *_HIST_BOOSTING)
    if not isinstance(estimator, known):
        raise TypeError(
            f"estimator={type(estimator).__name__} is not a tree ensemble that is read here; accepted are "
            "DecisionTree*, ExtraTree*, RandomForest*, ExtraTrees*, GradientBoosting* and HistGradientBoosting*"
        )
    check_is_fitted(estimator)
    if isinstance(estimator, BaseDecisionTree):
        return _assemble(*_trees_in([estimator]))
    if isinstance(estimator, BaseForest):
        return _assemble(*_trees_in(estimator.estimators_))
    if isinstance(estimator, _BOOSTING):
        return _boosting(estimator)
    return _hist_boosting(estimator)


@dataclass(frozen=True, eq=False)
class _Nodes:
    """Nodes of all trees, tree by tree; children count within the tree, negative in a leaf."""

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray


def _trees_in(estimators):
    """Return nodes, node counts and node values (n_nodes, n_outputs) of fitted scikit-learn trees."""
    several = [est for est in estimators if est.n_outputs_ != 1]
    if several:
        raise ValueError(
            f"{type(several[0]).__name__} has {several[0].n_outputs_} outputs; accepted is one, fit one each"
        )
    trees = [est.tree_ for est in estimators]

    def joined(name):
        return np.concatenate([getattr(tree, name) for tree in trees])

    nodes = _Nodes(
        left=joined("children_left"),
        right=joined("children_right"),
        feature=joined("feature"),
        threshold=joined("threshold"),
        missing_left=joined("missing_go_to_left"),
    )
    return nodes, np.array([tree.node_count for tree in trees]), joined("value")[:, 0, :]


def _boosting(estimator):
    stages = estimator.estimators_  # (n_stages, n_outputs)
    nodes, counts, value = _trees_in(stages.ravel())
    return _assemble(nodes, counts, _in_columns(estimator.learning_rate * value[:, 0], counts, stages.shape[1]))


def _hist_boosting(estimator):
    predictors = [predictor for stage in estimator._predictors for predictor in stage]
    counts = np.array([len(predictor.nodes) for predictor in predictors])
    table = np.concatenate([predictor.nodes for predictor in predictors])
    column = _columns_as_given(estimator)
    is_split = table["is_leaf"] == 0
    by_category = is_split & (table["is_categorical"] != 0)
    if by_category.any():
        position = int(column[table["feature_idx"][by_category][0]])
        names = getattr(estimator, "feature_names_in_", None)
        name = position if names is None else repr(str(names[position]))
        raise ValueError(
            f"{type(estimator).__name__} splits column {name} by categories, which is no comparison with a threshold; "
            "encode it (OneHotEncoder, OrdinalEncoder) and fit with categorical_features=None"
        )
    nodes = _Nodes(
        left=np.where(is_split, table["left"].astype(np.int64), -1),
        right=np.where(is_split, table["right"].astype(np.int64), -1),
        feature=np.where(is_split, column[np.where(is_split, table["feature_idx"], 0)], -1),
        threshold=table["num_threshold"],
        missing_left=table["missing_go_to_left"],
    )
    return _assemble(nodes, counts, _in_columns(table["value"], counts, len(estimator._predictors[0])))


def _columns_as_given(estimator):
    """Return, per column as HistGradientBoosting numbers them (categorical ones first), the column of X."""
    categorical = estimator.is_categorical_
    if categorical is None:
        return np.arange(estimator.n_features_in_)
    return np.concatenate([np.flatnonzero(categorical), np.flatnonzero(~categorical)])


def _in_columns(value, counts, n_outputs):
    """Return node values (n_nodes, n_outputs) of trees that take turns adding to one output each."""
    out = np.zeros((len(value), n_outputs))
    out[np.arange(len(value)), np.repeat(np.arange(len(counts)) % n_outputs, counts)] = value
    return out


def _assemble(nodes, counts, value) -> Trees:
    """Number splits in pre-order and leaves from left to right, all trees at once, level by level."""
    starts = np.cumsum(counts) - counts
    shift = np.repeat(starts, counts)
    is_split = nodes.left >= 0
    left, right = nodes.left + shift, nodes.right + shift

    levels, level = [], starts
    while len(level):
        inner = level[is_split[level]]
        levels.append(inner)
        level = np.concatenate([left[inner], right[inner]])
    size = np.zeros(len(left), dtype=np.int64)  # splits at and below a node; a subtree has one leaf more than splits
    for inner in reversed(levels):
        size[inner] = 1 + size[left[inner]] + size[right[inner]]
    split, leaf = np.zeros_like(size), np.zeros_like(size)  # first split and first leaf of each subtree
    split[starts] = np.cumsum(size[starts]) - size[starts]
    leaf[starts] = split[starts] + np.arange(len(starts))
    for inner in levels:
        below = size[left[inner]]
        split[left[inner]], split[right[inner]] = split[inner] + 1, split[inner] + 1 + below
        leaf[left[inner]], leaf[right[inner]] = leaf[inner], leaf[inner] + below + 1

    number = np.where(is_split, split, ~leaf)
    order = np.empty(int(is_split.sum()), dtype=np.int64)
    order[split[is_split]] = np.flatnonzero(is_split)
    leaves = np.empty(len(left) - len(order), dtype=np.int64)
    leaves[leaf[~is_split]] = np.flatnonzero(~is_split)
    return Trees(
        feature=nodes.feature[order].astype(np.int64),
        threshold=nodes.threshold[order].astype(np.float64),
        children=number[np.stack([left[order], right[order]], axis=1)],
        missing_right=~nodes.missing_left[order].astype(bool),
        roots=number[starts],
        value=np.ascontiguousarray(value[leaves], dtype=np.float64),
    )


def _runs(first: Sequence[int], length: Sequence[int]) -> np.ndarray:
    """Return ``first[i], first[i] + 1, ...`` of the given lengths, one run after the other."""
    first, length = np.asarray(first, dtype=np.int64), np.asarray(length, dtype=np.int64)
    return np.arange(int(length.sum())) + np.repeat(first - (np.cumsum(length) - length), length)
