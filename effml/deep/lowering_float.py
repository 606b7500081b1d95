"""A torch module as float32 steps: batch norm in the weights, sums in one declared order, the same numbers in C."""

import numpy as np

from effml.deep.lowering_values import Lowering, Value, image_shape
from effml.program.frame import LoweringError
from effml.program.steps import Affine, Clip, Combine, Conv, Dense, Join, Pool, Relu, Sigmoid, Threshold

__all__ = ["FloatLowering"]


class FloatLowering(Lowering):
    """Float32 steps of a graph.

    Parameters
    ----------
    graph : Graph
    builder : Builder
        Takes the steps.
    """

    def __init__(self, graph, builder):
        super().__init__(graph)
        self.builder = builder

    def add(self, step, hint, dtype, size, inputs, **fields):
        return self.builder.add(step, hint, dtype, size, inputs=inputs, **fields)

    def buffer_size(self, value):
        sizes = {step.output.name: step.output.size for step in self.builder.steps}
        return sizes.get(value.buffer, len(self.builder.inputs))

    def lower_dense(self, op, value):
        weight, bias = op.fields["weight"], op.fields["bias"]
        if value.places.ndim > 1:
            return self._activated(op, self._each_position(op, value, weight, bias))
        order = np.argsort(value.places)
        fields = {"columns": value.places[order], "weight": weight[order].astype(np.float32)}
        fields["bias"] = bias.astype(np.float32)
        buffer = self.add(Dense, "sum", "f32", len(bias), (value.buffer,), **fields)
        return self._activated(op, Value(buffer, np.arange(len(bias))))

    def _each_position(self, op, value, weight, bias):
        """A dense layer on the last axis: a convolution of one pixel."""
        value = self.arranged(value)
        shape = (int(np.prod(value.shape[:-1])), 1, value.shape[-1])
        fields = {"kernel": (1, 1), "padding": (0, 0, 0, 0), "pool": 1, "image_shape": shape}
        fields |= {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
        size = shape[0] * len(bias)
        buffer = self.add(Conv, "sum", "f32", size, (value.buffer,), **fields)
        return Value(buffer, np.arange(size).reshape(op.shape))

    def lower_conv(self, op, value):
        value = self.as_image(value)
        given = {name: op.fields[name] for name in ("kernel", "stride", "dilation", "padding", "groups")}
        given |= {name: op.fields[name].astype(np.float32) for name in ("weight", "bias")}
        given |= {"image_shape": image_shape(value.shape, op.path), "pool": 1}
        size = int(np.prod(op.shape))
        buffer = self.add(Conv, "sum", "f32", size, (value.buffer,), **given)
        out_shape = self.builder.steps[-1].out_shape
        return self._activated(op, self.image_value(op, buffer, out_shape, value))

    def lower_pool(self, op, value):
        value = self.as_image(value)
        fill = 0 if op.fields["counts_border"] else -1
        fields = {name: op.fields[name] for name in ("window", "stride", "padding")}
        fields |= {"mode": "mean" if op.fields["mean"] else "largest", "fill": fill}
        fields["image_shape"] = image_shape(value.shape, op.path)
        buffer = self.add(Pool, "pool", "f32", int(np.prod(op.shape)), (value.buffer,), **fields)
        return self.image_value(op, buffer, self.builder.steps[-1].out_shape, value)

    def lower_scale(self, op, value):
        value = self.as_image(value) if value.places.ndim > 1 else self.arranged(value)
        return self._activated(op, self._scaled(value, op.fields["scale"], op.fields["offset"]))

    def _scaled(self, value, scale, offset, hint="scaled"):
        """Add scale and offset: one for all elements, or one a channel, which is the last axis of the buffer."""
        n = self.buffer_size(value)
        scale, offset = (np.resize(numbers, n).astype(np.float32) for numbers in (scale, offset))
        buffer = self.add(Affine, hint, "f32", n, (value.buffer,), scale=scale, offset=offset)
        return Value(buffer, value.places)

    def lower_add(self, op, left, right):
        return self._activated(op, self._combined(left, right, multiply=False))

    def lower_multiply(self, op, left, right):
        return self._combined(left, right, multiply=True)

    def _combined(self, left, right, *, multiply):
        left, right = self.alike([left, right])
        n = self.buffer_size(left)
        buffer = self.add(
            Combine, "product" if multiply else "total", "f32", n, (left.buffer, right.buffer), multiply=multiply
        )
        return Value(buffer, left.places)

    def lower_join(self, op, *values):
        if any(value.dtype != "f32" for value in values):
            values = [self._scaled(self.as_flat(value), np.ones(1), np.zeros(1), "sign") for value in values]
        values, sizes, places = self.joint(op, values)
        names = tuple(value.buffer for value in values)
        return Value(self.add(Join, "joint", "f32", places.size, names, sizes=sizes), places)

    def lower_lstm(self, op, value):
        raise LoweringError(
            f"{op.path}: a recurrent layer is lowered in integers; use quantize_module or effml.quantize, or QuantLSTM"
        )

    def lower_activation(self, op, value):
        return self._activated(op, self.as_flat(value))

    def _activated(self, op, value):
        """Add the activation of an operation."""
        act, n, source = op.activation, self.buffer_size(value), (value.buffer,)
        if act is None:
            return value
        places = value.places
        if act.name == "clip" and (act.low, act.high) == (0, np.inf):
            return Value(self.add(Relu, "relu", "f32", n, source), places)
        if act.name == "clip":
            largest = float(np.finfo(np.float32).max)
            low, high = max(act.low, -largest), min(act.high, largest)
            return Value(self.add(Clip, "clipped", "f32", n, source, low=low, high=high), places)
        if act.name == "sign":
            threshold = np.zeros(1, dtype=np.float32)
            return Value(self.add(Threshold, "sign", "i8", n, source, threshold=threshold, n_inputs=n), places, "i8")
        if act.name == "sigmoid":
            return Value(self.add(Sigmoid, "sigmoid", "f32", n, source), places)
        if act.name in ("tanh", "silu"):  # tanh x = 2 s(2 x) - 1, silu x = x s(x)
            factor = 2.0 if act.name == "tanh" else 1.0
            inside = self._scaled(value, np.full(1, factor), np.zeros(1)) if factor != 1 else value
            share = Value(self.add(Sigmoid, "sigmoid", "f32", n, (inside.buffer,)), places)
            if act.name == "tanh":
                return self._scaled(share, np.full(1, 2.0), np.full(1, -1.0), "tanh")
            return self._combined(value, share, multiply=True)
        if act.name in ("hardsigmoid", "hardswish"):
            inside = self._scaled(value, np.full(1, 1 / 6), np.full(1, 0.5))
            share = Value(self.add(Clip, "share", "f32", n, (inside.buffer,), low=0.0, high=1.0), places)
            return share if act.name == "hardsigmoid" else self._combined(value, share, multiply=True)
        raise LoweringError(
            f"{act.path}: {act.name} cannot be lowered in float32; use effml.quantize, which makes it a table, or "
            "ReLU, ReLU6, Hardtanh, Hardswish, Hardsigmoid, Sigmoid, Tanh, SiLU"
        )
