"""The scikit-learn face of supervised binning: columns to cuts and levels, and the coding of rows."""

from numbers import Integral

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, _fit_context
from sklearn.utils import _safe_indexing, check_array, check_consistent_length, check_X_y
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from effml._cext.mdlp import code_by_edges, code_by_table
from effml._columns import as_table, column_name, encode_table, learn_categories, resolve_categorical
from effml._validation import drop_weightless, encode_labels

__all__ = ["SupervisedDiscretizer"]

_SEARCHED_DTYPES = (np.int32, np.int64, np.float32, np.float64)  # the types code_by_edges is compiled for


class SupervisedDiscretizer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Base of the discretisers; one that inherits says in `_learn_edges` where numeric columns are cut."""

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's own form
        "categorical_features": ["array-like", StrOptions({"from_dtype"}), None],
        "handle_unknown": [StrOptions({"missing", "error"})],
        "missing": [StrOptions({"code", "error"})],
        "n_jobs": [Integral, None],
    }

    def _learn_edges(self, matrix, classes, weights, numeric):
        """Return the ascending cuts of each column, float64; none for columns that are not numeric.

        matrix (n_samples, n_features) may hold NaN; classes int32 from 0; weights positive; numeric is a mask.
        """
        raise NotImplementedError

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Learn the cuts and the levels.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Class labels.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative; None means 1 for every row.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `y` is not a classification target, a value is infinite, a numeric column holds text, a value is
            missing with ``missing="error"``, every weight is 0, or a categorical column has over 65,534 levels.
        TypeError
            If a column holds anything but numbers, text, categories and booleans, or `X` is sparse.
        """
        X = as_table(X)
        validate_data(self, X, y, skip_check_array=True)
        check_consistent_length(X, y)
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weights.any():
            raise ValueError("sample_weight is 0 for every row; at least one has to count")
        X, y, weights = drop_weightless(X, y, weights)

        is_categorical = resolve_categorical(X, self.categorical_features)
        self.categories_ = learn_categories(X, is_categorical)
        matrix = encode_table(X, self.categories_)
        self._check_missing(X, matrix)
        matrix, y = check_X_y(matrix, y, ensure_all_finite="allow-nan", estimator=self)
        check_classification_targets(y)
        classes = encode_labels(y)[1].astype(np.int32)

        self.bin_edges_ = self._learn_edges(matrix, classes, weights, ~is_categorical)
        self.n_states_ = np.array(
            [
                len(edges) + 1 if levels is None else max(len(levels), 1)
                for edges, levels in zip(self.bin_edges_, self.categories_, strict=True)
            ]
        )
        widest = int(self.n_states_.argmax())
        if self.n_states_[widest] > np.iinfo(np.uint16).max:
            raise ValueError(
                f"column {column_name(X, widest)} has {self.n_states_[widest]} states, more than a 16-bit code can "
                "hold; drop it or group its levels (set max_bins if it is numeric)"
            )
        return self

    def transform(self, X):
        """Code every value by its state.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            uint8 codes, uint16 if some ``n_states_[i]`` exceeds 255. Missing values and unknown levels have the code
            ``n_states_[i]``, one past the last state.

        Raises
        ------
        ValueError
            If columns differ from those of `fit`, a value is infinite, a numeric column holds text, a value is missing
            with ``missing="error"`` or a level is unknown with ``handle_unknown="error"``.
        TypeError
            If a column holds anything but numbers, text, categories and booleans, or `X` is sparse.
        """
        check_is_fitted(self)
        X = as_table(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        matrix = encode_table(X, self.categories_)
        self._check_missing(X, matrix)
        matrix = check_array(matrix, ensure_all_finite="allow-nan", input_name="X", estimator=self)
        codes = _code_numbers(matrix, self.bin_edges_, self._code_dtype(), effective_n_jobs(self.n_jobs))
        for i, levels in enumerate(self.categories_):
            if levels is not None:
                codes[:, i] = self._code_levels(X, matrix, i)
        return codes

    def _code_dtype(self):
        return np.uint8 if self.n_states_.max() <= np.iinfo(np.uint8).max else np.uint16

    def _code_levels(self, X, matrix, i):
        column = matrix[:, i]
        unknown = column < 0
        if self.handle_unknown == "error" and unknown.any():
            row = int(unknown.argmax())
            value = _safe_indexing(_safe_indexing(X, [row]), [i], axis=1)
            raise ValueError(
                f"column {column_name(X, i)} holds {np.asarray(value).item()!r} (row {row}), a level that fit did not "
                "see; set handle_unknown='missing' to accept such levels"
            )
        return np.where(column >= 0, column, self.n_states_[i])

    def _check_missing(self, X, matrix):
        if self.missing == "code" or matrix.dtype.kind != "f":
            return
        is_missing = np.isnan(matrix)
        if is_missing.any():
            row, i = np.unravel_index(is_missing.argmax(), is_missing.shape)
            raise ValueError(
                f"X contains NaN or another missing value (first in row {row}, column {column_name(X, i)}), which "
                "missing='error' rejects; use missing='code' or impute"
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.allow_nan = self.missing == "code"
        tags.input_tags.categorical = True
        tags.transformer_tags.preserves_dtype = []  # codes are uint8 or uint16 whatever comes in
        return tags


def _code_numbers(X, bin_edges, dtype, n_threads):
    """Return the number of each column's edges below x, one more than all of them for NaN."""
    codes = np.empty(X.shape, dtype=dtype)
    if X.dtype.kind == "b" or X.dtype == np.uint8:
        every_byte = np.arange(256)
        table = np.array([np.searchsorted(edges, every_byte, side="left") for edges in bin_edges], dtype=dtype)
        code_by_table(np.ascontiguousarray(X).view(np.uint8), table, codes, n_threads)
        return codes
    if X.dtype not in _SEARCHED_DTYPES:
        # Smaller types fit exactly; uint64, longdouble and the like are compared as the float64 they were fitted as.
        X = X.astype(np.int32 if X.dtype.itemsize <= 2 and X.dtype.kind in "iu" else np.float64)
    offsets = np.cumsum([0, *map(len, bin_edges)], dtype=np.int32)
    # One entry more than there are edges: the search never reads it, but its address has to exist.
    edges = np.concatenate([*bin_edges, [np.inf]])
    code_by_edges(np.ascontiguousarray(X), edges, offsets, codes, n_threads)
    return codes
