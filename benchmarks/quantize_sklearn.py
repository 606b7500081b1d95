"""What `effml.quantize` costs in accuracy and saves in flash: linear models and networks of scikit-learn.

    EFFML_DATA=/path/to/npz python benchmarks/quantize_sklearn.py [--seeds 3]

Models are fitted in float on a training part, quantised with at most 1,000 of its rows and scored on held-out rows;
nothing is chosen by test scores. Scores are accuracies, of diabetes R2, times 100; a loss is in points, mean over the
seeds (of split and training; letter has its own split). Every label of the last seed is compared with the compiled C.
"""

import argparse
import time
import warnings

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import effml
from effml.datasets import load_dataset

BITS = ((8, 8), (4, 8), (4, 4), (3, 8), (2, 8))  # of weights, of inputs and activations
CALIBRATION_ROWS = 1000
LETTER_ROWS = 8000
LOADERS = {"digits": load_digits, "breast_cancer": load_breast_cancer, "diabetes": load_diabetes}
NET = {"max_iter": 80, "learning_rate_init": 3e-3}
CLASSIFIERS = {
    "LogisticRegression": LogisticRegression(max_iter=300),
    "LinearSVC": LinearSVC(C=0.01),
    "MLP 64, relu": MLPClassifier((64,), **NET),
    "MLP 32 x 32, relu": MLPClassifier((32, 32), **NET),
    "MLP 32, tanh": MLPClassifier((32,), activation="tanh", **NET),
}
REGRESSORS = {
    "Ridge": Ridge(),
    "MLP 16, relu": MLPRegressor(hidden_layer_sizes=(16,), alpha=1.0, max_iter=300),
    "MLP 16, tanh": MLPRegressor(hidden_layer_sizes=(16,), activation="tanh", alpha=1.0, max_iter=300),
}


def rows_of(name, seed):
    """Return X and y to fit on and X and y to score."""
    if name == "letter":
        data = load_dataset("letter")
        chosen = np.random.default_rng(seed).permutation(len(data.X_train))[:LETTER_ROWS]
        return data.X_train[chosen], data.y_train[chosen], data.X_test, data.y_test
    X, y = LOADERS[name](return_X_y=True)
    y = (y - y.mean()) / y.std() if name == "diabetes" else y
    parts = train_test_split(X, y, test_size=0.4, random_state=seed)
    return parts[0], parts[2], parts[1], parts[3]


def run(name, model, seed, check):
    """Return the float score, losses in points, and the flash bytes of the float model and of each width."""
    X, y, X_test, y_test = rows_of(name, seed)
    model = clone(model)
    if "random_state" in model.get_params():
        model.set_params(random_state=seed)
    model = make_pipeline(StandardScaler(), model).fit(X, y)
    score = 100 * model.score(X_test, y_test)
    losses, flash = [], [effml.footprint(model).flash_bytes]
    for weight_bits, activation_bits in BITS:
        calibration = X[:CALIBRATION_ROWS]
        small = effml.quantize(model, calibration, weight_bits=weight_bits, activation_bits=activation_bits)
        losses.append(score - 100 * small.score(X_test, y_test))
        flash.append(effml.footprint(small).flash_bytes)
        if check:
            agreement = effml.compile_c(small).agreement(X_test)
            if agreement.n_equal != agreement.n_rows:
                raise RuntimeError(f"{name}, {model}: C and predict differ on {agreement.n_rows - agreement.n_equal}")
    return score, losses, flash


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # networks that are stopped before they converge
    start, all_losses = time.perf_counter(), []
    columns = [f"{weight}/{activation}" for weight, activation in BITS]
    table = Table("data", "model", "float", *(f"loss {c}" for c in columns), "flash float", *columns)
    console = Console(width=170)
    for name in ("digits", "letter", "breast_cancer", "diabetes"):
        for title, model in (REGRESSORS if name == "diabetes" else CLASSIFIERS).items():
            found = [run(name, model, seed, seed == arguments.seeds - 1) for seed in range(arguments.seeds)]
            losses = np.mean([losses for _, losses, _ in found], axis=0)
            all_losses.append(losses)
            flash = np.mean([flash for _, _, flash in found], axis=0)
            table.add_row(
                name,
                title,
                f"{np.mean([score for score, _, _ in found]):.2f}",
                *(f"{loss:+.2f}" for loss in losses),
                *(f"{size:,.0f}" for size in flash),
            )
            console.print(f"{name}, {title}: {' '.join(f'{loss:+.2f}' for loss in losses)}")
    table.add_row("mean", "", "", *(f"{loss:+.2f}" for loss in np.mean(all_losses, axis=0)))
    console.print(table)
    console.print(f"{time.perf_counter() - start:.0f} s; C = predict on every held-out row of the last seed")


if __name__ == "__main__":
    main()
