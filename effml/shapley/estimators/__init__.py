"""Estimators of Shapley values: each plans which coalitions to evaluate, and turns their values into estimates."""

import numpy as np

from effml.shapley.estimators._base import Estimate, Plan
from effml.shapley.estimators.auto import plan_auto
from effml.shapley.estimators.exact import MAX_PLAYERS, plan_exact
from effml.shapley.estimators.gp import plan_gp
from effml.shapley.estimators.marginals import (
    plan_castro,
    plan_owen,
    plan_owen_halved,
    plan_owen_unbiased,
    plan_permutation,
)
from effml.shapley.estimators.regression import plan_regression
from effml.shapley.estimators.surrogate import plan_surrogate

__all__ = ["METHODS", "Estimate", "Plan", "default_budget", "make_plan"]

METHODS = (
    "auto",
    "exact",
    "castro",
    "permutation",
    "owen",
    "owen_halved",
    "owen_unbiased",
    "regression",
    "gp",
    "surrogate",
)

_ENUMERATES = ("auto", "regression", "gp", "surrogate")


def default_budget(n_players):
    """Return the number of coalitions taken by default: 40 a player, at least 512, at most all."""
    return min(max(40 * n_players, 512), 2**n_players)


def make_plan(method, n_players, budget, seed, *, order=None, n_levels=None, n_repeats=2):
    """Return the plan of a method.

    Parameters
    ----------
    method : str
        One of `METHODS`. "auto", "regression", "gp" and "surrogate" are exact where all 2**n_players coalitions (of
        at most 20 players) fit the budget. Else "auto" is "gp" with a kernel for every column, or for up to 17 players
        and where the budget holds it the "regression" of order 3 on the same coalitions, where that has a far lower
        leave-one-out error.
    n_players : int
    budget : int or None
        Distinct coalitions to evaluate at most, the empty and the full one included.
    seed : sequence of int
    order : {1, 2, 3}, optional
        Of "regression" and "surrogate".
    n_levels, n_repeats : int, optional
        Of the Owen estimators.

    Returns
    -------
    plan : Plan
        Its `method` names the estimator that was taken.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(map(repr, METHODS))}")
    if n_players <= 1 or method == "exact":
        return plan_exact(n_players, budget if n_players > 1 else None)
    if budget is None:
        budget = default_budget(n_players) if n_levels is None else np.iinfo(np.int64).max
    if method in _ENUMERATES and n_players <= MAX_PLAYERS and 2**n_players <= budget:
        return plan_exact(n_players)
    if method == "regression":
        return plan_regression(n_players, budget, seed, order=order)
    if method == "surrogate":
        return plan_surrogate(n_players, budget, seed, order=order)
    if method in _SAMPLED:
        return _SAMPLED[method](n_players, budget, seed)
    return _LEVELS[method](n_players, budget, seed, n_levels=n_levels, n_repeats=n_repeats)


_SAMPLED = {"auto": plan_auto, "gp": plan_gp, "castro": plan_castro, "permutation": plan_permutation}
_LEVELS = {"owen": plan_owen, "owen_halved": plan_owen_halved, "owen_unbiased": plan_owen_unbiased}
