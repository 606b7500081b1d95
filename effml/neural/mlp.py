"""Dense networks with weights of 1 to 8 bits, whose predictions are integer arithmetic.

Source: W. Roth, G. Schindler, H. Froening, F. Pernkopf, "On Resource-Efficient Bayesian Network Classifiers and Deep
Neural Networks", ICPR 2020 (arXiv 2010.11773). Ours are the learned gain of layers without batch norm, integer inputs
and the integer path of prediction.
"""

from typing import ClassVar

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from effml._validation import check_weights, class_factors, drop_weightless, encode_labels
from effml.neural.base import LowBitNetwork, forward_parts
from effml.neural.network import DenseArchitecture
from effml.neural.sizes import dense_width

__all__ = ["LowBitClassifier", "QuantizedMLPClassifier", "QuantizedMLPRegressor"]


class LowBitClassifier(ClassifierMixin, LowBitNetwork):
    """What the classifiers share beside the network."""

    _parameter_constraints: ClassVar[dict] = LowBitNetwork._parameter_constraints | {
        "class_weight": [dict, StrOptions({"balanced"}), None]
    }

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit to rows and labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite numbers, read as float32.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self
        """
        go_on = self.warm_start and hasattr(self, "program_")
        X, y = validate_data(self, X, y, dtype=np.float32, reset=not go_on)
        check_classification_targets(y)
        weights = check_weights(sample_weight, X)
        X, y, weights = drop_weightless(X, y, weights)
        classes, target = encode_labels(y)
        if len(classes) < 2:
            raise ValueError(f"y has one class only, {classes[0]}; the classifier needs at least 2 classes")
        if go_on and not np.array_equal(classes, self.classes_):
            raise ValueError(f"warm_start=True needs the classes of the previous fit, {self.classes_}; got {classes}")
        self.classes_ = classes
        return self._fit(X, target, weights, go_on=go_on)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train one pass over some rows, at a constant learning rate.

        The scaling of the inputs comes from the rows of the first call, which should therefore be a fair sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        classes : array-like of shape (n_classes,), default=None
            All labels that will occur; needed in the first call.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self
        """
        first = not hasattr(self, "program_")
        X, y = validate_data(self, X, y, dtype=np.float32, reset=first)
        if first:
            if classes is None:
                raise ValueError("classes=None: the first call of partial_fit needs all labels that will occur")
            self.classes_ = np.unique(classes)
            if len(self.classes_) < 2:
                raise ValueError(f"classes={classes!r} must hold at least 2 labels")
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes={classes!r} must be those of the first call, {self.classes_}")
        weights = check_weights(sample_weight, X)
        X, y, weights = drop_weightless(X, y, weights)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"y holds the label {unknown[0]}, which is not among classes={self.classes_}")
        return self._fit(X, np.searchsorted(self.classes_, y), weights, go_on=not first, one_epoch=True)

    def _fit(self, X, target, weights, **how):
        if self.class_weight is not None:
            present = np.unique(target)
            factors = np.ones(len(self.classes_))
            factors[present] = class_factors(
                self.class_weight, self.classes_[present], np.searchsorted(present, target), weights
            )
            weights = factors[target] * (1.0 if weights is None else weights)
        binary = len(self.classes_) == 2
        loss, n_outputs = ("logistic", 1) if binary else ("cross_entropy", len(self.classes_))
        self._fit_network(X, target, weights, loss, target, n_outputs=n_outputs, **how)
        return self

    def _score_rows(self, network, rows):
        found = _best(forward_parts(network, rows))
        return float(np.average(found == rows.target[rows.positions], weights=rows.weights[rows.positions]))

    def decision_function(self, X):
        """Return the scores: float64 (n_samples,) of the second of two classes, else (n_samples, n_classes)."""
        scores = self._scores(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X):
        """Return the class of each row, ndarray (n_samples,), by the integer path; of equal scores the first class."""
        scores = self._integer_scores(X)
        return self.classes_[_best(scores)]

    def predict_proba(self, X):
        """Return class probabilities, float64 (n_samples, n_classes): the softmax of the integer scores' values."""
        scores = self._scores(X)
        if scores.shape[1] == 1:
            positive = expit(scores[:, 0])
            return np.stack([1 - positive, positive], axis=1)
        return softmax(scores, axis=1)


def _best(scores):
    return (scores[:, 0] > 0).astype(np.intp) if scores.shape[1] == 1 else scores.argmax(axis=1)


class _Dense:
    """The architecture of a dense network, from the constructor's parameters."""

    def _architecture(self, n_inputs, n_outputs):
        sizes = np.atleast_1d(np.asarray(self.hidden_layer_sizes))
        if sizes.ndim != 1 or (sizes.size and (sizes.dtype.kind not in "iu" or sizes.min() < 1)):
            raise ValueError(f"hidden_layer_sizes={self.hidden_layer_sizes!r} must be positive integers, or ()")
        hidden = tuple(sizes.astype(int).tolist())
        if self.budget_bits is not None:
            if not hidden:
                raise ValueError("budget_bits needs at least one hidden layer; hidden_layer_sizes is empty")
            bits = 32 if self.weight_bits is None else self.weight_bits
            formats = {"weight_bits": bits, "batch_norm": self.batch_norm}
            hidden = (dense_width(self.budget_bits, n_inputs, len(hidden), n_outputs, **formats),) * len(hidden)
        return DenseArchitecture(
            n_inputs,
            hidden,
            n_outputs,
            self.weight_bits,
            self.activation,
            None if self.activation == "sign" else self.activation_bits,
            bool(self.batch_norm),
        )


class QuantizedMLPClassifier(_Dense, LowBitClassifier):
    """Multi-layer perceptron with weights of 1 to 8 bits, trained through the rounding, predicting in integers.

    Training keeps real weights and computes with their quantised copies (straight-through gradients). Prediction reads
    inputs of `input_bits`, adds integers in 32 bits and compares integers: the very numbers of the exported C.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int, default=(100,)
        Width of each hidden layer; () is a linear model.
    weight_bits : int from 1 to 8, or None, default=4
        Bits of all weights; 1 is +-1, b are the 2^b equidistant levels from -1 to 1. None is float.
    activation : {"relu", "sign"}, default="relu"
        Of hidden layers. Sign is random in training, +1 with probability ``clip((x + 1) / 2, 0, 1)``.
    activation_bits : int from 1 to 8, or None, default=None
        Bits of a ReLU that is clipped to [0, 1]; None trains a float ReLU, and prediction keeps up to 15 bits of it.
    batch_norm : bool, default=False
        Normalise hidden layers; without it a layer has one learned gain, which costs nothing on the device.
    budget_bits : float, default=None
        Size that the hidden layers, all of one width, shall have together with all else: the nearest width is taken,
        so `size_bits_` may lie a little above. `hidden_layer_sizes` then only gives the number of layers.
    input_bits : int from 2 to 8, default=8
        Bits of the standardised inputs; not used with float weights.
    input_scaling : {"feature", "common"}, default="feature"
        Standardise each feature by itself, or all alike: then nothing is stored per feature, and whole numbers from 0
        to 255, such as pixels, are read as they are.
    alpha : float, default=0.0
        L2 penalty on the real weights, divided by the number of rows.
    batch_size : int or "auto", default="auto"
        "auto" is a twentieth of the rows, but 16 at least and 100 at most. A last short batch is left out.
    learning_rate_init : float or "auto", default="auto"
        Of Adam in the first epoch; it falls to a ten-thousandth in the last one, evenly in its logarithm. "auto" is
        0.03; with float weights and a few hundred noisy rows try 0.003.
    max_iter : int, default=100
        Epochs.
    early_stopping : bool, default=False
        Hold out `validation_fraction` of the rows, stop after `n_iter_no_change` epochs in which their score has not
        improved by `tol`, and keep the parameters of the best epoch.
    validation_fraction : float, default=0.1
    n_iter_no_change : int, default=10
    tol : float, default=1e-4
    class_weight : dict or "balanced", default=None
        Factors on the weights of the rows by class.
    warm_start : bool, default=False
        Go on from the previous `fit`.
    random_state : int, RandomState instance or None, default=None
    verbose : bool, default=False
        Print the loss of each epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if X has string column names.
    codes_ : list of uint8 ndarray (n_in, n_out), or None
        The weights: code u stands for ``(2u - top) / top``, ``top = 2^weight_bits - 1``.
    coefs_ : list of float32 ndarray
        What they stand for.
    parameters_ : dict of str to float32 ndarray
        Real weights, gains, batch norm and the output's bias: what training goes on from.
    architecture_ : Architecture
    input_format_ : InputFormat
    activation_ranges_ : list of float
        Of float ReLUs: up to where prediction tells values apart.
    program_ : Program
        The steps that `predict` runs and that are exported.
    size_bits_, n_operations_ : int
        As the paper counts them; `effml.footprint` prices what ships.
    loss_curve_ : list of float, one an epoch
    validation_scores_ : list of float
        With early stopping: accuracy on the held-out rows.
    n_iter_ : int

    Examples
    --------
    >>> from effml.neural import QuantizedMLPClassifier
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = QuantizedMLPClassifier(hidden_layer_sizes=(32,), weight_bits=2, max_iter=30, random_state=0)
    >>> bool(model.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) > 0.88)
    True
    >>> model.size_bits_
    5056
    """

    _parameter_constraints: ClassVar[dict] = LowBitClassifier._parameter_constraints | {
        "hidden_layer_sizes": ["array-like", int]
    }

    def __init__(
        self,
        *,
        hidden_layer_sizes=(100,),
        weight_bits=4,
        activation="relu",
        activation_bits=None,
        batch_norm=False,
        budget_bits=None,
        input_bits=8,
        input_scaling="feature",
        alpha=0.0,
        batch_size="auto",
        learning_rate_init="auto",
        max_iter=100,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        class_weight=None,
        warm_start=False,
        random_state=None,
        verbose=False,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
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


class QuantizedMLPRegressor(_Dense, RegressorMixin, LowBitNetwork):
    """Multi-layer perceptron regressor with weights of 1 to 8 bits: squared error on the standardised target.

    See :class:`QuantizedMLPClassifier` for the model. One target or several.

    Parameters
    ----------
    hidden_layer_sizes, weight_bits, activation, activation_bits, batch_norm, budget_bits, input_bits, input_scaling
        As in `QuantizedMLPClassifier`.
    alpha, batch_size, learning_rate_init, max_iter, early_stopping, validation_fraction, n_iter_no_change, tol
        As in `QuantizedMLPClassifier`.
    warm_start, random_state, verbose
        As in `QuantizedMLPClassifier`.

    Attributes
    ----------
    target_mean_, target_scale_ : ndarrays of shape (n_outputs,)
        Predictions are ``target_mean_ + target_scale_ * network``.
    codes_, coefs_, parameters_, architecture_, input_format_, activation_ranges_, program_, size_bits_, n_operations_
        As in `QuantizedMLPClassifier`.
    loss_curve_, validation_scores_, n_iter_, n_features_in_, feature_names_in_
        As in `QuantizedMLPClassifier`; validation scores are coefficients of determination.

    Examples
    --------
    >>> from effml.neural import QuantizedMLPRegressor
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = QuantizedMLPRegressor(hidden_layer_sizes=(16,), max_iter=30, random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.5)
    True
    """

    _parameter_constraints: ClassVar[dict] = LowBitNetwork._parameter_constraints | {
        "hidden_layer_sizes": ["array-like", int]
    }

    def __init__(
        self,
        *,
        hidden_layer_sizes=(100,),
        weight_bits=4,
        activation="relu",
        activation_bits=None,
        batch_norm=False,
        budget_bits=None,
        input_bits=8,
        input_scaling="feature",
        alpha=0.0,
        batch_size="auto",
        learning_rate_init="auto",
        max_iter=100,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        warm_start=False,
        random_state=None,
        verbose=False,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
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
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit to rows and targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite numbers, read as float32.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, go_on=self.warm_start and hasattr(self, "program_"))

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None):
        """Train one pass over some rows, at a constant learning rate.

        The scaling of inputs and targets comes from the rows of the first call, which should be a fair sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, go_on=hasattr(self, "program_"), one_epoch=True)

    def _fit(self, X, y, sample_weight, *, go_on, one_epoch=False):
        X, y = validate_data(self, X, y, dtype=np.float32, multi_output=True, y_numeric=True, reset=not go_on)
        weights = check_weights(sample_weight, X)
        X, y, weights = drop_weightless(X, y, weights)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        target = y.reshape(len(y), -1).astype(np.float64)
        if not go_on:
            self._one_output = y.ndim == 1
            self.target_mean_ = np.average(target, axis=0, weights=weights)
            spread = np.sqrt(np.average((target - self.target_mean_) ** 2, axis=0, weights=weights))
            self.target_scale_ = np.where(spread > 0, spread, 1.0)
        elif target.shape[1] != len(self.target_mean_):
            raise ValueError(f"y has {target.shape[1]} outputs; the previous fit had {len(self.target_mean_)}")
        target = ((target - self.target_mean_) / self.target_scale_).astype(np.float32)
        how = {"go_on": go_on, "one_epoch": one_epoch}
        self._fit_network(X, target, weights, "squared", None, n_outputs=target.shape[1], **how)
        return self

    def _score_rows(self, network, rows):
        found, target = forward_parts(network, rows), rows.target[rows.positions]
        return float(r2_score(target, found, sample_weight=rows.weights[rows.positions]))

    def predict(self, X):
        """Return the value of each row, float64 (n_samples,) or (n_samples, n_outputs)."""
        values = self._scores(X) * self.target_scale_ + self.target_mean_
        return values[:, 0] if self._one_output else values

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
