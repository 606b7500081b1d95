"""scikit-learn's own checks on both estimators."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

torch = pytest.importorskip("torch", reason='the torch bridge needs pip install "effml[torch]"')
pytest.importorskip("skorch")
pytest.importorskip("torchao")

from effml.deep import ProxConnect, Recipe, TorchClassifier, TorchRegressor


def network(n_features, n_outputs):
    return torch.nn.Sequential(torch.nn.Linear(n_features, 16), torch.nn.ReLU(), torch.nn.Linear(16, n_outputs))


RECIPE = Recipe([ProxConnect(bits=4)])
FAST = {"learning_rate_init": 0.02, "batch_size": 32, "max_iter": 10}
ESTIMATORS = [
    TorchClassifier(network, **FAST),
    TorchClassifier(network, recipe=RECIPE, **FAST),
    TorchRegressor(network, **FAST),
]
STOCHASTIC = "shuffled mini-batches: a row of weight 2 is not the row twice"


def expected_failures(estimator):
    return {
        "check_sample_weight_equivalence_on_dense_data": STOCHASTIC,
        "check_do_not_raise_errors_in_init_or_set_params": "**parts is not a parameter; wrong names are refused",
    }


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)
