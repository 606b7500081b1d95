"""Convolution, and the largest sum of each 2x2 window: of integer images with weights of 1 to 8 bits, or in float32.

Images are (height, width, channels), filters any kernel, stride, padding with zeros, dilation and number of groups.
"""

from collections import Counter
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar

import numpy as np

from effml._cext.kernel_rows import ordered_product
from effml.program.buffers import Buffer
from effml.program.cwriter import block, indent
from effml.program.steps.base import Cost, Step
from effml.program.steps.neural import PackedDense, Requantise
from effml.program.steps.packing import code_shape, emit_codes, emit_level

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
    """Yield tap number, pixels that have this neighbour of 3x3 and these neighbours, as (rows, columns) of slices."""
    for tap in range(9):
        held = [_reach(side, side, shift, 1) for side, shift in ((height, tap // 3 - 1), (width, tap % 3 - 1))]
        yield tap, tuple(pixels for pixels, _ in held), tuple(neighbours for _, neighbours in held)


def _reach(side, n_out, shift, stride):
    """Return the places of an output that have the neighbour ``stride * place + shift``, and these neighbours."""
    first = max(0, -(shift // stride))
    last = max(first, min(n_out, -((shift - side) // stride)))
    start = stride * first + shift
    return slice(first, last), slice(start, start + stride * (last - first), stride)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _Convolution(Step):
    """What both convolutions share: the walk over windows, pixels and neighbours.

    Attributes
    ----------
    image_shape : (height, width, channels)
        Of the input.
    kernel, stride, dilation : (int, int)
        Along rows and columns.
    padding : (top, left, bottom, right)
        Zeros around the image.
    groups : int
        Filters and channels fall into as many parts; the filters of a part read its channels only.
    pool : {1, 2}
        2: of each 2x2 window of sums the largest is kept; sides of 1 stay.
    """

    image_shape: tuple
    kernel: tuple = (3, 3)
    stride: tuple = (1, 1)
    padding: tuple = (1, 1, 1, 1)
    dilation: tuple = (1, 1)
    groups: int = 1
    pool: int = 2

    @property
    def n_filters(self) -> int:
        raise NotImplementedError

    @property
    def n_taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def sums_shape(self) -> tuple:
        """Height and width of the sums, before pooling."""
        sides = []
        for axis in (0, 1):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            padded = self.image_shape[axis] + self.padding[axis] + self.padding[axis + 2]
            sides.append((padded - reach) // self.stride[axis] + 1)
        return tuple(sides)

    @property
    def out_shape(self) -> tuple:
        """Height, width and channels of the output."""
        height, width = self.sums_shape
        if self.pool == 1:
            return height, width, self.n_filters
        return pooled(height), pooled(width), self.n_filters

    def _taps(self):
        """Yield tap number, sums that have this neighbour and these neighbours, as (rows, columns) of slices."""
        for tap in range(self.n_taps):
            held = []
            for axis, place in ((0, tap // self.kernel[1]), (1, tap % self.kernel[1])):
                shift = place * self.dilation[axis] - self.padding[axis]
                held.append(_reach(self.image_shape[axis], self.sums_shape[axis], shift, self.stride[axis]))
            yield tap, tuple(sums for sums, _ in held), tuple(neighbours for _, neighbours in held)

    def _in_parts(self, x, border, product):
        """Return the sums, pooled; ``product(rows, group)`` maps neighbourhoods (n, taps * C / groups) to sums."""
        height, width, channels = self.image_shape
        rows, columns = self.sums_shape
        images, parts = x.reshape(len(x), height, width, channels), []
        at_once = max(1, _PATCH_BYTES // (rows * columns * self.n_taps * channels * x.dtype.itemsize))
        held_rows = np.full((min(at_once, len(x)), rows, columns, self.n_taps, channels), border, dtype=x.dtype)
        for start in range(0, max(len(x), 1), at_once):
            part = images[start : start + at_once]
            held = held_rows[: len(part)]
            for tap, sums, neighbours in self._taps():
                held[:, *sums, tap] = part[:, *neighbours]
            out = self._products(held, product).reshape(len(part), rows, columns, self.n_filters)
            parts.append(_largest(out) if self.pool == 2 else out)
        return np.concatenate(parts).reshape(len(x), -1)

    def _products(self, held, product):
        """Return the sums (n, n_filters) of neighbourhoods (..., taps, channels), one group after the other."""
        channels = self.image_shape[2]
        if self.groups == 1:
            return product(held.reshape(-1, self.n_taps * channels), 0)
        own = channels // self.groups
        sums = []
        for group in range(self.groups):
            rows = held[..., group * own : (group + 1) * own].reshape(-1, self.n_taps * own)
            sums.append(product(np.ascontiguousarray(rows), group))
        return np.concatenate(sums, axis=1)

    def _operations(self):
        rows, columns = self.sums_shape
        products = rows * columns * self.n_taps * (self.image_shape[2] // self.groups) * self.n_filters
        compares = rows * columns * self.n_filters if self.pool == 2 else 0
        return Counter(multiply=products, add=products, compare=compares)

    def _emit_windows(self, ref, cell, once, head, neighbour, beyond, total, store=None):
        """Return the C of all sums, one filter after the other.

        Parameters
        ----------
        ref : callable
            See `emit_c`.
        cell : str
            C type of a sum, which the lines of `total` leave in ``total``.
        once : list of str
            Done once for filter k.
        head, total : list of str
            Before and after the taps of one sum.
        neighbour : list of str
            Done for each channel `c` of a pixel, whose value is ``{x}``.
        beyond : callable
            ``beyond(n)`` gives the lines that pass over n weights, those beyond the border.
        store : callable, optional
            ``store(target, sum)`` gives the lines that keep a sum; by default it is assigned.
        """
        rows, columns, n_out = self.out_shape
        channels, own = self.image_shape[2], self.image_shape[2] // self.groups
        first, declare, advance = self._emit_group(own)
        value = f"{ref(self.inputs[0])}[pixel * {channels}u + {first}c]"
        taps = self._emit_taps(own, [line.replace("{x}", value) for line in neighbour], beyond)
        store = store or (lambda target, sum: [f"{target} = {sum};"])
        body = [*head, *taps, *total]
        target = f"{ref(self.output.name)}[((uint32_t)i * {columns}u + j) * {n_out}u + k]"
        if self.pool == 1:
            inner = [*body, *store(target, "total")]
        else:
            body += ["if (window == 0u || total > best) {", "    best = total;", "}"]
            steps = self._pool_steps()
            inner = [f"{cell} best = 0;", f"for (window = 0; window < {steps[0] * steps[1]}u; window++) {{"]
            inner += [*indent(body), "}", *store(target, "best")]
        return block(
            [
                f"unsigned i, j, k, {'window, ' if self.pool == 2 else ''}down, right, c;",
                *declare,
                f"for (k = 0; k < {n_out}u; k++) {{",
                *indent(once),
                f"    for (i = 0; i < {rows}u; i++) {{",
                f"        for (j = 0; j < {columns}u; j++) {{",
                *indent(indent(indent(inner))),
                "        }",
                "    }",
                *indent(advance),
                "}",
            ]
        )

    def _emit_group(self, own):
        """Return the C of the first channel of k's group, what declares it and what moves it on: no division."""
        members = self.n_filters // self.groups
        if self.groups == 1:
            return "", [], []
        if members == 1:
            return f"k * {own}u + ", [], []
        advance = [f"if (++member == {members}u) {{", "    member = 0u;", f"    first += {own}u;", "}"]
        return "first + ", ["unsigned first = 0u, member = 0u;"], advance

    def _pool_steps(self):
        return [2 if side > 1 else 1 for side in self.sums_shape]

    def _emit_taps(self, own, neighbour, beyond):
        """Return the C of the taps of one sum: where their pixels lie, and what is done with a pixel's channels."""
        lines = ["const uint32_t pixel = line + column;", f"for (c = 0; c < {own}u; c++) {{", *indent(neighbour), "}"]
        lines = self._emit_axis(1, "column", "j", "right", lines, beyond(own))
        lines = [f"const uint32_t line = (uint32_t)row * {self.image_shape[1]}u;", *lines]
        return self._emit_axis(0, "row", "i", "down", lines, beyond(self.kernel[1] * own))

    def _emit_axis(self, axis, name, count, tap, inside, outside):
        """Return the C of the loop over the taps along one axis."""
        stride, dilation, before = self.stride[axis], self.dilation[axis], self.padding[axis]
        sums = count
        if self.pool == 2:
            steps = self._pool_steps()
            sums = f"{steps[axis]}u * {count} + window {'/%'[axis]} {steps[1]}u"
        sums = f"{stride}u * ({sums})" if stride > 1 else sums
        shift = f"{dilation}u * {tap}" if dilation > 1 else tap
        if before or self.padding[axis + 2]:  # what is below zero wraps to a large number
            inside = [f"if ({name} < {self.image_shape[axis]}u) {{", *indent(inside), "}"]
            inside = [*inside[:-1], "} else {", *indent(outside), "}"] if outside else inside
        place = f"const unsigned {name} = {sums} + {shift}{f' - {before}u' if before else ''};"
        return [f"for ({tap} = 0; {tap} < {self.kernel[axis]}u; {tap}++) {{", *indent([place, *inside]), "}"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PackedConv(_Convolution):
    """Convolution, int32, and by default (3x3, a border of zeros) the largest sum of each 2x2 window.

    ``sum[y, x, k] = sum_(t, c) (in[y', x', c] - zero_point) * weight[t C + c, k]``, (y', x') the pixel of tap t and
    ``weight = 2 codes - top``, or ``levels[k, codes]`` where levels are given; with groups c runs over those of k's.

    What follows pooled sums must not fall with the sum, then pooling first gives the same and needs a quarter of the
    memory.

    Attributes
    ----------
    image_shape, kernel, stride, padding, dilation, groups, pool
        As in :class:`_Convolution`; the image is a row of integers (u8, i8, i16).
    codes : uint8 array (n_taps * channels / groups, n_out)
    n_bits : int
        1 to 8.
    zero_point : int
    levels : int16 array (1 or n_out, 2^n_bits), or None
    requantise : Requantise or None
        What each sum becomes before it is kept, with numbers of each filter; the sums then need no memory.
    """

    kind: ClassVar[str] = "packed_conv"

    codes: np.ndarray
    n_bits: int
    zero_point: int = 0
    levels: np.ndarray | None = None
    requantise: Requantise | None = None

    @property
    def n_filters(self):
        return self.codes.shape[1]

    def run(self, x):
        sums = self._in_parts(x, self.zero_point, lambda rows, group: self._dense[group].run(rows))
        return sums if self.requantise is None else self.requantise.run(sums)

    def __getstate__(self):
        return {field.name: getattr(self, field.name) for field in fields(self)}  # without `_dense`

    @cached_property
    def _dense(self):
        """The products of one neighbourhood with the weights of each group."""
        none, n = np.empty(0, dtype=np.int32), self.n_filters // self.groups
        made = []
        for group in range(self.groups):
            part = slice(group * n, (group + 1) * n)
            levels = self.levels if self.levels is None or len(self.levels) == 1 else self.levels[part]
            fields = {"n_bits": self.n_bits, "bias": none, "zero_point": self.zero_point, "levels": levels}
            codes = np.ascontiguousarray(self.codes[:, part])
            made.append(PackedDense(inputs=("patch",), output=Buffer("sum", "i32", n), codes=codes, **fields))
        return made

    def cost(self):
        n_levels = 0 if self.levels is None else self.levels.size
        after = Cost() if self.requantise is None else self.requantise.cost()
        return Cost(
            n_parameters=self.codes.size + after.n_parameters,
            bits=self.codes.size * self.n_bits + 16 * n_levels + after.bits,
            operations=self._operations() + after.operations,
            variants=conv_variants(self, code_shape(self.n_bits), self.levels is not None),
        )

    def describe(self):
        height, width, channels = self.image_shape
        return f"{height} x {width} x {channels} image, {self.n_filters} filters of {self.n_bits} bits"

    @property
    def scratch_bytes(self):
        return len(self.codes) * np.dtype(self._weight_type).itemsize

    @property
    def _weight_type(self) -> str:
        """Type that holds any weight."""
        largest = (
            2**self.n_bits - 1 if self.levels is None else int(np.abs(self.levels.astype(np.int32)).max(initial=0))
        )
        return "int8" if largest <= 127 else "int16"

    def emit_c(self, c, ref):
        """Unpack the weights of one filter, then walk over the image with them."""
        n = len(self.codes)
        code, step = emit_codes(c, f"{self.output.name}_weights", self.codes, self.n_bits)
        weight = f"2 * (int){code} - {2**self.n_bits - 1}"
        if self.levels is not None:
            weight = emit_level(c, self.output.name, self.levels, code)
        minus = f" - {self.zero_point}" if self.zero_point else ""
        cell = f"{self._weight_type}_t"
        once = [f"for (c = 0; c < {n}u; c++) {{", f"    weights[c] = ({cell})({weight});", f"    at += {step}u;", "}"]
        windows = self._emit_windows(
            ref,
            "int32_t",
            once,
            [f"const {cell} *next = weights;", "uint32_t sum = 0u;", "int32_t total;"],
            [f"const int32_t v = {{x}}{minus};", "sum += (uint32_t)v * (uint32_t)*next++;"],
            lambda n: [f"next += {n};"],
            ["total = (int32_t)sum;"],
            self.requantise and (lambda target, sum: self.requantise.emit_kept(c, target, sum)),
        )
        return windows.replace("{\n", f"{{\n    {cell} weights[{n}];\n    uint32_t at = 0u;\n", 1)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Conv(_Convolution):
    """Convolution in float32 and the largest sum of each 2x2 window; see :class:`PackedConv`.

    A sum starts from the bias and adds the neighbours from the upper left on; of a window in which a sum is NaN, the
    first sum stays unless a later one is larger.

    Attributes
    ----------
    image_shape, kernel, stride, padding, dilation, groups, pool
        As in :class:`_Convolution`.
    weight : float32 array (n_taps * channels / groups, n_out)
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

    def _sums(self, rows, group):
        n = self.n_filters // self.groups
        part = slice(group * n, (group + 1) * n)
        out = np.repeat(self.bias[None, part], len(rows), axis=0)
        with np.errstate(invalid="ignore", over="ignore"):
            weight = np.ascontiguousarray(self.weight[:, part])
            ordered_product(np.ascontiguousarray(rows, dtype=np.float32), weight, out)
        return out

    def cost(self):
        n = self.weight.size + self.bias.size
        variants = conv_variants(self, "", False)
        return Cost(n_parameters=n, bits=32 * n, operations=self._operations(), variants=variants)

    def describe(self):
        height, width, channels = self.image_shape
        return f"{height} x {width} x {channels} image, {self.n_filters} filters"

    def emit_c(self, c, ref):
        c.uses_float = True
        own, n_out = self.image_shape[2] // self.groups, self.n_filters
        tap = f"(({self.kernel[1]}u * (uint32_t)down + right) * {own}u + c) * {n_out}u + k"
        weight = c.constant(f"{self.output.name}_weight", self.weight, "f32")
        bias = c.constant(f"{self.output.name}_bias", self.bias, "f32")
        return self._emit_windows(
            ref,
            "float",
            [],
            [f"float total = {bias}[k];"],
            [f"total += (float){{x}} * {weight}[{tap}];"],
            lambda n: [],
            [],
        )


def conv_variants(step, shape, has_levels) -> tuple[str, ...]:
    """Return the code shapes of a convolution: how weights lie, then what differs from 3x3, padded and pooled."""
    parts = ("levels", has_levels), ("groups", step.groups > 1), ("requantise", getattr(step, "requantise", None))
    more = [name for name, holds in parts if holds]
    return shape if step.pool == 2 else f"{shape}_unpooled".strip("_"), *more


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
