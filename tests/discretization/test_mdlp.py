"""MDLPDiscretizer as users meet it: scikit-learn's conventions, tables, missing and unknown values, real data."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, load_iris
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from effml.discretization import MDLPDiscretizer


@parametrize_with_checks(
    [MDLPDiscretizer(), MDLPDiscretizer(max_bins=3, missing="error"), MDLPDiscretizer(categorical_features=[])]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    X = pd.DataFrame(
        {
            "height": y + 0.3 * rng.standard_normal(300),
            "city": np.array(["Graz", "Bern", "Rome"])[rng.integers(0, 3, 300)],
            "size": pd.Categorical(np.array(["L", "M", "S"])[y]),
            "member": y > 0,
            "visits": pd.array(y * 2, dtype="Int64"),
            "constant": 7.0,
        }
    )
    return X, y


def reference_codes(X, bin_edges):
    """Count the cuts below every value of a numeric matrix, by definition."""
    return np.stack([(X[:, i, None] > edges).sum(axis=1) for i, edges in enumerate(bin_edges)], axis=1)


def test_code_is_the_number_of_cuts_below():
    X, y = load_iris(return_X_y=True)
    discretizer = MDLPDiscretizer().fit(X, y)
    np.testing.assert_array_equal(discretizer.transform(X), reference_codes(X, discretizer.bin_edges_))
    np.testing.assert_array_equal(discretizer.n_states_, [len(edges) + 1 for edges in discretizer.bin_edges_])
    beyond = np.array([[-1e300] * 4, [1e300] * 4])
    np.testing.assert_array_equal(discretizer.transform(beyond), [[0] * 4, discretizer.n_states_ - 1])


def test_value_equal_to_a_cut_goes_left():
    X = np.repeat([0.0, 1.0], 20)[:, None]
    discretizer = MDLPDiscretizer().fit(X, X[:, 0])
    assert discretizer.bin_edges_[0].tolist() == [0.5]
    assert discretizer.transform([[0.5], [np.nextafter(0.5, 1)]]).tolist() == [[0], [1]]


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64", "bool"]
)
def test_codes_do_not_depend_on_the_dtype(dtype):
    X, y = load_digits(return_X_y=True)
    X = X > 8 if dtype == "bool" else X
    expected = MDLPDiscretizer().fit(X.astype(np.float64), y)
    discretizer = MDLPDiscretizer().fit(X.astype(dtype), y)
    for edges, expected_edges in zip(discretizer.bin_edges_, expected.bin_edges_, strict=True):
        np.testing.assert_array_equal(edges, expected_edges)
    codes = discretizer.transform(X.astype(dtype))
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, expected.transform(X.astype(np.float64)))
    np.testing.assert_array_equal(codes, expected.transform(np.asfortranarray(X.astype(dtype))))


@pytest.mark.parametrize("as_type", [np.uint8, np.float32])
def test_threads_do_not_change_the_result(as_type):
    X, y = load_digits(return_X_y=True)
    one, two = (MDLPDiscretizer(n_jobs=n_jobs).fit(X.astype(as_type), y) for n_jobs in (1, 2))
    for edges, other_edges in zip(one.bin_edges_, two.bin_edges_, strict=True):
        np.testing.assert_array_equal(edges, other_edges)
    np.testing.assert_array_equal(one.transform(X.astype(as_type)), two.transform(X.astype(as_type)))


def test_many_bins_need_16_bits():
    X = np.repeat(np.arange(400), 30)[:, None]
    y = np.repeat(np.arange(400) % 2, 30)
    rng = np.random.default_rng(0)
    y = rng.permutation(400)[np.repeat(np.arange(400), 30)]
    for form in (X, X / 7):
        discretizer = MDLPDiscretizer().fit(form, y)
        assert discretizer.n_states_.tolist() == [400]
        codes = discretizer.transform(form)
        assert codes.dtype == np.uint16
        np.testing.assert_array_equal(codes, X)


def test_columns_without_information_have_one_state():
    X = np.column_stack([np.full(60, 3.0), np.full(60, np.nan), np.tile([0.0, 1.0], 30)])
    discretizer = MDLPDiscretizer().fit(X, np.repeat([0, 1], 30))
    assert discretizer.n_states_.tolist() == [1, 1, 1]
    assert discretizer.transform([[9, 9, 9], [np.nan] * 3]).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_a_single_class_makes_no_cut():
    X, _ = load_iris(return_X_y=True)
    assert MDLPDiscretizer().fit(X, np.zeros(150)).n_states_.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_missing_values_are_left_out_and_coded_past_the_end(dtype):
    X, y = load_iris(return_X_y=True)
    X = X.astype(dtype)
    X[::7, 2] = np.nan
    discretizer = MDLPDiscretizer().fit(X, y)
    kept = ~np.isnan(X[:, 2])
    np.testing.assert_array_equal(discretizer.bin_edges_[2], MDLPDiscretizer().fit(X[kept], y[kept]).bin_edges_[2])
    codes = discretizer.transform(X)
    assert (codes[~kept, 2] == discretizer.n_states_[2]).all()
    assert (codes[kept] < discretizer.n_states_).all()


def test_missing_error_names_row_and_column(table):
    X, y = table
    discretizer = MDLPDiscretizer(missing="error").fit(X, y)
    X.loc[4, "city"] = None
    with pytest.raises(ValueError, match=r"row 4, column 'city'.*missing='error' rejects"):
        discretizer.transform(X)
    with pytest.raises(ValueError, match=r"row 4, column 'city'"):
        discretizer.fit(X, y)


def test_infinite_values_are_rejected():
    X, y = load_iris(return_X_y=True)
    discretizer = MDLPDiscretizer().fit(X, y)
    X[3, 1] = np.inf
    for method in (lambda: discretizer.fit(X, y), lambda: discretizer.transform(X)):
        with pytest.raises(ValueError, match="infinity"):
            method()


def test_weight_zero_drops_a_row_and_whole_weights_repeat_it(table):
    X, y = table
    weights = np.random.default_rng(1).integers(0, 3, len(y))
    weights[X["city"] == "Rome"] = 0
    weighted = MDLPDiscretizer().fit(X, y, sample_weight=weights)
    rows = np.repeat(np.arange(len(y)), weights)
    repeated = MDLPDiscretizer().fit(X.iloc[rows], y[rows])
    assert weighted.categories_[1].tolist() == ["Bern", "Graz"]
    for edges, repeated_edges in zip(weighted.bin_edges_, repeated.bin_edges_, strict=True):
        np.testing.assert_array_equal(edges, repeated_edges)


def test_wrong_weights_are_rejected(table):
    X, y = table
    with pytest.raises(ValueError, match=r"0 for every row|non-zero"):
        MDLPDiscretizer().fit(X, y, sample_weight=np.zeros(len(y)))
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        MDLPDiscretizer().fit(X, y, sample_weight=-np.ones(len(y)))


def test_table_with_levels_numbers_and_missing_values(table):
    X, y = table
    discretizer = MDLPDiscretizer().fit(X, y)
    assert discretizer.n_states_.tolist() == [3, 3, 3, 2, 3, 1]
    assert discretizer.feature_names_in_.tolist() == list(X.columns)
    assert [None if c is None else c.tolist() for c in discretizer.categories_] == [
        None,
        ["Bern", "Graz", "Rome"],
        ["L", "M", "S"],
        None,
        None,
        None,
    ]
    new = pd.DataFrame(
        {
            "height": [-1.0, np.nan],
            "city": ["Rome", "Oslo"],
            "size": [None, "M"],
            "member": pd.array([None, True], dtype="boolean"),
            "visits": [4, 0],
            "constant": [0.0, 1.0],
        }
    )
    assert discretizer.transform(new).tolist() == [[0, 2, 3, 2, 2, 0], [3, 3, 1, 1, 0, 0]]


def test_unknown_level_can_be_an_error(table):
    X, y = table
    discretizer = MDLPDiscretizer(handle_unknown="error").fit(X, y)
    X.loc[2, "city"] = "Oslo"
    with pytest.raises(ValueError, match=r"column 'city' holds 'Oslo' \(row 2\), a level that fit did not see"):
        discretizer.transform(X)
    X.loc[2, "city"] = None
    assert discretizer.transform(X)[2, 1] == 3


def test_numeric_columns_can_be_declared_categorical():
    X = np.array([[1, 5], [3, 6], [9, 7], [3, 8]], dtype=np.uint8)
    discretizer = MDLPDiscretizer(categorical_features=[0]).fit(X, [0, 1, 0, 1])
    assert discretizer.categories_[0].tolist() == [1, 3, 9]
    assert discretizer.bin_edges_[0].size == 0
    assert discretizer.transform([[9, 0], [4, 0], [3, 0]])[:, 0].tolist() == [2, 3, 1]


def test_all_missing_categorical_column_has_one_state():
    X = pd.DataFrame({"c": pd.Series([None] * 4, dtype=object), "d": [1.0, 2.0, 3.0, 4.0]})
    discretizer = MDLPDiscretizer(categorical_features=["c"]).fit(X, [0, 0, 1, 1])
    assert discretizer.n_states_[0] == 1
    assert discretizer.transform(X)[:, 0].tolist() == [1, 1, 1, 1]


def test_too_many_levels_are_an_error():
    X = pd.DataFrame({"id": np.arange(66_000).astype(str)})
    with pytest.raises(ValueError, match="column 'id' has 66000 states, more than a 16-bit code can hold"):
        MDLPDiscretizer().fit(X, np.arange(66_000) % 2)


def test_text_where_numbers_were_is_named(table):
    X, y = table
    discretizer = MDLPDiscretizer().fit(X, y)
    X["height"] = X["height"].astype(object)
    X.loc[5, "height"] = "tall"
    with pytest.raises(ValueError, match=r"column 'height' holds 'tall' \(row 5\), not a number"):
        discretizer.transform(X)


def test_other_columns_than_at_fit_are_rejected(table):
    X, y = table
    discretizer = MDLPDiscretizer().fit(X, y)
    with pytest.raises(ValueError, match="feature names should match"):
        discretizer.transform(X[X.columns[::-1]])
    with pytest.raises(ValueError, match="feature names should match"):
        discretizer.transform(X.drop(columns="city"))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        codes = discretizer.transform(X.to_numpy(dtype=object))
    np.testing.assert_array_equal(codes, discretizer.transform(X))


@pytest.mark.parametrize(
    ("y", "message"), [(np.linspace(0, 1, 150), "Unknown label type"), (np.zeros((150, 2)), "1d array|y should be")]
)
def test_regression_and_multilabel_targets_are_rejected(y, message):
    with pytest.raises(ValueError, match=message):
        MDLPDiscretizer().fit(load_iris().data, y)


def test_target_may_be_text():
    X, y = load_iris(return_X_y=True)
    named = MDLPDiscretizer().fit(X, np.array(["setosa", "versicolor", "virginica"])[y])
    for edges, expected in zip(named.bin_edges_, MDLPDiscretizer().fit(X, y).bin_edges_, strict=True):
        np.testing.assert_array_equal(edges, expected)


@pytest.mark.parametrize(
    "wrong", [{"max_bins": 1}, {"handle_unknown": "ignore"}, {"missing": "drop"}, {"categorical_features": "all"}]
)
def test_wrong_parameters_are_named(wrong):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=f"'{next(iter(wrong))}' parameter of MDLPDiscretizer must be"):
        MDLPDiscretizer(**wrong).fit(X, y)


def test_set_output_gives_a_named_table(table):
    X, y = table
    discretizer = MDLPDiscretizer().set_output(transform="pandas").fit(X, y)
    codes = discretizer.transform(X)
    assert codes.columns.tolist() == list(X.columns) == discretizer.get_feature_names_out().tolist()
    assert (codes.dtypes == np.uint8).all()
    assert codes.index.equals(X.index)


def test_clone_and_pickle(table):
    X, y = table
    discretizer = MDLPDiscretizer(max_bins=4, categorical_features=["city", "size"], n_jobs=2)
    assert clone(discretizer).get_params() == discretizer.get_params()
    pickle.loads(pickle.dumps(discretizer)).fit(X, y)
    fitted = pickle.loads(pickle.dumps(discretizer.fit(X, y)))
    np.testing.assert_array_equal(fitted.transform(X), discretizer.transform(X))


def test_works_in_pipelines_and_column_transformers(table):
    X, y = table
    columns = make_column_transformer((MDLPDiscretizer(), ["height", "size"]), remainder="drop")
    model = make_pipeline(columns, DecisionTreeClassifier(random_state=0)).fit(X, y)
    assert model.score(X, y) == 1.0
