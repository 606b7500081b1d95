"""Build the generated C with the host's compiler and call it from Python: the proof that it predicts the same."""

import contextlib
import ctypes
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
import weakref
from pathlib import Path

import numpy as np

from effml.program.buffers import DTYPES
from effml.program.cgen import CSource, generate_c
from effml.program.cwriter import C_TYPES
from effml.program.passes import with_input_dtype
from effml.program.program import Program

__all__ = ["CompileError", "CompiledProgram", "STRICT_FLAGS", "find_compiler", "section_sizes"]

STRICT_FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror")


class CompileError(RuntimeError):
    """No C compiler was found, or it refused the generated C."""


def find_compiler() -> list[str]:
    """Return the command of the host's C compiler: the variable CC, else Python's own, else cc, gcc or clang."""
    configured = (sysconfig.get_config_var("CC") or "").split()
    for command in (shlex.split(os.environ.get("CC", "")), configured[:1], ["cc"], ["gcc"], ["clang"]):
        if command and shutil.which(command[0]):
            return command
    raise CompileError("no C compiler found: install gcc or clang, or name one in the environment variable CC")


def _run(command, cwd):
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    if result.returncode:
        raise CompileError(f"{shlex.join(command)} failed:\n{result.stderr.strip()[:4000]}")
    return result.stdout


def section_sizes(source: CSource, *, compiler=None, flags=("-Os",)) -> dict[str, int]:
    """Return text, data and bss bytes of the compiled model (code and read-only tables are text).

    Unwind tables, which a device does not load, are left out.
    """
    compiler = compiler or find_compiler()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"{source.name}.h").write_text(source.header)
        Path(folder, f"{source.name}.c").write_text(source.source)
        unwind = ("-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fcf-protection=none")
        base = [*compiler, "-std=c99", *flags, "-c", f"{source.name}.c", "-o", "model.o"]
        try:
            _run([*base, *unwind], folder)
        except CompileError:  # not every target knows these
            _run([*base, *unwind[:2]], folder)
        prefix = re.sub(r"(gcc|cc|clang)[-.\d]*$", "", compiler[0]) if "-" in Path(compiler[0]).name else ""
        size = shutil.which(f"{prefix}size") or shutil.which("size")
        if size is None:
            raise CompileError("the tool `size` of binutils was not found; it measures the compiled model")
        numbers = _run([size, "model.o"], folder).splitlines()[1].split()
    return {"text": int(numbers[0]), "data": int(numbers[1]), "bss": int(numbers[2])}


class CompiledProgram:
    """A program compiled as a shared library and loaded into this process.

    Parameters
    ----------
    program : Program
    input_dtype : str, optional
        Type of the raw row; by default the program's own.
    flags : sequence of str
        Extra compiler flags, for example sanitizers.
    """

    def __init__(self, program: Program, *, input_dtype: str | None = None, flags=("-O2",), outputs=None):
        self.program = with_input_dtype(program, input_dtype or program.input_dtype)
        self.outputs = tuple(outputs or self.program.outputs)
        self.source = generate_c(self.program, outputs=self.outputs)
        folder = tempfile.mkdtemp(prefix="effml-")
        self._cleanup = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        for suffix, text in ((".h", self.source.header), (".c", self.source.source)):
            Path(folder, f"{self.source.name}{suffix}").write_text(text)
        Path(folder, "batch.c").write_text(self._harness())
        library = Path(folder, "model.so")
        pic = ["-shared", "-fPIC"]
        _run(
            [*find_compiler(), *STRICT_FLAGS, *flags, *pic, f"{self.source.name}.c", "batch.c", "-o", str(library)],
            folder,
        )
        self._library = ctypes.CDLL(str(library))

    def _harness(self) -> str:
        lines = [f'#include "{self.source.name}.h"', "#include <stddef.h>"]
        row = len(self.program.inputs)
        for output, signature in zip(self.outputs, self.source.functions, strict=True):
            function = re.search(r"(\w+)\(", signature).group(1)
            buffer = self._buffer(output)
            ctype = "int32_t" if output == "label" else C_TYPES[buffer.dtype]
            raw = signature[signature.index("const ") + 6 : signature.index(" *x")]
            call = f"out[i] = {function}(x + i * {row}u)"
            if signature.startswith("void"):
                call = f"{function}(x + i * {row}u, out + i * {buffer.size}u)"
            declaration = f"void batch_{output}(const {raw} *x, size_t n, {ctype} *out)"
            lines += [f"{declaration};", f"{declaration}\n{{\n    size_t i;\n    for (i = 0; i < n; i++) {{"]
            lines += [f"        {call};", "    }", "}"]
        return "\n".join(lines) + "\n"

    def _buffer(self, output):
        return self.program.buffers[self.program.outputs[output].buffer]

    def run(self, X, output: str = "label") -> np.ndarray:
        """Return one output, (n_rows, size), for raw rows in the declared type (see Program.run)."""
        if output not in self.outputs:
            raise ValueError(f"output={output!r} must be one of {list(self.outputs)}")
        X = np.ascontiguousarray(X)
        if X.dtype != np.dtype(self.program.input_dtype) or X.ndim != 2 or X.shape[1] != len(self.program.inputs):
            raise TypeError(
                f"X is {X.dtype} of shape {X.shape}; expected {self.program.input_dtype} of shape "
                f"(n_rows, {len(self.program.inputs)})"
            )
        buffer = self._buffer(output)
        dtype = np.dtype(np.int32) if output == "label" else DTYPES[buffer.dtype]
        out = np.empty((len(X), buffer.size), dtype=dtype)
        function = getattr(self._library, f"batch_{output}")
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        function.restype = None
        function(X.ctypes.data, len(X), out.ctypes.data)
        return out

    @property
    def flash_bytes(self) -> int:
        """Measured bytes of code, tables and initialised data of the predict function, compiled with -Os."""
        sizes = self.section_sizes()
        return sizes["text"] + sizes["data"]

    def section_sizes(self, *, outputs=None, compiler=None, flags=("-Os",)) -> dict[str, int]:
        """Return the measured text, data and bss bytes of the C that ships (by default: the label alone)."""
        if outputs is None:
            outputs = (self.program.main_output,)
        source = generate_c(self.program, outputs=outputs)
        return section_sizes(source, compiler=compiler, flags=flags)

    def close(self) -> None:
        """Remove the temporary files; the loaded library stays usable."""
        with contextlib.suppress(OSError):
            self._cleanup()
