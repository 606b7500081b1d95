"""Merging of neighbouring values: against a plain rewriting, and the conventions of scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.stats import entropy
from sklearn.utils.estimator_checks import parametrize_with_checks

from effml import compile_c
from effml.bayes import NaiveBayesClassifier
from effml.discretization import BottleneckDiscretizer


@parametrize_with_checks([BottleneckDiscretizer(), BottleneckDiscretizer(total_bins=3, max_bins=2)])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


def plain(X, y, total_bins):
    """Return the bins of each column as lists of values, merged by looking at every pair each time."""
    bins = [[[v] for v in np.unique(column)] for column in X.T]

    def information_lost(i, k):
        counts = [np.bincount(y[np.isin(X[:, i], values)], minlength=y.max() + 1) for values in bins[i][k : k + 2]]
        each = [n.sum() * entropy(n) for n in (counts[0] + counts[1], *counts)]
        return round(each[0] - each[1] - each[2], 9)

    while sum(map(len, bins)) > max(total_bins, len(bins)):
        pairs = [(information_lost(i, k), i, k) for i in range(len(bins)) for k in range(len(bins[i]) - 1)]
        _, i, k = min(pairs)
        bins[i][k : k + 2] = [bins[i][k] + bins[i][k + 1]]
    return bins


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), npst.arrays(np.int64, (25, 3), elements=st.integers(0, 6)), st.integers(0, 2**16))
def test_bins_are_those_of_the_plain_algorithm(total_bins, X, seed):
    y = np.random.default_rng(seed).integers(0, 3, size=len(X))
    found = BottleneckDiscretizer(total_bins=total_bins).fit(X, y)
    expected = plain(X, y, total_bins)
    assert found.n_states_.tolist() == [len(each) for each in expected]
    codes = found.transform(X)
    for i, bins in enumerate(expected):
        for code, values in enumerate(bins):
            assert (codes[np.isin(X[:, i], values), i] == code).all()


def test_weights_count_as_repeated_rows():
    rng = np.random.default_rng(0)
    X, y, n = rng.integers(0, 20, (80, 2)), rng.integers(0, 3, 80), rng.integers(0, 4, 80)
    weighted = BottleneckDiscretizer(total_bins=9).fit(X, y, n)
    repeated = BottleneckDiscretizer(total_bins=9).fit(np.repeat(X, n, axis=0), np.repeat(y, n))
    for a, b in zip(weighted.bin_edges_, repeated.bin_edges_, strict=True):
        np.testing.assert_array_equal(a, b)


def test_bins_go_where_the_class_is():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 3)).astype(np.float32)  # far more values than it starts from
    y = np.digitize(X[:, 1], [-1, 0, 1])
    model = BottleneckDiscretizer(total_bins=6).fit(X, y)
    assert model.n_states_.tolist() == [1, 4, 1]
    assert np.abs(model.bin_edges_[1] - [-1, 0, 1]).max() < 0.02


def test_max_bins_holds_for_each_column_and_total_bins_for_all():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 30, (500, 4)), rng.integers(0, 3, 500)
    model = BottleneckDiscretizer(total_bins=18, max_bins=5).fit(X, y)
    assert model.n_states_.max() <= 5
    assert model.n_states_.sum() == 18
    assert BottleneckDiscretizer(total_bins=1).fit(X, y).n_states_.tolist() == [1, 1, 1, 1]


def test_levels_stay_and_missing_values_are_left_out():
    table = pd.DataFrame({"a": [1.0, np.nan, 2.0, 3.0] * 10, "b": list("xyzx") * 10})
    y = [0, 1, 1, 0] * 10
    model = BottleneckDiscretizer(total_bins=2).fit(table, y)
    assert model.n_states_.tolist() == [2, 3]
    assert model.transform(table)[1].tolist() == [2, 1]
    everything_missing = BottleneckDiscretizer().fit(np.full((4, 1), np.nan), [0, 1, 0, 1])
    assert everything_missing.n_states_.tolist() == [1]


@pytest.mark.parametrize("parameters", [{"total_bins": 0}, {"max_bins": 1}, {"total_bins": 2.5}])
def test_bad_parameters_are_named(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        BottleneckDiscretizer(**parameters).fit([[1], [2]], [0, 1])


def test_a_classifier_over_merged_bins_exports_exactly():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (600, 6)).astype(np.uint8)
    y = (X[:, 0] > 90).astype(int) + (X[:, 3] > 200)
    model = NaiveBayesClassifier(discretizer=BottleneckDiscretizer(total_bins=12), n_bits=4).fit(X, y)
    assert compile_c(model, input_dtype="uint8").agreement(X).n_equal == len(X)
