"""Bits and operations of a network as the paper counts them, and the width that meets a budget of bits.

A weight counts its bits, an output's bias 32, a neuron (or channel) with batch norm 64. One multiply-accumulate, one
batch norm output and one bias addition are one operation each; activations and pooling are free.

Source: W. Roth, G. Schindler, H. Froening, F. Pernkopf, "On Resource-Efficient Bayesian Network Classifiers and Deep
Neural Networks", ICPR 2020, and its authors' code.
"""

import math
from itertools import pairwise

from effml.program.steps.images import pooled

__all__ = [
    "conv_channels",
    "conv_operations",
    "conv_size_bits",
    "dense_operations",
    "dense_size_bits",
    "dense_width",
]

BIAS_BITS = 32
BATCH_NORM_BITS = 64
TAPS = 9  # of a 3x3 kernel


def dense_size_bits(n_inputs, hidden, n_outputs, *, weight_bits, batch_norm):
    """Return the bits of a dense network.

    Parameters
    ----------
    n_inputs, n_outputs : int
    hidden : sequence of int
        Width of each hidden layer.
    weight_bits : int
        32 for floats.
    batch_norm : bool

    Examples
    --------
    >>> dense_size_bits(16, (62,), 26, weight_bits=4, batch_norm=True)
    15216
    """
    weights = sum(a * b for a, b in pairwise((n_inputs, *hidden, n_outputs)))
    return weight_bits * weights + BIAS_BITS * n_outputs + BATCH_NORM_BITS * sum(hidden) * bool(batch_norm)


def dense_operations(n_inputs, hidden, n_outputs, *, batch_norm):
    """Return the operations of one row.

    Examples
    --------
    >>> dense_operations(16, (62,), 26, batch_norm=True)
    2692
    """
    weights = sum(a * b for a, b in pairwise((n_inputs, *hidden, n_outputs)))
    return weights + n_outputs + sum(hidden) * bool(batch_norm)


def dense_width(budget_bits, n_inputs, n_hidden_layers, n_outputs, *, weight_bits, batch_norm):
    """Return the width of equal hidden layers whose size in bits is next to a budget, at least 1.

    Parameters
    ----------
    budget_bits : float
    n_inputs, n_outputs : int
    n_hidden_layers : int
        1 or more.
    weight_bits : int
    batch_norm : bool

    Returns
    -------
    int
        The root of the size in the width, rounded to the nearest: the size may lie on either side of the budget.

    Examples
    --------
    >>> dense_width(15288, 16, 1, 26, weight_bits=4, batch_norm=True)
    62
    """
    rest = BIAS_BITS * n_outputs - budget_bits
    square = weight_bits * (n_hidden_layers - 1)
    linear = weight_bits * (n_inputs + n_outputs) + BATCH_NORM_BITS * n_hidden_layers * bool(batch_norm)
    return _nearest_width(square, linear, rest)


def _nearest_width(square, linear, rest):
    """Return the positive root of ``square h^2 + linear h + rest``, rounded, at least 1."""
    if rest >= 0:
        return 1
    width = -rest / linear if square == 0 else (math.sqrt(linear**2 - 4 * square * rest) - linear) / (2 * square)
    return max(1, math.floor(width + 0.5))


def conv_sides(image_shape, n_conv_layers):
    """Return height and width of the images that enter each convolution and of those that leave the last pooling.

    Examples
    --------
    >>> conv_sides((14, 14, 1), 2)
    [(14, 14), (7, 7), (3, 3)]
    """
    sides = [tuple(image_shape[:2])]
    for _ in range(n_conv_layers):
        sides.append((pooled(sides[-1][0]), pooled(sides[-1][1])))
    return sides


def conv_size_bits(image_shape, channels, n_outputs, *, weight_bits, batch_norm):
    """Return the bits of a network of 3x3 convolutions, 2x2 pooling after each, and a dense layer.

    Parameters
    ----------
    image_shape : (height, width, channels)
    channels : sequence of int
        Channels of each convolution.
    n_outputs : int
    weight_bits : int
    batch_norm : bool

    Examples
    --------
    >>> conv_size_bits((14, 14, 1), (4,), 10, weight_bits=2, batch_norm=True)
    4568
    """
    weights = TAPS * sum(a * b for a, b in pairwise((image_shape[2], *channels)))
    height, width = conv_sides(image_shape, len(channels))[-1]
    weights += height * width * channels[-1] * n_outputs
    return weight_bits * weights + BIAS_BITS * n_outputs + BATCH_NORM_BITS * sum(channels) * bool(batch_norm)


def conv_operations(image_shape, channels, n_outputs, *, batch_norm):
    """Return the operations of one image.

    Examples
    --------
    >>> conv_operations((14, 14, 1), (2,), 10, batch_norm=False)
    4518
    """
    sides = conv_sides(image_shape, len(channels))
    total = n_outputs
    for (height, width), (n_in, n_out) in zip(sides, pairwise((image_shape[2], *channels)), strict=False):
        total += height * width * n_out * (TAPS * n_in + bool(batch_norm))
    return total + sides[-1][0] * sides[-1][1] * channels[-1] * n_outputs


def conv_channels(budget_bits, image_shape, n_conv_layers, n_outputs, *, weight_bits, batch_norm):
    """Return the channels n, 2n, 4n, ... of convolutions whose size in bits is next to a budget.

    Examples
    --------
    >>> conv_channels(4568, (14, 14, 1), 1, 10, weight_bits=2, batch_norm=True)
    (4,)
    """
    height, width = conv_sides(image_shape, n_conv_layers)[-1]
    factors = [2**layer for layer in range(n_conv_layers)]
    square = weight_bits * TAPS * sum(a * b for a, b in pairwise(factors))
    linear = weight_bits * (TAPS * image_shape[2] + height * width * factors[-1] * n_outputs)
    linear += BATCH_NORM_BITS * sum(factors) * bool(batch_norm)
    n = _nearest_width(square, linear, BIAS_BITS * n_outputs - budget_bits)
    return tuple(n * factor for factor in factors)
