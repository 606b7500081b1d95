"""Time of Shapley values for one row: effml against shap's PermutationExplainer and shapiq at equal evaluations.

    python benchmarks/shapley_speed.py [--only mlp forest] [--background 10 100] [--show]

Every method gets the model as one function of rows, 10 (2 n + 1) coalitions a row and one thread; "closed form" and
shap's TreeExplainer read the estimator in place of calling it. Times are CPU times of the one thread, which is wall
time where nothing else runs, the best of several rounds in which all methods take turns; making the explainer is
included. "Model alone" is the time of as many predictions in batches of 16384 rows as the coalitions ask for. One JSON
file a cell in `--results`; only what is missing is measured.
"""

import argparse
import json
import logging
import time
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import make_regression
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

from effml.shapley import MultilinearShapleyExplainer

BATCH = 16384
LEAST_TURNS, MOST_TURNS, SECONDS = 3, 12, 40.0
ROUNDS = 10  # of shap's permutations: 2 n + 1 coalitions each
MODELS = {
    "linear function": (None, 20),
    "MLP function": (None, 20),
    "MLP": (MLPRegressor(hidden_layer_sizes=(32, 32), max_iter=60, random_state=0), 20),
    "forest": (RandomForestRegressor(100, max_depth=8, random_state=0), 10),
    "boosting": (GradientBoostingRegressor(n_estimators=100, max_depth=4, random_state=0), 60),
    "hist boosting": (HistGradientBoostingRegressor(max_iter=100, random_state=0), 60),
}
TREES = ("forest", "boosting", "hist boosting")
OURS = ("effml permutation", "effml regression", "effml gp", "effml auto")
PEERS = ("shap permutation", "shapiq permutation", "shapiq kernel")
READERS = ("effml closed form", "shap tree")
TARGETS = {"cheap": 5.0, "any": 1.0}
CHEAP = ("linear function", "MLP function", "MLP")


# -- models -----------------------------------------------------------------------------------------------------------


@lru_cache
def fitted(name):
    """Return the estimator (or None), its function of rows, and rows that it was not trained on."""
    model, n_columns = MODELS[name]
    X, y = make_regression(2000, n_columns, n_informative=n_columns // 2, noise=5.0, random_state=0)
    rng = np.random.default_rng(0)
    y = y / y.std() + np.sin(X[:, 0] * X[:, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the MLP stops early
        if name == "linear function":
            weight = rng.normal(size=n_columns)
            return None, lambda Z: Z @ weight, X[1000:]
        if name == "MLP function":
            first, second = rng.normal(size=(n_columns, 16)) / 4, rng.normal(size=16)
            return None, lambda Z: np.maximum(Z @ first, 0) @ second, X[1000:]
        model.fit(X[:1000], y[:1000])
    return model, model.predict, X[1000:]


class Counted:
    """A function that counts the rows it is given."""

    def __init__(self, function):
        self.function, self.n_rows = function, 0

    def __call__(self, X):
        self.n_rows += len(X)
        return self.function(X)


# -- methods ----------------------------------------------------------------------------------------------------------


def explainer(method, estimator, function, background, budget):
    """Return a function of rows that explains them, one explanation after the other where the peer does so."""
    if method == "effml closed form":
        return MultilinearShapleyExplainer(estimator, background, method="closed_form")
    if method.startswith("effml"):
        return MultilinearShapleyExplainer(
            lambda Z: function(Z), background, method=method.split()[1], budget=budget, random_state=0
        )
    if method == "shap tree":
        import shap

        inner = shap.TreeExplainer(estimator, background, feature_perturbation="interventional")
        return lambda X: inner.shap_values(X, check_additivity=False)
    if method == "shap permutation":
        import shap

        inner = shap.PermutationExplainer(function, shap.maskers.Independent(background, len(background)), seed=0)
        return lambda X: inner(X, max_evals=budget, silent=True)
    import shapiq

    logging.disable(logging.WARNING)
    inner = shapiq.TabularExplainer(
        function,
        background,
        imputer="marginal",
        sample_size=len(background),
        approximator="permutation" if method.endswith("permutation") else "auto",
        index="SV",
        max_order=1,
        random_state=0,
    )
    return lambda X: [inner.explain(x, budget=budget) for x in X]


def call_of(name, method, n_background, n_rows):
    """Return a function that does what is timed, and how many explained rows it stands for."""
    estimator, function, X = fitted(name)
    background, rows = X[:n_background], X[500 : 500 + n_rows]
    budget = ROUNDS * (2 * X.shape[1] + 1)
    if method == "model alone":
        batch = X[np.random.default_rng(0).integers(0, len(X), BATCH)]
        return lambda: [function(batch) for _ in range(3)], 3 * BATCH / (budget * n_background)
    arguments = method, estimator, function, background, budget
    return lambda: explainer(*arguments)(rows), n_rows


def count_rows(name, method, n_background):
    """Return how many rows the model is given for one explained row."""
    estimator, function, X = fitted(name)
    counted = Counted(function)
    explainer(method, estimator, counted, X[:n_background], ROUNDS * (2 * X.shape[1] + 1))(X[500:501])
    return counted.n_rows


def measure_all(name, n_background, methods, n_rows):
    """Return the best CPU time in ms for one explained row, by method."""
    calls = {method: call_of(name, method, n_background, n_rows) for method in methods}
    best = dict.fromkeys(methods, np.inf)
    begin = time.perf_counter()
    for number in range(MOST_TURNS):
        for method, (call, n_explained) in calls.items():
            start = time.process_time()
            call()
            if number:  # the first turn compiles and fills caches
                best[method] = min(best[method], 1e3 * (time.process_time() - start) / n_explained)
        if number >= LEAST_TURNS and time.perf_counter() - begin > SECONDS:
            break
    return best


def methods_for(name):
    return (*OURS, *PEERS, *(READERS if name in TREES else ()), "model alone")


# -- results ----------------------------------------------------------------------------------------------------------


def path_of(folder, name, n_background, method):
    return Path(folder, "_".join((name, str(n_background), method)).replace(" ", "-") + ".json")


def run(options, console):
    Path(options.results).mkdir(parents=True, exist_ok=True)
    for name in options.only:
        for n_background in options.background:
            paths = {method: path_of(options.results, name, n_background, method) for method in methods_for(name)}
            missing = [method for method, path in paths.items() if options.again or not path.exists()]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for method, ms in measure_all(name, n_background, missing, options.rows).items() if missing else ():
                    calls_model = method != "model alone" and method not in READERS
                    rows = count_rows(name, method, n_background) if calls_model else None
                    paths[method].write_text(json.dumps({"ms": ms, "model_rows": rows}))
                    console.print(f"{name}, {n_background} background rows, {method}: {ms:.3g} ms, {rows} model rows")


def show(options, console):
    columns = (*OURS, *PEERS, *READERS, "model alone")
    table = Table(title="ms for one row; in brackets the peer's time over effml permutation / over effml regression")
    for head in ("model", "n", "background", *columns):
        table.add_column(head)
    worst = {}
    for name in options.only:
        for n_background in options.background:
            found = {
                method: json.loads(path.read_text())["ms"]
                for method in columns
                if (path := path_of(options.results, name, n_background, method)).exists()
            }
            texts = []
            for method in columns:
                text = f"{found[method]:.3g}" if method in found else "-"
                if method in PEERS and {method, *OURS[:2]} <= found.keys():
                    ratios = [found[method] / found[ours] for ours in OURS[:2]]
                    text += f" ({ratios[0]:.1f}x / {ratios[1]:.1f}x)"
                    worst[name, n_background, method] = ratios
                texts.append(text)
            table.add_row(name, str(MODELS[name][1]), str(n_background), *texts)
    console.print(table)
    show_readers(options, console)
    for kind, names in (("cheap", CHEAP), ("any", MODELS)):
        for position, ours in enumerate(OURS[:2]):
            ratios = {cell: pair[position] for cell, pair in worst.items() if cell[0] in names}
            if ratios:
                cell = min(ratios, key=ratios.get)
                met = "met" if ratios[cell] >= TARGETS[kind] else "missed"
                text = f"{ours}, {kind} models: at least {TARGETS[kind]:.0f}x: {met}; smallest {ratios[cell]:.2f}x"
                console.print(f"{text} at {cell}; geometric mean {np.exp(np.mean(np.log(list(ratios.values())))):.1f}x")


def show_readers(options, console):
    for name in options.only:
        for n_background in options.background:
            paths = [path_of(options.results, name, n_background, method) for method in READERS]
            if all(path.exists() for path in paths):
                ours, theirs = (json.loads(path.read_text())["ms"] for path in paths)
                console.print(f"{name}, {n_background} background rows: shap tree / closed form {theirs / ours:.1f}x")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--background", nargs="+", type=int, default=[10, 100])
    parser.add_argument("--rows", type=int, default=10, help="rows explained in one call")
    parser.add_argument("--results", default="benchmarks/results/shapley_speed")
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    parser.add_argument("--show", action="store_true", help="only print what is there")
    options = parser.parse_args()
    console = Console(width=200)
    with threadpool_limits(1):
        if not options.show:
            run(options, console)
    show(options, console)


if __name__ == "__main__":
    main()
