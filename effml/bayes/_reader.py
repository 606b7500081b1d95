"""Reading X: a table or matrix becomes rows of codes, by a discretizer, by the levels of its columns, or as it is."""

import numpy as np
from sklearn.utils import _safe_indexing, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from effml._columns import encode_table, is_table, learn_categories, resolve_categorical
from effml._validation import check_weights
from effml.bayes import encoding

__all__ = ["CodesReader"]


class CodesReader:
    """Mixin for estimators with `discretizer`, `n_states`, `categorical_features` and `missing`.

    It sets n_features_in_, feature_names_in_, categories_, n_states_ and has_missing_state_, and reads discretizer_.
    """

    def _check_rows(self, X, y, sample_weight, *, reset):
        """Return X, y and the weights (None for none) without rows of weight 0; X is a table or numeric matrix."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        check_consistent_length(X, y)
        weights = check_weights(sample_weight, X)
        if weights is not None and not weights.all():
            kept = np.flatnonzero(weights)
            X, y, weights = _safe_indexing(X, kept), y[kept], weights[kept]
        if self.discretizer is None:
            X = self._read_codes(X, reset=reset)
        else:
            self.categories_ = None
            X = self._read_table(X, reset=reset)
        return X, y, weights

    def _first_codes(self, X):
        """Settle the number of states and return the codes of the training rows."""
        values = self._values(X)
        declared = None if self.discretizer_ is None else encoding.declared_states(self.discretizer_)
        if declared is not None:
            if self.n_states is not None:
                raise ValueError(f"n_states={self.n_states!r} must be None: the discretizer knows its number of states")
            self.n_states_ = declared
        elif self.categories_ is not None:
            self.n_states_ = self._states_of_categories(values)
        else:
            self.n_states_ = encoding.infer_states(values, self.n_states, self._names())
        codes = encoding.as_codes(values, self.n_states_)
        missing = codes >= self.n_states_
        self.has_missing_state_ = missing.any(axis=0) if self.missing == "state" else np.zeros(codes.shape[1], bool)
        self.n_states_ = self.n_states_ + self.has_missing_state_
        return codes

    def _as_codes(self, values):
        """Return codes; what is missing gets the code after the last value, which may be a state of its own."""
        return encoding.as_codes(values, self.n_states_ - self.has_missing_state_)

    def _states_of_categories(self, values):
        """Return the number of states where some columns have levels: n_states is about the other columns."""
        is_code = np.array([levels is None for levels in self.categories_])
        n_states = np.array([1 if levels is None else max(len(levels), 1) for levels in self.categories_])
        given = self.n_states
        if given is not None and np.ndim(given):
            given = np.asarray(given)[is_code] if len(given) == len(is_code) else given
        names = [name for name, code in zip(self._names(), is_code, strict=True) if code]
        n_states[is_code] = encoding.infer_states(values[:, is_code], given, names)
        return n_states

    def _codes(self, X):
        check_is_fitted(self)
        if self.discretizer_ is None:
            X = self._read_codes(X, reset=False)
        else:
            X = self._read_table(X, reset=False)
        return self._as_codes(self._values(X))

    def _values(self, X):
        """Return codes as numbers, NaN where missing."""
        if self.discretizer_ is None:
            return X
        values = encoding.discretize(self.discretizer_, X)
        if self.missing == "error" and np.isnan(values).any():
            raise ValueError("X has missing values, which missing='error' forbids")
        return values

    def _read_codes(self, X, *, reset):
        """Return X validated as a numeric matrix; columns with levels become codes, unknown levels -1."""
        if reset:
            is_categorical = resolve_categorical(X, self.categorical_features)
            self.categories_ = learn_categories(X, is_categorical) if is_categorical.any() else None
        if self.categories_ is None:
            finite = True if self.missing == "error" else "allow-nan"
            return validate_data(self, X, reset=reset, dtype="numeric", ensure_all_finite=finite)
        values = encode_table(self._read_table(X, reset=reset), self.categories_, dtype=np.float64)
        if self.missing == "error" and np.isnan(values).any():
            raise ValueError("X has missing values, which missing='error' forbids")
        return values

    def _check_levels(self, values):
        """Refuse levels in a later batch that the first one did not have: their rows would silently count for less."""
        if self.categories_ is None:
            return
        for name, levels, column in zip(self._names(), self.categories_, values.T, strict=True):
            if levels is not None and (column < 0).any():
                raise ValueError(f"{name} has a level that the first batch did not have; it had {levels.tolist()}")

    def _read_table(self, X, *, reset):
        """Return X with names and shape checked; values are left to whoever reads the columns."""
        if is_table(X):  # a DataFrame: an array of its columns would lose their types
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X
        return validate_data(self, X, reset=reset, dtype=None, ensure_all_finite=False)

    def _names(self):
        names = getattr(self, "feature_names_in_", None)
        return [f"feature {i}" for i in range(self.n_features_in_)] if names is None else list(names)
