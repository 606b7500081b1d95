"""The search over estimators that lower for real: scikit-learn's trees, scaled linear models and our own families."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.export import footprint
from effml.selection import BudgetError, BudgetSearchCV

EXPECTED_FAILURES = {
    "check_estimators_nan_inf": "the candidates decide what they take, as in GridSearchCV",
    "check_supervised_y_2d": "each fit of a fold warns on its own, as in GridSearchCV",
    "check_dtype_object": "a candidate's TypeError becomes the reason of the search's ValueError",
}


@parametrize_with_checks(
    [BudgetSearchCV([(DecisionTreeClassifier(random_state=0), {"max_leaf_nodes": [3, 6]})], budget=None, cv=3)],
    expected_failed_checks=lambda search: EXPECTED_FAILURES,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def candidates():
    return [
        ("tree", DecisionTreeClassifier(random_state=0), {"max_leaf_nodes": [2, 4, 8]}),
        ("logistic", make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 10.0]}),
        ("naive_bayes", NaiveBayesClassifier(), {"n_bits": [2, 4], "max_bins": [4]}),
        ("tan", TANClassifier(n_bits=4, integer_bits="auto")),
    ]


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def test_choice_keeps_to_the_budget_and_is_the_best_that_does(iris):
    everything = BudgetSearchCV(candidates(), budget=None).fit(*iris)
    flash = -everything.cv_results_["mean_test_flash_bytes"]
    limit = int(np.sort(flash)[2])
    search = BudgetSearchCV(candidates(), budget={"flash_bytes": limit}).fit(*iris)
    assert search.best_footprint_["flash_bytes"] == footprint(search.best_estimator_).flash_bytes <= limit
    assert search.best_score_ == everything.cv_results_["mean_test_score"][flash <= limit].max()


def test_budget_of_ten_bytes_names_the_smallest(iris):
    with pytest.raises(BudgetError, match=r"flash_bytes=10; the smallest is \w+ \(") as caught:
        BudgetSearchCV(candidates(), budget="flash=10").fit(*iris)
    assert caught.value.smallest["footprint"]["flash_bytes"] > 10


def test_same_model_for_any_number_of_jobs(iris):
    one, two = (BudgetSearchCV(candidates(), budget="flash=1KiB", n_jobs=n_jobs).fit(*iris) for n_jobs in (1, 2))
    assert one.best_params_ == two.best_params_
    for key, column in one.cv_results_.items():
        if not key.endswith("_time") and key != "params":
            assert np.ma.allequal(column, two.cv_results_[key]), key


def test_reasons_come_back_from_worker_processes(iris):
    search = BudgetSearchCV([KNeighborsClassifier(), *candidates()], budget=None, n_jobs=2)
    with pytest.warns(UserWarning, match="1 of 9 candidates failed"):
        search.fit(*iris)
    assert "KNeighborsClassifier" in search.cv_results_["failure"][0]
    assert (search.cv_results_["failure"][1:] == "").all()


def test_predictions_are_those_of_the_best_estimator(iris):
    X, y = iris
    search = BudgetSearchCV(candidates(), budget=None).fit(X, y)
    assert isinstance(search.best_estimator_, BaseEstimator)
    assert (search.predict(X) == search.best_estimator_.predict(X)).all()
    assert (search.predict_proba(X) == search.best_estimator_.predict_proba(X)).all()
    assert search.score(X, y) == search.best_estimator_.score(X, y)


def test_frames_keep_their_column_names():
    X, y = load_iris(return_X_y=True, as_frame=True)
    search = BudgetSearchCV(candidates(), budget=None).fit(X, y)
    assert search.feature_names_in_.tolist() == list(X.columns)


def test_methods_are_offered_before_fitting_as_the_first_candidate_has_them():
    search = BudgetSearchCV(candidates(), budget=None)
    assert hasattr(search, "predict_proba")
    assert not hasattr(search, "transform")


def test_search_is_of_the_kind_of_its_candidates():
    from sklearn.base import is_classifier, is_regressor

    assert is_classifier(BudgetSearchCV(candidates(), budget=None))
    assert is_regressor(BudgetSearchCV([DecisionTreeRegressor()], budget=None))
