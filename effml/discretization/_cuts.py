"""Cut points of numeric columns by the minimum description length principle (Fayyad and Irani, 1993).

Symbols as in the paper: a cut T splits the samples S into S1 (x <= T) and S2; n, n1, n2 are their total weights,
k, k1, k2 the numbers of classes present, Ent the class entropy in bits.
"""

import heapq
import math
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed

from effml._cext.mdlp import add_class_weights, best_cut

_CACHE_LINE = 64  # bytes; columns are copied out of the row-major matrix one cache line of them at a time
_MAX_LEVELS = 1 << 16
_MAX_TABLE = 1 << 20  # whole counts up to here have a tabulated n log2 n (8 MiB)


@dataclass(frozen=True)
class _Units:
    """Fixed-point bits in which the scan sums n log2 n."""

    table: np.ndarray  # (largest count + 1,) int64, or empty when weights are fractional or too many
    scale: float  # units per bit
    tolerance: int  # costs closer than this are a tie

    @classmethod
    def for_weights(cls, weights, n_classes):
        total = weights.sum()
        largest = total * math.log2(max(total, 1.0))
        # A sum stays below `largest` plus half a bit per class (counts below 1), so costs fit int64 with room.
        scale = 2.0 ** (60 - math.ceil(math.log2(largest + n_classes + 1)))
        # n log2 n is off by one rounding of a double (2^-53 of 2^60 units) and one of the fixed point per term.
        tolerance = (1 << 12) + 4 * n_classes
        table = np.zeros(0, dtype=np.int64)
        if total <= _MAX_TABLE and np.all(weights == np.rint(weights)):
            n = np.arange(int(total) + 1, dtype=np.float64)
            table = np.rint(n * np.log2(np.maximum(n, 1)) * scale).astype(np.int64)
        return cls(table, scale, tolerance)


def learn_edges(X, classes, weights, numeric, *, max_bins, n_jobs):
    """Find the cuts of the numeric columns of a matrix.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Any numeric dtype; NaN values are left out column by column.
    classes : ndarray of int32, shape (n_samples,)
        Class indices from 0.
    weights : ndarray of float64, shape (n_samples,)
        Positive.
    numeric : ndarray of bool, shape (n_features,)
        The columns to cut.
    max_bins : int or None
    n_jobs : int or None

    Returns
    -------
    list of float64 arrays, length n_features
        Ascending cuts; empty for columns that are not numeric.
    """
    n_classes = int(classes.max()) + 1
    units = _Units.for_weights(weights, n_classes)
    width = max(1, _CACHE_LINE // X.itemsize)

    def learn_block(first):
        columns = np.ascontiguousarray(X[:, first : first + width].T)
        return [
            column_cuts(column, classes, weights, n_classes, max_bins, units) if cut_it else np.zeros(0)
            for column, cut_it in zip(columns, numeric[first : first + width], strict=True)
        ]

    # Threads: sorting and counting run without the GIL, and nothing has to be copied to another process.
    blocks = Parallel(n_jobs=n_jobs, require="sharedmem")(
        delayed(learn_block)(first) for first in range(0, X.shape[1], width)
    )
    return [edges for block in blocks for edges in block]


def column_cuts(column, classes, weights, n_classes, max_bins, units):
    """Return the ascending cuts of one column (n_samples,)."""
    if column.dtype.kind == "f":
        present = ~np.isnan(column)
        if not present.all():
            column, classes, weights = column[present], classes[present], weights[present]
    if len(column) == 0:
        return np.zeros(0)
    x, levels, classes, weights = _sorted_entries(column, classes, weights, n_classes)
    cuts = _grow(levels, classes, weights, n_classes, max_bins or math.inf, units)
    return np.array([cut_between(float(x[cut - 1]), float(x[cut])) for cut in sorted(cuts)], dtype=np.float64)


def _sorted_entries(column, classes, weights, n_classes):
    """Return the column as (x, level, class, weight) arrays in ascending order of x; equal x have equal levels.

    Whole numbers of small range are counted, one entry for each value and class; other columns are sorted, one entry
    for each row.
    """
    lowest, highest = column.min(), column.max()
    n_levels = float(highest) - float(lowest) + 1
    if n_levels <= _MAX_LEVELS and n_levels * n_classes <= max(4 * len(column), _MAX_LEVELS) and _is_whole(column):
        shifted = column - lowest if lowest else column
        histogram = np.zeros((int(n_levels), n_classes))
        add_class_weights(shifted.astype(np.uint8 if n_levels <= 256 else np.uint16), classes, weights, histogram)
        levels, classes = np.nonzero(histogram)
        x = levels + float(lowest)
        weights = histogram[levels, classes]
        return x, levels.astype(np.int32), classes.astype(np.int32), weights

    order = np.argsort(column)
    x = column[order].astype(np.float64)
    levels = np.zeros(len(x), dtype=np.int32)
    np.cumsum(x[1:] != x[:-1], out=levels[1:])
    return x, levels, classes[order], weights[order]


def _is_whole(column):
    return column.dtype.kind in "iub" or bool(np.all(column == np.rint(column)))


def _grow(levels, classes, weights, n_classes, max_bins, units):
    """Split best-first, the largest total entropy reduction n Gain first; return the entries that start a new bin."""
    scratch = np.empty((3, n_classes))
    heap, cuts = [], []

    def offer(start, stop):
        cut, n, *counts, bits, bits1, bits2 = best_cut(
            levels, classes, weights, start, stop, units.table, units.scale, units.tolerance, scratch
        )
        if cut >= 0 and _is_worth_its_bits(n, *counts, bits, bits1, bits2):
            # Rounded so that equal reductions tie and the lower cut goes first.
            heapq.heappush(heap, (-round(bits - bits1 - bits2, 9), start, cut, stop))

    offer(0, len(levels))
    while heap and len(cuts) + 1 < max_bins:
        _, start, cut, stop = heapq.heappop(heap)
        cuts.append(cut)
        offer(start, cut)
        offer(cut, stop)
    return cuts


def _is_worth_its_bits(n, n1, n2, k, k1, k2, bits, bits1, bits2):
    """Tell whether Gain > [log2(n - 1) + log2(3^k - 2) - (k Ent(S) - k1 Ent(S1) - k2 Ent(S2))] / n.

    `bits` are n Ent(S), n1 Ent(S1), n2 Ent(S2).
    """
    delta = _log2_of_3_to_k_less_2(k) - (k * bits / n - k1 * bits1 / n1 - k2 * bits2 / n2)
    # Fractional weights may sum to n < 2; a cut then costs no negative number of bits.
    return bits - bits1 - bits2 > math.log2(max(n - 1, 1.0)) + delta


def _log2_of_3_to_k_less_2(k):
    return k * math.log2(3) + math.log1p(-2 * 3.0**-k) / math.log(2)  # 3**k itself overflows for k > 646


def cut_between(a, b):
    """Return a cut with a <= cut < b, the midpoint up to rounding.

    The cut also separates the float32 images of a and b if those differ: rounded down to float32, as exported models
    hold it, it still sends float32(a) left and float32(b) right. For float32 columns any such midpoint does.
    """
    cut = _midpoint(a, b)
    with np.errstate(over="ignore"):
        a32, b32 = float(np.float32(a)), float(np.float32(b))
    if a32 < b32 and not a32 <= cut < b32:
        cut = _midpoint(max(a, a32), min(b, b32))
    return cut + 0.0  # -0.0 becomes 0.0


def _midpoint(a, b):
    middle = a + (b - a) / 2
    if math.isinf(middle):
        middle = a / 2 + b / 2
    return middle if a <= middle < b else a
