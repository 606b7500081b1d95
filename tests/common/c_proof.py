"""The proof that every test of exported C uses: all bit patterns in, the same bits out, sanitizers silent."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from effml.program import CompiledProgram, Program, generate_c
from effml.program.compile import STRICT_FLAGS, find_compiler

SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def hostile_rows(program: Program, n_rows: int, rng) -> np.ndarray:
    """Return raw rows that mix ordinary values, values at and beside the model's thresholds, and raw bit patterns."""
    dtype, width = np.dtype(program.input_dtype), len(program.inputs)
    bits = rng.integers(0, 256, size=(n_rows, width * dtype.itemsize), dtype=np.uint8)
    rows = bits.view(dtype).reshape(n_rows, width).copy()
    special = [
        np.asarray(getattr(step, name))
        for step in program.steps
        for name in ("cuts", "threshold")
        if hasattr(step, name)
    ]
    special = np.concatenate([*special, np.zeros(1)]).astype(np.float64)
    if dtype.kind == "f":
        beside = np.concatenate([special, np.nextafter(special.astype(dtype), dtype.type(np.inf)), np.arange(20)])
        odd = [np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, -1e-45, 3.4e38, -3.4e38]
        pool = np.concatenate([beside, odd]).astype(dtype)
    else:
        info = np.iinfo(dtype)
        pool = np.concatenate([special, special + 1, special - 1, np.arange(20), [info.min, info.max]])
        pool = np.clip(pool, info.min, info.max).astype(dtype)
    chosen = rng.random(rows.shape) < 0.85
    rows[chosen] = rng.choice(pool, size=int(chosen.sum()))
    return rows


def assert_c_equals_run(program: Program, rows: np.ndarray, *, flags=("-O2",)) -> None:
    """Compile the program and compare every output on every row with Program.run, bit for bit (a NaN is a NaN)."""
    compiled = CompiledProgram(program, flags=flags)
    expected = program.run(rows)
    for output in program.outputs:
        np.testing.assert_array_equal(compiled.run(rows, output), expected[output], err_msg=f"{output} of {program!r}")


def sanitized_outputs(program: Program, rows: np.ndarray, *, output: str = "label", name: str = "model") -> np.ndarray:
    """Run the C as a program of its own under AddressSanitizer and UndefinedBehaviorSanitizer; any report fails.

    Every row lies in a heap block of exactly its size, so that a read past it is caught.
    """
    source = generate_c(program, name, outputs=(output,))
    signature = source.functions[0]
    function = re.search(r"(\w+)\(", signature).group(1)
    raw = re.search(r"const (\w+) \*x", signature).group(1)
    buffer = program.buffers[program.outputs[output].buffer]
    cell = "int" if output == "label" else "float"
    n_out = 1 if output == "label" else buffer.size
    call = f"{function}(row, out)" if signature.startswith("void") else f"out[0] = {function}(row)"
    main = f"""#include "{name}.h"
#include <stdio.h>
#include <stdlib.h>
int main(void)
{{
    const size_t n = {len(program.inputs)}u;
    {cell} out[{n_out}];
    for (;;) {{
        {raw} *row = ({raw} *)malloc(n * sizeof *row);
        if (fread(row, sizeof *row, n, stdin) != n) {{
            free(row);
            return 0;
        }}
        {call};
        fwrite(out, sizeof *out, {n_out}u, stdout);
        free(row);
    }}
}}
"""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"{name}.h").write_text(source.header)
        Path(folder, f"{name}.c").write_text(source.source)
        Path(folder, "main.c").write_text(main)
        command = [*find_compiler(), *STRICT_FLAGS, *SANITIZERS, f"{name}.c", "main.c", "-o", "run"]
        built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr
        result = subprocess.run(
            [str(Path(folder, "run"))], input=np.ascontiguousarray(rows).tobytes(), capture_output=True, check=False
        )
    assert result.returncode == 0 and not result.stderr, result.stderr.decode(errors="replace")[:3000]
    dtype = np.int32 if output == "label" else np.float32
    return np.frombuffer(result.stdout, dtype=dtype).reshape(len(rows), n_out)


def compiles_everywhere(program: Program, *, name: str = "model", outputs=None) -> None:
    """Compile the C with the strict flags by every compiler found: gcc and clang as C99, g++ and clang++ as C++."""
    source = generate_c(program, name, outputs=outputs or tuple(program.outputs))
    commands = [("gcc", "-std=c99"), ("clang", "-std=c99"), ("g++", "-std=c++11"), ("clang++", "-std=c++11")]
    tried = 0
    for compiler, standard in commands:
        if shutil.which(compiler) is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            suffix = "c" if standard == "-std=c99" else "cpp"
            Path(folder, f"{name}.h").write_text(source.header)
            Path(folder, f"{name}.{suffix}").write_text(source.source)
            command = [compiler, standard, *STRICT_FLAGS[1:], "-Os", "-c", f"{name}.{suffix}", "-o", "model.o"]
            built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert built.returncode == 0, f"{compiler} {standard}: {built.stderr}"
            tried += 1
    assert tried, "no compiler found"
