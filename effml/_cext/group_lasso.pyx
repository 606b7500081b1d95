"""Loops of the group lasso over the exits of snippets.

`codes` (n_rows, n_snippets) holds the exit that a row takes in a snippet and lies column by column; the exits of snippet
j are first[j] .. first[j + 1] of all.
"""

from libc.math cimport fmax, sqrt
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset

cdef enum:
    HALVINGS = 30  # of the interval that holds the multiplier of a snippet, at first a factor of 2


def add_exits(const uint8_t[::1, :] codes, const int64_t[::1] first, const float[:, ::1] values, float[:, ::1] out):
    """out[i, :] += values[exit of row i in j, :] for every snippet j."""
    cdef Py_ssize_t j
    with nogil:
        for j in range(codes.shape[1]):
            add_rows(codes.shape[0], out.shape[1], &codes[0, j], NULL, &values[first[j], 0], &out[0, 0])


def sum_exits(const uint8_t[::1, :] codes, const int64_t[::1] first, const float[:, ::1] rows, float[:, ::1] out):
    """out[exit of row i in j, :] += rows[i, :] for every snippet j."""
    cdef Py_ssize_t j
    with nogil:
        for j in range(codes.shape[1]):
            sum_rows(codes.shape[0], out.shape[1], &codes[0, j], &rows[0, 0], &out[first[j], 0])


def descend(
    const uint8_t[::1, :] codes, const int64_t[::1] first, const float[::1] curvature, const double[:] mass,
    const double[::1] penalty, const double[::1] cost, float[:, ::1] coef, float[:, ::1] residual,
    float[:, ::1] scratch, double[:, ::1] target, double[::1] shift, bint all_snippets,
):
    """Minimise a quadratic over the exits of one snippet after the other, the intercept always with them.

    The quadratic has the gradient `residual` (n_rows, n_outputs) and, in each score of row i, the curvature[i];
    mass[e] is the sum of the curvature over the rows of exit e. Changes coef, residual and shift (n_outputs,), to which
    the intercept's moves are added; returns the longest move of a snippet's gradient for its cost. scratch and target
    (1 + most exits of a snippet, n_outputs) are overwritten. Without all_snippets those that are 0 stay so.
    """
    cdef Py_ssize_t j, e, k, n_exits, n_rows = codes.shape[0], n_outputs = residual.shape[1]
    cdef double move, step, longest = 0
    with nogil:
        for j in range(codes.shape[1]):
            n_exits = first[j + 1] - first[j]
            if not all_snippets and is_zero(n_exits * n_outputs, &coef[first[j], 0]):
                continue
            for e in range(n_exits):
                for k in range(n_outputs):
                    scratch[e, k] = 0
            sum_rows(n_rows, n_outputs, &codes[0, j], &residual[0, 0], &scratch[0, 0])
            for e in range(n_exits):
                for k in range(n_outputs):
                    target[e, k] = coef[first[j] + e, k]
                    if mass[first[j] + e] > 0:
                        target[e, k] -= scratch[e, k] / mass[first[j] + e]
            solve_group(mass[first[j] : first[j + 1]], penalty[j], target, n_exits, n_outputs)
            move = 0
            for k in range(n_outputs):  # target is the solution now, its row n_exits the intercept's move
                shift[k] += target[n_exits, k]
                for e in range(n_exits):
                    step = target[e, k] - coef[first[j] + e, k] + target[n_exits, k]
                    coef[first[j] + e, k] = <float>target[e, k]
                    scratch[e, k] = <float>step
                    move += (step * mass[first[j] + e]) ** 2
            if move > 0:
                longest = fmax(longest, sqrt(move) / cost[j])
                add_rows(n_rows, n_outputs, &codes[0, j], &curvature[0], &scratch[0, 0], &residual[0, 0])
    return longest


cdef bint is_zero(Py_ssize_t n, const float* values) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if values[i] != 0:
            return False
    return True


cdef void solve_group(
    const double[:] mass, double penalty, double[:, ::1] target, Py_ssize_t n_exits, Py_ssize_t n_outputs
) noexcept nogil:
    """Minimise sum_e mass_e / 2 ||w_e + d - target_e||^2 + penalty ||w||; target becomes w, its next row d.

    With the multiplier m = penalty / ||w||: w_e = mass_e / (mass_e + m) (target_e - d), and ||w|| m grows with m.
    """
    cdef Py_ssize_t step
    cdef double low = 0, high = 0, middle, total = 0
    for step in range(n_exits):
        total += mass[step]
    if penalty > 0:
        if length_at(mass, -1, target, n_exits, n_outputs) <= penalty:
            low = -1  # no multiplier is large enough: w = 0
        else:
            high = total
            while high * length_at(mass, high, target, n_exits, n_outputs) < penalty:
                low, high = high, 2 * high
            for step in range(HALVINGS):
                middle = (low + high) / 2
                if middle * length_at(mass, middle, target, n_exits, n_outputs) < penalty:
                    low = middle
                else:
                    high = middle
            low = high
    keep_solution(mass, low, target, n_exits, n_outputs)


cdef double length_at(
    const double[:] mass, double m, double[:, ::1] target, Py_ssize_t n_exits, Py_ssize_t n_outputs
) noexcept nogil:
    """Return ||w|| for a multiplier; for m = -1 the limit of m ||w|| as m grows."""
    cdef Py_ssize_t e, k
    cdef double d, w, total = 0
    for k in range(n_outputs):
        d = best_shift(mass, m, target, n_exits, k)
        for e in range(n_exits):
            w = mass[e] * (target[e, k] - d)
            if m >= 0:
                w = w / (mass[e] + m) if mass[e] > 0 else 0
            total += w * w
    return sqrt(total)


cdef double best_shift(
    const double[:] mass, double m, double[:, ::1] target, Py_ssize_t n_exits, Py_ssize_t k
) noexcept nogil:
    cdef Py_ssize_t e
    cdef double weight, total = 0, moment = 0
    if m == 0:
        return 0
    for e in range(n_exits):
        weight = mass[e]
        if m > 0 and weight > 0:
            weight = weight * m / (weight + m)
        total += weight
        moment += weight * target[e, k]
    return moment / total if total > 0 else 0


cdef void keep_solution(
    const double[:] mass, double m, double[:, ::1] target, Py_ssize_t n_exits, Py_ssize_t n_outputs
) noexcept nogil:
    cdef Py_ssize_t e, k
    cdef double d
    for k in range(n_outputs):
        d = best_shift(mass, m, target, n_exits, k)
        for e in range(n_exits):
            if m < 0 or mass[e] == 0:
                target[e, k] = 0
            else:
                target[e, k] = mass[e] * (target[e, k] - d) / (mass[e] + m)
        target[n_exits, k] = d


cdef void sum_rows(
    Py_ssize_t n_rows, Py_ssize_t n_outputs, const uint8_t* code, const float* rows, float* out
) noexcept nogil:
    cdef Py_ssize_t i, k
    cdef float* at
    if n_outputs == 1:
        sum_numbers(n_rows, code, rows, out)
        return
    for i in range(n_rows):
        at = out + code[i] * n_outputs
        for k in range(n_outputs):
            at[k] += rows[i * n_outputs + k]


cdef void sum_numbers(Py_ssize_t n_rows, const uint8_t* code, const float* rows, float* out) noexcept nogil:
    """Add to several sums in turn: one would wait for its own last addition."""
    cdef Py_ssize_t i, whole = n_rows - n_rows % 4
    cdef float[4][256] part
    memset(part, 0, sizeof(part))
    for i in range(0, whole, 4):
        part[0][code[i]] += rows[i]
        part[1][code[i + 1]] += rows[i + 1]
        part[2][code[i + 2]] += rows[i + 2]
        part[3][code[i + 3]] += rows[i + 3]
    for i in range(whole, n_rows):
        part[0][code[i]] += rows[i]
    for i in range(256):
        if part[0][i] != 0 or part[1][i] != 0 or part[2][i] != 0 or part[3][i] != 0:
            out[i] += (part[0][i] + part[1][i]) + (part[2][i] + part[3][i])


cdef void add_rows(
    Py_ssize_t n_rows, Py_ssize_t n_outputs, const uint8_t* code, const float* scale, const float* values, float* out
) noexcept nogil:
    """out[i] += scale[i] * values[code[i]]; no scale: 1."""
    cdef Py_ssize_t i, k
    cdef float factor = 1
    cdef const float* at
    if n_outputs == 1 and scale != NULL:
        for i in range(n_rows):
            out[i] += scale[i] * values[code[i]]
        return
    for i in range(n_rows):
        if scale != NULL:
            factor = scale[i]
        at = values + code[i] * n_outputs
        for k in range(n_outputs):
            out[i * n_outputs + k] += factor * at[k]
