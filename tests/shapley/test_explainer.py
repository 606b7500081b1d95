"""The explainer from model to explanation."""

import pickle
import sys

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from effml.shapley import MultilinearShapleyExplainer
from effml.shapley.estimators import METHODS


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return X, RandomForestRegressor(5, max_depth=5, random_state=0).fit(X, y)


@pytest.mark.parametrize("method", METHODS)
def test_linear_models_have_known_values(method):
    X, y = load_diabetes(return_X_y=True)
    model = LinearRegression().fit(X, y)
    budget = 1024 if method == "exact" else 120
    explanation = MultilinearShapleyExplainer(model, X[:7], method=method, budget=budget, random_state=0)(X[10:13])
    expected = model.coef_ * (X[10:13] - X[:7].mean(axis=0))
    error = 1e-6 if explanation.method[0] == "gp" else 1e-11
    np.testing.assert_allclose(explanation.values, expected, atol=error * np.abs(expected).max())
    np.testing.assert_allclose(explanation.base_values, model.predict(X[:7]).mean())
    assert (explanation.n_evaluations <= budget).all()
    assert len(explanation) == 3


@pytest.mark.parametrize("method", ["permutation", "regression", "gp"])
def test_rows_sum_to_the_prediction_and_approach_exact_values(diabetes, method):
    X, forest = diabetes
    exact = MultilinearShapleyExplainer(forest, X[:5], method="exact")(X[20:23])
    near = MultilinearShapleyExplainer(forest, X[:5], method=method, budget=400, random_state=0)(X[20:23])
    np.testing.assert_allclose(near.values.sum(axis=1) + near.base_values, forest.predict(X[20:23]), atol=1e-9)
    assert ((near.values - exact.values) ** 2).sum() < 0.01 * (exact.values**2).sum()
    assert exact.method == ("exact",) * 3
    assert near.method == (method,) * 3


def test_all_outputs_come_from_the_same_evaluations():
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(X, y)
    every = MultilinearShapleyExplainer(model, X[::10], method="permutation", budget=14, random_state=0)(X[:2])
    assert every.values.shape == every.standard_errors.shape == (2, 4, 3)
    assert every.base_values.shape == (2, 3)
    one = MultilinearShapleyExplainer(
        lambda Z: model.predict_proba(Z)[:, 1], X[::10], method="permutation", budget=14, random_state=0
    )(X[:2])
    np.testing.assert_allclose(every.values[:, :, 1], one.values, atol=1e-14)
    margin = MultilinearShapleyExplainer(model, X[::10], output="decision_function")(X[:2])
    np.testing.assert_allclose(margin.values.sum(axis=1) + margin.base_values, model.decision_function(X[:2]))


@pytest.mark.parametrize("method", ["castro", "gp", "owen"])
def test_results_do_not_depend_on_n_jobs_and_follow_the_seed(diabetes, method):
    X, forest = diabetes
    X = X.copy()
    X[:5, 3] = X[21, 3]  # one row has a column without effect
    options = {"method": method, "budget": 80, "batch_size": 500}
    one, two, other = (
        MultilinearShapleyExplainer(forest, X[:5], n_jobs=n_jobs, random_state=seed, **options)(X[20:26])
        for n_jobs, seed in ((1, 0), (2, 0), (1, 1))
    )
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.standard_errors, two.standard_errors)
    assert (one.values != other.values).any()
    assert one.values[1, 3] == one.standard_errors[1, 3] == 0


@pytest.mark.parametrize("method", ["closed_form", "gp"])
def test_explainers_can_be_pickled(diabetes, method):
    X, forest = diabetes
    explainer = MultilinearShapleyExplainer(forest, X[:5], method=method, budget=80, random_state=0)
    expected = explainer(X[20:23])
    again = pickle.loads(pickle.dumps(explainer))(X[20:23])
    np.testing.assert_array_equal(again.values, expected.values)


def test_later_calls_keep_the_coalitions_of_their_seed_and_options(diabetes):
    X, forest = diabetes
    explainer = MultilinearShapleyExplainer(forest, X[:5], method="permutation", budget=80, random_state=0)
    first = explainer(X[20:23])
    np.testing.assert_array_equal(explainer(X[20:23]).values, first.values)
    explainer.budget, explainer.random_state = 100, 1
    fresh = MultilinearShapleyExplainer(forest, X[:5], method="permutation", budget=100, random_state=1)
    np.testing.assert_array_equal(explainer(X[20:23]).values, fresh(X[20:23]).values)


@pytest.mark.parametrize("method", ["auto", "regression", "permutation"])
def test_a_row_does_not_depend_on_the_others(diabetes, method):
    X, forest = diabetes
    predict = lambda X: forest.predict(X)  # noqa: E731 - not read as a forest, which has a closed form
    explainer = MultilinearShapleyExplainer(predict, X[:5], method=method, budget=80, random_state=0)
    np.testing.assert_allclose(explainer(X[20:25]).values[2], explainer(X[22]).values[0], atol=1e-9)


def test_groups_are_players(diabetes):
    X, forest = diabetes
    groups = {"body": [0, 1, 2, 3], "blood": range(4, 10)}
    explanation = MultilinearShapleyExplainer(forest, X[:3], features=groups, method="gp")(X[30])
    whole = forest.predict(X[30:31])[0]
    base = forest.predict(X[:3]).mean()
    body = forest.predict(np.concatenate([np.tile(X[30, :4], (3, 1)), X[:3, 4:]], axis=1)).mean()
    blood = forest.predict(np.concatenate([X[:3, :4], np.tile(X[30, 4:], (3, 1))], axis=1)).mean()
    expected = [(body - base + whole - blood) / 2, (blood - base + whole - body) / 2]
    np.testing.assert_allclose(explanation.values[0], expected)
    assert explanation.feature_names == ["body", "blood"]
    assert list(explanation.n_evaluations) == [4]


@pytest.mark.parametrize("method", ["auto", "gp", "permutation", "owen_unbiased"])
def test_one_feature_and_rows_equal_to_the_background(method):
    explainer = MultilinearShapleyExplainer(lambda X: X[:, 0] ** 2, [[1.0]], method=method)
    explanation = explainer([[3.0], [1.0]])
    np.testing.assert_allclose(explanation.values, [[8.0], [0.0]])
    np.testing.assert_allclose(explanation.base_values, [1.0, 1.0])
    assert list(explanation.n_evaluations) == [2, 1]


def test_tolerance_stops_early_within_the_budget(diabetes):
    X, forest = diabetes

    def smooth(Z):
        return np.tanh(Z @ np.arange(10.0)) + 0.1 * Z[:, 0] * Z[:, 1]

    for model, method in (smooth, "gp"), (smooth, "permutation"), (forest.predict, "regression"), (smooth, "auto"):
        options = {"method": method, "budget": 900, "random_state": 0}
        full = MultilinearShapleyExplainer(model, X[:4], **options)(X[20:24])
        loose = MultilinearShapleyExplainer(model, X[:4], tol=0.2, **options)(X[20:24])
        tight = MultilinearShapleyExplainer(model, X[:4], tol=1e-12, **options)(X[20:24])
        assert (loose.n_evaluations < 450).all()
        assert (tight.n_evaluations <= 900).all()
        spread = np.ptp(loose.values, axis=1)
        assert (loose.standard_errors.max(axis=1) <= 0.2 * spread).all()
        assert np.abs(loose.values - full.values).max() < spread.max()


@pytest.mark.parametrize("method", [method for method in METHODS if method != "exact"])
def test_a_constant_model_has_no_values(method):
    explainer = MultilinearShapleyExplainer(
        lambda X: np.full(len(X), 3.0), np.zeros((2, 12)), method=method, budget=200, random_state=0
    )
    explanation = explainer(np.ones((2, 12)))
    np.testing.assert_allclose(explanation.values, 0, atol=1e-12)
    np.testing.assert_allclose(explanation.standard_errors, 0, atol=1e-12)
    np.testing.assert_allclose(explanation.base_values, 3.0)


@pytest.mark.parametrize("kind", [LinearRegression, RandomForestRegressor])
def test_a_constant_estimator_has_no_values(kind):
    X = np.arange(12.0).reshape(6, 2)
    explanation = MultilinearShapleyExplainer(kind().fit(X, np.full(6, 3.0)), X[:2])(X[4:])
    np.testing.assert_array_equal(explanation.values, 0)
    np.testing.assert_allclose(explanation.base_values, 3.0)
    assert "0px" in explanation._repr_html_()


@pytest.mark.parametrize("method", ["auto", "closed_form", "permutation"])
def test_one_feature_of_an_estimator(method):
    X, y = load_diabetes(return_X_y=True)
    forest = RandomForestRegressor(3, random_state=0).fit(X[:, [2]], y)
    explanation = MultilinearShapleyExplainer(forest, X[:9, [2]], method=method)(X[20:22, [2]])
    np.testing.assert_allclose(explanation.values[:, 0] + explanation.base_values, forest.predict(X[20:22, [2]]))


def test_data_frames_reach_the_model_as_data_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.arange(12.0).reshape(4, 3), columns=["a", "b", "c"])
    explanation = MultilinearShapleyExplainer(lambda X: X["a"] * X["c"], frame[:2])(frame[2:])
    assert explanation.feature_names == ["a", "b", "c"]
    np.testing.assert_allclose(explanation.values[:, 1], 0, atol=1e-12)
    with pytest.raises(ValueError, match="columns"):
        MultilinearShapleyExplainer(lambda X: X["a"], frame[:2])(frame[["b", "a", "c"]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "kernel"}, "method='kernel'"),
        ({"budget": 1}, "budget=1"),
        ({"budget": 10.5}, "budget=10.5"),
        ({"order": 4}, "order=4"),
        ({"n_levels": 0}, "n_levels=0"),
        ({"n_repeats": 0}, "n_repeats=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"tol": -1.0}, "tol=-1.0"),
        ({"tol": 0.1, "method": "owen"}, "not with method 'owen'"),
        ({"output": "labels"}, "output='labels'"),
    ],
)
def test_wrong_parameters_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MultilinearShapleyExplainer(LinearRegression(), np.zeros((2, 3)), **options)


def test_wrong_rows_are_named():
    explainer = MultilinearShapleyExplainer(lambda X: X[:, 0], np.zeros((2, 3)))
    with pytest.raises(ValueError, match="X has 4 columns, the background has 3"):
        explainer(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="at least one row"):
        explainer(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="budget=3"):
        MultilinearShapleyExplainer(lambda X: X[:, 0], np.zeros((2, 3)), method="castro", budget=3)(np.ones((1, 3)))
    with pytest.raises(ValueError, match="model returned NaN or infinity for 2 values"):
        MultilinearShapleyExplainer(lambda X: np.where(X[:, 0] > 0, 1.0, np.nan), np.zeros((2, 1)))([[1.0]])
    with pytest.raises(ValueError, match="at least one row"):
        MultilinearShapleyExplainer(lambda X: X[:, 0], np.zeros((0, 1)))
    X, y = load_diabetes(return_X_y=True)
    for model in LinearRegression(), RandomForestRegressor(2):
        with pytest.raises(ValueError, match="features"):  # a background with other columns than the model
            MultilinearShapleyExplainer(model.fit(X, y), X[:3, :8])(X[:1, :8])
    with pytest.raises(ValueError, match="need numbers"):
        MultilinearShapleyExplainer(lambda X: np.full(len(X), "yes"), np.zeros((2, 3)))(np.ones((1, 3)))


def test_html_and_importances_name_the_features(diabetes):
    X, forest = diabetes
    groups = {"<a>": range(5), "b": range(5, 10)}
    explanation = MultilinearShapleyExplainer(forest, X[:3], features=groups, method="exact")(X[:4])
    html = explanation._repr_html_()
    assert "&lt;a&gt;" in html
    assert "16 coalitions" in html
    np.testing.assert_allclose(explanation.importances(), np.abs(explanation.values).mean(axis=0))
    with pytest.raises(ValueError, match="output=3"):
        explanation.importances(output=3)


def test_bar_plot_shows_the_largest_features():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    explanation = MultilinearShapleyExplainer(lambda X: np.stack([X @ [1, -5, 3], X[:, 0]], 1), np.zeros((1, 3)))(
        np.ones((2, 3))
    )
    ax = explanation.plot_bar(0, output=0, max_features=2)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x2", "x1"]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [3, -5])
    assert len(explanation.plot_bar().patches) == 3
    with pytest.raises(ValueError, match="output=None"):
        explanation.plot_bar(0)


def test_to_shap_holds_the_same_numbers(diabetes):
    shap = pytest.importorskip("shap")
    X, forest = diabetes
    explanation = MultilinearShapleyExplainer(forest, X[:3], budget=80, random_state=0)(X[:2])
    converted = explanation.to_shap()
    assert isinstance(converted, shap.Explanation)
    np.testing.assert_array_equal(converted.values, explanation.values)
    np.testing.assert_array_equal(converted.base_values, explanation.base_values)
    np.testing.assert_array_equal(converted.data, X[:2])


def test_to_shap_without_data_of_groups_and_with_outputs():
    shap = pytest.importorskip("shap")
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(X, y)
    converted = MultilinearShapleyExplainer(model, X[:3], features={"sepal": [0, 1], "petal": [2, 3]})(X[:2]).to_shap()
    assert isinstance(converted, shap.Explanation)
    assert converted.data is None
    assert converted.values.shape == (2, 2, 3)
    assert list(converted.feature_names) == ["sepal", "petal"]
    assert converted[0, :, 1].values.shape == (2,)


@pytest.mark.filterwarnings("ignore")  # of shap's own plots
def test_plots_of_shap_take_the_result(diabetes):
    shap = pytest.importorskip("shap")
    pytest.importorskip("matplotlib").use("agg")
    X, forest = diabetes
    converted = MultilinearShapleyExplainer(forest, X[:3])(X[:4]).to_shap()
    shap.plots.bar(converted, show=False)
    shap.plots.waterfall(converted[0], show=False)
    shap.plots.beeswarm(converted, show=False)


def test_to_shap_without_shap_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "shap", None)
    explanation = MultilinearShapleyExplainer(lambda X: X[:, 0], [[0.0, 0.0]])([[1.0, 1.0]])
    with pytest.raises(ImportError, match="needs shap"):
        explanation.to_shap()
