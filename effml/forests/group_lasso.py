"""Linear models over the exits of few snippets: a path of group-lasso solutions, from few snippets to many.

Minimises ``mean_i loss(y_i, sum_j W[exit of row i in snippet j] + b) + penalty * sum_j cost_j ||W_j||_F`` for falling
penalties, each started at the last solution; W_j holds the exits of snippet j. Snippets are visited one after the
other. The rows of a snippet's exits do not overlap, so a quadratic bound on the loss splits into one term an exit, and
the best W_j, b with it, follows from one number. This runs over the snippets in use and those that may come into it,
until none violates the optimality conditions.

Sources: M. Yuan, Y. Lin, "Model selection and estimation in regression with grouped variables", JRSS B 68, 2006;
N. Simon, J. Friedman, T. Hastie, R. Tibshirani, "A blockwise descent algorithm for group-penalized multiresponse and
multinomial regression", arXiv:1311.6529, 2013.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax

from effml._cext.group_lasso import add_exits, descend, sum_exits
from effml.forests.exits import exit_columns

__all__ = ["LOSSES", "PathPoint", "Problem", "group_lasso_path", "largest_penalty", "refit"]

_MAX_PASSES = 40
_LEAST_CURVATURE = 0.1, 1e-4  # of the largest row's, and in all: a row nearly certain may be wrong after a step
_TINY = np.finfo(np.float32).tiny
_TOLERANCE = 0.05  # of the penalty, in how far a pass moves the gradient of any snippet


@dataclass(frozen=True)
class Loss:
    """`mean` maps scores to expected targets m, `start` targets' means to scores, `curvature` m to a bound, for each
    row, on the second derivative there."""

    mean: Callable
    start: Callable
    curvature: Callable


LOSSES = {
    "logistic": Loss(expit, lambda p: np.log(p / (1 - p)), lambda p: (p * (1 - p))[:, 0]),
    # by the sums of the rows of diag(p) - p p'
    "multinomial": Loss(lambda s: softmax(s, axis=1), np.log, lambda p: 2 * (p * (1 - p)).max(axis=1)),
    "squared": Loss(lambda s: s, lambda m: m, lambda m: np.ones(len(m), dtype=m.dtype)),
}


@dataclass(frozen=True)
class PathPoint:
    """One solution: W (n_exits, n_outputs), b (n_outputs,), and which snippets may be used (n_snippets,)."""

    penalty: float
    coef: np.ndarray
    intercept: np.ndarray
    used: np.ndarray


class Problem:
    """Rows, their targets and what snippets cost.

    Parameters
    ----------
    codes : uint8 array (n_samples, n_snippets)
        Exit of each row in each snippet.
    n_exits : int array (n_snippets,)
    target : float32 array (n_samples, n_outputs)
        0 or 1 for "logistic", one-hot rows for "multinomial"; every column has a mean strictly inside 0 and 1.
    cost : array (n_snippets,)
        Positive; what a snippet's norm costs, say the root of its bytes.
    loss : {"logistic", "multinomial", "squared"}
    weights : array (n_samples,), default=None
        Positive.
    """

    def __init__(self, codes, n_exits, target, cost, loss, weights=None):
        weights = np.ones(len(codes)) if weights is None else np.asarray(weights)
        self.codes, self.n_exits = np.asfortranarray(codes, dtype=np.uint8), np.asarray(n_exits)
        self.first = exit_columns(self.n_exits, drop_last=False)
        self.target, self.loss, self.loss_name = target, LOSSES[loss], loss
        self.cost = np.asarray(cost, dtype=np.float64)
        self.weights = (weights / weights.sum()).astype(np.float32)

    def part(self, snippets) -> "Problem":
        """Return the problem with some of the snippets only."""
        rest = (self.n_exits[snippets], self.target, self.cost[snippets], self.loss_name, self.weights)
        return Problem(self.codes[:, snippets], *rest)

    def exits_of(self, snippets):
        """Return the rows of W of some snippets, a mask."""
        mask = np.zeros(len(self.n_exits), dtype=bool)
        mask[snippets] = True
        return np.repeat(mask, self.n_exits)

    def scores(self, coef, intercept):
        """Return what rows get, float32 (n_samples, n_outputs)."""
        out = np.tile(np.asarray(intercept, dtype=np.float32), (len(self.codes), 1))
        add_exits(self.codes, self.first, np.ascontiguousarray(coef, dtype=np.float32), out)
        return out

    def sums(self, rows):
        """Return the sum of the rows that take each exit, float32 (n_exits, n_outputs)."""
        out = np.zeros((self.first[-1], rows.shape[1]), dtype=np.float32)
        sum_exits(self.codes, self.first, rows, out)
        return out

    def residual(self, scores):
        """Return weights * (expected target - target): the gradient of the mean loss in the scores."""
        return self.weights[:, None] * (self.loss.mean(scores) - self.target).astype(np.float32)

    def gradient(self, coef, intercept):
        return self.sums(self.residual(self.scores(coef, intercept)))

    def lengths(self, matrix):
        """Return the norm of each snippet's rows."""
        if not len(self.n_exits):
            return np.zeros(0)
        return np.sqrt(np.add.reduceat((matrix**2).sum(axis=1), self.first[:-1]))

    def empty(self) -> PathPoint:
        """Return the model without snippets."""
        coef = np.zeros((self.first[-1], self.target.shape[1]), dtype=np.float32)
        start = self.loss.start(self.weights @ self.target).astype(np.float32)
        return PathPoint(np.inf, coef, start, np.zeros(len(self.n_exits), dtype=bool))


def largest_penalty(problem) -> float:
    """Return the smallest penalty under which no snippet is used."""
    point = problem.empty()
    gradient = problem.gradient(point.coef, point.intercept)
    return float((problem.lengths(gradient) / problem.cost).max(initial=0.0))


def group_lasso_path(problem, penalties) -> Iterator[PathPoint]:
    """Yield the solution of each of the falling penalties; stop taking them when a model is large enough."""
    point = problem.empty()
    coef, intercept = point.coef, point.intercept
    strength, last = problem.lengths(problem.gradient(coef, intercept)) / problem.cost, None
    for penalty in penalties:
        # that move no faster than the penalty may be left out: the strong rule
        active = (problem.lengths(coef) > 0) | (strength >= (penalty if last is None else 2 * penalty - last))
        while active.any():
            exits, part = problem.exits_of(active), problem.part(np.flatnonzero(active))
            coef[exits], intercept = _descend(part, coef[exits], intercept, penalty, _TOLERANCE * penalty)
            gradient = problem.sums(part.residual(part.scores(coef[exits], intercept)))
            strength = problem.lengths(gradient) / problem.cost
            wrong = ~active & (strength > penalty * (1 + _TOLERANCE))
            if not wrong.any():
                break
            active |= wrong
        last = penalty
        yield PathPoint(float(penalty), coef.copy(), intercept, problem.lengths(coef) > 0)


def refit(problem, point, penalty) -> PathPoint:
    """Return the solution of a smaller penalty that uses no other snippets than a point of the path (relaxed lasso).

    The problem may have other rows than that of the path. Source: N. Meinshausen, "Relaxed lasso", Computational
    Statistics and Data Analysis 52, 2007.
    """
    snippets, coef = np.flatnonzero(point.used), np.zeros_like(point.coef)
    if not len(snippets):
        return PathPoint(float(penalty), coef, problem.empty().intercept, point.used)
    exits, part = problem.exits_of(snippets), problem.part(snippets)
    coef[exits], intercept = _descend(part, point.coef[exits], point.intercept, penalty, _TOLERANCE * point.penalty)
    return PathPoint(float(penalty), coef, intercept, point.used)


def _descend(problem, coef, intercept, penalty, tolerance):
    """Return (coef, intercept) after passes over all snippets, until none moves its gradient by the tolerance."""
    coef = np.ascontiguousarray(coef, dtype=np.float32)
    most, n_outputs = int(problem.n_exits.max()), coef.shape[1]
    scratch, target = np.empty((most + 1, n_outputs), dtype=np.float32), np.empty((most + 1, n_outputs))
    scores, shift = problem.scores(coef, intercept), np.zeros(n_outputs)
    bound = problem.loss.curvature(problem.loss.mean(scores))
    relative, absolute = _LEAST_CURVATURE
    bound = problem.weights * np.maximum(bound, np.float32(max(relative * bound.max(), absolute)))
    mass = problem.sums(bound[:, None])[:, 0].astype(np.float64)
    args = problem.codes, problem.first, bound, mass, penalty * problem.cost, problem.cost
    for n_passes in range(_MAX_PASSES):
        residual = problem.residual(scores)
        moved = residual.copy()
        longest = descend(*args, coef, moved, scratch, target, shift, n_passes == 0)
        scores += (moved - residual) / np.maximum(bound, _TINY)[:, None]
        if longest <= tolerance:
            break
    return coef, (intercept + shift).astype(np.float32)
