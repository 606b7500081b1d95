"""Mini-batch training of a network: log-linear learning rate, early stopping with the best epoch kept."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from threadpoolctl import threadpool_limits

from effml._optim import log_linear
from effml.neural.losses import LOSSES

__all__ = ["LAST_RATE", "Rows", "Schedule", "Trained", "train"]

LAST_RATE = 1e-4  # learning rate of the last epoch over that of the first


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    max_iter: int
    batch_size: int
    learning_rate: float
    alpha: float
    n_iter_no_change: int
    tol: float
    constant_rate: bool = False
    verbose: bool = False

    def rates(self):
        """Return the learning rate of each epoch."""
        last = self.learning_rate if self.constant_rate else self.learning_rate * LAST_RATE
        return log_linear(self.learning_rate, last, self.max_iter)


@dataclass
class Rows:
    """Training rows: codes or floats that become float batches one at a time, so that no copy of the data is made.

    Attributes
    ----------
    values : ndarray (n, d)
        Codes, or floats.
    target : ndarray
        As the loss takes it.
    weights : float array (n,)
        Mean 1.
    positions : int array
        The rows to train on.
    zero_point, step : float
        A batch is ``(values - zero_point) * step``.
    """

    values: np.ndarray
    target: np.ndarray
    weights: np.ndarray
    positions: np.ndarray
    zero_point: float = 0.0
    step: float = 1.0
    dtype: type = np.float32
    _memory: dict = field(default_factory=dict)

    def batch(self, positions):
        """Return inputs (n, d), targets and weights of some rows; the inputs are overwritten by the next batch."""
        shape = (len(positions), *self.values.shape[1:])
        taken = self._held("taken", shape, self.values.dtype)
        np.take(self.values, positions, axis=0, out=taken, mode="clip")
        if self.values.dtype == self.dtype and self.step == 1 and self.zero_point == 0:
            inputs = taken
        else:
            inputs = self._held("inputs", shape, np.dtype(self.dtype))
            np.multiply(taken, self.dtype(self.step), out=inputs)
            inputs -= self.dtype(self.zero_point * self.step)
        return inputs, self.target[positions], self.weights[positions]

    def _held(self, name, shape, dtype):
        held = self._memory.get(name)
        if held is None or len(held) < shape[0]:
            held = self._memory[name] = np.empty(shape, dtype=dtype)
        return held[: shape[0]]


@dataclass
class Trained:
    """What training left behind."""

    loss_curve: list = field(default_factory=list)
    validation_scores: list = field(default_factory=list)


def train(network, state, adam, rows, loss, schedule, random_state, validate: Callable | None = None):
    """Train in place and return the curves.

    Parameters
    ----------
    network : Network
    state : dict of str to ndarray
        All arrays of the model, moving averages included: what the best epoch is restored from.
    adam : ClippedAdam
    rows : Rows
    loss : str
        A key of LOSSES.
    schedule : Schedule
    random_state : RandomState
        Orders the rows.
    validate : callable, optional
        Returns a score, greater is better; training then stops early and the best epoch is kept.

    Returns
    -------
    Trained
    """
    trained, best, waited = Trained(), None, 0
    with threadpool_limits(1, user_api="blas"):
        for epoch, rate in enumerate(schedule.rates()):
            value = _epoch(network, adam, rows, loss, schedule, rate, random_state)
            trained.loss_curve.append(value)
            if schedule.verbose:
                print(f"Iteration {epoch + 1}, loss = {value:.8f}")
            if not np.isfinite(value):
                raise ValueError(
                    f"the loss became {value} in epoch {epoch + 1}; lower learning_rate_init={schedule.learning_rate}"
                )
            if validate is None:
                continue
            score = validate()
            trained.validation_scores.append(score)
            if schedule.verbose:
                print(f"Validation score: {score:.6f}")
            waited = 0 if best is None or score > best[0] + schedule.tol else waited + 1
            if best is None or score > best[0]:
                best = score, {name: array.copy() for name, array in state.items()}
            if waited >= schedule.n_iter_no_change:
                break
    if best is not None:
        for name, array in best[1].items():
            state[name][...] = array
        network.refresh()
    return trained


def _epoch(network, adam, rows, loss, schedule, rate, random_state):
    """Run over the rows once, without the last batch where it is short, and return the mean loss."""
    order = rows.positions[random_state.permutation(len(rows.positions))]
    n_batches = max(1, len(order) // schedule.batch_size)
    total = 0.0
    for start in range(0, n_batches * schedule.batch_size, schedule.batch_size):
        inputs, target, weights = rows.batch(order[start : start + schedule.batch_size])
        out = network.forward(inputs, training=True)
        value, to_out = LOSSES[loss](out, target, weights)
        to_out *= to_out.dtype.type(1 / len(inputs))
        network.backward(to_out)
        adam.step(network.parameters, network.gradients, rate, schedule.alpha / len(order))
        network.refresh()
        total += value
    return total / (n_batches * min(schedule.batch_size, len(order)))
