"""Tables with named, typed columns -> one numeric matrix.

A table is a pandas DataFrame (recognised by what it offers, pandas is never imported) or anything ``numpy.asarray``
understands. Text and category columns become codes 0..K-1; numeric columns stay as they are.
"""

from numbers import Real

import numpy as np
from scipy.sparse import issparse

_TEXT_DTYPES = ("category", "categorical", "enum", "str", "string", "large_string", "utf8")
_MISSING_TYPES = ("NAType", "NaTType")  # pandas' own missing scalars, recognised without importing pandas


def is_table(X):
    """Tell whether `X` is a DataFrame: named columns, each with a dtype of its own."""
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def column_name(X, i):
    """Return how messages name column `i`: its quoted name in a DataFrame, else its index."""
    return repr(X.columns[i]) if is_table(X) else str(i)


def resolve_categorical(X, categorical_features):
    """Find the categorical columns of a table.

    Parameters
    ----------
    X : DataFrame or array-like of shape (n_samples, n_features)
        The training data.
    categorical_features : "from_dtype", None or array-like of bool, int or str
        ``"from_dtype"`` takes the category and text columns of a DataFrame, and those object columns that hold
        anything but numbers; bool columns are numbers, and any other `X` has no categorical column. ``None`` takes
        no column. Otherwise a mask of shape (n_features,), column indices, or column names.

    Returns
    -------
    ndarray of bool, shape (n_features,)

    Raises
    ------
    ValueError
        If `categorical_features` names no column of `X` or is of another kind.
    """
    X = as_table(X)
    n_features = X.shape[1]
    mask = np.zeros(n_features, dtype=bool)
    if categorical_features is None:
        return mask
    if isinstance(categorical_features, str):
        if categorical_features != "from_dtype":
            raise ValueError(
                f"categorical_features={categorical_features!r} is not accepted; "
                "use 'from_dtype', None, a boolean mask, column indices or a list of column names"
            )
        if is_table(X):
            mask[:] = [_is_categorical_column(_column(X, i)) for i in range(n_features)]
        return mask

    chosen = np.asarray(categorical_features)
    if chosen.size == 0:
        return mask
    if chosen.ndim != 1 or not (chosen.dtype.kind in "biuU" or all(isinstance(name, str) for name in chosen)):
        raise ValueError(
            f"categorical_features={categorical_features!r} is not accepted; "
            "use 'from_dtype', None, a boolean mask, column indices or a list of column names"
        )
    if chosen.dtype.kind == "b":
        if len(chosen) != n_features:
            raise ValueError(f"categorical_features is a mask of {len(chosen)} entries, but X has {n_features} columns")
        return chosen.copy()
    if chosen.dtype.kind in "iu":
        outside = chosen[(chosen < 0) | (chosen >= n_features)]
        if outside.size:
            raise ValueError(f"categorical_features holds the index {outside[0]}; X has columns 0 to {n_features - 1}")
        mask[chosen] = True
        return mask
    if not is_table(X):
        raise ValueError("categorical_features holds column names, but X has none; use indices or a boolean mask")
    names = list(X.columns)
    for name in chosen:
        if name not in names:
            raise ValueError(f"categorical_features holds {str(name)!r}, which is no column of X; columns are {names}")
        mask[names.index(name)] = True
    return mask


def learn_categories(X, mask):
    """Collect the levels of the categorical columns.

    Parameters
    ----------
    X : DataFrame or array-like of shape (n_samples, n_features)
    mask : ndarray of bool, shape (n_features,)
        True for categorical columns.

    Returns
    -------
    list of (ndarray or None), length n_features
        The sorted levels present in a categorical column (text or numbers, missing values left out), None for a
        numeric column.

    Raises
    ------
    TypeError
        If a categorical column mixes text and numbers, or holds anything else.
    """
    X = as_table(X)
    categories = [None] * X.shape[1]
    for i in np.flatnonzero(mask):
        _, levels = _factorize(_column(X, i), column_name(X, i))
        categories[i] = _sorted_levels(levels, column_name(X, i))
    return categories


def encode_table(X, categories, *, dtype=np.float64):
    """Turn a table into one numeric matrix.

    Parameters
    ----------
    X : DataFrame or array-like of shape (n_samples, n_features)
    categories : list of (ndarray or None), length n_features
        As returned by :func:`learn_categories`.
    dtype : dtype, default=float64
        Of the result when there is a categorical column. Without one the columns keep their common dtype, and a
        numeric array is returned as it is (uint8 stays uint8).

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        Numeric columns hold their values; categorical ones codes 0..K-1, -1 for a level not in `categories`.
        Missing values (NaN, None, pandas.NA) are NaN.

    Raises
    ------
    ValueError
        If a numeric column holds text, the number of columns differs from ``len(categories)``, or an integer
        `dtype` would have to hold a missing value.
    TypeError
        If a column holds anything but numbers, text, categories and booleans, or `X` is sparse.
    """
    X = as_table(X)
    n_samples, n_features = X.shape
    if n_features != len(categories):
        raise ValueError(f"X has {n_features} columns, but {len(categories)} were learned")
    all_numeric = all(levels is None for levels in categories)
    if all_numeric:
        if not is_table(X) and X.dtype.kind in "biufc":
            return X
        if is_table(X) and n_features and _is_homogeneous(X):
            return X.to_numpy()

    names = [column_name(X, i) for i in range(n_features)]
    columns = [
        _numbers(_column(X, i), names[i]) if levels is None else _codes(_column(X, i), levels, names[i])
        for i, levels in enumerate(categories)
    ]
    dtype = np.result_type(*columns) if all_numeric and columns else np.dtype(dtype)
    matrix = np.empty((n_samples, n_features), dtype=dtype)
    for i, column in enumerate(columns):
        if dtype.kind in "biu" and column.dtype.kind == "f" and np.isnan(column).any():
            raise ValueError(f"column {names[i]} has missing values, which {dtype} cannot hold; use a floating dtype")
        matrix[:, i] = column
    return matrix


def as_table(X):
    """Return a DataFrame as it is, anything else as a 2-D array."""
    if is_table(X):
        return X
    if issparse(X):
        raise TypeError("Sparse data was passed for X, but dense data is required; use X.toarray()")
    array = np.asarray(X)
    if array.dtype.kind in "US" and not isinstance(X, np.ndarray):
        array = np.asarray(X, dtype=object)  # a nested list of text and numbers: keep the numbers numbers
    if array.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {array.ndim}D array instead. Reshape your data with X.reshape(-1, 1) if it has a "
            "single feature, or X.reshape(1, -1) if it has a single sample."
        )
    return array


def _column(X, i):
    if hasattr(X, "iloc"):
        return X.iloc[:, i]
    return X[:, i].to_numpy() if is_table(X) else X[:, i]


def _is_homogeneous(X):
    first, *others = X.dtypes
    return isinstance(first, np.dtype) and first.kind in "biuf" and all(dtype == first for dtype in others)


def _is_categorical_column(column):
    if str(column.dtype).lower().split("[")[0] in _TEXT_DTYPES:
        return True
    if getattr(column.dtype, "kind", None) == "O":
        return not all(_is_number(value) or _is_missing(value) for value in np.asarray(column, dtype=object))
    return False


def _is_number(value):
    return isinstance(value, Real | np.bool_)


def _is_missing(value):
    return value is None or type(value).__name__ in _MISSING_TYPES or (isinstance(value, Real) and value != value)


def _factorize(column, name):
    """Return codes (n,), -1 where missing, and the list of distinct values they index."""
    if hasattr(column, "factorize"):
        try:
            codes, distinct = column.factorize()
        except TypeError as error:
            raise TypeError(f"column {name} holds values that are neither text nor numbers: {error}") from error
        return codes, np.asarray(distinct).tolist()
    if column.dtype.kind in "biuf":
        codes = np.full(len(column), -1, dtype=np.intp)
        present = ~np.isnan(column)
        distinct, codes[present] = np.unique(column[present], return_inverse=True)
        return codes, distinct.tolist()
    index = {}
    values = column.tolist()
    try:
        codes = [-1 if _is_missing(value) else index.setdefault(value, len(index)) for value in values]
    except TypeError as error:
        raise TypeError(f"column {name} holds values that are neither text nor numbers: {error}") from error
    return np.array(codes, dtype=np.intp), list(index)


def _sorted_levels(levels, name):
    if all(isinstance(level, str) for level in levels):
        return np.array(sorted(levels), dtype=str)
    if all(_is_number(level) for level in levels):
        return np.array(sorted(levels))
    kinds = ", ".join(sorted({type(level).__name__ for level in levels}))
    raise TypeError(f"column {name} holds {kinds}; a categorical column holds only text or only numbers")


def _codes(column, levels, name):
    codes, distinct = _factorize(column, name)
    known = {level: code for code, level in enumerate(levels.tolist())}
    # One entry past the distinct values stands for "missing", which _factorize codes as -1.
    return np.array([known.get(value, -1) for value in distinct] + [np.nan])[codes]


def _numbers(column, name):
    kind = getattr(column.dtype, "kind", "V")
    if kind in "biufc":
        if isinstance(column.dtype, np.dtype):
            return np.asarray(column)
        return column.to_numpy(dtype=np.float64, na_value=np.nan)  # pandas' nullable and Arrow numbers
    if kind not in "OUST":
        raise TypeError(
            f"column {name} has dtype {column.dtype}; numbers, text, categories and booleans are accepted, "
            "so turn it into a number first"
        )
    values = np.asarray(column, dtype=object)
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError):
        return np.array([_number(value, name, row) for row, value in enumerate(values)])


def _number(value, name, row):
    if _is_missing(value):
        return np.nan
    try:
        return float(value)
    except ValueError:
        raise ValueError(
            f"column {name} holds {value!r} (row {row}), not a number; a column counts as text only if it was text "
            "when fitted (DataFrame) or is listed in categorical_features"
        ) from None
    except TypeError:
        raise TypeError(
            f"column {name} holds {value!r} (row {row}); argument must be a string or a real number, "
            f"not {type(value).__name__}"
        ) from None
