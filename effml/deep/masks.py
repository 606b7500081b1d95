"""Zeros that stay zero while a network trains on."""

from torch import nn

from effml.deep.plugs import Parametrization

__all__ = ["KeepZeros"]


class _Mask(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


class KeepZeros(Parametrization):
    """Weights that are zero when the recipe is applied stay zero; the others train.

    Parameters
    ----------
    include, exclude : as in `Selective`, default=None

    Examples
    --------
    >>> import torch
    >>> from effml.deep import KeepZeros, Recipe
    >>> layer = torch.nn.Linear(2, 1)
    >>> with torch.no_grad():
    ...     _ = layer.weight.copy_(torch.tensor([[0.0, 1.0]]))
    >>> model = Recipe([KeepZeros()]).apply(layer)
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> model.parametrizations.weight.original.grad.tolist()
    [[0.0, 1.0]]
    """

    def parametrization(self, name, module):
        """Multiplication by what is not zero now."""
        return _Mask((module.weight.detach() != 0).to(module.weight.dtype))
