"""Samplers of coalitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import comb

from effml.shapley import samplers


@settings(max_examples=40, deadline=None)
@given(n_players=st.integers(2, 40), n_pairs=st.integers(0, 400))
def test_counts_spend_the_pairs_and_never_exceed_what_exists(n_players, n_pairs):
    available = samplers.pairs_of_size(n_players)
    assert available.sum() == 2 ** (n_players - 1) - 1
    for rule in samplers.leverage_counts, samplers.border_counts, samplers.layered_counts:
        counts = rule(n_players, n_pairs)
        assert counts.sum() == min(n_pairs, available.sum())
        assert (counts <= available).all()
        assert (counts >= 0).all()


def test_border_exhausts_small_sizes_first():
    counts = samplers.border_counts(12, 12 + 66 + 50)
    assert list(counts[:2]) == [12, 66]
    assert counts[2:].sum() == 50


@pytest.mark.parametrize(
    ("n_players", "n_pairs", "layers"),
    [
        (13, 129, [13, 78]),  # a quarter and more is left, and 299 terms of order 3 are out of reach
        (13, 110, [13]),  # too few would be left
        (13, 160, [13]),  # enough to resolve order 3 in any layer
        (13, 15, []),
    ],
)
def test_layers_are_exhausted_where_it_pays(n_players, n_pairs, layers):
    counts = samplers.layered_counts(n_players, n_pairs)
    assert list(counts[: len(layers)]) == layers
    assert np.ptp(counts[len(layers) :]) <= 1


def test_leverage_gives_every_size_the_same():
    counts = samplers.leverage_counts(13, 120)
    assert counts[0] == 13  # all there are
    assert np.ptp(counts[1:]) <= 1


@settings(max_examples=20, deadline=None)
@given(n_players=st.integers(2, 26), n_pairs=st.integers(1, 300), seed=st.integers(0, 99))
def test_paired_coalitions_and_complements_are_distinct(n_players, n_pairs, seed):
    counts = samplers.border_counts(n_players, n_pairs)
    halves = samplers.paired_coalitions(n_players, counts, [seed])
    assert np.array_equal(np.bincount(halves.sum(axis=1), minlength=len(counts) + 1)[1:], counts)
    both = np.concatenate([halves, ~halves])
    assert len(np.unique(both, axis=0)) == len(both)


@pytest.mark.parametrize("n_players", [8, 24])
def test_larger_counts_keep_the_coalitions_of_smaller_ones(n_players):
    few, many = np.array([2, 5, 9, 4]), np.array([4, 5, 30, 20])
    small = samplers.paired_coalitions(n_players, few, [1])
    large = samplers.paired_coalitions(n_players, many, [1])
    assert {row.tobytes() for row in small} <= {row.tobytes() for row in large}


def test_prefixes_follow_the_order():
    order = np.array([[2, 0, 1]])
    expected = [[True, False, True], [True, True, True], [False, False, True]]
    np.testing.assert_array_equal(samplers.prefixes(order)[0], expected)


@pytest.mark.parametrize("n_levels", [1, 2, 5, 6])
def test_gauss_levels_integrate_polynomials(n_levels):
    levels, weights = samplers.gauss_levels(n_levels)
    assert (levels <= 0.5).all()
    for degree in range(2 * n_levels):
        pairs = (levels**degree + (1 - levels) ** degree) / 2
        assert weights @ pairs == pytest.approx(1 / (degree + 1))


def test_jittered_levels_lie_in_their_parts():
    levels = samplers.jittered_levels(8, np.random.default_rng(0))
    np.testing.assert_array_equal(np.floor(levels * 16), np.arange(8))


def test_all_coalitions_are_numbered_by_their_bits():
    coalitions = samplers.all_coalitions(6)
    np.testing.assert_array_equal(coalitions @ (1 << np.arange(6)), np.arange(64))
    np.testing.assert_array_equal(np.bincount(coalitions.sum(axis=1)), comb(6, np.arange(7)))


@settings(max_examples=20, deadline=None)
@given(n_players=st.integers(6, 60), seed=st.integers(0, 99))
def test_stars_hold_all_neighbours_of_their_centres(n_players, seed):
    n_pairs = 5 * n_players // 2
    halves = samplers.starred_pairs(n_players, n_pairs, [seed])
    assert halves.shape == (n_pairs, n_players)
    both = {row.tobytes() for row in np.concatenate([halves, ~halves])}
    assert len(both) == 2 * n_pairs
    players = np.eye(n_players, dtype=bool)
    assert all(row.tobytes() in both for row in players)
    centre = halves[n_players]
    assert 2 * abs(int(centre.sum()) - n_players / 2) <= 1
    assert all(row.tobytes() in both for row in centre ^ players)
