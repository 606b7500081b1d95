"""One random forest as C from effml, emlearn, m2cgen, TL2cgen and micromlgen, and from Python, in one run.

    EFFML_DATA=/path/to/npz python benchmarks/forests_export.py [--qemu] [--only magic] [--peers-python PYTHON]

RandomForestClassifier(100, max_depth=10, random_state=0) on magic and letter, 70/30 split shuffled with seed 0, float32
rows. The peers (`pip install emlearn m2cgen micromlgen treelite tl2cgen onnxruntime skl2onnx`) run in the interpreter
of `--peers-python`, by default this one. int16 exports get int16 rows: letter's are integers already; magic's are
scaled to +-32000 a feature and the forest is fitted again on them, and `predict` is then that forest's.

What every exporter is measured by:

- C KiB: what it writes, libraries and headers of its own apart. Generation and gcc: CPU seconds, gcc until 150.
- x86-64 and Cortex-M3: .text + .rodata + .data with gcc -Os, with the function that turns a row into a class.
- ns/row: on this machine with -O2 (with -Os where -O2 takes over 150 s), one row after the other in C, CPU time.
- predict: held-out rows whose class is that of scikit-learn's `predict`, %. vote: that of the vote the exporter takes
  itself, computed by scikit-learn from the same trees (hard: what most trees say; soft: `predict`; "cuts": the forest
  with its thresholds merged to so many a feature); less than 100 is a defect.
- instructions and stack (`--qemu`): mean and maximum over 50 held-out rows on an emulated Cortex-M3.

Peers are measured once and kept in benchmarks/results/forests_export; `--again NAME` measures those whose name contains
NAME anew. effml is measured every time.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import joblib
import numpy as np
from forest_peers import (
    CORTEX_M3,
    EXPORTERS,
    HOST,
    Failed,
    TooSlow,
    compile_model,
    count_on_device,
    flash_bytes,
    generate,
    run_on_host,
)
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree._tree import Tree
from threadpoolctl import threadpool_limits

import effml
from effml._trees import trees_of
from effml.datasets import load_dataset
from effml.forests import merge_to_cuts

RESULTS = Path(__file__).resolve().parent / "results" / "forests_export"
GENERATE_LIMIT = 1200  # CPU seconds
COMPILE_LIMIT = 150
DEVICE_ROWS = 50
INT16_LARGEST = 32_000
NOT_TRIED = {
    ("magic", "TL2cgen, one function"): "gcc -Os takes over 300 s",
    ("letter", "TL2cgen, one function"): "gcc -Os takes over 200 s",
    ("letter", "TL2cgen, a function a tree"): "gcc -Os takes over 280 s",
}
SCALED = "emlearn inline int16, hard, scaled"  # letter's integers scaled like magic's numbers
# name: (hard votes, most thresholds a feature, options of effml.lower)
EFFML_FORMS = {
    "effml table": (False, None, {}),
    "effml table, 8 bits": (False, None, {"leaf_bits": 8}),
    "effml table, 8 bits, 255 cuts": (False, 255, {"leaf_bits": 8}),
    "effml table, 8 bits, 255 cuts, NaN right": (False, 255, {"leaf_bits": 8, "missing": "right"}),
    "effml table, 8 bits, 31 cuts": (False, 31, {"leaf_bits": 8}),
    "effml table, hard": (True, None, {}),
    "effml table, hard, 255 cuts": (True, 255, {}),
    "effml code, 8 bits": (False, None, {"leaf_bits": 8, "layout": "code"}),
    "effml code, 8 bits, 255 cuts": (False, 255, {"leaf_bits": 8, "layout": "code"}),
    "effml code, 8 bits, 255 cuts, NaN right": (
        False,
        255,
        {"leaf_bits": 8, "layout": "code", "missing": "right"},
    ),
    "effml code, hard": (True, None, {"layout": "code"}),
    "effml code, hard, 255 cuts": (True, 255, {"layout": "code"}),
    "effml table, 8 bits, int16 rows": (False, None, {"leaf_bits": 8, "input_dtype": "int16"}),
    "effml code, hard, int16 rows": (True, None, {"layout": "code", "input_dtype": "int16"}),
}


# -- forests ----------------------------------------------------------------------------------------------------------


class Case:
    """A data set, the forest fitted on it, and the forest fitted on its integers."""

    def __init__(self, name):
        data = load_dataset(name)
        X = data.data if data.data is not None else np.concatenate([data.X_train, data.X_test])
        y = data.target if data.target is not None else np.concatenate([data.y_train, data.y_test])
        X, order = X.astype(np.float32), np.random.default_rng(0).permutation(len(X))
        train, test = np.split(order, [int(0.7 * len(X))])
        self.name = name
        self.X, self.X_test, self.y, self.y_test = X[train], X[test], y[train], y[test]

    @staticmethod
    def fit(X, y):
        return RandomForestClassifier(100, max_depth=10, random_state=0).fit(X, y)

    @cached_property
    def forest(self):
        return self.fit(self.X, self.y)

    @cached_property
    def scaled(self):
        """Forest on integers, and the held-out rows as such."""
        largest = np.abs(self.X).max(axis=0)
        train, test = (
            np.clip(np.rint(X / largest * INT16_LARGEST), -32768, 32767).astype(np.int16) for X in (self.X, self.X_test)
        )
        return self.fit(train, self.y), test

    def seen_by(self, exporter, row):
        """Return the forest an exporter is given and the held-out rows its C reads."""
        if row == "float":
            return self.forest, self.X_test
        if self.name == "letter" and exporter != SCALED:
            return self.forest, self.X_test.astype(np.int16)
        return self.scaled


def n_splits(forest):
    return sum(int(tree.tree_.n_leaves) - 1 for tree in forest.estimators_)


def most_cuts(trees):
    """Return the largest number of distinct thresholds that a feature has."""
    return max(len(np.unique(trees.threshold[trees.feature == k])) for k in np.unique(trees.feature))


def hard_vote(forest):
    """Return a forest whose trees give their class whole, so that `predict` takes what most trees say."""
    trees = trees_of(forest)
    return with_trees(forest, replace(trees, value=np.eye(trees.n_outputs)[trees.value.argmax(axis=1)]))


def with_trees(forest, trees):
    """Return a copy of a fitted forest that has other trees."""
    changed = copy(forest)
    changed.estimators_ = [copy(tree) for tree in forest.estimators_]
    for k, tree in enumerate(changed.estimators_):
        tree.tree_ = _tree(trees.subset([k]), forest)
    return changed


def _tree(one, forest):
    order, stack = [], one.roots.tolist()
    while stack:  # the pre-order of scikit-learn
        order.append(stack.pop())
        if order[-1] >= 0:
            stack += one.children[order[-1], ::-1].tolist()
    place = {node: position for position, node in enumerate(order)}
    state = forest.estimators_[0].tree_.__getstate__()
    nodes = np.zeros(len(order), dtype=state["nodes"].dtype)
    nodes["left_child"] = nodes["right_child"] = -1
    nodes["feature"], nodes["threshold"] = -2, -2.0
    values = np.zeros((len(order), 1, one.n_outputs))
    for node, position in place.items():
        if node < 0:
            values[position, 0] = one.value[~node]
            continue
        left, right = one.children[node].tolist()
        nodes[position]["left_child"], nodes[position]["right_child"] = place[left], place[right]
        nodes[position]["feature"], nodes[position]["threshold"] = one.feature[node], one.threshold[node]
        nodes[position]["missing_go_to_left"] = not one.missing_right[node]
    tree = Tree(forest.n_features_in_, np.array([one.n_outputs], dtype=np.intp), 1)
    tree.__setstate__({"max_depth": one.depth(), "node_count": len(order), "nodes": nodes, "values": values})
    return tree


# -- one exporter -----------------------------------------------------------------------------------------------------


def measure(folder, rows, row, expected, include, qemu):
    """Compile the C in `folder`, run it, and return all that is measured; what takes too long is None or missing.

    `expected` are classes of the rows under the names that the shares of equal ones get.
    """
    result = {}
    try:
        objects, result["gcc_s"] = compile_model(folder, row, HOST, "-Os", include, COMPILE_LIMIT)
    except TooSlow as error:
        return result | {"gcc_s": None, "note": f"gcc -Os {error}"}
    result["host_bytes"] = flash_bytes(objects, HOST)
    result["level"] = "-O2"
    try:
        objects, _ = compile_model(folder, row, HOST, "-O2", include, COMPILE_LIMIT)
    except TooSlow:
        result["level"] = "-Os"
    labels, result["ns_per_row"] = run_on_host(objects, rows, row, folder)
    result |= {name: float(np.mean(labels == classes)) for name, classes in expected.items()}
    if shutil.which("arm-none-eabi-gcc"):
        try:
            result |= measure_on_device(folder, rows[:DEVICE_ROWS], row, labels[:DEVICE_ROWS], include, qemu)
        except (TooSlow, Failed) as error:
            result["note"] = f"Cortex-M3: {error}"
    return result


def measure_on_device(folder, rows, row, labels, include, qemu):
    objects, _ = compile_model(folder, row, CORTEX_M3, "-Os", include, COMPILE_LIMIT)
    result = {"device_bytes": flash_bytes(objects, CORTEX_M3)}
    if qemu:
        found, result["instructions"], result["stack"] = count_on_device(objects, rows, row, folder)
        if not np.array_equal(found, labels):
            raise SystemExit("the emulated Cortex-M3 and the host give different classes")
    return result


def c_bytes(folder):
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".c", ".h", ".cpp"))


def measure_peer(case, exporter, python, qemu):
    name = exporter.removesuffix(", scaled")
    _, _, row, hard = EXPORTERS[name]
    forest, rows = case.seen_by(exporter, row)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        joblib.dump(forest, folder / "forest.joblib")
        (folder / "model").mkdir()
        try:
            made = generate(python, name, folder / "forest.joblib", folder / "model", GENERATE_LIMIT)
        except TooSlow as error:
            return {"note": f"generation {error}"}
        result = {"generate_s": made["generate_s"], "c_bytes": c_bytes(folder / "model"), "n_splits": n_splits(forest)}
        expected = classes_expected(case, forest, hard_vote(forest) if hard else forest, rows)
        return result | measure(folder / "model", rows, row, expected, made["include"], qemu)


def measure_effml(case, form, qemu):
    hard, max_cuts, options = EFFML_FORMS[form]
    row = "int16_t" if "input_dtype" in options else "float"
    forest, rows = case.seen_by(form, row)
    own = forest
    if max_cuts is not None:
        if most_cuts(trees_of(own)) <= max_cuts:
            return {"note": "no feature has more cuts"}
        own = with_trees(own, merge_to_cuts(trees_of(own), max_cuts, case.X))
    if hard:
        own = hard_vote(own)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        begin = time.process_time()
        effml.to_c(own, folder, **options)
        seconds = time.process_time() - begin
        (folder / "label.c").write_text(
            '#include "model.h"\nint32_t label(const ROW *row);\n'
            "int32_t label(const ROW *row) { return model_predict(row); }\n"
        )
        result = {"generate_s": seconds, "c_bytes": c_bytes(folder), "n_splits": n_splits(own)}
        return result | measure(folder, rows, row, classes_expected(case, forest, own, rows), (), qemu)


def classes_expected(case, forest, own, rows):
    """Return the classes by scikit-learn, by the forest that an exporter should equal, and the true ones."""
    rows = rows.astype(np.float32)
    return {"equal_predict": forest.predict(rows), "equal_vote": own.predict(rows), "accuracy": case.y_test}


def kept(case, exporter, arguments):
    """Return what was measured of a peer, measuring it where that is not there yet."""
    if (case.name, exporter) in NOT_TRIED:
        return {"note": f"not tried: {NOT_TRIED[case.name, exporter]}"}
    path = RESULTS / f"{case.name}-{re.sub(r'[^a-z0-9]+', '-', exporter.lower())}.json"
    result = json.loads(path.read_text()) if path.is_file() else None
    again = arguments.again is not None and arguments.again in exporter
    uncounted = arguments.qemu and result and "device_bytes" in result and "instructions" not in result
    if result is None or again or uncounted:
        try:
            result = measure_peer(case, exporter, arguments.peers_python, arguments.qemu)
        except (Failed, TooSlow) as error:
            return {"note": str(error)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1))
    return result


# -- runtimes for Python ----------------------------------------------------------------------------------------------


def scikit_learn(forest, n_threads):
    return copy(forest).set_params(n_jobs=n_threads).predict


def onnxruntime(forest, n_threads):
    import onnxruntime
    import skl2onnx

    row = np.zeros((1, forest.n_features_in_), dtype=np.float32)
    model = skl2onnx.to_onnx(forest, row, options={"zipmap": False})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = n_threads, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name, label = session.get_inputs()[0].name, session.get_outputs()[0].name
    return lambda X: session.run([label], {name: X})[0]


def effml_compiled(forest, n_threads):
    return effml.compile_c(forest).predict


def effml_compiled_code(forest, n_threads):
    return effml.compile_c(forest, layout="code").predict


def effml_program(forest, n_threads):
    program = effml.lower(forest)
    return lambda X: program.labels(program.encode(X))


RUNTIMES = {
    "scikit-learn": (scikit_learn, (1, 2)),
    "onnxruntime": (onnxruntime, (1, 2)),
    "effml, compiled C": (effml_compiled, (1,)),
    "effml, compiled C, code layout": (effml_compiled_code, (1,)),
    "effml, Program": (effml_program, (1, 2)),
}


def best_seconds(call, repeats):
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def runtime_rows(case):
    """Yield name, threads, batch ns a row, one-row microseconds and agreement with `predict`; or name and a reason."""
    X, expected = np.ascontiguousarray(case.X_test), case.forest.predict(case.X_test)
    for name, (make, threads) in RUNTIMES.items():
        for n_threads in threads:
            with threadpool_limits(n_threads):
                try:
                    predict = make(case.forest, n_threads)
                    equal = float(np.mean(predict(X) == expected))
                except (ImportError, RuntimeError, TypeError, ValueError) as error:
                    yield name, n_threads, None, None, None, f"{type(error).__name__}: {error}"
                    continue
                batch = best_seconds(lambda predict=predict: predict(X), 15) / len(X)
                one = best_seconds(lambda predict=predict: predict(X[:1]), 50)
            yield name, n_threads, 1e9 * batch, 1e6 * one, equal, ""


# -- tables -----------------------------------------------------------------------------------------------------------


def text(value, pattern="{:,.0f}", scale=1.0):
    return "-" if value is None else pattern.format(scale * value)


def print_exporters(console, case, arguments):
    accuracy = case.forest.score(case.X_test, case.y_test)
    title = f"{case.name}: {len(case.X_test)} held-out rows, {n_splits(case.forest)} splits, accuracy {accuracy:.4f}"
    table = Table(title=title)
    for column in ("exporter", "generate s", "C KiB", "gcc s", "x86-64 KiB", "M3 KiB", "M3 B/split", "ns/row"):
        table.add_column(column, justify="left" if column == "exporter" else "right")
    for column in ("predict %", "vote %", "accuracy", "instructions", "stack", ""):
        table.add_column(column, justify="right" if column else "left", max_width=26 if not column else None)

    def add(name, result):
        get = result.get
        per_split = get("device_bytes") and get("device_bytes") / get("n_splits")
        slower = " (-Os)" if get("level") == "-Os" else ""
        table.add_row(
            name,
            text(get("generate_s"), "{:.1f}"),
            text(get("c_bytes"), scale=1 / 1024),
            text(get("gcc_s"), "{:.1f}"),
            text(get("host_bytes"), "{:.1f}", 1 / 1024),
            text(get("device_bytes"), "{:.1f}", 1 / 1024),
            text(per_split, "{:.2f}"),
            text(get("ns_per_row")) + slower,
            text(get("equal_predict"), "{:.2f}", 100),
            text(get("equal_vote"), "{:.2f}", 100),
            text(get("accuracy"), "{:.4f}"),
            text(get("instructions")),
            text(get("stack")),
            get("note", ""),
        )

    scaled = [SCALED] if case.name == "letter" else []
    for exporter in [*EXPORTERS, *scaled, "TL2cgen, one function"]:
        say(f"{case.name}: {exporter}")
        add(exporter, kept(case, exporter, arguments))
    table.add_section()
    for form in EFFML_FORMS:
        say(f"{case.name}: {form}")
        try:
            add(form, measure_effml(case, form, arguments.qemu))
        except (ValueError, TypeError, Failed, TooSlow) as error:
            add(form, {"note": f"{type(error).__name__}: {error}"})
    console.print(table)


def print_runtimes(console, case):
    table = Table(title=f"{case.name}: from Python, {len(case.X_test)} rows in one call and one row, best wall time")
    for column in ("runtime", "threads", "batch ns/row", "one row us", "predict %", ""):
        table.add_column(column, justify="left" if column in ("runtime", "") else "right")
    for name, n_threads, batch, one, equal, note in runtime_rows(case):
        agreement = text(equal, "{:.2f}", 100)
        table.add_row(name, str(n_threads), text(batch), text(one, "{:,.1f}"), agreement, note)
    console.print(table)


def say(what):
    print(f"  {what}", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=("magic", "letter"), help="one data set")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--qemu", action="store_true", help="count instructions on an emulated Cortex-M3")
    parser.add_argument("--again", metavar="NAME", help="measure anew the peers whose name contains NAME")
    arguments = parser.parse_args()
    if arguments.qemu and not (shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")):
        parser.error("--qemu needs qemu-system-arm and arm-none-eabi-gcc")
    console = Console(width=190)
    for name in (arguments.only,) if arguments.only else ("magic", "letter"):
        case = Case(name)
        print_exporters(console, case, arguments)
        print_runtimes(console, case)


if __name__ == "__main__":
    main()
