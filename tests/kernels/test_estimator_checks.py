"""scikit-learn's own checks on both localized kernel models."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from effml.kernels import LocalizedMKLClassifier, LocalizedMKLRegressor

CONFIGURATIONS = [{}, {"gate": "sigmoid", "combine": "concat"}, {"gate": "rbf", "learn_bandwidths": True}]
CONFIGURATIONS += [{"gate": "uniform", "hidden_layer_sizes": ()}, {"early_stopping": True}, {"gate": "constant"}]
ESTIMATORS = [
    estimator(max_iter=20, n_landmarks=30, **given)
    for given in CONFIGURATIONS
    for estimator in (LocalizedMKLClassifier, LocalizedMKLRegressor)
]
STOCHASTIC = "shuffled mini-batches: a row of weight 2 is not the row twice"


def expected_failures(estimator):
    return {"check_sample_weight_equivalence_on_dense_data": STOCHASTIC}


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)
