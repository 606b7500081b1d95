"""What a Program costs on the device: bytes of flash and RAM, operations, and the papers' own size in bits.

Constants are counted exactly, from the very arrays that the C generator emits; code bytes are calibrated
(:mod:`effml.program.code_bytes`). `CompiledModel.flash_bytes` is the measured figure. For a microcontroller
(:mod:`effml.program.targets`) the C is compiled and linked and all sizes are measured, where its tools are installed.
"""

from collections import Counter
from dataclasses import dataclass, replace

from effml.program.cgen import generate_c, ram_bytes
from effml.program.code_bytes import STACK_BYTES, code_bytes
from effml.program.passes import deployable
from effml.program.program import Program
from effml.program.targets.profiles import Target, find_target, missing_tools

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
        Constants (tables, edges, structure) plus code bytes.
    ram_bytes : int
        Buffers plus stack frame; where measured, the deepest stack of a call, and data.
    operations : dict of str to int
        Worst case per row, by kind.
    constant_bytes, code_bytes : int
        The two parts of `flash_bytes`.
    target : str
    basis : str
        "estimated" (the same on every machine), or "measured" and with which compiler.
    library_bytes : int
        Flash of library functions that come with the model, such as floating point in software; only where measured,
        and not in `flash_bytes`, because firmware that uses them anyway has them once.
    """

    n_parameters: int
    bits: int
    flash_bytes: int
    ram_bytes: int
    operations: dict[str, int]
    constant_bytes: int
    code_bytes: int
    target: str = "host"
    basis: str = "estimated"
    library_bytes: int = 0

    @property
    def n_operations(self) -> int:
        """Operations of all kinds."""
        return sum(self.operations.values())


def footprint_of(program: Program, *, target: str = "host", outputs=None) -> Footprint:
    """Return the footprint of a program.

    Parameters
    ----------
    program : Program
    target : {"host", "cortex-m0", "cortex-m3", "cortex-m4f", "riscv32", "avr"}
        "host": the analytic footprint, which is the same on every machine. A microcontroller: measured with its
        compiler where that is installed, else estimated; `Footprint.basis` says which.
    outputs : tuple of str, optional
        What the device computes; by default the label, or the value for a regressor.
    """
    profile = None if target == "host" else find_target(target)
    if outputs is None:
        outputs = (program.main_output,)
    ready = deployable(program.with_outputs(*outputs))
    costs = [step.cost() for step in ready.steps]
    code = code_bytes(program, outputs)
    constants = generate_c(program, outputs=outputs).constant_bytes
    footprint = Footprint(
        n_parameters=sum(cost.n_parameters for cost in costs),
        bits=sum(cost.bits for cost in costs),
        flash_bytes=constants + code,
        ram_bytes=ram_bytes(ready) + STACK_BYTES["host"],
        operations=dict(sum((cost.operations for cost in costs), Counter())),
        constant_bytes=constants,
        code_bytes=code,
    )
    return footprint if profile is None else _on_device(footprint, program, outputs, profile)


def _on_device(footprint: Footprint, program: Program, outputs, profile: Target) -> Footprint:
    """Return the footprint with a device's sizes: measured, or the host's code bytes scaled."""
    if missing_tools(profile):
        code = round(profile.code_ratio * footprint.code_bytes)
        flash = footprint.constant_bytes + code
        ram = footprint.ram_bytes - STACK_BYTES["host"] + profile.stack_bytes
        return replace(footprint, flash_bytes=flash, ram_bytes=ram, code_bytes=code, target=profile.name)
    from effml.program.targets.measure import measure_program

    found = measure_program(program, target=profile.name, outputs=outputs)
    return replace(
        footprint,
        flash_bytes=found.flash_bytes,
        ram_bytes=found.ram_bytes,
        constant_bytes=found.constant_bytes,
        code_bytes=found.flash_bytes - found.constant_bytes,
        target=profile.name,
        basis=f"measured with {found.compiler}",
        library_bytes=found.library_bytes,
    )
