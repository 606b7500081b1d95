"""The optimiser's model: the prior of all itemsets, the evidence, what is accepted, and the grown factor."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from effml.itemsets import ItemsetSparseBayesRegressor, surrogate
from effml.itemsets.acquisition import expected_improvement, upper_confidence_bound
from effml.itemsets.all_itemsets import ItemCoordinates
from effml.itemsets.surrogate import Surrogate


def mixed_rows(n, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.integers(0, 3, n), rng.integers(0, 4, n), rng.random(n)])
    return rows, np.array([True, False, False])


def fitted(n=40, seed=0, scale=1.0):
    rows, categorical = mixed_rows(n, seed)
    values = scale * (2.0 * (rows[:, 0] == 1) * (rows[:, 1] > 1) + rows[:, 2])
    values += 0.1 * scale * np.random.default_rng(seed + 1).normal(size=n)
    coordinates = ItemCoordinates(list(rows.T), categorical)
    regressor = ItemsetSparseBayesRegressor(categorical_features=categorical)
    return Surrogate(regressor, coordinates).fit(rows, values), rows, values


def test_kernel_is_the_sum_over_all_itemsets():
    """tau^2 sum over J of theta^|J| [J holds in x] [J holds in x'], J over all sets of items, is exp(-gamma d)."""
    rows = np.array([[0, 1.0], [1, 2.0], [2, 2.0], [0, 3.0], [2, 4.0]])
    cuts = (1.5, 2.5, 3.5)
    sides = [side for c in cuts for side in (rows[:, 1] <= c, rows[:, 1] > c)]
    items = np.column_stack([rows[:, :1] == [0, 1, 2], *sides])
    theta, totals = 0.7, np.zeros((5, 5))
    for order in range(items.shape[1] + 1):
        for itemset in combinations(range(items.shape[1]), order):
            holds = items[:, list(itemset)].all(axis=1).astype(float)
            totals += theta**order * np.outer(holds, holds)
    correlation = totals / totals[0, 0]
    # d: the items of x that x' lacks; one for another level, one for each cut between two numbers
    reference = [rows[:, 0], np.unique(rows[:, 1])]  # each number once: ranks are even, 3 cuts apart at most
    coordinates = ItemCoordinates(reference, np.array([True, False]))
    level, number = (ItemCoordinates.distances(part, part) for part in np.split(coordinates.of(rows), [3], axis=1))
    np.testing.assert_allclose(correlation, np.exp(-np.log1p(theta) * (level + len(cuts) * number)), rtol=1e-12)


def test_missing_values_are_far_from_levels_and_from_numbers_where_there_are_some():
    rows = np.array([[0.0, 1.0], [1.0, 2.0], [np.nan, np.nan]])
    distances = ItemCoordinates.distances
    with_gaps = ItemCoordinates(list(rows.T), np.array([True, False]))
    levels, numbers = (part for part in np.split(with_gaps.of(rows), [3], axis=1))
    assert distances(levels, levels)[2].tolist() == [1.0, 1.0, 0.0]
    assert distances(numbers, numbers)[2].tolist() == [1.0, 1.0, 0.0]
    without = ItemCoordinates(list(rows[:2].T), np.array([False, False]))
    assert np.isfinite(without.of(rows)).all()


def test_log_evidence_is_that_of_the_covariance():
    rng = np.random.default_rng(0)
    rows, categorical = mixed_rows(12)
    places = ItemCoordinates(list(rows.T), categorical).of(rows)
    K = np.exp(-ItemCoordinates.distances(places, places))
    phi, y = rng.normal(size=(12, 3)), rng.normal(size=12)
    values, vectors = np.linalg.eigh(K)
    scores = surrogate._log_evidence(values, vectors.T @ phi, vectors.T @ y)
    direct = np.array(
        [
            [
                multivariate_normal.logpdf(y, cov=tau * (K + lam * np.eye(12)) + phi @ phi.T)
                + norm.logpdf(np.log(lam), *surrogate.LAMBDA_PRIOR)
                + norm.logpdf(np.log(tau), *surrogate.TAU_SQUARE_PRIOR)
                for tau in surrogate.TAU_SQUARES
            ]
            for lam in surrogate.LAMBDAS
        ]
    )
    np.testing.assert_allclose(scores - scores[0, 0], direct - direct[0, 0], atol=1e-8)


def test_a_term_is_accepted_if_it_gains_more_evidence_than_its_price():
    rng = np.random.default_rng(3)
    columns, covariance = rng.normal(size=(60, 4)), np.eye(60)
    y = 3.0 * columns[:, 2] + rng.normal(size=60)
    new, variances = surrogate._accepted(covariance, columns, y, np.full(4, 2.0), np.empty(0, dtype=int))
    assert new.tolist() == [2]

    def log_evidence(variance):
        column = columns[:, 2]
        return multivariate_normal.logpdf(y, cov=covariance + variance * np.outer(column, column))

    gain = log_evidence(variances[0]) - log_evidence(0.0)
    assert log_evidence(variances[0]) > max(log_evidence(1.1 * variances[0]), log_evidence(0.9 * variances[0]))
    for price, n_accepted in ((gain - 1e-6, 1), (gain + 1e-6, 0)):
        prices = np.array([1e9, 1e9, price, 1e9])
        assert len(surrogate._accepted(covariance, columns, y, prices, np.empty(0, dtype=int))[0]) == n_accepted


def test_the_price_of_a_term_counts_its_items():
    rows, categorical = mixed_rows(200)
    y = 2.0 * (rows[:, 0] == 1) + 3.0 * ((rows[:, 2] > 0.25) & (rows[:, 2] <= 0.75))
    model = ItemsetSparseBayesRegressor(categorical_features=categorical, linear_terms=False).fit(rows, y)
    d = 3 + 2 * sum(len(cuts) for cuts in model.cuts_)
    for conditions, price in zip(model.conditions_, surrogate._prices(model), strict=True):
        inner = [j > 0 and not codes[0] and not codes[-1] for j, codes in conditions]
        expected = np.log(d) if len(inner) + sum(inner) == 1 else np.log(d * (d - 1) / 2)
        assert price == pytest.approx(expected)


def test_predictions_are_those_of_the_normal_distribution():
    model, rows, values = fitted()
    new, _ = mixed_rows(15, seed=9)
    both = np.concatenate([rows, new])
    places, phi = model.coordinates.of(both), model._terms(both)
    C = model._covariance(ItemCoordinates.distances(places, places), phi, phi)
    n = len(rows)
    noisy = C[:n, :n] + model.tau_square * model.lam * np.eye(n)
    centre, scale = values.mean(), values.std()
    gain = np.linalg.solve(noisy, C[:n, n:]).T
    mean, std = model.predict(new)
    np.testing.assert_allclose(mean, centre + gain @ (values - centre), atol=1e-8)
    covariance = scale**2 * (C[n:, n:] - gain @ C[:n, n:])
    np.testing.assert_allclose(std, np.sqrt(np.diag(covariance)), atol=1e-8)
    np.testing.assert_allclose(model.joint(new)[1], covariance, atol=1e-8)


def test_extending_equals_conditioning_on_all_and_shrinking_undoes_it():
    model, rows, values = fitted(n=60)
    part = Surrogate(model.regressor, model.coordinates)
    part.fit(rows[:45], values[:45])
    pool, _ = mixed_rows(30, seed=5)
    part.watch(pool)
    before = part.predict(pool)
    part.extend(rows[45:], values[45:])
    np.testing.assert_allclose(part.predict_watched(), part.predict(pool), atol=1e-10)

    places, phi = part.coordinates.of(rows), part._terms(rows)
    C = part._covariance(ItemCoordinates.distances(places, places), phi, phi)
    C[np.diag_indices(60)] += part.tau_square * part.lam
    np.testing.assert_allclose(part._factor, np.linalg.cholesky(C), atol=1e-9)

    part.shrink(45)
    np.testing.assert_allclose(part.predict_watched(), before, atol=1e-10)


def test_a_measurement_without_a_value_lowers_the_uncertainty_only():
    model, _, _ = fitted()
    pool, _ = mixed_rows(30, seed=5)
    mean, std = model.predict(pool)
    model.extend(pool[:1])
    after_mean, after_std = model.predict(pool)
    np.testing.assert_allclose(after_mean, mean, atol=1e-9)
    assert (after_std <= std + 1e-12).all() and after_std[0] < 0.9 * std[0]


def test_an_established_interaction_is_accepted_and_sharpens_the_prediction():
    rows, categorical = mixed_rows(300)
    y = 3.0 * ((rows[:, 0] == 1) & (rows[:, 1] > 1)) + 0.3 * np.random.default_rng(1).normal(size=300)
    coordinates = ItemCoordinates(list(rows.T), categorical)
    regressor = ItemsetSparseBayesRegressor(categorical_features=categorical)
    nothing = ItemsetSparseBayesRegressor(categorical_features=categorical, min_support=300, linear_terms=False)
    new, _ = mixed_rows(200, seed=7)
    truth = 3.0 * ((new[:, 0] == 1) & (new[:, 1] > 1))
    errors = {}
    for name, one in (("accepted", regressor), ("none", nothing)):
        model = Surrogate(one, coordinates).fit(rows, y)
        errors[name] = np.mean((model.predict(new)[0] - truth) ** 2)
        assert (len(model.accepted) > 0) == (name == "accepted")
    assert errors["accepted"] < 0.5 * errors["none"]


def test_draws_have_the_mean_and_the_covariance_of_the_posterior():
    model, _, _ = fitted(n=20, scale=100.0)
    pool, _ = mixed_rows(5, seed=5)
    rng = np.random.default_rng(0)
    drawn = np.array([model.draw(pool, rng) for _ in range(4000)])
    mean, covariance = model.joint(pool)
    std = np.sqrt(np.diag(covariance))
    assert (np.abs(drawn.mean(axis=0) - mean) < 5 * std / np.sqrt(4000)).all()
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.12 * std.max() ** 2)


@pytest.mark.parametrize("values", [np.full(12, 3.0), np.array([5.0, 1.0])])
def test_constant_and_few_values(values):
    rows, categorical = mixed_rows(len(values))
    regressor = ItemsetSparseBayesRegressor(categorical_features=categorical)
    model = Surrogate(regressor, ItemCoordinates(list(rows.T), categorical)).fit(rows, values)
    mean, std = model.predict(rows)
    assert np.isfinite(mean).all() and (std >= 0).all() and values.min() - 1e-9 <= mean.min()


def test_expected_improvement_equals_its_integral():
    rng = np.random.default_rng(0)
    mean, std, best, xi = np.array([0.0, 1.0, 3.0]), np.array([1.0, 0.5, 2.0]), 1.5, 0.1
    samples = mean + std * rng.normal(size=(400_000, 3))
    expected = np.maximum(samples - best - xi, 0).mean(axis=0)
    np.testing.assert_allclose(expected_improvement(mean, std, best, xi), expected, atol=0.01)
    assert expected_improvement(np.array([2.0]), np.array([0.0]), best).tolist() == [0.5]
    assert upper_confidence_bound(mean, std, 2.0).tolist() == [2.0, 2.0, 7.0]
