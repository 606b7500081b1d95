"""Coalitions to evaluate: permutations, inclusion levels, and pairs (a coalition and its complement) by size.

A coalition is a row of booleans, True for the players present. Samplers know nothing of values or estimates.
"""

from itertools import combinations

import numpy as np
from scipy.special import comb

ENUMERATE_UP_TO = 1 << 14
"""Sizes with fewer subsets than this are listed and shuffled; larger ones are drawn until distinct."""

FEW_PAIRS = 200
"""Fewer pairs than this may be spent on the whole of size 2, see `layered_counts`."""


def all_coalitions(n_players):
    """Return every coalition, bool (2**n_players, n_players): row number = sum of 2**player over those present."""
    numbers = np.arange(1 << n_players, dtype=np.int64)[:, None]
    return (numbers >> np.arange(n_players)) & 1 == 1


def permutations(n_players, n_permutations, rng):
    """Return random orders of the players, int64 (n_permutations, n_players)."""
    return rng.permuted(np.tile(np.arange(n_players), (n_permutations, 1)), axis=1)


def prefixes(order):
    """Return who has arrived after each player of each order, itself included, bool (n_orders, n_players, n_players).

    Entry [r, i] is the coalition of player i and those before it in order r.
    """
    rank = np.argsort(order, axis=1)
    return rank[:, None, :] <= rank[:, :, None]


def draw_at_levels(levels, n_players, rng):
    """Return one coalition a level q, every player present with probability q: bool (n_levels, n_players)."""
    return rng.random((len(levels), n_players)) < np.asarray(levels)[:, None]


def jittered_levels(n_levels, rng):
    """Return one level in each of n_levels equal parts of [0, 1/2]; their mirror images 1 - q fill the other half."""
    return (np.arange(n_levels) + rng.random(n_levels)) / (2 * n_levels)


def gauss_levels(n_levels):
    """Return the Gauss-Legendre nodes of [0, 1] that lie in [0, 1/2], and the weights of the mirrored pairs (sum 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(n_levels)
    half = (n_levels + 1) // 2
    weights = weights[:half].copy()
    if n_levels % 2:
        weights[-1] /= 2
    return (nodes[:half] + 1) / 2, weights


def pairs_of_size(n_players):
    """Return the number of distinct pairs (S, complement) with a side of size 1, 2, ..., n // 2, as floats."""
    sizes = np.arange(1, n_players // 2 + 1)
    counts = comb(n_players, sizes)
    if n_players % 2 == 0 and n_players:
        counts[-1] /= 2
    return counts


def leverage_counts(n_players, n_pairs):
    """Return how many pairs of each size to draw so that all leverage scores 1 / C(n, size) count the same.

    Every size gets the same number (half of it at n / 2), as far as it has that many (Musco and Witter, ICLR 2025).
    """
    available = pairs_of_size(n_players)
    share = np.ones(len(available))
    if n_players % 2 == 0:
        share[-1] = 0.5
    return _share_out(available, share, n_pairs)


def border_counts(n_players, n_pairs):
    """Return pair counts that exhaust sizes 1, 2, ... while they fit, then follow the kernel 1 / (size (n - size))."""
    available = pairs_of_size(n_players)
    counts = np.zeros(len(available), dtype=np.int64)
    first = 0
    while first < len(available) and available[first] <= n_pairs - counts.sum():
        counts[first] = available[first]
        first += 1
    sizes = np.arange(1, len(available) + 1)
    share = 1 / (sizes * (n_players - sizes))
    if n_players % 2 == 0:
        share[-1] /= 2
    if first < len(available):
        counts[first:] = _share_out(available[first:], share[first:], n_pairs - counts.sum())
    return counts


def layered_counts(n_players, n_pairs):
    """Return pair counts that exhaust size 1, where it pays also size 2, and then follow leverage.

    Whole layers of sizes 1 and 2 fix the Shapley values of games whose interactions go no higher than 4, whatever the
    prior; but then fewer pairs are left to see higher interactions, and many pairs resolve order 3 in any layer. Size 2
    is exhausted where this leaves a quarter of the pairs, and they are fewer than half the odd terms of order 3 and
    than 200 (measured on the games of benchmarks/shapley_accuracy.py).
    """
    available = pairs_of_size(n_players)
    n_pairs = int(min(n_pairs, available.sum()))
    counts = np.zeros(len(available), dtype=np.int64)
    scarce = n_pairs < min((n_players + comb(n_players, 3)) / 2, FEW_PAIRS)
    for size in range(min(2 if scarce else 1, len(available))):
        if counts.sum() + available[size] > 0.75 * n_pairs:
            break
        counts[size] = available[size]
    first = np.count_nonzero(counts)
    share = np.ones(len(available) - first)
    if n_players % 2 == 0 and len(share):
        share[-1] = 0.5
    if len(share):
        counts[first:] = _share_out(available[first:], share, n_pairs - counts.sum())
    return counts


def _share_out(available, share, n_pairs):
    """Return integer counts <= available, near-proportional to share where there is enough, with the given sum."""
    n_pairs = int(min(n_pairs, available.sum()))
    low, high = 0.0, n_pairs / share.min()
    for _ in range(200):
        level = (low + high) / 2
        if np.minimum(available, level * share).sum() < n_pairs:
            low = level
        else:
            high = level
    wanted = np.minimum(available, high * share)
    counts = np.floor(wanted + 1e-9).astype(np.int64)
    for size in np.argsort(counts - wanted, kind="stable"):
        if counts.sum() == n_pairs:
            break
        counts[size] += counts[size] < available[size]
    return counts


def paired_coalitions(n_players, counts, seed):
    """Draw distinct coalitions, one side of each pair.

    Parameters
    ----------
    n_players : int
    counts : int array
        Number of pairs with a side of size 1, 2, ..., n_players // 2.
    seed : sequence of int
        Every size has its own stream, so a larger count keeps the coalitions of a smaller one.

    Returns
    -------
    coalitions : bool array (sum of counts, n_players)
        The smaller side of each pair, sizes in increasing order.
    """
    available = pairs_of_size(n_players)
    parts = [np.zeros((0, n_players), dtype=bool)]
    for size, count in enumerate(counts, start=1):
        if count:
            rng = np.random.default_rng([*seed, size])
            draw = _listed if available[size - 1] <= ENUMERATE_UP_TO else _rejected
            parts.append(draw(n_players, size, int(count), rng))
    return np.concatenate(parts)


def starred_pairs(n_players, n_pairs, seed):
    """Draw distinct coalitions, one side of each pair: size 1, a random half with all its neighbours, then by leverage.

    The two stars tell every player's marginal contribution at both ends and in the middle of the multilinear extension,
    which serves better than scattered pairs as long as there are few.

    Parameters
    ----------
    n_players : int
    n_pairs : int
        At least 2 n_players + 1.
    seed : sequence of int

    Returns
    -------
    coalitions : bool array (n_pairs, n_players)
        The smaller side of each pair.
    """
    rng = np.random.default_rng([*seed, 0])
    players = np.eye(n_players, dtype=bool)
    half = np.zeros((1, n_players), dtype=bool)
    half[0, rng.permutation(n_players)[: n_players // 2]] = True
    scattered = paired_coalitions(n_players, leverage_counts(n_players, n_pairs), seed)
    drawn = np.concatenate([players, half, half ^ players, rng.permutation(scattered)])
    size = drawn.sum(axis=1)
    drawn ^= ((2 * size > n_players) | ((2 * size == n_players) & drawn[:, 0]))[:, None]
    _, first = np.unique(np.packbits(drawn, axis=1), axis=0, return_index=True)
    return drawn[np.sort(first)[:n_pairs]]


def _listed(n_players, size, count, rng):
    first = 1 if 2 * size == n_players else 0  # of two halves, take the one without player 0
    subsets = np.array(list(combinations(range(first, n_players), size)), dtype=np.int64)
    out = np.zeros((count, n_players), dtype=bool)
    np.put_along_axis(out, subsets[rng.permutation(len(subsets))[:count]], True, axis=1)
    return out


def _rejected(n_players, size, count, rng):
    kept, seen = [], set()
    while len(kept) < count:
        # A fixed block: the stream must not depend on the count.
        keys = rng.random((256, n_players))
        for chosen in np.argpartition(keys, size - 1, axis=1)[:, :size]:
            subset = np.zeros(n_players, dtype=bool)
            subset[chosen] = True
            if 2 * size == n_players and subset[0]:
                subset = ~subset
            key = np.packbits(subset).tobytes()
            if key not in seen:
                seen.add(key)
                kept.append(subset)
    return np.array(kept[:count])
