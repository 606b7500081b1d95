"""Localized kernel models as Programs: standardise, gate, weighted kernels, dense network, label.

`predict` of the estimators runs these very steps, so Python and the exported C compute the same float32 numbers.
"""

import numpy as np

from effml.kernels.gates import RBFGate, SigmoidGate
from effml.program import Builder, Frame, InputSpec, LoweringError
from effml.program.buffers import RAW, Output, smallest_unsigned
from effml.program.steps import (
    Affine,
    ArgBest,
    Dense,
    KernelRows,
    LiveWeights,
    Positive,
    Relu,
    Select,
    Sigmoid,
    Softmax,
    SquaredDistances,
)
from effml.program.steps.kernels import SMALLEST

__all__ = ["gate_program", "lower_classifier", "lower_regressor", "model_program"]

LIVE = 1e-3  # a kernel of a smaller weight is not evaluated


def lower_classifier(est, frame: Frame) -> None:
    """Lower a fitted LocalizedMKLClassifier: float32, the numbers of `predict`."""
    _classifier_outputs(est, frame.builder, _scores(est, frame.builder, _standardized(est, frame)))
    _describe(frame)


def lower_regressor(est, frame: Frame) -> None:
    """Lower a fitted LocalizedMKLRegressor."""
    builder = frame.builder
    scores = _scores(est, builder, _standardized(est, frame))
    builder.outputs = {"value": Output(_target_units(est, builder, scores))}
    _describe(frame)


def _describe(frame):
    frame.builder.describe_missing("gives NaN scores and class 0; impute before the call")
    if any(column.links for column in frame.columns):
        frame.builder.notes.append(
            "scalers before the model are applied in float32: a near tie may get the other label"
        )


def model_program(est):
    """Return the Program from the estimator's own columns to the network's outputs, which `predict` runs."""
    builder = Builder([InputSpec(f"x{k}") for k in range(est.n_features_in_)])
    builder.outputs = {"score": Output(_scores(est, builder, _affine(est, builder, RAW, est.scale_, est.mean_)))}
    return builder.program("")


def gate_program(est):
    """Return the Program of the kernel weights alone."""
    builder = Builder([InputSpec(f"x{k}") for k in range(est.n_features_in_)])
    gate = _gate(est, builder, _affine(est, builder, RAW, est.scale_, est.mean_))
    builder.outputs = {"weights": Output(gate)}
    return builder.program("")


def _affine(est, builder, source, scale, mean):
    """Add ``(x - mean) / scale`` as one multiplication and one addition."""
    return builder.add(
        Affine,
        "z",
        "f32",
        len(scale),
        inputs=(source,),
        scale=(1 / scale).astype(np.float32),
        offset=(-mean / scale).astype(np.float32),
    )


def _standardized(est, frame):
    columns = frame.columns
    for column in columns:
        if column.affine is None or column.is_discrete:
            raise LoweringError(
                f"{type(est).__name__} lowers behind affine scalers of numeric columns only; encode categories and "
                "apply other transformers outside of the exported pipeline"
            )
    sources = np.array([column.source for column in columns], dtype=np.int64)
    scale, offset = np.array([column.affine for column in columns], dtype=np.float64).T
    source = RAW
    if not np.array_equal(sources, np.arange(len(frame.builder.inputs))):
        source = frame.builder.add(Select, "chosen", "f32", len(sources), columns=sources)
    # ((x * scale + offset) - mean) / std
    return _affine(est, frame.builder, source, est.scale_ / scale, (est.mean_ - offset) / scale)


def _gate(est, builder, z):
    """Return the buffer of the kernel weights; None where they are the same for all rows."""
    gate, parameters, n_kernels = est.network_.gate, est.parameters_, est.network_.bank.n_kernels
    if not gate.sees_rows:
        return None
    alone = isinstance(gate, SigmoidGate)
    if isinstance(gate, RBFGate):
        factor = -np.exp(-2 * parameters["log_s"].astype(np.float64))
        fields = {"centres": parameters["mu"].astype(np.float32), "scale": factor.astype(np.float32)}
        logits = builder.add(SquaredDistances, "gate_distance", "f32", n_kernels, inputs=(z,), **fields)
    else:
        hidden = z
        if gate.hidden:
            hidden = _dense(builder, "gate_hidden", z, parameters["V"], parameters["v"])
            hidden = builder.add(Relu, "gate_relu", "f32", gate.hidden, inputs=(hidden,))
        logits = _dense(builder, "gate_score", hidden, parameters["U"], parameters["u"])
    weights = builder.add(Sigmoid if alone else Softmax, "gate", "f32", n_kernels, inputs=(logits,))
    smallest = min(LIVE, 0.5 / n_kernels)
    return builder.add(
        LiveWeights,
        "kernel_weight",
        "f32",
        n_kernels,
        inputs=(weights,),
        smallest=smallest,
        normalize=not alone,
    )


def constant_weights(est) -> np.ndarray:
    """Return the weights (M,) of a gate that is the same for all rows, small ones 0."""
    gate, n_kernels = est.network_.gate, est.network_.bank.n_kernels
    weights = gate.forward(est.parameters_, np.zeros((1, est.n_features_in_), dtype=np.float32))[0][0]
    weights = np.where(weights < min(LIVE, 0.5 / n_kernels), 0, weights.astype(np.float64))
    return (weights / weights.sum()).astype(np.float32)


def _scores(est, builder, z):
    weights = _gate(est, builder, z)
    network, parameters = est.network_, est.parameters_
    side_by_side = network.combine == "concat"
    fields, live = kernel_fields(est, None if weights is not None else constant_weights(est))
    n_landmarks = fields["norms"].shape[1]
    k = builder.add(
        KernelRows,
        "kernels",
        "f32",
        n_landmarks * (len(live) if side_by_side else 1),
        inputs=(z,) if weights is None else (z, weights),
        side_by_side=side_by_side,
        **fields,
    )
    weight, bias = network.first_layer({name: value.astype(np.float64) for name, value in parameters.items()})
    if side_by_side:
        weight = weight.reshape(len(weight), -1, n_landmarks)[:, live].reshape(len(weight), -1)
    out = _dense(builder, "layer", k, weight, bias)
    for layer in range(2, network.n_layers + 1):
        out = builder.add(Relu, "hidden", "f32", len(parameters[f"b{layer - 1}"]), inputs=(out,))
        out = _dense(builder, "layer", out, parameters[f"W{layer}"], parameters[f"b{layer}"])
    return out


def kernel_fields(est, weights):
    """Return the fields of KernelRows, without kernels that no row uses, and the positions of those kept."""
    bank = est.network_.bank
    if bank.has_functions:
        names = [name for group in bank.groups for name in bank.names[group.first + len(group.shapes) :][:1]]
        raise LoweringError(f"{type(est).__name__} with the callable kernel {names[0]} has no C; use RBF or Polynomial")
    live = np.arange(bank.n_kernels) if weights is None else np.flatnonzero(weights)
    A = bank.landmarks.astype(np.float32)
    columns, column_start, kernel_start, shapes, degrees, landmarks, norms, factors = [], [0], [0], [], [], [], [], []
    for group in bank.groups:
        kept = live[(live >= group.first) & (live < group.first + group.n_kernels)] - group.first
        if not len(kept):
            continue
        part = A[:, group.columns]
        squared = np.zeros(len(A), dtype=np.float32)
        for column in part.T:
            squared = squared + column * column
        shape, degree = group.shapes[kept].astype(np.float32), group.degrees[kept]
        columns.append(group.columns)
        column_start.append(column_start[-1] + len(group.columns))
        kernel_start.append(kernel_start[-1] + len(kept))
        shapes.append(shape)
        degrees.append(degree)
        landmarks.append(part.ravel())
        norms.append(squared)
        for offset in shape[degree > 0]:
            factors.append(1 / np.sqrt(np.maximum(squared + offset, np.float32(SMALLEST))))
    return {
        "columns": np.concatenate(columns).astype(np.int64),
        "column_start": np.array(column_start),
        "kernel_start": np.array(kernel_start),
        "shapes": np.concatenate(shapes),
        "degrees": np.concatenate(degrees),
        "landmarks": np.concatenate(landmarks),
        "norms": np.array(norms, dtype=np.float32),
        "factors": np.array(factors, dtype=np.float32).reshape(len(factors), len(A)),
        "weights": np.empty(0, dtype=np.float32) if weights is None else weights[live],
    }, live


def _dense(builder, hint, source, weight, bias):
    weight = np.ascontiguousarray(np.asarray(weight).T, dtype=np.float32)
    return builder.add(
        Dense,
        hint,
        "f32",
        weight.shape[1],
        inputs=(source,),
        columns=np.arange(len(weight)),
        weight=weight,
        bias=np.asarray(bias).astype(np.float32),
    )


def _classifier_outputs(est, builder, scores):
    n_classes = len(est.classes_)
    if n_classes == 2:
        label = builder.add(Positive, "label", "u8", 1, inputs=(scores,))
        scale, offset = np.float32([0, 1]), np.zeros(2, dtype=np.float32)
        pair = builder.add(Affine, "pair", "f32", 2, inputs=(scores,), scale=scale, offset=offset, broadcast=True)
        proba = builder.add(Softmax, "proba", "f32", 2, inputs=(pair,))
    else:
        dtype = smallest_unsigned(n_classes - 1)
        label = builder.add(ArgBest, "label", dtype, 1, inputs=(scores,), n_inputs=n_classes)
        proba = builder.add(Softmax, "proba", "f32", n_classes, inputs=(scores,))
    builder.outputs = {"label": Output(label), "score": Output(scores), "proba": Output(proba)}
    builder.classes = tuple(np.asarray(est.classes_).tolist())


def _target_units(est, builder, scores):
    n = len(est.target_mean_)
    scale, offset = est.target_scale_.astype(np.float32), est.target_mean_.astype(np.float32)
    return builder.add(Affine, "value", "f32", n, inputs=(scores,), scale=scale, offset=offset)
