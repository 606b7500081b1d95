"""Linear models and networks in float32: affine scalers fold into the weights, one-hot columns become table rows."""

import numpy as np

from effml.adapters.layers import Layers, read_layers
from effml.program.buffers import RAW, Output, smallest_unsigned
from effml.program.frame import Builder, Frame, LoweringError
from effml.program.steps import (
    Affine,
    ArgBest,
    Bin,
    Dense,
    Exp,
    LogisticShares,
    LookupSum,
    Positive,
    Relu,
    Sigmoid,
    Softmax,
)

__all__ = ["add_class_outputs", "lower_classifier", "lower_regressor", "raw_linear_form", "with_used_columns"]

_NOTE = (
    "float32 model: {what} when float32 rounding decides; effml.adapters.rounding.rounding_bound(est, X) bounds it row "
    "by row, and effml.quantize gives an exact integer model"
)
_MISSING = "gives no meaningful result; impute before the call"


def lower_classifier(est, frame: Frame) -> None:
    """Lower a fitted linear classifier or network of scikit-learn; float32 sums may turn near ties."""
    builder, layers = frame.builder, read_layers(est)
    scores = _add_layers(frame, layers.collapsed())
    add_class_outputs(builder, scores, layers)
    builder.describe_missing(_MISSING if layers.n_layers > 1 else "gives class 0; impute before the call")
    builder.notes.append(_NOTE.format(what="a row may get another label than in Python"))
    if layers.link == "none" and hasattr(est, "predict_proba"):
        builder.notes.append(f"probabilities of loss={est.loss!r} have no C; the labels have")


def lower_regressor(est, frame: Frame) -> None:
    """Lower a fitted linear regressor or network of scikit-learn; columns without a weight are not read."""
    builder, layers = frame.builder, read_layers(est)
    value = _add_layers(frame, layers.collapsed())
    if layers.link == "exp":
        value = builder.add(Exp, "value", "f32", len(layers.biases[-1]), inputs=(value,))
    builder.outputs = {"value": Output(value)}
    builder.describe_missing(_MISSING if layers.n_layers > 1 else "gives NaN; impute before the call")
    builder.notes.append(_NOTE.format(what="the last digits are not Python's"))


def _add_layers(frame, layers: Layers) -> str:
    """Add the steps from the raw row to the last sums and return their buffer."""
    builder = frame.builder
    # tanh(v) = 2 sigmoid(2 v) - 1: the factors and the 1 go into the weights on both sides
    doubled = 2.0 if layers.activation == "tanh" else 1.0
    source = ""
    for number, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True), start=1):
        last = number == layers.n_layers
        if number > 1 and layers.activation == "tanh":
            weight, bias = 2 * weight, bias - weight.sum(axis=0)
        if not last:
            weight, bias = doubled * weight, doubled * bias
        if number == 1:
            used, weight = with_used_columns(frame, weight)
            source = add_scores(used, weight.T, bias)
        else:
            fields = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
            columns = np.arange(len(weight))
            source = builder.add(
                Dense, "scores" if last else "sum", "f32", len(bias), inputs=(source,), columns=columns, **fields
            )
        if not last and layers.activation != "identity":
            step = Relu if layers.activation == "relu" else Sigmoid
            source = builder.add(step, "hidden", "f32", len(bias), inputs=(source,))
    return source


def with_used_columns(frame: Frame, weight: np.ndarray) -> tuple[Frame, np.ndarray]:
    """Return the frame and the weights (n_columns, n_out) without columns that weigh nothing; these are not read.

    Parameters
    ----------
    frame : Frame
    weight : float64 array (n_columns, n_out)
    """
    kept = np.flatnonzero(weight.any(axis=1))
    used = {frame.columns[k].source for k in kept}
    for position in range(len(frame.builder.inputs)):
        if position not in used:
            frame.builder.mark_unused(position)
    return frame.with_columns(frame.columns[k] for k in kept), weight[kept]


def add_class_outputs(builder: Builder, scores: str, layers: Layers, unit: float = 1.0) -> None:
    """Add label and probabilities to the buffer of scores, of which one step means `unit`."""
    n_classes = len(layers.classes)
    builder.classes = tuple(np.asarray(layers.classes).tolist())
    if n_classes == 2:
        label = builder.add(Positive, "label", "u8", 1, inputs=(scores,))
    else:
        dtype = smallest_unsigned(n_classes - 1)
        label = builder.add(ArgBest, "label", dtype, 1, inputs=(scores,), n_inputs=n_classes)
    builder.outputs = {"label": Output(label), "score": Output(scores, scale=unit)}
    if layers.link == "none":
        return
    source = scores
    is_float = any(step.output.name == scores and step.output.dtype == "f32" for step in builder.steps)
    if n_classes == 2 or not is_float:
        # two classes: softmax([0, d]) = [1 - sigmoid(d), sigmoid(d)]
        scale = np.float32([0, unit]) if n_classes == 2 else np.full(n_classes, unit, dtype=np.float32)
        fields = {"scale": scale, "offset": np.zeros(n_classes, dtype=np.float32), "broadcast": n_classes == 2}
        source = builder.add(Affine, "logit", "f32", n_classes, inputs=(scores,), **fields)
    step = Softmax if layers.link == "softmax" or n_classes == 2 else LogisticShares
    proba = builder.add(step, "proba", "f32", n_classes, inputs=(source,))
    builder.outputs["proba"] = Output(proba)


def add_scores(frame: Frame, coef, intercept) -> str:
    """Add the steps of ``X @ coef.T + intercept`` and return the buffer of scores."""
    builder = frame.builder
    sources, weight, bias, tables = raw_linear_form(frame, coef, intercept)
    n_out = len(bias)
    inputs = (RAW,)
    if tables:
        states = np.array([len(table) - 1 for _, table in tables], dtype=np.int64)
        parts, rows = [], []
        for column, table in tables:
            unseen = table[-1]  # goes into the bias, so that a row out of range adds exactly this
            bias = bias + unseen
            rows.append(table[:-1] - unseen)
            parts.append(column.bin_part())
        codes = builder.add(Bin, "level", smallest_unsigned(int(states.max()) + 1), len(tables), parts=parts)
        summed = builder.add(
            LookupSum,
            "levels_sum",
            "f32",
            n_out,
            inputs=(codes,),
            columns=np.arange(len(tables)),
            states=states,
            parents=np.full(len(tables), -1),
            table=np.concatenate(rows).astype(np.float32),
            start=None if len(sources) else bias.astype(np.float32),
            n_bits=32,
            layout="float",
        )
        if not len(sources):
            return summed
        inputs = (RAW, summed)
    return builder.add(
        Dense,
        "scores",
        "f32",
        n_out,
        inputs=inputs,
        columns=sources,
        weight=weight.astype(np.float32),
        bias=bias.astype(np.float32),
    )


def raw_linear_form(frame: Frame, coef, intercept):
    """Return a linear map of the frame as one of the raw row.

    Returns
    -------
    sources : int array (n_raw,)
        Raw columns that enter as numbers.
    weight : float64 array (n_raw, n_out)
    bias : float64 array (n_out,)
    tables : list of (Column, float64 array (n_states + 1, n_out))
        Raw columns that enter as states.
    """
    coef = np.asarray(coef, dtype=np.float64)
    bias = np.array(np.broadcast_to(intercept, (len(coef),)), dtype=np.float64)
    numbers: dict[int, np.ndarray] = {}
    tables: list[list] = []
    for position, column in enumerate(frame.columns):
        weight = coef[:, position]
        if column.is_discrete:
            table = next((entry for entry in tables if entry[0].same_states(column)), None)
            if table is None:
                table = [column, np.zeros((len(column.values), len(coef)))]
                tables.append(table)
            table[1] += column.values[:, None] * weight
        elif column.affine is None:
            name = type(column.links[-1][0]).__name__
            raise LoweringError(
                f"{name} before a linear model is not affine and cannot be folded; use an affine scaler"
            )
        else:
            scale, offset = column.affine
            numbers[column.source] = numbers.get(column.source, 0.0) + weight * scale
            bias = bias + weight * offset
    sources = np.array(sorted(numbers), dtype=np.int64)
    weight = np.array([numbers[k] for k in sorted(numbers)]).reshape(len(sources), len(coef))
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise LoweringError("the weights are not finite")
    return sources, weight, bias, [(column, table) for column, table in tables]
