"""Numbers for the integers of a deep network: weights that already take few levels, weights to round, ranges of values.

Weights on few levels (binary, ternary, k bits, for the whole tensor or each output) are found and kept as they are;
others are rounded by :func:`effml.adapters.calibration.fit_codes`, one input after the other, or, where a layer has too
many inputs for that, each by itself.
"""

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from effml.adapters.calibration import CLIPS, fit_codes
from effml.program.steps.packing import weights_of

__all__ = ["Weights", "affine_range", "few_levels", "rounded_weights"]

MOST_TOGETHER = 1024  # inputs whose rounding errors are made up for by each other
FINEST_LEVEL = 32767
OFTEN = 4  # times that a level occurs on the average where the table may cost more than the codes save
SAME = 5e-7  # gap up to which two levels are the same one, in parts of the largest: float32 rounds to 6e-8


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights ``integers * unit`` in few bits.

    Attributes
    ----------
    codes : uint8 array (n_in, n_out)
    n_bits : int
    unit : float64 array (n_out,)
        Above 0.
    levels : int16 array (1 or n_out, 2^n_bits), or None
        None: the integer of code u is ``2 u - (2^n_bits - 1)``.
    """

    codes: np.ndarray
    n_bits: int
    unit: np.ndarray
    levels: np.ndarray | None = None

    @property
    def integers(self) -> np.ndarray:
        """The weights over their unit, int64 (n_in, n_out)."""
        if self.levels is None:
            return 2 * self.codes.astype(np.int64) - (2**self.n_bits - 1)
        return weights_of(self.codes, self.levels).astype(np.int64)

    def bound(self, largest) -> np.ndarray:
        """Return the largest absolute sum of each output for inputs up to `largest`, int64 (n_out,)."""
        return np.abs(self.integers).sum(axis=0) * largest


def few_levels(weight: np.ndarray, *, most_bits=8, largest_level=127) -> Weights | None:
    """Return weights that take few levels as what they are, None for others.

    Levels may have a scale of each output. Equidistant ones are kept exactly; of others the spacing is kept to one part
    of `largest_level` of the largest.

    Parameters
    ----------
    weight : float64 array (n_in, n_out)
    most_bits : int
        Weights that need more are taken for others; so are few weights for which a table of levels does not pay.
    largest_level : int
        Up to 32767.

    Examples
    --------
    >>> import numpy as np
    >>> from effml.deep.calibration import few_levels
    >>> signs = np.random.default_rng(0).choice([-1.0, 1.0], (50, 3)) * [0.1, 0.2, 0.3]
    >>> few_levels(signs).n_bits, few_levels(signs).unit.round(3).tolist()
    (1, [0.1, 0.2, 0.3])
    """
    each = np.abs(weight).max(axis=0)
    each = np.where(each > 0, each, 1.0)
    best, least = None, np.inf
    # all outputs share the levels up to a scale; or as they are, where some do not reach the largest; or none is shared
    for scale, shared in ((each, True), (np.full_like(each, each.max()), True), (each, False)):
        shares = weight / scale
        shares = _together(shares) if shared else np.stack([_together(column) for column in shares.T], axis=1)
        tables = [np.unique(shares)] if shared else [np.unique(column) for column in shares.T]
        bits = _bits(weight.size, tables, most_bits)
        if bits < least:
            best, least = (shares, tables, scale), bits
    return None if best is None else _of_levels(*best, largest_level)


def _together(values):
    """Return values with those that differ by their rounding alone set to the first of them."""
    levels, place = np.unique(values, return_inverse=True)
    starts = np.concatenate([[True], np.diff(levels) > SAME])
    firsts = levels[starts][np.cumsum(starts) - 1]
    return firsts[place].reshape(values.shape)


def _bits(n_weights, tables, most_bits):
    """Return the bits of codes and tables of levels; infinite for what seems to be no levels."""
    n_levels = max(len(own) for own in tables)
    n_bits = max(int(np.ceil(np.log2(n_levels))), 1)
    bits = n_weights * n_bits + (16 * len(tables) * 2**n_bits if n_levels > 2 else 0)
    seldom = n_weights < OFTEN * n_levels * len(tables)
    return np.inf if n_bits > most_bits or (seldom and bits > n_weights * most_bits) else bits


def _of_levels(shares, tables, scale, largest_level):
    """Return the weights of levels: one table for all outputs, or one each."""
    unit, whole = _whole_levels(tables, largest_level)
    n_bits = max(int(np.ceil(np.log2(max(len(own) for own in tables)))), 1)
    own = tables * shares.shape[1] if len(tables) == 1 else tables
    codes = np.stack([np.searchsorted(levels, column) for levels, column in zip(own, shares.T, strict=True)], axis=1)
    table = np.zeros((len(tables), 2**n_bits), dtype=np.int16)
    for row, values in zip(table, whole, strict=True):
        row[: len(values)] = values
    odd = _odd_levels(whole)
    if odd is None:
        return Weights(codes.astype(np.uint8), n_bits, scale * unit, table)
    step, n_bits = odd
    codes = (weights_of(codes, table) // step + 2**n_bits - 1) // 2
    return Weights(codes.astype(np.uint8), n_bits, scale * unit * step)


def _whole_levels(tables, largest_level):
    """Return a unit and the levels as whole multiples of it: exact where they are equidistant."""
    values = np.unique(np.abs(np.concatenate(tables)))
    values = values[values > 0]
    if not len(values):
        return 1.0, [np.zeros(len(own), dtype=np.int64) for own in tables]
    gaps = np.diff(np.concatenate([[0.0], values]))
    smallest = gaps[gaps > 10 * SAME].min()
    for parts in (1, 2):
        unit = smallest / parts
        count = np.rint(values[-1] / unit)
        unit = values[-1] / max(count, 1)  # the largest is known best
        if count <= largest_level and np.abs(values / unit - np.rint(values / unit)).max() < 1e-2:
            break
    else:
        unit = values[-1] / largest_level
    return unit, [np.rint(own / unit).astype(np.int64) for own in tables]


def _odd_levels(whole):
    """Return the step and the bits of levels that are odd multiples of one, as codes without a table are; or None."""
    levels = np.unique(np.abs(np.concatenate(whole)))
    step = int(levels.min())
    if step == 0 or (levels % step).any() or (levels // step % 2 == 0).any():
        return None
    n_bits = int(np.ceil(np.log2(levels.max() // step + 1)))
    used = max(len(own) for own in whole)
    return (step, n_bits) if n_bits <= max(int(np.ceil(np.log2(used))), 1) else None


def rounded_weights(inputs, weight, target, n_bits):
    """Return weights of a few bits and the bias whose sums over integer inputs come closest to the target.

    Parameters
    ----------
    inputs : array (n_rows, n_in)
        What the layer reads in the integer network, less the zero point.
    weight : float64 array (n_in, n_out)
        Of one step of the inputs.
    target : float64 array (n_rows, n_out)
        The sums of the float network.
    n_bits : int

    Returns
    -------
    Weights, float64 array (n_out,)
    """
    if len(weight) <= MOST_TOGETHER:
        fitted = fit_codes(inputs, weight, target, n_bits)
        return Weights(fitted.codes, n_bits, fitted.unit), fitted.bias
    top = 2**n_bits - 1
    energy = (np.asarray(inputs, dtype=np.float64) ** 2).mean(axis=0)[:, None] + 1e-12
    largest = np.maximum(np.abs(weight).max(axis=0), 1e-30)
    best, least = None, np.full(weight.shape[1], np.inf)
    unit = largest / top
    for clip in CLIPS:
        trial = clip * largest / top
        codes = np.clip(np.rint((weight / trial + top) / 2), 0, top).astype(np.uint8)
        error = (energy * ((2.0 * codes - top) * trial - weight) ** 2).sum(axis=0)
        best = codes if best is None else best
        better = error < least
        best[:, better], unit[better], least[better] = codes[:, better], trial[better], error[better]
    weights = Weights(best, n_bits, unit)
    return weights, mean_bias(inputs, weights, target)


def mean_bias(inputs, weights: Weights, target) -> np.ndarray:
    """Return what the sums of the integer network lack on the average, (n_out,)."""
    with threadpool_limits(1, user_api="blas"):
        sums = np.asarray(inputs, dtype=np.float64).mean(axis=0) @ weights.integers
    return target.mean(axis=0) - sums * weights.unit


def affine_range(values, largest) -> tuple[float, int]:
    """Return step and zero point of ``q = clip(round(v / step) + zero_point, 0, largest)`` of least squared error.

    The range has 0 in it, which stays exact; of ends cut off step by step the best are kept.

    Parameters
    ----------
    values : float array
    largest : int

    Examples
    --------
    >>> import numpy as np
    >>> from effml.deep.calibration import affine_range
    >>> step, zero_point = affine_range(np.linspace(-1, 3, 1000), 255)
    >>> round(step * 255, 2), zero_point
    (4.0, 64)
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    if high == low:
        return 1.0, 0
    values = values[:: max(1, len(values) // 200_000)]
    best, least = None, np.inf
    for bottom in CLIPS if low < 0 else (1.0,):
        for top in CLIPS if high > 0 else (1.0,):
            step = (top * high - bottom * low) / largest
            zero = int(np.clip(np.rint(-bottom * low / step), 0, largest))
            error = ((np.clip(np.rint(values / step) + zero, 0, largest) - zero) * step - values) ** 2
            if error.sum() < least:
                best, least = (float(step), zero), error.sum()
    return best
