"""What the parts of a training run tell each other: one batch, and the state of the run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from effml.deep.hooks import Hooks

__all__ = ["Batch", "TrainingState"]


@dataclass
class Batch:
    """One batch on its way through a loss.

    Attributes
    ----------
    inputs : Tensor or any structure the model takes
    targets : Tensor (n, ...)
    outputs : Tensor or any structure the model returns
        Of this forward pass, with its graph.
    progress : float
        Share of the training steps done, from 0 to 1.
    weights : Tensor (n,) or None
        Weights of the rows.
    features : dict of str to Tensor
        Outputs of the modules that loss terms watch, by module name.
    """

    inputs: Any
    targets: Any
    outputs: Any
    progress: float = 0.0
    weights: torch.Tensor | None = None
    features: dict = field(default_factory=dict)


@dataclass
class TrainingState:
    """State of one training run, handed to every callback; a callback may change what is marked (may be set).

    Attributes
    ----------
    model : nn.Module
        The model in training, never a wrapper such as DistributedDataParallel.
    optimizer : torch.optim.Optimizer
        Wrapped by the recipe.
    epochs, steps_per_epoch : int
    epoch, step : int
        Finished epochs and steps.
    data : iterable of batches or None
        What the next epoch reads (may be set, for samplers).
    stop : bool
        Whether training ends after this epoch (may be set).
    batch : Batch or None
        The last one, features included.
    loss : float or None
        Of the last step.
    metrics : dict of str to float
        Of the last epoch.
    history : list of dict
        Metrics of every epoch.
    hooks : Hooks
        Hooks that live as long as the training.
    make_optimizer : callable or None
        ``make_optimizer(parameters) -> optimizer``; needed when surgery replaces parameters in between.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    epochs: int
    steps_per_epoch: int
    epoch: int = 0
    step: int = 0
    data: Any = None
    stop: bool = False
    batch: Batch | None = None
    loss: float | None = None
    metrics: dict = field(default_factory=dict)
    history: list = field(default_factory=list)
    hooks: Hooks = field(default_factory=Hooks)
    features: dict = field(default_factory=dict)
    make_optimizer: Callable | None = None

    @property
    def total_steps(self):
        """Steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def progress(self):
        """Share of the steps done, from 0 to 1."""
        return min(1.0, self.step / max(1, self.total_steps))

    def state_dict(self):
        """The plain part: where training stands."""
        return {"epoch": self.epoch, "step": self.step, "stop": self.stop, "history": [dict(h) for h in self.history]}

    def load_state_dict(self, state):
        """Go on from what `state_dict` returned."""
        self.epoch, self.step, self.stop = state["epoch"], state["step"], state["stop"]
        self.history = [dict(metrics) for metrics in state["history"]]
        self.metrics = dict(self.history[-1]) if self.history else {}
