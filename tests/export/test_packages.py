"""What wraps the C: self-tests, an Arduino library, a CMake and PlatformIO component, built and run by their tools."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from common.devices import need
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import effml
from effml.bayes import TANClassifier
from effml.program.compile import STRICT_FLAGS, find_compiler


@pytest.fixture(scope="module")
def tan():
    X, y = load_digits(return_X_y=True)
    X = X.astype("uint8")
    return TANClassifier(n_bits=2, max_bins=3).fit(X[:1000], y[:1000]), X[1000:]


def build_and_run(folder, sources):
    command = [*find_compiler(), *STRICT_FLAGS, "-O1", *sources, "-o", "run"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return subprocess.run([str(Path(folder, "run"))], capture_output=True, text=True, check=False)


def test_the_self_test_passes_and_finds_a_changed_table(tan, tmp_path):
    model, rows = tan
    effml.to_c(model, tmp_path, name="digit", input_dtype="uint8", self_test=rows[:30])
    result = build_and_run(tmp_path, ["digit.c", "digit_self_test.c"])
    assert result.returncode == 0 and result.stdout == "digit: 0 of 30 rows differ\n"
    source = (tmp_path / "digit.c").read_text()
    (tmp_path / "digit.c").write_text(re.sub(r"return \(int\)(\w+)\[0\];", r"return (int)\1[0] + 1;", source))
    result = build_and_run(tmp_path, ["digit.c", "digit_self_test.c"])
    assert result.returncode == 1 and result.stdout == "digit: 30 of 30 rows differ\n"


@pytest.mark.parametrize("dtype", ["float32", "int32", "int16", "uint8"])
def test_the_self_test_holds_every_output_and_missing_values(dtype, tmp_path):
    X, y = load_iris(return_X_y=True)
    X = np.round(10 * X)
    model = DecisionTreeClassifier(max_leaf_nodes=6, random_state=0).fit(X, y)
    rows = X[::10].copy()
    if dtype == "float32":
        rows[0, 2] = np.nan
    effml.to_c(model, tmp_path, input_dtype=dtype, outputs=("label", "proba"), self_test=rows)
    result = build_and_run(tmp_path, ["model.c", "model_self_test.c"])
    assert result.returncode == 0 and result.stdout == f"model: 0 of {len(rows)} rows differ\n"


def test_the_self_test_of_a_regressor(tmp_path):
    X, y = load_diabetes(return_X_y=True)
    model = DecisionTreeRegressor(max_leaf_nodes=9, random_state=0).fit(X, y)
    effml.to_c(model, tmp_path, self_test=X[::40])
    assert build_and_run(tmp_path, ["model.c", "model_self_test.c"]).returncode == 0


@pytest.mark.parametrize("n_rows", [0, 1001])
def test_the_number_of_test_rows_is_limited(tan, tmp_path, n_rows):
    model, rows = tan
    with pytest.raises(ValueError, match=f"self_test has {n_rows} rows"):
        effml.to_c(model, tmp_path / "out", input_dtype="uint8", self_test=np.resize(rows, (n_rows, 64)))
    assert not (tmp_path / "out").exists()


def test_an_unknown_package_is_refused(tan, tmp_path):
    with pytest.raises(ValueError, match=r"package='rust' must be one of \['files', 'arduino', 'component'\]"):
        effml.to_c(tan[0], tmp_path, package="rust")


def test_cmake_builds_the_component_and_its_test_passes(tan, tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("cmake not installed")
    model, rows = tan
    effml.to_c(model, tmp_path, name="digit", input_dtype="uint8", package="component", self_test=rows[:20])
    for command in (["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"]):
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    result = subprocess.run(["ctest"], cwd=tmp_path / "build", capture_output=True, text=True, check=False)
    assert "100% tests passed, 0 tests failed out of 1" in result.stdout, result.stdout
    example = subprocess.run([tmp_path / "build" / "digit_example"], capture_output=True, text=True, check=False)
    program = effml.lower(model)
    assert float(example.stdout) == program.run(np.zeros((1, 64), np.float32))["label"][0, 0]


def test_the_component_is_described_for_platformio(tan, tmp_path):
    effml.to_c(tan[0], tmp_path, name="digit", input_dtype="uint8", package="component")
    described = json.loads((tmp_path / "library.json").read_text())
    assert described["name"] == "digit" and re.fullmatch(r"\d+\.\d+\.\d+", described["version"])
    assert (tmp_path / described["build"]["srcDir"] / "digit.c").is_file()
    assert (tmp_path / described["build"]["includeDir"] / described["headers"]).is_file()


def test_every_example_says_how_to_call_several_outputs(tmp_path):
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(X, y)
    effml.to_c(model, tmp_path, package="component", outputs=("proba", "label"))
    result = build_and_run(tmp_path, ["src/model.c", "example/main.c", "-Iinclude"])
    assert 0 <= float(result.stdout) <= 1


# -- Arduino ----------------------------------------------------------------------------------------------------------

# What the sketch needs of Arduino's core, on the registers of the board.
ARDUINO_H = """#pragma once
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include <stdlib.h>
struct Port {
    void begin(long) { UCSR0B = 1 << TXEN0; }
    void print(const char *text) { for (; *text; text++) { while (!(UCSR0A & 1 << UDRE0)) {} UDR0 = *text; } }
    void println(int number) { char text[8]; itoa(number, text, 10); print(text); print("\\n"); }
};
static Port Serial;
inline void delay(int) { cli(); sleep_enable(); sleep_cpu(); }
"""


def test_the_arduino_library_runs_on_an_atmega328p(tan, tmp_path):
    need("avr")
    if shutil.which("avr-g++") is None:
        pytest.skip("avr-g++ not installed")
    model, rows = tan
    effml.to_c(model, tmp_path, name="digit", input_dtype="uint8", package="arduino", self_test=rows[:8])
    (tmp_path / "Arduino.h").write_text(ARDUINO_H)
    (tmp_path / "main.cpp").write_text("void setup(); void loop();\nint main() { setup(); loop(); }\n")
    board = ["-mmcu=atmega328p", "-DF_CPU=16000000L", "-Os", "-Isrc", "-I.", "-flto", "-ffunction-sections", "-w"]
    sketch = ["-x", "c++", "-std=gnu++11", "-include", "Arduino.h", "examples/digit_example/digit_example.ino"]
    for command in (
        ["avr-gcc", *board, "-std=gnu11", "-c", "src/digit.c", "-o", "digit.o"],
        ["avr-gcc", *board, "-std=gnu11", "-c", "src/digit_self_test.c", "-o", "test.o"],
        ["avr-g++", *board, *sketch, "-c", "-o", "sketch.o"],
        ["avr-g++", *board, "main.cpp", "sketch.o", "digit.o", "test.o", "-Wl,--gc-sections", "-o", "sketch.elf"],
    ):
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    command = ["simavr", "-m", "atmega328p", "-f", "16000000", "sketch.elf"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    said = re.findall(r"\x1b\[32m([^\x1b]*?)\.\n", result.stdout + result.stderr)
    expected = effml.lower(model).run(np.zeros((1, 64), np.float32))["label"][0, 0]
    assert said == ["rows that differ from Python: 0", str(expected)], result.stdout + result.stderr
