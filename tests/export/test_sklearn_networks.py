"""Lowering of scikit-learn's MLPClassifier and MLPRegressor in float32, within a proven rounding bound."""

import numpy as np
import pandas as pd
import pytest
from common.c_proof import assert_c_equals_run, hostile_rows
from common.layered_models import (
    NETWORKS,
    assert_within_rounding,
    classification,
    network,
    regression,
    with_scaler,
)
from sklearn.compose import make_column_transformer
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, PowerTransformer, StandardScaler

import effml
from effml.adapters.rounding import rounding_bound
from effml.program import LoweringError

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("kind", NETWORKS)
def test_labels_differ_only_inside_the_bound(kind, n_classes):
    X, y, fresh, _ = classification(n_classes)
    model = with_scaler(network(kind, n_classes)).fit(X, y)
    assert_within_rounding(model, fresh)
    seen, program = fresh.astype(np.float32), effml.lower(model)
    slack = 1e-6 + rounding_bound(model, fresh).max(axis=1, keepdims=True)
    assert (np.abs(program.run(seen)["proba"] - model.predict_proba(seen)) <= slack).all()
    assert_c_equals_run(program, np.concatenate([hostile_rows(program, 100, np.random.default_rng(0)), seen[:50]]))


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("kind", NETWORKS)
def test_values_lie_inside_the_bound(kind, n_outputs):
    X, y, fresh, _ = regression(n_outputs)
    model = with_scaler(network(kind)).fit(X, y / 50 if n_outputs == 1 else y)
    assert_within_rounding(model, fresh)
    program = effml.lower(model)
    rows = np.concatenate([hostile_rows(program, 100, np.random.default_rng(0)), fresh[:50].astype(np.float32)])
    assert_c_equals_run(program, rows)
    agreement = effml.compile_c(model).agreement(fresh)
    assert agreement.n_equal == agreement.n_rows == len(fresh)


def test_weights_of_float32_are_inside_the_bound():
    X, y, fresh, _ = classification(10)
    model = network("tanh-14x9", 10).fit(MinMaxScaler().fit_transform(X).astype(np.float32), y)
    assert model.coefs_[0].dtype == np.float32
    assert_within_rounding(model, fresh / 16)


def test_several_scalers_are_inside_the_bound():
    X, y, fresh, _ = classification(2)
    model = make_pipeline(StandardScaler(), MinMaxScaler((-3, 1)), network("relu-20", 2)).fit(X, y)
    assert_within_rounding(model, fresh)


def test_poisson_networks():
    if "loss" not in MLPRegressor().get_params():
        pytest.skip("this scikit-learn has no loss of MLPRegressor")
    X, y, fresh, _ = regression()
    model = with_scaler(MLPRegressor(loss="poisson", hidden_layer_sizes=(8,), max_iter=300, random_state=0))
    model.fit(X, y)
    assert [type(step).__name__ for step in effml.lower(model).steps][-1] == "Exp"
    assert_within_rounding(model, fresh)


def test_layers_without_an_activation_become_one():
    X, y, _, _ = classification(2)
    model = network("identity-14x9", 2).fit(StandardScaler().fit_transform(X), y)
    program = effml.lower(model).with_outputs("label")
    assert [type(step).__name__ for step in program.steps] == ["Dense", "Positive"]
    narrow = MLPClassifier((1,), activation="identity", max_iter=5, random_state=0).fit(*classification(10)[:2])
    assert len(effml.lower(narrow).with_outputs("label").steps) == 3  # 64 x 1 and 1 x 10 are smaller than 64 x 10


def people(n, seed):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n).astype(float),
            "job": rng.choice(["nurse", "cook", "pilot", 'the "boss" */'], n),
            "height": rng.normal(170, 10, n),
            "rooms": rng.integers(1, 6, n),
        }
    )
    y = np.where((X["age"] > 50) ^ (X["job"] == "cook") | (X["rooms"] == 3), "yes", "no")
    return X, y


def test_one_hot_columns_become_rows_of_a_table():
    X, y = people(500, 0)
    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["job", "rooms"]), (StandardScaler(), ["age", "height"])
    )
    model = make_pipeline(encoder, network("relu-20", 2)).fit(X, y)
    program = effml.lower(model)
    assert [type(step).__name__ for step in program.steps[:4]] == ["Bin", "LookupSum", "Dense", "Relu"]
    compiled, (fresh, _) = effml.compile_c(model), people(400, 1)
    fresh["job"] = fresh["job"].where(np.arange(len(fresh)) % 5 > 0, "astronaut")
    agreement = compiled.agreement(fresh)
    assert agreement.n_equal == agreement.n_rows
    np.testing.assert_allclose(compiled.predict_proba(fresh), model.predict_proba(fresh), atol=1e-5)
    bound = rounding_bound(model, fresh)
    assert bound.shape == (len(fresh), 1) and 0 < bound.max() < 1e-3
    assert_c_equals_run(program, hostile_rows(program, 200, np.random.default_rng(2)))


def test_what_cannot_lower_is_named():
    X, y, _, _ = classification(10)
    with pytest.raises(LoweringError, match="MLPClassifier was fitted on several labels"):
        effml.lower(network("relu-20", 10).fit(X, np.stack([y > 4, y % 2], axis=1).astype(int)))
    with pytest.raises(LoweringError, match="PowerTransformer before a linear model"):
        effml.lower(make_pipeline(PowerTransformer(), network("relu-20", 2)).fit(X[:, 20:30], y > 4))
    assert effml.check_export(with_scaler(MLPClassifier())).rows[-1].status == "float"
    assert effml.check_export(MLPRegressor()).supported
