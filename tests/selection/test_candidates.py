import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import ParameterGrid

from effml.export import compile_c
from effml.selection import BudgetSearchCV, default_candidates


def n_rows(candidates):
    return sum(len(ParameterGrid(grid)) for _, _, grid in candidates)


def test_settings_that_cannot_fit_are_left_out():
    def leaves(budget):
        grids = {name: grid for name, _, grid in default_candidates(budget=budget, n_classes=26, n_features=16)}
        return grids["tree"]["max_leaf_nodes"], "logistic" in grids

    assert leaves("flash=10") == ([4], False)  # the smallest always stays
    assert leaves("flash=200") == ([4, 8, 16, 32, 64], False)
    assert leaves(None)[0][-1] == 1024
    assert leaves({"flash_bytes": 26 * 17}) == ([4, 8, 16, 32, 64, 128], True)


def test_categories_and_missing_values_leave_out_what_cannot_take_them():
    def names(**table):
        return [name for name, _, _ in default_candidates(budget=None, n_classes=2, n_features=3, **table)]

    assert names() == ["naive_bayes", "tan", "tree", "logistic"]
    assert names(categorical=["colour"]) == ["naive_bayes", "tan", "tree", "logistic"]
    assert names(missing=True) == ["naive_bayes", "tan", "tree"]
    assert names(categorical=["colour"], missing=True) == ["naive_bayes", "tan"]


def mixed_table(missing):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "a": rng.normal(size=200),
            "colour": rng.choice(["red", "green", "blue"], 200).astype(object),
            "b": rng.normal(size=200),
            "shape": rng.choice(["x", "y"], 200).astype(object),
        }
    )
    y = np.where((X["a"] > 0) ^ (X["colour"] == "red"), "yes", "no")
    if missing:
        X.loc[rng.random(200) < 0.1, "a"] = np.nan
        X.loc[rng.random(200) < 0.1, "colour"] = np.nan
    return X, y


@pytest.mark.parametrize("columns", [["a", "b"], ["a", "colour", "b", "shape"], ["colour", "shape"]])
@pytest.mark.parametrize("missing", [False, True])
def test_every_candidate_is_fitted_lowered_and_measured(columns, missing):
    X, y = mixed_table(missing)
    made = default_candidates(
        budget=None,
        n_classes=2,
        n_features=len(columns),
        categorical=[name for name in ("colour", "shape") if name in columns],
        missing=missing,
        random_state=0,
        effort=0,
    )
    search = BudgetSearchCV(made, budget="flash=2KiB", cv=3, error_score="raise").fit(X[columns], y)
    assert search.best_footprint_["flash_bytes"] <= 2048
    assert (search.cv_results_["failure"] == "").all()
    X.loc[0, "colour"] = "never seen"
    compiled = compile_c(search.best_estimator_)
    assert (compiled.predict(X[columns]) == search.predict(X[columns])).all()


def test_effort_adds_settings():
    sizes = [n_rows(default_candidates(budget=None, n_classes=2, n_features=3, effort=effort)) for effort in (0, 1, 2)]
    assert sizes[0] < 20 < sizes[1] < 50 < sizes[2]


def test_class_weight_and_seed_reach_the_candidates():
    made = default_candidates(budget=None, n_classes=2, n_features=3, class_weight="balanced", random_state=3)
    for _, estimator, _ in made:
        parameters = estimator.get_params(deep=True)
        assert "balanced" in [value for key, value in parameters.items() if key.endswith("class_weight")]
    assert made[2][1].random_state == 3 and made[1][1].random_state == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"effort": 3}, "effort must be 0, 1 or 2, got 3"),
        ({"n_classes": 1}, "n_classes must be at least 2"),
        ({"n_features": 0}, "n_features at least 1"),
        ({"budget": "rom=3"}, "unknown quantity 'rom'"),
    ],
)
def test_wrong_arguments_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        default_candidates(**({"budget": None, "n_classes": 2, "n_features": 3} | changes))
