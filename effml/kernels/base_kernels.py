"""Base kernels, all of unit diagonal, and how a user names them.

    RBF(scale)                  exp(-gamma |x - a|^2),  gamma = scale / median squared distance, or given
    Polynomial(degree, offset)  c^degree,  c = (x.a + offset) / sqrt((|x|^2 + offset) (|a|^2 + offset))

"linear" is the polynomial of degree 1 with its offset (d, the number of features: x.a / d + 1); "cosine" is the one
without, which a linear kernel of unit diagonal without an offset would be too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["RBF", "Polynomial", "parse_kernels"]


@dataclass(frozen=True)
class RBF:
    """Gaussian kernel.

    Parameters
    ----------
    scale : float > 0, default=0.5
        gamma times the median squared distance between training rows (of the kernel's group of features).
    gamma : float > 0 or None, default=None
        gamma itself; `scale` is not used then.

    Examples
    --------
    >>> from effml.kernels import RBF
    >>> RBF(scale=2.0)
    RBF(scale=2.0, gamma=None)
    """

    scale: float = 0.5
    gamma: float | None = None

    def __post_init__(self):
        for name in ("scale", "gamma"):
            value = getattr(self, name)
            if value is not None and not (np.isreal(value) and np.isfinite(value) and value > 0):
                raise ValueError(f"RBF {name}={value!r} must be a positive number")

    @property
    def label(self) -> str:
        """What plots and `kernel_names_` call it."""
        return f"RBF(scale={self.scale:g})" if self.gamma is None else f"RBF(gamma={self.gamma:g})"


@dataclass(frozen=True)
class Polynomial:
    """Polynomial kernel, divided by its diagonal.

    Parameters
    ----------
    degree : int in 1..9, default=2
    offset : float >= 0 or None, default=None
        Added to the inner product; None: the number of features, as in ``(x.a / d + 1) ** degree``. 0 with degree 1 is
        the cosine.
    """

    degree: int = 2
    offset: float | None = None

    def __post_init__(self):
        if not (isinstance(self.degree, int | np.integer) and 1 <= self.degree <= 9):
            raise ValueError(f"Polynomial degree={self.degree!r} must be an integer from 1 to 9")
        if self.offset is not None and not (np.isfinite(self.offset) and self.offset >= 0):
            raise ValueError(f"Polynomial offset={self.offset!r} must be a number of at least 0")

    @property
    def label(self) -> str:
        """What plots and `kernel_names_` call it."""
        if (self.degree, self.offset) == (1, 0):
            return "cosine"
        offset = "" if self.offset is None else f", offset={self.offset:g}"
        return f"Polynomial(degree={self.degree}{offset})"


_NAMES = {
    "rbf": RBF(),
    "linear": Polynomial(degree=1),
    "polynomial": Polynomial(degree=2),
    "poly": Polynomial(degree=2),
    "cosine": Polynomial(degree=1, offset=0.0),
}
_DEFAULT = (
    *(RBF(scale=2.0**j) for j in range(-3, 2)),
    Polynomial(degree=2),
    Polynomial(degree=3),
    Polynomial(degree=1, offset=0.0),
)
_DEFAULT_OF_A_GROUP = (RBF(),)


def parse_kernels(kernels, grouped: bool) -> list:
    """Return RBF, Polynomial and callables from the constructor parameter of an estimator.

    Raises
    ------
    ValueError, TypeError
        If an entry is no kernel.

    Examples
    --------
    >>> parse_kernels(["rbf", Polynomial(degree=3)], grouped=False)
    [RBF(scale=0.5, gamma=None), Polynomial(degree=3, offset=None)]
    """
    if isinstance(kernels, str) and kernels == "default":
        return list(_DEFAULT_OF_A_GROUP if grouped else _DEFAULT)
    if isinstance(kernels, str | RBF | Polynomial) or callable(kernels):
        kernels = [kernels]
    try:
        kernels = list(kernels)
    except TypeError:
        raise TypeError(f"kernels={kernels!r} must be 'default', a kernel or a list of kernels") from None
    if not kernels:
        raise ValueError("kernels is empty; give at least one kernel, or 'default'")
    return [_parse(kernel) for kernel in kernels]


def _parse(kernel) -> RBF | Polynomial | Callable:
    if isinstance(kernel, RBF | Polynomial) or (callable(kernel) and not isinstance(kernel, type)):
        return kernel
    if isinstance(kernel, str) and kernel in _NAMES:
        return _NAMES[kernel]
    names = ", ".join(repr(name) for name in ("default", *_NAMES))
    raise ValueError(
        f"kernels holds {kernel!r}, which is no kernel; use {names}, effml.kernels.RBF(...), "
        "effml.kernels.Polynomial(...) or a callable (X, A) -> array of shape (len(X), len(A))"
    )
