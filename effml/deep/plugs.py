"""The kinds of plug: where a technique can act on a model and its training.

A technique is one class. It inherits the kinds it needs (several where it acts in several places), has its parameters
in the constructor as any scikit-learn estimator, and keeps what it learns in attributes that end in ``_``.

| kind | acts |
|---|---|
| `Parametrization` | on a weight, each time it is read |
| `ModuleSwap` | on the layers: another module in place of one |
| `LossTerm` | on the loss |
| `OptimizerWrapper` | around the optimizer |
| `Callback` | between steps and epochs |
| `GraphSurgery` | on the structure of the network |
| `Analysis` | on nothing: it looks |

`effml.deep.Recipe` puts techniques together.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import ClassVar

import torch
from sklearn.base import BaseEstimator
from torch import nn

__all__ = [
    "Analysis",
    "Callback",
    "GraphSurgery",
    "LossTerm",
    "ModuleSwap",
    "OptimizerWrapper",
    "Parametrization",
    "Selective",
    "Technique",
    "regroup",
]


class Technique(BaseEstimator, ABC):
    """What all techniques share: validated parameters, a state, and a last word before a model ships.

    Subclasses name the attributes that a resumed training needs in `state_names`; parameters that are trained belong
    into the model (into a parametrization or a swapped module), where optimizer and state_dict find them, or into an
    optimizer that the technique owns.
    """

    _parameter_constraints: ClassVar[dict] = {}
    state_names: ClassVar[tuple] = ()

    def validate(self):
        """Raise ValueError or TypeError, naming parameter, value and what is accepted, if a parameter is wrong."""
        self._validate_params()

    def harden(self, model):
        """Turn what is soft in `model` into its final form; called by `finalize`, before weights are baked."""

    def state_dict(self):
        """The attributes named in `state_names`, those that exist."""
        return {name: getattr(self, name) for name in self.state_names if hasattr(self, name)}

    def load_state_dict(self, state):
        """Take over what `state_dict` returned."""
        unknown = set(state) - set(self.state_names)
        if unknown:
            raise ValueError(f"{type(self).__name__} knows no state {sorted(unknown)}; it has {self.state_names}")
        for name, value in state.items():
            setattr(self, name, value)


class Selective(Technique):
    """A technique that acts on some of the modules: chosen by type, then by `include` and `exclude`.

    Both are None, a module name or a pattern such as ``"features.*"``, a list of those, or a callable
    ``(name, module) -> bool``. `include` may also be "inner": all but the first and the last of that type.
    """

    module_types: ClassVar[tuple] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    _parameter_constraints: ClassVar[dict] = {
        "include": [str, list, tuple, callable, None],
        "exclude": [str, list, tuple, callable, None],
    }

    def __init__(self, *, include=None, exclude=None):
        self.include = include
        self.exclude = exclude

    def chosen(self, model) -> list:
        """The chosen modules as (name, module), in the order of the model.

        Raises
        ------
        ValueError
            If there is none, with the names there are.
        """
        candidates = [(name, module) for name, module in model.named_modules() if isinstance(module, self.module_types)]
        kept = candidates[1:-1] if self.include == "inner" else candidates
        kept = [pair for pair in kept if self.matches(*pair)]
        if not kept:
            names = ", ".join(name or "(the model itself)" for name, _ in candidates) or "none of the right type"
            raise ValueError(
                f"{type(self).__name__}: include={self.include!r}, exclude={self.exclude!r} choose no module; "
                f"there are: {names}"
            )
        return kept

    def matches(self, name, module) -> bool:
        """Whether type, `include` and `exclude` choose one module; "inner" depends on the others and is left open."""
        if not isinstance(module, self.module_types) or (
            self.exclude is not None and _fits(self.exclude, name, module)
        ):
            return False
        return self.include in (None, "inner") or _fits(self.include, name, module)


def _fits(rule, name, module):
    if callable(rule):
        return bool(rule(name, module))
    patterns = [rule] if isinstance(rule, str) else rule
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Parametrization(Selective):
    """A module that computes the weight from the trained tensor, by `torch.nn.utils.parametrize`.

    Implement `parametrization`; `harden` where the final weight differs from the one in training. `finalize` bakes the
    computed weight and removes the parametrization.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import Parametrization, Recipe
    >>> class Clip(torch.nn.Module):
    ...     def forward(self, weight):
    ...         return weight.clamp(-0.1, 0.1)
    >>> class ClippedWeights(Parametrization):
    ...     def parametrization(self, name, module):
    ...         return Clip()
    >>> model = Recipe([ClippedWeights()]).apply(torch.nn.Linear(8, 4))
    >>> bool(model.weight.abs().max() <= 0.1)
    True
    """

    def tensors(self, module) -> tuple:
        """Names of the tensors of a chosen module that get a parametrization."""
        return ("weight",)

    @abstractmethod
    def parametrization(self, name, module) -> nn.Module | None:
        """The module that maps the trained tensor of `module` to the one in use; None leaves this one alone."""

    def installed(self, model) -> Iterator:
        """Yield (site, parametrization module) of what this technique put into `model`; a site is (name, tensor)."""
        for name, tensor, position in self.sites_:
            yield (name, tensor), model.get_submodule(name).parametrizations[tensor][position]

    def latent(self, model, site):
        """The trained tensor behind the weight at a site."""
        name, tensor = site
        return model.get_submodule(name).parametrizations[tensor].original


class ModuleSwap(Technique):
    """Other modules in the place of some.

    Implement `swap`; `restore` where the swapped module has a plainer form once training is over.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import ModuleSwap, Recipe
    >>> class HardSwish(ModuleSwap):
    ...     def swap(self, name, module):
    ...         return torch.nn.Hardswish() if isinstance(module, torch.nn.ReLU) else None
    >>> Recipe([HardSwish()]).apply(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()))[1]
    Hardswish()
    """

    @abstractmethod
    def swap(self, name, module) -> nn.Module | None:
        """The module that takes the place of `module`, or None; called for every module, outermost first."""

    def restore(self, name, module) -> nn.Module | None:
        """What a swapped-in module becomes at `finalize`, or None to leave it."""
        return None


class LossTerm(Technique):
    """A scalar added to the loss; with ``replaces_task = True`` it stands in for the task's own loss.

    Implement `term`. It may run the model again, hold a teacher (a constructor parameter), or take gradients.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import LossTerm, Recipe, train
    >>> class Confidence(LossTerm):
    ...     def __init__(self, *, weight=0.1):
    ...         self.weight = weight
    ...     def term(self, model, batch):
    ...         return -self.weight * torch.distributions.Categorical(logits=batch.outputs).entropy().mean()
    >>> X, y = torch.randn(32, 2), torch.randint(0, 2, (32,))
    >>> run = train(torch.nn.Linear(2, 2), (X, y), recipe=Recipe([Confidence()]), epochs=1, random_state=0)
    >>> run.step
    1
    """

    replaces_task: ClassVar[bool] = False

    @abstractmethod
    def term(self, model, batch) -> torch.Tensor:
        """The scalar for a :class:`Batch`."""

    def watch(self, model) -> list:
        """Names of the modules whose outputs `term` finds in ``batch.features``."""
        return []


class OptimizerWrapper(Technique):
    """Another optimizer around the given one.

    Implement `wrap`: it may also move parameters into groups of their own (:func:`regroup`), or add a group with
    parameters that are not in the model. `release` is called when training ends.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import OptimizerWrapper, Recipe, regroup
    >>> class NoDecayOnBiases(OptimizerWrapper):
    ...     def wrap(self, optimizer, model):
    ...         biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    ...         return regroup(optimizer, biases, weight_decay=0.0)
    >>> model = torch.nn.Linear(2, 2)
    >>> optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.01)
    >>> [group["weight_decay"] for group in Recipe([NoDecayOnBiases()]).wrap_optimizer(optimizer, model).param_groups]
    [0.01, 0.0]
    """

    @abstractmethod
    def wrap(self, optimizer, model) -> torch.optim.Optimizer:
        """The optimizer to train with."""

    def release(self, optimizer, model):
        """Put final values into the parameters: called with what `wrap` returned, after the last step."""


class Callback(Technique):
    """Something done between steps and epochs; every method gets the :class:`TrainingState` and may do nothing.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import Callback, Recipe, train
    >>> class StopBelow(Callback):
    ...     def __init__(self, *, loss=0.1):
    ...         self.loss = loss
    ...     def epoch_end(self, state):
    ...         state.stop = state.metrics["loss"] < self.loss
    >>> X, y = torch.randn(32, 2), torch.zeros(32, dtype=torch.long)
    >>> run = train(torch.nn.Linear(2, 2), (X, y), recipe=Recipe([StopBelow(loss=9)]), epochs=5, random_state=0)
    >>> run.epoch
    1
    """

    def train_begin(self, state):
        """Before the first step; ``state.hooks`` takes hooks that live as long as the training."""

    def epoch_begin(self, state):
        """Before an epoch; may set ``state.data``."""

    def step_end(self, state):
        """After an optimizer step; gradients are still there."""

    def epoch_end(self, state):
        """After an epoch, ``state.metrics`` set; may set ``state.stop``."""

    def train_end(self, state):
        """After the last epoch, before the optimizer is released."""


class GraphSurgery(Technique):
    """A change of the network's structure: channels, layers or branches go, or come.

    Implement `operate`, through torch-pruning's dependency graph where channels are cut. The parameter `at` says when:
    "start" (from `apply`), "finalize" (when the model ships), or after the epoch of that number, or of each in a list;
    after one in the middle of training the optimizer is made anew.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import GraphSurgery, Recipe
    >>> class WithoutDropout(GraphSurgery):
    ...     def __init__(self, *, at="finalize"):
    ...         self.at = at
    ...     def operate(self, model, example_inputs):
    ...         return torch.nn.Sequential(*(m for m in model if not isinstance(m, torch.nn.Dropout)))
    >>> len(Recipe([WithoutDropout(at="start")]).apply(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())))
    1
    """

    def __init__(self, *, at="finalize"):
        self.at = at

    def validate(self):
        """Raise ValueError if `at` or another parameter is wrong."""
        super().validate()
        if self.at not in ("start", "finalize") and not self.epochs():
            raise ValueError(f'at={self.at!r} must be "start", "finalize", an epoch from 1 on or a list of epochs')

    def epochs(self) -> tuple:
        """The epochs after which to operate; () for "start" and "finalize"."""
        given = self.at if isinstance(self.at, (list, tuple)) else (self.at,)
        whole = all(isinstance(epoch, int) and not isinstance(epoch, bool) and epoch >= 1 for epoch in given)
        return tuple(given) if whole else ()

    @abstractmethod
    def operate(self, model, example_inputs) -> nn.Module:
        """The changed model; the same object changed in place, or another."""


class Analysis(Technique):
    """Something measured on a model with some data; changes nothing.

    Implement `analyse`; what it returns is plain data that prints readably, such as a dataclass.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import Analysis, Recipe
    >>> class MeanOutput(Analysis):
    ...     def analyse(self, model, batches):
    ...         return [round(float(model(inputs).mean()), 3) for inputs, _ in batches]
    >>> batches = [(torch.ones(4, 2), None), (torch.zeros(4, 2), None)]
    >>> Recipe([MeanOutput()]).analyse(torch.nn.Flatten(), batches)
    {'meanoutput': [1.0, 0.0]}
    """

    @abstractmethod
    def analyse(self, model, batches):
        """What was found, from an iterable of (inputs, targets)."""


def regroup(optimizer, parameters, *, lr_factor=1.0, **options):
    """Move parameters into a group of their own of the optimizer, with other options; returns the optimizer.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    parameters : iterable of Parameter
        All of them in the optimizer already.
    lr_factor : float
        Of the learning rate of the group that each comes from.
    **options
        Such as ``weight_decay=0.0``.

    Raises
    ------
    ValueError
        If one of the parameters is not in the optimizer.
    """
    wanted = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        moved = [parameter for parameter in group["params"] if id(parameter) in wanted]
        if not moved:
            continue
        wanted -= {id(parameter) for parameter in moved}
        group["params"] = [p for p in group["params"] if all(p is not other for other in moved)]
        kept = {name: value for name, value in group.items() if name != "params"}
        optimizer.add_param_group({**kept, "lr": group["lr"] * lr_factor, **options, "params": moved})
    if wanted:
        raise ValueError(f"{len(wanted)} of the parameters to regroup are not in the optimizer")
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
    return optimizer
