"""Lowering of scikit-learn's trees, linear models, scalers, encoders and ColumnTransformers."""

import numpy as np
import pandas as pd
import pytest
from common.c_proof import assert_c_equals_run, hostile_rows
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier

import effml
from effml.program import LoweringError

DATA = {"iris": load_iris, "wine": load_wine, "digits": load_digits, "wdbc": load_breast_cancer}


def _load(name):
    X, y = DATA[name](return_X_y=True)
    return X[:400, :20], y[:400]


SCALERS = {
    "none": None,
    "standard": StandardScaler(),
    "minmax": MinMaxScaler((-1, 3)),
    "minmax_clip": MinMaxScaler(clip=True),
    "maxabs": MaxAbsScaler(),
    "robust": RobustScaler(),
    "two_scalers": make_pipeline(StandardScaler(), MinMaxScaler()),
    "quantile": QuantileTransformer(n_quantiles=40),
    "power": PowerTransformer(),
    "bins": KBinsDiscretizer(5, encode="ordinal", strategy="uniform"),
    "bins_one_hot": KBinsDiscretizer(4, encode="onehot-dense", strategy="uniform"),
    "select": make_pipeline(VarianceThreshold(), SelectKBest(k=3)),
    "union": FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler())]),
}


def _pipeline(scaler, est):
    return est if SCALERS[scaler] is None else make_pipeline(SCALERS[scaler], est)


def _labels(program, X):
    return program.labels(program.encode(X))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("scaler", SCALERS)
def test_tree_labels_are_exact_on_float32_rows(data, scaler):
    X, y = _load(data)
    model = _pipeline(scaler, DecisionTreeClassifier(max_depth=7, random_state=0)).fit(X, y)
    program = effml.lower(model)
    # values at and beside every threshold, where a scaler's rounding decides
    step = program.steps[0]
    cuts = step.threshold if hasattr(step, "threshold") else step.cuts
    columns = step.feature if hasattr(step, "threshold") else np.repeat(step.columns, step.n_cuts)
    rng = np.random.default_rng(0)
    rows = X[rng.integers(0, len(X), size=3 * max(len(cuts), 1))].astype(np.float32)
    for k, (cut, column) in enumerate(zip(cuts, columns, strict=True)):
        beside = np.nextafter(np.float32(cut), np.float32([-np.inf, np.inf]))
        rows[3 * k : 3 * k + 3, column] = [beside[0], cut, beside[1]]
    rows = np.concatenate([rows, X.astype(np.float32)])
    np.testing.assert_array_equal(_labels(program, rows), model.predict(rows))
    np.testing.assert_array_equal(_labels(effml.lower(model, layout="code"), rows), model.predict(rows))
    proba = program.run(program.encode(rows))["proba"]
    np.testing.assert_allclose(proba, model.predict_proba(rows), atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(
    "scaler", ["none", "standard", "minmax", "robust", "two_scalers", "bins_one_hot", "select", "union"]
)
def test_logistic_regression_is_within_float32_rounding(data, scaler):
    X, y = _load(data)
    model = _pipeline(scaler, LogisticRegression(max_iter=300)).fit(X, y)
    program = effml.lower(model)
    X32 = X.astype(np.float32)
    proba = program.run(X32)["proba"]
    expected = model.predict_proba(X32)
    np.testing.assert_allclose(proba, expected, atol=3e-5)
    top = np.sort(expected, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-4
    np.testing.assert_array_equal(_labels(program, X)[clear], model.predict(X32)[clear])


@pytest.mark.filterwarnings("ignore:lbfgs")
def test_compiled_models_equal_their_programs():
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(1)
    for model, options in (
        (DecisionTreeClassifier(max_depth=6), {}),
        (DecisionTreeClassifier(max_depth=6), {"layout": "code"}),
        (DecisionTreeClassifier(min_samples_split=len(X) + 1), {"layout": "code"}),  # one leaf
        (make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=6)), {}),
        (make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=10)), {}),
        (make_pipeline(KBinsDiscretizer(3, encode="onehot", strategy="uniform"), LogisticRegression(max_iter=10)), {}),
    ):
        program = effml.lower(model.fit(X, y), **options)
        assert_c_equals_run(program, hostile_rows(program, 500, rng))


def _people(n=400, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n).astype(float),
            "job": rng.choice(["nurse", "cook", "pilot", 'the "boss" */'], n),
            "rooms": rng.integers(1, 6, n),
            "town": pd.Categorical(rng.choice(["A", "B", "C"], n)),
        }
    )
    y = np.where((X["age"] > 50) ^ (X["job"] == "cook") | (X["rooms"] == 3), "yes", "no")
    return X, y


def _columns(encoder, scaler="passthrough"):
    return ColumnTransformer([("text", encoder, ["job", "town"]), ("numbers", scaler, ["age", "rooms"])])


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(_columns(OrdinalEncoder()), DecisionTreeClassifier(max_depth=6, random_state=0)),
        make_pipeline(_columns(OneHotEncoder(), StandardScaler()), DecisionTreeClassifier(max_depth=6, random_state=0)),
        make_pipeline(
            _columns(OneHotEncoder(handle_unknown="ignore", drop="if_binary"), StandardScaler()),
            LogisticRegression(max_iter=500),
        ),
        make_pipeline(
            make_column_transformer((OneHotEncoder(), ["rooms", "job"]), (StandardScaler(), ["age"]), remainder="drop"),
            LogisticRegression(max_iter=500),
        ),
        make_pipeline(
            _columns(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), SimpleImputer()),
            DecisionTreeClassifier(max_depth=5, random_state=0),
        ),
    ],
    ids=["ordinal-tree", "onehot-tree", "onehot-linear", "numeric-onehot-linear", "imputer-tree"],
)
def test_column_transformers_of_text_and_numbers(model):
    X, y = _people()
    model = model.fit(X, y)
    compiled = effml.compile_c(model)
    fresh, _ = _people(seed=1)
    agreement = compiled.agreement(fresh)
    assert agreement.n_equal == agreement.n_rows == len(fresh)
    np.testing.assert_allclose(compiled.predict_proba(fresh), model.predict_proba(fresh), atol=1e-5)
    rows = hostile_rows(compiled.program, 300, np.random.default_rng(2))
    assert_c_equals_run(compiled.program, rows)


def test_unknown_levels_follow_the_encoder():
    X, y = _people()
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    model = make_pipeline(_columns(encoder, SimpleImputer()), DecisionTreeClassifier(max_depth=6, random_state=0)).fit(
        X, y
    )
    fresh, _ = _people(seed=3)
    fresh["job"] = fresh["job"].where(np.arange(len(fresh)) % 3 > 0, "astronaut")
    fresh.loc[::5, "age"] = np.nan
    np.testing.assert_array_equal(effml.compile_c(model).predict(fresh), model.predict(fresh))


@pytest.mark.parametrize("layout", ["table", "code"])
def test_trees_send_missing_values_where_scikit_learn_does(layout):
    X, y = load_breast_cancer(return_X_y=True)
    rng = np.random.default_rng(4)
    X[rng.random(X.shape) < 0.1] = np.nan
    model = DecisionTreeClassifier(max_depth=8, random_state=0).fit(X, y)
    assert effml.lower(model, layout=layout).steps[0].missing_right.any()
    compiled = effml.compile_c(model, layout=layout)
    np.testing.assert_array_equal(compiled.predict(X), model.predict(X.astype(np.float32)))


def test_a_tree_as_code_is_quicker_and_has_no_third_layout():
    X, y = load_digits(return_X_y=True)
    model = DecisionTreeClassifier(max_depth=8, random_state=0).fit(X, y)
    table, code = (effml.footprint(model, layout=layout) for layout in ("table", "code"))
    assert code.n_operations < table.n_operations and code.flash_bytes > table.flash_bytes
    with pytest.raises(ValueError, match="layout='words' must be one of"):
        effml.lower(model, layout="words")


def test_a_fitted_search_lowers_its_best_estimator():
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [2, 4]}).fit(X, y)
    np.testing.assert_array_equal(_labels(effml.lower(search), X), search.predict(X.astype(np.float32)))


def test_subclasses_must_keep_predict():
    class Louder(DecisionTreeClassifier):
        def predict(self, X, check_input=True):
            return super().predict(X, check_input)

    class Same(DecisionTreeClassifier):
        pass

    X, y = load_iris(return_X_y=True)
    assert effml.lower(Same().fit(X, y))
    with pytest.raises(LoweringError, match="Louder overrides predict"):
        effml.lower(Louder().fit(X, y))


@pytest.mark.parametrize(
    "model, message",
    [
        (make_pipeline(PCA(2), DecisionTreeClassifier()), "PCA cannot be lowered"),
        (make_pipeline(PowerTransformer(), LogisticRegression()), "PowerTransformer before a linear model"),
        (Pipeline([("only", PCA(2))]), "PCA cannot be lowered"),
    ],
)
def test_what_cannot_lower_is_named(model, message):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(LoweringError, match=message):
        effml.lower(model.fit(X, y))


def test_check_export_lists_every_step_of_an_unfitted_pipeline():
    model = Pipeline([("columns", _columns(OneHotEncoder(), PCA())), ("tree", DecisionTreeClassifier())])
    report = effml.check_export(model)
    assert not report.supported
    assert [row.status for row in report.rows] == ["exact", "unsupported", "exact"]
    assert "columns: numbers: PCA" in str(report)
    assert effml.check_export(make_pipeline(StandardScaler(), LogisticRegression())).rows[-1].status == "float"


@pytest.mark.filterwarnings("ignore:lbfgs")
class TestQuantize:
    @pytest.mark.parametrize("bits", [(8, 8), (4, 8), (8, 4), (3, 3)])
    def test_c_is_exact_and_accuracy_stays(self, bits):
        X, y = load_digits(return_X_y=True)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=40)).fit(X[:1000], y[:1000])
        small = effml.quantize(model, X[:1000], weight_bits=bits[0], activation_bits=bits[1])
        compiled = effml.compile_c(small)
        agreement = compiled.agreement(X[1000:])
        assert agreement.n_equal == agreement.n_rows
        loss = model.score(X[1000:], y[1000:]) - small.score(X[1000:], y[1000:])
        assert loss < (0.015 if min(bits) == 8 else 0.06)
        assert effml.footprint(small).flash_bytes < effml.footprint(model).flash_bytes
        assert_c_equals_run(compiled.program, hostile_rows(compiled.program, 300, np.random.default_rng(0)))

    def test_small_integer_inputs_leave_no_float_in_the_c(self, tmp_path):
        X, y = load_digits(return_X_y=True)
        model = LogisticRegression(max_iter=20).fit(X, y)
        small = effml.quantize(model, X)
        _header, source = effml.to_c(small, tmp_path, input_dtype="uint8")
        assert "float" not in source.read_text()
        compiled = effml.compile_c(small, input_dtype="uint8")
        np.testing.assert_array_equal(compiled.predict(X), small.predict(X))

    def test_one_hot_columns_become_integer_tables(self):
        X, y = _people()
        model = make_pipeline(_columns(OneHotEncoder(handle_unknown="ignore"), StandardScaler()), LogisticRegression())
        model.fit(X, y)
        small = effml.quantize(model, X)
        assert model.score(X, y) - small.score(X, y) < 0.02
        fresh, _ = _people(seed=5)
        fresh["job"] = fresh["job"].where(np.arange(len(fresh)) % 3 > 0, "astronaut")
        assert (small.predict(fresh) == model.predict(fresh)).mean() > 0.95
        np.testing.assert_array_equal(effml.compile_c(small).predict(fresh), small.predict(fresh))

    def test_errors(self):
        X, y = load_iris(return_X_y=True)
        with pytest.raises(ValueError, match="weight_bits"):
            effml.quantize(LogisticRegression().fit(X, y), X, weight_bits=9)
        with pytest.raises(LoweringError, match="DecisionTreeClassifier"):
            effml.quantize(DecisionTreeClassifier().fit(X, y), X)
        with pytest.raises(ValueError, match="no missing"):
            effml.quantize(LogisticRegression().fit(X, y), X * np.nan)


class TestWrongInputs:
    def test_columns_of_a_data_frame_are_those_of_the_fit_in_their_order(self):
        X, y = load_iris(return_X_y=True, as_frame=True)
        compiled = effml.compile_c(DecisionTreeClassifier(max_depth=3).fit(X, y))
        np.testing.assert_array_equal(compiled.predict(X), compiled.predict(X.to_numpy()))
        with pytest.raises(ValueError, match=r"are in another order.*'petal width.*accepted is 'sepal length"):
            compiled.predict(X[X.columns[::-1]])
        with pytest.raises(ValueError, match=r"have other names.*column 1 is 'width'"):
            compiled.predict(X.rename(columns={X.columns[1]: "width"}))

    def test_a_model_fitted_without_names_takes_any(self):
        X, y = load_iris(return_X_y=True, as_frame=True)
        compiled = effml.compile_c(DecisionTreeClassifier(max_depth=3).fit(X.to_numpy(), y))
        np.testing.assert_array_equal(compiled.predict(X[X.columns[::-1]]), compiled.predict(X.to_numpy()[:, ::-1]))

    @pytest.mark.parametrize("scaled", [False, True])
    def test_unknown_options_of_a_lowering_are_named(self, scaled):
        X, y = load_iris(return_X_y=True)
        model = LogisticRegression(max_iter=500)
        model = (make_pipeline(StandardScaler(), model) if scaled else model).fit(X, y)
        with pytest.raises(TypeError, match="'leaf_bits' is unknown to the lowering of LogisticRegression"):
            effml.lower(model, leaf_bits=8)
