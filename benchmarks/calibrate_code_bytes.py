"""Fit the code bytes of each step (effml.program.code_bytes.CODE_BYTES) to what ``gcc -Os`` makes of random programs.

    python benchmarks/calibrate_code_bytes.py [--programs 400]

Prints the table to paste, and how far the fitted sizes are from the measured ones.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the random programs of the tests
from common.random_programs import classifier, linear_program, tree_program

from effml.program import deployable, generate_c
from effml.program.buffers import INPUT_DTYPES
from effml.program.compile import section_sizes

LAYOUTS = (("float", 32), ("byte", 8), ("dense", 5), ("dense", 4), ("swar", 4), ("swar", 2))


def random_program(rng):
    dtype = str(rng.choice(["float32", "uint8", *INPUT_DTYPES]))
    n_columns, n_out = int(rng.integers(2, 30)), int(rng.integers(2, 20))
    kind = rng.choice(["table", "table", "table", "tree", "linear"])
    if kind == "tree":
        return tree_program(rng, dtype=dtype, n_columns=n_columns, n_splits=int(rng.integers(0, 40)), n_out=n_out)
    if kind == "linear":
        n_out = int(rng.choice([1, n_out]))
        return linear_program(rng, dtype=dtype, n_columns=n_columns, n_out=n_out, integer=bool(rng.random() < 0.5))
    layout, n_bits = LAYOUTS[rng.integers(len(LAYOUTS))]
    program = classifier(
        rng,
        dtype=dtype,
        n_columns=n_columns,
        n_out=n_out,
        n_bits=n_bits,
        layout=layout,
        parents=bool(rng.random() < 0.5),
        start=bool(rng.random() < 0.5),
        max_cuts=int(rng.choice([6, 6, 60])),
        plain=bool(rng.random() < 0.7),
    )
    return program


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--programs", type=int, default=400)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    rows, measured, keys = [], [], {("frame", ""): 0}
    for _ in range(arguments.programs):
        output = str(rng.choice(["label", "label", "label", "proba"]))
        program = random_program(rng).with_outputs(output)
        source = generate_c(program, outputs=(output,))
        measured.append(section_sizes(source)["text"] - source.constant_bytes)
        used = [("frame", "")]
        for step in deployable(program).steps:
            used += [(step.kind, variant) for variant in step.cost().variants]
        for key in used:
            keys.setdefault(key, len(keys))
        rows.append(used)
    design = np.zeros((len(rows), len(keys)))
    for row, used in enumerate(rows):
        for key in used:
            design[row, keys[key]] += 1
    measured = np.array(measured, dtype=float)
    coefficient, _ = nnls(design, measured)
    error = design @ coefficient - measured
    for key, column in sorted(keys.items()):
        count = int((design[:, column] > 0).sum())
        print(f"        {key!r}: {round(coefficient[column])},".ljust(60), f"# {count} programs")
    print(
        f"mean code {measured.mean():.0f} bytes; error of the fit: mean |e| {np.abs(error).mean():.0f}, "
        f"95 % within {np.quantile(np.abs(error), 0.95):.0f} bytes"
    )


if __name__ == "__main__":
    main()
