"""Build generated C for a target, measure it as the linker sees it, and run it row by row on the target's emulator."""

import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from effml.program.buffers import DTYPES, INPUT_DTYPES
from effml.program.cgen import CSource, generate_c
from effml.program.compile import CompileError
from effml.program.cwriter import C_TYPES
from effml.program.program import Program
from effml.program.targets.profiles import Target, find_target, missing_tools

__all__ = ["DeviceRun", "Entry", "build", "compiler_version", "run_on_device", "run_program", "section_bytes"]

WARNINGS = ("-Wall", "-Wextra", "-Werror")
AVR_ROWS_AT_ONCE = 50_000  # bytes of rows that share the flash with the model


@dataclass(frozen=True)
class Entry:
    """How the rig calls a model: C types, sizes, the function's name and whether it returns its only result.

    Attributes
    ----------
    row, result : numpy dtype
    n_features, n_results : int
    function : str
    returns : str or None
        C type of the returned result; None where the function is given a pointer to its results.
    declarations : str
        C that declares the function: an include, or a prototype.
    """

    row: np.dtype
    n_features: int
    result: np.dtype
    n_results: int
    function: str
    returns: str | None
    declarations: str

    @property
    def header(self) -> str:
        """entry.h: types, sizes, the call, and the same call of a function that does nothing."""
        row, result = _ctype(self.row), _ctype(self.result)
        call = "(y)[0] = {}(x)" if self.returns else "{}((x), (y))"
        empty = f"{self.returns or 'void'} rig_empty(const {row} *x{'' if self.returns else f', {result} *y'});"
        return (
            f"{self.declarations}\n{empty}\n#define RIG_ROW {row}\n#define RIG_N_FEATURES {self.n_features}u\n"
            f"#define RIG_RESULT {result}\n#define RIG_N_RESULTS {self.n_results}u\n"
            f"#define RIG_CALL(x, y) {call.format(self.function)}\n#define RIG_EMPTY(x, y) {call.format('rig_empty')}\n"
        )


def _ctype(dtype) -> str:
    return next(C_TYPES[name] for name, value in DTYPES.items() if value == dtype)


def entry_of(program: Program, source: CSource, output: str) -> Entry:
    """Return how to call the function of one output."""
    returns, function = re.match(r"(\w+) (\w+)\(", source.functions[0]).groups()
    buffer = program.buffers[program.outputs[output].buffer]
    return Entry(
        row=DTYPES[INPUT_DTYPES[program.input_dtype]],
        n_features=len(program.inputs),
        result=np.dtype(np.int32) if output == "label" else DTYPES[buffer.dtype],
        n_results=1 if output == "label" else buffer.size,
        function=function,
        returns=None if returns == "void" else returns,
        declarations=f'#include "{source.name}.h"',
    )


@dataclass(frozen=True)
class DeviceRun:
    """What an emulated device computed, row by row.

    Attributes
    ----------
    results : ndarray (n_rows, n_results)
    counts : int array (n_rows,)
        Instructions (cycles on AVR) of each call, from the function's first to its return.
    stack_bytes : int
        The deepest stack below the caller's, over the first 50 rows.
    """

    results: np.ndarray
    counts: np.ndarray
    stack_bytes: int


# -- building ---------------------------------------------------------------------------------------------------------


def run_tool(command, folder, *, timeout=300) -> str:
    """Return what a tool prints on stdout; CompileError where it fails."""
    command = [str(word) for word in command]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if command[0] == "simavr" else subprocess.PIPE,  # there it prints the UART
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise CompileError(f"the tool {command[0]!r} was not found") from None
    except subprocess.TimeoutExpired:
        raise CompileError(f"{shlex.join(command)} ran for more than {timeout} s") from None
    if done.returncode:
        raise CompileError(f"{shlex.join(command)} failed ({done.returncode}):\n{done.stderr.strip()[:4000]}")
    return done.stdout


def require(target: Target, *, emulator: bool = False) -> None:
    """Raise CompileError naming the tools of a target that are not installed, and the packages that hold them."""
    missing = missing_tools(target, emulator=emulator)
    if missing:
        raise CompileError(
            f"target {target.name!r} needs {', '.join(missing)}; on Debian: apt-get install {' '.join(target.packages)}"
        )


@cache
def compiler_version(target: Target) -> str:
    """Return name and version of a target's compiler."""
    version = run_tool([target.compiler, "-dumpfullversion", "-dumpversion"], None).strip()
    return f"{target.compiler} {version}"


def build(target: Target, source: CSource, folder, *, flags=("-Os",)) -> Path:
    """Compile a model as a user would; return the object, with ``.su`` (stack usage) beside it."""
    require(target)
    Path(folder, f"{source.name}.h").write_text(source.header)
    Path(folder, f"{source.name}.c").write_text(source.source)
    command = [target.compiler, *target.machine_flags, "-std=gnu99", *flags, *WARNINGS, "-g", "-fstack-usage"]
    run_tool([*command, "-c", f"{source.name}.c", "-o", f"{source.name}.o"], folder)
    return Path(folder, f"{source.name}.o")


def section_bytes(target: Target, elf) -> dict[str, int]:
    """Return the bytes of code, constants in flash, data (initialised) and zeroed data of an object or program."""
    kinds = {"code": (".text",), "zeroed": (".bss", ".sbss", "COMMON")}
    if target.name == "avr":  # its start-up copies .rodata to RAM; tables in __flash are .progmem
        kinds |= {"constants": (".progmem",), "data": (".data", ".rodata")}
    else:
        kinds |= {"constants": (".rodata", ".srodata"), "data": (".data", ".sdata")}
    found = dict.fromkeys(kinds, 0)
    for line in run_tool([f"{target.prefix}size", "-A", "-d", elf], None).splitlines():
        words = line.split()
        for kind, names in kinds.items():
            if len(words) == 3 and words[0].startswith(names):
                found[kind] += int(words[1])
    return found


def link(target: Target, objects, entry: Entry, folder, *, flags=()) -> Path:
    """Link objects with the rig of a target; return the program, ``firmware.elf``, with ``firmware.map`` beside it."""
    require(target)
    rig = files("effml.program.targets").joinpath("rig")
    for item in rig.iterdir():
        if item.name.endswith((".c", ".h", ".ld")):
            Path(folder, item.name).write_text(item.read_text())
    Path(folder, "entry.h").write_text(entry.header)
    command = [target.compiler, *target.machine_flags, "-std=gnu99", "-Os", "-I.", "main.c", "empty.c", *target.sources]
    command += [*map(str, objects), "-o", "firmware.elf", *target.link_flags, *flags]
    command += ["-Wl,--gc-sections,--no-warn-rwx-segments" if target.name == "riscv32" else "-Wl,--gc-sections"]
    command += ["-Wl,-Map=firmware.map"]
    if target.linker_script:
        memory = [f"-Wl,--defsym,RIG_ROM={target.rom_bytes}", f"-Wl,--defsym,RIG_RAM={target.ram_bytes}"]
        command += ["-T", target.linker_script, *memory]
    run_tool([*command, "-lm"], folder)
    return Path(folder, "firmware.elf")


# -- running ----------------------------------------------------------------------------------------------------------


def check_program(program) -> None:
    """Raise for what is no Program."""
    if not isinstance(program, Program):
        raise TypeError(f"program must be a Program, got {type(program).__name__}; effml.lower(model) makes one")


def run_program(program: Program, rows: np.ndarray, *, target: str, output: str | None = None) -> DeviceRun:
    """Run the generated C of a program on an emulated device.

    Parameters
    ----------
    program : Program
    rows : ndarray (n_rows, n_inputs)
        Raw rows in the program's input type (:meth:`Program.encode`).
    target : str
    output : str, optional
        By default the label, or the value of a regressor.

    Raises
    ------
    CompileError
        A tool is not installed, the model does not fit the device, or the device stopped at a fault.
    """
    check_program(program)
    profile, output = find_target(target), output or program.main_output
    require(profile, emulator=True)
    source = generate_c(program, outputs=(output,))
    with tempfile.TemporaryDirectory(prefix="effml-") as folder:
        return run_on_device(profile, [build(profile, source, folder)], entry_of(program, source, output), rows, folder)


def run_on_device(target: Target, objects, entry: Entry, rows, folder, *, flags=()) -> DeviceRun:
    """Link objects with the rig and run every row on the emulator of a target.

    Parameters
    ----------
    target : Target
    objects : sequence of path
    entry : Entry
    rows : ndarray (n_rows, n_features)
        Of the entry's row type.
    folder : path
        For all that is built.
    flags : sequence of str
        Further flags of the linker, such as ``-DRIG_DEEPEST=16384u``.
    """
    require(target, emulator=True)
    rows = np.ascontiguousarray(rows)
    if rows.dtype != entry.row or rows.ndim != 2 or rows.shape[1] != entry.n_features:
        raise TypeError(f"rows are {rows.dtype} of shape {rows.shape}; expected {entry.row} (n, {entry.n_features})")
    record = np.dtype([("result", entry.result, (entry.n_results,)), ("numbers", np.uint32, (2,))])
    if target.name == "avr":
        parts = [_run_avr(target, objects, entry, part, folder, flags) for part in _parts_of(rows)]
    else:
        link(target, objects, entry, folder, flags=flags)
        parts = [_run_with_files(target, rows, folder)]
    records = np.frombuffer(b"".join(parts), dtype=record)
    if len(records) != len(rows):
        raise CompileError(f"{target.emulator[0]} answered {len(records)} of {len(rows)} rows")
    counts, stacks = records["numbers"].astype(np.int64).T
    return DeviceRun(records["result"].copy(), counts.copy(), int(stacks.max(initial=0)))


def _run_with_files(target, rows, folder) -> bytes:
    rows.tofile(Path(folder, "rows.bin"))
    run_tool([*target.emulator, "firmware.elf"], folder)
    return Path(folder, "results.bin").read_bytes()


def _parts_of(rows):
    per_part = max(AVR_ROWS_AT_ONCE // max(rows[:1].nbytes, 1), 1)
    return [rows[first : first + per_part] for first in range(0, len(rows), per_part)]


def _run_avr(target, objects, entry, rows, folder, flags) -> bytes:
    """Run rows that lie in flash; the lines that the UART sends come back among simavr's own words."""
    rows.tofile(Path(folder, "rows.bin"))
    Path(folder, "rows.h").write_text(f"#define RIG_ROWS_BYTES {rows.nbytes}ul\n")
    link(target, objects, entry, folder, flags=flags)
    printed = run_tool([*target.emulator, "firmware.elf"], folder)
    lines = re.findall(r"\x1b\[32m([0-9a-f]+)\.", printed)
    if not lines or lines[-1] != "00000000":
        raise CompileError(f"simavr stopped early: {printed.strip()[-500:]}")
    return bytes.fromhex("".join(lines[:-1]))
