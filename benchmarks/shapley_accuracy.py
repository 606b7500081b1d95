"""Error of Shapley values against evaluations of the game: effml, shap and shapiq on the same games.

    EFFML_DATA=/path/to/npz python benchmarks/shapley_accuracy.py [--only "forest eeg"] [--methods auto] [--fresh]

The error of a row is ||estimate - exact||^2 / ||exact||^2, floored at 1e-12, at 5, 10, 20, 40 and 100 distinct
coalitions a player; a cell of the tables is the geometric mean over 4 rows and 3 seeds. Games are in shapley_games.py,
what shap and shapiq get in shapley_rivals.py. One thread. One JSON file a game and method in
benchmarks/results/shapley_accuracy; what is there is not measured again, but with --again.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from shapley_games import FRESH, GAMES, load_game
from shapley_rivals import NotRun, estimate, rivals, versions
from threadpoolctl import threadpool_limits

from effml.shapley import CoalitionGame, shapley_values

RESULTS = Path(__file__).resolve().parent / "results" / "shapley_accuracy"
OURS = {
    "auto": {},
    "gp": {},
    "regression 1": {"method": "regression", "order": 1},
    "regression 3": {"method": "regression", "order": 3},
    "surrogate": {},
    "permutation": {},
    "castro": {},
    "owen": {},
    "owen_halved": {},
    "owen_unbiased": {},
}
FACTORS, SEEDS, FRESH_SEEDS = (5, 10, 20, 40, 100), (0, 1, 2), (10, 11, 12)
QUICK_GAMES, QUICK_FACTORS = ("MLP magic", "forest wine", "SVM wdbc"), (5, 20)
FLOOR = 1e-12
MOST_OF_SURROGATE = 1600  # above this budget it is not run
TO_PEERS, TO_BEST = 0.8, 1.25  # the targets


# -- measuring --------------------------------------------------------------------------------------------------------


def ours(method, game, budget, seed):
    """Return estimates (n_players, n_rows), and how many coalitions were evaluated for a row."""
    counted = []

    def values(coalitions):
        counted.append(len(coalitions))
        return game.values(coalitions)

    if method == "surrogate" and budget > MOST_OF_SURROGATE:
        raise NotRun("seconds a row")
    options = {"method": method, **OURS[method]}
    try:
        result = shapley_values(CoalitionGame(values, game.n_players), budget=budget, random_state=seed, **options)
    except ValueError as error:
        raise NotRun(str(error)) from None
    return result.values, sum(counted)


def theirs(rival, game, budget, seed):
    n_rows = game.truth.shape[1]
    parts = [
        estimate(rival, lambda S, k=k: game.values(S, [k])[:, 0], game.n_players, budget, seed) for k in range(n_rows)
    ]
    return np.stack([phi for phi, _ in parts], axis=1), float(np.mean([count for _, count in parts]))


def measure(method, game, factor, seeds):
    """Return errors (n_seeds, n_rows), the mean count and seconds a row; or why there are none."""
    errors, counts, start = [], [], time.perf_counter()
    for seed in seeds:
        try:
            if method in OURS:
                phi, count = ours(method, game, factor * game.n_players, seed)
            else:
                phi, count = theirs(rivals()[method], game, factor * game.n_players, seed)
        except NotRun as reason:
            return {"not run": str(reason)}
        error = ((phi - game.truth) ** 2).sum(axis=0) / (game.truth**2).sum(axis=0)
        errors.append(np.maximum(error, FLOOR).tolist())
        counts.append(count)
    seconds = (time.perf_counter() - start) / (len(seeds) * game.truth.shape[1])
    return {"errors": errors, "evaluations": float(np.mean(counts)), "seconds": seconds}


def path_of(game, method):
    return RESULTS / f"{game}-{method}.json".replace(" ", "_")


def kept(game, method):
    path = path_of(game, method)
    return json.loads(path.read_text()) if path.is_file() else {}


def measure_all(names, methods, factors, seeds, again, console):
    """Measure what is missing and keep it after each game and method."""
    for name in names:
        game = None
        for method in methods:
            found = kept(name, method)
            missing = [factor for factor in factors if again or str(factor) not in found]
            if not missing:
                continue
            game = game or load_game(name, RESULTS / "games")
            start = time.perf_counter()
            for factor in missing:
                found[str(factor)] = measure(method, game, factor, seeds)
            path_of(name, method).write_text(json.dumps(found))
            cells = " ".join(f"{factor}n {cell(found, factor):.1e}" for factor in missing)
            console.print(f"{name}, {method}: {cells} ({time.perf_counter() - start:.1f} s)", markup=False)


# -- tables -----------------------------------------------------------------------------------------------------------


def cell(found, factor):
    """Return the geometric mean error, NaN where there is none."""
    errors = found.get(str(factor), {}).get("errors")
    return float(np.exp(np.log(errors).mean())) if errors else np.nan


def read(names, methods, factors):
    """Return geometric mean errors (n_games, n_methods, n_factors)."""
    return np.array([[[cell(kept(g, m), f) for f in factors] for m in methods] for g in names])


def show(errors, names, methods, factors, console):
    for number, name in enumerate(names):
        table = Table(title=f"{name}: normalised error", title_justify="left")
        table.add_column("method")
        for factor in factors:
            table.add_column(f"{factor}n", justify="right")
        best = np.nanmin(errors[number], axis=0)
        for method, row in zip(methods, errors[number], strict=True):
            marks = ["[bold]" if value == least else "" for value, least in zip(row, best, strict=True)]
            table.add_row(method, *("-" if np.isnan(v) else f"{m}{v:.1e}" for v, m in zip(row, marks, strict=True)))
        console.print(table)


def verdicts(errors, names, methods, factors, console):
    """Print the ratios of "auto" to every other method, and to the best of all in every cell."""
    auto = errors[:, methods.index("auto")]
    table = Table(title='Error of "auto" over that of', title_justify="left")
    for column in ("method", *(f"{factor}n" for factor in factors), "all", "target"):
        table.add_column(column, justify="right" if column != "method" else "left")
    for number, method in enumerate(methods):
        if method == "auto":
            continue
        ratio = np.log(auto / errors[:, number])
        means = [np.exp(np.nanmean(column)) if np.isfinite(column).any() else np.nan for column in ratio.T]
        mean = np.exp(np.nanmean(ratio)) if np.isfinite(ratio).any() else np.nan
        target = "" if method in OURS else ("ok" if mean <= TO_PEERS else "missed")
        table.add_row(method, *(f"{value:.2f}" for value in means), f"{mean:.3f}", target)
    console.print(table)
    table = Table(title='"auto" over the best of all, and which that is', title_justify="left")
    for column in ("game", *(f"{factor}n" for factor in factors)):
        table.add_column(column)
    over = auto / np.nanmin(errors, axis=1)
    winners = np.nanargmin(errors, axis=1)
    for name, row, who in zip(names, over, winners, strict=True):
        cells = [f"{r:.2f}" + (f" {methods[w]}" if r > TO_BEST else "") for r, w in zip(row, who, strict=True)]
        table.add_row(name, *cells)
    console.print(table)
    console.print(f"within {TO_BEST} of the best in {(over <= TO_BEST).sum()} of {over.size} cells (target: all)")


def main(
    only: Annotated[list[str] | None, typer.Option(help="Games; default: all.")] = None,
    methods: Annotated[list[str] | None, typer.Option(help="Methods; default: all that are installed.")] = None,
    quick: Annotated[bool, typer.Option(help="Three games at two budgets.")] = False,
    fresh: Annotated[bool, typer.Option(help="Games and seeds that no setting of effml was chosen by.")] = False,
    again: Annotated[bool, typer.Option(help="Measure what is there already, too.")] = False,
    show_only: Annotated[bool, typer.Option("--show", help="Only print what is there.")] = False,
):
    methods = methods or [*OURS, *rivals()]
    console = Console(width=150)
    factors, seeds = (QUICK_FACTORS if quick else FACTORS), (FRESH_SEEDS if fresh else SEEDS)
    names = [name for name in only or (FRESH if fresh else GAMES) if fresh or not quick or name in QUICK_GAMES]
    start = time.perf_counter()
    if not show_only:
        with threadpool_limits(1):
            measure_all(names, methods, factors, seeds, again, console)
    errors = read(names, methods, factors)
    show(errors, names, methods, factors, console)
    if "auto" in methods:
        verdicts(errors, names, methods, factors, console)
    console.print(f"{versions()}; {time.perf_counter() - start:.0f} s", markup=False)


if __name__ == "__main__":
    typer.run(main)
