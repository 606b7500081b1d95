"""Accuracy of localized multiple kernel learning against the average-kernel SVM and the classic solvers.

    EFFML_DATA=/path/to/npz python benchmarks/lmkl_accuracy.py [--only sonar ...] [--methods ...] [--report]

Sets below 1,000 rows: twice 5-fold cross-validation, hyperparameters by 3-fold cross-validation inside each training
part. Larger sets: 5 random splits with 2,000 training and up to 4,000 test rows, hyperparameters by one inner split
(80/20). Rows are standardised by the training part; nominal columns are one-hot. All methods see the same splits.
Accuracies are compared by the corrected resampled t-test (C. Nadeau, Y. Bengio, "Inference for the generalization
error", Machine Learning 52, 2003), two-sided, 5 %.

`effml` chooses among GRID: linear or one hidden layer, the gate uniform or learned, three penalties; "uniform gate" and
"learned gate" are the best of those parts of the grid. The classic solvers take C of the average-kernel SVM, chosen for
it by the same inner splits; EasyMKL chooses lambda, RBF-SVM C and gamma. One file a set, split and method is kept in
benchmarks/results/lmkl_accuracy; what is there is not measured again.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path

import numpy as np
from lmkl_rivals import AverageKernelSVC, EasyMKLClassifier, GonenLMKLClassifier, SimpleMKLClassifier
from lmkl_svm import KernelBank
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata, t
from sklearn.datasets import load_digits
from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedKFold, StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from effml.datasets import load_dataset
from effml.kernels import LocalizedMKLClassifier

RESULTS = Path(__file__).resolve().parent / "results" / "lmkl_accuracy"
SMALL = ("sonar", "ionosphere", "heart_statlog", "liver_bupa", "breast_cancer_wdbc", "australian_credit")
SMALL += ("pima_diabetes", "musk1")
LARGE = ("digits", "satimage", "letter", "usps", "magic", "svmguide1")
VIEWS = ("mfeat views", "usps quadrants", "mnist quadrants")
DATA_SETS = SMALL + LARGE + VIEWS
N_TRAIN, N_TEST, N_SPLITS, FOLDS, REPEATS = 2000, 4000, 5, 5, 2
CS = (0.1, 1.0, 10.0, 100.0, 1000.0)
MFEAT_VIEWS = ("fou", "fac", "kar", "pix", "zer", "mor")
N_LANDMARKS = {True: 256, False: 512}  # of small sets, of others
GRID = [{"gate": "uniform", "hidden_layer_sizes": (), "alpha": a} for a in (1.0, 0.1, 0.01)]
GRID += [{"gate": "uniform", "alpha": 0.1}]
GRID += [{"gate": "softmax", "alpha": a, "gate_alpha": 100.0} for a in (1.0, 0.1)]
GRID += [{"gate": "sigmoid", "hidden_layer_sizes": (128,), "dropout": 0.3}]
GRID += [{"gate": "sigmoid", "hidden_layer_sizes": (), "alpha": 0.1}]
OURS = ("effml", "uniform gate", "learned gate")
METHODS = (*OURS, "average SVM", "RBF SVM", "SimpleMKL", "EasyMKL", "Goenen LMKL")


def one_hot(X, categorical):
    columns = []
    for column, nominal in zip(np.asarray(X, dtype=np.float64).T, categorical, strict=True):
        levels = np.unique(column)
        columns += [column == level for level in levels] if nominal and len(levels) > 2 else [column]
    return np.array(columns, dtype=np.float64).T


def load(name):
    """Return rows, labels and feature groups (None for one kernel list on all features)."""
    if name == "digits":
        return *load_digits(return_X_y=True), None
    data = load_dataset(name.split()[0])
    X = data.data if data.data is not None else np.concatenate([data.X_train, data.X_test])
    y = data.target if data.target is not None else np.concatenate([data.y_train, data.y_test])
    mask = getattr(data, "categorical", None)
    X = one_hot(X, np.zeros(X.shape[1], dtype=bool) if mask is None else mask)
    groups = None
    if name.endswith("views"):
        kinds = np.array([str(feature).split("_")[0] for feature in data.feature_names])
        groups = [np.flatnonzero(kinds == view) for view in MFEAT_VIEWS]
    elif name.endswith("quadrants"):
        side = int(np.sqrt(X.shape[1]))
        pixels, half = np.arange(side * side).reshape(side, side), side // 2
        groups = [pixels[a : a + half, b : b + half].ravel() for a in (0, half) for b in (0, half)]
    return X, np.unique(y, return_inverse=True)[1], groups


def outer_splits(name, X, y):
    if name in SMALL:
        return list(RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0).split(X, y))
    n_test = min(N_TEST, len(X) - N_TRAIN) if len(X) > 1.5 * N_TRAIN else len(X) // 4
    n_train = min(N_TRAIN, len(X) - n_test)
    return list(StratifiedShuffleSplit(N_SPLITS, train_size=n_train, test_size=n_test, random_state=0).split(X, y))


def inner_splits(name, X, y):
    if name in SMALL:
        return list(StratifiedKFold(3, shuffle=True, random_state=1).split(X, y))
    return list(StratifiedShuffleSplit(1, test_size=0.2, random_state=1).split(X, y))


def best_of(settings, make, X, y, inner):
    """Return (setting, inner score) pairs, the best first; of equal ones the first."""
    scores = []
    for setting in settings:
        found = [make(**setting).fit(X[a], y[a]).score(X[b], y[b]) for a, b in inner]
        scores.append(float(np.mean(found)))
    order = np.argsort([-score for score in scores], kind="stable")
    return [(settings[k], scores[k]) for k in order]


def make_effml(groups, seed, n_landmarks):
    fixed = {"groups": groups, "random_state": seed, "n_landmarks": n_landmarks}
    return lambda **setting: LocalizedMKLClassifier(**fixed, **setting)


def run_ours(case):
    X, y, X_test, y_test, inner, groups, seed = case
    make = make_effml(groups, seed, N_LANDMARKS[len(X) < 1000])
    start = time.perf_counter()
    ranked = best_of(GRID, make, X, y, inner)
    search = time.perf_counter() - start
    parts = {
        "effml": ranked,
        "uniform gate": [pair for pair in ranked if pair[0]["gate"] == "uniform"],
        "learned gate": [pair for pair in ranked if pair[0]["gate"] != "uniform"],
    }
    results, fitted = {}, {}
    for method, chosen in parts.items():
        setting = chosen[0][0]
        key = json.dumps(setting)
        if key not in fitted:
            start = time.perf_counter()
            model = make(**setting).fit(X, y)
            fitted[key] = {"fit_s": time.perf_counter() - start, "accuracy": model.score(X_test, y_test)}
        results[method] = fitted[key] | {"setting": setting, "search_s": search}
    return results


def run_rivals(case, methods):
    X, y, X_test, y_test, inner, groups, seed = case
    bank = KernelBank(groups=groups, scale=0.5)
    grids = {
        "average SVM": ([{"C": C} for C in CS], lambda C: AverageKernelSVC(bank, C=C)),
        "RBF SVM": (
            [{"C": C, "gamma": g / X.shape[1]} for C, g in product(CS[1:], (0.1, 0.3, 1.0, 3.0))],
            lambda **setting: SVC(**setting),
        ),
    }
    average = best_of(*grids["average SVM"], X, y, inner)
    C = average[0][0]["C"]
    grids |= {
        "SimpleMKL": ([{"C": C}], lambda C: SimpleMKLClassifier(bank, C=C)),
        "EasyMKL": ([{"C": C, "lam": lam} for lam in (0.1, 0.5, 0.9)], lambda **s: EasyMKLClassifier(bank, **s)),
        "Goenen LMKL": ([{"C": C}], lambda C: GonenLMKLClassifier(bank, C=C, random_state=seed)),
    }
    results = {}
    for method in methods:
        settings, make = grids[method]
        ranked = average if method == "average SVM" else [(settings[0], None)]
        if len(settings) > 1 and method != "average SVM":
            ranked = best_of(settings, make, X, y, inner)
        start = time.perf_counter()
        model = make(**ranked[0][0]).fit(X, y)
        seconds = time.perf_counter() - start
        results[method] = {"accuracy": model.score(X_test, y_test), "fit_s": seconds, "setting": ranked[0][0]}
    return results


def measure(name, methods, again):
    X, y, groups = load(name)
    for number, (train, test) in enumerate(outer_splits(name, X, y)):
        files = {method: RESULTS / f"{name}-{number}-{method}.json".replace(" ", "_") for method in methods}
        missing = [method for method, path in files.items() if again or not path.exists()]
        if not missing:
            continue
        scaler = StandardScaler().fit(X[train])
        rows, test_rows = scaler.transform(X[train]), scaler.transform(X[test])
        inner = inner_splits(name, rows, y[train])
        case = rows, y[train], test_rows, y[test], inner, groups, number
        results = run_ours(case) if any(method in OURS for method in missing) else {}
        rivals = [method for method in missing if method not in OURS]
        results |= run_rivals(case, rivals) if rivals else {}
        for method in missing:
            text = json.dumps(results[method] | {"n_train": len(train), "n_test": len(test)})
            files[method].write_text(text)
            print(f"{name} {number} {method}: {100 * results[method]['accuracy']:.2f} %", flush=True)


def corrected_p(differences, share):
    """Return the two-sided p value of the corrected resampled t-test; `share` is n_test / n_train."""
    n, spread = len(differences), np.var(differences, ddof=1)
    if spread == 0:
        return 1.0 if np.mean(differences) == 0 else 0.0
    statistic = np.mean(differences) / np.sqrt((1 / n + share) * spread)
    return 2 * t.sf(abs(statistic), n - 1)


def report(names):
    table = Table(title="accuracy, %; * significantly different from the average-kernel SVM (+ better, - worse)")
    table.add_column("set")
    for method in METHODS:
        table.add_column(method, justify="right")
    ranks, verdicts = [], {}
    for name in names:
        cells = {}
        for method in METHODS:
            found = sorted(RESULTS.glob(f"{name}-*-{method}.json".replace(" ", "_")))
            entries = {path.stem.split("-")[-2]: json.loads(path.read_text()) for path in found}
            if entries:
                cells[method] = entries
        if "average SVM" not in cells:
            continue
        row, means = [], {}
        for method in METHODS:
            if method not in cells:
                row.append("")
                continue
            common = sorted(set(cells[method]) & set(cells["average SVM"]))
            here = np.array([cells[method][k]["accuracy"] for k in common])
            there = np.array([cells["average SVM"][k]["accuracy"] for k in common])
            entry = cells[method][common[0]]
            p = corrected_p(here - there, entry["n_test"] / entry["n_train"]) if len(common) > 1 else 1.0
            mark = ("+" if here.mean() > there.mean() else "-") if p < 0.05 else ""
            verdicts[name, method] = mark
            means[method] = here.mean()
            row.append(f"{100 * here.mean():.2f}{mark}")
        table.add_row(f"{name} ({len(common)})", *row)
        whole = [m for m in METHODS if m not in OURS[1:]]
        if all(m in means for m in whole):
            ranks.append(rankdata([-means[m] for m in whole]))
    console = Console(width=150)
    console.print(table)
    if ranks:
        shown = ", ".join(f"{m} {r:.2f}" for m, r in zip(whole, np.mean(ranks, axis=0), strict=True))
        console.print(f"mean rank over {len(ranks)} sets (1 is best): {shown}")
    for method in OURS:
        marks = [verdicts[key] for key in verdicts if key[1] == method]
        worse, better = marks.count("-"), marks.count("+")
        print(f"{method} against the average SVM on {len(marks)} sets: significantly worse {worse}, better {better}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=DATA_SETS, default=DATA_SETS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--again", action="store_true", help="measure again what is there")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        with threadpool_limits(1, user_api="blas"):
            for name in arguments.only:
                measure(name, arguments.methods, arguments.again)
    report(arguments.only)


if __name__ == "__main__":
    main()
