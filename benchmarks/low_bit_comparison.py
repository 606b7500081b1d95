"""Networks with low-bit weights against Bayesian networks in low-bit tables: error, bits, operations, flash, RAM.

    EFFML_DATA=/path/to/npz python benchmarks/low_bit_comparison.py [letter satimage usps mnist14] [--report] [--plot]

The comparison of W. Roth, G. Schindler, H. Froening, F. Pernkopf, "On Resource-Efficient Bayesian Network Classifiers
and Deep Neural Networks", ICPR 2020 (arXiv 2010.11773), on raw bytes with the official splits, and with the axes that
an engineer pays for: flash bytes with code, bin edges and scales, RAM, and every operation of the exported C.

A cell is one point: naive Bayes and TANs by bits, bins and structure, dense networks by bits and budget, convolutional
ones by bits and channels. Each chooses margin, objective and start, or depth, batch norm, learning rate and scaling by
held-out training rows, one after the other: one fifth, or of mnist 10,000 with 10,000 others to train on. The choice is
trained on the same rows again, longer and with each seed: that error on held-out rows decides what is on a front and
what is the best within a budget. Then it is fitted to all training rows with each seed and meets the test rows once;
tables and plots show the test error.

With `--device` the models on the fronts of flash and of operations are fitted again and run on an emulated Cortex-M3
(gcc-arm-none-eabi, qemu-system-arm): its instructions for a row, the mean of 200 test rows.

Epochs, rows and grids are in low_bit_families.py. One file a cell in benchmarks/results/low_bit_comparison; what is
there is not measured again. `--report` only prints what is there, `--plot` also draws docs/images/low_bit_*.png.
"""

import argparse
import json
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
from low_bit_families import (
    DATA_SETS,
    FAMILIES,
    HELD_OUT,
    Problem,
    cells_of,
    fitted,
    price,
    structure_reader,
    validation_error,
)
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from threadpoolctl import threadpool_limits

import effml
from effml.program import with_input_dtype
from effml.program.targets import run_program
from effml.selection import pareto_front

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "low_bit_comparison"
IMAGES = HERE.parent / "docs" / "images"
SEEDS = (0, 1)
SLOW = (("mnist14", "CNN ReLU"), ("mnist14", "CNN sign"))  # one seed
AXES = {
    "size_bits": "model bits",
    "operations": "operations",
    "flash_bytes": "flash, bytes",
    "ram_bytes": "RAM, bytes",
    "c_operations": "operations of the C",
    "instructions": "instructions, Cortex-M3",
}
PLOTTED = ("size_bits", "operations", "flash_bytes", "c_operations")
DEVICE, DEVICE_ROWS = "cortex-m3", 200
LARGEST_ERROR = 50  # % beyond which points are not drawn


# -- measuring --------------------------------------------------------------------------------------------------------


def path_of(name, cell):
    return RESULTS / f"{name}-{cell.file_name}.json"


def search(problem, cell, structures):
    """Return the parameters that win on held-out training rows, one stage after the other, and the trials."""
    best, error, trials = dict(cell.fixed), None, []
    for stage in cell.stages:
        base = dict(best)
        for change in stage:
            trial = base | change
            found = validation_error(problem, cell.family, trial, structures)
            trials.append({**change, "error": found})
            if error is None or found < error:
                best, error = trial, found
    return best, trials


def measure(problem, cell, structures):
    """Return everything about one cell as a dictionary for JSON."""
    begin = time.process_time()
    chosen, trials = search(problem, cell, structures)
    seeds = SEEDS[:1] if (problem.name, cell.family) in SLOW else SEEDS
    held_out = [validation_error(problem, cell.family, chosen, structures, HELD_OUT, seed) for seed in seeds]
    models = [fitted(problem, cell.family, chosen, structures, seed) for seed in seeds]
    return {
        "family": cell.family,
        "label": cell.label,
        "chosen": chosen,
        "validation": float(np.mean(held_out)),
        "trials": trials,
        "test": [problem.error(model, problem.X_test, problem.y_test) for model in models],
        **price(problem, cell.family, models[0]),
        "seconds": round(time.process_time() - begin, 1),
    }


def measure_all(name, console):
    """Measure what is missing of a data set."""
    cells = [cell for cell in cells_of(name) if not path_of(name, cell).is_file()]
    if not cells:
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    problem = Problem.load(name)
    structures = structure_reader(problem, RESULTS)
    with Progress(console=console) as progress:
        bar = progress.add_task(name, total=len(cells))
        for cell in cells:
            path, result = path_of(name, cell), measure(problem, cell, structures)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(result, indent=1))
            partial.replace(path)
            errors = f"validation {result['validation']:.2f} %, test {np.mean(result['test']):.2f} %"
            console.print(f"{name}, {cell.family}, {cell.label}: {errors}, {result['seconds']:.0f} s", markup=False)
            progress.advance(bar)


def measure_on_device(name, console):
    """Add the instructions of a row on the emulated device to the results on the fronts of flash and operations."""
    problem = Problem.load(name)
    structures = structure_reader(problem, RESULTS)
    results, _ = read(name)
    chosen = [result for axis in ("flash_bytes", "c_operations") for result in front(results, axis)]
    paths = {(cell.family, cell.label): path_of(name, cell) for cell in cells_of(name)}
    for family, label in dict.fromkeys((result["family"], result["label"]) for result in chosen):
        path = paths[family, label]
        result = json.loads(path.read_text())
        if "instructions" in result:
            continue
        model = fitted(problem, family, result["chosen"], structures, SEEDS[0])
        program = with_input_dtype(effml.lower(model), "uint8")
        rows = problem.X_test[:DEVICE_ROWS]
        run = run_program(program, program.encode(rows), target=DEVICE)
        assert (np.asarray(program.classes)[run.results[:, 0]] == model.predict(rows)).all()
        result["instructions"] = round(float(run.counts.mean()))
        path.write_text(json.dumps(result, indent=1))
        console.print(f"{name}, {family}, {label}: {result['instructions']:,} instructions", markup=False)


# -- tables -----------------------------------------------------------------------------------------------------------


def read(name):
    """Return the results of a data set that are there, and how many cells there are in all."""
    cells = cells_of(name)
    paths = [path_of(name, cell) for cell in cells]
    unpriced = dict.fromkeys(AXES)
    return [{**unpriced, **json.loads(path.read_text())} for path in paths if path.is_file()], len(cells)


def priced(results, axis):
    """Return the results that have a price on an axis: one-hot networks have no exported form."""
    return [result for result in results if result[axis] is not None]


def front(results, axis):
    """Return the results that no other beats on the axis and the error on held-out training rows, smallest first."""
    results = priced(results, axis)
    kept = pareto_front([(result[axis], result["validation"]) for result in results])
    return sorted((results[k] for k in kept), key=lambda result: result[axis])


def test_error(result):
    return float(np.mean(result["test"]))


def setting(result):
    """Return what the search chose, in words."""
    chosen = result["chosen"]
    if result["family"] in ("NB", "TAN"):
        words = [chosen.get("objective", f"margin {chosen['margin']:g}").replace("_", " ")]
        return ", ".join(words + ["float start"] * ("init" in chosen))
    words = [f"{chosen['hidden_layers']} hidden"] if "hidden_layers" in chosen else []
    words += ["batch norm"] * bool(chosen["batch_norm"])
    words += [f"rate {chosen['learning_rate_init']:g}"] if "learning_rate_init" in chosen else []
    return ", ".join(words)


def front_table(name, axis, results):
    """Return the front over one axis, all families together."""
    table = Table("family", "model", "chosen", *AXES.values(), "held-out %", "test %")
    table.title = f"{name}: front of error and {AXES[axis]}"
    for result in front(results, axis):
        prices = ["-" if result[key] is None else f"{result[key]:,}" for key in AXES]
        errors = f"{result['validation']:.2f}", f"{test_error(result):.2f}"
        table.add_row(result["family"], result["label"], setting(result), *prices, *errors)
    return table


def budgets_of(results, axis):
    """Return powers of two between the smallest and the largest prices on an axis."""
    exponents = np.log2([result[axis] for result in priced(results, axis)])
    low, high = np.ceil(np.quantile(exponents, 0.05)), np.ceil(np.quantile(exponents, 0.95))
    return [2 ** int(exponent) for exponent in np.arange(low, high + 1)]


def best_table(name, axis, results):
    """Return by family the test error of what held-out rows prefer among all that fits a budget; bold is the best."""
    budgets = budgets_of(results, axis)
    rows = {}
    for family in FAMILIES:
        own = [result for result in priced(results, axis) if result["family"] == family]
        fitting = [[result for result in own if result[axis] <= budget] for budget in budgets]
        if own:
            rows[family] = [min(some, key=lambda one: one["validation"], default=None) for some in fitting]
    table = Table("family", *(f"{budget:,}" for budget in budgets))
    table.title = f"{name}: test error % within a budget of {AXES[axis]}"
    least = [min((row[k]["validation"] for row in rows.values() if row[k]), default=None) for k in range(len(budgets))]
    for family, row in rows.items():
        texts = ["-" if one is None else f"{test_error(one):.2f}" for one in row]
        best = [one is not None and one["validation"] == low for one, low in zip(row, least, strict=True)]
        table.add_row(family, *(f"[bold]{text}[/bold]" if b else text for text, b in zip(texts, best, strict=True)))
    return table


def markdown(table):
    """Return a rich table as markdown."""
    columns = [[str(cell).replace("[bold]", "**").replace("[/bold]", "**") for cell in c.cells] for c in table.columns]
    rows = [[str(column.header) for column in table.columns], ["---"] * len(columns), *zip(*columns, strict=True)]
    return "\n".join([f"{table.title}", "", *(f"| {' | '.join(row)} |" for row in rows), ""])


def report(name, console, as_markdown):
    results, n_cells = read(name)
    console.print(f"{name}: {len(results)} of {n_cells} cells", markup=False)
    if not results:
        return
    tables = [best_table(name, axis, results) for axis in AXES]
    tables += [front_table(name, axis, results) for axis in PLOTTED[:3]]
    for table in tables:
        print(markdown(table)) if as_markdown else console.print(table)


# -- plots ------------------------------------------------------------------------------------------------------------

COLOURS = dict(zip(FAMILIES, ("C0", "C9", "C3", "C1", "C5", "C6", "C2", "C8"), strict=True))
MARKERS = dict(zip(FAMILIES, ("o", "s", "^", "v", "<", ">", "D", "P"), strict=True))


def plot_axis(panel, results, axis):
    """Draw all points over one axis, those on the front strong and joined, the others faint."""
    ahead = front(results, axis)
    for family in FAMILIES:
        own = [result for result in priced(results, axis) if result["family"] == family]
        style = {"marker": MARKERS[family], "color": COLOURS[family], "linestyle": "none", "markersize": 5}
        beaten = [result for result in own if result not in ahead and test_error(result) <= LARGEST_ERROR]
        panel.plot([r[axis] for r in beaten], [test_error(r) for r in beaten], alpha=0.2, markeredgewidth=0, **style)
        best = [result for result in ahead if result["family"] == family]
        label = family if own else None
        panel.plot([r[axis] for r in best], [test_error(r) for r in best], label=label, **style, mec="black", mew=0.6)
    seen = [result for result in ahead if test_error(result) <= LARGEST_ERROR]
    panel.plot([r[axis] for r in seen], [test_error(r) for r in seen], color="grey", lw=0.8, zorder=0)
    panel.set(xscale="log", yscale="log", xlabel=AXES[axis])
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.3)


def plot(name):
    """Draw the fronts of one data set, and return the path."""
    results, _ = read(name)
    figure, panels = plt.subplots(2, 2, figsize=(11, 8.4), layout="constrained", sharey=True)
    for panel, axis in zip(panels.flat, PLOTTED, strict=True):
        plot_axis(panel, results, axis)
        panel.set_ylim(top=LARGEST_ERROR)
    for panel in panels[:, 0]:
        panel.set_ylabel("test error %")
    figure.suptitle(f"{name}: dark points lie on the front of held-out error and price")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    path = IMAGES / f"low_bit_{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", default=list(DATA_SETS), help=f"of {', '.join(DATA_SETS)}; default all")
    parser.add_argument("--report", action="store_true", help="measure nothing, print what is there")
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    parser.add_argument("--plot", action="store_true", help="draw docs/images/low_bit_*.png as well")
    parser.add_argument("--device", action="store_true", help="count instructions of the fronts on an emulated device")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(DATA_SETS))
    if unknown:
        parser.error(f"data sets {unknown} are unknown; accepted are {list(DATA_SETS)}")
    console = Console(width=180)
    with threadpool_limits(1):
        for name in [] if options.report else options.names:
            measure_all(name, console)
        for name in options.names if options.device else []:
            measure_on_device(name, console)
    for name in options.names:
        report(name, console, options.markdown)
        if options.plot and read(name)[0]:
            console.print(f"drew {plot(name).relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
