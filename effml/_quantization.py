"""Number formats of quantised numbers: integer codes with a format; floats are derived from them, never the reverse.

Two formats of tables and one of weights. *Fixed point* stores log-probabilities as the papers do: the code
``u = clip(round(-L 2^f), 0, 2^B - 1)`` stands for ``-u 2^-f``, without a sign bit because L <= 0. *Contrast* stores
what an argmax sees: a row of scores up to a constant, as mid-rise codes of one common step. *Weights* of networks lie
at 2^B equidistant levels from -1 to 1. Rounding is half to even everywhere.

Source: W. Roth, G. Schindler, H. Froening, F. Pernkopf, "On Resource-Efficient Bayesian Network Classifiers and Deep
Neural Networks", ICPR 2020 (the fixed-point format); S. Zhou et al., "DoReFa-Net", arXiv 1606.06160 (weights).
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["MAX_BITS", "ContrastFormat", "FixedPointFormat", "WeightFormat", "table_format_of"]

MAX_BITS = 8
MAX_INTEGER_BITS = 16

# Shifts of a row of contrasts that are tried, in steps; the unshifted row first, so that it wins ties.
_PHASES = (0.0, 0.125, -0.125, 0.25, -0.25, 0.375, -0.375, 0.5)

_BLOCK_ROWS = 4096  # rows encoded at a time, to bound memory and stay in cache


@dataclass(frozen=True)
class FixedPointFormat:
    """Unsigned fixed point for negated log-probabilities.

    Parameters
    ----------
    integer_bits, fraction_bits : int
        ``integer_bits + fraction_bits`` in 1..8 is the width of a code; `fraction_bits` may be negative, which makes
        steps larger than 1.

    Examples
    --------
    >>> FixedPointFormat(2, -1).encode([0.0, -0.9, -1.1, -9.0]).tolist()
    [0, 0, 1, 1]
    """

    integer_bits: int
    fraction_bits: int

    def __post_init__(self):
        if not 1 <= self.n_bits <= MAX_BITS:
            raise ValueError(
                f"integer_bits + fraction_bits must be between 1 and {MAX_BITS}, "
                f"got {self.integer_bits} + {self.fraction_bits} = {self.n_bits}"
            )

    @property
    def n_bits(self):
        """Width of a code."""
        return self.integer_bits + self.fraction_bits

    @property
    def scale(self):
        """Distance of two neighbouring levels, 2^-fraction_bits."""
        return 2.0**-self.fraction_bits

    def encode(self, log_probabilities):
        """Return the codes, a uint8 array of the shape of `log_probabilities`."""
        steps = np.rint(-np.asarray(log_probabilities, dtype=np.float64) / self.scale)
        return np.clip(steps, 0, 2**self.n_bits - 1).astype(np.uint8)

    def decode(self, codes):
        """Return the values that `codes` stand for, float32 (exact)."""
        return (0.0 - np.asarray(codes, dtype=np.float64) * self.scale).astype(np.float32)


@dataclass(frozen=True)
class ContrastFormat:
    """Mid-rise codes of rows of scores over the classes (last axis), of which only the differences count.

    A row may be shifted freely. It is laid with its maximum at the top level, give or take the fraction of a step (of
    eight) that makes the squared error of the differences least; each class counts by the root of its posterior
    probability in that row, since the likely classes decide. On discretised letter, usps and satimage this beat
    centring at the mean or at the maximum at almost every width.

    Parameters
    ----------
    n_bits : int
        Width of a code, 1..8. The levels are ``(u - (2^n_bits - 1) / 2) * step``, u = 0 .. 2^n_bits - 1.
    step : float
        Distance of two levels. One step serves all tables of a model, so it never reaches the device.

    Examples
    --------
    >>> ContrastFormat(2, step=1.0).encode([[2.0, 0.1, -5.0]]).tolist()
    [[3, 1, 0]]
    """

    n_bits: int
    step: float

    @property
    def scale(self):
        """Distance of two neighbouring levels."""
        return self.step

    def encode(self, scores):
        """Return the codes, a uint8 array of the shape of `scores`."""
        scores = np.asarray(scores, dtype=np.float64)
        rows = scores.reshape(-1, scores.shape[-1])
        codes = np.empty(rows.shape, dtype=np.uint8)
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            codes[block] = self._encode_rows(rows[block])
        return codes.reshape(scores.shape)

    def _encode_rows(self, scores):
        top = 2**self.n_bits - 1
        below = scores - scores.max(axis=-1, keepdims=True)
        weights = np.exp(0.5 * below)
        weights /= weights.sum(axis=-1, keepdims=True)
        codes, least = None, None
        for phase in _PHASES:
            trial = np.clip(np.rint(below / self.step + (top + phase)), 0, top)
            error = trial * self.step - below
            error -= (weights * error).sum(axis=-1, keepdims=True)
            loss = (weights * error**2).sum(axis=-1, keepdims=True)
            if codes is None:
                codes, least = trial, loss
            else:
                better = loss < least
                codes, least = np.where(better, trial, codes), np.where(better, loss, least)
        return codes

    def decode(self, codes):
        """Return the values that `codes` stand for, float32."""
        return ((np.asarray(codes, dtype=np.float64) - (2**self.n_bits - 1) / 2) * self.step).astype(np.float32)


@dataclass(frozen=True)
class WeightFormat:
    """Weights between -1 and 1 as one of 2^n_bits equidistant levels: ``(2u - top) / top``, ``top = 2^n_bits - 1``.

    The levels are odd multiples of 1/top, so 0 is none of them; a product with an integer is the odd integer
    ``2u - top`` and one common scale. One bit is the sign, with 0 as +1.

    Parameters
    ----------
    n_bits : int
        Width of a code, 1..8.

    Examples
    --------
    >>> WeightFormat(2).quantize([-0.9, -0.1, 0.1, 3.0]).round(2)
    array([-1.  , -0.33,  0.33,  1.  ], dtype=float32)
    >>> WeightFormat(1).encode([-0.2, 0.0]).tolist()
    [0, 1]
    """

    n_bits: int

    def __post_init__(self):
        if not 1 <= self.n_bits <= MAX_BITS:
            raise ValueError(f"n_bits={self.n_bits} must be between 1 and {MAX_BITS}")

    @property
    def top(self):
        """Largest code, and the number that levels are multiples of one over."""
        return 2**self.n_bits - 1

    def encode(self, weights):
        """Return the codes, a uint8 array of the shape of `weights`."""
        weights = np.asarray(weights)
        if self.n_bits == 1:
            return (weights >= 0).astype(np.uint8)
        half = weights.dtype.type(0.5) if weights.dtype.kind == "f" else 0.5
        return np.rint((np.clip(weights, -1, 1) * half + half) * self.top).astype(np.uint8)

    def integers(self, codes):
        """Return the odd integers ``2u - top``, int16, that stand for the weights times `top`."""
        return 2 * np.asarray(codes, dtype=np.int16) - np.int16(self.top)

    def decode(self, codes):
        """Return the values that `codes` stand for, float32."""
        return self.integers(codes).astype(np.float32) / np.float32(self.top)

    def quantize(self, weights):
        """Return the nearest levels of `weights`."""
        return self.decode(self.encode(weights))


def table_format_of(n_bits, integer_bits, fraction_bits, table_format="auto"):
    """Return which format the constructor parameters of a classifier ask for.

    Parameters
    ----------
    n_bits : int or None
    integer_bits : int, "auto" or None
    fraction_bits : int or None
    table_format : {"auto", "log_prob", "contrast"}

    Returns
    -------
    table_format : {"log_prob", "contrast"}
    fixed_point : FixedPointFormat or None
        The format of the codes where the parameters determine it.

    Raises
    ------
    ValueError
        If the combination is none of: all None (float tables); `integer_bits` and `fraction_bits`; `n_bits` and
        `integer_bits`; `n_bits` alone (contrast tables); or if `table_format` contradicts it.

    Examples
    --------
    >>> table_format_of(4, None, None)
    ('contrast', None)
    >>> table_format_of(4, 3, None)
    ('log_prob', FixedPointFormat(integer_bits=3, fraction_bits=1))
    """
    given = f"n_bits={n_bits!r}, integer_bits={integer_bits!r}, fraction_bits={fraction_bits!r}"
    pattern = (n_bits is not None, integer_bits is not None, fraction_bits is not None)
    implied, fixed_point = "log_prob", None
    if pattern == (True, False, False):
        implied = "contrast"
    elif pattern == (True, True, False):
        if integer_bits != "auto":
            fixed_point = FixedPointFormat(integer_bits, n_bits - integer_bits)
    elif pattern == (False, True, True) and integer_bits != "auto":
        fixed_point = FixedPointFormat(integer_bits, fraction_bits)
    elif pattern != (False, False, False):
        raise ValueError(
            f"{given} is no number format; give none of them (float32 tables), integer_bits and fraction_bits, "
            "n_bits and integer_bits (a number or 'auto'), or n_bits alone (contrast tables)"
        )
    if table_format not in ("auto", implied):
        raise ValueError(
            f"table_format={table_format!r} does not fit {given}, which means {implied!r}; "
            "'contrast' takes n_bits alone, 'log_prob' no bits at all or integer_bits"
        )
    return implied, fixed_point
