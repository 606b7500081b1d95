"""Localized multiple kernel learning: which kernel counts how much depends on where the row lies.

    f(x) = network( sum_m eta_m(x) k_m(x, landmarks) ),    eta(x) the gate

Time and memory of fitting are linear in the rows, since kernels compare to a fixed number of landmarks.

Sources: M. Goenen, E. Alpaydin, "Localized multiple kernel learning", ICML 2008; Z. Zhang, "LMKL-Net: A Fast Localized
Multiple Kernel Learning Solver via Deep Neural Networks", arXiv 1805.08656, ICPR 2020.
"""

from typing import ClassVar

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.utils import check_array, column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from effml._validation import check_weights, class_factors, drop_weightless, encode_labels
from effml.kernels.localized import FLOATS, LocalizedMKL

__all__ = ["LocalizedMKLClassifier", "LocalizedMKLRegressor"]


class LocalizedMKLClassifier(ClassifierMixin, LocalizedMKL):
    """Localized multiple kernel classifier, trained by gradient in time linear in the rows.

    At the start the gate is uniform and the features are the Nystroem map of the average kernel, so a linear model on
    them is a kernel machine of the average kernel; training moves gate and, with rows enough, landmarks. Predictions
    are computed in float32, by the steps that the exported C runs.

    Parameters
    ----------
    kernels : "default", kernel or list of kernels, default="default"
        Names ("rbf", "linear", "polynomial", "cosine"), :class:`RBF` and :class:`Polynomial`, or callables
        ``(X, A) -> array (len(X), len(A))`` on standardised features (Python only: they have no C). "default" is five
        RBF widths, polynomials of degree 2 and 3, and the cosine; with `groups` one RBF a group.
    groups : list or dict of columns, default=None
        Feature groups ("views"): lists of column names or indices, slices or masks. Every kernel is made once a group.
    n_landmarks : int or None, default=256
        Rows that kernels compare to; None takes every training row, and fitting is then no longer linear in them.
    landmarks : {"stratified", "random", "kmeans"} or array-like (n_landmarks, n_features), default="stratified"
        How they are chosen, or the landmarks themselves, in the units of X.
    learn_landmarks : bool or "auto", default="auto"
        Whether training moves the landmarks; "auto": where there are 8 rows a landmark or more.
    learn_bandwidths : bool, default=False
        Whether training changes the widths of the RBF kernels.
    gate : {"softmax", "sigmoid", "rbf", "constant", "uniform"}, default="softmax"
        How kernels are weighted: by a network of the row ("softmax": weights sum to 1; "sigmoid": each for itself), by
        distances to learned centres, by one learned weighting, or all alike (the average kernel).
    gate_hidden_size : int, default=32
        Hidden units of the softmax and sigmoid gates; 0 is a linear gate.
    combine : {"sum", "concat"}, default="sum"
        Add the weighted kernels, or keep them side by side: every kernel has coefficients of its own, M times as many.
    hidden_layer_sizes : tuple of int, default=(64,)
        Hidden layers behind the kernels; () is a linear model of them, a support vector machine's decision function.
    whiten : bool, default=True
        Map kernel values by the inverse root of the landmarks' kernel (Nystroem); free in the shipped model.
    standardize : bool, default=True
        Centre and scale the features first.
    alpha : float, default=0.1
        L2 penalty on the weights of the layers, divided by the number of rows as in scikit-learn's MLPClassifier: 1 / C
        of a support vector machine when there is no hidden layer.
    gate_alpha : float, default=10.0
        The same for the gate: pulls it towards the average kernel.
    dropout : float in [0, 1), default=0.0
        Share of hidden units left out in a training step.
    max_iter : int, default=100
        Epochs.
    batch_size : int or "auto", default="auto"
        "auto" is a twentieth of the rows, but 16 at least and 128 at most.
    learning_rate_init : float, default=0.01
        Learning rate of Adam at the start; it falls to 0 along half a cosine.
    early_stopping : bool, default=False
        Hold out `validation_fraction` of the rows, stop after `n_iter_no_change` epochs in which their score has not
        improved by `tol`, and keep the parameters of the best epoch.
    validation_fraction : float, default=0.1
    n_iter_no_change : int, default=10
    tol : float, default=1e-4
    class_weight : dict or "balanced", default=None
        Factors on the weights of the rows by class.
    warm_start : bool, default=False
        Go on from the previous `fit`: same landmarks, scales and widths.
    n_jobs : int, default=None
        Threads for kernel rows in training and for parts of the rows in prediction; results do not depend on it.
    random_state : int, RandomState instance or None, default=None
    verbose : bool, default=False
        Print the loss of each epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if X has string column names.
    kernel_names_ : list of str, length n_kernels
    kernel_weights_ : ndarray of shape (n_kernels,)
        Mean weight of each kernel over (at most 10,000) training rows.
    landmarks_ : ndarray of shape (n_landmarks, n_features_in_)
        In the units of X.
    learns_landmarks_ : bool
    mean_, scale_ : ndarrays of shape (n_features_in_,)
        Of the standardised features.
    parameters_ : dict of str to float32 ndarray
        Gate, landmarks, layers.
    network_ : Network
        How they are put together.
    program_ : Program or None
        The steps that `predict` runs and that are exported; None with callable kernels.
    loss_curve_ : list of float, one an epoch
    validation_scores_ : list of float
        With early stopping: accuracy on the held-out rows.
    n_iter_ : int

    See Also
    --------
    effml.kernels.plot_gate : How the weights change over two features.

    Examples
    --------
    >>> from effml.kernels import LocalizedMKLClassifier
    >>> from sklearn.datasets import load_breast_cancer
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = LocalizedMKLClassifier(n_landmarks=64, max_iter=20, random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.97)
    True
    >>> model.kernel_weights(X[:2]).shape
    (2, 8)
    """

    _parameter_constraints: ClassVar[dict] = LocalizedMKL._parameter_constraints | {
        "class_weight": [dict, StrOptions({"balanced"}), None]
    }

    def __init__(
        self,
        *,
        kernels="default",
        groups=None,
        n_landmarks=256,
        landmarks="stratified",
        learn_landmarks="auto",
        learn_bandwidths=False,
        gate="softmax",
        gate_hidden_size=32,
        combine="sum",
        hidden_layer_sizes=(64,),
        whiten=True,
        standardize=True,
        alpha=0.1,
        gate_alpha=10.0,
        dropout=0.0,
        max_iter=100,
        batch_size="auto",
        learning_rate_init=0.01,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        class_weight=None,
        warm_start=False,
        n_jobs=None,
        random_state=None,
        verbose=False,
    ):
        self.kernels = kernels
        self.groups = groups
        self.n_landmarks = n_landmarks
        self.landmarks = landmarks
        self.learn_landmarks = learn_landmarks
        self.learn_bandwidths = learn_bandwidths
        self.gate = gate
        self.gate_hidden_size = gate_hidden_size
        self.combine = combine
        self.hidden_layer_sizes = hidden_layer_sizes
        self.whiten = whiten
        self.standardize = standardize
        self.alpha = alpha
        self.gate_alpha = gate_alpha
        self.dropout = dropout
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit to rows and labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite numbers.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self
        """
        go_on = self.warm_start and hasattr(self, "program_")
        X, y = validate_data(self, X, y, dtype=FLOATS, reset=not go_on)
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

        Landmarks, scales and widths come from the rows of the first call, which should therefore be a fair sample.

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
        X, y = validate_data(self, X, y, dtype=FLOATS, reset=first)
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
        loss = "logistic" if len(self.classes_) == 2 else "cross_entropy"
        self._fit_network(X, target, weights, loss, target, n_outputs=_n_outputs(self.classes_), **how)
        return self

    def _score_rows(self, X, target, weights):
        scores = self._network_scores(X)
        return float(np.average(_best(scores) == target, weights=weights))

    def decision_function(self, X):
        """Return the scores: float32 (n_samples,) of the second of two classes, else (n_samples, n_classes)."""
        scores = self._scores(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X):
        """Return the class of each row, ndarray (n_samples,); of equal scores the first class."""
        scores = self._scores(X)
        return self.classes_[_best(scores)]

    def predict_proba(self, X):
        """Return class probabilities, float64 (n_samples, n_classes)."""
        scores = self._scores(X).astype(np.float64)
        if scores.shape[1] == 1:
            positive = expit(scores[:, 0])
            return np.stack([1 - positive, positive], axis=1)
        return softmax(scores, axis=1)


class LocalizedMKLRegressor(RegressorMixin, LocalizedMKL):
    """Localized multiple kernel regressor: squared error on the standardised target, one or more outputs.

    See :class:`LocalizedMKLClassifier` for the model.

    Parameters
    ----------
    kernels, groups, n_landmarks, landmarks, learn_landmarks, learn_bandwidths, gate, gate_hidden_size, combine
        As in `LocalizedMKLClassifier`; "stratified" landmarks are drawn from all rows alike.
    hidden_layer_sizes, whiten, standardize, alpha, gate_alpha, dropout, max_iter, batch_size, learning_rate_init
        As in `LocalizedMKLClassifier`.
    early_stopping, validation_fraction, n_iter_no_change, tol, warm_start, n_jobs, random_state, verbose
        As in `LocalizedMKLClassifier`.

    Attributes
    ----------
    target_mean_, target_scale_ : ndarrays of shape (n_outputs,)
        Predictions are ``target_mean_ + target_scale_ * network``.
    kernel_names_, kernel_weights_, landmarks_, learns_landmarks_, mean_, scale_, parameters_, network_, program_
        As in `LocalizedMKLClassifier`.
    loss_curve_, validation_scores_, n_iter_, n_features_in_, feature_names_in_
        As in `LocalizedMKLClassifier`; validation scores are coefficients of determination.

    Examples
    --------
    >>> from effml.kernels import LocalizedMKLRegressor
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = LocalizedMKLRegressor(n_landmarks=64, max_iter=20, random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.5)
    True
    """

    def __init__(
        self,
        *,
        kernels="default",
        groups=None,
        n_landmarks=256,
        landmarks="stratified",
        learn_landmarks="auto",
        learn_bandwidths=False,
        gate="softmax",
        gate_hidden_size=32,
        combine="sum",
        hidden_layer_sizes=(64,),
        whiten=True,
        standardize=True,
        alpha=0.1,
        gate_alpha=10.0,
        dropout=0.0,
        max_iter=100,
        batch_size="auto",
        learning_rate_init=0.01,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        warm_start=False,
        n_jobs=None,
        random_state=None,
        verbose=False,
    ):
        self.kernels = kernels
        self.groups = groups
        self.n_landmarks = n_landmarks
        self.landmarks = landmarks
        self.learn_landmarks = learn_landmarks
        self.learn_bandwidths = learn_bandwidths
        self.gate = gate
        self.gate_hidden_size = gate_hidden_size
        self.combine = combine
        self.hidden_layer_sizes = hidden_layer_sizes
        self.whiten = whiten
        self.standardize = standardize
        self.alpha = alpha
        self.gate_alpha = gate_alpha
        self.dropout = dropout
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit to rows and targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite numbers.
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

        Landmarks, widths and all scales, the target's too, come from the rows of the first call.

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
        X, y = validate_data(self, X, y, dtype=FLOATS, multi_output=True, y_numeric=True, reset=not go_on)
        y = check_array(y, dtype=np.float64, ensure_2d=False, input_name="y")
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        weights = check_weights(sample_weight, X)
        X, y, weights = drop_weightless(X, y, weights)
        self._flat = y.ndim == 1
        y = y.reshape(len(y), -1)
        if not go_on:
            self.target_mean_ = np.average(y, axis=0, weights=weights)
            deviation = np.sqrt(np.average((y - self.target_mean_) ** 2, axis=0, weights=weights))
            self.target_scale_ = np.where(deviation > 0, deviation, 1.0)
        elif y.shape[1] != len(self.target_mean_):
            raise ValueError(f"y has {y.shape[1]} outputs; the fit that goes on had {len(self.target_mean_)}")
        target = ((y - self.target_mean_) / self.target_scale_).astype(np.float32)
        how = {"go_on": go_on, "one_epoch": one_epoch, "n_outputs": y.shape[1]}
        self._fit_network(X, target, weights, "squared", None, **how)
        return self

    def _score_rows(self, X, target, weights):
        error = (self._network_scores(X) - target) ** 2
        spread = (target - np.average(target, axis=0, weights=weights)) ** 2
        total = float(np.average(spread.sum(axis=1), weights=weights))
        return 1 - float(np.average(error.sum(axis=1), weights=weights)) / max(total, 1e-12)

    def predict(self, X):
        """Return the predicted values, float64 (n_samples,) or (n_samples, n_outputs), of float32 precision."""
        scores = self._scores(X)
        values = scores * self.target_scale_.astype(np.float32) + self.target_mean_.astype(np.float32)
        return values[:, 0].astype(np.float64) if self._flat else values.astype(np.float64)


def _n_outputs(classes):
    return 1 if len(classes) == 2 else len(classes)


def _best(scores):
    """Return the position of the winning class of each row."""
    return (scores[:, 0] > 0).astype(np.intp) if scores.shape[1] == 1 else scores.argmax(axis=1)
