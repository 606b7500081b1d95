"""Snippet models as Programs: walk the snippets, add their exits' integers."""

import numpy as np

from effml.adapters.forests import Options, add_affine, add_label, add_sums
from effml.program.buffers import Output
from effml.program.frame import Frame
from effml.program.steps import Softmax

__all__ = ["lower_classifier", "lower_regressor"]


def lower_classifier(est, frame: Frame, **options) -> None:
    """Lower a fitted DecisionSnippetClassifier or SplittingStumpClassifier: labels exact."""
    builder, n_classes = frame.builder, len(est.classes_)
    sums = _walk(est, frame, Options(**options))
    label = add_label(builder, sums, n_classes)
    unit = float(np.ldexp(1.0, -est.exponent_))
    if n_classes == 2:  # softmax([0, s]) = [1 - sigmoid(s), sigmoid(s)]
        score = add_affine(builder, "score", sums, [unit], [0.0])
        both = add_affine(builder, "pair", sums, [0.0, unit], [0.0, 0.0])
    else:
        score = both = add_affine(builder, "score", sums, [unit] * n_classes, [0.0] * n_classes)
    proba = builder.add(Softmax, "proba", "f32", n_classes, inputs=(both,))
    builder.outputs = {"label": Output(label), "score": Output(score), "proba": Output(proba)}
    builder.classes = tuple(np.asarray(est.classes_).tolist())


def lower_regressor(est, frame: Frame, **options) -> None:
    """Lower a fitted DecisionSnippetRegressor: integer sums exact, the value rounded to float32."""
    sums = _walk(est, frame, Options(**options))
    scale = float(np.ldexp(est.target_scale_, -est.exponent_))
    frame.builder.outputs = {"value": Output(add_affine(frame.builder, "value", sums, [scale], [est.target_mean_]))}


def _walk(est, frame, options) -> str:
    frame = _with_categories(est, frame)
    frame.builder.describe_missing("goes where each snippet sends missing values")
    return add_sums(frame, est.snippets_.trees, est.exit_values_.astype(np.int64), est.intercept_, options)


def _with_categories(est, frame) -> Frame:
    """Return the frame with categorical columns as level numbers, -1 for a level that is not known."""
    columns = list(frame.columns)
    for position, levels in enumerate(est.transformer_.categories_):
        if levels is not None:
            column = frame.set_categories(position, levels)
            columns[position] = column.with_values(np.append(column.values[:-1], -1.0))
    return frame.with_columns(columns)
