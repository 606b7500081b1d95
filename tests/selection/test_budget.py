import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from effml.selection import BudgetError, footprint_scorer, most_accurate_under, parse_budget
from effml.selection.budget import check_budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("flash=4KiB,ram=256", {"flash_bytes": 4096, "ram_bytes": 256}),
        (" flash = 4 kib , operations=1000 ", {"flash_bytes": 4096, "n_operations": 1000}),
        ("flash_bytes=1.5KiB", {"flash_bytes": 1536}),
        ("flash=2KB", {"flash_bytes": 2000}),
        ("ram=64B", {"ram_bytes": 64}),
        ("flash=1MiB,ram=1MB", {"flash_bytes": 1048576, "ram_bytes": 1000000}),
        ("n_operations=7,n_parameters=8,bits=9", {"n_operations": 7, "n_parameters": 8, "bits": 9}),
    ],
)
def test_budget_is_read(text, budget):
    parsed = parse_budget(text)
    assert parsed == budget
    assert all(type(limit) is int for limit in parsed.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name=amount"),
        ("flash", "'flash' is not of the form name=amount"),
        ("flash=4KiB,", "'' is not of the form"),
        ("rom=4KiB", "unknown quantity 'rom'; accepted: flash, ram, operations"),
        ("flash=4XB", "unknown unit 'XB' for flash_bytes; accepted: B, KB"),
        ("operations=4KiB", "unknown unit 'KiB' for n_operations; accepted: none"),
        ("flash=-4", "is not an amount"),
        ("flash=four", "is not an amount"),
        ("flash=", "is not an amount"),
        ("flash=0", "positive whole number"),
        ("flash=0.3B", "positive whole number"),
        ("flash=1,flash_bytes=2", "flash_bytes is given twice"),
    ],
)
def test_malformed_budget_is_a_clear_error(text, message):
    with pytest.raises(ValueError, match=message):
        parse_budget(text)


def test_budget_dict_takes_short_names_and_units():
    assert check_budget({"flash": "2KiB", "ram_bytes": np.int64(30)}) == {"flash_bytes": 2048, "ram_bytes": 30}
    assert check_budget(None) == {}


@pytest.mark.parametrize("limit", [0, -1, np.nan, np.inf, None, True])
def test_limit_must_be_a_positive_number(limit):
    with pytest.raises(ValueError, match="must be a positive finite number"):
        check_budget({"flash_bytes": limit})


@pytest.mark.parametrize("budget", [7, ["flash=4"]])
def test_budget_of_another_type_is_an_error(budget):
    with pytest.raises(TypeError, match="budget must be None, a dict"):
        check_budget(budget)


def test_unknown_quantity_is_an_error():
    with pytest.raises(ValueError, match="quantity must be one of flash_bytes, ram_bytes"):
        footprint_scorer("rom")


def test_scorer_returns_negative_footprint(toys, table):
    toy = toys.Toy(size=80).fit(*table)
    assert footprint_scorer("flash_bytes")(toy, *table) == -80.0
    assert footprint_scorer("bits")(toy, *table, sample_weight=None) == -640.0
    assert pickle.loads(pickle.dumps(footprint_scorer("ram_bytes")))(toy, *table) == -8.0


def grid_search(toys, budget, **kwargs):
    scoring = {name: footprint_scorer(name) for name in ("flash_bytes", "ram_bytes")} | {"accuracy": "accuracy"}
    grid = [{"size": [50], "miss": [0.5]}, {"size": [200], "miss": [0.2]}, {"size": [100], "miss": [0.2]}]
    return GridSearchCV(toys.Toy(), grid, scoring=scoring, refit=most_accurate_under(budget), cv=3, **kwargs)


@pytest.mark.parametrize(
    ("budget", "size"),
    [
        ({"flash_bytes": 60}, 50),
        ("flash=150", 100),
        ({"flash_bytes": 999, "ram_bytes": 5}, 50),
        ({"ram_bytes": 20}, 100),
    ],
)
def test_grid_search_chooses_most_accurate_under_budget(toys, table, budget, size):
    search = grid_search(toys, budget).fit(*table)
    assert search.best_params_["size"] == size  # of 100 and 200 bytes, equally accurate, the smaller one


def test_grid_search_over_budget_names_the_smallest(toys, table):
    with pytest.raises(BudgetError, match=r"flash_bytes=10; the smallest is miss=0\.5, size=50 with flash") as caught:
        grid_search(toys, {"flash_bytes": 10}).fit(*table)
    assert caught.value.smallest["params"] == {"size": 50, "miss": 0.5}
    assert caught.value.smallest["footprint"] == {"flash_bytes": 50, "ram_bytes": 5}


def test_grid_search_takes_sample_weights(toys, table):
    search = grid_search(toys, "flash=150").fit(*table, sample_weight=np.ones(60))
    assert search.best_estimator_.sum_of_weights_ == 60


def test_refit_callable_clones_pickles_and_prints(toys):
    search = clone(grid_search(toys, "flash=150"))
    assert pickle.loads(pickle.dumps(search.refit)) == search.refit
    assert repr(search.refit) == "most_accurate_under({'flash_bytes': 150}, score='accuracy')"


def test_missing_columns_are_named(toys, table):
    search = GridSearchCV(toys.Toy(), {}, scoring={"accuracy": "accuracy"}, refit=most_accurate_under("flash=1KiB"))
    with pytest.raises(ValueError, match="no 'mean_test_flash_bytes'"):
        search.fit(*table)
    search.set_params(refit=most_accurate_under("flash=1KiB", score="f1"))
    with pytest.raises(ValueError, match="no score named 'f1'"):
        search.fit(*table)


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(BudgetError("nothing fits", smallest={"params": {}, "footprint": {}})))
    assert str(error) == "nothing fits"
    assert error.smallest == {"params": {}, "footprint": {}}
