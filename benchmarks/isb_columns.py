"""Sparse Bayesian regression on given columns: seconds, error and number of columns kept, against scikit-learn.

    python benchmarks/isb_columns.py [--features 200 500 1000 2000] [--weights normal signs] [--seeds 3]
        [--methods ...] [--largest-ard 500]

Gaussian columns, 20 of which have weights ("normal": standard normal, some of them too small to be seen; "signs": 1 or
-1), noise of standard deviation 0.5. The error is against noise-free targets of 2000 fresh rows, over their variance;
oracle is least squares on the 20 true columns. One thread; means over the seeds, the largest in brackets.
ARDRegression takes minutes on 2000 columns, so by default it is left out above `--largest-ard`.
"""

import argparse
import time
import warnings

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ARDRegression, LassoCV, LassoLarsIC, LinearRegression
from threadpoolctl import threadpool_limits

from effml.itemsets import SparseBayesRegressor

N_TEST, NOISE, FIRST_SEED = 2000, 0.5, 1000
METHODS = {
    "effml": lambda: SparseBayesRegressor(),
    "effml, prior 1/p": None,  # needs the number of columns, see `make`
    "effml, evidence alone": lambda: SparseBayesRegressor(inclusion_prior=0.5),
    "ARDRegression": lambda: ARDRegression(),
    "ARDRegression, 1e3": lambda: ARDRegression(threshold_lambda=1e3),
    "LassoLarsIC bic": lambda: LassoLarsIC(criterion="bic", noise_variance=NOISE**2),
    "LassoCV": lambda: LassoCV(cv=5),
    "oracle": lambda: LinearRegression(),
}
DEFAULT_METHODS = tuple(method for method in METHODS if method != "effml, evidence alone")


def make(method, n_features):
    if method == "effml, prior 1/p":
        return SparseBayesRegressor(inclusion_prior=1 / n_features)
    return METHODS[method]()


def make_data(n_rows, n_features, n_true, kind, seed):
    """Return training rows and targets, test rows and noise-free test targets, and the weights."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows + N_TEST, n_features))
    weights = np.zeros(n_features)
    true = rng.choice(n_features, n_true, replace=False)
    weights[true] = rng.normal(size=n_true) if kind == "normal" else rng.choice([-1.0, 1.0], n_true)
    signal = X @ weights
    y = signal[:n_rows] + NOISE * rng.normal(size=n_rows)
    return X[:n_rows], y, X[n_rows:], signal[n_rows:], weights


def run(method, data):
    """Return seconds, error, columns kept and true columns among them."""
    X, y, X_test, signal, weights = data
    columns = np.flatnonzero(weights) if method == "oracle" else np.arange(X.shape[1])
    model = make(method, X.shape[1])
    start = time.perf_counter()
    model.fit(X[:, columns], y)
    seconds = time.perf_counter() - start
    error = np.mean((model.predict(X_test[:, columns]) - signal) ** 2) / signal.var()
    kept = columns[model.coef_ != 0]
    return seconds, error, len(kept), np.count_nonzero(weights[kept])


def measure(args, kind, n_features):
    """Yield each method's name and its results, (n_seeds, 4)."""
    runs = {}
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        data = make_data(args.rows, n_features, args.true, kind, seed)
        for method in args.methods:
            if not method.startswith("ARD") or n_features <= args.largest_ard:
                runs.setdefault(method, []).append(run(method, data))
    for method, results in runs.items():
        yield method, np.array(results)


def show(args):
    table = Table("weights", "p", "method", "fit s", "times effml", "NMSE", "kept", "true of them")
    for kind in args.weights:
        for n_features in args.features:
            reference = None
            for method, results in measure(args, kind, n_features):
                mean, most = results.mean(axis=0), results.max(axis=0)
                reference = mean[0] if method == "effml" else reference
                table.add_row(
                    kind,
                    str(n_features),
                    method,
                    f"{mean[0]:.3f} ({most[0]:.3f})",
                    "" if reference is None else f"{mean[0] / reference:.1f}",
                    f"{mean[1]:.1e} ({most[1]:.1e})",
                    f"{mean[2]:.1f} ({most[2]:.0f})",
                    f"{mean[3]:.1f}",
                )
            table.add_section()
    Console(width=120).print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, nargs="+", default=[200, 500, 1000, 2000])
    parser.add_argument("--weights", nargs="+", choices=("normal", "signs"), default=["normal", "signs"])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--true", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=DEFAULT_METHODS)
    parser.add_argument("--largest-ard", type=int, default=500, help="most columns that ARDRegression is fitted to")
    warnings.simplefilter("ignore", ConvergenceWarning)
    with threadpool_limits(1):
        show(parser.parse_args())


if __name__ == "__main__":
    main()
