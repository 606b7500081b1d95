"""Matrix products and element-wise scaling, in float32 or in integers, always in one declared order."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml._cext.kernel_rows import ordered_product
from effml.program.buffers import DTYPES
from effml.program.cwriter import C_TYPES, block, narrowest
from effml.program.steps.base import Cost, Step

__all__ = ["Affine", "Dense", "QuantizeInput"]

_MOST_SHIFT = 24  # of integer scales
_LARGEST = 2**31 - 1


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Dense(Step):
    """``out[k] = bias[k] + sum_j weight[j, k] * x[columns[j]]``, added in the order j = 0, 1, ...

    With a second input the sum starts from that buffer plus the bias.

    Attributes
    ----------
    columns : int array (n_in,)
    weight : float32 or int8 array (n_in, n_out)
    bias : float32 or int32 array (n_out,)
        Integer weights need an integer input and give an exact int32 sum.
    """

    kind: ClassVar[str] = "dense"

    columns: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    @property
    def is_float(self) -> bool:
        return self.weight.dtype == np.float32

    def run(self, x, start=None):
        dtype = np.float32 if self.is_float else np.int64
        out = np.repeat(self.bias[None].astype(dtype), len(x), axis=0)
        with np.errstate(invalid="ignore", over="ignore"):
            if start is not None:
                out = start.astype(dtype) + out
            if self.is_float:
                rows = np.ascontiguousarray(x[:, self.columns], dtype=np.float32)
                ordered_product(rows, np.ascontiguousarray(self.weight), out)
                return out
            for column, row in zip(self.columns, self.weight.astype(dtype), strict=True):
                out = out + x[:, column, None].astype(dtype) * row
        return out.astype(DTYPES[self.output.dtype])

    def cost(self):
        n = self.weight.size
        bits = self.weight.size * 8 * self.weight.itemsize + self.bias.size * 32
        return Cost(
            n_parameters=n + self.bias.size,
            bits=bits,
            operations=Counter(multiply=n, add=n),
            variants=("float" if self.is_float else "int", *(("start",) if len(self.inputs) > 1 else ())),
        )

    def describe(self):
        return f"{len(self.columns)} x {self.output.size} weights, {self.weight.dtype}"

    def emit_c(self, c, ref):
        tag, n, m = self.output.name, len(self.columns), self.output.size
        out, cell = ref(self.output.name), C_TYPES[self.output.dtype]
        c.uses_float |= self.is_float
        start = f"{c.constant(f'{tag}_bias', self.bias, 'f32' if self.is_float else None)}[k]"
        if len(self.inputs) > 1:
            start = f"({cell}){ref(self.inputs[1])}[k] + {start}"
        lines = [f"unsigned {'j, ' if n else ''}k;", f"for (k = 0; k < {m}u; k++) {{", f"    {out}[k] = {start};", "}"]
        if not n:
            return block(lines)
        weight = c.constant(f"{tag}_weight", self.weight, "f32" if self.is_float else "i8")
        column = (
            "j" if np.array_equal(self.columns, np.arange(n)) else f"{c.constant(f'{tag}_column', self.columns)}[j]"
        )
        index = f"{'(uint32_t)' if n * m > 65535 else ''}j * {m}u + k"
        return block(
            [
                *lines,
                f"for (j = 0; j < {n}u; j++) {{",
                f"    const {cell} v = ({cell}){ref(self.inputs[0])}[{column}];",
                f"    for (k = 0; k < {m}u; k++) {{",
                f"        {out}[k] += v * {weight}[{index}];",
                "    }",
                "}",
            ]
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Affine(Step):
    """``out[k] = x[k] * scale[k] + offset[k]`` in float32.

    Attributes
    ----------
    scale, offset : float32 array (n_out,)
    broadcast : bool
        The input has one element, which is read for every k.
    """

    kind: ClassVar[str] = "affine"

    scale: np.ndarray
    offset: np.ndarray
    broadcast: bool = False

    def run(self, x):
        with np.errstate(invalid="ignore", over="ignore"):
            return x.astype(np.float32) * self.scale.astype(np.float32) + self.offset.astype(np.float32)

    def cost(self):
        n = self.output.size
        return Cost(n_parameters=2 * n, bits=64 * n, operations=Counter(multiply=n, add=n))

    def emit_c(self, c, ref):
        c.uses_float = True
        n, tag = self.output.size, self.output.name
        source = f"{ref(self.inputs[0])}[{'0' if self.broadcast else 'k'}]"
        scale, offset = (
            _one_or_each(c, f"{tag}_{hint}", values, "k")
            for hint, values in (("scale", self.scale), ("offset", self.offset))
        )
        line = f"{ref(tag)}[k] = (float){source} * {scale} + {offset};"
        return block(["unsigned k;", f"for (k = 0; k < {n}u; k++) {{", f"    {line}", "}"])


def _one_or_each(c, hint, values, index="j"):
    """Return C for an element of some values: the only one, where all are equal. What is no integer is float32."""
    dtype = None if values.dtype.kind in "iu" else "f32"
    if (values == values[0]).all():
        return f"{c.constant(hint, values[:1], dtype)}[0]"
    return f"{c.constant(hint, values, dtype)}[{index}]"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class QuantizeInput(Step):
    """``out[j] = clip(floor(x[columns[j]] * scale[j] + offset[j]), 0, largest)``; a NaN gives 0.

    With scale 1 and offset 0 everywhere an integer input stays integer arithmetic, and with `shift`: then scale and
    offset are integers, and ``out[j] = clip((x[columns[j]] * scale[j] + offset[j]) >> shift, 0, largest)``.
    """

    kind: ClassVar[str] = "quantize_input"

    columns: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    largest: int
    shift: int | None = None

    @property
    def is_identity(self) -> bool:
        return bool((self.scale == 1).all() and (self.offset == 0).all() and not self.shift)

    def on_integers(self, dtype) -> "QuantizeInput":
        """Return the step in integer arithmetic where that gives the same for every number of `dtype`, else itself.

        For each column and shift, the numbers on both sides of each rise bound the offset from below and above.
        """
        dtype = np.dtype(dtype)
        if self.is_identity or dtype.itemsize > 2:
            return self
        info = np.iinfo(dtype)
        pairs, column_pair = np.unique(np.stack([self.scale, self.offset]), axis=1, return_inverse=True)
        values = np.arange(info.min, info.max + 1, dtype=np.float32)
        lines = [_IntegerLine.of(values, *pair, self.largest) for pair in pairs.T]
        for shift in range(_MOST_SHIFT):
            found = [line.at(shift) for line in lines]
            if all(found):
                scale, offset = np.array(found, dtype=np.int64).T[:, column_pair.reshape(-1)].astype(np.int32)
                return self.replace(scale=scale, offset=offset, shift=shift)
        return self

    def run(self, x):
        x = x[:, self.columns]
        if self.shift is not None:
            x = (x.astype(np.int64) * self.scale + self.offset) >> self.shift
        elif not (self.is_identity and x.dtype.kind in "iu"):
            with np.errstate(invalid="ignore", over="ignore"):
                x = x.astype(np.float32) * self.scale.astype(np.float32) + self.offset.astype(np.float32)
            x = np.where(x >= 0, x, np.float32(0))  # NaN compares false
        return np.clip(x, 0, self.largest).astype(DTYPES[self.output.dtype])

    @property
    def n_states(self):
        return np.full(self.output.size, self.largest + 1)

    def cost(self):
        n = self.output.size
        if self.is_identity:
            return Cost(operations=Counter(compare=2 * n), variants=("identity",))
        operations = Counter(multiply=n, add=n, compare=2 * n)
        learned = sum(1 if (values == values[0]).all() else n for values in (self.scale, self.offset))
        if self.shift is None:
            return Cost(n_parameters=learned, bits=32 * learned, operations=operations, variants=("float",))
        operations["shift"] = n
        bits = sum(
            8 * narrowest(values).itemsize * (1 if (values == values[0]).all() else n)
            for values in (self.scale, self.offset)
        )
        return Cost(n_parameters=learned, bits=bits, operations=operations, variants=("integer",))

    def emit_c(self, c, ref):
        n, tag = self.output.size, self.output.name
        column = (
            "j" if np.array_equal(self.columns, np.arange(n)) else f"{c.constant(f'{tag}_column', self.columns)}[j]"
        )
        raw = f"{ref(self.inputs[0])}[{column}]"
        target, cell = f"{ref(tag)}[j]", C_TYPES[self.output.dtype]
        input_type = c.input_type if self.inputs[0] == "x" else "float"
        if self.is_identity and input_type != "float":
            low = "" if input_type.startswith("u") else "v < 0 ? 0 : "
            high = "" if input_type == "uint8_t" and self.largest >= 255 else f"v > {self.largest} ? {self.largest} : "
            lines = [f"const {input_type} v = {raw};", f"{target} = ({cell})({low}{high}v);"]
        elif self.shift is not None:
            scale, offset = self._scale_and_offset(c)
            lines = [f"const int32_t v = (int32_t){raw} * {scale} + {offset};"]
            shifted = f"(v >> {self.shift})" if self.shift else "v"
            lines.append(f"{target} = ({cell})(v < 0 ? 0 : {shifted} > {self.largest} ? {self.largest} : {shifted});")
        else:
            c.uses_float = True
            if self.is_identity:
                lines = [f"const float v = (float){raw} * 1.0f + 0.0f;"]
            else:
                scale, offset = self._scale_and_offset(c)
                lines = [f"const float v = (float){raw} * {scale} + {offset};"]
            clipped = f"v > {self.largest}.0f ? {self.largest} : ({cell})v"
            lines.append(f"{target} = ({cell})(v >= 0.0f ? ({clipped}) : 0);")
        return block(["unsigned j;", f"for (j = 0; j < {n}u; j++) {{", *["    " + line for line in lines], "}"])

    def _scale_and_offset(self, c):
        return [
            _one_or_each(c, f"{self.output.name}_{hint}", values)
            for hint, values in (("scale", self.scale), ("offset", self.offset))
        ]


@dataclass(frozen=True)
class _IntegerLine:
    """``clip(floor(x * scale + offset), 0, largest)`` in float32, at the integers on both sides of each rise."""

    scale: float
    offset: float
    x: np.ndarray
    level: np.ndarray
    largest: int

    @classmethod
    def of(cls, values, scale, offset, largest):
        with np.errstate(invalid="ignore", over="ignore"):
            line = values * np.float32(scale) + np.float32(offset)
        level = np.clip(np.where(line >= 0, line, np.float32(0)), 0, largest).astype(np.int64)
        rises = np.flatnonzero(np.diff(level))
        places = np.unique(np.concatenate([[0, len(values) - 1], rises, rises + 1]))
        return cls(float(scale), float(offset), values[places].astype(np.int64), level[places], largest)

    def at(self, shift) -> tuple[int, int] | None:
        """Return scale and offset with which ``(x * scale + offset) >> shift`` is the same in 32 bits, if any do."""
        unit = 1 << shift
        if not abs(self.scale) * unit * np.abs(self.x).max() < _LARGEST / 2 or not np.isfinite(self.offset):
            return None
        scale = round(self.scale * unit)
        reached, most = self.x * scale, _LARGEST // 2
        above, below = self.level > 0, self.level < self.largest
        low = int((self.level * unit - reached)[above].max(initial=-most))
        high = int(((self.level + 1) * unit - 1 - reached)[below].min(initial=most))
        offset = min(max(round(self.offset * unit), low), high)
        fits = max(abs(offset), int(np.abs(reached + offset).max())) <= _LARGEST
        return (scale, offset) if low <= high and fits else None
