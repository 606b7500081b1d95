"""Loops of the MDL discretiser: class histograms, the scan for the best cut, and the coding of rows."""

from cython.parallel cimport prange
from libc.math cimport log2, rint
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t

ctypedef fused level_t:
    uint8_t
    uint16_t

ctypedef fused value_t:
    int32_t
    int64_t
    float
    double

ctypedef fused code_t:
    uint8_t
    uint16_t


def add_class_weights(
    const level_t[::1] levels, const int32_t[::1] classes, const double[::1] weights, double[:, ::1] histogram
):
    """Add the weight of every row to ``histogram[level, class]``."""
    cdef Py_ssize_t row
    with nogil:
        for row in range(levels.shape[0]):
            histogram[levels[row], classes[row]] += weights[row]


cdef inline int64_t _n_log_n(double n, const int64_t[::1] table, double scale) noexcept nogil:
    if table.shape[0]:
        return table[<Py_ssize_t> n]
    return <int64_t> rint(n * log2(n) * scale) if n > 0 else 0


cdef inline double _bits(const double[:] counts, int* n_present) noexcept nogil:
    """Return n Ent(S) in bits, n = sum of the counts."""
    cdef double total = 0, inner = 0
    cdef Py_ssize_t c
    n_present[0] = 0
    for c in range(counts.shape[0]):
        if counts[c] > 0:
            n_present[0] += 1
            total += counts[c]
            inner += counts[c] * log2(counts[c])
    # Rounding must not make a pure set look impure (or better than pure).
    return total * log2(total) - inner if n_present[0] > 1 else 0.0


def best_cut(
    const int32_t[::1] values,
    const int32_t[::1] classes,
    const double[::1] weights,
    Py_ssize_t start,
    Py_ssize_t stop,
    const int64_t[::1] table,
    double scale,
    int64_t tolerance,
    double[:, ::1] counts,
):
    """Find the cut of entries start..stop (ascending values) with the lowest n1 Ent(S1) + n2 Ent(S2).

    n log n is summed in fixed point (`scale` units a bit; tabulated for whole counts), so that running sums do not
    drift and ties are recognised: a later cut has to be better by more than `tolerance`. `counts` is (3, n_classes)
    scratch.

    Returns
    -------
    cut (-1: there is no candidate; else the first entry on the right), n, n1, n2, k, k1, k2, and the bits n Ent(S),
    n1 Ent(S1), n2 Ent(S2)
    """
    cdef Py_ssize_t entry = start, group_stop, cut = -1, c
    cdef int32_t pure, previous_pure = -1
    cdef double n_left = 0, n_right = 0, weight
    cdef int64_t inner = 0, cost, lowest = 0
    cdef double[:] left = counts[0], right = counts[1], both = counts[2]
    cdef int k, k1, k2
    cdef double bits, bits1, bits2
    with nogil:
        left[:] = 0
        right[:] = 0
        for entry in range(start, stop):
            right[classes[entry]] += weights[entry]
            n_right += weights[entry]
        for c in range(right.shape[0]):
            inner += _n_log_n(right[c], table, scale)

        entry = start
        while entry < stop:
            pure = classes[entry]
            group_stop = entry + 1
            while group_stop < stop and values[group_stop] == values[entry]:
                if classes[group_stop] != pure:
                    pure = -1
                group_stop = group_stop + 1
            if entry > start and (pure < 0 or pure != previous_pure):
                cost = _n_log_n(n_left, table, scale) + _n_log_n(n_right, table, scale) - inner
                if cut < 0 or cost < lowest - tolerance:
                    lowest = cost
                    cut = entry
            previous_pure = pure
            while entry < group_stop:
                c = classes[entry]
                weight = weights[entry]
                inner = inner - _n_log_n(left[c], table, scale) - _n_log_n(right[c], table, scale)
                left[c] += weight
                right[c] -= weight
                inner = inner + _n_log_n(left[c], table, scale) + _n_log_n(right[c], table, scale)
                n_left += weight
                n_right -= weight
                entry = entry + 1

        # Count both sides of the cut afresh: fractional weights leave crumbs in running differences.
        left[:] = 0
        right[:] = 0
        n_left = 0
        n_right = 0
        for entry in range(start, max(cut, start)):
            left[classes[entry]] += weights[entry]
            n_left += weights[entry]
        for entry in range(max(cut, start), stop):
            right[classes[entry]] += weights[entry]
            n_right += weights[entry]
        for c in range(both.shape[0]):
            both[c] = left[c] + right[c]
        bits = _bits(both, &k)
        bits1 = _bits(left, &k1)
        bits2 = _bits(right, &k2)
    return cut, n_left + n_right, n_left, n_right, k, k1, k2, bits, bits1, bits2


def code_by_edges(
    const value_t[:, ::1] X,
    const double[::1] edges,
    const int32_t[::1] offsets,
    code_t[:, ::1] codes,
    int n_threads,
):
    """Write the number of the column's edges that lie below x; NaN gets one more than the number of edges."""
    cdef Py_ssize_t row
    for row in prange(X.shape[0], nogil=True, num_threads=n_threads, schedule="static"):
        _code_row(&X[row, 0], &edges[0], &offsets[0], X.shape[1], &codes[row, 0])


cdef inline void _code_row(
    const value_t* x, const double* edges, const int32_t* offsets, Py_ssize_t n_features, code_t* codes
) noexcept nogil:
    cdef Py_ssize_t i
    cdef const double* base
    cdef const double* first
    cdef int32_t length, half
    cdef double value
    for i in range(n_features):
        value = <double> x[i]
        first = edges + offsets[i]
        base = first
        length = offsets[i + 1] - offsets[i]
        if value_t is float or value_t is double:
            if value != value:
                codes[i] = <code_t> (length + 1)
                continue
        # Bisection whose only branch is the loop's own, the same for every row: x decides by conditional moves.
        while length > 1:
            half = length >> 1
            base = base + half if base[half - 1] < value else base
            length = length - half
        codes[i] = <code_t> ((base - first) + (length == 1 and base[0] < value))


def code_by_table(const uint8_t[:, ::1] X, const code_t[:, ::1] table, code_t[:, ::1] codes, int n_threads):
    """Write ``table[i, x]`` for every byte x of column i."""
    cdef Py_ssize_t row, i
    for row in prange(X.shape[0], nogil=True, num_threads=n_threads, schedule="static"):
        for i in range(X.shape[1]):
            codes[row, i] = table[i, X[row, i]]
