"""Localized kernel models as Programs and C: the numbers of predict, live kernels only, scalers folded."""

import numpy as np
import pytest
from common.c_proof import assert_c_equals_run, hostile_rows
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.feature_selection import SelectKBest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler

import effml
from effml.kernels import RBF, LocalizedMKLClassifier, LocalizedMKLRegressor, Polynomial
from effml.program import LoweringError

QUICK = {"n_landmarks": 20, "max_iter": 8, "random_state": 0}


@pytest.mark.parametrize("combine", ["sum", "concat"])
@pytest.mark.parametrize("gate", ["uniform", "constant", "softmax", "sigmoid", "rbf"])
@pytest.mark.parametrize("load", [load_breast_cancer, load_digits])
def test_c_predicts_what_python_predicts(load, gate, combine):
    X, y = load(return_X_y=True)
    model = LocalizedMKLClassifier(gate=gate, combine=combine, groups=[range(10), range(5, 30)], **QUICK).fit(X, y)
    program = effml.lower(model)
    rows = X.astype(np.float32)
    found = program.run(rows)
    assert_array_equal(program.labels(rows), model.predict(rows))
    score = model.decision_function(rows)
    assert_array_equal(found["score"].reshape(score.shape), score)
    assert_allclose(found["proba"], model.predict_proba(rows), atol=1e-6)
    assert_c_equals_run(program, np.concatenate([rows[:300], hostile_rows(program, 200, np.random.default_rng(0))]))


def test_regressor():
    X, y = load_diabetes(return_X_y=True)
    for targets in (y, np.stack([y, y**2], axis=1)):
        model = LocalizedMKLRegressor(**QUICK).fit(X, targets)
        program = effml.lower(model)
        rows = X.astype(np.float32)
        assert_array_equal(program.run(rows)["value"].reshape(targets.shape), model.predict(rows))
        assert_c_equals_run(program, rows)


def test_compiled_model_agrees_on_every_row():
    X, y = load_digits(return_X_y=True)
    model = LocalizedMKLClassifier(**QUICK).fit(X, y)
    compiled = effml.compile_c(model)
    assert_array_equal(compiled.predict(X), model.predict(X))


def test_dead_kernels_are_not_shipped():
    X, y = load_breast_cancer(return_X_y=True)
    model = LocalizedMKLClassifier(gate="constant", kernels=[RBF(), Polynomial(2), RBF(8.0)], **QUICK).fit(X, y)
    whole = effml.lower(model)
    step = next(step for step in whole.steps if step.kind == "kernel_rows")
    assert len(step.shapes) == 3
    model.parameters_["u"] = np.float32([0, 0, -20])
    smaller = effml.lower(model)
    step = next(step for step in smaller.steps if step.kind == "kernel_rows")
    assert step.degrees.tolist() == [0, 0] and step.factors.size == 0
    assert effml.footprint(model).flash_bytes > 0
    assert_c_equals_run(smaller, X[:50].astype(np.float32))


def test_scalers_fold_and_selected_columns_are_read():
    X, y = load_breast_cancer(return_X_y=True)
    pipeline = make_pipeline(SelectKBest(k=12), StandardScaler(), LocalizedMKLClassifier(**QUICK)).fit(X, y)
    program = effml.lower(pipeline)
    rows = X.astype(np.float32)
    assert np.mean(program.labels(rows) == pipeline.predict(rows)) > 0.995
    assert_allclose(program.run(rows)["proba"], pipeline.predict_proba(rows), atol=1e-3)
    assert_c_equals_run(program, rows[:100])
    assert any("float32" in note for note in program.notes)


def test_what_cannot_lower_says_so():
    X, y = load_breast_cancer(return_X_y=True)
    callables = LocalizedMKLClassifier(kernels=[lambda A, B: A @ B.T / 100], **QUICK).fit(X, y)
    with pytest.raises(LoweringError, match="callable"):
        effml.lower(callables)
    with pytest.raises(LoweringError, match="LocalizedMKLClassifier"):
        effml.lower(make_pipeline(PowerTransformer(), LocalizedMKLClassifier(**QUICK)).fit(X, y))


def test_check_export_knows_the_model():
    assert "float" in str(effml.check_export(LocalizedMKLClassifier()))


def test_integer_input_is_read():
    X, y = load_digits(return_X_y=True)
    model = LocalizedMKLClassifier(**QUICK).fit(X, y)
    compiled = effml.compile_c(model, input_dtype="uint8")
    assert_array_equal(compiled.predict(X), model.predict(X))
