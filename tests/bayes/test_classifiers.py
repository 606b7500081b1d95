"""The classifiers on codes: what they learn, how they count, what they predict."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import CategoricalNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder

from effml.bayes import MDLPDiscretizer, NaiveBayesClassifier, TANClassifier, tables

BOTH = [NaiveBayesClassifier, TANClassifier]


def random_codes(n_samples=300, n_states=(3, 4, 2, 5), n_classes=3, seed=0):
    """Return codes whose distribution depends on the class and on the feature before."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n_samples)
    X = np.empty((n_samples, len(n_states)), dtype=np.uint8)
    before = y
    for i, r in enumerate(n_states):
        noise = rng.integers(r, size=n_samples)
        before = X[:, i] = np.where(rng.random(n_samples) < 0.4, (before + y) % r, noise)
    return X, y


def assert_same_model(one, other):
    np.testing.assert_array_equal(one.parents_, other.parents_)
    np.testing.assert_array_equal(one.n_states_, other.n_states_)
    np.testing.assert_array_equal(one.class_log_prior_, other.class_log_prior_)
    for a, b in zip(one.log_tables_, other.log_tables_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.scale_ == pytest.approx(other.scale_)


# -- parameters -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([0.01, 1.0, 7.0]))
def test_naive_bayes_equals_categorical_nb(seed, alpha):
    X, y = random_codes(60, seed=seed)
    n_states = [3, 6, 2, 5]
    model = NaiveBayesClassifier(alpha=alpha, discretizer=None, n_states=n_states).fit(X, y)
    # scikit-learn does not smooth the prior
    prior = np.exp(model.class_log_prior_.astype(float))
    peer = CategoricalNB(alpha=alpha, min_categories=n_states, class_prior=prior).fit(X, y)
    for ours, theirs in zip(model.log_tables_, peer.feature_log_prob_, strict=True):
        np.testing.assert_allclose(ours, theirs.T, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(model.predict_proba(X), peer.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(model.predict_joint_log_proba(X), peer.predict_joint_log_proba(X), atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 1.0]), st.booleans())
def test_tables_are_smoothed_relative_frequencies(seed, alpha, weighted):
    X, y = random_codes(80, seed=seed)
    rng = np.random.default_rng(seed)
    parents = np.array([-1, 0, -1, 1])
    weights = rng.exponential(size=len(y)) if weighted else np.ones(len(y))
    model = TANClassifier(structure=parents, alpha=alpha, discretizer=None, n_states=[3, 4, 2, 5])
    model.fit(X, y, sample_weight=weights if weighted else None)
    for i in range(4):
        for _ in range(5):
            c, state = rng.integers(3), rng.integers(model.n_states_[i])
            here = y == c
            index = (state, c)
            if parents[i] >= 0:
                parent_state = rng.integers(model.n_states_[parents[i]])
                here = here & (X[:, parents[i]] == parent_state)
                index = (state, parent_state, c)
            total, part = weights[here].sum(), weights[here & (X[:, i] == state)].sum()
            expected = np.log((part + alpha) / (total + alpha * model.n_states_[i]))
            assert model.log_tables_[i][index] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    expected = np.log((weights[y == 1].sum() + alpha) / (weights.sum() + 3 * alpha))
    assert model.class_log_prior_[1] == pytest.approx(expected, rel=1e-5)


def test_a_missing_value_drops_its_factor_and_those_of_its_children():
    X, y = random_codes()
    model = TANClassifier(structure=[-1, 0, 0, 2], discretizer=None).fit(X, y)
    row = X[:1].astype(float)
    row[0, 0] = np.nan
    left = model.class_log_prior_ + model.log_tables_[3][X[0, 3], X[0, 2]]
    np.testing.assert_allclose(model.predict_joint_log_proba(row)[0], left, rtol=1e-6)


@pytest.mark.parametrize("unseen", [-1, 5, 0.5, 255, 1e30, -1e30])
def test_an_unseen_code_is_a_missing_value(unseen):
    X, y = random_codes()
    model = TANClassifier(discretizer=None).fit(X, y)
    missing, other = X.astype(float), X.astype(float)
    missing[:, 1], other[:, 1] = np.nan, unseen
    np.testing.assert_array_equal(model.predict_proba(missing), model.predict_proba(other))


def test_missing_rows_are_skipped_where_they_are_missing():
    X, y = random_codes()
    values = X.astype(float)
    values[:100, 1] = np.nan
    model = NaiveBayesClassifier(discretizer=None).fit(values, y)
    full, part = NaiveBayesClassifier(discretizer=None).fit(X, y), NaiveBayesClassifier(discretizer=None)
    part.fit(X[100:], y[100:])
    np.testing.assert_array_equal(model.log_tables_[1], part.log_tables_[1])
    np.testing.assert_array_equal(model.log_tables_[0], full.log_tables_[0])


def test_number_of_parameters_is_the_size_of_all_tables():
    X, y = random_codes()
    for model in (NaiveBayesClassifier(discretizer=None), TANClassifier(discretizer=None)):
        model.fit(X, y)
        assert model.n_parameters_ == model.class_log_prior_.size + sum(table.size for table in model.log_tables_)


# -- predictions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", BOTH)
@pytest.mark.parametrize("bits", [{}, {"n_bits": 3}, {"integer_bits": 2, "fraction_bits": 2}, {"n_bits": 8}])
def test_scores_follow_from_the_fitted_attributes(estimator, bits):
    X, y = random_codes()
    model = estimator(discretizer=None, **bits).fit(X, y)
    scores = np.tile(model.class_log_prior_.astype(float), (len(X), 1))
    integers = np.zeros((len(X), 3), dtype=int) if model.prior_codes_ is None else model.prior_codes_.astype(int)
    for i, parent in enumerate(model.parents_):
        cells = (X[:, i],) if parent < 0 else (X[:, i], X[:, parent])
        scores += model.log_tables_[i][cells]
        if model.codes_ is not None:
            integers = integers + model.codes_[i][cells]
    np.testing.assert_allclose(model.predict_log_proba(X), scores - logsumexp(scores, axis=1, keepdims=True), atol=1e-5)
    if model.codes_ is None:
        best = scores.argmax(axis=1)
    else:
        best = integers.argmax(axis=1) if model.table_format_ == "contrast" else integers.argmin(axis=1)
    np.testing.assert_array_equal(model.predict(X), best)


def test_quantised_tables_are_codes_with_a_scale():
    X, y = random_codes()
    exact = NaiveBayesClassifier(discretizer=None).fit(X, y)
    assert exact.codes_ is None and exact.scale_ is None and exact.n_bits_ is None
    fixed = NaiveBayesClassifier(discretizer=None, integer_bits=3, fraction_bits=2).fit(X, y)
    assert (fixed.n_bits_, fixed.integer_bits_, fixed.fraction_bits_, fixed.scale_) == (5, 3, 2, 0.25)
    for codes, table, floats in zip(fixed.codes_, fixed.log_tables_, exact.log_tables_, strict=True):
        assert codes.dtype == np.uint8
        np.testing.assert_array_equal(codes, np.clip(np.round(-floats * 4.0), 0, 31))
        np.testing.assert_array_equal(table, codes * np.float32(-0.25))
    contrast = NaiveBayesClassifier(discretizer=None, n_bits=2).fit(X, y)
    assert contrast.prior_codes_ is None and contrast.table_format_ == "contrast" and contrast.integer_bits_ is None
    for codes, table in zip(contrast.codes_, contrast.log_tables_, strict=True):
        assert codes.max() <= 3
        np.testing.assert_allclose(table, (codes - 1.5) * contrast.scale_, rtol=1e-6)


def test_eight_bits_predict_as_float_does():
    X, y = load_iris(return_X_y=True)
    for estimator in BOTH:
        labels = estimator().fit(X, y).predict(X)
        assert np.mean(labels == estimator(n_bits=8).fit(X, y).predict(X)) > 0.98
        assert np.mean(labels == estimator(n_bits=8, integer_bits="auto").fit(X, y).predict(X)) > 0.98


def test_contrast_tables_know_no_joint_probability():
    X, y = random_codes()
    with pytest.raises(ValueError, match="contrast tables keep only the differences"):
        NaiveBayesClassifier(discretizer=None, n_bits=4).fit(X, y).predict_joint_log_proba(X)


def test_tan_beats_naive_bayes_where_features_depend_on_each_other():
    X, y = load_digits(return_X_y=True)
    scores = {estimator: cross_val_score(estimator(), X, y, cv=3).mean() for estimator in BOTH}
    assert scores[TANClassifier] > scores[NaiveBayesClassifier] + 0.02


# -- training ---------------------------------------------------------------------------------------------------------

FORMATS = [{}, {"n_bits": 3}, {"n_bits": 4, "integer_bits": "auto"}]


@pytest.mark.parametrize("estimator", BOTH)
@pytest.mark.parametrize("bits", FORMATS)
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 2, 1: 0, 2: 5}])
def test_weights_are_repetitions(estimator, bits, class_weight):
    X, y = random_codes()
    weights = np.random.default_rng(1).integers(0, 4, size=len(y))
    model = estimator(discretizer=None, class_weight=class_weight, **bits)
    repeated = clone(model).fit(X.repeat(weights, axis=0), y.repeat(weights))
    assert_same_model(model.fit(X, y, sample_weight=weights), repeated)


def test_balanced_class_weight_makes_the_prior_uniform():
    X, y = random_codes()
    kept = np.flatnonzero((y != 1) | (np.arange(len(y)) % 5 == 0))
    model = NaiveBayesClassifier(discretizer=None, class_weight="balanced").fit(X[kept], y[kept])
    np.testing.assert_allclose(np.exp(model.class_log_prior_), 1 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        NaiveBayesClassifier(discretizer=None, n_states=5),
        TANClassifier(structure=[-1, 0, 1, 0], discretizer=None, n_states=5),
        NaiveBayesClassifier(discretizer=None, n_states=5, integer_bits=3, fraction_bits=1),
        NaiveBayesClassifier(discretizer=None, n_states=5, class_weight={0: 3}),
    ],
)
def test_batches_give_what_fit_gives(model):
    X, y = random_codes()
    weights = np.random.default_rng(2).integers(0, 3, size=len(y)).astype(float)
    whole = clone(model).fit(X, y, sample_weight=weights)
    for rows in np.array_split(np.arange(len(y)), 4):
        model.partial_fit(X[rows], y[rows], classes=[0, 1, 2], sample_weight=weights[rows])
    assert_same_model(model, whole)
    np.testing.assert_array_equal(model.predict(X), whole.predict(X))


def test_batches_keep_the_structure_of_the_first():
    X, y = random_codes(1_000)
    model = TANClassifier(discretizer=None).partial_fit(X[:300], y[:300], classes=[0, 1, 2])
    first = TANClassifier(discretizer=None).fit(X[:300], y[:300])
    model.partial_fit(X[300:], y[300:])
    np.testing.assert_array_equal(model.parents_, first.parents_)
    assert_same_model(model, TANClassifier(structure=first.parents_, discretizer=None).fit(X, y))


def test_batches_through_a_fitted_discretizer():
    X, y = load_iris(return_X_y=True)
    bins = MDLPDiscretizer().fit(X, y)
    model = NaiveBayesClassifier(discretizer=bins)
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        model.partial_fit(X[rows], y[rows], classes=np.unique(y))
    assert_same_model(model, NaiveBayesClassifier().fit(X, y))
    assert model.discretizer_ is bins


def test_partial_fit_says_what_it_needs():
    X, y = random_codes()
    for parameters in (
        {},
        {"discretizer": None, "n_bits": 4},
        {"discretizer": None, "n_bits": 4, "integer_bits": "auto"},
    ):
        assert not hasattr(NaiveBayesClassifier(**parameters), "partial_fit")
    with pytest.raises(AttributeError) as caught:
        NaiveBayesClassifier().partial_fit(X, y, classes=[0, 1, 2])
    assert "discretizer=None or a fitted transformer" in str(caught.value.__cause__)
    model = NaiveBayesClassifier(discretizer=None)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(X, y)
    model.partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="y has the label 3, which is not among"):
        model.partial_fit(X[:2], [0, 3])
    with pytest.raises(ValueError, match="feature 2 is 2 in row 1, too large for n_states"):
        model.partial_fit([[0, 0, 0, 0], [0, 0, 2, 0]], [0, 1])
    with pytest.raises(ValueError, match="class_weight='balanced' needs all rows"):
        NaiveBayesClassifier(discretizer=None, class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])


def test_a_class_without_rows_gets_what_smoothing_leaves():
    X, y = random_codes()
    model = NaiveBayesClassifier(discretizer=None).partial_fit(X[y < 2], y[y < 2], classes=[0, 1, 2])
    proba = model.predict_proba(X)
    assert proba.shape == (len(X), 3) and np.isfinite(proba).all() and proba[:, 2].max() < 0.5


@pytest.mark.parametrize("estimator", BOTH)
@pytest.mark.parametrize("bits", FORMATS)
def test_the_model_does_not_depend_on_the_number_of_threads(estimator, bits, monkeypatch):
    monkeypatch.setattr(tables, "_THREAD_NS", 1.0)  # else so little work stays on one thread
    X, y = random_codes(20_000, n_states=(7, 5, 9, 3, 6, 8))
    one, two = estimator(n_jobs=1, **bits).fit(X, y), estimator(n_jobs=2, **bits).fit(X, y)
    assert_same_model(one, two)
    np.testing.assert_array_equal(one.predict(X), two.predict(X))
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))


def test_random_structures_follow_the_seed():
    X, y = random_codes(n_states=(3,) * 12)
    parents = [
        TANClassifier(structure="random", random_state=seed, discretizer=None).fit(X, y).parents_ for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(parents[0], parents[1])
    assert (parents[0] != parents[2]).any()


@pytest.mark.parametrize(
    ("structure", "message"),
    [([-1, 0], "shape"), ([-1, 0, 1, 9], "parents"), ([1, 2, 0, -1], "cycle"), ("tree", "'structure' parameter")],
)
def test_impossible_structures_are_refused(structure, message):
    X, y = random_codes()
    with pytest.raises(ValueError, match=message):
        TANClassifier(structure=structure, discretizer=None).fit(X, y)


ILLEGAL_BITS = [
    {"integer_bits": 3},
    {"fraction_bits": 3},
    {"n_bits": 4, "fraction_bits": 3},
    {"n_bits": 4, "integer_bits": 2, "fraction_bits": 2},
    {"integer_bits": "auto"},
    {"integer_bits": "auto", "fraction_bits": 2},
    {"integer_bits": 6, "fraction_bits": 6},
    {"integer_bits": 2, "fraction_bits": -2},
    {"table_format": "contrast"},
    {"n_bits": 4, "table_format": "log_prob"},
    {"n_bits": 4, "integer_bits": 2, "table_format": "contrast"},
    {"n_bits": 0},
    {"n_bits": 9},
    {"integer_bits": -1, "fraction_bits": 4},
    {"integer_bits": "all", "n_bits": 4},
]


@pytest.mark.parametrize("bits", ILLEGAL_BITS)
def test_illegal_bits_are_refused_by_name(bits):
    X, y = random_codes()
    with pytest.raises(ValueError) as caught:
        NaiveBayesClassifier(discretizer=None, **bits).fit(X, y)
    assert any(name in str(caught.value) for name in bits)


# -- scikit-learn -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [NaiveBayesClassifier(), TANClassifier(n_bits=3), TANClassifier(max_bins=4)])
def test_pickles_fitted_and_unfitted(model):
    X, y = load_iris(return_X_y=True)
    assert pickle.loads(pickle.dumps(model)).get_params().keys() == model.get_params().keys()
    model.fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    assert_same_model(again, model)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_fitted_state_is_arrays_and_plain_python():
    X, y = random_codes()
    state = TANClassifier(discretizer=None, n_bits=3).fit(X, y).__getstate__()

    def plain(value):
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or isinstance(value, np.ndarray | int | float | str)

    assert all(plain(value) for value in state.values())


def test_grid_search_on_two_processes():
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(MinMaxScaler(), TANClassifier())
    grid = {"tanclassifier__n_bits": [None, 1, 4], "tanclassifier__structure": ["cmi", "random"]}
    search = GridSearchCV(model, grid, cv=3, n_jobs=2).fit(X, y)
    assert search.best_score_ > 0.9
    one = GridSearchCV(model, grid, cv=3, n_jobs=1).fit(X, y)
    cmi = [params["tanclassifier__structure"] == "cmi" for params in search.cv_results_["params"]]
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"][cmi], one.cv_results_["mean_test_score"][cmi])


def test_other_discretizers():
    X, y = load_iris(return_X_y=True)
    bins = KBinsDiscretizer(4, encode="ordinal", strategy="uniform")
    model = TANClassifier(discretizer=bins).fit(X, y)
    assert model.n_states_.tolist() == [4, 4, 4, 4] and model.score(X, y) > 0.9
    assert model.discretizer_ is not bins
    with pytest.raises(ValueError, match="sparse matrix"):
        TANClassifier(discretizer=KBinsDiscretizer(4, strategy="uniform")).fit(X, y)
    with pytest.raises(ValueError, match="codes must be integers from 0"):
        TANClassifier(discretizer=MinMaxScaler()).fit(X, y)
    with pytest.raises(ValueError, match="takes no sample_weight"):
        TANClassifier(discretizer=OneHotEncoder(), class_weight="balanced").fit(X, y)
    with pytest.raises(ValueError, match="n_states=3 needs discretizer=None"):
        TANClassifier(n_states=3).fit(X, y)
    with pytest.raises(ValueError, match="the discretizer knows its number of states"):
        TANClassifier(discretizer=bins, n_states=4).fit(X, y)


def test_labels_keep_their_type():
    X, y = random_codes()
    for names in (np.array(["red", "green", "blue"]), np.array([2.0, -1.0, 7.0]), np.array([True, False, True])):
        labels = names[y]
        model = NaiveBayesClassifier(discretizer=None, n_bits=3).fit(X, labels)
        assert model.predict(X).dtype == labels.dtype
        np.testing.assert_array_equal(model.classes_, np.unique(labels))
