"""The other exporters of random forests to C, and one way of measuring any such C: built, timed, counted.

Used by forests_export.py, which starts this file once an exporter, in an interpreter that has it:

    python benchmarks/forest_peers.py EXPORTER FOREST.joblib FOLDER

writes the forest's C into FOLDER and prints the CPU seconds that took. Whatever the exporter calls its function, a file
``label.c`` (or .cpp) beside the model wraps it as ``int32_t label(const ROW *row)``, ROW being float or int16_t: what a
user has to write to get a class out of a row, so it is measured with the model.
"""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

# -- exporters --------------------------------------------------------------------------------------------------------

FIRST_LARGEST = """\
    int32_t best = 0;
    for (int32_t k = 1; k < {n_classes}; k++)
        if (sums[k] > sums[best]) best = k;
    return best;
"""


def emlearn(forest, folder, method, dtype, leaf_bits):
    import emlearn

    model = emlearn.convert(forest, method=method, dtype=dtype, leaf_bits=leaf_bits)
    code = model.save(name="model", include_proba=False)
    (folder / "model.h").write_text(code)
    (folder / "label.c").write_text(
        '#include <stdint.h>\n#include "model.h"\nint32_t label(const ROW *row);\n'
        f"int32_t label(const ROW *row) {{ return model_predict(row, {forest.n_features_in_}); }}\n"
    )
    return [emlearn.includedir] if method == "loadable" else []


def m2cgen(forest, folder):
    import m2cgen

    (folder / "model.c").write_text(m2cgen.export_to_c(forest))
    n_features, n_classes = forest.n_features_in_, len(forest.classes_)
    (folder / "label.c").write_text(
        "#include <stdint.h>\nvoid score(double *input, double *output);\nint32_t label(const ROW *row);\n"
        f"int32_t label(const ROW *row)\n{{\n    double input[{n_features}], sums[{n_classes}];\n"
        f"    for (int32_t j = 0; j < {n_features}; j++) input[j] = row[j];\n    score(input, sums);\n"
        + FIRST_LARGEST.format(n_classes=n_classes)
        + "}\n"
    )
    return []


def micromlgen(forest, folder):
    import micromlgen

    (folder / "model.h").write_text(micromlgen.port(forest))
    (folder / "cstdarg").write_text("#include <stdarg.h>\n#include <stdint.h>\n")  # no C++ library on the device
    (folder / "label.cpp").write_text(
        '#include "model.h"\nstatic Eloquent::ML::Port::RandomForest model;\n'
        'extern "C" int32_t label(const ROW *row) { return model.predict(const_cast<ROW *>(row)); }\n'
    )
    return []


def tl2cgen(forest, folder, quantize):
    import tl2cgen
    import treelite

    model = treelite.sklearn.import_model(forest)
    parameters = {"parallel_comp": len(forest.estimators_), "quantize": quantize}  # one function, one file a tree
    tl2cgen.generate_c_code(model, dirpath=str(folder), params=parameters)
    n_features, n_classes = forest.n_features_in_, len(forest.classes_)
    (folder / "label.c").write_text(
        '#include "header.h"\nint32_t label(const ROW *row);\n'
        f"int32_t label(const ROW *row)\n{{\n    union Entry input[{n_features}];\n    double sums[{n_classes}];\n"
        f"    for (int32_t j = 0; j < {n_features}; j++) input[j].fvalue = row[j];\n"
        f"    for (int32_t k = 0; k < {n_classes}; k++) sums[k] = 0;\n    predict(input, 0, sums);\n"
        + FIRST_LARGEST.format(n_classes=n_classes)
        + "}\n"
    )
    return []


# name: (function, its arguments, type of the row, hard vote)
EXPORTERS = {
    "emlearn inline float, hard": (emlearn, ("inline", "float", 0), "float", True),
    "emlearn inline float, soft": (emlearn, ("inline", "float", 8), "float", False),
    "emlearn inline int16, hard": (emlearn, ("inline", "int16_t", 0), "int16_t", True),
    "emlearn inline int16, soft": (emlearn, ("inline", "int16_t", 8), "int16_t", False),
    "emlearn loadable int16, hard": (emlearn, ("loadable", "int16_t", 0), "int16_t", True),
    "emlearn loadable int16, soft": (emlearn, ("loadable", "int16_t", 8), "int16_t", False),
    "m2cgen": (m2cgen, (), "float", False),
    "micromlgen": (micromlgen, (), "float", True),
    "TL2cgen, a function a tree": (tl2cgen, (0,), "float", False),
    "TL2cgen quantized, a function a tree": (tl2cgen, (1,), "float", False),
}


def main():
    import joblib

    name, forest_path, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    forest = joblib.load(forest_path)
    function, arguments, _, _ = EXPORTERS[name]
    __import__("treelite" if function is tl2cgen else function.__name__)  # importing is not timed
    begin = time.process_time()
    include = function(forest, folder, *arguments)
    print(json.dumps({"generate_s": time.process_time() - begin, "include": include}))


def generate(python, name, forest_path, folder, limit):
    """Run one exporter in its own process; return its CPU seconds and the folders its C includes from."""
    command = [python, str(Path(__file__).resolve()), name, str(forest_path), str(folder)]
    return json.loads(run_limited(command, limit).splitlines()[-1])


# -- building ---------------------------------------------------------------------------------------------------------

HOST = "x86-64"
CORTEX_M3 = "Cortex-M3"
COMPILERS = {HOST: ["gcc"], CORTEX_M3: ["arm-none-eabi-gcc", "-mcpu=cortex-m3", "-mthumb"]}
# Tables to unwind the stack are of no use to a model and are not loaded on a device.
NO_UNWINDING = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]
HOST_ONLY = {HOST: ["-fcf-protection=none"], CORTEX_M3: []}


class TooSlow(Exception):
    """A command used more CPU seconds than it was given."""


class Failed(Exception):
    """A command failed; the message is the end of what it said."""


def run_limited(command, limit, **options):
    """Return what a command prints; TooSlow after `limit` CPU seconds, Failed where it exits with an error."""

    def set_limit():
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 6))

    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            preexec_fn=set_limit,
            timeout=4 * limit + 60,
            check=False,
            **options,
        )
    except subprocess.TimeoutExpired:
        raise TooSlow(f"over {limit} s") from None
    if result.returncode == -signal.SIGXCPU or "CPU time limit exceeded" in result.stderr:
        raise TooSlow(f"over {limit} s")
    if result.returncode:
        raise Failed(" ".join((result.stderr or result.stdout).strip().split("\n")[-1].split()[-12:]))
    return result.stdout


def cpu_seconds_of_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def compile_model(folder, row, target, level, include=(), limit=150):
    """Compile every source in `folder` to objects; return them and the CPU seconds that took."""
    objects, begin = [], cpu_seconds_of_children()
    for source in sorted((*folder.glob("*.c"), *folder.glob("*.cpp"))):
        output = folder / f"{source.stem}-{target}{level}.o"
        language = ["-fno-exceptions", "-fno-rtti"] if source.suffix == ".cpp" else ["-std=c99"]
        includes = [f"-I{path}" for path in (folder, *include)]
        flags = [level, "-w", f"-DROW={row}", *language, *NO_UNWINDING, *HOST_ONLY[target], *includes]
        left = limit - (cpu_seconds_of_children() - begin)
        if left <= 0:
            raise TooSlow(f"over {limit} s")
        try:
            run_limited([*COMPILERS[target], *flags, "-c", str(source), "-o", str(output)], left)
        except TooSlow:
            raise TooSlow(f"over {limit} s") from None
        objects.append(output)
    return objects, cpu_seconds_of_children() - begin


def flash_bytes(objects, target):
    """Return .text + .rodata + .data of objects, libraries (soft float) not counted."""
    size = shutil.which("size" if target == HOST else "arm-none-eabi-size")
    lines = run_limited([size, *map(str, objects)], 60).splitlines()[1:]
    return sum(int(line.split()[0]) + int(line.split()[1]) for line in lines)


# -- running on the host ----------------------------------------------------------------------------------------------

BENCH_C = """\
#define _POSIX_C_SOURCE 199309L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int32_t label(const ROW *row);
static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
int main(int argc, char **argv)
{
    size_t n = strtoul(argv[2], 0, 10), width = strtoul(argv[3], 0, 10), k;
    int passes = atoi(argv[4]);
    ROW *rows = malloc(n * width * sizeof *rows);
    int32_t *labels = malloc(n * sizeof *labels);
    FILE *file = fopen(argv[1], "rb");
    if (argc != 5 || !rows || !labels || !file || fread(rows, sizeof *rows, n * width, file) != n * width) return 1;
    while (passes--) {
        double begin = seconds();
        for (k = 0; k < n; k++) labels[k] = label(rows + k * width);
        printf("%.1f\\n", 1e9 * (seconds() - begin) / (double)n);
    }
    for (k = 0; k < n; k++) printf("%d\\n", (int)labels[k]);
    return 0;
}
"""


def run_on_host(objects, rows, row, folder, passes=9):
    """Return the labels of all rows and the median CPU nanoseconds a row over `passes` passes."""
    tools = folder / "host"
    tools.mkdir(exist_ok=True)
    (tools / "bench.c").write_text(BENCH_C)
    np.ascontiguousarray(rows).tofile(tools / "rows")
    run_limited(["gcc", "-O2", f"-DROW={row}", "bench.c", *map(str, objects), "-lm", "-o", "bench"], 120, cwd=tools)
    said = run_limited([str(tools / "bench"), "rows", *map(str, (*rows.shape, passes))], 300, cwd=tools).split()
    return np.array(said[passes:], dtype=np.int64), float(np.median(np.array(said[:passes], dtype=float)))


# -- counting on an emulated Cortex-M3 --------------------------------------------------------------------------------


def count_on_device(objects, rows, row, folder):
    """Return labels, mean instructions a row and the deepest stack in bytes, on an emulated Cortex-M3."""
    from effml.program.targets import Entry, find_target, run_on_device  # exporters run where effml need not be

    prototype = f"#include <stdint.h>\nint32_t label(const {row} *row);"
    rows = rows.astype(np.float32 if row == "float" else np.int16)
    entry = Entry(rows.dtype, rows.shape[1], np.dtype(np.int32), 1, "label", "int32_t", prototype)
    tools = folder / "device"
    tools.mkdir(exist_ok=True)
    run = run_on_device(find_target("cortex-m3"), objects, entry, rows, tools, flags=("-DRIG_DEEPEST=16384u",))
    return run.results[:, 0], int(run.counts.mean()), run.stack_bytes


if __name__ == "__main__":
    main()
