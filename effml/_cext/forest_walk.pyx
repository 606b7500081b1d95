"""Loop behind effml.program.steps.ForestWalk.run: many rows through many trees, sums in 32-bit integers."""

from cython.parallel cimport prange, threadid
from libc.stdint cimport INT32_MAX, INT32_MIN, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

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

cdef extern from "forest_walk.h" nogil:
    enum:
        EFFML_TOP_ROWS
        EFFML_TOP_EXITS
        EFFML_LANES
    ctypedef struct effml_node:
        pass
    ctypedef struct effml_top:
        pass
    ctypedef struct effml_forest:
        const effml_node* nodes
        int32_t n_splits
        const effml_top* tops
        const int64_t* first_top
        const int32_t* exits
        Py_ssize_t n_trees
        const int32_t* leaf
        const int16_t* narrow
        const int32_t* wide
        Py_ssize_t n_outputs, padded
    ctypedef void (*effml_walk_block)(const effml_forest*, const int32_t*, Py_ssize_t, uint32_t*) noexcept
    effml_walk_block effml_choose_walk_block(int)
    int effml_top_levels()

ctypedef fused input_t:
    uint8_t
    int8_t
    uint16_t
    int16_t
    uint32_t
    int32_t
    float

TOP_ROWS, TOP_EXITS, LANES = EFFML_TOP_ROWS, EFFML_TOP_EXITS, EFFML_LANES
TOP_LEVELS = effml_top_levels()
FASTEST = 2  # instruction level; less for tests


def max_threads():
    """Threads that OpenMP would use: OMP_NUM_THREADS, threadpoolctl or the number of cores."""
    return omp_get_max_threads()


def forest_walk(
    const input_t[:, :] x, const int32_t[::1] columns, bint nan_left, bint nan_right, const int32_t[:, ::1] nodes,
    int32_t n_splits, const int32_t[:, ::1] tops, const int64_t[::1] first_top, const int32_t[:, ::1] exits,
    const int32_t[::1] leaf, const int16_t[:, ::1] narrow, const int32_t[:, ::1] wide, uint32_t[:, ::1] out,
    Py_ssize_t block, int n_threads, int level,
):
    """out[i] += values[leaf[l]] for the leaf l of every tree, or out[i, leaf[l]] += 1 when there are no values.

    The keys of a block of rows, a multiple of TOP_ROWS, are copied column by column, those of `columns` in the order
    of x; with nan_left and nan_right twice, first with each NaN below all numbers, then with each NaN above. Columns of
    nodes and tops are multiplied by `block`. Values are `narrow` or `wide`, the other has no rows; their columns are
    padded to a multiple of LANES unless there is one.
    """
    cdef effml_forest forest
    forest.nodes, forest.n_splits = <const effml_node*>&nodes[0, 0], n_splits
    forest.tops, forest.first_top = <const effml_top*>&tops[0, 0], &first_top[0]
    forest.exits, forest.n_trees, forest.leaf = &exits[0, 0], exits.shape[0], &leaf[0]
    forest.narrow = &narrow[0, 0] if narrow.shape[0] else NULL
    forest.wide = &wide[0, 0] if wide.shape[0] else NULL
    forest.n_outputs, forest.padded = out.shape[1], narrow.shape[1]
    cdef effml_walk_block walk = effml_choose_walk_block(level)
    cdef Py_ssize_t n = x.shape[0], b, width = columns.shape[0] * (nan_left + nan_right)
    cdef int32_t[:, ::1] keys = np.zeros((n_threads, max(block * width, 1)), dtype=np.int32)
    cdef uint32_t[:, ::1] sums = np.empty((n_threads, block * forest.padded), dtype=np.uint32)
    with nogil:
        for b in prange((n + block - 1) // block, num_threads=n_threads, schedule="dynamic"):
            copy_keys(
                x, columns, nan_left, nan_right, b * block, min(n, (b + 1) * block), block, &keys[threadid(), 0]
            )
            memset(&sums[threadid(), 0], 0, block * forest.padded * sizeof(uint32_t))
            walk(&forest, &keys[threadid(), 0], min(n, (b + 1) * block) - b * block, &sums[threadid(), 0])
            add_sums(out, b * block, min(n, (b + 1) * block), &sums[threadid(), 0], forest.padded)


cdef void copy_keys(
    const input_t[:, :] x, const int32_t[::1] columns, bint nan_left, bint nan_right, Py_ssize_t begin,
    Py_ssize_t end, Py_ssize_t block, int32_t* keys,
) noexcept nogil:
    cdef Py_ssize_t i, j
    if nan_left:
        for i in range(begin, end):
            for j in range(columns.shape[0]):
                keys[j * block + i - begin] = key_of(x[i, columns[j]], INT32_MIN)
        keys += columns.shape[0] * block
    if nan_right:
        for i in range(begin, end):
            for j in range(columns.shape[0]):
                keys[j * block + i - begin] = key_of(x[i, columns[j]], INT32_MAX)


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


cdef void add_sums(
    uint32_t[:, ::1] out, Py_ssize_t begin, Py_ssize_t end, const uint32_t* sums, Py_ssize_t padded
) noexcept nogil:
    cdef Py_ssize_t i, c
    for i in range(begin, end):
        for c in range(out.shape[1]):
            out[i, c] += sums[(i - begin) * padded + c]
