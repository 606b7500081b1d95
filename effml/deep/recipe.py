"""A recipe: an ordered list of techniques, applied to a model, trained with, and baked into what ships."""

import copy
import warnings
import weakref
from typing import ClassVar

import torch
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import _name_estimators
from torch import nn
from torch.nn.utils import parametrize

from effml.deep import plugs
from effml.deep.finishing import fold_batch_norm, plain
from effml.deep.hooks import remove_hooks
from effml.deep.state import Batch, TrainingState

__all__ = ["Recipe"]

_KINDS = (
    plugs.Parametrization,
    plugs.ModuleSwap,
    plugs.LossTerm,
    plugs.OptimizerWrapper,
    plugs.Callback,
    plugs.GraphSurgery,
    plugs.Analysis,
)


class Recipe(BaseEstimator):
    """Techniques that act on one model and its training, in order.

    Parameters
    ----------
    techniques : list of techniques or of (name, technique), default=()
        Without names they are called as in :func:`~sklearn.pipeline.make_pipeline`: lower-case class names. Their
        parameters are ``name__parameter`` in `get_params`, `set_params` and parameter grids.
    fold_batch_norm : bool, default=True
        Whether `finalize` folds batch norm into the layer before it.

    Attributes
    ----------
    techniques_ : dict of str to technique
        The clones at work since `apply`; the ones given stay as they are.

    Notes
    -----
    The order of calls in a training loop of one's own:
    `apply`; `begin` (wraps the optimizer); in each epoch `epoch_begin`, then per batch `loss`, ``backward``, ``step``,
    `step_end`; `epoch_end`; after all of them `end`. `finalize` makes the plain model, at any time, on a copy.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import Recipe, SmartTernary
    >>> recipe = Recipe([SmartTernary(exclude="2")])
    >>> model = recipe.apply(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)))
    >>> len(recipe.finalize(model)[0].weight.unique()) <= 3
    True
    >>> recipe.set_params(smartternary__binary_weight=0.01).techniques[0].binary_weight
    0.01
    """

    _parameter_constraints: ClassVar[dict] = {"techniques": [list, tuple], "fold_batch_norm": ["boolean"]}

    def __init__(self, techniques=(), *, fold_batch_norm=True):
        self.techniques = techniques
        self.fold_batch_norm = fold_batch_norm

    # -- the list and its parameters ----------------------------------------------------------------------------------

    def _named(self):
        """The techniques as given, as (name, technique)."""
        given = list(self.techniques)
        if all(isinstance(item, tuple) for item in given):
            return given
        return _name_estimators([item for item in given if not isinstance(item, tuple)])

    def get_params(self, deep=True):
        """Parameters by name; with `deep` those of the techniques as ``name__parameter``."""
        params = super().get_params(deep=False)
        if deep:
            for name, technique in self._named():
                params[name] = technique
                params |= {f"{name}__{key}": value for key, value in technique.get_params().items()}
        return params

    def set_params(self, **params):
        """Set parameters, of techniques too; a technique itself is replaced under its name."""
        own = {key: params.pop(key) for key in ("techniques", "fold_batch_norm") if key in params}
        super().set_params(**own)
        named = dict(self._named())
        for key, value in params.items():
            name, _, rest = key.partition("__")
            if name not in named:
                raise ValueError(f"Invalid parameter {key!r} for a recipe of {', '.join(named) or 'no techniques'}")
            if rest:
                named[name].set_params(**{rest: value})
            else:
                self._replace(name, value)
        return self

    def _replace(self, name, technique):
        position = [known for known, _ in self._named()].index(name)
        techniques = list(self.techniques)
        techniques[position] = (name, technique) if isinstance(techniques[position], tuple) else technique
        self.techniques = techniques

    def _check(self):
        self._validate_params()
        kinds = {isinstance(item, tuple) for item in self.techniques}
        if len(kinds) > 1:
            raise ValueError("techniques must be all techniques or all (name, technique) pairs, not a mixture")
        named = self._named()
        names = [name for name, _ in named]
        taken = self.get_params(deep=False)
        if len(set(names)) < len(names) or any("__" in name or name in taken for name in names):
            raise ValueError(f"names of techniques must differ, and have no double underscore; got {names}")
        for name, technique in named:
            if not isinstance(technique, _KINDS):
                raise TypeError(f"technique {name!r} is {technique!r}; it must inherit one of the kinds in effml.deep")
            technique.validate()

    def _of_kind(self, kind):
        return [technique for technique in self.techniques_.values() if isinstance(technique, kind)]

    # -- applying -----------------------------------------------------------------------------------------------------

    def apply(self, model, example_inputs=None, *, copy_model=True):
        """Return the model ready to train: modules swapped, weights parametrized, surgery "start" done.

        Parameters
        ----------
        model : nn.Module
        example_inputs : Tensor or tuple of Tensors, optional
            What the model takes; surgery needs it.
        copy_model : bool, default=True
            Work on a deep copy.

        Raises
        ------
        ValueError, TypeError
            For wrong parameters, a selection that chooses nothing, or surgery listed behind a parametrization.
        """
        self._check()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if model in getattr(self, "_applied", ()):
            raise ValueError("the recipe is applied to this model already; use a clone of the recipe for each model")
        self.techniques_ = {name: clone(technique) for name, technique in self._named()}
        self._example_inputs = example_inputs
        model = copy.deepcopy(model) if copy_model else model
        for name, technique in self.techniques_.items():
            model = self._install(name, technique, model)
        for name, technique in self.techniques_.items():
            if isinstance(technique, plugs.GraphSurgery) and technique.epochs():
                _refuse_parametrized(name, model)
        self._last = weakref.ref(model)
        self._applied = weakref.WeakSet([*getattr(self, "_applied", ()), model])
        return model

    def is_applied_to(self, model):
        """Whether `model` is what `apply` returned last."""
        return hasattr(self, "_last") and self._last() is model

    def __getstate__(self):
        """Without the weak references to models, which cannot be pickled."""
        return {key: value for key, value in super().__getstate__().items() if key not in ("_last", "_applied")}

    def _install(self, name, technique, model):
        if isinstance(technique, plugs.GraphSurgery) and technique.at == "start":
            _refuse_parametrized(name, model)
            model = technique.operate(model, self._example_inputs)
        if isinstance(technique, plugs.ModuleSwap):
            technique.swapped_ = _swap(model, technique.swap, technique)
        if isinstance(technique, plugs.Parametrization):
            technique.sites_ = list(_parametrize(model, technique))
        return model

    # -- training -----------------------------------------------------------------------------------------------------

    def wrap_optimizer(self, optimizer, model):
        """The optimizer to train with: `optimizer` in the wrappers of the techniques, the last one outermost."""
        self._ensure_techniques()
        self._wrapped = []
        for technique in self._of_kind(plugs.OptimizerWrapper):
            optimizer = technique.wrap(optimizer, model)
            self._wrapped.append((technique, optimizer))
        return optimizer

    def begin(self, model, optimizer, *, epochs, steps_per_epoch, data=None):
        """Start a training and return its state, with the wrapped optimizer.

        Parameters
        ----------
        model : nn.Module
            What `apply` returned.
        optimizer : torch.optim.Optimizer or callable
            Or ``make_optimizer(parameters) -> optimizer``, which surgery in the middle of training needs.
        epochs, steps_per_epoch : int
            What schedules count on.
        data : iterable of batches, optional

        Returns
        -------
        TrainingState
        """
        self._ensure_techniques()
        make = None if isinstance(optimizer, torch.optim.Optimizer) else optimizer
        if make is None and any(surgery.epochs() for surgery in self._of_kind(plugs.GraphSurgery)):
            raise ValueError("surgery during training needs optimizer as a callable: parameters -> optimizer")
        optimizer = optimizer if make is None else make(model.parameters())
        state = TrainingState(model, self.wrap_optimizer(optimizer, model), epochs, steps_per_epoch, data=data)
        state.make_optimizer = make
        self._watch(state)
        self._tell("train_begin", state)
        return state

    def _watch(self, state):
        names = {name for term in self._of_kind(plugs.LossTerm) for name in term.watch(state.model)}
        state.hooks.capture(state.model, sorted(names), state.features)

    def loss(self, criterion, state, inputs, targets, outputs, weights=None):
        """The scalar to call ``backward`` on: the task's loss and the techniques' terms.

        Parameters
        ----------
        criterion : callable
            ``criterion(outputs, targets)`` -> scalar or, as `weights` require, one value a row.
        state : TrainingState
        inputs, targets, outputs : Tensor or any structure
        weights : Tensor (n,), optional
        """
        state.batch = Batch(inputs, targets, outputs, state.progress, weights, dict(state.features))
        terms = self._of_kind(plugs.LossTerm)
        replacing = [term for term in terms if term.replaces_task]
        if len(replacing) > 1:
            raise ValueError(f"only one technique may replace the task's loss, got {replacing}")
        total = 0.0 if replacing else task_loss(criterion, state.batch)
        for term in terms:
            total = total + term.term(state.model, state.batch)
        state.loss = float(total.detach())
        return total

    def epoch_begin(self, state):
        """To be called before an epoch."""
        self._tell("epoch_begin", state)

    def step_end(self, state):
        """To be called after each optimizer step."""
        state.step += 1
        self._tell("step_end", state)

    def epoch_end(self, state):
        """To be called after an epoch, with what is known of it in ``state.metrics``."""
        state.epoch += 1
        state.history.append(dict(state.metrics))
        self._tell("epoch_end", state)
        for surgery in self._of_kind(plugs.GraphSurgery):
            if state.epoch in surgery.epochs():
                state.model = surgery.operate(state.model, self._example_inputs)
                state.optimizer = self.wrap_optimizer(state.make_optimizer(state.model.parameters()), state.model)

    def end(self, state):
        """To be called after the last epoch: final values go into the parameters, hooks go."""
        self._tell("train_end", state)
        for technique, optimizer in reversed(self._wrapped):
            technique.release(optimizer, state.model)
        state.hooks.remove()
        remove_hooks(state.model)  # those on a copy that surgery made
        state.features.clear()

    def _tell(self, event, state):
        for callback in self._of_kind(plugs.Callback):
            getattr(callback, event)(state)

    # -- finishing ----------------------------------------------------------------------------------------------------

    def finalize(self, model, *, copy_model=True):
        """Return the plain model that ships, in eval mode, without a trace of the techniques' machinery.

        Every technique hardens its part, parametrized weights are baked, swapped modules restored, surgery "finalize"
        done, batch norm folded, hooks removed.

        Parameters
        ----------
        model : nn.Module
            What `apply` returned, trained or not.
        copy_model : bool, default=True
            Leave `model` as it is, so that training can go on.
        """
        self._ensure_techniques()
        model = copy.deepcopy(model) if copy_model else model
        with torch.no_grad():
            for technique in self.techniques_.values():
                technique.harden(model)
            model = plain(model)
            for technique in self._of_kind(plugs.ModuleSwap):
                _swap(model, technique.restore, technique, only=technique.swapped_)
        for surgery in self._of_kind(plugs.GraphSurgery):
            if surgery.at == "finalize":
                model = surgery.operate(model, self._example_inputs)
        if self.fold_batch_norm:
            fold_batch_norm(model.eval())
        return model.eval()

    def analyse(self, model, batches):
        """What every analysis of the recipe finds, by name."""
        self._ensure_techniques()
        named = {
            name: technique for name, technique in self.techniques_.items() if isinstance(technique, plugs.Analysis)
        }
        return {name: technique.analyse(model, batches) for name, technique in named.items()}

    def summary(self, model=None):
        """A readable table: each technique, its kinds, where it acts, its parameters that are not the default."""
        from effml.deep.summaries import recipe_table

        self._ensure_techniques()
        return recipe_table(self.techniques_, _KINDS, model)

    # -- state --------------------------------------------------------------------------------------------------------

    def state_dict(self, state=None):
        """State of the techniques and, given a TrainingState, of the run; model and optimizer have their own."""
        self._ensure_techniques()
        saved = {"techniques": {name: technique.state_dict() for name, technique in self.techniques_.items()}}
        return saved if state is None else saved | {"training": state.state_dict()}

    def load_state_dict(self, saved, state=None):
        """Go on from what `state_dict` returned; call after `apply` and, given a TrainingState, after `begin`."""
        self._ensure_techniques()
        if set(saved["techniques"]) != set(self.techniques_):
            raise ValueError(f"saved techniques {sorted(saved['techniques'])} are not {sorted(self.techniques_)}")
        for name, technique in self.techniques_.items():
            technique.load_state_dict(saved["techniques"][name])
        if state is not None:
            state.load_state_dict(saved["training"])

    def _ensure_techniques(self):
        """A recipe used without `apply` (a wrapper or an analysis alone) gets its clones here."""
        if not hasattr(self, "techniques_"):
            self._check()
            self.techniques_ = {name: clone(technique) for name, technique in self._named()}
            self._example_inputs = None


def task_loss(criterion, batch):
    """Mean of the criterion over the rows, weighted where there are weights."""
    values = criterion(batch.outputs, batch.targets)
    if batch.weights is None:
        return values if values.dim() == 0 else values.mean()
    if values.dim() == 0:
        raise ValueError("weights of rows need a criterion that returns one value a row (reduction='none')")
    values = values.flatten(1).mean(1) if values.dim() > 1 else values
    return (values * batch.weights).sum() / batch.weights.sum()


def _refuse_parametrized(name, model):
    found = next((known for known, module in model.named_modules() if parametrize.is_parametrized(module)), None)
    if found is not None:
        raise ValueError(
            f"technique {name!r} cuts a model in which {found or 'the model itself'!r} is parametrized; give it "
            'at="finalize", or at="start" and list it first'
        )


def _swap(model, function, technique, only=None):
    """Put what `function` returns in the place of modules; returns the names. Shared modules stay shared."""
    replaced, names = {}, []
    for name, module in list(model.named_modules(remove_duplicate=False)):
        inside = any(name.startswith(f"{known}.") for known in names)
        if not name or inside or (only is not None and name not in only):
            continue
        if id(module) not in replaced:
            replaced[id(module)] = (module, function(name, module))
        new = replaced[id(module)][1]
        if new is not None and new is not module:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, new.train(module.training))
            names.append(name)
    if only is None and not names and not isinstance(technique, plugs.Parametrization):
        warnings.warn(f"{type(technique).__name__} found no module to swap", stacklevel=3)
    return names


def _parametrize(model, technique):
    """Register the technique's parametrizations; yields (module name, tensor name, position in the chain)."""
    for name, module in technique.chosen(model):
        for tensor in technique.tensors(module):
            parametrization = technique.parametrization(name, module)
            if parametrization is not None:
                parametrize.register_parametrization(module, tensor, parametrization)
                yield name, tensor, len(module.parametrizations[tensor]) - 1
