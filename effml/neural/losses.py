"""Losses of network training: the sum over the rows and the gradient of the outputs, which takes their place."""

import numpy as np
from scipy.special import expit

__all__ = ["LOSSES"]


def _logistic(out, target, weights):
    """Binary cross-entropy: out (n, 1), target (n,) of 0 and 1."""
    score = out[:, 0]
    signed = np.where(target > 0, score, -score)
    loss = float(np.logaddexp(0, -signed) @ weights)
    np.subtract(expit(score), target, out=score)
    score *= weights
    return loss, out


def _cross_entropy(out, target, weights):
    """Softmax cross-entropy: out (n, C), target (n,) of class numbers."""
    out -= out.max(axis=1, keepdims=True)
    rows = np.arange(len(out))
    chosen = out[rows, target]
    np.exp(out, out=out)
    total = out.sum(axis=1)
    loss = float((np.log(total) - chosen) @ weights)
    out *= (weights / total)[:, None]
    out[rows, target] -= weights
    return loss, out


def _squared(out, target, weights):
    """Half the squared error, summed over the outputs: out and target (n, n_outputs)."""
    out -= target
    loss = 0.5 * float(np.einsum("ij,ij,i->", out, out, weights))
    out *= weights[:, None]
    return loss, out


LOSSES = {"cross_entropy": _cross_entropy, "logistic": _logistic, "squared": _squared}
"""``loss(out, target, weights) -> (sum of the losses, gradient of out)``; `out` is overwritten."""
