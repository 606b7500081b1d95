"""Straight-through: a rounded value forward, the gradient of the value before rounding backward."""

import torch

__all__ = ["straight_through"]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rounded, exact):
        return rounded.clone()

    @staticmethod
    def backward(ctx, gradient):
        return None, gradient


def straight_through(rounded, exact):
    """`rounded`, to the last bit, with the gradient going to `exact` as if the two were the same.

    The usual ``exact + (rounded - exact).detach()`` is off by a rounding error, so its values are no levels.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([0.2, 0.9], requires_grad=True)
    >>> y = straight_through(x.round(), x)
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([0.0, 1.0], [1.0, 1.0])
    """
    return _StraightThrough.apply(rounded.detach(), exact)
