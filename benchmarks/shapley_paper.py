"""The protocol of the multilinear sampling paper at honest counts: mean squared errors of castro, owen, owen_halved.

    EFFML_DATA=/path/to/npz python benchmarks/shapley_paper.py [--quick]

R. Okhrati and A. Lipani, A multilinear sampling algorithm to estimate Shapley values, ICPR 2020. Credit card: rows with
MARRIAGE = 3 or EDUCATION in {5, 6} dropped, z-scored, first 15 columns and a bias column, which is a player too; an MLP
16-13-9-2 of sigmoids, random 80/20 split, absent features 0, the probability of the predicted class; exact values by
enumeration. MNIST: 785 players, an MLP 785-450-25-10; the reference is "permutation" with 100 orders and reverses.
The paper counts two evaluations a marginal and compares at equal numbers of samples; the first table does so, the
others compare at equal numbers of distinct coalitions, as everywhere in effml. The MLPs are scikit-learn's, biases
included.
"""

import time
import warnings
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from effml.datasets import load_dataset
from effml.shapley import InterventionalGame
from effml.shapley.estimators import make_plan

SAMPLED = ("castro", "owen", "owen_halved", "owen_unbiased", "permutation")
CREDIT_BUDGETS = (100, 300, 1000, 3000, 10000)
Q, M = 1000, 2  # of the paper's own comparison, castro with 2,000 orders


def credit_games(n_points):
    """Return the values of all 2**16 coalitions of the points (65536, n_points), and the test accuracy."""
    data = load_dataset("credit_default")
    columns = list(data.feature_names)
    rows = (data.data[:, columns.index("MARRIAGE")] != 3) & ~np.isin(data.data[:, columns.index("EDUCATION")], (5, 6))
    X, y = np.asarray(data.data[rows], dtype=np.float64), data.target[rows]
    X = ((X - X.mean(axis=0)) / X.std(axis=0))[:, :15]
    X = np.hstack([X, np.ones((len(X), 1))])
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.2, random_state=5)
    model = MLPClassifier(
        hidden_layer_sizes=(13, 9), activation="logistic", batch_size=300, max_iter=50, random_state=5
    ).fit(X, y)
    points = X_test[np.random.default_rng(5).permutation(len(X_test))[:n_points]]
    coalitions = make_plan("exact", 16, None, [0]).coalitions
    baseline, tables = np.zeros((1, 16)), []
    for point in points:
        game = InterventionalGame(_predicted_class(model, point), baseline, batch_size=1 << 16)
        tables.append(game(point[None], coalitions))
    return np.concatenate([table[:, :, 0] for table in tables], axis=1), model.score(X_test, y_test)


def _predicted_class(model, point):
    label = model.predict_proba(point[None]).argmax()
    return lambda rows: model.predict_proba(rows)[:, label]


def credit_card(n_points, n_repeats, console):
    table, accuracy = credit_games(n_points)
    bits = 1 << np.arange(16)
    exact = make_plan("exact", 16, None, [0]).solve(table).values
    console.print(f"credit card: {n_points} points, {n_repeats} repeats, test accuracy {accuracy:.4f}")

    def squared_error(method, budget, repeats, **options):
        errors, counts = [], []
        for seed in range(repeats):
            plan = make_plan(method, 16, budget, [seed], **options)
            errors.append(((plan.solve(table[plan.coalitions @ bits]).values - exact) ** 2).mean())
            counts.append(len(plan.coalitions))
        return float(np.mean(errors)), float(np.mean(counts))

    shown = Table(title=f"Equal samples, as in the paper: Q = {Q}, M = {M}", title_justify="left")
    for column in ("method", "mean squared error", "ratio to castro", "distinct coalitions"):
        shown.add_column(column)
    orders = 2 + 15 * M * Q
    found = {"castro": squared_error("castro", orders, max(2, n_repeats // 10))}
    for method in ("owen", "owen_halved"):
        found[method] = squared_error(method, None, max(2, n_repeats // 10), n_levels=Q, n_repeats=M)
    for method, (error, count) in found.items():
        shown.add_row(method, f"{error:.2e}", f"{error / found['castro'][0]:.3f}", f"{count:.0f}")
    console.print(shown)
    shown = Table(title="Mean squared error at equal distinct coalitions", title_justify="left")
    methods = (*SAMPLED, "regression", "auto")
    for column in ("coalitions", *methods):
        shown.add_column(column)
    for budget in CREDIT_BUDGETS:
        cells = []
        for method in methods:
            few = method == "auto" or budget > 3000
            if method == "auto" and budget > 3000:
                cells.append("-")
                continue
            error, count = squared_error(method, budget, 2 if few else n_repeats)
            cells.append(f"{error:.1e} ({count:.0f})")
        shown.add_row(str(budget), *cells)
    console.print(shown)


def mnist(n_points, n_repeats, console, quick):
    data = load_dataset("mnist")
    n_rows = 6000 if quick else 60000
    X, X_test = (np.hstack([Z / 255.0, np.ones((len(Z), 1))]) for Z in (data.X_train[:n_rows], data.X_test))
    model = MLPClassifier(
        hidden_layer_sizes=(450, 25), activation="logistic", batch_size=300, max_iter=3 if quick else 8, random_state=3
    )
    model.fit(X, data.y_train[:n_rows])
    accuracy = model.score(X_test, data.y_test)
    n = X.shape[1]
    reference_budget = 2 + 2 * (n - 1) * (20 if quick else 100)
    budgets = [2 + 2 * (n + 1) + k * 2 * (n + 1) for k in ((1, 4) if quick else (1, 4, 16))]
    console.print(f"MNIST: {n_points} images, test accuracy {accuracy:.4f}; reference {reference_budget} coalitions")
    errors = {}
    for number in range(n_points):
        point = X_test[number]
        game = InterventionalGame(_predicted_class(model, point), np.zeros((1, n)), batch_size=1 << 14)

        def solve(method, budget, seed, game=game, point=point):
            plan = make_plan(method, n, budget, [seed])
            return plan.solve(game(point[None], plan.coalitions)[:, :, 0]).values[:, 0], len(plan.coalitions)

        exact, _ = solve("permutation", reference_budget, 1000 + number)
        for budget in budgets:
            for method in SAMPLED:
                for seed in range(n_repeats):
                    phi, count = solve(method, budget, seed)
                    errors.setdefault((budget, method), []).append((((phi - exact) ** 2).mean(), count))
    shown = Table(title="Mean squared error, distinct coalitions in brackets", title_justify="left")
    for column in ("budget", *SAMPLED):
        shown.add_column(column)
    for budget in budgets:
        means = [np.mean(errors[budget, method], axis=0) for method in SAMPLED]
        shown.add_row(str(budget), *(f"{error:.1e} ({count:.0f})" for error, count in means))
    console.print(shown)


def main(quick: Annotated[bool, typer.Option(help="Few points and repeats, MNIST on a tenth of its rows.")] = False):
    console, start = Console(width=150), time.perf_counter()
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        credit_card(5 if quick else 50, 10 if quick else 50, console)
        mnist(1 if quick else 5, 2, console, quick)
    console.print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    typer.run(main)
