"""The path of group-lasso solutions: optimality conditions, and scikit-learn where each group is one column."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import Lasso, LogisticRegression

from effml.forests.exits import one_hot
from effml.forests.group_lasso import Problem, group_lasso_path, largest_penalty, refit


def problem(loss, n=300, n_snippets=12, seed=0, n_exits=None, cost=None, weights=None):
    rng = np.random.default_rng(seed)
    n_exits = rng.integers(2, 5, n_snippets) if n_exits is None else n_exits
    codes = rng.integers(0, n_exits, (n, len(n_exits))).astype(np.uint8)
    scores = one_hot(codes, n_exits)[:, :4] @ rng.normal(0, 2, (4, 3))
    if loss == "squared":
        target = scores[:, :1] + rng.normal(0, 0.1, (n, 1))
    elif loss == "logistic":
        target = (scores[:, :1] + rng.logistic(size=(n, 1)) > 0).astype(float)
    else:
        target = np.eye(3)[np.argmax(scores + rng.gumbel(size=(n, 3)), axis=1)]
    cost = rng.uniform(0.5, 2, len(n_exits)) if cost is None else cost
    return Problem(codes, n_exits, target.astype(np.float32), cost, loss, weights)


MEANS = {"squared": lambda s: s, "logistic": expit, "multinomial": lambda s: softmax(s, axis=1)}


@pytest.mark.parametrize("loss", ["squared", "logistic", "multinomial"])
def test_solutions_meet_the_optimality_conditions(loss):
    weights = np.random.default_rng(1).uniform(0.5, 2, 300)
    given = problem(loss, weights=weights)
    Z, first = one_hot(given.codes, given.n_exits, drop_last=False), given.first
    sizes = []
    for point in group_lasso_path(given, largest_penalty(given) * np.geomspace(0.9, 0.02, 10)):
        residual = weights[:, None] / weights.sum() * (MEANS[loss](Z @ point.coef + point.intercept) - given.target)
        gradient = Z.T @ residual
        assert np.abs(residual.sum(axis=0)).max() < 0.1 * point.penalty
        for snippet, cost in enumerate(given.cost):
            mine = slice(first[snippet], first[snippet + 1] - 1)
            norm = np.linalg.norm(point.coef[mine])
            assert not point.coef[first[snippet + 1] - 1].any()
            if norm > 0:
                expected = -point.penalty * cost * point.coef[mine] / norm
                assert np.abs(gradient[mine] - expected).max() < 0.15 * point.penalty * given.cost.max()
            else:
                assert np.linalg.norm(gradient[mine]) < 1.15 * point.penalty * cost
        sizes.append(point.used.sum())
    assert sizes[0] < sizes[-1]


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_stumps_of_equal_cost_are_the_lasso(loss):
    given = problem(loss, n_exits=np.full(15, 2), cost=np.ones(15))
    penalty = 0.1 * largest_penalty(given)
    *_, point = group_lasso_path(given, penalty * np.geomspace(8, 1, 6))
    Z, y = one_hot(given.codes, given.n_exits), given.target[:, 0]
    if loss == "squared":
        peer = Lasso(alpha=penalty).fit(Z, y)
    else:
        options = {"l1_ratio": 1, "solver": "saga", "tol": 1e-6, "max_iter": 5000, "C": 1 / (penalty * len(Z))}
        peer = LogisticRegression(**options).fit(Z, y)
    np.testing.assert_allclose(point.coef[::2, 0], np.ravel(peer.coef_), atol=0.05 * np.abs(peer.coef_).max())


def test_nothing_is_used_from_the_largest_penalty_on():
    given = problem("multinomial")
    top = largest_penalty(given)
    above, below = group_lasso_path(given, [1.1 * top, 0.8 * top])
    assert not above.used.any()
    assert not above.coef.any()
    np.testing.assert_allclose(softmax(above.intercept), given.target.mean(axis=0), atol=1e-5)
    assert below.used.any()


def test_fitting_again_keeps_the_snippets_and_lowers_the_loss():
    given = problem("logistic")
    top = largest_penalty(given)
    (point,) = group_lasso_path(given, [0.3 * top])
    again = refit(given, point, 0.03 * top)
    assert not again.coef[~given.exits_of(np.flatnonzero(point.used))].any()

    def loss(p):
        scores = (given.times(p.coef) + p.intercept)[:, 0]
        return np.mean(np.logaddexp(0, scores) - given.target[:, 0] * scores)

    assert loss(again) < loss(point)
