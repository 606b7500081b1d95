"""Tables with named, typed columns become one numeric matrix."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from effml._columns import encode_table, learn_categories, resolve_categorical

nan = np.nan


@pytest.fixture
def people():
    return pd.DataFrame(
        {
            "age": [31, 47, 20, 65],
            "city": ["Graz", "Bern", None, "Graz"],
            "size": pd.Categorical(["S", "L", "L", None], categories=["S", "M", "L"], ordered=True),
            "member": [True, False, True, True],
            "visits": pd.array([1, None, 3, 4], dtype="Int64"),
            "active": pd.array([True, None, False, True], dtype="boolean"),
            "weight": [70.5, nan, 60.0, 81.0],
            "pair": pd.Series([1, 2.5, None, True], dtype=object),
        }
    )


def learn(X, categorical_features="from_dtype"):
    return learn_categories(X, resolve_categorical(X, categorical_features))


def test_from_dtype_takes_text_and_category_columns_only(people):
    np.testing.assert_array_equal(
        resolve_categorical(people, "from_dtype"), [False, True, True, False, False, False, False, False]
    )


def test_from_dtype_takes_object_columns_that_hold_text():
    X = pd.DataFrame({"mixed": pd.Series([1, "x", None], dtype=object), "n": pd.Series([1, 2, pd.NA], dtype=object)})
    np.testing.assert_array_equal(resolve_categorical(X, "from_dtype"), [True, False])


@pytest.mark.parametrize("dtype", ["object", "str", "string", "category"])
def test_every_kind_of_text_column_gives_the_same_levels_and_codes(dtype):
    X = pd.DataFrame({"c": pd.Series(["b", "a", None, "b"], dtype=dtype)})
    categories = learn(X)
    np.testing.assert_array_equal(categories[0], ["a", "b"])
    np.testing.assert_array_equal(encode_table(X, categories), [[1], [0], [nan], [1]])


def test_array_has_no_categorical_column_from_dtype():
    assert not resolve_categorical(np.array([["a", 1]], dtype=object), "from_dtype").any()


@pytest.mark.parametrize(
    "chosen", [["city", "visits"], [1, 4], np.array([1, 4], dtype=np.uint8), np.arange(8) % 3 == 1, ("city", "visits")]
)
def test_names_indices_and_masks_choose_columns(people, chosen):
    expected = [1, 4, 7] if isinstance(chosen, np.ndarray) and chosen.dtype == bool else [1, 4]
    np.testing.assert_array_equal(np.flatnonzero(resolve_categorical(people, chosen)), expected)


@pytest.mark.parametrize("chosen", [None, []])
def test_no_column_is_chosen(people, chosen):
    assert not resolve_categorical(people, chosen).any()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["town"], "'town', which is no column of X"),
        ([8], "index 8; X has columns 0 to 7"),
        ([-1], "index -1"),
        ([True, False], "mask of 2 entries, but X has 8 columns"),
        ("city", "categorical_features='city' is not accepted"),
        ([1.5], r"\[1.5\] is not accepted"),
        ([["city"]], "is not accepted"),
    ],
)
def test_wrong_categorical_features_are_named(people, chosen, message):
    with pytest.raises(ValueError, match=message):
        resolve_categorical(people, chosen)


def test_names_need_a_table():
    with pytest.raises(ValueError, match="column names, but X has none"):
        resolve_categorical(np.zeros((2, 2)), ["a"])


def test_mixed_table_is_encoded(people):
    categories = learn(people)
    assert [None if c is None else c.tolist() for c in categories[:3]] == [None, ["Bern", "Graz"], ["L", "S"]]
    np.testing.assert_array_equal(
        encode_table(people, categories, dtype=np.float32),
        np.array(
            [
                [31, 1, 1, 1, 1, 1, 70.5, 1],
                [47, 0, 0, 0, nan, nan, nan, 2.5],
                [20, nan, 0, 1, 3, 0, 60.0, nan],
                [65, 1, nan, 1, 4, 1, 81.0, 1],
            ],
            dtype=np.float32,
        ),
        strict=True,
    )


def test_unknown_levels_are_minus_one(people):
    categories = learn(people)
    people["city"] = ["Rome", "Bern", 3, None]
    np.testing.assert_array_equal(encode_table(people, categories)[:, 1], [-1, 0, -1, nan])


def test_numeric_levels_are_sorted_numbers():
    X = np.array([[3.0, 1.0], [nan, 2.0], [-1.5, 3.0], [3.0, 4.0]])
    categories = learn(X, [0])
    np.testing.assert_array_equal(categories[0], [-1.5, 3.0], strict=True)
    np.testing.assert_array_equal(encode_table(X, categories), [[1, 1], [nan, 2], [0, 3], [1, 4]])


def test_object_array_with_a_text_column():
    X = np.array([["u", 1], ["v", None], [None, 2.5]], dtype=object)
    np.testing.assert_array_equal(encode_table(X, learn(X, [0])), [[0, 1], [1, nan], [nan, 2.5]])
    np.testing.assert_array_equal(encode_table(X.tolist(), learn(X.tolist(), [0])), [[0, 1], [1, nan], [nan, 2.5]])


def test_all_missing_categorical_column_has_no_level():
    X = pd.DataFrame({"c": pd.Series([None, None], dtype=object), "d": [1, 2]})
    categories = learn(X, ["c"])
    assert len(categories[0]) == 0
    assert np.isnan(encode_table(X, categories)[:, 0]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, bool])
def test_numeric_array_is_returned_unchanged(dtype):
    X = np.ones((3, 2), dtype=dtype)
    assert encode_table(X, [None, None]) is X


def test_numeric_tables_keep_their_common_dtype():
    X = pd.DataFrame({"a": np.array([1, 2], np.uint8), "b": np.array([3, 4], np.uint8)})
    assert encode_table(X, [None, None]).dtype == np.uint8
    X["b"] = X["b"].astype(np.float32)
    np.testing.assert_array_equal(
        encode_table(X, [None, None]), np.array([[1, 3], [2, 4]], dtype=np.float32), strict=True
    )


def test_object_array_of_numbers_is_numeric():
    X = np.array([[1, 2.5], [None, True]], dtype=object)
    np.testing.assert_array_equal(encode_table(X, [None, None]), [[1, 2.5], [nan, 1]], strict=True)
    X[1, 0] = pd.NA
    np.testing.assert_array_equal(encode_table(X, [None, None]), [[1, 2.5], [nan, 1]], strict=True)


def test_integer_result_refuses_missing_values(people):
    X = people[["age", "city"]]
    assert encode_table(X[:2], learn(X), dtype=np.int32).tolist() == [[31, 1], [47, 0]]
    with pytest.raises(ValueError, match="column 'city' has missing values, which int32 cannot hold"):
        encode_table(X, learn(X), dtype=np.int32)


def test_text_in_a_numeric_column_is_named(people):
    categories = learn(people)
    people["age"] = ["31", "abc", "20", "65"]
    with pytest.raises(ValueError, match=r"column 'age' holds 'abc' \(row 1\), not a number"):
        encode_table(people, categories)
    with pytest.raises(ValueError, match=r"column 1 holds 'x' \(row 0\), not a number"):
        encode_table(np.array([[1, "x"]], dtype=object), [None, None])


@pytest.mark.parametrize("value", [{"foo": "bar"}, [1]])
def test_other_objects_are_a_type_error(value):
    X = np.array([[1.0, 2.0]], dtype=object)
    X[0, 1] = value
    with pytest.raises(TypeError, match=r"column 1 holds .*argument must be a string or a real number"):
        encode_table(X, [None, None])
    with pytest.raises(TypeError, match="column 1 holds values that are neither text nor numbers"):
        learn(X, [1])
    with pytest.raises(TypeError, match="column 'b' holds values that are neither text nor numbers"):
        learn(pd.DataFrame({"a": [1.0], "b": pd.Series([value], dtype=object)}))


def test_dates_are_a_type_error():
    X = pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])})
    with pytest.raises(TypeError, match=r"column 'when' has dtype datetime64.*numbers, text, categories and booleans"):
        encode_table(X, learn(X))


def test_levels_of_two_kinds_are_a_type_error():
    X = pd.DataFrame({"c": pd.Series(["a", 1], dtype=object)})
    with pytest.raises(TypeError, match="column 'c' holds int, str; a categorical column holds only text"):
        learn(X)


def test_shape_errors():
    with pytest.raises(ValueError, match="X has 2 columns, but 1 were learned"):
        encode_table(np.zeros((2, 2)), [None])
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
        encode_table([1, 2], [None])
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        encode_table(csr_matrix(np.eye(2)), [None, None])
