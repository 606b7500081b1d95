"""Monotone maps from the shadow weight u to the weight in use w, between the identity and rounding to the levels Q.

A map is proximal if and only if it is monotone with closed graph (Dockhorn et al. 2021), so quantisers can be written
down as monotone maps. All act element by element; the levels are one set for the tensor, or one a row (output channel).

One function covers the family (the paper's equation 13; reconstructed, our reading): with neighbouring levels q_i and
q_j, their mid-point m, a dead zone `rho` around the levels and a reach `vrho` of the outputs,

    w = q_i                                      u <= a = min(m, q_i + rho)
    line from (a, q_i) to (m, min(m, q_i + vrho))        a < u < m
    line from (m, max(m, q_j - vrho)) to (b, q_j)        m <= u < b = max(m, q_j - rho)
    w = q_j                                      u >= b

vrho = 0 or rho >= the half gap is rounding; rho = 0 and vrho >= the half gap the (clipped) identity.
"""

import math

import torch

__all__ = ["SCHEDULES", "inverse_slope", "linear_map", "nearest", "prox_map"]

SCHEDULES = ("parq", "relax", "linear", "hard", "identity")


def _neighbours(u, levels):
    """Lower and upper neighbouring level of each entry, equal outside. u (rows, n), levels (rows, k) sorted."""
    above = torch.searchsorted(levels, u, right=True)
    upper = levels.gather(1, above.clamp(max=levels.shape[1] - 1))
    return levels.gather(1, (above - 1).clamp(min=0)), upper


def nearest(u, levels):
    """P_Q: the nearest level, the lower one at a tie. u (rows, n), levels (rows, k) sorted."""
    middle = ((levels[:, 1:] + levels[:, :-1]) / 2).contiguous()
    return levels.gather(1, torch.searchsorted(middle, u))


def linear_map(u, levels, rho, vrho):
    """L_{rho,vrho}, as in the module's formula, with rho and vrho as shares of the half gap between neighbours.

    Parameters
    ----------
    u : Tensor (rows, n)
    levels : Tensor (rows, k), sorted
    rho, vrho : float in [0, 1]

    Examples
    --------
    >>> import torch
    >>> levels = torch.tensor([[-1.0, 1.0]])
    >>> u = torch.tensor([[-2.0, -0.6, 0.4, 0.9]])
    >>> linear_map(u, levels, 0.0, 1.0)
    tensor([[-1.0000, -0.6000,  0.4000,  0.9000]])
    >>> linear_map(u, levels, 0.5, 1.0)
    tensor([[-1.0000, -1.0000,  0.8000,  1.0000]])
    """
    u = torch.minimum(torch.maximum(u, levels[:, :1]), levels[:, -1:])
    if rho >= 1 or vrho <= 0:
        return nearest(u, levels)
    if rho <= 0 and vrho >= 1:
        return u
    low, high = _neighbours(u, levels)
    middle, half = (low + high) / 2, (high - low) / 2
    left = u < middle
    distance = torch.where(left, u - low, high - u)  # to the nearer level, 0 .. half
    away = ((distance - rho * half) * (vrho / (1 - rho))).clamp(min=0)
    return torch.where(left, low + away, high - away)


def inverse_slope(progress, steepness):
    """PARQ's inverse slope: a mirrored sigmoid of the annealing's progress, 1 at 0 and 0 at 1.

    Examples
    --------
    >>> [round(inverse_slope(progress, 10), 3) for progress in (0, 0.25, 0.5, 1)]
    [1.0, 0.93, 0.5, 0.0]
    """
    low, high = 1 / (1 + math.exp(steepness / 2)), 1 / (1 + math.exp(-steepness / 2))
    here = 1 / (1 + math.exp(steepness * (min(1.0, max(0.0, progress)) - 0.5)))
    return (here - low) / (high - low)


def prox_map(schedule, u, levels, progress, steepness):
    """The map of a schedule at a share `progress` of the annealing: before 0 the identity, from 1 on rounding.

    Parameters
    ----------
    schedule : {"parq", "relax", "linear", "hard", "identity"}
        "parq": rho = half gap times (1 - inverse slope), vrho = half gap; "linear": the same with rho growing linearly;
        "relax": rho = 0, vrho shrinking linearly, which is BinaryRelax.
    u : Tensor (rows, n)
    levels : Tensor (rows, k), sorted
    progress, steepness : float
    """
    if schedule == "identity" or (schedule != "hard" and progress < 0):
        return u.clone()
    if schedule == "hard" or progress >= 1:
        return nearest(u, levels)
    if schedule == "relax":
        return u * (1 - progress) + progress * nearest(u, levels)
    rho = progress if schedule == "linear" else 1 - inverse_slope(progress, steepness)
    return linear_map(u, levels, rho, 1.0)
