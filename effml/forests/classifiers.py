"""Classifiers over decision snippets and over splitting stumps."""

import numpy as np
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from effml._validation import class_factors, encode_labels
from effml.forests.base import SnippetModel
from effml.forests.selection import Task

__all__ = ["DecisionSnippetClassifier", "SplittingStumpClassifier"]


class DecisionSnippetClassifier(ClassifierMixin, SnippetModel):
    """A linear classifier over decision snippets of a forest, within a budget of bytes.

    The small pieces that the trees of a forest have in common become features. A group lasso that charges each snippet
    by its bytes keeps as many as the budget allows, and their exits get values of 8 or 16 bits. Prediction adds
    integers.

    Parameters
    ----------
    forest : estimator or None, default=None
        Where snippets come from: a scikit-learn tree, random forest, extra trees or gradient boosting, fitted or not,
        as in `DecisionSnippetTransformer`. None means a random forest of `n_estimators` trees of depth `max_depth`
        with at least 5 rows a leaf.
    linear_model : estimator or None, default=None
        A linear classifier of scikit-learn that weighs the chosen snippets. None: the group lasso itself, its penalty
        lowered where that is better on held-out rows; without a budget, logistic regression.
    budget_bytes : int or None, default=None
        Flash bytes, code included, that the exported model may take by `effml.footprint`. None keeps every snippet.
    n_estimators : int, default=50
        Trees of the forest, if `forest` is None.
    max_depth : int or None, default=8
        Depth of its trees, if `forest` is None.
    max_pattern_size : int, default=3
        Most splits of a snippet.
    min_support : int, float in (0, 1) or "cv", default=2
        Trees that a snippet has to occur in. "cv" tries 2, 3, 5, 8, 13 and 21 and takes the best on held-out rows.
    min_balance, threshold_merge, pattern_filter, categorical_features
        As in `DecisionSnippetTransformer`.
    n_cuts : int or None, default=31
        Most thresholds a feature; fewer make more snippets equal.
    cuts : {"merge", "quantiles"}, default="quantiles"
        As in `DecisionSnippetTransformer`.
    weight_bits : {8, 16}, default=8
        Bits of an exit's value; all share one power of two as scale.
    class_weight : dict, "balanced" or None, default=None
        Factors of the weights of the classes, for the forest too.
    validation_fraction : float, default=0.2
        Share of the rows held out while snippets (and `min_support`) are chosen: the most likely ones are taken. The
        final values are fitted to all rows.
    n_jobs : int or None, default=None
        Threads. The result does not depend on it.
    random_state : int, RandomState instance or None, default=None
    verbose : bool, default=False

    Attributes
    ----------
    classes_ : ndarray
    snippets_ : Snippets
        The chosen ones; `effml.forests.snippet_text` and `plot_snippets` show them.
    n_snippets_ : int
    exit_values_ : int8 or int16 array (n_exits, n_outputs)
        What each exit adds, those of all snippets behind each other; one output for two classes.
    intercept_ : int64 array (n_outputs,)
    exponent_ : int
        Sums are scores times ``2 ** exponent_``.
    min_support_ : int
    validation_score_ : float
        Mean log likelihood of the held-out rows, which neither the forest nor the weights had seen (a fitted forest
        may have); NaN where nothing was to be chosen: without a budget and "cv" all rows grow the forest.
    transformer_ : DecisionSnippetTransformer
        With all mined snippets and the forest.
    linear_model_ : estimator or None
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if `X` has column names that are all strings.

    References
    ----------
    P. Welke, F. Alkhoury, C. Bauckhage and S. Wrobel, "Decision snippet features", ICPR 2020, pp. 4260-4267. Choosing
    snippets by their bytes is ours.

    Examples
    --------
    >>> import effml
    >>> from effml.forests import DecisionSnippetClassifier
    >>> from sklearn.datasets import load_breast_cancer
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = DecisionSnippetClassifier(budget_bytes=700, random_state=0).fit(X[:400], y[:400])
    >>> bool(model.score(X[400:], y[400:]) > 0.92), bool(effml.footprint(model).flash_bytes <= 700)
    (True, True)
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's own form
        **SnippetModel._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        forest=None,
        *,
        linear_model=None,
        budget_bytes=None,
        n_estimators=50,
        max_depth=8,
        max_pattern_size=3,
        min_support=2,
        min_balance=0.0,
        threshold_merge=None,
        n_cuts=31,
        cuts="quantiles",
        pattern_filter=None,
        weight_bits=8,
        class_weight=None,
        validation_fraction=0.2,
        categorical_features="from_dtype",
        n_jobs=None,
        random_state=None,
        verbose=False,
    ):
        super().__init__(
            forest,
            linear_model=linear_model,
            budget_bytes=budget_bytes,
            n_estimators=n_estimators,
            max_depth=max_depth,
            max_pattern_size=max_pattern_size,
            min_support=min_support,
            min_balance=min_balance,
            threshold_merge=threshold_merge,
            n_cuts=n_cuts,
            cuts=cuts,
            pattern_filter=pattern_filter,
            weight_bits=weight_bits,
            validation_fraction=validation_fraction,
            categorical_features=categorical_features,
            n_jobs=n_jobs,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def _default_forest(self):
        return RandomForestClassifier

    def _learned(self, X, y, sample_weight):
        X, y, weights = self._checked(X, y, sample_weight)
        check_classification_targets(y)
        self.classes_, y_index = encode_labels(y)
        n_classes = len(self.classes_)
        if n_classes < 2:
            raise ValueError(f"y holds one class only, {self.classes_[0]!r}; a classifier needs two")
        if self.class_weight is not None:
            factors = class_factors(self.class_weight, self.classes_, y_index, weights)[y_index]
            weights = factors if weights is None else weights * factors
            if not weights.all():
                raise ValueError(f"class_weight={self.class_weight!r} must be positive")
        target = np.eye(n_classes, dtype=np.float32)[y_index]

        def log_likelihood(scores, rows):  # differs less by chance than accuracy, and chooses better for it
            likelihood = _log_proba(scores)[np.arange(len(rows)), y_index[rows]]
            return float(np.average(likelihood, weights=None if weights is None else weights[rows]))

        linear_model = self.linear_model
        if linear_model is None and self.budget_bytes is None:
            linear_model = LogisticRegression(max_iter=1000, tol=1e-3)
        task = Task(
            loss="logistic" if n_classes == 2 else "multinomial",
            target=target[:, 1:] if n_classes == 2 else target,
            y=y_index,
            weights=weights,
            linear_model=linear_model,
            weight_bits=self.weight_bits,
            score=log_likelihood,
        )
        return X, y_index, task, y_index

    def decision_function(self, X):
        """Return the scores: (n_samples,) for two classes, positive for the second, else (n_samples, n_classes)."""
        check_is_fitted(self)
        scores = self._scores(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X):
        """Return the labels, shape (n_samples,), of the largest integer sum; the lowest class on ties."""
        check_is_fitted(self)
        return self.classes_[_best(self._sums(X))]

    def predict_log_proba(self, X):
        """Return the logarithm of `predict_proba`."""
        check_is_fitted(self)
        return _log_proba(self._scores(X))

    def predict_proba(self, X):
        """Return the logistic function, or softmax, of the scores, shape (n_samples, n_classes)."""
        return np.exp(self.predict_log_proba(X))


class SplittingStumpClassifier(DecisionSnippetClassifier):
    """A linear classifier over single balanced tests of a forest, within a budget of bytes.

    The special case of `DecisionSnippetClassifier` with snippets of one split (`max_pattern_size`, `min_support` and
    `min_balance` have other defaults); see there for parameters, attributes and methods.

    References
    ----------
    F. Alkhoury, P. Welke, "Splitting stump forests: tree ensemble compression for edge devices", Discovery Science
    2024, pp. 3-18.

    Examples
    --------
    >>> from effml.forests import SplittingStumpClassifier
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SplittingStumpClassifier(random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.9), int(model.snippets_.n_exits.max())
    (True, 2)
    """

    def __init__(
        self,
        forest=None,
        *,
        linear_model=None,
        budget_bytes=None,
        n_estimators=50,
        max_depth=8,
        max_pattern_size=1,
        min_support=1,
        min_balance=0.2,
        threshold_merge=None,
        n_cuts=31,
        cuts="quantiles",
        pattern_filter=None,
        weight_bits=8,
        class_weight=None,
        validation_fraction=0.2,
        categorical_features="from_dtype",
        n_jobs=None,
        random_state=None,
        verbose=False,
    ):
        super().__init__(
            forest,
            linear_model=linear_model,
            budget_bytes=budget_bytes,
            n_estimators=n_estimators,
            max_depth=max_depth,
            max_pattern_size=max_pattern_size,
            min_support=min_support,
            min_balance=min_balance,
            threshold_merge=threshold_merge,
            n_cuts=n_cuts,
            cuts=cuts,
            pattern_filter=pattern_filter,
            weight_bits=weight_bits,
            class_weight=class_weight,
            validation_fraction=validation_fraction,
            categorical_features=categorical_features,
            n_jobs=n_jobs,
            random_state=random_state,
            verbose=verbose,
        )


def _log_proba(scores):
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    return log_softmax(scores, axis=1)


def _best(scores):
    """Return the class numbers of scores (n_rows, n_outputs)."""
    return (scores[:, 0] > 0).astype(np.int64) if scores.shape[1] == 1 else np.argmax(scores, axis=1)
