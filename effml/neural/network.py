"""Networks as lists of layers over one dict of parameters, and how they are put together.

An architecture says what the layers are; a dict of arrays holds the numbers ("weight1", "gamma1", ...), so that a
fitted model is plain arrays. :func:`build` puts layers around such a dict without copying it.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from effml._quantization import WeightFormat
from effml.neural.images import Conv3x3, MaxPool, Reshape
from effml.neural.layers import BatchNorm, ClippedReLU, Dense, ReLU, Sign
from effml.neural.sizes import conv_operations, conv_sides, conv_size_bits, dense_operations, dense_size_bits

__all__ = ["Architecture", "ConvArchitecture", "DenseArchitecture", "Network", "build", "start"]

# Standard deviation at the start of what leaves a layer with a gain, were its inputs of unit size
HIDDEN_SPREAD = {"relu": math.sqrt(2), "sign": 1.0, "clipped": 0.5}
OUTPUT_SPREAD = 2.0


class Network:
    """Layers in sequence.

    Parameters
    ----------
    layers : list of Layer
    names : list of dict of str to str
        For each layer: what its parameters are called in `parameters`.

    Attributes
    ----------
    parameters, gradients : dict of str to ndarray
        Of all layers, by network-wide names.
    """

    def __init__(self, layers, names):
        self.layers = layers
        self.parameters, self.gradients = {}, {}
        for layer, known in zip(layers, names, strict=True):
            for own, name in known.items():
                self.parameters[name] = layer.parameters[own]
                self.gradients[name] = layer.gradients[own]

    def forward(self, x, training=False):
        """Return the outputs (n_rows, n_outputs); x itself is not changed."""
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, to_out):
        """Fill `gradients` from the gradient of the outputs."""
        for layer in reversed(self.layers):
            to_out = layer.backward(to_out)

    def refresh(self):
        """Take over changed parameters."""
        for layer in self.layers:
            layer.refresh()


@dataclass(frozen=True)
class Architecture:
    """Shape and number formats of a network.

    Attributes
    ----------
    n_inputs : int
    hidden : tuple of int
        Neurons, or channels, of each hidden layer.
    n_outputs : int
    weight_bits : int or None
    activation : {"relu", "sign"}
    activation_bits : int or None
        Bits of a clipped ReLU; None is a float ReLU. Sign is one bit by itself.
    batch_norm : bool
    """

    n_inputs: int
    hidden: tuple
    n_outputs: int
    weight_bits: int | None
    activation: str
    activation_bits: int | None
    batch_norm: bool

    @property
    def n_layers(self):
        """Layers with weights."""
        return len(self.hidden) + 1

    @property
    def fans(self):
        """Shape (n_in, n_out) of the weights of each layer; n_in inputs make one sum."""
        raise NotImplementedError

    def spread_out(self, number):
        """Return how many inputs share a weight on their way out of a layer: 9 of a convolution, else 1."""
        return 1

    def places(self, number):
        """Return how often a layer's outputs occur in a row: once for neurons, once a pixel for channels."""
        return 1

    @property
    def kind_of_activation(self):
        """ "relu", "sign" or "clipped"."""
        return "clipped" if self.activation == "relu" and self.activation_bits is not None else self.activation

    @property
    def sums_decide(self):
        """Whether hidden layers take the sign of integer sums as they are, which may be exactly 0."""
        return self.activation == "sign" and not self.batch_norm and self.weight_bits is not None

    @property
    def weight_format(self):
        return None if self.weight_bits is None else WeightFormat(self.weight_bits)

    @property
    def _price(self):
        return {"weight_bits": 32 if self.weight_bits is None else self.weight_bits, "batch_norm": self.batch_norm}


@dataclass(frozen=True)
class DenseArchitecture(Architecture):
    """A multi-layer perceptron."""

    @property
    def fans(self):
        sizes = (self.n_inputs, *self.hidden, self.n_outputs)
        return tuple(pairwise(sizes))

    @property
    def size_bits(self):
        """Bits of the network as the paper counts them; a float has 32."""
        return dense_size_bits(self.n_inputs, self.hidden, self.n_outputs, **self._price)

    @property
    def n_operations(self):
        """Operations of one row as the paper counts them."""
        return dense_operations(self.n_inputs, self.hidden, self.n_outputs, batch_norm=self.batch_norm)


@dataclass(frozen=True)
class ConvArchitecture(Architecture):
    """3x3 convolutions, each with 2x2 pooling, and a dense layer.

    Attributes
    ----------
    image_shape : (height, width, channels)
    """

    image_shape: tuple = (1, 1, 1)

    @property
    def fans(self):
        channels = (self.image_shape[2], *self.hidden)
        convolutions = tuple((9 * n_in, n_out) for n_in, n_out in pairwise(channels))
        height, width = self.sides[-1]
        return (*convolutions, (height * width * channels[-1], self.n_outputs))

    @property
    def sides(self):
        """Height and width of the images that enter each convolution and leave the last."""
        return conv_sides(self.image_shape, len(self.hidden))

    def spread_out(self, number):
        return 1 if number == self.n_layers else 9

    def places(self, number):
        if number == self.n_layers:
            return 1
        return self.sides[number][0] * self.sides[number][1]

    @property
    def size_bits(self):
        """Bits of the network as the paper counts them; a float has 32."""
        return conv_size_bits(self.image_shape, self.hidden, self.n_outputs, **self._price)

    @property
    def n_operations(self):
        """Operations of one row as the paper counts them."""
        return conv_operations(self.image_shape, self.hidden, self.n_outputs, batch_norm=self.batch_norm)


def start(architecture, random_state, dtype=np.float32):
    """Return the first parameters: Glorot-uniform shadow weights, batch norm that changes nothing, no bias.

    Parameters
    ----------
    architecture : Architecture
    random_state : RandomState
    dtype : dtype

    Returns
    -------
    dict of str to ndarray
        "weight1", ... and "bias" of the outputs; behind a layer "gamma1", "beta1", "mean1", "inverse_std1" with batch
        norm, or "log_gain1" with quantised weights alone.
    """
    parameters = {}
    for layer, (n_in, n_out) in enumerate(architecture.fans, 1):
        last = layer == architecture.n_layers
        limit = np.sqrt(6 / (n_in + n_out * architecture.spread_out(layer)))
        weight = random_state.uniform(-limit, limit, (n_in, n_out))
        parameters[f"weight{layer}"] = weight.astype(dtype)
        if architecture.batch_norm and not last:
            for name, value in (("gamma", 1), ("beta", 0), ("mean", 0), ("inverse_std", 1)):
                parameters[f"{name}{layer}"] = np.full(n_out, value, dtype=dtype)
        elif architecture.weight_bits is not None:
            root = np.sqrt(n_in * np.mean(architecture.weight_format.quantize(weight) ** 2))
            spread = OUTPUT_SPREAD if last else HIDDEN_SPREAD[architecture.kind_of_activation]
            parameters[f"log_gain{layer}"] = np.log([spread / root]).astype(dtype)
    parameters["bias"] = np.zeros(architecture.n_outputs, dtype=dtype)
    return parameters


def build(architecture, parameters, generator=None):
    """Return the Network of an architecture around its parameters.

    Parameters
    ----------
    architecture : Architecture
    parameters : dict of str to ndarray
        As :func:`start` makes them; training changes them in place.
    generator : numpy.random.Generator, default=None
        For activations that are random in training.
    """
    layers, names = [], []

    def add(layer, known=None):
        layers.append(layer)
        names.append(known or {})

    images = isinstance(architecture, ConvArchitecture)
    if images:
        add(Reshape(architecture.image_shape))
    for number in range(1, architecture.n_layers + 1):
        last = number == architecture.n_layers
        own = {"weight": f"weight{number}", "log_gain": f"log_gain{number}"} | ({"bias": "bias"} if last else {})
        own = {name: known for name, known in own.items() if known in parameters}
        fields = {name: parameters[known] for name, known in own.items()}
        fields |= {"weight_format": architecture.weight_format, "input_gradient": number > 1}
        fields["exact"] = architecture.sums_decide and not last
        if images and last:
            add(Reshape((architecture.fans[-1][0],)))
        add(Conv3x3(**fields) if images and not last else Dense(**fields), own)
        if last:
            break
        if architecture.batch_norm:
            held = (parameters[f"{name}{number}"] for name in ("gamma", "beta", "mean", "inverse_std"))
            add(BatchNorm(*held, unbiased=not images), {"gamma": f"gamma{number}", "beta": f"beta{number}"})
        add(_activation(architecture, generator))
        if images:
            add(MaxPool())
    return Network(layers, names)


def _activation(architecture, generator):
    if architecture.activation == "sign":
        return Sign(generator)
    if architecture.activation_bits is not None:
        return ClippedReLU(architecture.activation_bits)
    return ReLU()
