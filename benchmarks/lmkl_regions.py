"""Two regions that need different kernels: what a gate that sees the row gives over one weighting for all rows.

    python benchmarks/lmkl_regions.py

Left of the plane two classes are divided by a line, right of it one lies in a disc: a linear and a quadratic kernel, a
linear model on them. Mean of five seeds: 600 training and 4,000 test rows, accuracy in %, and how far the mean weight
of the linear kernel differs between the regions.
"""

import numpy as np
from rich.console import Console
from rich.table import Table

from effml.kernels import LocalizedMKLClassifier

KERNELS = {"kernels": ["linear", "polynomial"], "hidden_layer_sizes": (), "n_landmarks": 100, "learn_landmarks": False}
GATES = {
    "constant": {"gate": "constant"},
    "softmax, linear (Goenen's)": {"gate": "softmax", "gate_hidden_size": 0},
    "softmax, 8 hidden units": {"gate": "softmax", "gate_hidden_size": 8},
    "softmax, 32 hidden units": {"gate": "softmax"},
    "sigmoid, 32 hidden units": {"gate": "sigmoid"},
    "rbf": {"gate": "rbf"},
}


def two_regions(n, rng):
    """Return 2 n rows and labels. Left: divided by a line. Right: a disc in a square."""
    X = np.concatenate([rng.uniform([-3, -1], [-1, 1], (n, 2)), rng.uniform([1, -1], [3, 1], (n, 2))])
    line, disc = X[:, 1] > 0.8 * (X[:, 0] + 2), (X[:, 0] - 2) ** 2 + X[:, 1] ** 2 < 0.6
    return X, np.where(X[:, 0] < 0, line, disc).astype(int)


def measure(gate, seed):
    """Return test accuracy and the difference of the mean weight of the linear kernel between the regions."""
    rng = np.random.default_rng(seed)
    (X, y), (X_test, y_test) = two_regions(300, rng), two_regions(2000, rng)
    model = LocalizedMKLClassifier(gate_alpha=1.0, random_state=seed, **KERNELS, **gate).fit(X, y)
    weights, left = model.kernel_weights(X_test), X_test[:, 0] < 0
    return model.score(X_test, y_test), abs(weights[left, 0].mean() - weights[~left, 0].mean())


def main():
    table = Table("gate", "accuracy", "difference of weights")
    for name, gate in GATES.items():
        accuracy, difference = np.mean([measure(gate, seed) for seed in range(5)], axis=0)
        table.add_row(name, f"{100 * accuracy:.1f}", f"{difference:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
