"""Steps of linear models and networks: exp, shares of logistic functions, bytes looked up, scaled and put together."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml.program.buffers import DTYPES
from effml.program.cwriter import C_TYPES, block
from effml.program.steps.base import Cost, Step
from effml.program.steps.outputs import emit_exp, exp_float32

__all__ = ["Exp", "LogisticShares", "LookupEach", "MultiplyInput", "WeightedAdd"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Exp(Step):
    """``exp(x[k])``, x clipped to [-87, 88]; a NaN stays one."""

    kind: ClassVar[str] = "exp"

    def run(self, x):
        return exp_float32(x)

    def cost(self):
        return Cost(operations=Counter(exp=self.output.size), variants=("", "exp"))

    def emit_c(self, c, ref):
        exp = emit_exp(c)
        line = f"{ref(self.output.name)}[k] = {exp}({ref(self.inputs[0])}[k]);"
        return block(["unsigned k;", f"for (k = 0; k < {self.output.size}u; k++) {{", f"    {line}", "}"])


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LogisticShares(Step):
    """``s(x[k]) / sum_j s(x[j])``, s the logistic function, also where all of them are too small for a float32.

    ``s(x) = exp(min(x, 0)) / (1 + exp(-|x|))``; the largest ``min(x, 0)`` is taken from all of them first.
    """

    kind: ClassVar[str] = "logistic_shares"

    def run(self, x):
        low = np.where(x < 0, x, np.float32(0))
        largest = low[:, 0].copy()
        for column in low.T[1:]:
            largest = np.where(column > largest, column, largest)
        with np.errstate(invalid="ignore", over="ignore"):
            part = exp_float32(low - largest[:, None]) / (np.float32(1) + exp_float32(np.where(x < 0, x, -x)))
        total = np.zeros(len(x), dtype=np.float32)
        for column in part.T:
            total = total + column
        return part / total[:, None]

    def cost(self):
        n = self.output.size
        operations = Counter(exp=2 * n, add=3 * n, divide=2 * n, compare=3 * n)
        return Cost(operations=operations, variants=("", "exp"))

    def emit_c(self, c, ref):
        n, x, out, exp = self.output.size, ref(self.inputs[0]), ref(self.output.name), emit_exp(c)
        return block(
            [
                "unsigned k;",
                f"float largest = {x}[0] < 0.0f ? {x}[0] : 0.0f, total = 0.0f;",
                f"for (k = 1; k < {n}u; k++) {{",
                f"    const float low = {x}[k] < 0.0f ? {x}[k] : 0.0f;",
                "    largest = low > largest ? low : largest;",
                "}",
                f"for (k = 0; k < {n}u; k++) {{",
                f"    const float v = {x}[k], low = v < 0.0f ? v : 0.0f;",
                f"    const float part = {exp}(low - largest) / (1.0f + {exp}(v < 0.0f ? v : -v));",
                f"    {out}[k] = part;",
                "    total += part;",
                "}",
                f"for (k = 0; k < {n}u; k++) {{",
                f"    {out}[k] /= total;",
                "}",
            ]
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LookupEach(Step):
    """``out[k] = table[x[k]]``, one table for all elements; an x beyond the table reads its last entry.

    Attributes
    ----------
    table : uint8 array (n,)
        At most 256; with exactly 256 every byte has its entry.
    """

    kind: ClassVar[str] = "lookup_each"

    table: np.ndarray

    def __post_init__(self):
        if self.table.dtype != np.uint8 or not 1 <= len(self.table) <= 256:
            raise ValueError(f"table holds {len(self.table)} of {self.table.dtype}; accepted are 1 to 256 of uint8")

    def run(self, x):
        return self.table[np.minimum(x, len(self.table) - 1)].astype(DTYPES[self.output.dtype])

    def cost(self):
        n = self.output.size
        checks = 0 if len(self.table) == 256 else n
        return Cost(
            n_parameters=len(self.table), bits=8 * len(self.table), operations=Counter(lookup=n, compare=checks)
        )

    def emit_c(self, c, ref):
        table, out, last = c.constant(f"{self.output.name}_table", self.table, "u8"), self.output.name, len(self.table)
        level = f"{ref(self.inputs[0])}[k]"
        if last < 256:
            level = f"{level} < {last}u ? {level} : {last - 1}u"
        line = f"{ref(out)}[k] = {table}[{level}];"
        return block(["unsigned k;", f"for (k = 0; k < {self.output.size}u; k++) {{", f"    {line}", "}"])


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MultiplyInput(Step):
    """``out[j] = clip(floor(x[columns[j]] * factor[j]), 0, largest)``; a NaN gives 0, and integers stay integers.

    Attributes
    ----------
    columns : int array (n,)
    factor : uint8 array (n,)
        From 1 on.
    largest : int
        At most 255.
    """

    kind: ClassVar[str] = "multiply_input"

    columns: np.ndarray
    factor: np.ndarray
    largest: int

    def run(self, x):
        x = x[:, self.columns]
        if x.dtype.kind == "f":
            with np.errstate(over="ignore", invalid="ignore"):
                x = x * self.factor.astype(np.float32)
            x = np.where(x >= 0, x, np.float32(0))  # NaN compares false
        else:
            x = x.astype(np.int64) * self.factor
        return np.clip(x, 0, self.largest).astype(DTYPES[self.output.dtype])

    @property
    def n_states(self):
        return np.full(self.output.size, self.largest + 1)

    def cost(self):
        n = self.output.size
        return Cost(n_parameters=n, bits=8 * n, operations=Counter(multiply=n, compare=2 * n))

    def emit_c(self, c, ref):
        n, tag, largest = self.output.size, self.output.name, self.largest
        counted = np.array_equal(self.columns, np.arange(n))
        column = "j" if counted else f"{c.constant(f'{tag}_column', self.columns)}[j]"
        raw, factor = f"{ref(self.inputs[0])}[{column}]", f"{c.constant(f'{tag}_factor', self.factor, 'u8')}[j]"
        target, cell = f"{ref(tag)}[j]", C_TYPES[self.output.dtype]
        kind = c.input_type if self.inputs[0] == "x" else "float"
        if kind == "float":
            c.uses_float = True
            lines = [
                f"const float v = {raw} * (float){factor};",
                f"{target} = ({cell})(v >= 0.0f ? (v > {largest}.0f ? {largest} : ({cell})v) : 0);",
            ]
        else:
            lines = [
                f"const {kind} v = {raw};",
                f"const uint32_t u = v <= 0 ? 0u : v >= {largest} ? {largest}u : (uint32_t)v * {factor};",
                f"{target} = ({cell})(u > {largest}u ? {largest}u : u);",
            ]
        return block(["unsigned j;", f"for (j = 0; j < {n}u; j++) {{", *("    " + line for line in lines), "}"])


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class WeightedAdd(Step):
    """``out[k] = bias[k] + 2^shifts[0] a[k] + 2^shifts[1] b[k] + ...`` of integer inputs, int32 that wraps.

    Attributes
    ----------
    shifts : tuple of int
        One an input, 0 to 31.
    bias : int32 array (n,), or of size 0 for none
    """

    kind: ClassVar[str] = "weighted_add"

    shifts: tuple
    bias: np.ndarray

    def run(self, *inputs):
        total = np.zeros((len(inputs[0]), self.output.size), dtype=np.int64)
        if self.bias.size:
            total += self.bias.astype(np.int64)
        for values, shift in zip(inputs, self.shifts, strict=True):
            total += values.astype(np.int64) << shift
        return ((total + 2**31) % 2**32 - 2**31).astype(np.int32)

    def cost(self):
        n, m = self.output.size, len(self.shifts)
        operations = Counter(add=n * (m - 1 + bool(self.bias.size)), shift=n * sum(map(bool, self.shifts)))
        return Cost(n_parameters=self.bias.size, bits=32 * self.bias.size, operations=operations)

    def emit_c(self, c, ref):
        n, out, cell = self.output.size, self.output.name, C_TYPES[self.output.dtype]
        terms = [
            f"((uint32_t){ref(name)}[k] << {shift})" if shift else f"(uint32_t){ref(name)}[k]"
            for name, shift in zip(self.inputs, self.shifts, strict=True)
        ]
        if self.bias.any():
            terms.append(f"(uint32_t){c.constant(f'{out}_bias', self.bias)}[k]")
        line = f"{ref(out)}[k] = ({cell})({' + '.join(terms)});"
        return block(["unsigned k;", f"for (k = 0; k < {n}u; k++) {{", f"    {line}", "}"])
