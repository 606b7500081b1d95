"""How signs and codes of a few bits lie in words and bytes, in numpy and in C."""

import numpy as np

from effml.program.buffers import DTYPES

__all__ = [
    "code_shape",
    "emit_codes",
    "emit_count",
    "emit_level",
    "n_words",
    "pack_codes",
    "pack_signs",
    "weights_of",
]


def n_words(n: int, dtype: str) -> int:
    """Return how many words of a buffer type hold n signs."""
    return -(-n // (8 * DTYPES[dtype].itemsize))


def pack_signs(positive: np.ndarray, dtype: str) -> np.ndarray:
    """Return words (n_rows, n_words) of a bool array (n_rows, n), the first sign in the lowest bit.

    Examples
    --------
    >>> import numpy as np
    >>> from effml.program.steps.packing import pack_signs
    >>> pack_signs(np.array([[True, False, True, True]]), "u8").tolist()
    [[13]]
    """
    size = DTYPES[dtype].itemsize
    held = np.zeros((len(positive), n_words(positive.shape[1], dtype) * size), dtype=np.uint8)
    packed = np.packbits(positive, axis=1, bitorder="little")
    held[:, : packed.shape[1]] = packed
    return held.view(DTYPES[dtype].newbyteorder("<")).astype(DTYPES[dtype], copy=False)


def pack_codes(codes: np.ndarray, n_bits: int) -> np.ndarray:
    """Return codes as one stream of bytes, n_bits each, lowest bit first, row by row of `codes`.

    Examples
    --------
    >>> import numpy as np
    >>> from effml.program.steps.packing import pack_codes
    >>> pack_codes(np.array([[1, 2, 3]], dtype=np.uint8), 3).tolist()
    [209, 0]
    """
    bits = np.unpackbits(codes.reshape(-1, 1), axis=1, count=n_bits, bitorder="little")
    return np.packbits(bits.ravel(), bitorder="little")


def code_shape(n_bits) -> str:
    """Return how codes lie in bytes: one "byte" each, an "even" number of them in one, or "odd", across two."""
    return "byte" if n_bits == 8 else "even" if 8 % n_bits == 0 else "odd"


def emit_codes(c, hint, codes, n_bits) -> tuple[str, int]:
    """Add the stream of codes (n_in, n_out), output by output; return C for the one at `at`, and the step of `at`."""
    stream = pack_codes(np.ascontiguousarray(codes.T), n_bits)
    if code_shape(n_bits) == "odd":
        stream = np.append(stream, np.uint8(0))  # the last code may read one byte further
    weights = c.constant(hint, stream, "u8")
    if n_bits == 8:
        return f"{weights}[at]", 1
    byte = f"{weights}[at >> 3]"
    if code_shape(n_bits) == "odd":
        byte = f"({byte} | ((uint32_t){weights}[(at >> 3) + 1u] << 8))"
    return f"(((uint32_t){byte} >> (at & 7u)) & {2**n_bits - 1}u)", n_bits


def emit_level(c, hint, levels, code) -> str:
    """Add the table of levels (1 or n_out, 2^n_bits) and return C for the level of a code, as uint32."""
    table = c.constant(f"{hint}_levels", levels)
    row = "" if len(levels) == 1 else f"k * {levels.shape[1]}u + "
    return f"(uint32_t){table}[{row}{code}]"


def weights_of(codes, levels) -> np.ndarray:
    """Return the levels (1 or n_out, 2^n_bits) that codes (n_in, n_out) stand for."""
    return levels[0][codes] if len(levels) == 1 else np.take_along_axis(levels.T, codes.astype(np.int64), axis=0)


def emit_count(c) -> str:
    """Add the C helper that counts the bits of a word and return its name."""
    return c.helper(
        "count_bits",
        """/* number of bits set */
static uint32_t {name}(uint32_t v)
{
#if defined(__GNUC__) && defined(__POPCNT__)
    return (uint32_t)__builtin_popcountl(v);
#else
    v -= (v >> 1) & 0x55555555u;
    v = (v & 0x33333333u) + ((v >> 2) & 0x33333333u);
    return (((v + (v >> 4)) & 0x0f0f0f0fu) * 0x01010101u) >> 24;
#endif
}""",
    )
