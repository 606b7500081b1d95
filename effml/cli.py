"""The ``effml`` command: demo, search, export, inspect.

This file declares the options and says in which order things happen; `effml._cli` does them. Whatever is slow to
import is imported inside a command, so that ``effml --help`` answers at once.
"""

import enum
import functools
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from effml import __version__
from effml._cli.errors import BAD_INPUT, INTERRUPTED, CommandError

app = typer.Typer(
    name="effml",
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


class Package(enum.StrEnum):
    """What the C is wrapped in."""

    files = "files"
    arduino = "arduino"
    component = "component"


class ClassWeight(enum.StrEnum):
    """How training weighs the classes."""

    none = "none"
    balanced = "balanced"


Budget = Annotated[
    str,
    typer.Option(
        help="Upper limits, such as flash=4KiB,ram=256: of flash, ram, operations, parameters or bits; '' sets none.",
        metavar="LIMITS",
    ),
]
Name = Annotated[str, typer.Option(help="Prefix of the C symbols and name of the files.")]
Scoring = Annotated[str, typer.Option(help="A scorer of scikit-learn by name; greater is better.")]
Weight = Annotated[ClassWeight, typer.Option(help="'balanced' weighs each class by its inverse frequency.")]
Folds = Annotated[int, typer.Option(min=2, help="Folds of the cross-validation on the training part.")]
TestSize = Annotated[float, typer.Option(help="Share of the rows (of the groups) held out, between 0 and 1.")]
Jobs = Annotated[int, typer.Option(help="Processes to use; -1 takes every core. The result does not depend on it.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the split, the folds and the training.")]
Effort = Annotated[int, typer.Option(min=0, max=2, help="How many candidates: 0 few, 1 normal, 2 many.")]
ModelFile = Annotated[
    Path, typer.Argument(help="A .skops file that search, demo or save_model wrote, or what Program.save did.")
]


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
        except BrokenPipeError:  # the reader of our output has gone (effml ... | head): click ends quietly
            raise
        except OSError as error:  # a full disk, a file that may not be read
            errors.print(f"effml: A file cannot be read or written: {error}", markup=False)
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt:
            errors.print("effml: interrupted; nothing was written.", markup=False)
            raise typer.Exit(INTERRUPTED) from None

    return app.command()(guarded)


def _show_version(asked: bool):
    if asked:
        print(f"effml {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
):
    """Small classifiers under a byte budget, shipped as C that predicts exactly what Python predicts."""


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
    time_ordered: Annotated[
        bool, typer.Option("--time-ordered", help="Rows are in time order: hold out the last ones.")
    ] = False,
    cv: Folds = 5,
    jobs: Jobs = -1,
    seed: Seed = 0,
    effort: Effort = 1,
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")] = None,
    categorical: Annotated[
        list[str] | None, typer.Option(help="Column of numbers that are codes of categories; may be repeated.")
    ] = None,
    missing: Annotated[
        list[str] | None,
        typer.Option(help="Text that means missing, beside an empty cell, NA, NaN and the like; may be repeated."),
    ] = None,
    separator: Annotated[str, typer.Option(help="Separator of the columns: one character, or tab.")] = ",",
):
    """Find the most accurate model within a budget for a CSV file, and export it as C proven equal.

    A row without a label (or group) is dropped and counted; a missing cell stays missing: the model leaves it out.

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
    input_dtype: Annotated[
        InputDtype, typer.Option(help="Type of the C's input row; auto takes the one that search chose, else float32.")
    ] = InputDtype.auto,
    package: Annotated[
        Package, typer.Option(help="The two files alone, an Arduino library, or a CMake and PlatformIO component.")
    ] = Package.files,
    self_test: Annotated[
        Path | None,
        typer.Option(help="CSV file with rows of features: adds C that compares the device with Python on them."),
    ] = None,
    self_test_rows: Annotated[
        int, typer.Option(min=1, max=1000, help="How many of these rows, evenly over the file.")
    ] = 16,
    target: Annotated[
        str, typer.Option(help="Machine whose flash and RAM to say: host, or a microcontroller such as cortex-m3.")
    ] = "host",
):
    """Write a saved model as C."""
    _check_name(name)
    estimator, made_for = _load(model)  # or a Program
    import numpy as np

    from effml._cli.output import staged
    from effml._cli.table import read_rows
    from effml.export import footprint, to_c

    dtype = (made_for or "float32") if input_dtype is InputDtype.auto else input_dtype.value
    if made_for is not None and not np.can_cast(made_for, dtype):
        _note(f"the model was made for {made_for} rows; a value that is no {dtype} cannot be given to this C")
    rows = None if self_test is None else read_rows(self_test, estimator, self_test_rows)
    with staged(out) as stage:
        written = to_c(estimator, stage, name=name, input_dtype=dtype, package=package.value, self_test=rows)
        written = [out / Path(path).relative_to(stage) for path in written]
        size = footprint(estimator, input_dtype=dtype, target=target)
    for path in sorted(written):
        print(path)
    print(
        f"{dtype} input: about {size.flash_bytes:,} bytes of flash, {size.ram_bytes:,} of RAM, "
        f"{size.n_operations:,} operations a row" + ("" if target == "host" else f" ({target}, {size.basis})")
    )


@_command
def inspect(model: ModelFile):
    """Show a saved model's size, operations, steps and structure."""
    estimator, dtype = _load(model)
    dtype = dtype or "float32"
    from effml._cli import show
    from effml.export import footprint, lower
    from effml.program import CompiledProgram, CompileError, Program, with_input_dtype

    program = with_input_dtype(estimator if isinstance(estimator, Program) else lower(estimator), dtype)
    try:
        measured = CompiledProgram(program).flash_bytes
    except CompileError:
        measured = None
    console = Console()
    classes = "" if program.classes is None else f", {len(program.classes)} classes"
    steps = estimator.named_steps.values() if hasattr(estimator, "named_steps") else [estimator]
    print(f"{', '.join(type(step).__name__ for step in steps)}: {len(program.inputs)} features{classes}, {dtype} input")
    for shown in show.structure_of(estimator, program, footprint(program, input_dtype=dtype), measured):
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
    """Return the estimator or Program of a file, and the input type it was made for (None: the file names none)."""
    from effml.persistence import load_model, saved_input_dtype
    from effml.program import Program

    try:
        if Program.is_saved_in(path):
            program = Program.load(path)
            return program, None if program.input_dtype == "float32" else program.input_dtype
        return load_model(path), saved_input_dtype(path)
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
    written = [*written, save_model(best.estimator, stage / f"{name}.skops", input_dtype=settings.input_dtype)]
    print(
        f"{best.label}: C and Python predict the same label on {best.n_equal} of {best.n_rows} held-out rows "
        f"({settings.input_dtype} input; {time.perf_counter() - started:.0f} s)"
    )
    print("wrote " + ", ".join(str(out / Path(path).name) for path in sorted(map(Path, written))))


def _note(text):
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"note: {text}", markup=False)


def main():
    """Run the command; the entry point of the package."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by an exception, so that we tidy up
    app()


if __name__ == "__main__":
    main()
