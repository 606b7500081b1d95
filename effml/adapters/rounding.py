"""How far float32 rounding can take a lowered linear model or network from Python's `predict`, row by row.

Running error analysis: beside every number goes a bound on its error and one on the size of what was added up to it.
Both the C, whose weights hold the scalers, and Python, which may compute in float32 as well, are counted.

Source: N. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, SIAM 2002, sections 3.1 to 3.3.
"""

import numpy as np

from effml.adapters.layers import is_layered, read_layers
from effml.program.buffers import RAW, Buffer
from effml.program.frame import Column, Frame, LoweringError
from effml.program.steps import Bin

__all__ = ["column_errors", "rounding_bound"]

_UNIT = 2.0**-24  # largest relative rounding error of one float32 operation
_SIGMOID = 8 * _UNIT  # absolute error of a logistic function in float32, ours and scipy's together
_EXP = 8 * _UNIT  # relative error of exp


def rounding_bound(est, X) -> np.ndarray:
    """Return how far C and Python may lie apart, float64 (n_rows, n_outputs): scores of classifiers, else values.

    A label can be another one only where the best score leads the next (or 0, for two classes) by at most the sum of
    both bounds.

    Parameters
    ----------
    est : fitted linear model or network of scikit-learn, or a Pipeline or search that ends in one
    X : array or DataFrame (n_rows, n_features)
        Numbers are rounded to float32 first.

    Raises
    ------
    LoweringError
        For other estimators.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from effml.adapters.rounding import rounding_bound
    >>> X, y = load_iris(return_X_y=True)
    >>> bound = rounding_bound(LogisticRegression(max_iter=500).fit(X, y), X)
    >>> bound.shape, bool(0 < bound.max() < 1e-4)
    ((150, 3), True)
    """
    from effml.export import frame_of, lower

    rows = lower(est).encode(X)
    _, frame, final = frame_of(est)
    if not is_layered(final):
        raise LoweringError(f"rounding_bound takes linear models and networks, got {type(final).__name__}")
    layers = read_layers(final)
    value, size, error = column_errors(frame, rows)
    for number, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True), start=1):
        absolute, n = np.abs(weight), len(weight)
        size = size @ absolute + np.abs(bias)
        value, error = value @ weight + bias, error @ absolute + 2 * (n + 4) * _UNIT * size
        if number < layers.n_layers:
            value, size, error = _activated(layers.activation, value, size, error)
    if layers.link == "exp":
        return np.exp(value) * (np.expm1(error) + _EXP * np.exp(error))
    return error


def column_errors(frame, rows):
    """Return the value of each column of the frame, the size of its parts, and a bound on its error, float64."""
    value, size, error = (np.zeros((len(rows), len(frame.columns))) for _ in range(3))
    for k, column in enumerate(frame.columns):
        if column.is_discrete:
            states = Bin.of([column.bin_part()], Buffer("state", "u16", 1), inputs=(RAW,)).run(rows)[:, 0]
            value[:, k] = column.values[states]
            size[:, k] = np.abs(value[:, k])
            continue
        scale, offset = column.affine
        raw = rows[:, column.source].astype(np.float64)
        value[:, k] = raw * scale + offset
        size[:, k], n_scalers = np.abs(raw), 0
        for transformer, position, _ in column.links:
            scale, offset = _affine(frame, transformer, position)
            size[:, k] = np.abs(scale) * size[:, k] + np.abs(offset)
            n_scalers += 1
        error[:, k] = 4 * n_scalers * _UNIT * size[:, k]
    return value, size, error


def _affine(frame: Frame, transformer, position):
    """Return scale and offset that a lowered scaler gives one of its columns."""
    alone = frame.with_columns(Column(k) for k in range(transformer.n_features_in_))
    return alone.through(transformer).columns[position].affine


def _activated(activation, value, size, error):
    """Return value, size and error behind an activation; none is steeper than 1."""
    if activation == "relu":
        value = np.maximum(value, 0)
        return value, value + error, error
    if activation == "identity":
        return value, np.abs(value) + error, error
    if activation == "logistic":
        value = 0.5 + 0.5 * np.tanh(0.5 * value)
        return value, value + error / 4 + _SIGMOID, error / 4 + _SIGMOID
    # the C has 2 sigmoid(2 v) - 1 with the 2 and the 1 in the next weights: parts of up to 3
    return np.tanh(value), np.full_like(value, 3.0), error + 2 * _SIGMOID
