"""Element-wise steps of float networks: two buffers added or multiplied, values kept between two bounds."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml.program.cwriter import block, indent
from effml.program.steps.base import Cost, Step

__all__ = ["Clip", "Combine"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Combine(Step):
    """``out[k] = a[k] + b[k]``, or ``a[k] * b[k]``, float32.

    Attributes
    ----------
    multiply : bool
    """

    kind: ClassVar[str] = "combine"

    multiply: bool = False

    def run(self, a, b):
        a, b = a.astype(np.float32), b.astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            return a * b if self.multiply else a + b

    def cost(self):
        n = self.output.size
        return Cost(operations=Counter(multiply=n) if self.multiply else Counter(add=n))

    def emit_c(self, c, ref):
        c.uses_float = True
        a, b = (f"(float){ref(name)}[k]" for name in self.inputs)
        line = f"{ref(self.output.name)}[k] = {a} {'*' if self.multiply else '+'} {b};"
        return block(["unsigned k;", f"for (k = 0; k < {self.output.size}u; k++) {{", f"    {line}", "}"])


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Clip(Step):
    """``min(max(x[k], low), high)`` in float32; a NaN gives `low`.

    Attributes
    ----------
    low, high : float
    """

    kind: ClassVar[str] = "clip"

    low: float
    high: float

    def run(self, x):
        low, high = np.float32(self.low), np.float32(self.high)
        x = x.astype(np.float32)
        return np.where(x > low, np.where(x < high, x, high), low)

    def cost(self):
        return Cost(operations=Counter(compare=2 * self.output.size))

    def emit_c(self, c, ref):
        c.uses_float = True
        low, high = (f"{c.constant(f'{self.output.name}_{hint}', [value], 'f32')}[0]" for hint, value in self._bounds())
        lines = [
            f"const float v = {ref(self.inputs[0])}[k];",
            f"{ref(self.output.name)}[k] = v > {low} ? (v < {high} ? v : {high}) : {low};",
        ]
        return block(["unsigned k;", f"for (k = 0; k < {self.output.size}u; k++) {{", *indent(lines), "}"])

    def _bounds(self):
        return ("low", self.low), ("high", self.high)
