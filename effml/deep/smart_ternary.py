"""Smart Ternary Quantization: each layer learns in one training whether its weights become binary or ternary.

With a scale mu > 0 and a shape beta in (pi/4, pi/2) of each layer, the regulariser

    R = mean_i min( ||w_i| - mu|^p, tan(beta) |w_i|^p )

has wells at -mu, 0 and mu; as beta goes to pi/2 the one at 0 closes. The loss is  task + a sum R + b sum |cot(beta)|^p:
the last term pulls a layer towards binary, the weights near zero hold it ternary. The border between the wells is
Delta = mu / (1 + tan(beta)^(1/p)).

Source: G. Morin, R. Razani, V. Partovi Nia, E. Sari, "Smart Ternary Quantization", arXiv 1909.12205; R. Razani et al.,
"Adaptive Binary-Ternary Quantization", CVPR Workshops 2021. Only the abstracts were read: the formulas above are
reconstructed, our reading.
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval, Options
from torch import nn

from effml.deep.plugs import Callback, LossTerm, OptimizerWrapper, Parametrization, regroup
from effml.deep.rounding import straight_through

__all__ = ["SmartTernary", "basin_border"]

_LARGEST_TAN = 1e3
_BECOMES_BINARY, _BECOMES_TERNARY = 0.04, 0.06  # of Delta / mu: a gap, so that a layer does not flicker


def basin_border(mu, tan_beta, p):
    """Delta: weights below it are nearer to 0 than to mu, under the regulariser.

    Examples
    --------
    >>> basin_border(1.0, 1.0, 2)
    0.5
    """
    return mu / (1 + tan_beta ** (1 / p))


class _BinaryOrTernary(nn.Module):
    """Straight-through quantiser of one layer, with its shape as a parameter; `binary` says which it is now."""

    def __init__(self, p, start):
        super().__init__()
        self.p = p
        self.shape = nn.Parameter(torch.tensor(float(start)))
        self.register_buffer("binary", torch.tensor(False))
        self.register_buffer("active", torch.tensor(True))

    @property
    def beta(self):
        return math.pi / 4 * (1 + torch.sigmoid(self.shape))

    @property
    def tan(self):
        return torch.tan(self.beta).clamp(max=_LARGEST_TAN)

    def forward(self, weight):
        if not self.active:
            return weight
        clipped = weight.clamp(-1, 1)
        return straight_through(self.levels(clipped.detach()), clipped)

    @torch.no_grad()
    def levels(self, weight):
        """mu sign(w) outside the basin of zero; mu is the least-squares scale of the pattern."""
        size = weight.abs()
        mean = size.mean()
        border = torch.zeros_like(mean) if self.binary else basin_border(mean, self.tan, self.p)
        outside = size > border if not self.binary else torch.ones_like(size, dtype=torch.bool)
        mu = size[outside].mean() if outside.any() else mean
        return mu * torch.where(weight < 0, -1.0, 1.0) * outside

    def scale(self, weight):
        """mu for the regulariser: the mean size of the weights outside the basin of zero."""
        size = weight.detach().clamp(-1, 1).abs()
        outside = size > basin_border(size.mean(), self.tan.detach(), self.p)
        return size[outside].mean() if outside.any() else size.mean()

    def penalty(self, weight):
        """R of the module's formula."""
        size = weight.abs()
        return torch.minimum((size - self.scale(weight)).abs() ** self.p, self.tan * size**self.p).mean()

    @torch.no_grad()
    def decide(self, final=False):
        """Binary or ternary, with a gap between the two decisions unless final."""
        ratio = float(basin_border(1.0, self.tan, self.p))
        threshold = (_BECOMES_BINARY + _BECOMES_TERNARY) / 2
        if not final:
            threshold = _BECOMES_TERNARY if self.binary else _BECOMES_BINARY
        self.binary.fill_(ratio < threshold)


@dataclass(frozen=True)
class Depths:
    """Bits of the weights of every layer: 1 or 2."""

    bits: dict

    def __str__(self):
        return "  ".join(f"{name}: {bits}" for name, bits in self.bits.items())


class SmartTernary(Parametrization, LossTerm, OptimizerWrapper, Callback):
    """Binary or ternary weights, chosen for each layer by training.

    Parameters
    ----------
    weight : float, default=0.3
        Of the regulariser that pulls weights into wells; grows linearly from the end of warm-up on.
    binary_weight : float, default=0.01
        Of the pull towards binary: 0 leaves all layers ternary, large makes all binary; a grid over 0.003 to 0.1 gives
        mixtures.
    p : {1, 2}, default=1
        Power in the regulariser.
    start : float, default=-2.0
        Where the shape parameter starts; beta = pi/4 (1 + sigmoid(shape)).
    shape_lr : float, default=10.0
        Learning rate of the shapes as a factor of the optimizer's; they have no weight decay. Fits trainings of some
        thousand steps; 0.1 those of hundreds of epochs.
    warmup : float in [0, 1), default=0.2
        Share of the training with float weights and without regulariser.
    decided : float in (0, 1], default=0.7
        Share of the training after which depths stay, so that the weights can settle.
    include, exclude : as in `Selective`, default=None

    Notes
    -----
    The scale mu is not trained: it is the least-squares optimum for the present pattern. Rounding is straight-through,
    weights are clipped to [-1, 1]. Size: 1 bit a weight where binary, 2 where ternary, and the scale.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import Recipe, SmartTernary
    >>> recipe = Recipe([SmartTernary()])
    >>> model = recipe.apply(torch.nn.Linear(16, 4))
    >>> print(recipe.techniques_["smartternary"].depths(model))
    weight: 2
    """

    _parameter_constraints: ClassVar[dict] = {
        **Parametrization._parameter_constraints,
        "weight": [Interval(Real, 0, None, closed="left")],
        "binary_weight": [Interval(Real, 0, None, closed="left")],
        "p": [Options(Real, {1, 2})],
        "start": [Real],
        "shape_lr": [Interval(Real, 0, None, closed="left")],
        "warmup": [Interval(Real, 0, 1, closed="left")],
        "decided": [Interval(Real, 0, 1, closed="right")],
    }

    def __init__(
        self,
        *,
        weight=0.3,
        binary_weight=0.01,
        p=1,
        start=-2.0,
        shape_lr=10.0,
        warmup=0.2,
        decided=0.7,
        include=None,
        exclude=None,
    ):
        super().__init__(include=include, exclude=exclude)
        self.weight = weight
        self.binary_weight = binary_weight
        self.p = p
        self.start = start
        self.shape_lr = shape_lr
        self.warmup = warmup
        self.decided = decided

    def parametrization(self, name, module):
        """The quantiser of one layer."""
        return _BinaryOrTernary(self.p, self.start)

    def term(self, model, batch):
        """``a(t) sum R + b sum |cot(beta)|^p`` over the layers; nothing during warm-up."""
        ramp = (batch.progress - self.warmup) / (1 - self.warmup)
        if ramp < 0:
            return torch.zeros(())
        total = torch.zeros(())
        for site, quantiser in self.installed(model):
            wells = self.weight * ramp * quantiser.penalty(self.latent(model, site))
            total = total + wells + self.binary_weight * quantiser.tan**-self.p
        return total

    def wrap(self, optimizer, model):
        """Give the shapes their own learning rate, without weight decay."""
        shapes = [quantiser.shape for _, quantiser in self.installed(model)]
        return regroup(optimizer, shapes, lr_factor=self.shape_lr, weight_decay=0.0)

    def train_begin(self, state):
        """Float weights until warm-up is over."""
        self._activate(state)

    def step_end(self, state):
        """Decide each layer's depth anew, as long as that is open."""
        self._activate(state)
        if state.progress > self.decided:
            return
        last = state.progress + 1 / state.total_steps > self.decided
        for _, quantiser in self.installed(state.model):
            quantiser.decide(final=last)

    def _activate(self, state):
        for _, quantiser in self.installed(state.model):
            quantiser.active.fill_(state.progress >= self.warmup)

    def harden(self, model):
        """Rounded weights, in the depths decided last, even if warm-up is not over."""
        for _, quantiser in self.installed(model):
            quantiser.active.fill_(True)

    def depths(self, model):
        """Bits of each layer as decided last, as `Depths`."""
        return Depths(
            {
                (f"{name}.{tensor}" if name else tensor): 1 if quantiser.binary else 2
                for (name, tensor), quantiser in self.installed(model)
            }
        )
