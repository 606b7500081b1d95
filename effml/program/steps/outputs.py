"""The last steps of a classifier: best class, probabilities, one row of a table, a choice of elements."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml.program.buffers import DTYPES
from effml.program.cwriter import C_TYPES, block, turns
from effml.program.steps.base import Cost, Step

__all__ = ["ArgBest", "Gather", "Positive", "Select", "Softmax", "exp_float32"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ArgBest(Step):
    """Position of the largest element (or the smallest); ties go to the lowest position, and a NaN is never better."""

    kind: ClassVar[str] = "arg_best"

    n_inputs: int
    largest: bool = True

    def run(self, x):
        if x.dtype.kind != "f":
            return (x.argmax(axis=1) if self.largest else x.argmin(axis=1))[:, None].astype(DTYPES[self.output.dtype])
        best, value = np.zeros(len(x), dtype=np.int64), x[:, 0].copy()
        for k in range(1, x.shape[1]):
            better = x[:, k] > value if self.largest else x[:, k] < value
            best[better], value[better] = k, x[better, k]
        return best[:, None].astype(DTYPES[self.output.dtype])

    def cost(self):
        return Cost(operations=Counter(compare=self.n_inputs - 1))

    def emit_c(self, c, ref):
        n, out, x = self.n_inputs, ref(self.output.name), ref(self.inputs[0])
        if n == 1:
            return f"(void){x};\n{out}[0] = 0;"
        cell, value = C_TYPES[self.output.dtype], C_TYPES[c.buffers[self.inputs[0]].dtype]
        return block(
            [
                f"const {value} *next = {x}, *best = {x};",
                f"{value} found = *best;",
                f"do {{{turns(n - 1)}",
                "    next++;",
                f"    if (*next {'>' if self.largest else '<'} found) {{",
                "        found = *next;",
                "        best = next;",
                "    }",
                f"}} while (next != {x} + {n - 1});",
                f"{out}[0] = ({cell})(best - {x});",
            ]
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Positive(Step):
    """1 where the one input element is above zero, else 0: the label of a binary linear model."""

    kind: ClassVar[str] = "positive"

    def run(self, x):
        return (x[:, :1] > 0).astype(DTYPES[self.output.dtype])

    def cost(self):
        return Cost(operations=Counter(compare=1))

    def emit_c(self, c, ref):
        return f"{ref(self.output.name)}[0] = ({C_TYPES[self.output.dtype]})({ref(self.inputs[0])}[0] > 0);"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Gather(Step):
    """Row of a table chosen by the one input element, which the producer keeps in range."""

    kind: ClassVar[str] = "gather"

    table: np.ndarray

    def run(self, x):
        return self.table[x[:, 0]].astype(DTYPES[self.output.dtype])

    def cost(self):
        bits = 8 * DTYPES[self.output.dtype].itemsize
        return Cost(
            n_parameters=self.table.size, bits=bits * self.table.size, operations=Counter(lookup=self.output.size)
        )

    def emit_c(self, c, ref):
        n = self.output.size
        table = c.constant(f"{self.output.name}_rows", self.table, "f32" if self.table.dtype.kind == "f" else None)
        cell = C_TYPES[self.output.dtype]
        if n == 1:
            return f"{ref(self.output.name)}[0] = ({cell}){table}[{ref(self.inputs[0])}[0]];"
        wide = "uint32_t" if self.table.size > 65535 else "unsigned"
        return block(
            [
                f"const {wide} first = ({wide}){ref(self.inputs[0])}[0] * {n}u;",
                "unsigned k;",
                f"for (k = 0; k < {n}u; k++) {{",
                f"    {ref(self.output.name)}[k] = ({cell}){table}[first + k];",
                "}",
            ]
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Select(Step):
    """Some elements of the input, in the given order."""

    kind: ClassVar[str] = "select"

    columns: np.ndarray

    def run(self, x):
        return x[:, self.columns].astype(DTYPES[self.output.dtype])

    def cost(self):
        return Cost(operations=Counter(lookup=self.output.size))

    def emit_c(self, c, ref):
        column = c.constant(f"{self.output.name}_column", self.columns)
        value = f"({C_TYPES[self.output.dtype]}){ref(self.inputs[0])}[{column}[k]]"
        return block(
            [
                "unsigned k;",
                f"for (k = 0; k < {self.output.size}u; k++) {{",
                f"    {ref(self.output.name)}[k] = {value};",
                "}",
            ]
        )


# -- exp: one polynomial for softmax, kernels and training ------------------------------------------------------------

_LOG2_E = np.float32(1.44269502)
# ln 2 in two parts (Cody and Waite): the first has few enough bits that n * _LN2_HIGH is exact
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
# minimax polynomial of (exp(r) - 1 - r) / r^2 on |r| <= ln(2) / 2 (Cephes expf, S. Moshier)
_POLYNOMIAL = tuple(
    np.float32(v) for v in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
)
EXP_LOW, EXP_HIGH = np.float32(-87.0), np.float32(88.0)


def exp_float32(x: np.ndarray) -> np.ndarray:
    """Return exp(x) in float32: the reference of the C helper, bit for bit.

    Arguments are clipped to [-87, 88], so results are normal numbers; relative error below 2e-7. NaN stays NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from effml.program.steps.outputs import exp_float32
    >>> bool(np.isclose(exp_float32(np.float32([1.0])), np.e, rtol=2e-7)[0])
    True
    """
    x = np.asarray(x, dtype=np.float32)
    clipped = np.minimum(np.maximum(np.where(np.isnan(x), np.float32(0), x), EXP_LOW), EXP_HIGH)
    scaled = clipped * _LOG2_E
    n = (scaled + np.where(scaled < 0, np.float32(-0.5), np.float32(0.5))).astype(np.int32)  # truncation: no libm
    n_float = n.astype(np.float32)
    r = (clipped - n_float * _LN2_HIGH) - n_float * _LN2_LOW
    p = np.full_like(r, _POLYNOMIAL[0])
    for coefficient in _POLYNOMIAL[1:]:
        p = p * r + coefficient
    y = (p * (r * r) + r) + np.float32(1)
    power = ((n + np.int32(127)) << np.int32(23)).astype(np.int32).view(np.float32)
    return np.where(np.isnan(x), x, y * power)


def emit_exp(c) -> str:
    """Add the C helper and return its name."""
    c.uses_float = True
    polynomial = "\n".join(f"    p = p * r + {float(v):.9g}f;" for v in _POLYNOMIAL[1:])
    return c.helper(
        "exp",
        f"""/* exp(x) for -87 <= x <= 88 by range reduction and a polynomial: no libm, the same bits everywhere. */
static float {{name}}(float x)
{{
    float n_float, p, power, r, scaled;
    int32_t n;
    uint32_t bits;
    if (x != x) {{
        return x;
    }}
    if (x < {EXP_LOW:.1f}f) {{
        x = {EXP_LOW:.1f}f;
    }}
    if (x > {EXP_HIGH:.1f}f) {{
        x = {EXP_HIGH:.1f}f;
    }}
    scaled = x * {_LOG2_E:.9g}f;
    n = (int32_t)(scaled + (scaled < 0.0f ? -0.5f : 0.5f));
    n_float = (float)n;
    r = (x - n_float * {_LN2_HIGH:.9g}f) - n_float * {_LN2_LOW:.9g}f;
    p = {_POLYNOMIAL[0]:.9g}f;
{polynomial}
    p = (p * (r * r) + r) + 1.0f;
    bits = (uint32_t)(n + 127) << 23;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}}""",
    )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Softmax(Step):
    """``exp(x[k] - max x) / sum``, float32, added in the order k = 0, 1, ..."""

    kind: ClassVar[str] = "softmax"

    def run(self, x):
        largest = x[:, 0].copy()
        for k in range(1, x.shape[1]):
            largest = np.where(x[:, k] > largest, x[:, k], largest)
        with np.errstate(invalid="ignore", over="ignore"):
            e = exp_float32(x - largest[:, None])
        total = np.zeros(len(x), dtype=np.float32)
        for k in range(x.shape[1]):
            total = total + e[:, k]
        return e / total[:, None]

    def cost(self):
        n = self.output.size
        return Cost(operations=Counter(exp=n, add=2 * n, divide=n, compare=n - 1), variants=("", "exp"))

    def emit_c(self, c, ref):
        n, x, out, exp = self.output.size, ref(self.inputs[0]), ref(self.output.name), emit_exp(c)
        return block(
            [
                "unsigned k;",
                f"float largest = {x}[0], total = 0.0f;",
                f"for (k = 1; k < {n}u; k++) {{",
                f"    if ({x}[k] > largest) {{",
                f"        largest = {x}[k];",
                "    }",
                "}",
                f"for (k = 0; k < {n}u; k++) {{",
                f"    {out}[k] = {exp}({x}[k] - largest);",
                f"    total += {out}[k];",
                "}",
                f"for (k = 0; k < {n}u; k++) {{",
                f"    {out}[k] /= total;",
                "}",
            ]
        )
