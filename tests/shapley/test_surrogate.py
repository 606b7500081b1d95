"""Boosted trees as surrogates of games."""

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor

from effml._trees import trees_of
from effml.shapley import CoalitionGame, shapley_values
from effml.shapley.estimators.surrogate import tree_values


def deep_game(n_players, seed):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(n_players, 8)), rng.normal(size=(8, 2))
    return CoalitionGame(lambda S: np.sin(S @ first) @ second, n_players)


def test_values_of_trees_are_those_of_enumeration():
    rng = np.random.default_rng(0)
    coalitions = rng.integers(0, 2, size=(300, 8))
    target = rng.normal(size=300)
    model = GradientBoostingRegressor(n_estimators=20, max_depth=5, random_state=0).fit(coalitions, target)
    exact = shapley_values(CoalitionGame(model.predict, 8), method="exact").values
    np.testing.assert_allclose(tree_values(trees_of(model), 8), exact, atol=1e-12)


def test_trees_of_one_leaf_give_nothing():
    model = GradientBoostingRegressor(n_estimators=2).fit(np.eye(4), np.zeros(4))
    assert (tree_values(trees_of(model), 4) == 0).all()


def test_surrogate_sums_to_the_gain_and_covers_the_exact_values():
    inside = []
    for seed in range(3):
        game = deep_game(9, seed)
        exact = shapley_values(game, method="exact").values
        estimate = shapley_values(game, method="surrogate", budget=200, random_state=seed)
        np.testing.assert_allclose(estimate.values.sum(axis=0), exact.sum(axis=0), atol=1e-12)
        inside.append(np.abs(estimate.values - exact) <= 2 * estimate.standard_errors)
    assert np.mean(inside) > 0.85


def test_surrogate_is_better_than_regression_where_trees_fit():
    rng = np.random.default_rng(1)
    game = CoalitionGame(lambda S: (S[:, :3].all(axis=1) | S[:, 3:8].all(axis=1)) * 1.0 + S[:, 8:] @ np.ones(4), 12)
    exact = shapley_values(game, method="exact").values
    seeds = rng.integers(0, 100, size=3)
    error = {
        method: np.mean(
            [
                (
                    (shapley_values(game, method=method, budget=240, order=1, random_state=int(s)).values - exact) ** 2
                ).sum()
                for s in seeds
            ]
        )
        for method in ("surrogate", "regression")
    }
    assert error["surrogate"] < error["regression"]
