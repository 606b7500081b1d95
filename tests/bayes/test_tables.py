"""The scoring kernel against plain numpy, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import effml.bayes.tables as tables_module
from effml.bayes.encoding import as_codes
from effml.bayes.tables import ScoreTable, codes_dtype


@st.composite
def models(draw):
    """Return prior, tables, parents, n_states and codes, among them codes past the last state."""
    n_features = draw(st.integers(1, 6))
    n_classes = draw(st.sampled_from([1, 2, 3, 7, 8, 9, 17, 26, 33, 40, 65]))
    n_states = np.array(draw(st.lists(st.integers(1, 5), min_size=n_features, max_size=n_features)))
    if draw(st.booleans()):
        n_states[draw(st.integers(0, n_features - 1))] = 300  # codes need 16 bits
    parents = np.array([draw(st.integers(-1, i - 1)) for i in range(n_features)])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = [(r, n_classes) if p < 0 else (r, n_states[p], n_classes) for r, p in zip(n_states, parents, strict=True)]
    tables = [-rng.exponential(3.0, shape).astype(np.float32) for shape in shapes]
    prior = -rng.exponential(3.0, n_classes).astype(np.float32)
    codes = rng.integers(0, n_states + 2, (draw(st.integers(0, 40)), n_features)).astype(codes_dtype(n_states + 1))
    return prior, tables, parents, n_states, codes


def reference_scores(prior, tables, parents, n_states, codes):
    out = np.empty((len(codes), len(prior)), dtype=np.float32)
    for n, row in enumerate(codes.astype(int)):
        score = prior.copy()
        for i, table in enumerate(tables):
            read = [i] if parents[i] < 0 else [i, parents[i]]
            if all(row[j] < n_states[j] for j in read):
                score = score + table[tuple(row[read])]
        out[n] = score
    return out


@settings(deadline=None)
@given(models(), st.booleans())
def test_scores_equal_numpy_bit_for_bit(model, portable):
    prior, tables, parents, n_states, codes = model
    table = ScoreTable(prior, tables, parents, n_states)
    expected = reference_scores(prior, tables, parents, n_states, codes)
    scores = table.scores(codes, portable=portable)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores.view(np.uint32), expected.view(np.uint32))
    np.testing.assert_array_equal(table.argmax(codes, portable=portable), expected.argmax(axis=1))


@pytest.mark.parametrize("n_threads", [2, 3, 7])
def test_scores_do_not_depend_on_the_number_of_threads(n_threads, monkeypatch):
    monkeypatch.setattr(tables_module, "_THREAD_NS", 1.0)  # else so little work stays on one thread
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(4, 5)).astype(np.float32) for _ in range(9)]
    table = ScoreTable(np.zeros(5), tables, np.full(9, -1), np.full(9, 4))
    codes = rng.integers(0, 5, (9_001, 9)).astype(np.uint8)
    assert len(table._scratch(codes, n_threads)) == n_threads
    np.testing.assert_array_equal(table.scores(codes, n_threads=n_threads), table.scores(codes))
    np.testing.assert_array_equal(table.argmax(codes, n_threads=n_threads), table.argmax(codes))


def test_ties_go_to_the_first_class():
    table = ScoreTable(np.zeros(20), [np.tile([0, 0, 7, 1, 7], (1, 4))], np.array([-1]), np.array([1]))
    assert table.argmax(np.zeros((3, 1), dtype=np.uint8)).tolist() == [2, 2, 2]


def test_codes_may_come_in_any_memory_order():
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(4, 3)).astype(np.float32) for _ in range(5)]
    table = ScoreTable(np.zeros(3), tables, np.full(5, -1), np.full(5, 4))
    codes = rng.integers(0, 4, (40, 5)).astype(np.uint8)
    np.testing.assert_array_equal(table.scores(np.asfortranarray(codes)[::2]), table.scores(codes[::2].copy()))


@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.int8, np.uint16, np.uint8, np.float16, np.bool_]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5),
    ),
    st.sampled_from([1, 2, 5, 200, 255, 256, 65_535]),
)
@settings(deadline=None)
def test_only_integers_in_range_are_codes(values, states):
    n_states = np.full(values.shape[1], states, dtype=np.int64)
    codes = as_codes(values, n_states)
    assert codes.dtype == codes_dtype(n_states)
    for value, code in zip(values.ravel().tolist(), codes.ravel().tolist(), strict=True):
        if value == value and 0 <= value < states and value == int(value):
            assert code == value
        else:
            assert code >= states  # missing; a value that is unsigned already may stay as it is
