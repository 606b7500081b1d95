"""Fewer distinct thresholds: forests that ask the same questions share them, in a table and in frequent snippets.

Every function here takes trees and returns trees whose thresholds are float32 numbers, so that ``float32(x) <=
threshold`` means the same in Python, in Cython and in C. Splits that no longer part anything are removed.
"""

import numpy as np

from effml._trees import Trees

__all__ = [
    "drop_implied",
    "float32_cuts",
    "floor_integer_columns",
    "merge_thresholds",
    "merge_to_cuts",
    "remove_splits",
    "snap_to_quantiles",
    "split_rows",
    "with_thresholds",
]


def float32_cuts(threshold):
    """Return the largest float32 that is not above each threshold, as float64; -0 becomes 0.

    Examples
    --------
    >>> float32_cuts([0.1, 2.5, -0.0]).tolist()
    [0.09999999403953552, 2.5, 0.0]
    """
    threshold = np.asarray(threshold, dtype=np.float64)
    with np.errstate(over="ignore"):
        cut = threshold.astype(np.float32)
    cut = np.where(cut > threshold, np.nextafter(cut, np.float32(-np.inf)), cut)
    return cut.astype(np.float64) + 0.0


def with_thresholds(trees, threshold):
    """Return the trees with other thresholds, rounded down to float32."""
    return Trees(trees.feature, float32_cuts(threshold), trees.children, trees.missing_right, trees.roots, trees.value)


def floor_integer_columns(trees, X):
    """Round thresholds down to whole numbers in columns that hold nothing else.

    Parameters
    ----------
    trees : Trees
    X : array (n_rows, n_features)
        Training rows. They keep their paths; NaN are left out.

    Returns
    -------
    Trees
    """
    whole = np.array([(np.floor(column) == column)[~np.isnan(column)].all() for column in np.asarray(X).T])
    if not trees.n_splits:
        return trees
    threshold = np.where(whole[trees.feature], np.floor(trees.threshold), trees.threshold)
    return drop_implied(with_thresholds(trees, threshold))


# -- thresholds to a given number -------------------------------------------------------------------------------------


def merge_to_cuts(trees, max_cuts, X=None):
    """Merge thresholds until no feature has more than `max_cuts`.

    Parameters
    ----------
    trees : Trees
    max_cuts : int
        At least 1. A feature with fewer thresholds keeps them all.
    X : array (n_rows, n_features) or None, default=None
        Training rows. With them, two thresholds are as far apart as there are rows between them; without, thresholds
        are compared by value.

    Returns
    -------
    Trees
        The kept thresholds part the occurrences of all thresholds as evenly as possible (one that occurs more often
        than an even share counts as one share); every other one moves to the nearest kept one.

    Raises
    ------
    ValueError
        If `max_cuts` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from effml._trees import trees_of
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> trees = trees_of(RandomForestClassifier(10, random_state=0).fit(X, y))
    >>> merged = merge_to_cuts(trees, 4, X)
    >>> [len(np.unique(t.threshold[t.feature == 2])) for t in (trees, merged)]
    [11, 4]
    """
    return drop_implied(with_thresholds(trees, merged_cuts(trees.feature, trees.threshold, max_cuts, X)))


def merged_cuts(feature, threshold, max_cuts, X=None):
    """Return the thresholds (n_splits,) that `merge_to_cuts` gives the splits, numbers that float32 holds."""
    if max_cuts < 1:
        raise ValueError(f"max_cuts must be at least 1, got {max_cuts!r}")
    threshold = float32_cuts(threshold)
    for column, splits in _by_feature(feature):
        distinct, place, occurrences = np.unique(threshold[splits], return_inverse=True, return_counts=True)
        if len(distinct) <= max_cuts:
            continue
        kept = _evenly_spread(occurrences, max_cuts)
        position = distinct if X is None else _ranks(X[:, column], distinct)
        threshold[splits] = distinct[kept[_nearest(position[kept], position)]][place]
    return threshold


def snap_to_quantiles(trees, X, n_cuts, sample_weight=None):
    """Move every threshold to the nearest of at most `n_cuts` quantiles of its column.

    Parameters
    ----------
    trees : Trees
    X : array (n_rows, n_features)
        Training rows; NaN are left out.
    n_cuts : int
        At least 1. A column with at most ``n_cuts + 1`` distinct values is cut between any two of them.
    sample_weight : array (n_rows,) or None, default=None
        Positive.

    Returns
    -------
    Trees
        Every threshold is a value of the training data, the one with the fewest rows between it and the former
        threshold. A value that is more frequent than an even share of the rows is cut off on both sides.

    Raises
    ------
    ValueError
        If `n_cuts` is not positive.
    """
    if n_cuts < 1:
        raise ValueError(f"n_cuts must be at least 1, got {n_cuts!r}")
    threshold = float32_cuts(trees.threshold)
    for feature, splits in _by_feature(trees.feature):
        column = np.asarray(X[:, feature], dtype=np.float32)
        weights = None if sample_weight is None else sample_weight[~np.isnan(column)]
        column = column[~np.isnan(column)]
        cuts = _quantile_cuts(column, n_cuts, weights)
        finite = splits[np.isfinite(threshold[splits])]  # an infinite one asks whether the value is missing
        if len(cuts) and len(finite):
            nearest = _nearest(_ranks(column, cuts), _ranks(column, threshold[finite]))
            threshold[finite] = cuts[nearest]
    return drop_implied(with_thresholds(trees, threshold))


def _by_feature(feature):
    """Yield every feature that is tested, with its splits."""
    for each in np.unique(feature):
        yield each, np.flatnonzero(feature == each)


def _quantile_cuts(values, n_cuts, weights):
    """Return at most `n_cuts` distinct values, never the largest, that part the rows evenly."""
    distinct, place = np.unique(values, return_inverse=True)
    if len(distinct) <= n_cuts + 1:
        return distinct[:-1].astype(np.float64)
    capped, share = _capped(np.bincount(place, weights=weights), n_cuts + 1)
    borders = np.cumsum(capped)[:-1]
    return distinct[np.unique(_nearest(borders, share * np.arange(1, n_cuts + 1)))].astype(np.float64)


def _evenly_spread(weights, n):
    """Return `n` (or fewer) ascending positions in the middle of equal shares of the weights."""
    capped, share = _capped(weights, n)
    return np.unique(np.searchsorted(np.cumsum(capped), share * (np.arange(n) + 0.5)).clip(max=len(weights) - 1))


def _capped(weights, n):
    """Cut weights off at the share s for which the rest sums to n s; return them and s.

    An entry that alone exceeds a share takes one share, the others divide what is left.
    """
    weights = np.asarray(weights, dtype=np.float64)
    heavy = np.zeros(len(weights), dtype=bool)
    while True:
        share = weights[~heavy].sum() / (n - heavy.sum())
        more = weights > share
        if (more == heavy).all():
            return np.minimum(weights, share), share
        heavy = more


def _ranks(column, thresholds):
    """Return how many rows pass ``x <= threshold``, for each threshold."""
    return np.searchsorted(np.sort(np.asarray(column, dtype=np.float32)), thresholds, side="right").astype(np.float64)


def _nearest(grid, values):
    """Return the position in the ascending grid that is nearest to each value, the lower of two equally near."""
    above = np.searchsorted(grid, values).clip(1, max(len(grid) - 1, 1))
    if len(grid) == 1:
        return np.zeros(len(values), dtype=np.int64)
    return np.where(values - grid[above - 1] <= grid[above] - values, above - 1, above)


# -- thresholds that keep the training paths --------------------------------------------------------------------------


def merge_thresholds(trees, X, sigma):
    """Merge thresholds such that a split sends at most a share `sigma` of its training rows another way.

    Parameters
    ----------
    trees : Trees
    X : array (n_rows, n_features)
        Training rows.
    sigma : float
        Share of a split's rows, at least 0 and below 1, that may change sides in each direction. With 0 every
        training row keeps its path.

    Returns
    -------
    Trees
        Per feature as few thresholds as possible. A split that may send all rows one way is replaced by the child
        there, and the other child's leaves are gone.

    Raises
    ------
    ValueError
        If `sigma` is outside [0, 1).

    References
    ----------
    A. Nakamura and K. Sakurada, "An algorithm for reducing the number of distinct branching conditions in a decision
    forest", ECML-PKDD 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from effml._trees import trees_of
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> trees = trees_of(RandomForestClassifier(10, random_state=0).fit(X, y))
    >>> merged = merge_thresholds(trees, X, 0.0)
    >>> len(np.unique(trees.threshold)), len(np.unique(merged.threshold))
    (40, 26)
    """
    if not 0 <= sigma < 1:
        raise ValueError(f"sigma must be at least 0 and below 1, got {sigma!r}")
    low, high, missing = _intervals(trees, np.asarray(X, dtype=np.float32), sigma)
    threshold = np.empty(trees.n_splits)
    for _, splits in _by_feature(trees.feature):
        threshold[splits] = _stab(low[splits], high[splits])
    # A NaN that a split sends the other way still has to get there, so such a split stays.
    side = np.where(threshold == np.inf, 0, np.where(threshold == -np.inf, 1, -1))
    side[missing & (trees.missing_right != (side == 1))] = -1
    return drop_implied(remove_splits(with_thresholds(trees, threshold), side))


def _intervals(trees, X, sigma):
    """Return for every split the thresholds [low, high) it may have, and whether it meets NaN."""
    low, high = np.full(trees.n_splits, -np.inf), np.full(trees.n_splits, np.inf)
    missing = np.zeros(trees.n_splits, dtype=bool)
    for split, left, right in split_rows(trees, X):
        column = X[:, trees.feature[split]]
        x_left, x_right = (values[~np.isnan(values)] for values in (column[left], column[right]))
        missing[split] = len(x_left) + len(x_right) < len(left) + len(right)
        k = int(sigma * (len(x_left) + len(x_right)))
        if len(x_left) > k:
            low[split] = np.partition(x_left, len(x_left) - 1 - k)[len(x_left) - 1 - k]
        if len(x_right) > k:
            high[split] = np.partition(x_right, k)[k]
    return low, high, missing


def _stab(low, high):
    """Return for every interval [low, high) a point in it, as few distinct points as possible."""
    order = np.argsort(low, kind="stable")
    point = np.empty(len(low))
    start, nearest_end = 0, np.inf
    for i, split in enumerate(order):
        if low[split] >= nearest_end:
            point[order[start:i]] = _middle(low[order[i - 1]], nearest_end)
            start, nearest_end = i, np.inf
        nearest_end = min(nearest_end, high[split])
    point[order[start:]] = _middle(low[order[-1]], nearest_end)
    return point


def _middle(low, high):
    return np.inf if high == np.inf else (low + high) / 2


def split_rows(trees, X):
    """Yield every split with the numbers of the rows that it sends left and right.

    Examples
    --------
    >>> import numpy as np
    >>> from effml._trees import Trees
    >>> stump = Trees(np.array([0]), np.array([2.0]), np.array([[~0, ~1]]), np.array([True]), np.array([0]), np.eye(2))
    >>> [(split, left.tolist(), right.tolist()) for split, left, right in split_rows(stump, np.array([[1], [3], [2]]))]
    [(0, [0, 2], [1])]
    """
    columns = np.asfortranarray(X, dtype=np.float32)
    every = np.arange(len(columns))
    rows = dict.fromkeys(trees.roots[trees.roots >= 0].tolist(), every)
    tests = zip(
        trees.feature.tolist(),
        float32_cuts(trees.threshold).tolist(),  # a Python float is compared as the float32 it is
        trees.children.tolist(),
        trees.missing_right.tolist(),
        strict=True,
    )
    for split, (feature, threshold, children, missing_right) in enumerate(tests):
        at = rows.pop(split)
        x = columns[at, feature]
        goes_right = ~(x <= threshold) if missing_right else x > threshold
        sides = at[~goes_right], at[goes_right]
        for child, part in zip(children, sides, strict=True):
            if child >= 0:
                rows[child] = part
        yield split, *sides


# -- splits that part nothing -----------------------------------------------------------------------------------------


def drop_implied(trees):
    """Remove splits whose outcome is known from the splits above them.

    A split ``x <= 5`` below the left side of ``x <= 3`` sends every row left. It stays if a NaN could come there and
    would go right.

    Examples
    --------
    >>> import numpy as np
    >>> from effml._trees import Trees
    >>> children = np.array([[1, ~2], [~0, ~1]])
    >>> feature, missing_right = np.array([0, 0]), np.array([True, True])
    >>> trees = Trees(feature, np.array([3.0, 5.0]), children, missing_right, np.array([0]), np.arange(3.0)[:, None])
    >>> drop_implied(trees).value.ravel().tolist()
    [0.0, 2.0]
    """
    low, high = np.full(trees.n_splits, -np.inf), np.full(trees.n_splits, np.inf)
    may_be_missing = np.ones(trees.n_splits, dtype=bool)
    for split, above, is_right in _ancestors(trees):
        same = trees.feature[above] == trees.feature[split]
        split, above, is_right = split[same], above[same], is_right[same]
        low[split] = np.where(is_right, np.maximum(low[split], trees.threshold[above]), low[split])
        high[split] = np.where(is_right, high[split], np.minimum(high[split], trees.threshold[above]))
        may_be_missing[split] &= trees.missing_right[above] == is_right
    side = np.where(trees.threshold >= high, 0, np.where(trees.threshold <= low, 1, -1))
    only_missing = low >= high
    side[only_missing] = trees.missing_right[only_missing]
    side[may_be_missing & (trees.missing_right != (side == 1))] = -1
    return remove_splits(trees, side)


def _ancestors(trees):
    """Yield, distance by distance, splits with one ancestor each, and whether they are on its right side."""
    parent, on_right = np.full(trees.n_splits, -1), np.zeros(trees.n_splits, dtype=bool)
    for side in (0, 1):
        inner = np.flatnonzero(trees.children[:, side] >= 0)
        parent[trees.children[inner, side]] = inner
        on_right[trees.children[inner, side]] = bool(side)
    split, below = np.flatnonzero(parent >= 0), np.flatnonzero(parent >= 0)
    while len(split):
        yield split, parent[below], on_right[below]
        below = parent[below]
        higher = parent[below] >= 0
        split, below = split[higher], below[higher]


def remove_splits(trees, side):
    """Replace splits by one of their children.

    Parameters
    ----------
    trees : Trees
    side : int array (n_splits,)
        0 or 1: the split gives way to its left or right child, what is below the other one goes; -1: the split stays.

    Returns
    -------
    Trees
    """

    def heir(node):
        node = node.copy()
        while True:
            inner = node >= 0
            inner[inner] = side[node[inner]] >= 0
            if not inner.any():
                return node
            node[inner] = trees.children[node[inner], side[node[inner]]]

    if not len(side) or (np.asarray(side) < 0).all():
        return trees
    roots, children = heir(trees.roots), heir(trees.children)
    splits, leaves = np.zeros(trees.n_splits, dtype=bool), np.zeros(trees.n_leaves, dtype=bool)
    level = roots
    while len(level):
        inner = level[level >= 0]
        splits[inner], leaves[~level[level < 0]] = True, True
        level = children[inner].ravel()
    # Indexed by a node: ~leaf counts from the end.
    renumbered = np.concatenate([np.cumsum(splits) - 1, ~(np.cumsum(leaves) - 1)[::-1]])
    return Trees(
        feature=trees.feature[splits],
        threshold=trees.threshold[splits],
        children=renumbered[children[splits]],
        missing_right=trees.missing_right[splits],
        roots=renumbered[roots],
        value=trees.value[leaves],
    )
