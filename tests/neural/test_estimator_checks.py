"""scikit-learn's own checks on the networks."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from effml.neural import QuantizedConvClassifier, QuantizedMLPClassifier, QuantizedMLPRegressor

SIGNS = {"weight_bits": 1, "activation": "sign", "batch_norm": True}
CONFIGURATIONS = [{}, {"weight_bits": None}, {**SIGNS, "hidden_layer_sizes": (80,), "max_iter": 80}]
CONFIGURATIONS += [{"activation_bits": 4, "hidden_layer_sizes": (20, 20)}, {"early_stopping": True, "batch_norm": True}]
ESTIMATORS = [
    estimator(**{"max_iter": 40, "hidden_layer_sizes": (30,)} | given)
    for given in CONFIGURATIONS
    for estimator in (QuantizedMLPClassifier, QuantizedMLPRegressor)
]
ESTIMATORS += [
    QuantizedConvClassifier(max_iter=40, channels=(12,), input_scaling="feature", **given)
    for given in ({}, SIGNS, {"weight_bits": None})
]
STOCHASTIC = "shuffled mini-batches: a row of weight 2 is not the row twice"


def expected_failures(estimator):
    return {"check_sample_weight_equivalence_on_dense_data": STOCHASTIC}


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)
