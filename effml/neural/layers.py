"""Layers of networks with low-bit weights, each with an explicit forward and backward pass.

    hidden layer   a = z Q(W) gain  ->  [batch norm]  ->  ReLU, k-bit clipped or sign  ->  next z
    outputs        z Q(W) gain + b

Rows come first: x is (n_rows, n_features), images (n_rows, height, width, channels). Training keeps real-valued shadow
weights in [-1, 1]; their quantised copy makes the forward pass, and the gradient passes through the rounding unchanged
(straight-through). Buffers are kept between batches, and element-wise layers work in place: `forward` and `backward`
may overwrite and return their argument, and what they return is valid until the next call.

Source: W. Roth, G. Schindler, H. Froening, F. Pernkopf, "On Resource-Efficient Bayesian Network Classifiers and Deep
Neural Networks", ICPR 2020, and the layers that its authors published.
"""

import numpy as np

from effml._cext.neural_training import nearest_levels

__all__ = ["BatchNorm", "ClippedReLU", "Dense", "Layer", "ReLU", "Sign", "Weighted"]

BATCH_NORM_EPSILON = 1e-6
BATCH_NORM_MOMENTUM = 0.9


class Layer:
    """One differentiable map.

    Attributes
    ----------
    parameters : dict of str to ndarray
        What the optimiser changes, in place.
    gradients : dict of str to ndarray
        Filled by `backward`; the keys of `parameters`.
    """

    def __init__(self):
        self.parameters = {}
        self.gradients = {}
        self._memory = {}

    def forward(self, x, training=False):
        """Return the output for x; with `training`, keep what `backward` reads."""
        raise NotImplementedError

    def backward(self, to_out):
        """Return the gradient of the input from that of the output, and fill `gradients`."""
        raise NotImplementedError

    def refresh(self):
        """Take over changed parameters."""

    def _buffer(self, name, shape, dtype):
        """Return an uninitialised array; the same memory as the last time where it is large enough."""
        held = self._memory.get(name)
        if held is None or held.shape[1:] != tuple(shape[1:]) or held.shape[0] < shape[0] or held.dtype != dtype:
            held = self._memory[name] = np.empty(shape, dtype=dtype)
        return held[: shape[0]]


class Weighted(Layer):
    """What dense and convolutional layers share: shadow weights, their quantised copy, a bias.

    Parameters
    ----------
    weight : ndarray (n_in, n_out)
        Shadow weights, changed by training.
    bias : ndarray (n_out,), default=None
    weight_format : effml._quantization.WeightFormat, default=None
        Format of the weights; None is float.
    log_gain : ndarray (1,), default=None
        Logarithm of a learned factor on the product, which quantised weights cannot express themselves. It costs
        nothing on a device: a threshold, an argmax or the scale of the next activation takes it up. None is 1.
    exact : bool, default=False
        Whether the product adds the odd integers of the weights and is scaled afterwards, so that integer inputs give
        exact sums: a sign without batch norm meets sums of exactly 0.
    input_gradient : bool, default=True
        Whether `backward` returns the gradient of the input; the first layer of a network does not need it.
    """

    def __init__(self, weight, bias=None, *, weight_format=None, log_gain=None, exact=False, input_gradient=True):
        super().__init__()
        self.weight_format = weight_format
        self.exact = exact
        self.input_gradient = input_gradient
        given = {"weight": weight, "bias": bias, "log_gain": log_gain}
        self.parameters = {name: value for name, value in given.items() if value is not None}
        self.gradients = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        plain = weight_format is None and log_gain is None
        self.effective = weight if plain else np.empty_like(weight)
        self.refresh()

    @property
    def gain(self):
        """Factor on the product."""
        return float(np.exp(self.parameters["log_gain"][0])) if "log_gain" in self.parameters else 1.0

    def refresh(self):
        weight = self.parameters["weight"]
        if self.weight_format is not None:
            top = self.weight_format.top
            factor = 1.0 if self.exact else self.gain / top
            nearest_levels(weight.reshape(-1), top, factor, self.effective.reshape(-1))
        elif self.effective is not weight:
            np.multiply(weight, weight.dtype.type(self.gain), out=self.effective)

    def _product(self, x, training):
        """Return ``x @ effective + bias`` for x (n, n_in)."""
        weight = self.effective
        out = np.matmul(x, weight, out=self._buffer("out", (len(x), weight.shape[1]), weight.dtype))
        if self.exact:
            out *= weight.dtype.type(self.gain / self.weight_format.top)
        if "bias" in self.parameters:
            out += self.parameters["bias"]
        self._x = x if training else None
        return out

    def _weight_gradient(self, to_out):
        if "bias" in self.gradients:
            np.sum(to_out, axis=0, out=self.gradients["bias"])
        if self.exact:
            to_out *= to_out.dtype.type(self.gain / self.weight_format.top)
        gradient = np.matmul(self._x.T, to_out, out=self.gradients["weight"])
        if "log_gain" in self.gradients:
            self.gradients["log_gain"][0] = np.vdot(gradient, self.effective)
        if self.exact:
            gradient *= to_out.dtype.type(self.weight_format.top)
        elif "log_gain" in self.gradients:
            gradient *= to_out.dtype.type(self.gain)


class Dense(Weighted):
    """Matrix product of rows with quantised weights.

    Examples
    --------
    >>> import numpy as np
    >>> from effml._quantization import WeightFormat
    >>> from effml.neural.layers import Dense
    >>> layer = Dense(np.float32([[0.2], [-0.9]]), weight_format=WeightFormat(1))
    >>> layer.forward(np.float32([[3.0, 1.0]])).tolist()
    [[2.0]]
    """

    def forward(self, x, training=False):
        return self._product(x, training)

    def backward(self, to_out):
        self._weight_gradient(to_out)
        if not self.input_gradient:
            return None
        shape = (len(to_out), len(self.effective))
        return np.matmul(to_out, self.effective.T, out=self._buffer("to_x", shape, to_out.dtype))


class BatchNorm(Layer):
    """``gamma * (x - mean) / sqrt(var + 1e-6) + beta`` over all axes but the last.

    Training uses the moments of the batch; prediction the moving averages of the mean and of the inverse standard
    deviation (not of the variance, as other libraries do), which start at 0 and 1 and move by a tenth a batch.

    Parameters
    ----------
    gamma, beta, mean, inverse_std : ndarrays (n_features,)
        Changed in place, the last two as moving averages.
    unbiased : bool, default=True
        Whether the variance divides by N - 1, as in the authors' dense layers, or by N, as in their convolutions.
    """

    def __init__(self, gamma, beta, mean, inverse_std, *, unbiased=True):
        super().__init__()
        self.parameters = {"gamma": gamma, "beta": beta}
        self.gradients = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        self.mean, self.inverse_std = mean, inverse_std
        self.unbiased = unbiased

    def affine(self):
        """Return factor and offset (n_features,) of prediction: ``out = factor * x + offset``."""
        factor = self.inverse_std * self.parameters["gamma"]
        return factor, self.parameters["beta"] - factor * self.mean

    def forward(self, x, training=False):
        flat = x.reshape(-1, x.shape[-1])
        if not training:
            factor, offset = self.affine()
            flat *= factor
            flat += offset
            return x
        n = len(flat)
        self._divisor = max(n - 1, 1) if self.unbiased else n
        mean = flat.mean(axis=0)
        flat -= mean
        variance = np.einsum("ij,ij->j", flat, flat) / x.dtype.type(self._divisor)
        inverse_std = 1 / np.sqrt(variance + x.dtype.type(BATCH_NORM_EPSILON))
        flat *= inverse_std
        for average, value in ((self.mean, mean), (self.inverse_std, inverse_std)):
            average += x.dtype.type(1 - BATCH_NORM_MOMENTUM) * (value - average)
        self._normalised, self._factor = flat, inverse_std * self.parameters["gamma"]
        out = np.multiply(flat, self.parameters["gamma"], out=self._buffer("out", flat.shape, x.dtype))
        out += self.parameters["beta"]
        return out.reshape(x.shape)

    def backward(self, to_out):
        flat, normalised = to_out.reshape(-1, to_out.shape[-1]), self._normalised
        gradient = self.gradients
        np.einsum("ij,ij->j", flat, normalised, out=gradient["gamma"])
        np.sum(flat, axis=0, out=gradient["beta"])
        # istd gamma (dy - mean(dy) - x_n sum(dy x_n) / (N - 1))
        flat -= gradient["beta"] / to_out.dtype.type(len(flat))
        normalised *= gradient["gamma"] / to_out.dtype.type(self._divisor)
        flat -= normalised
        flat *= self._factor
        return to_out


class ReLU(Layer):
    """``max(x, 0)``, gradient ``1[x > 0]``."""

    def forward(self, x, training=False):
        self._out = np.maximum(x, 0, out=x)
        return x

    def backward(self, to_out):
        positive = np.greater(self._out, 0, out=self._buffer("positive", to_out.shape, np.bool_))
        return np.multiply(to_out, positive, out=to_out)


class ClippedReLU(Layer):
    """k-bit activation: ``round(clip(x / scale, 0, 1) * top) / top``, ``top = 2^n_bits - 1``.

    The gradient is ``1[0 <= x <= scale] / scale`` (straight through the rounding).

    Parameters
    ----------
    n_bits : int
    scale : float, default=1.0
        Where the activation saturates; fixed.

    Examples
    --------
    >>> import numpy as np
    >>> from effml.neural.layers import ClippedReLU
    >>> ClippedReLU(2).forward(np.array([[-1.0, 0.2, 0.4, 9.0]])).round(2).tolist()
    [[0.0, 0.33, 0.33, 1.0]]
    """

    def __init__(self, n_bits, scale=1.0):
        super().__init__()
        self.n_bits, self.scale = n_bits, scale

    def forward(self, x, training=False):
        top = x.dtype.type(2**self.n_bits - 1)
        if training:
            inside = np.greater_equal(x, 0, out=self._buffer("inside", x.shape, np.bool_))
            inside &= x <= x.dtype.type(self.scale)
            self._inside = inside
        x *= x.dtype.type(1 / self.scale)
        np.clip(x, 0, 1, out=x)
        x *= top
        np.rint(x, out=x)
        x /= top
        return x

    def backward(self, to_out):
        np.multiply(to_out, self._inside, out=to_out)
        if self.scale != 1.0:
            to_out *= to_out.dtype.type(1 / self.scale)
        return to_out


class Sign(Layer):
    """+1 for ``x >= 0``, else -1; in training +1 with probability ``clip((x + 1) / 2, 0, 1)``.

    The gradient is that of tanh, ``1 - tanh(x)^2``, in both cases.

    Parameters
    ----------
    generator : numpy.random.Generator, default=None
        Source of the randomness of training; None trains with the deterministic sign.
    """

    def __init__(self, generator=None):
        super().__init__()
        self.generator = generator

    def forward(self, x, training=False):
        out = self._buffer("out", x.shape, x.dtype)
        if training and self.generator is not None:
            np.multiply(x, x.dtype.type(0.5), out=out)
            out += x.dtype.type(0.5)
            out -= self.generator.random(out=self._buffer("random", x.shape, x.dtype), dtype=x.dtype)
        else:
            np.add(x, 0, out=out)  # -0.0 becomes 0.0
        self._x = x
        return np.copysign(x.dtype.type(1), out, out=out)

    def backward(self, to_out):
        slope = np.tanh(self._x, out=self._x)
        slope *= slope
        np.subtract(1, slope, out=slope)
        return np.multiply(to_out, slope, out=to_out)
