"""What a measurement at a candidate promises, from the mean and the standard deviation predicted there.

All of them are for maximisation and larger is better.

Sources: UCB: N. Srinivas, A. Krause, S. Kakade, M. Seeger, "Gaussian process optimization in the bandit setting", ICML
2010. EI: D. Jones, M. Schonlau, W. Welch, "Efficient global optimization of expensive black-box functions", Journal of
Global Optimization 13, 1998.
"""

import numpy as np
from scipy.special import ndtr

__all__ = ["ACQUISITIONS", "expected_improvement", "upper_confidence_bound"]

ACQUISITIONS = ("ucb", "ei", "thompson")


def upper_confidence_bound(mean, std, kappa):
    """Return mean + kappa std, (n,).

    Examples
    --------
    >>> import numpy as np
    >>> upper_confidence_bound(np.array([1.0, 2.0]), np.array([1.0, 0.0]), 2.0).tolist()
    [3.0, 2.0]
    """
    return mean + kappa * std


def expected_improvement(mean, std, best, xi=0.0):
    """Return E max(f - best - xi, 0) for f ~ N(mean, std^2), (n,).

    With z = (mean - best - xi) / std it is (mean - best - xi) P(Z < z) + std phi(z); where std is 0, the improvement of
    the mean itself.

    Examples
    --------
    >>> import numpy as np
    >>> expected_improvement(np.array([1.0, 2.0]), np.array([0.0, 1.0]), 1.5).round(4).tolist()
    [0.0, 0.6978]
    """
    gain = mean - best - xi
    safe = np.where(std > 0, std, 1.0)
    z = gain / safe
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    return np.where(std > 0, gain * ndtr(z) + safe * density, np.maximum(gain, 0.0))
