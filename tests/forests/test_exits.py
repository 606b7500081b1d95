"""Exit numbers of the 64-rows-at-once walk equal those of the plain numpy walk."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

from effml._trees import trees_of
from effml.forests.exits import exit_codes, exit_columns, one_hot
from effml.forests.mining import Snippets, mine_snippets, stump

VALUES = [0, 0.5, np.nextafter(np.float32(0.5), np.float32(1)), 1, 1.5, 2, np.nan, np.inf, -np.inf]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), n_rows=st.integers(0, 200), n_threads=st.integers(1, 3))
def test_walk_equals_numpy(seed, n_rows, n_threads, random_trees):
    rng = np.random.default_rng(seed)
    trees = random_trees(rng, 6, depth=5, n_features=3)
    has_missing = np.array([True, False, True])
    snippets = mine_snippets(trees, min_support=1, max_pattern_size=9, missing_features=has_missing)
    X = rng.choice(VALUES, (n_rows, 3))
    codes = exit_codes(snippets, X, n_threads=n_threads)
    assert codes.dtype == np.uint8
    leaves = snippets.trees.leaves_of(X)
    np.testing.assert_array_equal(codes, leaves - snippets.trees.leaf_starts[:-1])
    np.testing.assert_array_equal(codes, snippets.trees.value[leaves, 0])


def test_largest_snippet_has_256_exits():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2))
    tree = DecisionTreeClassifier(max_leaf_nodes=256, random_state=0).fit(X, rng.integers(0, 2, 600))
    trees = trees_of(tree)
    assert trees.n_leaves > 150
    codes = exit_codes(Snippets(trees, np.ones(1)), X)
    np.testing.assert_array_equal(codes, trees.leaves_of(X))


@pytest.mark.parametrize("seed", range(5))
def test_one_hot_by_definition(seed):
    rng = np.random.default_rng(seed)
    n_exits = rng.integers(2, 6, 7)
    codes = (rng.random((50, 7)) * n_exits).astype(np.uint8)
    for drop_last in (True, False):
        columns = [codes[:, s] == e for s, n in enumerate(n_exits) for e in range(n - drop_last)]
        expected = np.stack(columns, axis=1).astype(float)
        np.testing.assert_array_equal(one_hot(codes, n_exits, drop_last=drop_last), expected)
        sparse = one_hot(codes, n_exits, drop_last=drop_last, sparse=True, dtype=np.float32)
        assert sparse.dtype == np.float32 and sparse.has_canonical_format
        np.testing.assert_array_equal(sparse.toarray(), expected)
        assert exit_columns(n_exits, drop_last)[-1] == expected.shape[1]


def test_one_hot_with_threads_and_other_dtypes():
    codes = np.random.default_rng(0).integers(0, 3, (100, 4)).astype(np.uint8)
    expected = one_hot(codes, [3] * 4)
    for dtype in (np.uint8, np.int64, bool, np.float32):
        out = one_hot(codes, [3] * 4, dtype=dtype, n_threads=3)
        assert out.dtype == dtype
        np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(one_hot(codes, [3] * 4, sparse=True, n_threads=3).toarray(), expected)
    with pytest.raises(ValueError, match="codes has 4 columns, but n_exits names 3 snippets"):
        one_hot(codes, [3] * 3)


def test_rows_with_too_few_columns_are_refused():
    with pytest.raises(ValueError, match="X has 2 columns, but the snippets ask for column 3"):
        exit_codes(stump(3, 0.0), np.zeros((5, 2)))


@pytest.mark.parametrize(
    "damage",
    [
        {"children": np.array([[1, 7], [~0, ~1]])},
        {"children": np.array([[1, ~2], [0, ~1]])},
        {"children": np.array([[1, ~2], [~0, ~9]])},
        {"children": np.array([[1, ~2], [~0, -(2**60)]])},
        {"children": np.array([[1, ~2]])},
        {"roots": np.array([1])},
        {"roots": np.array([~0])},
        {"roots": np.array([0, 5])},
    ],
)
def test_links_out_of_a_snippet_are_refused(damage):
    tree = DecisionTreeClassifier(max_leaf_nodes=3, random_state=0).fit(*load_iris(return_X_y=True))
    snippets = mine_snippets(trees_of(tree), min_support=1, pattern_filter="maximal")
    assert snippets.n_exits.tolist() == [3]
    with pytest.raises(ValueError, match="damaged"):
        exit_codes(Snippets(replace(snippets.trees, **damage), snippets.support), np.zeros((3, 4)))
