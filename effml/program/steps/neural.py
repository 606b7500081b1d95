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
from threadpoolctl import threadpool_limits

from effml._cext.packed import BitsProduct, best_level, bytes_product, max_threads, shorts_product
from effml.program.buffers import DTYPES
from effml.program.cwriter import C_TYPES, block, indent, turns
from effml.program.steps.base import Cost, Step
from effml.program.steps.packing import (
    code_shape,
    emit_codes,
    emit_count,
    emit_level,
    pack_codes,
    pack_signs,
    weights_of,
)

__all__ = ["PackedDense", "Requantise", "Threshold", "clipped"]

_MOST_PRODUCTS, _MOST_SIGNS = 1 << 22, 1 << 27  # that one thread works at
_BEST_LEVEL = best_level()
_BIG_ENDIAN = sys.byteorder == "big"
_VNNI = 3  # level of the byte product; below it, bytes are read as shorts


class _WithCache(Step):
    """A step that keeps a prepared form of its arrays, which is not part of it."""

    def __getstate__(self):
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PackedDense(_WithCache):
    """``out[k] = bias[k] + 2^shift sum_j (x[j] - zero_point) * (2 codes[j, k] - top)``, int32.

    With `levels` the weight is ``levels[k, codes[j, k]]`` instead: ternary weights, or levels of any spacing.

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
    levels : int16 array (1 or n_out, 2^n_bits), or None
        Not with packed signs.
    """

    kind: ClassVar[str] = "packed_dense"

    codes: np.ndarray
    n_bits: int
    bias: np.ndarray
    zero_point: int = 0
    packed: str = ""
    shift: int = 0
    levels: np.ndarray | None = None

    @property
    def top(self) -> int:
        return 2**self.n_bits - 1

    @property
    def n_in(self) -> int:
        return len(self.codes)

    def run(self, x, *, n_threads=None, level=None):
        """Return the sums; threads and the instruction level change nothing but the time."""
        if self.levels is not None:
            return self._by_levels(x)
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

    def _by_levels(self, x):
        """Return the sums of weights from a table: float64 holds them exactly."""
        with threadpool_limits(1, user_api="blas"):
            sums = (x.astype(np.float64) - self.zero_point) @ self._weights
        total = (sums.astype(np.int64) << self.shift) + (self.bias.astype(np.int64) if self.bias.size else 0)
        return _wrapped(total)

    @cached_property
    def _weights(self):
        return weights_of(self.codes, self.levels).astype(np.float64)

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
        n_levels = 0 if self.levels is None else self.levels.size
        return Cost(
            n_parameters=self.codes.size + self.bias.size,
            bits=self.codes.size * self.n_bits + 32 * self.bias.size + 16 * n_levels,
            operations=operations,
            variants=self._variants(),
        )

    def _variants(self):
        if self.packed:
            return "signs" if self.n_bits == 1 else "planes", "count_bits"
        return code_shape(self.n_bits), *([] if self.levels is None else ["levels"])

    def describe(self):
        return f"{self.n_in} x {self.output.size} weights of {self.n_bits} bits"

    def emit_c(self, c, ref):
        bias = f" + (uint32_t){c.constant(f'{self.output.name}_bias', self.bias)}[k]" if self.bias.any() else ""
        emit = self._emit_packed if self.packed else self._emit_integers
        return emit(c, ref(self.inputs[0]), ref(self.output.name), bias)

    def _emit_integers(self, c, x, out, bias):
        if self.levels is not None:
            return self._emit_levels(c, x, out, bias)
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

    def _emit_levels(self, c, x, out, bias):
        code, step = emit_codes(c, f"{self.output.name}_weights", self.codes, self.n_bits)
        level = emit_level(c, self.output.name, self.levels, code)
        value = f"{x}[j]{f' - {self.zero_point}' if self.zero_point else ''}"
        return block(
            [
                "unsigned j, k;",
                "uint32_t at = 0u;",
                f"for (k = 0; k < {self.output.size}u; k++) {{",
                "    uint32_t sum = 0u;",
                f"    for (j = 0; j < {self.n_in}u; j++) {{",
                f"        sum += (uint32_t)({value}) * {level};",
                f"        at += {step}u;",
                "    }",
                f"    {out}[k] = (int32_t)({self._shifted('sum')}{bias});",
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
    """``out[k] = clip((x[k] * factor[k % n] + offset[k % n]) >> shift, lowest, largest)``, integers.

    With several inputs a, b, ... it is ``a[k] * factor[0, k % n] + b[k] * factor[1, k % n] + ...``: a residual sum, or
    the two products of a recurrent gate. The shift is an arithmetic one: it rounds down.

    Attributes
    ----------
    factor : int32 array (n,), or (n_inputs, n)
        The size of the output is a multiple of n.
    offset : int32 array (n,)
    shift : int
        0 to 31.
    largest : int
        At most 255 for a u8 output, 127 for i8, 32767 for i16.
    wide : bool
        Whether the product needs 64 bits; it wraps at 32 otherwise.
    lowest : int
    """

    kind: ClassVar[str] = "requantise"

    factor: np.ndarray
    offset: np.ndarray
    shift: int
    largest: int
    wide: bool = False
    lowest: int = 0

    def run(self, *inputs):
        times = self.output.size // len(self.offset)
        value = np.tile(self.offset.astype(np.int64), times)
        for x, factor in zip(inputs, np.atleast_2d(self.factor), strict=True):
            value = value + x.astype(np.int64) * np.tile(factor, times)
        if not self.wide:
            value = _wrapped(value)
        return np.clip(value >> self.shift, self.lowest, self.largest).astype(DTYPES[self.output.dtype])

    def cost(self):
        n, m = self.output.size, len(self.inputs)
        learned = [*np.atleast_2d(self.factor), self.offset]
        learned = sum(len(values) for values in learned if (values != values[0]).any())
        plain = (self.factor == 1).all()
        operations = Counter(add=m * n, shift=n, compare=2 * n) + Counter(multiply=0 if plain else m * n)
        variants = ["wide" if self.wide else "shift" if plain else "narrow"] + ["more"] * (m - 1)
        variants += ["signed"] * (self.lowest < 0)
        return Cost(n_parameters=learned, bits=32 * learned, operations=operations, variants=tuple(variants))

    def emit_c(self, c, ref):
        n, cell = self.output.size, C_TYPES[self.output.dtype]
        kind = "int64_t" if self.wide else "int32_t"
        index, declare, advance = _emit_index(n, *np.atleast_2d(self.factor), self.offset)
        return block(
            [
                "unsigned k;",
                *declare,
                f"for (k = 0; k < {n}u; k++) {{",
                f"    const {kind} v = {self._emit_sum(c, lambda name: f'{ref(name)}[k]', kind, index)};",
                f"    {ref(self.output.name)}[k] = ({cell})({clipped(self.shift, self.lowest, self.largest)});",
                *indent(advance),
                "}",
            ]
        )

    def emit_kept(self, c, target, value) -> list[str]:
        """Return the C lines that requantise one value of number k and keep it."""
        kind, cell = "int64_t" if self.wide else "int32_t", C_TYPES[self.output.dtype]
        lines = [
            f"const {kind} v = {self._emit_sum(c, lambda name: value, kind, 'k')};",
            f"{target} = ({cell})({clipped(self.shift, self.lowest, self.largest)});",
        ]
        return ["{", *indent(lines), "}"]

    def _emit_sum(self, c, ref, kind, index):
        tag, product = self.output.name, "uint32_t" if not self.wide else kind
        offset = _one_or_each(c, f"{tag}_offset", self.offset, index)
        terms = []
        for name, values in zip(self.inputs, np.atleast_2d(self.factor), strict=True):
            factor = _one_or_each(c, f"{tag}_factor", values, index)
            times = "" if factor == "1" else f" * ({product}){factor}"
            terms.append(f"({product}){ref(name)}{times}")
        return f"({kind})({' + '.join([*terms, f'({product}){offset}'])})"


def clipped(shift: int, lowest: int, largest: int) -> str:
    """Return C for ``v >> shift``, rounded down, clipped; no shift of a negative number, whose result C leaves open."""
    level = f"v >> {shift}" if shift else "v"
    high = f"({level}) > {largest} ? {largest} : ({level})"
    if lowest == 0:
        return f"v < 0 ? 0 : {high}"
    low = f"~(~v >> {shift})" if shift else "v"
    return f"v < 0 ? ({low} < {lowest} ? {lowest} : {low}) : {high}"
