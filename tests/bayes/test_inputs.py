"""Tables as users have them: text, levels, holes, constant columns, one of anything."""

import numpy as np
import pytest

from effml.bayes import NaiveBayesClassifier, TANClassifier

pd = pytest.importorskip("pandas")

BOTH = [NaiveBayesClassifier, TANClassifier]
ALL = [(estimator, discretizer) for estimator in BOTH for discretizer in ("mdlp", None)]


def weather(n_samples=200, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.choice(["rain", "sun"], n_samples)
    rain = y == "rain"
    sky = np.where(rng.random(n_samples) < 0.8, np.where(rain, "grey", "blue"), "white")
    wind = np.where(rng.random(n_samples) < 0.7, np.where(rain, 3, 1), rng.integers(0, 4, n_samples))
    return pd.DataFrame({"sky": sky, "wind": wind, "month": pd.Categorical(rng.choice(["may", "june"], n_samples))}), y


@pytest.mark.parametrize(("estimator", "discretizer"), ALL)
def test_tables_with_text_columns(estimator, discretizer):
    X, y = weather()
    model = estimator(discretizer=discretizer).fit(X, y)
    assert model.score(X, y) > 0.8
    assert model.feature_names_in_.tolist() == ["sky", "wind", "month"]
    assert model.n_states_[[0, 2]].tolist() == [3, 2]
    shuffled_levels = X.assign(month=pd.Categorical(X["month"].astype(str), categories=["may", "april", "june"]))
    np.testing.assert_array_equal(model.predict(shuffled_levels), model.predict(X))


@pytest.mark.parametrize(("estimator", "discretizer"), ALL)
def test_unseen_levels_and_holes_drop_their_factors(estimator, discretizer):
    X, y = weather()
    model = estimator(discretizer=discretizer).fit(X, y)
    unseen, missing = X.assign(sky="purple"), X.assign(sky=None)
    np.testing.assert_array_equal(model.predict_proba(unseen), model.predict_proba(missing))
    assert np.isfinite(model.predict_proba(unseen)).all()


@pytest.mark.parametrize(("estimator", "discretizer"), ALL)
def test_holes_in_training_are_dropped_or_refused(estimator, discretizer):
    X, y = weather()
    X = X.assign(sky=X["sky"].where(X.index % 3 > 0), wind=X["wind"].where(X.index % 4 > 0))
    assert estimator(discretizer=discretizer).fit(X, y).score(X, y) > 0.7
    with pytest.raises(ValueError, match=r"NaN|missing"):
        estimator(discretizer=discretizer, missing="error").fit(X, y)


@pytest.mark.parametrize(("estimator", "discretizer"), ALL)
def test_missing_is_refused_at_predict_time_too(estimator, discretizer):
    X, y = weather()
    model = estimator(discretizer=discretizer, missing="error").fit(X, y)
    with pytest.raises(ValueError, match=r"NaN|missing"):
        model.predict(X.assign(sky=None))
    assert len(model.predict(X.assign(sky="purple"))) == len(X)


@pytest.mark.parametrize(("estimator", "discretizer"), ALL)
@pytest.mark.parametrize("n_bits", [None, 2])
def test_useless_columns_change_no_label(estimator, discretizer, n_bits):
    X, y = weather()
    X = X[["sky", "wind"]]
    padded = X.assign(constant=0, hole=np.nan, text="same")
    assert estimator(discretizer=discretizer, n_bits=n_bits).fit(padded, y).score(padded, y) > 0.8
    float_model = NaiveBayesClassifier(discretizer=discretizer)
    expected = float_model.fit(X, y).predict_proba(X)
    np.testing.assert_allclose(float_model.fit(padded, y).predict_proba(padded), expected, atol=1e-6)


@pytest.mark.parametrize(("estimator", "discretizer"), ALL)
@pytest.mark.parametrize("bits", [{}, {"n_bits": 1}, {"n_bits": 3, "integer_bits": "auto"}])
def test_one_class_one_feature_one_row(estimator, discretizer, bits):
    X, y = weather()
    model = estimator(discretizer=discretizer, **bits)
    assert set(model.fit(X, ["only"] * len(X)).predict(X)) == {"only"}
    np.testing.assert_array_equal(model.predict_proba(X), np.ones((len(X), 1)))
    assert model.fit(X[["wind"]], y).score(X[["wind"]], y) > 0.6
    assert model.fit(X[:1], y[:1]).predict(X[:1]) == y[:1]


def test_an_infinite_number_is_no_code():
    X = np.array([[0.0], [1.0], [np.inf]])
    with pytest.raises(ValueError, match="infinity"):
        NaiveBayesClassifier(discretizer=None).fit(X, [0, 1, 1])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([[0, 1], [1, -2]], "Negative values in data: codes must be integers from 0, but feature 1 is -2 in row 1"),
        ([[0, 1], [1.5, 0]], r"codes must be integers from 0, but feature 0 is 1.5 in row 1; discretizer='mdlp'"),
        ([[0, 1], [70_000, 0]], "feature 0 has more than 65535 states"),
    ],
)
def test_values_that_are_no_codes_are_named(X, message):
    with pytest.raises(ValueError, match=message):
        NaiveBayesClassifier(discretizer=None).fit(X, [0, 1])


@pytest.mark.parametrize("n_states", [0, [2, 2, 2], [2, 2.5], [[2, 2]], [2, -1]])
def test_impossible_numbers_of_states_are_refused(n_states):
    with pytest.raises(ValueError, match="n_states"):
        NaiveBayesClassifier(discretizer=None, n_states=n_states).fit([[0, 1], [1, 0]], [0, 1])


def test_codes_beyond_the_given_number_of_states_are_refused():
    with pytest.raises(ValueError, match=r"feature 1 is 2 in row 0, too large for n_states=\[3, 2\]"):
        NaiveBayesClassifier(discretizer=None, n_states=[3, 2]).fit([[2, 2], [1, 0]], [0, 1])


def test_number_of_states_is_about_the_columns_of_codes():
    X, y = weather()
    assert NaiveBayesClassifier(discretizer=None, n_states=9).fit(X, y).n_states_.tolist() == [3, 9, 2]
    assert NaiveBayesClassifier(discretizer=None, n_states=[1, 6, 1]).fit(X, y).n_states_.tolist() == [3, 6, 2]


def test_a_new_level_in_a_later_batch_is_named():
    X, y = weather()
    model = NaiveBayesClassifier(discretizer=None).partial_fit(X, y, classes=["rain", "sun"])
    with pytest.raises(ValueError, match="sky has a level that the first batch did not have"):
        model.partial_fit(X.assign(sky="purple"), y)


def test_codes_of_every_number_type_are_the_same():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 5, (100, 3)), rng.integers(0, 2, 100)
    expected = TANClassifier(discretizer=None).fit(X.astype(np.uint8), y).predict_proba(X)
    for dtype in (np.int8, np.uint16, np.int64, np.float32, np.float64, "Int64"):
        table = pd.DataFrame(X).astype(dtype) if isinstance(dtype, str) else X.astype(dtype)
        np.testing.assert_array_equal(TANClassifier(discretizer=None).fit(table, y).predict_proba(table), expected)


def test_more_than_255_states():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 1_000, (5_000, 2)), rng.integers(0, 2, 5_000)
    X[:, 0] = X[:, 0] // 2 * 2 + y
    model = NaiveBayesClassifier(discretizer=None, n_bits=3).fit(X, y)
    assert model.score(X, y) > 0.95
    assert len(model.predict([[1_000, -1], [65_536, 10**12]])) == 2


@pytest.mark.parametrize("weights", [[1, -1], [0, 0], [1, np.nan], [1, 1, 1]])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match=r"[wW]eight|sample"):
        NaiveBayesClassifier(discretizer=None).fit([[0], [1]], [0, 1], sample_weight=weights)


def test_a_negative_class_weight_is_refused():
    with pytest.raises(ValueError, match="class_weight must not be negative"):
        NaiveBayesClassifier(discretizer=None, class_weight={0: -1}).fit([[0], [1]], [0, 1])
