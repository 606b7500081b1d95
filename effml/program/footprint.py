"""What a Program costs on the device: bytes of flash and RAM, operations, and the papers' own size in bits.

Constants are counted exactly, from the very arrays that the C generator emits. Code bytes are calibrated: the table
below was measured with ``gcc -Os`` on x86-64 by ``benchmarks/calibrate_code_bytes.py``, so selection gives the same answer on
every machine, with or without a compiler. `CompiledModel.flash_bytes` is the measured figure.
"""

from collections import Counter
from dataclasses import dataclass

from effml.program.cgen import arena, generate_c
from effml.program.passes import deployable
from effml.program.program import Program

__all__ = ["CODE_BYTES", "TARGETS", "Footprint", "footprint_of"]

TARGETS = ("host",)

CODE_BYTES = {
    "host": {
        ("frame", ""): 1,
        ("bin", "constant_float"): 39,
        ("bin", "constant_int"): 10,
        ("bin", "linear_float"): 145,
        ("bin", "linear_int"): 96,
        ("bin", "bisect_float"): 186,
        ("bin", "bisect_int"): 147,
        ("bin", "match_float"): 90,
        ("bin", "match_int"): 49,
        ("bin", "index_float"): 64,
        ("bin", "index_int"): 20,
        ("bin", "recoded"): 64,
        ("bin", "scattered"): 0,
        ("lookup_sum", "byte"): 59,
        ("lookup_sum", "byte_parents"): 122,
        ("lookup_sum", "dense"): 96,
        ("lookup_sum", "dense_parents"): 160,
        ("lookup_sum", "swar"): 140,
        ("lookup_sum", "swar_parents"): 225,
        ("lookup_sum", "swar_flush"): 207,
        ("lookup_sum", "swar_parents_flush"): 254,
        ("lookup_sum", "float"): 68,
        ("lookup_sum", "float_parents"): 121,
        ("lookup_sum", "checked"): 0,
        ("tree_walk", "float"): 164,
        ("tree_walk", "int"): 83,
        ("tree_walk", "leaf"): 10,
        ("dense", "float"): 65,
        ("dense", "int"): 65,
        ("dense", "start"): 10,
        ("affine", ""): 60,
        ("quantize_input", "identity"): 20,
        ("quantize_input", "float"): 65,
        ("arg_best", ""): 74,
        ("positive", ""): 10,
        ("gather", ""): 36,
        ("select", ""): 69,
        ("softmax", ""): 474,
    }
}
STACK_BYTES = {"host": 64}  # return address and saved registers beside the buffers


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
        outputs = ("label",) if "label" in program.outputs else tuple(program.outputs)[:1]
    ready = deployable(program.with_outputs(*outputs))
    costs = [(step, step.cost()) for step in ready.steps]
    table = CODE_BYTES[target]
    code = table["frame", ""] * len(outputs)
    code += sum(table[step.kind, variant] for step, cost in costs for variant in cost.variants)
    constants = generate_c(program, outputs=outputs).constant_bytes
    return Footprint(
        n_parameters=sum(cost.n_parameters for _, cost in costs),
        bits=sum(cost.bits for _, cost in costs),
        flash_bytes=constants + code,
        ram_bytes=sum(slot.nbytes for slot in arena(ready)) + STACK_BYTES[target],
        operations=dict(sum((cost.operations for _, cost in costs), Counter())),
        constant_bytes=constants,
        code_bytes=code,
        target=target,
    )
