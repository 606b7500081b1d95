"""Single trees, and how tests of any tree reach the raw row: as raw thresholds, or as small ranks among thresholds."""

import numpy as np

from effml._trees import Trees, trees_of
from effml.program.buffers import RAW, Output, smallest_unsigned
from effml.program.frame import Frame, LoweringError, discrete_column
from effml.program.ranking import rank_tests
from effml.program.steps import FOREST_LAYOUTS, Bin, Gather, TreeWalk

__all__ = ["add_ranks", "decision_tree", "decision_tree_regressor", "raw_tests", "read_trees", "reads_raw_values"]


def decision_tree(est, frame: Frame, *, layout="table") -> None:
    """Lower a fitted single-output classification tree: exact labels, probabilities as float32.

    With ``layout="code"`` the label comes from nested ifs: larger and quicker. Probabilities come from tables always.
    """
    if layout not in FOREST_LAYOUTS:
        raise ValueError(f"layout={layout!r} must be one of {FOREST_LAYOUTS}")
    trees, builder = read_trees(est), frame.builder
    labels = np.argmax(trees.value, axis=1)[:, None].astype(np.int64)
    if layout == "code":
        from effml.adapters.forests import Options, add_sums

        label = add_sums(frame, trees, labels, np.zeros(1, dtype=np.int64), Options(layout="code"))
    leaf = _add_walk(frame, trees)
    if layout == "table":
        label_type = smallest_unsigned(len(est.classes_) - 1)
        label = builder.add(Gather, "label", label_type, 1, inputs=(leaf,), table=labels)
    proba = (trees.value / trees.value.sum(axis=1, keepdims=True)).astype(np.float32)
    proba = builder.add(Gather, "proba", "f32", len(est.classes_), inputs=(leaf,), table=proba)
    builder.outputs = {"label": Output(label, tolerance=0.0), "proba": Output(proba)}
    builder.describe_missing("goes where the tree sends missing values")
    builder.classes = tuple(np.asarray(est.classes_).tolist())


def decision_tree_regressor(est, frame: Frame) -> None:
    """Lower a fitted single-output regression tree: values are those of Python, rounded to float32."""
    trees, builder = read_trees(est), frame.builder
    value = trees.value.astype(np.float32)
    leaf = _add_walk(frame, trees)
    buffer = builder.add(Gather, "value", "f32", 1, inputs=(leaf,), table=value)
    rounding = np.abs(value.astype(np.float64) - trees.value).max()
    builder.outputs = {"value": Output(buffer, tolerance=float(rounding))}
    builder.describe_missing("goes where the tree sends missing values")


def _add_walk(frame, trees):
    if all(reads_raw_values(frame, k) for k in np.unique(trees.feature)):
        source, (feature, threshold) = RAW, raw_tests(frame, trees.feature, trees.threshold)
        missing_right = trees.missing_right
    else:
        source, feature, threshold = add_ranks(frame, trees.feature, trees.threshold, trees.missing_right)
        missing_right = np.zeros_like(trees.missing_right)
    return frame.builder.add(
        TreeWalk,
        "leaf",
        smallest_unsigned(trees.n_leaves - 1),
        1,
        inputs=(source,),
        feature=feature,
        threshold=threshold,
        children=trees.children,
        missing_right=missing_right,
    )


def read_trees(est) -> Trees:
    """Return the trees of an estimator; what cannot be read is a LoweringError."""
    try:
        trees = trees_of(est)
    except ValueError as error:
        raise LoweringError(f"{error}; {type(est).__name__} cannot be lowered") from None
    if not np.isfinite(trees.value).all():
        raise LoweringError(f"{type(est).__name__} has leaf values that are not finite")
    return trees


def reads_raw_values(frame: Frame, position: int) -> bool:
    """Return whether a test of the column is a test of its raw value, NaN included."""
    column = frame.columns[position]
    if column.is_discrete:
        return False
    missing = frame.missing_values([position])[0] if column.links else np.nan
    return missing is None or bool(np.isnan(missing))


def raw_tests(frame: Frame, feature, threshold, *, cast=np.float32):
    """Return raw columns and float32 thresholds of tests of columns for which :func:`reads_raw_values` holds."""
    used = np.unique(feature).tolist()
    limits = frame.raw_thresholds(used, [threshold[feature == k] for k in used], cast=cast)
    raw = np.empty(len(feature), dtype=np.float32)
    for k, values in zip(used, limits, strict=True):
        if np.isnan(values).any():
            raise LoweringError(f"a threshold on column {k} lies below everything its transformers can give")
        raw[feature == k] = values
    sources = np.array([column.source for column in frame.columns], dtype=np.int64)
    return sources[feature], raw


# -- ranks ------------------------------------------------------------------------------------------------------------


def add_ranks(frame: Frame, feature, threshold, missing_right, *, cast=np.float32):
    """Add a Bin that ranks each column among its thresholds, so that tests compare small integers.

    A column has two ranks where some of its tests send a NaN left and others right, and several where it has more than
    255 thresholds while all ranks together still fit the short form of a split.

    Parameters
    ----------
    frame : Frame
    feature, threshold, missing_right : arrays (n_splits,)
        Tests as in :class:`effml._trees.Trees`.
    cast : dtype or None
        What the estimator casts its input to before it compares.

    Returns
    -------
    source : str
        Buffer of ranks.
    position : int64 array (n_splits,)
        Which rank a test reads.
    rank : uint8 or uint16 array (n_splits,)
        The test's threshold: right iff the rank is larger.
    """
    used, may_be_nan = np.unique(feature), np.zeros(len(frame.columns), dtype=bool)
    may_be_nan[used] = [_may_be_nan(frame, k) for k in used.tolist()]
    sides = np.where(may_be_nan[feature], missing_right, True)  # where no NaN comes in, tests need not agree on it
    groups, group = np.unique(np.stack([feature, sides], axis=1), axis=0, return_inverse=True)
    position, rank, owners, cuts = rank_tests(group.reshape(-1), threshold)
    columns, rights = groups[owners].T.tolist()
    parts = _rank_parts(frame, columns, cuts, rights, cast)
    source = frame.builder.add(Bin, "rank", smallest_unsigned(max(map(len, cuts))), len(parts), parts=parts)
    return source, position, rank


def _may_be_nan(frame, position) -> bool:
    if frame.columns[position].is_discrete:
        return bool(np.isnan(frame.columns[position].values).any())
    return reads_raw_values(frame, position)


def _rank_parts(frame, columns, cuts, rights, cast):
    """Return the parts of a Bin that rank columns among cuts, NaN above or below all of them."""
    numeric = [i for i, k in enumerate(columns) if not frame.columns[k].is_discrete]
    limits = frame.raw_thresholds([columns[i] for i in numeric], [cuts[i] for i in numeric], cast=cast)
    limit_of = dict(zip(numeric, limits, strict=True))

    def rank_of(values, i):
        values = np.asarray(values, dtype=np.float64)
        seen = values if cast is None else values.astype(cast).astype(np.float64)
        nan_rank = len(cuts[i]) if rights[i] else 0
        return np.where(np.isnan(seen), nan_rank, np.searchsorted(cuts[i], seen, side="left"))

    parts = []
    for i, k in enumerate(columns):
        column = frame.columns[k]
        if column.is_discrete:
            parts.append(column.bin_part(rank_of(column.values, i)))
            continue
        missing = frame.missing_values([k])[0] if column.links else np.nan
        missing_rank = rank_of(np.nan if missing is None else missing, i)
        cut = discrete_column(column, limit_of[i], np.append(np.arange(len(cuts[i]) + 1), missing_rank))
        parts.append(cut.bin_part(cut.values))
    return parts
