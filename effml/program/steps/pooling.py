"""The largest or the mean value of each window of an image, and buffers put side by side."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml.program.buffers import DTYPES
from effml.program.cwriter import C_TYPES, block, indent
from effml.program.steps.base import Cost, Step

__all__ = ["Join", "Pool"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Pool(Step):
    """The largest or the mean value of each window, channel by channel; windows reach into a border of no values.

    The mean of integers is rounded, halves up; of floats the sum is taken row by row from the upper left on. In the
    largest value a NaN counts only where it comes first.

    Attributes
    ----------
    image_shape : (height, width, channels)
        Of the input.
    window, stride : (int, int)
    padding : (top, left, bottom, right)
        Width of the border.
    mode : {"largest", "mean", "sum"}
        The sum is one of integers, int32.
    fill : int
        Mean and sum: the value of the border, which then counts; -1: the mean is that of the values inside.
    """

    kind: ClassVar[str] = "pool"

    image_shape: tuple
    window: tuple
    stride: tuple
    padding: tuple = (0, 0, 0, 0)
    mode: str = "largest"
    fill: int = -1

    @property
    def out_shape(self) -> tuple:
        """Height, width and channels of the output."""
        height, width, channels = self.image_shape
        rows = (height + self.padding[0] + self.padding[2] - self.window[0]) // self.stride[0] + 1
        columns = (width + self.padding[1] + self.padding[3] - self.window[1]) // self.stride[1] + 1
        return rows, columns, channels

    def _ranges(self, axis):
        """Return first and last + 1 of the rows (or columns) inside of each window."""
        first = np.arange(self.out_shape[axis]) * self.stride[axis] - self.padding[axis]
        return np.maximum(first, 0), np.minimum(first + self.window[axis], self.image_shape[axis])

    def run(self, x):
        images = x.reshape(len(x), *self.image_shape)
        out = np.empty((len(x), *self.out_shape), dtype=DTYPES[self.output.dtype])
        pool = _largest if self.mode == "largest" else self._mean
        for i, (top, bottom) in enumerate(zip(*self._ranges(0), strict=True)):
            for j, (left, right) in enumerate(zip(*self._ranges(1), strict=True)):
                values = images[:, top:bottom, left:right].reshape(len(x), -1, self.image_shape[2])
                out[:, i, j] = pool(values)
        return out.reshape(len(x), -1)

    def _mean(self, values):
        n = values.shape[1] if self.fill < 0 else self.window[0] * self.window[1]
        border = 0 if self.fill < 0 else (n - values.shape[1]) * self.fill
        if self.mode == "sum":
            return values.sum(axis=1, dtype=np.int64) + border
        if values.dtype.kind != "f":
            return (2 * (values.astype(np.int64).sum(axis=1) + border) + n) // (2 * n)
        total = np.zeros(values[:, 0].shape, dtype=np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            for k in range(values.shape[1]):
                total = total + values[:, k]
            return total / np.float32(n)

    def cost(self):
        reads = self.output.size * self.window[0] * self.window[1]
        operations = Counter(compare=reads) if self.mode == "largest" else Counter(add=reads)
        operations += Counter(divide=self.output.size if self.mode == "mean" else 0)
        return Cost(operations=operations, variants=(self.mode,))

    def describe(self):
        return f"{self.window[0]} x {self.window[1]} windows of a {' x '.join(map(str, self.image_shape))} image"

    def emit_c(self, c, ref):
        height, width, channels = self.image_shape
        rows, columns, _ = self.out_shape
        is_float = self.output.dtype == "f32"
        c.uses_float |= is_float
        walk = [
            f"const unsigned row = {self.stride[0]}u * i + down;",
            f"const unsigned column = {self.stride[1]}u * j + right;",
        ]
        top, left = self.padding[:2]
        pixel = f"((uint32_t)(row - {top}u) * {width}u + (column - {left}u)) * {channels}u + k"
        value = f"{ref(self.inputs[0])}[{pixel}]"
        inside, ends = self._emit_largest(value) if self.mode == "largest" else self._emit_mean(value, is_float)
        target = f"{ref(self.output.name)}[((uint32_t)i * {columns}u + j) * {channels}u + k]"
        if any(self.padding):
            test = f"row >= {top}u && row < {height + top}u && column >= {left}u && column < {width + left}u"
            test = test.replace("row >= 0u && ", "").replace("column >= 0u && ", "")
            inside = [f"if ({test}) {{", *indent(inside), "}"]
        taps = [f"for (right = 0; right < {self.window[1]}u; right++) {{", *indent([*walk, *inside]), "}"]
        body = [*ends[0], f"for (down = 0; down < {self.window[0]}u; down++) {{", *indent(taps)]
        body += ["}", f"{target} = ({C_TYPES[self.output.dtype]})({ends[1]});"]
        return block(
            [
                "unsigned i, j, k, down, right;",
                f"for (i = 0; i < {rows}u; i++) {{",
                f"    for (j = 0; j < {columns}u; j++) {{",
                f"        for (k = 0; k < {channels}u; k++) {{",
                *indent(indent(indent(body))),
                "        }",
                "    }",
                "}",
            ]
        )

    def _emit_largest(self, value):
        cell = C_TYPES[self.output.dtype]
        inside = [f"const {cell} v = {value};", "if (none || v > best) {", "    best = v;", "    none = 0u;", "}"]
        return inside, ([f"{cell} best = 0;", "unsigned none = 1u;"], "best")

    def _emit_mean(self, value, is_float):
        fixed = self.window[0] * self.window[1]
        counts = self.fill < 0 and any(self.padding) and self.mode == "mean"
        cell, inside = ("float" if is_float else "int32_t"), [f"total += {value};"]
        start = [f"{cell} total = 0;"]
        if self.fill > 0:  # a pixel of the border has this value
            start, inside = [f"{cell} total = {fixed * self.fill};"], [f"total += {value} - {self.fill};"]
        if counts:
            inside, start = [*inside, "n++;"], [*start, "int32_t n = 0;"]
        n = "n" if counts else str(fixed)
        if self.mode == "sum":
            return inside, (start, "total")
        if is_float:
            return inside, (start, f"total / (float){n}")
        return inside, (start, f"(2 * total + {n}) / (2 * {n})")


def _largest(values):
    best = values[:, 0].copy()
    for k in range(1, values.shape[1]):
        np.copyto(best, values[:, k], where=values[:, k] > best)
    return best


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Join(Step):
    """Buffers of one type side by side: of each in turn a part, as often as there are parts.

    With one part each they follow each other; with a part a pixel the channels of images are put together.

    Attributes
    ----------
    sizes : tuple of int
        Elements of a part of each input.
    """

    kind: ClassVar[str] = "join"

    sizes: tuple

    def run(self, *inputs):
        parts = [x.reshape(len(x), -1, size) for x, size in zip(inputs, self.sizes, strict=True)]
        return np.concatenate(parts, axis=2).reshape(len(inputs[0]), -1)

    def cost(self):
        return Cost(operations=Counter(lookup=self.output.size), variants=("",) * len(self.sizes))

    def emit_c(self, c, ref):
        n_parts, width, first = self.output.size // sum(self.sizes), sum(self.sizes), 0
        lines = ["unsigned i, k;", f"for (i = 0; i < {n_parts}u; i++) {{"]
        for name, size in zip(self.inputs, self.sizes, strict=True):
            target = f"{ref(self.output.name)}[(uint32_t)i * {width}u + {first}u + k]"
            lines += [
                f"    for (k = 0; k < {size}u; k++) {{",
                f"        {target} = {ref(name)}[(uint32_t)i * {size}u + k];",
                "    }",
            ]
            first += size
        return block([*lines, "}"])
