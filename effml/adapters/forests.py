"""Forests and boosted trees: leaf values become integers, whose sums decide the label as the float sums do.

All leaf values of an ensemble are rounded to multiples of one unit. The largest rounding of each tree, added over the
trees, is a proven bound on the error of a sum: a label can differ from Python's only where the best class leads by less
(the "gap", kept as `Output.tolerance` and in the notes). Where all leaf values are multiples of one power of two, as in
trees of pure leaves, sums are exact on both sides and every label is Python's.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor

from effml._trees import Trees
from effml.adapters.trees import add_ranks, raw_tests, read_trees, reads_raw_values
from effml.program.buffers import RAW, Output, smallest_unsigned
from effml.program.frame import Frame, LoweringError
from effml.program.ranking import BIN_BYTES, MAX_NARROW_COLUMNS, MAX_NARROW_CUTS
from effml.program.steps import Affine, ArgBest, ForestWalk, Positive, Softmax

__all__ = [
    "Options",
    "add_affine",
    "add_label",
    "add_sums",
    "forest_classifier",
    "forest_regressor",
    "gradient_boosting_classifier",
    "gradient_boosting_regressor",
    "hist_gradient_boosting_classifier",
    "hist_gradient_boosting_regressor",
]

LEAF_BITS = (8, 16, 32)
MISSING = ("exact", "right")
THRESHOLDS = ("auto", "ranks", "raw")
VOTES = ("soft", "hard")

_INT32_MAX = 2**31 - 1
_SMALLEST_UNIT = 2.0**-100  # float32 holds it as a normal number
_U32, _U64 = 2.0**-24, 2.0**-53  # largest relative rounding of one float32 or float64 operation
_RAW_SPLIT_BYTES, _WIDE_SPLIT_BYTES, _NARROW_SPLIT_BYTES = 8, 6, 4  # of the table layout, leaves included


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an ensemble is lowered; the keyword arguments of :func:`effml.lower` for it.

    Attributes
    ----------
    leaf_bits : {8, 16, 32}
        Bits of a leaf value.
    layout : {"table", "code"}
        See :class:`effml.program.steps.ForestWalk`.
    missing : {"exact", "right"}
        "exact": a NaN takes the way it takes in Python. "right": it goes right at every split, which saves the second
        ranking of columns where the trees disagree.
    thresholds : {"auto", "ranks", "raw"}
        What a split compares: small ranks of a column among all its thresholds, found once a row, or raw values.
        "auto" takes what needs fewer bytes.
    """

    leaf_bits: int = 16
    layout: str = "table"
    missing: str = "exact"
    thresholds: str = "auto"

    def __post_init__(self):
        for name, accepted in (("leaf_bits", LEAF_BITS), ("missing", MISSING), ("thresholds", THRESHOLDS)):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {accepted}")


# -- the estimators ---------------------------------------------------------------------------------------------------


def forest_classifier(est, frame: Frame, *, votes="soft", **options) -> None:
    """Lower a RandomForestClassifier or ExtraTreesClassifier: the mean of the trees' probabilities, as Python's.

    With ``votes="hard"`` the label is that of most trees, which is not what `predict` gives; no leaf values are stored
    for many classes.
    """
    if votes not in VOTES:
        raise ValueError(f"votes={votes!r} must be one of {VOTES}")
    options, trees, builder = Options(**options), read_trees(est), frame.builder
    if votes == "hard":
        trees = replace(trees, value=np.eye(trees.n_outputs)[trees.value.argmax(axis=1)])
        builder.notes.append("the label of most trees (votes='hard'), not that of the mean of their probabilities")
    n_classes, n, shares = len(est.classes_), trees.n_trees, trees.value
    if n_classes == 2:  # one sum, of p1 - p0; p0 + p1 = 1
        trees = replace(trees, value=trees.value[:, 1:] - trees.value[:, :1])
    elif not np.isin(trees.value, (0, 1)).all():  # numbers of both signs use all bits; no lead changes
        trees = replace(trees, value=trees.value - 0.5)
    numbers = Numbers.of(trees, options.leaf_bits)
    sums = add_sums(frame, trees, numbers.of_leaf, numbers.start, options)
    label = add_label(builder, sums, n_classes)
    unit = numbers.unit / n  # of a mean over trees
    if n_classes == 2:
        proba = add_affine(builder, "proba", sums, [-unit / 2, unit / 2], [0.5, 0.5])
    else:
        middle = 0.5 if trees.value.min() < 0 else 0.0
        proba = add_affine(builder, "proba", sums, [unit] * n_classes, [middle] * n_classes)
    # float64 sums of multiples of a power of two are exact, too
    exact = numbers.is_exact and not np.fmod(shares, numbers.unit / 2).any()
    gap = 0.0 if exact else (numbers.lead_error() + 4 * n * (n + 1) * _U64) / n
    error = numbers.error.max() / n / (2 if n_classes == 2 else 1) + 4 * _U32
    builder.outputs = {"label": Output(label, tolerance=gap), "proba": Output(proba, tolerance=float(error))}
    _note_gap(builder, gap, "the best class leads by less in mean probability")
    builder.notes.append(f"a probability is within {error:.1e} of Python's")
    _describe_missing(builder, options)
    builder.classes = tuple(np.asarray(est.classes_).tolist())


def forest_regressor(est, frame: Frame, **options) -> None:
    """Lower a RandomForestRegressor or ExtraTreesRegressor: the mean of the trees, within a stated error."""
    options, trees = Options(**options), read_trees(est)
    centre = float((trees.value.min() + trees.value.max()) / 2)
    trees = replace(trees, value=trees.value - centre)
    _add_value(frame, trees, options, constant=centre, divisor=trees.n_trees)
    _describe_missing(frame.builder, options)


def gradient_boosting_classifier(est, frame: Frame, **options) -> None:
    """Lower a GradientBoostingClassifier that starts from zero or from the prior."""
    steepness = 2.0 if est.loss == "exponential" else 1.0  # proba = sigmoid(2 score), else sigmoid(score)
    _boosting_classifier(
        est, frame, options, _start_of(est), rejects_nan=True, zero_is_positive=True, steepness=steepness
    )


def gradient_boosting_regressor(est, frame: Frame, **options) -> None:
    """Lower a GradientBoostingRegressor that starts from zero or from a constant."""
    options = Options(**options)
    _add_value(frame, read_trees(est), options, constant=float(_start_of(est)[0]), rejects_nan=True)
    _describe_missing(frame.builder, options, rejects_nan=True)


def hist_gradient_boosting_classifier(est, frame: Frame, **options) -> None:
    """Lower a HistGradientBoostingClassifier without splits by category; thresholds hold for float32 rows."""
    _mark_categories(est, frame)
    _boosting_classifier(est, frame, options, est._baseline_prediction[0], cast=None)


def hist_gradient_boosting_regressor(est, frame: Frame, **options) -> None:
    """Lower a HistGradientBoostingRegressor whose value is the sum itself."""
    if est.loss not in ("squared_error", "absolute_error", "quantile"):
        raise LoweringError(
            f"HistGradientBoostingRegressor with loss={est.loss!r} predicts the exponential of a sum, which is not "
            "lowered; accepted are 'squared_error', 'absolute_error' and 'quantile'"
        )
    options = Options(**options)
    _mark_categories(est, frame)
    _add_value(frame, read_trees(est), options, constant=float(est._baseline_prediction[0, 0]), cast=None)
    _describe_missing(frame.builder, options)


def _boosting_classifier(
    est, frame, options, start, *, cast=np.float32, rejects_nan=False, zero_is_positive=False, steepness=1.0
):
    options, builder, n_classes = Options(**options), frame.builder, len(est.classes_)
    if n_classes < 2:
        raise LoweringError(f"{type(est).__name__} was trained on one class and cannot be lowered")
    trees = _by_output(read_trees(est))
    numbers = Numbers.of(trees, options.leaf_bits, start=start)
    unit = numbers.unit
    lift = int(zero_is_positive and n_classes == 2)  # "sum >= 0" is "sum + 1 > 0" for integers
    sums = add_sums(frame, trees, numbers.of_leaf, numbers.start + lift, options, cast=cast, rejects_nan=rejects_nan)
    label = add_label(builder, sums, n_classes)
    n_outputs = trees.n_outputs
    score = add_affine(builder, "score", sums, [unit] * n_outputs, [-lift * unit] * n_outputs)
    if n_outputs == 1:  # softmax([0, d]) = [1 - sigmoid(d), sigmoid(d)]
        pair = add_affine(builder, "pair", sums, [0.0, steepness * unit], [0.0, -lift * steepness * unit])
        proba = builder.add(Softmax, "proba", "f32", 2, inputs=(pair,))
    else:
        proba = builder.add(Softmax, "proba", "f32", n_classes, inputs=(score,))
    float_error = 4 * (trees.n_trees + 1) * _U64 * numbers.largest_sum
    gap = numbers.lead_error() + float_error * min(n_outputs, 2)
    error = float(numbers.error.max() + float_error + 4 * _U32 * numbers.largest_sum)
    builder.outputs = {
        "label": Output(label, tolerance=float(gap)),
        "score": Output(score, tolerance=error),
        "proba": Output(proba, tolerance=steepness * error / 2 + 1e-6),
    }
    _note_gap(builder, gap, "the raw score is closer to zero" if n_outputs == 1 else "the best raw score leads by less")
    builder.notes.append(f"a score is within {error:.1e} of Python's")
    _describe_missing(builder, options, rejects_nan=rejects_nan)
    builder.classes = tuple(np.asarray(est.classes_).tolist())


def _start_of(est) -> np.ndarray:
    """Return what GradientBoosting adds its trees to, one number an output."""
    constant = isinstance(est.init_, DummyClassifier | DummyRegressor)
    if est.init not in (None, "zero") or not (constant or est.init_ == "zero"):
        raise LoweringError(
            f"{type(est).__name__} with init={est.init!r} cannot be lowered; accepted are None (a constant) and 'zero'"
        )
    return est._raw_predict_init(np.zeros((1, est.n_features_in_), dtype=np.float32))[0]


def _by_output(trees: Trees) -> Trees:
    """Return the trees of the first output, then those of the second, ...: they have taken turns."""
    return trees.subset(np.argsort(np.arange(trees.n_trees) % trees.n_outputs, kind="stable"))


def _mark_categories(est, frame):
    """Columns of categories that no tree splits may hold text."""
    if est.is_categorical_ is not None:
        for position in np.flatnonzero(est.is_categorical_):
            column = frame.columns[position]
            if not (column.is_discrete or column.links):
                frame.builder.mark_unused(column.source)


# -- integers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Numbers:
    """Leaf values as integers: ``value = of_leaf * unit``, up to a rounding that is known.

    Attributes
    ----------
    of_leaf : int64 array (n_leaves, n_outputs)
    start : int64 array (n_outputs,)
        What the sum begins with.
    unit : float
        A power of two where all values and starts are multiples of it: then there is no rounding.
    error : float64 array (n_outputs,)
        Bound on the error of each sum.
    difference_error : float
        Bound on the error of the difference of any two sums (of the one sum from zero).
    largest_sum : float
        Bound on the sums of absolute values.
    """

    of_leaf: np.ndarray
    start: np.ndarray
    unit: float
    error: np.ndarray
    difference_error: float
    largest_sum: float

    @classmethod
    def of(cls, trees: Trees, bits: int, *, start=0.0) -> "Numbers":
        """Round the values of all leaves to signed integers of so many bits, and what their sums start from."""
        value, first = trees.value, trees.leaf_starts[:-1]
        start = np.broadcast_to(np.asarray(start, dtype=np.float64), (trees.n_outputs,))
        sums = np.maximum.reduceat(np.abs(value), first, axis=0).sum(axis=0) + np.abs(start)
        if not sums.max() < 1e37:
            raise LoweringError(f"sums of leaf values reach {sums.max():g}, which float32 cannot hold")
        # n roundings and the start's add at most n / 2 + 1 units to a sum
        unit = max(
            np.abs(value).max() / (2 ** (bits - 1) - 1), sums.max() / (_INT32_MAX - trees.n_trees - 2), _SMALLEST_UNIT
        )
        unit = _exact_unit(np.append(value, start), unit) or unit
        of_leaf, rounded = np.rint(value / unit), np.rint(start / unit)
        off, start_off = of_leaf * unit - value, np.abs(rounded * unit - start)
        beside = off if trees.n_outputs > 1 else np.pad(off, ((0, 0), (0, 1)))  # one sum is held against zero
        return cls(
            of_leaf=of_leaf.astype(np.int64),
            start=rounded.astype(np.int64),
            unit=float(unit),
            error=np.maximum.reduceat(np.abs(off), first, axis=0).sum(axis=0) + start_off,
            difference_error=float(
                np.maximum.reduceat(np.ptp(beside, axis=1), first).sum() + np.sort(start_off)[-2:].sum()
            ),
            largest_sum=float(sums.max()),
        )

    @property
    def is_exact(self) -> bool:
        return not self.error.any()

    def lead_error(self) -> float:
        """Return the bound on the error of the best sum's lead over the next (of the one sum over zero)."""
        return float(min(self.difference_error, np.sort(self.error)[-2:].sum()))


def _exact_unit(values, smallest) -> float | None:
    """Return a power of two from `smallest` on, the largest up to 1, that divides all values; None without one."""
    unit = 2.0 ** math.ceil(math.log2(smallest))
    if np.fmod(values, unit).any():
        return None
    while unit < 1 and not np.fmod(values, 2 * unit).any():
        unit *= 2
    return unit


# -- steps ------------------------------------------------------------------------------------------------------------


def _add_value(frame, trees, options, *, constant, divisor=1, cast=np.float32, rejects_nan=False):
    """Add the steps of ``constant + sum / divisor`` as the output "value" of a regressor."""
    builder, numbers = frame.builder, Numbers.of(trees, options.leaf_bits)
    sums = add_sums(frame, trees, numbers.of_leaf, numbers.start, options, cast=cast, rejects_nan=rejects_nan)
    value = add_affine(builder, "value", sums, [numbers.unit / divisor], [constant])
    largest = numbers.largest_sum / divisor
    rounding = 4 * _U32 * largest + 2 * _U32 * (largest + abs(constant))
    float_error = 4 * (trees.n_trees + 1) * _U64 * (largest + abs(constant))
    error = float(numbers.error[0] / divisor + rounding + float_error)
    builder.outputs = {"value": Output(value, tolerance=error)}
    builder.notes.append(
        f"a value is within {error:.2g} of Python's (leaves of {options.leaf_bits} bits, float32 result)"
    )


def add_label(builder, sums, n_classes) -> str:
    if n_classes == 2:
        return builder.add(Positive, "label", "u8", 1, inputs=(sums,))
    return builder.add(ArgBest, "label", smallest_unsigned(n_classes - 1), 1, inputs=(sums,), n_inputs=n_classes)


def add_affine(builder, hint, source, scale, offset) -> str:
    """Add ``scale * source + offset``; one sum may serve several outputs."""
    n_in = next(step.output.size for step in builder.steps if step.output.name == source)
    return builder.add(
        Affine,
        hint,
        "f32",
        len(scale),
        inputs=(source,),
        scale=np.float32(scale),
        offset=np.float32(offset),
        broadcast=n_in < len(scale),
    )


def add_sums(frame, trees, of_leaf, start, options, *, cast=np.float32, rejects_nan=False) -> str:
    """Add the walk through all trees and return the buffer of integer sums.

    Parameters
    ----------
    frame : Frame
    trees : Trees
        Their values are not used.
    of_leaf : int64 array (n_leaves, n_outputs)
    start : int64 array (n_outputs,)
    options : Options
    cast : dtype or None
        To what Python casts a row before the trees see it.
    rejects_nan : bool
        Whether Python raises for a NaN.
    """
    trees = replace(trees, value=of_leaf).without_equal_leaves()
    alone = trees.roots < 0  # trees of one leaf are constants
    start = start + trees.value[~trees.roots[alone]].sum(axis=0)
    part = trees.subset(~alone)
    missing_right = (
        part.missing_right if options.missing == "exact" and not rejects_nan else np.ones_like(part.missing_right)
    )
    source, feature, threshold = _add_tests(frame, replace(part, missing_right=missing_right), options, cast)
    votes = trees.n_outputs > 1 and bool(
        ((part.value == 0) | (part.value == 1)).all() and (part.value.sum(axis=1) == 1).all()
    )
    if votes:
        values, leaf = None, part.value.argmax(axis=1)
    else:
        values = part.value.astype(_narrowest_signed(part.value))
        values, leaf = np.unique(values, axis=0, return_inverse=True)
    return frame.builder.add(
        ForestWalk,
        "sums",
        "i32",
        trees.n_outputs,
        inputs=(source,),
        feature=feature,
        threshold=threshold,
        children=part.children,
        roots=part.roots,
        missing_right=missing_right if source == RAW else np.zeros_like(missing_right),
        leaf=leaf.reshape(-1).astype(np.int64),
        values=values,
        start=start.astype(np.int32),
        votes=votes,
        layout=options.layout,
    )


def _narrowest_signed(values):
    return next(dtype for dtype in (np.int8, np.int16, np.int32) if (values == values.astype(dtype)).all())


def _add_tests(frame, trees, options, cast):
    """Return the buffer that the splits read, their columns in it and their thresholds."""
    raw = all(reads_raw_values(frame, k) for k in np.unique(trees.feature))
    if options.thresholds == "raw" and not raw:
        raise LoweringError("thresholds='raw' needs columns that reach the trees as numbers, NaN included")
    if raw and (options.thresholds == "raw" or (options.thresholds == "auto" and not _ranks_are_smaller(trees))):
        return RAW, *raw_tests(frame, trees.feature, trees.threshold, cast=cast)
    if not trees.n_splits:
        return RAW, trees.feature, np.empty(0, dtype=np.float32)
    return add_ranks(frame, trees.feature, trees.threshold, trees.missing_right, cast=cast)


def _ranks_are_smaller(trees) -> bool:
    """Compare the bytes of float32 keys in every split with those of ranks and one table of cuts."""
    tests = np.stack([trees.feature, trees.missing_right, trees.threshold], axis=1)
    cuts = np.unique(tests, axis=0)
    _, per_rank = np.unique(cuts[:, :2], axis=0, return_counts=True)
    narrow = np.ceil(per_rank / MAX_NARROW_CUTS).sum() <= MAX_NARROW_COLUMNS
    split = _NARROW_SPLIT_BYTES if narrow else _WIDE_SPLIT_BYTES
    return trees.n_splits * (_RAW_SPLIT_BYTES - split) > 4 * len(cuts) + BIN_BYTES


def _note_gap(builder, gap, where):
    if gap:
        builder.notes.append(f"a label may differ from Python's only where {where} than {gap:.1e}")


def _describe_missing(builder, options, *, rejects_nan=False):
    if rejects_nan:
        builder.describe_missing("rejected by Python; here above every threshold")
    elif options.missing == "right":
        builder.describe_missing("above every threshold; Python may send it the other way")
    else:
        builder.describe_missing("goes where each tree sends missing values")
