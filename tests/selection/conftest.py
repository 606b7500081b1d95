"""Toy candidates whose accuracy and size the tests choose, and the footprint function that reads them."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data


class Toy(ClassifierMixin, BaseEstimator):
    """Predicts the label that column 0 holds, except where column 1 is below `miss`; `size` bytes, growing with n."""

    def __init__(self, miss=0.0, size=100, growth=0.0, max_iter=0, random_state=None, fail=None):
        self.miss = miss
        self.size = size
        self.growth = growth
        self.max_iter = max_iter
        self.random_state = random_state
        self.fail = fail

    def fit(self, X, y, sample_weight=None):
        X, y = validate_data(self, X, y)
        if self.fail == "fit":
            raise RuntimeError("the toy will not fit")
        self.classes_ = np.unique(y)
        self.n_samples_fit_ = len(X)
        self.sum_of_weights_ = None if sample_weight is None else float(np.sum(sample_weight))
        return self

    def predict(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        miss = self.miss / (1 + self.max_iter)
        return np.where(X[:, 1] < miss, 1 - X[:, 0], X[:, 0]).astype(int)


class Unsupported(Toy):
    """Fits and predicts, but has no footprint."""


def toy_footprint(estimator, *, target="host", input_dtype="float32"):
    if isinstance(estimator, Unsupported):
        raise ValueError("Unsupported cannot be lowered")
    flash = int(estimator.size + estimator.growth * estimator.n_samples_fit_)
    return SimpleNamespace(
        flash_bytes=flash, ram_bytes=flash // 10, n_operations=flash * 2, n_parameters=flash // 2, bits=flash * 8
    )


@pytest.fixture
def toys(monkeypatch):
    """The toy classes, with `effml.export.footprint` measuring them for the length of a test."""
    import effml.export

    monkeypatch.setattr(effml.export, "footprint", toy_footprint)
    return SimpleNamespace(Toy=Toy, Unsupported=Unsupported, footprint=toy_footprint)


@pytest.fixture
def table():
    """60 rows: column 0 is the label, column 1 spreads evenly over [0, 1)."""
    y = np.tile([0, 1], 30)
    return np.column_stack([y, (np.arange(60) * 37 % 60) / 60]), y
