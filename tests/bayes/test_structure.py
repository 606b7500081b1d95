"""Structure learning: conditional mutual information against definitions and published matrices, trees, counts."""

import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree
from sklearn.metrics import mutual_info_score

from effml._cext import pair_counts
from effml.bayes import _pair_information
from effml.bayes.structure import (
    check_parents,
    chow_liu_parents,
    conditional_mutual_information,
    joint_counts,
    random_parents,
)


def brute_force_information(codes, y, n_states, weights):
    """The definition, pair by pair, over the rows where both features are present."""
    n_features = codes.shape[1]
    information = np.zeros((n_features, n_features))
    for i in range(n_features):
        for j in range(n_features):
            rows = (codes[:, i] < n_states[i]) & (codes[:, j] < n_states[j])
            joint = np.zeros((n_states[i], n_states[j], y.max() + 1))
            np.add.at(joint, (codes[rows, i], codes[rows, j], y[rows]), weights[rows])
            if joint.sum() == 0:
                continue
            joint /= joint.sum()
            given_c = joint.sum(axis=(0, 1))
            independent = joint.sum(axis=1)[:, None] * joint.sum(axis=0)[None]
            cells = joint > 0
            information[i, j] = np.sum(joint[cells] * np.log((joint * given_c)[cells] / independent[cells]))
    return information  # the diagonal is I(X; X | C) = H(X | C)


def brute_force_counts(codes, y, parents, n_states, n_classes, weights):
    tables = []
    for i, parent in enumerate(parents):
        table = np.zeros((n_states[i], n_classes) if parent < 0 else (n_states[i], n_states[parent], n_classes))
        for row, c, weight in zip(codes, y, weights, strict=True):
            if row[i] < n_states[i] and (parent < 0 or row[parent] < n_states[parent]):
                table[(row[i], c) if parent < 0 else (row[i], row[parent], c)] += weight
        tables.append(table)
    return tables


@contextmanager
def small_blocks(kernel=None):
    """Threads, batches of classes, tiles and tasks that problems of test size would not need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pair_information, "_THREAD_NS", 1e-9)
        patch.setattr(_pair_information, "_BATCH_BYTES", 1500)
        patch.setattr(_pair_information, "_TILE_BYTES", 512)
        patch.setattr(_pair_information, "_FEATURES_PER_TASK", 2)
        if kernel is not None:
            patch.setattr(_pair_information, "_best_kernel", lambda: kernel)
        yield


@st.composite
def tables(draw, *, weighted=False):
    """Random codes; skewed, so that some states are rare or never seen, and with missing codes in some features."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, n_features = draw(st.integers(1, 300)), draw(st.integers(1, 7))
    n_states = np.array(draw(st.lists(st.integers(1, 6), min_size=n_features, max_size=n_features)))
    missing = np.array(draw(st.lists(st.sampled_from([0, 0, 0.1, 0.9, 1]), min_size=n_features, max_size=n_features)))
    skew = draw(st.sampled_from([1.0, 3.0, 20.0]))
    codes = (n_states * rng.random((n, n_features)) ** skew).astype(draw(st.sampled_from([np.uint8, np.uint16])))
    codes[:, 1:] = np.where(rng.random((n, n_features - 1)) < 0.5, codes[:, :1] % n_states[1:], codes[:, 1:])
    too_large = np.where(rng.random(codes.shape) < 0.5, n_states, 255)
    codes = np.where(rng.random(codes.shape) < missing, too_large, codes).astype(codes.dtype)
    if draw(st.booleans()):
        codes = np.asfortranarray(codes)
    y = rng.integers(draw(st.integers(1, 5)), size=n)
    if not weighted:
        return codes, y, n_states
    weights = 0.01 + rng.exponential(size=n) if draw(st.booleans()) else rng.integers(0, 4, size=n).astype(float)
    weights[0] = 1.0
    return codes, y, n_states, weights


# ---------------------------------------------------------------------------------------------------------------------
# Conditional mutual information


@pytest.mark.parametrize("method", ["auto", "popcount", "rows"])
@settings(max_examples=60, deadline=None)
@given(table=tables(), n_jobs=st.sampled_from([1, 2]))
def test_information_equals_its_definition(method, table, n_jobs):
    codes, y, n_states = table
    with small_blocks():
        information = conditional_mutual_information(codes, y, n_states=n_states, method=method, n_jobs=n_jobs)
    np.testing.assert_allclose(information, brute_force_information(codes, y, n_states, np.ones(len(y))), atol=1e-12)
    assert np.array_equal(information, information.T)
    assert information.min() >= 0


@settings(max_examples=60, deadline=None)
@given(table=tables(weighted=True), n_jobs=st.sampled_from([1, 2]))
def test_weighted_information_equals_its_definition(table, n_jobs):
    codes, y, n_states, weights = table
    with small_blocks():
        information = conditional_mutual_information(codes, y, n_states=n_states, sample_weight=weights, n_jobs=n_jobs)
    # Counts that follow by subtraction carry the rounding of the total weight, however little weight a pair has left.
    np.testing.assert_allclose(information, brute_force_information(codes, y, n_states, weights), atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(table=tables(weighted=True))
def test_integer_weights_equal_repeated_rows(table):
    codes, y, n_states, weights = table
    repeats = np.round(weights).astype(int)
    repeats[0] += 1
    weighted = conditional_mutual_information(codes, y, n_states=n_states, sample_weight=repeats)
    repeated = conditional_mutual_information(codes.repeat(repeats, axis=0), y.repeat(repeats), n_states=n_states)
    np.testing.assert_allclose(weighted, repeated, atol=1e-13)


def image_like(n=3000, n_features=60, n_classes=4, seed=0):
    """Half of the features dense, half sparse, 2 to 9 states."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    n_states = rng.integers(2, 10, size=n_features)
    skew = np.where(np.arange(n_features) % 2, 1.0, 12.0)
    base = rng.random((n, 1)) * 0.7 + 0.3 * rng.random((n, n_features)) + 0.05 * y[:, None]
    codes = np.minimum(n_states - 1, n_states * (base / 1.2) ** skew).astype(np.uint8)
    return codes, y, n_states


@pytest.mark.parametrize("kernel", pair_counts.available_kernels())
def test_every_popcount_kernel_counts_the_same(kernel):
    codes, y, n_states = image_like()
    with small_blocks(kernel):
        popcount = conditional_mutual_information(codes, y, n_states=n_states, method="popcount")
    rows = conditional_mutual_information(codes, y, n_states=n_states, method="rows")
    assert np.array_equal(popcount, rows)  # the same integers, summed in the same order


@pytest.mark.parametrize("method", ["auto", "popcount", "rows"])
def test_information_is_the_same_bit_for_bit_for_every_n_jobs(method):
    codes, y, n_states = image_like()
    weights = np.random.default_rng(0).exponential(size=len(y)) if method == "rows" else None
    one = conditional_mutual_information(codes, y, n_states=n_states, method=method, sample_weight=weights)
    with small_blocks():
        for n_jobs in (2, 3, -1):
            many = conditional_mutual_information(
                codes, y, n_states=n_states, method=method, sample_weight=weights, n_jobs=n_jobs
            )
            assert np.array_equal(one, many)


def test_dense_features_go_to_popcount_and_sparse_ones_to_rows():
    rng = np.random.default_rng(0)
    dense = rng.integers(2, size=(10_000, 20))
    sparse = rng.random((10_000, 1000)) < 0.002
    codes = np.hstack((sparse, dense)).astype(np.uint8)
    y = rng.integers(2, size=10_000)
    n_states = np.full(1020, 2, dtype=np.int32)
    table = _pair_information._sort_by_class(codes, y, n_states, 2, None, 1)
    plan = _pair_information._plan(table, "auto")
    assert set(range(1000, 1020)) <= set(plan.feature[: plan.n_dense])
    assert plan.n_dense < 100
    mixed = conditional_mutual_information(codes, y, n_states=n_states)
    popcount = conditional_mutual_information(codes, y, n_states=n_states, method="popcount")
    np.testing.assert_allclose(mixed, popcount, atol=1e-14)


def test_information_equals_scikit_learn_within_classes():
    codes, y, n_states = image_like(n=500, n_features=6)
    information = conditional_mutual_information(codes, y, n_states=n_states)
    for i in range(6):
        for j in range(6):
            within = [np.mean(y == c) * mutual_info_score(codes[y == c, i], codes[y == c, j]) for c in range(4)]
            assert information[i, j] == pytest.approx(sum(within), abs=1e-12)


def test_more_than_65536_states_in_all():
    codes = np.column_stack((np.arange(65_536), np.arange(65_536) % 3)).astype(np.uint16)
    y = np.zeros(65_536, dtype=np.int64)
    information = conditional_mutual_information(codes, y, n_states=[65_536, 3], method="rows")
    np.testing.assert_allclose(information[0], [np.log(65_536), np.log(3)], rtol=1e-9)


def test_a_feature_of_one_state_has_exactly_no_information():
    codes, y, n_states = image_like(n=997)
    codes[:, 3] = 1
    codes[::7, 5] = 255
    codes[codes[:, 5] < 255, 5] = 0
    for method in ("popcount", "rows"):
        information = conditional_mutual_information(codes, y, n_states=n_states, method=method)
        assert (information[3] == 0).all()
        assert (information[5] == 0).all()


def test_a_feature_without_states_is_missing_everywhere():
    codes = np.array([[0, 0], [0, 1], [0, 1]], dtype=np.uint8)
    information = conditional_mutual_information(codes, [0, 0, 0], n_states=[0, 2])
    np.testing.assert_allclose(information, [[0, 0], [0, np.log(3) - 2 / 3 * np.log(2)]])


def test_features_never_present_together_have_no_information_whatever_the_weights():
    rng = np.random.default_rng(0)
    codes = rng.integers(2, size=(100, 2)).astype(np.uint8)
    codes[:50, 0] = codes[50:, 1] = 2
    y = rng.integers(3, size=100)
    for weights in (None, rng.exponential(size=100)):
        information = conditional_mutual_information(codes, y, n_states=[2, 2], sample_weight=weights)
        assert information[0, 1] == 0
        assert information[0, 0] > 0.5


def test_classes_without_rows_change_nothing():
    codes, y, n_states = image_like(n=200)
    with_gaps = conditional_mutual_information(codes, 2 * y + 1, n_states=n_states, n_classes=12)
    np.testing.assert_array_equal(with_gaps, conditional_mutual_information(codes, y, n_states=n_states))


def load(name):
    folder = os.environ.get("EFFML_DATA")
    if not folder or not Path(folder, f"{name}.npz").exists():
        pytest.skip(f"{name}.npz not found; set EFFML_DATA to the folder of the data sets (npz files)")
    return np.load(Path(folder, f"{name}.npz"))


PUBLISHED = [("letter_mdl", ""), ("usps_mdl", ""), ("satimage_mdl", "")] + [
    ("satimage_mdl", f"_fold{k}") for k in range(2, 6)
]


@pytest.mark.parametrize("method", ["popcount", "rows"])
@pytest.mark.parametrize(("name", "fold"), PUBLISHED)
def test_information_equals_the_published_matrices(name, fold, method):
    data = load(name)
    codes = data["X_train" + fold]
    n_states = codes.max(axis=0).astype(int) + 1
    information = conditional_mutual_information(codes, data["y_train" + fold], n_states=n_states, method=method)
    lower = np.tril_indices(len(information))
    np.testing.assert_allclose(information[lower], data["cmi_train" + fold][lower], rtol=0, atol=1e-12)


def n_parameters(parents, n_states, n_classes):
    return n_classes * (1 + sum(r * (n_states[p] if p >= 0 else 1) for r, p in zip(n_states, parents, strict=True)))


@pytest.mark.parametrize(
    ("name", "folds", "expected"),
    # The published letter matrix has 1e-17 of rounding in the row of the one-state feature, which picks its parent;
    # with exact zeros the parent is feature 0 and the count (5 - 14) * 26 lower. Predictions do not depend on it.
    [("usps_mdl", [""], 32_970), ("satimage_mdl", [""], 27_990), ("letter_mdl", [""], 39_754 + (5 - 14) * 26)],
)
def test_chow_liu_trees_have_the_parameter_counts_of_the_papers_data(name, folds, expected):
    data = load(name)
    for fold in folds:
        codes, y = data["X_train" + fold], data["y_train" + fold]
        n_states = codes.max(axis=0).astype(int) + 1
        parents = chow_liu_parents(conditional_mutual_information(codes, y, n_states=n_states))
        assert n_parameters(parents, n_states, y.max() + 1) == expected


def test_the_published_letter_matrix_gives_the_parameter_count_of_the_papers_data():
    data = load("letter_mdl")
    lower = np.tril(data["cmi_train"], -1)
    parents = chow_liu_parents(lower + lower.T)
    assert n_parameters(parents, data["X_train"].max(axis=0).astype(int) + 1, 26) == 39_754


CODES = np.zeros((4, 2), dtype=np.uint8)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "codes must be uint8 or uint16, got dtype int64", {"codes": CODES.astype(np.int64)}),
        (ValueError, "codes must have shape", {"codes": CODES[0]}),
        (ValueError, "codes must have shape", {"codes": CODES[:, :0]}),
        (ValueError, "codes must have at least one row", {"codes": CODES[:0], "y": np.zeros(0, dtype=int)}),
        (ValueError, r"y must have shape \(4,\)", {"y": [0, 1]}),
        (TypeError, "y must hold classes as integers", {"y": [0.0, 1.0, 0.0, 1.0]}),
        (ValueError, r"y must lie in 0..1 \(n_classes=2\), got 0..2", {"y": [0, 1, 2, 0], "n_classes": 2}),
        (ValueError, "y must lie in", {"y": [0, 1, -1, 0]}),
        (ValueError, "n_states must be 2 integers", {"n_states": [2]}),
        (ValueError, "n_states must be 2 integers", {"n_states": [2.0, 2.0]}),
        (ValueError, "n_states must lie in", {"n_states": [2, -1]}),
        (ValueError, "sample_weight must have shape", {"sample_weight": [1.0]}),
        (ValueError, "sample_weight must be finite", {"sample_weight": [1.0, np.nan, 1.0, 1.0]}),
        (ValueError, "sample_weight must be finite and not negative", {"sample_weight": [1.0, -1.0, 1.0, 1.0]}),
        (ValueError, "must not be zero for all rows", {"sample_weight": [0.0] * 4}),
        (ValueError, "method must be", {"method": "gram"}),
        (ValueError, "method='popcount'", {"method": "popcount", "sample_weight": [1.0, 2.0, 1.0, 1.0]}),
    ],
)
def test_wrong_arguments_are_named(error, message, arguments):
    arguments = {"codes": CODES, "y": [0, 1, 0, 1], "n_states": [2, 2], **arguments}
    with pytest.raises(error, match=message):
        conditional_mutual_information(arguments.pop("codes"), arguments.pop("y"), **arguments)


# ---------------------------------------------------------------------------------------------------------------------
# Trees


def kruskal_edges(weights):
    n_features = len(weights)
    pairs = [(-weights[i, j], i, j) for i in range(n_features) for j in range(i + 1, n_features)]
    component = list(range(n_features))
    edges = set()
    for _, i, j in sorted(pairs):
        if component[i] != component[j]:
            edges.add((i, j))
            component = [component[i] if c == component[j] else c for c in component]
    return edges


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_features=st.integers(1, 12), levels=st.sampled_from([1, 2, 4, 1000]))
def test_chow_liu_is_kruskal_with_ties_by_lowest_pair_from_every_root(seed, n_features, levels):
    weights = np.random.default_rng(seed).integers(levels, size=(n_features, n_features)) / levels
    weights = np.triu(weights, 1) + np.triu(weights, 1).T
    for root in range(n_features):
        parents = check_parents(chow_liu_parents(weights, root=root), n_features)
        assert np.flatnonzero(parents < 0).tolist() == [root]
        edges = {(min(i, p), max(i, p)) for i, p in enumerate(parents.tolist()) if p >= 0}
        assert edges == kruskal_edges(weights)


def test_chow_liu_tree_weighs_as_much_as_scipys():
    codes, y, n_states = image_like()
    weights = conditional_mutual_information(codes, y, n_states=n_states)
    parents = chow_liu_parents(weights)
    total = sum(weights[i, p] for i, p in enumerate(parents) if p >= 0)
    assert total == pytest.approx(-minimum_spanning_tree(-np.triu(weights, 1)).sum(), rel=1e-12)


def test_without_connect_edges_of_no_weight_are_left_out():
    weights = np.zeros((5, 5))
    weights[3, 4] = weights[4, 3] = 2.0
    weights[0, 2] = weights[2, 0] = 1.0
    assert chow_liu_parents(weights).tolist() == [-1, 0, 0, 0, 3]
    assert chow_liu_parents(weights, connect=False).tolist() == [-1, -1, 0, -1, 3]


@pytest.mark.parametrize(
    ("weights", "root", "message"),
    [
        (np.zeros((2, 3)), 0, "square"),
        (np.zeros((0, 0)), 0, "square"),
        ([[0, 1], [2, 0]], 0, "symmetric"),
        ([[0, np.nan], [np.nan, 0]], 0, "finite"),
        (np.zeros((2, 2)), 2, "root must be a feature index from 0 to 1, got 2"),
        (np.zeros((2, 2)), -1, "root"),
        (np.zeros((2, 2)), 0.5, "root"),
    ],
)
def test_chow_liu_names_what_is_wrong(weights, root, message):
    with pytest.raises(ValueError, match=message):
        chow_liu_parents(weights, root=root)


@given(n_features=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_random_parents_are_earlier_features_and_follow_the_seed(n_features, seed):
    parents = random_parents(n_features, seed)
    assert parents[0] == -1
    assert all(0 <= p < i for i, p in enumerate(parents[1:], start=1))
    assert np.array_equal(parents, random_parents(n_features, seed))


def test_random_parents_reach_every_earlier_feature():
    draws = np.array([random_parents(4, seed) for seed in range(200)])
    assert [set(column) for column in draws.T] == [{-1}, {0}, {0, 1}, {0, 1, 2}]


@pytest.mark.parametrize("n_features", [0, 2.5, "3"])
def test_random_parents_need_a_positive_number_of_features(n_features):
    with pytest.raises(ValueError, match="n_features must be a positive integer"):
        random_parents(n_features)


@pytest.mark.parametrize(
    ("parents", "error", "message"),
    [
        ([-1, 0], ValueError, r"shape \(3,\)"),
        ([-1, 0, 1.0], TypeError, "must be integers"),
        (
            [-1, 0, 3],
            ValueError,
            r"parents\[2\] must be -1 .none., -2 .no table. or another feature from 0 to 2, got 3",
        ),
        ([-3, 0, 1], ValueError, r"parents\[0\]"),
        ([-2, -2, -2], ValueError, "at least one feature with a table"),
        ([-1, 1, 0], ValueError, r"parents\[1\]"),
        ([1, 2, 0], ValueError, "cycle"),
        ([-1, 2, 1], ValueError, "cycle; feature [12]"),
    ],
)
def test_check_parents_names_what_is_wrong(parents, error, message):
    with pytest.raises(error, match=message):
        check_parents(parents, 3)


def test_check_parents_takes_chains_forests_and_copies():
    given_parents = np.array([1, 2, 3, -1, -1], dtype=np.int8)
    parents = check_parents(given_parents, 5)
    assert parents.dtype == np.int64
    assert parents.tolist() == [1, 2, 3, -1, -1]


# ---------------------------------------------------------------------------------------------------------------------
# Counts of a tree


@settings(max_examples=60, deadline=None)
@given(table=tables(weighted=True), use_weights=st.booleans(), n_jobs=st.sampled_from([1, 2]), seed=st.integers(0, 99))
def test_joint_counts_equal_counting_row_by_row(table, use_weights, n_jobs, seed):
    codes, y, n_states, weights = table
    parents = random_parents(len(n_states), seed)
    parents[np.random.default_rng(seed).random(len(parents)) < 0.3] = -1
    with small_blocks():
        counts = joint_counts(codes, y, parents, n_states, 6, weights if use_weights else None, n_jobs)
    expected = brute_force_counts(codes, y, parents, n_states, 6, weights if use_weights else np.ones(len(y)))
    for table_, expected_table in zip(counts, expected, strict=True):
        assert table_.shape == expected_table.shape
        np.testing.assert_array_equal(table_, expected_table)


def test_joint_counts_of_no_rows_and_of_features_without_states():
    own, child = joint_counts(np.zeros((0, 2), np.uint8), np.zeros(0, int), [-1, 0], [2, 3], 2)
    assert own.shape == (2, 2)
    assert child.shape == (3, 2, 2)
    assert not child.any()
    none, orphan = joint_counts(np.zeros((3, 2), np.uint8), [0, 1, 1], [-1, 0], [0, 3], 2)
    assert none.shape == (0, 2)
    assert orphan.shape == (3, 0, 2)


def test_joint_counts_check_parents():
    with pytest.raises(ValueError, match="cycle"):
        joint_counts(CODES, [0, 1, 0, 1], [1, 0], [2, 2])
