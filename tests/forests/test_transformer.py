"""DecisionSnippetTransformer as users meet it: forests of all kinds, tables, weights, output forms, files."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from effml.forests import DecisionSnippetTransformer
from effml.persistence import TRUSTED_TYPES, load_model, save_model

ESTIMATORS = [
    DecisionSnippetTransformer(random_state=0),
    DecisionSnippetTransformer(random_state=0, output="codes", n_cuts=3),
    DecisionSnippetTransformer(
        DecisionTreeClassifier(max_depth=3, random_state=0), min_support=1, threshold_merge=0.1, min_balance=0.1
    ),
    DecisionSnippetTransformer(
        GradientBoostingRegressor(n_estimators=5, random_state=0), pattern_filter="closed", sparse_output=True
    ),
]

BOOTSTRAP = "a row of weight 2 is not the row twice in a bootstrap sample"
BOOSTING = "GradientBoostingRegressor itself grows other trees from a row of weight 2 than from the row twice"


def expected_failures(estimator):
    if isinstance(estimator.forest, DecisionTreeClassifier):
        return {}
    reason = BOOTSTRAP if estimator.forest is None else BOOSTING
    return {"check_sample_weight_equivalence_on_dense_data": reason}


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
@pytest.mark.filterwarnings("ignore:no snippet occurs|the forest has no split|no split is as balanced")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def cancer():
    return load_breast_cancer(return_X_y=True)


def reference_codes(model, X):
    trees = model.snippets_.trees
    return trees.leaves_of(X) - trees.leaf_starts[:-1]


CLASSIFIERS = [
    DecisionTreeClassifier(max_depth=5, random_state=0),
    ExtraTreeClassifier(max_depth=5, random_state=0),
    RandomForestClassifier(10, max_depth=4, random_state=0),
    ExtraTreesClassifier(10, max_depth=4, random_state=0),
    GradientBoostingClassifier(n_estimators=8, random_state=0),
    HistGradientBoostingClassifier(max_iter=8, max_leaf_nodes=8, random_state=0),
]


@pytest.mark.parametrize("forest", CLASSIFIERS, ids=lambda forest: type(forest).__name__)
def test_forests_of_all_kinds_fitted_or_not(cancer, forest):
    X, y = cancer
    support = 1 if "Tree" in type(forest).__name__ and not hasattr(forest, "n_estimators") else 2
    given = {"min_support": support, "n_cuts": 8, "output": "codes"}
    model = DecisionSnippetTransformer(forest, **given).fit(X, y)
    assert not hasattr(forest, "n_features_in_")
    codes = model.transform(X)
    assert codes.dtype == np.uint8 and codes.shape[1] == len(model.snippets_) > 0
    np.testing.assert_array_equal(codes, reference_codes(model, X))
    assert (codes.max(axis=0) < model.snippets_.n_exits).all()

    fitted = clone(forest).fit(X.astype(np.float32), y)
    kept = DecisionSnippetTransformer(fitted, **given).fit(X)
    assert kept.forest_ is fitted
    np.testing.assert_array_equal(kept.transform(X), codes)


@pytest.mark.parametrize("forest", [None, RandomForestRegressor(5), ExtraTreesRegressor(5), DecisionTreeRegressor()])
def test_regression_targets(forest):
    X, y = load_diabetes(return_X_y=True)
    model = DecisionSnippetTransformer(forest, min_support=1, n_cuts=5, random_state=0).fit(X, y + 0.5)
    assert isinstance(model.forest_, RandomForestRegressor if forest is None else type(forest))
    assert model.transform(X).shape[1] == (model.snippets_.n_exits - 1).sum()


@pytest.mark.parametrize("labels", [[0, 1], ["no", "yes"], [False, True], [1.0, 2.0]])
def test_classes_grow_a_classifier(cancer, labels):
    X, y = cancer
    model = DecisionSnippetTransformer(random_state=0).fit(X, np.array(labels)[y])
    assert isinstance(model.forest_, RandomForestClassifier)
    assert model.forest_.n_estimators == 25 and model.forest_.max_depth == 5


def test_frozen_forest_survives_a_grid_search(cancer):
    X, y = cancer
    forest = RandomForestClassifier(20, max_depth=4, random_state=0).fit(X, y)
    pipeline = make_pipeline(DecisionSnippetTransformer(FrozenEstimator(forest)), LogisticRegression(max_iter=1000))
    grid = {"decisionsnippettransformer__min_support": [2, 4], "decisionsnippettransformer__n_cuts": [None, 8]}
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(X, y)
    assert search.best_estimator_[0].forest_ is forest
    assert search.best_score_ > 0.9


def test_snippets_keep_most_of_the_accuracy():
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    model = make_pipeline(
        DecisionSnippetTransformer(max_depth=7, n_cuts=3, random_state=0), LogisticRegression(C=0.1, max_iter=100)
    ).fit(X, y)
    forest = model[0].forest_
    assert model.score(X_test, y_test) > forest.score(X_test, y_test) - 0.02


def test_one_hot_is_the_codes_spread_out(cancer):
    X, y = cancer
    model = DecisionSnippetTransformer(n_cuts=5, random_state=0, output="codes").fit(X, y)
    codes, n_exits = model.transform(X), model.snippets_.n_exits
    assert n_exits.max() > 2
    for drop in (True, False):
        model.set_params(output="onehot", drop_exit=drop)
        columns = [codes[:, s] == e for s, n in enumerate(n_exits) for e in range(n - drop)]
        expected = np.stack(columns, axis=1)
        np.testing.assert_array_equal(model.transform(X), expected)
        assert model.get_feature_names_out().shape == (expected.shape[1],)
        model.set_params(sparse_output=True, dtype=np.float32)
        assert model.transform(X).dtype == np.float32
        np.testing.assert_array_equal(model.transform(X).toarray(), expected)
        model.set_params(sparse_output=False, dtype=np.float64)


def test_threads_do_not_change_the_result(cancer):
    X, y = cancer
    one, two = (DecisionSnippetTransformer(n_jobs=n_jobs, random_state=0).fit(X, y) for n_jobs in (1, 2))
    np.testing.assert_array_equal(one.transform(X), two.transform(X))


def test_merging_makes_more_and_larger_snippets(cancer):
    X, y = cancer
    forest = RandomForestClassifier(25, max_depth=5, random_state=0).fit(X, y)
    plain, few_cuts, merged, both = (
        DecisionSnippetTransformer(forest, **given).fit(X).snippets_.n_exits - 1
        for given in ({}, {"n_cuts": 4}, {"threshold_merge": 0.1}, {"n_cuts": 8, "threshold_merge": 0.05})
    )
    for more in (few_cuts, merged, both):
        assert more.mean() > plain.mean() and more.max() > plain.max()


def test_min_balance_and_size_one_select_stumps_as_splitting_stump_forests_do(cancer):
    X, y = cancer
    forest = RandomForestClassifier(10, max_depth=5, bootstrap=False, random_state=0).fit(X, y)
    model = DecisionSnippetTransformer(forest, max_pattern_size=1, min_support=1, min_balance=0.3).fit(X)
    expected = set()
    for tree in (est.tree_ for est in forest.estimators_):
        for node in np.flatnonzero(tree.children_left >= 0):
            children = [tree.children_left[node], tree.children_right[node]]
            if tree.n_node_samples[children].min() / tree.n_node_samples[node] >= 0.3:
                below = np.nextafter(np.float32(tree.threshold[node]), np.float32(-np.inf))
                cut = np.float32(tree.threshold[node])
                expected.add((int(tree.feature[node]), float(cut if cut <= tree.threshold[node] else below)))
    trees = model.snippets_.trees
    assert set(zip(trees.feature.tolist(), trees.threshold.tolist(), strict=True)) == expected
    assert trees.n_trees == trees.n_splits == len(expected)


def test_zero_weights_drop_rows(cancer):
    X, y = cancer
    weights = (np.arange(len(y)) % 3 > 0).astype(float)
    model = DecisionSnippetTransformer(random_state=0, n_cuts=6, min_balance=0.1)
    weighted = clone(model).fit(X, y, sample_weight=weights)
    dropped = clone(model).fit(X[weights > 0], y[weights > 0])
    np.testing.assert_array_equal(weighted.transform(X), dropped.transform(X))


# -- tables -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    cities = np.array(["Bern", "Graz", "Oslo", "Rome"])
    X = pd.DataFrame(
        {
            "height": y + 0.7 * rng.standard_normal(400),
            "city": np.where(rng.random(400) < 0.6, cities[y], cities[3]),
            "size": pd.Categorical(np.array(["L", "M", "S"])[rng.permutation(y)]),
            "member": rng.random(400) < 0.4 + 0.2 * (y > 0),
            "visits": pd.array(y + rng.integers(0, 3, 400), dtype="Int64"),
        }
    )
    return X, y


def test_text_and_category_columns_are_numbered_inside(table):
    X, y = table
    model = DecisionSnippetTransformer(random_state=0, n_cuts=6).set_output(transform="pandas").fit(X, y)
    out = model.transform(X)
    assert out.index.equals(X.index) and out.columns.tolist() == model.get_feature_names_out().tolist()
    assert [None if levels is None else levels.tolist() for levels in model.categories_] == [
        None,
        ["Bern", "Graz", "Oslo", "Rome"],
        ["L", "M", "S"],
        None,
        None,
    ]
    checked = 0
    for name in out.columns:
        if name.startswith("city = ") and " & " not in name and "#" not in name:
            np.testing.assert_array_equal(out[name], X["city"] == name.removeprefix("city = "))
            checked += 1
        if name.startswith("city != ") and " & " not in name and "#" not in name:
            np.testing.assert_array_equal(out[name], X["city"] != name.removeprefix("city != "))
            checked += 1
        if name.startswith("visits <= ") and " & " not in name and "#" not in name:
            assert name.removeprefix("visits <= ").isdigit()
            np.testing.assert_array_equal(out[name], X["visits"] <= int(name.removeprefix("visits <= ")))
            checked += 1
    assert checked >= 3
    assert len(set(out.columns)) == out.shape[1]


def test_unknown_and_missing_levels_are_accepted(table):
    X, y = table
    model = DecisionSnippetTransformer(random_state=0).fit(X, y)
    X = X.astype({"city": object})
    X.loc[0, "city"] = "Lima"
    X.loc[1, "city"] = None
    assert model.transform(X).shape[0] == 400


def test_works_in_a_pipeline_with_a_linear_model(table):
    X, y = table
    model = make_pipeline(DecisionSnippetTransformer(n_cuts=6, random_state=0), LogisticRegression(max_iter=500))
    assert model.fit(X, y).score(X, y) > 0.7
    values = make_pipeline(DecisionSnippetTransformer(n_cuts=6, random_state=0), Ridge()).fit(X, y + 0.5)
    assert values.score(X, y + 0.5) > 0.5


def test_fitted_forest_and_text_columns_do_not_go_together(table):
    X, y = table
    forest = RandomForestClassifier(5, random_state=0).fit(X[["height", "member"]], y)
    assert len(DecisionSnippetTransformer(forest).fit(X[["height", "member"]]).snippets_)
    with pytest.raises(ValueError, match="forest is fitted, on numbers, but column 'city' is categorical; encode it"):
        DecisionSnippetTransformer(forest).fit(X[["height", "city"]])
    with pytest.raises(ValueError, match="forest was fitted on 2 columns, X has 1"):
        DecisionSnippetTransformer(forest).fit(X[["height"]])


def test_missing_values_go_where_the_forest_sends_them():
    X, y = load_iris(return_X_y=True)
    X[y == 2, 3] = np.nan
    forest = DecisionTreeClassifier(random_state=0).fit(X, y)
    model = DecisionSnippetTransformer(forest, min_support=1, max_pattern_size=20, output="codes").fit(X)
    whole = int(model.snippets_.n_exits.argmax())
    leaves = forest.apply(X.astype(np.float32))
    exits = model.transform(X)[:, whole]
    assert len(set(zip(leaves.tolist(), exits.tolist(), strict=True))) == len(set(leaves)) == len(set(exits.tolist()))
    complete = DecisionSnippetTransformer(random_state=0, output="codes").fit(*load_iris(return_X_y=True))
    assert (complete.transform(np.full((1, 4), np.nan))[0, complete.snippets_.n_exits == 2] == 1).all()


# -- never empty, never silent ----------------------------------------------------------------------------------------


def test_support_that_nothing_reaches_is_lowered_with_a_warning(cancer):
    X, y = cancer
    with pytest.warns(UserWarning, match=r"no snippet occurs in 25 trees \(min_support=1000\)|min_support=1000"):
        model = DecisionSnippetTransformer(min_support=1000, random_state=0).fit(X, y)
    assert model.min_support_ == model.snippets_.support.max() == model.snippets_.support.min() > 1
    with pytest.warns(UserWarning, match="1 is used"):
        single = DecisionSnippetTransformer(DecisionTreeClassifier(random_state=0)).fit(X, y)
    assert single.min_support_ == 1


def test_balance_that_nothing_reaches_is_lowered_with_a_warning(cancer):
    X, y = cancer
    model = DecisionSnippetTransformer(DecisionTreeClassifier(max_depth=1), min_support=1, min_balance=0.5)
    with pytest.warns(UserWarning, match=r"no split is as balanced as min_balance=0\.5; 0\.\d+ is used"):
        model.fit(X, y)
    assert len(model.snippets_) == 1


def test_forest_without_splits_gives_one_stump():
    X = np.column_stack([np.ones(10), np.arange(10)])
    with pytest.warns(UserWarning, match="the forest has no split"):
        model = DecisionSnippetTransformer(random_state=0).fit(X, np.zeros(10, dtype=int))
    assert model.get_feature_names_out().tolist() == ["x1 <= 4"]
    assert model.snippets_.support.tolist() == [0]
    with pytest.warns(UserWarning, match="the forest has no split"):
        constant = DecisionSnippetTransformer(random_state=0).fit(np.ones((10, 2)), np.zeros(10, dtype=int))
    assert constant.transform(np.ones((3, 2))).tolist() == [[1], [1], [1]]


def test_usual_fit_is_silent(cancer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DecisionSnippetTransformer(random_state=0, n_cuts=8, threshold_merge=0.05).fit(*cancer)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_support": 0},
        {"min_support": 1.5},
        {"min_support": "cv"},
        {"max_pattern_size": 0},
        {"max_pattern_size": 256},
        {"min_balance": 0.6},
        {"threshold_merge": 1.0},
        {"threshold_merge": -0.1},
        {"n_cuts": 0},
        {"pattern_filter": "open"},
        {"output": "ordinal"},
        {"forest": 3},
    ],
)
def test_wrong_parameters_are_named(cancer, wrong):
    with pytest.raises(ValueError, match=f"'{next(iter(wrong))}' parameter of DecisionSnippetTransformer must be"):
        DecisionSnippetTransformer(**wrong).fit(*cancer)


def test_estimators_that_are_no_forest_are_refused(cancer):
    with pytest.raises(TypeError, match="LogisticRegression is not a tree ensemble"):
        DecisionSnippetTransformer(LogisticRegression(max_iter=10_000)).fit(*cancer)


def test_target_is_asked_for_unless_the_forest_is_fitted(cancer):
    with pytest.raises(ValueError, match="requires y to be passed"):
        DecisionSnippetTransformer().fit(cancer[0])


# -- names and files --------------------------------------------------------------------------------------------------


def test_names_follow_the_given_names(cancer):
    X, y = cancer
    model = DecisionSnippetTransformer(random_state=0).fit(X, y)
    names = [f"gene {i}" for i in range(30)]
    assert all(name.split(" &")[0].count("gene") for name in model.get_feature_names_out(names))
    with pytest.raises(ValueError, match="input_features should have length"):
        model.get_feature_names_out(["a"])
    model.set_params(output="codes")
    assert model.get_feature_names_out()[1].startswith("snippet 1: x")


def test_clone_and_pickle(cancer):
    X, y = cancer
    model = DecisionSnippetTransformer(n_cuts=5, random_state=0, dtype=np.float32)
    assert clone(model).get_params() == model.get_params()
    again = pickle.loads(pickle.dumps(model.fit(X, y)))
    np.testing.assert_array_equal(again.transform(X), model.transform(X))


@pytest.mark.skipif(
    "effml.forests.transformer.DecisionSnippetTransformer" not in TRUSTED_TYPES, reason="not in TRUSTED_TYPES yet"
)
def test_model_file_comes_back_the_same(tmp_path, table):
    X, y = table
    model = make_pipeline(DecisionSnippetTransformer(n_cuts=5, random_state=0), LogisticRegression(max_iter=500))
    again = load_model(save_model(model.fit(X, y), tmp_path / "model.skops"))
    np.testing.assert_array_equal(again[0].transform(X), model[0].transform(X))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again[0].get_feature_names_out().tolist() == model[0].get_feature_names_out().tolist()


def test_model_file_through_skops_itself(cancer):
    skops = pytest.importorskip("skops.io")
    X, y = cancer
    model = DecisionSnippetTransformer(n_cuts=5, random_state=0).fit(X, y)
    data = skops.dumps(model)
    names = set(skops.get_untrusted_types(data=data))
    assert names == {
        "effml._trees.Trees",
        "effml.forests.mining.Snippets",
        "effml.forests.transformer.DecisionSnippetTransformer",
        "sklearn.tree._tree.Tree",
    }
    again = skops.loads(data, trusted=sorted(names))
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
