"""Rows of the interventional game: players present take the explained row, the others the background row."""

from libc.stdint cimport uint8_t

ctypedef fused real_t:
    float
    double


def masked_rows(
    const real_t[:, ::1] rows, const real_t[:, ::1] background, const uint8_t[:, ::1] present, Py_ssize_t first,
    real_t[:, :, ::1] out,
):
    """out[p, b, j] = rows[r, j] if present[c, j] else background[b, j], where (r, c) = divmod(first + p, len(present))."""
    cdef Py_ssize_t p, b, j, r, c
    cdef Py_ssize_t n_features = rows.shape[1], n_coalitions = present.shape[0], n_background = background.shape[0]
    cdef const real_t *row
    cdef const real_t *other
    cdef const uint8_t *inside
    cdef real_t *target
    with nogil:
        for p in range(out.shape[0]):
            r = (first + p) // n_coalitions
            c = (first + p) % n_coalitions
            row = &rows[r, 0]
            inside = &present[c, 0]
            for b in range(n_background):
                other = &background[b, 0]
                target = &out[p, b, 0]
                for j in range(n_features):
                    target[j] = row[j] if inside[j] else other[j]
