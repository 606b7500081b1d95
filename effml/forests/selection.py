"""Which snippets to keep, and with which weights, so that the model fits a budget of bytes.

A group lasso over the snippets' exits, whose penalty on a snippet grows with the root of its bytes, gives a path from
few snippets to many. Of the models on it that fit the budget, each also with its weights fitted again under a smaller
penalty, the one that does best on held-out rows is taken and its weights are fitted to all rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from effml.forests.exits import one_hot
from effml.forests.group_lasso import LOSSES, PathPoint, group_lasso_path, largest_penalty, refit
from effml.forests.weights import ExitValues, exit_values, fit_linear_model

__all__ = ["Model", "Task", "select", "weigh_all"]

_PENALTIES = np.geomspace(0.6, 1e-3, 30)  # of the largest useful one
_RELAXED = (1.0, 0.1)  # penalty of the final weights, as a share of the one that chose the snippets
_MAX_ROWS = 8_000  # that choose the snippets; all rows fit the final weights
_MAX_COLUMNS = 3000
_TRIED_POINTS = 6  # the largest models that fit
_OVERSHOOT = 1.3  # how far past the budget the path goes before it stops
_SPLIT_BYTES = 3.0


@dataclass(frozen=True)
class Task:
    """What is learned.

    Attributes
    ----------
    loss : {"logistic", "multinomial", "squared"}
    target : float32 array (n_samples, n_outputs)
    y : array (n_samples,)
        Class numbers or standardised values: what `linear_model` is fitted to.
    weights : float64 array (n_samples,) or None
    linear_model : estimator or None
        Fits the final weights; None leaves that to the group lasso.
    weight_bits : {8, 16}
    score : callable
        ``score(scores, rows)``: how good scores (n_rows, n_outputs) are for some rows; larger is better.
    """

    loss: str
    target: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None
    linear_model: object
    weight_bits: int
    score: Callable

    def rows(self, rows) -> tuple:
        """Return the target and the weights of some rows."""
        return self.target[rows], None if self.weights is None else self.weights[rows]


@dataclass(frozen=True)
class Model:
    """Chosen snippets (numbers, ascending), their integer values, and how good they were on held-out rows."""

    snippets: np.ndarray
    values: ExitValues
    score: float
    linear_model: object = None


def select(codes, n_exits, task, *, budget_bytes, measure, train, held_out) -> Model:
    """Choose snippets and weights.

    Parameters
    ----------
    codes : uint8 array (n_samples, n_snippets)
        Exit of each row in each snippet, most useful snippets first.
    n_exits : int array (n_snippets,)
    task : Task
    budget_bytes : int
    measure : callable
        ``measure(numbers, values)``: flash bytes of a model.
    train, held_out : int arrays
        Rows.

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        If not even the model without snippets fits the budget.
    """
    return _Selection(codes, np.asarray(n_exits), task, budget_bytes, measure, train, held_out).run()


class _Selection:
    def __init__(self, codes, n_exits, task, budget_bytes, measure, train, held_out):
        n_kept = int(np.searchsorted(np.cumsum(n_exits - 1), _MAX_COLUMNS, side="right"))
        self.codes, self.n_exits, self.task = codes[:, :n_kept], n_exits[:n_kept], task
        self.budget_bytes, self.measure, self.train, self.held_out = budget_bytes, measure, train, held_out
        self.groups = np.repeat(np.arange(n_kept), self.n_exits - 1)
        n_outputs = task.target.shape[1]
        # a split and its share of the values, relative to a stump of one output
        n_values = self.n_exits - (n_outputs > 1)
        self.cost = np.sqrt((self.n_exits - 1) * _SPLIT_BYTES + n_values * n_outputs * task.weight_bits / 8)
        self.cost /= np.sqrt(_SPLIT_BYTES + 2)

    def run(self) -> Model:
        best, best_point, points = None, None, list(self._points())
        for point in points[-_TRIED_POINTS:]:
            for model, share in self._weighted(point):
                if best is None or model.score > best.score:
                    best, best_point = model, (point, share)
        if best is None:
            raise ValueError(
                f"budget_bytes={self.budget_bytes} is less than the {self._smallest_bytes()} bytes of a model without "
                "any snippet; give more"
            )
        return self._on_all_rows(*best_point, best.score)

    # -- candidates ---------------------------------------------------------------------------------------------------

    def _points(self):
        """Yield the points of the path that fit, then the first one that does not, cut down until it does."""
        Z = self._columns(self.train[:_MAX_ROWS])
        target, weights = self.task.rows(self.train[:_MAX_ROWS])
        arguments = (Z, target, self.groups, self.cost, self.task.loss)
        if not len(self.n_exits):
            yield self._without_snippets()
            return
        penalties = largest_penalty(*arguments, weights) * _PENALTIES
        for point in group_lasso_path(*arguments, penalties, weights):
            bytes_ = self._bytes(point)
            if bytes_ <= self.budget_bytes:
                yield point
            elif bytes_ <= _OVERSHOOT * self.budget_bytes:
                yield from self._cut_down(point)
            else:
                yield from self._cut_down(point)
                return

    def _without_snippets(self):
        target, weights = self.task.rows(self.train)
        coef = np.zeros((len(self.groups), target.shape[1]), dtype=np.float32)
        start = LOSSES[self.task.loss].start(np.average(target, axis=0, weights=weights))
        return PathPoint(0.0, coef, start, np.zeros(len(self.n_exits), dtype=bool))

    def _cut_down(self, point):
        """Yield the point with as many of its snippets, the weightiest for their bytes first, as fit."""
        norms = np.sqrt(np.bincount(self.groups, (point.coef**2).sum(axis=1), minlength=len(self.cost))) / self.cost
        order = np.argsort(-norms, kind="stable")[: point.used.sum()]
        low, high = 0, len(order)
        while low + 1 < high:
            middle = (low + high) // 2
            if self._bytes(self._restricted(point, order[:middle])) <= self.budget_bytes:
                low = middle
            else:
                high = middle
        if low:
            yield self._restricted(point, order[:low])

    def _restricted(self, point, snippets):
        used = np.zeros_like(point.used)
        used[snippets] = True
        return PathPoint(point.penalty, np.where(used[self.groups, None], point.coef, 0), point.intercept, used)

    def _weighted(self, point):
        """Yield (model, share) for each way to weight the snippets of a point, scored on the held-out rows."""
        numbers = np.flatnonzero(point.used)
        codes = self.codes[np.ix_(self.held_out, numbers)]
        for share in (None,) if self.task.linear_model is not None else _RELAXED:
            values, fitted = self._values(point, share, self.train[:_MAX_ROWS])
            if self.measure(numbers, values) <= self.budget_bytes:
                score = self.task.score(values.scores(codes, self.n_exits[numbers]), self.held_out)
                yield Model(numbers, values, score, fitted), share

    def _on_all_rows(self, point, share, score) -> Model:
        numbers = np.flatnonzero(point.used)
        values, fitted = self._values(point, share, np.arange(len(self.codes)))
        while self.measure(numbers, values) > self.budget_bytes:  # other weights may need a few bytes more
            point = self._restricted(point, numbers[:-1])
            numbers = numbers[:-1]
            values, fitted = self._values(point, share, np.arange(len(self.codes)))
        return Model(numbers, values, score, fitted)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _columns(self, rows, numbers=slice(None)):
        n_exits = self.n_exits[numbers]
        return one_hot(self.codes[rows][:, numbers], n_exits, drop_last=True, dtype=np.float32)

    def _values(self, point, share, rows):
        """Return (integer values, fitted linear model or None) of a point's snippets on some rows."""
        numbers = np.flatnonzero(point.used)
        mine = point.used[self.groups]
        target, weights = self.task.rows(rows)
        n_exits = self.n_exits[numbers]
        if not len(numbers):
            return exit_values(point.coef[mine], point.intercept, n_exits, self.task.weight_bits), None
        Z = self._columns(rows, numbers)
        if share is None:
            model, *weighing = fit_linear_model(self.task.linear_model, Z, self.task.y[rows], target.shape[1], weights)
            return exit_values(*weighing, n_exits, self.task.weight_bits), model
        small = PathPoint(point.penalty, point.coef[mine], point.intercept, np.ones(len(numbers), dtype=bool))
        groups = np.searchsorted(numbers, self.groups[mine])
        fitted = refit(Z, target, groups, self.cost[numbers], self.task.loss, small, share * point.penalty, weights)
        return exit_values(fitted.coef, fitted.intercept, n_exits, self.task.weight_bits), None

    def _bytes(self, point):
        numbers = np.flatnonzero(point.used)
        mine = point.used[self.groups]
        values = exit_values(point.coef[mine], point.intercept, self.n_exits[numbers], self.task.weight_bits)
        return self.measure(numbers, values)

    def _smallest_bytes(self):
        return self._bytes(self._without_snippets())


def weigh_all(codes, n_exits, task, train, held_out) -> Model:
    """Weigh every snippet by the linear model of the task, scored on the held-out rows, then fitted to all."""
    Z, n_outputs = one_hot(codes, n_exits, drop_last=True, sparse=True), task.target.shape[1]

    def fitted(rows):
        weights = None if task.weights is None else task.weights[rows]
        model, *weighing = fit_linear_model(task.linear_model, Z[rows], task.y[rows], n_outputs, weights)
        return model, exit_values(*weighing, n_exits, task.weight_bits)

    _, values = fitted(train)
    score = task.score(values.scores(codes[held_out], n_exits), held_out)
    model, values = fitted(np.arange(len(codes)))
    return Model(np.arange(len(n_exits)), values, score, model)
