"""Torch modules as Programs: in float32, or in integers behind a calibration on rows.

``lower_module`` and ``quantize_module`` take any ``torch.nn.Module`` that torch.fx can trace; estimators of
:mod:`effml.deep.estimators` are lowered by :func:`effml.lower` and quantised by :func:`effml.quantize`.
"""

import copy
from dataclasses import replace
from numbers import Integral

import numpy as np
import torch

from effml.adapters.integers import Calibration
from effml.deep.calibration import affine_range
from effml.deep.lowering_float import FloatLowering
from effml.deep.lowering_graph import read_graph
from effml.deep.lowering_integer import IntegerLowering
from effml.deep.lowering_values import Value
from effml.program.buffers import RAW, InputSpec, Output, smallest_unsigned
from effml.program.frame import Builder, Column, Frame, LoweringError
from effml.program.passes import requantise_at_once
from effml.program.program import Program
from effml.program.steps import Affine, ArgBest, Positive, QuantizeInput, Select, Softmax

__all__ = [
    "QuantizedModule",
    "integer_program",
    "lower_classifier",
    "lower_module",
    "lower_regressor",
    "module_shape",
    "quantize_module",
    "ready",
]

MOST_CALIBRATION_ROWS = 2000
MOST_ELEMENTS = 1 << 25  # of the largest value of the network for all calibration rows


def lower_module(module, input_shape, *, classes=None, regression=False) -> Program:
    """Return the float32 Program of a module: the raw row is one row of its input, flattened.

    The sums are those of the module in one declared order, in Python and in C; torch adds in another, so numbers differ
    by rounding (:func:`effml.deep.module_bound` says by how much at most).

    Parameters
    ----------
    module : torch.nn.Module
        Used in eval mode; it is not changed.
    input_shape : tuple of int
        Of one row, for example ``(1, 28, 28)``.
    classes : sequence, optional
        Labels of the outputs; by default 0, 1, ...
    regression : bool, default=False
        The outputs are values, no scores of classes.

    Raises
    ------
    LoweringError
        Naming what cannot be lowered, its path in the module and the cure.
    TypeError
        If `input_shape` is no tuple of whole numbers.

    Examples
    --------
    >>> from torch import nn, rand
    >>> from effml.deep import lower_module
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    >>> program = lower_module(net, (1, 8, 8))
    >>> program.run(rand(5, 64).numpy())["label"].shape
    (5, 1)
    """
    _check_shape(input_shape)
    graph = read_graph(ready(module), tuple(input_shape))
    builder = _row_builder(input_shape)
    lowering = FloatLowering(graph, builder)
    places = np.arange(len(builder.inputs)).reshape(input_shape)
    _add_outputs(lowering, builder, lowering.run(Value(RAW, places)), classes, regression)
    builder.describe_missing("spreads through the network; impute before the call")
    return builder.program(_source_text(module))


def _check_shape(shape):
    whole = isinstance(shape, (tuple, list)) and all(isinstance(side, Integral) and side >= 1 for side in shape)
    if not whole or not shape:
        what = type(shape).__name__ if hasattr(shape, "dtype") else repr(shape)
        raise TypeError(f"input_shape={what} must be the shape of one row, a tuple such as (1, 28, 28)")


def quantize_module(module, X_calib, *, weight_bits=8, activation_bits=8, classes=None, regression=False):
    """Return a module whose predictions are integer arithmetic.

    Weights that take few levels already (binary, ternary, k bits; of the tensor or of each output) keep them and are
    stored in the bits they need. Other weights get `weight_bits`, with a scale of each output; the error of each is
    made up for by those rounded after it. Values between layers get `activation_bits`.

    Parameters
    ----------
    module : torch.nn.Module
        Used in eval mode; it is not changed.
    X_calib : array or tensor (n_rows, ...)
        Rows like those to come; a few hundred are enough.
    weight_bits, activation_bits : int, default=8
        2 to 8.
    classes : sequence, optional
        Labels of the outputs; by default 0, 1, ...
    regression : bool, default=False

    Returns
    -------
    QuantizedModule

    Raises
    ------
    LoweringError
        Naming what cannot be lowered, its path in the module and the cure.
    ValueError
        For bits outside 2 to 8, and rows that are not finite or not there.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import quantize_module
    >>> net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Hardswish(), torch.nn.Linear(8, 3))
    >>> X = torch.randn(200, 6)
    >>> small = quantize_module(net, X, weight_bits=4)
    >>> bool((small.predict(X) == net(X).argmax(1).numpy()).mean() > 0.8)
    True
    """
    rows = np.asarray(X_calib, dtype=np.float32)
    if rows.ndim < 2 or not len(rows):
        raise ValueError(f"X_calib has shape {rows.shape}; give rows of the module's input, (n_rows, ...)")
    shape = rows.shape[1:]
    builder = _row_builder(shape)
    columns = [Column(k) for k in range(len(builder.inputs))]
    program = integer_program(
        builder,
        columns,
        module,
        rows.reshape(len(rows), -1),
        shape,
        classes=classes,
        regression=regression,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        source=f"quantised to {weight_bits}-bit weights: {_source_text(module)}",
    )
    return QuantizedModule(program, shape)


class QuantizedModule:
    """A module in integers; :func:`quantize_module` makes it.

    Parameters
    ----------
    program : Program
    input_shape : tuple of int
        Of one row.
    """

    def __init__(self, program, input_shape):
        self.program, self.input_shape = program, tuple(input_shape)

    def _run(self, X, output):
        rows = np.ascontiguousarray(np.asarray(X, dtype=np.float32))
        if rows.shape[1:] != self.input_shape:
            raise ValueError(f"X has shape {rows.shape}; expected (n_rows, {', '.join(map(str, self.input_shape))})")
        return self.program.run(rows.reshape(len(rows), -1))[output]

    def predict(self, X) -> np.ndarray:
        """Return class labels (n_rows,), or values (n_rows, n_outputs) of a regression."""
        if "value" in self.program.outputs:
            return self._run(X, "value")
        return np.asarray(self.program.classes)[self._run(X, "label")[:, 0]]

    def scores(self, X) -> np.ndarray:
        """Return the integer scores (n_rows, n_outputs): ``program.outputs["score"].scale`` is their unit."""
        if "score" not in self.program.outputs:
            raise AttributeError("a regression has values, no scores; use predict")
        return self._run(X, "score")

    def predict_proba(self, X) -> np.ndarray:
        """Return the softmax of the scaled scores, float32 (n_rows, n_classes)."""
        if "proba" not in self.program.outputs:
            raise AttributeError("a regression has values, no probabilities; use predict")
        return self._run(X, "proba")

    def lower(self) -> Program:
        """Return the Program that `predict` runs: for effml.footprint, effml.to_c and CompiledProgram."""
        return self.program


# -- estimators -------------------------------------------------------------------------------------------------------


def lower_classifier(est, frame: Frame) -> None:
    """Lower a fitted TorchClassifier in float32."""
    _lower_estimator(est, frame, est.classes_)


def lower_regressor(est, frame: Frame) -> None:
    """Lower a fitted TorchRegressor in float32."""
    _lower_estimator(est, frame, None)


def _lower_estimator(est, frame, classes):
    shape = module_shape(est, len(frame.columns))
    graph = read_graph(ready(est.export_module_), shape)
    builder = frame.builder
    lowering = FloatLowering(graph, builder)
    buffer, sources = _scaled_row(builder, *_affine_columns(est, frame.columns))
    result = lowering.run(Value(buffer, sources.reshape(shape)))
    _add_outputs(lowering, builder, result, classes, classes is None)
    builder.describe_missing("spreads through the network; impute before the call")
    builder.notes.append("float32 sums: torch adds in another order, so that a near tie may get the other label")


def module_shape(est, n_columns) -> tuple:
    """Return the shape of a row as the module of an estimator reads it."""
    shape = tuple(getattr(est, "input_shape_", (n_columns,)))
    if int(np.prod(shape)) != n_columns:
        raise LoweringError(
            f"{type(est).__name__} was fitted on rows of shape {shape}; fit it on flat rows, with torch.nn.Unflatten "
            "first in its module, or lower the module itself by effml.deep.lower_module"
        )
    return shape


def _affine_columns(est, columns):
    for column in columns:
        if column.affine is None or column.is_discrete:
            raise LoweringError(
                f"{type(est).__name__} lowers behind affine scalers of numeric columns only; encode categories and "
                "apply other transformers outside of the exported pipeline"
            )
    scale, offset = np.array([column.affine for column in columns], dtype=np.float64).T
    return np.array([column.source for column in columns], dtype=np.int64), scale, offset


def _scaled_row(builder, sources, scale, offset):
    """Add the scaling of raw columns, where there is one; return the buffer and where it has each column."""
    if (scale == 1).all() and (offset == 0).all():
        return RAW, sources
    source, n = RAW, len(sources)
    if not np.array_equal(sources, np.arange(len(builder.inputs))):
        source = builder.add(Select, "chosen", "f32", n, columns=sources)
    fields = {"scale": scale.astype(np.float32), "offset": offset.astype(np.float32)}
    return builder.add(Affine, "z", "f32", n, inputs=(source,), **fields), np.arange(n)


def integer_program(
    builder, columns, module, rows, shape, *, classes, regression, weight_bits, activation_bits, source=""
) -> Program:
    """Return the integer Program of a module behind affine columns.

    Parameters
    ----------
    builder : Builder
    columns : list of Column
    module : torch.nn.Module
    rows : float32 array (n_rows, n_raw)
        Raw calibration rows.
    shape : tuple
        Of a row as the module reads it.
    classes : sequence or None
    regression : bool
    weight_bits, activation_bits : int
    source : str
        What it comes from, in words.
    """
    for name, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
        if isinstance(bits, bool) or not isinstance(bits, int | np.integer) or not 2 <= bits <= 8:
            raise ValueError(f"{name}={bits!r} must be a whole number from 2 to 8")
    if not len(rows) or not np.isfinite(rows).all():
        raise ValueError("X_calib must hold at least one row and no missing or infinite values")
    graph = read_graph(ready(module), shape)
    largest = max([int(np.prod(op.shape)) for op in graph.ops] + [int(np.prod(shape))])
    most = max(min(MOST_CALIBRATION_ROWS, MOST_ELEMENTS // largest), 16)
    rows = np.ascontiguousarray(rows[:: -(-len(rows) // most)], dtype=np.float32)
    made = Calibration(builder, {RAW: rows})
    sources, scale, offset = _affine_columns(module, columns)
    seen = (rows[:, sources] * scale + offset).astype(np.float32)
    held = graph.record(seen.reshape(len(seen), *shape))
    lowering = IntegerLowering(graph, made, held, weight_bits=weight_bits, activation_bits=activation_bits)
    value = _quantised_row(made, lowering, sources, scale, offset, seen)
    value = replace(value, places=value.places.reshape(shape))
    _add_outputs(lowering, builder, lowering.run(value), classes, regression)
    builder.describe_missing("is read as 0; impute before the call")
    return requantise_at_once(builder.program(source))


def _quantised_row(made, lowering, sources, scale, offset, seen):
    """Add the step that makes the raw row small integers: one unit and zero point for all columns."""
    largest, n = lowering.largest, len(sources)
    plain = (scale == 1).all() and (offset == 0).all()
    whole = plain and (seen == np.floor(seen)).all() and seen.min() >= 0 and seen.max() <= largest
    given = lowering.input_format()
    if given is None:
        given = (1.0, 0) if whole else affine_range(seen, largest)
    step, zero = given
    add = 0.0 if whole and given == (1.0, 0) else 0.5
    fields = {"scale": (scale / step).astype(np.float32), "offset": (offset / step + zero + add).astype(np.float32)}
    buffer = made.add(QuantizeInput, "input", "u8", n, columns=sources, largest=largest, **fields)
    return Value(buffer, np.arange(n), "u8", step, zero, max(zero, largest - zero))


# -- outputs ----------------------------------------------------------------------------------------------------------


def _add_outputs(lowering, builder, value: Value, classes, regression):
    """Add what a Program gives out: values, or label, scores and probabilities."""
    value = lowering.arranged(value)
    n = value.places.size
    if value.buffer == RAW:  # an output is a buffer of its own
        copied = {"scale": np.ones(n, dtype=np.float32), "offset": np.zeros(n, dtype=np.float32)}
        value = replace(value, buffer=builder.add(Affine, "copy", "f32", n, inputs=(RAW,), **copied))
    if regression:
        _add_values(builder, value, n)
        return
    if classes is None:
        classes = range(max(n, 2))
    classes = np.asarray(classes).tolist()
    if len(classes) != max(n, 2):
        raise LoweringError(f"the module has {n} outputs for {len(classes)} classes; one each, or one for two classes")
    if n == 1:
        if value.zero_point:
            raise LoweringError("a lone score must be the sums of a layer; take the activation behind them away")
        label = builder.add(Positive, "label", "u8", 1, inputs=(value.buffer,))
        scale, offset = np.float32([0, value.unit]), np.zeros(2, dtype=np.float32)
    else:
        label = builder.add(ArgBest, "label", smallest_unsigned(n - 1), 1, inputs=(value.buffer,), n_inputs=n)
        scale = np.full(n, value.unit, dtype=np.float32)
        offset = np.full(n, -value.zero_point * value.unit, dtype=np.float32)
    logits = value.buffer
    if value.dtype != "f32" or n == 1:
        fields = {"scale": scale, "offset": offset, "broadcast": n == 1}
        logits = builder.add(Affine, "logit", "f32", len(classes), inputs=(logits,), **fields)
    proba = builder.add(Softmax, "proba", "f32", len(classes), inputs=(logits,))
    score = Output(value.buffer, scale=value.unit, zero_point=value.zero_point)
    builder.outputs = {"label": Output(label), "score": score, "proba": Output(proba)}
    builder.classes = tuple(classes)


def _add_values(builder, value, n):
    buffer = value.buffer
    if value.dtype != "f32":
        fields = {
            name: np.full(n, number, dtype=np.float32)
            for name, number in (("scale", value.unit), ("offset", -value.zero_point * value.unit))
        }
        buffer = builder.add(Affine, "value", "f32", n, inputs=(buffer,), **fields)
    builder.outputs = {"value": Output(buffer)}


def _row_builder(shape) -> Builder:
    return Builder([InputSpec(f"x{k}") for k in range(int(np.prod(shape)))])


def ready(module):
    """Return a copy of a module in eval mode, float32, on the CPU."""
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    return copy.deepcopy(module).to(device="cpu", dtype=torch.float32).eval()


def _source_text(module) -> str:
    text = repr(module)
    return text if len(text) < 2000 else type(module).__name__
