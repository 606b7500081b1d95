"""Regression, boosted trees on what it leaves, their exact Shapley values, and regression on what the trees leave.

Trees see the values less those of the additive game of the first regression: they are poor at straight lines.

A tree over coalitions is a sum of games, one a leaf: the leaf of value c is reached where the players A of its path are
present and the players B absent. With a = |A|, b = |B|, it gives each player of A the amount c (a - 1)! b! / (a + b)!
and takes from each player of B the amount c a! (b - 1)! / (a + b)!.

After Witter, Liu and Musco, Regression-adjusted Monte Carlo estimators for Shapley values, arXiv 2506.11849.
"""

import numpy as np
from scipy.special import beta
from sklearn.ensemble import GradientBoostingRegressor

from effml._trees import trees_of
from effml.shapley.estimators._base import Estimate, Plan
from effml.shapley.estimators.regression import plan_regression

N_TREES = 150
MAX_DEPTH = 4
LEARNING_RATE = 0.1


class SurrogatePlan(Plan):
    """The coalitions of a regression; one boosted model for each column of values.

    Standard errors are those of the regression on residuals of held-out halves: the model that is used has seen all
    coalitions, so its residuals are too small to tell.
    """

    def __init__(self, regression, seed):
        super().__init__("surrogate", regression.coalitions)
        self._regression = regression
        self._seed = seed

    def solve(self, values):
        """Return exact values of the trees plus regression on the residuals; they sum to v(all) - v(empty)."""
        folds = self._folds()
        phi = self._regression.solve(values).values
        values = values - values[0] - self.coalitions @ phi
        residuals, held_out = np.empty_like(values), np.empty_like(values)
        for column, target in enumerate(values.T):
            model = self._fit(self.coalitions, target)
            phi[:, column] += tree_values(trees_of(model), self.coalitions.shape[1])
            residuals[:, column] = target - model.predict(self.coalitions)
            for fold in (0, 1):
                rest = folds != fold
                half = self._fit(self.coalitions[rest], target[rest])
                held_out[~rest, column] = target[~rest] - half.predict(self.coalitions[~rest])
        rest = self._regression.solve(residuals)
        return Estimate(phi + rest.values, self._regression.solve(held_out).standard_errors)

    def _folds(self):
        """Return 0 or 1 for every coalition, the same for the two of a pair."""
        half = len(self.coalitions) // 2
        folds = np.random.default_rng([*self._seed, 2]).permutation(half) % 2
        return np.concatenate([folds, folds[::-1]])

    def _fit(self, coalitions, target):
        model = GradientBoostingRegressor(
            n_estimators=N_TREES, max_depth=MAX_DEPTH, learning_rate=LEARNING_RATE, random_state=self._seed[0]
        )
        return model.fit(coalitions, target)


def tree_values(trees, n_players):
    """Return the Shapley values of a sum of trees over coalitions, (n_players,).

    Parameters
    ----------
    trees : Trees
        Features are players; a coalition goes right where the player is present. One output.
    n_players : int
    """
    present = np.zeros((trees.n_splits, n_players), dtype=bool)  # on the path to a split
    absent = np.zeros_like(present)
    # Leaves that are whole trees give no player anything.
    phi = np.zeros(n_players)
    level = trees.roots[trees.roots >= 0]
    while len(level):
        below = []
        for side in (0, 1):
            inside, outside = present[level].copy(), absent[level].copy()
            (inside if side else outside)[np.arange(len(level)), trees.feature[level]] = True
            child = trees.children[level, side]
            leaf = child < 0
            phi += _leaf_values(inside[leaf], outside[leaf], trees.value[~child[leaf], 0])
            inner = child[~leaf]
            present[inner], absent[inner] = inside[~leaf], outside[~leaf]
            below.append(inner)
        level = np.concatenate(below)
    return phi


def _leaf_values(inside, outside, value):
    a, b = inside.sum(axis=1), outside.sum(axis=1)
    possible = ~(inside & outside).any(axis=1)
    value = np.where(possible, value, 0.0)
    # (a - 1)! b! / (a + b)! = B(a, b + 1); infinite for a = 0, where there is no player to give to.
    gain = np.where(a > 0, beta(np.maximum(a, 1), b + 1), 0.0) * value
    loss = np.where(b > 0, beta(a + 1, np.maximum(b, 1)), 0.0) * value
    return inside.T @ gain - outside.T @ loss


def plan_surrogate(n_players, budget, seed, *, order=None):
    """Return the plan on the coalitions of `plan_regression`, which also fits the residuals, with the same order."""
    return SurrogatePlan(plan_regression(n_players, budget, seed, order=order), seed)
