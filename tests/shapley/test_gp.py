"""The Gaussian process on odd parts, and the choice between it and order 3."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from effml.shapley import CoalitionGame, shapley_values
from effml.shapley.estimators import gp, make_plan
from effml.shapley.estimators.gp import OddKernel, fit_kernel
from effml.shapley.samplers import all_coalitions


def smooth_game(n_players, seed, n_outputs=2):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(n_players, 6)), rng.normal(size=(6, n_outputs))
    return CoalitionGame(lambda S: np.tanh(S @ first - 1) @ second, n_players)


def relative_error(estimate, exact):
    return ((estimate - exact) ** 2).sum() / (exact**2).sum()


def test_kernel_is_the_sum_over_odd_sets():
    rng = np.random.default_rng(0)
    n_players, tau = 6, 0.7
    theta = rng.uniform(0.05, 0.8, n_players)
    kernel = OddKernel(theta, tau)
    signs = rng.choice([-1.0, 1.0], size=(7, n_players))
    member = all_coalitions(n_players)
    size = member.sum(axis=1)
    member, size = member[size % 2 == 1], size[size % 2 == 1]
    rho = np.tanh(theta)
    prior = np.where(member, rho, 1).prod(axis=1) / (1 + rho).prod() + tau * (size == 1)
    terms = np.where(member, signs[:, None, :], 1).prod(axis=2)  # (7, n_subsets)
    np.testing.assert_allclose(kernel.between(signs, signs[:3]), (terms * prior) @ terms[:3].T, atol=1e-12)
    read_out = -2 * (member / size[:, None]).T  # (n_players, n_subsets)
    np.testing.assert_allclose(kernel.with_values(signs), (read_out * prior) @ terms.T, atol=1e-12)
    np.testing.assert_allclose(kernel.variance(), read_out**2 @ prior, atol=1e-12)


def test_gradient_of_the_likelihood_is_that_of_differences():
    rng = np.random.default_rng(1)
    signs = rng.permutation(1.0 - 2.0 * all_coalitions(6)[:32])[:20]  # without complements
    odd, even = rng.normal(size=(2, 20, 3))  # of three games
    point = np.append(rng.normal(-1, 0.3, 6), -1.0)
    gradient = gp._objective(point, signs, odd, even)[1]
    differences = approx_fprime(point, lambda p: gp._objective(p, signs, odd, even)[0], 1e-6)
    np.testing.assert_allclose(gradient, differences, rtol=1e-4, atol=1e-4)


def test_players_without_interactions_get_small_shares():
    game = CoalitionGame(lambda S: np.tanh(S[:, :5] @ np.arange(1.0, 6) - 7) + S[:, 5:] @ np.ones(7), 12)
    plan = make_plan("gp", 12, 300, [0])
    values = game(plan.coalitions)[:, 0]
    odd, even = (values[:150] - values[:149:-1]) / 2, (values[:150] + values[:149:-1]) / 2
    theta = fit_kernel(1.0 - 2.0 * plan.coalitions[:150], odd, even).theta
    assert theta[5:].max() < theta[:5].min() / 3


def test_many_players_do_not_overflow():
    weights = np.random.default_rng(0).normal(size=400) / 8
    game = CoalitionGame(lambda S: np.tanh(S @ weights), 400)
    estimate = shapley_values(game, method="gp", budget=900, random_state=0)
    assert np.isfinite(estimate.values).all()
    assert np.isfinite(estimate.standard_errors).all()
    assert np.corrcoef(estimate.values, weights)[0, 1] > 0.9


def test_pairs_beyond_the_limit_still_help(monkeypatch):
    game = smooth_game(10, 2)
    exact = shapley_values(game, method="exact").values
    monkeypatch.setattr(gp, "MAX_PAIRS", 60)
    few, more = (
        np.mean(
            [
                relative_error(shapley_values(game, method="gp", budget=b, random_state=s).values, exact)
                for s in range(4)
            ]
        )
        for b in (122, 500)
    )
    assert more < few / 2
    ends = game(np.array([[False] * 10, [True] * 10]))
    estimate = shapley_values(game, method="gp", budget=500, random_state=0)
    np.testing.assert_allclose(estimate.values.sum(axis=0), ends[1] - ends[0], atol=1e-12)


def order_four_game(n_players, seed):
    rng = np.random.default_rng(seed)
    subsets = [rng.choice(n_players, 4, replace=False) for _ in range(40)]
    weights = rng.normal(size=40)
    return CoalitionGame(
        lambda S: sum(w * S[:, t].all(axis=1) for t, w in zip(subsets, weights, strict=True)), n_players
    )


def test_auto_takes_order_three_where_it_is_exact():
    game = order_four_game(9, 0)
    exact = shapley_values(game, method="exact").values
    assert relative_error(shapley_values(game, budget=330, random_state=0).values, exact) < 1e-24
    assert relative_error(shapley_values(game, method="gp", budget=330, random_state=0).values, exact) > 1e-20


@pytest.mark.parametrize("budget", [50, 330])
def test_auto_is_the_process_elsewhere(budget):
    game = smooth_game(9, 3, n_outputs=1)
    auto, process = (shapley_values(game, method=m, budget=budget, random_state=0) for m in ("auto", "gp"))
    np.testing.assert_array_equal(auto.values, process.values)
    np.testing.assert_array_equal(auto.standard_errors, process.standard_errors)


def test_one_kernel_for_all_games_or_one_for_each():
    game = smooth_game(9, 3)
    own, shared = (gp.GaussianProcessPlan(9, 60, [0], shared=s) for s in (False, True))
    values = game(own.coalitions)
    alone = np.hstack([own.solve(values[:, [k]]).values for k in (0, 1)])
    np.testing.assert_array_equal(own.solve(values).values, alone)
    together = shared.solve(values).values
    assert 0 < np.abs(together - alone).max() < 0.05 * np.abs(alone).max()
    np.testing.assert_allclose(together.sum(axis=0), values[-1] - values[0])
    scaled = shared.solve(values[:, :1] * [1.0, 5.0]).values
    np.testing.assert_allclose(scaled, alone[:, :1] * [1.0, 5.0], rtol=1e-4, atol=1e-6)


def test_auto_names_what_it_may_take():
    assert make_plan("auto", 9, 330, [0]).method == "gp or regression"
    assert make_plan("auto", 9, 100, [0]).method == "gp"
    assert make_plan("auto", 40, 2000, [0]).method == "gp"
    assert make_plan("auto", 6, 64, [0]).method == "exact"


def test_auto_has_lower_errors_than_the_means_of_marginals_and_regression():
    errors = {method: [] for method in ("auto", "regression", "permutation", "surrogate")}
    for seed in range(4):
        game = smooth_game(12, seed)
        exact = shapley_values(game, method="exact").values
        for method, found in errors.items():
            found.append(relative_error(shapley_values(game, method=method, budget=240, random_state=0).values, exact))
    auto, *others = (np.log(found).mean() for found in errors.values())
    assert auto < min(others)


def test_an_even_game_has_equal_values_and_no_doubt():
    game = CoalitionGame(lambda S: np.abs(S.sum(axis=1) - 5.0), 10)
    estimate = shapley_values(game, method="gp", budget=100, random_state=0)
    np.testing.assert_allclose(estimate.values, 0, atol=1e-12)
