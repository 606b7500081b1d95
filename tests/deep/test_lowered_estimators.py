"""Torch estimators through effml's own functions: lower, check_export, compile_c, quantize, footprint, search."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

import effml
from effml.program.frame import LoweringError

estimators = pytest.importorskip("effml.deep.estimators")


def small_cnn(n_features, n_outputs, channels=8):
    image = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*image, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * channels, n_outputs))


def small_mlp(n_features, n_outputs):
    return nn.Sequential(nn.Linear(n_features, 16), nn.Tanh(), nn.Linear(16, n_outputs))


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    names = np.array([f"digit {k}" for k in range(10)])[y]
    pipe = make_pipeline(MinMaxScaler(), estimators.TorchClassifier(small_cnn, max_iter=8, random_state=0))
    return pipe.fit(X[:1200], names[:1200]), X, names


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    net = estimators.TorchRegressor(small_mlp, max_iter=40, learning_rate_init=0.02, random_state=0)
    return make_pipeline(StandardScaler(), net).fit(X, y / 100), X, y / 100


def test_classifier_in_float(digits):
    pipe, X, _ = digits
    program = effml.lower(pipe)
    found, wanted = program.labels(program.encode(X)), pipe.predict(X)
    assert (found == wanted).mean() > 0.999
    assert [row.status for row in effml.check_export(pipe).rows] == ["exact", "float"]
    np.testing.assert_array_equal(effml.compile_c(pipe).predict(X), found)


def test_classifier_in_integers(digits):
    pipe, X, y = digits
    small = effml.quantize(pipe, X[:500], weight_bits=4)
    assert small.score(X[1200:], y[1200:]) > pipe.score(X[1200:], y[1200:]) - 0.02
    agreement = effml.compile_c(small).agreement(X)
    assert agreement.n_equal == agreement.n_rows == len(X)
    assert effml.footprint(small).constant_bytes < effml.footprint(pipe).constant_bytes / 4
    assert effml.check_export(small).rows[0].status == "exact"


def test_regressor(diabetes):
    pipe, X, y = diabetes
    agreement = effml.compile_c(pipe).agreement(X)
    assert agreement.n_equal == agreement.n_rows
    small = effml.quantize(pipe, X)
    assert small.score(X, y) > pipe.score(X, y) - 0.02
    agreement = effml.compile_c(small).agreement(X)
    assert agreement.n_equal == agreement.n_rows


def test_budget_search_uses_the_footprint(digits):
    from effml.selection import BudgetSearchCV

    _, X, y = digits
    X, y = X[:300] / 16, y[:300]
    net = estimators.TorchClassifier(small_cnn, max_iter=4, learning_rate_init=0.01, random_state=0)
    search = BudgetSearchCV([(net, {"module__channels": [2, 16]})], budget={"flash_bytes": 6000}, cv=2)
    search.fit(X, y)
    assert effml.footprint(search.best_estimator_).flash_bytes <= 6000


def test_a_budget_search_over_bits_sees_them_in_flash(digits):
    from effml.deep import ProxConnect, QuantizedTorchClassifier, Recipe
    from effml.selection import BudgetSearchCV

    _, X, y = digits
    X, y = X[:300] / 16, y[:300]
    recipe = Recipe([("prox", ProxConnect())])
    net = estimators.TorchClassifier(small_cnn, recipe=recipe, max_iter=4, learning_rate_init=0.01, random_state=0)
    grid = {"estimator__recipe__prox__bits": [1, 4]}
    search = BudgetSearchCV([(QuantizedTorchClassifier(net), grid)], budget="flash=1MiB", cv=2).fit(X, y)
    one, four = -search.cv_results_["mean_test_flash_bytes"]
    n_weights = 9 * 8 + 128 * 10
    assert four - one > 0.9 * 3 * n_weights / 8
    agreement = effml.compile_c(search.best_estimator_).agreement(X)
    assert agreement.n_equal == len(X)


def test_models_with_modules_are_saved_as_programs(digits, tmp_path):
    from effml.persistence import save_model
    from effml.program import CompiledProgram, Program

    pipe, X, _ = digits
    small = effml.quantize(pipe, X[:500])
    for model in (pipe, pipe[-1], small):
        with pytest.raises(TypeError, match=r"holds a torch module.*effml\.lower\(est\)\.save"):
            save_model(model, tmp_path / "model.skops")
    effml.lower(small).save(tmp_path / "model.program")
    again = Program.load(tmp_path / "model.program")
    np.testing.assert_array_equal(
        CompiledProgram(again).run(again.encode(X)), small.program_.run(again.encode(X))["label"]
    )


def test_rows_that_are_not_flat_are_named_with_the_cure():
    X = np.random.default_rng(0).normal(size=(40, 1, 4, 4)).astype(np.float32)
    y = np.arange(40) % 2
    net = estimators.TorchClassifier(
        lambda n_features, n_outputs: nn.Sequential(nn.Flatten(), nn.Linear(16, n_outputs)), max_iter=1
    )
    with pytest.raises(LoweringError, match="Unflatten"):
        effml.lower(net.fit(X, y))
