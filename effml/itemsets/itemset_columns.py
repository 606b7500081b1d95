"""Where the columns of an itemset model come from: a search over all itemsets, and linear terms beside them."""

import numpy as np

from effml.itemsets.evidence import REDUNDANT, Action, add_gain, best_alpha
from effml.itemsets.problem import Items, Problem
from effml.itemsets.search import find_top

__all__ = ["ItemsetColumns"]

FLAT = 1e-12  # precision of the intercept, as the bounds of the search want one; its covariance is that of a flat prior
KEPT = 16  # itemsets of a search that are weighed exactly, and with which the next one starts
EQUAL = 1e-9  # gains closer than this are equal: x <= c and x > c differ by rounding


class ItemsetColumns:
    """The source of itemset columns and of linear terms for :func:`effml.itemsets.evidence.ascend`.

    The model has an intercept with a flat prior, so the active set holds centred columns. The search wants columns of
    0 and 1: it is given the intercept as a column of ones, whose row of the posterior covariance follows from the
    centred one.

    Parameters
    ----------
    items : uint8 array (n_rows, n_items)
    group : int array (n_items,)
        See :class:`effml.itemsets.conditions.ItemTable`.
    linear : float64 array (n_rows, n_linear)
        Values from 0 to 1.
    penalty : float64 array (max_order + 1,)
        What an itemset of k items costs in nats beside the price of any term. A linear term costs what a single item
        does.
    price : callable
        From the number of other terms in use to the price of a term.
    min_support : int
    n_threads : int

    Attributes
    ----------
    keys of the active set : tuple of item numbers for itemsets, int for linear terms
    n_nodes : int
        Itemsets that all searches looked at.
    """

    def __init__(self, items, group, linear, *, penalty, price, min_support, n_threads):
        self.items = Items(items, group)
        self.linear = linear
        self.n_nodes = 0
        self._centred = linear - linear.mean(axis=0)
        self._penalty = penalty
        self._price = price
        self._min_support = min_support
        self._n_threads = n_threads
        self._start = []

    def prices(self, keys, n_active):
        orders = [len(key) if isinstance(key, tuple) else 1 for key in keys]
        return self._penalty[orders] + self._price(n_active)

    def refresh(self, active):
        """Nothing is kept between actions."""

    def changed(self, active, change):
        """Nothing is kept between actions."""

    def column(self, key):
        """Return the values of a column, not centred, float64 (n_rows,)."""
        return self.items.occurrences(key).astype(np.float64) if isinstance(key, tuple) else self.linear[:, key]

    def best_addition(self, active, least):
        """Return the ADD of highest gain, None if it is `least` or lower.

        Of equal gains the linear term, else the itemset of fewest items, then the first in lexicographic order.
        """
        linear = self._best_linear(active, least)
        least = least if linear is None else linear.gain
        best = None
        for itemset in self._search(active, least):
            column = self.column(itemset)
            action = self._action(active, itemset, column - column.mean())  # the search has rounding errors of its sums
            if action is not None and action.gain > (least if best is None else best.gain + EQUAL):
                best = action
        return linear if best is None else best

    def _best_linear(self, active, least):
        best = None
        for j in range(self.linear.shape[1]):
            if j not in active.keys:
                action = self._action(active, j, self._centred[:, j])
                if action is not None and action.gain > (least if best is None else best.gain):
                    best = action
        return best

    def _action(self, active, key, column):
        S, Q = active.statistics(column)
        useful = REDUNDANT * active.beta * (column @ column) < S
        if not useful:
            return None
        gain = float(add_gain(S, Q) - self.prices([key], len(active))[0])
        return Action("add", gain, float(best_alpha(S, Q)), key=key, column=column) if np.isfinite(gain) else None

    def _search(self, active, least):
        """Return the itemsets of highest gain above `least`, the shortest first."""
        if not self.items.n_items:
            return []
        problem = self.problem(active, least)
        found = find_top(problem, KEPT, start=self._start, n_threads=self._n_threads)
        self.n_nodes += found[0].n_nodes if found else 0
        self._start = [one.itemset for one in found]
        return sorted((one.itemset for one in found), key=lambda itemset: (len(itemset), itemset))

    def problem(self, active, least=0.0):
        """Return what the search is to solve, the state of the model as it sees it."""
        is_itemset = np.array([isinstance(key, tuple) for key in active.keys], dtype=bool)
        order = np.argsort(~is_itemset, kind="stable")
        keys = [active.keys[k] for k in order]
        n_itemsets = int(is_itemset.sum())
        n_rows = self.items.n_rows
        itemsets = [np.ones(n_rows, dtype=np.uint8), *(self.items.occurrences(key) for key in keys[:n_itemsets])]
        graded = self.linear[:, keys[n_itemsets:]] if n_itemsets < len(keys) else np.empty((n_rows, 0))
        means = np.array([self.column(key).mean() for key in keys])
        covariance = active.covariance[np.ix_(order, order)]
        return Problem(
            items=self.items,
            u=active.scaled_residual(),
            beta=active.beta,
            active=np.stack(itemsets, axis=1),
            graded=graded,
            covariance=_with_intercept(covariance, means, 1 / (active.beta * n_rows)),
            alpha=np.append(FLAT, active.alpha[order]),
            min_support=self._min_support,
            max_order=len(self._penalty) - 1,
            penalty=self._penalty + self._price(len(keys)),
            min_gain=least,
        )


def _with_intercept(covariance, means, variance):
    """Return the posterior covariance of (intercept, weights) from that of the weights of centred columns.

    intercept = mean of y - means'w + noise of the mean, whose variance is given.
    """
    M = len(means)
    out = np.empty((M + 1, M + 1))
    out[1:, 1:] = covariance
    out[0, 1:] = out[1:, 0] = -covariance @ means
    out[0, 0] = variance + means @ covariance @ means
    return out
