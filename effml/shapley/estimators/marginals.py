"""Means of marginal contributions: random orders and draws along the diagonal of the multilinear extension.

With E_q the coalition that holds every player with probability q, phi_i = integral over q in [0, 1] of
e_i(q) = E[v(E_q + i) - v(E_q - i)] (G. Owen, Multilinear extensions of games, Management Science 18, 1972).

- "castro": independent random orders (Castro, Gomez, Tejada, Computers and Operations Research 36, 2009).
- "permutation": random orders, each with its reverse.
- "owen", "owen_halved": the rules of Okhrati and Lipani, A multilinear sampling algorithm to estimate Shapley values,
  ICPR 2020: q = k / Q for k = 0, ..., Q with equal weights, `n_repeats` draws each; the halved rule draws for
  k <= Q / 2 and adds complements (not at q = 1/2). Both are biased by O(1 / Q), except where interactions are of order
  2 at most; the halved rule is exact there for odd Q.
- "owen_unbiased": a pair of complements in each of equal parts of [0, 1/2], at a random level; or at Gauss-Legendre
  levels, unbiased when `n_levels` >= n_players / 2. Corrected to sum to v(all) - v(empty).

The paper counts two evaluations a marginal. Here all marginals of one draw take its value and that of every coalition
one player away (n + 1 coalitions), the marginals of an order take its prefixes (n + 1, two shared by all orders), and
no coalition is evaluated twice.
"""

import numpy as np

from effml.shapley.estimators._base import Estimate, Plan, distinct, spread_gap, too_small
from effml.shapley.samplers import draw_at_levels, gauss_levels, jittered_levels, permutations, prefixes


class MarginalPlan(Plan):
    """Weighted mean of units, each the mean of some draws of all marginals.

    Parameters
    ----------
    method : str
    present : bool array (n_units, n_draws, n_players, n_players)
        Coalition with player i (third axis), for each draw of a unit. Without it, it is the other side of the marginal.
    weights : array (n_units,)
        Sum 1.
    strata : int array (n_units,) or None
        Units of one stratum are independent and alike. None: unit k comes from the k-th of equal parts.
    draws : array (n_units, n_draws), optional
        Weights of the draws within the units; by default they are equal.
    efficient : bool
        Whether to correct every unit to the sum v(all) - v(empty).
    """

    def __init__(self, method, present, weights, strata, *, draws=None, efficient=False):
        n_players = present.shape[-1]
        with_i = present.reshape(-1, n_players)
        without_i = with_i & ~np.tile(np.eye(n_players, dtype=bool), (len(with_i) // n_players, 1))
        coalitions, where = distinct(np.concatenate([with_i, without_i]))
        super().__init__(method, coalitions)
        self._with, self._without = where.reshape(2, *present.shape[:3])
        self._weights, self._strata, self._efficient = weights, strata, efficient
        self._draws = np.full(present.shape[:2], 1 / present.shape[1]) if draws is None else draws

    def solve(self, values):
        """Return means of marginals; standard errors come from the spread of the units of one stratum."""
        units = sum(
            self._draws[:, d, None, None] * (values[self._with[:, d]] - values[self._without[:, d]])
            for d in range(self._draws.shape[1])
        )  # (n_units, n_players, n_columns)
        if self._efficient:
            gap = values[-1] - values[0]
            units += ((gap - units.sum(axis=1)) / units.shape[1])[:, None, :]
        estimate = np.tensordot(self._weights, units, axes=1)
        if self._efficient:
            estimate = spread_gap(estimate, gap)
        return Estimate(estimate, np.sqrt(self._variance(units)))

    def _variance(self, units):
        if self._strata is None:  # neighbouring parts differ little but by chance
            steps = np.diff(units, axis=0) if len(units) > 1 else np.full((1, *units.shape[1:]), np.nan)
            return (steps**2).mean(axis=0) / 2 / len(units)
        total = np.zeros(units.shape[1:])
        for stratum in np.unique(self._strata):
            members = self._strata == stratum
            n_members, weight = members.sum(), self._weights[members].sum()
            spread = units[members]
            if n_members == 1:  # the spread over all levels is an upper bound
                spread = units
            total += weight**2 * (spread.var(axis=0, ddof=1) if len(spread) > 1 else np.nan) / n_members
        return total


def _flips(draws):
    """Return [..., i, :] = the draw with player i present."""
    return draws[..., None, :] | np.eye(draws.shape[-1], dtype=bool)


def plan_castro(n_players, budget, seed):
    """Return independent random orders: budget coalitions hold (budget - 2) // (n - 1) of them."""
    n_orders = (budget - 2) // (n_players - 1)
    if n_orders < 1:
        raise too_small("castro", budget, n_players + 1, n_players)
    present = prefixes(permutations(n_players, n_orders, np.random.default_rng([*seed, 1])))
    return MarginalPlan("castro", present[:, None], np.full(n_orders, 1 / n_orders), np.zeros(n_orders, dtype=int))


def plan_permutation(n_players, budget, seed):
    """Return random orders with their reverses: (budget - 2) // (2 (n - 1)) of these pairs."""
    n_pairs = (budget - 2) // (2 * (n_players - 1))
    if n_pairs < 1:
        raise too_small("permutation", budget, 2 * n_players, n_players)
    order = permutations(n_players, n_pairs, np.random.default_rng([*seed, 1]))
    present = np.stack([prefixes(order), prefixes(order[:, ::-1])], axis=1)
    weights = np.full(n_pairs, 1 / n_pairs)
    return MarginalPlan("permutation", present, weights, np.zeros(n_pairs, dtype=int), efficient=True)


def _owen_levels(method, n_players, budget, n_levels, n_repeats):
    """Return Q: as given if the budget holds it, else the largest that it holds."""
    per_level = n_repeats * (n_players + 1)
    ends = 2 * (n_players + 1)  # the draws at q = 0 and q = 1 are always the same
    if n_levels is None:
        n_levels = 1 + (budget - ends) // per_level
        if method == "owen_halved" and n_levels > 1:
            n_levels -= n_levels % 2 == 0  # odd, so that no draw lacks its complement
    least = ends + per_level * max(n_levels - 1, 0)
    if n_levels < 1 or budget < least:
        raise too_small(method, budget, least if n_levels >= 1 else ends, n_players)
    return n_levels


def plan_owen(n_players, budget, seed, *, n_levels=None, n_repeats=2):
    """Return the rule of the paper: levels k / n_levels, k = 0, ..., n_levels, each drawn n_repeats times."""
    n_levels = _owen_levels("owen", n_players, budget, n_levels, n_repeats)
    strata = np.tile(np.arange(n_levels + 1), n_repeats)
    draws = draw_at_levels(strata / n_levels, n_players, np.random.default_rng([*seed, 1]))
    return MarginalPlan("owen", _flips(draws)[:, None], np.full(len(draws), 1 / len(draws)), strata)


def plan_owen_halved(n_players, budget, seed, *, n_levels=None, n_repeats=2):
    """Return the halved rule of the paper: levels up to 1/2 with complements, no complement at 1/2 itself."""
    n_levels = _owen_levels("owen_halved", n_players, budget, n_levels, n_repeats)
    strata = np.tile(np.arange(n_levels // 2 + 1), n_repeats)
    draws = draw_at_levels(strata / n_levels, n_players, np.random.default_rng([*seed, 1]))
    alone = 2 * strata == n_levels
    share = np.where(alone[:, None], [1.0, 0.0], [0.5, 0.5])
    weights = np.where(alone, 1, 2) / (n_repeats * (n_levels + 1))
    # A draw without complement stands twice, the second time with weight 0: it costs nothing.
    mirrored = np.where(alone[:, None], draws, ~draws)
    return MarginalPlan("owen_halved", _flips(np.stack([draws, mirrored], axis=1)), weights, strata, draws=share)


def plan_owen_unbiased(n_players, budget, seed, *, n_levels=None, n_repeats=2):
    """Return pairs of complements at jittered levels, or at the Gauss-Legendre levels when n_levels is given.

    A pair takes 2 (n + 1) coalitions. Jittered: as many as the budget holds, one in each equal part of [0, 1/2].
    Gauss-Legendre: n_repeats pairs a level.
    """
    rng = np.random.default_rng([*seed, 1])
    n_pairs = (budget - 2) // (2 * (n_players + 1))
    if n_levels is None:
        if n_pairs < 1:
            raise too_small("owen_unbiased", budget, 2 * n_players + 4, n_players)
        levels, weights, strata = jittered_levels(n_pairs, rng), np.full(n_pairs, 1 / n_pairs), None
    else:
        nodes, node_weights = gauss_levels(n_levels)
        if n_pairs < len(nodes) * n_repeats:
            least = 2 + 2 * (n_players + 1) * len(nodes) * n_repeats
            raise too_small("owen_unbiased", budget, least, n_players)
        strata = np.repeat(np.arange(len(nodes)), n_repeats)
        levels, weights = nodes[strata], node_weights[strata] / n_repeats
    draws = draw_at_levels(levels, n_players, rng)
    present = _flips(np.stack([draws, ~draws], axis=1))
    return MarginalPlan("owen_unbiased", present, weights / weights.sum(), strata, efficient=True)
