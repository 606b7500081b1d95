"""Networks as Programs: integers from the quantised input to the scores, or float32 where the weights are floats.

Batch norm and the scales of weights and activations are folded into integer thresholds (sign) or into one integer
multiplication and shift (ReLU, clipped). `predict` of the estimators runs these very steps.

Source of the integer arithmetic: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018; thresholds: M. Courbariaux et al., "Binarized Neural Networks", 2016.
"""

from dataclasses import dataclass

import numpy as np

from effml.neural.network import ConvArchitecture
from effml.program import Builder, Frame, InputSpec, LoweringError
from effml.program.buffers import RAW, Output, smallest_unsigned
from effml.program.steps import (
    Affine,
    ArgBest,
    Conv,
    Dense,
    PackedConv,
    PackedDense,
    Positive,
    QuantizeInput,
    Relu,
    Requantise,
    Select,
    Softmax,
    Threshold,
)
from effml.program.steps.packing import n_words

__all__ = ["lower_classifier", "lower_regressor", "model_program"]

LARGEST_SUM = 2**29  # of a product: what is added to it and its doubling stay within 32 bits
MOST_BITS = 15  # of a ReLU that was trained in float
BIAS_LIMIT = 2**29
FINEST_SCORE = 0.02  # unit of the scores, in natural logarithms of odds or deviations of the target, to aim at
MOST_SHIFT = 8


@dataclass
class Signal:
    """What a layer reads: ``(buffer - zero_point) * unit``, at most `largest` steps from 0; `words` packs signs."""

    buffer: str
    unit: float
    largest: int
    zero_point: int = 0
    words: str = ""


def lower_classifier(est, frame: Frame) -> None:
    """Lower a fitted classifier: the integers of `predict`."""
    builder = frame.builder
    scores, unit = _scores(est, builder, _input_signal(est, frame))
    n_classes = len(est.classes_)
    if n_classes == 2:
        label = builder.add(Positive, "label", "u8", 1, inputs=(scores,))
        scale = np.float32([0, unit])
    else:
        dtype = smallest_unsigned(n_classes - 1)
        label = builder.add(ArgBest, "label", dtype, 1, inputs=(scores,), n_inputs=n_classes)
        scale = np.full(n_classes, unit, dtype=np.float32)
    fields = {"scale": scale, "offset": np.zeros(n_classes, dtype=np.float32), "broadcast": n_classes == 2}
    logits = builder.add(Affine, "logit", "f32", n_classes, inputs=(scores,), **fields)
    proba = builder.add(Softmax, "proba", "f32", n_classes, inputs=(logits,))
    builder.outputs = {"label": Output(label), "score": Output(scores, scale=unit), "proba": Output(proba)}
    builder.classes = tuple(np.asarray(est.classes_).tolist())
    _describe(est, frame)


def lower_regressor(est, frame: Frame) -> None:
    """Lower a fitted regressor."""
    builder = frame.builder
    scores, unit = _scores(est, builder, _input_signal(est, frame))
    builder.outputs = {"value": Output(_target_units(est, builder, scores, unit))}
    _describe(est, frame)


def model_program(est):
    """Return the Program from the estimator's own columns to its scores, which `predict` runs."""
    builder = Builder([InputSpec(f"x{k}") for k in range(est.n_features_in_)])
    columns = np.arange(est.n_features_in_)
    scores, unit = _scores(est, builder, _quantised(est, builder, columns, None, None))
    builder.outputs = {"score": Output(scores, scale=unit)}
    return builder.program("")


def _describe(est, frame):
    frame.builder.describe_missing("is read as 0; impute before the call")
    if est.architecture_.weight_bits is None:
        frame.builder.notes.append("float32 network: the numbers of Python's predict, bit for bit")
    if any(column.links for column in frame.columns):
        frame.builder.notes.append(
            "scalers before the model are applied in float32: a value next to a step of the input may take the other "
            "one, and a near tie the other label"
        )


def _input_signal(est, frame):
    columns = frame.columns
    for column in columns:
        if column.affine is None or column.is_discrete:
            raise LoweringError(
                f"{type(est).__name__} lowers behind affine scalers of numeric columns only; encode categories and "
                "apply other transformers outside of the exported pipeline"
            )
    sources = np.array([column.source for column in columns], dtype=np.int64)
    scale, offset = np.array([column.affine for column in columns], dtype=np.float64).T
    return _quantised(est, frame.builder, sources, scale, offset)


def _quantised(est, builder, columns, scale, offset):
    """Add the step that reads the raw row."""
    given, n = est.input_format_, len(columns)
    if given.n_bits is None:
        scale = np.ones(n) if scale is None else scale
        offset = np.zeros(n) if offset is None else offset
        return columns, given.scale * scale, given.scale * offset + given.offset
    fields = given.fields(scale, offset)
    buffer = builder.add(QuantizeInput, "input", "u8", n, columns=columns, **fields)
    largest = max(given.zero_point, given.largest - given.zero_point)
    return Signal(buffer, given.step, largest, given.zero_point)


def _scores(est, builder, signal):
    """Add the network and return the buffer of its outputs and their unit."""
    if est.architecture_.weight_bits is None:
        return _float_scores(est, builder, *signal), 1.0
    architecture, parameters = est.architecture_, est.parameters_
    for number in range(1, architecture.n_layers):
        signal = _hidden(est, builder, signal, number)
    last = architecture.n_layers
    unit = signal.unit * _gain(parameters, last) / architecture.weight_format.top
    # sums of a few signs are far apart: make room for the bias between them
    room = LARGEST_SUM // (len(est.codes_[last - 1]) * signal.largest * architecture.weight_format.top)
    shift = min(np.ceil(np.log2(unit / FINEST_SCORE)), MOST_SHIFT, np.floor(np.log2(max(room, 1))))
    shift = int(max(shift, 0))
    unit = unit / 2**shift
    bias = np.clip(np.rint(parameters["bias"].astype(np.float64) / unit), -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32)
    return _dense(est, builder, "scores", signal, est.codes_[last - 1], bias, shift), float(unit)


def _gain(parameters, number):
    return float(np.exp(np.float64(parameters[f"log_gain{number}"][0]))) if f"log_gain{number}" in parameters else 1.0


def _dense(est, builder, hint, signal, codes, bias=None, shift=0):
    top = est.architecture_.weight_format.top
    check_sums(len(codes), signal.largest << shift, top)
    return builder.add(
        PackedDense,
        hint,
        "i32",
        codes.shape[1],
        inputs=(signal.buffer,),
        codes=codes,
        n_bits=est.architecture_.weight_bits,
        bias=np.empty(0, dtype=np.int32) if bias is None else bias,
        zero_point=signal.zero_point,
        packed=signal.words,
        shift=shift,
    )


def _convolution(est, builder, hint, signal, codes):
    """Add a convolution with its pooling; both activations behind it rise with the sum, so pooling may come first."""
    architecture = est.architecture_
    check_sums(len(codes), signal.largest, architecture.weight_format.top)
    number = 1 + sum(isinstance(step, PackedConv) for step in builder.steps)
    height, width = architecture.sides[number - 1]
    return builder.add(
        PackedConv,
        hint,
        "i32",
        architecture.places(number) * codes.shape[1],
        inputs=(signal.buffer,),
        image_shape=(height, width, len(codes) // 9),
        codes=codes,
        n_bits=est.architecture_.weight_bits,
        zero_point=signal.zero_point,
    )


def check_sums(n_in, largest, top):
    """Raise where a sum of products may leave the 32 bits that it has."""
    if n_in * largest * top > LARGEST_SUM:
        raise ValueError(
            f"sums of {n_in} inputs up to {largest} times weights up to {top} do not fit 32 bits; use fewer inputs, or "
            "lower input_bits or weight_bits"
        )


def _hidden(est, builder, signal, number):
    """Add a hidden layer and return what the next one reads."""
    architecture, parameters = est.architecture_, est.parameters_
    codes, top = est.codes_[number - 1], architecture.weight_format.top
    unit = signal.unit * _gain(parameters, number) / top
    factor, offset = np.ones(codes.shape[1]), np.zeros(codes.shape[1])
    if architecture.batch_norm:
        held = (parameters[f"{name}{number}"].astype(np.float64) for name in ("gamma", "beta", "mean", "inverse_std"))
        gamma, beta, mean, inverse_std = held
        factor = gamma * inverse_std
        offset = beta - factor * mean
        codes = np.where(factor < 0, top - codes, codes).astype(np.uint8)  # the weights of a falling neuron change sign
        factor = np.abs(factor)
    bound = _bound(codes, top, signal)
    images = isinstance(architecture, ConvArchitecture)
    sums = (_convolution if images else _dense)(est, builder, "sum", signal, codes)
    if architecture.activation == "sign":
        packed = not images or number == architecture.n_layers - 1
        return _sign(builder, sums, factor * unit, offset, bound, packed)
    if architecture.activation_bits is not None:
        largest = 2**architecture.activation_bits - 1
        return _requantised(builder, sums, factor * unit, offset, 1 / largest, largest, bound)
    bits = min(MOST_BITS, int(np.log2(LARGEST_SUM / (architecture.fans[number][0] * top) + 1)))
    step = est.activation_ranges_[number - 1] / (2**bits - 1)
    if architecture.batch_norm:
        return _requantised(builder, sums, factor * unit, offset, step, 2**bits - 1, bound)
    return _shifted(builder, sums, unit, step, 2**bits - 1, bound)


def _bound(codes, top, signal):
    """Return the largest sum of a neuron."""
    return int(np.abs(2 * codes.astype(np.int64) - top).sum(axis=0).max()) * signal.largest


def _sign(builder, sums, factor, offset, bound, packed):
    """sign(factor * sum + offset) is +1 from the smallest whole sum on that makes it 0 or more."""
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = np.ceil(np.where(factor > 0, -offset / factor, np.where(offset >= 0, -np.inf, np.inf)))
    threshold = np.clip(limit, -bound, bound + 1).astype(np.int32)
    n = builder.steps[-1].output.size
    words = word_type(n) if packed else ""
    dtype, size = (words, n_words(n, words)) if packed else ("i8", n)
    fields = {"threshold": threshold, "n_inputs": n, "packed": packed}
    buffer = builder.add(Threshold, "signs", dtype, size, inputs=(sums,), **fields)
    return Signal(buffer, 1.0, 1, words=words)


def word_type(n):
    """Return the widest words that hold n signs with next to no bits unused.

    Examples
    --------
    >>> word_type(1000), word_type(41)
    ('u32', 'u16')
    """
    held = {dtype: n_words(n, dtype) * width for dtype, width in (("u8", 8), ("u16", 16), ("u32", 32))}
    least = min(held.values())
    return next(dtype for dtype in ("u32", "u16", "u8") if held[dtype] <= 1.15 * least)


def _requantised(builder, sums, factor, offset, step, largest, bound):
    """Add ``round((factor * sum + offset) / step)``, clipped, as a multiplication and a shift."""
    factor, offset = factor / step, offset / step + 0.5
    fits = np.log2((2**31 - 1) / max(np.abs(factor).max(), np.abs(offset).max(), 2.0**-31))
    shift = int(np.clip(min(np.ceil(np.log2(max(bound, 1))), np.floor(fits)), 0, 31))
    fields = {
        name: np.clip(np.rint(values * 2.0**shift), -(2**31) + 1, 2**31 - 1).astype(np.int64)
        for name, values in (("factor", factor), ("offset", offset))
    }
    reach = (np.abs(fields["factor"]) * bound + np.abs(fields["offset"])).max()
    return _add_requantise(builder, sums, fields, shift, step, largest, wide=bool(reach >= 2**31))


def _shifted(builder, sums, unit, step, largest, bound):
    """Add ``round(sum * unit / step)``, where `step` may be raised to a power of two times `unit`: a shift alone."""
    shift = int(np.clip(np.ceil(np.log2(max(step / unit, 1e-9))), 0, 30))
    half = 2 ** (shift - 1) if shift else 0
    fields = {"factor": np.ones(1, dtype=np.int64), "offset": np.full(1, half, dtype=np.int64)}
    return _add_requantise(builder, sums, fields, shift, unit * 2**shift, min(largest, max(bound >> shift, 1) + 1))


def _add_requantise(builder, sums, fields, shift, step, largest, wide=False):
    fields = {name: values.astype(np.int32) for name, values in fields.items()}
    dtype = "u8" if largest <= 255 else "i16"
    n = builder.steps[-1].output.size
    buffer = builder.add(
        Requantise, "level", dtype, n, inputs=(sums,), shift=shift, largest=largest, wide=wide, **fields
    )
    return Signal(buffer, float(step), largest)


# -- float weights ----------------------------------------------------------------------------------------------------


def _float_scores(est, builder, columns, scale, offset):
    """Add the steps of a network of floats; batch norm is folded into the weights, and scaling but for images."""
    architecture, parameters = est.architecture_, est.parameters_
    images = isinstance(architecture, ConvArchitecture)
    source, unit = RAW, 1.0
    if images:  # whose border of zeros is one of scaled pixels
        source, columns = _standardised(builder, columns, scale, offset), np.arange(len(columns))
    for number in range(1, architecture.n_layers + 1):
        weight, bias = _float_layer(architecture, parameters, number)
        weight = weight * unit
        if number == 1 and not images:
            bias = bias + offset.astype(np.float64) @ weight
            weight = scale.astype(np.float64)[:, None] * weight
        last = number == architecture.n_layers
        fields = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
        n = weight.shape[1] * architecture.places(number)
        if images and not last:
            shape = (*architecture.sides[number - 1], len(weight) // 9)
            source = builder.add(Conv, "sum", "f32", n, inputs=(source,), image_shape=shape, **fields)
        else:
            fields["columns"] = columns if number == 1 and not images else np.arange(len(weight))
            source = builder.add(Dense, "scores" if last else "sum", "f32", n, inputs=(source,), **fields)
        if not last:
            source, unit = _float_activation(architecture, builder, source, n)
    return source


def _standardised(builder, columns, scale, offset):
    """Add the scaling of the raw row by itself."""
    source, n = RAW, len(columns)
    if not np.array_equal(columns, np.arange(len(builder.inputs))):
        source = builder.add(Select, "chosen", "f32", n, columns=columns)
    fields = {"scale": scale.astype(np.float32), "offset": offset.astype(np.float32)}
    return builder.add(Affine, "z", "f32", n, inputs=(source,), **fields)


def _float_layer(architecture, parameters, number):
    """Return weight and bias of a layer, float64, with the batch norm that follows it."""
    weight = parameters[f"weight{number}"].astype(np.float64)
    if number == architecture.n_layers:
        return weight, parameters["bias"].astype(np.float64)
    if not architecture.batch_norm:
        return weight, np.zeros(weight.shape[1])
    factor = parameters[f"gamma{number}"] * parameters[f"inverse_std{number}"].astype(np.float64)
    return weight * factor, parameters[f"beta{number}"] - parameters[f"mean{number}"] * factor


def _float_activation(architecture, builder, source, n):
    """Add an activation behind a float layer; return its buffer and what one unit of it stands for."""
    if architecture.activation == "sign":
        zeros = np.zeros(n, dtype=np.float32)
        return builder.add(Threshold, "signs", "i8", n, inputs=(source,), threshold=zeros, n_inputs=n), 1.0
    if architecture.activation_bits is None:
        return builder.add(Relu, "hidden", "f32", n, inputs=(source,)), 1.0
    largest = 2**architecture.activation_bits - 1
    fields = {"scale": np.full(n, largest, dtype=np.float32), "offset": np.full(n, 0.5, dtype=np.float32)}
    columns = np.arange(n)
    buffer = builder.add(QuantizeInput, "level", "u8", n, inputs=(source,), columns=columns, largest=largest, **fields)
    return buffer, 1 / largest


def _target_units(est, builder, scores, unit):
    n = len(est.target_mean_)
    scale = (est.target_scale_ * unit).astype(np.float32)
    offset = est.target_mean_.astype(np.float32)
    return builder.add(Affine, "value", "f32", n, inputs=(scores,), scale=scale, offset=offset)
