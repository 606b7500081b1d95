"""Integer steps inside of recurrent networks: activations of straight pieces, gated products, layer normalisation.

Source: E. Sari, V. Courville, V. Partovi Nia, "iRNN: Integer-only Recurrent Neural Network", ICPRAM 2022.
"""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml.program.buffers import DTYPES
from effml.program.cwriter import C_TYPES, block, indent, turns
from effml.program.steps.base import Cost, Step
from effml.program.steps.forest_words import no_inline
from effml.program.steps.neural import clipped

__all__ = ["GatedSum", "Normalise", "Pieces", "integer_root"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Pieces(Step):
    """A function of straight pieces: ``out[k] = clip((v * slope[p] + intercept[p]) >> shift, lowest, largest)``.

    ``v = x[first + k]`` lies in piece p = number of limits <= v.

    Attributes
    ----------
    limits : int16 array (n_pieces - 1,)
        Rising.
    slope : int16 array (n_pieces,)
    intercept : int32 array (n_pieces,)
    shift : int
    largest : int
    lowest : int
    first : int
        Where the part of the input starts that is read.
    """

    kind: ClassVar[str] = "pieces"

    limits: np.ndarray
    slope: np.ndarray
    intercept: np.ndarray
    shift: int
    largest: int
    lowest: int = 0
    first: int = 0

    def run(self, x):
        v = x[:, self.first : self.first + self.output.size].astype(np.int64)
        piece = np.searchsorted(self.limits, v, side="right")
        value = v * self.slope[piece] + self.intercept[piece]
        return np.clip(value >> self.shift, self.lowest, self.largest).astype(DTYPES[self.output.dtype])

    def cost(self):
        n, m = self.output.size, len(self.slope)
        compares = int(np.ceil(np.log2(max(m, 1)))) + 2
        operations = Counter(compare=n * compares, multiply=n, add=n, shift=n, lookup=2 * n)
        n_parameters, bits = 3 * m - 1, 16 * (m - 1) + 16 * m + 32 * m
        return Cost(n_parameters=n_parameters, bits=bits, operations=operations)

    def describe(self):
        return f"{len(self.slope)} pieces"

    def emit_c(self, c, ref):
        m, tag = len(self.slope), self.output.name
        slope, intercept = c.constant(f"{tag}_slope", self.slope), c.constant(f"{tag}_intercept", self.intercept)
        find = []
        if m > 1:
            limits = c.constant(f"{tag}_limits", self.limits)
            width = 1 << (m - 1).bit_length() - 1
            while width:
                test = f"read >= {limits}[p + {width - 1}u]"
                if 2 * width > m - 1 or (m & (m - 1)):  # the rest may hold fewer limits than this
                    test = f"p + {width}u < {m}u && {test}"
                find.append(f"p += {test} ? {width}u : 0u;")
                width //= 2
        piece = [
            f"const int32_t read = {ref(self.inputs[0])}[{f'{self.first}u + ' if self.first else ''}k];",
            "int32_t v;",
            "unsigned p = 0;",
            *find,
            f"v = read * {slope}[p] + {intercept}[p];",
            f"{ref(tag)}[k] = ({C_TYPES[self.output.dtype]})({clipped(self.shift, self.lowest, self.largest)});",
        ]
        return block(["unsigned k;", f"for (k = 0; k < {self.output.size}u; k++) {{", *indent(piece), "}"])


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GatedSum(Step):
    """``out[k] = clip((a[k] b[k] * factors[0] + c[k] d[k] * factors[1] + offset) >> shift, lowest, largest)``.

    The inputs come in pairs, one or two; the product of a pair must fit 32 bits, the sum 64.

    Attributes
    ----------
    starts : tuple of int
        Where the part of each input starts that is read.
    factors : tuple of int
        One a pair.
    offset : int
    shift : int
    largest, lowest : int
    """

    kind: ClassVar[str] = "gated_sum"

    starts: tuple
    factors: tuple
    offset: int
    shift: int
    largest: int
    lowest: int

    def run(self, *inputs):
        n = self.output.size
        parts = [x[:, start : start + n].astype(np.int64) for x, start in zip(inputs, self.starts, strict=True)]
        value = np.full(parts[0].shape, self.offset, dtype=np.int64)
        for left, right, factor in zip(parts[::2], parts[1::2], self.factors, strict=True):
            value = value + left * right * factor
        return np.clip(value >> self.shift, self.lowest, self.largest).astype(DTYPES[self.output.dtype])

    def cost(self):
        n, m = self.output.size, len(self.factors)
        operations = Counter(multiply=2 * n * m, add=n * m, shift=n, compare=2 * n)
        return Cost(operations=operations, variants=("", *["pair"] * (m - 1)))

    def emit_c(self, c, ref):
        parts = [
            f"{ref(name)}[{f'{start}u + ' if start else ''}k]"
            for name, start in zip(self.inputs, self.starts, strict=True)
        ]
        terms = [
            f"(int64_t)((int32_t){left} * {right}) * {factor}"
            for left, right, factor in zip(parts[::2], parts[1::2], self.factors, strict=True)
        ]
        lines = [
            f"const int64_t v = {' + '.join([*terms, str(self.offset)])};",
            f"{ref(self.output.name)}[k] = ({C_TYPES[self.output.dtype]})"
            f"({clipped(self.shift, self.lowest, self.largest)});",
        ]
        return block(["unsigned k;", f"for (k = 0; k < {self.output.size}u; k++) {{", *indent(lines), "}"])


UNIT_BITS = 12  # a deviation as large as the spread is 2^12


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Normalise(Step):
    """Layer normalisation of a row of int16: ``out[k] = clip((y[k] * gain[k] + offset[k]) >> shift, -top, top)``.

    ``y[k] = (d[k] << 12) / spread``, truncated, with ``d = x - mean`` and the mean rounded down. The spread is the root
    of the mean square of d, or the mean of its absolute values; both rounded down, and 1 at least.

    Attributes
    ----------
    gain : int32 array (n,)
    offset : int32 array (n,)
    shift : int
    largest : int
        The top.
    spread : {"std", "mad"}
    """

    kind: ClassVar[str] = "normalise"

    gain: np.ndarray
    offset: np.ndarray
    shift: int
    largest: int
    spread: str = "std"

    def run(self, x):
        x = x.astype(np.int64)
        n = x.shape[1]
        d = x - (x.sum(axis=1, keepdims=True) // n)
        if self.spread == "std":
            spread = integer_root((d * d).sum(axis=1, keepdims=True) // n)
        else:
            spread = np.abs(d).sum(axis=1, keepdims=True) // n
        y = np.sign(d) * ((np.abs(d) << UNIT_BITS) // np.maximum(spread, 1))
        value = (y * self.gain + self.offset) >> self.shift
        return np.clip(value, -self.largest, self.largest).astype(DTYPES[self.output.dtype])

    def cost(self):
        n = self.output.size
        variants = (self.spread, "root") if self.spread == "std" else (self.spread,)
        operations = Counter(add=4 * n, multiply=(2 if self.spread == "std" else 1) * n, divide=n + 1, compare=2 * n)
        return Cost(n_parameters=2 * n, bits=64 * n, operations=operations, variants=variants)

    def emit_c(self, c, ref):
        n, tag, x = self.output.size, self.output.name, ref(self.inputs[0])
        gain, offset = c.constant(f"{tag}_gain", self.gain), c.constant(f"{tag}_offset", self.offset)
        wide, square = ("uint64_t", "(uint64_t)((int64_t)d * d)") if self.spread == "std" else ("uint32_t", "size")
        spread = f"{_emit_root(c)}(all, {n}u)" if self.spread == "std" else f"all / {n}u"
        size = "const uint32_t size = d < 0 ? (uint32_t)-d : (uint32_t)d;"
        output = f"({C_TYPES[self.output.dtype]})({clipped(self.shift, -self.largest, self.largest)})"
        return block(
            [
                "unsigned k;",
                "int32_t sum = 0, mean;",
                f"{wide} all = 0u;",
                "uint32_t spread;",
                f"for (k = 0; k < {n}u; k++) {{",
                f"    sum += {x}[k];",
                "}",
                f"mean = sum < 0 ? -1 - (-1 - sum) / {n} : sum / {n};",
                f"for (k = 0; k < {n}u; k++) {{",
                f"    const int32_t d = {x}[k] - mean;",
                *([f"    {size}"] if self.spread == "mad" else []),
                f"    all += {square};",
                "}",
                f"spread = {spread};",
                "spread = spread ? spread : 1u;",
                f"for (k = 0; k < {n}u; k++) {{",
                f"    const int32_t d = {x}[k] - mean;",
                f"    {size}",
                f"    const int32_t y = (int32_t)((size << {UNIT_BITS}) / spread);",
                f"    const int64_t v = (int64_t)(d < 0 ? -y : y) * {gain}[k] + {offset}[k];",
                f"    {ref(tag)}[k] = {output};",
                "}",
            ]
        )


def integer_root(values: np.ndarray) -> np.ndarray:
    """Return the largest whole numbers whose squares are not above the values (int64, below 2^52).

    Examples
    --------
    >>> import numpy as np
    >>> from effml.program.steps.recurrent import integer_root
    >>> integer_root(np.array([0, 8, 9, 10**12])).tolist()
    [0, 2, 3, 1000000]
    """
    root = np.floor(np.sqrt(np.asarray(values, dtype=np.float64))).astype(np.int64)
    root = np.where(root * root > values, root - 1, root)
    return np.where((root + 1) * (root + 1) <= values, root + 1, root)


def _emit_root(c) -> str:
    """Add the C helper for the root of a mean square of int16 deviations, without a division; return its name."""
    return c.helper(
        "root",
        f"""/* the largest whole number whose square is not above v / n, which is below 2^34: one bit after the other */
static {no_inline(c)} uint32_t {{name}}(uint64_t v, uint32_t n)
{{
    uint32_t root = 0u, bit = 0x10000u;
    while (bit > 0u) {{{turns(17)}
        const uint32_t next = root | bit;
        if ((uint64_t)next * next * n <= v) {{
            root = next;
        }}
        bit >>= 1;
    }}
    return root;
}}""",
    )
