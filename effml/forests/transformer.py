"""The scikit-learn face of snippets: a forest, its thresholds merged, its frequent pieces, the exits of rows."""

import warnings
from numbers import Integral, Real

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context, clone
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_array, check_consistent_length, column_or_1d, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import (
    _check_feature_names_in,
    _is_fitted,
    check_is_fitted,
    has_fit_parameter,
    validate_data,
)

from effml._columns import as_table, column_name, encode_table, learn_categories, resolve_categorical
from effml._text import unique_names
from effml._trees import trees_of
from effml._validation import check_weights, drop_weightless
from effml.forests.exits import exit_codes, one_hot
from effml.forests.mining import MAX_SIZE, absolute_support, mine_snippets, split_balance, stump
from effml.forests.text import exit_rules, snippet_names
from effml.forests.thresholds import floor_integer_columns, merge_thresholds, merge_to_cuts, snap_to_quantiles

__all__ = ["DecisionSnippetTransformer"]


class DecisionSnippetTransformer(TransformerMixin, BaseEstimator):
    """Exits of the small trees that many trees of a forest have in common.

    A snippet is a connected piece of a tree: a test, and perhaps tests below it. Those that occur in at least
    `min_support` trees of a random forest are kept, and every row is sent through each of them from its root on. The
    number of the exit it takes is a new categorical feature, one-hot by default: input for a linear model.

    Parameters
    ----------
    forest : estimator or None, default=None
        A scikit-learn tree, random forest, extra trees or gradient boosting. An unfitted one is cloned and fitted; a
        fitted one is kept as it is, and so is one in a `FrozenEstimator`, which also outlives `sklearn.base.clone`
        (grid searches clone). None means a random forest of `n_estimators` trees of depth `max_depth`: a classifier
        if the target holds classes (text, booleans or whole numbers), else a regressor.
    n_estimators : int, default=25
        Trees of the forest, if `forest` is None.
    max_depth : int or None, default=5
        Depth of its trees, if `forest` is None.
    max_pattern_size : int, default=6
        Most splits of a snippet.
    min_support : int or float, default=2
        Number of trees that a snippet has to occur in, or a share of them in (0, 1).
    min_balance : float, default=0.0
        A split takes part only if at least this share of the training rows that reach it goes to either side, from 0
        to 0.5.
    threshold_merge : float or None, default=None
        Merge thresholds so that a split sends at most this share of its training rows another way; 0 keeps the path
        of every training row. More equal tests make more and larger snippets.
    n_cuts : int or None, default=None
        Most thresholds a feature; the others move to the nearest one. Comes before `threshold_merge`.
    cuts : {"merge", "quantiles"}, default="merge"
        What thresholds `n_cuts` keeps: of those in the forest, or quantiles of the training rows.
    pattern_filter : {None, "closed", "maximal"}, default=None
        "closed" leaves out a snippet that is part of one of equal support, "maximal" one that is part of any other.
    output : {"onehot", "codes"}, default="onehot"
        One 0/1 column an exit, or the exit's number in one column a snippet (uint8).
    sparse_output : bool, default=False
        Return one-hot columns as a scipy CSR matrix.
    drop_exit : bool, default=True
        Leave out the one-hot column of the last exit of each snippet, which the others imply.
    dtype : dtype, default=numpy.float64
        Of the one-hot columns.
    categorical_features : "from_dtype", None or array-like of bool, int or str, default="from_dtype"
        Columns whose values are levels: ``"from_dtype"`` takes the category and text columns of a DataFrame; or a
        mask, indices or names. Levels are numbered in sorted order for the forest; one not seen by `fit` has the
        number -1.
    n_jobs : int or None, default=None
        Threads, for the forest too if `forest` is None. The result does not depend on it.
    random_state : int, RandomState instance or None, default=None
        Seeds the forest if `forest` is None.

    Attributes
    ----------
    snippets_ : Snippets
        Most frequent first: `trees` and `support`.
    forest_ : estimator
        The fitted forest, thresholds as it was grown.
    min_support_ : int
        Number of trees that was asked for in the end.
    categories_ : list of (ndarray or None), length n_features
        Sorted levels of each categorical column, None for numeric columns.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        Only if `X` has column names that are all strings.

    Notes
    -----
    Rows are compared as float32, as scikit-learn's forests do. Columns that hold whole numbers only get whole
    thresholds, rounded down, which parts the training rows as before. A missing value goes where the forest sends it,
    and right in columns without missing values in `fit`. There is always a snippet: where none is frequent or balanced
    enough, the requirement is lowered as little as possible, with a warning.

    References
    ----------
    P. Welke, F. Alkhoury, C. Bauckhage and S. Wrobel, "Decision snippet features", ICPR 2020, pp. 4260-4267.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from effml.forests import DecisionSnippetTransformer
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> snippets = DecisionSnippetTransformer(min_support=3, n_cuts=4, random_state=0).fit(X, y)
    >>> snippets.transform(X).shape
    (150, 41)
    >>> snippets.get_feature_names_out()[[0, 2, 15]].tolist()
    ['petal length (cm) <= 4.75', 'petal length (cm) < 5.05', 'petal width (cm) > 0.8 & petal length (cm) <= 4.75']
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's own form
        "forest": [HasMethods("fit"), None],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "max_depth": [Interval(Integral, 1, None, closed="left"), None],
        "max_pattern_size": [Interval(Integral, 1, MAX_SIZE, closed="both")],
        "min_support": [Interval(Integral, 1, None, closed="left"), Interval(Real, 0, 1, closed="neither")],
        "min_balance": [Interval(Real, 0, 0.5, closed="both")],
        "threshold_merge": [Interval(Real, 0, 1, closed="left"), None],
        "n_cuts": [Interval(Integral, 1, None, closed="left"), None],
        "cuts": [StrOptions({"merge", "quantiles"})],
        "pattern_filter": [StrOptions({"closed", "maximal"}), None],
        "output": [StrOptions({"onehot", "codes"})],
        "sparse_output": ["boolean"],
        "drop_exit": ["boolean"],
        "dtype": "no_validation",
        "categorical_features": ["array-like", StrOptions({"from_dtype"}), None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        forest=None,
        *,
        n_estimators=25,
        max_depth=5,
        max_pattern_size=6,
        min_support=2,
        min_balance=0.0,
        threshold_merge=None,
        n_cuts=None,
        cuts="merge",
        pattern_filter=None,
        output="onehot",
        sparse_output=False,
        drop_exit=True,
        dtype=np.float64,
        categorical_features="from_dtype",
        n_jobs=None,
        random_state=None,
    ):
        self.forest = forest
        self.n_estimators = n_estimators
        self.max_depth = max_depth
        self.max_pattern_size = max_pattern_size
        self.min_support = min_support
        self.min_balance = min_balance
        self.threshold_merge = threshold_merge
        self.n_cuts = n_cuts
        self.cuts = cuts
        self.pattern_filter = pattern_filter
        self.output = output
        self.sparse_output = sparse_output
        self.drop_exit = drop_exit
        self.dtype = dtype
        self.categorical_features = categorical_features
        self.n_jobs = n_jobs
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, sample_weight=None):
        """Fit the forest if it is not, and mine its snippets.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or None, default=None
            Target of the forest; not looked at if that is fitted.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative weights for the forest and for `min_balance`. A row of weight 0 is not there.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `y` is missing or no target of one output, a value is infinite, a numeric column holds text, or a fitted
            forest has other columns than `X`.
        TypeError
            If `forest` is not of a kind that can be read, it takes no weights but some are given, a column holds
            anything but numbers, text, categories and booleans, or `X` is sparse.
        """
        X = as_table(X)
        validate_data(self, X, y, skip_check_array=True)
        check_consistent_length(X, y)
        X, y, weights = drop_weightless(X, y, check_weights(sample_weight, X))
        if weights is not None and (weights == 1).all():
            weights = None  # so that a forest that takes no weights will do
        is_categorical = resolve_categorical(X, self.categorical_features)
        if is_categorical.any() and self._given_forest() is not None:
            name = column_name(X, int(is_categorical.argmax()))
            raise ValueError(
                f"forest is fitted, on numbers, but column {name} is categorical; encode it as it was for the forest, "
                "or pass an unfitted forest"
            )
        self.categories_ = learn_categories(X, is_categorical)
        matrix = self._matrix(X)
        self.forest_ = self._fitted_forest(matrix, y, weights)
        trees = self._merged(trees_of(self.forest_), matrix)
        self.snippets_, self.min_support_ = self._mined(trees, matrix, weights)
        return self

    def transform(self, X):
        """Send rows through every snippet.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)

        Returns
        -------
        array or csr_matrix of shape (n_samples, n_columns)
            One-hot exits of snippet 0, of snippet 1, ...; or uint8 exit numbers (n_samples, n_snippets).

        Raises
        ------
        ValueError
            If columns differ from those of `fit`, a value is infinite or a numeric column holds text.
        TypeError
            If a column holds anything but numbers, text, categories and booleans, or `X` is sparse.
        """
        check_is_fitted(self)
        X = as_table(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        n_threads = effective_n_jobs(self.n_jobs)
        codes = exit_codes(self.snippets_, self._matrix(X), n_threads=n_threads)
        if self.output == "codes":
            return codes
        given = {"drop_last": self.drop_exit, "sparse": self.sparse_output, "dtype": self.dtype}
        return one_hot(codes, self.snippets_.n_exits, n_threads=n_threads, **given)

    def get_feature_names_out(self, input_features=None):
        """Return what each column of the output stands for.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns of `X`; None takes those seen in `fit`, or x0, x1, ...

        Returns
        -------
        ndarray of str objects
            The rule of each exit, such as ``a <= 1 & b > 3``, numbered where several snippets share one; or the tests
            of each snippet.
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features).tolist()
        if self.output == "codes":
            return np.array(snippet_names(self.snippets_, names, self.categories_), dtype=object)
        rules = exit_rules(self.snippets_, names, self.categories_)
        return unique_names([rule for exits in rules for rule in (exits[:-1] if self.drop_exit else exits)])

    def _matrix(self, X):
        """Return the numbers that the forest and the snippets see, float32 (n_samples, n_features)."""
        finite = "allow-nan" if get_tags(self).input_tags.allow_nan else True
        matrix = encode_table(X, self.categories_)
        return check_array(matrix, dtype=np.float32, ensure_all_finite=finite, input_name="X", estimator=self)

    def _given_forest(self):
        """Return `forest` out of its FrozenEstimator if it is fitted, else None."""
        forest = self.forest
        while isinstance(forest, FrozenEstimator):
            forest = forest.estimator
        return forest if forest is not None and _is_fitted(forest) else None

    def _fitted_forest(self, matrix, y, weights):
        forest = self._given_forest()
        if forest is not None:
            if forest.n_features_in_ != matrix.shape[1]:
                raise ValueError(f"forest was fitted on {forest.n_features_in_} columns, X has {matrix.shape[1]}")
            return forest
        y = column_or_1d(y, warn=True)
        if self.forest is None:
            is_continuous = type_of_target(y, input_name="y").startswith("continuous")
            forest = (RandomForestRegressor if is_continuous else RandomForestClassifier)(
                self.n_estimators, max_depth=self.max_depth, n_jobs=self.n_jobs, random_state=self.random_state
            )
        else:
            forest = clone(self.forest)
        if weights is None:
            return forest.fit(matrix, y)
        if not has_fit_parameter(forest, "sample_weight"):
            raise TypeError(f"forest={forest!r} takes no sample_weight")
        return forest.fit(matrix, y, sample_weight=weights)

    def _merged(self, trees, matrix):
        if self.n_cuts is not None:
            if self.cuts == "quantiles":
                trees = snap_to_quantiles(trees, matrix, self.n_cuts)
            else:
                trees = merge_to_cuts(trees, self.n_cuts, matrix)
        if self.threshold_merge is not None:
            trees = merge_thresholds(trees, matrix, self.threshold_merge)
        return floor_integer_columns(trees, matrix)

    def _mined(self, trees, matrix, weights):
        """Return at least one snippet, and the support that was asked for in the end."""
        if not trees.n_splits:
            warnings.warn("the forest has no split; one test of the first column that varies stands in", stacklevel=3)
            return _any_stump(matrix), 0
        usable = None
        if self.min_balance > 0:
            balance = split_balance(trees, matrix, weights)
            least = min(self.min_balance, balance.max())
            if least < self.min_balance:
                message = f"no split is as balanced as min_balance={self.min_balance}; {least:.3g} is used"
                warnings.warn(message, stacklevel=3)
            usable = balance >= least
        given = {"usable": usable, "missing_features": np.isnan(matrix).any(axis=0)}
        support = absolute_support(self.min_support, trees.n_trees)
        # No snippet is more frequent than the most frequent test.
        highest = int(mine_snippets(trees, min_support=1, max_pattern_size=1, **given).support[0])
        if support > highest:
            message = f"no snippet occurs in {support} trees (min_support={self.min_support}); {highest} is used"
            warnings.warn(message, stacklevel=3)
            support = highest
        size, pattern_filter = self.max_pattern_size, self.pattern_filter
        given |= {"max_pattern_size": size, "pattern_filter": pattern_filter}
        return mine_snippets(trees, min_support=support, **given), support

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        forest = RandomForestClassifier() if self.forest is None else self.forest
        tags.input_tags.allow_nan = get_tags(forest).input_tags.allow_nan
        tags.input_tags.categorical = True
        tags.target_tags.required = self._given_forest() is None
        tags.transformer_tags.preserves_dtype = []
        return tags


def _any_stump(matrix):
    """Return a test of the first column that varies, at its lower median, or of the first column."""
    for feature in range(matrix.shape[1]):
        values = np.unique(matrix[:, feature][~np.isnan(matrix[:, feature])])
        if len(values) > 1:
            return stump(feature, values[len(values) // 2 - 1])
    return stump(0, np.nan_to_num(matrix[0, 0]))
