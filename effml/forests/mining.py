"""Frequent snippets of a forest: small connected pieces of its trees that occur in many of them.

A pattern is a connected set of splits with a root. It is hash-consed: (label, left, right), where the label is a test
and left and right are patterns too, or nothing. Patterns are mined size by size; one of k splits is only looked at
where its left and right parts are frequent, since a piece of a frequent pattern is frequent.
"""

from dataclasses import dataclass
from math import ceil
from numbers import Integral

import numpy as np

from effml._cext.snippets import count_candidates, grow
from effml._trees import Trees
from effml.forests.thresholds import float32_cuts, split_rows

__all__ = ["Snippets", "absolute_support", "distinct_tests", "mine_snippets", "split_balance", "stump"]

MAX_SIZE = 255  # splits of a snippet: its exits are numbered in 8 bits


@dataclass(frozen=True, eq=False)
class Snippets:
    """Small trees, most frequent first, whose exits are numbered from left to right.

    Attributes
    ----------
    trees : Trees
        One tree a snippet; `value` (n_exits, 1) holds each exit's number within its snippet. Thresholds are float32
        numbers.
    support : int64 array (n_snippets,)
        Number of the forest's trees that hold the snippet.
    """

    trees: Trees
    support: np.ndarray

    @property
    def n_snippets(self) -> int:
        return self.trees.n_trees

    @property
    def n_exits(self) -> np.ndarray:
        """Number of exits of each snippet, one more than its splits: int64 (n_snippets,)."""
        return np.diff(self.trees.leaf_starts)

    def __len__(self) -> int:
        return self.n_snippets

    def subset(self, which) -> "Snippets":
        """Return some of the snippets, in the given order.

        Parameters
        ----------
        which : int or bool array
            Numbers of the snippets, or a mask.
        """
        which = np.arange(self.n_snippets)[np.asarray(which)].ravel()
        return Snippets(self.trees.subset(which), self.support[which])


def absolute_support(min_support, n_trees) -> int:
    """Return a support as a number of trees; a float is a share of them, rounded up.

    Examples
    --------
    >>> absolute_support(3, 25), absolute_support(0.1, 25)
    (3, 3)
    """
    if isinstance(min_support, Integral):
        return int(min_support)
    return max(1, ceil(min_support * n_trees - 1e-9))


def split_balance(trees, X, sample_weight=None):
    """Return, for each split, the smaller of the shares of its rows that go left and right.

    Parameters
    ----------
    trees : Trees
    X : array (n_rows, n_features)
        Training rows, routed through every tree.
    sample_weight : array (n_rows,) or None, default=None

    Returns
    -------
    float64 array (n_splits,)
        From 0 to 0.5; 0 where no row comes.
    """
    balance = np.zeros(trees.n_splits)
    for split, left, right in split_rows(trees, X):
        if sample_weight is None:
            sides = len(left), len(right)
        else:
            sides = sample_weight[left].sum(), sample_weight[right].sum()
        balance[split] = min(sides) / max(sum(sides), np.finfo(float).tiny)
    return balance


def mine_snippets(trees, *, min_support=2, max_pattern_size=6, pattern_filter=None, usable=None, missing_features=None):
    """Find the snippets that occur in at least `min_support` trees.

    Parameters
    ----------
    trees : Trees
        Splits of equal feature and threshold (as float32) are the same test.
    min_support : int or float, default=2
        Number of trees, or a share of them.
    max_pattern_size : int, default=6
        Most splits of a snippet, at most 255.
    pattern_filter : {None, "closed", "maximal"}, default=None
        "closed" leaves out a snippet that is part of one of equal support, "maximal" one that is part of any other.
    usable : bool array (n_splits,) or None, default=None
        Splits that may take part; None means all.
    missing_features : bool array (n_features,) or None, default=None
        Features that have missing values: there, tests that send NaN to different sides differ. In tests of other
        features a NaN goes right. None means that no feature has any.

    Returns
    -------
    Snippets
        By descending support, then by size, then as they first occur; so those of a higher `min_support` come first,
        in the same order. There may be none.

    References
    ----------
    P. Welke, F. Alkhoury, C. Bauckhage and S. Wrobel, "Decision snippet features", ICPR 2020, pp. 4260-4267.

    Examples
    --------
    >>> from effml._trees import trees_of
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> forest = RandomForestClassifier(25, max_depth=5, random_state=0).fit(X, y)
    >>> snippets = mine_snippets(trees_of(forest), min_support=5)
    >>> snippets.n_snippets, snippets.n_exits.tolist()[:3], snippets.support.tolist()[:3]
    (14, [2, 2, 2], [12, 10, 9])
    """
    tests, label = _labels(trees, usable, missing_features)
    patterns, support = _mine(trees, label, absolute_support(min_support, trees.n_trees), max_pattern_size)
    kept = np.arange(len(support))
    if pattern_filter is not None:
        kept = np.flatnonzero(
            _largest_super_support(patterns, support) < (support if pattern_filter == "closed" else 1)
        )
    return _expand(tests, patterns, support, kept[np.argsort(-support[kept], kind="stable")])


def stump(feature, threshold) -> Snippets:
    """Return one snippet of one split, held by no tree; a NaN goes right."""
    tests = (np.array([feature]), float32_cuts([threshold]), np.array([True]))
    return _expand(tests, np.array([[0, -1, -1]]), np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))


def _labels(trees, usable, missing_features):
    """Return the distinct tests (feature, threshold, missing_right) and each split's, int32, -1 if it takes no part."""
    missing_right = trees.missing_right
    if missing_features is None:
        missing_right = np.ones_like(missing_right)
    else:
        missing_right = missing_right | ~np.asarray(missing_features)[trees.feature]
    *tests, label = distinct_tests(trees.feature, float32_cuts(trees.threshold), missing_right)
    label = label.astype(np.int32)
    if usable is not None:
        label[~np.asarray(usable)] = -1
    return tests, label


def distinct_tests(feature, threshold, missing_right):
    """Return the distinct tests as three columns, ascending, and the number of each given one among them, int64.

    Examples
    --------
    >>> import numpy as np
    >>> *_, number = distinct_tests(np.array([1, 0, 1]), np.array([0.5, 2.0, 0.5]), np.array([True, True, True]))
    >>> number.tolist()
    [1, 0, 1]
    """
    order = np.lexsort((missing_right, threshold, feature))
    columns = [column[order] for column in (feature, threshold, missing_right)]
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.cumsum(is_new) - 1
    return *(column[is_new] for column in columns), number


def _mine(trees, label, min_support, max_size):
    """Return the frequent patterns, int32 (n, 3), by size and then as they first occur, and their supports."""
    n_splits = trees.n_splits
    tree = np.repeat(np.arange(trees.n_trees, dtype=np.int32), np.diff(trees.split_starts))
    children = np.ascontiguousarray(trees.children)
    first = np.zeros((1, n_splits + 1), dtype=np.int64)  # [a, v]: where the patterns of size a with root v begin
    patterns, supports = [np.empty((0, 3), dtype=np.int32)], [np.empty(0, dtype=np.int64)]
    known = np.empty(0, dtype=np.int32)
    n_known = 0
    for size in range(1, max_size + 1):
        counts = np.zeros(n_splits, dtype=np.int64)
        count_candidates(label, children, first, size, counts)
        found, support, numbers = _level(label, tree, children, first, known, size, int(counts.sum()))
        frequent = support >= min_support
        if not frequent.any():
            break
        renumbered = np.where(frequent, n_known + np.cumsum(frequent) - 1, -1).astype(np.int32)[numbers]
        kept = renumbered >= 0
        begins = len(known) + np.append(0, np.cumsum(kept))[np.append(0, np.cumsum(counts))]
        first = np.vstack([first, begins])
        known = np.concatenate([known, renumbered[kept]])
        patterns.append(found[frequent])
        supports.append(support[frequent])
        n_known += int(frequent.sum())
    return np.concatenate(patterns), np.concatenate(supports)


def _level(label, tree, children, first, known, size, n_candidates):
    """Return the patterns of one size, their supports and the number of each candidate's pattern."""
    if n_candidates > np.iinfo(np.int32).max // 2:
        raise ValueError(
            f"there are {n_candidates} places for snippets of {size} splits, more than can be mined; "
            "lower max_pattern_size or raise min_support"
        )
    patterns = np.empty((n_candidates, 3), dtype=np.int32)  # memory is touched only as far as it is filled
    support, last_tree, numbers = (np.empty(n_candidates, dtype=np.int32) for _ in range(3))
    table = np.full(1 << max(4, (2 * n_candidates).bit_length()), -1, dtype=np.int32)
    n = grow(label, tree, children, first, known, size, table, last_tree, patterns, support, numbers)
    return patterns[:n].copy(), support[:n].astype(np.int64), numbers


def _largest_super_support(patterns, support):
    """Return the largest support of the patterns that hold each pattern and one split more, 0 if there is none."""
    number = {tuple(pattern): i for i, pattern in enumerate(patterns.tolist())}
    above = np.zeros(len(support), dtype=np.int64)
    pruned = [[-1]] * len(support)  # what is left of each pattern without one of its lowest splits
    for (label, left, right), i in number.items():
        if left < 0 and right < 0:
            continue
        pruned[i] = [number[label, part, right] for part in pruned[left]] if left >= 0 else []
        pruned[i] += [number[label, left, part] for part in pruned[right]] if right >= 0 else []
        without_root = [max(left, right)] if min(left, right) < 0 else []
        for part in pruned[i] + without_root:
            above[part] = max(above[part], support[i])
    return above


def _expand(tests, patterns, support, chosen) -> Snippets:
    """Write the chosen patterns out as trees, all at once, level by level."""
    label, left, right = (patterns[:, i].astype(np.int64) for i in range(3))
    size = _sizes(left, right)
    n_splits = size[chosen]
    split = np.cumsum(n_splits) - n_splits
    leaf = split + np.arange(len(chosen))
    roots, pattern = split, chosen
    at_label = np.empty(int(n_splits.sum()), dtype=np.int64)
    children = np.empty((len(at_label), 2), dtype=np.int64)
    while len(pattern):
        at_label[split] = label[pattern]
        n_left = np.where(left[pattern] >= 0, size[left[pattern]], 0)
        below = (
            (left[pattern], split + 1, leaf),
            (right[pattern], split + 1 + n_left, leaf + n_left + 1),
        )
        for side, (child, child_split, child_leaf) in enumerate(below):
            children[split, side] = np.where(child >= 0, child_split, ~child_leaf)
        pattern, split, leaf = (np.concatenate(pair) for pair in zip(*below, strict=True))
        split, leaf, pattern = split[pattern >= 0], leaf[pattern >= 0], pattern[pattern >= 0]
    exits = np.arange(len(at_label) + len(chosen)) - np.repeat(roots + np.arange(len(chosen)), n_splits + 1)
    feature, threshold, missing_right = (column[at_label] for column in tests)
    trees = Trees(feature, threshold, children, missing_right, roots, exits[:, None].astype(np.float64))
    return Snippets(trees, support[chosen])


def _sizes(left, right):
    """Return the number of splits of each pattern; parts have smaller numbers than what they are part of."""
    size = np.ones(len(left), dtype=np.int64)
    while True:
        grown = 1 + np.where(left >= 0, size[left], 0) + np.where(right >= 0, size[right], 0)
        if (grown == size).all():
            return size
        size = grown
