"""Would a scale for each feature pay? Contrast tables of one step against tables of one step a feature.

    EFFML_DATA=/path/to/npz python benchmarks/bayes_feature_scales.py

letter (`letter_mdl`), naive Bayes trained in float (hybrid), then rounded to 1 to 5 bits. With one step, it is
the best of a grid by accuracy on the training rows; with one a feature, each starts there and is moved by coordinate
descent over multiples, twice through the features, by the same measure. A device would add `multiplier * code` instead
of `code`: a byte and a multiplication a feature. Margin by 3-fold cross-validation for each column; 3 seeds.
"""

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import StratifiedKFold

from effml.bayes import NaiveBayesClassifier
from effml.datasets import load_dataset

MARGINS = (1.0, 2.0, 5.0, 10.0, 20.0)
SEEDS = (0, 1, 2)
STEPS = np.geomspace(0.05, 4.0, 24)
FACTORS = (0.6, 0.75, 1.3, 1.7)


def rounded(table, step, n_bits):
    half = (2**n_bits - 1) / 2
    return step * (np.clip(np.rint(table / step + half), 0, 2**n_bits - 1) - half)


def scores(tables, X):
    return sum(table[X[:, i]] for i, table in enumerate(tables))


def errors(model, X, y, X_test, y_test, n_bits):
    """Return the test errors in % with one step and with one a feature."""
    prior = model.class_log_prior_ / len(model.log_tables_)
    tables = [table + prior for table in model.log_tables_]
    tables = [table - table.mean(axis=1, keepdims=True) for table in tables]
    labels, test_labels = (np.searchsorted(model.classes_, part) for part in (y, y_test))

    def accuracy(totals):
        return np.mean(totals.argmax(axis=1) == labels)

    best = max(STEPS, key=lambda step: accuracy(scores([rounded(t, step, n_bits) for t in tables], X)))
    steps = np.full(len(tables), best)
    current = [rounded(table, best, n_bits) for table in tables]
    common = 100 * np.mean(scores(current, X_test).argmax(axis=1) != test_labels)
    total = scores(current, X)
    found = accuracy(total)
    for _ in range(2):
        for i, table in enumerate(tables):
            for factor in FACTORS:
                trial = rounded(table, steps[i] * factor, n_bits)
                moved = total - current[i][X[:, i]] + trial[X[:, i]]
                if accuracy(moved) > found:
                    found, total, current[i], steps[i] = accuracy(moved), moved, trial, steps[i] * factor
    return common, 100 * np.mean(scores(current, X_test).argmax(axis=1) != test_labels)


def main():
    data = load_dataset("letter_mdl")
    n_states = data.X_train.max(axis=0).astype(int) + 1

    def fit(X, y, margin, seed):
        options = {"objective": "hybrid", "margin": margin, "random_state": seed, "discretizer": None}
        return NaiveBayesClassifier(n_states=n_states, **options).fit(X, y)

    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(data.X_train, data.y_train))
    parts = [(data.X_train[a], data.y_train[a], data.X_train[b], data.y_train[b]) for a, b in folds]
    inner = {margin: [(fit(*part[:2], margin, 0), part) for part in parts] for margin in MARGINS}
    whole = (data.X_train, data.y_train, data.X_test, data.y_test)
    outer = {(margin, seed): fit(*whole[:2], margin, seed) for margin in MARGINS for seed in SEEDS}
    table = Table(title="letter, naive Bayes rounded: test error %")
    for name in ("bits", "one step", "a step a feature"):
        table.add_column(name, justify="right")
    for n_bits in range(1, 6):
        cross_validated = {
            margin: np.mean([errors(model, *part, n_bits) for model, part in models], axis=0)
            for margin, models in inner.items()
        }
        cells = []
        for column in range(2):
            margin = min(MARGINS, key=lambda m: cross_validated[m][column])
            tests = [errors(outer[margin, seed], *whole, n_bits)[column] for seed in SEEDS]
            cells.append(f"{np.mean(tests):.2f} ± {np.std(tests, ddof=1):.2f}")
        table.add_row(str(n_bits), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
