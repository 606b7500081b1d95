"""Post-training rounding: what is chosen, and when sums stop being exact."""

import numpy as np
import pytest

from effml._quantization import FixedPointFormat
from effml.bayes import NaiveBayesClassifier
from effml.bayes.rounding import round_tables


def many_features(n_features, n_bits):
    one_state = np.full((1, 2), -1.0)
    return round_tables(
        np.log([0.5, 0.5]),
        [one_state] * n_features,
        FixedPointFormat(n_bits, 0),
        None,
        parents=np.full(n_features, -1),
        n_states=np.ones(n_features, dtype=np.int64),
        codes=np.zeros((1, n_features), dtype=np.uint8),
        y=np.zeros(1, dtype=np.int64),
        weights=None,
    )


def test_integer_sums_that_could_be_inexact_are_refused():
    most = 2**24 // 255 - 1  # (most + 1) * 255 < 2^24
    assert len(many_features(most, 8).codes) == most
    with pytest.raises(ValueError, match=f"8 bits are exact for at most {most} features, got {most + 1}"):
        many_features(most + 1, 8)


def separable(n_samples=400, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n_samples)
    X = np.where(rng.random((n_samples, 6)) < 0.5, y[:, None], rng.integers(0, 4, (n_samples, 6)))
    return X, y


@pytest.mark.parametrize("n_bits", range(1, 9))
def test_integer_bits_are_those_of_the_best_training_accuracy(n_bits):
    X, y = separable()
    chosen = NaiveBayesClassifier(discretizer=None, n_bits=n_bits, integer_bits="auto").fit(X, y)
    scores = [
        NaiveBayesClassifier(discretizer=None, n_bits=n_bits, integer_bits=bits).fit(X, y).score(X, y)
        for bits in range(7)
    ]
    assert chosen.score(X, y) == max(scores) == scores[chosen.integer_bits_]


def test_rounding_costs_little_accuracy_from_two_bits_on():
    X, y = separable()
    exact = NaiveBayesClassifier(discretizer=None).fit(X, y).score(X, y)
    for n_bits in (2, 3, 5, 8):
        assert NaiveBayesClassifier(discretizer=None, n_bits=n_bits).fit(X, y).score(X, y) >= exact - 0.03


def test_the_step_follows_the_weights():
    X, y = separable()
    rare = np.where(y == 0, 1e-6, 1.0)
    step = NaiveBayesClassifier(discretizer=None, n_bits=2).fit(X, y, sample_weight=rare)
    without = NaiveBayesClassifier(discretizer=None, n_bits=2).fit(X[y > 0], y[y > 0])
    kept = y > 0
    assert step.score(X[kept], y[kept]) == pytest.approx(without.score(X[kept], y[kept]), abs=0.03)
