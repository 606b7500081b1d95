"""Value functions: masked rows, groups, outputs and their checks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effml.shapley import CoalitionGame, InterventionalGame
from effml.shapley.game import column_groups, mix, predict_function


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6)),
    dtype=st.sampled_from([np.float32, np.float64, np.int64]),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_masked_rows_equal_numpy(shape, dtype, seed, data):
    n_rows, n_coalitions, n_background, n_columns = shape
    rng = np.random.default_rng(seed)
    rows = (100 * rng.normal(size=(n_rows, n_columns))).astype(dtype)
    background = (100 * rng.normal(size=(n_background, n_columns))).astype(dtype)
    background[0, 0] = np.nan if dtype != np.int64 else -1
    present = rng.integers(0, 2, size=(n_coalitions, n_columns)).astype(np.uint8)
    first = data.draw(st.integers(0, n_rows * n_coalitions - 1))
    count = data.draw(st.integers(1, n_rows * n_coalitions - first))
    out = mix(rows, background, present, first, count)
    expected = np.where(present[None, :, None, :], rows[:, None, None, :], background[None, None])
    np.testing.assert_array_equal(out, expected.reshape(-1, n_background, n_columns)[first : first + count])


@pytest.mark.parametrize("batch_size", [1, 2, 7, 1000])
def test_values_are_means_over_the_background_in_bounded_batches(batch_size):
    rng = np.random.default_rng(0)
    background, rows = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    coalitions = rng.integers(0, 2, size=(6, 3)).astype(bool)
    sizes = []

    def model(X):
        sizes.append(len(X))
        return np.stack([X.prod(axis=1), X[:, 0]], axis=1)

    values = InterventionalGame(model, background, batch_size=batch_size)(rows, coalitions)
    assert values.shape == (6, 4, 2)
    assert max(sizes) <= batch_size
    assert sum(sizes) == 6 * 4 * 5
    for c, coalition in enumerate(coalitions):
        for r, row in enumerate(rows):
            masked = np.where(coalition, row, background)
            np.testing.assert_allclose(values[c, r], [masked.prod(axis=1).mean(), masked[:, 0].mean()])


def test_columns_equal_to_the_whole_background_are_not_active():
    background = np.array([[0.0, 1.0, np.nan, np.nan], [0.0, 2.0, np.nan, 1.0]])
    game = InterventionalGame(lambda X: X[:, 0], background)
    active = game.active(np.array([[0.0, 1.0, np.nan, np.nan], [1.0, 1.0, 3.0, 1.0]]))
    np.testing.assert_array_equal(active, [[False, True, False, True], [True, True, True, True]])


def test_groups_by_name_and_number():
    groups, names = column_groups({"a": ["u", "w"], "b": 1}, 3, ["u", "v", "w"])
    assert [list(group) for group in groups] == [[0, 2], [1]]
    assert names == ["a", "b"]
    assert column_groups([[0, 2], [1]], 3)[1] == ["x0, x2", "x1"]


@pytest.mark.parametrize("features", [[[0, 1]], [[0, 1], [1, 2]], [[0, 1, 2], [3]], {"a": ["nothing"]}, []])
def test_groups_must_split_the_columns(features):
    with pytest.raises(ValueError, match="features"):
        column_groups(features, 3)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda X: np.full(len(X), np.nan), "NaN or infinity"),
        (lambda X: np.full(len(X), "label"), "need numbers"),
        (lambda X: np.zeros(len(X) + 1), "returned shape"),
        (lambda X: np.zeros((len(X), 2, 2)), "returned shape"),
    ],
)
def test_bad_outputs_are_named(function, message):
    coalitions = np.eye(2, dtype=bool)
    with pytest.raises(ValueError, match=f"model .*{message}|model {message}"):
        InterventionalGame(function, np.zeros((1, 2)))(np.ones((1, 2)), coalitions)
    with pytest.raises(ValueError, match=f"game .*{message}|game {message}"):
        CoalitionGame(function, 2)(coalitions)


@pytest.mark.parametrize(
    ("background", "message"),
    [(np.zeros((0, 3)), "at least one row"), ([["a", "b"]], "numbers"), (np.zeros((2, 2, 2)), "n_columns")],
)
def test_bad_backgrounds_are_named(background, message):
    with pytest.raises(ValueError, match=message):
        InterventionalGame(lambda X: X[:, 0], background)


def test_choice_of_output():
    class Model:
        def decision_function(self, X):
            return X[:, 0]

        def predict(self, X):
            return X[:, 0] > 0

    model = Model()
    assert predict_function(model) == model.decision_function
    assert predict_function(model, "predict") == model.predict
    with pytest.raises(ValueError, match="output='predict_proba'"):
        predict_function(model, "predict_proba")
    with pytest.raises(ValueError, match="output='proba'"):
        predict_function(model, "proba")
    with pytest.raises(TypeError, match="expected a callable or an estimator"):
        predict_function(3)
