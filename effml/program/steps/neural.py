"""Steps of networks in integers: products with weights of 1 to 8 bits, thresholds, multiply and shift.

A weight of n_bits has the odd integer ``2u - top``, ``top = 2^n_bits - 1``, for its code u = 0..top: +-1 for one bit.
Signs are packed into words, bit 1 for +1 (the first in the lowest bit, unused bits 0), and a product of signs counts
the bits that differ. All sums wrap at 32 bits in Python and C alike; what is lowered never gets that far.
"""

import sys
from collections import Counter
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar

import numpy as np

from effml._cext.packed import BitsProduct, best_level, bytes_product, max_threads, shorts_product
from effml.program.buffers import DTYPES
from effml.program.cwriter import C_TYPES, block, indent, turns
from effml.program.steps.base import Cost, Step
from effml.program.steps.binning import emit_count

__all__ = ["PackedDense", "Requantise", "Threshold", "n_words", "pack_codes", "pack_signs"]

_MOST_PRODUCTS, _MOST_SIGNS = 1 << 22, 1 << 27  # that one thread works at
_BEST_LEVEL = best_level()
_BIG_ENDIAN = sys.byteorder == "big"
_VNNI = 3  # level of the byte product; below it, bytes are read as shorts


def n_words(n: int, dtype: str) -> int:
    """Return how many words of a buffer type hold n signs."""
    return -(-n // (8 * DTYPES[dtype].itemsize))


def pack_signs(positive: np.ndarray, dtype: str) -> np.ndarray:
    """Return words (n_rows, n_words) of a bool array (n_rows, n), the first sign in the lowest bit.

    Examples
    --------
    >>> import numpy as np
    >>> from effml.program.steps.neural import pack_signs
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
    >>> from effml.program.steps.neural import pack_codes
    >>> pack_codes(np.array([[1, 2, 3]], dtype=np.uint8), 3).tolist()
    [209, 0]
    """
    bits = np.unpackbits(codes.reshape(-1, 1), axis=1, count=n_bits, bitorder="little")
    return np.packbits(bits.ravel(), bitorder="little")


class _WithCache(Step):
    """A step that keeps a prepared form of its arrays, which is not part of it."""

    def __getstate__(self):
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PackedDense(_WithCache):
    """``out[k] = bias[k] + 2^shift sum_j (x[j] - zero_point) * (2 codes[j, k] - top)``, int32.

    Attributes
    ----------
    codes : uint8 array (n_in, n_out)
    n_bits : int
        1 to 8.
    bias : int32 array (n_out,), or of size 0 for none
    zero_point : int
        0 for packed signs.
    packed : {"", "u8", "u16", "u32"}
        Type of the words that hold the input as packed signs; "" for one integer (u8, i8, i16) an element.
    shift : int
        Makes room for a bias between two sums.
    """

    kind: ClassVar[str] = "packed_dense"

    codes: np.ndarray
    n_bits: int
    bias: np.ndarray
    zero_point: int = 0
    packed: str = ""
    shift: int = 0

    @property
    def top(self) -> int:
        return 2**self.n_bits - 1

    @property
    def n_in(self) -> int:
        return len(self.codes)

    def run(self, x, *, n_threads=None, level=None):
        """Return the sums; threads and the instruction level change nothing but the time."""
        out = np.empty((len(x), self.output.size), dtype=np.int32)
        level = _BEST_LEVEL if level is None else min(level, _BEST_LEVEL)
        if n_threads is None:
            n_threads = len(x) * self.codes.size // (_MOST_SIGNS if self.packed else _MOST_PRODUCTS)
            n_threads = min(n_threads, max_threads()) if n_threads > 1 else 1
        if self.packed:
            self._bits(_as_words(x), out, n_threads, level)
            return out
        rows = x.sum(axis=1, dtype=np.int32)
        if x.dtype == np.uint8 and level >= _VNNI:
            bytes_product(_padded(x, 4), self._bytes, rows, self._columns, out, self.shift, n_threads, level)
        else:
            shorts_product(
                _padded(x.astype(np.int16), 2), self._shorts, rows, self._columns, out, self.shift, n_threads, level
            )
        return out

    @cached_property
    def _columns(self):
        """What is added to every row of the output, padded to a multiple of 16."""
        sums = self.bias.astype(np.int64) if self.bias.size else np.zeros(self.output.size, dtype=np.int64)
        if self.packed:  # all signs equal; each that differs takes 2 away
            sums = sums + (self.n_in * self.top << self.shift)
        else:
            sums = sums - (self.zero_point * (2 * self.codes.astype(np.int64) - self.top).sum(axis=0) << self.shift)
        return np.pad(_wrapped(sums), (0, -len(sums) % 16))

    @cached_property
    def _bits(self):
        """The product with bits of the codes, uint64 (n_bits, n_groups, n_words, 8)."""
        bits = np.unpackbits(self.codes.T[:, :, None], axis=2, count=self.n_bits, bitorder="little").astype(bool)
        bits = np.pad(bits, ((0, -bits.shape[0] % 8), (0, -bits.shape[1] % 64), (0, 0)))
        words = np.packbits(np.ascontiguousarray(np.moveaxis(bits, 2, 0)), axis=2, bitorder="little").view("<u8")
        planes, n, width = words.shape
        words = words.reshape(planes, n // 8, 8, width).swapaxes(2, 3)
        return BitsProduct(np.ascontiguousarray(words, dtype=np.uint64), self._columns, self.shift)

    @cached_property
    def _bytes(self):
        """``codes - 2^(n_bits - 1)``, int8 (n_groups, n_in / 4, 16, 4)."""
        return self._interleaved(4, np.int8)

    @cached_property
    def _shorts(self):
        """``codes - 2^(n_bits - 1)``, int16 (n_groups, n_in / 2, 16, 2)."""
        return self._interleaved(2, np.int16)

    def _interleaved(self, width, dtype):
        signed = (self.codes.astype(np.int16) - 2 ** (self.n_bits - 1)).astype(dtype)
        signed = np.pad(signed, ((0, -self.n_in % width), (0, -self.output.size % 16)))
        n_in, n_out = signed.shape
        return np.ascontiguousarray(signed.reshape(n_in // width, width, n_out // 16, 16).transpose(2, 0, 3, 1))

    def cost(self):
        n, m = self.n_in, self.output.size
        operations = Counter(multiply=n * m, add=n * m)
        if self.packed:
            counts = self.n_bits * m * -(-n // 32)
            operations = Counter(popcount=counts, add=counts)
        return Cost(
            n_parameters=self.codes.size + self.bias.size,
            bits=self.codes.size * self.n_bits + 32 * self.bias.size,
            operations=operations,
            variants=(self._variant(), "count_bits") if self.packed else (self._variant(),),
        )

    def _variant(self) -> str:
        if self.packed:
            return "signs" if self.n_bits == 1 else "planes"
        return code_shape(self.n_bits)

    def describe(self):
        return f"{self.n_in} x {self.output.size} weights of {self.n_bits} bits"

    def emit_c(self, c, ref):
        bias = f" + (uint32_t){c.constant(f'{self.output.name}_bias', self.bias)}[k]" if self.bias.any() else ""
        emit = self._emit_packed if self.packed else self._emit_integers
        return emit(c, ref(self.inputs[0]), ref(self.output.name), bias)

    def _emit_integers(self, c, x, out, bias):
        value = f"const int32_t v = {x}[j]{f' - {self.zero_point}' if self.zero_point else ''};"
        emit = self._emit_bytes if 8 % self.n_bits == 0 else self._emit_stream
        declared, product = emit(c, value)
        return block(
            [
                *declared,
                "unsigned j, k;",
                "uint32_t all = 0u;",
                f"for (j = 0; j < {self.n_in}u; j++) {{",
                f"    {value}",
                "    all += (uint32_t)v;",
                "}",
                f"for (k = 0; k < {self.output.size}u; k++) {{",
                "    uint32_t sum = 0u;",
                *indent(product),
                f"    {out}[k] = (int32_t)({self._shifted(f'2u * sum - {self.top}u * all')}{bias});",
                "}",
            ]
        )

    def _emit_stream(self, c, value) -> tuple[list[str], list[str]]:
        """Return declarations and the sum over the inputs, codes lying across bytes."""
        code, step = emit_codes(c, f"{self.output.name}_weights", self.codes, self.n_bits)
        body = [value, f"sum += (uint32_t)v * {code};", f"at += {step}u;"]
        return ["uint32_t at = 0u;"], [f"for (j = 0; j < {self.n_in}u; j++) {{", *indent(body), "}"]

    def _emit_bytes(self, c, value) -> tuple[list[str], list[str]]:
        """Return declarations and the sum over the inputs, byte by byte; the codes of an output begin with a byte."""
        n, per = self.n_in, 8 // self.n_bits
        padded = np.pad(self.codes, ((0, -n % per), (0, 0)))
        weights = c.constant(
            f"{self.output.name}_weights", pack_codes(np.ascontiguousarray(padded.T), self.n_bits), "u8"
        )
        declared = [f"const {c.space} uint8_t *w = {weights};"]
        if per == 1:
            return declared, [f"for (j = 0; j < {n}u; j++) {{", f"    {value}", "    sum += (uint32_t)v * *w++;", "}"]
        inner = f"for (i = 0; i < {per}u; i++) {{"
        if n % per:
            inner = f"for (i = 0; i < {per}u && j < {n}u; i++) {{{turns(per)}"
        body = [
            "unsigned codes = *w++, i;",
            inner,
            f"    {value}",
            f"    sum += (uint32_t)v * (codes & {self.top}u);",
            f"    codes >>= {self.n_bits};",
            "    j++;",
            "}",
        ]
        return declared, ["j = 0;", f"while (j < {n}u) {{{turns(-(-n // per))}", *indent(body), "}"]

    def _shifted(self, total) -> str:
        return f"(({total}) << {self.shift})" if self.shift else total

    def _emit_packed(self, c, x, out, bias):
        words = self._words()
        weights = c.constant(f"{self.output.name}_weights", words, self.packed)
        count, n = emit_count(c), words.shape[2]
        inner = [
            f"    for (j = 0; j < {n}u; j++) {{",
            f"        apart += {count}((uint32_t){x}[j] ^ *w++){'' if self.n_bits == 1 else ' << plane'};",
            "    }",
        ]
        if self.n_bits > 1:
            planes = f"    for (plane = 0; plane < {self.n_bits}u; plane++) {{"
            inner = [planes, *("    " + line for line in inner), "    }"]
        return block(
            [
                f"const {c.space} {c.type_of(weights)} *w = {weights};",
                f"unsigned j, k{'' if self.n_bits == 1 else ', plane'};",
                f"for (k = 0; k < {self.output.size}u; k++) {{",
                "    uint32_t apart = 0u;",
                *inner,
                f"    {out}[k] = (int32_t)({self._shifted(f'{self.n_in * self.top}u - 2u * apart')}{bias});",
                "}",
            ]
        )

    def _words(self):
        """Return bit planes (n_out, n_bits, n_words) in words of the input's type."""
        bits = np.unpackbits(self.codes.T[:, :, None], axis=2, count=self.n_bits, bitorder="little").astype(bool)
        planes = np.ascontiguousarray(bits.swapaxes(1, 2)).reshape(-1, self.n_in)
        return pack_signs(planes, self.packed).reshape(self.output.size, self.n_bits, -1)


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


def _as_words(x):
    """Return packed signs as uint64, padded with zero bits."""
    if x.shape[1] * x.itemsize % 8 or not x.flags.c_contiguous:
        x = _padded(x, 8 // x.itemsize)
    if _BIG_ENDIAN:
        return x.astype(x.dtype.newbyteorder("<")).view("<u8").astype(np.uint64)
    return x.view(np.uint64)


def _padded(x, width):
    """Return contiguous rows with zero columns up to a multiple of `width`."""
    extra = -x.shape[1] % width
    return np.ascontiguousarray(np.pad(x, ((0, 0), (0, extra))) if extra else x)


def _wrapped(values):
    return ((values + 2**31) % 2**32 - 2**31).astype(np.int32)


def _one_or_each(c, hint, values, index, dtype=None):
    """Return C for one of some values: a literal where all are equal, else an element of a constant."""
    if (values == values[0]).all() and dtype is None:
        value = int(values[0])
        return "(-2147483647 - 1)" if value == -(2**31) else str(value)
    if (values == values[0]).all():
        return f"{c.constant(hint, values[:1], dtype)}[0]"
    return f"{c.constant(hint, values, dtype)}[{index}]"


def _emit_index(n, *arrays):
    """Return the C of ``k % len(array)`` in a loop over k < n, what declares it and what moves it on: no division."""
    size = len(arrays[0])
    if size == n or not any((values != values[0]).any() for values in arrays):
        return "k", [], []
    return "m", ["unsigned m = 0u;"], [f"m = m + 1u < {size}u ? m + 1u : 0u;"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Threshold(Step):
    """``x[k] >= threshold[k % n_thresholds]`` as a sign: +1 or -1, or one bit of packed words; a NaN is below.

    Attributes
    ----------
    threshold : int32 or float32 array (n_thresholds,)
        Of the type of the input.
    n_inputs : int
        A multiple of n_thresholds.
    packed : bool
        Whether the output is words of packed signs (u8, u16, u32) instead of i8.
    """

    kind: ClassVar[str] = "threshold"

    threshold: np.ndarray
    n_inputs: int
    packed: bool = False

    def run(self, x):
        positive = x >= np.tile(self.threshold, self.n_inputs // len(self.threshold))
        if self.packed:
            return pack_signs(positive, self.output.dtype)
        return np.where(positive, 1, -1).astype(np.int8)

    def cost(self):
        learned = len(self.threshold) if (self.threshold != self.threshold[0]).any() else 0
        variants = ("packed" if self.packed else "signs",)
        operations = Counter(compare=self.n_inputs)
        return Cost(n_parameters=learned, bits=32 * learned, operations=operations, variants=variants)

    def emit_c(self, c, ref):
        n, tag = self.n_inputs, self.output.name
        is_float = self.threshold.dtype == np.float32
        c.uses_float |= is_float
        index, declare, advance = _emit_index(n, self.threshold)
        limit = _one_or_each(c, f"{tag}_threshold", self.threshold, index, "f32" if is_float else None)
        test, out = f"{ref(self.inputs[0])}[k] >= {limit}", ref(tag)
        cell = C_TYPES[self.output.dtype]
        if not self.packed:
            body = [f"{out}[k] = ({cell})({test} ? 1 : -1);", *advance]
            return block(["unsigned k;", *declare, f"for (k = 0; k < {n}u; k++) {{", *indent(body), "}"])
        width = 8 * DTYPES[self.output.dtype].itemsize
        last = f"k % {width}u == {width - 1}u" + (f" || k == {n - 1}u" if n % width else "")
        return block(
            [
                "unsigned k;",
                *declare,
                "uint32_t word = 0u;",
                f"for (k = 0; k < {n}u; k++) {{",
                f"    word |= (uint32_t)({test}) << (k % {width}u);",
                f"    if ({last}) {{",
                f"        {out}[k / {width}u] = ({cell})word;",
                "        word = 0u;",
                "    }",
                *indent(advance),
                "}",
            ]
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Requantise(Step):
    """``out[k] = clip((x[k] * factor[k % n] + offset[k % n]) >> shift, 0, largest)``, x and the arrays int32.

    Attributes
    ----------
    factor, offset : int32 array (n,)
        The size of the output is a multiple of n.
    shift : int
        0 to 31.
    largest : int
        At most 255 for a u8 output, 32767 for i16.
    wide : bool
        Whether the product needs 64 bits; it wraps at 32 otherwise.
    """

    kind: ClassVar[str] = "requantise"

    factor: np.ndarray
    offset: np.ndarray
    shift: int
    largest: int
    wide: bool = False

    def run(self, x):
        times = self.output.size // len(self.factor)
        value = x.astype(np.int64) * np.tile(self.factor, times) + np.tile(self.offset, times)
        if not self.wide:
            value = _wrapped(value)
        return np.clip(value >> self.shift, 0, self.largest).astype(DTYPES[self.output.dtype])

    def cost(self):
        n = self.output.size
        learned = sum(len(values) for values in (self.factor, self.offset) if (values != values[0]).any())
        plain = (self.factor == 1).all()
        operations = Counter(add=n, shift=n, compare=2 * n) + Counter(multiply=0 if plain else n)
        variants = ("wide" if self.wide else "shift" if plain else "narrow",)
        return Cost(n_parameters=learned, bits=32 * learned, operations=operations, variants=variants)

    def emit_c(self, c, ref):
        n, tag, cell = self.output.size, self.output.name, C_TYPES[self.output.dtype]
        index, declare, advance = _emit_index(n, self.factor, self.offset)
        factor = _one_or_each(c, f"{tag}_factor", self.factor, index)
        offset = _one_or_each(c, f"{tag}_offset", self.offset, index)
        x = f"{ref(self.inputs[0])}[k]"
        kind = "int64_t" if self.wide else "int32_t"
        product = x if factor == "1" else f"({kind}){x} * {factor}"
        if not self.wide:
            product = f"(uint32_t){x}" if factor == "1" else f"(uint32_t){x} * (uint32_t){factor}"
            product = f"(int32_t)({product} + (uint32_t){offset})"
        else:
            product = f"({kind}){x} * {factor} + {offset}"
        level = f"v >> {self.shift}" if self.shift else "v"
        return block(
            [
                "unsigned k;",
                *declare,
                f"for (k = 0; k < {n}u; k++) {{",
                f"    const {kind} v = {product};",
                f"    {ref(tag)}[k] = ({cell})(v < 0 ? 0 : ({level}) > {self.largest} ? {self.largest} : ({level}));",
                *indent(advance),
                "}",
            ]
        )
