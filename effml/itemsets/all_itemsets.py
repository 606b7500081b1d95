"""The prior of all itemsets at once: what a sparse model left out, as a Gaussian process.

Let every itemset J of any order have a weight with variance tau^2 theta^|J|. Two rows share the itemsets made of the
items that hold in both, so the covariance of the sums over all itemsets is, with c(x, x') common items,

    k(x, x') = tau^2 sum_k C(c(x, x'), k) theta^k = tau^2 (1 + theta)^c(x, x'),

which up to a constant factor is exp(-gamma d(x, x')), d the number of items that hold in x but not in x'. A numeric
column cut everywhere, with items on both sides of each cut, has d proportional to the difference of the ranks; a
categorical one d = 1 between different levels. Derivation ours; numbers of itemsets never matter.
"""

import numpy as np
from scipy.spatial.distance import cdist

__all__ = ["ItemCoordinates"]


class ItemCoordinates:
    """Coordinates of rows between which the L1 distance is the share of items not in common, summed over the columns.

    Parameters
    ----------
    reference : list of arrays
        Of each column the values that its ranks are taken from, repeats counted; NaN is left out.
    categorical : bool array (n_features,)

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[0.0, 1.0], [5.0, 1.0], [9.0, 2.0]])
    >>> items = ItemCoordinates(list(rows.T), np.array([False, True]))
    >>> items.distances(items.of(rows), items.of(rows)).tolist()
    [[0.0, 0.5, 2.0], [0.5, 0.0, 1.5], [2.0, 1.5, 0.0]]
    """

    def __init__(self, reference, categorical):
        self.columns = []
        for values, has_levels in zip(reference, categorical, strict=True):
            known = ~np.isnan(values)
            distinct, counts = np.unique(values[known], return_counts=True)
            self.columns.append((distinct, None if has_levels else _mid_ranks(counts), not known.all()))

    def of(self, rows):
        """Return the coordinates of rows, float64 (n, n_coordinates).

        A missing value lies in the middle of a numeric column, and half a unit away from the others if the reference
        has missing values; so it does in a categorical one, always.
        """
        parts = []
        matrix = np.asarray(rows, dtype=np.float64)
        for (distinct, position, gaps), column in zip(self.columns, matrix.T, strict=True):
            missing = np.isnan(column)
            if position is None:
                parts += [0.5 * (column == level) for level in distinct]
            else:
                parts.append(np.where(missing, 0.5, np.interp(column, distinct, position) if len(distinct) else 0.5))
            if gaps:
                parts.append(0.5 * missing)
        return np.stack(parts, axis=1)

    @staticmethod
    def distances(one, other):
        """Return the distances between coordinates, float64 (n, m)."""
        return cdist(one, other, "cityblock")


def _mid_ranks(counts):
    """Return the mid-ranks of values, scaled to 0..1."""
    ranks = np.cumsum(counts) - counts / 2
    span = ranks[-1] - ranks[0] if len(ranks) else 0.0
    return (ranks - ranks[0]) / span if span > 0 else np.full(len(counts), 0.5)
