"""Classifiers and regressors over snippets: budgets, exact integers, scikit-learn's conventions."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

import effml
from effml.forests import DecisionSnippetClassifier, DecisionSnippetRegressor, SplittingStumpClassifier

SMALL = {"n_estimators": 10, "max_depth": 4, "random_state": 0}
LARGER = {"n_estimators": 40, "max_depth": 6, "random_state": 0}


def expected_failures(estimator):
    reason = "bootstrap and held-out rows: a row of weight 2 is not the row twice"
    return {"check_sample_weight_equivalence_on_dense_data": reason}


@parametrize_with_checks(
    [
        DecisionSnippetClassifier(n_estimators=5, max_depth=3),
        DecisionSnippetClassifier(n_estimators=5, max_depth=3, budget_bytes=900),
        SplittingStumpClassifier(n_estimators=5, max_depth=3),
        DecisionSnippetRegressor(n_estimators=5, max_depth=3),
        DecisionSnippetRegressor(n_estimators=5, max_depth=3, budget_bytes=900),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def cancer():
    return load_breast_cancer(return_X_y=True)


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.mark.parametrize("budget", [450, 600, 1000])
def test_the_budget_holds_and_c_predicts_the_same(cancer, budget):
    X, y = cancer
    model = DecisionSnippetClassifier(budget_bytes=budget, **SMALL).fit(X[:400], y[:400])
    assert effml.footprint(model).flash_bytes <= budget
    compiled = effml.compile_c(model)
    assert compiled.agreement(X).n_equal == len(X)
    assert model.score(X[400:], y[400:]) > 0.9


def test_many_classes_within_a_budget(digits):
    X, y = digits
    models = [DecisionSnippetClassifier(budget_bytes=b, **LARGER).fit(X[:1200], y[:1200]) for b in (1000, 3000)]
    assert models[0].n_snippets_ < models[1].n_snippets_
    assert models[0].score(X[1200:], y[1200:]) < models[1].score(X[1200:], y[1200:])
    assert effml.compile_c(models[1], input_dtype="uint8").agreement(X).n_equal == len(X)


def test_a_budget_below_the_empty_model_is_named(cancer):
    with pytest.raises(ValueError, match=r"budget_bytes=5 is less than the \d+ bytes"):
        DecisionSnippetClassifier(budget_bytes=5, **SMALL).fit(*cancer)


@pytest.mark.parametrize("linear_model", [LogisticRegression(), LinearSVC(), MultinomialNB(), RidgeClassifier()])
@pytest.mark.parametrize("budget", [None, 2500])
def test_linear_models_of_scikit_learn_weigh_the_snippets(digits, linear_model, budget):
    X, y = digits
    model = DecisionSnippetClassifier(linear_model=linear_model, budget_bytes=budget, min_support=3, **LARGER)
    model.fit(X[:1200], y[:1200])
    assert type(model.linear_model_) is type(linear_model)
    assert model.score(X[1200:], y[1200:]) > 0.6


def test_integer_sums_are_the_linear_model_rounded(cancer):
    X, y = cancer
    model = DecisionSnippetClassifier(weight_bits=16, **SMALL).fit(X, y)
    onehot = model.transformer_.set_params(output="onehot").transform(X)
    np.testing.assert_allclose(
        model.decision_function(X), model.linear_model_.decision_function(onehot), atol=1e-2, rtol=1e-2
    )
    proba = model.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(model.classes_[(proba[:, 1] > 0.5).astype(int)], model.predict(X))


@pytest.mark.parametrize(
    "forest",
    [
        ExtraTreesClassifier(8, max_depth=4, random_state=0),
        DecisionTreeClassifier(max_depth=4, random_state=0),
        GradientBoostingClassifier(n_estimators=8, random_state=0),
    ],
)
def test_forests_of_every_kind(cancer, forest):
    X, y = cancer
    model = DecisionSnippetClassifier(forest, budget_bytes=800, min_support=1, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.9
    fitted = clone(forest).fit(X, y)
    kept = DecisionSnippetClassifier(FrozenEstimator(fitted), min_support=1, random_state=0).fit(X, y)
    assert kept.transformer_.forest_ is fitted


def test_support_by_validation_and_stumps(digits):
    X, y = digits
    model = DecisionSnippetClassifier(min_support="cv", budget_bytes=2000, **SMALL).fit(X, y)
    assert model.min_support_ in (2, 3, 5, 8, 13, 21)
    stumps = SplittingStumpClassifier(budget_bytes=2000, **SMALL).fit(X, y)
    assert (stumps.snippets_.n_exits == 2).all()


def test_categories_missing_values_and_labels_as_text():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"size": rng.normal(size=400).astype("float32"), "colour": rng.choice(["red", "green", "blue"], 400)}
    )
    y = np.where((table["size"] > 0) & (table["colour"] == "red"), "yes", "no")
    table.loc[::7, "size"] = np.nan
    model = DecisionSnippetClassifier(budget_bytes=900, **SMALL).fit(table, y)
    assert model.score(table, y) > 0.95
    unseen = table.assign(colour=np.where(np.arange(len(table)) % 3 == 0, "black", table["colour"]))
    assert effml.compile_c(model).agreement(unseen).n_equal == len(table)
    rules = model.transformer_.get_feature_names_out()
    assert any("colour" in rule for rule in rules)


def test_pipelines_grid_search_and_pickles(cancer):
    X, y = cancer
    pipeline = make_pipeline(StandardScaler(), DecisionSnippetClassifier(budget_bytes=900, **SMALL))
    grid = {"decisionsnippetclassifier__min_support": [2, 0.3], "decisionsnippetclassifier__budget_bytes": [500, 900]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    assert effml.compile_c(search).agreement(X).n_equal == len(X)
    model = search.best_estimator_[-1]
    again = pickle.loads(pickle.dumps(model))
    Z = search.best_estimator_[0].transform(X)
    np.testing.assert_array_equal(again.decision_function(Z), model.decision_function(Z))


def test_class_weights_shift_the_labels(cancer):
    X, y = cancer
    fit = lambda weight: DecisionSnippetClassifier(budget_bytes=600, class_weight=weight, **SMALL).fit(X, y)  # noqa: E731
    shares = [fit(weight).predict(X).mean() for weight in ({0: 20.0}, None, {1: 20.0})]
    assert shares[0] < shares[1] < shares[2]
    with pytest.raises(ValueError, match="class_weight"):
        fit({"benign": 2.0})


def test_the_same_seed_gives_the_same_model(cancer):
    X, y = cancer
    fit = lambda **more: DecisionSnippetClassifier(budget_bytes=700, **(SMALL | more)).fit(X, y)  # noqa: E731
    first, second, threads = fit(), fit(), fit(n_jobs=2)
    for other in (second, threads):
        np.testing.assert_array_equal(first.exit_values_, other.exit_values_)
        np.testing.assert_array_equal(first.snippets_.trees.threshold, other.snippets_.trees.threshold)


def test_rows_of_weight_zero_are_not_there(cancer):
    X, y = cancer
    weights = np.ones(len(X))
    weights[300:] = 0
    part = DecisionSnippetClassifier(budget_bytes=700, **SMALL).fit(X[:300], y[:300])
    weighted = DecisionSnippetClassifier(budget_bytes=700, **SMALL).fit(X, y, weights)
    np.testing.assert_array_equal(part.exit_values_, weighted.exit_values_)


def test_regression_within_a_budget():
    X, y = load_diabetes(return_X_y=True)
    model = DecisionSnippetRegressor(budget_bytes=900, **SMALL).fit(X[:300], y[:300])
    assert effml.footprint(model).flash_bytes <= 900
    assert model.score(X[300:], y[300:]) > 0.3
    found = effml.compile_c(model).predict(X)
    np.testing.assert_allclose(found, model.predict(X.astype(np.float32)), rtol=1e-6)
    ridge = DecisionSnippetRegressor(linear_model=Ridge(10.0), **SMALL).fit(X, y)
    assert ridge.score(X, y) > 0.4


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"weight_bits": 4}, "weight_bits"),
        ({"min_support": "all"}, "min_support"),
        ({"budget_bytes": 0}, "budget_bytes"),
        ({"linear_model": KNeighborsClassifier()}, "linear"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DecisionSnippetClassifier(**(SMALL | parameters)).fit(*load_iris(return_X_y=True))


def test_one_class_is_named():
    with pytest.raises(ValueError, match="one class"):
        DecisionSnippetClassifier(RandomForestClassifier(3)).fit([[0.0], [1.0]], [1, 1])


def test_one_path_serves_several_budgets(digits):
    X, y = digits
    estimator = DecisionSnippetClassifier(budget_bytes=5000, **LARGER)
    models = estimator.fit_budgets(X, y, [900, 2500])
    assert [model.budget_bytes for model in models] == [900, 2500]
    assert not hasattr(estimator, "snippets_")
    for model in models:
        alone = clone(model).fit(X, y)
        np.testing.assert_array_equal(model.exit_values_, alone.exit_values_)
        np.testing.assert_array_equal(model.snippets_.trees.threshold, alone.snippets_.trees.threshold)
        assert model.validation_score_ == alone.validation_score_
        assert effml.footprint(model).flash_bytes <= model.budget_bytes
        assert effml.compile_c(model, input_dtype="uint8").agreement(X).n_equal == len(X)


@pytest.mark.parametrize("budgets", [[], [0, 900], [900.5], [True], 900, "900", None])
def test_budgets_that_make_no_sense_are_named(cancer, budgets):
    with pytest.raises(ValueError, match="budgets="):
        DecisionSnippetClassifier(**SMALL).fit_budgets(*cancer, budgets)


def test_the_forest_has_not_seen_the_rows_that_choose(cancer):
    X, y = cancer
    model = DecisionSnippetClassifier(budget_bytes=700, **SMALL).fit(X, y)
    assert model.transformer_.forest_.estimators_[0].tree_.weighted_n_node_samples[0] == pytest.approx(0.8 * len(X), 1)
    assert model.validation_score_ < 0
    whole = DecisionSnippetClassifier(**SMALL).fit(X, y)
    assert whole.transformer_.forest_.estimators_[0].tree_.weighted_n_node_samples[0] == len(X)
    assert np.isnan(whole.validation_score_)
