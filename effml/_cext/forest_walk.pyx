"""Loop behind effml.program.steps.ForestWalk.run: many rows through many trees, sums in 32-bit integers.

A node is four numbers: threshold, column, left, right. Leaves are nodes that lead to themselves, so that several rows
can walk side by side, each at its own speed: one row alone waits for memory at every split.
"""

from cython.parallel cimport prange, threadid
from libc.stdint cimport INT32_MAX, INT32_MIN, int8_t, int16_t, int32_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

import numpy as np

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #else
    static int omp_get_max_threads(void) { return 1; }
    #endif
    """
    int omp_get_max_threads() nogil

ctypedef fused input_t:
    uint8_t
    int8_t
    uint16_t
    int16_t
    uint32_t
    int32_t
    float

cdef enum:
    SIDE_BY_SIDE = 8

cdef struct Node:
    int32_t threshold
    int32_t column
    int32_t child[2]


def max_threads():
    """Threads that OpenMP would use: OMP_NUM_THREADS, threadpoolctl or the number of cores."""
    return omp_get_max_threads()


def forest_walk(
    const input_t[:, :] x, const int32_t[::1] columns, bint nan_left, bint nan_right, const int32_t[:, ::1] nodes,
    int32_t n_splits, const int32_t[::1] roots, const int32_t[::1] leaf, const uint32_t[:, ::1] values,
    uint32_t[:, ::1] out, Py_ssize_t block, int n_threads,
):
    """out[i] += values[leaf[l]] for the leaf l of every tree, or out[i, leaf[l]] += 1 when values is empty.

    Node columns number `columns`; a block of rows is copied there as int32 keys in the order of x. With nan_left and
    nan_right there are two copies, the first with each NaN below all numbers, the second with each NaN above.
    """
    cdef Py_ssize_t n = x.shape[0], b, width = columns.shape[0] * (nan_left + nan_right)
    block = (block + SIDE_BY_SIDE - 1) // SIDE_BY_SIDE * SIDE_BY_SIDE
    cdef int32_t[:, ::1] scratch = np.zeros((n_threads, max(block * width, 1)), dtype=np.int32)
    with nogil:
        for b in prange((n + block - 1) // block, num_threads=n_threads, schedule="dynamic"):
            copy_keys(x, columns, nan_left, nan_right, b * block, min(n, (b + 1) * block), &scratch[threadid(), 0])
            walk_block(
                <const Node*>&nodes[0, 0], n_splits, roots, leaf, values, &scratch[threadid(), 0], width,
                out, b * block, min(n, (b + 1) * block),
            )


cdef void copy_keys(
    const input_t[:, :] x, const int32_t[::1] columns, bint nan_left, bint nan_right, Py_ssize_t begin,
    Py_ssize_t end, int32_t* keys,
) noexcept nogil:
    cdef Py_ssize_t i, j, m = columns.shape[0]
    for i in range(begin, end):
        if nan_left:
            for j in range(m):
                keys[j] = key_of(x[i, columns[j]], INT32_MIN)
            keys += m
        if nan_right:
            for j in range(m):
                keys[j] = key_of(x[i, columns[j]], INT32_MAX)
            keys += m


cdef inline int32_t key_of(input_t value, int32_t nan_key) noexcept nogil:
    cdef int32_t bits
    if input_t is float:
        if value != value:
            return nan_key
        memcpy(&bits, &value, sizeof(bits))
        return INT32_MIN - bits if bits < 0 else bits
    elif input_t is uint32_t:
        return <int32_t>(value ^ 0x80000000u)
    else:
        return value


cdef void walk_block(
    const Node* nodes, int32_t n_splits, const int32_t[::1] roots, const int32_t[::1] leaf,
    const uint32_t[:, ::1] values, const int32_t* keys, Py_ssize_t width, uint32_t[:, ::1] out, Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    cdef Py_ssize_t tree, group, first, k, c, row, n_out = out.shape[1]
    cdef int32_t at[SIDE_BY_SIDE]
    cdef int32_t lowest
    cdef const int32_t* here
    cdef const Node* node
    cdef bint votes = values.shape[0] == 0
    for tree in range(roots.shape[0]):
        # the last group may hold old keys: they walk along and are not counted
        for group in range((end - begin + SIDE_BY_SIDE - 1) // SIDE_BY_SIDE):
            first = group * SIDE_BY_SIDE
            here = keys + first * width
            for k in range(SIDE_BY_SIDE):
                at[k] = roots[tree]
            lowest = roots[tree]
            while lowest < n_splits:
                lowest = INT32_MAX
                for k in range(SIDE_BY_SIDE):
                    node = &nodes[at[k]]
                    at[k] = node.child[here[k * width + node.column] > node.threshold]
                    lowest = min(lowest, at[k])
            for k in range(min(SIDE_BY_SIDE, end - begin - first)):
                row = leaf[at[k] - n_splits]
                if votes:
                    out[begin + first + k, row] += 1
                else:
                    for c in range(n_out):
                        out[begin + first + k, c] += values[row, c]
