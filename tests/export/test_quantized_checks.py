"""scikit-learn's conventions for quantised linear models and networks."""

import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from effml.adapters.quantized import (
    QuantizedLinearClassifier,
    QuantizedLinearRegressor,
    QuantizedNetworkClassifier,
    QuantizedNetworkRegressor,
)

NETWORK = {"hidden_layer_sizes": (8,), "solver": "lbfgs", "max_iter": 60, "random_state": 0}


@pytest.mark.filterwarnings("ignore:lbfgs")
@parametrize_with_checks(
    [
        QuantizedLinearClassifier(LogisticRegression()),
        QuantizedLinearClassifier(make_pipeline(StandardScaler(), LogisticRegression()), weight_bits=6),
        QuantizedLinearRegressor(Ridge()),
        QuantizedNetworkClassifier(make_pipeline(StandardScaler(), MLPClassifier(**NETWORK))),
        QuantizedNetworkRegressor(make_pipeline(StandardScaler(), MLPRegressor(activation="tanh", **NETWORK))),
    ]
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)
