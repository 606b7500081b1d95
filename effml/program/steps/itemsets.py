"""Itemset models: which itemsets miss a row, linear terms between two ends, and the square root of a variance."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml._cext.kernel_rows import rsqrt
from effml.program.buffers import DTYPES, RAW
from effml.program.cwriter import C_TYPES, block, indent, turns
from effml.program.steps.base import Cost, Step
from effml.program.steps.binning import ranges
from effml.program.steps.kernels import emit_rsqrt

__all__ = ["ClippedAffine", "ItemsetMatch", "SquareRoot", "SumSquares", "column_bits"]

SMALLEST_NORMAL = np.finfo(np.float32).tiny
MASK_BITS = 32


def column_bits(n_columns: int) -> int:
    """Return how many bits the number of a column takes: 0 where there is one column.

    Examples
    --------
    >>> [column_bits(n) for n in (1, 2, 8, 9)]
    [0, 1, 3, 4]
    """
    return (n_columns - 1).bit_length()


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ItemsetMatch(Step):
    """``out[m] = 0`` where every condition of itemset m holds, else 1.

    A condition is a mask over the codes of one column: it holds iff ``code < 32 and (mask >> code) & 1``. In C it is
    one word: the column in the lowest bits, then a bit that ends the itemset, then the mask; 16 bits if all fit.

    Attributes
    ----------
    columns : int array (n_conditions,)
        Code that each condition reads, the conditions of itemset 0 first.
    masks : uint32 array (n_conditions,)
    sizes : int array (M,)
        Conditions of each itemset, at least one.
    checked : bool
        Whether codes may be beyond the word. A pass clears it when the producer cannot make such codes.

    Raises
    ------
    ValueError
        When an itemset has no condition, the sizes do not add up to the conditions, or one does not fit 32 bits.
    """

    kind: ClassVar[str] = "itemset_match"

    columns: np.ndarray
    masks: np.ndarray
    sizes: np.ndarray
    checked: bool = True

    def __post_init__(self):
        n = len(self.masks)
        if not (len(self.sizes) == self.output.size and (self.sizes >= 1).all()):
            raise ValueError(f"sizes={self.sizes} must be {self.output.size} numbers of conditions, each at least 1")
        if self.sizes.sum() != n or len(self.columns) != n:
            raise ValueError(f"sizes add up to {self.sizes.sum()}; there are {n} masks and {len(self.columns)} columns")
        if self._used_bits > MASK_BITS:
            raise ValueError(f"a condition needs {self._used_bits} bits, it has {MASK_BITS}; split its column's codes")

    @property
    def _used_bits(self) -> int:
        return column_bits(int(self.columns.max()) + 1) + 1 + int(self.masks.max()).bit_length()

    @property
    def word_bits(self) -> int:
        """Bits of one condition in C, 16 or 32."""
        return 16 if self._used_bits <= 16 else 32

    def run(self, codes):
        holds: dict[tuple[int, int], np.ndarray] = {}
        for column, mask in zip(self.columns.tolist(), self.masks.tolist(), strict=True):
            if (column, mask) not in holds:
                code = codes[:, column].astype(np.uint32)
                bit = np.uint32(mask) >> np.minimum(code, np.uint32(MASK_BITS - 1)) & np.uint32(1)
                holds[column, mask] = (code < MASK_BITS) & (bit == 1)
        out = np.empty((len(codes), self.output.size), dtype=DTYPES[self.output.dtype])
        first = ranges(self.sizes)
        for m in range(self.output.size):
            match = np.ones(len(codes), dtype=bool)
            for k in range(first[m], first[m + 1]):
                match &= holds[int(self.columns[k]), int(self.masks[k])]
            out[:, m] = ~match
        return out

    @property
    def n_states(self):
        return np.full(self.output.size, 2)

    def in_range(self, bound) -> bool:
        """Return whether codes below `bound` (one of each column) need no check: a shift in C stays in its word."""
        return bool((np.asarray(bound)[self.columns] <= self.word_bits).all())

    def cost(self):
        n = len(self.masks)
        return Cost(
            n_parameters=n,
            bits=n * self.word_bits,
            operations=Counter(lookup=2 * n, compare=n),
            variants=("", *(("checked",) if self.checked else ())),
        )

    def describe(self):
        largest = int(self.sizes.max())
        return f"{len(self.masks)} conditions, {largest} at most in one itemset, {self.word_bits} bits each"

    def emit_c(self, c, ref):
        bits = column_bits(int(self.columns.max()) + 1)
        last = np.zeros(len(self.masks), dtype=np.int64)
        last[np.cumsum(self.sizes) - 1] = 1
        words = self.masks.astype(np.int64) << (bits + 1) | last << bits | self.columns
        dtype = f"u{self.word_bits}"
        table = c.constant(f"{self.output.name}_conditions", words, dtype)
        value = "unsigned" if self.word_bits == 16 else "uint32_t"  # the shifts are defined in an int of 16 bits, too
        code = f"{ref(self.inputs[0])}[{f'k & {(1 << bits) - 1}u' if bits else '0'}]"
        test = [f"hold &= k >> {bits + 1} >> {code};"]
        if self.checked:
            test = [f"code = {code};", f"hold &= code < {self.word_bits}u ? k >> {bits + 1} >> code : 0u;"]
        body = [
            f"{value} hold = 1u, k;",
            *(["unsigned code;"] if self.checked else []),
            f"do {{{turns(self.sizes.max())}",
            *indent(["k = *word++;", *test]),
            f"}} while (!(k & {1 << bits}u));",
            f"{ref(self.output.name)}[i] = ({C_TYPES[self.output.dtype]})(hold ^ 1u);",
        ]
        head = [f"const {c.space} {C_TYPES[dtype]} *word = {table};", "unsigned i;"]
        return block([*head, f"for (i = 0; i < {self.output.size}u; i++) {{", *indent(body), "}"])


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ClippedAffine(Step):
    """``out[l] = clip((x[columns[l]] - low[l]) * inverse[l], 0, 1)`` in float32; ``fill[l]`` for a NaN.

    Attributes
    ----------
    columns : int array (n_out,)
    low, inverse, fill : float32 array (n_out,)
        Value that gives 0, 1 / (value that gives 1, less `low`), result for a missing value.
    """

    kind: ClassVar[str] = "clipped_affine"

    columns: np.ndarray
    low: np.ndarray
    inverse: np.ndarray
    fill: np.ndarray

    def run(self, x):
        x = x[:, self.columns].astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            t = (x - self.low) * self.inverse
        inside = np.where(t > 0, np.where(t < 1, t, np.float32(1)), np.float32(0))
        return np.where(np.isnan(x), self.fill, inside).astype(np.float32)

    def cost(self):
        n = self.output.size
        operations = Counter(multiply=n, add=n, compare=3 * n)
        variant = "one" if n == 1 else "many"  # compilers unroll the loop of one
        return Cost(n_parameters=3 * n, bits=96 * n, operations=operations, variants=(variant,))

    def emit_c(self, c, ref):
        c.uses_float = True
        n, tag = self.output.size, self.output.name

        def number(hint, values):
            same = (values == values[0]).all()
            return f"{c.constant(f'{tag}_{hint}', values[:1] if same else values, 'f32')}[{'0' if same else 'i'}]"

        plain = np.array_equal(self.columns, np.arange(n))
        raw = f"{ref(self.inputs[0])}[{'i' if plain else c.constant(f'{tag}_column', self.columns) + '[i]'}]"
        value = "t > 0.0f ? (t < 1.0f ? t : 1.0f) : 0.0f"
        if self.inputs[0] != RAW or c.input_type == "float":  # integers have no NaN
            value = f"v != v ? {number('fill', self.fill)} : ({value})"
        lines = [
            f"const float v = (float){raw};",
            f"const float t = (v - {number('low', self.low)}) * {number('inverse', self.inverse)};",
            f"{ref(tag)}[i] = {value};",
        ]
        return block(["unsigned i;", f"for (i = 0; i < {n}u; i++) {{", *indent(lines), "}"])


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SumSquares(Step):
    """``out[0] = start + sum_k x[k]^2``, added in the order k = 0, 1, ... in float32.

    Attributes
    ----------
    n_inputs : int
    start : float32 array (1,)
    """

    kind: ClassVar[str] = "sum_squares"

    n_inputs: int
    start: np.ndarray

    def run(self, x):
        out = np.full(len(x), self.start[0], dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for column in x.T:
                out = out + column * column
        return out[:, None]

    def cost(self):
        return Cost(n_parameters=1, bits=32, operations=Counter(multiply=self.n_inputs, add=self.n_inputs))

    def emit_c(self, c, ref):
        c.uses_float = True
        x, start = ref(self.inputs[0]), c.constant(f"{self.output.name}_start", self.start, "f32")
        return block(
            [
                "unsigned k;",
                f"float total = {start}[0];",
                f"for (k = 0; k < {self.n_inputs}u; k++) {{",
                f"    total += {x}[k] * {x}[k];",
                "}",
                f"{ref(self.output.name)}[0] = total;",
            ]
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SquareRoot(Step):
    """``sqrt(x[k])`` in float32, less than 0.8 units in the last place from the true root; no libm.

    With y = 1 / sqrt(x) by Newton steps: ``r = x y`` and one more step, ``r + (y / 2) (x - r r)``. Below the smallest
    normal number the root is 0; infinity and NaN stay as they are.
    """

    kind: ClassVar[str] = "square_root"

    def run(self, x):
        regular = (x >= SMALLEST_NORMAL) & (x < np.inf)
        v = np.ascontiguousarray(np.where(regular, x, np.float32(1)), dtype=np.float32)
        y = np.empty_like(v)
        rsqrt(v.ravel(), y.ravel())
        r = v * y
        root = r + (np.float32(0.5) * y) * (v - r * r)
        return np.where(regular, root, np.where(x < SMALLEST_NORMAL, np.float32(0), x)).astype(np.float32)

    def cost(self):
        n = self.output.size
        operations = Counter(multiply=20 * n, add=6 * n, compare=2 * n)  # four Newton steps of 1 / sqrt and one of sqrt
        return Cost(operations=operations, variants=("", "rsqrt"))

    def emit_c(self, c, ref):
        c.uses_float = True
        n, x, out = self.output.size, ref(self.inputs[0]), ref(self.output.name)
        smallest, largest = (f"{float(v):.9g}f" for v in (SMALLEST_NORMAL, np.finfo(np.float32).max))
        lines = [
            f"const float v = {x}[k];",
            f"if (v >= {smallest} && v <= {largest}) {{",
            f"    const float y = {emit_rsqrt(c)}(v), r = v * y;",
            f"    {out}[k] = r + (0.5f * y) * (v - r * r);",
            "} else {",
            f"    {out}[k] = v < {smallest} ? 0.0f : v;",
            "}",
        ]
        return block(["unsigned k;", f"for (k = 0; k < {n}u; k++) {{", *indent(lines), "}"])
