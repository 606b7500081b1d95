"""The most accurate estimator that the coalitions allow, told by leave-one-out errors.

A Gaussian process ("gp") had the lowest errors on most games that were measured. Where interactions go no higher than
4, the regression of order 3 is exact once it is determined, and the process is not.
"""

import numpy as np

from effml.shapley.estimators._base import Estimate, Plan, too_small
from effml.shapley.estimators.gp import GaussianProcessPlan
from effml.shapley.estimators.regression import PAIRS_PER_UNKNOWN, RegressionPlan, n_unknowns

MAX_UNKNOWNS = 700
"""Order 3 is tried up to this many unknowns; a decomposition of their matrix then takes a second."""


_CLEARLY = 0.01  # in mean squares: where order 3 is exact, nothing but rounding is left


class AutoPlan(Plan):
    """A Gaussian process and a regression of order 3 on the same coalitions.

    Every row and output takes the one whose leave-one-out predictions of the odd part are closer.

    Parameters
    ----------
    process : GaussianProcessPlan
    regression : RegressionPlan
    """

    def __init__(self, process, regression):
        super().__init__("gp or regression", process.coalitions)
        self._process, self._regression = process, regression

    def solve(self, values):
        """Return the values, which sum to v(all) - v(empty), with the standard errors of the estimator taken."""
        process, of_process = self._process.solve_and_check(values)
        regression, of_regression = self._regression.solve_and_check(values)
        taken = of_regression < _CLEARLY * of_process
        return Estimate(
            np.where(taken, regression.values, process.values),
            np.where(taken, regression.standard_errors, process.standard_errors),
        )


def plan_auto(n_players, budget, seed):
    """Return the plan for the pairs that the budget holds."""
    n_pairs = budget // 2 - 1
    if n_pairs < 1:
        raise too_small("auto", budget, 4, n_players)
    process = GaussianProcessPlan(n_players, n_pairs, seed)
    cubic = n_unknowns(n_players, 3)
    if cubic <= MAX_UNKNOWNS and process.counts.sum() >= PAIRS_PER_UNKNOWN * cubic:
        regression = RegressionPlan(n_players, 3, process.counts, seed)
        if regression.rank == cubic - 1:
            return AutoPlan(process, regression)
    return process
