"""Checks of fit's arguments that scikit-learn does not have in this form."""

import numpy as np
from sklearn.utils import _safe_indexing, compute_class_weight
from sklearn.utils.validation import _check_sample_weight, _num_samples, check_non_negative

__all__ = ["check_weights", "class_factors", "drop_weightless", "encode_labels"]


def check_weights(sample_weight, X):
    """Return the weights of the rows as float64 (n_samples,), or None when every row counts once.

    A weight of 0 means that the row is not there, so the caller drops such rows before anything is learned from them.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), float or None
    X : array-like
        Read for its length only.

    Raises
    ------
    ValueError
        If the weights are negative, not finite, of the wrong shape or all zero.
    """
    if sample_weight is None:
        return None
    rows = np.empty((_num_samples(X), 1))  # X itself may be a table of text
    weights = _check_sample_weight(sample_weight, rows, dtype=np.float64)
    check_non_negative(weights, "sample_weight")
    if not weights.any():
        raise ValueError("sample_weight must have at least one positive entry, all are zero")
    return None if (weights == 1.0).all() else weights


def drop_weightless(X, y, weights):
    """Return table, target (or None) and weights (or None) without the rows of weight 0.

    Examples
    --------
    >>> import numpy as np
    >>> X, y, weights = drop_weightless(np.eye(3), np.array([5, 6, 7]), np.array([1.0, 0.0, 2.0]))
    >>> y.tolist(), weights.tolist()
    ([5, 7], [1.0, 2.0])
    """
    if weights is None or weights.all():
        return X, y, weights
    kept = np.flatnonzero(weights)
    return _safe_indexing(X, kept), None if y is None else _safe_indexing(y, kept), weights[kept]


def class_factors(class_weight, classes, y_index, sample_weight):
    """Return the factor of every class, float64 (n_classes,).

    Unlike `sklearn.utils.compute_class_weight`, "balanced" counts the weights of the rows, so that a weight of 2 is
    the same as the row twice.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        Factors by class label (1 for those not named), or ``n / (n_classes * n_class)``.
    classes : array (n_classes,)
    y_index : int array (n_samples,)
        Position of each row's label in `classes`.
    sample_weight : array (n_samples,) or None

    Raises
    ------
    ValueError
        If `class_weight` names a class that does not occur, or a factor is negative.

    Examples
    --------
    >>> import numpy as np
    >>> class_factors("balanced", np.array(["a", "b"]), np.array([0, 0, 0, 1]), None).round(3).tolist()
    [0.667, 2.0]
    """
    if isinstance(class_weight, str):
        mass = np.bincount(y_index, weights=sample_weight, minlength=len(classes))
        return mass.sum() / (len(classes) * mass)
    factors = compute_class_weight(class_weight, classes=classes, y=classes)
    if (factors < 0).any():
        raise ValueError(f"class_weight must not be negative, got {class_weight!r}")
    return factors


def encode_labels(y):
    """Return the sorted labels and each row's position among them, as ``np.unique(y, return_inverse=True)`` does.

    Small integers are not sorted, which took a third of the time of a fit.

    Examples
    --------
    >>> import numpy as np
    >>> classes, index = encode_labels(np.array([7, 5, 7]))
    >>> classes.tolist(), index.tolist()
    ([5, 7], [1, 0, 1])
    """
    if y.dtype.kind not in "iu" or not len(y):
        return np.unique(y, return_inverse=True)
    low, high = int(y.min()), int(y.max())
    if high - low >= max(len(y), 256) or high >= 2**62:
        return np.unique(y, return_inverse=True)
    offset = y.astype(np.int64) - low if y.dtype.kind == "i" else (y - y.dtype.type(low)).astype(np.int64)
    seen = np.bincount(offset, minlength=high - low + 1) > 0
    return (np.flatnonzero(seen) + low).astype(y.dtype), (np.cumsum(seen) - 1)[offset]
