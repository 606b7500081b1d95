"""Layers of images (n_rows, height, width, channels): 3x3 convolution, 2x2 maximum, change of shape.

Source: as :mod:`effml.neural.layers`; stride 1 with a border of zeros, pooling without a border.
"""

import numpy as np

from effml.neural.layers import Layer, Weighted
from effml.program.steps.images import conv_taps

__all__ = ["Conv3x3", "MaxPool", "Reshape"]


class Conv3x3(Weighted):
    """3x3 convolution with quantised weights, stride 1, zeros around the image, no bias.

    Parameters
    ----------
    weight : ndarray (9 * n_channels, n_out)
        Row ``tap * n_channels + channel``; taps run over the rows of the neighbourhood, upper left first.
    others
        As in :class:`effml.neural.layers.Weighted`.
    """

    def forward(self, x, training=False):
        n, height, width, channels = x.shape
        held = self._memory.get("patches")
        if held is None or held.shape[1:] != (height, width, 9, channels) or len(held) < n or held.dtype != x.dtype:
            held = self._memory["patches"] = np.zeros((n, height, width, 9, channels), dtype=x.dtype)
        rows = held[:n]  # beyond the border it stays 0
        for tap, pixels, neighbours in conv_taps(height, width):
            rows[:, *pixels, tap] = x[:, *neighbours]
        self._shape = x.shape
        return self._product(rows.reshape(-1, 9 * channels), training).reshape(n, height, width, -1)

    def backward(self, to_out):
        n, height, width, channels = self._shape
        flat = to_out.reshape(n * height * width, -1)
        self._weight_gradient(flat)
        if not self.input_gradient:
            return None
        to_rows = self._buffer("to_rows", (len(flat), len(self.effective)), to_out.dtype)
        to_rows = np.matmul(flat, self.effective.T, out=to_rows).reshape(n, height, width, 9, channels)
        to_x = self._buffer("to_x", self._shape, to_out.dtype)
        to_x[...] = 0
        for tap, pixels, neighbours in conv_taps(height, width):
            to_x[:, *neighbours] += to_rows[:, *pixels, tap]
        return to_x


class MaxPool(Layer):
    """Largest of each 2x2 window, stride 2; a last odd row or column is left out, and a side of 1 stays.

    The gradient goes to the first of equal largest elements.

    Examples
    --------
    >>> import numpy as np
    >>> from effml.neural.images import MaxPool
    >>> MaxPool().forward(np.arange(6.0).reshape(1, 2, 3, 1)).ravel().tolist()
    [4.0]
    """

    def forward(self, x, training=False):
        views = _windows(x)
        out = self._buffer("out", views[0].shape, x.dtype)
        out[...] = views[0]
        for view in views[1:]:
            np.maximum(out, view, out=out)
        self._x, self._out = x, out
        return out

    def backward(self, to_out):
        to_x = self._buffer("to_x", self._x.shape, to_out.dtype)
        to_x[...] = 0
        left = self._buffer("left", to_out.shape, to_out.dtype)
        left[...] = to_out
        for view, target in zip(_windows(self._x), _windows(to_x), strict=True):
            np.multiply(left, view == self._out, out=target)
            left -= target  # what has been given away is not given again
        return to_x


def _windows(x):
    """Return the views of x whose elements lie at one place of the windows."""
    steps = [2 if side > 1 else 1 for side in x.shape[1:3]]
    height, width = x.shape[1] // steps[0] * steps[0], x.shape[2] // steps[1] * steps[1]
    return [x[:, i : height : steps[0], j : width : steps[1]] for i in range(steps[0]) for j in range(steps[1])]


class Reshape(Layer):
    """Rows in another shape.

    Parameters
    ----------
    shape : tuple of int
        Of one row.
    """

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def forward(self, x, training=False):
        self._shape = x.shape
        return x.reshape(len(x), *self.shape)

    def backward(self, to_out):
        return None if to_out is None else to_out.reshape(self._shape)
