"""scikit-learn's own checks on both estimators."""

import torch
from sklearn.utils.estimator_checks import parametrize_with_checks

from effml.deep import ProxConnect, Recipe, TorchClassifier, TorchRegressor


class Network(torch.nn.Sequential):  # a class, whose name in the tests' names is the same in every process
    def __init__(self, n_features, n_outputs):
        super().__init__(torch.nn.Linear(n_features, 16), torch.nn.ReLU(), torch.nn.Linear(16, n_outputs))


RECIPE = Recipe([ProxConnect(bits=4)])
FAST = {"learning_rate_init": 0.02, "batch_size": 32, "max_iter": 10}
ESTIMATORS = [
    TorchClassifier(Network, **FAST),
    TorchClassifier(Network, recipe=RECIPE, **FAST),
    TorchRegressor(Network, **FAST),
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
