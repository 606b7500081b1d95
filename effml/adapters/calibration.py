"""Numbers for an integer model from rows of data: ranges of inputs and activations, low-bit weights, their biases.

Every choice minimises a squared error on the calibration rows. Weights are rounded one input after the other, in order
of the inputs' variance, and the error of each is made up for by the inputs that still are to come.

Source: E. Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR
2023; B. Hassibi and D. Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NIPS 1993.
"""

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

__all__ = ["Codes", "activation_step", "fit_codes", "input_factor", "input_scale"]

CLIPS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.22, 0.15)  # shares of the largest weight or activation to cut at
TAILS = (0.001, 0.005, 0.01, 0.025, 0.05)  # shares of the rows on each side that an input's range may leave out
MARGIN = 1 / 2048  # of an input's range times the number of levels, added on each side for rows not seen: 1/8 at 8 bits
DAMPING = 0.01  # of the inputs' variances, so that errors are not made up for by what is but chance in the rows
SMALLEST = 1e-30


def input_scale(columns: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and offset (n_columns,) of ``q = clip(floor(x * scale + offset), 0, largest)``, rounding included.

    Of the whole range of a column and ranges without the tails, the one with the least squared error, that of a row
    counted up to the spread of the middle 90 %, so that a stray value does not set the step of all others; and a margin
    for values to come. Whole numbers of few values keep equal steps.

    Parameters
    ----------
    columns : float array (n_rows, n_columns)
    largest : int

    Examples
    --------
    >>> import numpy as np
    >>> from effml.adapters.calibration import input_scale
    >>> scale, offset = input_scale(np.array([[0.0, -1.5], [1.0, 1.5]]), 255)
    >>> scale.tolist(), offset.tolist()
    ([226.0, 68.0], [0.5, 128.0])
    """
    columns = np.asarray(columns, dtype=np.float64)
    low, high = columns.min(axis=0), columns.max(axis=0)
    is_whole = (columns == np.floor(columns)).all(axis=0)
    exact = np.where(is_whole, largest // (1.125 * np.where(high > low, high - low, 0.8)), 0.0)
    first = low.copy()
    spread = np.subtract(*np.quantile(columns, [0.95, 0.05], axis=0))
    spread = np.where(spread > 0, spread, high - low)
    least = np.full(columns.shape[1], np.inf)
    for tail in (0.0, *TAILS):
        ends = np.quantile(columns, [tail, 1 - tail], axis=0)
        width = np.where(ends[1] > ends[0], ends[1] - ends[0], np.where(high > low, high - low, 1.0))
        steps = np.clip(np.floor((columns - ends[0]) * (largest / width) + 0.5), 0, largest)
        error = np.abs(steps * (width / largest) + ends[0] - columns)
        error = (np.minimum(error, spread) ** 2).sum(axis=0)
        better = error < least
        least[better], low[better], high[better] = error[better], ends[0][better], (ends[0] + width)[better]
    width = np.where(high > low, high - low, 1.0)
    low, width = low - MARGIN * (largest + 1) * width, (1 + 2 * MARGIN * (largest + 1)) * width
    scale = np.where(exact > 0, exact, largest / width)
    return scale, 0.5 - np.where(exact > 0, first, low) * scale


def input_factor(columns: np.ndarray, largest: int) -> np.ndarray | None:
    """Return whole factors (n_columns,) for columns that are whole numbers from 0 to `largest`; None for others.

    The columns then have like ranges, so that one unit suits the weights of all; up to twice the largest value fits.
    Where they have that anyway, the factors are 1.

    Parameters
    ----------
    columns : float array (n_rows, n_columns)
    largest : int
        At most 255.

    Examples
    --------
    >>> import numpy as np
    >>> from effml.adapters.calibration import input_factor
    >>> input_factor(np.array([[0.0, 4.0, 200.0], [1.0, 16.0, 0.0]]), 255).tolist()
    [127, 7, 1]
    """
    columns = np.asarray(columns)
    if not columns.size or (columns != np.floor(columns)).any() or columns.min() < 0 or columns.max() > largest:
        return None
    factor = np.maximum(largest // np.maximum(2 * columns.max(axis=0), 1), 1).astype(np.uint8)
    return factor if factor.max() >= 2 * factor.min() else np.ones_like(factor)


@dataclass(frozen=True, eq=False)
class Codes:
    """Weights ``(2 codes - top) * unit`` and the bias that goes with them.

    Attributes
    ----------
    codes : uint8 array (n_in, n_out)
    unit : float64 array (n_out,)
    bias : float64 array (n_out,)
    """

    codes: np.ndarray
    unit: np.ndarray
    bias: np.ndarray


def fit_codes(inputs, weight, target, n_bits, *, shared=False, smallest_unit=0.0) -> Codes:
    """Return weights of a few bits and a bias whose sums over integer inputs come closest to the target.

    Parameters
    ----------
    inputs : array (n_rows, n_in)
        What the layer reads in the integer model.
    weight : float64 array (n_in, n_out)
        The weights to round, of one unit of the inputs.
    target : float64 array (n_rows, n_out)
        The sums of the float model.
    n_bits : int
        The levels are ``(2u - top) * unit``, ``u = 0 .. top = 2^n_bits - 1``.
    shared : bool
        One unit for all outputs, which are to be compared; else one each.
    smallest_unit : float
    """
    top = 2**n_bits - 1
    with threadpool_limits(1, user_api="blas"):
        inputs = np.asarray(inputs, dtype=np.float64)
        centred, wanted = inputs - inputs.mean(axis=0), target - target.mean(axis=0)
        moments = centred.T @ centred / len(inputs)
        variances = np.diag(moments)
        moments = moments + np.diag(DAMPING * variances + max(1e-6 * variances.mean(), SMALLEST))
        # what the inputs lost by their own rounding is made up for, too
        missing = centred.T @ (wanted - centred @ weight) / len(inputs)
        weight = weight + np.linalg.solve(moments, missing)
        order, inverse = _elimination(moments)
        largest = np.maximum(np.abs(weight).max(axis=0), SMALLEST)
        largest = np.full_like(largest, largest.max()) if shared else largest
        best, least = None, None
        for clip in CLIPS:
            unit = np.maximum(clip * largest / top, smallest_unit)
            codes = _rounded(weight[order], unit, top, inverse)[np.argsort(order)]
            gap = weight - (2.0 * codes - top) * unit
            error = (gap * (moments @ gap)).sum(axis=0)
            error = np.full_like(error, error.sum()) if shared else error
            if best is None:
                best, least = Codes(codes, unit, unit), error
            better = error < least
            best.codes[:, better], best.unit[better], least[better] = codes[:, better], unit[better], error[better]
        sums = inputs @ ((2.0 * best.codes - top) * best.unit)
    return Codes(best.codes, best.unit, (target - sums).mean(axis=0))


def _elimination(moments):
    """Return the order of rounding and the upper triangle R, ``R^T R`` the inverse of the moments in that order."""
    order = np.argsort(-np.diag(moments), kind="stable")
    inverse = np.linalg.inv(moments[np.ix_(order, order)])
    return order, np.linalg.cholesky((inverse + inverse.T) / 2).T


def _rounded(weight, unit, top, inverse):
    """Return codes (n_in, n_out); the error of each input's weights is passed on to those behind it."""
    weight, codes = weight.copy(), np.empty(weight.shape, dtype=np.uint8)
    for j in range(len(weight)):
        codes[j] = np.clip(np.rint((weight[j] / unit + top) / 2), 0, top)
        error = (weight[j] - (2.0 * codes[j] - top) * unit) / inverse[j, j]
        weight[j + 1 :] -= inverse[j, j + 1 :, None] * error
    return codes


def activation_step(sums: np.ndarray, target: np.ndarray, largest: int) -> float:
    """Return the step of ``clip(round(sum / step), 0, largest)`` with the least squared error.

    Parameters
    ----------
    sums : float64 array (n_rows, n)
        Of the integer model, in the units of the target.
    target : float64 array (n_rows, n)
        Non-negative: what the steps are to stand for.
    largest : int
    """
    highest = max(sums.max(), target.max())
    if highest <= 0:
        return 1.0
    steps = [clip * highest / largest for clip in CLIPS]
    errors = [((np.clip(np.rint(sums / step), 0, largest) * step - target) ** 2).sum() for step in steps]
    return float(steps[int(np.argmin(errors))])
