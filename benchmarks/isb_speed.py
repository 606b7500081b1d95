"""Time and memory of sparse Bayesian regression over itemsets, searched for or written out as columns.

    python benchmarks/isb_speed.py [--rows 10000] [--items 100] [--seeds 3]

Binary items; y is the sum of seven itemsets of one to three items and noise of standard deviation 1. effml searches,
to order 2 and 3, with two threads and with one. The numpy relevance vector machine is the fast marginal likelihood
ascent of Tipping and Faul (2003) as packages write it: all single and pair columns in one matrix, the posterior from a
factorisation and S and Q of all columns from matrix products at every action, the same stop rule, noise update and
prices, with all cores for BLAS. `SparseBayesRegressor` on that matrix, with its own prior, updates S and Q.
Every fit runs in a process of its own; the memory is its highest resident set size less what it was with the rows in
place.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

TRUE = {(1, 2): 2.0, (3, 4, 5): -1.5, (7,): 1.0, (8,): -0.7, (9, 10): 1.2, (20, 30, 40): 0.8, (11, 12): 0.4}
METHODS = (
    "effml, order 2",
    "effml, order 3",
    "effml, order 3, 1 thread",
    "SparseBayesRegressor, pairs",
    "numpy RVM, pairs",
)


def make_rows(n_rows, n_items, seed):
    rng = np.random.default_rng(seed)
    X = rng.random((n_rows, n_items)) < rng.uniform(0.2, 0.8, n_items)
    y = sum(weight * X[:, itemset].all(axis=1) for itemset, weight in TRUE.items()) + rng.standard_normal(n_rows)
    return X.astype(np.uint8), y


def pair_columns(X):
    """Return all single and pair columns and the number of items of each."""
    first, second = np.triu_indices(X.shape[1], 1)
    return np.hstack([X.astype(float), X[:, first] * X[:, second].astype(float)]), np.repeat(
        [1, 2], [X.shape[1], len(first)]
    )


def numpy_rvm(columns, y, penalty, inclusion, max_iter=1000, tol=1e-4):
    """Return the columns kept: Tipping and Faul's ascent, nothing kept between actions but products with Phi."""
    columns -= columns.mean(axis=0)
    t = (y - y.mean()) / y.std()
    squares, projections = np.einsum("ij,ij->j", columns, columns), columns.T @ t
    beta, kept, alpha = 1.0, [], np.empty(0)
    for _ in range(max_iter):
        phi = columns[:, kept]
        sigma = np.linalg.inv(np.diag(alpha) + beta * phi.T @ phi)
        mu = beta * sigma @ projections[kept]
        variance = ((t - phi @ mu) ** 2).sum() / (len(t) - 1 - len(kept) + alpha @ np.diag(sigma))
        if abs(variance * beta - 1) > 1e-3:
            beta = 1 / variance
            continue
        G = columns.T @ phi
        S = beta * squares - beta**2 * np.einsum("ij,ij->i", G @ sigma, G)
        Q = beta * (projections - G @ mu)
        S[kept], Q[kept] = 1 / np.diag(sigma) - alpha, mu / np.diag(sigma)  # s and q, without the column itself
        theta = Q**2 - S
        useful = (theta > 0) & (1e-8 * beta * squares < S)
        best = np.where(useful, S**2 / np.where(useful, theta, 1), np.inf)
        ratio = np.where(useful, Q**2 / S, 1)
        gain = np.where(useful, (ratio - 1 - np.log(ratio)) / 2 - penalty - inclusion(len(kept)), -np.inf)
        s, q, new = S[kept], Q[kept], best[kept]
        there = (np.log(alpha) - np.log(alpha + s) + q**2 / (alpha + s)) / 2
        with np.errstate(invalid="ignore"):
            moved = np.where(np.isfinite(new), (np.log(new) - np.log(new + s) + q**2 / (new + s)) / 2, 0) - there
        gain[kept] = np.where(moved > tol, moved, -np.inf)
        leaving = np.where(np.isfinite(new), -there + penalty[kept] + inclusion(max(len(kept) - 1, 0)), np.inf)
        if len(kept) and leaving.max() > 0:
            k = int(leaving.argmax())
            del kept[k]
            alpha = np.delete(alpha, k)
            continue
        j = int(gain.argmax())
        if gain[j] <= tol:
            return kept
        if j in kept:
            alpha[kept.index(j)] = best[j]
        else:
            kept.append(j)
            alpha = np.append(alpha, best[j])
    return kept


def run_one(method, n_rows, n_items, seed):
    """Fit once and print what it took as JSON: the body of a process of its own."""
    from effml.itemsets import ItemsetSparseBayesRegressor, SparseBayesRegressor
    from effml.itemsets.evidence import inclusion_price
    from effml.itemsets.problem import multiplicity_penalty

    X, y = make_rows(n_rows, n_items, seed)
    small = make_rows(200, 50, seed)
    ItemsetSparseBayesRegressor().fit(*small)  # imports and first calls are not part of the measurement
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if method.startswith("effml"):
        model = ItemsetSparseBayesRegressor(
            max_order=3 if "order 3" in method else 2, n_jobs=1 if "1 thread" in method else 2
        ).fit(X, y)
        found = {tuple(j for j, _ in conditions) for conditions in model.conditions_}
    else:
        columns, order = pair_columns(X)
        first, second = np.triu_indices(n_items, 1)
        names = [(j,) for j in range(n_items)] + list(zip(first.tolist(), second.tolist(), strict=True))
        if method.startswith("numpy"):
            inclusion = inclusion_price("beta-binomial", n_items)
            kept = numpy_rvm(columns, y, multiplicity_penalty(n_items, 2)[order], inclusion)
        else:
            kept = SparseBayesRegressor().fit(columns, y).active_
        found = {names[k] for k in kept}
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n_true = len(found & {itemset for itemset in TRUE if len(itemset) < 3 or "order 3" in method})
    print(json.dumps({"seconds": seconds, "megabytes": (peak - before) / 1024, "terms": len(found), "true": n_true}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        run_one(args.one[0], args.rows, args.items, int(args.one[1]))
        return
    console = Console()
    results = {}
    for method in METHODS:
        for seed in range(args.seeds):
            console.print(f"{method}, seed {seed}", style="dim")
            command = [sys.executable, __file__, "--rows", str(args.rows), "--items", str(args.items)]
            out = subprocess.run(
                [*command, "--one", method, str(seed)], check=True, capture_output=True, text=True
            ).stdout
            results.setdefault(method, []).append(json.loads(out))
    table = Table(title=f"{args.rows} rows, {args.items} items, mean of {args.seeds} seeds")
    for name in ("method", "seconds", "MB", "terms", "true ones found", "time x order 2", "memory x order 2"):
        table.add_column(name)
    means = {m: {key: np.mean([one[key] for one in runs]) for key in runs[0]} for m, runs in results.items()}
    ours = means[METHODS[0]]
    for method, mean in means.items():
        possible = len(TRUE) if "order 3" in method else sum(len(itemset) < 3 for itemset in TRUE)
        table.add_row(
            method,
            f"{mean['seconds']:.2f}",
            f"{mean['megabytes']:.0f}",
            f"{mean['terms']:.1f}",
            f"{mean['true']:.1f} of {possible}",
            f"{mean['seconds'] / ours['seconds']:.1f}",
            f"{mean['megabytes'] / ours['megabytes']:.1f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
