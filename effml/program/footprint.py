"""What a Program costs on the device: bytes of flash and RAM, operations, and the papers' own size in bits.

Constants are counted exactly, from the very arrays that the C generator emits; code bytes are calibrated
(:mod:`effml.program.code_bytes`). `CompiledModel.flash_bytes` is the measured figure.
"""

from collections import Counter
from dataclasses import dataclass

from effml.program.cgen import generate_c, ram_bytes
from effml.program.code_bytes import STACK_BYTES, TARGETS, code_bytes
from effml.program.passes import deployable
from effml.program.program import Program

__all__ = ["Footprint", "footprint_of"]


@dataclass(frozen=True)
class Footprint:
    """The price of one prediction of the class (or of the value, for regressors).

    Attributes
    ----------
    n_parameters : int
        Learned numbers that ship.
    bits : int
        Bits of these numbers: the papers' size measure. Structure and code are not in it.
    flash_bytes : int
        Constants (tables, edges, structure) plus calibrated code bytes.
    ram_bytes : int
        Buffers plus stack frame.
    operations : dict of str to int
        Worst case per row, by kind.
    constant_bytes, code_bytes : int
        The two parts of `flash_bytes`.
    target : str
    """

    n_parameters: int
    bits: int
    flash_bytes: int
    ram_bytes: int
    operations: dict[str, int]
    constant_bytes: int
    code_bytes: int
    target: str = "host"

    @property
    def n_operations(self) -> int:
        """Operations of all kinds."""
        return sum(self.operations.values())


def footprint_of(program: Program, *, target: str = "host", outputs=None) -> Footprint:
    """Return the analytic footprint of a program.

    Parameters
    ----------
    program : Program
    target : {"host"}
        Machine whose calibrated code sizes to use.
    outputs : tuple of str, optional
        What the device computes; by default the label, or the value for a regressor.
    """
    if target not in TARGETS:
        raise ValueError(f"target={target!r} must be one of {list(TARGETS)}")
    if outputs is None:
        outputs = (program.main_output,)
    ready = deployable(program.with_outputs(*outputs))
    costs = [step.cost() for step in ready.steps]
    code = code_bytes(program, outputs, target)
    constants = generate_c(program, outputs=outputs).constant_bytes
    return Footprint(
        n_parameters=sum(cost.n_parameters for cost in costs),
        bits=sum(cost.bits for cost in costs),
        flash_bytes=constants + code,
        ram_bytes=ram_bytes(ready) + STACK_BYTES[target],
        operations=dict(sum((cost.operations for cost in costs), Counter())),
        constant_bytes=constants,
        code_bytes=code,
        target=target,
    )
