"""Mini-batch training of a Network: losses, weight decay, early stopping."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit
from threadpoolctl import threadpool_limits

from effml._optim import cosine

__all__ = ["LOSSES", "Rows", "Schedule", "Trained", "train"]


def _logistic(out, target, weights):
    """Binary cross-entropy: out (B, 1), target 0 or 1."""
    signed = np.where(target > 0, out[:, 0], -out[:, 0])
    loss = np.logaddexp(0, -signed)
    to_out = (expit(out[:, 0]) - target) * weights
    return float(loss @ weights), to_out[:, None].astype(out.dtype)


def _cross_entropy(out, target, weights):
    """Softmax cross-entropy: out (B, C), target class numbers."""
    shifted = out - out.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(out))
    to_out = np.exp(log_p)
    to_out[rows, target] -= 1
    return float(-log_p[rows, target] @ weights), (to_out * weights[:, None]).astype(out.dtype)


def _squared(out, target, weights):
    """Half the squared error, summed over the outputs: out and target (B, n_outputs)."""
    difference = out - target
    return 0.5 * float((difference**2).sum(axis=1) @ weights), (difference * weights[:, None]).astype(out.dtype)


LOSSES = {"logistic": _logistic, "cross_entropy": _cross_entropy, "squared": _squared}


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    max_iter: int
    batch_size: int
    learning_rate: float
    alpha: float
    gate_alpha: float
    dropout: float
    n_iter_no_change: int
    tol: float
    constant_rate: bool = False
    verbose: bool = False


@dataclass(frozen=True, eq=False)
class Rows:
    """Training rows, standardised batch by batch: no copy of the data is made.

    Attributes
    ----------
    X, target, weights : arrays of all rows; the weights have mean 1
    chosen : int array (n,), the rows to train on
    standardize : callable
    """

    X: np.ndarray
    target: np.ndarray
    weights: np.ndarray
    chosen: np.ndarray
    standardize: Callable

    def batch(self, positions):
        """Return standardised rows, targets and weights."""
        rows = self.chosen[positions]
        Z = self.standardize(self.X[rows])
        return Z, self.target[rows], self.weights[rows].astype(Z.dtype)


@dataclass
class Trained:
    """Loss of every epoch (mean over its rows, before each step, without the penalty) and validation scores."""

    loss_curve: list = field(default_factory=list)
    validation_scores: list = field(default_factory=list)


def train(network, parameters, adam, data, loss, schedule, random_state, validate=None) -> Trained:
    """Train `parameters` in place.

    Parameters
    ----------
    data : Rows
    loss : {"logistic", "cross_entropy", "squared"}
    validate : callable or None
        ``validate() -> float`` scores the parameters as they are; with it the best epoch's parameters are restored and
        training stops after `n_iter_no_change` epochs without an improvement by `tol`.
    """
    n, trained, best, waited = len(data.chosen), Trained(), None, 0
    n_steps = schedule.max_iter * -(-n // schedule.batch_size)
    step = 0
    with threadpool_limits(1, user_api="blas"):
        for epoch in range(schedule.max_iter):
            total, order = 0.0, random_state.permutation(n)
            for start in range(0, n, schedule.batch_size):
                batch = data.batch(order[start : start + schedule.batch_size])
                rate = schedule.learning_rate * (1.0 if schedule.constant_rate else cosine(step, n_steps))
                total += _step(network, parameters, adam, batch, loss, schedule, rate, n, random_state)
                step += 1
            trained.loss_curve.append(total / n)
            if schedule.verbose:
                print(f"Iteration {epoch + 1}, loss = {total / n:.8f}")
            if not np.isfinite(total):
                raise ValueError(
                    f"the loss became {total} in epoch {epoch + 1}; lower learning_rate_init={schedule.learning_rate}"
                )
            if validate is None:
                continue
            score = validate()
            trained.validation_scores.append(score)
            if schedule.verbose:
                print(f"Validation score: {score:.6f}")
            if best is None or score > best[0] + schedule.tol:
                waited = 0
            else:
                waited += 1
            if best is None or score > best[0]:
                best = score, {name: value.copy() for name, value in parameters.items()}
            if waited >= schedule.n_iter_no_change:
                break
    if best is not None:
        for name, value in best[1].items():
            parameters[name][...] = value
        network.set_bank(parameters)
    return trained


def _step(network, parameters, adam, batch, loss, schedule, rate, n, random_state):
    """Take one step; return the sum of the losses of the batch."""
    Z, target, weights = batch
    out, state = network.forward(parameters, Z, schedule.dropout, random_state)
    value, to_out = LOSSES[loss](out, target, weights)
    grads = network.backward(parameters, state, to_out / to_out.dtype.type(len(Z)))
    for name, factor in _decay(network, schedule).items():
        grads[name] = grads[name] + parameters[name] * parameters[name].dtype.type(factor / n)
    adam.step(parameters, grads, rate)
    network.set_bank(parameters)
    return value


def _decay(network, schedule):
    layers = {f"W{layer}": schedule.alpha for layer in range(1, network.n_layers + 1)}
    layers["W1"] *= network.feature_scale**2  # the penalty is that of weights on the Nystroem map itself
    return layers | dict.fromkeys(network.gate.decayed, schedule.gate_alpha)
