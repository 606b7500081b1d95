"""From a table to the integer codes of a Bayesian network classifier: states 0 .. r_i - 1, anything else missing."""

import numpy as np
import scipy.sparse
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from effml._cext.tables import valid_codes
from effml.bayes.tables import MAX_STATES, codes_dtype
from effml.discretization import MDLPDiscretizer

__all__ = ["as_codes", "check_states", "declared_states", "discretize", "fit_discretizer", "infer_states"]

_KERNEL_DTYPES = {np.dtype(t) for t in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "f4", "f8")}


def fit_discretizer(discretizer, X, y, sample_weight, *, max_bins, categorical_features, missing, n_jobs):
    """Return a fitted transformer: a new MDLPDiscretizer for "mdlp", else a fitted clone of `discretizer`."""
    if isinstance(discretizer, str):
        discretizer = MDLPDiscretizer(
            max_bins=max_bins,
            categorical_features=categorical_features,
            missing="error" if missing == "error" else "code",
            n_jobs=n_jobs,
        )
    else:
        discretizer = clone(discretizer)
    weights = {}
    if sample_weight is not None:
        if not has_fit_parameter(discretizer, "sample_weight"):
            raise ValueError(
                f"discretizer={discretizer!r} takes no sample_weight, which sample_weight and class_weight need"
            )
        weights = {"sample_weight": sample_weight}
    discretizer.fit(X, y, **weights)
    check_is_fitted(discretizer)
    return discretizer


def discretize(discretizer, X):
    """Return what a fitted discretizer makes of X, checked to be a dense matrix of numbers."""
    values = discretizer.transform(X)
    if scipy.sparse.issparse(values):
        raise ValueError(
            f"discretizer={discretizer!r} gives a sparse matrix; one integer code per feature is needed, "
            "for example KBinsDiscretizer(encode='ordinal')"
        )
    values = np.asarray(values)
    if values.ndim != 2 or not np.can_cast(values.dtype, np.float64, casting="same_kind"):
        raise ValueError(
            f"discretizer={discretizer!r} gives an array of dtype {values.dtype} and shape {values.shape}; "
            "one integer code per feature is needed"
        )
    return values


def declared_states(discretizer):
    """Return the numbers of states that a fitted discretizer knows of, int64 (n_features,), or None."""
    for attribute in ("n_states_", "n_bins_"):  # ours and scikit-learn's KBinsDiscretizer
        if hasattr(discretizer, attribute):
            return np.maximum(np.asarray(getattr(discretizer, attribute), dtype=np.int64), 1)
    return None


def infer_states(values, n_states, names):
    """Return the number of states of each column of codes, int64 (n_features,).

    Parameters
    ----------
    values : numeric array (n_samples, n_features)
        Codes, NaN where missing.
    n_states : int, array-like (n_features,) or None
        Numbers given by the user; None takes one more than the largest code.
    names : sequence of str (n_features,)

    Raises
    ------
    ValueError
        If `n_states` is no positive integer per feature, or a value is no integer from 0 to ``n_states - 1``.
    """
    n_features = values.shape[1]
    if n_states is None:
        present = True if values.dtype.kind in "iub" else ~np.isnan(values)
        largest = np.max(values, axis=0, initial=0, where=present)
        # One state more than the limit is enough for check_states to name the culprit.
        result = np.clip(largest, 0, MAX_STATES).astype(np.int64) + 1
    else:
        given = np.asarray(n_states)
        if given.shape not in ((), (n_features,)) or given.dtype.kind not in "iu" or given.min() < 1:
            raise ValueError(
                f"n_states must be a positive integer, or one for each of the {n_features} features, got {n_states!r}"
            )
        result = np.broadcast_to(given.astype(np.int64), (n_features,)).copy()
    check_states(values, result, names)
    return result


def check_states(values, n_states, names):
    """Raise a ValueError naming the first value that is neither NaN nor an integer in [0, n_states).

    Examples
    --------
    >>> import numpy as np
    >>> check_states(np.array([[1.0, np.nan], [2.0, 0.5]]), np.array([3, 2]), ["width", "height"])
    Traceback (most recent call last):
        ...
    ValueError: codes must be integers from 0, but height is 0.5 in row 1; discretizer='mdlp' bins numbers
    """
    if n_states.max() > MAX_STATES:
        name = names[int(n_states.argmax())]
        raise ValueError(f"{name} has more than {MAX_STATES} states; discretizer='mdlp' bins numbers")
    if values.dtype.kind in "iub" and len(values) and values.min() >= 0 and (values.max(axis=0) < n_states).all():
        return  # the usual case, without a pass over int64 copies of small integers
    if (values < 0).any():
        where = _first(values < 0, values, names)
        raise ValueError(f"Negative values in data: codes must be integers from 0, but {where}")
    if values.dtype.kind == "f":
        fractional = (np.floor(values) != values) & ~np.isnan(values)
        if fractional.any():
            where = _first(fractional, values, names)
            raise ValueError(f"codes must be integers from 0, but {where}; discretizer='mdlp' bins numbers")
    if (values >= n_states).any():
        where = _first(values >= n_states, values, names)
        raise ValueError(f"{where}, too large for n_states={n_states.tolist()}; give n_states when fit sees only some")


def _first(mask, values, names):
    row, column = np.argwhere(mask)[0]
    return f"{names[column]} is {values[row, column]} in row {row}"


def as_codes(values, n_states):
    """Return `values` as codes: integers in [0, n_states) as they are, all else as ``n_states``, which is missing.

    Parameters
    ----------
    values : numeric array (n_samples, n_features)
    n_states : int64 array (n_features,)

    Returns
    -------
    uint8 or uint16 array (n_samples, n_features), C-contiguous
        Unsigned codes of the right type are passed through: a larger code is out of range either way.
    """
    dtype = codes_dtype(n_states)
    if values.dtype == dtype:
        return np.ascontiguousarray(values)
    if values.dtype not in _KERNEL_DTYPES:
        values = values.astype(np.float64)
    codes = np.empty(values.shape, dtype=dtype)
    valid_codes(values, n_states, codes)
    return codes
