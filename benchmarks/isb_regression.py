"""Accuracy, coverage and size of itemset sparse Bayes on real regression sets, against eight rivals.

    python benchmarks/isb_regression.py [--sets ...] [--methods ...] [--seeds 100 101 102 103 104] [--report]

A seed draws at most 800 training rows and 1500 test rows (two thirds and one third of smaller sets). "effml, cv"
chooses kappa by 5-fold cross-validation inside the training rows, "cv both" the inclusion prior as well; the tree is
tuned there, too. "10 bags" is the mean of ten models with kappa 1. Terms are what a reader reads: itemsets and linear
terms, leaves, rules, columns. Intervals are the mean and 1.96 standard deviations. One thread. Results are kept in
benchmarks/results/isb_regression, one file a run; a second call goes on where the first one stopped.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from isb_rivals import RIVALS, n_terms
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_diabetes
from sklearn.metrics import r2_score
from threadpoolctl import threadpool_limits

from effml.datasets import load_dataset
from effml.itemsets import ItemsetSparseBayesRegressor

RESULTS = Path(__file__).resolve().parent / "results" / "isb_regression"
SETS = (
    *("diabetes", "boston_housing", "auto_mpg", "concrete", "energy_efficiency", "airfoil", "abalone", "wine_quality"),
    *("california_housing", "communities_crime", "ames_housing", "hiv_pi"),
)
OURS = {
    "effml, cv both": {"kappa": "cv", "inclusion_prior": "cv"},
    "effml, cv": {"kappa": "cv"},
    "effml, kappa 1": {"kappa": 1.0},
    "effml, evidence": {"kappa": "evidence"},
    "effml, cv, no linear terms": {"kappa": "cv", "linear_terms": False},
    "effml, cv, one-hot": {"kappa": "cv", "encoding": "onehot", "n_bins": 4, "linear_terms": False},
    "effml, 10 bags": {"n_bags": 10},
    "effml, cv, singles free": {"kappa": "cv", "inclusion_prior": 0.5},
}
SLOW = {("communities_crime", "effml, cv, singles free"): "over-fits 1,700 items; minutes a fit"}
DEFAULT_OURS = ("effml, kappa 1", "effml, cv", "effml, cv both", "effml, 10 bags")
MOST_TRAINING, MOST_TEST = 800, 1500


def load(name):
    """Return X (NaN where missing), y and the mask of categorical columns."""
    if name == "diabetes":
        X, y = load_diabetes(return_X_y=True)
        return X, y, np.zeros(X.shape[1], dtype=bool)
    data = load_dataset(name)
    y = np.asarray(data.target, dtype=float)
    return np.asarray(data.data, dtype=float), np.log(y) if name == "ames_housing" else y, np.array(data.categorical)


def split(n_rows, seed):
    order = np.random.default_rng(seed).permutation(n_rows)
    n_train = min(MOST_TRAINING, 2 * n_rows // 3)
    return order[:n_train], order[n_train : n_train + MOST_TEST]


def make(method, X, categorical, seed):
    """Return an unfitted model for these columns."""
    if method not in OURS:
        return RIVALS[method](categorical)
    flags = np.array([set(np.unique(column)) <= {0, 1} for column in X.T])  # 0 and 1 need no levels
    return ItemsetSparseBayesRegressor(categorical_features=categorical & ~flags, random_state=seed, **OURS[method])


def run(name, method, seed):
    """Fit once and return what is reported."""
    X, y, categorical = load(name)
    train, test = split(len(y), seed)
    model = make(method, X, categorical, seed)
    start = time.perf_counter()
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        try:
            model.fit(X[train], y[train])
        except MemoryError as error:
            return {"skipped": str(error)}
    result = {"seconds": time.perf_counter() - start, "terms": len(model.coef_) if method in OURS else n_terms(model)}
    if method in OURS:
        result |= {"itemsets": len(model.itemsets_), "kappa": model.kappa_, "prior": str(model.inclusion_prior_)}
    if method in OURS or method == "Gaussian process":
        mean, std = model.predict(X[test], return_std=True)
        result["coverage"] = float(np.mean(np.abs(y[test] - mean) <= 1.96 * std))
    else:
        mean = model.predict(X[test])
    return result | {"r2": float(r2_score(y[test], mean))}


def measure(sets, methods, seeds):
    jobs = [(name, seed, method) for name in sets for seed in seeds for method in methods]
    for name, seed, method in track(jobs, "fits"):
        path = RESULTS / f"{name}-{method}-{seed}.json".replace(" ", "_")
        if path.exists() or (name, method) in SLOW:
            continue
        RESULTS.mkdir(parents=True, exist_ok=True)
        result = run(name, method, seed)
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(result))
        temporary.rename(path)


def collected(sets, methods, seeds):
    """Return {(set, method): {quantity: list over seeds}} of what has been measured."""
    out = {}
    for name in sets:
        for method in methods:
            for seed in seeds:
                path = RESULTS / f"{name}-{method}-{seed}.json".replace(" ", "_")
                if path.exists():
                    one = json.loads(path.read_text())
                    for key, value in one.items():
                        out.setdefault((name, method), {}).setdefault(key, []).append(value)
    return out


def mean_of(cell, key):
    values = [value for value in cell.get(key, []) if value is not None]
    return np.mean(values) if values else np.nan


def report(sets, methods, seeds):
    console = Console(width=200)
    cells = collected(sets, methods, seeds)
    sets = [name for name in sets if (name, "tuned tree") in cells]

    def row(method, key, digits):
        values = [mean_of(cells.get((name, method), {}), key) for name in sets]
        shown = [f"{value:.{digits}f}" if np.isfinite(value) else "-" for value in values]
        return [method, *shown, f"{np.mean(values):.{digits}f}" if np.isfinite(values).all() else "-"]

    for key, title, digits in (
        ("r2", "r^2 on test rows", 3),
        ("terms", "terms", 0),
        ("coverage", "share of test rows in the 95 % interval", 3),
        ("seconds", "seconds of a fit", 2),
    ):
        table = Table("method", *sets, "mean", title=f"{title}, mean of up to {len(seeds)} seeds")
        for method in methods:
            table.add_row(*row(method, key, digits))
        console.print(table)
    table = Table("method", *sets, "mean", title="share of the gap from tuned tree to Gaussian process that is closed")
    gains = Table("method", *sets, "mean", title="r^2 above the tuned tree (standard error of the mean difference)")
    for method in [method for method in methods if method not in ("tuned tree", "Gaussian process")]:
        closed, above = [], []
        for name in sets:
            tree, gp, own = (cells.get((name, m), {}).get("r2", []) for m in ("tuned tree", "Gaussian process", method))
            n = min(len(tree), len(own))
            gap = np.mean(gp) - np.mean(tree) if gp else np.nan
            difference = np.array(own[:n]) - np.array(tree[:n])
            closed.append((np.mean(own) - np.mean(tree)) / gap if n and gap > 0.005 else np.nan)
            error = difference.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
            above.append((difference.mean() if n else np.nan, error))
        table.add_row(
            method, *("-" if np.isnan(v) else f"{v:.2f}" for v in closed), f"{np.nanmedian(closed):.2f} (median)"
        )
        mean = np.mean([value for value, _ in above])
        gains.add_row(method, *(f"{v:+.3f} ({e:.3f})" for v, e in above), f"{mean:+.3f}")
    console.print(gains)
    console.print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*OURS, *RIVALS]
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--methods", nargs="+", choices=every, default=[*DEFAULT_OURS, *RIVALS])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(100, 105)))
    parser.add_argument("--report", action="store_true", help="print what has been measured, measure nothing")
    args = parser.parse_args()
    if not args.report:
        measure(args.sets, args.methods, args.seeds)
    report(SETS if args.report else args.sets, every if args.report else args.methods, args.seeds)


if __name__ == "__main__":
    main()
