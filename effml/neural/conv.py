"""Small convolutional networks with weights of 1 to 8 bits, whose predictions are integer arithmetic.

Source: W. Roth, G. Schindler, H. Froening, F. Pernkopf, "On Resource-Efficient Bayesian Network Classifiers and Deep
Neural Networks", ICPR 2020 (arXiv 2010.11773).
"""

from typing import ClassVar

import numpy as np

from effml.neural.mlp import LowBitClassifier
from effml.neural.network import ConvArchitecture
from effml.neural.sizes import conv_channels

__all__ = ["QuantizedConvClassifier"]


class QuantizedConvClassifier(LowBitClassifier):
    """3x3 convolutions with weights of 1 to 8 bits, each followed by 2x2 maximum pooling, and a dense layer.

    A convolution has stride 1, zeros around the image and no bias; then batch norm if wanted, the activation, and
    pooling. The dense layer has a bias. See :class:`effml.neural.QuantizedMLPClassifier` for training and prediction.

    Parameters
    ----------
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of a row of X, channels last; None is (1, n_features).
    channels : tuple of int, default=(8, 16)
        Channels of each convolution.
    weight_bits : int from 1 to 8, or None, default=4
    activation, activation_bits, batch_norm
        As in `QuantizedMLPClassifier`.
    budget_bits : float, default=None
        Size that all weights, biases and batch norm shall have: n, 2n, 4n, ... channels with the nearest such size,
        which may lie a little above. `channels` then only gives the number of convolutions.
    input_bits : int from 2 to 8, default=8
    input_scaling : {"feature", "common"}, default="common"
        Standardise all pixels alike, or each by itself. With "common", whole numbers from 0 to 255 are read as they
        are.
    alpha, batch_size, learning_rate_init, max_iter, early_stopping, validation_fraction, n_iter_no_change, tol
        As in `QuantizedMLPClassifier`.
    class_weight, warm_start, random_state, verbose
        As in `QuantizedMLPClassifier`.

    Attributes
    ----------
    codes_ : list of uint8 ndarray
        Weights of the convolutions, (9 * channels, n_out) with the taps of a neighbourhood from the upper left on, then
        of the dense layer.
    classes_, coefs_, parameters_, architecture_, input_format_, activation_ranges_, program_, size_bits_, n_operations_
        As in `QuantizedMLPClassifier`.
    loss_curve_, validation_scores_, n_iter_, n_features_in_, feature_names_in_
        As in `QuantizedMLPClassifier`.

    Examples
    --------
    >>> from effml.neural import QuantizedConvClassifier
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = QuantizedConvClassifier(image_shape=(8, 8), channels=(8,), weight_bits=2, max_iter=10, random_state=0)
    >>> bool(model.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) > 0.85)
    True
    """

    _parameter_constraints: ClassVar[dict] = LowBitClassifier._parameter_constraints | {
        "image_shape": ["array-like", None],
        "channels": ["array-like", int],
    }

    def __init__(
        self,
        *,
        image_shape=None,
        channels=(8, 16),
        weight_bits=4,
        activation="relu",
        activation_bits=None,
        batch_norm=False,
        budget_bits=None,
        input_bits=8,
        input_scaling="common",
        alpha=0.0,
        batch_size="auto",
        learning_rate_init="auto",
        max_iter=30,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        class_weight=None,
        warm_start=False,
        random_state=None,
        verbose=False,
    ):
        self.image_shape = image_shape
        self.channels = channels
        self.weight_bits = weight_bits
        self.activation = activation
        self.activation_bits = activation_bits
        self.batch_norm = batch_norm
        self.budget_bits = budget_bits
        self.input_bits = input_bits
        self.input_scaling = input_scaling
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def _architecture(self, n_inputs, n_outputs):
        shape = self._shape_of_images(n_inputs)
        channels = np.atleast_1d(np.asarray(self.channels))
        if channels.ndim != 1 or not channels.size or channels.dtype.kind not in "iu" or channels.min() < 1:
            raise ValueError(f"channels={self.channels!r} must be positive integers, at least one")
        hidden = tuple(channels.astype(int).tolist())
        if self.budget_bits is not None:
            bits = 32 if self.weight_bits is None else self.weight_bits
            formats = {"weight_bits": bits, "batch_norm": self.batch_norm}
            hidden = conv_channels(self.budget_bits, shape, len(hidden), n_outputs, **formats)
        return ConvArchitecture(
            n_inputs,
            hidden,
            n_outputs,
            self.weight_bits,
            self.activation,
            None if self.activation == "sign" else self.activation_bits,
            bool(self.batch_norm),
            image_shape=shape,
        )

    def _shape_of_images(self, n_inputs):
        given = np.asarray((1, n_inputs) if self.image_shape is None else self.image_shape)
        if given.shape not in ((2,), (3,)) or given.dtype.kind not in "iu" or given.min() < 1:
            raise ValueError(
                f"image_shape={self.image_shape!r} must be (height, width) or (height, width, channels), or None"
            )
        if given.prod() != n_inputs:
            raise ValueError(f"image_shape={self.image_shape!r} has {given.prod()} pixels; X has {n_inputs} features")
        return (*given.tolist(), 1)[:3]
