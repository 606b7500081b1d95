"""Adam, learning-rate schedules and other pieces that gradient-trained models share."""

import math

import numpy as np

__all__ = ["ADAM", "Adam", "cosine", "log_linear"]

# Adam (D. Kingma, J. Ba, ICLR 2015) with the constants of the published experiments
ADAM = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-7}


class Adam:
    """Adam over a dict of arrays, changed in place.

    Parameters
    ----------
    parameters : dict of str to float ndarray
    beta1, beta2, epsilon : float

    Examples
    --------
    >>> import numpy as np
    >>> parameters = {"w": np.array([1.0])}
    >>> adam = Adam(parameters)
    >>> for _ in range(200):
    ...     adam.step(parameters, {"w": 2 * parameters["w"]}, 0.05)
    >>> bool(abs(parameters["w"][0]) < 0.01)
    True
    """

    def __init__(self, parameters, *, beta1=ADAM["beta1"], beta2=ADAM["beta2"], epsilon=ADAM["epsilon"]):
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.n_steps = 0
        self.moments = {name: (np.zeros_like(value), np.zeros_like(value)) for name, value in parameters.items()}

    def step(self, parameters, gradients, rate) -> None:
        """Move every parameter that has a gradient against it; `rate` is the learning rate of this step."""
        self.n_steps += 1
        rate = rate * np.sqrt(1 - self.beta2**self.n_steps) / (1 - self.beta1**self.n_steps)
        for name, gradient in gradients.items():
            first, second = self.moments[name]
            first += (1 - self.beta1) * (gradient - first)
            second += (1 - self.beta2) * (gradient * gradient - second)
            value = parameters[name]
            value -= value.dtype.type(rate) * first / (np.sqrt(second) + self.epsilon)


def log_linear(start: float, end: float, n: int) -> np.ndarray:
    """Return n values from `start` to `end` whose logarithms are evenly spaced.

    Examples
    --------
    >>> log_linear(1.0, 0.01, 3).tolist()
    [1.0, 0.1, 0.01]
    """
    return np.geomspace(start, end, n)


def cosine(step: int, n_steps: int) -> float:
    """Return the share of the learning rate at a step: 1 at the first, falling along half a cosine to 0 at the end.

    Examples
    --------
    >>> round(cosine(5, 10), 3)
    0.5
    """
    return 0.5 * (1 + math.cos(math.pi * min(step / n_steps, 1.0)))
