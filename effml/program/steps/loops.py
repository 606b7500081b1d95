"""A step that does steps again and again: the turns of a recurrent network."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml.program.buffers import DTYPES, Buffer
from effml.program.cwriter import C_TYPES, block, indent
from effml.program.liveness import assign, declare
from effml.program.steps.base import Cost, Step

__all__ = ["Loop"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Loop(Step):
    """``for t in range(n): state = body(input[t], state)``: the body's steps on one part of the input after the other.

    Attributes
    ----------
    body : tuple of Step
        They read the buffer `element`, the carries and each other's outputs.
    element : Buffer
        The part of the input that a turn reads: size ``input size / n``.
    carries : tuple of Buffer
        What a turn leaves to the next.
    starts : tuple of int
        The value that each carry has at first, in all its elements.
    successors : tuple of str
        The body's buffer that becomes each carry at the end of a turn.
    n : int
        Turns.
    result : str
        The body's buffer that is given out.
    collect : bool
        Whether that of every turn is given out, one after the other, or of the last turn alone.
    reverse : bool
        Whether turns run from the last part to the first; what is collected keeps the order of the parts.
    """

    kind: ClassVar[str] = "loop"

    body: tuple
    element: Buffer
    carries: tuple
    starts: tuple
    successors: tuple
    n: int
    result: str
    collect: bool = False
    reverse: bool = False

    def run(self, x):
        parts = x.reshape(len(x), self.n, -1)
        held = {
            carry.name: np.full((len(x), carry.size), start, dtype=DTYPES[carry.dtype])
            for carry, start in zip(self.carries, self.starts, strict=True)
        }
        results = []
        for t in reversed(range(self.n)) if self.reverse else range(self.n):
            values = {**held, self.element.name: parts[:, t]}
            for step in self.body:
                values[step.output.name] = step.run(*(values[name] for name in step.inputs))
            pairs = zip(self.carries, self.successors, strict=True)
            held = {carry.name: values[successor] for carry, successor in pairs}
            if self.collect:
                results.append(values[self.result])
        if not self.collect:
            return values[self.result]
        return np.concatenate(results[::-1] if self.reverse else results, axis=1)

    @property
    def inner(self):
        return self.body

    def _slots(self):
        return assign(self.body, (*self.successors, self.result))

    @property
    def scratch_bytes(self):
        inside = max((step.scratch_bytes for step in self.body), default=0)
        carries = sum(carry.nbytes for carry in self.carries)
        return sum(slot.nbytes for slot in self._slots()) + carries + inside

    def cost(self):
        parts = [step.cost() for step in self.body]
        operations = Counter()
        for part in parts:
            operations.update({kind: self.n * count for kind, count in part.operations.items()})
        n_parameters, bits = sum(part.n_parameters for part in parts), sum(part.bits for part in parts)
        variants = ("", *["carry"] * len(self.carries))
        return Cost(n_parameters=n_parameters, bits=bits, operations=operations, variants=variants)

    def describe(self):
        inside = "; ".join(repr(step) for step in self.body)
        return f"{self.n} turns of: {inside}"

    def emit_c(self, c, ref):
        tag = self.output.name
        turn, source = f"{tag}_turn", ref(self.inputs[0])
        declarations, expressions = declare(self._slots(), f"{tag}_b")
        expressions |= {carry.name: f"{tag}_{carry.name}" for carry in self.carries}
        expressions[self.element.name] = f"({source} + {turn} * {self.element.size}u)"
        lines = [f"unsigned {turn};", *declarations]
        lines += [f"{C_TYPES[carry.dtype]} {tag}_{carry.name}[{carry.size}];" for carry in self.carries]
        for carry, start in zip(self.carries, self.starts, strict=True):
            lines += _copy(f"{tag}_{carry.name}", str(start), carry.size)
        head = f"for ({turn} = 0; {turn} < {self.n}u; {turn}++) {{"
        if self.reverse:  # the variable runs upwards, so that the number of turns can be read off
            count, head = f"{tag}_count", f"for ({tag}_count = 0; {tag}_count < {self.n}u; {tag}_count++) {{"
            lines[0] = f"unsigned {count}, {turn};"
        body = [f"{turn} = {self.n - 1}u - {tag}_count;"] if self.reverse else []
        if self.n == 1:  # compilers drop such a loop, and bounds on instructions could not find it again
            lines[0], head, body = f"const unsigned {turn} = 0u;", "{", []
        for step in self.body:
            body += step.emit_c(c, expressions.__getitem__).split("\n")
        body += self._emit_results(ref, expressions, turn)
        for carry, successor in zip(self.carries, self.successors, strict=True):
            body += _copy(f"{tag}_{carry.name}", f"{expressions[successor]}[k]", carry.size)
        return block([*lines, head, *indent(body), "}"])

    def _emit_results(self, ref, expressions, turn):
        size = self.output.size // self.n if self.collect else self.output.size
        place = f"({ref(self.output.name)} + {turn} * {size}u)" if self.collect else ref(self.output.name)
        return _copy(place, f"{expressions[self.result]}[k]", size)


def _copy(target, value, size):
    lines = ["unsigned k;", f"for (k = 0; k < {size}u; k++) {{", f"    {target}[k] = {value};", "}"]
    return block(lines).split("\n")
