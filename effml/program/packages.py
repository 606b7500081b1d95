"""Generated C as what people put into firmware: a self-test, an Arduino library, a CMake and PlatformIO component.

All are texts around the same two files: :func:`package_files` arranges them, :func:`self_test_source` adds rows with
the outputs that Python computed for them, bit for bit.
"""

import json
import re

import numpy as np

from effml import __version__
from effml.program.buffers import DTYPES, INPUT_DTYPES
from effml.program.cgen import CSource
from effml.program.cwriter import C_TYPES, c_comment
from effml.program.program import Program

__all__ = ["PACKAGES", "package_files", "self_test_source"]

PACKAGES = ("files", "arduino", "component")
MAX_TEST_ROWS = 1000


def self_test_source(source: CSource, program: Program, rows: np.ndarray, outputs) -> str:
    """Return a C file with rows, the outputs that Python computed for them, and a function that compares.

    Parameters
    ----------
    source : CSource
    program : Program
    rows : ndarray (n_rows, n_inputs)
        Raw rows in the program's input type; 1 to 1000.
    outputs : sequence of str
        In the order of the functions of `source`.

    Returns
    -------
    str
        ``int NAME_self_test(void)`` returns how many rows differ; ``main`` prints it, unless ``NAME_NO_MAIN`` is
        defined.
    """
    if not 1 <= len(rows) <= MAX_TEST_ROWS:
        raise ValueError(f"self_test has {len(rows)} rows; give 1 to {MAX_TEST_ROWS}")
    name, n = source.name, len(rows)
    expected = program.run(rows)
    dtype = DTYPES[INPUT_DTYPES[program.input_dtype]]
    tables = [_table(f"{name}_rows", rows.astype(dtype))]
    calls = []
    for output, signature in zip(outputs, source.functions, strict=True):
        values = expected[output]
        values = values.astype(np.int32) if output == "label" else values
        tables.append(_table(f"{name}_{output}", values))
        calls.append(_comparison(name, output, signature, values))
    row = C_TYPES[INPUT_DTYPES[program.input_dtype]]
    upper, body = name.upper(), "\n".join(calls)
    return f"""/* {name}: {n} rows and what Python computes for them, made by effml {c_comment(__version__)}.
 * {name}_self_test() returns how many rows differ; it must be 0. Define {upper}_NO_MAIN to call it yourself. */
#include "{name}.h"
#include <string.h>

#define N_ROWS {n}

/* Floating-point numbers are given by their bits. */
{chr(10).join(tables)}

int {name}_self_test(void);

int {name}_self_test(void)
{{
    int wrong = 0;
    unsigned i;
    for (i = 0; i < N_ROWS; i++) {{
        int equal = 1;
        {row} x[{len(program.inputs)}];
        memcpy(x, {name}_rows[i], sizeof x);
{body}
        wrong += !equal;
    }}
    return wrong;
}}

#ifndef {upper}_NO_MAIN
#include <stdio.h>

int main(void)
{{
    const int wrong = {name}_self_test();
    printf("{name}: %d of %d rows differ\\n", wrong, N_ROWS);
    return wrong != 0;
}}
#endif
"""


def _comparison(name, output, signature, values) -> str:
    function = re.search(r"(\w+)\(", signature).group(1)
    cell = "int32_t" if output == "label" else C_TYPES[_buffer_type(values.dtype)]
    size = values.shape[1]
    call = f"{function}(x, y);" if signature.startswith("void") else f"y[0] = {function}(x);"
    if values.dtype.kind == "f":  # a NaN is a NaN, whatever its bits
        compare = [
            f"    for (k = 0; k < {size}u; k++) {{",
            "        equal &= memcmp(y + k, z + k, sizeof *y) == 0 || (y[k] != y[k] && z[k] != z[k]);",
            "    }",
        ]
    else:
        compare = ["    equal &= memcmp(y, z, sizeof y) == 0;"]
    lines = [
        "{",
        f"    {cell} y[{size}], z[{size}];",
        *(["    unsigned k;"] if values.dtype.kind == "f" else []),
        f"    {call}",
        f"    memcpy(z, {name}_{output}[i], sizeof z);",
        *compare,
        "}",
    ]
    return "\n".join("        " + line for line in lines)


def _buffer_type(dtype) -> str:
    return next(name for name, value in DTYPES.items() if value == dtype)


def _table(name, values) -> str:
    """Return a C table of numbers; floating-point numbers as their bits."""
    if values.dtype.kind == "f":
        values = values.view(np.uint32)
    suffix = "u" if values.dtype == np.uint32 else ""
    lowest = f"(-{2**31 - 1} - 1)"
    rows = [
        "    {" + ", ".join(lowest if value == -(2**31) else f"{value}{suffix}" for value in row) + "},"
        for row in values.tolist()
    ]
    ctype = C_TYPES[_buffer_type(values.dtype)]
    return "\n".join([f"static const {ctype} {name}[N_ROWS][{values.shape[1]}] = {{", *rows, "};"])


def package_files(source: CSource, program: Program, package: str, self_test: str | None = None) -> dict[str, str]:
    """Return the files of a package: path inside its folder, and text.

    Parameters
    ----------
    source : CSource
    program : Program
    package : {"files", "arduino", "component"}
        The bare pair of files; a folder for Arduino's libraries; one that CMake and PlatformIO take.
    self_test : str, optional
        Text of :func:`self_test_source`.
    """
    if package not in PACKAGES:
        raise ValueError(f"package={package!r} must be one of {list(PACKAGES)}")
    name = source.name
    place = {"files": "", "arduino": "src/", "component": "src/"}[package]
    header_place = "include/" if package == "component" else place
    files = {f"{header_place}{name}.h": source.header, f"{place}{name}.c": source.source}
    if package == "files":
        return files | ({} if self_test is None else {f"{name}_self_test.c": self_test})
    if package == "arduino":
        files["library.properties"] = _arduino_properties(name, program)
        if self_test is not None:
            files[f"src/{name}_self_test.c"] = _without_main(self_test, name)
        files[f"examples/{name}_example/{name}_example.ino"] = _sketch(source, program, self_test is not None)
        return files
    files["CMakeLists.txt"] = _cmake(name, self_test is not None)
    files["library.json"] = _platformio(name)
    files["example/main.c"] = _example(source, program)
    if self_test is not None:
        files[f"test/{name}_self_test.c"] = self_test
    return files


def _without_main(text, name) -> str:
    guard = f"#ifndef {name.upper()}_NO_MAIN"
    return text[: text.index(guard)].rstrip() + "\n"


def _sentence(program) -> str:
    what = "Value" if program.classes is None else f"One of {len(program.classes)} classes"
    return f"{what} predicted from {len(program.inputs)} numbers by a model that effml trained and exported."


def _arduino_properties(name, program) -> str:
    return f"""name={name}
version=1.0.0
author=effml {__version__}
maintainer=effml {__version__}
sentence={_sentence(program)}
paragraph=C99 without heap and libm; tables stay in flash on AVR.
category=Data Processing
url=https://pypi.org/project/effml/
architectures=*
includes={name}.h
"""


def _sketch(source, program, tested) -> str:
    name, upper = source.name, source.name.upper()
    row = C_TYPES[INPUT_DTYPES[program.input_dtype]]
    call, shown = _call(source, program)
    test = f'extern "C" int {name}_self_test(void);\n\n' if tested else ""
    run = f'    Serial.print("rows that differ from Python: ");\n    Serial.println({name}_self_test());\n'
    return f"""#include <{name}.h>

{test}// One row: the inputs in the order of {name}.h.
static {row} row[{upper}_N_FEATURES];

void setup()
{{
    Serial.begin(115200);
{run if tested else ""}}}

void loop()
{{
    // Put your measurements into row[] here.
    {call}
    Serial.println({shown});
    delay(1000);
}}
"""


def _call(source, program) -> tuple[str, str]:
    """Return C that calls the first function, and the expression of its (first) result."""
    returns, function = re.match(r"(\w+) (\w+)\(", source.functions[0]).groups()
    if returns != "void":
        return f"const {returns} result = {function}(row);", "result"
    buffer = program.buffers[program.outputs[function.removeprefix(f"{source.name}_predict_")].buffer]
    return f"{C_TYPES[buffer.dtype]} result[{buffer.size}];\n    {function}(row, result);", "result[0]"


def _cmake(name, tested) -> str:
    upper = name.upper()
    test = f"""
if({upper}_BUILD_TESTS)
    enable_testing()
    add_executable({name}_self_test test/{name}_self_test.c)
    target_link_libraries({name}_self_test PRIVATE {name})
    add_test(NAME {name}_self_test COMMAND {name}_self_test)
endif()
"""
    option = f'option({upper}_BUILD_TESTS "Build the self-test of {name}" ${{PROJECT_IS_TOP_LEVEL}})\n'
    return f"""# add_subdirectory() this folder and link to the target {name}; made by effml {__version__}.
cmake_minimum_required(VERSION 3.21)
project({name} VERSION 1.0.0 LANGUAGES C)

add_library({name} STATIC src/{name}.c)
target_include_directories({name} PUBLIC include)
target_compile_features({name} PUBLIC c_std_99)

option({upper}_BUILD_EXAMPLE "Build the example of {name}" ${{PROJECT_IS_TOP_LEVEL}})
{option if tested else ""}if({upper}_BUILD_EXAMPLE)
    add_executable({name}_example example/main.c)
    target_link_libraries({name}_example PRIVATE {name})
endif()
{test if tested else ""}"""


def _platformio(name) -> str:
    description = {
        "name": name,
        "version": "1.0.0",
        "description": f"Model exported by effml {__version__}: C99 without heap and libm",
        "keywords": "machine learning",
        "frameworks": "*",
        "platforms": "*",
        "headers": f"{name}.h",
        "build": {"srcDir": "src", "includeDir": "include"},
        "export": {"exclude": ["test", "example", "CMakeLists.txt"]},
    }
    return json.dumps(description, indent=2) + "\n"


def _example(source, program) -> str:
    name, upper = source.name, source.name.upper()
    row = C_TYPES[INPUT_DTYPES[program.input_dtype]]
    call, shown = _call(source, program)
    return f"""/* How {name} is called: one row, the inputs in the order of {name}.h. */
#include "{name}.h"
#include <stdio.h>

int main(void)
{{
    static const {row} row[{upper}_N_FEATURES] = {{0}};
    {call}
    printf("%g\\n", (double){shown});
    return 0;
}}
"""
