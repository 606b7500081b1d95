"""Exact Shapley values from all 2**n coalitions."""

import numpy as np
from scipy.special import comb

from effml.shapley.estimators._base import Estimate, Plan
from effml.shapley.samplers import all_coalitions

MAX_PLAYERS = 20
_BLOCK = 1 << 14


class ExactPlan(Plan):
    """phi_i = sum over S of v(S) (s - 1)! (n - s)! / n! where i is in S, minus v(S) s! (n - s - 1)! / n! where not."""

    def __init__(self, n_players):
        if n_players > MAX_PLAYERS:
            raise ValueError(f"method 'exact' takes at most {MAX_PLAYERS} players, got {n_players}")
        super().__init__("exact", all_coalitions(n_players))

    def solve(self, values):
        """Return the exact values; their standard errors are 0."""
        n_players = self.coalitions.shape[1]
        sizes = np.arange(n_players + 1)
        with np.errstate(divide="ignore"):
            inside = 1 / (sizes * comb(n_players, sizes))  # (s - 1)! (n - s)! / n!
            outside = 1 / ((n_players - sizes) * comb(n_players, sizes))
        inside[0] = outside[-1] = 0
        total = np.zeros((n_players, values.shape[1]))
        for begin in range(0, len(values), _BLOCK):
            block, present = values[begin : begin + _BLOCK], self.coalitions[begin : begin + _BLOCK]
            size = present.sum(axis=1)
            total += np.where(present, inside[size, None], -outside[size, None]).T @ block
        return Estimate(total, np.zeros_like(total))

    def interactions(self, values):
        """Return Shapley interaction indices (n_players, n_players, n_columns), zeros on the diagonal.

        I_ij = sum over S without i and j of s! (n - s - 2)! / (n - 1)! [v(S + ij) - v(S + i) - v(S + j) + v(S)].
        """
        n_players = self.coalitions.shape[1]
        if n_players < 2:
            return np.zeros((n_players, n_players, values.shape[1]))
        weight = 1 / ((n_players - 1) * comb(n_players - 2, np.arange(n_players - 1)))  # by s
        both, one, none = (np.pad(weight, ends) for ends in ((2, 0), (1, 1), (0, 2)))  # by the size of S + what is in
        pairs = np.zeros((n_players, n_players, values.shape[1]))
        for begin in range(0, len(values), _BLOCK):
            block, present = values[begin : begin + _BLOCK], self.coalitions[begin : begin + _BLOCK].astype(np.float64)
            size = self.coalitions[begin : begin + _BLOCK].sum(axis=1)
            # With z_i, z_j in {0, 1}: z_i z_j (both + 2 one + none) - (z_i + z_j) (one + none) + none.
            square, line, rest = both[size] + 2 * one[size] + none[size], one[size] + none[size], none[size]
            for k in range(values.shape[1]):
                pairs[:, :, k] += (present * (square * block[:, k])[:, None]).T @ present
            lines = (present * line[:, None]).T @ block
            pairs += rest @ block - lines[:, None] - lines[None, :]
        pairs[np.arange(n_players), np.arange(n_players)] = 0
        return pairs


def plan_exact(n_players, budget=None):
    """Return the plan over all coalitions; a budget below 2**n_players is an error."""
    plan = ExactPlan(n_players)
    if budget is not None and budget < len(plan.coalitions):
        raise ValueError(
            f"budget={budget}: method 'exact' evaluates all {len(plan.coalitions)} coalitions of {n_players} players"
        )
    return plan
