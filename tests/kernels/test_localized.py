"""What the estimators promise: localisation, linear-model equivalence, training modes, kernels, errors."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, make_classification
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from effml.kernels import RBF, LocalizedMKLClassifier, LocalizedMKLRegressor, Polynomial, plot_gate
from effml.kernels.network import FEATURE_SCALE
from effml.persistence import load_model, save_model

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from lmkl_regions import measure

QUICK = {"n_landmarks": 20, "max_iter": 5, "random_state": 0}


@pytest.fixture(scope="module")
def cancer():
    return train_test_split(*load_breast_cancer(return_X_y=True), random_state=0)


def test_the_gate_localises():
    """In the mean of five seeds: the loss is not convex, and a linear gate may settle on one kernel."""
    constant, softmax = (
        np.mean([measure({"gate": gate, "gate_hidden_size": 0}, seed) for seed in range(5)], axis=0)
        for gate in ("constant", "softmax")
    )
    assert softmax[0] >= constant[0] + 0.02
    assert softmax[1] >= 0.3


def test_uniform_gate_and_no_hidden_layer_is_a_kernel_logistic_regression(cancer):
    X, _, y, _ = cancer
    model = LocalizedMKLClassifier(
        gate="uniform", hidden_layer_sizes=(), n_landmarks=80, learn_landmarks=False, alpha=1.0, max_iter=300,
        batch_size=len(X), learning_rate_init=0.05, random_state=0,
    ).fit(X, y)  # fmt: skip
    network, Z = model.network_, model._standardized(X)
    eta = network.gate.forward({}, Z)[0]
    phi = network.weigh(eta, network.bank.forward(Z).kernels) @ network.transforms[0].T - network.centre
    exact = LogisticRegression(C=1.0, max_iter=5000, tol=1e-8).fit(phi / FEATURE_SCALE, y)
    ours = np.abs(model.decision_function(X))
    assert_allclose(model.decision_function(X), exact.decision_function(phi / FEATURE_SCALE), atol=0.02 * ours.max())


def test_digits_is_learned():
    X, X_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
    assert LocalizedMKLClassifier(max_iter=20, random_state=0).fit(X, y).score(X_test, y_test) > 0.96


def test_kernel_weights_are_weights(cancer):
    X, X_test, y, _ = cancer
    for gate in ("uniform", "constant", "softmax", "rbf"):
        model = LocalizedMKLClassifier(gate=gate, **QUICK).fit(X, y)
        assert_allclose(model.kernel_weights(X_test).sum(axis=1), 1, atol=1e-6)
        assert_allclose(model.kernel_weights_, model.kernel_weights(X).mean(axis=0), atol=1e-6)
    sigmoid = LocalizedMKLClassifier(gate="sigmoid", **QUICK).fit(X, y).kernel_weights(X_test)
    assert (sigmoid >= 0).all() and (sigmoid <= 1).all()
    assert len(model.kernel_names_) == 8


def test_the_model_does_not_depend_on_the_number_of_threads(cancer):
    X, X_test, y, _ = cancer
    one, two = (LocalizedMKLClassifier(n_jobs=n, **QUICK).fit(X, y) for n in (1, 2))
    for name, value in one.parameters_.items():
        assert_array_equal(value, two.parameters_[name])
    assert_array_equal(one.predict_proba(np.tile(X_test, (40, 1))), two.predict_proba(np.tile(X_test, (40, 1))))


@pytest.mark.parametrize("landmarks", ["stratified", "random", "kmeans"])
def test_landmarks_are_rows_or_centres(landmarks, cancer):
    X, _, y, _ = cancer
    model = LocalizedMKLClassifier(landmarks=landmarks, learn_landmarks=False, **QUICK).fit(X, y)
    assert model.landmarks_.shape == (20, X.shape[1])
    if landmarks != "kmeans":
        distance = np.abs(model.landmarks_[:, None] - X).max(axis=2).min(axis=1)
        assert (distance < 1e-3 * np.abs(X).max()).all()


def test_every_class_gets_a_landmark():
    X, y = make_classification(600, weights=[0.97, 0.02, 0.01], n_classes=3, n_informative=5, random_state=0)
    model = LocalizedMKLClassifier(learn_landmarks=False, **QUICK | {"n_landmarks": 6}).fit(X, y)
    nearest = np.abs(model.landmarks_[:, None] - X).max(axis=2).argmin(axis=1)
    assert set(y[nearest]) == set(y)


def test_given_landmarks_are_in_the_units_of_the_rows(cancer):
    X, _, y, _ = cancer
    model = LocalizedMKLClassifier(landmarks=X[:15], learn_landmarks=False, **QUICK).fit(X, y)
    assert_allclose(model.landmarks_, X[:15], rtol=1e-4, atol=1e-3)


def test_landmarks_are_learned_where_rows_are_many(cancer):
    X, _, y, _ = cancer
    assert LocalizedMKLClassifier(**QUICK).fit(X, y).learns_landmarks_
    assert not LocalizedMKLClassifier(**QUICK | {"n_landmarks": 200}).fit(X, y).learns_landmarks_
    fixed = LocalizedMKLClassifier(landmarks=X[:15], learn_landmarks=True, **QUICK).fit(X, y)
    assert not np.allclose(fixed.landmarks_, X[:15], rtol=1e-3)


def test_bandwidths_are_learned(cancer):
    X, _, y, _ = cancer
    fixed = LocalizedMKLClassifier(kernels=RBF(), **QUICK).fit(X, y)
    learned = LocalizedMKLClassifier(kernels=RBF(), learn_bandwidths=True, **QUICK).fit(X, y)
    assert fixed.network_.bank.groups[0].shapes != learned.network_.bank.groups[0].shapes


def test_groups_by_names_slices_and_masks(cancer):
    pd = pytest.importorskip("pandas")
    X, _, y, _ = cancer
    table = pd.DataFrame(X, columns=[f"c{k}" for k in range(X.shape[1])])
    mask = np.arange(X.shape[1]) >= 20
    by_name = {"a": [f"c{k}" for k in range(20)], "b": [f"c{k}" for k in range(20, X.shape[1])]}
    models = [
        LocalizedMKLClassifier(groups=groups, **QUICK).fit(table, y)
        for groups in (by_name, [slice(0, 20), mask], [range(20), np.flatnonzero(mask)])
    ]
    for model in models:
        assert len(model.kernel_names_) == 2
        assert_array_equal(model.predict_proba(table), models[0].predict_proba(table))


def test_callable_kernels_work_in_python(cancer):
    X, X_test, y, y_test = cancer

    def laplace(A, B):
        return np.exp(-np.abs(A[:, None] - B).sum(axis=2) / A.shape[1])

    model = LocalizedMKLClassifier(kernels=[laplace, "rbf"], **QUICK | {"max_iter": 20}).fit(X, y)
    assert model.kernel_names_[1] == "laplace" and not model.learns_landmarks_
    assert model.score(X_test, y_test) > 0.9


def test_early_stopping_keeps_the_best_epoch(cancer):
    X, _, y, _ = cancer
    settings = {**QUICK, "max_iter": 60, "early_stopping": True, "n_iter_no_change": 3}
    model = LocalizedMKLClassifier(**settings).fit(X, y)
    assert model.n_iter_ < 60 and len(model.validation_scores_) == len(model.loss_curve_) == model.n_iter_
    target = np.searchsorted(model.classes_, y)
    rows = np.random.RandomState(0)
    _, validation = model._split(len(X), target, rows.randint(2**31 - 1))
    score = model._score_rows(X[validation], target[validation], np.ones(len(validation)))
    assert_allclose(score, max(model.validation_scores_))


def test_warm_start_goes_on(cancer):
    X, _, y, _ = cancer
    model = LocalizedMKLClassifier(warm_start=True, **QUICK).fit(X, y)
    first = model.loss_curve_[-1]
    model.fit(X, y)
    assert len(model.loss_curve_) == 10 and model.loss_curve_[-1] < first
    with pytest.raises(ValueError, match="warm_start"):
        model.fit(X, y + 5)
    with pytest.raises(ValueError, match="features"):
        model.fit(X[:, :5], y)


def test_a_fit_that_is_interrupted_leaves_no_model(cancer, monkeypatch):
    X, _, y, _ = cancer

    def interrupted(*_):
        raise KeyboardInterrupt

    for model in (LocalizedMKLClassifier(**QUICK), LocalizedMKLClassifier(warm_start=True, **QUICK).fit(X, y)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("effml.kernels.localized.train", interrupted)
            model.fit(X, y)
        with pytest.raises(NotFittedError):
            model.predict(X)
        assert model.fit(X, y).n_iter_ == QUICK["max_iter"]


def test_parameters_set_after_the_fit_do_not_matter_until_the_next(cancer):
    X, _, y, _ = cancer
    model = LocalizedMKLClassifier(**QUICK).fit(X, y)
    weights = model.kernel_weights(X)
    assert_array_equal(model.set_params(gate="rbf").kernel_weights(X), weights)


def test_partial_fit_learns_from_a_stream(cancer):
    X, X_test, y, y_test = cancer
    model = LocalizedMKLClassifier(n_landmarks=30, random_state=0)
    with pytest.raises(ValueError, match="classes=None"):
        model.partial_fit(X[:100], y[:100])
    model.partial_fit(X[:100], y[:100], classes=[0, 1])
    for _ in range(15):
        for start in range(100, len(X), 100):
            model.partial_fit(X[start : start + 100], y[start : start + 100])
    assert model.score(X_test, y_test) > 0.9
    with pytest.raises(ValueError, match="label 7"):
        model.partial_fit(X[:10], np.full(10, 7))


def test_regression_with_several_outputs():
    X, y = load_diabetes(return_X_y=True)
    both = np.stack([y, -2 * y + 5], axis=1)
    model = LocalizedMKLRegressor(n_landmarks=50, max_iter=30, random_state=0).fit(X, both)
    assert model.predict(X).shape == (len(X), 2)
    assert model.score(X, both) > 0.45
    assert_allclose(model.predict(X)[:, 1], -2 * model.predict(X)[:, 0] + 5, atol=80)
    assert LocalizedMKLRegressor(early_stopping=True, **QUICK).fit(X, y).validation_scores_


def test_weights_count_rows(cancer):
    X, _, y, _ = cancer
    kept = np.arange(len(y)) % 3 > 0
    dropped = LocalizedMKLClassifier(**QUICK).fit(X, y, sample_weight=kept.astype(float))
    assert_allclose(dropped.predict_proba(X), LocalizedMKLClassifier(**QUICK).fit(X[kept], y[kept]).predict_proba(X))
    heavy = LocalizedMKLClassifier(class_weight={0: 20.0}, **QUICK).fit(X, y).predict(X)
    assert (heavy == 0).sum() > (LocalizedMKLClassifier(**QUICK).fit(X, y).predict(X) == 0).sum()


def test_models_survive_pickle_and_files(cancer, tmp_path):
    X, X_test, y, _ = cancer
    for parameters in ({}, {"gate": "rbf", "kernels": [RBF(1.0), Polynomial(3)]}, {"gate": "sigmoid"}):
        model = LocalizedMKLClassifier(**parameters, **QUICK).fit(X, y)
        model.predict(X_test)
        expected = model.predict_proba(X_test)
        assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X_test), expected)
        save_model(model, tmp_path / "model.skops")
        assert_array_equal(load_model(tmp_path / "model.skops").predict_proba(X_test), expected)
        clone(model)


def test_plot_of_the_gate(cancer):
    pytest.importorskip("matplotlib")
    X, _, y, _ = cancer
    model = LocalizedMKLClassifier(**QUICK).fit(X, y)
    figure = plot_gate(model, X, (0, 3), max_kernels=4, resolution=5)
    assert len([axes for axes in figure.axes if axes.get_title()]) == 4
    assert len(plot_gate(model, X, kernels=[1], resolution=5).axes) == 2
    with pytest.raises(ValueError, match="features"):
        plot_gate(model, X, (0, "no such"))
    with pytest.raises(ValueError, match="kernels"):
        plot_gate(model, X, kernels=[99])


def test_verbose_prints_every_epoch(cancer, capsys):
    X, _, y, _ = cancer
    LocalizedMKLClassifier(verbose=True, early_stopping=True, **QUICK).fit(X, y)
    printed = capsys.readouterr().out
    assert printed.count("Iteration") == 5 and printed.count("Validation score") == 5


def wrong(X, A):
    return np.ones((2, 2))


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"kernels": []}, "kernels is empty"),
        ({"kernels": ["gaussian"]}, "'gaussian'"),
        ({"kernels": 3}, "kernels=3"),
        ({"kernels": [wrong]}, "the kernel wrong returned an array of shape"),
        ({"groups": []}, "groups is empty"),
        ({"groups": 3}, "groups=3"),
        ({"groups": [[0, 99]]}, "column 99"),
        ({"groups": [["a"]]}, "'a'"),
        ({"groups": [[0.5]]}, "groups holds"),
        ({"landmarks": np.ones((3, 2))}, "landmarks has shape"),
        ({"kernels": [wrong], "learn_landmarks": True}, "learn_landmarks=True"),
        ({"gate": "hard"}, "gate"),
        ({"n_landmarks": 0}, "n_landmarks"),
        ({"dropout": 1.0}, "dropout"),
        ({"learning_rate_init": 1e9, "max_iter": 50}, "learning_rate_init"),
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes"),
    ],
)
def test_wrong_input_is_named(parameters, message, cancer):
    X, _, y, _ = cancer
    with pytest.raises((ValueError, TypeError), match=message):
        LocalizedMKLClassifier(**{**QUICK, **parameters}).fit(X, y)


@pytest.mark.parametrize(
    "kind, given", [(RBF, (0,)), (RBF, (1, -1)), (Polynomial, (0,)), (Polynomial, (2, -1)), (Polynomial, (1.5,))]
)
def test_wrong_kernels_are_named(kind, given):
    with pytest.raises(ValueError, match=kind.__name__):
        kind(*given)


def test_constant_features_and_repeated_rows_do_no_harm():
    X = np.ones((30, 3))
    X[:, 1] = np.arange(30) % 2
    model = LocalizedMKLClassifier(**QUICK | {"max_iter": 40}).fit(X, X[:, 1].astype(int))
    assert model.score(X, X[:, 1].astype(int)) == 1.0
