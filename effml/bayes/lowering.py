"""Bayesian network classifiers as Programs: bin, sum table rows, take the best class."""

import itertools

import numpy as np

from effml.bayes.structure import DROPPED
from effml.program.buffers import Output, smallest_unsigned
from effml.program.frame import Column, Frame, LoweringError
from effml.program.steps import Affine, ArgBest, Bin, LookupSum, Softmax, choose_layout
from effml.program.steps.binning import ranges

__all__ = ["lower_classifier"]


def lower_classifier(est, frame: Frame, *, layout: str = "auto") -> None:
    """Lower a fitted NaiveBayesClassifier or TANClassifier: labels exact in every format and layout.

    Parameters
    ----------
    est : NaiveBayesClassifier or TANClassifier
    frame : Frame
    layout : {"auto", "size", "speed", "byte", "dense", "swar"}
        How quantised tables are stored in C, or what to choose it by, see
        :func:`effml.program.steps.lookup.choose_layout`.
    """
    if est.missing == "marginalize":
        raise LoweringError(
            f"{type(est).__name__}(missing='marginalize') sums missing values out in Python, which the C does not; "
            "use missing='drop' or 'state'"
        )
    builder = frame.builder
    parents = np.asarray(est.parents_, dtype=np.int64)
    factors = np.flatnonzero(parents != DROPPED)
    read = np.union1d(factors, parents[parents >= 0])  # a dropped feature may still be a parent
    codes = _add_codes(est, frame, read)
    quantised = est.codes_ is not None
    tables = est.codes_ if quantised else est.log_tables_
    n_classes = len(est.classes_)
    flat = np.concatenate([np.asarray(table).reshape(-1, n_classes) for table in tables])
    start = est.prior_codes_ if quantised else np.asarray(est.class_log_prior_, dtype=np.float32)
    n_bits = int(est.n_bits_) if quantised else 32
    if not quantised:
        layout = "float"
    elif layout in ("auto", "size", "speed"):
        layout = choose_layout(n_bits, len(flat), n_classes, prefer=layout)
    fields = {
        "columns": np.searchsorted(read, factors),
        "states": np.asarray(est.n_states_, dtype=np.int64)[read],
        "parents": np.where(parents[factors] >= 0, np.searchsorted(read, parents[factors]), -1),
        "table": flat.astype(np.uint8 if quantised else np.float32),
        "start": start,
        "n_bits": n_bits,
        "layout": layout,
    }
    dtype = smallest_unsigned(_largest_sum(fields)) if quantised else "f32"
    scores = builder.add(LookupSum, "scores", dtype, n_classes, inputs=(codes,), **fields)
    contrast = quantised and est.table_format_ == "contrast"
    largest = contrast or not quantised
    label_type = smallest_unsigned(n_classes - 1)
    label = builder.add(ArgBest, "label", label_type, 1, inputs=(scores,), n_inputs=n_classes, largest=largest)
    scale = (float(est.scale_) if contrast else -float(est.scale_)) if quantised else 1.0
    log_proba = scores
    if quantised:
        step = np.full(n_classes, scale, dtype=np.float32)
        zero = np.zeros(n_classes, dtype=np.float32)
        log_proba = builder.add(Affine, "log_score", "f32", n_classes, inputs=(scores,), scale=step, offset=zero)
    proba = builder.add(Softmax, "proba", "f32", n_classes, inputs=(log_proba,))
    builder.outputs = {"label": Output(label), "score": Output(scores, scale=scale), "proba": Output(proba)}
    builder.describe_missing("the column is left out of the sums")
    builder.classes = tuple(np.asarray(est.classes_).tolist())


def _largest_sum(fields) -> int:
    states, parents = fields["states"], fields["parents"]
    rows = states[fields["columns"]] * np.where(parents >= 0, states[parents], 1)
    first = ranges(rows)
    spans = itertools.pairwise(first)
    total = sum(int(fields["table"][a:b].max()) for a, b in spans if b > a)
    return total + (0 if fields["start"] is None else int(fields["start"].max()))


def _add_codes(est, frame, read) -> str:
    """Add the Bin step of some features' codes; a missing, unknown or impossible value is coded past the last one."""
    behind = frame if est.discretizer_ is None else frame.through(est.discretizer_)
    levels = getattr(est, "categories_", None)  # of columns of text, numbered by the estimator itself
    if levels is not None:
        columns = [
            c if levels[k] is None else behind.set_categories(k, levels[k]) for k, c in enumerate(behind.columns)
        ]
        behind = behind.with_columns(columns)
    n_states = np.asarray(est.n_states_, dtype=np.int64)
    if len(behind.columns) != len(n_states):
        raise LoweringError(
            f"{type(est).__name__} reads {len(n_states)} columns, the discretizer gives {len(behind.columns)}"
        )
    parts = []
    for feature in read.tolist():
        column, states = behind.columns[feature], int(n_states[feature])
        if not column.is_discrete:
            if column.links:
                name = type(column.links[-1][0]).__name__
                raise LoweringError(f"{type(est).__name__} with discretizer=None cannot read what {name} gives")
            known = states - int(est.has_missing_state_[feature])
            cuts = np.arange(known, dtype=np.float32)
            column = Column(column.source, cuts=cuts, by_value=True, affine=None, values=np.arange(known + 1.0))
        value = column.values
        inside = (value >= 0) & (value < states) & (value == np.floor(value))
        parts.append(column.bin_part(np.where(inside, value, states)))
    dtype = smallest_unsigned(int(n_states[read].max()))
    return frame.builder.add(Bin, "code", dtype, len(parts), parts=parts)
