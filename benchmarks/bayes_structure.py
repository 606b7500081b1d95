"""Time of structure learning (all pairwise conditional mutual information) against peers, in one run.

    EFFML_DATA=/path/to/npz python benchmarks/bayes_structure.py [--quick]

All methods get the same codes (Fayyad-Irani bins of the training part). Peers:

- gram: the numpy yardstick, one float32 one-hot Gram matrix a class by BLAS (all threads) and sums of n log n
- pyAgrum: BNClassifier(learningMethod="TAN").fit, which adds its (cheap) parameter estimation
- pgmpy: TreeSearch(estimator_type="tan").estimate on the first features only, as many as its cap allows

effml's column "1 thread" and "all threads" are `conditional_mutual_information`; "tree" is `chow_liu_parents` and
"counts" `joint_counts`. Times are medians in milliseconds; ratios divide a peer's time by effml's with all threads (for
pyAgrum by information + tree + counts, for pgmpy by information + tree on the same features).
"""

import argparse
import os
import time
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import xlogy

from effml.bayes.structure import chow_liu_parents, conditional_mutual_information, joint_counts
from effml.datasets import load_dataset
from effml.discretization import MDLPDiscretizer

PYAGRUM_MAX_FEATURES = 64  # its time grows with the square: 256 features took minutes
PGMPY_FEATURES, PGMPY_ROWS = 8, 4000


def gram_information(codes, y, n_states):
    """The yardstick: n_abc for all pairs as one-hot.T @ one-hot, class by class."""
    start = np.concatenate(([0], np.cumsum(n_states)))
    sums = np.zeros((len(n_states), len(n_states)))
    own = np.zeros(len(n_states))
    all_classes = 0.0
    for c in range(y.max() + 1):
        rows = codes[y == c] + start[:-1]
        one_hot = np.zeros((len(rows), start[-1]), dtype=np.float32)
        one_hot[np.arange(len(rows))[:, None], rows] = 1
        joint = one_hot.T @ one_hot
        margin = np.diag(joint).astype(np.float64)
        n_log_n = n_log_n_by_log(joint)
        sums += np.add.reduceat(np.add.reduceat(n_log_n, start[:-1], axis=0), start[:-1], axis=1)
        own += np.add.reduceat(xlogy(margin, margin), start[:-1])
        all_classes += len(rows) * np.log(max(len(rows), 1))
    information = np.maximum(0, (sums - own[:, None] - own + all_classes) / len(y))
    np.fill_diagonal(information, (all_classes - own) / len(y))
    return information


def n_log_n_by_log(joint):
    joint = joint.astype(np.float64)
    return joint * np.log(np.maximum(joint, 1.0))


def milliseconds(function, repeats):
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = function()
        times.append(1e3 * (time.perf_counter() - begin))
    return median(times), result


def data_sets(quick):
    yield "letter", *official("letter")
    yield "satimage", *official("satimage")
    yield "usps", *official("usps")
    if not quick:
        images, y = official("mnist")
        small = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(images), -1)
        yield "mnist 14x14", small, y
        yield "mnist 28x28", images, y


def official(name):
    data = load_dataset(name)
    return data.X_train, data.y_train


def pyagrum_time(codes, y, n_states, repeats):
    if codes.shape[1] > PYAGRUM_MAX_FEATURES:
        return None
    from pyagrum.lib.discreteTypeProcessor import DiscreteTypeProcessor
    from pyagrum.skbn import BNClassifier

    def fit():
        labels = f"[0,{n_states.max() - 1}]"
        types = DiscreteTypeProcessor("NoDiscretization", labels, discretizationThreshold=1)
        return BNClassifier(learningMethod="TAN", type_processor=types).fit(codes.astype(np.int64), y)

    return milliseconds(fit, repeats)[0]


def pgmpy_time(codes, y):
    import pandas as pd
    from pgmpy.estimators import TreeSearch

    frame = pd.DataFrame(codes, columns=[f"x{i}" for i in range(codes.shape[1])]).assign(y=y)
    search = TreeSearch(frame, root_node="x0", n_jobs=1)
    return milliseconds(lambda: search.estimate("tan", class_node="y", show_progress=False), 1)[0]


def effml_times(codes, y, n_states, repeats):
    one, _ = milliseconds(lambda: conditional_mutual_information(codes, y, n_states=n_states), repeats)
    every, information = milliseconds(
        lambda: conditional_mutual_information(codes, y, n_states=n_states, n_jobs=-1), repeats
    )
    tree, parents = milliseconds(lambda: chow_liu_parents(information), repeats)
    counts, _ = milliseconds(lambda: joint_counts(codes, y, parents, n_states, n_jobs=-1), repeats)
    return one, every, tree, counts, information


def compare(name, codes, y, n_states, repeats):
    one, every, tree, counts, information = effml_times(codes, y, n_states, repeats)
    gram_repeats = repeats if codes.size < 1e7 else 1
    gram, yardstick = milliseconds(lambda: gram_information(codes, y, n_states), gram_repeats)
    np.testing.assert_allclose(information, yardstick, atol=1e-9)
    pyagrum = pyagrum_time(codes, y, n_states, max(1, repeats // 3))

    part, part_y = codes[:PGMPY_ROWS, :PGMPY_FEATURES], y[:PGMPY_ROWS]
    pgmpy = pgmpy_time(part, part_y)
    ours_on_part, _ = milliseconds(
        lambda: chow_liu_parents(
            conditional_mutual_information(part, part_y, n_states=n_states[:PGMPY_FEATURES], n_jobs=-1)
        ),
        repeats,
    )
    return [
        name,
        f"{len(codes)} x {codes.shape[1]}",
        str(n_states.sum()),
        *(f"{value:.2f}" for value in (one, every, tree, counts)),
        f"{gram:.0f} ({gram / every:.0f}x)",
        "-" if pyagrum is None else f"{pyagrum:.0f} ({pyagrum / (every + tree + counts):.0f}x)",
        f"{pgmpy:.0f} ({pgmpy / ours_on_part:.0f}x)",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="without MNIST, three repeats")
    arguments = parser.parse_args()
    repeats = 3 if arguments.quick else 7
    table = Table(title=f"structure learning, ms (times slower than effml); {os.cpu_count()} processors")
    for column in ("data", "shape", "states", "1 thread", "all threads", "tree", "counts"):
        table.add_column(column, justify="right")
    table.add_column("gram", justify="right")
    table.add_column(f"pyAgrum (D <= {PYAGRUM_MAX_FEATURES})", justify="right")
    table.add_column(f"pgmpy ({PGMPY_ROWS} x {PGMPY_FEATURES})", justify="right")
    for name, X, y in data_sets(arguments.quick):
        discretizer = MDLPDiscretizer(n_jobs=-1).fit(X, y)
        table.add_row(*compare(name, discretizer.transform(X), y, np.asarray(discretizer.n_states_), repeats))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
