"""The path of group-lasso solutions: optimality conditions, and scikit-learn where each group is one column."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import Lasso, LogisticRegression

from effml.forests.group_lasso import group_lasso_path, largest_penalty, refit


def problem(loss, n=300, n_groups=12, seed=0):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 4, n_groups))
    Z = (rng.random((n, len(groups))) < 0.4).astype(np.float32)
    scores = Z[:, :4] @ rng.normal(0, 2, (4, 3))
    if loss == "squared":
        target = scores[:, :1] + rng.normal(0, 0.1, (n, 1))
    elif loss == "logistic":
        target = (scores[:, :1] + rng.logistic(size=(n, 1)) > 0).astype(float)
    else:
        target = np.eye(3)[np.argmax(scores + rng.gumbel(size=(n, 3)), axis=1)]
    return Z, target.astype(np.float32), groups, rng.uniform(0.5, 2, n_groups), rng.uniform(0.5, 2, n)


MEANS = {"squared": lambda s: s, "logistic": expit, "multinomial": lambda s: softmax(s, axis=1)}


@pytest.mark.parametrize("loss", ["squared", "logistic", "multinomial"])
def test_solutions_meet_the_optimality_conditions(loss):
    Z, target, groups, cost, weights = problem(loss)
    top = largest_penalty(Z, target, groups, cost, loss, weights)
    sizes = []
    for point in group_lasso_path(Z, target, groups, cost, loss, top * np.geomspace(0.9, 0.02, 10), weights):
        residual = weights[:, None] / weights.sum() * (MEANS[loss](Z @ point.coef + point.intercept) - target)
        gradient = Z.T @ residual
        assert np.abs(residual.sum(axis=0)).max() < 0.1 * point.penalty
        for g in range(len(cost)):
            mine = groups == g
            norm = np.linalg.norm(point.coef[mine])
            if norm > 0:
                expected = -point.penalty * cost[g] * point.coef[mine] / norm
                assert np.abs(gradient[mine] - expected).max() < 0.15 * point.penalty * cost.max()
            else:
                assert np.linalg.norm(gradient[mine]) < 1.15 * point.penalty * cost[g]
        sizes.append(point.used.sum())
    assert sizes[0] < sizes[-1]


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_single_columns_without_cost_are_the_lasso(loss):
    Z, target, *_ = problem(loss)
    groups = np.arange(Z.shape[1])
    penalty = 0.1 * largest_penalty(Z, target, groups, np.ones(len(groups)), loss)
    penalties = penalty * np.geomspace(8, 1, 6)
    *_, point = group_lasso_path(Z, target, groups, np.ones(len(groups)), loss, penalties)
    if loss == "squared":
        peer = Lasso(alpha=penalty).fit(Z, target[:, 0])
    else:
        options = {"l1_ratio": 1, "solver": "saga", "tol": 1e-6, "max_iter": 5000, "C": 1 / (penalty * len(Z))}
        peer = LogisticRegression(**options).fit(Z, target[:, 0])
    np.testing.assert_allclose(point.coef[:, 0], np.ravel(peer.coef_), atol=0.05 * np.abs(peer.coef_).max())


def test_nothing_is_used_from_the_largest_penalty_on():
    Z, target, groups, cost, _ = problem("multinomial")
    top = largest_penalty(Z, target, groups, cost, "multinomial")
    above, below = group_lasso_path(Z, target, groups, cost, "multinomial", [1.1 * top, 0.8 * top])
    assert not above.used.any()
    assert not above.coef.any()
    np.testing.assert_allclose(softmax(above.intercept), target.mean(axis=0), atol=1e-5)
    assert below.used.any()


def test_fitting_again_keeps_the_groups_and_lowers_the_loss():
    Z, target, groups, cost, _ = problem("logistic")
    top = largest_penalty(Z, target, groups, cost, "logistic")
    (point,) = group_lasso_path(Z, target, groups, cost, "logistic", [0.3 * top])
    again = refit(Z, target, groups, cost, "logistic", point, 0.03 * top)
    unused = ~point.used[groups]
    assert not again.coef[unused].any()

    def loss(p):
        scores = (Z @ p.coef + p.intercept)[:, 0]
        return np.mean(np.logaddexp(0, scores) - target[:, 0] * scores)

    assert loss(again) < loss(point)
