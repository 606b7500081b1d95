"""Bayesian optimisation on pools: measurements until one of the best 1 % is found, and seconds an ask.

    EFFML_DATA=/path/to/npz python benchmarks/isb_bo.py [--pools concrete ...] [--methods ...] [--seeds 30]
        [--acquisition ei ucb] [--seconds] [--report]

A pool is all rows of a real data set, or 2,000 random points of a synthetic function of levels and numbers; asking for
a row reveals its target, and the target is to be maximised. All methods start from the same 8 random rows of a seed and
use the same acquisition, expected improvement by default, on f without noise. A run ends with the first row whose
target is among the best 1 % of the pool (ties included), or after `CAP` measurements; the first 8 count.

- effml: ItemsetBayesOptimizer, defaults. "no search": the same without a sparse model, only the sum over all itemsets.
  "bagged": bootstrap samples of ItemsetSparseBayesRegressor, eight models, in place of that sum.
- GP: scikit-learn's GaussianProcessRegressor, constant x Matern-5/2 + white noise on standardised and one-hot columns,
  target standardised, hyperparameters by maximum marginal likelihood from one start at every ask.
- forest: as in SMAC, mean and standard deviation over 50 regression trees, 5/6 of the columns a split.

`--seconds` measures asks after 500 random measurements, each followed by a tell: 50 in a row with effml (its searches
for new conditions are among them), 3 with the others. One thread. Kept in benchmarks/results/isb_bo.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from threadpoolctl import threadpool_limits

from effml.datasets import load_dataset
from effml.itemsets import ItemsetBayesOptimizer, ItemsetSparseBayesRegressor
from effml.itemsets.acquisition import expected_improvement, upper_confidence_bound

RESULTS = Path(__file__).resolve().parent / "results" / "isb_bo"
REAL = ("hiv_pi", "energy_efficiency", "concrete", "auto_mpg", "airfoil")
SYNTHETIC = ("alloys", "recipes")
POOLS = (*REAL, *SYNTHETIC)
METHODS = ("effml", "GP", "forest", "random", "no search", "bagged")
N_START, CAP, TOP, KAPPA = 8, 150, 0.01, 1.96
N_SYNTHETIC, N_TIMED, N_BAGGED = 2000, 500, 8
FEWEST_DRUGS = 5


class Pool:
    """Rows, targets and which columns hold levels; `goal` is the least target among the best 1 %."""

    def __init__(self, name):
        X, self.y, self.categorical = SYNTHETIC_POOLS[name]() if name in SYNTHETIC else real_pool(name)
        self.X = np.asarray(X, dtype=np.float64)
        self.goal = np.sort(self.y)[-max(1, round(TOP * len(self.y)))]
        self.table = one_hot(self.X, self.categorical)

    def start(self, seed):
        return np.random.default_rng([seed, 0]).choice(len(self.y), N_START, replace=False).tolist()


def real_pool(name):
    data = load_dataset(name)
    X, y, categorical = np.asarray(data.data, dtype=np.float64), np.asarray(data.target), np.array(data.categorical)
    if name == "hiv_pi":  # mean log10 resistance over the drugs; the mutations are 0 and 1
        fold = np.log10(data.fold_change_all)
        y = np.where((~np.isnan(fold)).sum(axis=1) >= FEWEST_DRUGS, np.nanmean(fold, axis=1), np.nan)
        categorical[:] = False
    known = ~np.isnan(X).any(axis=1) & ~np.isnan(y)
    return X[known], y[known], categorical


def alloys():
    """Four columns of levels and four of numbers: three interactions, a sine, a parabola."""
    rng = np.random.default_rng(7)
    level = rng.integers(0, [4, 3, 5, 2], size=(N_SYNTHETIC, 4))
    x = rng.random((N_SYNTHETIC, 4))
    y = 2.0 * ((level[:, 0] == 1) & (level[:, 1] == 2)) + 1.5 * ((level[:, 2] == 3) & (x[:, 0] > 0.6))
    y += (
        1.0 * ((x[:, 2] > 0.5) & (level[:, 0] == 1))
        - 1.0 * (level[:, 3] == 1)
        + np.sin(3 * x[:, 1])
        - (x[:, 3] - 0.3) ** 2
    )
    return np.hstack([level, x]), y, np.repeat([True, False], 4)


def recipes():
    """Eight columns of four levels, random effects of each and of four pairs, and a smooth part of two numbers."""
    rng = np.random.default_rng(7)
    level, x = rng.integers(0, 4, size=(N_SYNTHETIC, 8)), rng.random((N_SYNTHETIC, 2))
    single, pair = rng.normal(size=(8, 4)), 1.2 * rng.normal(size=(4, 4, 4))
    y = 0.5 * single[np.arange(8), level].sum(axis=1) + 2 * np.sin(4 * x[:, 0] * x[:, 1])
    y += sum(pair[k, level[:, 2 * k], level[:, 2 * k + 1]] for k in range(4))
    return np.hstack([level, x]), y, np.repeat([True, False], [8, 2])


SYNTHETIC_POOLS = {"alloys": alloys, "recipes": recipes}


def one_hot(X, categorical):
    """Return standardised numeric columns and 0/1 columns of the levels."""
    columns = []
    for column, has_levels in zip(X.T, categorical, strict=True):
        if has_levels:
            columns += [(column == level).astype(np.float64) for level in np.unique(column)]
        else:
            columns.append((column - column.mean()) / (column.std() or 1.0))
    return np.array(columns).T


class Rival:
    """Ask and tell around a model with `fit` and `latent`, the mean and standard deviation of f at all rows."""

    def __init__(self, pool, seed, acquisition):
        self.pool, self.seed, self.acquisition = pool, seed, acquisition
        self.rng = np.random.default_rng([seed, 1])
        self.told = []

    def tell(self, points, values):
        self.told += np.atleast_1d(points).tolist()

    def ask(self):
        free = np.setdiff1d(np.arange(len(self.pool.y)), self.told)
        values = self.pool.y[self.told]
        mean, std = self.latent(free, values)
        worth = upper_confidence_bound(mean, std, KAPPA)
        if self.acquisition == "ei":
            worth = expected_improvement(mean, std, values.max())
        return int(free[self.rng.choice(np.flatnonzero(worth == worth.max()))])


class RandomSearch(Rival):
    def latent(self, free, values):
        return np.zeros(len(free)), np.zeros(len(free))


class GaussianProcess(Rival):
    def latent(self, free, values):
        centre, scale = values.mean(), values.std() or 1.0
        matern = Matern(np.sqrt(self.pool.table.shape[1]), (1e-1, 1e3), nu=2.5)
        kernel = ConstantKernel(1.0, (1e-2, 1e2)) * matern + WhiteKernel(0.1, (1e-5, 1e1))
        model = GaussianProcessRegressor(kernel).fit(self.pool.table[self.told], (values - centre) / scale)
        mean, std = model.predict(self.pool.table[free], return_std=True)
        variance = std**2 - model.kernel_.k2.noise_level  # of f: return_std has the noise in it
        return centre + scale * mean, scale * np.sqrt(np.maximum(variance, 0.0))


class Forest(Rival):
    def latent(self, free, values):
        seed = int(self.rng.integers(2**31))
        model = RandomForestRegressor(50, max_features=5 / 6, random_state=seed).fit(self.pool.table[self.told], values)
        means = np.array([tree.predict(self.pool.table[free]) for tree in model.estimators_])
        return means.mean(axis=0), means.std(axis=0)


class Bagged(Rival):
    def latent(self, free, values):
        told, means, variances = np.array(self.told), [], []
        for k in range(N_BAGGED):
            drawn = self.rng.integers(len(told), size=len(told)) if k else np.arange(len(told))
            model = ItemsetSparseBayesRegressor(categorical_features=self.pool.categorical)
            model.fit(self.pool.X[told[drawn]], values[drawn])
            mean, std = model.predict(self.pool.X[free], return_std=True)
            means.append(mean)
            variances.append(np.maximum(std**2 - model.noise_variance_, 0.0))
        return np.mean(means, axis=0), np.sqrt(np.mean(variances, axis=0) + np.var(means, axis=0))


RIVALS = {"GP": GaussianProcess, "forest": Forest, "random": RandomSearch, "bagged": Bagged}


def make(method, pool, seed, acquisition):
    if method in RIVALS:
        return RIVALS[method](pool, seed, acquisition)
    nothing = ItemsetSparseBayesRegressor(min_support=len(pool.y), linear_terms=False)
    return ItemsetBayesOptimizer(
        pool=pool.X,
        regressor=nothing if method == "no search" else None,
        direction="maximize",
        acquisition=acquisition,
        kappa=KAPPA,
        categorical_features=pool.categorical,
        random_state=seed,
    )


def measurements(method, pool, seed, acquisition):
    """Return the number of measurements to the goal, CAP + 1 if it was not reached, and seconds an ask."""
    optimizer, start = make(method, pool, seed, acquisition), pool.start(seed)
    hits = np.flatnonzero(pool.y[start] >= pool.goal)
    if len(hits):
        return int(hits[0]) + 1, 0.0
    optimizer.tell(start, pool.y[start])
    begin = time.perf_counter()
    n, reached = N_START, False
    while n < CAP and not reached:
        point = optimizer.ask()
        optimizer.tell(point, pool.y[point])
        n, reached = n + 1, bool(pool.y[point] >= pool.goal)
    return n if reached else CAP + 1, (time.perf_counter() - begin) / (n - N_START)


def seconds(method, pool):
    """Return mean and largest seconds of an ask after `N_TIMED` measurements."""
    optimizer = make(method, pool, 0, "ei")
    told = np.random.default_rng(0).choice(len(pool.y), N_TIMED, replace=False).tolist()
    optimizer.tell(told, pool.y[told])
    spent = []
    for _ in range(3 if method in RIVALS else N_TIMED // 10):
        begin = time.perf_counter()
        point = optimizer.ask()
        spent.append(time.perf_counter() - begin)
        optimizer.tell(point, pool.y[point])
    return {"mean": float(np.mean(spent)), "most": float(np.max(spent)), "n_asks": len(spent)}


def path_of(name, method, kind):
    return RESULTS / f"{name}-{method}-{kind}.json".replace(" ", "_")


def read(path):
    return json.loads(path.read_text()) if path.exists() else {}


def write(path, content):
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)


def measure(arguments):
    for name in arguments.pools:
        pool = Pool(name)
        for acquisition in arguments.acquisition:
            for method in arguments.methods:
                path = path_of(name, method, acquisition)
                found = read(path)
                seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
                missing = [seed for seed in seeds if str(seed) not in found]
                for seed in track(missing, f"{name} {acquisition} {method}", disable=not missing):
                    found[str(seed)] = measurements(method, pool, seed, acquisition)
                    write(path, found)


def measure_seconds(arguments):
    for name in arguments.pools:
        pool = Pool(name)
        for method in arguments.methods:
            path = path_of(name, method, "seconds")
            if len(pool.y) > 1.2 * N_TIMED and method not in ("random", "no search") and not path.exists():
                write(path, seconds(method, pool))
                print(f"{name} {method}: {read(path)['mean']:.4f} s an ask", flush=True)


def report(arguments):
    console = Console(width=140)
    wanted = {str(seed) for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)}
    for acquisition in arguments.acquisition:
        table = Table(title=f"measurements to the best 1 %, {acquisition}: median, mean (runs capped at {CAP})")
        for column in ("pool", *arguments.methods):
            table.add_column(column, justify="right")
        ratios = {method: [] for method in arguments.methods}
        for name in arguments.pools:
            found = {m: read(path_of(name, m, acquisition)) for m in arguments.methods}
            runs = {m: [found[m][seed][0] for seed in wanted if seed in found[m]] for m in arguments.methods}
            if runs.get("GP"):
                for method in [m for m in arguments.methods if runs[m]]:
                    ratios[method].append(np.log(np.mean(runs[method]) / np.mean(runs["GP"])))
            table.add_row(name, *(cell(runs[method]) for method in arguments.methods))
        table.add_row("mean / GP's", *(f"{np.exp(np.mean(r)):.2f}" if r else "" for r in ratios.values()))
        console.print(table)
    report_seconds(arguments, console)


def cell(runs):
    if not runs:
        return ""
    failed = sum(run > CAP for run in runs)
    return f"{np.median(runs):.1f}, {np.mean(runs):.1f}" + (f" ({failed})" if failed else "")


def report_seconds(arguments, console):
    table = Table(title=f"seconds an ask at {N_TIMED} measurements: mean (largest), and times effml's mean")
    for column in ("pool", *arguments.methods):
        table.add_column(column, justify="right")
    for name in arguments.pools:
        found = {method: read(path_of(name, method, "seconds")) for method in arguments.methods}
        if found.get("effml"):
            own = found["effml"]["mean"]
            cells = [f"{f['mean']:.3f} ({f['most']:.2f}) {f['mean'] / own:.0f}x" if f else "" for f in found.values()]
            table.add_row(name, *cells)
    console.print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=POOLS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--acquisition", nargs="+", choices=("ei", "ucb"), default=("ei",))
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seconds", action="store_true", help="measure seconds an ask in place of measurements")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")  # hyperparameters of the GP at their bounds, empty means of drugs
    if not arguments.report:
        with threadpool_limits(1, user_api="blas"):
            (measure_seconds if arguments.seconds else measure)(arguments)
    report(arguments)


if __name__ == "__main__":
    main()
