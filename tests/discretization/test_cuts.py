"""The cuts are those of Fayyad and Irani's criterion, checked against a reference written from its definition."""

import math
import warnings
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from effml.discretization import MDLPDiscretizer
from effml.discretization._cuts import _log2_of_3_to_k_less_2, cut_between

TIE = 1e-9


def entropy(classes):
    return -sum(count / len(classes) * math.log2(count / len(classes)) for count in Counter(classes).values())


def best_reference_cut(rows):
    """Return (left, right, reduction in bits) of the lowest best cut of rows (value, class); None: no cut."""
    rows = sorted(rows)
    n, best = len(rows), None
    for i in range(1, n):
        if rows[i - 1][0] == rows[i][0]:
            continue
        left, right = [c for _, c in rows[:i]], [c for _, c in rows[i:]]
        cost = (i * entropy(left) + (n - i) * entropy(right)) / n
        if best is None or cost < best[0] - TIE:
            best = (cost, i, left, right)
    if best is None:
        return None
    cost, i, s1, s2 = best
    s = s1 + s2
    k, k1, k2 = len(set(s)), len(set(s1)), len(set(s2))
    gain = entropy(s) - cost
    delta = math.log2(3**k - 2) - (k * entropy(s) - k1 * entropy(s1) - k2 * entropy(s2))
    threshold = (math.log2(n - 1) + delta) / n
    assume(abs(gain - threshold) > TIE)  # rounding decides
    return (rows[:i], rows[i:], n * gain) if gain > threshold else None


def reference_cuts(values, classes, max_bins=None):
    segments = [sorted(zip(values, classes, strict=True))]
    while max_bins is None or len(segments) < max_bins:
        found = [(i, best_reference_cut(rows)) for i, rows in enumerate(segments) if rows]
        found = [(cut[2], -i, cut) for i, cut in found if cut]
        if not found:
            break
        # The largest reduction; of (nearly) equal ones that of the lowest segment.
        largest = max(reduction for reduction, _, _ in found)
        _, minus_i, (left, right, _) = max((f for f in found if f[0] > largest - TIE), key=lambda f: f[1])
        segments[-minus_i : -minus_i + 1] = [left, right]
    return [(a[-1][0] + b[0][0]) / 2 for a, b in pairwise(segments)]


@st.composite
def samples(draw):
    """Draw values, classes and weights in which values tell something about the class, with ties in values."""
    n_classes = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 120))
    n_values = draw(st.integers(1, 30))
    values = rng.integers(0, n_values, n)
    classes = (values * n_classes * draw(st.integers(1, 3)) // n_values) % n_classes
    noisy = rng.random(n) < draw(st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]))
    classes[noisy] = rng.integers(0, n_classes, noisy.sum())
    weights = rng.integers(0, 4, n) if draw(st.booleans()) else np.ones(n, dtype=int)
    assume(weights.any())
    return values, classes, weights


# Every dtype takes one of the two ways in (counting, sorting); the thirds have no exact float64.
FORMS = {
    "counted": lambda values: values.astype(np.uint8),
    "counted, from below 0": lambda values: values.astype(np.float32) - 7,
    "sorted": lambda values: values / 3,
    "sorted, wide integers": lambda values: values * 1_000_003 - 5_000_000,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("max_bins", [None, 2, 3, 5])
@settings(max_examples=60, deadline=None)
@given(sample=samples())
def test_cuts_equal_the_reference(form, max_bins, sample):
    values, classes, weights = sample
    X = FORMS[form](values)
    discretizer = MDLPDiscretizer(max_bins=max_bins).fit(X[:, None], classes, sample_weight=weights)
    expected = reference_cuts(np.repeat(X, weights).tolist(), np.repeat(classes, weights).tolist(), max_bins)
    np.testing.assert_allclose(discretizer.bin_edges_[0], expected, rtol=1e-15, atol=0)


@settings(max_examples=60, deadline=None)
@given(sample=samples(), scale=st.sampled_from([0.25, 1.0, 1.75]))
def test_fractional_weights_equal_the_weighted_criterion(sample, scale):
    """Scaled weights: entropies keep their values, only n changes in log2(n - 1) and the stop's 1 / n."""
    values, classes, weights = sample
    weights = weights * scale
    edges = MDLPDiscretizer(max_bins=2).fit(values[:, None], classes, sample_weight=weights).bin_edges_[0]

    def bits(chosen):
        counts = np.bincount(classes[chosen], weights[chosen])
        counts = counts[counts > 0]
        return counts.sum(), len(counts), float(-(counts * np.log2(counts / counts.sum())).sum())

    levels = np.unique(values[weights > 0])
    candidates = [(a + b) / 2 for a, b in pairwise(levels)]
    if not candidates:
        assert edges.size == 0
        return
    costs = np.array([bits(values <= cut)[2] + bits(values > cut)[2] for cut in candidates])
    best = candidates[int(np.flatnonzero(costs <= costs.min() + TIE)[0])]
    (n, k, h), (n1, k1, h1), (n2, k2, h2) = bits(values > -1), bits(values <= best), bits(values > best)
    delta = math.log2(3**k - 2) - (k * h / n - k1 * h1 / n1 - k2 * h2 / n2)
    surplus = (h - h1 - h2) - math.log2(max(n - 1, 1)) - delta
    assume(abs(surplus) > TIE)
    assert edges.tolist() == ([best] if surplus > 0 else [])


def test_equally_good_cuts_take_the_lowest():
    # 0 | 1 | 0: both cuts leave the same entropy; the lower one is made first.
    X = np.repeat([0, 1, 2], 40)[:, None]
    y = np.repeat([0, 1, 0], 40)
    assert MDLPDiscretizer(max_bins=2).fit(X, y).bin_edges_[0].tolist() == [0.5]
    assert MDLPDiscretizer(max_bins=2).fit(X, 1 - y).bin_edges_[0].tolist() == [0.5]
    assert MDLPDiscretizer().fit(X, y).bin_edges_[0].tolist() == [0.5, 1.5]


def test_max_bins_keeps_the_cuts_that_remove_most_entropy():
    # Bits removed after the first cut at 3.5: the right half's cut is worth more than the left half's.
    X = np.repeat(np.arange(8), 100)[:, None]
    y = np.repeat([0, 0, 0, 1, 2, 2, 3, 3], 100)
    y[:50] = 4
    cuts = [set(MDLPDiscretizer(max_bins=m).fit(X, y).bin_edges_[0]) for m in (2, 3, 4, 5)]
    assert [len(c) for c in cuts] == [1, 2, 3, 4]
    assert cuts[0] < cuts[1] < cuts[2] < cuts[3]
    assert 5.5 in cuts[1]


def test_more_classes_than_powers_of_three_fit_in_a_double():
    k = 30
    assert _log2_of_3_to_k_less_2(k) == pytest.approx(math.log2(3**k - 2), rel=1e-15)
    assert _log2_of_3_to_k_less_2(1) == pytest.approx(0, abs=1e-15)
    X = np.repeat(np.arange(800), 3)[:, None].astype(float)
    assert MDLPDiscretizer().fit(X, X[:, 0]).n_states_[0] >= 1


def test_huge_and_tiny_weights_are_fine():
    X = np.repeat([0, 1], 20)[:, None]
    for scale in (1e-6, 1e-300, 1e300):
        edges = MDLPDiscretizer().fit(X, X[:, 0], sample_weight=np.full(40, scale)).bin_edges_[0]
        assert edges.tolist() == ([0.5] if scale > 1 else [])


float64 = st.floats(allow_nan=False, allow_infinity=False)


# Float32 is coarser above 1 than below: both neighbours lie nearer to 1 - 2^-24 and 1, their midpoint above 1.
@example(a=1 - 1.5 * 2.0**-25, b=1 + 1.8 * 2.0**-25)
@example(a=-1 - 1.8 * 2.0**-25, b=-1 + 1.5 * 2.0**-25)
@given(a=float64, b=float64)
def test_cut_lies_between_its_neighbours_also_in_float32(a, b):
    a, b = sorted((a, b))
    assume(a < b)
    cut = cut_between(a, b)
    assert a <= cut < b
    assert not (cut == 0 and math.copysign(1, cut) < 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        a32, b32 = np.float32(a), np.float32(b)
        cut32 = np.float32(cut)
        cut32 = np.nextafter(cut32, np.float32(-np.inf)) if float(cut32) > cut else cut32
    if a32 < b32:
        assert a32 <= cut32 < b32


@given(a=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_adjacent_floats_are_separated(a):
    a32 = np.float32(a)
    with np.errstate(over="ignore"):
        b32 = np.nextafter(a32, np.float32(np.inf))
    assume(np.isfinite(b32))
    assert float(a32) <= cut_between(float(a32), float(b32)) < float(b32)
    b = np.nextafter(a, np.inf)
    assert cut_between(a, float(b)) == a


def test_midpoint_of_extreme_values_does_not_overflow():
    largest = float(np.finfo(np.float64).max)
    assert cut_between(-largest, largest) == 0
    assert cut_between(largest / 2, largest) == 0.75 * largest
