"""What the models over decision snippets share: mining, choice within a budget, integer sums."""

from abc import abstractmethod
from numbers import Integral, Real

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator, _fit_context, clone
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing, check_consistent_length, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.validation import check_random_state, column_or_1d, validate_data
from threadpoolctl import threadpool_limits

from effml._columns import as_table
from effml._validation import check_weights, drop_weightless
from effml.forests.exits import exit_codes
from effml.forests.mining import MAX_SIZE
from effml.forests.selection import Model, select, weigh_all
from effml.forests.transformer import DecisionSnippetTransformer
from effml.forests.weights import ExitValues

__all__ = ["SnippetModel"]

_CV_SUPPORTS = (2, 3, 5, 8, 13, 21)
_MIN_SAMPLES_LEAF = 5  # of the default forest
_FEW_ROWS = 20  # fewer are not split
_MAX_EXITS = 5000  # of the snippets, most frequent first, that a budget chooses from


class SnippetModel(BaseEstimator):
    """Base of the classifiers and the regressor over decision snippets."""

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's own form
        "forest": [HasMethods("fit"), None],
        "linear_model": [HasMethods(["fit", "predict"]), None],
        "budget_bytes": [Interval(Integral, 1, None, closed="left"), None],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "max_depth": [Interval(Integral, 1, None, closed="left"), None],
        "max_pattern_size": [Interval(Integral, 1, MAX_SIZE, closed="both")],
        "min_support": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="neither"),
            StrOptions({"cv"}),
        ],
        "min_balance": [Interval(Real, 0, 0.5, closed="both")],
        "threshold_merge": [Interval(Real, 0, 1, closed="left"), None],
        "n_cuts": [Interval(Integral, 1, None, closed="left"), None],
        "cuts": [StrOptions({"merge", "quantiles"})],
        "pattern_filter": [StrOptions({"closed", "maximal"}), None],
        "weight_bits": [Options(Integral, {8, 16})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "categorical_features": ["array-like", StrOptions({"from_dtype"}), None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
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
        validation_fraction=0.2,
        categorical_features="from_dtype",
        n_jobs=None,
        random_state=None,
        verbose=False,
    ):
        self.forest = forest
        self.linear_model = linear_model
        self.budget_bytes = budget_bytes
        self.n_estimators = n_estimators
        self.max_depth = max_depth
        self.max_pattern_size = max_pattern_size
        self.min_support = min_support
        self.min_balance = min_balance
        self.threshold_merge = threshold_merge
        self.n_cuts = n_cuts
        self.cuts = cuts
        self.pattern_filter = pattern_filter
        self.weight_bits = weight_bits
        self.validation_fraction = validation_fraction
        self.categorical_features = categorical_features
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @abstractmethod
    def _default_forest(self):
        """Return the class of the forest if `forest` is None."""

    @abstractmethod
    def _learned(self, X, y, sample_weight):
        """Check data, learn classes or scale, and return X, what the forest learns, the Task and classes or None."""

    # -- fitting ------------------------------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None):
        """Grow, mine, choose and weigh.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative; a row of weight 0 is not there.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the target has one class only, the budget is less than a model without snippets takes, or X is no table
            that the forest can learn from.
        TypeError
            If `linear_model` is not linear.
        """
        self._fit_snippets(X, y, sample_weight, [self])
        return self

    def fit_budgets(self, X, y, budgets, sample_weight=None):
        """Fit one model for each of several budgets: the forest, its snippets and the path of choices are shared.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        budgets : sequence of int
            Bytes; they take the place of `budget_bytes`.

        Returns
        -------
        list of fitted estimators
            Copies of this estimator, which stays as it is.

        Examples
        --------
        >>> from effml.forests import SplittingStumpClassifier
        >>> from sklearn.datasets import load_breast_cancer
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> models = SplittingStumpClassifier(random_state=0).fit_budgets(X, y, [400, 800])
        >>> [model.budget_bytes for model in models]
        [400, 800]
        """
        given = list(budgets) if np.iterable(budgets) else []
        if not given or not all(isinstance(b, Integral) and not isinstance(b, bool) and b >= 1 for b in given):
            raise ValueError(f"budgets={budgets!r}: expected a sequence of positive integers")
        models = [clone(self).set_params(budget_bytes=int(budget)) for budget in given]
        models[0]._validate_params()
        models[0]._fit_snippets(X, y, sample_weight, models)
        return models

    def _checked(self, X, y, sample_weight):
        """Return X, y and weights (or None) without the rows of weight 0."""
        X = as_table(X)
        validate_data(self, X, y, skip_check_array=True)
        check_consistent_length(X, y)
        y = column_or_1d(y, warn=True)
        if not len(y):
            raise ValueError("X and y have no rows: found 0 sample(s) while a minimum of 1 is required")
        return drop_weightless(X, y, check_weights(sample_weight, X))

    def _fit_snippets(self, X, y, sample_weight, models):
        """Fit `models`, which differ from this one, their first, in the budget only."""
        X, y, task, classes = self._learned(X, y, sample_weight)
        for model in models[1:]:
            vars(model).update({name: value for name, value in vars(self).items() if name.endswith("_")})
        random_state = check_random_state(self.random_state)
        train, held_out = self._split(len(y), classes, random_state)
        transformer = self._transformer(random_state)
        if self.budget_bytes is None and self.min_support != "cv":  # nothing is chosen
            train, held_out = np.arange(len(y)), None
        weights = None if task.weights is None else task.weights[train]
        mined = transformer.fit(_safe_indexing(X, train), y[train], weights)
        candidates, best = mined.snippets_, [None] * len(models)
        if self.budget_bytes is not None:  # a budget has no room for more, nor memory for their codes
            candidates = candidates.subset(np.cumsum(candidates.n_exits) <= max(_MAX_EXITS, candidates.n_exits[0]))
        codes = exit_codes(candidates, mined._matrix(as_table(X)), n_threads=effective_n_jobs(self.n_jobs))
        for support in self._supports(mined):
            n_kept = max(1, int((candidates.support >= support).sum()))  # they come by falling support
            snippets, part = candidates.subset(np.arange(n_kept)), codes[:, :n_kept]
            with threadpool_limits(1, user_api="blas"):  # products are short: threads would only wait for each other
                found = self._choose(mined, snippets, part, task, train, held_out, [m.budget_bytes for m in models])
            for k, one in enumerate(found):
                if self.verbose:
                    budget = "" if models[k].budget_bytes is None else f", budget_bytes = {models[k].budget_bytes}"
                    print(f"min_support = {support}{budget}: {len(one.snippets)} snippets, score = {one.score:.4f}")
                if best[k] is None or one.score > best[k][0].score:
                    best[k] = one, support
        for model, (found, support) in zip(models, best, strict=True):
            model.transformer_, model.min_support_ = mined, support
            model.validation_score_, model.linear_model_ = found.score, found.linear_model
            model._keep(candidates.subset(found.snippets), found.values)

    def _transformer(self, random_state):
        forest = self.forest
        if forest is None:
            forest = self._default_forest()(
                self.n_estimators,
                max_depth=self.max_depth,
                min_samples_leaf=_MIN_SAMPLES_LEAF,
                n_jobs=self.n_jobs,
                random_state=random_state.randint(2**31 - 1),
            )
        return DecisionSnippetTransformer(
            forest,
            max_pattern_size=self.max_pattern_size,
            min_support=_CV_SUPPORTS[0] if self.min_support == "cv" else self.min_support,
            min_balance=self.min_balance,
            threshold_merge=self.threshold_merge,
            n_cuts=self.n_cuts,
            cuts=self.cuts,
            pattern_filter=self.pattern_filter,
            output="codes",
            categorical_features=self.categorical_features,
            n_jobs=self.n_jobs,
        )

    def _supports(self, mined):
        if self.min_support != "cv":
            return [mined.min_support_]
        highest = int(mined.snippets_.support[0])
        return [s for s in _CV_SUPPORTS if s <= highest] or [highest]

    def _split(self, n_rows, classes, random_state):
        """Return training and held-out rows, each with every class; all rows twice where there are too few."""
        rows, seed = np.arange(n_rows), random_state.randint(2**31 - 1)
        n_held_out = max(1, round(self.validation_fraction * n_rows))
        if n_rows < _FEW_ROWS:
            return rows, rows
        if classes is not None:
            counts = np.bincount(classes)
            if counts.min() < 2 or min(n_held_out, n_rows - n_held_out) < len(counts):
                return rows, rows
        train, held_out = train_test_split(rows, test_size=n_held_out, random_state=seed, stratify=classes)
        return train, held_out

    def _choose(self, mined, snippets, codes, task, train, held_out, budgets) -> list[Model]:
        if budgets == [None]:
            return [weigh_all(codes, snippets.n_exits, task, train, held_out)]
        probe = self._probe(mined)
        measure = lambda numbers, values: probe(snippets.subset(numbers), values)  # noqa: E731
        given = {"budgets": budgets, "measure": measure, "train": train, "held_out": held_out}
        return select(codes, snippets.n_exits, task, **given)

    def _probe(self, mined):
        """Return a function of (snippets, values) that gives the flash bytes of such a model."""
        from effml.export import footprint

        model = type(self)()
        vars(model).update({name: value for name, value in vars(self).items() if name.endswith("_")})
        model.transformer_ = mined

        def flash(snippets, values):
            model._keep(snippets, values)
            return footprint(model).flash_bytes

        return flash

    def _keep(self, snippets, values):
        self.snippets_, self.n_snippets_ = snippets, len(snippets)
        self.exit_values_, self.intercept_, self.exponent_ = values.values, values.intercept, values.exponent

    # -- prediction ---------------------------------------------------------------------------------------------------

    def _sums(self, X):
        """Return the integer sums, int64 (n_rows, n_outputs)."""
        X = as_table(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        matrix = self.transformer_._matrix(X)
        n_threads = effective_n_jobs(self.n_jobs)
        codes = exit_codes(self.snippets_, matrix, n_threads=n_threads)
        values = ExitValues(self.exit_values_, self.intercept_, self.exponent_)
        return values.sums(codes, self.snippets_.n_exits, n_threads)

    def _scores(self, X):
        return np.ldexp(self._sums(X).astype(np.float64), -self.exponent_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.forest is None or get_tags(self.forest).input_tags.allow_nan
        tags.input_tags.categorical = True
        return tags
