"""Fit and predict of the Bayesian network classifiers against pyAgrum and CategoricalNB, in one run, on the same bins.

    EFFML_DATA=/path/to/npz python benchmarks/bayes_speed.py [--quick]

Every method gets the same Fayyad-Irani codes of the training part (test rows coded alike), so errors compare and only
the classifier is timed. pyAgrum and pgmpy predict a slice of the test rows, as they take up to many milliseconds a row;
pyAgrum is left out beyond 64 features, where one fit takes minutes, and pgmpy fits letter alone. "gram" is the numpy
yardstick of a TAN: one-hot Gram matrices for the structure and the counts. Times are medians; effml uses all threads,
like BLAS in the yardstick. The last line is the whole TAN on raw MNIST 28x28, discretisation included.
"""

import argparse
import os
import time
import warnings
from statistics import median

import numpy as np
from bayes_structure import data_sets as training_sets
from bayes_structure import gram_information
from rich.console import Console
from rich.table import Table
from sklearn.naive_bayes import CategoricalNB

from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.bayes.structure import chow_liu_parents
from effml.datasets import load_dataset
from effml.discretization import MDLPDiscretizer

PYAGRUM_ROWS = 300
PGMPY_ROWS = 50
PYAGRUM_MAX_FEATURES = 64


def timed(function, repeats):
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - begin)
    return median(times), result


def gram_tan(codes, y, n_states):
    """The yardstick's fit: structure by Gram matrices, then the tables of the tree by bincount."""
    information = gram_information(codes, y, n_states)
    parents = chow_liu_parents((information + information.T) / 2)  # equal but for rounding
    n_classes, tables = int(y.max()) + 1, []
    for i, parent in enumerate(parents):
        width = n_states[parent] if parent >= 0 else 1
        other = codes[:, parent].astype(np.int64) if parent >= 0 else 0
        cell = (codes[:, i].astype(np.int64) * width + other) * n_classes + y
        counts = np.bincount(cell, minlength=n_states[i] * width * n_classes).reshape(n_states[i], width, n_classes)
        tables.append(np.log((counts + 1) / (counts.sum(axis=0, keepdims=True) + n_states[i])))
    return parents, tables


def pyagrum_row(kind, codes, y, test_codes, n_states):
    from pyagrum.lib.discreteTypeProcessor import DiscreteTypeProcessor
    from pyagrum.skbn import BNClassifier

    def make():
        types = DiscreteTypeProcessor("NoDiscretization", f"[0,{n_states.max() - 1}]", discretizationThreshold=1)
        return BNClassifier(learningMethod=kind, prior="Smoothing", priorWeight=1, type_processor=types)

    fit, model = timed(lambda: make().fit(codes.astype(np.int64), y), 1)
    few = test_codes[:PYAGRUM_ROWS].astype(np.int64)
    predict, labels = timed(lambda: model.predict(few), 1)
    return fit, predict / len(few), labels


def pgmpy_row(codes, y, test_codes, repeats=1):
    import pandas as pd
    from pgmpy.estimators import TreeSearch
    from pgmpy.models import DiscreteBayesianNetwork
    from pgmpy.parameter_estimator import DiscreteMLE

    names = [f"x{k}" for k in range(codes.shape[1])]
    frame = pd.DataFrame(codes, columns=names).assign(y=y)

    def fit():
        tree = TreeSearch(frame, root_node="x0", n_jobs=1).estimate("tan", class_node="y", show_progress=False)
        return DiscreteBayesianNetwork(tree.edges()).fit(frame, estimator=DiscreteMLE())

    seconds, model = timed(fit, repeats)
    few = pd.DataFrame(test_codes[:PGMPY_ROWS], columns=names)
    predict, labels = timed(lambda: model.predict(few), repeats)
    return seconds, predict / len(few), labels["y"]


def compare(table, name, X, y, X_test, y_test, repeats, with_pgmpy):
    discretizer = MDLPDiscretizer(n_jobs=-1).fit(X, y)
    codes, test_codes = discretizer.transform(X), discretizer.transform(X_test)
    n_states = np.asarray(discretizer.n_states_)
    ours = {}

    def row(label, fit, predict, error, base):
        ratio = ["-", "-"] if base is None else [f"{fit / base[0]:.1f}" if fit else "-", f"{predict / base[1]:.1f}"]
        fit_text = f"{1e3 * fit:.1f}" if fit else "-"
        table.add_row(name, label, fit_text, f"{1e6 * predict:.3f}", error, *ratio)

    for label, cls in (("NaiveBayesClassifier", NaiveBayesClassifier), ("TANClassifier", TANClassifier)):
        make = lambda cls=cls: cls(discretizer=None, n_states=n_states, n_jobs=os.cpu_count())  # noqa: E731
        fit, model = timed(lambda make=make: make().fit(codes, y), repeats)
        predict, labels = timed(lambda model=model: model.predict(test_codes), repeats)
        ours[label] = (fit, predict / len(test_codes))
        row(label, *ours[label], f"{100 * np.mean(labels != y_test):.2f}", None)
    fit, peer = timed(lambda: CategoricalNB(min_categories=n_states).fit(codes, y), repeats)
    predict, labels = timed(lambda: peer.predict(test_codes), repeats)
    error = f"{100 * np.mean(labels != y_test):.2f}"
    row("CategoricalNB / our NB", fit, predict / len(test_codes), error, ours["NaiveBayesClassifier"])
    row("CategoricalNB / our TAN", fit, predict / len(test_codes), error, ours["TANClassifier"])
    gram_repeats = repeats if codes.size < 1e7 else 1
    fit, _ = timed(lambda: gram_tan(codes, y, n_states), gram_repeats)
    table.add_row(
        name, "gram TAN / our TAN", f"{1e3 * fit:.1f}", "-", "-", f"{fit / ours['TANClassifier'][0]:.1f}", "-"
    )
    if codes.shape[1] <= PYAGRUM_MAX_FEATURES:
        for kind, label in (("NaiveBayes", "NaiveBayesClassifier"), ("TAN", "TANClassifier")):
            fit, predict, labels = pyagrum_row(kind, codes, y, test_codes, n_states)
            wrong = 100 * np.mean(np.asarray(labels) != y_test[: len(labels)])
            row(f"pyAgrum {kind} / ours", fit, predict, f"{wrong:.1f} of {len(labels)}", ours[label])
    if name == "letter" and with_pgmpy:
        fit, predict, labels = pgmpy_row(codes, y, test_codes)
        wrong = 100 * np.mean(np.asarray(labels) != y_test[: len(labels)])
        row("pgmpy TAN / ours", fit, predict, f"{wrong:.1f} of {len(labels)}", ours["TANClassifier"])
    table.add_section()


def test_part(name, width):
    data = load_dataset(name.split()[0])
    X = data.X_test
    if name == "mnist 14x14":
        X = X.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(X), -1)
    assert X.shape[1] == width
    return X, data.y_test


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="without MNIST and pgmpy, three repeats")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    repeats = 3 if arguments.quick else 7
    table = Table(title=f"same bins; peers as multiples of effml; {os.cpu_count()} processors")
    for column in ("data", "method", "fit ms", "predict us/row", "test error %", "fit x", "predict x"):
        table.add_column(column, justify="left" if column in ("data", "method") else "right")
    for name, X, y in training_sets(arguments.quick):
        compare(table, name, X, y, *test_part(name, X.shape[1]), repeats, not arguments.quick)
    Console(width=130).print(table)
    if not arguments.quick:
        data = load_dataset("mnist")
        fit, model = timed(lambda: TANClassifier(n_jobs=-1).fit(data.X_train, data.y_train), 3)
        predict, labels = timed(lambda: model.predict(data.X_test), 3)
        error = 100 * np.mean(labels != data.y_test)
        print(
            f"TAN on raw MNIST 28x28, discretisation included: fit {fit:.2f} s, "
            f"predict {1e6 * predict / len(labels):.2f} us/row, test error {error:.2f} %"
        )


if __name__ == "__main__":
    main()
