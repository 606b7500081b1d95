"""Distillation: a small model learns the softened outputs of a large one."""

from numbers import Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import nn
from torch.nn import functional

from effml.deep.plugs import LossTerm

__all__ = ["Distillation"]


class Distillation(LossTerm):
    """The term  weight * T^2 KL(softmax(teacher / T) || softmax(student / T)); for one output, the squared difference.

    The factor T^2 keeps the size of its gradient independent of T (G. Hinton, O. Vinyals, J. Dean, "Distilling the
    Knowledge in a Neural Network", 2015).

    Parameters
    ----------
    teacher : nn.Module
        In eval mode, without gradients; not saved with the student.
    temperature : float, default=2.0
        At least 1.
    weight : float, default=1.0

    Examples
    --------
    >>> import torch
    >>> from effml.deep import Batch, Distillation
    >>> teacher = torch.nn.Linear(2, 3)
    >>> x = torch.ones(4, 2)
    >>> round(Distillation(teacher=teacher).term(None, Batch(x, None, teacher(x))).item(), 6)
    0.0
    """

    _parameter_constraints: ClassVar[dict] = {
        "teacher": [nn.Module],
        "temperature": [Interval(Real, 1, None, closed="left")],
        "weight": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, *, teacher, temperature=2.0, weight=1.0):
        self.teacher = teacher
        self.temperature = temperature
        self.weight = weight

    def term(self, model, batch):
        """The distance to the teacher's outputs."""
        self.teacher.eval()
        with torch.no_grad():
            taught = self.teacher(batch.inputs)
        if taught.shape[-1] == 1:
            return self.weight * functional.mse_loss(batch.outputs, taught)
        T = self.temperature
        divergence = functional.kl_div(
            functional.log_softmax(batch.outputs / T, dim=1),
            functional.log_softmax(taught / T, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return self.weight * T**2 * divergence
