"""Structure of tree-augmented naive Bayes: conditional mutual information, maximum spanning tree, counts of the tree.

Friedman, Geiger and Goldszmidt, "Bayesian network classifiers", Machine Learning 29, 1997, after Chow and Liu, 1968.
Symbols: n rows, D features with r_i states each, C classes.
"""

import math
from numbers import Integral

import numpy as np
from joblib import effective_n_jobs
from sklearn.utils import check_random_state

from effml._cext import class_counts
from effml.bayes._pair_information import (
    INCREMENT_NS,
    SORT_NS,
    class_order,
    class_sorted_columns,
    pair_information,
    worthwhile_threads,
)

__all__ = [
    "DROPPED",
    "breadth_first_order",
    "check_parents",
    "chow_liu_parents",
    "conditional_mutual_information",
    "joint_counts",
    "random_parents",
    "table_shapes",
]

DROPPED = -2  # "parent" of a feature that has no table at all


def conditional_mutual_information(
    codes, y, *, n_states, n_classes=None, sample_weight=None, n_jobs=None, method="auto"
):
    """Return the class-conditional mutual information I(X_i; X_j | C) of all pairs of discrete features.

    I(X_i; X_j | C) = sum over a, b, c of p(a, b, c) log[ p(a, b | c) / (p(a | c) p(b | c)) ].
    Relative frequencies without smoothing, natural logarithm, 0 log 0 = 0; what rounding makes negative is set to 0.
    The result is the same, bit for bit, for every `n_jobs`.

    Parameters
    ----------
    codes : ndarray of shape (n_samples, n_features), uint8 or uint16
        State of each feature, 0 to ``n_states[i] - 1``; any larger code means missing.
    y : array-like of shape (n_samples,)
        Classes as integers 0 to ``n_classes - 1``.
    n_states : array-like of shape (n_features,)
        Number of states r_i of each feature.
    n_classes : int, default=None
        Number of classes; None takes ``max(y) + 1``. Classes without rows change nothing.
    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights of the rows; relative frequencies become relative weights.
    n_jobs : int, default=None
        Threads; None means 1 and -1 all processors. Small problems use one thread whatever is asked.
    method : {"auto", "popcount", "rows"}, default="auto"
        How pairs are counted: by bit columns, by lists of the states of each row, or whichever is estimated to be
        faster for each pair. The counts, and so the results, differ by rounding at most (1e-15 or so). Weights need
        "rows", which "auto" then takes.

    Returns
    -------
    cmi : ndarray of shape (n_features, n_features)
        Symmetric, in nats. The diagonal holds H(X_i | C).

    Raises
    ------
    TypeError
        If the codes are neither uint8 nor uint16, or the classes are not integers.
    ValueError
        If shapes disagree, a class is out of range, weights are negative or all zero, or `method` does not fit.

    Notes
    -----
    A pair uses the rows in which both features are present (pairwise deletion), for the joint counts and the margins
    alike; a pair without such rows has 0. The diagonal uses the rows in which its feature is present. With unequal
    weights, the rounding error of a pair is 1e-15 or so times the total weight over the weight of the pair's rows,
    and a pair with less than 1e-9 of all weight has 0.

    Memory beyond the codes and the result: a copy of the codes and 128 MiB at most, or what a single class of n_c rows
    needs if that is more: ``sum(n_states) * n_c / 8`` bytes (popcount), or 16 bytes for every code in it that is not
    its feature's most common one (rows).

    Examples
    --------
    >>> import numpy as np
    >>> from effml.bayes.structure import conditional_mutual_information
    >>> codes = np.array([[0, 0], [1, 1], [0, 1], [1, 0], [0, 0], [1, 1]], dtype=np.uint8)
    >>> y = [0, 0, 0, 0, 1, 1]  # independent in class 0, equal in class 1
    >>> conditional_mutual_information(codes, y, n_states=[2, 2]).round(4)
    array([[0.6931, 0.231 ],
           [0.231 , 0.6931]])
    """
    if method not in ("auto", "popcount", "rows"):
        raise ValueError(f"method must be 'auto', 'popcount' or 'rows', got {method!r}.")
    codes, y, n_states, n_classes, weights = _check_table(codes, y, n_states, n_classes, sample_weight)
    if len(codes) == 0:
        raise ValueError("codes must have at least one row, got 0.")
    if weights is not None:
        codes, y, weights = _drop_weightless(codes, y, weights)
    if weights is not None and method == "popcount":
        raise ValueError("method='popcount' counts rows; unequal sample_weight needs method='rows' or 'auto'.")
    return pair_information(codes, y, n_states, n_classes, weights, method, effective_n_jobs(n_jobs))


def chow_liu_parents(weights, *, root=0, connect=True):
    """Return the parent of each feature in the maximum spanning tree of `weights`, edges pointing away from `root`.

    Ties have one answer: edges are ordered by descending weight and, at equal weight, by (i, j) with i < j, lowest
    first, and the tree is the one Kruskal's algorithm takes in this order. A feature whose weights are all 0 (one with
    a single state, say) is therefore a child of feature 0, or of feature 1 if it is feature 0 itself, unless it is
    the root. The choice of `root` does not change the edges.

    Parameters
    ----------
    weights : array-like of shape (n_features, n_features)
        Symmetric finite weights, such as the conditional mutual information. The diagonal is not read.
    root : int, default=0
        Feature without a parent.
    connect : bool, default=True
        False leaves out the edges of weight 0 or less, which cost parameters and tell nothing: the result is a forest,
        and in each further tree the feature that would have hung on such an edge is the root.

    Returns
    -------
    parents : ndarray of shape (n_features,), int64
        Parent of each feature, -1 for the root (or roots).

    Raises
    ------
    ValueError
        If the weights are not a symmetric finite matrix or `root` is not a feature.

    Notes
    -----
    Chow and Liu, "Approximating discrete probability distributions with dependence trees", IEEE Transactions on
    Information Theory 14, 1968; Friedman, Geiger and Goldszmidt, 1997, for the class-conditional form.

    Examples
    --------
    >>> from effml.bayes.structure import chow_liu_parents
    >>> chow_liu_parents([[0, 3, 1], [3, 0, 2], [1, 2, 0]])
    array([-1,  0,  1])
    >>> chow_liu_parents([[0, 3, 1], [3, 0, 2], [1, 2, 0]], root=2)
    array([ 1,  2, -1])
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or len(weights) == 0:
        raise ValueError(f"weights must be a square matrix with at least one row, got shape {weights.shape}.")
    if not np.isfinite(weights[~np.eye(len(weights), dtype=bool)]).all() or not _is_symmetric(weights):
        raise ValueError("weights must be symmetric and finite off the diagonal.")
    n_features = len(weights)
    if not isinstance(root, Integral) or not 0 <= root < n_features:
        raise ValueError(f"root must be a feature index from 0 to {n_features - 1}, got {root!r}.")
    parents, weight = class_counts.maximum_spanning_tree(np.ascontiguousarray(weights), int(root))
    return parents if connect else np.where(weight > 0, parents, -1)


def _is_symmetric(weights):
    off_diagonal = weights - np.diag(np.diag(weights))
    return np.array_equal(off_diagonal, off_diagonal.T)


def table_shapes(parents, n_states, n_classes) -> list[tuple[int, ...]]:
    """Return the shape of each table: (r_i, C), (r_i, r_parent, C), or (0, C) of a dropped feature."""
    return [
        (0, n_classes) if parent == DROPPED else (r, n_classes) if parent < 0 else (r, int(n_states[parent]), n_classes)
        for r, parent in zip(np.asarray(n_states).tolist(), np.asarray(parents).tolist(), strict=True)
    ]


def breadth_first_order(parents) -> np.ndarray:
    """Return the features, roots first, each after its parent; level by level, lowest index first."""
    parents = np.asarray(parents)
    order = np.flatnonzero(parents < 0).tolist()
    for feature in order:  # grows while it is read
        order += np.flatnonzero(parents == feature).tolist()
    return np.array(order, dtype=np.int64)


def random_parents(n_features, random_state=None):
    """Return a random tree: feature 0 is the root, every other feature has a uniformly drawn earlier one as parent.

    Parameters
    ----------
    n_features : int
        Number of features, at least 1.
    random_state : int, RandomState instance or None, default=None
        Seed or generator.

    Returns
    -------
    parents : ndarray of shape (n_features,), int64
        Parent of each feature, -1 for feature 0.

    Raises
    ------
    ValueError
        If `n_features` is not a positive integer.

    Notes
    -----
    "TAN Random" of Roth, Schindler, Fröning and Pernkopf, ICPR 2020, in the order of the features as given.

    Examples
    --------
    >>> from effml.bayes.structure import random_parents
    >>> random_parents(5, random_state=0)
    array([-1,  0,  0,  1,  0])
    """
    if not isinstance(n_features, Integral) or n_features < 1:
        raise ValueError(f"n_features must be a positive integer, got {n_features!r}.")
    random_state = check_random_state(random_state)
    return np.array([-1] + [random_state.randint(i) for i in range(1, n_features)])


def check_parents(parents, n_features):
    """Return `parents` as an integer array, checked to be a forest over `n_features` features.

    Parameters
    ----------
    parents : array-like of shape (n_features,)
        Parent of each feature, -1 for none, -2 (`DROPPED`) for no table at all.
    n_features : int
        Number of features.

    Returns
    -------
    parents : ndarray of shape (n_features,), int64

    Raises
    ------
    TypeError
        If the parents are not integers.
    ValueError
        If the shape is wrong, a parent is out of range or the feature itself, or the parents form a cycle.

    Examples
    --------
    >>> from effml.bayes.structure import check_parents
    >>> check_parents([1, -1, 1], 3)
    array([ 1, -1,  1])
    >>> check_parents([1, 0, 1], 3)
    Traceback (most recent call last):
        ...
    ValueError: parents must not form a cycle; feature 1 is among its own ancestors.
    """
    parents = np.asarray(parents)
    if parents.shape != (n_features,):
        raise ValueError(f"parents must have shape ({n_features},), one entry a feature, got {parents.shape}.")
    if not np.issubdtype(parents.dtype, np.integer):
        raise TypeError(f"parents must be integers (-1 for none), got dtype {parents.dtype}.")
    parents = parents.astype(np.int64)
    if (parents == DROPPED).all():
        raise ValueError("parents must leave at least one feature with a table, all are -2.")
    wrong = np.flatnonzero((parents < DROPPED) | (parents >= n_features) | (parents == np.arange(n_features)))
    if len(wrong):
        raise ValueError(
            f"parents[{wrong[0]}] must be -1 (none), -2 (no table) or another feature from 0 to {n_features - 1}, "
            f"got {parents[wrong[0]]}."
        )
    ancestor = parents
    for _ in range(n_features):
        ancestor = np.where(ancestor >= 0, parents[ancestor], -1)
        if (ancestor < 0).all():
            return parents
    culprit = ancestor.max()  # after D steps up, only features on a cycle are left
    raise ValueError(f"parents must not form a cycle; feature {culprit} is among its own ancestors.")


def joint_counts(codes, y, parents, n_states, n_classes=None, sample_weight=None, n_jobs=None):
    """Count the rows (or their weights) behind each conditional table of a tree-augmented naive Bayes model.

    Parameters
    ----------
    codes : ndarray of shape (n_samples, n_features), uint8 or uint16
        State of each feature; a code of ``n_states[i]`` or more means missing.
    y : array-like of shape (n_samples,)
        Classes as integers 0 to ``n_classes - 1``.
    parents : array-like of shape (n_features,)
        Parent of each feature, -1 for none.
    n_states : array-like of shape (n_features,)
        Number of states r_i of each feature.
    n_classes : int, default=None
        Number of classes C; None takes ``max(y) + 1``.
    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights of the rows.
    n_jobs : int, default=None
        Threads; None means 1 and -1 all processors. The counts do not depend on it.

    Returns
    -------
    counts : list of ndarray, float64
        Entry i has shape (r_i, C), or (r_i, r_parent, C) if feature i has a parent. Rows in which feature i or its
        parent is missing are not counted in entry i.

    Raises
    ------
    TypeError, ValueError
        As `conditional_mutual_information` and `check_parents` do.

    Examples
    --------
    >>> import numpy as np
    >>> from effml.bayes.structure import joint_counts
    >>> codes = np.array([[0, 0], [1, 1], [1, 0]], dtype=np.uint8)
    >>> own, child = joint_counts(codes, [0, 1, 1], [-1, 0], n_states=[2, 2])
    >>> own
    array([[1., 0.],
           [0., 2.]])
    >>> child[0, 1]  # X_1 = 0 and X_0 = 1, by class
    array([0., 1.])
    """
    codes, y, n_states, n_classes, weights = _check_table(codes, y, n_states, n_classes, sample_weight)
    parents = check_parents(parents, len(n_states)).astype(np.int32)
    n_threads = worthwhile_threads(effective_n_jobs(n_jobs), codes.size * (SORT_NS + INCREMENT_NS))
    order, class_start = class_order(y, n_classes)
    columns = class_sorted_columns(codes, order, n_states, n_threads)
    dropped, parents = parents == DROPPED, np.maximum(parents, -1)
    shapes = table_shapes(parents, n_states, n_classes)
    start = np.concatenate(([0], np.cumsum([math.prod(shape) for shape in shapes])))
    flat = np.zeros(start[-1] + 1)  # never empty, so that every table has an address
    weights = np.empty(0) if weights is None else weights[order]
    if len(codes):
        class_counts.factor_counts(columns, class_start, parents, n_states, weights, start, flat, n_threads)
    spans = zip(start[:-1], start[1:], shapes, dropped, strict=True)
    return [np.empty((0, n_classes)) if gone else flat[a:b].reshape(shape) for a, b, shape, gone in spans]


# ---------------------------------------------------------------------------------------------------------------------
# Checks


def _check_table(codes, y, n_states, n_classes, sample_weight):
    codes = np.asarray(codes)
    if codes.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"codes must be uint8 or uint16, got dtype {codes.dtype}.")
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise ValueError(f"codes must have shape (n_samples, n_features) with n_features >= 1, got {codes.shape}.")
    if len(codes) >= 1 << 31:
        raise ValueError(f"codes must have fewer than 2**31 rows, got {len(codes)}.")
    y, n_classes = _check_classes(y, n_classes, len(codes))
    return codes, y, _check_n_states(n_states, codes.shape[1]), n_classes, _check_weights(sample_weight, len(codes))


def _check_classes(y, n_classes, n_samples):
    y = np.asarray(y)
    if y.shape != (n_samples,):
        raise ValueError(f"y must have shape ({n_samples},), one class a row, got {y.shape}.")
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(f"y must hold classes as integers from 0, got dtype {y.dtype}.")
    largest = int(y.max(initial=0))
    if n_classes is None:
        n_classes = largest + 1
    if y.min(initial=0) < 0 or largest >= n_classes:
        raise ValueError(f"y must lie in 0..{n_classes - 1} (n_classes={n_classes}), got {y.min()}..{largest}.")
    return y, int(n_classes)


def _check_n_states(n_states, n_features):
    n_states = np.asarray(n_states)
    if n_states.shape != (n_features,) or not np.issubdtype(n_states.dtype, np.integer):
        raise ValueError(
            f"n_states must be {n_features} integers, one a feature, got shape {n_states.shape} of {n_states.dtype}."
        )
    if n_states.min() < 0 or n_states.max() > 1 << 16:
        raise ValueError(f"n_states must lie in 0..65536, got {n_states.min()}..{n_states.max()}.")
    return n_states.astype(np.int32)


def _check_weights(sample_weight, n_samples):
    if sample_weight is None:
        return None
    weights = np.ascontiguousarray(sample_weight, dtype=np.float64)
    if weights.shape != (n_samples,):
        raise ValueError(f"sample_weight must have shape ({n_samples},), got {weights.shape}.")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("sample_weight must be finite and not negative.")
    return weights


def _drop_weightless(codes, y, weights):
    """Leave out rows of weight 0; equal weights are none."""
    kept = weights > 0
    if not kept.any():
        raise ValueError("sample_weight must not be zero for all rows.")
    if not kept.all():
        codes, y, weights = codes[kept], y[kept], weights[kept]
    return codes, y, None if weights.min() == weights.max() else weights
