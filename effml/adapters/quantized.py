"""Linear models and networks of scikit-learn in integers: inputs, weights and activations of a few bits, exact sums.

The estimator's own `predict` runs the integer Program, so the exported C has nothing left to disagree about.
"""

from numbers import Integral
from typing import ClassVar

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, RegressorMixin, _fit_context, clone
from sklearn.utils import check_array, get_tags
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from effml.adapters.integers import integer_program
from effml.adapters.layers import is_layered, read_layers
from effml.program.frame import LoweringError

__all__ = [
    "QuantizedLinearClassifier",
    "QuantizedLinearRegressor",
    "QuantizedNetworkClassifier",
    "QuantizedNetworkRegressor",
    "lower_quantized",
    "quantize_layers",
]

_MAX_CALIBRATION_ROWS = 5000


class _Quantized(MetaEstimatorMixin, BaseEstimator):
    """A float model and the integer Program made of it."""

    _parameter_constraints: ClassVar[dict] = {
        "estimator": [HasMethods(["fit", "predict"])],
        "weight_bits": [Interval(Integral, 2, 8, closed="both")],
        "activation_bits": [Interval(Integral, 2, 8, closed="both")],
    }

    def __init__(self, estimator, *, weight_bits=8, activation_bits=8):
        self.estimator = estimator
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, **fit_params):
        """Fit the float model, then quantise it with the rows of X.

        Parameters
        ----------
        X : array or DataFrame of shape (n_samples, n_features)
        y : array of shape (n_samples,)
            Of a regressor also (n_samples, n_outputs).
        **fit_params
            Passed to the estimator, for example `sample_weight`.

        Returns
        -------
        self
        """
        return self._quantize(clone(self.estimator).fit(X, y, **fit_params), X)

    def _quantize(self, fitted, X_calib):
        from effml.export import frame_of, lower

        builder, frame, final = frame_of(fitted)
        wanted = _class_for(final)
        if wanted is not type(self):
            raise LoweringError(f"{type(final).__name__} is quantised by {wanted.__name__}, not {type(self).__name__}")
        rows = _calibration_rows(lower(fitted).encode(X_calib))  # lower checks that the model is one with a Program
        layers = read_layers(final)
        self.estimator_ = fitted
        if layers.classes is not None:
            self.classes_ = fitted.classes_
        else:
            self.n_outputs_ = len(layers.biases[-1])
            self.is_flat_ = bool(layers.is_flat)
        validate_data(self, X_calib, skip_check_array=True)
        text = f"quantised to {self.weight_bits}-bit weights and {self.activation_bits}-bit inputs: {fitted!r}"
        bits = {"weight_bits": self.weight_bits, "activation_bits": self.activation_bits}
        self.program_ = integer_program(builder, frame, layers, rows, source=text, **bits)
        return self

    def _run(self, X, output):
        check_is_fitted(self)
        if issparse(X):
            raise TypeError(f"X is a sparse matrix; {type(self).__name__} takes arrays and DataFrames")
        if not hasattr(X, "columns"):
            X = check_array(X, dtype=None, ensure_all_finite=False)
        validate_data(self, X, reset=False, skip_check_array=True)
        rows = self.program_.encode(X)
        if not np.isfinite(rows).all():
            raise ValueError(f"Input X contains NaN or infinity; impute missing values before {type(self).__name__}")
        return self.program_.run(rows)[output]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        return tags


def _calibration_rows(rows):
    if len(rows) == 0 or not np.isfinite(rows).all():
        raise ValueError("X_calib must hold at least one row and no missing or infinite values")
    return rows[:: -(-len(rows) // _MAX_CALIBRATION_ROWS)]


def _has_proba(model):
    if hasattr(model, "program_"):
        return "proba" in model.program_.outputs
    return hasattr(model.estimator, "predict_proba")


class _QuantizedClassifier(ClassifierMixin, _Quantized):
    """What both classifiers share."""

    def predict(self, X):
        """Return the class labels, shape (n_samples,), by the integer path."""
        number = self._run(X, "label")[:, 0]
        return self.classes_[number]

    @available_if(_has_proba)
    def predict_proba(self, X):
        """Return the float model's link of the scaled integer scores, float32, shape (n_samples, n_classes).

        Only where the float model has probabilities; those of ``loss="modified_huber"`` are left out.
        """
        return self._run(X, "proba")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = get_tags(self.estimator).classifier_tags.multi_class
        return tags


class _QuantizedRegressor(RegressorMixin, _Quantized):
    """What both regressors share."""

    def predict(self, X):
        """Return the values, shape (n_samples,) or (n_samples, n_outputs): the float32 numbers of the C, as float64."""
        value = self._run(X, "value").astype(np.float64)
        return value[:, 0] if self.is_flat_ else value

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.target_tags.multi_output = inner.target_tags.multi_output
        tags.target_tags.single_output = inner.target_tags.single_output
        tags.target_tags.positive_only = inner.target_tags.positive_only
        tags.regressor_tags.poor_score = inner.regressor_tags.poor_score
        return tags


class QuantizedLinearClassifier(_QuantizedClassifier):
    """A linear classifier whose predictions are integer arithmetic: low-bit inputs times low-bit weights.

    Inputs are mapped to ``q = clip(floor(x * scale + offset), 0, 2**activation_bits - 1)``, each column over the range
    (without tails, where that is closer) seen in calibration; where all columns already are such integers they stay as
    they are, and no float is left. Weights are rounded one input after the other, the error of each made up for by the
    next ones; all classes share one scale, so that their sums compare. One-hot encoded columns become rows of a table.
    Columns that weigh nothing are not read.

    Parameters
    ----------
    estimator : LogisticRegression, LinearSVC, SGDClassifier, RidgeClassifier, ... or Pipeline that ends in one
        Before it: affine scalers, encoders, selectors (see :func:`effml.check_export`).
    weight_bits, activation_bits : int, default=8
        2 to 8.

    Attributes
    ----------
    classes_ : ndarray
    estimator_ : estimator
        The fitted float model.
    program_ : effml.program.Program
        The integer model; `predict` runs it.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Present when fitted on a DataFrame with string column names.

    References
    ----------
    E. Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from effml.adapters.quantized import QuantizedLinearClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = QuantizedLinearClassifier(LogisticRegression(max_iter=500)).fit(X, y)
    >>> bool(model.score(X, y) > 0.9)
    True
    """


class QuantizedLinearRegressor(_QuantizedRegressor):
    """A linear regressor in integers: as :class:`QuantizedLinearClassifier`, the sums scaled to values at the end.

    Parameters
    ----------
    estimator : Ridge, LinearRegression, Lasso, SGDRegressor, LinearSVR, PoissonRegressor, ... or Pipeline
    weight_bits, activation_bits : int, default=8
        2 to 8.

    Attributes
    ----------
    estimator_ : estimator
        The fitted float model.
    program_ : effml.program.Program
        The integer model; `predict` runs it. Its last step, from the integer sum to the value, is float32.
    n_outputs_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Present when fitted on a DataFrame with string column names.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import Ridge
    >>> from effml.adapters.quantized import QuantizedLinearRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = QuantizedLinearRegressor(Ridge(alpha=0.1)).fit(X, y)
    >>> bool(abs(model.score(X, y) - model.estimator_.score(X, y)) < 0.01)
    True
    """


class QuantizedNetworkClassifier(_QuantizedClassifier):
    """An MLPClassifier in integers, quantised layer by layer after training.

    Inputs, and weights of the last layer, as in :class:`QuantizedLinearClassifier`. Weights of hidden layers have one
    scale a neuron. ReLU layers are requantised to `activation_bits` by an integer multiplication and shift, over the
    range with the least squared error on the calibration rows; tanh and logistic layers to a byte that a table of 256
    entries maps to `activation_bits`. Each layer is fitted to what the integer layers before it give.

    Parameters
    ----------
    estimator : MLPClassifier, or Pipeline that ends in one
    weight_bits, activation_bits : int, default=8
        2 to 8.

    Attributes
    ----------
    classes_ : ndarray
    estimator_ : estimator
        The fitted float model.
    program_ : effml.program.Program
        The integer model; `predict` runs it.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Present when fitted on a DataFrame with string column names.

    References
    ----------
    B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    CVPR 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> from effml.adapters.quantized import QuantizedNetworkClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> net = MLPClassifier(hidden_layer_sizes=(8,), solver="lbfgs", max_iter=500, random_state=0)
    >>> model = QuantizedNetworkClassifier(net, weight_bits=4).fit(X, y)
    >>> bool(model.score(X, y) > 0.9)
    True
    """


class QuantizedNetworkRegressor(_QuantizedRegressor):
    """An MLPRegressor in integers: hidden layers as :class:`QuantizedNetworkClassifier`, sums scaled at the end.

    Parameters
    ----------
    estimator : MLPRegressor, or Pipeline that ends in one
    weight_bits, activation_bits : int, default=8
        2 to 8.

    Attributes
    ----------
    estimator_ : estimator
        The fitted float model.
    program_ : effml.program.Program
        The integer model; `predict` runs it. Its last step, from the integer sum to the value, is float32.
    n_outputs_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Present when fitted on a DataFrame with string column names.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.neural_network import MLPRegressor
    >>> from effml.adapters.quantized import QuantizedNetworkRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> net = MLPRegressor(hidden_layer_sizes=(8,), solver="lbfgs", alpha=0.1, max_iter=300, random_state=0)
    >>> model = QuantizedNetworkRegressor(net).fit(X, y)
    >>> bool(abs(model.score(X, y) - model.estimator_.score(X, y)) < 0.02)
    True
    """


def _class_for(final):
    """Return the class that quantises a fitted final estimator."""
    if not is_layered(final):
        raise LoweringError(f"quantize supports linear models and networks, got {type(final).__name__}")
    is_classifier, is_network = hasattr(final, "classes_"), hasattr(final, "coefs_")
    if is_classifier:
        return QuantizedNetworkClassifier if is_network else QuantizedLinearClassifier
    return QuantizedNetworkRegressor if is_network else QuantizedLinearRegressor


def quantize_layers(est, X_calib, *, weight_bits=8, activation_bits=8):
    """Return the quantised form of a fitted linear model or network; see :func:`effml.quantize`."""
    from effml.export import final_of

    check_is_fitted(est)
    model = _class_for(final_of(est))(est, weight_bits=weight_bits, activation_bits=activation_bits)
    model._validate_params()
    return model._quantize(est, X_calib)


def lower_quantized(est, frame) -> None:
    """Hand out the Program that the estimator itself runs."""
    if any(column.links or column.is_discrete or column.source != k for k, column in enumerate(frame.columns)):
        raise LoweringError(f"{type(est).__name__} holds its preprocessing inside; put no transformer before it")
    program, builder = est.program_, frame.builder
    builder.inputs[:] = program.inputs
    builder.steps[:] = program.steps
    builder.outputs = dict(program.outputs)
    builder.classes = program.classes
