"""Linear models that use few groups of columns: a path of group-lasso solutions, from few groups to many.

Minimises ``mean_i loss(y_i, x_i W + b) + penalty * sum_g cost_g ||W_g||_F`` for falling penalties, each started at the
last solution. Accelerated proximal steps run over the groups in use and those that violate the optimality conditions
most, until none does.

Sources: M. Yuan, Y. Lin, "Model selection and estimation in regression with grouped variables", JRSS B 68, 2006;
A. Beck, M. Teboulle, "A fast iterative shrinkage-thresholding algorithm", SIAM J. Imaging Sciences 2, 2009.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax

__all__ = ["LOSSES", "PathPoint", "group_lasso_path", "largest_penalty", "refit"]

_MAX_STEPS = 300
_NEW_GROUPS = 20  # and half as many as are used, may join at a time
_TOLERANCE = 0.05  # of the penalty, in the length of the proximal gradient of any group
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
    """One solution: W (n_columns, n_outputs) with b (n_outputs,), and which groups may be used (n_groups,)."""

    penalty: float
    coef: np.ndarray
    intercept: np.ndarray
    used: np.ndarray


class _Problem:
    """Columns without their weighted means, so that the intercept stays apart from the weights."""

    def __init__(self, Z, target, weights, groups, cost, loss):
        self.Z, self.target, self.loss = Z, target, LOSSES[loss]
        self.weights = (weights / weights.sum()).astype(np.float32)
        self.groups, self.cost = groups, np.asarray(cost, dtype=np.float64)
        self.mean = self.weights @ Z

    def residual(self, scores):
        """Return weights * (expected target - target): the gradient of the mean loss in the scores."""
        return self.weights[:, None] * (self.loss.mean(scores) - self.target).astype(np.float32)

    def scores(self, coef, intercept, columns):
        return self.Z[:, columns] @ coef + (intercept - self.mean[columns] @ coef)

    def gradient(self, residual):
        return self.Z.T @ residual - np.outer(self.mean, residual.sum(axis=0))

    def norms(self, matrix):
        squares = np.bincount(self.groups, (matrix**2).sum(axis=1), minlength=len(self.cost))
        return np.sqrt(squares) / self.cost


def _start_of(problem):
    """Return the intercept of the empty model and the gradient there."""
    mean = problem.weights @ problem.target
    intercept = problem.loss.start(mean).astype(np.float32)
    scores = np.broadcast_to(intercept, problem.target.shape)
    return intercept, problem.gradient(problem.residual(scores))


def largest_penalty(Z, target, groups, cost, loss, weights=None) -> float:
    """Return the smallest penalty under which no group is used; arguments as in `group_lasso_path`."""
    weights = np.ones(len(Z)) if weights is None else weights
    problem = _Problem(Z, target, weights, groups, cost, loss)
    return float(problem.norms(_start_of(problem)[1]).max())


def group_lasso_path(Z, target, groups, cost, loss, penalties, weights=None) -> Iterator[PathPoint]:
    """Yield the solution of each penalty; stop taking them when a model is large enough.

    Parameters
    ----------
    Z : float32 array (n_samples, n_columns)
    target : float32 array (n_samples, n_outputs)
        0 or 1 for "logistic", one-hot rows for "multinomial"; every column has a mean strictly inside 0 and 1.
    groups : int array (n_columns,)
        Group of each column, 0 .. n_groups - 1.
    cost : array (n_groups,)
        Positive; what a group's norm costs, say the root of its bytes.
    loss : {"logistic", "multinomial", "squared"}
    penalties : sequence of float
        Falling.
    weights : array (n_samples,), default=None

    Yields
    ------
    PathPoint
    """
    weights = np.ones(len(Z)) if weights is None else weights
    problem = _Problem(Z, target, weights, groups, cost, loss)
    intercept, gradient = _start_of(problem)
    coef = np.zeros((Z.shape[1], target.shape[1]), dtype=np.float32)
    first = True  # step at this penalty
    for penalty in penalties:
        while True:
            used, strength = problem.norms(coef) > 0, problem.norms(gradient)
            wrong = np.flatnonzero(~used & (strength > penalty * (1 + _TOLERANCE)))
            if not len(wrong) and not (first and used.any()):
                break
            active = used.copy()
            active[wrong[np.argsort(-strength[wrong])[: _NEW_GROUPS + used.sum() // 2]]] = True
            columns = np.flatnonzero(active[groups])
            coef[columns], intercept = _descend(
                problem, coef[columns], intercept, columns, penalty, _TOLERANCE * penalty
            )
            gradient = problem.gradient(problem.residual(problem.scores(coef[columns], intercept, columns)))
            first = False
        first = True
        yield PathPoint(float(penalty), coef.copy(), intercept - problem.mean @ coef, problem.norms(coef) > 0)


def refit(Z, target, groups, cost, loss, point, penalty, weights=None) -> PathPoint:
    """Return the solution of a smaller penalty that uses no other groups than a point of the path (relaxed lasso).

    Source: N. Meinshausen, "Relaxed lasso", Computational Statistics and Data Analysis 52, 2007. Arguments as in
    `group_lasso_path`; Z may have other rows than those of the path.
    """
    weights = np.ones(len(Z)) if weights is None else weights
    problem = _Problem(Z, target, weights, groups, cost, loss)
    columns, coef = np.flatnonzero(point.used[groups]), np.zeros_like(point.coef)
    intercept = (point.intercept + problem.mean @ point.coef).astype(np.float32)
    if len(columns):
        tolerance = _TOLERANCE * point.penalty
        coef[columns], intercept = _descend(problem, point.coef[columns], intercept, columns, penalty, tolerance)
    return PathPoint(float(penalty), coef, intercept - problem.mean @ coef, point.used)


def _descend(problem, coef, intercept, columns, penalty, tolerance):
    """Return (coef, intercept) of some columns after accelerated proximal steps, restarted when they turn back."""
    Z, mean = np.ascontiguousarray(problem.Z[:, columns]), problem.mean[columns]
    members = problem.groups[columns]
    present, local = np.unique(members, return_inverse=True)
    cost = problem.cost[present]
    step = 1.0 / (problem.loss.curvature * _largest_eigenvalue(Z, mean, problem.weights))
    intercept_step = 1.0 / problem.loss.curvature
    at, at_intercept, momentum = coef, intercept, 1.0
    for _ in range(_MAX_STEPS):
        residual = problem.residual(Z @ at + (at_intercept - mean @ at))
        total = residual.sum(axis=0)
        moved = at - step * (Z.T @ residual - np.outer(mean, total))
        moved_intercept = at_intercept - intercept_step * total
        norms = np.sqrt(np.bincount(local, (moved**2).sum(axis=1)))
        shrunk = np.maximum(0, 1 - penalty * step * cost / np.maximum(norms, 1e-30))
        moved *= shrunk[local, None].astype(np.float32)
        off = np.sqrt(np.bincount(local, ((moved - at) ** 2).sum(axis=1))).max() / (step * cost.min())
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


def _largest_eigenvalue(Z, mean, weights):
    """Return an upper estimate for the centred, weighted columns, by power iteration."""
    v = np.random.default_rng(0).random(Z.shape[1]).astype(np.float32) + np.float32(0.5)
    norm = 1.0
    for _ in range(_POWER_STEPS):
        u = weights * (Z @ v - mean @ v)
        v = Z.T @ u - mean * u.sum()
        norm = float(np.linalg.norm(v))
        if norm == 0:
            return 1e-12
        v /= norm
    return 1.1 * norm
