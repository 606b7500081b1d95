"""What scikit-learn's linear models and networks have in common: layers of sums, an activation between, then a link.

A linear model is one layer. `predict` of a classifier is the largest sum (or the sign of a lone one), of a regressor
the link of the sums; float lowering and quantisation both start from here.
"""

from dataclasses import dataclass, replace

import numpy as np

from effml.program.frame import LoweringError

__all__ = ["LAYERED", "Layers", "is_layered", "read_layers"]

_LINEAR = "sklearn.linear_model"
_CLASSIFIERS = (
    f"{_LINEAR}._logistic.LogisticRegression",
    f"{_LINEAR}._logistic.LogisticRegressionCV",
    f"{_LINEAR}._passive_aggressive.PassiveAggressiveClassifier",
    f"{_LINEAR}._perceptron.Perceptron",
    f"{_LINEAR}._ridge.RidgeClassifier",
    f"{_LINEAR}._ridge.RidgeClassifierCV",
    f"{_LINEAR}._stochastic_gradient.SGDClassifier",
    "sklearn.neural_network._multilayer_perceptron.MLPClassifier",
    "sklearn.svm._classes.LinearSVC",
)
_REGRESSORS = (
    "effml.itemsets.sparse_bayes.SparseBayesRegressor",
    f"{_LINEAR}._base.LinearRegression",
    f"{_LINEAR}._bayes.ARDRegression",
    f"{_LINEAR}._bayes.BayesianRidge",
    f"{_LINEAR}._coordinate_descent.ElasticNet",
    f"{_LINEAR}._coordinate_descent.ElasticNetCV",
    f"{_LINEAR}._coordinate_descent.Lasso",
    f"{_LINEAR}._coordinate_descent.LassoCV",
    f"{_LINEAR}._coordinate_descent.MultiTaskElasticNet",
    f"{_LINEAR}._coordinate_descent.MultiTaskElasticNetCV",
    f"{_LINEAR}._coordinate_descent.MultiTaskLasso",
    f"{_LINEAR}._coordinate_descent.MultiTaskLassoCV",
    f"{_LINEAR}._glm.glm.GammaRegressor",
    f"{_LINEAR}._glm.glm.PoissonRegressor",
    f"{_LINEAR}._glm.glm.TweedieRegressor",
    f"{_LINEAR}._huber.HuberRegressor",
    f"{_LINEAR}._least_angle.Lars",
    f"{_LINEAR}._least_angle.LarsCV",
    f"{_LINEAR}._least_angle.LassoLars",
    f"{_LINEAR}._least_angle.LassoLarsCV",
    f"{_LINEAR}._least_angle.LassoLarsIC",
    f"{_LINEAR}._omp.OrthogonalMatchingPursuit",
    f"{_LINEAR}._omp.OrthogonalMatchingPursuitCV",
    f"{_LINEAR}._passive_aggressive.PassiveAggressiveRegressor",
    f"{_LINEAR}._quantile.QuantileRegressor",
    f"{_LINEAR}._ridge.Ridge",
    f"{_LINEAR}._ridge.RidgeCV",
    f"{_LINEAR}._stochastic_gradient.SGDRegressor",
    f"{_LINEAR}._theil_sen.TheilSenRegressor",
    "sklearn.neural_network._multilayer_perceptron.MLPRegressor",
    "sklearn.svm._classes.LinearSVR",
)
LAYERED = {
    **dict.fromkeys(_CLASSIFIERS, "effml.adapters.linear:lower_classifier"),
    **dict.fromkeys(_REGRESSORS, "effml.adapters.linear:lower_regressor"),
}
"""Dotted class name -> what lowers it; the registry of effml.export takes these in."""

_LARGEST = float(np.finfo(np.float32).max) / 4  # of a weight: twice it, as tanh needs, is finite in float32


@dataclass(frozen=True, eq=False)
class Layers:
    """``f(... act(X W1 + b1) W2 + b2 ...)`` with the numbers of a fitted estimator, float64.

    Attributes
    ----------
    weights : tuple of arrays (n_in, n_out)
    biases : tuple of arrays (n_out,)
    activation : {"identity", "relu", "logistic", "tanh"}
        Between the layers.
    link : {"softmax", "sigmoids", "none", "identity", "exp"}
        Of classifiers, how sums become probabilities: "sigmoids" are scaled to sum to 1, "none" gives none. Two classes
        have one sum, of the second. Of regressors, how sums become values.
    classes : ndarray or None
    is_flat : bool
        Whether `predict` gives one number a row, not a row of numbers.
    """

    weights: tuple
    biases: tuple
    activation: str
    link: str
    classes: np.ndarray | None
    is_flat: bool

    @property
    def n_layers(self) -> int:
        return len(self.weights)

    def collapsed(self) -> "Layers":
        """Return layers with nothing between them as one product, where that holds fewer numbers.

        Examples
        --------
        >>> import numpy as np
        >>> from effml.adapters.layers import Layers
        >>> two = (np.ones((3, 9)), np.ones((9, 2))), (np.ones(9), np.ones(2))
        >>> Layers(*two, "identity", "identity", None, False).collapsed().weights[0].shape
        (3, 2)
        """
        if self.activation != "identity" or self.n_layers == 1:
            return self
        weight, bias = self.weights[0], self.biases[0]
        for next_weight, next_bias in zip(self.weights[1:], self.biases[1:], strict=True):
            weight, bias = weight @ next_weight, bias @ next_weight + next_bias
        if weight.size > sum(part.size for part in self.weights):
            return self
        return replace(self, weights=(weight,), biases=(bias,))


def is_layered(est) -> bool:
    """Return whether an estimator's class, or one it comes from, is in the table of this module."""
    return any(f"{base.__module__}.{base.__qualname__}" in LAYERED for base in type(est).__mro__)


def read_layers(est) -> Layers:
    """Return the layers of a fitted linear model or network.

    Parameters
    ----------
    est : estimator
        Of a class in `LAYERED`, or with `coef_` and `intercept_` that mean the same.

    Raises
    ------
    LoweringError
        For several labels a row, a single class, another link than identity or logarithm, and weights that are not
        finite in float32.
    """
    if hasattr(est, "coefs_"):
        weights, biases, activation = est.coefs_, est.intercepts_, est.activation
        is_flat = weights[-1].shape[1] == 1
    else:
        coef = est.coef_.toarray() if hasattr(est.coef_, "toarray") else np.asarray(est.coef_)
        is_flat, activation = coef.ndim == 1, "identity"
        weights = [np.atleast_2d(coef).T]
        biases = [np.broadcast_to(est.intercept_, weights[0].shape[1])]
    weights = tuple(np.asarray(weight, dtype=np.float64) for weight in weights)
    biases = tuple(np.array(bias, dtype=np.float64) for bias in biases)
    if not all((np.abs(part) <= _LARGEST).all() for part in weights + biases):
        raise LoweringError("the weights are not finite in float32")
    classes = getattr(est, "classes_", None)
    link = _value_link(est) if classes is None else _class_link(est, weights[-1].shape[1])
    return Layers(weights, biases, activation, link, classes, is_flat)


def _class_link(est, n_out):
    name = type(est).__name__
    binarizer = getattr(est, "_label_binarizer", None)
    if binarizer is not None and binarizer.y_type_.startswith("multilabel"):
        raise LoweringError(f"{name} was fitted on several labels a row; a Program gives one class. Fit one a label")
    n_classes = len(est.classes_)
    if n_classes < 2 or n_out != (1 if n_classes == 2 else n_classes):
        raise LoweringError(f"{name} has {n_classes} classes and {n_out} scores; two or more classes can be lowered")
    loss = getattr(est, "loss", None)
    if not hasattr(est, "predict_proba") or loss == "modified_huber":
        return "none"
    if hasattr(est, "coefs_"):
        return "softmax"
    solver = getattr(est, "solver", "") if n_classes > 2 else ""
    one_by_one = loss == "log_loss" or getattr(est, "multi_class", "") == "ovr" or solver == "liblinear"
    return "sigmoids" if one_by_one else "softmax"


def _value_link(est):
    if hasattr(est, "out_activation_"):
        link = est.out_activation_
    elif hasattr(est, "_base_loss"):  # generalised linear models
        link = {"IdentityLink": "identity", "LogLink": "exp"}.get(type(est._base_loss.link).__name__, "another")
    else:
        link = "identity"
    if link not in ("identity", "exp"):
        raise LoweringError(f"{type(est).__name__} has {link} link; identity and logarithm can be lowered")
    return link
