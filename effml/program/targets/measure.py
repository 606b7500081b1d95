"""What compiler and linker of a target make of a model: flash, RAM, library functions that come with it."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from effml.program.cgen import CSource, generate_c
from effml.program.program import Program
from effml.program.targets.disassembly import Disassembly
from effml.program.targets.firmware import build, compiler_version, require, run_tool, section_bytes
from effml.program.targets.profiles import Target, find_target

__all__ = ["Measurement", "measure_program", "measure_source"]


@dataclass(frozen=True)
class Measurement:
    """Sizes of one function and its tables, built with ``-Os``.

    Attributes
    ----------
    target : str
    compiler : str
        Name and version.
    code_bytes, constant_bytes : int
        Flash of the object file: instructions (with the literals between them), and tables.
    data_bytes : int
        RAM that is always taken (initialised and zeroed); 0 where tables stay in flash.
    stack_bytes : int
        Deepest stack of a call: frames as the compiler states them (``-fstack-usage``) along the deepest chain of
        calls, library functions included.
    library_bytes : int
        Functions of the compiler's libraries that the model calls (floating point in software, division, memset), from
        the linker's map; firmware that uses them anyway shares them.
    """

    target: str
    compiler: str
    code_bytes: int
    constant_bytes: int
    data_bytes: int
    stack_bytes: int
    library_bytes: int

    @property
    def flash_bytes(self) -> int:
        """Code, tables and initial values of data; library functions apart."""
        return self.code_bytes + self.constant_bytes + self.data_bytes

    @property
    def ram_bytes(self) -> int:
        """Data and stack."""
        return self.data_bytes + self.stack_bytes


def measure_program(program: Program, *, target: str, outputs=None) -> Measurement:
    """Return what a program's C weighs on a target; CompileError where its tools are not installed."""
    source = generate_c(program, outputs=outputs or (program.main_output,))
    return measure_source(find_target(target), source)


def measure_source(target: Target, source: CSource) -> Measurement:
    """Compile and link a model without the rig, and measure it."""
    require(target)
    with tempfile.TemporaryDirectory(prefix="effml-") as folder:
        model = build(target, source, folder)
        sizes = section_bytes(target, model)
        functions = [re.search(r"(\w+)\(", signature).group(1) for signature in source.functions]
        assembly = linked_alone(target, [model], functions, folder)
        frames = stated_frames(model.with_suffix(".su").read_text())
        return Measurement(
            target=target.name,
            compiler=compiler_version(target),
            code_bytes=sizes["code"],
            constant_bytes=sizes["constants"],
            data_bytes=sizes["data"] + sizes["zeroed"],
            stack_bytes=max(assembly.stack_bytes(name, frames) for name in functions),
            library_bytes=archived_bytes(Path(folder, "alone.map").read_text()),
        )


def linked_alone(target: Target, objects, functions, folder) -> Disassembly:
    """Link objects with the library functions that some of their functions reach, and nothing else."""
    command = [target.compiler, *target.machine_flags, *target.link_flags, "-nostartfiles", *objects, "-o", "alone.elf"]
    kept = [f"-Wl,-u,{name}" for name in functions]
    run_tool([*command, f"-Wl,-e,{functions[0]},--gc-sections,-Map=alone.map", *kept, "-lm"], folder)
    return disassemble(target, Path(folder, "alone.elf"))


def disassemble(target: Target, elf) -> Disassembly:
    """Return the instructions of a linked program."""
    objdump = f"{target.prefix}objdump"
    constants = run_tool([objdump, "-s", elf], None)
    return Disassembly(run_tool([objdump, "-d", "--no-show-raw-insn", elf], None), target, constants)


def stated_frames(text: str) -> dict[str, int]:
    """Return the bytes that ``-fstack-usage`` states for each function."""
    frames = {}
    for line in text.splitlines():
        place, size, _ = line.split("\t")
        frames[place.rsplit(":", 1)[1]] = int(size)
    return frames


def archived_bytes(text: str) -> int:
    """Return the bytes of code and constants that a linker's map takes from archives."""
    kept = text.partition("Linker script and memory map")[2]
    entry = re.compile(r"^ \.(?:text|rodata|data|progmem)\S*\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+\S+\.a\(", re.MULTILINE)
    return sum(int(size, 16) for size in entry.findall(kept))
