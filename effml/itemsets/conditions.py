"""Items: conditions on single columns, learned from a table, and the itemsets that join them.

Every column gives a row a code. A numeric column is cut: its code is the number of cuts below the value. A categorical
column has the number of the level. A missing value or an unknown level has the code -1. An item is a set of codes of
one column; -1 is in none, so an item never holds where nothing is known.
"""

import math
from dataclasses import dataclass

import numpy as np
from sklearn.tree import DecisionTreeRegressor

from effml._text import interval_text
from effml.discretization._cuts import cut_between

__all__ = ["ItemTable", "condition_text", "joined_conditions", "learn_items", "quantile_cuts", "tree_cuts"]


@dataclass(frozen=True, eq=False)
class ItemTable:
    """The items of a table.

    Attributes
    ----------
    cuts : list of float64 arrays, one a column
        Ascending; empty for categorical columns.
    binary : bool array (n_features,)
        Columns of 0 and 1, whose only item is 1.
    feature : int array (n_items,)
        The column of each item.
    group : int array (n_items,)
        No itemset has two items of one group: levels of a categorical column, bins, or cuts from the same side.
    holds : list of bool arrays, one an item
        Over the codes of the column and, last, the code -1.
    """

    cuts: list
    binary: np.ndarray
    feature: np.ndarray
    group: np.ndarray
    holds: list

    def codes(self, matrix):
        """Return the codes of a matrix (n_rows, n_features) of numbers and level numbers, as int64."""
        codes = np.empty(matrix.shape, dtype=np.int64)
        for j, cuts in enumerate(self.cuts):
            column = matrix[:, j]
            known = ~np.isnan(column)
            if len(cuts):
                codes[:, j] = np.where(known, np.searchsorted(cuts, column, side="left"), -1)
            else:
                codes[:, j] = np.where(known, column, -1)
        return codes

    def matrix(self, codes):
        """Return which item holds on which row, uint8 (n_rows, n_items)."""
        out = np.empty((len(codes), len(self.holds)), dtype=np.uint8, order="F")
        for k, (feature, holds) in enumerate(zip(self.feature, self.holds, strict=True)):
            out[:, k] = holds[codes[:, feature]]
        return out

    def subset(self, kept):
        """Return the table of some items, given by number."""
        return ItemTable(self.cuts, self.binary, self.feature[kept], self.group[kept], [self.holds[k] for k in kept])


def learn_items(matrix, y, categories, *, cuts, encoding, n_bins, min_support):
    """Learn the items of a table.

    Parameters
    ----------
    matrix : float64 array (n_rows, n_features)
        Numbers, and level numbers of categorical columns; NaN where missing.
    y : float64 array (n_rows,)
    categories : list of (array or None), one a column
        The levels of categorical columns, None for numeric ones.
    cuts : {"quantile", "tree"}
    encoding : {"thermometer", "onehot"}
    n_bins : int
    min_support : int
        Items that hold, or do not hold, on fewer rows are left out.

    Returns
    -------
    ItemTable
    matrix : uint8 array (n_rows, n_items)
        Which item holds on which row.
    """
    learned, features, groups, holds = [], [], [], []
    binary = np.zeros(len(categories), dtype=bool)
    for j, levels in enumerate(categories):
        column = matrix[:, j]
        edges, sets = np.empty(0), []
        if levels is not None:
            sets = [(2 * j, codes) for codes in np.eye(len(levels), dtype=bool)]
        elif np.isin(column, (0.0, 1.0, np.nan)).all() or np.isnan(column).all():
            binary[j] = True
            edges = np.array([0.5])
            sets = [(2 * j, np.array([False, True]))]
        else:
            edges = _cuts_of(column, y, cuts, n_bins, min_support)
            sets = [(2 * j + side, codes) for side, codes in _interval_items(len(edges), encoding)]
        learned.append(edges)
        for group, codes in sets:
            features.append(j)
            groups.append(group)
            holds.append(np.append(codes, False))
    table = ItemTable(learned, binary, np.array(features, dtype=np.intp), np.array(groups, dtype=np.intp), holds)
    items = table.matrix(table.codes(matrix))
    support = items.sum(axis=0, dtype=np.int64)
    kept = np.flatnonzero((support >= min_support) & (len(items) - support >= min_support))
    return table.subset(kept), items[:, kept]


def _cuts_of(column, y, how, n_bins, min_support):
    known = ~np.isnan(column)
    if how == "tree":
        return tree_cuts(column[known], y[known], n_bins, min_support)
    return quantile_cuts(column[known], n_bins)


def _interval_items(n_cuts, encoding):
    """Yield (side, codes) of the items of a column with this many cuts."""
    codes = np.arange(n_cuts + 1)
    if n_cuts == 0:
        return
    if encoding == "onehot":
        for code in codes:
            yield 0, codes == code
        return
    for cut in range(n_cuts):
        yield 0, codes <= cut
        yield 1, codes > cut


def quantile_cuts(column, n_bins):
    """Return up to ``n_bins - 1`` ascending cuts that share the values out evenly.

    Parameters
    ----------
    column : float64 array (n,)
        Finite.
    n_bins : int

    Returns
    -------
    float64 array

    Examples
    --------
    >>> import numpy as np
    >>> quantile_cuts(np.array([1.0, 1.0, 2.0, 3.0, 4.0, 7.25]), 3).tolist()
    [1.5, 3.5]
    """
    levels, counts = np.unique(column, return_counts=True)
    if len(levels) <= n_bins:
        below = np.arange(len(levels) - 1)
    else:
        wanted = len(column) * np.arange(1, n_bins) / n_bins
        before = np.cumsum(counts)[:-1]  # rows at or below each level but the last
        nearest = np.abs(before[None, :] - wanted[:, None]).argmin(axis=1)
        below = np.unique(nearest)
    return np.array([_short_cut(levels[k], levels[k + 1]) for k in below], dtype=np.float64)


def tree_cuts(column, y, n_bins, min_support):
    """Return up to ``n_bins - 1`` ascending cuts: the splits of a regression tree grown on the column, best first."""
    if len(column) < 2 * min_support:
        return np.empty(0)
    tree = DecisionTreeRegressor(max_leaf_nodes=max(2, n_bins), min_samples_leaf=min_support, random_state=0)
    tree = tree.fit(column[:, None], y).tree_
    levels = np.unique(column)
    above = np.searchsorted(levels, np.unique(tree.threshold[tree.children_left >= 0]), side="right")
    above = np.unique(np.clip(above, 1, len(levels) - 1)) if len(levels) > 1 else []
    return np.array([_short_cut(levels[k - 1], levels[k]) for k in above], dtype=np.float64)


def _short_cut(a, b):
    """Return a cut with a <= cut < b of few decimals, near the middle; as float32 numbers too."""
    middle, quarter = cut_between(float(a), float(b)), (float(b) - float(a)) / 4
    with np.errstate(over="ignore", under="ignore"):
        a32, b32 = np.float32(a), np.float32(b)
        for digits in range(-8, 9):
            short = round(middle, digits)
            if a <= short < b and abs(short - middle) <= quarter and (a32 >= b32 or a32 <= np.float32(short) < b32):
                return short + 0.0
    return middle


def joined_conditions(table, itemset):
    """Return the itemset as ``[(feature, codes), ...]`` by feature, the items of one feature joined into one set.

    Parameters
    ----------
    table : ItemTable
    itemset : sequence of int
    """
    joined = {}
    for item in itemset:
        feature, holds = int(table.feature[item]), table.holds[item][:-1]
        joined[feature] = joined[feature] & holds if feature in joined else holds
    return sorted(joined.items())


def condition_text(name, codes, cuts, levels):
    """Return a condition on one column as text.

    Examples
    --------
    >>> import numpy as np
    >>> condition_text("age", np.array([False, True, False]), np.array([20.0, 60.0]), None)
    '20 < age <= 60'
    >>> condition_text("town", np.array([True, False]), None, np.array(["Oslo", "Rome"]))
    'town = Oslo'
    """
    inside = np.flatnonzero(codes)
    if levels is not None:
        shown = [str(level) for level in levels[inside].tolist()]
        return f"{name} = {shown[0]}" if len(shown) == 1 else f"{name} in {{{', '.join(shown)}}}"
    low = cuts[inside[0] - 1] if inside[0] > 0 else -math.inf
    high = cuts[inside[-1]] if inside[-1] < len(cuts) else math.inf
    return interval_text(name, low, high)
