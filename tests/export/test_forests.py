"""Lowering of scikit-learn's forests and boosted trees: labels equal outside the proven gap, values near enough."""

import functools

import numpy as np
import pandas as pd
import pytest
from common.c_proof import assert_c_equals_run, compiles_everywhere, hostile_rows
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor
from threadpoolctl import threadpool_limits

import effml
from effml.program import LoweringError, Program, with_input_dtype

DATA = {
    "iris": load_iris,
    "wine": load_wine,
    "digits": load_digits,
    "wdbc": load_breast_cancer,
    "diabetes": load_diabetes,
}
CLASSIFIERS = {
    "forest": RandomForestClassifier(7, max_depth=5, random_state=0),
    "pure_forest": RandomForestClassifier(7, random_state=0),
    "extra_trees": ExtraTreesClassifier(7, max_depth=6, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=5, random_state=0),
    "boosting_from_zero": GradientBoostingClassifier(n_estimators=5, init="zero", random_state=0),
    "hist": HistGradientBoostingClassifier(max_iter=6, max_depth=4, random_state=0),
}
REGRESSORS = {
    "tree": DecisionTreeRegressor(max_depth=6, random_state=0),
    "extra_tree": ExtraTreeRegressor(max_depth=6, random_state=0),
    "forest": RandomForestRegressor(7, max_depth=6, random_state=0),
    "extra_trees": ExtraTreesRegressor(7, random_state=0),
    "boosting": GradientBoostingRegressor(n_estimators=7, random_state=0),
    "huber": GradientBoostingRegressor(n_estimators=7, loss="huber", random_state=0),
    "boosting_from_zero": GradientBoostingRegressor(n_estimators=7, init="zero", random_state=0),
    "hist": HistGradientBoostingRegressor(max_iter=7, max_depth=4, random_state=0),
    "hist_median": HistGradientBoostingRegressor(max_iter=7, loss="absolute_error", random_state=0),
}


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


@functools.cache
def _load(name):
    """Training and test part, shuffled, at most 300 + 200 rows of 20 columns."""
    X, y = DATA[name](return_X_y=True)
    order = np.random.default_rng(2).permutation(len(X))[:500]
    X, y = X[order, -20:], y[order]
    n = len(X) * 3 // 5
    return X[:n], y[:n], X[n:], y[n:]


def _near_thresholds(program, X, n_rows=400, seed=0):
    """Float32 rows, one value of each on, just below or just above a threshold on the raw row."""
    rng = np.random.default_rng(seed)
    step = program.steps[0]
    cuts = step.threshold if hasattr(step, "threshold") else step.cuts
    columns = step.feature if hasattr(step, "threshold") else np.repeat(step.columns, step.n_cuts)
    rows = X[rng.integers(len(X), size=n_rows)].astype(np.float32)
    if len(cuts):
        chosen = rng.integers(len(cuts), size=n_rows)
        cut = cuts[chosen].astype(np.float32)
        beside = np.nextafter(cut, rng.choice(np.float32([-np.inf, np.inf]), n_rows), dtype=np.float32)
        rows[np.arange(n_rows), columns[chosen]] = np.where(rng.random(n_rows) < 0.5, cut, beside)
    return rows


def _lead(model, rows):
    """Lead of the best class over the next (of the raw score over zero), as Output.tolerance counts it."""
    final = model.steps[-1][1] if hasattr(model, "steps") else model
    boosting = isinstance(final, GradientBoostingClassifier | HistGradientBoostingClassifier)
    scores = model.decision_function(rows) if boosting else model.predict_proba(rows)
    if scores.ndim == 1:
        return np.abs(scores)
    top = np.sort(scores, axis=1)
    return top[:, -1] - top[:, -2]


def _assert_labels_equal(model, rows, *, none_inside=True, **options):
    """Labels equal Python's on every row outside the gap; by default no row is inside."""
    program = effml.lower(model, **options)
    run = program.run(program.encode(rows))
    labels = np.asarray(program.classes)[run["label"][:, 0]]
    gap = program.outputs["label"].tolerance
    inside = _lead(model, rows) < gap
    assert not none_inside or not inside.any(), f"{inside.sum()} rows lie inside the gap {gap}"
    np.testing.assert_array_equal(labels[~inside], np.asarray(model.predict(rows))[~inside])
    proba_error = np.abs(run["proba"] - model.predict_proba(rows)).max()
    assert proba_error <= program.outputs["proba"].tolerance
    return program


def _assert_values_close(model, rows, **options):
    program = effml.lower(model, **options)
    value = program.run(program.encode(rows))["value"][:, 0]
    assert np.abs(value - model.predict(rows)).max() <= program.outputs["value"].tolerance
    return program


# -- labels and values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["iris", "wine", "digits", "wdbc"])
@pytest.mark.parametrize("thresholds", ["raw", "ranks"])
@pytest.mark.parametrize("case", CLASSIFIERS)
def test_labels_are_exact_outside_the_gap(case, thresholds, data):
    X, y, X_test, _ = _load(data)
    model = CLASSIFIERS[case].fit(X, y)
    program = _assert_labels_equal(model, X_test.astype(np.float32), thresholds=thresholds)
    _assert_labels_equal(model, _near_thresholds(program, X), none_inside=False, thresholds=thresholds)


@pytest.mark.parametrize("thresholds", ["raw", "ranks"])
@pytest.mark.parametrize(
    "case", ["forest", "extra_trees", "boosting", "huber", "boosting_from_zero", "hist", "hist_median"]
)
def test_values_keep_to_the_bound(case, thresholds):
    X, y, X_test, _ = _load("diabetes")
    model = REGRESSORS[case].fit(X, y)
    program = _assert_values_close(model, X_test.astype(np.float32), thresholds=thresholds)
    _assert_values_close(model, _near_thresholds(program, X), thresholds=thresholds)
    assert program.outputs["value"].tolerance < 1e-3 * np.ptp(y)
    assert f"{program.outputs['value'].tolerance:.2g}" in program.notes[0]


@pytest.mark.parametrize("case", ["tree", "extra_tree"])
def test_single_regression_trees_give_pythons_value_in_float32(case):
    X, y, _, _ = _load("diabetes")
    model = REGRESSORS[case].fit(X, y)
    for est in (model, make_pipeline(StandardScaler(), model).fit(X, y)):
        program = effml.lower(est)
        rows = _near_thresholds(program, X)
        np.testing.assert_array_equal(program.run(rows)["value"][:, 0], est.predict(rows).astype(np.float32))


def test_trees_of_random_splits_lower_as_decision_trees():
    X, y, X_test, _ = _load("wine")
    model = ExtraTreeClassifier(random_state=0).fit(X, y)
    program = effml.lower(model)
    rows = X_test.astype(np.float32)
    np.testing.assert_array_equal(program.labels(rows), model.predict(rows))


@pytest.mark.filterwarnings("ignore:invalid value")  # scikit-learn sums rows of huge numbers
@pytest.mark.parametrize("data", ["iris", "wdbc"])
def test_forests_of_pure_leaves_are_exact_on_every_row(data):
    X, y, _, _ = _load(data)
    model = RandomForestClassifier(6, random_state=0).fit(X, y)  # an even number of votes makes ties
    program = effml.lower(model)
    assert program.outputs["label"].tolerance == 0.0
    rows = np.concatenate([_near_thresholds(program, X, 2000), hostile_rows(program, 2000, np.random.default_rng(0))])
    rows = rows[np.isfinite(rows).all(axis=1)]
    np.testing.assert_array_equal(program.labels(rows), model.predict(rows))
    top = np.sort(model.predict_proba(rows), axis=1)
    assert (top[:, -1] == top[:, -2]).sum() > 10  # ties were met: the lower class wins


@pytest.mark.parametrize(("leaf_bits", "error"), [(8, 8e-3), (16, 3.1e-5), (32, 5e-7)])
def test_more_leaf_bits_make_the_gap_smaller(leaf_bits, error):
    X, y, X_test, _ = _load("digits")
    model = RandomForestClassifier(8, max_depth=5, random_state=0).fit(X, y)
    rows = X_test.astype(np.float32)
    program = _assert_labels_equal(model, rows, none_inside=leaf_bits > 8, leaf_bits=leaf_bits)
    walk = program.steps[-3]
    assert walk.values.dtype == {8: np.int8, 16: np.int16, 32: np.int32}[leaf_bits]
    assert np.abs(program.run(rows)["proba"] - model.predict_proba(rows)).max() <= error
    assert 0 < program.outputs["label"].tolerance <= 2 * error


def test_zero_score_is_the_second_class_of_gradient_boosting_only():
    X = np.zeros((6, 1))
    y = np.array([3, 3, 3, 8, 8, 8])  # nothing to split: the raw score stays 0
    rows = X.astype(np.float32)
    boosting = GradientBoostingClassifier(n_estimators=2).fit(X, y)
    program = effml.lower(boosting)
    np.testing.assert_array_equal(program.labels(rows), boosting.predict(rows))
    assert program.run(rows)["score"][0, 0] == boosting.decision_function(rows)[0] == 0
    forest = RandomForestClassifier(2, bootstrap=False).fit(X, y)
    np.testing.assert_array_equal(effml.lower(forest).labels(rows), forest.predict(rows))


def test_scores_are_the_decision_function():
    for data in ("wine", "wdbc"):
        X, y, X_test, _ = _load(data)
        for case in ("boosting", "hist"):
            model = CLASSIFIERS[case].fit(X, y)
            program = effml.lower(model)
            rows = X_test.astype(np.float32)
            expected = model.decision_function(rows).reshape(len(rows), -1)
            assert np.abs(program.run(rows)["score"] - expected).max() <= program.outputs["score"].tolerance < 1e-3


def test_exponential_loss_has_its_own_probabilities():
    X, y, X_test, _ = _load("wdbc")
    model = GradientBoostingClassifier(n_estimators=5, loss="exponential", random_state=0).fit(X, y)
    _assert_labels_equal(model, X_test.astype(np.float32))


# -- what lies before the trees ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "scaler",
    [
        StandardScaler(),
        make_pipeline(StandardScaler(), MinMaxScaler((-1, 3))),
        QuantileTransformer(n_quantiles=40),
        KBinsDiscretizer(5, encode="ordinal", strategy="uniform"),
        SimpleImputer(),
    ],
)
@pytest.mark.parametrize("case", ["forest", "boosting", "hist"])
def test_transformers_fold_into_thresholds(case, scaler):
    X, y, _, _ = _load("wdbc")
    model = make_pipeline(scaler, CLASSIFIERS[case]).fit(X, y)
    program = effml.lower(model)
    assert {type(step).__name__ for step in program.steps} <= {"Bin", "ForestWalk", "Positive", "Affine", "Softmax"}
    _assert_labels_equal(model, _near_thresholds(program, X), none_inside=False)


def _people(n=300, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n).astype(np.float32),
            "job": rng.choice(["nurse", "cook", "pilot", 'the "boss" */'], n),
            "rooms": rng.integers(1, 6, n),
            "town": pd.Categorical(rng.choice(["A", "B", "C"], n)),
        }
    )
    y = np.where((X["age"] > 50) ^ (X["job"] == "cook") | (X["rooms"] == 3), "yes", "no")
    return X, y


@pytest.mark.parametrize("final", ["forest", "extra_trees", "boosting", "hist"])
@pytest.mark.parametrize(
    "columns",
    [
        ColumnTransformer([("text", OrdinalEncoder(), ["job", "town"]), ("numbers", "passthrough", ["age", "rooms"])]),
        make_column_transformer((OneHotEncoder(sparse_output=False), ["job", "town"]), (StandardScaler(), ["age"])),
        make_column_transformer(
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), ["job", "town"]),
            (SimpleImputer(), ["age"]),
        ),
    ],
)
def test_tables_with_text_and_categories(columns, final):
    X, y = _people()
    model = make_pipeline(columns, CLASSIFIERS[final]).fit(X, y)
    new, _ = _people(200, seed=1)
    program = _assert_labels_equal(model, new, none_inside=False)
    assert_c_equals_run(program, hostile_rows(program, 200, np.random.default_rng(0)))


@pytest.mark.parametrize("final", ["forest", "hist"])
def test_unknown_categories_go_where_a_nan_goes(final):
    X, y = _people()
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    model = make_pipeline(make_column_transformer((encoder, ["job"]), ("passthrough", ["age"])), CLASSIFIERS[final])
    model.fit(X, y)
    new, _ = _people(200, seed=1)
    new.loc[::3, "job"] = "astronaut"
    new.loc[::5, "age"] = np.nan
    _assert_labels_equal(model, new, none_inside=False)


def test_unsplit_category_columns_may_hold_anything():
    X, y = _people()
    X["town"] = pd.Categorical(["A"] * len(X))
    X = X.drop(columns="job")
    model = HistGradientBoostingClassifier(max_iter=5).fit(X, y)
    program = _assert_labels_equal(model, X)
    assert [spec.used for spec in program.inputs] == [True, True, False]


def test_searches_lower_their_best_estimator():
    X, y, X_test, _ = _load("iris")
    search = GridSearchCV(RandomForestClassifier(5, random_state=0), {"max_depth": [2, 4]}, cv=2).fit(X, y)
    rows = X_test.astype(np.float32)
    np.testing.assert_array_equal(effml.lower(search).labels(rows), search.predict(rows))


# -- missing values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trained_on_missing", [True, False])
@pytest.mark.parametrize("thresholds", ["raw", "ranks"])
@pytest.mark.parametrize("case", ["forest", "extra_trees", "hist"])
def test_nan_rows_go_where_each_tree_sends_them(case, thresholds, trained_on_missing):
    X, y, X_test, _ = _load("wdbc")
    rng = np.random.default_rng(0)
    holes = np.where(rng.random(X.shape) < 0.15, np.nan, X)
    model = CLASSIFIERS[case].fit(holes if trained_on_missing else X, y)
    rows = np.where(rng.random(X_test.shape) < 0.3, np.nan, X_test).astype(np.float32)
    program = _assert_labels_equal(model, rows, none_inside=False, thresholds=thresholds)
    assert "sends missing values" in program.inputs[0].missing
    if thresholds == "ranks":  # one rank for tests that send a NaN left, one for the others
        assert len(np.unique(program.steps[0].columns)) < len(program.steps[0].columns)


def test_missing_right_saves_the_second_rank_of_a_column():
    X, y, X_test, _ = _load("wdbc")
    model = CLASSIFIERS["forest"].fit(X, y)
    exact, right = (effml.lower(model, thresholds="ranks", missing=missing) for missing in ("exact", "right"))
    assert len(right.steps[0].columns) < len(exact.steps[0].columns)
    assert "other way" in right.inputs[0].missing
    _assert_labels_equal(model, X_test.astype(np.float32), thresholds="ranks", missing="right")


# -- ranks and integer rows -------------------------------------------------------------------------------------------


def test_columns_with_many_thresholds_get_several_narrow_ranks():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 3))
    y = (X[:, 0] * X[:, 1] > 0.3 * rng.normal(size=1500)).astype(int)
    model = RandomForestClassifier(8, random_state=0).fit(X, y)
    program = effml.lower(model, missing="right")
    ranks, walk = program.steps[:2]
    assert len(np.unique(ranks.columns)) == 3 < len(ranks.columns) <= 64
    assert walk.threshold.dtype == np.uint8 and ranks.n_cuts.max() <= 255
    _assert_labels_equal(model, _near_thresholds(program, X, 1500), none_inside=False)


def test_tests_are_ranks_only_where_that_is_smaller():
    X, y, _, _ = _load("digits")
    small = effml.lower(RandomForestClassifier(2, max_depth=2, random_state=0).fit(X, y))
    large = effml.lower(RandomForestClassifier(10, max_depth=8, random_state=0).fit(X, y))
    assert [type(program.steps[0]).__name__ for program in (small, large)] == ["ForestWalk", "Bin"]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
@pytest.mark.parametrize("thresholds", ["raw", "ranks"])
@pytest.mark.parametrize("case", ["forest", "boosting", "hist"])
def test_integer_rows(case, thresholds, dtype):
    X, y, X_test, _ = _load("digits")
    X, X_test = X * 15, X_test * 15  # 0 ... 240
    model = CLASSIFIERS[case].fit(X, y)
    program = with_input_dtype(effml.lower(model, thresholds=thresholds), dtype)
    labels = program.labels(program.encode(X_test))
    lead = _lead(model, X_test) >= program.outputs["label"].tolerance
    assert lead.all()
    np.testing.assert_array_equal(labels, model.predict(X_test))
    assert_c_equals_run(program, hostile_rows(program, 200, np.random.default_rng(1)))


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_thresholds_beyond_the_integer_type_decide_their_splits(dtype):
    rng = np.random.default_rng(0)
    X = rng.integers(-40000, 40000, size=(400, 2)).astype(float)
    y = (X[:, 0] > 35000).astype(int) + (X[:, 1] < -200)
    model = RandomForestClassifier(6, max_depth=4, random_state=0).fit(X, y)
    info = np.iinfo(dtype)
    rows = rng.integers(info.min, info.max + 1, size=(500, 2))
    float_program = effml.lower(model)
    program = with_input_dtype(float_program, dtype)
    np.testing.assert_array_equal(program.labels(rows.astype(dtype)), float_program.labels(rows.astype(np.float32)))
    walk = next(step for step in program.steps if step.kind == "forest_walk")
    assert len(walk.feature) < len(next(step for step in float_program.steps if step.kind == "forest_walk").feature)
    assert_c_equals_run(program, hostile_rows(program, 200, np.random.default_rng(1)))


def test_bytes_read_raw_where_that_is_smaller():
    X, y, _, _ = _load("digits")
    model = RandomForestClassifier(10, random_state=0).fit(X, y)
    program = with_input_dtype(effml.lower(model), "uint8")
    assert program.steps[0].kind == "forest_walk"  # 4 bytes a split either way: no ranks
    assert effml.footprint(model, input_dtype="uint8").flash_bytes < effml.footprint(model).flash_bytes


# -- C, files, command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["table", "code"])
@pytest.mark.parametrize("case", CLASSIFIERS)
def test_c_equals_the_program(case, layout):
    rng = np.random.default_rng(0)
    for data in ("wdbc", "digits"):
        X, y, X_test, _ = _load(data)
        program = effml.lower(CLASSIFIERS[case].fit(X, y), layout=layout)
        assert_c_equals_run(program, np.concatenate([X_test.astype(np.float32), hostile_rows(program, 200, rng)]))


@pytest.mark.parametrize("case", REGRESSORS)
def test_compiled_regressors_predict_floats(case):
    X, y, X_test, _ = _load("diabetes")
    model = REGRESSORS[case].fit(X, y)
    compiled = effml.compile_c(model)
    rows = X_test.astype(np.float32)
    predicted = compiled.predict(rows)
    assert predicted.dtype == np.float32 and predicted.shape == (len(rows),)
    assert np.abs(predicted - model.predict(rows)).max() <= compiled.program.outputs["value"].tolerance
    agreement = compiled.agreement(rows)
    assert (agreement.n_equal, agreement.n_rows, agreement.n_cast_changes) == (len(rows), len(rows), 0)
    assert compiled.flash_bytes > 0
    with pytest.raises(AttributeError, match="no probabilities"):
        compiled.predict_proba(rows)
    program = compiled.program
    assert_c_equals_run(program, hostile_rows(program, 200, np.random.default_rng(0)))


def test_regressors_are_written_priced_and_saved(tmp_path):
    X, y, X_test, _ = _load("diabetes")
    model = REGRESSORS["forest"].fit(X, y)
    header = effml.to_c(model, tmp_path / "c")[0].read_text()
    assert "float model_predict_value(const float *x)" in header and "of Python" in header
    assert effml.footprint(model).flash_bytes > 0 and effml.check_export(model).supported
    program = effml.lower(model)
    compiles_everywhere(program)
    program.save(tmp_path / "model.effml")
    again = Program.load(tmp_path / "model.effml")
    rows = X_test.astype(np.float32)
    np.testing.assert_array_equal(again.run(rows)["value"], program.run(rows)["value"])
    assert again.outputs == program.outputs


def test_command_exports_and_inspects_a_regressor(tmp_path):
    from typer.testing import CliRunner

    from effml.cli import app
    from effml.persistence import save_model

    X, y, _, _ = _load("diabetes")
    path = save_model(REGRESSORS["forest"].fit(X, y), tmp_path / "forest.skops")
    for arguments in (["export", str(path), "--out", str(tmp_path / "c")], ["inspect", str(path)]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "c" / "model.c").exists() and "ForestWalk" in result.output


# -- edges and refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["table", "code"])
def test_one_class_and_one_leaf(layout):
    X, y, X_test, _ = _load("iris")
    rows = X_test.astype(np.float32)
    one_leaf = {"max_depth": 2, "min_samples_split": 1000, "random_state": 0}
    for model in (
        RandomForestClassifier(4).fit(X, np.full(len(X), "only")),
        RandomForestClassifier(4, **one_leaf).fit(X, y),
        RandomForestClassifier(4, **one_leaf).fit(X, y == 1),
        GradientBoostingClassifier(n_estimators=3, **one_leaf).fit(X, y),
    ):
        program = effml.lower(model, layout=layout)
        np.testing.assert_array_equal(program.labels(rows), model.predict(rows))
        np.testing.assert_allclose(program.run(rows)["proba"], model.predict_proba(rows), atol=1e-4)
        assert_c_equals_run(program, rows)
    for regressor in (RandomForestRegressor(3, **one_leaf), DecisionTreeRegressor(**one_leaf)):
        program = _assert_values_close(regressor.fit(X, y), rows)
        assert_c_equals_run(program, rows)


def test_large_and_small_targets_keep_their_relative_accuracy():
    X, y, X_test, _ = _load("diabetes")
    for factor in (1e-20, 1e12, 1e30):
        for case in ("forest", "boosting"):
            program = _assert_values_close(REGRESSORS[case].fit(X, y * factor), X_test.astype(np.float32))
            assert program.outputs["value"].tolerance < 1e-3 * np.ptp(y) * factor


def test_values_beyond_float32_are_refused():
    X, y, _, _ = _load("diabetes")
    with pytest.raises(LoweringError, match="float32 cannot hold"):
        effml.lower(RandomForestRegressor(3, random_state=0).fit(X, y * 1e40))


def test_refusals_name_the_cause():
    X, y, _, _ = _load("iris")
    two = np.stack([y, y], axis=1)

    class Louder(RandomForestClassifier):
        def predict_proba(self, X):
            return super().predict_proba(X)[:, ::-1]

    refused = {
        "2 outputs": RandomForestClassifier(2).fit(X, two),
        "has 2 outputs; accepted": RandomForestRegressor(2).fit(X, two),
        "overrides predict_proba": Louder(2).fit(X, y),
        "init=LogisticRegression": GradientBoostingClassifier(n_estimators=2, init=LogisticRegression()).fit(X, y > 0),
        "init=DecisionTreeRegressor": GradientBoostingRegressor(n_estimators=2, init=DecisionTreeRegressor()).fit(X, y),
        "loss='poisson'": HistGradientBoostingRegressor(loss="poisson", max_iter=2).fit(X, y),
        "by categories": HistGradientBoostingClassifier(categorical_features=[2], max_iter=2).fit(np.round(X), y),
    }
    for text, model in refused.items():
        with pytest.raises(LoweringError, match=text):
            effml.lower(model)


def test_subclasses_that_keep_predicting_are_accepted():
    class Named(RandomForestClassifier):
        pass

    X, y, X_test, _ = _load("iris")
    model = Named(3, random_state=0).fit(X, y)
    rows = X_test.astype(np.float32)
    np.testing.assert_array_equal(effml.lower(model).labels(rows), model.predict(rows))


@pytest.mark.parametrize("name", ["wdbc", "wine", "digits"])
def test_hard_votes_are_the_majority_of_the_trees(name):
    X, y = DATA[name](return_X_y=True)
    X = X.astype(np.float32)
    forest = RandomForestClassifier(8, max_depth=4, random_state=0).fit(X, y)  # an even number of trees can tie
    counts = sum(np.eye(len(forest.classes_))[tree.predict(X).astype(int)] for tree in forest.estimators_)
    program = effml.lower(forest, votes="hard")
    assert (program.run(program.encode(X))["label"][:, 0] == counts.argmax(axis=1)).all()
    np.testing.assert_allclose(program.run(program.encode(X))["proba"], counts / 8, atol=1e-6)
    assert program.outputs["label"].tolerance == 0
    with pytest.raises(ValueError, match="votes='firm'"):
        effml.lower(forest, votes="firm")


@pytest.mark.parametrize("option", [{"leaf_bits": 12}, {"missing": "left"}, {"thresholds": "all"}, {"layout": "tree"}])
def test_options_are_checked(option):
    X, y, _, _ = _load("iris")
    model = RandomForestClassifier(2, random_state=0).fit(X, y)
    name, value = next(iter(option.items()))
    with pytest.raises(ValueError, match=f"{name}={value!r} must be one of"):
        effml.lower(model, **option)


def test_raw_thresholds_need_numbers():
    X, y = _people()
    model = make_pipeline(make_column_transformer((OrdinalEncoder(), ["job"])), CLASSIFIERS["forest"]).fit(X, y)
    with pytest.raises(LoweringError, match="thresholds='raw'"):
        effml.lower(model, thresholds="raw")


def test_decision_trees_send_unknown_categories_where_a_nan_goes():
    X, y = _people()
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    columns = make_column_transformer((encoder, ["job"]), ("passthrough", ["age"]))
    model = make_pipeline(columns, DecisionTreeClassifier(max_depth=6, random_state=0)).fit(X, y)
    new, _ = _people(200, seed=1)
    new.loc[::3, "job"] = "astronaut"
    program = effml.lower(model)
    np.testing.assert_array_equal(program.labels(program.encode(new)), model.predict(new))
