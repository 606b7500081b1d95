"""Missing values: dropped, a state of their own, or summed out."""

import numpy as np
import pandas as pd
import pytest

import effml
from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.program import LoweringError


def problem(seed=0, n=600):
    """Whether a value is missing tells the class; the values tell less."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    y = (X[:, 0] + 0.5 * rng.normal(size=n) > 0).astype(int)
    X[:, 1] = X[:, 0] + 0.1 * rng.normal(size=n)
    X[(rng.random(n) < 0.7) & (y == 1), 2] = np.nan
    return X, y


@pytest.mark.parametrize("cls", [NaiveBayesClassifier, TANClassifier])
@pytest.mark.parametrize(
    "options", [{}, {"n_bits": 4}, {"objective": "cross_entropy", "n_bits": 5, "max_iter": 5}], ids=str
)
def test_a_state_for_missing_values_is_learned_and_exported(cls, options):
    X, y = problem()
    X_test, y_test = problem(1)
    told = cls(missing="state", random_state=0, **options).fit(X, y)
    dropped = cls(missing="drop", random_state=0, **options).fit(X, y)
    assert told.has_missing_state_.tolist() == [False, False, True, False]
    assert told.n_states_[2] == dropped.n_states_[2] + 1
    assert told.score(X_test, y_test) > dropped.score(X_test, y_test)
    X_test[::7, 0] = np.nan  # not missing in training: its factors are dropped
    agreement = effml.compile_c(told).agreement(X_test)
    assert agreement.n_equal == agreement.n_rows


def test_missing_levels_and_codes_get_states_too():
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"a": rng.choice(["x", "y", None], 200), "b": rng.integers(0, 3, 200).astype(float)})
    table.loc[::5, "b"] = np.nan
    y = table["a"].isna().to_numpy()
    for model in (NaiveBayesClassifier(missing="state"), TANClassifier(missing="state", discretizer=None)):
        assert model.fit(table, y).score(table, y) == 1
        assert model.has_missing_state_[0]
        compiled = effml.compile_c(model)
        np.testing.assert_array_equal(compiled.predict(table), model.predict(table))


def test_summing_out_is_exact_and_never_exported():
    X, y = problem()
    model = TANClassifier(missing="marginalize").fit(X, y)
    assert (model.parents_ >= 0).any()
    X_test, _ = problem(3)
    X_test[:, int(model.parents_.max())] = np.nan
    proba = model.predict_proba(X_test)
    np.testing.assert_array_equal(model.predict(X_test), model.classes_[np.argmax(proba, axis=1)])
    dropping = TANClassifier(missing="drop").fit(X, y)
    assert np.abs(proba - dropping.predict_proba(X_test)).max() > 1e-3
    with pytest.raises(LoweringError, match="missing='marginalize'"):
        effml.lower(model)
    with pytest.raises(ValueError, match="missing='marginalize' needs tables of probabilities"):
        TANClassifier(missing="marginalize", n_bits=4).fit(X, y)
