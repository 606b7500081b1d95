"""What classifier and regressor share: parameters of parts, the training by skorch, the module that ships."""

import inspect
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from effml.deep.recipe import Recipe
from effml.deep.training import seeded

__all__ = ["TorchEstimator", "run_module"]

_PREFIXES = ("module__", "optimizer__", "iterator_train__", "criterion__")


class TorchEstimator(BaseEstimator):
    """Parameters as in `TorchClassifier`; subclasses bring `fit`, `predict`, a criterion and a score."""

    _parameter_constraints: ClassVar[dict] = {
        "module": [callable, nn.Module],
        "recipe": [Recipe, None],
        "criterion": [callable, None],
        "optimizer": [callable],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "callbacks": [list, tuple, None],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
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
        device="cpu",
        random_state=None,
        verbose=False,
        **parts,
    ):
        self.module = module
        self.recipe = recipe
        self.criterion = criterion
        self.optimizer = optimizer
        self.learning_rate_init = learning_rate_init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.callbacks = callbacks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self._set_parts(parts)

    # -- parameters of the parts --------------------------------------------------------------------------------------

    def _set_parts(self, parts):
        for key, value in parts.items():
            if not key.startswith(_PREFIXES):
                raise TypeError(f"unknown parameter {key!r}; parameters of parts start with {', '.join(_PREFIXES)}")
            setattr(self, key, value)

    def _part(self, prefix):
        return {key[len(prefix) :]: value for key, value in vars(self).items() if key.startswith(prefix)}

    def get_params(self, deep=True):
        """Parameters by name, those of the parts (``module__...``) included."""
        parts = {key: value for key, value in vars(self).items() if key.startswith(_PREFIXES)}
        return super().get_params(deep) | parts

    def set_params(self, **params):
        """Set parameters: own ones, ``module__...``, ``optimizer__...`` and ``recipe__technique__...``."""
        self._set_parts({key: value for key, value in params.items() if key.startswith(_PREFIXES)})
        super().set_params(**{key: value for key, value in params.items() if not key.startswith(_PREFIXES)})
        return self

    # -- fitting ------------------------------------------------------------------------------------------------------

    def _fit(self, X, y, weights, n_outputs):
        """Train on float32 `X`, targets as the loss takes them, weights or None."""
        seed = None if self.random_state is None else int(check_random_state(self.random_state).randint(2**31 - 1))
        parts = [X, y] if weights is None else [X, y, weights.astype(np.float32)]
        held_out = None
        if self.early_stopping:
            stratify = y if isinstance(self, ClassifierMixin) else None
            split = train_test_split(*parts, test_size=self.validation_fraction, random_state=seed, stratify=stratify)
            parts, held_out = split[::2], split[1::2]
        parts = [np.require(part, requirements="W") for part in parts]  # torch warns of read-only memory
        with seeded(seed):
            self.recipe_ = Recipe() if self.recipe is None else clone(self.recipe)
            module = self._build(X.shape[1:], n_outputs)
            example = torch.as_tensor(parts[0][:2])
            self.module_ = self.recipe_.apply(module, example_inputs=example)
            self._check_outputs(example, n_outputs)
            self._train(parts, held_out, reduction="mean" if weights is None else "none")
        return self

    def _build(self, shape, n_outputs):
        given = self._part("module__")
        if isinstance(self.module, nn.Module):
            if given:
                raise ValueError(f"module is an object already, so it takes no parameters; got {sorted(given)}")
            return self.module
        known = inspect.signature(self.module).parameters
        offered = {"n_features": shape[0] if len(shape) == 1 else shape, "n_outputs": n_outputs}
        module = self.module(**{key: value for key, value in offered.items() if key in known} | given)
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be or make a torch.nn.Module, but it made {type(module).__name__}")
        return module

    def _train(self, parts, held_out, reduction):
        from effml.deep.skorch_net import RecipeNet, Rows

        criterion = self._default_criterion if self.criterion is None else self.criterion
        loss = criterion
        if inspect.isclass(criterion):
            loss = criterion(**({"reduction": reduction} | self._part("criterion__")))
        n_rows = len(parts[0])
        alone = n_rows > self.batch_size and n_rows % self.batch_size == 1  # batch norm cannot take one row
        loader = {"shuffle": True, "drop_last": alone} | self._part("iterator_train__")
        self.net_ = RecipeNet(
            self.module_,
            recipe=self.recipe_,
            loss=lambda outputs, targets: loss(self._as_targets(outputs, targets), targets),
            make_optimizer=lambda p: self.optimizer(p, **({"lr": self.learning_rate_init} | self._part("optimizer__"))),
            steps_per_epoch=n_rows // self.batch_size if loader["drop_last"] else -(-n_rows // self.batch_size),
            score=None if held_out is None else lambda model: self._score_of(model, *held_out),
            patience=self.n_iter_no_change,
            tol=self.tol,
            max_epochs=self.max_iter,
            batch_size=self.batch_size,
            callbacks=list(self.callbacks or ()),
            device=self.device,
            verbose=int(self.verbose),
            **{f"iterator_train__{key}": value for key, value in loader.items()},
        )
        self.net_.fit(Rows(*parts), None)
        self.module_ = self.net_.module_
        best = self.net_.driver_.best_model
        self.export_module_ = self.recipe_.finalize(self.module_) if best is None else best
        self.loss_curve_ = [epoch["train_loss"] for epoch in self.net_.history]
        self.n_iter_ = len(self.loss_curve_)
        if held_out is not None:
            self.validation_scores_ = list(self.net_.driver_.scores)

    def _as_targets(self, outputs, targets):
        """Outputs in the shape of the targets."""
        return outputs

    def _check_outputs(self, example, n_outputs):
        """Raise where the module cannot be one for so many outputs."""

    def _outputs(self, X):
        """What the exported module returns for every row, float64 (n_samples, n_outputs)."""
        check_is_fitted(self, "export_module_")
        X = validate_data(self, X, reset=False, dtype=np.float32, allow_nd=True)
        return run_module(self.export_module_, X).astype(np.float64)

    def __getstate__(self):
        """Without the training's machinery: parametrized modules cannot be pickled, the exported one can."""
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key not in ("net_", "module_", "recipe_")}

    # -- what it costs, for searches ----------------------------------------------------------------------------------


@torch.no_grad()
def run_module(model, X, batch_size=1024):
    """Outputs of a model for a float32 array, as an array."""
    parameter = next(model.parameters(), torch.empty(0))
    rows = torch.as_tensor(np.require(X, requirements="W")).split(batch_size)  # torch warns of read-only memory
    return np.concatenate([model(part.to(parameter.device)).cpu().numpy() for part in rows])
