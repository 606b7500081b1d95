"""A torch module in integers: 8-bit values with a unit and a zero point, weights of a few bits, exact 32-bit sums.

Every step is run on the calibration rows as it is added, so that each layer is fitted to what it will read. Sums become
levels by an integer multiplication and shift for each channel; activations that are no clipping go through a table of
256 entries. Signs stay signs, packed into words where all that reads them is binary.

Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018.
"""

from dataclasses import replace

import numpy as np

from effml.adapters.calibration import activation_step
from effml.adapters.integers import add_level
from effml.deep.calibration import FINEST_LEVEL, affine_range, few_levels, mean_bias, rounded_weights
from effml.deep.lowering_values import Lowering, Value, image_shape
from effml.program.frame import LoweringError
from effml.program.steps import Join, LookupEach, PackedConv, PackedDense, Pool, Requantise, Threshold

__all__ = ["LARGEST_SUM", "IntegerLowering"]

LARGEST_SUM = 2**29
TABLE = 256
MOST_PATCHES = 8192  # neighbourhoods that the weights of a convolution are fitted on
MONOTONE = ("clip", "sign")


class IntegerLowering(Lowering):
    """Integer steps of a graph.

    Parameters
    ----------
    graph : Graph
    made : effml.adapters.integers.Calibration
        The builder, and what its buffers hold for the calibration rows.
    held : dict
        What the float network has there, (n_rows, *shape) of each value of the graph.
    weight_bits, activation_bits : int
    """

    def __init__(self, graph, made, held, *, weight_bits, activation_bits):
        super().__init__(graph)
        self.made, self.held = made, held
        self.weight_bits, self.largest = weight_bits, 2**activation_bits - 1
        self.pooled = self._pooled_with_sums()

    def add(self, step, hint, dtype, size, inputs, **fields):
        return self.made.add(step, hint, dtype, size, inputs=inputs, **fields)

    def buffer_size(self, value):
        return self.made.values[value.buffer].shape[1]

    def run(self, source):
        """Add the steps of all operations; the sums of the last one keep their 32 bits."""
        self.values[self.graph.source] = source
        for op in self.graph.ops:
            inputs = (self.values[name] for name in op.inputs)
            self.values[op.name] = getattr(self, f"lower_{op.kind}")(op, *inputs)
        return self.values[self.graph.result]

    def input_format(self):
        """Return unit and zero point of the input where a recurrent layer was trained with one, else None."""
        readers = list(self.readers.get(self.graph.source, []))
        while readers and all(op.kind == "places" for op in readers):
            readers = [reader for op in readers for reader in self.readers.get(op.name, [])]
        formats = {
            op.fields["module"].input_format() if hasattr(op.fields.get("module"), "input_format") else None
            for op in readers
        }
        return formats.pop() if len(formats) == 1 and self.largest == 255 else None

    def _target(self, name):
        values = self.held[name]
        return values.reshape(len(values), -1).astype(np.float64)

    # -- sums ---------------------------------------------------------------------------------------------------------

    def weights_of(self, op, largest=255):
        """Return the weights of a layer on few levels, None for others."""
        weight = op.fields["weight"]
        room = LARGEST_SUM // max(len(weight) * largest, 1)
        given = {"most_bits": 8, "largest_level": int(np.clip(room, 1, FINEST_LEVEL))}
        return few_levels(weight, **given)

    def _checked(self, op, weights, value):
        bound = weights.bound(value.largest)
        if bound.max() > LARGEST_SUM:
            raise LoweringError(
                f"{op.path}: sums of {len(weights.codes)} products of {weights.n_bits}-bit weights do not fit 32 bits; "
                "lower weight_bits or activation_bits, or make the layer narrower"
            )
        return bound

    def lower_dense(self, op, value):
        if value.places.ndim > 1:
            return self._each_position(op, value)
        value = self.as_flat(value)
        order = np.argsort(value.places)
        weights, bias = self._dense_weights(op, value, order)
        bound = self._checked(op, weights, value)
        fields = {"codes": weights.codes, "n_bits": weights.n_bits, "levels": weights.levels, "packed": value.words}
        fields |= {"bias": np.empty(0, dtype=np.int32), "zero_point": value.zero_point}
        sums = self.add(PackedDense, "sum", "i32", len(bias), (value.buffer,), **fields)
        return self.outcome(op, sums, np.arange(len(bias)), weights.unit, bias, bound)

    def _dense_weights(self, op, value, order):
        """Return the weights in the buffer's order and the bias."""
        inputs = self._integers(value)
        target = self._target(op.before or op.name)
        found = self.weights_of(op, value.largest)
        if found is not None:
            weights = replace(found, codes=np.ascontiguousarray(found.codes[order]), unit=found.unit * value.unit)
            return weights, mean_bias(inputs, weights, target)
        weight = op.fields["weight"][order] * np.broadcast_to(value.unit, len(order))[:, None]
        return rounded_weights(inputs, weight, target, self.weight_bits)

    def _integers(self, value):
        """Return what a flat value holds for the calibration rows, less its zero point."""
        held = self.made.values[value.buffer]
        if not value.words:
            return held.astype(np.float64) - value.zero_point
        bits = np.unpackbits(held.astype(held.dtype.newbyteorder("<")).view(np.uint8), axis=1, bitorder="little")
        return 2.0 * bits[:, : value.places.size] - 1

    def _each_position(self, op, value):
        """A dense layer on the last axis: a convolution of one pixel."""
        value = self.arranged(value)
        shape = (int(np.prod(value.shape[:-1])), 1, value.shape[-1])
        fields = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0), "groups": 1}
        target = self._target(op.before or op.name).reshape(len(self.made.values[value.buffer]), shape[0], -1)
        sums, weights, bias, out_shape = self._convolved(op, value, shape, fields, target)
        bound = self._checked(op, weights, value)
        places = np.arange(int(np.prod(out_shape))).reshape(op.shape)
        return self.outcome(op, sums, places, weights.unit, bias, bound)

    def lower_conv(self, op, value):
        value = self.as_image(value)
        fields = {name: op.fields[name] for name in ("kernel", "stride", "dilation", "padding", "groups")}
        target = self._target(op.before or op.name)
        target = target.reshape(len(target), op.shape[0], -1).swapaxes(1, 2)
        given = image_shape(value.shape, op.path)
        pool = self.pooled.get(op.name)
        sums, weights, bias, out_shape = self._convolved(
            op, value, given, fields, target, pool=1 if pool is None else 2
        )
        bound = self._checked(op, weights, value)
        places = np.arange(int(np.prod(out_shape))).reshape(out_shape).transpose(2, 0, 1)
        shape = op.shape if pool is None else pool.shape
        target = op.name if pool is None else pool.name
        return self.outcome(op, sums, places.reshape(shape), weights.unit, bias, bound, target)

    def _convolved(self, op, value, shape, fields, target, pool=1):
        """Add the sums of a convolution, the target's (n_rows, pixels, n_out); return also its weights and bias."""
        fields = {**fields, "image_shape": shape}
        patches, target = self._patches(value, fields, target)
        weights, bias = self._conv_weights(op, value, fields["groups"], patches, target)
        fields |= {"codes": weights.codes, "n_bits": weights.n_bits, "levels": weights.levels, "pool": pool}
        step = PackedConv(inputs=(), output=None, zero_point=value.zero_point, **fields)
        size = int(np.prod(step.out_shape))
        sums = self.add(PackedConv, "sum", "i32", size, (value.buffer,), zero_point=value.zero_point, **fields)
        return sums, weights, bias, step.out_shape

    def _patches(self, value, fields, target):
        """Return some neighbourhoods, less the zero point, one array a group, and the target's sums for them."""
        groups, held = fields["groups"], self.made.values[value.buffer]
        n_rows = max(1, min(len(held), MOST_PATCHES // target.shape[1] + 1))
        rows = np.linspace(0, len(held) - 1, n_rows).astype(int)
        patches = [[] for _ in range(groups)]

        def keep(part, group):
            patches[group].append(part.astype(np.float64) - value.zero_point)
            return np.zeros((len(part), 1))

        empty = np.empty((0, groups), dtype=np.uint8)
        step = PackedConv(inputs=(), output=None, codes=empty, n_bits=1, **{**fields, "pool": 1})
        step._in_parts(held[rows], value.zero_point, keep)
        return [np.concatenate(part) for part in patches], target[rows].reshape(-1, target.shape[2])

    def _conv_weights(self, op, value, groups, patches, target):
        found = self.weights_of(op, value.largest)
        n = target.shape[1] // groups
        parts = [slice(group * n, (group + 1) * n) for group in range(groups)]
        if found is not None:
            weights = replace(found, unit=found.unit * value.unit)
            own = [
                mean_bias(
                    patch,
                    replace(
                        weights,
                        codes=weights.codes[:, part],
                        unit=weights.unit[part],
                        levels=_rows(weights.levels, part),
                    ),
                    target[:, part],
                )
                for patch, part in zip(patches, parts, strict=True)
            ]
            return weights, np.concatenate(own)
        weight = op.fields["weight"] * value.unit
        made = [
            rounded_weights(patch, weight[:, part], target[:, part], self.weight_bits)
            for patch, part in zip(patches, parts, strict=True)
        ]
        codes, unit = (np.concatenate([getattr(w, name) for w, _ in made], axis=-1) for name in ("codes", "unit"))
        return replace(made[0][0], codes=codes, unit=unit), np.concatenate([bias for _, bias in made])

    def _pooled_with_sums(self):
        """Return convolutions whose sums can be pooled 2x2 before they become levels, with their pooling."""
        found = {}
        for op in self.graph.ops:
            if op.kind != "pool" or op.fields["mean"] or self.readers.get(op.inputs[0], []) != [op]:
                continue
            plain = op.fields["window"] == (2, 2) == op.fields["stride"] and not any(op.fields["padding"])
            first = next((other for other in self.graph.ops if other.name == op.inputs[0]), None)
            if not plain or first is None or first.kind != "conv" or len(first.shape) != 3 or min(first.shape[1:]) < 2:
                continue
            if first.name not in self.ends and (first.activation is None or first.activation.name in MONOTONE):
                found[first.name] = op
        return found

    # -- from sums to values ------------------------------------------------------------------------------------------

    def outcome(self, op, sums, places, unit, bias, bound, target=None):
        """Return the value of an operation's sums ``sum * unit + bias``, its activation done.

        Parameters
        ----------
        op : Op
        sums : str
            Integers; the unit and so on repeat along the buffer.
        places : int array, of the shape of the value
        unit, bias : float64 array (n,)
        bound : int array (n,)
        target : str, optional
            The recorded value to come close to; by default the operation's.
        """
        act, target = op.activation, self._target(target or op.name)
        if op.name in self.ends and act is None:
            return self._scores(sums, places, unit, bias, bound)
        if act is not None and act.name == "sign":
            return self._signs(op, sums, places, unit, bias, bound)
        size = self.made.values[sums].shape[1]
        floats = self.made.values[sums] * np.resize(unit, size) + np.resize(bias, size)
        if act is None or act.name == "clip":
            return self._clipped(act, sums, places, unit, bias, bound, floats, target)
        low, high = float(floats.min()), float(floats.max())
        step = max(high - low, 1e-12) / (TABLE - 1)
        level = add_level(self.made, sums, unit / step, (bias - low) / step, TABLE - 1, bound, size)
        return self._looked_up(level, places, act, low + step * np.arange(TABLE))

    def _clipped(self, act, sums, places, unit, bias, bound, floats, target):
        low, high = (-np.inf, np.inf) if act is None else (act.low, act.high)
        if low >= 0 and low == 0:
            wanted = target[:, np.argsort(places.ravel())]  # as the buffer lies
            step, zero = activation_step(np.minimum(floats, high), wanted, self.largest), 0
        else:
            step, zero = affine_range(np.clip(floats, low, high), self.largest)
        top = self.largest if high == np.inf else int(min(self.largest, np.rint(high / step) + zero))
        size = floats.shape[1]
        level = add_level(self.made, sums, unit / step, bias / step + zero, top, bound, size)
        return Value(level, places, "u8", step, zero, max(zero, top - zero))

    def _looked_up(self, level, places, act, inputs):
        """Add a table of an activation at the inputs that the levels stand for."""
        outputs = act(inputs)
        step = max(outputs.max(), 0.0) - min(outputs.min(), 0.0)
        step = step / self.largest if step > 0 else 1.0
        zero = int(np.rint(-min(outputs.min(), 0.0) / step))
        table = np.clip(np.rint(outputs / step) + zero, 0, self.largest).astype(np.uint8)
        size = self.made.values[level].shape[1]
        buffer = self.add(LookupEach, "activated", "u8", size, (level,), table=table)
        return Value(buffer, places, "u8", step, zero, max(zero, self.largest - zero))

    def _signs(self, op, sums, places, unit, bias, bound):
        if (unit <= 0).any():
            sums, unit, bias, bound = self._all_rising(sums, unit, bias, bound)
        limit = np.clip(np.ceil(-bias / unit), -bound, bound + 1).astype(np.int32)
        size = self.made.values[sums].shape[1]
        readers = self.readers.get(op.name, [])
        packed = places.ndim == 1 and all(self._reads_words(reader) for reader in readers) and bool(readers)
        words = _word_type(size) if packed else ""
        dtype, n = (words, -(-size // (8 * np.dtype(f"u{_BYTES[words]}").itemsize))) if packed else ("i8", size)
        fields = {"threshold": limit, "n_inputs": size, "packed": packed}
        buffer = self.add(Threshold, "sign", dtype, n, (sums,), **fields)
        return Value(buffer, places, dtype, 1.0, 0, 1, words)

    def _all_rising(self, sums, unit, bias, bound):
        """Add ``sum * unit + bias`` in units that leave the sign right; return it as sums of one positive unit."""
        step = max((np.abs(unit) * bound + np.abs(bias)).max(), 1e-30) / 2.0**30
        shift = int(np.clip(np.floor(30 - np.log2(max(np.abs(unit).max(), np.abs(bias).max()) / step)), 0, 30))
        factor, offset = (np.rint(values / step * 2.0**shift).astype(np.int32) for values in (unit, bias))
        fields = {"factor": factor, "offset": offset, "shift": shift, "wide": True}
        fields |= {"largest": 2**31 - 1, "lowest": -(2**31) + 1}
        buffer = self.add(Requantise, "rising", "i32", self.made.values[sums].shape[1], (sums,), **fields)
        n = len(unit)
        return buffer, np.full(n, step), np.zeros(n), np.full(n, 2**30)

    def _reads_words(self, reader):
        if reader.kind != "dense" or len(reader.shape) != 1:
            return False
        found = self.weights_of(reader, 1)
        return found is not None and found.levels is None and found.n_bits == 1

    def _scores(self, sums, places, unit, bias, bound):
        """Keep the sums of the output in 32 bits, all in one unit."""
        size = self.made.values[sums].shape[1]
        reach = float((bound * unit + np.abs(bias)).max())
        step = max(reach, 1e-30) / SCORE_REACH
        shift = int(
            np.clip(np.floor(30 - np.log2(max((unit / step).max(), (np.abs(bias) / step).max(), 2.0**-30))), 0, 31)
        )
        factor, offset = (np.rint(values / step * 2.0**shift).astype(np.int32) for values in (unit, bias))
        fields = {"factor": factor, "offset": offset, "shift": shift, "wide": True}
        fields |= {"largest": 2**31 - 1, "lowest": -(2**31) + 1}
        buffer = self.add(Requantise, "scores", "i32", size, (sums,), **fields)
        return Value(buffer, places, "i32", step, 0, 2**31 - 1)

    # -- other operations ---------------------------------------------------------------------------------------------

    def lower_pool(self, op, value):
        if self.pooled.get(op.inputs[0]) is op:
            return value
        value = self.as_image(value)
        shape = image_shape(value.shape, op.path)
        fields = {name: op.fields[name] for name in ("window", "stride", "padding")} | {"image_shape": shape}
        size = int(np.prod(op.shape))
        if not op.fields["mean"]:
            buffer = self.add(Pool, "pool", value.dtype, size, (value.buffer,), mode="largest", **fields)
            return self._image(op, buffer, value)
        if any(op.fields["padding"]) and not op.fields["counts_border"]:
            buffer = self.add(Pool, "pool", value.dtype, size, (value.buffer,), mode="mean", **fields)
            return self._image(op, buffer, value)
        sums = self.add(Pool, "total", "i32", size, (value.buffer,), mode="sum", fill=value.zero_point, **fields)
        n = op.fields["window"][0] * op.fields["window"][1]
        unit, bias = np.full(1, value.unit / n), np.full(1, -value.zero_point * value.unit)
        bound = np.full(1, n * 255)
        return self.outcome(op, sums, self._image(op, sums, value).places, unit, bias, bound)

    def _image(self, op, buffer, value):
        return self.image_value(op, buffer, self.made.builder.steps[-1].out_shape, value)

    def lower_scale(self, op, value):
        value = self.as_image(value) if value.places.ndim > 1 else self.arranged(value)
        unit = value.unit * op.fields["scale"]
        bias = op.fields["offset"] - value.zero_point * unit
        bound = np.full(len(unit), 255)
        return self.outcome(op, value.buffer, value.places, unit, bias, bound)

    def lower_activation(self, op, value):
        if op.activation.name == "sign" or value.dtype != "u8" or op.name in self.ends:
            value = self.as_flat(value)
            unit, bias = np.full(1, value.unit), np.full(1, -value.zero_point * value.unit)
            return self.outcome(op, value.buffer, value.places, unit, bias, np.full(1, 255))
        value = self.as_flat(value)
        return self._looked_up(
            value.buffer, value.places, op.activation, (np.arange(TABLE) - value.zero_point) * value.unit
        )

    def lower_add(self, op, left, right):
        left, right = self.alike([left, right])
        act = op.activation
        low, high = (-np.inf, np.inf) if act is None else (act.low, act.high)
        if act is not None and act.name != "clip":
            return self._activated_sum(op, left, right)
        target = self._target(op.name)
        if low == 0:
            step, zero = activation_step(target, target, self.largest), 0
        else:
            step, zero = affine_range(target, self.largest)
        top = self.largest if high == np.inf else int(min(self.largest, np.rint(high / step) + zero))
        buffer = self._mixed([left, right], step, zero, top)
        return Value(buffer, left.places, "u8", step, zero, max(zero, top - zero))

    def _activated_sum(self, op, left, right):
        sums = self._target(op.before)
        step, zero = affine_range(sums, TABLE - 1)
        buffer = self._mixed([left, right], step, zero, TABLE - 1)
        if op.activation.name == "sign":
            value = np.full(1, step), np.full(1, -zero * step), np.full(1, 255)
            return self._signs(op, buffer, left.places, *value)
        return self._looked_up(buffer, left.places, op.activation, (np.arange(TABLE) - zero) * step)

    def _mixed(self, values, step, zero, top):
        """Add the sum of values in a new unit."""
        factor = np.array([[value.unit / step] for value in values])
        offset = zero + 0.5 - sum(value.zero_point * value.unit / step for value in values)
        shift = int(np.clip(np.floor(30 - np.log2(255 * factor.sum() + abs(offset) + 1)), 0, 24))
        numbers = np.rint(factor * 2.0**shift).astype(np.int32)
        fields = {"factor": numbers if len(values) > 1 else numbers[0], "shift": shift, "largest": top, "wide": False}
        fields["offset"] = np.rint(np.full(1, offset) * 2.0**shift).astype(np.int32)
        size = self.buffer_size(values[0])
        return self.add(Requantise, "level", "u8", size, tuple(value.buffer for value in values), **fields)

    def lower_multiply(self, op, left, right):
        raise LoweringError(
            f"{op.path}: a product of two values has no integer form here; lower it in float32 (effml.lower), or use a "
            "number as one factor"
        )

    def lower_join(self, op, *values):
        values, sizes, places = self.joint(op, values)
        formats = {(value.dtype, value.unit, value.zero_point) for value in values}
        if len(formats) > 1:
            step, zero = affine_range(self._target(op.name), self.largest)
            values = [
                Value(self._mixed([value], step, zero, self.largest), value.places, "u8", step, zero)
                for value in values
            ]
        first = values[0]
        largest = max(first.zero_point, self.largest - first.zero_point) if first.dtype == "u8" else first.largest
        names = tuple(value.buffer for value in values)
        buffer = self.add(Join, "joint", first.dtype, places.size, names, sizes=sizes)
        return Value(buffer, places, first.dtype, first.unit, first.zero_point, largest)

    def lower_lstm(self, op, value):
        from effml.deep.recurrent_lowering import lower_lstm

        return lower_lstm(self, op, self.arranged(value))


SCORE_REACH = 2.0**26  # steps from 0 to the largest score
_BYTES = {"": 1, "u8": 1, "u16": 2, "u32": 4}


def _rows(levels, part):
    return levels if levels is None or len(levels) == 1 else levels[part]


def _word_type(n):
    """Return the widest words that hold n signs with next to no bits unused."""
    held = {dtype: -(-n // (8 * width)) * width for dtype, width in _BYTES.items() if dtype}
    return next(dtype for dtype in ("u32", "u16", "u8") if held[dtype] <= 1.15 * min(held.values()))
