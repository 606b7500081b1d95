"""Rows of pandas DataFrames whose columns are mixed from several rows, with every column's own dtype."""

import numpy as np

__all__ = ["MixedRows", "is_frame", "is_plain", "joined"]


def is_frame(X):
    """Return whether X is a pandas DataFrame; pandas is not imported for it."""
    return hasattr(X, "iloc") and hasattr(X, "columns")


def is_plain(frame):
    """Return whether all columns are float32, or all float64: such rows are mixed as one matrix."""
    dtypes = list(frame.dtypes)
    return dtypes[:1] in ([np.float32], [np.float64]) and all(dtype == dtypes[0] for dtype in dtypes)


class MixedRows:
    """Rows that take each column from some row of a DataFrame.

    Parameters
    ----------
    frame : DataFrame
    numbers : int64 array (n_rows, n_columns)
        Row of `frame` that each cell is taken from.
    """

    def __init__(self, frame, numbers):
        self.frame = frame
        self.numbers = numbers

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, chosen):
        return MixedRows(self.frame, self.numbers[chosen])

    def to_frame(self, numbers=None):
        """Return the rows, or those with other numbers, as a DataFrame."""
        numbers = self.numbers if numbers is None else numbers
        columns = {j: self.frame.iloc[:, j].array.take(numbers[:, j]) for j in range(numbers.shape[1])}
        mixed = type(self.frame)(columns, copy=False)
        mixed.columns = self.frame.columns
        return mixed

    def levels(self):
        """Return a number for each distinct value of each column of `frame`, int64 (n, n_columns); missing is -1."""
        import pandas as pd

        return np.stack([pd.factorize(self.frame.iloc[:, j].array)[0] for j in range(self.frame.shape[1])], axis=1)


def joined(background, X):
    """Return the background and X below each other as one DataFrame with the dtypes of the background.

    Numeric columns of two types get their common type, categories those of both. X may be a Series (one row) or an
    array. Raises ValueError where columns or dtypes do not fit.
    """
    import pandas as pd

    if isinstance(X, pd.Series):
        X = X.to_frame().T
    typed = is_frame(X) and not all(pd.api.types.is_object_dtype(dtype) for dtype in X.dtypes)
    if not is_frame(X):
        X = np.asarray(X, dtype=object)
        X = pd.DataFrame(X[None] if X.ndim == 1 else X)
        if X.shape[1] != background.shape[1]:
            raise ValueError(f"X has {X.shape[1]} columns, the background has {background.shape[1]}")
        X.columns = background.columns
    if list(X.columns) != list(background.columns):
        raise ValueError(f"X has columns {list(X.columns)}, the background has {list(background.columns)}")
    columns = {}
    for j, name in enumerate(background.columns):
        upper, lower = background.iloc[:, j], X.iloc[:, j]
        try:
            lower = lower if typed else lower.astype(upper.dtype)
        except (TypeError, ValueError) as error:
            raise ValueError(f"X: column {name!r} does not hold {upper.dtype} values: {error}") from None
        columns[j] = _column(upper, lower, name)
    frame = type(background)(columns)
    frame.columns = background.columns
    return frame


def _column(upper, lower, name):
    import pandas as pd

    numeric = [getattr(column.dtype, "kind", "O") in "iuf" for column in (upper, lower)]
    category = [isinstance(column.dtype, pd.CategoricalDtype) for column in (upper, lower)]
    text = [_is_text(column.dtype) for column in (upper, lower)]
    if all(category) and upper.dtype != lower.dtype:
        categories = upper.cat.categories.union(lower.cat.categories, sort=False)
        shared = pd.CategoricalDtype(categories, ordered=upper.cat.ordered)
        upper, lower = upper.astype(shared), lower.astype(shared)
    elif upper.dtype != lower.dtype and not (all(numeric) or (all(text) and not any(category))):
        raise ValueError(f"X: column {name!r} is {lower.dtype}, in the background it is {upper.dtype}")
    return pd.concat([upper, lower], ignore_index=True)


def _is_text(dtype):
    import pandas as pd

    return pd.api.types.is_string_dtype(dtype) or pd.api.types.is_object_dtype(dtype)
