"""The steps of itemset models: what they promise one by one."""

import numpy as np
import pytest

from effml.program import Buffer
from effml.program.steps import ItemsetMatch, SquareRoot


def itemsets(columns, masks, sizes):
    return ItemsetMatch(
        inputs=("code",),
        output=Buffer("miss", "u8", len(sizes)),
        columns=np.array(columns),
        masks=np.array(masks, dtype=np.uint32),
        sizes=np.array(sizes),
    )


def test_an_itemset_matches_where_all_its_conditions_hold():
    step = itemsets([0, 1, 1], [0b011, 0b100, 0b001], [2, 1])
    codes = np.array([[0, 2], [1, 2], [2, 2], [0, 0], [32, 0], [0, 255]], dtype=np.uint8)
    assert step.run(codes).tolist() == [[0, 1], [0, 1], [1, 1], [1, 0], [1, 0], [1, 1]]


@pytest.mark.parametrize(
    "n_columns, mask_bits, word", [(1, 15, 16), (1, 16, 32), (10, 11, 16), (10, 12, 32), (2, 30, 32)]
)
def test_words_are_as_narrow_as_column_mark_and_mask_allow(n_columns, mask_bits, word):
    assert itemsets([n_columns - 1], [1 << (mask_bits - 1)], [1]).word_bits == word


def test_impossible_itemsets_are_refused():
    with pytest.raises(ValueError, match="each at least 1"):
        itemsets([0], [1], [1, 0])
    with pytest.raises(ValueError, match="sizes add up to 3"):
        itemsets([0], [1], [3])
    with pytest.raises(ValueError, match="needs 36 bits"):
        itemsets([8], [1 << 30], [1])


def roots(x):
    return SquareRoot(inputs=("x",), output=Buffer("r", "f32", 1)).run(np.asarray(x, dtype=np.float32)[:, None])[:, 0]


def test_roots_are_within_a_unit_in_the_last_place():
    rng = np.random.default_rng(0)
    bits = np.concatenate([rng.integers(0x00800000, 0x7F800000, 1_000_000), 0x7F7FFFFF - np.arange(1000)])
    x = bits.astype(np.uint32).view(np.float32)
    exact = np.sqrt(x.astype(np.float64))
    assert (np.abs(roots(x) - exact) / np.spacing(exact.astype(np.float32))).max() < 0.8


def test_roots_of_odd_numbers():
    x = np.float32([0, -0.0, -1, 1e-40, -np.inf, np.inf, np.nan, 4])
    np.testing.assert_array_equal(roots(x), np.float32([0, 0, 0, 0, 0, np.inf, np.nan, 2]))
    assert not np.signbit(roots(x)).any() or np.isnan(roots(x)[np.signbit(roots(x))]).all()
