"""From a CSV file to typed columns and labels, and a report of what was inferred.

The policy for missing values, which ``effml search --help`` states: a row without a label (or without a group, where
groups are asked for) is dropped and counted; a missing cell stays missing, and a model leaves that factor out.
"""

import warnings
from dataclasses import dataclass, field
from difflib import get_close_matches

import numpy as np

from effml._cli.errors import CommandError
from effml.program import Program

MAX_CLASSES = 256
# A text column with more levels than this share of the rows tells rows apart instead of describing them.
IDENTIFIER_SHARE = 0.5
MIN_IDENTIFIER_LEVELS = 20
# A text column of which at least this share reads as numbers is a number column with faulty cells.
NUMBER_SHARE = 0.5

INTEGER_DTYPES = ("uint8", "int16", "int32")
INPUT_DTYPES = ("float32", *INTEGER_DTYPES)


@dataclass(frozen=True)
class Column:
    """One feature column: its name, kind (number, integer or category), range or levels in words, missing cells."""

    name: str
    kind: str
    detail: str
    n_missing: int


@dataclass
class Table:
    """Features, labels and groups of a file, row by row, and what was inferred."""

    X: object  # DataFrame (n_rows, n_features)
    y: np.ndarray  # (n_rows,) text or int64
    groups: np.ndarray | None
    columns: list[Column]
    notes: list[str] = field(default_factory=list)
    input_dtype: str = "float32"


def read_table(
    path, *, target, drop=(), categorical=(), group_column=None, missing=(), separator=",", input_dtype="auto"
):
    """Read a CSV file; see the module for the policy. Raises CommandError with one sentence for bad input."""
    frame = _read_csv(path, missing, separator)
    _check_columns(frame, {"--target": [target], "--drop": drop, "--categorical": categorical})
    _check_columns(frame, {"--group-column": [group_column] if group_column is not None else []})
    if target in drop or target in categorical or target == group_column:
        raise CommandError(f"--target {target!r} is also named by --drop, --categorical or --group-column.")
    notes = []
    for role, name in (("label", target), ("group", group_column)):
        if name is None:
            continue
        known = frame[name].notna()
        if not known.all():
            notes.append(f"{int((~known).sum())} rows without a {role} (column {name!r}) were dropped")
            frame = frame[known]
    if frame.empty:
        raise CommandError(f"{str(path)!r} has no row with a label in column {target!r}.")

    y = _labels(frame[target], target)
    groups = None if group_column is None else frame[group_column].astype(str).to_numpy(dtype=object)
    features = frame.drop(columns=list({target, group_column, *drop} - {None}))  # its index counts the file's rows
    X, columns = _type_columns(features, set(categorical), notes)
    X = X.reset_index(drop=True)
    input_dtype = _cast_numbers(X, columns, input_dtype, notes)
    return Table(X, y, groups, columns, notes, input_dtype)


def read_rows(path, model, n_rows, *, missing=(), separator=","):
    """Read at most `n_rows` rows of a CSV file, evenly over it, with the columns that an estimator or Program reads."""
    frame = _read_csv(path, missing, separator)
    frame = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, n_rows).round().astype(int))].reset_index(drop=True)
    if isinstance(model, Program):
        names, n_columns = model.column_names, len(model.inputs)
    else:
        names, n_columns = getattr(model, "feature_names_in_", None), model.n_features_in_
    if names is None:
        if frame.shape[1] != n_columns:
            raise CommandError(
                f"{str(path)!r} has {frame.shape[1]} columns; the model, which knows no names, reads {n_columns}."
            )
        try:
            return frame.to_numpy(dtype=np.float64)
        except ValueError as error:
            raise CommandError(f"{str(path)!r} must hold numbers alone: {_one_line(error)}.") from None
    _check_columns(frame, {"--self-test": names})
    flags = {name: np.float64 for name in names if frame[name].dtype.kind == "b"}
    return frame[list(names)].astype(flags)


def _read_csv(path, missing, separator):
    try:
        import pandas as pd
    except ImportError:
        raise CommandError("Reading CSV files needs pandas: pip install 'effml[csv]'.") from None
    if not path.is_file():
        raise CommandError(f"There is no file {str(path)!r}.")
    separator = {r"\t": "\t", "tab": "\t"}.get(separator, separator)  # a shell passes '\t' as two characters
    if len(separator) != 1:
        raise CommandError(f"--separator {separator!r} must be one character, such as ';', or tab.")
    try:
        header = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0].dropna()
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # index_col=False: a row with surplus cells is an error, never a row name and the other cells shifted
            frame = pd.read_csv(path, sep=separator, na_values=list(missing) or None, index_col=False, low_memory=False)
    except pd.errors.ParserWarning:
        raise CommandError(f"{str(path)!r} has more cells in its rows than names in its header.") from None
    except UnicodeDecodeError:
        raise CommandError(f"{str(path)!r} is no UTF-8 text; save it with that encoding.") from None
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise CommandError(f"{str(path)!r} cannot be read as CSV: {_one_line(error)}.") from None
    if frame.empty:
        raise CommandError(f"{str(path)!r} has a header but no rows.")
    if header.duplicated().any():  # pandas would rename the second one
        raise CommandError(f"{str(path)!r} has two columns named {header[header.duplicated()].iloc[0]!r}; rename one.")
    frame.columns = [str(name) for name in frame.columns]
    return frame


def _check_columns(frame, named):
    for option, names in named.items():
        for name in names:
            if name in frame.columns:
                continue
            close = get_close_matches(name, frame.columns, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"columns: {_some(frame.columns)}."
            if len(frame.columns) == 1:
                guess = next((mark for mark in ";\t|" if mark in frame.columns[0]), None)
                advice = "is --separator right?" if guess is None else f"did you mean --separator {guess!r}?"
                hint = f"the file has one column, {frame.columns[0]!r}; {advice}"
            raise CommandError(f"{option}: there is no column {name!r}; {hint}")


def _labels(series, target):
    """Labels as text, or as int64 where the column holds whole numbers."""
    values = series.infer_objects()
    if values.dtype.kind == "f":
        fractions = values[values % 1 != 0]
        if len(fractions):
            raise CommandError(
                f"--target {target!r} holds numbers with fractions, such as {fractions.iloc[0]:g}; "
                "the search predicts classes: name a column of classes, or bin this one first."
            )
    labels = values.to_numpy().astype(np.int64) if values.dtype.kind in "iuf" else values.to_numpy().astype(str)
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise CommandError(f"--target {target!r} has one class only, {classes[0].item()!r}; at least two are needed.")
    if len(classes) > MAX_CLASSES:
        raise CommandError(
            f"--target {target!r} has {len(classes)} distinct values; at most {MAX_CLASSES} classes are supported."
        )
    if counts.min() < 2:
        rare = classes[counts < 2][0].item()
        raise CommandError(
            f"--target {target!r}: class {rare!r} has one row only; at least two are needed to hold one out."
        )
    return labels


def _type_columns(features, categorical, notes):
    """Give every column its kind; leave out the ones that carry nothing, and say so in `notes`."""
    typed, columns = {}, []
    for name in features.columns:
        series = features[name]
        if series.isna().all():
            notes.append(f"column {name!r} has no value at all and was left out")
            continue
        values, kind, detail = _type_column(series.infer_objects(), name, name in categorical)
        if kind == "identifier":
            notes.append(f"column {name!r} tells rows apart ({detail}) and was left out")
            continue
        typed[name] = values
        columns.append(Column(name, kind, detail, int(series.isna().sum())))
    if not columns:
        raise CommandError("There is no feature column left to learn from.")
    return type(features)(typed), columns


def _type_column(series, name, is_categorical):
    if is_categorical:
        return _category(series)
    if series.dropna().map(lambda value: isinstance(value, (bool, np.bool_))).all():
        values = series.astype("float64") if series.isna().any() else series.astype("uint8")
        return values, "integer", "false / true as 0 / 1"
    if series.dtype.kind in "iu" and len(series) > MIN_IDENTIFIER_LEVELS and np.ptp(series - series.index) == 0:
        return series, "identifier", "it counts the rows"
    if series.dtype.kind in "iuf":
        return _number(series, name)
    _refuse_faulty_numbers(series, name)
    n_levels = series.nunique()
    if n_levels > max(IDENTIFIER_SHARE * series.notna().sum(), MIN_IDENTIFIER_LEVELS):
        return series, "identifier", f"{n_levels} texts in {len(series)} rows"
    return _category(series.map(str, na_action="ignore").astype(object))


def _category(series):
    levels = sorted(series.dropna().unique())
    return series, "category", f"{len(levels)} levels: {_some(levels, 4)}"


def _number(series, name):
    values = series.to_numpy()
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if values.dtype.kind == "f" and (np.isinf(values).any() or np.abs(finite).max() > np.finfo(np.float32).max):
        huge = series[~(np.abs(values) <= np.finfo(np.float32).max) & ~np.isnan(values)]
        raise CommandError(
            f"Column {name!r} holds {huge.iloc[0]:g} in row {huge.index[0] + 1}, which no float32 can hold."
        )
    low, high = finite.min(), finite.max()
    whole = values.dtype.kind in "iu" or bool((finite % 1 == 0).all())
    if whole:
        return series, "integer", f"{int(low)} to {int(high)}"
    return series, "number", f"{low:g} to {high:g}"


def _refuse_faulty_numbers(series, name):
    """Raise where most cells of a text column are numbers: the others are faults, not categories."""
    import pandas as pd

    present = series.dropna()
    is_number = pd.to_numeric(present, errors="coerce").notna()
    if is_number.all() or is_number.mean() < NUMBER_SHARE:
        return
    faulty = present[~is_number]
    raise CommandError(
        f"Column {name!r} holds numbers, but {len(faulty)} of its {len(present)} cells are text (row "
        f"{faulty.index[0] + 1}: {str(faulty.iloc[0])!r}); correct them, or use --missing, --categorical or --drop."
    )


def _cast_numbers(X, columns, input_dtype, notes):
    """Cast the number columns to the type that the C will receive; ``"auto"`` takes the smallest that fits them all."""
    numbers = [column.name for column in columns if column.kind != "category"]
    if input_dtype == "auto":
        input_dtype = next((dtype for dtype in INTEGER_DTYPES if _misfit(X, numbers, dtype) is None), "float32")
    elif input_dtype != "float32" and (misfit := _misfit(X, numbers, input_dtype)):
        raise CommandError(f"--input-dtype {input_dtype}: {misfit}.")
    advice = "; --input-dtype int32 keeps them" if _misfit(X, numbers, "int32") is None else ""
    rounded = []
    for name in numbers:
        as_typed = X[name].astype(input_dtype)
        if X[name].dtype.kind in "iu" and not (as_typed.astype("float64") == X[name]).all():
            rounded.append(name)
        X[name] = as_typed
    if rounded:
        notes.append(f"integers beyond 2^24 were rounded to float32 in {_some(rounded)}{advice}")
    return input_dtype


def _misfit(X, numbers, dtype):
    """Return why the number columns do not fit an integer type, or None when they do."""
    limits = np.iinfo(dtype)
    for name in X.columns.difference(numbers):
        if X[name].nunique() > limits.max:  # the codes 0..n-1, and n for an unknown level
            return f"column {name!r} has {X[name].nunique()} levels, too many for {dtype}"
    for name in numbers:
        if X[name].isna().any():
            return f"column {name!r} has missing cells, which an integer cannot express; use float32"
        values = X[name].to_numpy()
        bad = (values < limits.min) | (values > limits.max) | (values % 1 != 0)
        if bad.any():
            return f"column {name!r} holds {values[bad][0]:g}, which is no {dtype}"
    return None


def _some(values, n=8):
    texts = [repr(value) if isinstance(value, str) else f"{value:g}" for value in list(values)[:n]]
    return ", ".join(texts) + (", ..." if len(values) > n else "")


def _one_line(error):
    return " ".join(str(error).split()).rstrip(".")
