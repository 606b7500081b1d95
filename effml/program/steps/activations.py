"""Element-wise steps between dense layers and behind gates, in float32."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml.program.cwriter import block
from effml.program.steps.base import Cost, Step
from effml.program.steps.outputs import emit_exp, exp_float32

__all__ = ["LiveWeights", "Relu", "Sigmoid"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Relu(Step):
    """``x[k] > 0 ? x[k] : 0``; a NaN gives 0."""

    kind: ClassVar[str] = "relu"

    def run(self, x):
        return np.where(x > 0, x, np.float32(0))

    def cost(self):
        return Cost(operations=Counter(compare=self.output.size))

    def emit_c(self, c, ref):
        c.uses_float = True
        x, out = ref(self.inputs[0]), ref(self.output.name)
        line = f"{out}[k] = {x}[k] > 0.0f ? {x}[k] : 0.0f;"
        return block(["unsigned k;", f"for (k = 0; k < {self.output.size}u; k++) {{", f"    {line}", "}"])


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Sigmoid(Step):
    """``1 / (1 + exp(-x[k]))``."""

    kind: ClassVar[str] = "sigmoid"

    def run(self, x):
        return np.float32(1) / (np.float32(1) + exp_float32(-x))

    def cost(self):
        n = self.output.size
        return Cost(operations=Counter(exp=n, add=n, divide=n), variants=("", "exp"))

    def emit_c(self, c, ref):
        exp = emit_exp(c)
        line = f"{ref(self.output.name)}[k] = 1.0f / (1.0f + {exp}(-{ref(self.inputs[0])}[k]));"
        return block(["unsigned k;", f"for (k = 0; k < {self.output.size}u; k++) {{", f"    {line}", "}"])


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LiveWeights(Step):
    """Weights below `smallest` become 0, so that what they weigh is not computed; the rest may be scaled to sum to 1.

    Attributes
    ----------
    smallest : float
    normalize : bool
    """

    kind: ClassVar[str] = "live_weights"

    smallest: float
    normalize: bool

    def run(self, x):
        x = np.where(x < np.float32(self.smallest), np.float32(0), x)
        if not self.normalize:
            return x
        total = np.zeros(len(x), dtype=np.float32)
        for column in x.T:
            total = total + column
        with np.errstate(invalid="ignore", divide="ignore"):
            return x / total[:, None]

    def cost(self):
        n = self.output.size
        operations = Counter(compare=n)
        if self.normalize:
            operations += Counter(add=n, divide=n)
        return Cost(operations=operations, variants=("normalize" if self.normalize else "",))

    def emit_c(self, c, ref):
        c.uses_float = True
        n, x, out = self.output.size, ref(self.inputs[0]), ref(self.output.name)
        lines = [
            "unsigned k;",
            *(["float total = 0.0f;"] if self.normalize else []),
            f"for (k = 0; k < {n}u; k++) {{",
            f"    {out}[k] = {x}[k] < {float(np.float32(self.smallest)):.8e}f ? 0.0f : {x}[k];",
            *([f"    total += {out}[k];"] if self.normalize else []),
            "}",
        ]
        if self.normalize:
            lines += [f"for (k = 0; k < {n}u; k++) {{", f"    {out}[k] /= total;", "}"]
        return block(lines)
