"""The integer Program of a linear model or network: low-bit inputs, weights and activations, exact 32-bit sums.

The Program is built step by step and every step is run on the calibration rows at once, so that each layer is fitted to
what it will read on the device. ReLU layers are requantised by one integer multiplication and shift; tanh and logistic
ones to a byte, which a table of 256 entries maps.

Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from effml.adapters.calibration import activation_step, fit_codes, input_factor, input_scale
from effml.adapters.layers import Layers
from effml.adapters.linear import add_class_outputs, raw_linear_form, with_used_columns
from effml.program.buffers import RAW, Output, smallest_unsigned
from effml.program.frame import Builder, Column, LoweringError
from effml.program.steps import (
    Affine,
    Bin,
    Exp,
    LookupEach,
    LookupSum,
    MultiplyInput,
    PackedDense,
    QuantizeInput,
    Requantise,
    WeightedAdd,
    choose_layout,
)

__all__ = ["Calibration", "add_level", "integer_program"]

LARGEST_SUM = 2**29  # leaves room for a bias and a doubling within 32 bits
LARGEST_BIAS = 2.0**28
FINEST = 256  # steps of the last sums that one of their standard deviations should have at least
MOST_SHIFT = 8
MOST_LEVEL_ERROR = 1 / 8  # of a level, by a factor of few bits
TABLE = 256  # entries of an activation's table
ACTIVATIONS = {
    "identity": lambda sums: sums,
    "relu": lambda sums: np.maximum(sums, 0),
    "logistic": lambda sums: 0.5 + 0.5 * np.tanh(0.5 * sums),
    "tanh": np.tanh,
}


@dataclass(eq=False)
class Calibration:
    """A builder and what its buffers hold for the calibration rows."""

    builder: Builder
    values: dict = field(default_factory=dict)

    def add(self, step, hint, dtype, size, inputs=(RAW,), **fields) -> str:
        """Add a step, run it on the rows and return the name of its buffer."""
        name = self.builder.add(step, hint, dtype, size, inputs=inputs, **fields)
        self.values[name] = self.builder.steps[-1].run(*(self.values[source] for source in inputs))
        return name


@dataclass(frozen=True, eq=False)
class _Inputs:
    """What one layer reads: a buffer of numbers, a buffer of states, or both.

    Attributes
    ----------
    numbers, states : str
        Buffers; empty where there are none.
    weight : float64 array (n_numbers, n_out)
        Of one step of the numbers.
    largest : int
        Of the numbers.
    tables : list of arrays (n_states, n_out)
    """

    numbers: str
    weight: np.ndarray
    largest: int
    states: str = ""
    tables: tuple = ()


def integer_program(builder: Builder, frame, layers: Layers, rows, *, weight_bits, activation_bits, source=""):
    """Return the integer Program of layers behind a frame.

    Parameters
    ----------
    builder, frame : Builder, Frame
        The preprocessing, lowered; they are used up.
    layers : Layers
    rows : float32 array (n_rows, n_raw)
        Raw calibration rows, finite.
    weight_bits, activation_bits : int
    source : str
        The estimator in words.
    """
    made, layers = Calibration(builder, {RAW: rows}), layers.collapsed()
    inputs, target = _read_row(made, frame, layers, 2**activation_bits - 1)
    for number in range(1, layers.n_layers):
        inputs = _hidden(made, inputs, target, layers, number, weight_bits, activation_bits)
        target = ACTIVATIONS[layers.activation](target) @ layers.weights[number] + layers.biases[number]
    if layers.classes is None:
        _values(made, inputs, target, layers, weight_bits)
    else:
        _classes(made, inputs, target, layers, weight_bits)
    return builder.program(source)


def _read_row(made, frame, layers, largest):
    """Add the steps on the raw row; return what the first layer reads and its float sums on the rows."""
    used, weight = with_used_columns(frame, layers.weights[0])
    sources, weight, bias, tables = raw_linear_form(used, weight.T, layers.biases[0])
    raw, numbers, states = made.values[RAW], "", ""
    target = raw[:, sources].astype(np.float64) @ weight + bias
    if not len(sources) and not tables:  # nothing weighs anything: one column is read and counts nothing
        sources, weight = np.zeros(1, dtype=np.int64), np.zeros((1, len(bias)))
    if len(sources):
        numbers, scale = _add_numbers(made, sources, largest)
        weight = weight / scale[:, None]
    if tables:
        states = _add_states(made, [column for column, _ in tables])
        target = target + sum(table[made.values[states][:, k]] for k, (_, table) in enumerate(tables))
    return _Inputs(numbers, weight, largest, states, tuple(table for _, table in tables)), target


def _add_numbers(made, sources, largest):
    """Add the step that makes raw columns small integers; return its buffer and how many steps one unit has."""
    columns, n = made.values[RAW][:, sources], len(sources)
    factor = input_factor(columns, largest)
    if factor is None:
        scale, offset = input_scale(columns, largest)
    elif (factor == 1).all():
        scale, offset = np.ones(n), np.zeros(n)
    else:
        fields = {"columns": sources, "factor": factor, "largest": largest}
        return made.add(MultiplyInput, "input", "u8", n, **fields), factor.astype(np.float64)
    fields = {"scale": scale.astype(np.float32), "offset": offset.astype(np.float32), "largest": largest}
    return made.add(QuantizeInput, "input", "u8", n, columns=sources, **fields), scale


def _add_states(made, columns: list[Column]):
    dtype = smallest_unsigned(max(column.n_states for column in columns))
    return made.add(Bin, "level", dtype, len(columns), parts=[column.bin_part() for column in columns])


def _hidden(made, inputs, target, layers, number, weight_bits, activation_bits):
    """Add a hidden layer and return what the next one reads."""
    sums, unit, bias, bound = _sums(made, inputs, target, weight_bits)
    floats = made.values[sums] * unit + bias
    largest, n = 2**activation_bits - 1, len(unit)
    weight = layers.weights[number]
    if layers.activation == "relu":
        step = activation_step(floats, np.maximum(target, 0), largest)
        level = add_level(made, sums, unit / step, bias / step, largest, bound)
        return _Inputs(level, step * weight, largest)
    low, high = float(target.min()), float(target.max())
    if layers.activation == "identity":
        step = max(high - low, 1e-30) / largest
        level = add_level(made, sums, unit / step, (bias - low) / step, largest, bound)
        return _Inputs(level, step * weight, largest)
    # beyond these sums the activation is flat: within half a step of 256 of its end
    reach = 6.3 if layers.activation == "logistic" else 3.2
    low, high = max(low, -reach), min(high, reach)
    high = max(high, low + 1e-3)
    step = (high - low) / (TABLE - 1)
    level = add_level(made, sums, unit / step, (bias - low) / step, TABLE - 1, bound)
    values = ACTIVATIONS[layers.activation](low + step * np.arange(TABLE))
    height = (values[-1] - values[0]) / largest
    table = np.rint((values - values[0]) / height).astype(np.uint8)
    hidden = made.add(LookupEach, "hidden", "u8", n, inputs=(level,), table=table)
    return _Inputs(hidden, height * weight, largest)


def _sums(made, inputs, target, weight_bits, *, shared=False, in_steps=False):
    """Add the sums of a layer.

    Returns
    -------
    sums : str
        Integers, int32.
    unit : float64 array (n_out,)
        Of one step of the sums.
    bias : float64 array (n_out,)
        What is to be added to the sums; 0 with `in_steps`, which adds it in steps.
    bound : int array (n_out,)
        Largest absolute value of each sum.
    """
    n_out, top = target.shape[1], 2**weight_bits - 1
    design, shift = _design(made, inputs)
    weight = np.concatenate([inputs.weight, *(table / 2**shift for table in inputs.tables)])
    smallest = np.abs(target).max() / LARGEST_BIAS if in_steps else 0.0
    fitted = fit_codes(design, weight, target, weight_bits, shared=shared, smallest_unit=smallest)
    n_numbers = len(inputs.weight)
    bound = np.abs(2 * fitted.codes[:n_numbers].astype(np.int64) - top).sum(axis=0) * inputs.largest
    bound = bound + len(inputs.tables) * (2 * top << shift)
    more = _shift_for_bias(fitted, target, bound) if in_steps else 0
    if bound.max() > LARGEST_SUM:
        raise LoweringError(
            f"sums of {len(design.T)} products of {weight_bits}-bit weights do not fit 32 bits; lower weight_bits or "
            "activation_bits"
        )
    unit = fitted.unit / 2**more
    # a table's codes count 2u where its weights mean 2u - top
    constant = np.full(n_out, -len(inputs.tables) * (top << shift + more), dtype=np.int64)
    bias = np.rint(fitted.bias / unit).astype(np.int64) if in_steps else np.zeros(n_out, dtype=np.int64)
    total = (bias + constant).astype(np.int32)
    sums = _add_sums(made, inputs, fitted.codes, weight_bits, shift, more, total)
    return sums, unit, np.zeros(n_out) if in_steps else fitted.bias, bound << more


def _shift_for_bias(fitted, target, bound):
    """Return by how many bits sums are shifted to make room for the bias between two of them."""
    finest = np.log2(FINEST * max(fitted.unit.max() / max(target.std(), 1e-30), 1e-30))
    rooms = [LARGEST_SUM / max(largest, 1) for largest in (bound.max(), np.abs(fitted.bias / fitted.unit).max())]
    return int(np.clip(np.floor(min(np.ceil(finest), *np.log2(rooms))), 0, MOST_SHIFT))


def _design(made, inputs):
    """Return the integers that the weights multiply (n_rows, n_weights), and by which shift states count more.

    A number has many steps and small weights of each, a state is there or not: its weights are made as small.
    """
    parts, shift = [], 0
    if inputs.numbers:
        parts.append(made.values[inputs.numbers])
    if inputs.tables:
        highest = np.abs(inputs.weight).max(initial=0.0)
        ratio = max(np.abs(table).max() for table in inputs.tables) / max(highest, 1e-30) if highest else 1.0
        shift = int(np.clip(np.rint(np.log2(max(ratio, 1.0))), 0, 10))
        states = made.values[inputs.states]
        parts += [
            (states[:, k, None] == np.arange(len(table))).astype(np.int64) << shift
            for k, table in enumerate(inputs.tables)
        ]
    return np.concatenate(parts, axis=1).astype(np.float64), shift


def _add_sums(made, inputs, codes, n_bits, shift, more, bias):
    """Add the product of the numbers and the sum of the states' rows."""
    n_out, n_numbers = codes.shape[1], len(inputs.weight)
    nothing = np.empty(0, dtype=np.int32)
    alone = not inputs.tables
    parts, shifts = [], []
    if inputs.numbers:
        fields = {"codes": np.ascontiguousarray(codes[:n_numbers]), "n_bits": n_bits}
        fields |= {"bias": bias if alone and bias.any() else nothing, "shift": more if alone else 0}
        hint = "scores" if alone else "product"
        parts.append(made.add(PackedDense, hint, "i32", n_out, inputs=(inputs.numbers,), **fields))
        shifts.append(more)
    if alone:
        return parts[0]
    table = np.ascontiguousarray(codes[n_numbers:])
    highest = sum(int(part.max()) for part in np.split(table, np.cumsum([len(t) for t in inputs.tables])[:-1]))
    parts.append(
        made.add(
            LookupSum,
            "levels_sum",
            smallest_unsigned(highest),
            n_out,
            inputs=(inputs.states,),
            columns=np.arange(len(inputs.tables)),
            states=np.array([len(part) for part in inputs.tables], dtype=np.int64),
            parents=np.full(len(inputs.tables), -1),
            table=table,
            start=None,
            n_bits=n_bits,
            layout=choose_layout(n_bits, len(table), n_out, prefer="size"),
        )
    )
    shifts.append(shift + 1 + more)
    return made.add(WeightedAdd, "scores", "i32", n_out, inputs=tuple(parts), shifts=tuple(shifts), bias=bias)


def add_level(made, sums, factor, offset, largest, bound, size=None):
    """Add ``round(factor * sum + offset)``, clipped to 0..largest, as an integer multiplication and a shift.

    Parameters
    ----------
    made : Calibration
    sums : str
        A buffer of integers, int32 or smaller.
    factor, offset : float64 array (n,)
    largest : int
        At most 255.
    bound : int array (n,)
        Largest absolute value of each sum.
    size : int, optional
        Elements of the buffer, a multiple of n, for which n by n the numbers are the same; by default n.

    Returns
    -------
    str
        The buffer of the levels, u8.
    """
    offset = offset + 0.5
    # sums beyond this are clipped anyway
    reach = np.minimum(bound, (largest + np.abs(offset)) / np.maximum(np.abs(factor), 1e-30))
    enough = int(np.ceil(np.log2(max(bound.max(), 1)))) + 1

    def numbers(limit):
        shift = int(np.clip(np.floor(np.log2((2.0**31 - 1) / max(limit, 2.0**-31))), 0, min(enough, 31)))
        return shift, *(np.clip(np.rint(v * 2.0**shift), -(2**31) + 1, 2**31 - 1) for v in (factor, offset))

    shift, factors, offsets = numbers((np.abs(factor) * bound + bound + np.abs(offset) + 1).max())
    error = reach * np.abs(factor - factors / 2.0**shift)
    fits = (np.abs(factors) * bound + np.abs(offsets)).max() < 2.0**31
    if is_wide := bool(error.max() > MOST_LEVEL_ERROR or not fits):
        shift, factors, offsets = numbers(max(np.abs(factor).max(), np.abs(offset).max()))
    fields = {"factor": factors.astype(np.int32), "offset": offsets.astype(np.int32)}
    fields |= {"shift": shift, "largest": largest, "wide": is_wide}
    return made.add(Requantise, "level", "u8", size or len(factor), inputs=(sums,), **fields)


def _classes(made, inputs, target, layers, weight_bits):
    """Add the last layer of a classifier, its label and probabilities."""
    if layers.link != "sigmoids" and target.shape[1] > 1:  # what all scores share decides nothing
        target = target - target.mean(axis=1, keepdims=True)
        weight = inputs.weight - inputs.weight.mean(axis=1, keepdims=True)
        tables = tuple(table - table.mean(axis=1, keepdims=True) for table in inputs.tables)
        inputs = replace(inputs, weight=weight, tables=tables)
    sums, unit, _, _ = _sums(made, inputs, target, weight_bits, shared=True, in_steps=True)
    add_class_outputs(made.builder, sums, layers, float(unit[0]))


def _values(made, inputs, target, layers, weight_bits):
    """Add the last layer of a regressor and its values, float32."""
    sums, unit, bias, _ = _sums(made, inputs, target, weight_bits)
    # the tables' constant is in the sums, the bias need not be a whole number of steps
    fields = {"scale": unit.astype(np.float32), "offset": bias.astype(np.float32)}
    value = made.add(Affine, "value", "f32", len(unit), inputs=(sums,), **fields)
    if layers.link == "exp":
        value = made.add(Exp, "value", "f32", len(unit), inputs=(value,))
    made.builder.outputs = {"value": Output(value)}
