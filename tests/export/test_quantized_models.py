"""Quantised linear models and networks: predict is the integer path, C equals it on every row, little is lost."""

import numpy as np
import pandas as pd
import pytest
from common.c_proof import hostile_rows, sanitized_outputs
from common.layered_models import (
    CLASSIFIERS,
    NETWORKS,
    REGRESSORS,
    SEVERAL,
    classification,
    network,
    regression,
    with_scaler,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, PowerTransformer, StandardScaler

import effml
from effml.adapters.calibration import activation_step, fit_codes, input_factor, input_scale
from effml.adapters.quantized import (
    QuantizedLinearClassifier,
    QuantizedLinearRegressor,
    QuantizedNetworkClassifier,
    QuantizedNetworkRegressor,
)
from effml.persistence import load_model, save_model
from effml.program import LoweringError

pytestmark = pytest.mark.filterwarnings("ignore")  # of convergence, and of classes that scikit-learn will drop

BITS = [(8, 8), (4, 8), (8, 4), (3, 3), (5, 6), (2, 2)]


def assert_c_equals_predict(small, X):
    """Every row of X and hostile rows: C = Program.run = predict."""
    compiled = effml.compile_c(small)
    np.testing.assert_array_equal(compiled.predict(X), small.predict(X))
    if hasattr(small, "predict_proba"):
        np.testing.assert_array_equal(compiled.predict_proba(X), small.predict_proba(X))
    agreement = compiled.agreement(X)
    assert agreement.n_equal == agreement.n_rows == len(X)
    rows = hostile_rows(compiled.program, 150, np.random.default_rng(0))
    expected = compiled.program.run(rows)
    for output in expected:
        np.testing.assert_array_equal(compiled.compiled.run(rows, output), expected[output])


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_linear_classifiers(name, n_classes):
    X, y, fresh, truth = classification(n_classes)
    model = with_scaler(clone(CLASSIFIERS[name])).fit(X, y)
    small = effml.quantize(model, X)
    assert type(small) is QuantizedLinearClassifier
    assert (small.predict(fresh) == model.predict(fresh)).mean() > (0.9 if name == "Perceptron" else 0.96)
    assert model.score(fresh, truth) - small.score(fresh, truth) < 0.02
    assert_c_equals_predict(small, fresh)
    assert hasattr(small, "predict_proba") == ("proba" in effml.lower(model).outputs)


@pytest.mark.parametrize("name", REGRESSORS)
def test_linear_regressors(name):
    X, y, fresh, truth = regression()
    model = with_scaler(clone(REGRESSORS[name])).fit(X, y)
    small = effml.quantize(model, X)
    assert type(small) is QuantizedLinearRegressor
    # Lars leaves weights of some hundreds on columns that nearly equal each other
    assert np.abs(small.predict(fresh) - model.predict(fresh)).mean() < (0.12 if "Lars" in name else 0.02) * truth.std()
    assert_c_equals_predict(small, fresh)


@pytest.mark.parametrize("name", SEVERAL)
def test_several_outputs(name):
    X, y, fresh, truth = regression(3)
    model = with_scaler(clone(SEVERAL[name])).fit(X, y)
    small = effml.quantize(model, X)
    assert small.predict(fresh).shape == (len(fresh), 3)
    assert model.score(fresh, truth) - small.score(fresh, truth) < 0.01
    assert_c_equals_predict(small, fresh)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_network_classifiers(kind, bits):
    n_classes = 2 if len(kind) % 2 else 10
    X, y, fresh, truth = classification(n_classes)
    model = with_scaler(network(kind, n_classes)).fit(X, y)
    small = effml.quantize(model, X, weight_bits=bits[0], activation_bits=bits[1])
    assert type(small) is QuantizedNetworkClassifier
    lost = model.score(fresh, truth) - small.score(fresh, truth)
    assert lost < (0.01 if bits == (8, 8) else 0.05 if min(bits) > 3 else 0.3)
    assert_c_equals_predict(small, fresh[:300])


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("kind", NETWORKS)
def test_network_regressors(kind, n_outputs):
    X, y, fresh, _ = regression(n_outputs)
    model = with_scaler(network(kind)).fit(X, y / 50 if n_outputs == 1 else y)
    for bits in ((8, 8), (4, 5)):
        small = effml.quantize(model, X, weight_bits=bits[0], activation_bits=bits[1])
        assert type(small) is QuantizedNetworkRegressor
        gap = small.predict(fresh) - model.predict(fresh)
        assert gap.std() < (0.05 if bits == (8, 8) else 0.3) * model.predict(fresh).std()
        assert_c_equals_predict(small, fresh)


def test_fewer_bits_take_fewer_bytes():
    X, y, _, _ = classification(10)
    for model in (LogisticRegression(max_iter=50), network("relu-20", 10)):
        model.fit(X, y)
        flash = [effml.footprint(effml.quantize(model, X, weight_bits=b)).flash_bytes for b in (8, 4, 2)]
        assert effml.footprint(model).flash_bytes > 2 * flash[0] > 2.6 * flash[1] > 3 * flash[2]
        estimated, measured = flash[1], effml.compile_c(effml.quantize(model, X, weight_bits=4)).flash_bytes
        assert abs(estimated - measured) < 0.1 * measured


def test_small_integer_inputs_leave_no_float_in_the_c(tmp_path):
    X, y = load_digits(return_X_y=True)
    for activation in ("relu", "tanh"):
        net = MLPClassifier((16,), activation=activation, max_iter=30, random_state=0).fit(X, y)
        small = effml.quantize(net, X[:500], weight_bits=5)
        _header, source = effml.to_c(small, tmp_path, input_dtype="uint8")
        assert "float" not in source.read_text()
        compiled = effml.compile_c(small, input_dtype="uint8")
        np.testing.assert_array_equal(compiled.predict(X), small.predict(X))
        rows = hostile_rows(compiled.compiled.program, 60, np.random.default_rng(0))
        expected = compiled.compiled.program.run(rows)["label"]
        np.testing.assert_array_equal(sanitized_outputs(compiled.compiled.program, rows), expected)


def people(n, seed):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n).astype(float),
            "job": rng.choice(["nurse", "cook", "pilot", 'the "boss" */'], n),
            "height": rng.normal(170, 10, n),
            "town": rng.choice(["A", "B", "C"], n),
        }
    )
    return X, np.where((X["age"] > 50) ^ (X["job"] == "cook"), "yes", "no")


@pytest.mark.parametrize("bits", [(8, 8), (4, 6), (2, 8)])
@pytest.mark.parametrize("numbers", [["age", "height"], []])
def test_one_hot_columns_become_integer_tables(numbers, bits):
    X, y = people(600, 0)
    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["job", "town"]), (StandardScaler(), numbers)
    )
    for final in (LogisticRegression(), MLPClassifier((12,), max_iter=300, random_state=0)):
        model = make_pipeline(encoder, final).fit(X, y)
        small = effml.quantize(model, X, weight_bits=bits[0], activation_bits=bits[1])
        fresh, truth = people(500, 1)
        lost = model.score(fresh, truth) - small.score(fresh, truth)
        assert lost < {8: 0.015, 4: 0.05, 2: 0.2}[bits[0]]
        fresh["job"] = fresh["job"].where(np.arange(len(fresh)) % 3 > 0, "astronaut")
        assert_c_equals_predict(small, fresh)
        assert "LookupSum" in [type(step).__name__ for step in small.program_.steps]


def test_a_state_is_seen_beside_numbers_of_many_steps():
    """A weight of a state stands against one of the 255 steps of a number: neither may drown in the other's scale."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.uniform(0, 1000, 800), "kind": rng.choice(["a", "b", "c"], 800)})
    y = 0.01 * X["x"] + X["kind"].map({"a": 0.0, "b": 4.0, "c": -3.0})
    encoder = make_column_transformer((OneHotEncoder(), ["kind"]), remainder="passthrough")
    model = make_pipeline(encoder, LinearRegression()).fit(X, y)
    assert np.abs(effml.quantize(model, X).predict(X) - y).max() < 0.05
    assert effml.quantize(model, X, weight_bits=3).score(X, y) > 0.98


def test_estimators_keep_the_conventions(tmp_path):
    X, y, fresh, _ = classification(10)
    frame = pd.DataFrame(X, columns=[f"pixel {k}" for k in range(X.shape[1])])
    model = with_scaler(network("relu-20", 10))
    small = QuantizedNetworkClassifier(model, weight_bits=5).fit(frame, y)
    np.testing.assert_array_equal(small.classes_, np.arange(10))
    assert small.n_features_in_ == 64 and small.feature_names_in_[1] == "pixel 1"
    fresh = pd.DataFrame(fresh, columns=frame.columns)
    np.testing.assert_allclose(small.predict_proba(fresh).sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(small.predict_proba(fresh).argmax(axis=1), small.predict(fresh))
    again = load_model(save_model(small, tmp_path / "small.skops"))
    np.testing.assert_array_equal(again.predict(fresh), small.predict(fresh))
    copy = clone(small)
    assert copy.get_params()["weight_bits"] == 5 and not hasattr(copy, "program_")
    with pytest.raises(NotFittedError):
        copy.predict(fresh)
    # quantising the fitted model gives what fitting the wrapper gives
    direct = effml.quantize(small.estimator_, frame, weight_bits=5)
    assert direct.program_.fingerprint() != "" and (direct.predict(fresh) == small.predict(fresh)).all()


@pytest.mark.parametrize("kind", ["relu-20", "tanh-20"])
def test_models_of_every_step_are_saved(kind, tmp_path):
    X, y, fresh, _ = regression()
    for model in (with_scaler(network(kind)), with_scaler(clone(REGRESSORS["PoissonRegressor"]))):
        small = effml.quantize(model.fit(X, y / 50), X)
        again = load_model(save_model(small, tmp_path / "small.skops"))
        np.testing.assert_array_equal(again.predict(fresh), small.predict(fresh))
    X, y, fresh, _ = classification(10)
    small = effml.quantize(clone(CLASSIFIERS["SGDClassifier-log_loss"]).fit(X, y), X)
    again = load_model(save_model(small, tmp_path / "small.skops"))
    np.testing.assert_array_equal(again.predict_proba(fresh), small.predict_proba(fresh))
    X, y = people(300, 0)
    encoder = make_column_transformer((OneHotEncoder(), ["job"]), (StandardScaler(), ["age"]))
    small = effml.quantize(make_pipeline(encoder, network(kind, 2)).fit(X, y), X)
    again = load_model(save_model(small, tmp_path / "small.skops"))
    np.testing.assert_array_equal(again.predict(X), small.predict(X))


def test_searches_and_few_rows():
    X, y, fresh, _ = classification(2)
    search = GridSearchCV(with_scaler(LogisticRegression()), {"logisticregression__C": [0.1, 1.0]}, cv=2).fit(X, y)
    small = effml.quantize(search, X)
    assert (small.predict(fresh) == search.predict(fresh)).mean() > 0.97
    inside = QuantizedLinearClassifier(search).fit(X, y)
    assert (inside.predict(fresh) == search.predict(fresh)).mean() > 0.97
    one = effml.quantize(search, X[:1])  # ranges of a single row say next to nothing, and nothing breaks
    assert set(one.predict(fresh)) <= {0, 1}
    assert_c_equals_predict(one, fresh)


def test_models_without_a_weight_are_their_intercept():
    X, y, fresh, _ = classification(10)
    model = LogisticRegression(max_iter=20).fit(X, y)
    model.coef_ = np.zeros_like(model.coef_)
    model.intercept_ = np.arange(10.0) * 1e-3
    small = effml.quantize(model, X)
    assert (small.predict(fresh) == 9).all()
    assert_c_equals_predict(small, fresh)
    value = Ridge().fit(X, np.full(len(X), 2.5))
    small = effml.quantize(value, X)
    np.testing.assert_allclose(small.predict(fresh), 2.5, rtol=1e-6)
    assert_c_equals_predict(small, fresh)


def test_large_intercepts_do_not_overflow():
    X, y, fresh, _ = classification(10)
    model = LogisticRegression(max_iter=20).fit(X, y)
    model.intercept_ = 1e12 * np.eye(10)[3] + np.eye(10)[4]
    assert (effml.quantize(model, X).predict(fresh) == 3).all()
    value = Ridge().fit(X, y)
    usual = effml.quantize(value, X).predict(fresh)
    value.intercept_ = value.intercept_ + 1e6
    np.testing.assert_allclose(effml.quantize(value, X).predict(fresh), usual + 1e6, atol=0.1)


def test_dead_layers_and_outliers():
    X, y, fresh, _ = classification(2)
    model = network("relu-20", 2).fit(StandardScaler().fit_transform(X), y)
    model.intercepts_[0] = model.intercepts_[0] - 1e4
    small = effml.quantize(model, X)
    assert (small.predict(fresh) == model.predict(fresh)).all()
    assert_c_equals_predict(small, fresh * 1e20)


def test_errors_name_what_is_wrong():
    X, y, _, _ = classification(10)
    model = LogisticRegression(max_iter=20).fit(X, y)
    for name in ("weight_bits", "activation_bits"):
        for bad in (1, 9, 4.5, "8"):
            with pytest.raises(ValueError, match=name):
                effml.quantize(model, X, **{name: bad})
    with pytest.raises(LoweringError, match="linear models and networks, got RandomForestClassifier"):
        effml.quantize(RandomForestClassifier(3).fit(X, y), X)
    with pytest.raises(NotFittedError):
        effml.quantize(LogisticRegression(), X)
    for bad in (X[:0], np.where(X == 3, np.nan, X), np.where(X == 3, np.inf, X)):
        with pytest.raises(ValueError, match="X_calib must hold at least one row and no missing"):
            effml.quantize(model, bad)
    with pytest.raises(LoweringError, match="PowerTransformer before a linear model"):
        effml.quantize(make_pipeline(PowerTransformer(), network("relu-20", 2)).fit(X[:, 20:30], y > 4), X[:, 20:30])
    with pytest.raises(LoweringError, match="MLPClassifier is quantised by QuantizedNetworkClassifier"):
        QuantizedLinearClassifier(network("relu-20", 10)).fit(X, y)
    with pytest.raises(LoweringError, match="LogisticRegression is quantised by QuantizedLinearClassifier"):
        QuantizedNetworkRegressor(LogisticRegression(max_iter=10)).fit(X, y)
    small = effml.quantize(model, X)
    with pytest.raises(ValueError, match="NaN or infinity"):
        small.predict(np.full((1, 64), np.nan))
    with pytest.raises(ValueError, match="63 features"):
        small.predict(X[:, :63])
    with pytest.raises(AttributeError):
        effml.quantize(clone(CLASSIFIERS["LinearSVC"]).fit(X, y), X).predict_proba(X)
    with pytest.raises(LoweringError, match="holds its preprocessing inside"):
        effml.lower(make_pipeline(MinMaxScaler(), QuantizedLinearClassifier(LogisticRegression())).fit(X, y))


def test_sums_beyond_32_bits_are_refused(monkeypatch):
    X, y, _, _ = classification(2)
    model = LogisticRegression(max_iter=20).fit(X, y)
    monkeypatch.setattr("effml.adapters.integers.LARGEST_SUM", 10_000)
    with pytest.raises(LoweringError, match="sums of 30 products of 8-bit weights do not fit 32 bits"):
        effml.quantize(model, X)


def test_check_export_calls_them_exact():
    for model in (
        QuantizedLinearClassifier(LogisticRegression()),
        QuantizedLinearRegressor(Ridge()),
        QuantizedNetworkClassifier(MLPClassifier()),
        QuantizedNetworkRegressor(network("relu-20")),
    ):
        assert effml.check_export(model).rows[-1].status == "exact"


# -- calibration ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.booleans())
def test_rounding_one_after_the_other_beats_rounding_each(seed, n_bits, shared):
    rng = np.random.default_rng(seed)
    n_in, n_out = int(rng.integers(1, 12)), int(rng.integers(1, 5))
    hidden = rng.normal(size=(300, 2)) @ rng.normal(size=(2, n_in)) + 0.3 * rng.normal(size=(300, n_in))
    inputs = np.clip(np.rint(40 * hidden + 120), 0, 255)
    weight = rng.normal(size=(n_in, n_out))
    target = inputs @ weight + rng.normal(size=n_out)
    top = 2**n_bits - 1
    found = fit_codes(inputs, weight, target, n_bits, shared=shared)
    assert found.codes.dtype == np.uint8 and found.codes.max() <= top
    error = ((inputs @ ((2.0 * found.codes - top) * found.unit) + found.bias - target) ** 2).sum(axis=0)
    largest = np.abs(weight).max(axis=0)
    unit = (np.full(n_out, largest.max()) if shared else largest) / top
    plain = inputs @ ((2 * np.clip(np.rint((weight / unit + top) / 2), 0, top) - top) * unit)
    plain = ((plain - plain.mean(axis=0) - target + target.mean(axis=0)) ** 2).sum(axis=0)
    assert error.sum() <= 1.5 * plain.sum() + 1e-6 * (target.std(axis=0) ** 2).sum()
    if shared:
        assert (found.unit == found.unit[0]).all()


def test_rounding_one_after_the_other_helps():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 20)) + 0.2 * rng.normal(size=(500, 20))
    inputs = np.clip(np.rint(20 * hidden + 120), 0, 255)
    weight = rng.normal(size=(20, 3))
    target = inputs @ weight
    found = fit_codes(inputs, weight, target, 3)
    error = ((inputs @ ((2.0 * found.codes - 7) * found.unit) + found.bias - target) ** 2).mean()
    unit = np.abs(weight).max(axis=0) / 7
    plain = inputs @ ((2 * np.clip(np.rint((weight / unit + 7) / 2), 0, 7) - 7) * unit) - target
    assert error < 0.2 * plain.var(axis=0).mean()


def test_ranges_leave_out_what_is_rare():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(2000, 2))
    columns[0, 1] = 1e4
    scale, offset = input_scale(columns, 15)
    low, high = (0.5 - offset) / scale, (15.5 - offset) / scale
    assert (low < -2).all() and (high < 10).all() and (high > 2).all()
    steps = np.clip(np.floor(columns * scale + offset), 0, 15)
    back = (steps + 0.5 - offset) / scale
    assert (np.abs(back - columns)[1:] ** 2).mean() < 0.05
    mixed = np.stack([rng.integers(0, 2, 500).astype(float), rng.normal(size=500)], axis=1)
    scale, offset = input_scale(mixed, 255)
    assert set(np.floor(mixed[:, 0] * scale[0] + offset[0])) == {0, 226}  # a little room, and no rounding


def test_whole_numbers_are_scaled_by_whole_numbers():
    X, y, fresh, _ = classification(10)
    small = effml.quantize(LogisticRegression(max_iter=50).fit(X, y), X)
    step = small.program_.steps[0]
    assert type(step).__name__ == "MultiplyInput"
    chosen = X[:, step.columns]
    np.testing.assert_array_equal(step.run(X.astype(np.float32)), chosen * step.factor)
    assert (chosen.max(axis=0) * step.factor > 50).all()
    np.testing.assert_array_equal(step.run(X.astype(np.int32)), step.run(X.astype(np.float32)))
    assert input_factor(X + 0.5, 255) is None and input_factor(X - 1, 255) is None and input_factor(X, 15) is None
    assert_c_equals_predict(small, fresh)
    alike = X.copy()
    alike[0] = 16
    like = effml.quantize(LogisticRegression(max_iter=50).fit(alike, y), alike)
    assert type(like.program_.steps[0]).__name__ == "QuantizeInput" and like.program_.steps[0].is_identity


def test_steps_of_activations_weigh_clipping_against_rounding():
    rng = np.random.default_rng(0)
    sums = np.abs(rng.normal(size=(3000, 4)))
    sums[0, 0] = 60.0
    coarse, fine = activation_step(sums, sums, 3), activation_step(sums, sums, 255)
    assert 3 * coarse < 20 < 255 * fine
    assert activation_step(-sums, np.zeros_like(sums), 255) == 1.0
