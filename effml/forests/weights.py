"""What each exit of a snippet adds to the scores: from a linear model over one-hot exits to integers."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from sklearn.base import clone

from effml._cext.snippets import sum_values
from effml.forests.exits import exit_columns, one_hot

__all__ = ["ExitValues", "exit_values", "fit_linear_model"]

_LARGEST_INTERCEPT = 2.0**28  # leaves room for the sum in 32 bits


@dataclass(frozen=True, eq=False)
class ExitValues:
    """``score = (intercept + sum of the exits' values) * 2 ** -exponent``.

    Attributes
    ----------
    values : int array (n_exits, n_outputs)
        Exits of all snippets behind each other.
    intercept : int64 array (n_outputs,)
    exponent : int
    """

    values: np.ndarray
    intercept: np.ndarray
    exponent: int

    def sums(self, codes, n_exits, n_threads=1):
        """Return the integer sums, int64 (n_rows, n_outputs), of rows with these exit codes (n_rows, n_snippets)."""
        if codes.shape[1] != len(n_exits) or (len(codes) and (codes >= np.asarray(n_exits)).any()):
            raise ValueError(f"codes of shape {codes.shape} do not number the exits of {len(n_exits)} snippets")
        total = np.tile(self.intercept.astype(np.int64), (len(codes), 1))
        sum_values(codes, exit_columns(n_exits, drop_last=False), self.values.astype(np.int32), total, n_threads)
        return total

    def scores(self, codes, n_exits):
        """Return the sums as numbers, float64 (n_rows, n_outputs)."""
        return np.ldexp(self.sums(codes, n_exits).astype(np.float64), -self.exponent)


def exit_values(coef, intercept, n_exits, weight_bits) -> ExitValues:
    """Round what exits add to integers of one scale.

    Parameters
    ----------
    coef : array (n_exits, n_outputs)
        Exits of all snippets behind each other.
    intercept : array (n_outputs,)
    n_exits : int array (n_snippets,)
    weight_bits : {8, 16}

    Returns
    -------
    ExitValues

    Notes
    -----
    The values of a snippet may be shifted together, against the intercept. A single output is centred, so that the
    largest is as small as it can be; of several outputs one exit becomes zero, which all snippets store once.
    """
    n_exits = np.asarray(n_exits)
    first = exit_columns(n_exits, drop_last=False)
    values = np.array(coef, dtype=np.float64)
    shift = _shifts(values, first)
    values -= np.repeat(shift, n_exits, axis=0)
    intercept = np.asarray(intercept, dtype=np.float64) + shift.sum(axis=0)
    largest = np.abs(values).max(initial=0.0)
    exponent = _exponent(2 ** (weight_bits - 1) - 1, largest)
    exponent = min(exponent, _exponent(_LARGEST_INTERCEPT, np.abs(intercept).max(initial=0.0)))
    dtype = np.int8 if weight_bits == 8 else np.int16
    return ExitValues(
        np.rint(np.ldexp(values, exponent)).astype(dtype),
        np.rint(np.ldexp(intercept, exponent)).astype(np.int64),
        exponent,
    )


def _shifts(values, first):
    """Return what to subtract from the values of each snippet (n_snippets, n_outputs)."""
    shift = np.empty((len(first) - 1, values.shape[1]))
    for snippet, (a, b) in enumerate(itertools.pairwise(first)):
        exits = values[a:b]
        if values.shape[1] == 1:
            shift[snippet] = (exits.max() + exits.min()) / 2
        else:
            shift[snippet] = exits[np.argmin(np.abs(exits[:, None] - exits).max(axis=(0, 2)))]
    return shift


def _exponent(limit, largest) -> int:
    """Return the largest exponent up to 60 with ``largest * 2 ** exponent <= limit``."""
    if not largest:
        return 20
    return min(math.floor(math.log2(limit / largest)), 60)


def fit_linear_model(model, codes, n_exits, y, n_outputs, weights=None):
    """Fit a copy of a scikit-learn linear model to one-hot exits, without each snippet's last.

    Returns
    -------
    model : fitted estimator
    coef : float64 array (n_exits, n_outputs)
        What each exit adds, 0 for the last ones.
    intercept : float64 array (n_outputs,)

    Raises
    ------
    TypeError
        If the fitted model has neither `coef_` nor `feature_log_prob_`, or one of another shape.
    """
    model, Z = clone(model), one_hot(codes, n_exits, drop_last=True, sparse=True)
    model.fit(Z, y, **({} if weights is None else {"sample_weight": weights}))
    if hasattr(model, "coef_"):
        coef, intercept = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    elif hasattr(model, "feature_log_prob_"):  # multinomial naive Bayes is linear in the counts
        coef, intercept = model.feature_log_prob_, model.class_log_prior_
        if n_outputs == 1:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
    else:
        raise TypeError(f"linear_model={model!r} has no coef_ after fit; give a linear model of scikit-learn")
    if coef.shape != (n_outputs, Z.shape[1]):
        raise TypeError(
            f"linear_model={model!r} has weights of shape {coef.shape}; {n_outputs} outputs of {Z.shape[1]} columns "
            "are needed (one-vs-rest or multinomial)"
        )
    values = np.zeros((int(np.sum(n_exits)), n_outputs))
    last = np.cumsum(n_exits) - 1
    values[np.delete(np.arange(len(values)), last)] = coef.T
    return model, values, np.broadcast_to(intercept, (n_outputs,)).astype(np.float64)
