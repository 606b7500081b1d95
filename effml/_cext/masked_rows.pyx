"""Rows of the interventional game: players present take the explained row, the others the background row."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    /* out[b, j] = kept[j] | (background[b, j] & dropped[j]); restrict lets the compiler use whole vectors. */
    #define EFFML_BLEND(type) \
    static void effml_blend_##type(type *restrict out, const type *restrict background, const type *restrict kept, \
                                   const type *restrict dropped, ptrdiff_t n_background, ptrdiff_t n_features) \
    { \
        ptrdiff_t b, j; \
        for (b = 0; b < n_background; b++) { \
            for (j = 0; j < n_features; j++) { \
                out[j] = kept[j] | (background[j] & dropped[j]); \
            } \
            out += n_features; \
            background += n_features; \
        } \
    }
    EFFML_BLEND(uint32_t)
    EFFML_BLEND(uint64_t)
    """
    void effml_blend_uint32_t(uint32_t *, const uint32_t *, const uint32_t *, const uint32_t *, Py_ssize_t,
                              Py_ssize_t) noexcept nogil
    void effml_blend_uint64_t(uint64_t *, const uint64_t *, const uint64_t *, const uint64_t *, Py_ssize_t,
                              Py_ssize_t) noexcept nogil

ctypedef fused bits_t:
    uint32_t
    uint64_t


def masked_rows(
    const bits_t[:, ::1] rows, const bits_t[:, ::1] background, const uint8_t[:, ::1] present, Py_ssize_t first,
    bits_t[:, ::1] scratch, bits_t[:, :, ::1] out,
):
    """out[p, b, j] = rows[r, j] if present[c, j] else background[b, j], where (r, c) = divmod(first + p, len(present)).

    All but `present` are the bits of numbers; `scratch` is (2, n_columns).
    """
    cdef Py_ssize_t p, j, r, c
    cdef Py_ssize_t n_features = rows.shape[1], n_coalitions = present.shape[0], n_background = background.shape[0]
    cdef bits_t *kept = &scratch[0, 0]
    cdef bits_t *dropped = &scratch[1, 0]
    cdef bits_t mask
    with nogil:
        for p in range(out.shape[0]):
            r = (first + p) // n_coalitions
            c = (first + p) % n_coalitions
            for j in range(n_features):
                mask = <bits_t> 0 - <bits_t> (present[c, j] != 0)
                kept[j] = rows[r, j] & mask
                dropped[j] = ~mask
            if bits_t is uint32_t:
                effml_blend_uint32_t(&out[p, 0, 0], &background[0, 0], kept, dropped, n_background, n_features)
            else:
                effml_blend_uint64_t(&out[p, 0, 0], &background[0, 0], kept, dropped, n_background, n_features)
