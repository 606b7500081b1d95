"""Linear models over the exits of few snippets: a path of group-lasso solutions, from few snippets to many.

Minimises ``mean_i loss(y_i, sum_j W[exit of row i in snippet j] + b) + penalty * sum_j cost_j ||W_j||_F`` for falling
penalties, each started at the last solution; W_j holds the exits of snippet j, the last one 0. Accelerated proximal
steps run over the snippets in use and those that violate the optimality conditions most, until none does.

Sources: M. Yuan, Y. Lin, "Model selection and estimation in regression with grouped variables", JRSS B 68, 2006;
A. Beck, M. Teboulle, "A fast iterative shrinkage-thresholding algorithm", SIAM J. Imaging Sciences 2, 2009.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit, softmax

from effml.forests.exits import exit_columns, one_hot

__all__ = ["LOSSES", "PathPoint", "Problem", "group_lasso_path", "largest_penalty", "refit"]

_MAX_STEPS = 300
_NEW_SNIPPETS = 20  # and half as many as are used, may join at a time
_TOLERANCE = 0.05  # of the penalty, in the length of the proximal gradient of any snippet
_POWER_STEPS = 15


@dataclass(frozen=True)
class Loss:
    """`mean` maps scores to expected targets; `start` targets' means to scores; `curvature` bounds its derivative."""

    mean: callable
    start: callable
    curvature: float


LOSSES = {
    "logistic": Loss(expit, lambda p: np.log(p / (1 - p)), 0.25),
    "multinomial": Loss(lambda s: softmax(s, axis=1), np.log, 0.5),
    "squared": Loss(lambda s: s, lambda m: m, 1.0),
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

    Scores are taken without the weighted mean of W over the rows, so that the intercept stays apart from W.

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
    """

    def __init__(self, codes, n_exits, target, cost, loss, weights=None):
        weights = np.ones(len(codes)) if weights is None else np.asarray(weights)
        self.codes, self.n_exits = codes, np.asarray(n_exits)
        self.first = exit_columns(self.n_exits, drop_last=False)
        self.free = np.delete(np.arange(self.first[-1]), self.first[1:] - 1)  # exits that are not the last one
        self.target, self.loss, self.loss_name = target, LOSSES[loss], loss
        self.cost = np.asarray(cost, dtype=np.float64)
        self.weights = (weights / weights.sum()).astype(np.float32)

    @cached_property
    def columns(self):
        """One-hot exits without the last ones: a dense product beats adding rows of W up to some 30 outputs."""
        return one_hot(self.codes, self.n_exits, drop_last=True, dtype=np.float32)

    @cached_property
    def mean(self):
        return self.transposed_times(self.weights[:, None])[:, 0]

    def part(self, snippets) -> "Problem":
        """Return the problem with some of the snippets only."""
        rest = (self.n_exits[snippets], self.target, self.cost[snippets], self.loss_name, self.weights)
        return Problem(self.codes[:, snippets], *rest)

    def exits_of(self, snippets):
        """Return the rows of W of some snippets."""
        mask = np.zeros(len(self.n_exits), dtype=bool)
        mask[snippets] = True
        return np.repeat(mask, self.n_exits)

    def times(self, coef):
        return self.columns @ coef[self.free]

    def transposed_times(self, matrix):
        out = np.zeros((self.first[-1], matrix.shape[1]), dtype=np.float32)
        out[self.free] = self.columns.T @ matrix
        return out

    def residual(self, coef, intercept):
        """Return weights * (expected target - target): the gradient of the mean loss in the scores."""
        scores = self.times(coef) + (intercept - self.mean @ coef)
        return self.weights[:, None] * (self.loss.mean(scores) - self.target).astype(np.float32)

    def gradient(self, residual):
        return self.transposed_times(residual) - np.outer(self.mean, residual.sum(axis=0))

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

    def largest_eigenvalue(self):
        """Return an upper estimate for the centred, weighted one-hot exits, by power iteration."""
        v = (np.random.default_rng(0).random(self.first[-1]) + 0.5).astype(np.float32)
        norm = 1.0
        for _ in range(_POWER_STEPS):
            u = self.weights * (self.times(v[:, None])[:, 0] - self.mean @ v)
            v = self.transposed_times(u[:, None])[:, 0] - self.mean * u.sum()
            norm = float(np.linalg.norm(v))
            if norm == 0:
                return 1e-12
            v /= norm
        return 1.1 * norm


def largest_penalty(problem) -> float:
    """Return the smallest penalty under which no snippet is used."""
    point = problem.empty()
    gradient = problem.gradient(problem.residual(point.coef, point.intercept))
    return float((problem.lengths(gradient) / problem.cost).max(initial=0.0))


def group_lasso_path(problem, penalties) -> Iterator[PathPoint]:
    """Yield the solution of each of the falling penalties; stop taking them when a model is large enough."""
    point = problem.empty()
    coef, intercept = point.coef, point.intercept
    gradient = problem.gradient(problem.residual(coef, intercept))
    for penalty in penalties:
        first = True
        while True:
            used = problem.lengths(coef) > 0
            strength = problem.lengths(gradient) / problem.cost
            wrong = np.flatnonzero(~used & (strength > penalty * (1 + _TOLERANCE)))
            if not len(wrong) and not (first and used.any()):
                break
            joining = wrong[np.argsort(-strength[wrong])[: _NEW_SNIPPETS + used.sum() // 2]]
            active = np.union1d(np.flatnonzero(used), joining)
            exits = problem.exits_of(active)
            part = problem.part(active)
            coef[exits], intercept = _descend(part, coef[exits], intercept, penalty, _TOLERANCE * penalty)
            gradient = problem.gradient(part.residual(coef[exits], intercept))
            first = False
        yield PathPoint(float(penalty), coef.copy(), intercept - problem.mean @ coef, problem.lengths(coef) > 0)


def refit(problem, point, penalty) -> PathPoint:
    """Return the solution of a smaller penalty that uses no other snippets than a point of the path (relaxed lasso).

    The problem may have other rows than that of the path. Source: N. Meinshausen, "Relaxed lasso", Computational
    Statistics and Data Analysis 52, 2007.
    """
    snippets, coef = np.flatnonzero(point.used), np.zeros_like(point.coef)
    if not len(snippets):
        return PathPoint(float(penalty), coef, problem.empty().intercept, point.used)
    exits, part = problem.exits_of(snippets), problem.part(snippets)
    start = (point.intercept + part.mean @ point.coef[exits]).astype(np.float32)
    coef[exits], intercept = _descend(part, point.coef[exits], start, penalty, _TOLERANCE * point.penalty)
    return PathPoint(float(penalty), coef, intercept - part.mean @ coef[exits], point.used)


def _descend(problem, coef, intercept, penalty, tolerance):
    """Return (coef, intercept) after accelerated proximal steps over all snippets, restarted when they turn back."""
    step = 1.0 / (problem.loss.curvature * problem.largest_eigenvalue())
    intercept_step = 1.0 / problem.loss.curvature
    at, at_intercept, momentum = coef, intercept, 1.0
    for _ in range(_MAX_STEPS):
        residual = problem.residual(at, at_intercept)
        moved = at - np.float32(step) * problem.gradient(residual)
        moved_intercept = at_intercept - np.float32(intercept_step) * residual.sum(axis=0)
        shrunk = np.maximum(0, 1 - penalty * step * problem.cost / np.maximum(problem.lengths(moved), 1e-30))
        moved *= np.repeat(shrunk.astype(np.float32), problem.n_exits)[:, None]
        off = problem.lengths(moved - at).max() / (step * problem.cost.min())
        if np.vdot(at - moved, moved - coef) > 0:
            momentum = 1.0
        next_momentum = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = np.float32((momentum - 1) / next_momentum)
        at = moved + ahead * (moved - coef)
        at_intercept = moved_intercept + ahead * (moved_intercept - intercept)
        coef, intercept, momentum = moved, moved_intercept, next_momentum
        if off <= tolerance:
            break
    return coef, intercept
