"""What is printed: tables on stdout, notes and progress on stderr."""

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from effml._cli.job import ACCURACY_SCORES
from effml.bayes.structure import DROPPED
from effml.program import deployable

MAX_ROWS = 40
MAX_VALUES = 8


def table_of_columns(table, target):
    """What was inferred from a CSV file: one row a column, the labels last."""
    shown = Table("column", "kind", "values", box=box.SIMPLE)
    shown.add_column("missing", justify="right")
    for column in table.columns[:MAX_ROWS]:
        shown.add_row(*map(_plain, (column.name, column.kind, column.detail, column.n_missing or "")))
    if len(table.columns) > MAX_ROWS:
        shown.add_row(f"... {len(table.columns) - MAX_ROWS} more", "", "", "")
    classes = np.unique(table.y).tolist()
    named = ", ".join(map(repr, classes[:6])) + (", ..." if len(classes) > 6 else "")
    shown.add_row(_plain(target), "label", _plain(f"{len(classes)} classes: {named}"), "")
    return shown


def front_of(outcome, scoring, budget):
    """The Pareto front: quality on both parts against what the model costs; the chosen row is marked."""
    word = "error" if scoring in ACCURACY_SCORES else scoring
    shown = Table("", box=box.SIMPLE, padding=(0, 1, 0, 0))
    shown.add_column("model", overflow="fold")
    for header in (f"CV\n{word}", f"held-out\n{word}", "flash\nbytes", "RAM\nbytes", "operations"):
        shown.add_column(header, justify="right")
    for model in outcome.front:
        fits = model.load(budget) <= 1
        style = "bold green" if model is outcome.best else None if fits else "dim"
        cells = (
            "*" if model is outcome.best else "" if fits else ">",
            model.label,
            _quality(model.cv_score, scoring),
            _quality(model.held_out_score, scoring),
            f"{model.flash_bytes:,}",
            f"{model.footprint.ram_bytes:,}",
            f"{model.footprint.n_operations:,}",
        )
        shown.add_row(*map(_plain, cells), style=style)
    return shown


def legend(outcome, budget):
    """One line that explains the marks of :func:`front_of`."""
    marks = ["* chosen: the best in cross-validation within the budget" if budget else "* best in cross-validation"]
    if any(model.load(budget) > 1 for model in outcome.front):
        marks.append("> over the budget")
    return "; ".join(marks) + ". Flash is code and tables as the C compiler builds them (-Os)."


def structure_of(estimator, program, footprint, measured):
    """Tables for ``effml inspect``: the totals, the steps, and each feature's bins and parent."""
    totals = Table("what", box=box.SIMPLE)
    totals.add_column("amount", justify="right")
    rows = {
        "parameters": footprint.n_parameters,
        "parameter bits": footprint.bits,
        "flash bytes (estimate)": footprint.flash_bytes,
        "flash bytes (compiled, -Os)": measured,
        "RAM bytes": footprint.ram_bytes,
        "operations a prediction": footprint.n_operations,
    }
    for name, amount in rows.items():
        totals.add_row(name, "no C compiler" if amount is None else f"{amount:,}")
    for kind, amount in footprint.operations.items():
        totals.add_row(f"  {kind}", f"{amount:,}")
    return [totals, _steps_of(program), *_features_of(estimator)]


def _steps_of(program):
    steps = Table("step", "writes", "holds", box=box.SIMPLE)
    for header in ("parameters", "bits", "operations"):
        steps.add_column(header, justify="right")
    for step in deployable(program.with_outputs(program.main_output)).steps:  # what is priced and printed as C
        cost = step.cost()
        cells = (type(step).__name__, f"{step.output.name}: {step.output.dtype}[{step.output.size}]", step.describe())
        amounts = (f"{n:,}" for n in (cost.n_parameters, cost.bits, sum(cost.operations.values())))
        steps.add_row(*map(_plain, cells), *amounts)
    return steps


def _features_of(estimator):
    """States, parents and cuts of a Bayesian network classifier; nothing for other families."""
    classifier = estimator.steps[-1][1] if hasattr(estimator, "named_steps") else estimator
    if not hasattr(classifier, "parents_"):
        return []
    names = getattr(classifier, "feature_names_in_", [f"x{i}" for i in range(classifier.n_features_in_)])
    features = Table("feature", box=box.SIMPLE)
    features.add_column("states", justify="right")
    features.add_column("parent")
    features.add_column("cuts or levels")
    for i, (name, n_states, parent) in enumerate(zip(names, classifier.n_states_, classifier.parents_, strict=True)):
        values = _cuts_or_levels(classifier.discretizer_, i)
        parent_name = names[parent] if parent >= 0 else {DROPPED: "(dropped)"}.get(int(parent), "-")
        features.add_row(_plain(name), str(n_states), _plain(parent_name), _plain(values))
    return [features]


def _cuts_or_levels(discretizer, feature):
    if getattr(discretizer, "categories_", None) is not None and discretizer.categories_[feature] is not None:
        values = [repr(level) for level in discretizer.categories_[feature].tolist()]
    elif hasattr(discretizer, "bin_edges_"):
        values = [f"{edge:g}" for edge in discretizer.bin_edges_[feature]]
    else:
        return ""
    return ", ".join(values[:MAX_VALUES]) + (", ..." if len(values) > MAX_VALUES else "")


def _quality(score, scoring):
    return f"{1 - score:.2%}" if scoring in ACCURACY_SCORES else f"{score:.4g}"


def _plain(value):
    """Show a user's words as they are: brackets are no markup, and a line break or terminal code is spelled out."""
    return Text("".join(char if char.isprintable() else repr(char)[1:-1] for char in str(value)))
