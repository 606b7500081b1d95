"""Test error against flash bytes: decision snippets and stumps against what else makes small models of trees.

    EFFML_DATA=/path/to/npz python benchmarks/forests_budget.py [--only magic ...] [--seeds 0 1 ...] [--methods ...]

70/30 splits, stratified, shuffled by the seed; at most 10,000 training rows; float32 rows, categories as integers for
all. Bytes are `effml.footprint(...).flash_bytes`, code included. Every rival chooses its setting among those that fit
the budget by the error on 20 % of the training rows, is fitted to all training rows, must then fit the budget, or the
next best takes its place. Snippets and stumps choose by their `validation_score_`, the log likelihood of such rows;
their forest is grown on the other 80 %, and one path serves all budgets. The test rows are met once, by the integer
program that ships. The rivals are in forest_rivals.py. "Large forest" is RandomForestClassifier(100, max_depth=10),
merged to 255 cuts a feature, with leaves of 8 bits.

One file a data set, seed and method in benchmarks/results/forests_budget; what is there is not measured again, but with
`--again`. `--quick` measures one small case without keeping it.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from forest_rivals import RIVALS, Split, choose, program_and_bytes
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

import effml
from effml.datasets import load_dataset
from effml.forests import DecisionSnippetClassifier, SplittingStumpClassifier, merge_forest

RESULTS = Path(__file__).resolve().parent / "results" / "forests_budget"
DATA_SETS = ("spambase", "magic", "satimage", "letter", "adult", "bank_marketing")
SEEDS = (0, 1, 2, 3, 4)
BUDGETS = tuple(1024 * k for k in (1, 2, 4, 8, 16, 32))
SMALLER_BUDGETS = (512,)  # of snippets and stumps, for the ratio to the large forest
MOST_ROWS, TEST_SHARE, HELD_OUT_SHARE = 10_000, 0.3, 0.2
N_CUTS = (31, 15)
BOOSTED = ((4, 0.2, (300, 40)), (8, 0.1, (200, 40)), (16, 0.1, (150, 40)))  # leaves, rate, rounds: two classes, more
WHOLE_TREES = {"max_pattern_size": 15, "min_support": 1, "pattern_filter": "maximal"}  # which boosting seldom repeats
OURS, LARGE = ("snippets", "stumps"), "large forest"
SMALL_BUDGET, MARGIN, TOLERANCE, RATIO, ENOUGH_SETS = 4096, 1.0, 0.5, 20, 4  # the targets


def case(name, seed, n_rows=MOST_ROWS):
    """Return a Split, the test rows and their labels."""
    data = load_dataset(name.removesuffix("_14x14"))
    X = data.data if data.data is not None else np.concatenate([data.X_train, data.X_test])
    y = data.target if data.target is not None else np.concatenate([data.y_train, data.y_test])
    if name.endswith("_14x14"):
        X = X.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(X), -1)
    X, y = np.asarray(X, dtype=np.float32), np.unique(y, return_inverse=True)[1]
    X, X_test, y, y_test = train_test_split(X, y, test_size=TEST_SHARE, random_state=seed, stratify=y)
    if len(X) > n_rows:
        X, _, y, _ = train_test_split(X, y, train_size=n_rows, random_state=seed, stratify=y)
    rows = np.arange(len(X))
    inner, held_out = train_test_split(rows, test_size=HELD_OUT_SHARE, random_state=seed, stratify=y)
    return Split(X, y, inner, held_out, seed), X_test, y_test


def test_error(program, X_test, y_test):
    return 100 * float(np.mean(program.labels(X_test) != y_test))


# -- methods ----------------------------------------------------------------------------------------------------------


def sources(method, split):
    """Return {name: (unfitted forest or None for the default, other parameters)}: where snippets come from."""
    default = {f"random forest, {n_cuts} cuts": (None, {"n_cuts": n_cuts}) for n_cuts in N_CUTS}
    if method == "stumps":
        return default
    default["deep random forest"] = None, {"max_depth": None, "max_pattern_size": 7}
    for leaves, rate, (n_two, n_more) in BOOSTED:
        rounds = n_two if split.n_outputs == 1 else n_more
        given = {"max_iter": rounds, "max_leaf_nodes": leaves, "learning_rate": rate, "max_bins": 31}
        forest = HistGradientBoostingClassifier(**given, early_stopping=False, random_state=split.seed)
        default[f"{rounds} rounds of {leaves} leaves"] = forest, WHOLE_TREES
    return default


def measure_ours(method, split, X_test, y_test, budgets):
    """Return what snippets or stumps reach at every budget, from several sources."""
    estimator = {"snippets": DecisionSnippetClassifier, "stumps": SplittingStumpClassifier}[method]
    tried = {budget: [] for budget in budgets}
    for source, (forest, parameters) in sources(method, split).items():
        start = time.process_time()
        model = estimator(forest, validation_fraction=HELD_OUT_SHARE, random_state=split.seed, **parameters)
        models = model.fit_budgets(split.X, split.y, budgets)
        seconds = round(time.process_time() - start, 1)
        for budget, model in zip(budgets, models, strict=True):
            result = {
                "held_out": -model.validation_score_,
                "error": test_error(effml.lower(model), X_test, y_test),
                "bytes": effml.footprint(model).flash_bytes,
                "setting": f"{source}, {model.n_snippets_} snippets",
                "seconds": seconds,
            }
            tried[budget].append(result)
    best = {budget: min(results, key=lambda one: (one["held_out"], one["bytes"])) for budget, results in tried.items()}
    return {budget: {**one, "tried": tried[budget]} for budget, one in best.items()}


def measure_rival(method, split, X_test, y_test, budgets):
    settings, found = RIVALS[method](split), {}
    for budget in budgets:
        chosen = choose(settings, budget, split)
        if chosen is not None:
            setting, held_out = chosen
            program, n_bytes = setting.built
            error = test_error(program, X_test, y_test)
            found[budget] = {"held_out": held_out, "error": error, "bytes": n_bytes, "setting": setting.name}
    return found


def measure_large_forest(split, X_test, y_test):
    forest = RandomForestClassifier(100, max_depth=10, random_state=split.seed).fit(split.X, split.y)
    program, n_bytes = program_and_bytes(merge_forest(forest, 255, split.X))
    error = 100 * (1 - forest.score(X_test, y_test))
    return {0: {"error": error, "bytes": n_bytes, "merged_error": test_error(program, X_test, y_test)}}


def measure(method, given, budgets):
    """Return {budget: result}; for the large forest there is one result."""
    if method == LARGE:
        return measure_large_forest(*given)
    return (measure_ours if method in OURS else measure_rival)(method, *given, budgets)


# -- results ----------------------------------------------------------------------------------------------------------


def path_of(name, seed, method):
    return RESULTS / f"{name}-{seed}-{method.replace(' ', '_')}.json"


def kept(name, seed, method):
    """Return {budget as text: result} of an earlier run."""
    path = path_of(name, seed, method)
    return json.loads(path.read_text()) if path.is_file() else {}


def read(names, seeds, methods):
    """Return {(data set, method): one dictionary by budget a seed}, without seeds that were not measured."""
    return {
        (name, method): [found for seed in seeds if (found := kept(name, seed, method))]
        for name in names
        for method in (*methods, LARGE)
    }


def mean_error(runs, budget):
    """Return mean and standard deviation over the seeds, or None where a seed has no model."""
    errors = [run[str(budget)]["error"] for run in runs if str(budget) in run]
    return (float(np.mean(errors)), float(np.std(errors))) if errors and len(errors) == len(runs) else None


def show(results, names, methods, console):
    table = Table(title="Test error %, mean (standard deviation over seeds)")
    for column in ("data", "method", "seeds", *(f"{budget // 1024} KiB" for budget in BUDGETS)):
        table.add_column(column, no_wrap=True)
    for name in names:
        rows = {method: [mean_error(results[name, method], b) for b in BUDGETS] for method in methods}
        best = [min((row[k][0] for row in rows.values() if row[k]), default=None) for k in range(len(BUDGETS))]
        for method, row in rows.items():
            cells = []
            for cell, least in zip(row, best, strict=True):
                text = "-" if cell is None else f"{cell[0]:.2f} ({cell[1]:.2f})"
                cells.append(f"[bold]{text}[/bold]" if cell is not None and cell[0] == least else text)
            table.add_row(name, method, str(len(results[name, method])), *cells)
        table.add_section()
    console.print(table)


def best_of_ours(results, name, budget):
    means = [mean_error(results[name, method], budget) for method in OURS if (name, method) in results]
    return min((mean[0] for mean in means if mean), default=np.nan)


def lead(results, name, rival, budget):
    """Return how much better snippets or stumps are than a rival, in points."""
    other = mean_error(results.get((name, rival), []), budget)
    return (other[0] if other else np.nan) - best_of_ours(results, name, budget)


def smallest_near(results, name):
    """Return the large forest's error and bytes, and the mean bytes of our smallest model within a point of it."""
    runs = results[name, LARGE]
    error, n_bytes = (float(np.mean([run["0"][key] for run in runs])) for key in ("error", "bytes"))
    near = []
    for method in OURS:
        for budget in (*SMALLER_BUDGETS, *BUDGETS):
            mean = mean_error(results.get((name, method), []), budget)
            if mean and mean[0] <= error + 1:
                near.append(float(np.mean([run[str(budget)]["bytes"] for run in results[name, method]])))
    return error, n_bytes, min(near, default=None)


def verdicts(results, names, console):
    small = [budget for budget in BUDGETS if budget <= SMALL_BUDGET]
    won = 0
    for name in names:
        leads = {b: lead(results, name, "small forest", b) for b in small}
        won += all(value >= MARGIN for value in leads.values())
        console.print(
            f"{name}: points ahead of the best small forest", {b // 1024: round(v, 2) for b, v in leads.items()}
        )
    console.print(f"at least {MARGIN:g} better at every budget up to 4 KiB on {won} sets (target {ENOUGH_SETS})\n")
    kept = 0
    for name in names:
        leads = {b: lead(results, name, "small boosting", b) for b in BUDGETS}
        kept += all(value >= -TOLERANCE for value in leads.values())
        console.print(f"{name}: points ahead of small boosting", {b // 1024: round(v, 2) for b, v in leads.items()})
    console.print(f"never more than {TOLERANCE:g} worse on {kept} of {len(names)} sets (target: all)\n")
    reached = 0
    for name in names:
        if not results[name, LARGE]:
            continue
        error, n_bytes, ours = smallest_near(results, name)
        ratio = n_bytes / ours if ours else np.nan
        reached += ratio >= RATIO
        ending = "no model of ours is within a point" if ours is None else f"ours {ours:,.0f} bytes, {ratio:.0f}x fewer"
        console.print(f"{name}: large forest {error:.2f} % in {n_bytes:,.0f} bytes; {ending}")
    console.print(f"at least {RATIO}x fewer bytes on {reached} sets (target {ENOUGH_SETS})")


def measure_all(name, seed, methods, budgets, again, console):
    """Measure what is missing and keep it after each method."""
    given = None
    for method in methods:
        found = kept(name, seed, method)
        if found and not again:
            continue
        given = given or case(name, seed)
        start = time.process_time()
        measured = measure(method, given, budgets if method in OURS else BUDGETS)
        RESULTS.mkdir(parents=True, exist_ok=True)
        path_of(name, seed, method).write_text(json.dumps(measured, indent=1))
        errors = " ".join(f"{budget}: {one['error']:.2f}" for budget, one in measured.items())
        console.print(f"{name} {seed} {method}: {errors} ({time.process_time() - start:.0f} s)", markup=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    methods = (*OURS, *RIVALS)
    parser.add_argument("--only", nargs="+", default=list(DATA_SETS), metavar="DATA", help="also: mnist_14x14")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--methods", nargs="+", default=list(methods), choices=[*methods, LARGE])
    parser.add_argument("--budgets", nargs="+", type=int, default=[*SMALLER_BUDGETS, *BUDGETS], help="bytes, of ours")
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    parser.add_argument("--quick", action="store_true", help="one small case, not kept")
    parser.add_argument("--show", action="store_true", help="only print what is there")
    options = parser.parse_args()
    console = Console(width=150)
    with threadpool_limits(1):
        if options.quick:
            given = case("spambase", 0, n_rows=1000)
            for method in (*options.methods, LARGE):
                console.print(method, measure(method, given, BUDGETS[:2]))
            return
        for seed in [] if options.show else options.seeds:
            for name in options.only:
                measure_all(name, seed, (*options.methods, LARGE), options.budgets, options.again, console)
    results = read(options.only, options.seeds, methods)
    show(results, options.only, methods, console)
    verdicts(results, options.only, console)


if __name__ == "__main__":
    main()
