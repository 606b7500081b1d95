"""A plan: which coalitions to evaluate, and how their values become Shapley values with standard errors.

Plans do not depend on the values, so all rows and all outputs share one: values are columns.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Estimate:
    """Shapley values and standard errors, both (n_players, n_columns); a standard error of NaN is unknown."""

    values: np.ndarray
    standard_errors: np.ndarray


class Plan:
    """Base of all plans.

    Attributes
    ----------
    method : str
        The estimator that was used.
    coalitions : bool array (m, n_players)
        Distinct; the first is empty, the last holds all players.
    """

    def __init__(self, method, coalitions):
        self.method = method
        self.coalitions = coalitions

    def solve(self, values):
        """Return the `Estimate` from the values of the coalitions, float64 (m, n_columns)."""
        raise NotImplementedError


def distinct(coalitions):
    """Return the distinct coalitions, the empty one first and the full one last, and where each given one went."""
    n_players = coalitions.shape[1]
    ends = np.stack([np.zeros(n_players, dtype=bool), np.ones(n_players, dtype=bool)])
    packed = np.packbits(np.concatenate([ends, coalitions]), axis=1)
    _, first, inverse = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    # np.unique sorts by bytes: all zero comes first and all ones last.
    return np.concatenate([ends, coalitions])[first], inverse.ravel()[2:]


def pair_plan_coalitions(halves):
    """Return empty, the halves, their complements in reverse order, and full: row i and row -1 - i are a pair."""
    n_players = halves.shape[1]
    halves = np.concatenate([np.zeros((1, n_players), dtype=bool), halves])
    return np.concatenate([halves, ~halves[::-1]])


def odd_part(values):
    """Return (v(S) - v(complement)) / 2 for the pairs of `pair_plan_coalitions`, the pair (empty, full) first."""
    half = len(values) // 2
    return (values[:half] - values[: half - 1 : -1]) / 2


def spread_gap(values, gap):
    """Return values (n_players, n_columns) moved by equal amounts so that they sum to gap (n_columns,)."""
    return values + (gap - values.sum(axis=0)) / len(values)


def too_small(method, budget, least, n_players):
    """Return the error for a budget under the minimum of a method."""
    return ValueError(f"budget={budget}: method {method!r} needs at least {least} coalitions for {n_players} players")
