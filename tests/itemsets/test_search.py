"""The search returns the best itemset of all, and every bound holds."""

import signal
from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import pytest
from effml._cext.itemset_search import available_kernels

from effml.itemsets.search import (
    Items,
    Problem,
    evidence_gain,
    find_best,
    find_top,
    multiplicity_penalty,
    packed_search,
    reference_bounds,
    reference_rho,
)

N_RANDOM = 100


def all_itemsets(items, max_order):
    """Every itemset of 1 to max_order items, no two of one variable."""
    for order in range(1, max_order + 1):
        for itemset in combinations(range(items.n_items), order):
            if len(set(items.variable[list(itemset)].tolist())) == order:
                yield itemset


def model_state(phi, t, alpha, beta):
    """Sigma and u = C^-1 t, by their definitions."""
    covariance = np.linalg.inv(np.diag(alpha) + beta * phi.T @ phi)
    c = np.eye(len(t)) / beta + phi / alpha @ phi.T
    return covariance, np.linalg.solve(c, t)


def random_items(rng):
    n_rows, n_items = int(rng.integers(5, 101)), int(rng.integers(1, 16))
    items = rng.random((n_rows, n_items)) < rng.uniform(0.2, 0.9, n_items)
    if n_items > 3:
        items[:, 1] = items[:, 0]  # two equal items
        items[:, 2] = items[:, 0] & items[:, 3]  # an item that implies others
    return Items(items, rng.integers(0, n_items, n_items) if rng.random() < 0.3 else None)


def random_problem(seed, **settings):
    """A problem with up to 6 active columns, graded ones and the intercept in half of the cases, and any alphas."""
    rng = np.random.default_rng(seed)
    items = random_items(rng)
    itemsets = list(all_itemsets(items, 3))
    chosen = rng.choice(len(itemsets), size=min(len(itemsets), int(rng.integers(0, 7))), replace=False)
    columns = [items.occurrences(itemsets[i]) for i in chosen]
    alpha = 10.0 ** rng.uniform(-3, 2, len(columns))
    if rng.random() < 0.5:
        columns, alpha = [np.ones(items.n_rows, dtype=bool), *columns], np.append(1e-6, alpha)
    active = np.array(columns, dtype=bool).reshape(len(columns), items.n_rows).T
    graded = rng.random((items.n_rows, int(rng.integers(1, 4)) if rng.random() < 0.5 else 0)) ** 2
    alpha = np.append(alpha, 10.0 ** rng.uniform(-3, 2, graded.shape[1]))
    t = rng.standard_normal(items.n_rows) + 3 * items.occurrences(itemsets[rng.integers(len(itemsets))])
    beta = 10.0 ** rng.uniform(-1, 1.5)
    covariance, u = model_state(np.hstack([active, graded]), t, alpha, beta)
    order = int(rng.integers(1, 5))
    given = {
        "min_support": int(rng.integers(1, max(2, items.n_rows // 8))),
        "max_order": order,
        "penalty": multiplicity_penalty(items.n_items, order, rng.choice([0, 0.3, 1])),
        "min_gain": float(rng.choice([0, 0.5])),
        **settings,
    }
    return Problem(
        items=items, u=u, beta=beta, active=active, graded=graded, covariance=covariance, alpha=alpha, **given
    )


def candidates(problem):
    """(gain, itemset, rows) of every itemset that may be returned, best first, by definition."""
    out = []
    for itemset in all_itemsets(problem.items, problem.max_order):
        rows = problem.items.occurrences(itemset)
        known = (rows == problem.active.T).all(axis=1).any()
        if rows.sum() < problem.min_support or rows.all() or known:
            continue
        _, s, rho = reference_rho(problem, itemset)
        gain = float(evidence_gain(rho)) - problem.penalty[len(itemset)]
        if s > 1e-8 * problem.beta * rows.sum() and gain > problem.min_gain:
            out.append((gain, itemset, rows.tobytes()))
    return sorted(out, key=lambda one: (-one[0], len(one[1]), one[1]))


def distinct(ranked):
    kept = {}
    for gain, itemset, rows in ranked:
        kept.setdefault(rows, (gain, itemset))
    return list(kept.values())


@pytest.mark.parametrize("seed", range(N_RANDOM))
def test_search_equals_brute_force(seed):
    problem = random_problem(seed)
    expected = distinct(candidates(problem))
    found = find_best(problem)
    if not expected:
        assert found.itemset == () and found.gain == 0
        return
    assert found.gain == pytest.approx(expected[0][0], rel=1e-9, abs=1e-9)
    q, s, rho = reference_rho(problem, found.itemset)
    assert (found.q, found.s, found.rho) == pytest.approx((q, s, rho), rel=1e-8)
    tied = [itemset for gain, itemset in expected if gain > expected[0][0] - 1e-9]
    assert found.itemset in tied
    if len(tied) == 1:
        assert found.itemset == expected[0][1]


def test_random_problems_are_not_trivial():
    problems = [random_problem(seed) for seed in range(N_RANDOM)]
    n_found = sum(bool(candidates(problem)) for problem in problems)
    assert n_found >= 60
    assert sum(problem.active.shape[1] > 0 for problem in problems) >= 70
    assert sum(problem.graded.shape[1] > 0 for problem in problems) >= 40
    assert {problem.max_order for problem in problems} == {1, 2, 3, 4}


@pytest.mark.parametrize("seed", range(40))
def test_top_k_equals_brute_force(seed):
    problem = random_problem(seed)
    expected = [gain for gain, _ in distinct(candidates(problem))][:5]
    found = find_top(problem, 5)
    np.testing.assert_allclose([one.gain for one in found], expected, rtol=1e-9, atol=1e-9)
    rows = {problem.items.occurrences(one.itemset).tobytes() for one in found}
    assert len(rows) == len(found)


def loop_bounds(problem, itemset):
    packed, _ = packed_search(problem, len(available_kernels()) - 1)
    return packed.bounds(np.array(itemset, dtype=np.int32))


def true_maximum(problem, itemset):
    """Largest rho over the supersets of an itemset, itself included, that have the support; S by definition."""
    inside = set(itemset)
    best = 0.0
    for other in all_itemsets(problem.items, 4):
        if inside <= set(other) and problem.items.occurrences(other).sum() >= problem.min_support:
            _, s, rho = reference_rho(problem, other)
            if s > 1e-8 * problem.beta:
                best = max(best, rho)
    return best


@pytest.mark.parametrize("seed", range(0, 30))
def test_every_bound_is_above_every_superset(seed):
    problem = random_problem(seed, max_order=4, penalty=None)
    itemsets = list(all_itemsets(problem.items, 3))
    rng = np.random.default_rng(seed)
    sample = [itemsets[i] for i in rng.choice(len(itemsets), size=min(25, len(itemsets)), replace=False)]
    for itemset in [(), *sample]:
        truth = true_maximum(problem, itemset)
        if not truth:
            continue
        for name, bound in reference_bounds(problem, itemset).items():
            assert bound >= truth * (1 - 1e-9), (itemset, name)
        for bound in loop_bounds(problem, itemset)[3]:
            assert bound >= truth * (1 - 1e-9), itemset


@pytest.mark.parametrize("seed", range(30))
def test_every_node_of_a_small_problem_is_bounded(seed):
    rng = np.random.default_rng(seed)
    problem = random_problem(seed, max_order=4, penalty=None)
    problem = replace(problem, items=Items(problem.items.columns[:8].T), min_support=int(rng.integers(1, 4)))
    for order in range(4):
        for itemset in combinations(range(problem.items.n_items), order):
            truth = true_maximum(problem, itemset)
            if truth:
                bounds = [*reference_bounds(problem, itemset).values(), *loop_bounds(problem, itemset)[3]]
                assert min(bounds) >= truth * (1 - 1e-9), itemset


@pytest.mark.parametrize("seed", range(30))
def test_loop_bounds_equal_the_reference(seed):
    problem = random_problem(seed, max_order=4, penalty=None)
    for itemset in [(), *all_itemsets(problem.items, 2)]:
        rows = problem.items.occurrences(itemset)
        if rows.sum() < problem.min_support:
            continue
        reference = reference_bounds(problem, itemset)
        n, q, s, (cheap, prefix, cheap_c, prefix_c) = loop_bounds(problem, itemset)
        q_expected, s_expected, _ = reference_rho(problem, itemset)
        assert n == rows.sum()
        assert q == pytest.approx(q_expected, rel=1e-10, abs=1e-10 * np.abs(problem.u).sum())
        assert s == pytest.approx(s_expected, rel=1e-10, abs=1e-10 * problem.beta * n)
        assert cheap == pytest.approx(min(reference["a", "cheap"], reference["b", "cheap"]), rel=1e-9)
        assert prefix == pytest.approx(min(reference["a", "prefix"], reference["b", "prefix"]), rel=1e-9)
        if np.isfinite(reference["c", "cheap"]) and np.isfinite(cheap_c):
            assert cheap_c == pytest.approx(reference["c", "cheap"], rel=1e-9)
            assert reference["c", "prefix"] * (1 - 1e-9) <= prefix_c <= 1.05 * reference["c", "prefix"]


def planted(n_rows=500, n_items=50, seed=0):
    rng = np.random.default_rng(seed)
    items = Items(rng.random((n_rows, n_items)) < 0.5)
    t = 2.0 * items.occurrences((3, 7)) - 1.5 * items.occurrences((10, 20, 30)) + 0.5 * rng.standard_normal(n_rows)
    return items, t - t.mean()


def first_problem(items, t, max_order=3, **settings):
    """Nothing is active: C = sigma2 I, with sigma2 = 0.1 var(t)."""
    beta = 10 / t.var()
    return Problem(items=items, u=beta * t, beta=beta, max_order=max_order, **settings)


@pytest.mark.parametrize("seed", range(5))
def test_first_search_of_a_planted_problem_visits_few_nodes(seed):
    items, t = planted(seed=seed)
    found = find_best(first_problem(items, t, min_support=12, penalty=multiplicity_penalty(50, 3)))
    assert found.itemset == (3, 7)
    assert found.n_nodes <= 0.05 * 20876


def second_problem(items, t, **settings):
    """The first planted itemset is active."""
    active = items.occurrences((3, 7))[:, None]
    beta, alpha = 4.0, np.array([0.25])
    covariance, u = model_state(active.astype(float), t, alpha, beta)
    return Problem(items=items, u=u, beta=beta, active=active, covariance=covariance, alpha=alpha, **settings)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
def test_result_does_not_depend_on_threads(n_threads):
    for seed in range(20):
        problem = random_problem(seed)
        one, many = find_top(problem, 4), find_top(problem, 4, n_threads=n_threads)
        assert [replace(found, n_nodes=0) for found in one] == [replace(found, n_nodes=0) for found in many]
    items, t = planted()
    problem = second_problem(items, t, min_support=12)
    one, many = find_best(problem), find_best(problem, n_threads=n_threads)
    assert one.itemset == many.itemset == (10, 20, 30)
    assert (one.rho, one.gain, one.q, one.s) == (many.rho, many.gain, many.q, many.s)


@pytest.mark.parametrize("kernel", available_kernels())
def test_result_does_not_depend_on_the_kernel(kernel):
    items, t = planted(n_rows=777)
    problems = [random_problem(seed) for seed in range(30)] + [second_problem(items, t, min_support=12)]
    for problem in problems:
        assert find_top(problem, 3, kernel=kernel) == find_top(problem, 3, kernel="portable")


def test_start_changes_only_the_work():
    items, t = planted()
    problem = second_problem(items, t, min_support=12)
    plain, warm = find_best(problem), find_best(problem, start=[(0,), (30, 10, 20)])
    assert replace(warm, n_nodes=0) == replace(plain, n_nodes=0)
    assert warm.n_nodes <= plain.n_nodes
    for seed in range(30):
        problem = random_problem(seed)
        start = list(all_itemsets(problem.items, problem.max_order))[::3]
        plain, warm = find_top(problem, 3), find_top(problem, 3, start=start)
        assert [replace(found, n_nodes=0) for found in warm] == [replace(found, n_nodes=0) for found in plain]


@pytest.mark.parametrize("n_rows", [5, 63, 64, 65, 127, 511, 512, 513, 1000])
def test_any_number_of_rows(n_rows):
    rng = np.random.default_rng(n_rows)
    items = Items(rng.random((n_rows, 6)) < 0.6)
    problem = first_problem(items, rng.standard_normal(n_rows) + 2 * items.occurrences((1, 4)))
    gain, itemset = distinct(candidates(problem))[0]
    found = find_best(problem)
    assert found.itemset == itemset
    assert found.gain == pytest.approx(gain, rel=1e-10)


def test_support_and_order_are_kept():
    items, t = planted()
    for max_order, min_support in [(1, 1), (2, 100), (2, 130), (3, 60), (4, 25), (3, 400)]:
        found = find_top(first_problem(items, t, max_order=max_order, min_support=min_support), 20)
        assert all(len(one.itemset) <= max_order for one in found)
        assert all(items.occurrences(one.itemset).sum() >= min_support for one in found)
        assert bool(found) == (min_support < 400)


def test_two_items_of_one_variable_never_meet():
    items = planted()[0]
    t = 3.0 * items.occurrences((3, 7))
    variable = np.arange(50)
    free = find_best(first_problem(items, t - t.mean()))
    variable[7] = 3
    bound = find_top(first_problem(Items(items.columns.T, variable), t - t.mean()), 50)
    assert free.itemset == (3, 7)
    assert all(not {3, 7} <= set(one.itemset) for one in bound)


def test_penalty_prefers_fewer_items():
    rng = np.random.default_rng(0)
    items = Items(rng.random((400, 10)) < 0.5)
    t = items.occurrences((2,)) + 0.15 * items.occurrences((2, 5)) + 0.3 * rng.standard_normal(400)
    t -= t.mean()
    plain, penalised = (find_best(first_problem(items, t, penalty=penalty)) for penalty in (None, [0, 0, 1e3, 2e3]))
    assert len(penalised.itemset) == 1
    assert penalised.gain <= plain.gain


def test_ties_go_to_the_smallest_itemset():
    base = np.random.default_rng(0).permutation(200) < 100
    items = Items(np.column_stack([np.ones(200, dtype=bool), base, base, ~base]))
    found = find_top(first_problem(items, base - 0.5), 5)
    assert [one.itemset for one in found] == [(1,), (3,)]
    assert found[0].rho == found[1].rho


def test_active_columns_are_not_found_again():
    items, t = planted()
    problem = second_problem(items, t, min_support=12)
    problem = replace(problem, u=first_problem(items, t).u)  # its own rho is now the largest
    assert find_best(first_problem(items, t, min_support=12)).itemset == (3, 7)
    rows = items.occurrences((3, 7))
    assert all((items.occurrences(one.itemset) != rows).any() for one in find_top(problem, 30))


def test_nothing_to_find():
    nothing = find_best(Problem(items=Items(np.zeros((4, 0))), u=np.ones(4), beta=1.0))
    assert nothing.itemset == () and nothing.n_nodes == 0
    assert find_best(Problem(items=Items(np.zeros((0, 3))), u=np.ones(0), beta=1.0)).itemset == ()
    assert find_best(Problem(items=Items(np.zeros((4, 3))), u=np.ones(4), beta=1.0)).itemset == ()
    assert find_best(Problem(items=Items(np.eye(4)), u=np.zeros(4), beta=1.0)).itemset == ()
    full = Problem(items=Items(np.ones((9, 3))), u=np.full(9, 5.0), beta=1.0)
    assert find_best(full).itemset == ()
    assert find_top(full, 3) == []


def test_orders_above_the_number_of_items_are_harmless():
    items, t = planted(n_rows=100, n_items=31)
    items = Items(items.columns[:5].T)
    few, many = (find_best(first_problem(items, t, max_order=order)) for order in (5, 500))
    assert few == many and few.itemset


def test_min_gain_saves_work():
    rng = np.random.default_rng(0)
    items = Items(rng.random((500, 30)) < 0.25)
    t = rng.standard_normal(500)
    settings = {"u": t, "beta": 1.0, "items": items, "min_support": 12, "penalty": multiplicity_penalty(30, 3)}
    plain = find_best(Problem(**settings))
    cut = find_best(Problem(**settings, min_gain=plain.gain + 1))
    assert plain.itemset and not cut.itemset
    assert cut.n_nodes < plain.n_nodes


GOOD = {"items": Items(np.eye(6)), "u": np.ones(6), "beta": 1.0}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"items": np.eye(6)}, TypeError, "items must be an Items"),
        ({"u": np.ones(5)}, ValueError, r"u must have shape \(6,\), got \(5,\)"),
        ({"u": np.full(6, np.nan)}, ValueError, "u must be finite"),
        ({"beta": 0.0}, ValueError, "beta == 0.0"),
        ({"beta": np.inf}, ValueError, "beta must be finite, got inf"),
        ({"min_support": 0}, ValueError, "min_support == 0"),
        ({"max_order": 1.5}, TypeError, "max_order must be an instance of"),
        ({"min_gain": -1.0}, ValueError, "min_gain == -1.0"),
        ({"penalty": [0, 1, 2]}, ValueError, r"penalty must have shape \(4,\)"),
        ({"penalty": [0, 0, 2, 1]}, ValueError, "penalty must not be negative and not decrease"),
        ({"active": np.ones((6, 1))}, ValueError, r"covariance must have shape \(1, 1\), got \(0, 0\)"),
        ({"active": np.full((6, 1), 0.5)}, ValueError, "active must hold only 0 and 1"),
        ({"active": np.ones((6, 1)), "covariance": [[1.0]], "alpha": [-1.0]}, ValueError, "alpha must be positive"),
    ],
)
def test_bad_problems_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        Problem(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: find_best(Problem(**GOOD), start=[(0, 0)]),
            ValueError,
            "start must not have two items of one variable",
        ),
        (lambda: find_best(Problem(**GOOD), start=[()]), ValueError, "start must have 1 to max_order=3 items"),
        (lambda: find_best(Problem(**GOOD), start=[(6,)]), ValueError, "start must hold item numbers from 0 to 5"),
        (lambda: find_best(Problem(**GOOD), n_threads=0), ValueError, "n_threads == 0"),
        (lambda: find_best(Problem(**GOOD), kernel="mmx"), ValueError, "kernel must be None or one of"),
        (lambda: find_top(Problem(**GOOD), 0), ValueError, "n_best == 0"),
        (lambda: Items(np.ones(3)), ValueError, "items must be a 2-D array of 0 and 1, got 1 dimensions"),
        (lambda: Items(np.full((3, 1), 2)), ValueError, "items must hold only 0 and 1"),
        (lambda: Items([["a"]]), TypeError, "items must be an array of bool or of 0 and 1"),
        (lambda: Items(np.eye(3), [0, 1]), ValueError, r"variable must have shape \(3,\)"),
    ],
)
def test_bad_calls_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(("n_items", "max_order"), [(50, 3), (5, 5), (1, 4), (0, 2)])
def test_penalty_is_log_binomial_and_never_falls(n_items, max_order):
    penalty = multiplicity_penalty(n_items, max_order, 0.5)
    assert len(penalty) == max_order + 1 and not penalty[:2].any()
    assert (np.diff(penalty) >= 0).all()
    for k in range(2, min(max_order, n_items // 2) + 1):
        assert penalty[k] == pytest.approx(0.5 * np.log(comb(n_items, k) / n_items))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_search_heeds_signals_and_begins_anew(n_threads):
    class Alarm(Exception):
        pass

    def ring(number, frame):
        raise Alarm

    rng = np.random.default_rng(0)
    items, t = Items(rng.random((600, 120)) < 0.5), rng.standard_normal(600)
    nothing = {"active": np.empty((600, 0), bool), "covariance": np.empty((0, 0)), "alpha": np.empty(0)}
    problem = Problem(items=items, u=t, beta=1.0, **nothing, max_order=3, min_support=5, penalty=np.zeros(4))
    undisturbed = find_best(problem, n_threads=n_threads)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(Alarm):
            find_best(problem, n_threads=n_threads)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert find_best(problem, n_threads=n_threads) == undisturbed
