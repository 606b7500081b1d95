"""Weighted least squares on pairs (a coalition and its complement), drawn without replacement by leverage.

Shapley values depend only on the odd part g(S) = (v(S) - v(complement)) / 2. With x_j = -1 for players present and +1
for the others, g is fitted by sum over T of w_T prod_{j in T} x_j, T odd, |T| <= order, under
sum of w_T = -(v(all) - v(empty)) / 2; then phi_i = -2 sum over T containing i of w_T / |T|. Order 1 is paired Kernel
SHAP; order 2 adds nothing, since pairs cancel even terms; order 3 is exact where interactions go no higher than 4.

Sources: Musco and Witter, Provably accurate Shapley value estimation via leverage score sampling, ICLR 2025; Fumagalli
et al., arXiv 2602.01399, for odd orders.
"""

from itertools import combinations
from math import comb

import numpy as np

from effml.shapley.estimators._base import Estimate, Plan, odd_part, pair_plan_coalitions, spread_gap, too_small
from effml.shapley.samplers import border_counts, leverage_counts, paired_coalitions, pairs_of_size

PAIRS_PER_UNKNOWN = 1.15
"""Order 3 is taken by default where there are this many pairs an unknown."""

MAX_UNKNOWNS = 3000
"""Order 3 is taken by default up to this many unknowns; a decomposition of their matrix then takes a minute."""

_EXACT = 1e-9  # of a row's leverage left over: below, nothing is left to measure an error with


def n_unknowns(n_players, order):
    """Return the number of odd terms of order at most `order`."""
    return sum(comb(n_players, size) for size in range(1, order + 1, 2))


class RegressionPlan(Plan):
    """Least squares on the odd part, the coefficients reduced to Shapley values; standard errors by jackknife (HC3).

    Parameters
    ----------
    n_players, order : int
    counts : int array
        Pairs by size, see `paired_coalitions`.
    seed : sequence of int

    Attributes
    ----------
    order : int
    rank : int
        Independent rows; one less than the number of terms where all coefficients are determined.
    """

    def __init__(self, n_players, order, counts, seed):
        halves = paired_coalitions(n_players, counts, seed)
        super().__init__("regression", pair_plan_coalitions(halves))
        self.order = order
        size = halves.sum(axis=1)
        drawn = counts[size - 1]
        # Kernel weight over inclusion probability, C(n, size) cancelled; two sides of a pair.
        share = np.where(2 * size == n_players, 0.5, 1.0)
        weight = 2 * share / (size * (n_players - size) * drawn)
        root = np.sqrt(weight / weight.max())
        signs = 1.0 - 2.0 * halves
        columns, self._read_out = _odd_terms(signs, order)
        # The constraint sum(w) = total: eliminate the direction of all ones.
        free = columns - columns.mean(axis=1, keepdims=True)
        left, singular, right = np.linalg.svd(root[:, None] * free, full_matrices=False)
        kept = singular > singular[0] * 1e-10 if len(singular) else np.zeros(0, dtype=bool)
        self.rank = int(kept.sum())
        left, singular, right = left[:, kept], singular[kept], right[kept]
        self._mean_column = columns.mean(axis=1)
        self._fit = (right.T / singular) @ (left.T * root)  # (n_terms, m_pairs)
        self._free = free
        self._rest = rest = 1 - (left**2).sum(axis=1)
        chance = 1 - drawn / pairs_of_size(n_players)[size - 1]  # finite population: nothing is left to chance at 0
        with np.errstate(divide="ignore", invalid="ignore"):
            self._jackknife = np.where(chance > 0, chance / np.where(rest > _EXACT, rest, np.nan) ** 2, 0.0)

    def solve(self, values):
        """Return the values, which sum to v(all) - v(empty)."""
        return self.solve_and_check(values)[0]

    def solve_and_check(self, values):
        """Return the `Estimate`, and the mean squared leave-one-out error of the odd part for every column."""
        gap = values[-1] - values[0]
        total = -gap / 2
        odd = odd_part(values)[1:] - np.outer(self._mean_column, total)
        free = self._fit @ odd  # (n_terms, n_columns)
        estimate = self._read_out @ (free + total / len(free))
        influence = self._read_out @ self._fit  # (n_players, m_pairs)
        residuals = odd - self._free @ free
        errors = np.sqrt(influence**2 @ (self._jackknife[:, None] * residuals**2))
        told = self._rest > _EXACT
        left_out = (
            ((residuals[told] / self._rest[told, None]) ** 2).mean(axis=0) if told.any() else np.full(len(gap), np.inf)
        )
        return Estimate(spread_gap(estimate, gap), errors), left_out


def _odd_terms(signs, order):
    """Return products of signs over odd sets (m_pairs, n_terms), and Shapley values by term (n_players, n_terms)."""
    n_players = signs.shape[1]
    columns, read_out = [signs], [-2 * np.eye(n_players)]
    if order == 3:
        triples = np.array(list(combinations(range(n_players), 3)), dtype=np.int64).reshape(-1, 3)
        columns.append(signs[:, triples[:, 0]] * signs[:, triples[:, 1]] * signs[:, triples[:, 2]])
        member = np.zeros((n_players, len(triples)))
        member[triples.T, np.arange(len(triples))] = -2 / 3
        read_out.append(member)
    return np.concatenate(columns, axis=1), np.concatenate(read_out, axis=1)


def plan_regression(n_players, budget, seed, *, order=None):
    """Return the plan of the given or the best order that the budget determines.

    Raises ValueError where the budget does not determine the coefficients of the given order.
    """
    n_pairs = budget // 2 - 1
    if n_pairs < n_players:
        raise too_small("regression", budget, 2 * n_players + 2, n_players)
    if order is None:
        cubic = n_unknowns(n_players, 3)
        order = 3 if cubic <= MAX_UNKNOWNS and n_pairs >= PAIRS_PER_UNKNOWN * cubic else 1
    if order not in (1, 2, 3):
        raise ValueError(f"order={order!r}: expected 1, 2, 3 or None")
    order = 1 if order == 2 else order
    needed = n_unknowns(n_players, order)
    if n_pairs < needed - 1:
        raise ValueError(
            f"budget={budget}: order {order} has {needed} unknowns for {n_players} players and needs at least "
            f"{2 * needed} coalitions"
        )
    for counts in leverage_counts(n_players, n_pairs), border_counts(n_players, n_pairs):
        plan = RegressionPlan(n_players, order, counts, seed)
        if plan.rank == needed - 1:
            return plan
    # Singletons come first in the last design, so order 1 is always determined.
    raise ValueError(
        f"budget={budget}: the coalitions drawn do not determine the {needed} unknowns of order {order}; "
        "give a larger budget or order=1"
    )
