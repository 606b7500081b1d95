"""Scores of Bayesian network classifiers: for every row, add one table row per feature (see effml.bayes.tables).

Rows of X are cut into one contiguous block per thread, so that results do not depend on the number of threads.
"""

from cython.parallel cimport prange
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t

ctypedef fused code_t:
    uint8_t
    uint16_t

ctypedef fused value_t:
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    float
    double

cdef extern from "table_sums.h" nogil:
    ctypedef void (*effml_sum_rows_function)(const float *, const int64_t *, Py_ssize_t, Py_ssize_t, float *) noexcept nogil
    effml_sum_rows_function effml_choose_sum_rows(int portable)


cdef inline void table_rows(
    const code_t *codes, const int64_t[::1] first, const int64_t[::1] parents, const int64_t[::1] n_states,
    int64_t *rows,
) noexcept nogil:
    """Set rows = [prior, row of feature 0, row of feature 1, ...]; the zero row stands for a dropped factor."""
    cdef Py_ssize_t i, n_features = parents.shape[0]
    cdef int64_t code, parent, parent_code, zero_row = first[n_features] + 1
    rows[0] = first[n_features]
    for i in range(n_features):
        code = codes[i]
        parent = parents[i]
        if code >= n_states[i] or parent < -1:
            rows[i + 1] = zero_row
        elif parent < 0:
            rows[i + 1] = first[i] + code
        else:
            parent_code = codes[parent]
            if parent_code >= n_states[parent]:
                rows[i + 1] = zero_row
            else:
                rows[i + 1] = first[i] + code * n_states[parent] + parent_code


cdef inline int64_t first_maximum(const float *scores, Py_ssize_t n_classes) noexcept nogil:
    cdef Py_ssize_t c, best = 0
    for c in range(1, n_classes):
        if scores[c] > scores[best]:
            best = c
    return best


def table_scores(
    const code_t[:, ::1] codes, const float[:, ::1] table, const int64_t[::1] first, const int64_t[::1] parents,
    const int64_t[::1] n_states, int64_t[:, ::1] rows, float[:, ::1] out, int portable,
):
    """Fill out (n, width); rows (n_threads, n_features + 1) is scratch and its length the number of threads."""
    cdef Py_ssize_t n = codes.shape[0], n_rows = rows.shape[1], width = table.shape[1], n_threads = rows.shape[0]
    cdef Py_ssize_t thread, r
    cdef effml_sum_rows_function sum_rows = effml_choose_sum_rows(portable)
    for thread in prange(n_threads, num_threads=n_threads, schedule="static", nogil=True):
        for r in range(n * thread // n_threads, n * (thread + 1) // n_threads):
            table_rows(&codes[r, 0], first, parents, n_states, &rows[thread, 0])
            sum_rows(&table[0, 0], &rows[thread, 0], n_rows, width, &out[r, 0])


def table_argmax(
    const code_t[:, ::1] codes, const float[:, ::1] table, const int64_t[::1] first, const int64_t[::1] parents,
    const int64_t[::1] n_states, Py_ssize_t n_classes, int64_t[:, ::1] rows, float[:, ::1] scores, int64_t[::1] out,
    int portable,
):
    """Fill out (n,) with the first class of largest score; rows and scores (n_threads, width) are scratch."""
    cdef Py_ssize_t n = codes.shape[0], n_rows = rows.shape[1], width = table.shape[1], n_threads = rows.shape[0]
    cdef Py_ssize_t thread, r
    cdef effml_sum_rows_function sum_rows = effml_choose_sum_rows(portable)
    for thread in prange(n_threads, num_threads=n_threads, schedule="static", nogil=True):
        for r in range(n * thread // n_threads, n * (thread + 1) // n_threads):
            table_rows(&codes[r, 0], first, parents, n_states, &rows[thread, 0])
            sum_rows(&table[0, 0], &rows[thread, 0], n_rows, width, &scores[thread, 0])
            out[r] = first_maximum(&scores[thread, 0], n_classes)


def valid_codes(const value_t[:, :] values, const int64_t[::1] n_states, code_t[:, ::1] out):
    """Fill out with the integers in [0, n_states) that `values` are, and with n_states where they are not."""
    cdef Py_ssize_t r, i
    cdef int64_t code
    cdef value_t value
    with nogil:
        for r in range(values.shape[0]):
            for i in range(values.shape[1]):
                value = values[r, i]
                code = n_states[i]
                # Compared before the conversion: NaN, infinities and large values have no int64.
                if value >= 0 and value < code and <value_t>(<int64_t>value) == value:
                    code = <int64_t>value
                out[r, i] = <code_t>code
