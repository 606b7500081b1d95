"""What each part of localized multiple kernel learning gives: one change at a time from the defaults, test accuracy.

    EFFML_DATA=/path/to/npz python benchmarks/lmkl_ablation.py [--only letter ...] [--rows 2000 8000] [--report]

Random splits, standardised rows, at most so many training rows, up to 4,000 test rows; nothing is tuned. One file a
set, number of rows, seed and change in benchmarks/results/lmkl_ablation.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from lmkl_accuracy import load
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from effml.kernels import LocalizedMKLClassifier

RESULTS = Path(__file__).resolve().parent / "results" / "lmkl_ablation"
DATA_SETS = ("letter", "magic", "satimage", "usps quadrants")
N_TEST = 4000
CHANGES = {
    "default": {},
    "no whitening": {"whiten": False},
    "landmarks stay": {"learn_landmarks": False},
    "landmarks move": {"learn_landmarks": True},
    "k-means": {"landmarks": "kmeans"},
    "64 landmarks": {"n_landmarks": 64},
    "1024 landmarks": {"n_landmarks": 1024},
    "bandwidths learned": {"learn_bandwidths": True},
    "uniform gate": {"gate": "uniform"},
    "constant gate": {"gate": "constant"},
    "sigmoid gate": {"gate": "sigmoid"},
    "rbf gate": {"gate": "rbf"},
    "softmax, gate_alpha 0": {"gate_alpha": 0.0},
    "softmax, gate_alpha 1000": {"gate_alpha": 1000.0},
    "concat": {"combine": "concat"},
    "linear": {"hidden_layer_sizes": ()},
    "128 hidden, dropout 0.3": {"hidden_layer_sizes": (128,), "dropout": 0.3},
}


def measure(name, n_rows, seed):
    X, y, groups = load(name)
    n_test = min(N_TEST, len(X) // 4)
    X, X_test, y, y_test = train_test_split(X, y, test_size=n_test, random_state=seed, stratify=y)
    if len(X) > n_rows:
        X, _, y, _ = train_test_split(X, y, train_size=n_rows, random_state=seed, stratify=y)
    scaler = StandardScaler().fit(X)
    X, X_test = scaler.transform(X), scaler.transform(X_test)
    for change, setting in CHANGES.items():
        path = RESULTS / f"{name}-{n_rows}-{seed}-{change}.json".replace(" ", "_")
        if path.exists():
            continue
        model = LocalizedMKLClassifier(groups=groups, random_state=seed, **setting).fit(X, y)
        path.write_text(json.dumps(model.score(X_test, y_test)))
        print(f"{name} {n_rows} {seed} {change}: {path.read_text()}", flush=True)


def report(names, sizes):
    table = Table(title="test accuracy, %; mean over the seeds that are there")
    table.add_column("change")
    columns = [(name, n) for name in names for n in sizes]
    for name, n in columns:
        table.add_column(f"{name}, {n:,}", justify="right")
    for change in CHANGES:
        row = []
        for name, n in columns:
            files = RESULTS.glob(f"{name}-{n}-*-{change}.json".replace(" ", "_"))
            found = [json.loads(path.read_text()) for path in files]
            row.append(f"{100 * np.mean(found):.2f}" if found else "")
        table.add_row(change, *row)
    Console(width=150).print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=DATA_SETS, default=DATA_SETS)
    parser.add_argument("--rows", nargs="+", type=int, default=(2000, 8000))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        with threadpool_limits(1, user_api="blas"):
            for seed in range(arguments.seeds):
                for name in arguments.only:
                    for n_rows in arguments.rows:
                        measure(name, n_rows, seed)
    report(arguments.only, arguments.rows)


if __name__ == "__main__":
    main()
