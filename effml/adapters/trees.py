"""DecisionTreeClassifier: thresholds move to the raw columns, or to small ranks where a column is categorical."""

import numpy as np

from effml.program.buffers import RAW, Output, smallest_unsigned
from effml.program.frame import Frame, LoweringError, discrete_column
from effml.program.steps import Bin, Gather, TreeWalk

__all__ = ["decision_tree"]


def decision_tree(est, frame: Frame) -> None:
    """Lower a fitted single-output DecisionTreeClassifier: exact labels, probabilities as float32."""
    if est.n_outputs_ != 1:
        raise LoweringError(f"DecisionTreeClassifier with {est.n_outputs_} outputs cannot be lowered; fit one each")
    builder, tree = frame.builder, est.tree_
    splits = np.flatnonzero(tree.children_left >= 0)
    leaves = np.flatnonzero(tree.children_left < 0)
    number = np.empty(tree.node_count, dtype=np.int64)
    number[splits] = np.arange(len(splits))
    number[leaves] = ~np.arange(len(leaves))
    children = np.stack([tree.children_left[splits], tree.children_right[splits]], axis=1)
    feature, threshold = tree.feature[splits].astype(np.int64), tree.threshold[splits]
    nan_right = ~np.asarray(tree.missing_go_to_left)[splits].astype(bool)
    leaf_type = smallest_unsigned(len(leaves) - 1)
    plain = all(_is_plain(frame, k) for k in np.unique(feature))
    fields = {"children": number[children] if len(splits) else np.empty((0, 2), dtype=np.int64)}
    if plain:
        raw = _raw_thresholds(frame, feature, threshold)
        sources = np.array([column.source for column in frame.columns], dtype=np.int64)
        fields |= {"feature": sources[feature], "threshold": raw, "missing_right": nan_right}
        source = RAW
    else:
        source, ranks, position = _ranks(frame, feature, threshold)
        fields |= {"feature": position, "threshold": ranks, "missing_right": np.zeros(len(splits), dtype=bool)}
    leaf = builder.add(TreeWalk, "leaf", leaf_type, 1, inputs=(source,), **fields)

    counts = tree.value[leaves, 0, :]
    proba = (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    label_type = smallest_unsigned(len(est.classes_) - 1)
    labels = np.argmax(counts, axis=1)[:, None].astype(np.int64)
    label = builder.add(Gather, "label", label_type, 1, inputs=(leaf,), table=labels)
    proba = builder.add(Gather, "proba", "f32", len(est.classes_), inputs=(leaf,), table=proba)
    builder.outputs = {"label": Output(label), "proba": Output(proba)}
    builder.describe_missing("goes where the tree sends missing values; right where training saw none")
    builder.classes = tuple(np.asarray(est.classes_).tolist())


def _is_plain(frame, position) -> bool:
    """Return whether a test of the column is a test of its raw value, NaN included."""
    column = frame.columns[position]
    if column.is_discrete:
        return False
    missing = frame.missing_values([position])[0] if column.links else np.nan
    return missing is None or bool(np.isnan(missing))


def _raw_thresholds(frame, feature, threshold):
    used = np.unique(feature).tolist()
    limits = frame.raw_thresholds(used, [threshold[feature == k] for k in used], cast=np.float32)
    raw = np.empty(len(feature), dtype=np.float32)
    for k, values in zip(used, limits, strict=True):
        raw[feature == k] = np.where(np.isnan(values), np.float32(-np.inf), values)  # no number passes
        if np.isnan(values).any():
            raise LoweringError(f"a threshold on column {k} lies below everything its transformers can give")
    return raw


def _ranks(frame, feature, threshold):
    """Add a Bin of ranks among each column's thresholds; return its buffer, the tests' ranks and their columns."""
    used = np.unique(feature).tolist()
    parts, n_ranks = [], 1
    position = {k: i for i, k in enumerate(used)}
    rank = np.empty(len(feature), dtype=np.int64)
    for k in used:
        column, levels = frame.columns[k], np.unique(threshold[feature == k])
        rank[feature == k] = np.searchsorted(levels, threshold[feature == k])
        n_ranks = max(n_ranks, len(levels) + 1)
        if column.is_discrete:
            states = np.searchsorted(levels, column.values.astype(np.float32).astype(np.float64), side="left")
            parts.append(column.bin_part(states))
        else:
            missing = frame.missing_values([k])[0]
            if missing is None or np.isnan(missing):
                missing_rank = len(levels)  # as a value above every threshold
            else:
                missing_rank = int(np.searchsorted(levels, np.float32(missing), side="left"))
            limits = frame.raw_thresholds([k], [levels], cast=np.float32)[0]
            cut = discrete_column(column, limits, np.append(np.arange(len(levels) + 1), missing_rank))
            parts.append(cut.bin_part(cut.values))
    dtype = smallest_unsigned(n_ranks)
    buffer = frame.builder.add(Bin, "rank", dtype, len(used), parts=parts)
    ranks = rank.astype(np.uint8 if dtype == "u8" else np.uint16)
    return buffer, ranks, np.array([position[k] for k in feature.tolist()], dtype=np.int64)
