"""3x3 convolution with its pooling: of integer images with weights of 1 to 8 bits, or in float32."""

from collections import Counter
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar

import numpy as np

from effml._cext.kernel_rows import ordered_product
from effml.program.buffers import Buffer
from effml.program.cwriter import block, indent
from effml.program.steps.base import Cost, Step
from effml.program.steps.neural import PackedDense, code_shape, emit_codes

__all__ = ["Conv", "PackedConv", "conv_taps", "pooled"]

_PATCH_BYTES = 1 << 21  # of neighbourhoods that are laid out at a time


def pooled(side: int) -> int:
    """Return the side of an image behind 2x2 pooling; a side of 1 stays.

    Examples
    --------
    >>> from effml.program.steps.images import pooled
    >>> pooled(7), pooled(1)
    (3, 1)
    """
    return side // 2 if side > 1 else side


def conv_taps(height: int, width: int):
    """Yield tap number, pixels that have this neighbour and these neighbours, as (rows, columns) of slices."""
    for tap in range(9):
        pixels, neighbours = [], []
        for shift, side in ((tap // 3 - 1, height), (tap % 3 - 1, width)):
            pixels.append(slice(max(0, -shift), side - max(0, shift)))
            neighbours.append(slice(max(0, shift), side - max(0, -shift)))
        yield tap, tuple(pixels), tuple(neighbours)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _Convolution(Step):
    """What both convolutions share: the walk over windows, pixels and neighbours."""

    image_shape: tuple

    @property
    def n_filters(self) -> int:
        raise NotImplementedError

    @property
    def out_shape(self) -> tuple:
        """Height, width and channels of the output."""
        height, width, _ = self.image_shape
        return pooled(height), pooled(width), self.n_filters

    def _in_parts(self, x, border, product):
        """Return the largest of the sums of each window; `product` maps neighbourhoods (n, 9 C) to sums (n, n_out)."""
        height, width, channels = self.image_shape
        images, parts = x.reshape(len(x), height, width, channels), []
        at_once = max(1, _PATCH_BYTES // (height * width * 9 * channels * x.dtype.itemsize))
        rows = np.full((min(at_once, len(x)), height, width, 9, channels), border, dtype=x.dtype)
        for start in range(0, max(len(x), 1), at_once):
            part = images[start : start + at_once]
            held = rows[: len(part)]
            for tap, pixels, neighbours in conv_taps(height, width):
                held[:, *pixels, tap] = part[:, *neighbours]
            sums = product(held.reshape(-1, 9 * channels))
            parts.append(_largest(sums.reshape(len(part), height, width, self.n_filters)))
        return np.concatenate(parts).reshape(len(x), -1)

    def _operations(self):
        height, width, channels = self.image_shape
        products = height * width * 9 * channels * self.n_filters
        return Counter(multiply=products, add=products, compare=height * width * self.n_filters)

    def _emit_windows(self, ref, cell, head, neighbour, outside, total):
        """Return the C of all windows; `neighbour` is done for each channel `c` of a pixel, `outside` beyond it."""
        height, width, channels = self.image_shape
        rows, columns, n_out = self.out_shape
        steps = [2 if side > 1 else 1 for side in (height, width)]
        taps = [
            f"const unsigned row = {steps[0]}u * i + window / {steps[1]}u + down;",
            f"const unsigned column = {steps[1]}u * j + window % {steps[1]}u + right;",
            f"if (row > 0u && row <= {height}u && column > 0u && column <= {width}u) {{",
            f"    const uint32_t pixel = (uint32_t)(row - 1u) * {width}u + (column - 1u);",
            f"    for (c = 0; c < {channels}u; c++) {{",
            *indent(indent(neighbour)),
            "    }",
            *(["} else {", *indent(outside)] if outside else []),
            "}",
        ]
        taps = ["for (right = 0; right < 3u; right++) {", *indent(taps), "}"]
        window = [*head, "for (down = 0; down < 3u; down++) {", *indent(taps), "}", *total]
        window += ["if (window == 0u || total > best) {", "    best = total;", "}"]
        return block(
            [
                "unsigned i, j, k, window, down, right, c;",
                f"for (i = 0; i < {rows}u; i++) {{",
                f"    for (j = 0; j < {columns}u; j++) {{",
                f"        for (k = 0; k < {n_out}u; k++) {{",
                f"            {cell} best = 0;",
                f"            for (window = 0; window < {steps[0] * steps[1]}u; window++) {{",
                *indent(indent(indent(indent(window)))),
                "            }",
                f"            {ref(self.output.name)}[((uint32_t)i * {columns}u + j) * {n_out}u + k] = best;",
                "        }",
                "    }",
                "}",
            ]
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PackedConv(_Convolution):
    """3x3 convolution and the largest sum of each 2x2 window, int32; a border of zeros, sides of 1 not pooled.

    ``sum[y, x, k] = sum_(t, c) (in[y + t / 3 - 1, x + t % 3 - 1, c] - zero_point) * (2 codes[t C + c, k] - top)``

    What follows must not fall with the sum, then pooling first gives the same and needs a quarter of the memory.

    Attributes
    ----------
    image_shape : (height, width, channels)
        Of the input, a row of integers (u8, i8, i16) in this order.
    codes : uint8 array (9 * channels, n_out)
    n_bits : int
        1 to 8.
    zero_point : int
    """

    kind: ClassVar[str] = "packed_conv"

    codes: np.ndarray
    n_bits: int
    zero_point: int = 0

    @property
    def n_filters(self):
        return self.codes.shape[1]

    def run(self, x):
        return self._in_parts(x, self.zero_point, self._dense.run)

    def __getstate__(self):
        return {field.name: getattr(self, field.name) for field in fields(self)}  # without `_dense`

    @cached_property
    def _dense(self):
        """The product of one neighbourhood with the weights."""
        none = np.empty(0, dtype=np.int32)
        given = {"codes": self.codes, "n_bits": self.n_bits, "bias": none, "zero_point": self.zero_point}
        return PackedDense(inputs=("patch",), output=Buffer("sum", "i32", self.n_filters), **given)

    def cost(self):
        return Cost(
            n_parameters=self.codes.size,
            bits=self.codes.size * self.n_bits,
            operations=self._operations(),
            variants=(code_shape(self.n_bits),),
        )

    def describe(self):
        height, width, channels = self.image_shape
        return f"{height} x {width} x {channels} image, {self.n_filters} filters of {self.n_bits} bits"

    def emit_c(self, c, ref):
        channels = self.image_shape[2]
        code, step = emit_codes(c, f"{self.output.name}_weights", self.codes, self.n_bits)
        minus = f" - {self.zero_point}" if self.zero_point else ""
        return self._emit_windows(
            ref,
            "int32_t",
            [f"uint32_t at = (uint32_t)k * {9 * channels * step}u, sum = 0u, all = 0u;", "int32_t total;"],
            [
                f"const int32_t v = {ref(self.inputs[0])}[pixel * {channels}u + c]{minus};",
                "all += (uint32_t)v;",
                f"sum += (uint32_t)v * {code};",
                f"at += {step}u;",
            ],
            [f"at += {channels * step}u;"],
            [f"total = (int32_t)(2u * sum - {2**self.n_bits - 1}u * all);"],
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Conv(_Convolution):
    """3x3 convolution in float32 and the largest sum of each 2x2 window; see :class:`PackedConv`.

    A sum starts from the bias and adds the neighbours from the upper left on; of a window in which a sum is NaN, the
    first sum stays unless a later one is larger.

    Attributes
    ----------
    image_shape : (height, width, channels)
    weight : float32 array (9 * channels, n_out)
    bias : float32 array (n_out,)
    """

    kind: ClassVar[str] = "conv"

    weight: np.ndarray
    bias: np.ndarray

    @property
    def n_filters(self):
        return self.weight.shape[1]

    def run(self, x):
        return self._in_parts(x, 0, self._sums)

    def _sums(self, rows):
        out = np.repeat(self.bias[None], len(rows), axis=0)
        with np.errstate(invalid="ignore", over="ignore"):
            ordered_product(np.ascontiguousarray(rows, dtype=np.float32), np.ascontiguousarray(self.weight), out)
        return out

    def cost(self):
        n = self.weight.size + self.bias.size
        return Cost(n_parameters=n, bits=32 * n, operations=self._operations())

    def describe(self):
        height, width, channels = self.image_shape
        return f"{height} x {width} x {channels} image, {self.n_filters} filters"

    def emit_c(self, c, ref):
        c.uses_float = True
        channels, n_out = self.image_shape[2], self.n_filters
        weight = c.constant(f"{self.output.name}_weight", self.weight, "f32")
        bias = c.constant(f"{self.output.name}_bias", self.bias, "f32")
        value = f"(float){ref(self.inputs[0])}[pixel * {channels}u + c]"
        return self._emit_windows(
            ref,
            "float",
            [f"float total = {bias}[k];"],
            [f"total += {value} * {weight}[((3u * (uint32_t)down + right) * {channels}u + c) * {n_out}u + k];"],
            [],
            [],
        )


def _largest(sums):
    """Return the largest of each 2x2 window of (n, height, width, channels), as a loop with `>` finds it."""
    steps = [2 if side > 1 else 1 for side in sums.shape[1:3]]
    height, width = sums.shape[1] // steps[0] * steps[0], sums.shape[2] // steps[1] * steps[1]
    out = sums[:, : height : steps[0], : width : steps[1]].copy()
    for i in range(steps[0]):
        for j in range(steps[1]):
            view = sums[:, i : height : steps[0], j : width : steps[1]]
            if sums.dtype.kind == "f":
                np.copyto(out, view, where=view > out)
            else:
                np.maximum(out, view, out=out)
    return out
