"""Loop behind effml.program.steps.Bin.run: the interval that each number of a column falls into."""

from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t, uint16_t, uint32_t

ctypedef fused value_t:
    uint8_t
    int8_t
    uint16_t
    int16_t
    uint32_t
    int32_t
    float

ctypedef fused code_t:
    uint8_t
    int8_t
    uint16_t
    int16_t
    uint32_t
    int32_t
    float


def bin_edges(const value_t[:] x, const value_t[:] edges, const int32_t[:] codes, int32_t missing, code_t[:] out):
    """out[i] = codes[number of edges e with x[i] > e], or `missing` for a NaN; the edges ascend."""
    cdef Py_ssize_t i, n = edges.shape[0], base, length, half
    cdef value_t value
    with nogil:
        for i in range(x.shape[0]):
            value = x[i]
            if value != value:
                out[i] = <code_t>missing
                continue
            base, length = 0, n
            while length > 0:  # base counts edges that are passed
                half = (length + 1) // 2
                base += half * (value > edges[base + half - 1])
                length -= half
            out[i] = <code_t>codes[base]
