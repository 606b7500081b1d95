"""Estimators against exact values, on games whose Shapley values are known."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effml.shapley import CoalitionGame, shapley_values
from effml.shapley.estimators import METHODS, make_plan
from effml.shapley.samplers import all_coalitions

SAMPLED = [method for method in METHODS if method not in ("auto", "exact")]
EFFICIENT = ["castro", "permutation", "owen_unbiased", "regression", "gp"]


def random_game(n_players, seed, order=None):
    """Return a game as a sum of unanimity games up to the given order, two outputs, and its Shapley values."""
    rng = np.random.default_rng(seed)
    subsets = [np.flatnonzero([s >> i & 1 for i in range(n_players)]) for s in range(1, 2**n_players)]
    subsets = [s for s in subsets if order is None or len(s) <= order]
    weights = rng.normal(size=(len(subsets), 2))
    phi = np.zeros((n_players, 2))
    for subset, weight in zip(subsets, weights, strict=True):
        phi[subset] += weight / len(subset)

    def function(coalitions):
        return 0.7 + sum(coalitions[:, s].all(axis=1)[:, None] * w for s, w in zip(subsets, weights, strict=True))

    return CoalitionGame(function, n_players), phi


def test_exact_is_the_mean_over_all_orders():
    game, phi = random_game(5, 0)
    total = np.zeros((5, 2))
    for order in permutations(range(5)):
        present = np.zeros(5, dtype=bool)
        for player in order:
            before = game(present[None])[0]
            present[player] = True
            total[player] += game(present[None])[0] - before
    estimate = shapley_values(game, method="exact")
    np.testing.assert_allclose(estimate.values, total / 120, atol=1e-12)
    np.testing.assert_allclose(estimate.values, phi, atol=1e-12)
    assert (estimate.standard_errors == 0).all()


@settings(max_examples=20, deadline=None)
@given(n_players=st.integers(1, 7), seed=st.integers(0, 1000), method=st.sampled_from(["auto", "regression", "gp"]))
def test_methods_are_exact_when_all_coalitions_fit(n_players, seed, method):
    game, phi = random_game(n_players, seed)
    estimate = shapley_values(game, method=method, budget=max(2**n_players, 2))
    np.testing.assert_allclose(estimate.values, phi, atol=1e-10)


@pytest.mark.parametrize("n_players", [6, 9])
def test_gp_and_regression_interpolate_to_exact_values_from_all_pairs(n_players):
    game, phi = random_game(n_players, 3)
    from effml.shapley.estimators.gp import plan_gp
    from effml.shapley.estimators.regression import plan_regression

    for plan, error in (
        (plan_gp(n_players, 2**n_players, [0]), 1e-6),
        (plan_regression(n_players, 2**n_players, [0], order=1), 1e-10),
    ):
        assert len(plan.coalitions) == 2**n_players
        np.testing.assert_allclose(plan.solve(game(plan.coalitions)).values, phi, atol=error * np.abs(phi).max())


@pytest.mark.parametrize("method", METHODS[2:])
def test_additive_games_are_exact(method):
    weights = np.arange(1.0, 8.0)
    estimate = shapley_values(CoalitionGame(lambda S: S @ weights, 7), method=method, budget=60, random_state=0)
    np.testing.assert_allclose(estimate.values, weights, rtol=1e-6 if method == "gp" else 1e-10)
    assert (estimate.standard_errors < 1e-3).all()


@pytest.mark.parametrize(
    ("method", "budget", "options"),
    [
        ("permutation", 16, {}),
        ("owen_unbiased", 20, {}),
        ("owen_unbiased", 40, {"n_levels": 3, "n_repeats": 1}),
        ("owen_halved", 60, {"n_levels": 1}),
        ("owen_halved", None, {"n_levels": 5}),
        ("owen", None, {"n_levels": 1}),
        ("regression", 24, {}),
        ("regression", 200, {"order": 3}),
    ],
)
def test_games_of_order_two_are_exact_from_one_pair(method, budget, options):
    game, phi = random_game(8, 1, order=2)
    for seed in range(3):
        estimate = shapley_values(game, method=method, budget=budget, random_state=seed, **options)
        np.testing.assert_allclose(estimate.values, phi, atol=1e-10)


def test_halved_rule_with_even_levels_is_not_exact_on_order_two():
    game, phi = random_game(8, 1, order=2)
    estimate = shapley_values(game, method="owen_halved", n_levels=4, random_state=0)
    assert np.abs(estimate.values - phi).max() > 1e-3


def test_order_three_is_exact_on_interactions_of_order_four():
    game, phi = random_game(9, 2, order=4)
    estimate = shapley_values(game, method="regression", budget=300, random_state=0)
    np.testing.assert_allclose(estimate.values, phi, atol=1e-9)
    assert np.abs(shapley_values(game, method="regression", budget=300, order=1).values - phi).max() > 1e-3


def unanimity(S):
    return S[:, :3].all(axis=1)


def test_bias_of_the_end_point_grid_is_a_sixth_of_its_step():
    game, n_levels = CoalitionGame(unanimity, 3), 4
    estimates = np.array(
        [
            [
                shapley_values(game, method=method, n_levels=n_levels, n_repeats=4, random_state=seed).values
                for method in ("owen", "owen_halved")
            ]
            for seed in range(600)
        ]
    ).mean(axis=2)  # players are alike
    error = estimates.std(axis=0) / np.sqrt(len(estimates))
    assert (np.abs(estimates.mean(axis=0) - 1 / 3 - 1 / (6 * n_levels)) < 4 * error).all()
    assert (error < 1 / (6 * n_levels) / 8).all()


@pytest.mark.parametrize(
    ("method", "options"),
    [("castro", {}), ("permutation", {}), ("owen_unbiased", {}), ("owen_unbiased", {"n_levels": 3, "n_repeats": 1})],
)
def test_unbiased_methods_are_unbiased(method, options):
    game, phi = random_game(5, 4)
    table = game(all_coalitions(5))
    estimates = []
    for seed in range(2000):
        plan = make_plan(method, 5, 26, [seed], **options)
        estimates.append(plan.solve(table[plan.coalitions @ (1 << np.arange(5))]).values)
    z = (np.mean(estimates, axis=0) - phi) / (np.std(estimates, axis=0) / np.sqrt(len(estimates)))
    assert np.abs(z).max() < 4


@pytest.mark.parametrize("method", EFFICIENT)
@pytest.mark.parametrize("n_players", [8, 15])
def test_values_sum_to_the_gain_of_all_players(method, n_players):
    game, _ = random_game(8, 5)
    if n_players > 8:
        weights = np.random.default_rng(0).normal(size=(n_players, 2))
        game = CoalitionGame(lambda S: np.tanh(S @ weights), n_players)
    ends = game(np.array([[False] * n_players, [True] * n_players]))
    estimate = shapley_values(game, method=method, budget=90, random_state=0)
    np.testing.assert_allclose(estimate.values.sum(axis=0), ends[1] - ends[0], atol=1e-12 * np.abs(ends).max())


@pytest.mark.parametrize("method", ["castro", "permutation", "owen", "owen_halved"])
def test_a_player_without_effect_gets_zero(method):
    game = CoalitionGame(lambda S: np.exp(S[:, :6].sum(axis=1) / 3), 7)
    assert shapley_values(game, method=method, budget=100, random_state=0).values[6] == 0


@pytest.mark.parametrize("method", SAMPLED)
def test_a_constant_game_has_zero_values_and_errors(method):
    estimate = shapley_values(CoalitionGame(lambda S: np.full(len(S), 3.0), 9), method=method, budget=120)
    assert (estimate.values == 0).all()
    assert (estimate.standard_errors == 0).all()


@pytest.mark.parametrize("method", SAMPLED)
@settings(max_examples=10, deadline=None)
@given(n_players=st.integers(2, 30), factor=st.integers(5, 12), seed=st.integers(0, 99))
def test_plans_hold_distinct_coalitions_within_the_budget(method, n_players, factor, seed):
    budget = factor * (n_players + 2)
    coalitions = make_plan(method, n_players, budget, [seed]).coalitions
    assert len(coalitions) <= budget
    assert len(np.unique(coalitions, axis=0)) == len(coalitions)
    assert not coalitions[0].any()
    assert coalitions[-1].all()


@pytest.mark.parametrize(
    ("method", "low", "high"),
    [
        ("castro", 0.9, 0.99),
        ("permutation", 0.85, 0.99),
        ("regression", 0.9, 1),
        ("gp", 0.85, 1),
        ("owen_unbiased", 0.85, 1),
    ],
)
def test_standard_errors_cover(method, low, high):
    rng = np.random.default_rng(0)
    inside = []
    for seed in range(30):
        first, second = rng.normal(size=(9, 6)), rng.normal(size=6)
        game = CoalitionGame(lambda S, a=first, b=second: np.tanh(S @ a) @ b, 9)
        phi = shapley_values(game, method="exact").values
        estimate = shapley_values(game, method=method, budget=300, random_state=seed)
        inside.append(np.abs(estimate.values - phi) <= 1.96 * estimate.standard_errors)
    assert low <= np.mean(inside) <= high


def test_errors_of_one_draw_are_unknown():
    game, _ = random_game(6, 0)
    assert np.isnan(shapley_values(game, method="permutation", budget=12).standard_errors).all()


@pytest.mark.parametrize("method", SAMPLED)
def test_the_seed_decides(method):
    game = CoalitionGame(lambda S: np.tanh(S @ np.arange(12.0) - 30), 12)
    one, two, three = (shapley_values(game, method=method, budget=100, random_state=seed).values for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != three).any()


@pytest.mark.parametrize(
    ("method", "budget"),
    [
        ("exact", 100),
        ("castro", 10),
        ("permutation", 19),
        ("owen", 20),
        ("owen_unbiased", 20),
        ("regression", 21),
        ("gp", 3),
    ],
)
def test_small_budgets_are_refused(method, budget):
    with pytest.raises(ValueError, match=f"budget={budget}"):
        shapley_values(CoalitionGame(lambda S: S[:, 0], 10), method=method, budget=budget)


def test_a_given_order_is_never_underdetermined():
    with pytest.raises(ValueError, match="order 3 has 130 unknowns"):
        shapley_values(CoalitionGame(lambda S: S[:, 0], 10), method="regression", order=3, budget=200)


def test_exact_has_a_limit():
    with pytest.raises(ValueError, match="at most 20 players"):
        shapley_values(CoalitionGame(lambda S: S[:, 0], 21), method="exact")
