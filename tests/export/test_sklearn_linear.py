"""Lowering of scikit-learn's linear classifiers and regressors: labels and values within a proven rounding bound."""

import importlib

import numpy as np
import pytest
from common.c_proof import assert_c_equals_run, hostile_rows
from common.layered_models import (
    CLASSIFIERS,
    REGRESSORS,
    SEVERAL,
    assert_within_rounding,
    classes_tested,
    classification,
    regression,
    with_scaler,
)
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDClassifier, TweedieRegressor
from sklearn.model_selection import GridSearchCV

import effml
from effml.adapters.layers import LAYERED
from effml.adapters.rounding import rounding_bound
from effml.program import LoweringError

pytestmark = pytest.mark.filterwarnings("ignore")  # of convergence, and of classes that scikit-learn will drop


def test_every_registered_class_is_tested():
    registered = set()
    for name in LAYERED:
        module, cls = name.rsplit(".", 1)
        registered.add(getattr(importlib.import_module(module), cls))
    assert registered == classes_tested()


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_labels_differ_only_inside_the_bound(name, scaled, n_classes):
    X, y, fresh, _ = classification(n_classes)
    model = clone(CLASSIFIERS[name])
    model = (with_scaler(model) if scaled else model).fit(X, y)
    assert_within_rounding(model, fresh)
    outputs = effml.lower(model).outputs
    final = model[-1] if scaled else model
    assert ("proba" in outputs) == (hasattr(final, "predict_proba") and getattr(final, "loss", "") != "modified_huber")
    if "proba" in outputs:
        program, seen = effml.lower(model), fresh.astype(np.float32)
        slack = 1e-6 + rounding_bound(model, fresh).max(axis=1, keepdims=True)
        expected = model.predict_proba(seen)  # of one-against-the-rest, NaN where all are too small for a float64
        known = np.isfinite(expected).all(axis=1)
        assert known.mean() > 0.9
        assert (np.abs(program.run(seen)["proba"] - expected) <= slack)[known].all()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", REGRESSORS)
def test_values_lie_inside_the_bound(name, scaled):
    X, y, fresh, _ = regression()
    model = clone(REGRESSORS[name])
    model = (with_scaler(model) if scaled else model).fit(X, y)
    assert_within_rounding(model, fresh)


@pytest.mark.parametrize("name", SEVERAL)
def test_several_outputs(name):
    X, y, fresh, _ = regression(3)
    model = with_scaler(clone(SEVERAL[name])).fit(X, y)
    assert_within_rounding(model, fresh)
    compiled = effml.compile_c(model)
    agreement = compiled.agreement(fresh)
    assert compiled.predict(fresh).shape == (len(fresh), 3)
    assert agreement.n_equal == agreement.n_rows == len(fresh)


def test_c_equals_run_on_every_kind():
    rng = np.random.default_rng(0)
    X, y, fresh, _ = classification(10)
    for name in ("LogisticRegression-l1", "LinearSVC", "SGDClassifier-log_loss"):
        program = effml.lower(with_scaler(clone(CLASSIFIERS[name])).fit(X, y))
        assert_c_equals_run(program, np.concatenate([hostile_rows(program, 200, rng), fresh[:100].astype(np.float32)]))
    X, y, fresh, _ = regression()
    for name in ("Ridge", "Lasso", "PoissonRegressor"):
        model = with_scaler(clone(REGRESSORS[name])).fit(X, y)
        program = effml.lower(model)
        assert_c_equals_run(program, np.concatenate([hostile_rows(program, 200, rng), fresh.astype(np.float32)]))
        agreement = effml.compile_c(model).agreement(fresh)
        assert agreement.n_equal == agreement.n_rows == len(fresh)


def test_agreement_counts_values_outside_the_bound():
    X, y, fresh, _ = regression()
    model = LinearRegression().fit(X, y)
    compiled = effml.compile_c(model)
    model.coef_ = model.coef_ * (1 + 1e-4)
    agreement = compiled.agreement(fresh)
    assert agreement.n_equal < 0.2 * agreement.n_rows
    assert len(agreement.different) == agreement.n_rows - agreement.n_equal


def test_columns_without_a_weight_are_not_read():
    X, y, _, _ = classification(10)
    model = clone(CLASSIFIERS["LogisticRegression-l1"]).fit(X, y)
    used = [spec.used for spec in effml.lower(model).inputs]
    np.testing.assert_array_equal(used, model.coef_.any(axis=0))
    assert 10 < sum(used) < 60


def test_sparsified_weights_and_searches():
    X, y, fresh, _ = classification(2)
    model = SGDClassifier(penalty="l1", random_state=0).fit(X, y)
    expected = effml.lower(model)
    assert effml.lower(model.sparsify()).run(fresh.astype(np.float32))["score"].tolist() == (
        expected.run(fresh.astype(np.float32))["score"].tolist()
    )
    search = GridSearchCV(with_scaler(LogisticRegression()), {"logisticregression__C": [0.1, 1.0]}, cv=2).fit(X, y)
    assert_within_rounding(search.best_estimator_, fresh)
    assert rounding_bound(search, fresh).shape == (len(fresh), 1)


def test_what_cannot_lower_is_named():
    X, y, _, _ = classification(10)
    labels = np.stack([y > 4, y % 2], axis=1).astype(int)
    with pytest.raises(LoweringError, match="RidgeClassifier was fitted on several labels"):
        effml.lower(RidgeClassifier().fit(X, labels))
    with pytest.raises(LoweringError, match="RidgeClassifier has 1 classes"):
        effml.lower(RidgeClassifier().fit(X, np.ones(len(X))))
    huge = LinearRegression().fit(X, y)
    huge.coef_ = huge.coef_ * 1e300
    with pytest.raises(LoweringError, match="not finite in float32"):
        effml.lower(huge)
    with pytest.raises(LoweringError, match="rounding_bound takes linear models"):
        from sklearn.tree import DecisionTreeClassifier

        rounding_bound(DecisionTreeClassifier(max_depth=2).fit(X, y), X)
    other = TweedieRegressor().fit(X, y)
    other._base_loss.link = object()
    with pytest.raises(LoweringError, match="TweedieRegressor has another link"):
        effml.lower(other)

    class Rounded(LinearRegression):
        def predict(self, X):
            return np.rint(super().predict(X))

    with pytest.raises(LoweringError, match="Rounded overrides predict"):
        effml.lower(Rounded().fit(X, y))


def test_check_export_lists_every_class_as_float():
    models = [*CLASSIFIERS.values(), *REGRESSORS.values(), *SEVERAL.values()]
    for model in models:
        row = effml.check_export(with_scaler(model)).rows[-1]
        assert row.status == "float" and "effml.quantize" in row.note


def test_probabilities_left_out_are_named():
    X, y, _, _ = classification(10)
    program = effml.lower(clone(CLASSIFIERS["SGDClassifier-modified_huber"]).fit(X, y))
    assert any("modified_huber" in note for note in program.notes)
