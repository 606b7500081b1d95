"""How raw features become the inputs of a network: standardised, as integers of a few bits with one common step.

    q = clip(floor(x * scale + offset), 0, 2^n_bits - 1),   the network reads (q - zero_point) * step

One step for all features is what lets the first layer add integers. For training it is rounded to a power of two, so
that the network's floats are those integers exactly.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.utils import gen_batches

from effml.program.buffers import Buffer
from effml.program.steps import QuantizeInput

__all__ = ["InputFormat", "fit_input_format"]

ROWS_AT_ONCE = 4096
ENTRIES_OF_RANGE = 1_000_000
WITHIN_RANGE = 0.999  # share of the training entries that are not clipped


@dataclass(frozen=True, eq=False)
class InputFormat:
    """Scaling of the raw features.

    Attributes
    ----------
    scale, offset : float32 arrays (n_features,)
    n_bits : int or None
        None reads ``x * scale + offset`` as floats.
    zero_point : int
    step : float
        A power of two.
    """

    scale: np.ndarray
    offset: np.ndarray
    n_bits: int | None
    zero_point: int = 0
    step: float = 1.0

    @property
    def largest(self) -> int:
        return 2**self.n_bits - 1

    def fields(self, scale=None, offset=None):
        """Return the fields of the QuantizeInput step, the raw features passed through `scale` and `offset` first."""
        scale = 1.0 if scale is None else scale
        offset = 0.0 if offset is None else offset
        return {
            "scale": (self.scale * scale).astype(np.float32),
            "offset": (self.scale * np.float64(offset) + self.offset).astype(np.float32),
            "largest": self.largest,
        }

    def encode(self, X):
        """Return the codes of raw rows, uint8, or the floats that a network without input bits reads, float32."""
        out = np.empty(X.shape, dtype=np.float32 if self.n_bits is None else np.uint8)
        n = X.shape[1]
        for rows in gen_batches(len(X), ROWS_AT_ONCE):
            part = np.asarray(X[rows], dtype=np.float32)
            if self.n_bits is None:
                out[rows] = part * self.scale + self.offset
            else:
                step = QuantizeInput(inputs=("x",), output=Buffer("q", "u8", n), columns=np.arange(n), **self.fields())
                out[rows] = step.run(part)
        return out


def fit_input_format(X, *, n_bits, scaling):
    """Return the format of training rows.

    Parameters
    ----------
    X : ndarray (n, d)
    n_bits : int or None
        2 to 8, or None for floats.
    scaling : {"feature", "common"}
        Standardise every feature by its own mean and deviation, or all by common ones. Whole numbers from 0 to 255
        with common scaling are read as they are.
    """
    mean, deviation = _moments(X)
    if scaling == "common":
        spread = np.sqrt(np.mean(deviation**2) + np.var(mean))
        mean, deviation = np.full_like(mean, mean.mean()), np.full_like(mean, spread)
    flat = deviation <= 1e-7 * np.maximum(1e-30, np.abs(mean))
    deviation = np.where(flat, 1.0, deviation)
    if n_bits is None:
        return InputFormat((1 / deviation).astype(np.float32), (-mean / deviation).astype(np.float32), None)
    if scaling == "common" and n_bits == 8 and _are_bytes(X):
        ones = np.ones(X.shape[1], dtype=np.float32)
        return InputFormat(ones, 0 * ones, 8, int(np.rint(mean[0])), _power_of_two(1 / deviation[0]))
    middle = 2 ** (n_bits - 1)
    step = _range(X, mean, deviation) / middle
    scale = 1 / (deviation * step)
    offset = middle + 0.5 - mean * scale
    return InputFormat(scale.astype(np.float32), offset.astype(np.float32), n_bits, middle, _power_of_two(step))


def _moments(X):
    """Return mean and standard deviation of each column, float64, without a copy of X."""
    parts = list(gen_batches(len(X), ROWS_AT_ONCE))
    mean = sum(X[rows].sum(axis=0, dtype=np.float64) for rows in parts) / len(X)
    return mean, np.sqrt(sum(((X[rows] - mean) ** 2).sum(axis=0) for rows in parts) / len(X))


def _range(X, mean, deviation):
    """Return how far from 0 almost all standardised training values lie."""
    rows = X[:: max(1, X.size // ENTRIES_OF_RANGE)]
    return max(float(np.quantile(np.abs((rows - mean) / deviation), WITHIN_RANGE)), 1.0)


def _power_of_two(value):
    return float(2.0 ** np.rint(np.log2(value)))


def _are_bytes(X):
    return all(
        X[rows].min() >= 0 and X[rows].max() <= 255 and (X[rows] == np.floor(X[rows])).all()
        for rows in gen_batches(len(X), ROWS_AT_ONCE)
    )
