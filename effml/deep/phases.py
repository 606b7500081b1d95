"""The phases of a plan: each takes a model and returns another, smaller or better, in a form that can be trained on.

All are thin: masks by torch.nn.utils.prune, factors by torch.linalg.svd, training by `effml.deep.train` with a recipe.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn
from torch.nn.utils import prune

from effml.deep.distillation import Distillation
from effml.deep.finishing import fold_batch_norm
from effml.deep.masks import KeepZeros
from effml.deep.recipe import Recipe
from effml.deep.training import train

__all__ = ["Circumstances", "IntegerWeights", "LowRank", "MagnitudePrune", "Phase", "Train", "Width"]

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_EPOCHS = {"epochs": [Interval(Integral, 0, None, closed="left")]}
_SHARE = [Interval(Real, 0, 1, closed="neither")]


@dataclass
class Circumstances:
    """What a phase gets besides the model.

    Attributes
    ----------
    data : (inputs, targets)
        To train on.
    teacher : nn.Module
        The best model so far.
    build : callable or None
        ``build(width) -> nn.Module``, untrained.
    width : float
        Of the present model, as a factor of the first.
    learning_rate, batch_size, seed, transform, criterion
        As in `Plan`.
    """

    data: Any
    teacher: nn.Module
    build: Callable | None
    width: float
    learning_rate: float
    batch_size: int
    seed: int
    transform: Callable | None = None
    criterion: Callable | None = None

    def train(self, model, epochs, recipe=None):
        """Train with Adam, the rate falling along half a cosine; returns the recipe's model, batch norm kept."""
        recipe = Recipe() if recipe is None else recipe
        model = recipe.apply(model, example_inputs=torch.as_tensor(self.data[0][:2]))
        if epochs:
            state = train(
                model,
                self.data,
                recipe=recipe,
                epochs=epochs,
                criterion=self.criterion,
                optimizer=lambda parameters: torch.optim.Adam(parameters, self.learning_rate),
                scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs),
                batch_size=self.batch_size,
                transform=self.transform,
                random_state=self.seed,
            )
            model = state.model
        return recipe.set_params(fold_batch_norm=False).finalize(model)  # a later phase may train on


class Phase(BaseEstimator, ABC):
    """One step of a plan; `kind` is "shrink", "improve" or "grow"."""

    kind: ClassVar[str] = "improve"
    _parameter_constraints: ClassVar[dict] = {}

    def validate(self):
        """Raise ValueError or TypeError if a parameter is wrong."""
        self._validate_params()

    @abstractmethod
    def run(self, model, circumstances) -> nn.Module:
        """The new model; `model` may be changed."""

    def width(self, before):
        """Width factor of the model after this phase."""
        return before


class Train(Phase):
    """Train on, with techniques and a teacher where given.

    Parameters
    ----------
    epochs : int, default=10
    recipe : Recipe or None, default=None
        With one that quantises, this is a phase that shrinks.
    distill : float, default=0.0
        Weight of the distance to the outputs of the best model so far.
    temperature : float, default=2.0
    """

    _parameter_constraints: ClassVar[dict] = {
        **_EPOCHS,
        "recipe": [Recipe, None],
        "distill": [Interval(Real, 0, None, closed="left")],
        "temperature": [Interval(Real, 1, None, closed="left")],
    }

    def __init__(self, *, epochs=10, recipe=None, distill=0.0, temperature=2.0):
        self.epochs = epochs
        self.recipe = recipe
        self.distill = distill
        self.temperature = temperature

    @property
    def kind(self):
        """ "shrink" with a recipe."""
        return "improve" if self.recipe is None else "shrink"

    def run(self, model, circumstances):
        """Train."""
        given = [] if self.recipe is None else [clone(pair[1]) for pair in self.recipe._named()]
        if self.distill:
            teacher = circumstances.teacher
            given.append(Distillation(teacher=teacher, temperature=self.temperature, weight=self.distill))
        return circumstances.train(model, self.epochs, Recipe(given))


class Width(Phase):
    """A narrower or wider network from the plan's `build`, trained from its start, taught by the best so far.

    Parameters
    ----------
    factor : float, default=0.5
        Of the present width.
    epochs : int, default=10
    distill : float, default=1.0
    """

    _parameter_constraints: ClassVar[dict] = {
        "factor": [Interval(Real, 0, None, closed="neither")],
        **_EPOCHS,
        "distill": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, *, factor=0.5, epochs=10, distill=1.0):
        self.factor = factor
        self.epochs = epochs
        self.distill = distill

    @property
    def kind(self):
        """ "shrink" below 1, "grow" above."""
        return "shrink" if self.factor < 1 else "grow"

    def width(self, before):
        """Width factor of the model after this phase."""
        return before * self.factor

    def run(self, model, circumstances):
        """Build and train."""
        if circumstances.build is None:
            raise ValueError("Width needs the plan's build: a callable width -> untrained model")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(circumstances.seed)
            new = circumstances.build(self.width(circumstances.width))
        return Train(epochs=self.epochs, distill=self.distill).run(new, circumstances)


class MagnitudePrune(Phase):
    """Zeros in the place of the smallest weights of all layers together, in rounds, each followed by training.

    Parameters
    ----------
    sparsity : float, default=0.8
        Share of the weights of linear layers and convolutions that are zero at the end.
    rounds : int, default=3
        After round i of n, the share is sparsity (1 - (1 - i/n)^3) (M. Zhu, S. Gupta, 2017).
    epochs : int, default=5
        After each round.
    distill : float, default=0.0
    """

    kind = "shrink"
    _parameter_constraints: ClassVar[dict] = {
        "sparsity": _SHARE,
        "rounds": [Interval(Integral, 1, None, closed="left")],
        **_EPOCHS,
        "distill": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, *, sparsity=0.8, rounds=3, epochs=5, distill=0.0):
        self.sparsity = sparsity
        self.rounds = rounds
        self.epochs = epochs
        self.distill = distill

    def run(self, model, circumstances):
        """Prune and train, round by round."""
        for round_ in range(1, self.rounds + 1):
            share = self.sparsity * (1 - (1 - round_ / self.rounds) ** 3)
            layers = [(module, "weight") for module in model.modules() if isinstance(module, _LAYERS)]
            prune.global_unstructured(layers, prune.L1Unstructured, amount=share)
            for module, _ in layers:
                prune.remove(module, "weight")  # into the weights: torch's own masks forbid copies in training
            training = Train(epochs=self.epochs, recipe=Recipe([KeepZeros()]), distill=self.distill)
            model = training.run(model, circumstances)
        return model


class LowRank(Phase):
    """Two thin layers in the place of a fat one, by truncated singular values, followed by training.

    A linear layer (m x n) becomes r x n and m x r; a convolution one with r filters and a 1 x 1 convolution. Layers
    where that saves no weights stay.

    Parameters
    ----------
    energy : float, default=0.95
        Share of the squared singular values that is kept.
    epochs : int, default=5
    distill : float, default=0.0
    """

    kind = "shrink"
    _parameter_constraints: ClassVar[dict] = {
        "energy": [Interval(Real, 0, 1, closed="right")],
        **_EPOCHS,
        "distill": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, *, energy=0.95, epochs=5, distill=0.0):
        self.energy = energy
        self.epochs = epochs
        self.distill = distill

    def run(self, model, circumstances):
        """Factor and train."""
        for name, module in list(model.named_modules()):
            if name and isinstance(module, (nn.Linear, nn.Conv2d)) and getattr(module, "groups", 1) == 1:
                pair = factored(module, self.energy)
                if pair is not None:
                    parent, _, child = name.rpartition(".")
                    setattr(model.get_submodule(parent), child, pair)
        return Train(epochs=self.epochs, distill=self.distill).run(model, circumstances)


@torch.no_grad()
def factored(layer, energy):
    """The two layers with the smallest rank that keeps `energy`, or None if they have no fewer weights."""
    matrix = layer.weight.reshape(len(layer.weight), -1)
    U, S, V = torch.linalg.svd(matrix, full_matrices=False)
    kept = S.square().cumsum(0) / S.square().sum()
    rank = int((kept < energy - 1e-9).sum()) + 1
    if rank * sum(matrix.shape) >= matrix.numel() and energy < 1:
        return None
    rank = min(rank, len(S))
    left, right = U[:, :rank] * S[:rank].sqrt(), S[:rank].sqrt()[:, None] * V[:rank]
    if isinstance(layer, nn.Linear):
        first = nn.Linear(layer.in_features, rank, bias=False)
        second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    else:
        same = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "padding_mode")}
        first = nn.Conv2d(layer.in_channels, rank, layer.kernel_size, bias=False, **same)
        second = nn.Conv2d(rank, layer.out_channels, 1, bias=layer.bias is not None)
    first.weight.copy_(right.reshape(first.weight.shape))
    second.weight.copy_(left.reshape(second.weight.shape))
    if layer.bias is not None:
        second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


class IntegerWeights(Phase):
    """Weights rounded to integers of few bits with one scale an output channel, after folding batch norm; no training.

    w = scale * q with |q| <= 2^(bits-1) - 1, exactly, so a file stores q and the scales. Zeros stay zeros.

    Parameters
    ----------
    bits : int from 2 to 8, default=8
    scale : {"max", "mse"}, default="mse"
        The largest weight over the largest integer, or the best of 40 shares of that by squared error.
    """

    kind = "shrink"
    _parameter_constraints: ClassVar[dict] = {
        "bits": [Interval(Integral, 2, 8, closed="both")],
        "scale": [StrOptions({"max", "mse"})],
    }

    def __init__(self, *, bits=8, scale="mse"):
        self.bits = bits
        self.scale = scale

    @torch.no_grad()
    def run(self, model, circumstances):
        """Fold and round."""
        model = copy.deepcopy(model).eval()
        fold_batch_norm(model)
        for module in model.modules():
            if isinstance(module, _LAYERS):
                rows = module.weight.reshape(len(module.weight), -1)
                module.weight.copy_(integer_rows(rows, self.bits, self.scale).reshape(module.weight.shape))
        return model


def integer_rows(rows, bits, scale):
    """Each row rounded to scale * integers; rows (n, k)."""
    top = 2 ** (bits - 1) - 1
    largest = rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    shares = torch.linspace(0.3, 1, 40).tolist() if scale == "mse" else [1.0]
    best, least = None, torch.full_like(largest, torch.inf)
    for share in shares:
        step = largest * (share / top)
        rounded = (rows / step).round().clamp(-top, top) * step
        error = (rounded - rows).square().sum(1, keepdim=True)
        best = rounded if best is None else torch.where(error < least, rounded, best)
        least = torch.minimum(error, least)
    return best
