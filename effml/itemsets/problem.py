"""What the search for an itemset is given: the items of the rows, the state of the model and the limits."""

from dataclasses import dataclass
from functools import cached_property
from math import lgamma, log
from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_scalar

__all__ = ["Items", "Problem", "check_range", "checked_target", "multiplicity_penalty"]


def multiplicity_penalty(n_items, max_order, kappa=1.0):
    """Return the penalty in nats of each order, for a prior C(n_items, order)^-kappa on an itemset.

    pen(k) = kappa (log C(d, k) - log d) for k >= 2 and 0 for k <= 1; past k = d / 2, where the binomial falls, it stays
    at its maximum.

    Parameters
    ----------
    n_items : int
    max_order : int
    kappa : float, default=1.0
        0 means plain evidence.

    Returns
    -------
    float64 array (max_order + 1,)
        Entry k belongs to itemsets of k items.

    Examples
    --------
    >>> multiplicity_penalty(50, 3).round(3).tolist()
    [0.0, 0.0, 3.199, 5.971]
    """
    check_scalar(n_items, "n_items", Integral, min_val=0)
    check_scalar(max_order, "max_order", Integral, min_val=1)
    check_scalar(kappa, "kappa", Real, min_val=0)
    penalty = np.zeros(max_order + 1)
    for k in range(2, min(max_order, n_items) + 1):
        log_binomial = lgamma(n_items + 1) - lgamma(k + 1) - lgamma(n_items - k + 1)
        penalty[k] = kappa * (log_binomial - log(n_items))
    return np.maximum.accumulate(np.maximum(penalty, 0))


class Items:
    """Binary items of a set of rows, and the variable that each of them describes.

    Parameters
    ----------
    items : array-like of bool or 0/1 (n_rows, n_items)
        Which item holds on which row.
    variable : array-like of int (n_items,) or None, default=None
        No itemset has two items of one variable. None: every item is its own variable.

    Attributes
    ----------
    columns : uint8 array (n_items, n_rows)
    variable : int32 array (n_items,)
        Numbered from 0.

    Raises
    ------
    ValueError
        If `items` is not a 2-D array of 0 and 1 or `variable` has another length.

    Examples
    --------
    >>> items = Items([[1, 0], [1, 1], [0, 1]])
    >>> items.occurrences((0, 1)).tolist()
    [False, True, False]
    """

    def __init__(self, items, variable=None):
        self.columns = np.ascontiguousarray(zero_one(items, "items").T)
        if variable is None:
            variable = np.arange(self.n_items)
        variable = np.asarray(variable)
        if variable.shape != (self.n_items,):
            raise ValueError(f"variable must have shape ({self.n_items},), one entry an item, got {variable.shape}")
        self.variable = np.unique(variable, return_inverse=True)[1].astype(np.int32)

    @property
    def n_items(self) -> int:
        return self.columns.shape[0]

    @property
    def n_rows(self) -> int:
        return self.columns.shape[1]

    def occurrences(self, itemset):
        """Return the rows on which all items of an itemset hold.

        Parameters
        ----------
        itemset : sequence of int
            Item numbers; the empty itemset holds on every row.

        Returns
        -------
        bool array (n_rows,)
        """
        return self.columns[list(itemset)].all(axis=0) if len(itemset) else np.ones(self.n_rows, dtype=bool)

    def check_itemset(self, itemset, max_order, name="itemset"):
        """Return an itemset as a sorted tuple, or raise a ValueError if it is none of at most `max_order` items."""
        ordered = tuple(sorted(int(item) for item in itemset))
        if not 1 <= len(ordered) <= max_order:
            raise ValueError(f"{name} must have 1 to max_order={max_order} items, got {ordered}")
        if ordered[0] < 0 or ordered[-1] >= self.n_items:
            raise ValueError(f"{name} must hold item numbers from 0 to {self.n_items - 1}, got {ordered}")
        if len(set(self.variable[list(ordered)].tolist())) < len(ordered):
            raise ValueError(f"{name} must not have two items of one variable, got {ordered}")
        return ordered


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """What the search needs to know of the model so far, and which itemsets it may return.

    Parameters
    ----------
    items : Items
    u : array-like (n_rows,)
        C^-1 t = beta (t - Phi mu).
    beta : float
        Noise precision, 1 / sigma2.
    active : array-like of bool or 0/1 (n_rows, n_active) or None, default=None
        Columns in the model; None: there is none. A column of ones is the intercept.
    graded : array-like (n_rows, n_graded) or None, default=None
        Further columns in the model, of values from 0 to 1.
    covariance : array-like (n_active + n_graded, n_active + n_graded) or None, default=None
        Sigma, the posterior covariance of the weights of both.
    alpha : array-like (n_active,) or None, default=None
        Their prior precisions.
    min_support : int, default=1
        Fewest rows of an itemset.
    max_order : int, default=3
        Most items of an itemset.
    penalty : array-like (max_order + 1,) or None, default=None
        Nats taken from the gain of an itemset of k items, by k; not decreasing and not negative. None: zeros. See
        `multiplicity_penalty`.
    min_gain : float, default=0.0
        Only gains above it count, after the penalty.

    Raises
    ------
    ValueError, TypeError
        If a shape, a type or a value is not as above.
    """

    items: Items
    u: np.ndarray
    beta: float
    active: np.ndarray = None
    graded: np.ndarray = None
    covariance: np.ndarray = None
    alpha: np.ndarray = None
    min_support: int = 1
    max_order: int = 3
    penalty: np.ndarray = None
    min_gain: float = 0.0

    def __post_init__(self):
        if not isinstance(self.items, Items):
            raise TypeError(f"items must be an Items, got {type(self.items).__name__}")
        check_scalar(self.min_support, "min_support", Integral, min_val=1)
        check_scalar(self.max_order, "max_order", Integral, min_val=1)
        check_scalar(self.min_gain, "min_gain", Real, min_val=0)
        check_scalar(self.beta, "beta", Real, min_val=0, include_boundaries="neither")
        if not np.isfinite(self.beta):
            raise ValueError(f"beta must be finite, got {self.beta}")
        n_rows = self.items.n_rows
        active = np.zeros((n_rows, 0)) if self.active is None else self.active
        active = zero_one(active, "active")
        graded = np.zeros((n_rows, 0)) if self.graded is None else np.asarray(self.graded, dtype=np.float64)
        if graded.ndim != 2 or not ((graded >= 0) & (graded <= 1)).all():
            raise ValueError("graded must be a 2-D array of values from 0 to 1")
        n_columns = active.shape[1] + graded.shape[1]
        covariance = np.zeros((0, 0)) if self.covariance is None else self.covariance
        alpha = np.zeros(0) if self.alpha is None else self.alpha
        penalty = np.zeros(self.max_order + 1) if self.penalty is None else self.penalty
        values = {
            "active": checked(active, "active", (n_rows, active.shape[1]), np.uint8),
            "graded": checked(graded, "graded", (n_rows, graded.shape[1])),
            "u": checked(self.u, "u", (n_rows,)),
            "covariance": checked(covariance, "covariance", (n_columns, n_columns)),
            "alpha": checked(alpha, "alpha", (n_columns,)),
            "penalty": checked(penalty, "penalty", (self.max_order + 1,)),
        }
        if not (values["alpha"] > 0).all():
            raise ValueError(f"alpha must be positive, got {values['alpha'].min()}")
        if (values["penalty"] < 0).any() or (np.diff(values["penalty"]) < 0).any():
            raise ValueError(f"penalty must not be negative and not decrease, got {values['penalty'].tolist()}")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def phi(self) -> np.ndarray:
        """All columns in the model, float64 (n_rows, n_active + n_graded)."""
        return np.hstack([self.active.astype(np.float64), self.graded])

    @cached_property
    def lam(self) -> float:
        """The largest eigenvalue of C, sigma2 + lambda_max(A^-1/2 Phi'Phi A^-1/2), rounded up."""
        if not len(self.alpha):
            return 1 / self.beta
        root = 1 / np.sqrt(self.alpha)
        phi = self.phi
        largest = np.linalg.eigvalsh(root[:, None] * (phi.T @ phi) * root)[-1]
        return (1 / self.beta + max(largest, 0.0)) * (1 + 1e-10)


LARGEST = 1e100  # squares and their sums stay far from overflow


def check_range(values, name):
    """Raise a ValueError where numbers are too large, or all too small, to be squared."""
    largest = float(np.max(np.abs(values), initial=0.0, where=~np.isnan(values)))
    if largest > LARGEST or 0 < largest < 1 / LARGEST:
        raise ValueError(
            f"{name} must have magnitudes from {1 / LARGEST:g} to {LARGEST:g}, got {largest:g}; rescale it"
        )


def checked_target(y):
    """Return targets as float64 array; text that is no number, missing and extreme values raise a ValueError."""
    try:
        y = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"y must hold numbers: {error}") from None
    if not np.isfinite(y).all():
        raise ValueError(f"y must be finite, got {'NaN' if np.isnan(y).any() else 'infinity'}")
    check_range(y, "y")
    return y


def zero_one(values, name):
    """Return a 2-D array of 0 and 1 as uint8, or raise."""
    values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(f"{name} must be a 2-D array of 0 and 1, got {values.ndim} dimensions")
    if values.dtype.kind not in "buif":
        raise TypeError(f"{name} must be an array of bool or of 0 and 1, got dtype {values.dtype}")
    if values.dtype != bool and not ((values == 0) | (values == 1)).all():
        raise ValueError(f"{name} must hold only 0 and 1, got other values")
    return values.astype(np.uint8)


def checked(values, name, shape, dtype=np.float64):
    """Return a contiguous array of this shape with finite entries, or raise."""
    values = np.ascontiguousarray(values, dtype=dtype)
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return values
