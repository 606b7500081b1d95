"""One self-contained pair of C99 files from a Program: no heap, no libm, constants first, one function an output."""

import contextlib
import os
import re
import shutil
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

from effml import __version__
from effml.program.buffers import INPUT_DTYPES, RAW
from effml.program.code_bytes import STACK_BYTES, code_bytes
from effml.program.cwriter import C_TYPES, CWriter, c_comment, c_string
from effml.program.liveness import Slot, assign, declare
from effml.program.passes import deployable
from effml.program.program import Program

__all__ = ["CSource", "arena", "generate_c", "ram_bytes", "write_files"]


@dataclass(frozen=True)
class CSource:
    """The text of ``name.h`` and ``name.c``, and what the constants weigh."""

    name: str
    header: str
    source: str
    constant_bytes: int
    functions: tuple[str, ...]


def arena(program: Program, outside: frozenset[str] = frozenset()) -> list[Slot]:
    """Assign the buffers of a program to storage by liveness, largest first; `outside` names caller-owned buffers."""
    return assign(program.steps, (output.buffer for output in program.outputs.values()), outside)


def ram_bytes(program: Program) -> int:
    """Return the bytes of a program's buffers, those inside of its steps included."""
    inside = max((step.scratch_bytes for step in program.steps), default=0)
    return sum(slot.nbytes for slot in arena(program)) + inside


def generate_c(program: Program, name: str = "model", *, outputs=("label",)) -> CSource:
    """Return the C of a program.

    Parameters
    ----------
    program : Program
    name : str
        Prefix of every symbol and macro, and the file name.
    outputs : sequence of str
        Outputs to compute; each becomes a function.
    """
    c = CWriter(name)
    c.input_type = C_TYPES[INPUT_DTYPES[program.input_dtype]]
    functions = [_function(c, deployable(program.with_outputs(output)), output) for output in outputs]
    header = _header(c, program, outputs)
    source = _source(c, functions)
    return CSource(name, header, source, c.constant_bytes, tuple(_signature(c, program, o) for o in outputs))


def _signature(c, program, output) -> str:
    prefix = f"{c.name}_predict" if output == "label" else f"{c.name}_predict_{output}"
    buffer = program.buffers[program.outputs[output].buffer]
    row = f"const {c.input_type} *x"
    if output == "label":
        return f"int {prefix}({row})"
    if buffer.size == 1:
        return f"{C_TYPES[buffer.dtype]} {prefix}({row})"
    return f"void {prefix}({row}, {C_TYPES[buffer.dtype]} *out)"


def _function(c, program, output) -> str:
    target = program.outputs[output].buffer
    buffer = program.buffers[target]
    returned = output == "label" or buffer.size == 1
    outside = frozenset() if returned else frozenset({target})
    declarations, expressions = declare(arena(program, outside))
    expressions |= {RAW: "x"} | ({} if returned else {target: "out"})
    lines = [f"{_signature(c, program, output)}", "{", *("    " + line for line in declarations)]
    c.buffers = program.buffers
    bodies = [step.emit_c(c, expressions.__getitem__) for step in program.steps]
    if not any(re.search(r"\bx\b", body) for body in bodies):  # a model of one leaf reads nothing
        lines.append("    (void)x;")
    for step, body in zip(program.steps, bodies, strict=True):
        lines.append(f"    /* {c_comment(repr(step))} */")
        lines.append(textwrap.indent(body, "    "))
    if returned:
        cast = "(int)" if output == "label" else ""
        lines.append(f"    return {cast}{expressions[target]}[0];")
    return "\n".join([*lines, "}"])


def _source(c: CWriter, functions: list[str]) -> str:
    parts = [f'#include "{c.name}.h"', "#include <string.h>"]
    if c.uses_float:
        parts.append(
            "#include <float.h>\n\n"
            "#if !defined(FLT_EVAL_METHOD) || FLT_EVAL_METHOD != 0\n"
            '#error "this model needs float arithmetic in float precision (FLT_EVAL_METHOD 0)"\n'
            "#endif\n"
            "/* a * b + c must stay two roundings, as in Python */\n"
            "#if defined(__clang__)\n#pragma STDC FP_CONTRACT OFF\n"
            '#elif defined(__GNUC__)\n#pragma GCC optimize("fp-contract=off")\n#endif'
        )
    parts += [_placement(c), c.render_constants(), *c.helpers.values(), *functions]
    return "\n\n".join(part for part in parts if part) + "\n"


def _placement(c: CWriter) -> str:
    return f"""/* Where the tables lie. {c.attribute} comes after their names: define it as a section attribute.
 * {c.space} comes before their types: an address space. AVR, which reads flash by other instructions than
 * RAM, gets __flash by itself where the compiler has it (avr-gcc, GNU C); without it tables are copied to RAM. Define
 * it as __memx for tables beyond the first 64 KiB, as nothing for tables in RAM. PROGMEM alone would be misread. */
#ifndef {c.attribute}
#define {c.attribute}
#endif
#ifndef {c.space}
#ifdef __FLASH
#define {c.space} __flash
#else
#define {c.space}
#endif
#endif"""


def _header(c: CWriter, program: Program, outputs) -> str:
    upper = c.name.upper()
    call = (
        f"effml.to_c(estimator, folder, name={c.name!r}, input_dtype={program.input_dtype!r}, outputs={tuple(outputs)})"
    )
    lines = [
        f"/* {c.name}: generated by effml {c_comment(__version__)}; do not edit.",
        " *",
        f" * By: {c_comment(call)}",
    ]
    lines += [f" * From: {c_comment(line)}" for line in program.source.split("\n") if line]
    lines += [f" * Fingerprint of the model: {program.fingerprint()}", " *"]
    lines += [f" * Input: one row x of {len(program.inputs)} x {c.input_type}:"]
    for position, spec in enumerate(program.inputs):
        lines.append(f" *   x[{position}] {c_comment(spec.name)}{_describe(spec, program.input_dtype)}")
    lines += [" *", " * Output:"]
    for output in outputs:
        lines.append(f" *   {_signature(c, program, output)}: {_OUTPUT_TEXT.get(output, output)}")
    if program.classes is not None:
        lines += [" *", " * Classes:"]
        lines += [f" *   {number}: {c_comment(label)}" for number, label in enumerate(program.classes)]
    flash = c.constant_bytes + code_bytes(program, outputs)
    lines += [
        " *",
        f" * Flash: about {flash} bytes, {c.constant_bytes} of them constants (code estimated for gcc -Os).",
    ]
    for output in outputs:
        ram = ram_bytes(deployable(program.with_outputs(output)))
        lines.append(f" * RAM of {output}: {ram} bytes of buffers, all on the stack, plus about {STACK_BYTES['host']}.")
    lines += [f" * Note: {c_comment(note, 400)}" for note in program.notes]
    lines += [" */", f"#ifndef {upper}_H", f"#define {upper}_H", "", "#include <stdint.h>", ""]
    lines.append(f"#define {upper}_N_FEATURES {len(program.inputs)}")
    if program.classes is not None:
        lines.append(f"#define {upper}_N_CLASSES {len(program.classes)}")
    lines += ["", "#ifdef __cplusplus", 'extern "C" {', "#endif", ""]
    lines += [f"{_signature(c, program, output)};" for output in outputs]
    if program.classes is not None:
        names = ", ".join(c_string(label) for label in program.classes)
        lines += ["", f"#ifdef {upper}_WITH_LABELS"]
        lines += [f"static const char *const {c.name}_labels[{upper}_N_CLASSES] = {{{names}}};", "#endif"]
    lines += ["", "#ifdef __cplusplus", "}", "#endif", "", f"#endif /* {upper}_H */"]
    return "\n".join(lines) + "\n"


_OUTPUT_TEXT = {
    "label": "number of the predicted class",
    "proba": "probability of each class",
    "score": "score of each class",
    "std": "standard deviation of the value",
    "sum": "integer behind the value, see the notes",
    "value": "predicted value",
}


def _describe(spec, input_dtype) -> str:
    if spec.categories is None:
        return f" (NaN: {c_comment(spec.missing)})" if input_dtype == "float32" else ""
    codes = ", ".join(f"{number} = {level}" for number, level in enumerate(spec.categories))
    return f" (category code: {c_comment(codes, 2000)}; any other number: unknown or missing)"


def write_files(folder, files: dict[str, str | bytes]) -> list[Path]:
    """Write files, by paths inside a folder, all or none: each to a temporary name first, renamed at the end."""
    folder = Path(folder)
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".effml-", dir=folder))
    try:
        for file_name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode("utf-8")
            (staging / file_name).parent.mkdir(parents=True, exist_ok=True)
            (staging / file_name).write_bytes(data)
        for file_name in files:
            (folder / file_name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / file_name, folder / file_name)
    except OSError:
        if created:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(staging)
    return [folder / file_name for file_name in files]
