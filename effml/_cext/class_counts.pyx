"""Loops that sort codes by class and count them: states by class, and the tables of a given tree of features.

Columns are features, rows are sorted by class: columns[f, class_start[c]:class_start[c + 1]] are the codes of feature
f in class c, n_states[f] standing for a missing code.
"""

from cython.parallel cimport prange, threadid
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t
from libc.string cimport memset

import numpy as np

ctypedef fused code_t:
    uint8_t
    uint16_t


def class_sorted_columns(
    const code_t[:, :] codes, const int64_t[::1] order, const int32_t[::1] n_states, code_t[:, ::1] out, int n_threads
):
    """out[f, k] = codes[order[k], f], a missing code replaced by n_states[f]."""
    cdef Py_ssize_t n = out.shape[1], n_features = out.shape[0], block
    with nogil:
        for block in prange((n + 63) // 64, num_threads=n_threads, schedule="static"):
            copy_block(codes, order, n_states, out, 64 * block, min(n, 64 * block + 64), n_features)


cdef void copy_block(
    const code_t[:, :] codes, const int64_t[::1] order, const int32_t[::1] n_states, code_t[:, ::1] out,
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_features,
) noexcept nogil:
    # 64 rows x 64 features at a time: both sides of the transposition stay in the first-level cache.
    cdef Py_ssize_t f0, f, k, n_rows = end - begin, step = codes.strides[1]
    cdef const char* rows[64]
    cdef int32_t limit, code
    cdef code_t* column
    for k in range(n_rows):
        rows[k] = <const char*>&codes[order[begin + k], 0]
    for f0 in range(0, n_features, 64):
        for f in range(f0, min(n_features, f0 + 64)):
            limit = n_states[f]
            column = &out[f, begin]
            for k in range(n_rows):
                code = (<const code_t*>(rows[k] + f * step))[0]
                column[k] = <code_t>(code if code < limit else limit)


def state_counts(
    const code_t[:, ::1] columns, const int64_t[::1] class_start, const int32_t[::1] state_start,
    int32_t[:, ::1] out, int n_threads,
):
    """out[c, state_start[f] + s] = rows of class c with code s in feature f (s = n_states[f]: missing)."""
    cdef Py_ssize_t f, n_features = columns.shape[0]
    cdef Py_ssize_t longest = np.max(np.diff(state_start), initial=1)
    cdef int32_t[:, ::1] scratch = np.zeros((n_threads, 4 * longest), dtype=np.int32)
    with nogil:
        for f in prange(n_features, num_threads=n_threads, schedule="static"):
            count_states(
                &columns[f, 0], class_start, state_start[f], state_start[f + 1] - state_start[f], out,
                &scratch[threadid(), 0],
            )


cdef void count_states(
    const code_t* codes, const int64_t[::1] class_start, Py_ssize_t first, Py_ssize_t length, int32_t[:, ::1] out,
    int32_t* scratch,
) noexcept nogil:
    # Four histograms in turn: neighbours often hold the same state, and an increment waits for the one before it.
    cdef Py_ssize_t c, k, s, end
    cdef int32_t* h1 = scratch + length
    cdef int32_t* h2 = h1 + length
    cdef int32_t* h3 = h2 + length
    for c in range(out.shape[0]):
        k = class_start[c]
        end = class_start[c + 1]
        memset(scratch, 0, 4 * length * sizeof(int32_t))
        while k + 4 <= end:
            scratch[codes[k]] += 1
            h1[codes[k + 1]] += 1
            h2[codes[k + 2]] += 1
            h3[codes[k + 3]] += 1
            k += 4
        while k < end:
            scratch[codes[k]] += 1
            k += 1
        for s in range(length):
            out[c, first + s] = scratch[s] + h1[s] + h2[s] + h3[s]


def state_weights(
    const code_t[:, ::1] columns, const double[::1] weights, const int64_t[::1] class_start,
    const int32_t[::1] state_start, double[:, ::1] out, int n_threads,
):
    """The same with a weight per (sorted) row; `out` comes zeroed."""
    cdef Py_ssize_t f, c, k
    with nogil:
        for f in prange(columns.shape[0], num_threads=n_threads, schedule="static"):
            for c in range(out.shape[0]):
                for k in range(class_start[c], class_start[c + 1]):
                    out[c, state_start[f] + columns[f, k]] += weights[k]


def factor_counts(
    const code_t[:, ::1] columns, const int64_t[::1] class_start, const int32_t[::1] parents,
    const int32_t[::1] n_states, const double[::1] weights, const int64_t[::1] table_start, double[::1] out,
    int n_threads,
):
    """Fill out with one flat (r_own, r_parent, C) table a feature (r_parent = 1 without a parent).

    weights is empty for counts of rows. Missing codes are n_states[f] in columns and counted nowhere.
    """
    cdef Py_ssize_t f
    cdef int64_t longest = 0
    cdef int64_t[::1] side = np.ones(columns.shape[0], dtype=np.int64)
    for f in range(columns.shape[0]):
        if parents[f] >= 0:
            side[f] = n_states[parents[f]] + 1
        longest = max(longest, (n_states[f] + 1) * side[f])
    cdef double[:, ::1] scratch = np.empty((n_threads, 2 * longest))
    with nogil:
        for f in prange(columns.shape[0], num_threads=n_threads, schedule="dynamic"):
            count_factor(
                &columns[f, 0], &columns[parents[f], 0] if parents[f] >= 0 else NULL, class_start,
                &weights[0] if weights.shape[0] > 0 else NULL, n_states[f], side[f], &scratch[threadid(), 0],
                &out[table_start[f]],
            )


cdef void count_factor(
    const code_t* own, const code_t* parent, const int64_t[::1] class_start, const double* weights, int64_t n_own,
    int64_t side, double* even, double* out,
) noexcept nogil:
    # One class at a time in a small table with a row and a column for missing codes. Rows alternate between two
    # copies when they count 1 each: an increment of the cell just written waits for that write.
    cdef int64_t c, k, s, p, n_classes = class_start.shape[0] - 1, size = (n_own + 1) * side
    cdef int64_t n_parent = 1 if parent == NULL else side - 1
    cdef double* odd = even + size
    for c in range(n_classes):
        memset(even, 0, 2 * size * sizeof(double))
        for k in range(class_start[c], class_start[c + 1]):
            p = own[k] * side
            if parent != NULL:
                p = p + parent[k]
            if weights != NULL:
                even[p] += weights[k]
            elif k & 1:
                odd[p] += 1
            else:
                even[p] += 1
        for s in range(n_own):
            for p in range(n_parent):
                out[(s * n_parent + p) * n_classes + c] = even[s * side + p] + odd[s * side + p]


def maximum_spanning_tree(const double[:, ::1] weights, Py_ssize_t root):
    """Return (parents, weight of the edge to the parent) by Prim's algorithm.

    Edges are ordered by descending weight, then by (i, j) with i < j; with a strict order the tree is unique, so it is
    Kruskal's. The root has parent -1 and weight -inf.
    """
    cdef Py_ssize_t n = weights.shape[0], round_, i, newest = root, next_one
    parents_ = np.full(n, -1, dtype=np.int64)
    best_ = np.full(n, -np.inf)
    cdef int64_t[::1] parents = parents_, edge = np.full(n, n * n, dtype=np.int64)
    cdef double[::1] best = best_
    cdef uint8_t[::1] inside = np.zeros(n, dtype=np.uint8)
    cdef int64_t candidate
    cdef double weight
    with nogil:
        for round_ in range(n - 1):
            inside[newest] = 1
            next_one = -1
            for i in range(n):
                if inside[i]:
                    continue
                candidate = (i * n + newest) if i < newest else (newest * n + i)
                weight = weights[newest, i]
                if weight > best[i] or (weight == best[i] and candidate < edge[i]):
                    parents[i] = newest
                    best[i] = weight
                    edge[i] = candidate
                if next_one < 0 or best[i] > best[next_one] or (best[i] == best[next_one] and edge[i] < edge[next_one]):
                    next_one = i
            newest = next_one
    return parents_, best_
