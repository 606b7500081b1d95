"""The path of group-lasso solutions: optimality conditions, and scikit-learn where each group is one column."""

import numpy as np
import pytest
from effml._cext.group_lasso import descend
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
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
            mine = slice(first[snippet], first[snippet + 1])
            norm = np.linalg.norm(point.coef[mine])
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
        peer = Lasso(alpha=penalty / np.sqrt(2)).fit(Z, y)  # two weights w, -w of norm sqrt(2) |w| differ by 2 w
    else:
        options = {"l1_ratio": 1, "solver": "saga", "tol": 1e-6, "max_iter": 5000, "C": np.sqrt(2) / (penalty * len(Z))}
        peer = LogisticRegression(**options).fit(Z, y)
    difference = point.coef[::2, 0] - point.coef[1::2, 0]
    np.testing.assert_allclose(difference, np.ravel(peer.coef_), atol=0.05 * np.abs(peer.coef_).max())


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
        scores = given.scores(p.coef, p.intercept)[:, 0]
        return np.mean(np.logaddexp(0, scores) - given.target[:, 0] * scores)

    assert loss(again) < loss(point)


@pytest.mark.parametrize("n_outputs", [1, 3])
@drawn(data=st.data())
@settings(max_examples=30, deadline=None)
def test_one_visit_solves_a_snippet(n_outputs, data):
    """W_j and the intercept's move minimise the quadratic plus the norm: no nearby point is better."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_exits, n = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 40))
    codes = np.asfortranarray(rng.integers(0, n_exits, (n, 1)), dtype=np.uint8)
    curvature = rng.uniform(0.1, 1, n).astype(np.float32)
    coef = rng.normal(size=(n_exits, n_outputs)).astype(np.float32) * data.draw(st.sampled_from([0, 1]))
    residual = rng.normal(size=(n, n_outputs)).astype(np.float32)
    penalty = data.draw(st.sampled_from([0.01, 1.0, 30.0]))
    mass = np.bincount(codes[:, 0], curvature, n_exits)
    after, moved, shift = coef.copy(), residual.copy(), np.zeros(n_outputs)
    scratch = np.empty((n_exits + 1, n_outputs), dtype=np.float32)
    first = np.array([0, n_exits])
    descend(
        codes,
        first,
        curvature,
        mass,
        np.array([penalty]),
        np.ones(1),
        after,
        moved,
        scratch,
        scratch.astype(float),
        shift,
        True,
    )

    def objective(w, d):
        step = (w + d - coef)[codes[:, 0]]
        return (residual * step + curvature[:, None] / 2 * step**2).sum() + penalty * np.linalg.norm(w[mass > 0])

    step = (after + shift - coef)[codes[:, 0]]
    np.testing.assert_allclose(moved, residual + curvature[:, None] * step, atol=1e-4)
    best = objective(after.astype(float), shift)
    for size in (1e-3, 1e-1, 1.0):
        near = objective(after + size * rng.normal(size=after.shape), shift + size * rng.normal(size=n_outputs))
        assert near >= best - 1e-4 * (1 + abs(best))
    if after.any():
        assert objective(np.zeros_like(after), shift) >= best - 1e-4 * (1 + abs(best))


@pytest.mark.parametrize("n_outputs", [1, 4])
def test_sums_and_scores_by_exit_are_those_of_one_hot_columns(n_outputs):
    rng = np.random.default_rng(0)
    given = problem("squared", n=203)
    Z = one_hot(given.codes, given.n_exits, drop_last=False)
    rows = rng.normal(size=(203, n_outputs)).astype(np.float32)
    np.testing.assert_allclose(given.sums(rows), Z.T @ rows, atol=1e-4)
    coef = rng.normal(size=(Z.shape[1], n_outputs)).astype(np.float32)
    np.testing.assert_allclose(given.scores(coef, rows[0]), Z @ coef + rows[0], atol=1e-4)
