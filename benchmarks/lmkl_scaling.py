"""Time and memory of fitting against the number of rows: localized multiple kernel learning and the classic solvers.

    python benchmarks/lmkl_scaling.py [--rows 1000 2000 ...] [--methods ...] [--million] [--report]

Synthetic rows of 20 features in two classes (a sine surface in five of them, 5 % of the labels flipped). Every fit
runs in a process of its own, with one thread; its peak memory is the highest resident set size of that process less
what it was before, with the rows in place. effml fits with its defaults but for `max_iter`, the same for every N; the
classic solvers use nine kernels and C = 10. A classic solver is stopped at `--largest-classic` rows; its cost beyond is
extrapolated by the slope of its last two sizes, and the report says so. Kept in benchmarks/results/lmkl_scaling.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).resolve().parent / "results" / "lmkl_scaling"
ROWS = (1000, 2000, 4000, 8000, 16000, 32000, 64000)
LARGEST_CLASSIC = 4000
CLASSIC = ("average SVM", "SimpleMKL", "EasyMKL", "Goenen LMKL")
METHODS = ("effml", *CLASSIC)
MILLION, EPOCHS, N_FEATURES, N_TEST = 1_000_000, 20, 20, 5000


def make_rows(n, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
    surface = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.5 * X[:, 3] ** 2 - np.abs(X[:, 4])
    y = (surface > np.median(surface[:5000])).astype(np.int8)
    flipped = rng.random(n) < 0.05
    return X, np.where(flipped, 1 - y, y)


def make(method):
    from effml.kernels import LocalizedMKLClassifier

    if method == "effml":
        return LocalizedMKLClassifier(max_iter=EPOCHS, random_state=0)
    from lmkl_rivals import AverageKernelSVC, EasyMKLClassifier, GonenLMKLClassifier, SimpleMKLClassifier
    from lmkl_svm import KernelBank

    bank = KernelBank()
    return {
        "average SVM": lambda: AverageKernelSVC(bank, C=10, max_rows=10**6),
        "SimpleMKL": lambda: SimpleMKLClassifier(bank, C=10, max_rows=10**6),
        "EasyMKL": lambda: EasyMKLClassifier(bank, C=10, max_rows=10**6),
        "Goenen LMKL": lambda: GonenLMKLClassifier(bank, C=10, max_rows=10**6, random_state=0),
    }[method]()


def run_one(method, n):
    """Fit once and print seconds, bytes and accuracy as JSON: the body of a process of its own."""
    from threadpoolctl import threadpool_limits

    X, y = make_rows(n + N_TEST)
    model = make(method)
    small = make_rows(200, seed=1)
    make(method).fit(*small)  # imports and first calls are not part of the measurement
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with threadpool_limits(1, user_api="blas"):
        start = time.perf_counter()
        model.fit(X[:n], y[:n])
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    accuracy = float(model.score(X[n:], y[n:]))
    result = {"seconds": seconds, "megabytes": (peak - before) / 1024, "peak_mb": peak / 1024, "accuracy": accuracy}
    print(json.dumps(result | {"data_mb": X.nbytes / 2**20}))


def measure(method, n):
    path = RESULTS / f"{method}-{n}.json".replace(" ", "_")
    if path.exists():
        return
    command = [sys.executable, "-W", "ignore", __file__, "--one", method, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{method} with {n} rows failed:\n{done.stderr}")
    path.write_text(done.stdout.strip().splitlines()[-1])
    print(f"{method} {n}: {path.read_text()}", flush=True)


def slope(sizes, values):
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def crossing(ours, theirs, quantity, ratio):
    """Return the number of rows at which theirs / ours reaches `ratio`, by both sides' last slope beyond the data."""
    sizes = sorted(set(ours) & set(theirs))
    for n in sizes:
        if theirs[n][quantity] >= ratio * ours[n][quantity]:
            return n, False
    last = sizes[-1]
    grown = [slope(sizes[-2:], [side[n][quantity] for n in sizes[-2:]]) for side in (theirs, ours)]
    gain = grown[0] - max(grown[1], 0.0)
    if gain <= 0:
        return None, True
    return int(last * (ratio * ours[last][quantity] / theirs[last][quantity]) ** (1 / gain)), True


def report():
    found = {}
    for path in RESULTS.glob("*.json"):
        method, n = path.stem.rsplit("-", 1)
        found.setdefault(method.replace("_", " "), {})[int(n)] = json.loads(path.read_text())
    table = Table(title=f"seconds, MB beyond the data, test accuracy; effml: {EPOCHS} epochs, one thread")
    table.add_column("rows", justify="right")
    shown = [method for method in METHODS if method in found]
    for method in shown:
        table.add_column(method, justify="right")
    for n in sorted({n for entries in found.values() for n in entries}):
        cells = [found[method].get(n) for method in shown]
        row = [
            f"{c['seconds']:.1f} s, {c['megabytes']:.0f} MB, {100 * c['accuracy']:.1f} %" if c else "" for c in cells
        ]
        table.add_row(f"{n:,}", *row)
    Console(width=160).print(table)
    ours = found["effml"]
    sizes = sorted(n for n in ours if n < MILLION)
    print(f"effml: log-log slope of the fit time {slope(sizes, [ours[n]['seconds'] for n in sizes]):.2f}")
    for method in shown[1:]:
        theirs = found[method]
        common = sorted(theirs)
        print(f"{method}: slope of the fit time {slope(common, [theirs[n]['seconds'] for n in common]):.2f}", end="")
        for quantity in ("seconds", "megabytes"):
            for ratio in (10, 100):
                n, extrapolated = crossing(ours, theirs, quantity, ratio)
                where = "never" if n is None else f"{n:,}{' (extrapolated)' if extrapolated else ''}"
                print(f"; {ratio}x {'the time' if quantity == 'seconds' else 'the memory'} at {where}", end="")
        print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--largest-classic", type=int, default=LARGEST_CLASSIC)
    parser.add_argument("--million", action="store_true", help="also fit one million rows")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one[0], int(arguments.one[1]))
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        for method in arguments.methods:
            for n in arguments.rows:
                if method == "effml" or n <= arguments.largest_classic:
                    measure(method, n)
        if arguments.million:
            measure("effml", MILLION)
    report()


if __name__ == "__main__":
    main()
