"""Learning-rate schedules and other pieces that gradient-trained models share."""

import numpy as np

__all__ = ["ADAM", "log_linear"]

# Adam (D. Kingma, J. Ba, ICLR 2015) with the constants of the published experiments
ADAM = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-7}


def log_linear(start: float, end: float, n: int) -> np.ndarray:
    """Return n values from `start` to `end` whose logarithms are evenly spaced.

    Examples
    --------
    >>> log_linear(1.0, 0.01, 3).tolist()
    [1.0, 0.1, 0.01]
    """
    return np.geomspace(start, end, n)
