"""Mined snippets are the frequent connected pieces of the trees, no more and no less."""

from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from effml._trees import trees_of
from effml.forests.mining import absolute_support, mine_snippets, split_balance


def as_tuples(trees, missing_right=False):
    """Write every tree as nested tuples (feature, threshold[, missing_right], left, right), None for a leaf."""

    def nested(node):
        if node < 0:
            return None
        test = int(trees.feature[node]), float(trees.threshold[node])
        test += (bool(trees.missing_right[node]),) if missing_right else ()
        return (*test, *(nested(child) for child in trees.children[node].tolist()))

    return [nested(root) for root in trees.roots.tolist()]


def n_splits(piece):
    return 0 if piece is None else 1 + n_splits(piece[-2]) + n_splits(piece[-1])


def pieces_from(node, largest):
    """All connected pieces with this root, of at most `largest` splits."""
    if node is None or largest == 0:
        return
    lefts = [None, *pieces_from(node[-2], largest - 1)]
    rights = [None, *pieces_from(node[-1], largest - 1)]
    for left in lefts:
        for right in rights:
            if 1 + n_splits(left) + n_splits(right) <= largest:
                yield (*node[:-2], left, right)


def nodes_of(node):
    if node is not None:
        yield node
        yield from nodes_of(node[-2])
        yield from nodes_of(node[-1])


def counted(trees, largest, missing_right=False):
    """Support of every piece of the trees, by definition."""
    support = Counter()
    for tree in as_tuples(trees, missing_right):
        support.update({piece for node in nodes_of(tree) for piece in pieces_from(node, largest)})
    return support


def mined(snippets, missing_right=False):
    pieces = as_tuples(snippets.trees, missing_right)
    assert len(set(pieces)) == len(pieces)
    return dict(zip(pieces, snippets.support.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(200))
def test_patterns_and_supports_equal_brute_force(seed, random_trees):
    rng = np.random.default_rng(seed)
    trees = random_trees(rng, int(rng.integers(1, 7)), depth=int(rng.integers(1, 5)))
    largest, min_support = int(rng.integers(1, 7)), int(rng.integers(1, 4))
    tell_apart = bool(rng.integers(2))
    missing_features = np.ones(2, dtype=bool) if tell_apart else None
    snippets = mine_snippets(
        trees, min_support=min_support, max_pattern_size=largest, missing_features=missing_features
    )
    expected = {p: n for p, n in counted(trees, largest, tell_apart).items() if n >= min_support}
    assert mined(snippets, tell_apart) == expected
    assert [n_splits(piece) + 1 for piece in as_tuples(snippets.trees)] == snippets.n_exits.tolist()
    assert (np.diff(snippets.support) <= 0).all()


@pytest.fixture(scope="module")
def iris_trees():
    X, y = load_iris(return_X_y=True)
    return trees_of(RandomForestClassifier(30, random_state=0).fit(np.round(X), y))


def test_forest_of_scikit_learn_equals_brute_force(iris_trees):
    snippets = mine_snippets(iris_trees, min_support=2, max_pattern_size=4)
    assert mined(snippets) == {p: n for p, n in counted(iris_trees, 4).items() if n >= 2}
    assert snippets.n_exits.max() == 5


def test_higher_support_gives_the_first_snippets(iris_trees):
    lowest = mine_snippets(iris_trees, min_support=1)
    for support in range(2, 31):
        snippets = mine_snippets(iris_trees, min_support=support)
        first = lowest.subset(np.arange(len(snippets)))
        assert as_tuples(snippets.trees) == as_tuples(first.trees)
        assert (lowest.support >= support).sum() == len(snippets)


def contains(piece, part):
    """Whether `part` is a connected piece of `piece`, not necessarily at its root."""
    return any(contains_here(node, part) for node in nodes_of(piece))


def contains_here(piece, part):
    if part is None:
        return True
    if piece is None or piece[:2] != part[:2]:
        return False
    return contains_here(piece[-2], part[-2]) and contains_here(piece[-1], part[-1])


@pytest.mark.parametrize("seed", range(20))
def test_closed_and_maximal_by_definition(seed, random_trees):
    trees = random_trees(np.random.default_rng(seed), 4, n_thresholds=3)
    given = {"min_support": 2, "max_pattern_size": 4}
    every = mined(mine_snippets(trees, **given))
    above = {p: [q for q in every if q != p and contains(q, p)] for p in every}
    closed = {p: n for p, n in every.items() if all(every[q] < n for q in above[p])}
    maximal = {p: n for p, n in every.items() if not above[p]}
    assert mined(mine_snippets(trees, pattern_filter="closed", **given)) == closed
    assert mined(mine_snippets(trees, pattern_filter="maximal", **given)) == maximal


def test_splits_that_are_not_usable_take_no_part(iris_trees):
    usable = iris_trees.feature != 2
    snippets = mine_snippets(iris_trees, usable=usable)
    assert 2 not in snippets.trees.feature
    every = mined(mine_snippets(iris_trees))
    assert mined(snippets) == {p: n for p, n in every.items() if all(node[0] != 2 for node in nodes_of(p))}


def test_nothing_frequent_gives_no_snippet(iris_trees):
    snippets = mine_snippets(iris_trees, min_support=31)
    assert len(snippets) == 0
    assert snippets.n_exits.tolist() == []


def test_size_is_bounded_by_the_trees_alone():
    X, y = load_iris(return_X_y=True)
    trees = trees_of(RandomForestClassifier(1, random_state=0).fit(np.round(X * 2), y))
    snippets = mine_snippets(trees, min_support=1, max_pattern_size=255)
    assert snippets.n_exits.max() == trees.n_leaves
    assert as_tuples(trees)[0] in as_tuples(snippets.trees)


@pytest.mark.parametrize(("given", "trees", "expected"), [(7, 10, 7), (0.3, 10, 3), (0.31, 10, 4), (0.01, 10, 1)])
def test_support_as_a_share_is_rounded_up(given, trees, expected):
    assert absolute_support(given, trees) == expected


def test_balance_counts_the_rows_of_a_split():
    X, y = load_iris(return_X_y=True)
    forest = RandomForestClassifier(3, bootstrap=False, random_state=0).fit(X, y)
    trees = trees_of(forest)
    balance = split_balance(trees, X)
    expected = []
    for tree in (est.tree_ for est in forest.estimators_):
        inner = tree.children_left >= 0
        left = tree.n_node_samples[tree.children_left[inner]]
        right = tree.n_node_samples[tree.children_right[inner]]
        expected.extend(np.minimum(left, right) / (left + right))
    np.testing.assert_allclose(balance, expected)
    np.testing.assert_allclose(split_balance(trees, X, np.full(150, 0.5)), balance)
