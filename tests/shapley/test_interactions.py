"""Pairwise interactions: their values where known, their sums, and who gives them."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression

from effml.shapley import MultilinearShapleyExplainer
from effml.shapley.estimators.exact import plan_exact


def test_exact_interactions_of_unanimity_games():
    plan = plan_exact(4)
    members = np.array([True, True, True, False])
    values = plan.coalitions[:, members].all(axis=1).astype(float)[:, None]
    pairs = plan.interactions(values)[:, :, 0]
    # 1 / (t - 1) for each pair of the t players whose product the game is
    expected = np.where(np.outer(members, members), 1 / 2, 0.0)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(pairs, expected, atol=1e-14)


@pytest.mark.parametrize("method", ["auto", "exact", "gp", "regression", "surrogate"])
def test_products_and_main_effects(method):
    def model(X):
        return np.stack([X[:, 0] * X[:, 1] + 5 * X[:, 2], X[:, 2] ** 2], axis=1)

    explainer = MultilinearShapleyExplainer(model, np.zeros((1, 3)), method=method, interactions=True)
    found = explainer([[2.0, 3.0, 1.0], [1.0, 1.0, 0.0]])
    assert found.interactions.shape == (2, 3, 3, 2)
    np.testing.assert_allclose(found.interactions[0, :, :, 0], [[0, 6, 0], [6, 0, 0], [0, 0, 5]], atol=1e-12)
    np.testing.assert_allclose(found.interactions[0, :, :, 1], np.diag([0, 0, 1]), atol=1e-12)
    np.testing.assert_allclose(found.interactions[1, :, :, 0], [[0, 1, 0], [1, 0, 0], [0, 0, 0]], atol=1e-12)


@pytest.mark.parametrize("method", ["closed_form", "exact"])
def test_the_diagonal_and_each_pair_once_sum_to_the_values(method):
    X, y = load_diabetes(return_X_y=True)
    forest = RandomForestRegressor(5, max_depth=5, random_state=0).fit(X, y)
    X = X.copy()
    X[:6, 2] = X[21, 2]  # one row has a column without effect
    found = MultilinearShapleyExplainer(forest, X[:6], method=method, interactions=True)(X[20:24])
    np.testing.assert_allclose(found.interactions, found.interactions.transpose(0, 2, 1), atol=1e-12)
    each = np.arange(10)
    diagonal = found.interactions[:, each, each]
    half = (found.interactions.sum(axis=2) - diagonal) / 2
    np.testing.assert_allclose(diagonal + half, found.values, atol=1e-10)
    total = diagonal.sum(axis=1) + half.sum(axis=1)
    np.testing.assert_allclose(total + found.base_values, forest.predict(X[20:24]), atol=1e-9)
    assert (found.interactions[1, 2] == 0).all()


def test_shapiq_agrees():
    exact = pytest.importorskip("shapiq.game_theory.exact")
    X, y = load_diabetes(return_X_y=True)
    X = X[:, :6]
    forest = RandomForestRegressor(5, max_depth=4, random_state=0).fit(X, y)
    found = MultilinearShapleyExplainer(forest, X[:1], interactions=True)(X[20]).interactions[0]
    computer = exact.ExactComputer(game=lambda S: forest.predict(np.where(S, X[20], X[0])), n_players=6)
    theirs = computer("k-SII", order=2).dict_values
    for i in range(6):
        np.testing.assert_allclose(found[i, i], theirs.get((i,), 0), atol=1e-9)
        for j in range(i):
            np.testing.assert_allclose(found[i, j], theirs.get((j, i), 0), atol=1e-9)


def test_no_interactions_unless_asked_for():
    explainer = MultilinearShapleyExplainer(lambda X: X[:, 0], np.zeros((1, 3)))
    assert explainer(np.ones((2, 3))).interactions is None


def test_one_feature_has_its_main_effect():
    explainer = MultilinearShapleyExplainer(lambda X: X[:, 0] ** 2, [[1.0]], interactions=True)
    np.testing.assert_allclose(explainer([[3.0], [1.0]]).interactions, [[[8.0]], [[0.0]]])


@pytest.mark.parametrize("method", ["castro", "permutation", "owen_unbiased", "gp", "regression", "auto"])
def test_methods_without_interactions_are_named_before_the_model_is_asked(method):
    calls = []

    def model(X):
        calls.append(len(X))
        return X[:, 0]

    explainer = MultilinearShapleyExplainer(model, np.zeros((1, 12)), method=method, budget=100, interactions=True)
    with pytest.raises(ValueError, match=r"interactions=True: method '.*' does not give them; accepted"):
        explainer(np.ones((1, 12)))
    assert not calls


def test_with_a_tolerance_only_closed_forms_have_them():
    X, y = load_diabetes(return_X_y=True)
    options = {"tol": 0.1, "interactions": True, "budget": 1024}
    linear = MultilinearShapleyExplainer(LinearRegression().fit(X, y), X[:3], **options)(X[9])
    assert linear.interactions.shape == (1, 10, 10)
    with pytest.raises(ValueError, match="tol=None"):
        MultilinearShapleyExplainer(lambda Z: Z[:, 0], X[:3], **options)(X[9])
    with pytest.raises(ValueError, match="interactions=2"):
        MultilinearShapleyExplainer(lambda Z: Z[:, 0], X[:3], interactions=2)
