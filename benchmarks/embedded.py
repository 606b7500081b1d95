"""Accuracy against flash, RAM and instructions of one prediction on an emulated Cortex-M3, beside other exporters.

    EFFML_DATA=/path/to/npz python benchmarks/embedded.py [--only letter] [--peers-python PYTHON] [--report]

letter with its official split, digits, spambase and magic split 70/30 with seed 0, mnist as means of 2x2 pixels.
Rows are uint8, but float32 for spambase and magic; int16 exports of peers get whole numbers, the model fitted again on
them: spambase and magic scaled to +-32000 a feature (trees of effml, too), the others doubled, because emlearn cuts
thresholds to whole numbers and would lose half a unit of them. Peers: `pip install emlearn m2cgen micromlgen treelite
tl2cgen` in the interpreter of `--peers-python`.

Every model is built with -Os by arm-none-eabi-gcc and run on the emulator on the same held-out rows, at most 2,000, of
letter all 4,000:

- accuracy: of what the device says on these rows. effml must say what its Program says on each, or the script fails;
  "differs" counts the rows on which the estimator's own predict says something else (ties within the rounding of leaves
  to 8 bits, which docs/equal.md describes).
- flash: code, constants and initial data of the function from row to class. library: floating point in software,
  division, memset that come with it, from the linker's map.
- RAM: data and the deepest stack that 50 rows needed.
- instructions: best, mean and worst over the rows; bound: what no row exceeds, proven from the machine code.

Every point is one JSON file in benchmarks/results/embedded; only what is missing is computed. ``--report`` prints the
tables of what is there.
"""

import argparse
import json
import re
import sys
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path

import embedded_peers
import joblib
import numpy as np
from forest_peers import CORTEX_M3, Failed, TooSlow, compile_model, run_limited
from forests_export import hard_vote
from rich.console import Console
from rich.table import Table
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import effml
from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.datasets import load_dataset
from effml.discretization import BottleneckDiscretizer
from effml.forests import DecisionSnippetClassifier
from effml.neural import QuantizedConvClassifier, QuantizedMLPClassifier
from effml.program import CompileError, with_input_dtype
from effml.program.targets import Entry, find_target, run_on_device, run_program
from effml.program.targets.measure import archived_bytes, linked_alone, measure_program
from effml.program.targets.worst_case import BoundError, worst_case_instructions

RESULTS = Path(__file__).resolve().parent / "results" / "embedded"
SETS = ("letter", "digits", "spambase", "magic", "mnist14")
TARGET = "cortex-m3"
MAX_ROWS = {"letter": 4000}  # all of its test rows; of the others
OTHER_ROWS = 2000
INT16_LARGEST = 32_000
COMPILE_LIMIT = 40  # CPU seconds
GENERATE_LIMIT = 40
FORESTS = ((1, 5), (1, 8), (5, 6), (10, 8), (30, 8), (100, 10))  # trees, depth
DEPTHS = range(4, 17)
LEAVES = (8, 12, 16, 20, 24, 28, 32, 48, 64, 96, 128, 192, 256, 384, 512, 640, 768)
FLOATS = ("spambase", "magic")
IMAGES = {"digits": (8, 8), "mnist14": (14, 14)}
CHANNELS = ((4,), (8, 8))
NETWORK_EPOCHS = {"mnist14": 10}
KIB = (1, 4, 16, 64)


# -- data -------------------------------------------------------------------------------------------------------------


@cache
def split_of(name):
    """Return X, y, X_test, y_test; classes are 0, 1, ..."""
    data = load_dataset(name.removesuffix("14"))
    if data.X_train is not None:
        X, y, X_test, y_test = data.X_train, data.y_train, data.X_test, data.y_test
    else:
        order = np.random.default_rng(0).permutation(len(data.data))
        train, test = np.split(order, [int(0.7 * len(order))])
        X, y, X_test, y_test = data.data[train], data.target[train], data.data[test], data.target[test]
    classes, codes = np.unique(np.concatenate([y, y_test]), return_inverse=True)
    assert len(classes) < 256
    if name == "mnist14":
        X, X_test = (_means(part) for part in (X, X_test))
    keep = np.random.default_rng(1).permutation(len(X_test))[: MAX_ROWS.get(name, OTHER_ROWS)]
    dtype = "float32" if name in FLOATS else "uint8"
    return X.astype(dtype), codes[: len(y)], X_test.astype(dtype)[keep], codes[len(y) :][keep]


def _means(X):
    return np.rint(np.asarray(X, dtype=float).reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))).reshape(len(X), 196)


@cache
def whole_numbers(name):
    """Return the split with int16 rows."""
    X, y, X_test, y_test = split_of(name)
    if X.dtype != np.float32:
        return 2 * X.astype(np.int16), y, 2 * X_test.astype(np.int16), y_test
    largest = np.maximum(np.abs(X).max(axis=0), 1e-9)
    scaled = [np.clip(np.rint(part / largest * INT16_LARGEST), -32768, 32767).astype(np.int16) for part in (X, X_test)]
    return scaled[0], y, scaled[1], y_test


# -- models -----------------------------------------------------------------------------------------------------------


def effml_points(name):
    """Return {label: (unfitted estimator, options of `lowered`)}; "hard": each tree gives its class one vote."""
    points = _tables(name) | _networks(name)
    points["logistic regression"] = scaled(LogisticRegression(max_iter=300)), {}
    for rows in ("", ", int16 rows") if name in FLOATS else ("",):
        points |= {f"{label}{rows}": (model, options | {"rows": rows}) for label, (model, options) in _trees().items()}
    for kib in (2, 4, 8, 16, 64):
        points[f"snippets {kib} KiB"] = DecisionSnippetClassifier(budget_bytes=1024 * kib, random_state=0), {}
    return points


def _tables(name):
    """Return naive Bayes and TANs: rounded, and trained with their bits for a margin over merged bins."""
    points, n_features = {}, split_of(name)[0].shape[1]
    for n_bits in (2, 4):
        for max_bins in (4, 8, 16):
            points[f"NB {n_bits} bits, {max_bins} bins"] = NaiveBayesClassifier(n_bits=n_bits, max_bins=max_bins), {}
    for n_bits in (1, 2):
        for max_bins in (3, 5, 8):
            points[f"TAN {n_bits} bits, {max_bins} bins"] = TANClassifier(n_bits=n_bits, max_bins=max_bins), {}
    for estimator, family, all_bits, all_bins in (
        (NaiveBayesClassifier, "NB", (2, 4, 5), (3, 6, 10)),
        (TANClassifier, "TAN", (1, 2), (2, 4)),
    ):
        for n_bits in all_bits:
            for bins in all_bins:
                trained = {"objective": "margin", "margin": 0.7, "max_iter": 40, "random_state": 0}
                trained["discretizer"] = BottleneckDiscretizer(total_bins=bins * n_features)
                points[f"{family} for a margin, {n_bits} bits, {bins} bins"] = estimator(n_bits=n_bits, **trained), {}
                if n_bits <= 4:
                    speed = estimator(n_bits=n_bits, **trained), {"layout": "speed"}
                    points[f"{family} for a margin, {n_bits} bits, {bins} bins, lanes"] = speed
    return points


def _trees():
    points = {}
    for n_trees, depth in FORESTS:
        forest = RandomForestClassifier(n_trees, max_depth=depth, random_state=0)
        for layout in ("table", "code"):
            points[f"forest {n_trees} x {depth}, {layout}"] = forest, {"leaf_bits": 8, "layout": layout}
            points[f"forest {n_trees} x {depth}, {layout}, hard"] = forest, {"hard": True, "layout": layout}
    for name, tree in single_trees().items():
        points[f"{name}, table"] = tree, {}
        points[f"{name}, code"] = tree, {"layout": "code"}
    return points


def single_trees():
    """Return trees grown level by level, and best split first."""
    trees = {f"tree of depth {depth}": DecisionTreeClassifier(max_depth=depth, random_state=0) for depth in DEPTHS}
    for leaves in LEAVES:
        trees[f"tree of {leaves} leaves"] = DecisionTreeClassifier(max_leaf_nodes=leaves, random_state=0)
    return trees


def _networks(name):
    """Return low-bit networks, convolutions over images, and scikit-learn's networks in 8 and 4 bits."""
    points, fixed = {}, {"random_state": 0, "max_iter": NETWORK_EPOCHS.get(name, 60)}
    if name in IMAGES:
        fixed["input_scaling"] = "common"
    for hidden in (8, 16, 32, 64):
        for bits in (1, 2, 4):
            network = QuantizedMLPClassifier(hidden_layer_sizes=(hidden,), weight_bits=bits, **fixed)
            points[f"network {hidden}, {bits} bits"] = network, {}
        for bits in (4, 8):
            network = scaled(MLPClassifier((hidden,), max_iter=60, early_stopping=True, random_state=0))
            points[f"scikit-learn's network {hidden} in {bits} bits"] = network, {"bits": bits}
    for hidden in (128, 256):
        network = QuantizedMLPClassifier(hidden_layer_sizes=(hidden,), weight_bits=4, **fixed)
        points[f"network {hidden}, 4 bits"] = network, {}
    for channels in CHANNELS if name in IMAGES else ():
        for bits in (1, 2, 4):
            network = QuantizedConvClassifier(
                image_shape=IMAGES[name], channels=channels, weight_bits=bits, batch_norm=True, **fixed
            )
            points[f"convolutions {' and '.join(map(str, channels))}, {bits} bits"] = network, {}
    return points


def scaled(estimator):
    return make_pipeline(StandardScaler(), estimator)


def peer_points():
    """Return {label: (exporter, unfitted estimator)}; first weights take over what the scaler of a pipeline does."""
    points = {}
    for n_trees, depth in FORESTS:
        forest = RandomForestClassifier(n_trees, max_depth=depth, random_state=0)
        exporters = [exporter for exporter in embedded_peers.EXPORTERS if exporter != "emlearn"]
        for exporter in exporters:
            points[f"{exporter}: forest {n_trees} x {depth}"] = exporter, forest
    for name, tree in single_trees().items():
        for exporter in ("emlearn inline int16, hard", "emlearn inline float, hard", "m2cgen", "micromlgen"):
            points[f"{exporter}: {name}"] = exporter, tree
    for exporter in ("emlearn", "micromlgen"):
        points[f"{exporter}: Gaussian NB"] = exporter, GaussianNB(var_smoothing=1e-3)
    for hidden in (8, 16, 32, 64):
        network = MLPClassifier((hidden,), max_iter=60, early_stopping=True, random_state=0)
        points[f"emlearn: network {hidden}"] = "emlearn", scaled(network)
    points["m2cgen: logistic regression"] = "m2cgen", scaled(LogisticRegression(max_iter=300))
    return points


# -- measuring --------------------------------------------------------------------------------------------------------


def fit(estimator, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations are meant
        return estimator.fit(X, y)


def lowered(estimator, X, y, *, hard=False, bits=None, **options):
    """Return a fitted model and its program; `bits` quantises scikit-learn's networks."""
    model = fit(clone(estimator), X, y)
    if hard:
        model = hard_vote(model)
    if bits:
        model = effml.quantize(model, X, weight_bits=bits)
    return model, with_input_dtype(effml.lower(model, **options), X.dtype.name)


def measure_effml(name, estimator, options):
    options = dict(options)
    X, y, X_test, y_test = whole_numbers(name) if options.pop("rows", "") else split_of(name)
    model, program = lowered(estimator, X, y, **options)
    run = run_program(program, program.encode(X_test), target=TARGET)
    expected = program.run(program.encode(X_test))["label"]
    if not np.array_equal(run.results, expected):
        raise SystemExit(f"{name}, {estimator!r}: device and Program differ")
    differs = int(np.sum(np.asarray(program.classes)[expected[:, 0]] != model.predict(X_test)))
    sizes = measure_program(program, target=TARGET)
    try:
        bound = worst_case_instructions(program, target=TARGET)
    except BoundError:
        bound = None
    result = {"flash": sizes.flash_bytes, "library": sizes.library_bytes, "data": sizes.data_bytes, "bound": bound}
    result["differs"] = differs
    if bound is not None and run.counts.max() > bound:
        raise SystemExit(f"{name}, {estimator!r}: {run.counts.max()} instructions, more than the bound of {bound}")
    return result | _of_run(run, run.results[:, 0] == y_test)


def _of_run(run, correct):
    best, worst = int(run.counts.min()), int(run.counts.max())
    counted = {"best": best, "mean": float(run.counts.mean()), "worst": worst, "stack": run.stack_bytes}
    return counted | {"accuracy": float(np.mean(correct)), "rows": len(run.counts)}


def measure_peer(name, exporter, estimator, python):
    row = embedded_peers.EXPORTERS[exporter][2]
    X, y, X_test, y_test = whole_numbers(name) if row == "int16_t" else split_of(name)
    X_test = X_test.astype(np.int16 if row == "int16_t" else np.float32)
    model = without_scaler(fit(clone(estimator), X.astype(np.float32), y))
    target = find_target(TARGET)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        joblib.dump(model, folder / "model.joblib")
        (folder / "model").mkdir()
        command = [python, embedded_peers.__file__, exporter, str(folder / "model.joblib"), str(folder / "model")]
        include = json.loads(run_limited(command, GENERATE_LIMIT, cwd=folder).splitlines()[-1])["include"]
        objects, _ = compile_model(folder / "model", row, CORTEX_M3, "-Os", include, COMPILE_LIMIT)
        sizes = _sizes(target, objects)
        linked_alone(target, objects, ["label"], folder)
        entry = Entry(X_test.dtype, X_test.shape[1], np.dtype(np.int32), 1, "label", "int32_t", _prototype(row))
        run = run_on_device(target, objects, entry, X_test, folder, flags=("-DRIG_DEEPEST=32768u",))
        library = archived_bytes((folder / "alone.map").read_text())
    return {**sizes, "library": library, "bound": None} | _of_run(run, run.results[:, 0] == y_test)


def without_scaler(model):
    """Return what follows the scaler of a fitted pipeline, with weights that read unscaled rows."""
    if not hasattr(model, "steps"):
        return model
    scaler, last = model[0], model[-1]
    if hasattr(last, "coefs_"):
        last.intercepts_[0] = last.intercepts_[0] - scaler.mean_ / scaler.scale_ @ last.coefs_[0]
        last.coefs_[0] = last.coefs_[0] / scaler.scale_[:, None]
    else:
        last.coef_ = last.coef_ / scaler.scale_
        last.intercept_ = last.intercept_ - last.coef_ @ scaler.mean_
    return last


def _prototype(row):
    return f"#include <stdint.h>\nint32_t label(const {'float' if row == 'float' else row} *row);"


def _sizes(target, objects):
    from effml.program.targets.firmware import section_bytes

    parts = [section_bytes(target, path) for path in objects]
    total = {kind: sum(part[kind] for part in parts) for kind in parts[0]}
    flash = total["code"] + total["constants"] + total["data"]
    return {"flash": flash, "data": total["data"] + total["zeroed"]}


def kept(name, label, measure):
    """Return the result of a point, measuring it where it is not there yet; a failure is kept with its reason."""
    path = RESULTS / f"{name}-{re.sub(r'[^a-z0-9]+', '-', label.lower())}.json"
    if path.is_file():
        return json.loads(path.read_text())
    begin = time.perf_counter()
    try:
        result = measure()
    except (CompileError, Failed, TooSlow, ValueError, TypeError, NotImplementedError) as error:
        words = " ".join(str(error).split())
        reason = re.search(r"region `\w+' overflowed by \d+ bytes", words)
        result = {"note": f"{type(error).__name__}: {reason.group(0) if reason else words[-150:]}"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"label": label, **result}, indent=1))
    print(f"  {name}: {label}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return json.loads(path.read_text())


def measure_all(name, arguments):
    for label, (estimator, options) in effml_points(name).items():
        kept(name, f"effml {label}", lambda e=estimator, o=options: measure_effml(name, e, o))
    for label, (exporter, estimator) in peer_points().items():
        kept(name, label, lambda x=exporter, e=estimator: measure_peer(name, x, e, arguments.peers_python))


# -- reports ----------------------------------------------------------------------------------------------------------


def results_of(name):
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{name}-*.json"))]


def dominates(one, other):
    """Return whether a point is nowhere worse than another, and somewhere better."""
    pairs = [(-one["accuracy"], -other["accuracy"]), (one["flash"], other["flash"]), (one["mean"], other["mean"])]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front(points):
    return [point for point in points if not any(dominates(other, point) for other in points)]


def print_report(console, name):
    points = results_of(name)
    measured = [point for point in points if "flash" in point]
    if not measured:
        return
    ours = front([point for point in measured if point["label"].startswith("effml")])
    peers = front([point for point in measured if not point["label"].startswith("effml")])
    table = Table(title=f"{name}: fronts of (accuracy, flash, mean instructions), {measured[0]['rows']} rows")
    for column in (
        "model",
        "accuracy %",
        "flash",
        "library",
        "data",
        "stack",
        "best",
        "mean",
        "worst",
        "bound",
        "differs",
    ):
        table.add_column(column, justify="left" if column == "model" else "right")
    for group in (ours, peers):
        for point in sorted(group, key=lambda each: each["flash"]):
            numbers = [point[key] for key in ("flash", "library", "data", "stack", "best", "mean", "worst", "bound")]
            numbers.append(point.get("differs"))
            shown = ["-" if number is None else f"{number:,.0f}" for number in numbers]
            table.add_row(point["label"], f"{100 * point['accuracy']:.2f}", *shown)
        table.add_section()
    console.print(table)
    beaten = [(peer, own) for peer in peers for own in ours if dominates(peer, own)]
    for peer, own in beaten:
        console.print(f"  dominated: {own['label']} by {peer['label']}")
    _print_bands(console, ours, peers)
    _print_same_forest(console, measured)
    for point in points:
        if "note" in point:
            console.print(f"  {point['label']}: {point['note']}", markup=False, highlight=False)


def _print_bands(console, ours, peers):
    """Say for each band of accuracy whether one effml point dominates the peer's smallest, and its quickest."""
    for percent in range(60, 101, 2):
        band = [peer for peer in peers if percent <= 100 * peer["accuracy"] < percent + 2]
        for what in ("flash", "mean"):
            if band:
                best = min(band, key=lambda each: each[what])
                won = [own["label"] for own in ours if dominates(own, best)]
                verdict = f"dominated by {won[0]}" if won else "NOT dominated"
                console.print(f"  {percent} to {percent + 2} %, least {what}: {best['label']}: {verdict}")


def _print_same_forest(console, measured):
    """Compare the same forest from effml and emlearn: no more flash and no more instructions at once."""
    by_label = {point["label"]: point for point in measured}
    for n_trees, depth in FORESTS:
        forms = ("table", "code", "table, hard", "code, hard")
        names = [f"effml forest {n_trees} x {depth}, {form}{rows}" for form in forms for rows in ("", ", int16 rows")]
        own = [by_label.get(each) for each in names]
        own = [point for point in own if point]
        for label, peer in by_label.items():
            if label.startswith("emlearn") and label.endswith(f": forest {n_trees} x {depth}") and own:
                good = [p for p in own if p["flash"] <= peer["flash"] and p["mean"] <= peer["mean"]]
                least = min(p["flash"] for p in own), min(p["mean"] for p in own)
                words = f"{peer['flash']:,} bytes, {peer['mean']:,.0f} instructions, {100 * peer['accuracy']:.2f} %"
                verdict = good[0]["label"] if good else f"MISSED (effml least {least[0]:,} / {least[1]:,.0f})"
                console.print(f"  {label}: {words}: {verdict}")


def whole_flash(point):
    return point["flash"] + point["library"]


def _fit_in_words(point):
    size, count = f"{whole_flash(point):,} bytes", f"{point['mean']:,.0f}"
    return f"{100 * point['accuracy']:.1f} %, {point['label'][6:]}: {size}, {count}"


def print_what_fits(console):
    table = Table(title="the most accurate effml model within so many KiB of flash, library included; instructions")
    table.add_column("KiB", justify="right")
    for name in SETS:
        table.add_column(name)
    for kib in KIB:
        cells = []
        for name in SETS:
            own = [point for point in results_of(name) if point["label"].startswith("effml") and "flash" in point]
            fitting = [point for point in own if whole_flash(point) <= 1024 * kib]
            best = max(fitting, key=lambda each: (each["accuracy"], -whole_flash(each)), default=None)
            cells.append("-" if best is None else _fit_in_words(best))
        table.add_row(str(kib), *cells)
    console.print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=SETS, help="one data set")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--report", action="store_true", help="measure nothing, print what is there")
    arguments = parser.parse_args()
    console = Console(width=170)
    for name in (arguments.only,) if arguments.only else SETS:
        if not arguments.report:
            measure_all(name, arguments)
        print_report(console, name)
    print_what_fits(console)


if __name__ == "__main__":
    main()
