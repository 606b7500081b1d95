"""The columns a pipeline step sees, as functions of the raw row: how transformers fold away instead of becoming code.

A :class:`Column` is either *numeric*, an increasing function of one raw column (scalers), or *discrete*, a table over
the states of one raw column (discretizers, encoders). A consumer asks for what it needs: thresholds on the raw value
(trees, discretizers), the affine map (linear models) or the states (tables). Thresholds are found by bisection on the
very Python functions that the estimator calls, so rounding inside a scaler is reproduced, not modelled.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from effml.program.buffers import RAW, Buffer, InputSpec, Output
from effml.program.cwriter import key_of_float32
from effml.program.program import Program
from effml.program.steps import Bin, Step

__all__ = ["Builder", "Column", "Frame", "LoweringError", "discrete_column", "round_down_float32"]


class LoweringError(ValueError):
    """An estimator, or a use of one, that has no Program; the message names it."""


@dataclass
class Builder:
    """Collects the steps of one Program under unique buffer names."""

    inputs: list[InputSpec]
    steps: list[Step] = field(default_factory=list)
    outputs: dict[str, Output] = field(default_factory=dict)
    classes: tuple | None = None
    notes: list[str] = field(default_factory=list)

    def add(self, step: type[Step], hint: str, dtype: str, size: int, inputs=(RAW,), **fields) -> str:
        """Append a step and return the name of the buffer it writes."""
        taken = {s.output.name for s in self.steps}
        name = next(n for n in (hint, *(f"{hint}{k}" for k in range(2, len(taken) + 3))) if n not in taken)
        if step is Bin:
            made = Bin.of(fields["parts"], Buffer(name, dtype, size), inputs=inputs)
        else:
            made = step(inputs=tuple(inputs), output=Buffer(name, dtype, size), **fields)
        self.steps.append(made)
        return name

    def describe_missing(self, text: str) -> None:
        """Say in the documentation of every raw column what a NaN does."""
        self.inputs[:] = [replace(spec, missing=text) for spec in self.inputs]

    def mark_unused(self, column: int) -> None:
        """Say that the model does not read a raw column."""
        self.inputs[column] = replace(self.inputs[column], used=False)

    def program(self, source: str) -> Program:
        return Program(
            inputs=tuple(self.inputs),
            steps=tuple(self.steps),
            outputs=dict(self.outputs),
            classes=self.classes,
            source=source,
            notes=tuple(self.notes),
        )


@dataclass(frozen=True, eq=False)
class Column:
    """One column as a function of one raw column.

    Attributes
    ----------
    source : int
        The raw column.
    links : tuple of (transformer, position, output position)
        Increasing transformers that the raw value passes through.
    affine : (scale, offset) or None
        The same function where it is affine.
    cuts : float32 array or None
        Discrete columns: edges of the raw value, or its exact values. None for numeric columns.
    by_value : bool
        How `cuts` makes states, see :class:`effml.program.steps.Bin`.
    values : float64 array (n_states + 1,)
        Discrete columns: value in each state, then for a missing (by edges) or unmatched (by value) raw value.
    """

    source: int
    links: tuple = ()
    affine: tuple[float, float] | None = (1.0, 0.0)
    cuts: np.ndarray | None = None
    by_value: bool = False
    values: np.ndarray | None = None

    @property
    def is_discrete(self) -> bool:
        return self.cuts is not None

    @property
    def n_states(self) -> int:
        return len(self.cuts) + (0 if self.by_value else 1)

    def same_states(self, other: "Column") -> bool:
        """Return whether two discrete columns are tables over the same states of the same raw column."""
        return self.source == other.source and self.by_value == other.by_value and np.array_equal(self.cuts, other.cuts)

    def with_values(self, values) -> "Column":
        return replace(self, values=np.asarray(values, dtype=np.float64))

    def bin_part(self, codes=None):
        """Return the argument of Bin.of for this column; `codes` as `values`, by default the states 0, 1, ..."""
        counted = np.arange(self.n_states + 1)
        codes = counted if codes is None else np.asarray(codes).astype(np.int64)
        shipped = codes if self.by_value else codes[:-1]
        plain = np.array_equal(shipped, counted[: len(shipped)])
        return (self.source, self.by_value, self.cuts, None if plain else shipped, int(codes[-1]))


@dataclass(frozen=True, eq=False)
class Frame:
    """The columns that one step of a pipeline receives.

    Attributes
    ----------
    builder : Builder
    columns : list of Column
    lower_transformer : callable
        ``lower_transformer(transformer, frame) -> Frame``: the registry's dispatch, so that an estimator can send its
        columns through a transformer that it holds.
    """

    builder: Builder
    columns: list[Column]
    lower_transformer: Callable

    def with_columns(self, columns) -> "Frame":
        return replace(self, columns=list(columns))

    def through(self, transformer) -> "Frame":
        """Return the frame behind a fitted transformer."""
        return self.lower_transformer(transformer, self)

    def set_categories(self, position: int, categories) -> Column:
        """Declare a column as categorical and return it as a discrete column whose values are the level numbers.

        Text levels become codes in the raw row; numeric levels stay numbers and are matched exactly.
        """
        column = self.columns[position]
        name = self.builder.inputs[column.source].name
        if column.is_discrete or column.links:
            raise LoweringError(f"column {name!r} is encoded as categories behind another transformer")
        levels = np.asarray(categories)
        numeric = levels.dtype.kind in "biuf"
        if not numeric:
            spec = InputSpec(name, tuple(str(level) for level in levels.tolist()))
            known = self.builder.inputs[column.source].categories
            if known is not None and known != spec.categories:
                raise LoweringError(f"column {name!r} is given two different lists of categories")
            self.builder.inputs[column.source] = spec
        cuts = (levels if numeric else np.arange(len(levels))).astype(np.float32)
        order = np.argsort(cuts, kind="stable")
        cuts = cuts[order]
        if cuts.size > 1 and not (cuts[1:] > cuts[:-1]).all():
            raise LoweringError(f"categories of column {name!r} are equal as float32: {levels.tolist()}")
        values = np.append(order.astype(np.float64), len(levels))
        return Column(column.source, cuts=cuts, by_value=True, values=values, affine=None)

    def evaluate(self, positions, probes) -> np.ndarray:
        """Return the values of numeric columns for raw values, by the Python path.

        Parameters
        ----------
        positions : sequence of int
            Columns of this frame.
        probes : float32 array (n_probes, len(positions))
            Raw values of each.
        """
        columns = [self.columns[position] for position in positions]
        out = np.empty(probes.shape, dtype=np.float64)
        groups: dict[tuple, list[int]] = {}
        for k, column in enumerate(columns):
            groups.setdefault(tuple(id(link[0]) for link in column.links), []).append(k)
        for members in groups.values():
            while members:  # columns that enter a transformer at the same place go in separate rounds
                taken, now, later = set(), [], []
                for k in members:
                    places = {(level, link[1]) for level, link in enumerate(columns[k].links)}
                    if taken & places:
                        later.append(k)
                    else:
                        now.append(k)
                        taken |= places
                out[:, now] = _evaluate_inside([columns[k] for k in now], probes[:, now])
                members = later
        return out

    def raw_thresholds(self, positions, thresholds, *, cast=None) -> list[np.ndarray]:
        """Return, per column, the largest float32 raw values x with ``f(x) <= t`` for each of its thresholds t.

        Parameters
        ----------
        positions : sequence of int
            Numeric columns of this frame.
        thresholds : sequence of float64 arrays
        cast : dtype, optional
            What the consumer casts its input to before it compares.

        Returns
        -------
        list of float32 arrays
            NaN where no raw value passes; +inf where all do.
        """
        if not positions:
            return []
        if all(not self.columns[position].links for position in positions):
            return [round_down_float32(t) for t in thresholds]
        n = max((len(t) for t in thresholds), default=0)
        target = np.full((n, len(positions)), np.inf)
        for k, values in enumerate(thresholds):
            target[: len(values), k] = values
        low = np.full(target.shape, key_of_float32(-np.inf) - 1, dtype=np.int64)  # passes (or nothing does)
        high = np.full(target.shape, key_of_float32(np.inf) + 1, dtype=np.int64)  # fails (or everything passes)
        while (high - low > 1).any():
            middle = np.clip((low + high) // 2, key_of_float32(-np.inf), key_of_float32(np.inf))
            value = self.evaluate(positions, _float_of_key(middle))
            passes = (value if cast is None else value.astype(cast)) <= target
            low, high = np.where(passes, middle, low), np.where(passes, high, middle)
        found = np.where(low < key_of_float32(-np.inf), np.float32(np.nan), _float_of_key(low))
        return [found[: len(values), k].astype(np.float32) for k, values in enumerate(thresholds)]

    def missing_values(self, positions) -> list[float | None]:
        """Return what each numeric column holds for a NaN; None where the Python path rejects it."""
        out = []
        for position in positions:
            try:
                out.append(float(self.evaluate([position], np.full((1, 1), np.nan, dtype=np.float32))[0, 0]))
            except ValueError:
                out.append(None)
        return out


def discrete_column(column: Column, limits: np.ndarray, values) -> Column:
    """Return a discrete column from raw thresholds that may repeat, be NaN (none passes) or +inf (all pass).

    Parameters
    ----------
    column : Column
        The numeric column that is cut.
    limits : float32 array (n,)
        As :meth:`Frame.raw_thresholds` returns them, ascending.
    values : array (n + 2,)
        Value in each interval, then for a missing value.
    """
    values = np.asarray(values, dtype=np.float64)
    first = int(np.isnan(limits).sum())  # these cuts lie below every number
    cut = limits[first:]
    keep = (cut < np.inf) & np.append(cut[1:] > cut[:-1], np.ones(min(len(cut), 1), dtype=bool))
    upper = values[first + 1 : -1][keep]
    kept = np.concatenate([values[first : first + 1], upper, values[-1:]])
    return Column(column.source, affine=None, cuts=cut[keep].astype(np.float32), values=kept)


def round_down_float32(values) -> np.ndarray:
    """Return the largest float32 not above each value.

    Examples
    --------
    >>> from effml.program.frame import round_down_float32
    >>> bool(round_down_float32([0.1])[0] <= 0.1)
    True
    """
    values = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    above = rounded.astype(np.float64) > values
    return np.where(above, np.nextafter(rounded, np.float32(-np.inf), dtype=np.float32), rounded).astype(np.float32)


def _float_of_key(key: np.ndarray) -> np.ndarray:
    key = np.clip(key, -(2**31) + 1, 2**31 - 1)
    bits = np.where(key < 0, np.int64(0x80000000) - key, key)
    return bits.astype(np.uint32).view(np.float32)


def _evaluate_inside(columns, probes):
    """Evaluate; a probe that the Python path rejects as too large is beyond its range and counts as infinite."""
    try:
        return _evaluate_group(columns, probes)
    except ValueError:
        if np.isnan(probes).any():
            raise
        if probes.size == 1:
            return np.where(probes < 0, -np.inf, np.inf)
        axis = 0 if len(probes) > 1 else 1
        half = probes.shape[axis] // 2
        if axis:
            parts = [(columns[:half], probes[:, :half]), (columns[half:], probes[:, half:])]
        else:
            parts = [(columns, probes[:half]), (columns, probes[half:])]
        return np.concatenate([_evaluate_inside(*part) for part in parts], axis=axis)


def _evaluate_group(columns, probes):
    values = probes
    for level in range(len(columns[0].links)):
        transformer = columns[0].links[level][0]
        n_in = transformer.n_features_in_
        matrix = np.repeat(values[:, :1], n_in, axis=1)  # other columns: any value this transformer takes
        for k, column in enumerate(columns):
            matrix[:, column.links[level][1]] = values[:, k]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            out = np.asarray(_dense(_transform_unchecked(transformer, matrix)))
        values = np.stack([out[:, column.links[level][2]] for column in columns], axis=1)
    return values.astype(np.float64)


def _dense(values):
    return values.toarray() if hasattr(values, "toarray") else values


def _transform_unchecked(transformer, matrix):
    """Call transform with numbers that scikit-learn's finiteness check may reject: infinities pass as the largest."""
    limit = np.finfo(np.float32).max
    return transformer.transform(np.clip(matrix, -limit, limit).astype(matrix.dtype))
