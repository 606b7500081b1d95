"""The foothill function: a regulariser between L1 and L2, a robust loss, and a smooth stand-in for the sign.

    p(x) = a x tanh(b x / 2)

Even, smooth, quasiconvex; x^2 for a = 2/b, b -> 0, and |x| for a = 1, b -> infinity. Its derivative for a = 1 is BNN+'s
SignSwish, a smooth sign, so its second derivative serves as the gradient of the sign.

Source: M. Belbahri, E. Sari, S. Darabi, V. Partovi Nia, "Foothill: A Quasiconvex Regularization for Edge Computing of
Deep Neural Networks", ICIAR 2019, arXiv 1901.06414; S. Darabi et al., "BNN+", arXiv 1812.11800. The definition is
reconstructed (and fits what both papers say of it).
"""

from numbers import Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import nn

from effml.deep.plugs import LossTerm, ModuleSwap, Parametrization

__all__ = ["Foothill", "FoothillBinarize", "FoothillLoss", "FoothillSign", "foothill_function"]

_POSITIVE = [Interval(Real, 0, None, closed="neither")]


def foothill_function(x, a=1.0, b=1.0):
    """p(x) = a x tanh(b x / 2), element by element.

    Examples
    --------
    >>> import torch
    >>> foothill_function(torch.tensor([-3.0, 0.0, 3.0]), b=100.0)
    tensor([3., 0., 3.])
    """
    return a * x * torch.tanh(b * x / 2)


def foothill_slope(x, a=1.0, b=1.0):
    """p'(x) = a (tanh z + z sech^2 z) with z = b x / 2."""
    z = b * x / 2
    tanh = torch.tanh(z)
    return a * (tanh + z * (1 - tanh**2))


def foothill_curvature(x, a=1.0, b=1.0):
    """p''(x) = a b (1 - z tanh z) sech^2 z with z = b x / 2; sech^2 as 1 - tanh^2, so nothing overflows."""
    z = b * x / 2
    tanh = torch.tanh(z)
    return a * b * (1 - z * tanh) * (1 - tanh**2)


class FoothillLoss(nn.Module):
    """Regression loss p(target - output): quadratic for small errors, linear for large ones.

    Parameters
    ----------
    a, b : float
        Scale and shape; errors beyond about 2.4 / b count linearly.
    reduction : {"mean", "none"}

    Examples
    --------
    >>> import torch
    >>> round(float(FoothillLoss(b=2.0)(torch.tensor([0.0]), torch.tensor([3.0]))), 3)
    2.985
    """

    def __init__(self, a=1.0, b=1.0, reduction="mean"):
        super().__init__()
        if reduction not in ("mean", "none"):
            raise ValueError(f'reduction={reduction!r} must be "mean" or "none"')
        self.a, self.b, self.reduction = a, b, reduction

    def forward(self, outputs, targets):
        """Mean, or one value an entry."""
        values = foothill_function(targets - outputs, self.a, self.b)
        return values.mean() if self.reduction == "mean" else values


class _Sign(torch.autograd.Function):
    """Forward: sign, +1 at 0. Backward: p'' with a = 1."""

    @staticmethod
    def forward(ctx, x, b):
        ctx.save_for_backward(x)
        ctx.b = b
        return torch.where(x < 0, -1.0, 1.0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * foothill_curvature(x, 1.0, ctx.b), None


class FoothillSign(nn.Module):
    """Sign activation whose gradient is the foothill's second derivative.

    Parameters
    ----------
    b : float, default=5.0
        Sharpness: larger is closer to the sign, with no gradient away from 0.
    scaled : bool, default=False
        For weights: times the mean size of the input.

    Examples
    --------
    >>> import torch
    >>> FoothillSign()(torch.tensor([-0.3, 0.0, 2.0]))
    tensor([-1.,  1.,  1.])
    """

    def __init__(self, b=5.0, scaled=False):
        super().__init__()
        self.b, self.scaled = b, scaled

    def forward(self, x):
        """Sign of x, as +1 and -1."""
        signs = _Sign.apply(x, self.b)
        return signs * x.detach().abs().mean() if self.scaled else signs

    def extra_repr(self):
        """Parameters, for printing."""
        return f"b={self.b}, scaled={self.scaled}"


class _Well(nn.Module):
    """The identity; holds the place of the wells of one layer."""

    def __init__(self, mu):
        super().__init__()
        self.log_mu = nn.Parameter(mu.log())

    def forward(self, weight):
        return weight


class Foothill(Parametrization, LossTerm):
    """Regulariser: the sum of p(w), or of p(|w| - mu), which pulls weights to -mu and +mu.

    Parameters
    ----------
    weight : float, default=1e-2
        Grows linearly with the training's progress: at full strength early, weights freeze.
    a, b : float, default=1.0, 20.0
        Scale and shape.
    binary : bool, default=True
        Wells at -mu and +mu, with mu trained for each layer, and weights that are mu sign(w) in what ships; else
        shrinkage towards 0.
    include, exclude : as in `Selective`, default=None

    Examples
    --------
    >>> import torch
    >>> from effml.deep import Foothill, Recipe
    >>> recipe = Recipe([Foothill()])
    >>> model = recipe.apply(torch.nn.Linear(8, 4))
    >>> len(recipe.finalize(model).weight.unique())
    2
    """

    _parameter_constraints: ClassVar[dict] = {
        **Parametrization._parameter_constraints,
        "weight": [Interval(Real, 0, None, closed="left")],
        "a": _POSITIVE,
        "b": _POSITIVE,
        "binary": ["boolean"],
    }

    def __init__(self, *, weight=1e-2, a=1.0, b=20.0, binary=True, include=None, exclude=None):
        super().__init__(include=include, exclude=exclude)
        self.weight = weight
        self.a = a
        self.b = b
        self.binary = binary

    def parametrization(self, name, module):
        """A place for the trained mu of the layer."""
        return _Well(module.weight.detach().abs().mean())

    def term(self, model, batch):
        """The regulariser, scaled up with progress."""
        total = torch.zeros(())
        for site, well in self.installed(model):
            weights = self.latent(model, site)
            distance = weights.abs() - well.log_mu.exp() if self.binary else weights
            total = total + foothill_function(distance, self.a, self.b).sum()
        return self.weight * batch.progress * total

    def harden(self, model):
        """With `binary`, weights become mu sign(w), mu their mean size."""
        if self.binary:
            for site, _ in self.installed(model):
                weights = self.latent(model, site).data
                weights.copy_(weights.abs().mean() * torch.where(weights < 0, -1.0, 1.0))


class FoothillBinarize(Parametrization, ModuleSwap):
    """Binary weights by the foothill's sign, and, where asked for, binary activations.

    Parameters
    ----------
    b : float, default=5.0
        Sharpness of the gradient.
    activations : bool, default=False
        Whether ReLU and Hardtanh layers become signs, too.
    include, exclude : as in `Selective`, default=None
        Of the weights.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import FoothillBinarize, Recipe
    >>> recipe = Recipe([FoothillBinarize(activations=True)])
    >>> recipe.apply(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()))[1]
    FoothillSign(b=5.0, scaled=False)
    """

    _parameter_constraints: ClassVar[dict] = {
        **Parametrization._parameter_constraints,
        "b": _POSITIVE,
        "activations": ["boolean"],
    }

    def __init__(self, *, b=5.0, activations=False, include=None, exclude=None):
        super().__init__(include=include, exclude=exclude)
        self.b = b
        self.activations = activations

    def parametrization(self, name, module):
        """Sign with the layer's mean size as scale."""
        return FoothillSign(self.b, scaled=True)

    def swap(self, name, module):
        """A sign in the place of an activation, where asked for."""
        return FoothillSign(self.b) if self.activations and isinstance(module, (nn.ReLU, nn.Hardtanh)) else None
