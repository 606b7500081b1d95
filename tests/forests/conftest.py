"""Random trees, built without any forest library."""

import numpy as np
import pytest

from effml._trees import Trees


def _grown(rng, depth, n_features, n_thresholds):
    if depth == 0 or rng.random() < 0.25:
        return None
    test = int(rng.integers(n_features)), float(rng.integers(n_thresholds)) + 0.5, bool(rng.integers(2))
    return (*test, _grown(rng, depth - 1, n_features, n_thresholds), _grown(rng, depth - 1, n_features, n_thresholds))


def _numbered(node, splits, leaves):
    if node is None:
        leaves.append(len(leaves))
        return ~leaves[-1]
    number = len(splits)
    splits.append(None)
    left = _numbered(node[3], splits, leaves)
    splits[number] = (*node[:3], left, _numbered(node[4], splits, leaves))
    return number


@pytest.fixture(scope="session")
def random_trees():
    """Return a function (rng, n_trees, ...) -> Trees whose leaves are told apart by their value."""

    def make(rng, n_trees=5, *, depth=4, n_features=2, n_thresholds=2):
        splits, leaves, roots = [], [], []
        for _ in range(n_trees):
            roots.append(_numbered(_grown(rng, depth, n_features, n_thresholds), splits, leaves))
        columns = list(zip(*splits, strict=True)) or [[]] * 5
        return Trees(
            feature=np.array(columns[0], dtype=np.int64),
            threshold=np.array(columns[1], dtype=np.float64),
            children=np.array(columns[3:], dtype=np.int64).reshape(2, -1).T,
            missing_right=np.array(columns[2], dtype=bool),
            roots=np.array(roots, dtype=np.int64),
            value=np.arange(len(leaves), dtype=np.float64)[:, None],
        )

    return make
