"""scikit-learn's face of torch modules: fit, predict, pipelines, grids over recipe and module parameters.

Training is skorch's; what predicts is the module that ships, the recipe finalized.
"""

from typing import ClassVar

import numpy as np
import torch
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import nn

from effml._validation import check_weights, class_factors, drop_weightless, encode_labels
from effml.deep.torch_estimator import TorchEstimator, run_module
from effml.deep.training import evaluating

__all__ = ["TorchClassifier", "TorchRegressor"]

_SHARED_PARAMETERS = """module : nn.Module class, callable that makes one, or nn.Module
        Called with the ``module__...`` parameters; if it takes `n_features` or `n_outputs`, with the number of features
        (the shape of a row, where rows are not flat) and of outputs. A module object is copied.
    recipe : Recipe or None, default=None
        Techniques; their parameters are ``recipe__technique__parameter``.
    criterion : callable or class, default=None
        ``criterion(outputs, targets)``, or a class of such; None is {criterion}. With weights it must return one value
        a row; classes are made with ``reduction="none"``.
    optimizer : callable, default=torch.optim.Adam
        ``optimizer(parameters, lr=learning_rate_init, **optimizer__...)``.
    learning_rate_init : float, default=1e-3
    batch_size : int, default=64
    max_iter : int, default=20
        Epochs.
    early_stopping : bool, default=False
        Hold out `validation_fraction` of the rows and score on them, after each epoch, what would ship; stop after
        `n_iter_no_change` epochs without a gain of `tol` and keep the best.
    validation_fraction : float, default=0.1
    n_iter_no_change : int, default=10
    tol : float, default=1e-4
    callbacks : list of skorch callbacks, default=None
    device : str, default="cpu"
    random_state : int, RandomState instance or None, default=None
        Seeds module, batches and dropout; torch's global random state stays as it is. None uses that state.
    verbose : bool, default=False
        Print skorch's log of each epoch.
    **parts
        ``module__...``, ``optimizer__...``, ``iterator_train__...``, ``criterion__...``."""

_SHARED_ATTRIBUTES = """export_module_ : nn.Module
        What ships and what predicts: the recipe finalized, in eval mode.
    module_ : nn.Module
        The module as trained, parametrizations included. Not in pickles.
    recipe_ : Recipe
        Fitted clone. Not in pickles.
    net_ : skorch net
        With `history`. Not in pickles.
    n_features_in_ : int
    input_shape_ : tuple
        Shape of a row.
    loss_curve_ : list of float
    n_iter_ : int
    validation_scores_ : list of float
        With early stopping."""


def _documented(cls):
    cls.__doc__ = cls.__doc__.replace("{parameters}", _SHARED_PARAMETERS).replace("{attributes}", _SHARED_ATTRIBUTES)
    cls.__doc__ = cls.__doc__.replace("{criterion}", cls._default_criterion.__name__)
    return cls


@_documented
class TorchClassifier(ClassifierMixin, TorchEstimator):
    """A torch module as a classifier.

    Parameters
    ----------
    {parameters}
    class_weight : dict, "balanced" or None, default=None
        Factors on the weights of the rows by class.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
        Labels in the order of the module's outputs.
    {attributes}

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from effml.deep import ProxConnect, Recipe, TorchClassifier
    >>> def mlp(n_features, n_outputs, hidden=32):
    ...     return torch.nn.Sequential(
    ...         torch.nn.Linear(n_features, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, n_outputs)
    ...     )
    >>> X, y = load_digits(return_X_y=True)
    >>> model = TorchClassifier(mlp, recipe=Recipe([ProxConnect(bits=2)]), module__hidden=64, random_state=0)
    >>> bool(model.fit(X / 16, y).score(X / 16, y) > 0.9)
    True
    >>> len(model.export_module_[0].weight[0].unique()) <= 4
    True
    """

    _default_criterion = nn.CrossEntropyLoss

    _parameter_constraints: ClassVar[dict] = TorchEstimator._parameter_constraints | {
        "class_weight": [dict, StrOptions({"balanced"}), None]
    }

    def __init__(
        self,
        module,
        *,
        recipe=None,
        criterion=None,
        optimizer=torch.optim.Adam,
        learning_rate_init=1e-3,
        batch_size=64,
        max_iter=20,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        callbacks=None,
        class_weight=None,
        device="cpu",
        random_state=None,
        verbose=False,
        **parts,
    ):
        super().__init__(
            module,
            recipe=recipe,
            criterion=criterion,
            optimizer=optimizer,
            learning_rate_init=learning_rate_init,
            batch_size=batch_size,
            max_iter=max_iter,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            callbacks=callbacks,
            device=device,
            random_state=random_state,
            verbose=verbose,
            **parts,
        )
        self.class_weight = class_weight

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Train on rows and labels.

        Parameters
        ----------
        X : array-like (n_samples, ...)
            Cast to float32.
        y : array-like (n_samples,)
            Labels of any type.
        sample_weight : array-like (n_samples,), default=None

        Returns
        -------
        self
        """
        X, y = validate_data(self, X, y, dtype=np.float32, allow_nd=True)
        check_classification_targets(y)
        X, y, weights = drop_weightless(X, y, check_weights(sample_weight, X))
        self.input_shape_ = X.shape[1:]
        self.classes_, index = encode_labels(y)
        if self.class_weight is not None:
            factors = class_factors(self.class_weight, self.classes_, index, weights)[index]
            weights = factors if weights is None else factors * weights
        return self._fit(X, index.astype(np.int64), weights, len(self.classes_))

    def _check_outputs(self, example, n_outputs):
        with evaluating(self.module_):
            shape = tuple(self.module_(example).shape)
        if shape[1:] != (n_outputs,):
            raise ValueError(f"the module returns shape {shape} for {len(example)} rows; y has {n_outputs} classes")

    def _score_of(self, model, X, y, weights=None):
        return accuracy_score(y, run_module(model, X).argmax(1), sample_weight=weights)

    def predict_proba(self, X):
        """Softmax of the exported module's outputs, float64 (n_samples, n_classes)."""
        logits = self._outputs(X)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def predict(self, X):
        """Labels (n_samples,): the largest output of the exported module."""
        best = self._outputs(X).argmax(axis=1)
        return self.classes_[best]


@_documented
class TorchRegressor(RegressorMixin, TorchEstimator):
    """A torch module as a regressor.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from effml.deep import TorchRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> linear = TorchRegressor(torch.nn.Linear(10, 1), learning_rate_init=1.0, max_iter=60, random_state=0)
    >>> bool(make_pipeline(StandardScaler(), linear).fit(X, y).score(X, y) > 0.4)
    True
    """

    _default_criterion = nn.MSELoss

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Train on rows and values.

        Parameters
        ----------
        X : array-like (n_samples, ...)
            Cast to float32.
        y : array-like (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like (n_samples,), default=None

        Returns
        -------
        self
        """
        X, y = validate_data(self, X, y, dtype=np.float32, allow_nd=True, multi_output=True, y_numeric=True)
        X, y, weights = drop_weightless(X, y, check_weights(sample_weight, X))
        self.input_shape_ = X.shape[1:]
        self._flat = y.ndim == 1
        return self._fit(X, y.astype(np.float32), weights, 1 if self._flat else y.shape[1])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _as_targets(self, outputs, targets):
        if outputs.shape != targets.shape and outputs.numel() == targets.numel():
            return outputs.reshape(targets.shape)
        if outputs.shape != targets.shape:
            raise ValueError(f"the module returns {tuple(outputs.shape)} for targets of shape {tuple(targets.shape)}")
        return outputs

    def _score_of(self, model, X, y, weights=None):
        return r2_score(y, run_module(model, X).reshape(y.shape), sample_weight=weights)

    def predict(self, X):
        """Values (n_samples,) or (n_samples, n_outputs)."""
        values = self._outputs(X)
        return values.reshape(len(values)) if self._flat else values
