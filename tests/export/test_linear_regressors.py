"""Linear regressors as Programs and C: few columns read, scalers folded, values up to float32 rounding."""

import numpy as np
import pytest
from common.c_proof import assert_c_equals_run, hostile_rows
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import effml
from effml.itemsets import SparseBayesRegressor


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(3.0, 2.0, size=(200, 30)).astype(np.float32)
    return X, 3.0 * X[:, 7] - 2.0 * X[:, 21] + 0.5 * rng.normal(size=200)


@pytest.mark.parametrize("scaled", [False, True])
def test_sparse_bayes_reads_only_its_columns(data, scaled):
    X, y = data
    model = make_pipeline(StandardScaler(), SparseBayesRegressor()) if scaled else SparseBayesRegressor()
    model.fit(X, y)
    program = effml.lower(model)
    active = (model[-1] if scaled else model).active_.tolist()
    assert {7, 21} <= set(active) and len(active) < 5
    assert [k for k, spec in enumerate(program.inputs) if spec.used] == active
    assert_allclose(program.run(X)["value"][:, 0], model.predict(X), rtol=1e-4, atol=1e-4)
    assert_c_equals_run(program, np.concatenate([X, hostile_rows(program, 100, np.random.default_rng(0))]))
    assert effml.footprint(model).flash_bytes < 200


def test_a_model_without_columns_is_its_intercept():
    X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    model = SparseBayesRegressor().fit(X, np.full(50, 2.5))
    program = effml.lower(model)
    assert (program.run(X)["value"] == 2.5).all()
    assert_c_equals_run(program, X)
