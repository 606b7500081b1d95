"""Regression rivals of the itemset model: the usual ones with the usual preparation, and rules from boosted trees.

Every maker takes the mask of categorical columns and returns an unfitted scikit-learn regressor that accepts missing
values. `n_terms(model)` counts what a reader has to read, None where that makes no sense.
"""

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ARDRegression, Lasso, LassoCV, OrthogonalMatchingPursuit, RidgeCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

MOST_PAIRS = 20_000  # columns of a Lasso over pairs; 1,000 rows of them are 160 MB


def prepared(categorical, numeric_step, model):
    """Return a pipeline: numbers imputed by the median and passed through a step, levels one-hot."""
    levels = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    numbers = make_pipeline(SimpleImputer(strategy="median"), numeric_step)
    columns = ColumnTransformer([("numbers", numbers, ~categorical), ("levels", levels, categorical)])
    return make_pipeline(columns, model)


def tuned_tree(categorical):
    grid = {"max_depth": [2, 3, 4, 5, 6, 8, 12, None], "min_samples_leaf": [1, 2, 5, 10, 20]}
    search = GridSearchCV(DecisionTreeRegressor(random_state=0), grid, cv=5)
    return prepared(categorical, "passthrough", search)


def random_forest(categorical):
    return prepared(categorical, "passthrough", RandomForestRegressor(300, random_state=0))


def ridge(categorical):
    return prepared(categorical, StandardScaler(), RidgeCV(np.geomspace(1e-2, 1e3, 16)))


def gaussian_process(categorical):
    return prepared(categorical, StandardScaler(), BetterGaussianProcess())


def ard_one_hot(categorical):
    bins = KBinsDiscretizer(8, encode="onehot-dense", strategy="quantile", quantile_method="averaged_inverted_cdf")
    return prepared(categorical, bins, ARDRegression())


def lasso_pairs(categorical):
    bins = KBinsDiscretizer(4, encode="onehot-dense", strategy="quantile", quantile_method="averaged_inverted_cdf")
    return prepared(categorical, bins, make_pipeline(Pairs(), LassoCV(cv=5, alphas=50, max_iter=5000)))


def rule_fit(categorical):
    """Rules of boosted trees and linear terms, weighed by a Lasso (Friedman and Popescu, 2008).

    The rules are mined anew in each fold: a Lasso that is tuned on rules mined from its held-out rows over-fits.
    """
    steps = Pipeline([("rules", TreeRules(linear=True)), ("scale", StandardScaler()), ("lasso", Lasso(max_iter=5000))])
    grid = {"rules__n_trees": [30, 100], "lasso__alpha": np.geomspace(3e-3, 0.3, 8)}
    return prepared(categorical, "passthrough", scaled_target(GridSearchCV(steps, grid, cv=5)))


def greedy_rules(categorical):
    """The same rules taken one by one, the most correlated with the residual first; tuned in the same way."""
    greedy = OrthogonalMatchingPursuit(n_nonzero_coefs=10)
    steps = Pipeline([("rules", TreeRules()), ("scale", StandardScaler()), ("greedy", greedy)])
    grid = {"rules__n_trees": [30, 100], "greedy__n_nonzero_coefs": [3, 5, 8, 12, 20, 30]}
    return prepared(categorical, "passthrough", scaled_target(GridSearchCV(steps, grid, cv=5)))


def scaled_target(model):
    return TransformedTargetRegressor(model, transformer=StandardScaler())


RIVALS = {
    "tuned tree": tuned_tree,
    "greedy rules": greedy_rules,
    "RuleFit": rule_fit,
    "ARD, one-hot": ard_one_hot,
    "Lasso, pairs": lasso_pairs,
    "ridge": ridge,
    "random forest": random_forest,
    "Gaussian process": gaussian_process,
}


def n_terms(model):
    """Return the leaves of a tree or the weights of a sparse linear model."""
    last = model
    while hasattr(last, "steps"):
        last = last[-1]
    last = getattr(last, "regressor_", last)
    last = getattr(last, "best_estimator_", last)
    last = last[-1] if hasattr(last, "steps") else last
    if isinstance(last, DecisionTreeRegressor):
        return int(last.get_n_leaves())
    if isinstance(last, Lasso | LassoCV | OrthogonalMatchingPursuit):
        return int((last.coef_ != 0).sum())
    if isinstance(last, ARDRegression):
        return int((np.abs(last.coef_) > 1e-12).sum())
    return None


class BetterGaussianProcess(RegressorMixin, BaseEstimator):
    """A Gaussian process with one length for all columns or one for each: the higher marginal likelihood."""

    def fit(self, X, y):
        self.model_ = None
        p = X.shape[1]
        lengths = [np.sqrt(p)] + ([np.full(p, np.sqrt(p))] if p <= 20 else [])
        for length in lengths:
            kernel = ConstantKernel() * RBF(length, (1e-2, 1e4)) + WhiteKernel(0.1)
            model = GaussianProcessRegressor(kernel, normalize_y=True).fit(X, y)
            if self.model_ is None or model.log_marginal_likelihood_value_ > self.model_.log_marginal_likelihood_value_:
                self.model_ = model
        return self

    def predict(self, X, return_std=False):
        return self.model_.predict(X, return_std=return_std)


class Pairs(TransformerMixin, BaseEstimator):
    """All columns of 0 and 1 and all products of two that hold on at least a fortieth of the rows."""

    def fit(self, X, y=None):
        together = X.T @ X
        first, second = np.triu_indices(X.shape[1], 1)
        common = together[first, second] >= len(X) / 40
        self.first_, self.second_ = first[common], second[common]
        if X.shape[1] + len(self.first_) > MOST_PAIRS:
            raise MemoryError(f"{X.shape[1] + len(self.first_)} columns, more than {MOST_PAIRS}")
        return self

    def transform(self, X):
        return np.hstack([X, X[:, self.first_] * X[:, self.second_]])


class TreeRules(TransformerMixin, BaseEstimator):
    """One column for each node below a root of boosted trees of up to four leaves: 1 on the rows that pass it."""

    def __init__(self, linear=False, n_trees=200):
        self.linear, self.n_trees = linear, n_trees

    def fit(self, X, y):
        forest = GradientBoostingRegressor(
            n_estimators=self.n_trees, max_leaf_nodes=4, learning_rate=0.1, subsample=0.5, random_state=0
        ).fit(X, y)
        self.trees_ = [tree.tree_ for tree in forest.estimators_.ravel()]
        self.low_, self.high_ = np.quantile(X, [0.025, 0.975], axis=0)
        rules = self._rules(X)
        _, kept = np.unique(rules, axis=1, return_index=True)
        self.kept_ = np.sort(kept)
        return self

    def _rules(self, X):
        X = X.astype(np.float32)
        return np.hstack([tree.decision_path(X).toarray()[:, 1:] for tree in self.trees_])

    def transform(self, X):
        rules = self._rules(X)[:, self.kept_].astype(float)
        return np.hstack([rules, np.clip(X, self.low_, self.high_)]) if self.linear else rules
