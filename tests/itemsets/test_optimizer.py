"""ItemsetBayesOptimizer: it finds optima early, asks nothing twice, goes on after a file, and says what is wrong."""

import json

import numpy as np
import pandas as pd
import pytest

from effml.itemsets import Categorical, Integer, ItemsetBayesOptimizer, ItemsetSparseBayesRegressor, Real

SPACE = {"metal": ["steel", "brass", "zinc"], "layers": (1, 4), "heat": Real(0.0, 1.0, n=11), "cold": ["no", "yes"]}


def planted_pool(n=400, seed=0):
    """Rows of six columns of levels and two of numbers; one interaction of levels holds the best."""
    rng = np.random.default_rng(seed)
    level, x = rng.integers(0, 4, size=(n, 6)), rng.random((n, 2))
    y = 3.0 * ((level[:, 0] == 1) & (level[:, 1] == 2)) + 1.0 * (level[:, 2] == 0) + 0.5 * x[:, 0]
    return np.hstack([level, x]), y, np.repeat([True, False], [6, 2])


def strength(point):
    best = 2.0 * (point["metal"] == "brass") * (point["layers"] >= 3) - 4.0 * (point["heat"] - 0.6) ** 2
    return best + 0.5 * (point["cold"] == "no")


def run(optimizer, y, n):
    """Ask and tell until `n` rows are measured; return them in order."""
    asked = []
    for _ in range(n):
        asked.append(optimizer.ask())
        optimizer.tell(asked[-1], y[asked[-1]])
    return asked


@pytest.mark.parametrize("acquisition", ["ei", "ucb", "thompson"])
def test_finds_the_best_of_a_pool_before_random_search(acquisition):
    needed, by_chance = [], []
    for seed in range(4):
        X, y, categorical = planted_pool(seed=seed)
        goal = np.sort(y)[-4]
        optimizer = ItemsetBayesOptimizer(
            pool=X,
            direction="maximize",
            acquisition=acquisition,
            categorical_features=categorical,
            random_state=seed,
        )
        n, reached = 0, False
        while n < 60 and not reached:
            reached = y[run(optimizer, y, 1)[0]] >= goal
            n += 1
        needed.append(n)
        chance = [np.flatnonzero(y[np.random.default_rng(s).permutation(400)] >= goal)[0] + 1 for s in range(20)]
        by_chance.append(np.mean(chance))
    assert np.mean(needed) < 0.6 * np.mean(by_chance)


def test_minimising_is_maximising_the_negative():
    X, y, categorical = planted_pool()
    shared = {"pool": X, "categorical_features": categorical, "random_state": 3}
    low = ItemsetBayesOptimizer(**shared)
    high = ItemsetBayesOptimizer(direction="maximize", **shared)
    assert run(low, -y, 20) == run(high, y, 20)
    assert low.best_.value == -high.best_.value and low.best_.point == high.best_.point
    np.testing.assert_allclose(low.predict([1, 2])[0], -high.predict([1, 2])[0])
    assert [e.text for e in low.explain().effects] == [e.text for e in high.explain().effects]
    np.testing.assert_allclose([e.mean for e in low.explain().effects], [-e.mean for e in high.explain().effects])


def test_every_row_of_a_pool_is_asked_once_and_then_none():
    X, y, _ = planted_pool(n=30)
    optimizer = ItemsetBayesOptimizer(pool=X, random_state=0)
    optimizer.tell([3, 4], y[[3, 4]])
    first = optimizer.ask(n_points=5)
    optimizer.tell(first, y[first])
    rest = [optimizer.ask() for _ in range(23)]
    assert sorted([3, 4, *first, *rest]) == list(range(30))
    assert optimizer.pending == rest
    with pytest.raises(ValueError, match="all 30 were told or are pending"):
        optimizer.ask()


@pytest.mark.parametrize("acquisition", ["ei", "ucb", "thompson"])
def test_a_batch_is_spread(acquisition):
    X, y, categorical = planted_pool()
    optimizer = ItemsetBayesOptimizer(
        pool=X, direction="maximize", acquisition=acquisition, categorical_features=categorical, random_state=0
    )
    optimizer.tell(list(range(25)), y[:25])
    batch = optimizer.ask(n_points=6)
    assert len(set(batch)) == 6 and not set(batch) & set(range(25))
    sequel = ItemsetBayesOptimizer(
        pool=X, direction="maximize", acquisition=acquisition, categorical_features=categorical, random_state=0
    )
    sequel.tell(list(range(25)), y[:25])
    assert [sequel.ask() for _ in range(6)] == batch  # asking one by one without telling is the same


def test_what_is_pending_changes_no_prediction():
    X, y, categorical = planted_pool()
    optimizer = ItemsetBayesOptimizer(pool=X, categorical_features=categorical, random_state=0)
    optimizer.tell(list(range(25)), y[:25])
    before, text = optimizer.predict([30, 31]), str(optimizer.explain())
    optimizer.ask(n_points=3)
    np.testing.assert_array_equal(optimizer.predict([30, 31]), before)
    assert str(optimizer.explain()) == text


def test_ties_are_broken_at_random():
    pool = np.zeros((50, 3))  # nothing tells the candidates apart
    chosen = set()
    for seed in range(12):
        optimizer = ItemsetBayesOptimizer(pool=pool, random_state=seed)
        optimizer.tell(list(range(10)), np.arange(10.0))
        chosen.add(optimizer.ask())
    assert len(chosen) > 6


def test_constant_values_and_a_single_measurement_leave_it_asking():
    X, _, _ = planted_pool(n=40)
    optimizer = ItemsetBayesOptimizer(pool=X, n_initial=1, random_state=0)
    asked = run(optimizer, np.full(40, 2.0), 20)
    assert len(set(asked)) == 20


def test_failed_measurements_are_not_repeated_and_not_learned():
    X, y, categorical = planted_pool()
    optimizer = ItemsetBayesOptimizer(
        pool=X, direction="maximize", categorical_features=categorical, n_initial=4, random_state=0
    )
    failed = optimizer.ask(n_points=4)
    optimizer.tell(failed, np.full(4, np.nan))
    with pytest.raises(ValueError, match="no best point yet"):
        optimizer.best_  # noqa: B018
    with pytest.raises(ValueError, match="did not fail"):
        optimizer.explain()
    measured = np.where(np.arange(len(y)) % 3 == 0, np.nan, y)
    asked = run(optimizer, measured, 30)
    assert len(set(asked) | set(failed)) == 34
    assert sum(one.failed for one in optimizer.history) == 4 + np.isnan(measured[asked]).sum()
    assert optimizer.best_.value == np.nanmax(measured[asked])
    mean, std = optimizer.predict([failed[0]])
    assert np.isfinite(mean).all() and std[0] > 0


def test_a_failure_takes_the_uncertainty_of_its_place_away():
    X, y, categorical = planted_pool()
    values = y[:20].copy()
    stds = []
    for told in (values, np.append(values, np.nan)):
        optimizer = ItemsetBayesOptimizer(pool=X, categorical_features=categorical, random_state=0)
        optimizer.tell(list(range(len(told))), told)
        stds.append(optimizer.predict([20])[1][0])
    assert stds[1] < 0.9 * stds[0]


def test_a_mixed_space_is_searched():
    optimizer = ItemsetBayesOptimizer(SPACE, direction="maximize", random_state=1)
    for _ in range(35):
        point = optimizer.ask()
        optimizer.tell(point, strength(point))
    best = optimizer.best_.point
    assert best["metal"] == "brass" and best["layers"] >= 3 and abs(best["heat"] - 0.6) < 0.15
    points = [json.dumps(one.point) for one in optimizer.history]
    assert len(set(points)) == 35


def test_a_space_too_large_to_list_is_searched_near_good_points():
    space = {f"a{k}": Categorical(list("abcd")) for k in range(6)} | {"x": Real(0.0, 1.0), "n": Integer(0, 50)}

    def value(point):
        return sum(point[f"a{k}"] == "c" for k in range(6)) - 3 * (point["x"] - 0.3) ** 2 + point["n"] / 50

    means = {}
    for acquisition in ("ei", "thompson"):
        optimizer = ItemsetBayesOptimizer(
            space, direction="maximize", acquisition=acquisition, n_candidates=300, random_state=0
        )
        for _ in range(40):
            point = optimizer.ask()
            optimizer.tell(point, value(point))
        means[acquisition] = optimizer.best_.value
        assert len({json.dumps(one.point) for one in optimizer.history}) == 40
    rng = np.random.default_rng(0)
    rows = [{f"a{k}": "abcd"[rng.integers(4)] for k in range(6)} | {"x": rng.random(), "n": 25} for _ in range(400)]
    assert min(means.values()) > max(value(row) for row in rows[:40]) + 1.0


def test_a_small_space_is_exhausted():
    optimizer = ItemsetBayesOptimizer({"a": ["x", "y"], "b": (1, 3)}, n_candidates=2, n_initial=2, random_state=0)
    for k in range(6):
        optimizer.tell(optimizer.ask(), float(k))
    assert len({json.dumps(one.point) for one in optimizer.history}) == 6
    with pytest.raises(ValueError, match="all 6"):
        optimizer.ask()


def test_points_not_asked_for_are_learned_from():
    optimizer = ItemsetBayesOptimizer(SPACE, direction="maximize", random_state=0)
    told = {"metal": "zinc", "layers": 2, "heat": 0.123, "cold": "no"}  # 0.123 is not on the grid
    optimizer.tell([told, told | {"heat": 0.9}], [1.0, 2.0])
    optimizer.tell(told, 1.5)  # measured again
    assert optimizer.history[0].point == told and len(optimizer.history) == 3

    X, y, categorical = planted_pool()
    elsewhere = ItemsetBayesOptimizer(pool=X[150:], categorical_features=categorical, random_state=0)
    elsewhere.tell(X[:150], y[:150])
    assert elsewhere.history[7].point["x1"] == X[7, 1]
    mean, std = elsewhere.predict(list(range(250)))
    assert np.mean((mean - y[150:]) ** 2) < 0.2 * y[150:].var() and (std < y.std()).all()


def test_a_table_of_text_numbers_and_gaps_is_a_pool():
    X, y, _ = planted_pool()
    table = pd.DataFrame(X[:, 2:], columns=["c", "d", "e", "f", "heat", "cold"])
    table.insert(0, "metal", np.array(["tin", "zinc", "lead", "iron"])[X[:, 0].astype(int)])
    table.insert(1, "shape", pd.Categorical(np.array(list("abcd"))[X[:, 1].astype(int)]))
    table.loc[::7, "heat"] = np.nan
    table.loc[::9, "metal"] = None
    y = np.where(table["metal"].eq("zinc") & table["shape"].eq("c"), 3.0, 0.0) + y / 10
    optimizer = ItemsetBayesOptimizer(pool=table, direction="maximize", random_state=0)
    asked = run(optimizer, y, 40)
    assert y[asked].max() == y.max()
    texts = [effect.text for effect in optimizer.explain().effects]
    assert any("metal = zinc" in text for text in texts) and any("shape = c" in text for text in texts)
    as_list = ItemsetBayesOptimizer(pool=table.astype(object).to_numpy(), direction="maximize", random_state=0)
    assert run(as_list, y, 12) == asked[:12]


def test_an_explanation_adds_up_and_names_what_drives():
    optimizer = ItemsetBayesOptimizer(SPACE, direction="maximize", random_state=0)
    for _ in range(40):
        point = optimizer.ask()
        optimizer.tell(point, 10 * strength(point))
    overall = optimizer.explain()
    assert 0.7 < overall.share <= 1 and overall.rest is None
    top = overall.effects[0]
    assert "metal = brass" in top.text and top.mean > 5 * top.std
    holds = [one.point["metal"] == "brass" for one in optimizer.history]
    if top.text == "metal = brass":
        assert top.support == sum(holds)
    best = optimizer.best_.point
    local = optimizer.explain(best)
    mean, std = optimizer.predict([best])
    assert local.base + sum(effect.mean for effect in local.effects) + local.rest == pytest.approx(mean[0])
    assert (local.mean, local.std) == pytest.approx((mean[0], std[0]))
    assert len(optimizer.explain(n_effects=2).effects) == 2
    for line in ("base", "everything else", "metal = brass", "% of the variance"):
        assert line in str(local)


@pytest.mark.parametrize("acquisition", ["ei", "thompson"])
@pytest.mark.parametrize("where", ["pool", "space"])
def test_a_saved_optimiser_asks_what_it_would_have_asked(tmp_path, where, acquisition):
    X, y, categorical = planted_pool()
    settings = {
        "direction": "maximize",
        "acquisition": acquisition,
        "random_state": 5,
        "refit_growth": 0.3,
        "regressor": ItemsetSparseBayesRegressor(kappa=0.5, n_bins=4),
    }
    if where == "pool":
        optimizer = ItemsetBayesOptimizer(pool=X, categorical_features=categorical, **settings)
    else:
        optimizer = ItemsetBayesOptimizer(SPACE, n_candidates=100, **settings)

    def measure(point):
        value = y[point] if where == "pool" else strength(point)
        return np.nan if len(optimizer.history) % 5 == 4 else value

    for _ in range(17):
        point = optimizer.ask()
        optimizer.tell(point, measure(point))
    if where == "pool":
        optimizer.tell(X[:2] + 0.5 * ~categorical, [1.0, 2.0])
    pending = optimizer.ask(n_points=2)
    again = ItemsetBayesOptimizer.load(optimizer.save(tmp_path / "run.npz"))
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
    assert again.pending == pending and str(again.history) == str(optimizer.history)
    assert again.best_ == optimizer.best_ and again.regressor.n_bins == 4
    for _ in range(8):
        point, same = optimizer.ask(), again.ask()
        assert point == same
        value = measure(point)
        for one in (optimizer, again):
            one.tell(point, value)


def test_a_saved_table_keeps_its_names_and_levels(tmp_path):
    table = pd.DataFrame({"metal": ["tin", "zinc", "lead"] * 20, "heat": np.arange(60.0)})
    y = 2.0 * (table["metal"] == "zinc").to_numpy() + table["heat"].to_numpy() / 60
    optimizer = ItemsetBayesOptimizer(pool=table, random_state=0)
    optimizer.tell(list(range(30)), y[:30])
    again = ItemsetBayesOptimizer.load(optimizer.save(tmp_path / "run.npz"))
    assert str(again.explain()) == str(optimizer.explain())
    assert "metal = zinc" in str(again.explain())
    with pytest.raises(ValueError, match="a level of column 'metal' that the pool does not have"):
        again.tell(pd.DataFrame({"metal": ["zinc", "gold"], "heat": [1.0, 2.0]}), [0.0, 1.0])
    again.tell(pd.DataFrame({"metal": ["zinc"], "heat": [1.0]}), [0.0])
    assert again.history[-1].point == {"metal": "zinc", "heat": 1.0}


def test_files_that_are_none_are_refused(tmp_path):
    optimizer = ItemsetBayesOptimizer(pool=np.eye(5), random_state=0)
    path = optimizer.save(tmp_path / "run.npz")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ItemsetBayesOptimizer.load(tmp_path / "nowhere.npz")
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged or no saved"):
            ItemsetBayesOptimizer.load(path)
    np.savez(path, state=np.array([{"version": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"allow_pickle"):
        ItemsetBayesOptimizer.load(path)
    np.savez(path, state=np.frombuffer(b'{"version": 99}', dtype=np.uint8))
    with pytest.raises(ValueError, match=r"version is 99"):
        ItemsetBayesOptimizer.load(path)
    unsaved = ItemsetBayesOptimizer(
        pool=np.eye(5), regressor=ItemsetSparseBayesRegressor(random_state=np.random.RandomState(0))
    )
    with pytest.raises(ValueError, match="regressor's random_state"):
        unsaved.save(path)


def test_conditions_are_searched_for_when_measurements_have_grown(monkeypatch):
    X, y, categorical = planted_pool()
    fits = []
    fit = ItemsetSparseBayesRegressor.fit
    monkeypatch.setattr(ItemsetSparseBayesRegressor, "fit", lambda self, *data: fits.append(1) or fit(self, *data))
    counts = {}
    for growth in (0.0, 0.25):
        fits.clear()
        optimizer = ItemsetBayesOptimizer(pool=X, categorical_features=categorical, refit_growth=growth, random_state=0)
        optimizer.tell(list(range(40)), y[:40])
        run(optimizer, y, 21)
        counts[growth] = len(fits)
        optimizer.ask()
        n_fits = len(fits)
        optimizer.ask()
        assert len(fits) == n_fits  # nothing new was told
    assert counts == {0.0: 21, 0.25: 2}  # with 40 and with 50 measurements


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"space": None}, ValueError, "neither"),
        ({"pool": np.eye(3)}, ValueError, "both"),
        ({"direction": "up"}, ValueError, "'up'"),
        ({"acquisition": "pi"}, ValueError, "'pi'"),
        ({"kappa": -1.0}, ValueError, "kappa"),
        ({"xi": "a"}, TypeError, "xi"),
        ({"n_initial": 0}, ValueError, "n_initial"),
        ({"n_candidates": 1.5}, TypeError, "n_candidates"),
        ({"refit_growth": -0.1}, ValueError, "refit_growth"),
        ({"random_state": -1}, ValueError, "random_state"),
        ({"regressor": "tree"}, TypeError, "'tree'"),
    ],
)
def test_bad_parameters_are_named(parameters, error, message):
    with pytest.raises(error, match=message):
        ItemsetBayesOptimizer(**({"space": SPACE} | parameters))


def test_bad_pools_points_and_values_are_named():
    for pool, message in ((np.empty((0, 2)), r"shape \(0, 2\)"), ([[1.0, np.inf]], "infinity")):
        with pytest.raises(ValueError, match=message):
            ItemsetBayesOptimizer(pool=pool)
    optimizer = ItemsetBayesOptimizer(pool=np.eye(5), random_state=0)
    cases = [(5, 1.0, "point 5"), (0, [1.0], "a single value"), ([0, 1], [1.0], "2 values"), (0, np.inf, "infinity")]
    for points, values, message in cases:
        with pytest.raises(ValueError, match=message):
            optimizer.tell(points, values)
    for points in (1.5, True, "a"):
        with pytest.raises(TypeError, match="row numbers"):
            optimizer.tell(points, 1.0)
    with pytest.raises(ValueError, match="n_points"):
        optimizer.ask(n_points=0)
    assert optimizer.history == [] and optimizer.ask() in range(5)  # nothing was taken in
    with pytest.raises(TypeError, match="a dict"):
        ItemsetBayesOptimizer(SPACE).tell([3], [1.0])
    optimizer.tell(0, 1.0)
    with pytest.raises(ValueError, match="single point"):
        optimizer.explain([0, 1])


def test_a_batch_that_fails_leaves_nothing_pending():
    optimizer = ItemsetBayesOptimizer(pool=np.eye(3), random_state=0)
    with pytest.raises(ValueError, match="no candidate is left"):
        optimizer.ask(5)
    assert optimizer.pending == []
    assert sorted(optimizer.ask(3)) == [0, 1, 2]


def test_extreme_values_and_sizes_are_refused():
    optimizer = ItemsetBayesOptimizer({"a": Integer(0, 9)}, random_state=0)
    with pytest.raises(ValueError, match=r"values must have magnitudes up to 1e\+100"):
        optimizer.tell({"a": 1}, 1e200)
    with pytest.raises(ValueError, match="at most 100000 values"):
        Integer(0, 10**9)
    with pytest.raises(ValueError, match="n must be an int from 2 to 100000"):
        Real(0.0, 1.0, n=10**7)
    with pytest.raises(ValueError, match="'cv' needs n_initial of at least 10"):
        ItemsetBayesOptimizer({"a": [1, 2]}, regressor=ItemsetSparseBayesRegressor(kappa="cv"))
    with pytest.raises(ValueError, match="kappa"):
        ItemsetBayesOptimizer({"a": [1, 2]}, regressor=ItemsetSparseBayesRegressor(kappa=-3))
