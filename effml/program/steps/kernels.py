"""Kernels of a row to landmarks, weighted by a gate, and distances to the centres of an RBF gate; float32."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml._cext.kernel_rows import kernel_rows, ordered_product, weighted_sum
from effml.program.cwriter import block, indent, turns
from effml.program.steps.base import Cost, Step
from effml.program.steps.outputs import emit_exp

__all__ = ["KernelRows", "SquaredDistances"]

ROWS_AT_ONCE = 256
SMALLEST = 1e-12  # guard of a zero norm, as in _cext/kernel_rows.h


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class KernelRows(Step):
    """``out[l] = sum_m w[m] k_m(x, a_l)``, or ``out[m, l] = w[m] k_m(x, a_l)``; a kernel of weight 0 is not evaluated.

    Gaussian kernels are ``exp(-gamma max(0, |x|^2 + |a|^2 - 2 x.a))``, powers ``c ** degree`` with
    ``c = (x.a + offset) / sqrt((|x|^2 + offset) (|a|^2 + offset))``. The weights are the second input, or `weights`.

    Attributes
    ----------
    columns : int array
        Features of each group, one group after the other.
    column_start, kernel_start : int arrays (n_groups + 1,)
    shapes : float32 array (M,)
        gamma of Gaussian kernels, which come first in a group; offset of powers.
    degrees : int32 array (M,)
        0 for Gaussian kernels.
    landmarks : float32 array (sum of L * d_g,)
        Of each group: L rows of its features.
    norms : float32 array (n_groups, L)
        |a|^2 over the features of the group.
    factors : float32 array (n_powers, L)
        ``1 / sqrt(|a|^2 + offset)`` of each power.
    weights : float32 array (M,), or empty when the weights are an input
    side_by_side : bool
        Whether the kernels stand side by side instead of being added.
    """

    kind: ClassVar[str] = "kernel_rows"

    columns: np.ndarray
    column_start: np.ndarray
    kernel_start: np.ndarray
    shapes: np.ndarray
    degrees: np.ndarray
    landmarks: np.ndarray
    norms: np.ndarray
    factors: np.ndarray
    weights: np.ndarray
    side_by_side: bool = False

    @property
    def n_landmarks(self) -> int:
        return self.norms.shape[1]

    def _groups(self):
        """Yield (number, columns, first kernel, number of Gaussians, end kernel, first power, landmarks) of a group."""
        cell = power = 0
        for g, (a, b) in enumerate(zip(self.kernel_start[:-1].tolist(), self.kernel_start[1:].tolist(), strict=True)):
            columns = self.columns[self.column_start[g] : self.column_start[g + 1]]
            size = len(columns) * self.n_landmarks
            n_gaussian = int((self.degrees[a:b] == 0).sum())
            yield g, columns, a, n_gaussian, b, power, self.landmarks[cell : cell + size]
            cell += size
            power += b - a - n_gaussian

    def run(self, x, weights=None):
        if weights is None:
            weights = np.repeat(self.weights.astype(np.float32)[None], len(x), axis=0)
        out = np.empty((len(x), self.output.size), dtype=np.float32)
        x = np.ascontiguousarray(x, dtype=np.float32)
        weights = np.ascontiguousarray(weights)
        for start in range(0, len(x), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            self._run_rows(x[rows], weights[rows], out[rows])
        return out

    def _run_rows(self, x, weights, out):
        n = self.n_landmarks
        kernels = np.zeros((len(x), len(self.shapes), n), dtype=np.float32)
        for g, columns, a, n_gaussian, b, power, landmarks in self._groups():
            rows = np.ascontiguousarray(x[:, columns])
            dots, norms = np.zeros((len(x), n), dtype=np.float32), np.zeros(len(x), dtype=np.float32)
            with np.errstate(over="ignore", invalid="ignore"):
                for column in rows.T:
                    norms = norms + column * column
            ordered_product(rows, np.ascontiguousarray(landmarks.reshape(n, -1).T), dots)
            factors = np.zeros((b - a, n), dtype=np.float32)
            factors[n_gaussian:] = self.factors[power : power + b - a - n_gaussian]
            kernel_rows(dots, norms, self.norms[g], factors, self.shapes[a:b], self.degrees[a:b], kernels, a, weights)
        if self.side_by_side:
            with np.errstate(invalid="ignore"):
                out[:] = np.where(weights[:, :, None] == 0, 0, kernels * weights[:, :, None]).reshape(len(x), -1)
        else:
            weighted_sum(kernels, weights, out)

    def cost(self):
        n, n_power = self.n_landmarks, int((self.degrees > 0).sum())
        n_kernels, widths = len(self.shapes), np.diff(self.column_start)
        n_gaussian = n_kernels - n_power
        multiply = n * (int(widths.sum()) + 2 * n_kernels + int(self.degrees.sum()) + n_power) + int(widths.sum())
        add = n * (int(widths.sum()) + 2 * len(widths) + n_kernels + n_power) + int(widths.sum())
        n_numbers = self.landmarks.size + self.norms.size + self.factors.size + self.shapes.size + self.weights.size
        variants = ["side" if self.side_by_side else "sum"]
        for _, _, a, gaussians, b, _, _ in self._groups():
            variants.append("group")
            variants += ["gaussian", "exp"] * bool(gaussians) + ["power", "rsqrt"] * bool(b - a - gaussians)
        return Cost(
            n_parameters=n_numbers,
            bits=32 * n_numbers,
            operations=Counter(multiply=multiply, add=add, exp=n * n_gaussian),
            variants=tuple(variants),
        )

    def describe(self):
        return f"{len(self.shapes)} kernels x {self.n_landmarks} landmarks"

    def emit_c(self, c, ref):
        c.uses_float = True
        weights = ref(self.inputs[1]) if len(self.inputs) > 1 else c.constant(f"{self.output.name}_w", self.weights)
        parts = [self._emit_group(c, ref, weights, *group) for group in self._groups()]
        return "\n".join(parts)

    def _emit_group(self, c, ref, weights, g, columns, a, n_gaussian, b, power, landmarks):
        tag, n, d = f"{self.output.name}{g}", self.n_landmarks, len(columns)
        z, out = ref(self.inputs[0]), ref(self.output.name)
        whole = np.array_equal(columns, np.arange(d))
        value = f"{z}[{'i' if whole else c.constant(f'{tag}_column', columns) + '[i]'}]"
        table = c.constant(f"{tag}_landmarks", landmarks, "f32")
        wide = "(uint32_t)" if n * d > 65535 else ""
        n_power = b - a - n_gaussian
        lines = ["float norm = 0.0f;", "unsigned i, l, m;"]
        if n_power:
            lines.append(f"float own[{n_power}];")
        lines += [f"for (i = 0; i < {d}u; i++) {{", f"    norm += {value} * {value};", "}"]
        body = ["float dot = 0.0f;"]
        if not self.side_by_side:
            body.append(f"float sum = {f'{out}[l]' if g else '0.0f'};")
        body += [
            f"for (i = 0; i < {d}u; i++) {{",
            f"    dot += {value} * {table}[{wide}l * {d}u + i];",
            "}",
        ]
        if n_gaussian:
            body += self._gaussians(c, tag, weights, out, g, a, n_gaussian)
        if n_power:
            before, inside = self._powers(c, tag, weights, out, a + n_gaussian, b, power)
            lines += before
            body += inside
        if not self.side_by_side:
            body.append(f"{out}[l] = sum;")
        return block([*lines, f"for (l = 0; l < {n}u; l++) {{", *indent(body), "}"])

    def _store(self, out, first, weight, value):
        """Return the lines that take in one kernel's value."""
        if self.side_by_side:
            return [f"{out}[({first}u + m) * {self.n_landmarks}u + l] = {weight} * {value};"]
        return [f"sum += {weight} * {value};"]

    def _unused(self, out, first):
        return f"{out}[({first}u + m) * {self.n_landmarks}u + l] = 0.0f;" if self.side_by_side else None

    def _over_kernels(self, out, first, count, weight, lines):
        unused = self._unused(out, first)
        skip = [f"if ({weight} == 0.0f) {{", *([f"    {unused}"] if unused else []), "    continue;", "}"]
        return [f"for (m = 0; m < {count}u; m++) {{", *indent(skip + lines), "}"]

    def _gaussians(self, c, tag, weights, out, g, first, count):
        norms = c.constant(f"{tag}_norms", self.norms[g], "f32")
        gammas = c.constant(f"{tag}_gamma", self.shapes[first : first + count], "f32")
        weight = f"{weights}[{first}u + m]"
        value = f"{emit_exp(c)}(-({gammas}[m] * squared))"
        return [
            f"float squared = (norm + {norms}[l]) - 2.0f * dot;",
            "if (squared < 0.0f) {",
            "    squared = 0.0f;",
            "}",
            *self._over_kernels(out, first, count, weight, self._store(out, first, weight, value)),
        ]

    def _powers(self, c, tag, weights, out, first, end, power):
        count = end - first
        offsets = c.constant(f"{tag}_offset", self.shapes[first:end], "f32")
        factors = c.constant(f"{tag}_factors", self.factors[power : power + count], "f32")
        degrees = c.constant(f"{tag}_degree", self.degrees[first:end])
        weight = f"{weights}[{first}u + m]"
        before = [
            f"for (m = 0; m < {count}u; m++) {{",
            f"    const float under = norm + {offsets}[m];",
            f"    own[m] = {emit_rsqrt(c)}(under < {SMALLEST}f ? {SMALLEST}f : under);",
            "}",
        ]
        lines = [
            f"const float v = ((dot + {offsets}[m]) * own[m]) * {factors}[m * {self.n_landmarks}u + l];",
            "float p = v;",
            f"for (i = 1; i < {degrees}[m]; i++) {{{turns(self.degrees[first:end].max() - 1)}",
            "    p *= v;",
            "}",
            *self._store(out, first, weight, "p"),
        ]
        return before, self._over_kernels(out, first, count, weight, lines)


def emit_rsqrt(c) -> str:
    """Add the C helper of 1 / sqrt(x) and return its name; ``effml._cext.kernel_rows.rsqrt`` is the same in Python."""
    step = "    y = y * (1.5f - (0.5f * x) * (y * y));"
    steps = "\n".join([step] * 4)
    return c.helper(
        "rsqrt",
        f"""/* 1 / sqrt(x) of a normal positive number: a guess from the bits, then Newton steps; no libm. */
static float {{name}}(float x)
{{
    int32_t bits;
    float y;
    memcpy(&bits, &x, sizeof bits);
    bits = 0x5f3759df - (bits >> 1);
    memcpy(&y, &bits, sizeof y);
{steps}
    return y;
}}""",
    )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SquaredDistances(Step):
    """``out[m] = scale[m] * sum_i (x[i] - centre[m, i])^2``, added in the order of i.

    Attributes
    ----------
    centres : float32 array (n_out, n_in)
    scale : float32 array (n_out,)
    """

    kind: ClassVar[str] = "squared_distances"

    centres: np.ndarray
    scale: np.ndarray

    def run(self, x):
        out = np.zeros((len(x), len(self.centres)), dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for column, centre in zip(x.T, self.centres.T, strict=True):
                difference = column[:, None] - centre
                out = out + difference * difference
            return out * self.scale

    def cost(self):
        n, size = self.output.size, self.centres.size
        operations = Counter(multiply=size + n, add=2 * size)
        return Cost(n_parameters=size + n, bits=32 * (size + n), operations=operations)

    def emit_c(self, c, ref):
        c.uses_float = True
        n, d = self.centres.shape
        x, out, tag = ref(self.inputs[0]), ref(self.output.name), self.output.name
        centres, scale = (
            c.constant(f"{tag}_centres", self.centres, "f32"),
            c.constant(f"{tag}_scale", self.scale, "f32"),
        )
        return block(
            [
                "unsigned i, k;",
                f"for (k = 0; k < {n}u; k++) {{",
                "    float total = 0.0f;",
                f"    for (i = 0; i < {d}u; i++) {{",
                f"        const float v = {x}[i] - {centres}[{'(uint32_t)' if n * d > 65535 else ''}k * {d}u + i];",
                "        total += v * v;",
                "    }",
                f"    {out}[k] = total * {scale}[k];",
                "}",
            ]
        )
