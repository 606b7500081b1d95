"""The ``effml`` command: demo, search, export, inspect.

This file declares the options and says in which order things happen; `effml._cli` does them. Whatever is slow to
import is imported inside a command, so that ``effml --help`` answers at once.
"""

import enum
import functools
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from effml._cli.errors import BAD_INPUT, CommandError

app = typer.Typer(
    name="effml",
    help="Small classifiers under a byte budget, shipped as C that predicts exactly what Python predicts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class InputDtype(enum.StrEnum):
    """Element type of the row that the C receives."""

    auto = "auto"
    float32 = "float32"
    int32 = "int32"
    int16 = "int16"
    uint8 = "uint8"


class ClassWeight(enum.StrEnum):
    """How training weighs the classes."""

    none = "none"
    balanced = "balanced"


Budget = Annotated[
    str,
    typer.Option(help="Upper limits, such as 'flash=4KiB,ram=1KiB,operations=5000'; '' sets none.", metavar="LIMITS"),
]
Name = Annotated[str, typer.Option(help="Prefix of the C symbols and name of the files.")]
Scoring = Annotated[str, typer.Option(help="A scorer of scikit-learn by name; greater is better.")]
Weight = Annotated[ClassWeight, typer.Option(help="'balanced' weighs each class by its inverse frequency.")]
Folds = Annotated[int, typer.Option(min=2, help="Folds of the cross-validation on the training part.")]
TestSize = Annotated[float, typer.Option(help="Share of the rows (of the groups) held out, between 0 and 1.")]
Jobs = Annotated[int, typer.Option(help="Processes to use; -1 takes every core. The result does not depend on it.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the split, the folds and the training.")]
Effort = Annotated[int, typer.Option(min=0, max=2, help="How many candidates: 0 few, 1 normal, 2 many.")]
ModelFile = Annotated[Path, typer.Argument(help="A .skops file that search, demo or save_model wrote.")]


def _command(function):
    """Register a command whose failures are one sentence on stderr and an exit code."""

    @functools.wraps(function)
    def guarded(*args, **kwargs):
        errors = Console(stderr=True, soft_wrap=True, highlight=False)
        try:
            function(*args, **kwargs)
        except CommandError as error:
            errors.print(f"effml: {error}", markup=False)
            raise typer.Exit(error.exit_code) from None
        except ValueError as error:  # the library's own checks name the parameter and what is accepted
            errors.print(f"effml: {' '.join(str(error).split())}", markup=False)
            raise typer.Exit(BAD_INPUT) from None

    return app.command()(guarded)


@_command
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model's files.")] = Path("effml-demo"),
    budget: Budget = "flash=4KiB",
    name: Name = "model",
    cv: Folds = 5,
    test_size: TestSize = 0.25,
    jobs: Jobs = -1,
    seed: Seed = 0,
    effort: Effort = 1,
):
    """Train on the handwritten digits that ship with scikit-learn, and prove the exported C equal."""
    settings = _settings(budget, name, test_size, jobs=jobs, seed=seed, effort=effort, input_dtype="uint8")
    from effml._cli.output import staged

    with staged(out) as stage:
        from effml.datasets import load_dataset

        digits = load_dataset("digits")
        print(f"Handwritten digits of scikit-learn: {len(digits.data)} rows of 64 grey values, 10 classes")
        _search_and_write(digits.data, digits.target, stage, out, name, settings, cv=cv, test_size=test_size)


@_command
def search(
    data: Annotated[Path, typer.Argument(help="CSV file with a header line.")],
    target: Annotated[str, typer.Option(help="Column that holds the label.")],
    budget: Budget = "",
    out: Annotated[Path, typer.Option(help="Folder for the model's files.")] = Path("effml-model"),
    name: Name = "model",
    input_dtype: Annotated[
        InputDtype, typer.Option(help="Type of the C's input row; auto takes the smallest that holds every column.")
    ] = InputDtype.auto,
    test_size: TestSize = 0.25,
    scoring: Scoring = "accuracy",
    class_weight: Weight = ClassWeight.none,
    group_column: Annotated[
        str | None, typer.Option(help="Column of groups (a subject, a device); no group is in both parts or two folds.")
    ] = None,
    time_ordered: Annotated[bool, typer.Option(help="Rows are in time order: hold out the last ones.")] = False,
    cv: Folds = 5,
    jobs: Jobs = -1,
    seed: Seed = 0,
    effort: Effort = 1,
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")] = None,
    categorical: Annotated[
        list[str] | None, typer.Option(help="Column of numbers that are codes of categories; may be repeated.")
    ] = None,
    missing: Annotated[list[str] | None, typer.Option(help="Further text that means missing; may be repeated.")] = None,
    separator: Annotated[str, typer.Option(help="Separator of the columns.")] = ",",
):
    """Find the most accurate model within a budget for a CSV file, and export it as C proven equal.

    Missing values: a row without a label (or without a group) is dropped and counted; a missing cell stays missing,
    and the model leaves that factor out of its sum.

    The choice is made by cross-validation on the training part. The held-out part is looked at once, for the table.
    """
    settings = _settings(
        budget, name, test_size, scoring=scoring, class_weight=class_weight, jobs=jobs, seed=seed, effort=effort
    )
    from effml._cli import show
    from effml._cli.output import staged
    from effml._cli.table import read_table

    with staged(out) as stage:
        table = read_table(
            data,
            target=target,
            drop=drop or (),
            categorical=categorical or (),
            group_column=group_column,
            missing=missing or (),
            separator=separator,
            input_dtype=input_dtype.value,
        )
        Console().print(show.table_of_columns(table, target))
        for note in table.notes:
            _note(note)
        settings["input_dtype"] = table.input_dtype
        _search_and_write(
            table.X,
            table.y,
            stage,
            out,
            name,
            settings,
            cv=cv,
            test_size=test_size,
            groups=table.groups,
            time_ordered=time_ordered,
            categorical=[column.name for column in table.columns if column.kind == "category"],
            missing=any(column.n_missing for column in table.columns),
        )


@_command
def export(
    model: ModelFile,
    out: Annotated[Path, typer.Option(help="Folder for the .h and .c files.")],
    name: Name = "model",
    input_dtype: Annotated[InputDtype, typer.Option(help="Type of the C's input row.")] = InputDtype.float32,
):
    """Write a saved model as C."""
    _check_name(name)
    if input_dtype is InputDtype.auto:
        raise CommandError("--input-dtype auto needs the data; name float32, int32, int16 or uint8.")
    estimator = _load(model)
    from effml._cli.output import staged
    from effml.export import footprint, to_c

    with staged(out) as stage:
        written = to_c(estimator, stage, name=name, input_dtype=input_dtype.value)
        size = footprint(estimator, input_dtype=input_dtype.value)
    for path in sorted(written):
        print(out / Path(path).name)
    print(
        f"about {size.flash_bytes:,} bytes of flash, {size.ram_bytes:,} of RAM, {size.n_operations:,} operations a row"
    )


@_command
def inspect(model: ModelFile):
    """Show a saved model's size, operations, steps and structure."""
    estimator = _load(model)
    from effml._cli import show
    from effml.export import compile_c, footprint, lower
    from effml.program import CompileError

    program = lower(estimator)
    try:
        measured = compile_c(estimator).flash_bytes
    except CompileError:
        measured = None
    console = Console()
    classes = "" if program.classes is None else f", {len(program.classes)} classes"
    steps = [step for _, step in estimator.steps] if hasattr(estimator, "steps") else [estimator]
    print(f"{', '.join(type(step).__name__ for step in steps)}: {len(program.inputs)} features{classes}")
    for shown in show.structure_of(estimator, program, footprint(estimator), measured):
        console.print(shown)


def _settings(budget, name, test_size, *, scoring="accuracy", class_weight=ClassWeight.none, **others):
    """Check what can be checked before any data is read; return the keyword arguments of `job.Settings`."""
    from sklearn.metrics import get_scorer_names

    from effml.selection import parse_budget

    _check_name(name)
    if not 0 < test_size < 1:
        raise CommandError(f"--test-size {test_size:g} must lie between 0 and 1.")
    if others["jobs"] == 0:
        raise CommandError("--jobs 0 must be -1 (every core) or a number of processes.")
    if scoring not in get_scorer_names():
        raise CommandError(f"--scoring {scoring!r} is no scorer of scikit-learn, such as accuracy or f1_macro.")
    weight = None if class_weight is ClassWeight.none else class_weight.value
    limits = parse_budget(budget) if budget.strip() else {}
    return {"budget": limits, "scoring": scoring, "class_weight": weight, **others}


def _check_name(name):
    from effml.program.cwriter import check_c_name

    check_c_name(name)


def _load(path):
    from effml.persistence import load_model

    try:
        return load_model(path)
    except OSError as error:
        raise CommandError(str(error)) from None


def _search_and_write(
    X,
    y,
    stage,
    out,
    name,
    settings,
    *,
    cv,
    test_size,
    groups=None,
    time_ordered=False,
    categorical=(),
    missing=False,
):
    """Split, search, print the front, and write the chosen model's files to `stage`."""
    from effml._cli import job, parts, show
    from effml.export import to_c
    from effml.persistence import save_model
    from effml.program import CompileError

    settings = job.Settings(**settings)
    split = parts.split(
        y, groups=groups, time_ordered=time_ordered, test_size=test_size, n_folds=cv, seed=settings.seed
    )
    print(f"{len(split.train)} training rows, {len(split.test)} held-out rows: {split.words}")
    rows = X.iloc if hasattr(X, "iloc") else X
    started = time.perf_counter()
    try:
        outcome = job.run(
            rows[split.train],
            y[split.train],
            rows[split.test],
            y[split.test],
            cv=split.cv,
            settings=settings,
            console=Console(stderr=True),
            groups=None if groups is None else groups[split.train],
            categorical=categorical,
            missing=missing,
        )
    except CompileError as error:
        raise CommandError(f"The generated C could not be compiled: {error}") from None
    best = outcome.best
    for note in outcome.notes:
        _note(note)
    Console().print(show.front_of(outcome, settings.scoring, settings.budget))
    print(show.legend(outcome, settings.budget))
    written = to_c(best.estimator, stage, name=name, input_dtype=settings.input_dtype)
    written = [*written, save_model(best.estimator, stage / f"{name}.skops")]
    print(
        f"{best.label}: C and Python predict the same label on {best.n_equal} of {best.n_rows} held-out rows "
        f"({settings.input_dtype} input; {time.perf_counter() - started:.0f} s)"
    )
    print("wrote " + ", ".join(str(out / Path(path).name) for path in sorted(map(Path, written))))


def _note(text):
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"note: {text}", markup=False)


def main():
    """Run the command; the entry point of the package."""
    app()


if __name__ == "__main__":
    main()
