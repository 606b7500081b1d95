"""The evidence machinery against evidences that are computed by their definition."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from effml.itemsets.evidence import Action, ActiveSet, add_gain, ascend, best_alpha, delete_gain, precision_gain
from effml.itemsets.sparse_bayes import MatrixColumns

SEEDS = range(8)


def covariance_of_target(columns, alpha, noise_variance):
    return noise_variance * np.eye(len(columns)) + (columns / alpha) @ columns.T


def direct_evidence(t, columns, alpha, noise_variance):
    """log N(t | 0, C), with C written out."""
    return multivariate_normal(np.zeros(len(t)), covariance_of_target(columns, alpha, noise_variance)).logpdf(t)


def random_problem(seed, n=40, p=12, binary=False):
    rng = np.random.default_rng(seed)
    X = (rng.random((n, p)) < 0.4).astype(float) if binary else rng.normal(size=(n, p))
    t = X[:, :3] @ [1.0, -2.0, 0.3] + 0.7 * rng.normal(size=n)
    return rng, X, t - t.mean()


def filled(seed, keys=(0, 1, 5, 7), noise_variance=0.5, binary=False):
    rng, X, t = random_problem(seed, binary=binary)
    active = ActiveSet(t, noise_variance=noise_variance)
    for key in keys:
        active.add(key, X[:, key], float(np.exp(rng.normal())))
    return rng, X, t, active


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("binary", [False, True])
def test_posterior_and_evidence_equal_their_definitions(seed, binary):
    _, X, t, active = filled(seed, binary=binary)
    columns, alpha, variance = X[:, active.keys], active.alpha, active.noise_variance
    covariance = np.linalg.inv(np.diag(alpha) + columns.T @ columns / variance)
    np.testing.assert_allclose(active.covariance, covariance, rtol=1e-9)
    np.testing.assert_allclose(active.mean, covariance @ columns.T @ t / variance, rtol=1e-9)
    np.testing.assert_allclose(active.log_evidence, direct_evidence(t, columns, alpha, variance), rtol=1e-11)
    inverse = np.linalg.inv(covariance_of_target(columns, alpha, variance))
    np.testing.assert_allclose(active.scaled_residual(), inverse @ t, rtol=1e-8, atol=1e-10)
    for column in X.T:  # active or not
        np.testing.assert_allclose(active.statistics(column), (column @ inverse @ column, column @ inverse @ t), 1e-8)


@pytest.mark.parametrize("seed", SEEDS)
def test_gain_of_add_is_the_difference_of_evidences(seed):
    _, X, t, active = filled(seed)
    before = direct_evidence(t, X[:, active.keys], active.alpha, active.noise_variance)
    n_useful = 0
    for key in set(range(X.shape[1])) - set(active.keys):
        S, Q = active.statistics(X[:, key])
        alpha = float(best_alpha(S, Q))
        if np.isinf(alpha):
            assert add_gain(S, Q) == 0
            continue
        n_useful += 1
        after = direct_evidence(t, X[:, [*active.keys, key]], np.append(active.alpha, alpha), active.noise_variance)
        assert abs(add_gain(S, Q) - (after - before)) < 1e-9
    assert n_useful


@pytest.mark.parametrize("seed", SEEDS)
def test_gains_of_re_estimate_and_delete_are_differences_of_evidences(seed):
    rng, X, t, active = filled(seed)
    columns, variance = X[:, active.keys], active.noise_variance
    before = direct_evidence(t, columns, active.alpha, variance)
    s, q = active.own_statistics()
    for m in range(len(active)):
        new = active.alpha.copy()
        new[m] = np.exp(rng.normal())  # any precision, not only the best
        gain = precision_gain(active.alpha[m], new[m], s[m], q[m])
        assert abs(gain - (direct_evidence(t, columns, new, variance) - before)) < 1e-9
        kept = np.delete(np.arange(len(active)), m)
        without = direct_evidence(t, columns[:, kept], active.alpha[kept], variance)
        assert abs(delete_gain(active.alpha[m], s[m], q[m]) - (without - before)) < 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_best_alpha_is_where_the_evidence_is_highest(seed):
    _, X, t, active = filled(seed)
    s, q = active.own_statistics()
    found = best_alpha(s, q)
    for m in range(len(active)):

        def loss(log_alpha, m=m):
            alpha = active.alpha.copy()
            alpha[m] = np.exp(log_alpha)
            return -direct_evidence(t, X[:, active.keys], alpha, active.noise_variance)

        best = minimize_scalar(loss, bounds=(-12, 12), method="bounded", options={"xatol": 1e-9})
        if np.isfinite(found[m]):
            assert np.log(found[m]) == pytest.approx(best.x, abs=1e-4)
        else:
            assert best.x > 11.9


@pytest.mark.parametrize("seed", SEEDS)
def test_incremental_updates_equal_exact_recomputation(seed):
    rng, X, t = random_problem(seed, p=30)
    active = ActiveSet(t, noise_variance=0.5)
    source = MatrixColumns(X, t, price=lambda m: 0.0)
    source.refresh(active)
    for step in range(60):  # random actions, more columns than the first buffers hold
        out = np.setdiff1d(np.arange(X.shape[1]), active.keys)
        kind = rng.choice(["add", "re-estimate", "delete"], p=[0.6, 0.2, 0.2]) if len(active) else "add"
        if kind == "add" and len(out):
            key = int(rng.choice(out))
            change = active.add(key, X[:, key], float(np.exp(rng.normal())))
        elif kind == "delete":
            change = active.delete(int(rng.integers(len(active))))
        else:
            change = active.re_estimate(int(rng.integers(len(active))), float(np.exp(rng.normal())))
        source.changed(active, change)
        if step % 7:
            continue
        inverse = np.linalg.inv(covariance_of_target(X[:, active.keys], active.alpha, active.noise_variance))
        np.testing.assert_allclose(source.S, np.einsum("ij,ik,kj->j", X, inverse, X), rtol=1e-8)
        np.testing.assert_allclose(source.Q, X.T @ inverse @ t, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(active.columns, X[:, active.keys])
        direct = direct_evidence(t, X[:, active.keys], active.alpha, active.noise_variance)
        assert active.log_evidence == pytest.approx(direct, abs=1e-9)
        covariance, mean, S, Q = active.covariance, active.mean, source.S, source.Q
        active.refresh()
        source.refresh(active)
        np.testing.assert_allclose(covariance, active.covariance, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(mean, active.mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(S, source.S, rtol=1e-8)
        np.testing.assert_allclose(Q, source.Q, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("settle_first", [False, True])
@pytest.mark.parametrize("price", [0.0, 2.0])
def test_ascent_rises_at_fixed_noise_to_a_point_without_gainful_actions(seed, settle_first, price):
    _, X, t = random_problem(seed)
    active = ActiveSet(t, noise_variance=0.3)
    source = MatrixColumns(X, t, price=lambda m: price)
    trace = ascend(active, source, max_iter=500, tol=1e-8, noise="fixed", settle_first=settle_first)
    assert trace.converged and {"add", "re-estimate"} <= set(trace.kinds)
    total = np.array(trace.log_evidence) + trace.log_prior
    assert (np.diff(total) > -1e-10).all()
    assert trace.log_prior[-1] == pytest.approx(-price * len(active))
    alpha, best = active.alpha, direct_evidence(t, X[:, active.keys], active.alpha, 0.3)
    assert trace.log_evidence[-1] == pytest.approx(best, abs=1e-9)
    for m in range(len(active)):  # no neighbour is better
        for factor in (0.9, 1.1):
            new = alpha.copy()
            new[m] *= factor
            assert direct_evidence(t, X[:, active.keys], new, 0.3) < best
        kept = np.delete(np.arange(len(active)), m)
        assert direct_evidence(t, X[:, active.keys][:, kept], alpha[kept], 0.3) + price < best + 1e-8
    for key in set(range(X.shape[1])) - set(active.keys):
        for new in np.exp(np.linspace(-5, 8, 30)):
            larger = direct_evidence(t, X[:, [*active.keys, key]], np.append(alpha, new), 0.3)
            assert larger - price < best + 1e-8


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("noise", ["each", "settled"])
def test_learned_noise_is_where_the_evidence_is_highest(seed, noise):
    _, X, t = random_problem(seed)
    active = ActiveSet(t, noise_variance=0.1 * t.var())
    trace = ascend(active, MatrixColumns(X, t, price=lambda m: 0.0), max_iter=500, tol=1e-9, noise=noise)
    assert trace.converged and trace.kinds.count("noise")
    best = minimize_scalar(
        lambda v: -direct_evidence(t, X[:, active.keys], active.alpha, v), bounds=(1e-3, 5.0), method="bounded"
    )
    assert active.noise_variance == pytest.approx(best.x, rel=5e-3)


def test_a_column_that_does_not_earn_its_price_is_deleted():
    _, X, t = random_problem(3)
    price = {"value": 0.0}
    active, source = ActiveSet(t, noise_variance=0.3), MatrixColumns(X, t, price=lambda m: price["value"])
    ascend(active, source, max_iter=500, tol=1e-8, noise="fixed")
    n_free, before = len(active), active.log_evidence
    s, q = active.own_statistics()
    price["value"] = float(np.sort(-delete_gain(active.alpha, s, q))[0]) + 0.1  # more than the weakest earns
    trace = ascend(active, source, max_iter=500, tol=1e-8, noise="fixed")
    assert trace.kinds[1] == "delete" and len(active) < n_free and active.log_evidence < before
    assert trace.log_prior[1] == pytest.approx(price["value"])
    s, q = active.own_statistics()
    assert (-delete_gain(active.alpha, s, q) >= price["value"]).all()


class OneColumn:
    """A source that offers a column that does not come from a matrix, and counts how often it is asked."""

    def __init__(self, column):
        self.column, self.n_asked, self.n_changes = column, 0, 0

    def prices(self, keys, n_active):
        return np.array([{"it": 0.5}[key] for key in keys])

    def best_addition(self, active, least):
        self.n_asked += 1
        S, Q = active.statistics(self.column)
        gain = add_gain(S, Q) - 0.5
        if "it" in active.keys or gain <= least:
            return None
        return Action("add", gain, float(best_alpha(S, Q)), key="it", column=self.column)

    def changed(self, active, change):
        self.n_changes += 1

    def refresh(self, active):
        pass


def test_columns_may_come_from_anywhere():
    _, X, t = random_problem(0)
    active, source = ActiveSet(t, noise_variance=0.5), OneColumn(X[:, 1])
    seen = []
    trace = ascend(active, source, max_iter=50, report=lambda trace: seen.append(trace.kinds[-1]))
    assert active.keys == ["it"] and trace.converged and trace.kinds[:3] == ["start", "noise", "add"]
    assert seen == trace.kinds[1:] and source.n_changes == len(seen) - seen.count("noise")
    np.testing.assert_array_equal(active.columns, X[:, [1]])


def test_settling_first_asks_the_source_less_often():
    _, X, t = random_problem(1)
    asked = []
    for settle_first in (False, True):
        source = MatrixColumns(X, t, price=lambda m: 0.0)
        original, n = source.best_addition, []
        source.best_addition = lambda *args, original=original, n=n: n.append(1) or original(*args)
        trace = ascend(ActiveSet(t, noise_variance=0.3), source, max_iter=500, noise="fixed", settle_first=settle_first)
        asked.append(len(n) / len(trace.kinds))
    assert asked[1] < asked[0]


def test_no_addition_past_the_limit_of_determined_weights():
    _, X, t = random_problem(2)
    active = ActiveSet(t, noise_variance=0.05)
    ascend(active, MatrixColumns(X, t, price=lambda m: 0.0), max_iter=500, noise="fixed", max_effective=2.5)
    assert len(active) >= 2 and active.n_effective() < 3.5


def test_redundant_columns_and_copies_are_never_added():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    X = np.column_stack([a, b, -2 * a, np.zeros(50)])
    t = a + b + 0.1 * rng.normal(size=50)
    source = MatrixColumns(X, t, price=lambda m: 0.0)
    active = ActiveSet(t, noise_variance=0.5)
    source.refresh(active)
    for _ in range(2):
        action = source.best_addition(active, 0.0)
        source.changed(active, active.add(action.key, action.column, action.alpha))
    assert set(active.keys) in ({0, 1}, {2, 1})
    assert source.best_addition(active, 0.0) is None
    copy = next(m for m, key in enumerate(active.keys) if key in (0, 2))
    source.changed(active, active.delete(copy))
    assert source.best_addition(active, 0.0).key in (0, 2)


def test_a_column_that_the_data_do_not_determine_can_only_go():
    _, X, _, active = filled(0)
    active.add("stiff", X[:, 9], 1e16)
    s, q = active.own_statistics()
    assert s[-1] > 0 and q[-1] == 0 and np.isinf(best_alpha(s, q)[-1])
    assert delete_gain(active.alpha, s, q)[-1] > 0
