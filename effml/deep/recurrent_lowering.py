"""An LSTM as loops of integer steps: two products of bytes, gates of straight pieces, a cell of 16 bits."""

import numpy as np
import torch
from torch import nn

from effml.deep.calibration import Weights, few_levels
from effml.deep.lowering_values import Value
from effml.deep.pieces import curve_of
from effml.deep.recurrent import (
    CELL_TOP,
    GATE_BITS,
    NORM_SHIFT,
    TOP_HIDDEN,
    TOP_SIGMOID,
    TOP_TANH,
    QuantLSTM,
)
from effml.program.buffers import Buffer
from effml.program.frame import LoweringError
from effml.program.steps import GatedSum, Join, Loop, Normalise, PackedDense, Pieces, Requantise

__all__ = ["lower_lstm"]

LARGEST_SUM = 2**29
FACTOR_BITS = 16  # of the factors that bring products to the sums' unit: two bytes an output
NORM_FACTOR_BITS = 30  # before a norm, which enlarges what is lost of small products
GATED_SHIFT = 30


def lower_lstm(lowering, op, value: Value) -> Value:
    """Add the loops of a recurrent layer.

    Parameters
    ----------
    lowering : IntegerLowering
    op : Op
        Its module is a QuantLSTM or a torch.nn.LSTM; the latter gets the ranges of the calibration rows.
    value : Value
        The sequence (n_steps, n_in), step by step.
    """
    module = op.fields["module"]
    if isinstance(module, nn.LSTM):
        module = QuantLSTM.from_lstm(module, weight_bits=lowering.weight_bits)
        module.calibrate(torch.from_numpy(lowering.held[op.inputs[0]]), momentum=0.0)
    else:
        unit, zero = module.input_format()
        if (value.dtype, value.unit, value.zero_point) != ("u8", unit, zero):
            level = lowering._mixed([value], unit, zero, 255)
            value = Value(level, value.places, "u8", unit, zero, max(zero, 255 - zero))
    n_steps = op.shape[0]
    for number, (layer, hidden) in enumerate(zip(module.layers, module.hidden, strict=True)):
        last = number == module.num_layers - 1
        collect = not (last and len(layer) == 1 and _reads_last_step(lowering, op))
        unit = hidden.unit(TOP_HIDDEN)
        buffers = []
        for reverse, direction in enumerate(layer):
            fields = _loop(module, direction, value, unit, op.path)
            fields |= {"n": n_steps, "collect": collect, "reverse": bool(reverse)}
            size = module.hidden_size * (n_steps if collect else 1)
            buffers.append(lowering.add(Loop, "hidden", "i8", size, (value.buffer,), **fields))
        value = _sequence(lowering, buffers, n_steps, module.hidden_size, collect, unit)
    return value


def _sequence(lowering, buffers, n_steps, n_hidden, collect, unit):
    """Return the value of the hidden states, (n_steps, n); with one step alone the others have no place."""
    if len(buffers) > 1:
        sizes = (n_hidden,) * len(buffers)
        n = n_steps * sum(sizes)
        buffers = [lowering.add(Join, "both", "i8", n, tuple(buffers), sizes=sizes)]
        n_hidden = sum(sizes)
    if collect:
        places = np.arange(n_steps * n_hidden).reshape(n_steps, n_hidden)
    else:
        places = np.full((n_steps, n_hidden), -1)
        places[-1] = np.arange(n_hidden)
    return Value(buffers[0], places, "i8", unit, 0, TOP_HIDDEN)


def _reads_last_step(lowering, op):
    """Return whether nothing but the last step of a sequence is read."""
    readers = lowering.readers.get(op.name, [])
    first = (op.shape[0] - 1) * op.shape[1]
    return bool(readers) and all(r.kind == "places" and r.fields["order"].min() >= first for r in readers)


def _loop(module, direction, value, unit, path):
    """Return the fields of the loop of one direction."""
    n = module.hidden_size
    steps = _sums(module, direction, value, unit, path)
    cell_bits = direction.cell_bits()
    gates = curve_of("sigmoid", GATE_BITS, module.n_pieces, TOP_SIGMOID)
    new = curve_of("tanh", GATE_BITS, module.n_pieces, TOP_TANH)
    bent = curve_of("tanh", cell_bits, module.n_pieces, TOP_TANH)
    half = {"offset": 1 << GATED_SHIFT - 1, "shift": GATED_SHIFT}
    # f c / 255 + i g / (255 * 127), in steps of the cell
    factors = (2.0**GATED_SHIFT / TOP_SIGMOID, 2.0 ** (GATED_SHIFT + cell_bits) / (TOP_SIGMOID * TOP_TANH))
    out = 2.0**GATED_SHIFT / (TOP_SIGMOID * TOP_TANH * unit)
    steps += [
        Pieces(inputs=("sums",), output=Buffer("gates", "u8", 3 * n), **gates.fields()),
        Pieces(inputs=("sums",), output=Buffer("new", "i8", n), first=3 * n, **new.fields()),
        GatedSum(
            inputs=("gates", "cell", "gates", "new"),
            output=Buffer("next_cell", "i16", n),
            starts=(n, 0, 0, 0),
            factors=tuple(round(factor) for factor in factors),
            largest=CELL_TOP,
            lowest=-CELL_TOP,
            **half,
        ),
        Pieces(inputs=("next_cell",), output=Buffer("bent", "i8", n), **bent.fields()),
        GatedSum(
            inputs=("gates", "bent"),
            output=Buffer("next_hidden", "i8", n),
            starts=(2 * n, 0),
            factors=(round(out),),
            largest=TOP_HIDDEN,
            lowest=-TOP_HIDDEN,
            **half,
        ),
    ]
    return {
        "body": tuple(steps),
        "element": Buffer("part", value.dtype, value.shape[-1]),
        "carries": (Buffer("hidden", "i8", n), Buffer("cell", "i16", n)),
        "starts": (0, 0),
        "successors": ("next_hidden", "next_cell"),
        "result": "next_hidden",
    }


def _sums(module, direction, value, unit, path):
    """Return the steps from input and hidden state to the sums before the gates, int16."""
    products, names = [], []
    for which, source, step, zero in (
        ("ih", Buffer("part", value.dtype, 1), value.unit, value.zero_point),
        ("hh", Buffer("hidden", "i8", 1), unit, 0),
    ):
        weights = _weights(module, direction, which)
        bias = np.empty(0, dtype=np.int32)
        if module.norm is None and which == "ih":
            bias = np.rint(_array(direction.bias) / (weights.unit * step))
        reach = weights.bound(max(zero, 255 - zero)).max() + np.abs(bias).max(initial=0)
        if reach > LARGEST_SUM:
            raise LoweringError(f"{path}: sums of {len(weights.codes)} products do not fit 32 bits; use fewer inputs")
        fields = {"codes": weights.codes, "n_bits": weights.n_bits, "levels": weights.levels}
        fields |= {"bias": bias.astype(np.int32), "zero_point": zero}
        name = f"product_{which}"
        output = Buffer(name, "i32", len(weights.unit))
        products.append(PackedDense(inputs=(source.name,), output=output, **fields))
        names.append((name, weights.unit * step))
    if module.norm is not None:
        return _normalised_sums(module, direction, products, names)
    return [*products, _added([name for name, _ in names], [scale * 2.0**GATE_BITS for _, scale in names])]


def _added(names, factors, hint="sums", lowest=-(2**15), bits=FACTOR_BITS):
    """Return the step that adds products, each brought to the common unit, as int16."""
    largest = max(factor.max() for factor in factors)
    shift = int(np.clip(np.floor(bits - 1e-9 - np.log2(largest)), 1, 30))
    whole = np.array([np.rint(factor * 2.0**shift) for factor in factors]).astype(np.int32)
    if (whole == whole[:, :1]).all():
        whole = whole[:, :1]
    n = len(factors[0])
    offset = np.full(whole.shape[1], 1 << shift - 1, dtype=np.int32)
    fields = {"factor": whole if len(names) > 1 else whole[0], "offset": offset, "shift": shift, "wide": True}
    return Requantise(inputs=tuple(names), output=Buffer(hint, "i16", n), largest=2**15 - 1, lowest=lowest, **fields)


def _normalised_sums(module, direction, products, names):
    steps, normal = [], []
    for product, (name, scale), which in zip(products, names, ("ih", "hh"), strict=True):
        unit = direction.products[which].unit(CELL_TOP)
        gain = direction.gains(which).numpy().astype(np.int32)
        n = len(gain)
        steps += [
            product,
            _added([name], [scale / unit], hint=f"scaled_{which}", lowest=-CELL_TOP, bits=NORM_FACTOR_BITS),
            Normalise(
                inputs=(f"scaled_{which}",),
                output=Buffer(f"normal_{which}", "i16", n),
                gain=gain,
                offset=np.full(n, 1 << NORM_SHIFT - 1, dtype=np.int32),
                shift=NORM_SHIFT,
                largest=2**15 - 1,
                spread=module.norm,
            ),
        ]
        normal.append(f"normal_{which}")
    bias = np.rint(_array(direction.bias) * 2.0**GATE_BITS).astype(np.int32)
    ones = np.ones((2, len(bias)), dtype=np.int32)
    output = Buffer("sums", "i16", len(bias))
    fields = {"shift": 0, "largest": 2**15 - 1, "lowest": -(2**15)}
    return [*steps, Requantise(inputs=tuple(normal), output=output, factor=ones, offset=bias, **fields)]


def _weights(module, direction, which) -> Weights:
    """Return the weights (n_in, 4 hidden) as they act in training."""
    weight = getattr(direction, f"weight_{which}").detach()
    if direction.keeps_levels[which]:
        return few_levels(_array(weight).T, most_bits=module.weight_bits)
    top = 2**module.weight_bits - 1
    unit = direction.weight_unit(which, module.weight_bits, module.scales)
    codes = torch.floor((weight / unit + top) / 2 + 0.5).clamp(0, top)
    codes = np.ascontiguousarray(codes.numpy().T.astype(np.uint8))
    return Weights(codes, module.weight_bits, _array(unit)[:, 0])


def _array(tensor):
    return tensor.detach().numpy().astype(np.float64)
