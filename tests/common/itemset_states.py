"""Random fitted states of an itemset regressor, with a prediction written straight from its definition."""

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin


class ItemsetSparseBayesRegressor(RegressorMixin, BaseEstimator):
    """The fitted state alone: predict by the definition, row by row and condition by condition."""

    __module__ = "effml.itemsets.itemset_regressor"
    __qualname__ = "ItemsetSparseBayesRegressor"

    def fit(self, X, y=None):
        """Nothing is learned: the state is given, for X of this width."""
        assert np.shape(X)[1] == self.n_features_in_
        return self

    def codes(self, X):
        """Return the code of each value, one past the last where there is none."""
        columns = [X[name] for name in X] if hasattr(X, "columns") else list(np.asarray(X).T)
        out = np.empty((len(X), len(columns)), dtype=int)
        for j, column in enumerate(columns):
            for i, value in enumerate(column):
                if self.categories_[j] is not None:
                    found = np.flatnonzero(self.categories_[j] == value)
                    out[i, j] = found[0] if len(found) else len(self.categories_[j])
                else:
                    known = value == value
                    out[i, j] = (self.cuts_[j] < np.float64(value)).sum() if known else len(self.cuts_[j]) + 1
        return out

    def transform(self, X):
        codes = self.codes(X)
        columns = [X[name] for name in X] if hasattr(X, "columns") else list(np.asarray(X).T)
        phi = np.zeros((len(X), len(self.coef_)))
        for m, conditions in enumerate(self.conditions_):
            phi[:, m] = 1
            for feature, holds in conditions:
                phi[:, m] *= np.append(holds, [False, False])[codes[:, feature]]
        for position, feature in enumerate(self.linear_features_):
            with np.errstate(invalid="ignore"):  # signalling NaN among hostile bits
                x = np.asarray(columns[feature], dtype=np.float64)
            z = np.clip((x - self.linear_low_[position]) / self.linear_range_[position], 0, 1)
            phi[:, len(self.conditions_) + position] = np.where(np.isnan(x), self.linear_fill_[position], z)
        return phi

    def predict(self, X, return_std=False):
        phi = self.transform(X)
        mean = self.intercept_ + phi @ self.coef_
        if not return_std:
            return mean
        centred = phi - self.term_means_
        variance = self.noise_variance_ * (1 + 1 / self.n_observations_)
        return mean, np.sqrt(variance + np.einsum("ij,jk,ik->i", centred, self.sigma_, centred))


def random_model(
    rng, *, n_features=6, n_itemsets=12, n_linear=2, max_cuts=6, levels=(), size=3, scale=1.0, whole=False
):
    """Return a fitted state; the first columns have these `levels`, the others cuts of the given scale."""
    model = ItemsetSparseBayesRegressor()
    model.n_features_in_ = n_features
    model.categories_ = [np.asarray(one) for one in levels] + [None] * (n_features - len(levels))
    cuts = [np.unique(scale * rng.normal(size=int(rng.integers(1, max_cuts + 1)))) for _ in range(n_features)]
    cuts = [np.unique(np.round(one)) if whole else one for one in cuts]
    model.cuts_ = [np.empty(0)] * len(levels) + cuts[len(levels) :]
    widths = [len(one) for one in levels] + [len(one) + 1 for one in model.cuts_[len(levels) :]]
    pool = [[random_holds(rng, width, j < len(levels)) for _ in range(4)] for j, width in enumerate(widths)]
    model.conditions_ = []
    for _ in range(n_itemsets):
        chosen = rng.permutation(n_features)[: int(rng.integers(1, min(size, n_features) + 1))]
        model.conditions_.append([(int(j), pool[j][rng.integers(4)]) for j in chosen])
    numeric = np.arange(len(levels), n_features)
    model.linear_features_ = np.sort(rng.permutation(numeric)[:n_linear])
    n_linear = len(model.linear_features_)
    model.linear_low_ = scale * rng.normal(-1, 0.5, n_linear)
    model.linear_range_ = scale * rng.uniform(0.5, 3, n_linear)
    model.linear_fill_ = rng.random(n_linear)
    n_terms = n_itemsets + n_linear
    model.coef_ = rng.normal(size=n_terms)
    model.intercept_ = float(rng.normal())
    root = 0.1 * rng.normal(size=(n_terms, n_terms))
    model.sigma_ = root @ root.T
    model.term_means_ = rng.uniform(0.1, 0.9, n_terms)
    model.noise_variance_, model.n_observations_ = 0.04, 200
    return model


def random_holds(rng, width, categorical):
    """Return in which codes a condition holds: a few levels, or an interval that may be open."""
    if categorical:
        holds = rng.random(width) < 0.3
        holds[rng.integers(width)] = True
        return holds
    first, last = np.sort(rng.integers(0, width, size=2))
    return (np.arange(width) >= first) & (np.arange(width) <= last)
