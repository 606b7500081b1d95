"""Which snippets to keep, and with which weights, so that the model fits a budget of bytes.

A group lasso over the snippets' exits, whose penalty on a snippet may grow with its bytes, gives a path from few
snippets to many. Of those that fit the budget, the largest and the best are weighed again, under the same and a smaller
penalty; the one that does best on held-out rows is taken and its weights are fitted to all rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from effml.forests.group_lasso import PathPoint, Problem, group_lasso_path, largest_penalty, refit
from effml.forests.weights import ExitValues, exit_values, fit_linear_model

__all__ = ["Model", "Task", "select", "weigh_all"]

_PENALTIES = np.geomspace(0.6, 1e-3, 30)  # of the largest useful one
_RELAXED = (1.0, 0.1)  # penalty of the final weights, as a share of the one that chose the snippets
_MAX_ROWS = 6_000  # that choose the snippets; all rows fit the final weights
_LARGEST, _BEST = 3, 3  # models that fit, of which the weights are fitted again
_OVERSHOOT = 1.3  # how far past the budget the path goes before it stops
_SPLIT_BYTES = 3.0
_COST_EXPONENTS = (0.0, 0.5, 1.0)  # of a snippet's bytes: the smaller, the larger the snippets; data decide


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

    def problem(self, codes, n_exits, cost, rows) -> Problem:
        """Return the group lasso over some rows."""
        weights = None if self.weights is None else self.weights[rows]
        return Problem(codes[rows], n_exits, self.target[rows], cost, self.loss, weights)

    def fit_linear_model(self, codes, n_exits, rows):
        """Return (integer values, fitted linear model)."""
        weights = None if self.weights is None else self.weights[rows]
        n_outputs = self.target.shape[1]
        fitted, coef, intercept = fit_linear_model(
            self.linear_model, codes[rows], n_exits, self.y[rows], n_outputs, weights
        )
        return exit_values(coef, intercept, n_exits, self.weight_bits), fitted


@dataclass(frozen=True)
class Model:
    """Chosen snippets (numbers, ascending), their integer values, and how good they were on held-out rows."""

    snippets: np.ndarray
    values: ExitValues
    score: float
    linear_model: object = None


def select(codes, n_exits, task, *, budgets, measure, train, held_out) -> list[Model]:
    """Choose snippets and weights for each budget; one path serves them all.

    Parameters
    ----------
    codes : uint8 array (n_samples, n_snippets)
        Exit of each row in each snippet.
    n_exits : int array (n_snippets,)
    task : Task
    budgets : sequence of int
        Bytes.
    measure : callable
        ``measure(numbers, values)``: flash bytes of a model.
    train, held_out : int arrays
        Rows.

    Returns
    -------
    list of Model

    Raises
    ------
    ValueError
        If not even the model without snippets fits the smallest budget.
    """
    return _Selection(codes, n_exits, task, budgets, measure, train, held_out).run()


def weigh_all(codes, n_exits, task, train, held_out) -> Model:
    """Weigh every snippet by the linear model of the task, fitted to all rows.

    The score is that of the same, fitted to the training rows; NaN without `held_out`.
    """
    score = np.nan
    if held_out is not None:
        values, _ = task.fit_linear_model(codes, n_exits, train)
        score = task.score(values.scores(codes[held_out], n_exits), held_out)
    values, fitted = task.fit_linear_model(codes, n_exits, np.arange(len(codes)))
    return Model(np.arange(len(n_exits)), values, score, fitted)


class _Selection:
    def __init__(self, codes, n_exits, task, budgets, measure, train, held_out):
        self.codes, self.n_exits, self.task = codes, n_exits, task
        self.budgets, self.measure, self.train, self.held_out = budgets, measure, train[:_MAX_ROWS], held_out
        n_outputs = task.target.shape[1]
        # a split and its share of the values
        n_values = n_exits - (n_outputs > 1)
        self.n_bytes = (n_exits - 1) * _SPLIT_BYTES + n_values * n_outputs * task.weight_bits / 8

    def run(self) -> list[Model]:
        best = [None] * len(self.budgets)
        for exponent in _COST_EXPONENTS:
            self.cost = (self.n_bytes / self.n_bytes.min(initial=np.inf)) ** exponent
            self.problem = self.task.problem(self.codes, self.n_exits, self.cost, self.train)
            self.tried, self.scores, found = {}, {}, self._points()  # by the ids of the points that `found` holds
            for k, points in enumerate(found):
                for point in self._promising(points):
                    for model, share, n_bytes in self._weighted(point):
                        if n_bytes <= self.budgets[k] and (best[k] is None or model.score > best[k][0].score):
                            best[k] = model, point, share, self.cost
        if None in best:
            raise ValueError(
                f"budget_bytes={min(self.budgets)} is less than the {self._bytes(self.problem.empty())} bytes of a "
                "model without any snippet; give more"
            )
        return [self._on_all_rows(*found, budget) for found, budget in zip(best, self.budgets, strict=True)]

    # -- candidates ---------------------------------------------------------------------------------------------------

    def _points(self):
        """Return for each budget the empty model, the path as far as it fits, and larger models cut down to fit."""
        empty = self.problem.empty()
        found, is_open = [[empty] for _ in self.budgets], np.ones(len(self.budgets), dtype=bool)
        for point in group_lasso_path(self.problem, largest_penalty(self.problem) * _PENALTIES):
            n_bytes = self._bytes(point)
            for k in np.flatnonzero(is_open):
                if n_bytes <= self.budgets[k]:
                    found[k].append(point)
                    continue
                found[k] += self._cut_down(point, self.budgets[k])
                is_open[k] = n_bytes <= _OVERSHOOT * self.budgets[k]
            if not is_open.any():
                break
        return found

    def _promising(self, points):
        """Return the largest models and, of the others, those that do best on the held-out rows as they are."""
        others, largest = points[:-_LARGEST], points[-_LARGEST:]
        return sorted(others, key=self._score_as_is, reverse=True)[:_BEST] + largest

    def _score_as_is(self, point):
        if id(point) not in self.scores:
            self.scores[id(point)] = self._score(np.flatnonzero(point.used), self._rounded(point))
        return self.scores[id(point)]

    def _cut_down(self, point, budget):
        """Yield the point with as many of its snippets, the weightiest for their bytes first, as fit."""
        order = np.argsort(-self.problem.lengths(point.coef) / self.cost, kind="stable")[: point.used.sum()]
        low, high = 0, len(order)
        while low + 1 < high:
            middle = (low + high) // 2
            if self._bytes(self._restricted(point, order[:middle])) <= budget:
                low = middle
            else:
                high = middle
        if low:
            yield self._restricted(point, order[:low])

    def _restricted(self, point, snippets):
        used = np.zeros_like(point.used)
        used[snippets] = True
        coef = np.where(self.problem.exits_of(snippets)[:, None], point.coef, np.float32(0))
        return PathPoint(point.penalty, coef, point.intercept, used)

    def _weighted(self, point):
        """Return (model, share, bytes) for each way to weigh the snippets of a point, scored on the held-out rows."""
        if id(point) not in self.tried:
            self.tried[id(point)] = [
                self._scored(point, share) for share in ((None,) if self.task.linear_model is not None else _RELAXED)
            ]
        return self.tried[id(point)]

    def _scored(self, point, share):
        numbers = np.flatnonzero(point.used)
        values, fitted = self._values(point, share, self.problem, self.train)
        return Model(numbers, values, self._score(numbers, values), fitted), share, self.measure(numbers, values)

    def _score(self, numbers, values):
        codes = self.codes[np.ix_(self.held_out, numbers)]
        return self.task.score(values.scores(codes, self.n_exits[numbers]), self.held_out)

    def _on_all_rows(self, model, point, share, cost, budget) -> Model:
        rows = np.arange(len(self.codes))
        whole = self.task.problem(self.codes, self.n_exits, cost, rows)
        while True:
            numbers = np.flatnonzero(point.used)
            values, fitted = self._values(point, share, whole, rows)
            if not len(numbers) or self.measure(numbers, values) <= budget:
                return Model(numbers, values, model.score, fitted)
            point = self._restricted(point, numbers[:-1])  # other weights may need a few bytes more

    # -- parts --------------------------------------------------------------------------------------------------------

    def _values(self, point, share, problem, rows):
        """Return (integer values, fitted linear model or None) of a point's snippets; `problem` holds the rows."""
        numbers = np.flatnonzero(point.used)
        if share is None and len(numbers):
            return self.task.fit_linear_model(self.codes[:, numbers], self.n_exits[numbers], rows)
        return self._rounded(refit(problem, point, (share or 0.0) * point.penalty)), None

    def _rounded(self, point):
        exits = self.problem.exits_of(np.flatnonzero(point.used))
        return exit_values(point.coef[exits], point.intercept, self.n_exits[point.used], self.task.weight_bits)

    def _bytes(self, point):
        return self.measure(np.flatnonzero(point.used), self._rounded(point))
