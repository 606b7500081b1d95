"""The regressor over decision snippets."""

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from effml.forests.base import SnippetModel
from effml.forests.selection import Task

__all__ = ["DecisionSnippetRegressor"]


class DecisionSnippetRegressor(RegressorMixin, SnippetModel):
    """A linear regressor over decision snippets of a forest, within a budget of bytes.

    As `DecisionSnippetClassifier`, with the squared error as loss; parameters and attributes are described there.

    Parameters
    ----------
    forest, budget_bytes, n_estimators, max_depth, max_pattern_size, min_support, min_balance, threshold_merge, n_cuts
        As in `DecisionSnippetClassifier`; the default forest is a RandomForestRegressor.
    linear_model : estimator or None, default=None
        A linear regressor of scikit-learn that weighs the chosen snippets. None: the group lasso itself, its penalty
        lowered where that is better on held-out rows; without a budget, ridge regression.
    pattern_filter, weight_bits, validation_fraction, categorical_features, n_jobs, random_state, verbose
        As in `DecisionSnippetClassifier`.

    Attributes
    ----------
    snippets_, n_snippets_, exit_values_, intercept_, exponent_, min_support_, transformer_, linear_model_
        As in `DecisionSnippetClassifier`.
    target_mean_, target_scale_ : float
        Predictions are ``target_mean_ + target_scale_ * sum * 2 ** -exponent_``.
    validation_score_ : float
        Negative mean squared error on the held-out rows, in units of the target's variance; NaN where nothing was to
        be chosen.

    Examples
    --------
    >>> from effml.forests import DecisionSnippetRegressor
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = DecisionSnippetRegressor(budget_bytes=700, random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.4)
    True
    """

    def _default_forest(self):
        return RandomForestRegressor

    def _learned(self, X, y, sample_weight):
        X, y, weights = self._checked(X, y, sample_weight)
        y = check_array(y, dtype=np.float64, ensure_2d=False, input_name="y")
        self.target_mean_ = float(np.average(y, weights=weights))
        deviation = float(np.sqrt(np.average((y - self.target_mean_) ** 2, weights=weights)))
        self.target_scale_ = deviation if deviation > 0 else 1.0
        standard = (y - self.target_mean_) / self.target_scale_

        def negative_error(scores, rows):
            given = None if weights is None else weights[rows]
            return -float(np.average((scores[:, 0] - standard[rows]) ** 2, weights=given))

        linear_model = self.linear_model
        if linear_model is None and self.budget_bytes is None:
            linear_model = Ridge()
        task = Task(
            loss="squared",
            target=standard.astype(np.float32)[:, None],
            y=standard,
            weights=weights,
            linear_model=linear_model,
            weight_bits=self.weight_bits,
            score=negative_error,
        )
        return X, y, task, None

    def predict(self, X):
        """Return the predicted values, float64 (n_samples,)."""
        check_is_fitted(self)
        return self.target_mean_ + self.target_scale_ * self._scores(X)[:, 0]
