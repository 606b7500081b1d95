"""Exact integer products of rows with packed low-bit weights, threads over blocks of rows (see packed.h).

Every output is ``(factor * sum + row_terms[row]) * 2^shift + column_terms[output]``, where `sum` is what the loops add
up; bits add up the differing bits of all planes, plane p counted 2^p times.
"""

from cython.parallel cimport prange
from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #else
    static int omp_get_max_threads(void) { return 1; }
    #endif
    """
    int omp_get_max_threads() nogil

cdef extern from "packed.h" nogil:
    enum:
        EFFML_ROWS
    ctypedef void (*effml_bits_function)(const uint64_t *, int, const uint64_t *, Py_ssize_t, Py_ssize_t, int, int32_t *) noexcept nogil
    ctypedef void (*effml_bytes_function)(const uint8_t *, int, Py_ssize_t, const int8_t *, Py_ssize_t, int32_t *) noexcept nogil
    ctypedef void (*effml_shorts_function)(const int16_t *, int, Py_ssize_t, const int16_t *, Py_ssize_t, int32_t *) noexcept nogil
    int effml_packed_level()
    effml_bits_function effml_find_bits(int)
    effml_bytes_function effml_find_bytes(int)
    effml_shorts_function effml_find_shorts(int)

LEVELS = ("portable", "popcnt", "avx2", "avx512")


def best_level():
    """Instruction level of this processor, a position in LEVELS; a function takes that or a lower one."""
    return effml_packed_level()


def max_threads():
    """Threads that OpenMP would use: OMP_NUM_THREADS, threadpoolctl or the number of cores."""
    return omp_get_max_threads()


cdef inline void store(
    const int32_t *sums, int n_rows, Py_ssize_t width, int32_t factor, const int32_t *row_terms,
    const int32_t *column_terms, int shift, Py_ssize_t n, int32_t *out, Py_ssize_t stride,
) noexcept nogil:
    """Write the first n of `width` outputs of each row; the arithmetic wraps at 32 bits."""
    cdef Py_ssize_t r, k
    cdef uint32_t row
    for r in range(n_rows):
        row = <uint32_t>row_terms[r]
        for k in range(n):
            out[r * stride + k] = <int32_t>(
                ((<uint32_t>factor * <uint32_t>sums[r * width + k] + row) << shift) + <uint32_t>column_terms[k]
            )


cdef class BitsProduct:
    """Weights (planes, groups, words, 8) and terms that are read once, since one row alone takes so little time.

    Called with x (n, words) and out (n, m), it sets out to ``-2 sum_p 2^p |x xor weights_p|`` and terms.
    """

    cdef const uint64_t[:, :, :, ::1] weights
    cdef const int32_t[::1] column_terms
    cdef int shift

    def __init__(self, const uint64_t[:, :, :, ::1] weights, const int32_t[::1] column_terms, int shift):
        self.weights, self.column_terms, self.shift = weights, column_terms, shift

    def __call__(self, const uint64_t[:, ::1] x, int32_t[:, ::1] out, int n_threads, int level):
        cdef Py_ssize_t n_blocks = (x.shape[0] + EFFML_ROWS - 1) // EFFML_ROWS, b
        cdef effml_bits_function function = effml_find_bits(level)
        cdef const uint64_t[:, :, :, ::1] weights = self.weights
        cdef const int32_t[::1] terms = self.column_terms
        cdef int shift = self.shift
        if n_threads == 1 or n_blocks == 1:
            with nogil:
                for b in range(n_blocks):
                    bits_block(function, x, weights, terms, out, shift, b * EFFML_ROWS)
            return
        for b in prange(n_blocks, nogil=True, num_threads=n_threads, schedule="static"):
            bits_block(function, x, weights, terms, out, shift, b * EFFML_ROWS)


cdef void bits_block(
    effml_bits_function function, const uint64_t[:, ::1] x, const uint64_t[:, :, :, ::1] weights,
    const int32_t[::1] column_terms, int32_t[:, ::1] out, int shift, Py_ssize_t first,
) noexcept nogil:
    cdef int n_rows = <int>min(EFFML_ROWS, x.shape[0] - first), r, p
    cdef Py_ssize_t m = out.shape[1], words = x.shape[1], k
    cdef int32_t *target = &out[first, 0]
    for p in range(weights.shape[0]):
        function(&x[first, 0], n_rows, &weights[p, 0, 0, 0], words, m, p, target)
    for r in range(n_rows):
        for k in range(m):
            target[r * m + k] = <int32_t>(<uint32_t>column_terms[k] - (<uint32_t>target[r * m + k] << (shift + 1)))


def bytes_product(
    const uint8_t[:, ::1] x, const int8_t[:, :, :, ::1] weights, const int32_t[::1] row_terms,
    const int32_t[::1] column_terms, int32_t[:, ::1] out, int shift, int n_threads, int level,
):
    """Set out (n, m) to ``2 x weights`` and terms; weights are (groups, inputs / 4, 16, 4)."""
    cdef Py_ssize_t n = x.shape[0], b
    cdef effml_bytes_function function = effml_find_bytes(level)
    for b in prange((n + EFFML_ROWS - 1) // EFFML_ROWS, nogil=True, num_threads=n_threads, schedule="static"):
        bytes_block(function, x, weights, row_terms, column_terms, out, shift, b * EFFML_ROWS)


cdef void bytes_block(
    effml_bytes_function function, const uint8_t[:, ::1] x, const int8_t[:, :, :, ::1] weights,
    const int32_t[::1] row_terms, const int32_t[::1] column_terms, int32_t[:, ::1] out, int shift,
    Py_ssize_t first,
) noexcept nogil:
    cdef int32_t sums[EFFML_ROWS * 16]
    cdef int n_rows = <int>min(EFFML_ROWS, x.shape[0] - first)
    cdef Py_ssize_t m = out.shape[1], width = x.shape[1], g
    for g in range(weights.shape[0]):
        function(&x[first, 0], n_rows, width, &weights[g, 0, 0, 0], width, sums)
        store(
            sums, n_rows, 16, 2, &row_terms[first], &column_terms[g * 16], shift, min(16, m - g * 16),
            &out[first, g * 16], m,
        )


def shorts_product(
    const int16_t[:, ::1] x, const int16_t[:, :, :, ::1] weights, const int32_t[::1] row_terms,
    const int32_t[::1] column_terms, int32_t[:, ::1] out, int shift, int n_threads, int level,
):
    """Set out (n, m) to ``2 x weights`` and terms; weights are (groups, inputs / 2, 16, 2)."""
    cdef Py_ssize_t n = x.shape[0], b
    cdef effml_shorts_function function = effml_find_shorts(level)
    for b in prange((n + EFFML_ROWS - 1) // EFFML_ROWS, nogil=True, num_threads=n_threads, schedule="static"):
        shorts_block(function, x, weights, row_terms, column_terms, out, shift, b * EFFML_ROWS)


cdef void shorts_block(
    effml_shorts_function function, const int16_t[:, ::1] x, const int16_t[:, :, :, ::1] weights,
    const int32_t[::1] row_terms, const int32_t[::1] column_terms, int32_t[:, ::1] out, int shift,
    Py_ssize_t first,
) noexcept nogil:
    cdef int32_t sums[EFFML_ROWS * 16]
    cdef int n_rows = <int>min(EFFML_ROWS, x.shape[0] - first)
    cdef Py_ssize_t m = out.shape[1], width = x.shape[1], g
    for g in range(weights.shape[0]):
        function(&x[first, 0], n_rows, width, &weights[g, 0, 0, 0], width, sums)
        store(
            sums, n_rows, 16, 2, &row_terms[first], &column_terms[g * 16], shift, min(16, m - g * 16),
            &out[first, g * 16], m,
        )
