"""SparseBayesRegressor: what it finds, what it says of itself, and what it does with awkward data."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from effml.itemsets import SparseBayesRegressor


@parametrize_with_checks(
    [
        SparseBayesRegressor(),
        SparseBayesRegressor(inclusion_prior=0.5),
        SparseBayesRegressor(fit_intercept=False, inclusion_prior=0.1),
        SparseBayesRegressor(noise_variance=0.5, update_noise=False),
    ]
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


def sparse_data(n=200, p=300, k=5, seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    weights = np.zeros(p)
    weights[rng.choice(p, k, replace=False)] = rng.choice([-1, 1], k) * rng.uniform(0.5, 2, k)
    return X, 10.0 + X @ weights + noise * rng.normal(size=n), weights


@pytest.mark.parametrize("seed", range(5))
def test_finds_the_true_columns_of_many(seed):
    X, y, weights = sparse_data(seed=seed)
    model = SparseBayesRegressor().fit(X, y)
    true = np.flatnonzero(weights)
    assert set(true) <= set(model.active_) and len(model.active_) <= len(true) + 2
    np.testing.assert_allclose(model.coef_[true], weights[true], atol=0.2)
    assert np.sqrt(model.noise_variance_) == pytest.approx(0.5, rel=0.2)
    assert model.intercept_ == pytest.approx(10, abs=0.2)


def test_the_evidence_alone_keeps_more_columns_and_predicts_worse():
    X, y, weights = sparse_data(seed=1)
    kept = {prior: SparseBayesRegressor(inclusion_prior=prior).fit(X, y) for prior in ("beta-binomial", 0.5)}
    assert len(kept[0.5].active_) > 2 * len(kept["beta-binomial"].active_)
    errors = {prior: np.sum((model.coef_ - weights) ** 2) for prior, model in kept.items()}
    assert errors["beta-binomial"] < errors[0.5]


def test_a_smaller_prior_probability_keeps_no_more_columns():
    X, y = load_diabetes(return_X_y=True)
    n_kept = [len(SparseBayesRegressor(inclusion_prior=prior).fit(X, y).active_) for prior in (0.5, 1e-2, 1e-12)]
    assert n_kept[0] >= n_kept[1] > n_kept[2]


def automatic_relevance_determination(X, t, n_dof, n_rounds=20_000):
    """MacKay's fixed point over all columns at once: alpha = gamma / mu^2, sigma^2 = |t - X mu|^2 / (n - sum gamma)."""
    alpha, variance = np.ones(X.shape[1]), 0.1 * t.var()
    for _ in range(n_rounds):
        covariance = np.linalg.inv(np.diag(alpha) + X.T @ X / variance)
        mean = covariance @ X.T @ t / variance
        gamma = 1 - alpha * np.diag(covariance)
        alpha = np.minimum(gamma / mean**2, 1e9)
        variance = np.sum((t - X @ mean) ** 2) / (n_dof - gamma.sum())
    return mean, alpha, variance


def test_agrees_with_the_fixed_point_of_plain_relevance_determination():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(60, 4))
    y = X @ [2.0, -1.0, 0.0, 0.5] + 0.3 * rng.normal(size=60) + 4
    centred = X - X.mean(axis=0)
    mean, alpha, variance = automatic_relevance_determination(centred, y - y.mean(), n_dof=59)
    model = SparseBayesRegressor(inclusion_prior=0.5, tol=1e-13).fit(X, y)
    kept = np.flatnonzero(alpha < 1e8)
    np.testing.assert_array_equal(model.active_, kept)
    np.testing.assert_allclose(model.coef_[kept], mean[kept], rtol=1e-3)
    np.testing.assert_allclose(model.alpha_, alpha[kept], rtol=1e-2)
    assert model.noise_variance_ == pytest.approx(variance, rel=2e-3)


def test_evidence_plus_prior_falls_at_noise_updates_only():
    X, y, _ = sparse_data(seed=2)
    model = SparseBayesRegressor().fit(X, y)
    assert len(model.evidence_curve_) == len(model.log_prior_curve_) == model.n_iter_ + 1 == len(model.actions_) + 1
    rises = np.diff(model.evidence_curve_ + model.log_prior_curve_)
    assert (rises[np.array(model.actions_) != "noise"] > 0).all()
    assert model.actions_.count("add") - model.actions_.count("delete") == len(model.active_)


def test_evidence_is_the_density_of_y_in_its_units():
    X, y, _ = sparse_data(n=50, p=6, k=2)
    model = SparseBayesRegressor(fit_intercept=False).fit(X, y)
    columns = X[:, model.active_]
    C = model.noise_variance_ * np.eye(len(y)) + (columns / model.alpha_) @ columns.T
    direct = -0.5 * (len(y) * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + y @ np.linalg.solve(C, y))
    assert model.evidence_curve_[-1] == pytest.approx(direct, abs=1e-8)
    inverse = np.diag(model.alpha_) + columns.T @ columns / model.noise_variance_
    np.testing.assert_allclose(model.sigma_ @ inverse, np.eye(len(model.active_)), atol=1e-9)


def test_units_of_columns_and_target_do_not_matter():
    X, y, _ = sparse_data(seed=3, p=50)
    scale, shift = np.random.default_rng(0).uniform(1e-3, 1e3, size=(2, 50))
    here = SparseBayesRegressor().fit(X, y)
    there = SparseBayesRegressor().fit(X * scale + shift, 1e4 * y - 7)
    np.testing.assert_array_equal(here.active_, there.active_)
    np.testing.assert_allclose(there.coef_, 1e4 * here.coef_ / scale, rtol=1e-6)
    mean, std = here.predict(X, return_std=True)
    mean_there, std_there = there.predict(X * scale + shift, return_std=True)
    np.testing.assert_allclose(mean_there, 1e4 * mean - 7, rtol=1e-6)
    np.testing.assert_allclose(std_there, 1e4 * std, rtol=1e-6)


def test_standard_deviations_cover_new_observations():
    inside = []
    for seed in range(20):
        X, y, _ = sparse_data(n=260, p=100, seed=seed)
        mean, std = SparseBayesRegressor().fit(X[:60], y[:60]).predict(X[60:], return_std=True)
        inside.append(np.abs(y[60:] - mean) < 1.96 * std)
    assert 0.90 < np.mean(inside) < 0.97


def test_standard_deviation_is_that_of_noise_weights_and_intercept():
    X, y, _ = sparse_data(n=50, p=3, k=2)
    model = SparseBayesRegressor().fit(X, y)
    _, std = model.predict(X.mean(axis=0, keepdims=True), return_std=True)
    assert std[0] ** 2 == pytest.approx(model.noise_variance_ * (1 + 1 / 50))
    far = X.mean(axis=0, keepdims=True) + 1e6
    unit = np.full(len(model.active_), 1e6)
    _, std = model.predict(far, return_std=True)
    assert std[0] ** 2 == pytest.approx(unit @ model.sigma_ @ unit, rel=1e-6)


def test_an_integer_weight_is_the_row_that_often():
    X, y, _ = sparse_data(n=60, p=20)
    weights = np.random.default_rng(0).integers(0, 4, size=60)
    weighted = SparseBayesRegressor().fit(X, y, sample_weight=weights)
    repeated = SparseBayesRegressor().fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-8)
    np.testing.assert_allclose(weighted.predict(X, return_std=True), repeated.predict(X, return_std=True), rtol=1e-8)
    assert weighted.evidence_curve_[-1] == pytest.approx(repeated.evidence_curve_[-1], abs=1e-6)


def test_known_noise_is_kept():
    X, y, _ = sparse_data(p=20)
    model = SparseBayesRegressor(noise_variance=0.25, update_noise=False).fit(X, y)
    assert model.noise_variance_ == pytest.approx(0.25) and "noise" not in model.actions_


def objective(model):
    return model.evidence_curve_[-1] + model.log_prior_curve_[-1]


def test_a_given_noise_only_starts_the_ascent():
    X, y, _ = sparse_data()
    model = SparseBayesRegressor().fit(X, y)
    for start in (0.25, 25.0):
        other = SparseBayesRegressor(noise_variance=start).fit(X, y)
        np.testing.assert_array_equal(other.active_, model.active_)
        assert other.noise_variance_ == pytest.approx(model.noise_variance_, rel=5e-3)
    stuck = SparseBayesRegressor(noise_variance=1e-3).fit(X, y)  # 250 times too low: every column looks needed
    assert len(stuck.active_) > 3 * len(model.active_) and objective(stuck) < objective(model)


def noisy_data(n_true, noise, seed):
    """Return 1200 rows of 300 columns, the signal of unit variance, and the target; the first 200 rows train."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(1200, 300))
    signal = X[:, :n_true] @ rng.normal(size=n_true)
    signal /= signal.std()
    return X, signal, signal + noise * rng.normal(size=1200)


@pytest.mark.parametrize(
    ("n_true", "noise", "seed", "trap"),
    [
        (5, 2.2, 4, 0.1),  # weak signals: from a low noise useless columns come in and stay
        (100, 0.22, 0, 100.0),  # many weights, each too weak to be seen alone: from a high noise they are not found
        (100, 0.22, 1, 100.0),
    ],
)
def test_of_two_ascents_the_better_is_kept(n_true, noise, seed, trap):
    X, signal, y = noisy_data(n_true, noise, seed)
    model = SparseBayesRegressor().fit(X[:200], y[:200])
    trapped = SparseBayesRegressor(noise_variance=trap * y[:200].var()).fit(X[:200], y[:200])
    assert objective(model) > objective(trapped) + 10
    errors = [np.mean((m.predict(X[200:]) - signal[200:]) ** 2) for m in (model, trapped)]
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n", [1, 2, 30])
def test_constant_target(fit_intercept, n):
    X = np.random.default_rng(0).normal(size=(n, 3))
    model = SparseBayesRegressor(fit_intercept=fit_intercept).fit(X, np.zeros(n))
    mean, std = model.predict(X, return_std=True)
    assert not mean.any() and not std.any() and not len(model.active_) and model.n_iter_ == 0
    constant = SparseBayesRegressor().fit(X, np.full(n, 0.1))
    np.testing.assert_allclose(constant.predict(X), 0.1)
    assert not len(constant.active_) and not len(constant.evidence_curve_)


def test_fewer_than_five_rows_give_the_mean_and_a_warning():
    X, y = np.arange(8.0).reshape(4, 2), np.array([1.0, 2.0, 4.0, 9.0])
    with pytest.warns(UserWarning, match="4 observations"):
        model = SparseBayesRegressor().fit(X, y)
    assert (model.predict(X) == 4).all() and not len(model.active_)
    assert model.noise_variance_ == pytest.approx(y.var())
    with pytest.warns(UserWarning, match="1 observations"):
        SparseBayesRegressor().fit(np.eye(10), np.arange(10.0), sample_weight=np.full(10, 0.1))


def test_zero_and_constant_columns_are_never_kept():
    X, y, _ = sparse_data(p=10, k=2)
    X[:, 3], X[:, 4] = 0.0, 1e9 / 3
    for fit_intercept in (True, False):
        model = SparseBayesRegressor(fit_intercept=fit_intercept, inclusion_prior=0.5).fit(X, y)
        assert 3 not in model.active_ and np.isfinite(model.coef_).all()
        assert (4 in model.active_) != fit_intercept  # without an intercept a constant column serves as one
    assert SparseBayesRegressor().fit(np.ones((20, 3)), np.arange(20.0)).predict(np.ones((1, 3)))[0] == 9.5


def test_of_duplicates_one_is_kept():
    X, y, weights = sparse_data(p=10, k=2)
    true = np.flatnonzero(weights)
    doubled = np.column_stack([X, X, -3 * X])
    model = SparseBayesRegressor(inclusion_prior=0.5).fit(doubled, y)
    for j in true:
        assert sum(j == key % 10 for key in model.active_) == 1
    single = SparseBayesRegressor(inclusion_prior=0.5).fit(X, y)
    np.testing.assert_allclose(model.predict(doubled), single.predict(X), rtol=1e-6)


def test_one_column():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 1))
    model = SparseBayesRegressor().fit(x, 3 * x[:, 0] + 0.1 * rng.normal(size=40))
    assert model.coef_[0] == pytest.approx(3, abs=0.1)
    useless = SparseBayesRegressor(inclusion_prior=1e-6).fit(x, rng.normal(size=40))
    assert not useless.coef_.any()


def test_targets_without_noise():
    X, y, weights = sparse_data(noise=0.0)
    model = SparseBayesRegressor().fit(X, y)
    np.testing.assert_allclose(model.coef_, weights, atol=1e-3)
    assert model.noise_variance_ == pytest.approx(1e-6 * y.var(), rel=1e-6)


@pytest.mark.parametrize("prior", ["beta-binomial", 0.5])
@pytest.mark.parametrize("degree", [10, 40])
def test_nearly_dependent_columns_are_no_danger(prior, degree):
    rng = np.random.default_rng(degree)
    x = rng.uniform(-1, 1, size=60)
    X = np.vander(x, degree)
    given = {} if prior == 0.5 else {"noise_variance": 1e-5, "update_noise": False}
    model = SparseBayesRegressor(inclusion_prior=prior, **given).fit(X, np.exp(x) + 1e-3 * rng.normal(size=60))
    mean, std = model.predict(X, return_std=True)
    np.testing.assert_allclose(mean, np.exp(x), atol=0.02)
    assert (std > 0).all()
    rises = np.diff(model.evidence_curve_ + model.log_prior_curve_)
    assert (rises[np.array(model.actions_) != "noise"] > -1e-6).all()


def test_wide_data_keep_at_most_a_third_of_the_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 400))
    model = SparseBayesRegressor(inclusion_prior=0.5, max_iter=5000).fit(X, X.sum(axis=1))
    assert np.sum(1 - model.alpha_ * np.diag(model.sigma_)) < 30 / 2  # re-estimates may pass the third a little
    assert np.isfinite(model.predict(X, return_std=True)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_what_is_not_finite(bad):
    X, y, _ = sparse_data(n=20, p=3, k=1)
    broken = X.copy()
    broken[3, 1] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        SparseBayesRegressor().fit(broken, y)
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        SparseBayesRegressor().fit(X, y).predict(broken)
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        SparseBayesRegressor().fit(X, np.where(np.arange(20) == 2, bad, y))


@pytest.mark.parametrize(
    "parameters",
    [
        {"inclusion_prior": 0.0},
        {"inclusion_prior": 0.7},
        {"inclusion_prior": "flat"},
        {"noise_variance": 0.0},
        {"max_iter": 0},
        {"tol": -1.0},
        {"update_noise": False},
        {"noise_variance": 1e-9},
    ],
)
def test_refuses_bad_parameters_by_name(parameters):
    X, y, _ = sparse_data(n=20, p=3, k=1)
    with pytest.raises(ValueError, match=next(iter(parameters))):
        SparseBayesRegressor(**parameters).fit(X, y)


def test_stopping_early_warns():
    X, y, _ = sparse_data()
    with pytest.warns(ConvergenceWarning, match="max_iter=3"):
        model = SparseBayesRegressor(max_iter=3).fit(X, y)
    assert model.n_iter_ == 3 and len(model.active_) <= 3


def test_column_names_pickle_clone_and_verbose(capsys):
    frame, y = load_diabetes(return_X_y=True, as_frame=True)
    model = SparseBayesRegressor(verbose=True).fit(frame, y)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) >= model.n_iter_ and "1: noise, 0 columns" in printed[0] and "2: add, 1 columns" in printed[1]
    assert list(model.feature_names_in_) == list(frame.columns)
    assert {"bmi", "s5"} <= set(frame.columns[model.active_])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(frame, return_std=True), model.predict(frame, return_std=True))
    assert clone(model).fit(frame, y).evidence_curve_[-1] == model.evidence_curve_[-1]
