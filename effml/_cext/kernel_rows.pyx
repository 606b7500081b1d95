"""Rows of kernels against landmarks, their gradients, and products in a declared order (see kernel_rows.h).

Rows are independent and each has one order of operations: results do not depend on the number of threads.
"""

from cython.parallel cimport prange, threadid
from libc.stdint cimport int32_t

ctypedef fused real_t:
    float
    double

cdef extern from "kernel_rows.h" nogil:
    ctypedef struct effml_kernel_functions:
        void (*row)(const float *, float, const float *, const float *, Py_ssize_t, const float *, const int32_t *, Py_ssize_t, const float *, float *) noexcept nogil
        void (*gradient)(const float *, float, const float *, const float *, Py_ssize_t, const float *, const int32_t *, Py_ssize_t, const float *, const float *, const float *, Py_ssize_t, int, float *, float *, float *, float *, float *) noexcept nogil
        void (*ordered)(const float *, Py_ssize_t, const float *, Py_ssize_t, float *) noexcept nogil

    effml_kernel_functions effml_choose_kernel_functions(int level)
    void effml_kernel_row_double(const double *, double, const double *, const double *, Py_ssize_t, const double *, const int32_t *, Py_ssize_t, const double *, double *) noexcept
    void effml_kernel_gradient_double(const double *, double, const double *, const double *, Py_ssize_t, const double *, const int32_t *, Py_ssize_t, const double *, const double *, const double *, Py_ssize_t, int, double *, double *, double *, double *, double *) noexcept
    void effml_ordered_row_double(const double *, Py_ssize_t, const double *, Py_ssize_t, double *) noexcept
    float effml_rsqrt_float(float)


def kernel_rows(
    const real_t[:, ::1] dots, const real_t[::1] row_norms, const real_t[::1] norms, const real_t[:, ::1] factors,
    const real_t[::1] shapes, const int32_t[::1] degrees, real_t[:, :, ::1] out, Py_ssize_t first, weights,
    int n_threads=1, int level=2,
):
    """Fill ``out[:, first : first + n_kernels]`` (n_rows, M, L); skip kernels whose weight (n_rows, M) is 0."""
    cdef Py_ssize_t b, n = dots.shape[1], n_kernels = shapes.shape[0]
    cdef const real_t[:, ::1] live
    cdef const real_t *row_weights
    cdef bint weighted = weights is not None
    cdef effml_kernel_functions functions = effml_choose_kernel_functions(level)
    if not (n and n_kernels):
        return
    if weighted:
        live = weights
    for b in prange(dots.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        row_weights = &live[b, first] if weighted else NULL
        if real_t is float:
            functions.row(
                &dots[b, 0], row_norms[b], &norms[0], &factors[0, 0], n, &shapes[0], &degrees[0], n_kernels,
                row_weights, &out[b, first, 0],
            )
        else:
            effml_kernel_row_double(
                &dots[b, 0], row_norms[b], &norms[0], &factors[0, 0], n, &shapes[0], &degrees[0], n_kernels,
                row_weights, &out[b, first, 0],
            )


def kernel_gradients(
    const real_t[:, ::1] dots, const real_t[::1] row_norms, const real_t[::1] norms, const real_t[:, ::1] factors,
    const real_t[::1] shapes, const int32_t[::1] degrees, const real_t[:, ::1] weights,
    const real_t[:, :, ::1] kernels, const real_t[:, :, ::1] grad, Py_ssize_t first, bint weights_only,
    real_t[:, ::1] to_weights, real_t[:, ::1] to_dots, real_t[:, ::1] to_norms, real_t[:, ::1] to_shapes,
    real_t[:, ::1] scratch, int n_threads=1, int level=2,
):
    """Fill gradients; `grad` is (n_rows, 1, L) for a sum of kernels, (n_rows, M, L) when they stand side by side.

    With `weights_only` the last three outputs are not touched. `scratch` is (n_threads, L).
    """
    cdef Py_ssize_t b, n = dots.shape[1], n_kernels = shapes.shape[0]
    cdef bint side_by_side = grad.shape[1] > 1
    cdef Py_ssize_t step = n if side_by_side else 0, start = first if side_by_side else 0
    cdef effml_kernel_functions functions = effml_choose_kernel_functions(level)
    if not (n and n_kernels):
        return
    for b in prange(dots.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        if real_t is float:
            functions.gradient(
                &dots[b, 0], row_norms[b], &norms[0], &factors[0, 0], n, &shapes[0], &degrees[0], n_kernels,
                &weights[b, first], &kernels[b, first, 0], &grad[b, start, 0], step, weights_only,
                &to_weights[b, first], &to_dots[b, 0], &to_norms[b, 0], &to_shapes[b, first],
                &scratch[threadid(), 0],
            )
        else:
            effml_kernel_gradient_double(
                &dots[b, 0], row_norms[b], &norms[0], &factors[0, 0], n, &shapes[0], &degrees[0], n_kernels,
                &weights[b, first], &kernels[b, first, 0], &grad[b, start, 0], step, weights_only,
                &to_weights[b, first], &to_dots[b, 0], &to_norms[b, 0], &to_shapes[b, first],
                &scratch[threadid(), 0],
            )


def ordered_product(
    const real_t[:, ::1] x, const real_t[:, ::1] weight, real_t[:, ::1] out, int n_threads=1, int level=2
):
    """Add ``x @ weight`` to `out`, each element in the order of the rows of `weight`, without fused multiply-add."""
    cdef Py_ssize_t b, n_in = x.shape[1], n_out = out.shape[1]
    cdef effml_kernel_functions functions = effml_choose_kernel_functions(level)
    if not (n_in and n_out):
        return
    for b in prange(x.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        if real_t is float:
            functions.ordered(&x[b, 0], n_in, &weight[0, 0], n_out, &out[b, 0])
        else:
            effml_ordered_row_double(&x[b, 0], n_in, &weight[0, 0], n_out, &out[b, 0])


def weighted_sum(const real_t[:, :, ::1] kernels, const real_t[:, ::1] weights, real_t[:, ::1] out):
    """Set ``out[b] = sum_m weights[b, m] kernels[b, m]`` in the order of m, leaving out weights of 0."""
    cdef Py_ssize_t b, m, l, n = out.shape[1]
    cdef real_t weight
    with nogil:
        for b in range(kernels.shape[0]):
            for l in range(n):
                out[b, l] = 0
            for m in range(kernels.shape[1]):
                weight = weights[b, m]
                if weight != 0:
                    for l in range(n):
                        out[b, l] += weight * kernels[b, m, l]


def rsqrt(const float[::1] x, float[::1] out):
    """Set ``out = 1 / sqrt(x)`` of normal positive numbers as the exported C does."""
    cdef Py_ssize_t k
    for k in range(x.shape[0]):
        out[k] = effml_rsqrt_float(x[k])
