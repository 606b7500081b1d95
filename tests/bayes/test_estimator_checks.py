"""scikit-learn's own checks on both classifiers, in every kind of number format and input."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from effml.bayes import NaiveBayesClassifier, TANClassifier

CONFIGURATIONS = [
    {},
    {"n_bits": 6, "integer_bits": 3},
    {"n_bits": 6, "integer_bits": "auto"},
    {"n_bits": 4},
    {"integer_bits": 3, "fraction_bits": 3, "discretizer": None},
    {"discretizer": None},
    {"missing": "error"},
    {"discretizer": None, "missing": "error", "n_bits": 5},
    {"objective": "hybrid", "max_iter": 10},
    {"objective": "margin", "n_bits": 4, "init": "likelihood", "max_iter": 10},
    {"objective": "cross_entropy", "n_bits": 5, "integer_bits": 3, "early_stopping": True, "max_iter": 10},
]

ESTIMATORS = [estimator(**given) for given in CONFIGURATIONS for estimator in (NaiveBayesClassifier, TANClassifier)]
ESTIMATORS.append(TANClassifier(structure="random", random_state=0))

RAW_NUMBERS = "the check passes continuous numbers whatever the tags say; discretizer=None takes integer codes only"


STOCHASTIC = "shuffled mini-batches: a row of weight 2 is not the row twice"


def expected_failures(estimator):
    if estimator.objective != "likelihood":
        return {"check_sample_weight_equivalence_on_dense_data": STOCHASTIC}
    if estimator.discretizer is not None:
        return {}
    return {
        "check_sample_weight_equivalence_on_dense_data": RAW_NUMBERS,
        "check_classifiers_one_label_sample_weights": RAW_NUMBERS,
        "check_class_weight_classifiers": RAW_NUMBERS,
    }


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


def test_partial_fit_is_checked_too():
    offered = [hasattr(estimator, "partial_fit") for estimator in ESTIMATORS]
    assert any(offered) and not all(offered)


@pytest.mark.parametrize("estimator", [NaiveBayesClassifier, TANClassifier])
def test_tags_tell_the_truth_about_nan(estimator):
    assert estimator().__sklearn_tags__().input_tags.allow_nan
    assert not estimator(missing="error").__sklearn_tags__().input_tags.allow_nan
