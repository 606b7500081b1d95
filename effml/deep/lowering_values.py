"""What both lowerings of a module share: values with a place for each element, and their order in buffers.

Images lie as (height, width, channels) in buffers and as (channels, height, width) in torch. A value knows where each
of its elements is, so that flattening and slicing cost nothing: weights that read it are put in the buffer's order.
"""

from dataclasses import dataclass, replace

import numpy as np

from effml.program.frame import LoweringError
from effml.program.steps import Select

__all__ = ["Lowering", "Value", "image_shape"]


@dataclass(frozen=True, eq=False)
class Value:
    """A value of the graph in a buffer.

    Attributes
    ----------
    buffer : str
    places : int array, of the value's shape without rows
        Where each element lies in the buffer.
    dtype : str
        Of the buffer.
    unit, zero_point, largest : float, int, int
        Integers: an element means ``(q - zero_point) * unit`` and ``|q - zero_point| <= largest``.
    words : str
        Type of the words that pack the signs of a flat value; "" for one element a number.
    """

    buffer: str
    places: np.ndarray
    dtype: str = "f32"
    unit: float = 1.0
    zero_point: int = 0
    largest: int = 0
    words: str = ""

    @property
    def shape(self) -> tuple:
        return self.places.shape


def image_shape(value_shape, path) -> tuple:
    """Return (height, width, channels) of a value (channels, height, width) or (channels, length)."""
    if len(value_shape) not in (2, 3):
        raise LoweringError(
            f"{path}: reads rows of shape {value_shape}; (channels, length) or (channels, height, width)"
        )
    channels, height, *width = value_shape
    return height, width[0] if width else 1, channels


class Lowering:
    """Adds the steps of a graph's operations one after the other; subclasses say how each kind of operation is done.

    Parameters
    ----------
    graph : Graph
    """

    def __init__(self, graph):
        self.graph = graph
        self.values = {}
        self.readers = {}
        for op in graph.ops:
            for name in op.inputs:
                self.readers.setdefault(name, []).append(op)
        self.ends = {graph.result}  # values that are given out, moved elements at most
        for op in reversed(graph.ops):
            if op.name in self.ends and op.kind == "places" and len(self.readers[op.inputs[0]]) == 1:
                self.ends.add(op.inputs[0])

    def add(self, step, hint, dtype, size, inputs, **fields) -> str:
        """Add a step and return the name of its buffer."""
        raise NotImplementedError

    def run(self, source: Value) -> Value:
        """Add the steps of all operations and return the output's value."""
        self.values[self.graph.source] = source
        for op in self.graph.ops:
            self.values[op.name] = getattr(self, f"lower_{op.kind}")(op, *(self.values[name] for name in op.inputs))
        return self.values[self.graph.result]

    def lower_places(self, op, value):
        """Elements in another order or shape."""
        return replace(value, places=value.places.ravel()[op.fields["order"]])

    def arranged(self, value: Value, axes=None) -> Value:
        """Return a value whose buffer holds its elements, and only these, with its axes in the given order."""
        axes = tuple(range(value.places.ndim)) if axes is None else axes
        wanted = np.arange(value.places.size).reshape([value.shape[axis] for axis in axes])
        wanted = wanted.transpose(np.argsort(axes))
        if self.buffer_size(value) == wanted.size and np.array_equal(value.places, wanted):
            return value
        if value.words:
            raise LoweringError("packed signs cannot be put in another order")
        columns = np.empty(wanted.size, dtype=np.int64)
        columns[wanted.ravel()] = value.places.ravel()
        buffer = self.add(Select, "chosen", value.dtype, wanted.size, (value.buffer,), columns=columns)
        return replace(value, buffer=buffer, places=wanted)

    def as_image(self, value: Value) -> Value:
        """Return a value of (channels, height, width) or (channels, length) with channels last in its buffer."""
        n = value.places.ndim
        return self.arranged(value, (*range(1, n), 0))

    def as_flat(self, value: Value) -> Value:
        """Return a value whose buffer holds its elements alone, in any order."""
        places = value.places.ravel()
        if value.words:
            return value
        if len(places) == self.buffer_size(value) and len(np.unique(places)) == len(places):
            return value
        return self.arranged(value)

    def buffer_size(self, value: Value) -> int:
        raise NotImplementedError

    def image_value(self, op, buffer, out_shape, like: Value) -> Value:
        """Return the value of an image step: its places for the operation's own shape."""
        height, width, channels = out_shape
        places = np.arange(height * width * channels).reshape(out_shape).transpose(2, 0, 1)
        return replace(like, buffer=buffer, places=places.reshape(op.shape), words="")

    def alike(self, values) -> list[Value]:
        """Return values with their elements at the same places of buffers that hold nothing else."""
        first = values[0]
        same = all(np.array_equal(value.places, first.places) for value in values)
        if same and all(self.as_flat(value) is value for value in values):
            return list(values)
        return [self.as_image(value) if value.places.ndim > 1 else self.arranged(value) for value in values]

    def joint(self, op, values):
        """Return the arranged values of a concatenation, the parts' sizes and the places of the result."""
        axis, n = op.fields["axis"], values[0].places.ndim
        axes = (*range(1, n), 0) if n > 1 else (0,)
        values = [self.arranged(value, axes) for value in values]
        inside = axes[axes.index(axis) :]
        sizes = tuple(int(np.prod([value.shape[a] for a in inside])) for value in values)
        places = np.arange(int(np.prod(op.shape))).reshape([op.shape[a] for a in axes]).transpose(np.argsort(axes))
        return values, sizes, places

    def lower_softmax(self, op, value):
        raise LoweringError(f"{op.path}: softmax can be lowered at the end of a module only")
