"""Sparse Bayesian regression over all itemsets: readable interactions with error bars.

    y = intercept + sum over itemsets w_J [all conditions of J hold] + sum over columns w_j x_j + noise
    w ~ N(0, 1 / alpha), one alpha a term,   noise ~ N(0, sigma^2)

An itemset is a conjunction of conditions on single columns. Precisions and noise are those of highest evidence; terms
enter and leave one at a time, the next itemset found by branch and bound among all of them.

Sources: R. Yafune, D. Sakuma, M. Takayanagi, Y. Tabei, N. Saito, H. Saigo, "Automatically mining relevant variable
interactions via sparse Bayesian learning", ICPR 2020 (the model); M. E. Tipping, A. C. Faul, "Fast marginal likelihood
maximisation for sparse Bayesian models", AISTATS 2003 (the ascent). Bounds, multiplicity prior, linear terms and
thermometer items are ours.
"""

import warnings
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_X_y
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_feature_names_in, check_consistent_length, check_is_fitted, validate_data

from effml._columns import as_table, encode_table, learn_categories, resolve_categorical
from effml._text import number_text, unique_names
from effml.itemsets.conditions import ItemTable, condition_text
from effml.itemsets.evidence import FEWEST_ROWS
from effml.itemsets.itemset_fit import (
    LinearColumns,
    Settings,
    columns_of,
    fit_bags,
    fit_model,
    mean_and_variance,
)
from effml.itemsets.prior_choice import INCLUSION_PRIORS, KAPPAS, choose_by_cv, choose_by_evidence
from effml.itemsets.problem import check_range, checked_target

__all__ = ["ItemsetSparseBayesRegressor", "ItemsetTerm", "LinearTerm"]


@dataclass(frozen=True)
class ItemsetTerm:
    """A conjunction of conditions and the weight that is added where it holds.

    Attributes
    ----------
    text : str
    mean, std : float
        Of the weight, in units of y.
    support : int
        Training rows on which it holds.
    """

    text: str
    mean: float
    std: float
    support: int

    def __str__(self):
        return f"{self.mean:+.4g} +- {self.std:.2g} if {self.text} ({self.support} rows)"


@dataclass(frozen=True)
class LinearTerm:
    """A column that enters linearly, held at the ends of its training range beyond them.

    Attributes
    ----------
    text : str
        Name of the column.
    mean, std : float
        Of its slope, in units of y a unit of the column.
    low, high : float
        The training range.
    """

    text: str
    mean: float
    std: float
    low: float
    high: float

    def __str__(self):
        low, high = number_text(self.low), number_text(self.high)
        return f"{self.mean:+.4g} +- {self.std:.2g} x {self.text} ({low} to {high})"


class ItemsetSparseBayesRegressor(TransformerMixin, RegressorMixin, BaseEstimator):
    """Regression by few conjunctions of conditions, each with a weight and its standard deviation.

    Columns are turned into items, conditions such as ``age > 40`` or ``town = Rome``, and all conjunctions of up to
    `max_order` of them are candidates. Each has a weight with a normal prior of its own precision; the evidence keeps
    few. A missing value meets no condition, and has the mean in a linear term.

    Parameters
    ----------
    encoding : {"thermometer", "onehot"}, default="thermometer"
        Items of a numeric column: ``x <= c`` and ``x > c`` for every cut, whose conjunctions are intervals and boxes;
        or one item a bin. Columns of 0 and 1 have the item 1, categorical columns an item a level.
    cuts : {"quantile", "tree"}, default="quantile"
        Equal shares of the rows in each bin, or the splits of a regression tree grown on the column alone.
    n_bins : int, default=8
        Bins of a numeric column at most.
    max_order : int, default=2
        Items of an itemset at most; an interval takes two.
    min_support : int, float or None, default=None
        Fewest rows on which an itemset holds, or their share; for single items also the fewest on which it does not.
        None: a hundredth of the rows, at least 5.
    kappa : float, "cv" or "evidence", default=1.0
        Multiplicity prior ``C(n_items, k) ** -kappa`` of an itemset of k items: of many itemsets some look useful by
        chance. An itemset of k >= 2 items has to gain ``kappa (log C(n_items, k) - log n_items)`` nats of evidence
        more than a single item. 0 is the evidence alone, which keeps too many. "cv" chooses among 0.5, 1 and 2 by
        5-fold cross-validation; "evidence" chooses the highest log evidence plus normalised log prior.
    inclusion_prior : "beta-binomial", float in (0, 0.5] or "cv", default="beta-binomial"
        Prior probability that a single item or a linear term has a weight, as in :class:`SparseBayesRegressor`: one
        term beside m others costs ``max(0, log((p - m) / (m + 1)))`` nats, p the number of items and numeric columns.
        0.5 leaves them to the evidence: up to some dozen columns that is a little more accurate, with two to three
        times the terms; with a hundred columns it over-fits and takes long. "cv" tries "beta-binomial", 0.25 and 0.5 in
        this order, as long as the error of 5-fold cross-validation falls. With either "cv" the predicted variances are
        multiplied by what makes them right on held-out rows.
    n_bags : int, default=1
        Mean of so many models, each of rows drawn with replacement: more accurate, with several times the terms. Their
        covariance is that of the mixture, and variances are multiplied by what makes them right on the rows that the
        bags have not seen.
    linear_terms : bool, default=True
        Numeric columns may enter linearly, at the price of a single item.
    categorical_features : "from_dtype", None or array-like of bool, int or str, default="from_dtype"
        Columns whose values are levels; see :func:`effml._columns.resolve_categorical`. Any other value than the
        levels seen in `fit` meets no condition.
    max_iter : int, default=5000
        Terms added, re-estimated and deleted, and updates of the noise, at most.
    tol : float, default=1e-4
        Least gain of an action, in nats.
    n_jobs : int or None, default=None
        Threads of the search over the top-level items, or processes over the folds of "cv" and the bags. The model does
        not depend on it.
    random_state : int, RandomState or None, default=None
        Folds of "cv", rows of the bags.
    verbose : bool, default=False
        Print each action.

    Attributes
    ----------
    itemsets_ : list of ItemsetTerm
        By decreasing importance.
    linear_terms_ : list of LinearTerm
    coef_ : ndarray of shape (n_terms,)
        Weights of the itemsets, then of the linear columns scaled to their training range.
    sigma_ : ndarray of shape (n_terms, n_terms)
        Posterior covariance of `coef_`.
    term_means_ : ndarray of shape (n_terms,)
        Means of the columns that :meth:`transform` gives.
    term_importances_ : ndarray of shape (n_terms,)
        Absolute weight times standard deviation of the column, in units of y.
    intercept_ : float
    noise_variance_ : float
    kappa_ : float
    inclusion_prior_ : float or str
    prior_search_ : dict of lists
        What was compared when `kappa` or `inclusion_prior` was to be chosen.
    evidence_curve_, log_prior_curve_ : ndarrays of shape (n_iter_ + 1,)
        Log evidence of y at the start and after each action, in nats; minus the prices of the terms. Of one
        bag, if there are several, as the next two: of the first, or of the first that did not converge.
    actions_ : list of str, length n_iter_
        "add", "re-estimate", "delete" or "noise".
    n_iter_ : int
    n_nodes_ : int
        Itemsets that all searches looked at.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)

    Examples
    --------
    >>> import numpy as np
    >>> from effml.itemsets import ItemsetSparseBayesRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 2, size=(400, 10))
    >>> y = 2.0 * (X[:, 1] & X[:, 2]) - 1.0 * X[:, 7] + 0.3 * rng.normal(size=400)
    >>> model = ItemsetSparseBayesRegressor().fit(X, y)
    >>> [(term.text, round(term.mean, 1)) for term in model.itemsets_[:2]]
    [('x1 = 1 and x2 = 1', 2.0), ('x7 = 1', -1.0)]
    >>> mean, std = model.predict(X[:1], return_std=True)
    >>> std.round(1).tolist()
    [0.3]
    """

    _parameter_constraints: ClassVar[dict] = {
        "encoding": [StrOptions({"thermometer", "onehot"})],
        "cuts": [StrOptions({"quantile", "tree"})],
        "n_bins": [Interval(Integral, 2, None, closed="left")],
        "max_order": [Interval(Integral, 1, None, closed="left")],
        "min_support": [
            None,
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 0.5, closed="neither"),
        ],
        "kappa": [StrOptions({"cv", "evidence"}), Interval(Real, 0, None, closed="left")],
        "inclusion_prior": [StrOptions({"beta-binomial", "cv"}), Interval(Real, 0, 0.5, closed="right")],
        "n_bags": [Interval(Integral, 1, None, closed="left")],
        "linear_terms": ["boolean"],
        "categorical_features": [StrOptions({"from_dtype"}), None, "array-like"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        encoding="thermometer",
        cuts="quantile",
        n_bins=8,
        max_order=2,
        min_support=None,
        kappa=1.0,
        inclusion_prior="beta-binomial",
        n_bags=1,
        linear_terms=True,
        categorical_features="from_dtype",
        max_iter=5000,
        tol=1e-4,
        n_jobs=None,
        random_state=None,
        verbose=False,
    ):
        self.encoding = encoding
        self.cuts = cuts
        self.n_bins = n_bins
        self.max_order = max_order
        self.min_support = min_support
        self.kappa = kappa
        self.inclusion_prior = inclusion_prior
        self.n_bags = n_bags
        self.linear_terms = linear_terms
        self.categorical_features = categorical_features
        self.max_iter = max_iter
        self.tol = tol
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Fit to rows and targets.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Missing values (NaN, None) are allowed.
        y : array-like of shape (n_samples,)

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a value is infinite, a numeric column holds text or the lengths differ.
        TypeError
            If a column holds anything but numbers, text, categories and booleans, or `X` is sparse.
        """
        X = as_table(X)
        validate_data(self, X, y, skip_check_array=True)
        check_consistent_length(X, y)
        categories = learn_categories(X, resolve_categorical(X, self.categorical_features))
        matrix = encode_table(X, categories)
        matrix, y = check_X_y(
            matrix, y, dtype=np.float64, ensure_all_finite="allow-nan", y_numeric=True, estimator=self
        )
        y = checked_target(y)
        check_range(matrix, "X")
        if len(y) < FEWEST_ROWS:
            warnings.warn(
                f"{len(y)} rows are fewer than {FEWEST_ROWS}: no term is used, predictions are the mean of y",
                UserWarning,
                stacklevel=2,
            )
        self.categories_ = categories
        model, spread = self._fitted(matrix, y)
        self._keep(model, spread, matrix)
        if model.trace is not None and not model.trace.converged:
            warnings.warn(
                f"max_iter={self.max_iter} actions were taken and the evidence still rises by more than tol={self.tol}",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _fitted(self, matrix, y):
        """Return the model and the factor of its variances; sets kappa_, inclusion_prior_ and prior_search_."""
        report = _print_action if self.verbose else None
        settings = self._settings(len(y), effective_n_jobs(self.n_jobs), report)
        kappa, prior, spread = self.kappa, self.inclusion_prior, 1.0
        self.prior_search_ = {}
        if "cv" in (kappa, prior):
            chosen, tried = self._cross_validated(matrix, y)
            kappa, prior, spread = chosen.kappa, chosen.inclusion_prior, chosen.spread
            names = {"kappa": "kappa", "inclusion_prior": "inclusion_prior", "mean_squared_error": "error"}
            self.prior_search_ = {key: [getattr(one, name) for one in tried] for key, name in names.items()}
        if kappa == "evidence":
            if self.n_bags > 1:
                raise ValueError(f"kappa='evidence' is for one model; use a number or 'cv' with n_bags={self.n_bags}")
            model, kappa, scores = choose_by_evidence(matrix, y, self.categories_, settings)
            self.prior_search_ = {"kappa": list(KAPPAS), "log_posterior": scores}
        else:
            settings = replace(settings, inclusion_prior=prior)
            given = (matrix, y, self.categories_, kappa, settings)
            if self.n_bags > 1:
                model, spread = fit_bags(*given, self.n_bags, self.random_state, self.n_jobs)
            else:
                model = fit_model(*given)
        self.kappa_, self.inclusion_prior_ = float(kappa), prior
        return model, spread

    def _cross_validated(self, matrix, y):
        if self.kappa == "evidence":
            raise ValueError("inclusion_prior='cv' needs kappa to be a number or 'cv', got kappa='evidence'")
        if len(y) < 2 * FEWEST_ROWS:
            name = "kappa" if self.kappa == "cv" else "inclusion_prior"
            raise ValueError(f"{name}='cv' needs at least {2 * FEWEST_ROWS} rows, got n_samples={len(y)}")
        kappas = KAPPAS if self.kappa == "cv" else (self.kappa,)
        priors = INCLUSION_PRIORS if self.inclusion_prior == "cv" else (self.inclusion_prior,)
        settings = self._settings(len(y))
        return choose_by_cv(matrix, y, self.categories_, settings, kappas, priors, self.random_state, self.n_jobs)

    def _settings(self, n_rows, n_threads=1, report=None):
        if self.min_support is None:
            support = max(5, n_rows // 100)
        elif isinstance(self.min_support, Integral):
            support = int(self.min_support)
        else:
            support = max(1, round(self.min_support * n_rows))
        return Settings(
            cuts=self.cuts,
            encoding=self.encoding,
            n_bins=self.n_bins,
            max_order=self.max_order,
            min_support=support,
            linear_terms=self.linear_terms,
            inclusion_prior=self.inclusion_prior,
            max_iter=self.max_iter,
            tol=self.tol,
            n_threads=n_threads,
            report=report,
        )

    def _keep(self, model, spread, matrix):
        """Store the model as arrays and plain containers."""
        self.cuts_ = model.table.cuts
        self.binary_ = model.table.binary
        self.conditions_ = model.conditions
        self.linear_features_ = model.linear.features
        self.linear_low_, self.linear_range_ = model.linear.low, model.linear.range
        self.linear_fill_ = model.linear.fill
        self.coef_, self.term_means_, self.intercept_ = model.coef, model.means, model.intercept
        self.term_importances_ = model.importances
        self.sigma_ = model.sigma * spread
        self.noise_variance_ = model.noise_variance * spread
        self.n_observations_ = model.n_rows
        self.supports_ = (self._columns(matrix)[:, : len(self.conditions_)] > 0).sum(axis=0)
        self.n_nodes_ = model.n_nodes
        trace = model.trace
        self.actions_ = [] if trace is None else trace.kinds[1:]
        self.n_iter_ = len(self.actions_)
        units = model.n_rows * np.log(model.target_scale) if trace is not None else 0.0  # a density of y, unscaled
        self.evidence_curve_ = np.array([] if trace is None else trace.log_evidence) - units
        self.log_prior_curve_ = np.array([] if trace is None else trace.log_prior)

    def _columns(self, matrix):
        table = ItemTable(self.cuts_, self.binary_, np.empty(0, dtype=int), np.empty(0, dtype=int), [])
        linear = LinearColumns(self.linear_features_, self.linear_low_, self.linear_range_, self.linear_fill_)
        return columns_of(self.conditions_, table, linear, matrix)

    def _matrix(self, X):
        check_is_fitted(self)
        X = as_table(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        return check_array(
            encode_table(X, self.categories_),
            dtype=np.float64,
            ensure_all_finite="allow-nan",
            input_name="X",
            estimator=self,
        )

    def predict(self, X, return_std=False):
        """Return the predicted means and, if asked for, standard deviations.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
        return_std : bool, default=False

        Returns
        -------
        mean : ndarray of shape (n_samples,)
        std : ndarray of shape (n_samples,)
            Of a new observation: noise, weights and intercept. Only if `return_std`.
        """
        phi = self._columns(self._matrix(X))
        if not return_std:
            return self.intercept_ + phi @ self.coef_
        mean, variance = mean_and_variance(
            phi, self.coef_, self.term_means_, self.sigma_, self.intercept_, self.noise_variance_, self.n_observations_
        )
        return mean, np.sqrt(variance)

    def transform(self, X):
        """Return the columns of the model: 1 where an itemset holds, and the linear columns from 0 to 1.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_terms)
        """
        return self._columns(self._matrix(X))

    def get_feature_names_out(self, input_features=None):
        """Return the text of each column that :meth:`transform` gives.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the columns; those of `fit` or x0, x1, ... by default.

        Returns
        -------
        ndarray of str objects, shape (n_terms,)
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        texts = [self._itemset_text(conditions, names) for conditions in self.conditions_]
        return unique_names(texts + [str(names[j]) for j in self.linear_features_])

    @property
    def itemsets_(self):
        check_is_fitted(self, "conditions_")
        names = _check_feature_names_in(self)
        std = np.sqrt(np.diag(self.sigma_))
        return [
            ItemsetTerm(self._itemset_text(conditions, names), float(mean), float(sd), int(support))
            for conditions, mean, sd, support in zip(self.conditions_, self.coef_, std, self.supports_, strict=False)
        ]

    @property
    def linear_terms_(self):
        check_is_fitted(self, "conditions_")
        names = _check_feature_names_in(self)
        std = np.sqrt(np.diag(self.sigma_))[len(self.conditions_) :]
        parts = zip(
            *(self.linear_features_, self.coef_[len(self.conditions_) :], std, self.linear_low_, self.linear_range_),
            strict=True,
        )
        return [
            LinearTerm(str(names[j]), float(mean / span), float(sd / span), float(low), float(low + span))
            for j, mean, sd, low, span in parts
        ]

    def _itemset_text(self, conditions, names):
        return " and ".join(
            condition_text(names[j], codes, self.cuts_[j], np.arange(2) if self.binary_[j] else self.categories_[j])
            for j, codes in conditions
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _print_action(trace):
    print(
        f"[ItemsetSparseBayesRegressor] {len(trace.kinds) - 1}: {trace.kinds[-1]}, {trace.n_active[-1]} terms, "
        f"log evidence {trace.log_evidence[-1]:.6g}"
    )
