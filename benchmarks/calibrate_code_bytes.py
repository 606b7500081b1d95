"""Fit the code bytes of each step (effml.program.code_bytes.CODE_BYTES) to what ``gcc -Os`` makes of random programs.

    python benchmarks/calibrate_code_bytes.py [--programs 400]
        [--forests | --kernels | --itemsets | --networks | --tables | --deep | --targets]

Prints the table to paste, and how far the fitted sizes are from the measured ones. With ``--forests`` it fits the
forests alone, all other steps at their present sizes: the code of one forest weighs as much as all of theirs together;
with ``--kernels`` gates and kernels alone, with ``--itemsets`` the steps of itemset models, with ``--networks`` low-bit
networks, with ``--tables`` what quantised networks with states and tables need beside them, with ``--deep`` the steps
of lowered torch modules, each by the size of a small program with and without it. With ``--targets`` it
prints code_ratio and stack_bytes of each microcontroller instead (effml.program.targets.profiles): what its compiler
makes of programs of all kinds, over the estimate for x86-64.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the random programs of the tests
from common.deep_parts import parts
from common.itemset_states import random_model
from common.random_elementwise import elementwise_program
from common.random_kernels import kernel_program
from common.random_networks import network_program
from common.random_programs import (
    classifier,
    forest_program,
    linear_program,
    tree_program,
    with_second_forest,
    with_useful_splits,
)

from effml.export import lower
from effml.program import Output, generate_c
from effml.program.buffers import INPUT_DTYPES
from effml.program.cgen import arena
from effml.program.code_bytes import CODE_BYTES, code_bytes, code_parts
from effml.program.compile import section_sizes
from effml.program.passes import deployable
from effml.program.steps import ForestWalk
from effml.program.targets import TARGETS
from effml.program.targets.measure import measure_program

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


# how ranks 0 to 200 become values of each input type
SPREAD = {
    "uint8": lambda rank: rank.astype(np.uint8),
    "int16": lambda rank: ((rank - 100) * 150).astype(np.int16),
    "int32": lambda rank: (rank - 100) * np.int32(1_000_003),
    "float32": lambda rank: ((rank - 100) * 0.37).astype(np.float32),
}


def random_forest_program(rng):
    """Return a forest that a compiler cannot simplify, as a trained one is."""
    dtype, layout = str(rng.choice(list(INPUT_DTYPES))), str(rng.choice(["table", "code"]))
    adds, n_out = [("rows", 1), ("rows", int(rng.integers(2, 20))), ("by_tree", 6), ("votes", 6)][rng.integers(4)]
    n_columns = int(rng.choice([8, 30, 200]))
    sizes = [int(rng.choice([0, 15, 60, 250])) if rng.random() < 0.9 else 3 for _ in range(rng.integers(1, 12))]
    program = forest_program(
        rng, dtype=dtype, n_columns=n_columns, sizes=sizes, n_out=n_out, adds=adds, layout=layout, ranks=False
    )
    if rng.random() < 0.2:
        program = with_second_forest(program, rng, layout=layout)
    steps = []
    for step in program.steps:
        if isinstance(step, ForestWalk):
            useful = with_useful_splits(step, rng, n_columns, 200)
            step = useful.replace(threshold=SPREAD[dtype](useful.threshold.astype(np.int32)))
        steps.append(step)
    return program.replace(steps=tuple(steps))


def random_kernel_program(rng):
    groups, gaussians, powers = [(1, 5, 3), (1, 3, 0), (1, 0, 2), (2, 1, 0), (3, 1, 1), (4, 2, 2)][rng.integers(6)]
    return kernel_program(
        rng,
        dtype=str(rng.choice(["float32", "float32", *INPUT_DTYPES])),
        n_columns=int(rng.integers(2, 30)),
        n_landmarks=int(rng.integers(8, 100)),
        n_out=int(rng.choice([1, 5])),
        gate=str(rng.choice(["constant", "softmax", "sigmoid", "rbf"])),
        groups=groups,
        gaussians=gaussians,
        powers=powers,
        side=bool(rng.random() < 0.3),
    )


def random_itemset_program(rng):
    """Return a lowered itemset model as most are: float32 rows of numbers, float weights, bins by few edges alone."""
    while True:
        n_features = int(rng.integers(2, 16))
        sizes = {"n_itemsets": int(rng.integers(3, 60)), "n_linear": int(rng.choice([0, 1, n_features]))}
        model = random_model(rng, n_features=n_features, max_cuts=int(rng.choice([3, 7])), **sizes)
        program = lower(model, std=True)
        if {"linear_float", "scattered"} >= set(program.steps[0].cost().variants):
            return program.replace(outputs={**program.outputs, "variance": Output("variance")})


ITEMSET_KINDS = {"clipped_affine", "itemset_match", "square_root", "sum_squares"}


def random_network_program(rng):
    kinds = rng.choice(["narrow", "shift", "wide", "u8", "u16", "u32", "i8"], int(rng.integers(0, 3)))
    images = bool(rng.random() < 0.4)
    if images:
        kinds = ["i8" if kind[0] == "u" and kind is not kinds[-1] else kind for kind in kinds]
    return network_program(
        rng,
        dtype=str(rng.choice(["float32", *INPUT_DTYPES])),
        n_columns=int(rng.integers(10, 80)),
        n_out=int(rng.choice([1, 5, 10])),
        n_bits=int(rng.integers(1, 9)),
        activations=tuple(str(kind) for kind in kinds),
        image_shape=tuple(int(side) for side in rng.integers([4, 4, 1], [12, 12, 4]))
        if images and len(kinds)
        else None,
    )


def random_tables_program(rng):
    return elementwise_program(
        rng,
        dtype=str(rng.choice(["float32", *INPUT_DTYPES])),
        n_columns=int(rng.integers(2, 20)),
        n_out=int(rng.choice([1, 5, 10])),
        n_bits=int(rng.integers(2, 9)),
        n_entries=int(rng.choice([256, 256, 100])),
        with_numbers=bool(rng.random() < 0.7),
        with_bias=bool(rng.random() < 0.7),
    )


TABLE_KINDS = {"exp", "lookup_each", "weighted_add"}
NETWORK_KINDS = {"packed_conv", "packed_dense", "requantise", "threshold"}
KERNEL_KINDS = {"helper", "kernel_rows", "live_weights", "relu", "sigmoid", "softmax", "squared_distances"}


def print_targets(n_programs):
    """Print the ratio of summed code bytes and the largest stack beside the buffers, over programs of every kind."""
    rng = np.random.default_rng(0)
    makers = [random_program, random_program, random_kernel_program, random_itemset_program, random_forest_program]
    programs = [makers[k % len(makers)](rng) for k in range(n_programs)]
    for target in TARGETS:
        code, estimate, beside = 0, 0, []
        for program in programs:
            output = (program.main_output,)
            measured = measure_program(program, target=target, outputs=output)
            code += measured.code_bytes
            estimate += code_bytes(program, output)
            slots = arena(deployable(program.with_outputs(*output)))
            beside.append(measured.stack_bytes - sum(slot.nbytes for slot in slots))
        print(f"{target}: code_ratio={code / estimate:.2f}, stack_bytes={int(np.median(beside))} (median)")


def measure_deep_steps():
    """Print what each step of lowered torch modules adds to the code of a program that does little else."""
    for key, program, rest in parts(np.random.default_rng(0)):
        own = [code_size(part) for part in (program, rest)]
        print(f"        {key!r}: {own[0] - own[1]},")


def code_size(program):
    source = generate_c(program, outputs=("value",))
    return section_sizes(source)["text"] - source.constant_bytes


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--programs", type=int, default=400)
    parser.add_argument("--forests", action="store_true", help="fit the forests alone")
    parser.add_argument("--kernels", action="store_true", help="fit gates and kernels alone")
    parser.add_argument("--itemsets", action="store_true", help="fit the steps of itemset models alone")
    parser.add_argument("--networks", action="store_true", help="fit low-bit networks alone")
    parser.add_argument("--tables", action="store_true", help="fit tables of levels and sums of parts alone")
    parser.add_argument("--deep", action="store_true", help="fit the steps of lowered torch modules alone")
    parser.add_argument("--targets", action="store_true", help="microcontrollers beside x86-64")
    arguments = parser.parse_args()
    if arguments.deep:
        measure_deep_steps()
        return
    if arguments.targets:
        print_targets(arguments.programs)
        return
    make, chosen, outputs = random_program, None, ["label", "label", "label", "proba"]
    if arguments.kernels:
        make, chosen = random_kernel_program, KERNEL_KINDS
    elif arguments.forests:
        make, chosen = random_forest_program, {"forest_walk"}
    elif arguments.itemsets:
        make, chosen, outputs = random_itemset_program, ITEMSET_KINDS, ["value", "value", "variance", "std"]
    elif arguments.networks:
        make, chosen = random_network_program, NETWORK_KINDS
    elif arguments.tables:
        make, chosen = random_tables_program, TABLE_KINDS
    rng = np.random.default_rng(0)
    rows, measured, keys = [], [], {("frame", ""): 0}
    for _ in range(arguments.programs):
        output = str(rng.choice(outputs))
        program = make(rng).with_outputs(output)
        source = generate_c(program, outputs=(output,))
        measured.append(section_sizes(source)["text"] - source.constant_bytes)
        used = code_parts(program, (output,))
        for key in used:
            keys.setdefault(key, len(keys))
        rows.append(used)
    design = np.zeros((len(rows), len(keys)))
    for row, used in enumerate(rows):
        for key, count in used.items():
            design[row, keys[key]] = count
    measured = np.array(measured, dtype=float)
    known = np.array([CODE_BYTES["host"].get(key, 0) for key in keys], dtype=float)
    fitted = [chosen is None or {key[0], key} & chosen or key == ("helper", "count_bits") for key in keys]
    fitted = np.array(fitted, dtype=bool)
    weight = 1 / (300 + measured)  # else the largest forests alone decide, or the smallest
    weight = weight if arguments.forests else np.ones_like(measured)
    coefficient = known.copy()
    rest = measured - design[:, ~fitted] @ known[~fitted]
    coefficient[fitted], _ = nnls(design[:, fitted] * weight[:, None], rest * weight)
    error = design @ coefficient - measured
    for key, column in sorted(keys.items()):
        count = int((design[:, column] > 0).sum())
        digits = 1 if design[:, column].max() > 99 else None  # of what a program holds thousands of
        print(f"        {key!r}: {round(coefficient[column], digits)},".ljust(60), f"# {count} programs")
    relative = (weight * np.abs(error)).sum() / (weight * measured).sum()
    print(
        f"mean code {measured.mean():.0f} bytes; error of the fit: mean |e| {np.abs(error).mean():.0f}, "
        f"95 % within {np.quantile(np.abs(error), 0.95):.0f} bytes; relative {relative:.1%}"
    )


if __name__ == "__main__":
    main()
