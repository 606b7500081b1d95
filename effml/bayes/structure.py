"""Structure of tree-augmented naive Bayes: conditional mutual information, maximum spanning tree, counts of the tree.

Symbols: n rows, D features with r_i states, C classes; n_abc is the number (or weight) of rows with X_i = a, X_j = b
and class c, and a dot sums over an index. Friedman, Geiger and Goldszmidt, "Bayesian network classifiers", Machine
Learning 29, 1997, after Chow and Liu, 1968, with

    I(X_i; X_j | C) = sum_abc n_abc / n * log( n_abc n_..c / (n_a.c n_.bc) )
                    = ( sum n_abc log n_abc - sum n_a.c log n_a.c - sum n_.bc log n_.bc + sum n_..c log n_..c ) / n

so only sums of n log n are needed: the counts of one pair of features in one class live in cache and are never stored.

Two kernels count. *popcount* keeps one bit per (row, state), rows sorted by class, and counts a pair of states by AND
and popcount; its work is words x pairs of states, whatever the data. *rows* keeps for every row the list of its states
other than the most common one of each feature and, for every state a, adds up the lists of the rows that hold a; its
work is the number of pairs of such states over all rows, small for sparse data. Both leave out the most common state
of a feature: what its cells hold follows from the margins. ``auto`` takes popcount for pairs within the features that
are dense enough and rows for the rest (see `_n_dense`).
"""

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from joblib import effective_n_jobs
from scipy.special import xlogy
from sklearn.utils import check_random_state

from effml._cext import class_counts, pair_counts

__all__ = ["conditional_mutual_information", "chow_liu_parents", "random_parents", "check_parents", "joint_counts"]

# Nanoseconds on one core of a 2.6 GHz Zen 4 (measured); only their ratio matters.
_WORD_NS = {"portable": 0.8, "popcnt": 0.28, "avx2": 0.18, "avx512": 0.06}  # one AND + popcount of 64 rows
_INCREMENT_NS = 0.6  # one pair of states of one row
_LIST_NS = 3.0  # one entry of the row lists, made
_CELL_NS = 0.7  # one n log n
_THREAD_NS = 1e6  # less work than this per thread is done sooner by one thread
_TILE_BYTES = 1 << 18  # bit columns of one tile: a quarter to a half of a second-level cache


def conditional_mutual_information(
    codes, y, *, n_states, n_classes=None, sample_weight=None, n_jobs=None, method="auto"
):
    """Return the class-conditional mutual information I(X_i; X_j | C) of all pairs of discrete features.

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
    alike; a pair without such rows has 0. The diagonal uses the rows in which its feature is present.

    Memory beyond the codes and the result: a copy of the codes, and for one class at a time, of n_c rows, either
    ``sum(n_states) * n_c / 8`` bytes (popcount) or 14 to 16 bytes for every code that is not its feature's most common
    one (rows).

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
    n_threads = effective_n_jobs(n_jobs)
    table = _sort_by_class(codes, y, n_states, n_classes, weights, n_threads)
    plan = _plan(table, method if weights is None else "rows")
    return _pair_information(table, plan, n_threads)


# ---------------------------------------------------------------------------------------------------------------------
# Phase 1: codes by feature, rows by class, states counted


@dataclass(frozen=True)
class _Table:
    columns: np.ndarray  # (D, n) codes, rows sorted by class; a missing code is n_states[f]
    class_start: np.ndarray  # (C + 1,) int64
    weights: np.ndarray | None  # (n,) float64, rows sorted by class
    state_start: np.ndarray  # (D + 1,) int32: feature f's n_states[f] + 1 entries in the next two
    counts: np.ndarray  # (C, sum of n_states + 1) int32 rows, the last entry of a feature: missing
    masses: np.ndarray  # the same in weights (float64), or counts itself

    @property
    def class_totals(self):
        first = slice(self.state_start[0], self.state_start[1])
        return self.masses[:, first].sum(axis=1).astype(np.float64)


def _sort_by_class(codes, y, n_states, n_classes, weights, n_threads):
    order, class_start = _class_order(y, n_classes)
    columns = _class_sorted_columns(codes, order, n_states, n_threads)
    state_start = np.concatenate(([0], np.cumsum(n_states + 1))).astype(np.int32)
    counts = np.empty((n_classes, state_start[-1]), dtype=np.int32)
    class_counts.state_counts(columns, class_start, state_start, counts, n_threads)
    masses = counts
    if weights is not None:
        weights = weights[order]
        masses = np.zeros(counts.shape)
        class_counts.state_weights(columns, weights, class_start, state_start, masses, n_threads)
    return _Table(columns, class_start, weights, state_start, counts, masses)


def _class_order(y, n_classes):
    """Stable order of the rows by class, and where each class starts."""
    small = y.astype(np.uint16) if n_classes <= 1 << 16 else y  # numpy sorts 16-bit integers by radix
    class_start = np.concatenate(([0], np.cumsum(np.bincount(y, minlength=n_classes)))).astype(np.int64)
    return np.argsort(small, kind="stable").astype(np.int64, copy=False), class_start


def _class_sorted_columns(codes, order, n_states, n_threads):
    columns = np.empty(codes.shape[::-1], dtype=codes.dtype)
    class_counts.class_sorted_columns(codes, order, n_states, columns, n_threads)
    return columns


# ---------------------------------------------------------------------------------------------------------------------
# Phase 2: which states get a column, which pairs are counted how


@dataclass(frozen=True)
class _Plan:
    feature: np.ndarray  # (D,) int32: the order of the features from here on, the n_dense dense ones first
    n_dense: int  # pairs within these features are counted by popcount, all others by rows
    first: np.ndarray  # (D + 1,) int32: columns of a feature
    stop: np.ndarray  # (D,) int32: first column of a feature that is not a state: the end, or its missing codes
    run_end: np.ndarray  # (D,) int32: where the run of features with as many columns ends
    state_of_column: np.ndarray  # (K,) int32
    column_of_state: np.ndarray  # int32, indexed as _Table.counts; states without a column are never looked up
    dropped_state: np.ndarray  # (D,) int32
    margin_index: np.ndarray  # (K + padding + D,): columns of _Table.counts in the kernels' order
    expected_ns: float


def _plan(table, method):
    n_states = np.diff(table.state_start) - 1
    n_features = len(n_states)
    owner = np.repeat(np.arange(n_features), n_states + 1)
    state = np.arange(len(owner)) - table.state_start[owner]
    totals = table.counts.sum(axis=0, dtype=np.int64)
    dropped = _most_common_states(totals, state, owner, n_states, table.state_start)
    has_column = (totals > 0) & (state != dropped[owner])
    n_columns = np.bincount(owner[has_column], minlength=n_features)
    n_others = np.diff(table.class_start)[:, None] - table.counts[:, table.state_start[:-1] + dropped]  # (C, D)

    by_density = np.argsort(-n_others.sum(axis=0) / np.maximum(n_columns, 1), kind="stable")
    n_dense, expected_ns = _n_dense(table.class_start, n_columns[by_density], n_others[:, by_density], method)
    sparse = np.arange(n_features) >= n_dense
    # Within both parts by number of columns: inner loops over the columns of a feature keep their length for long.
    feature = by_density[np.lexsort((by_density, n_columns[by_density], sparse))].astype(np.int32)

    rank = np.empty(n_features, dtype=np.intp)
    rank[feature] = np.arange(n_features)
    with_column = np.flatnonzero(has_column)
    with_column = with_column[np.argsort(rank[owner[with_column]], kind="stable")]
    column_of_state = np.full(len(owner), -1, dtype=np.int32)
    column_of_state[with_column] = np.arange(len(with_column))
    first = np.concatenate(([0], np.cumsum(n_columns[feature]))).astype(np.int32)
    any_missing = totals[table.state_start[1:] - 1] > 0
    padding = np.zeros(pair_counts.COLUMN_PADDING, dtype=np.intp)
    return _Plan(
        feature=feature,
        n_dense=n_dense,
        first=first,
        stop=first[1:] - any_missing[feature].astype(np.int32),
        run_end=_run_ends(n_columns[feature] * 2 + any_missing[feature]),
        state_of_column=state[with_column].astype(np.int32),
        column_of_state=column_of_state,
        dropped_state=dropped[feature].astype(np.int32),
        margin_index=np.concatenate((with_column, padding, (table.state_start[:-1] + dropped)[feature])),
        expected_ns=expected_ns,
    )


def _run_ends(values):
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    return np.repeat(last + 1, np.diff(last, prepend=-1)).astype(np.int32)


def _most_common_states(totals, state, owner, n_states, state_start):
    """The first of the most common states of each feature; missing is no state."""
    candidates = np.where(state < n_states[owner], totals, -1)
    most = np.maximum.reduceat(candidates, state_start[:-1])
    return np.minimum.reduceat(np.where(candidates == most[owner], state, len(state)), state_start[:-1])


def _n_dense(class_start, n_columns, n_others, method):
    """How many of the features, densest first, to count by popcount among themselves, and the nanoseconds expected.

    Cost model: k dense features cost (pairs of their columns) x words; all other pairs of features f, g cost the rows
    in which neither has its dropped state, estimated per class by n_f n_g / n_c, plus the making of the row lists.
    """
    class_sizes = np.diff(class_start)
    n_words = np.sum((class_sizes + 511) // 512 * 8)
    words_ns = _pairs_among_first(n_columns) * n_words * _WORD_NS[_best_kernel()]
    share = n_others / np.sqrt(np.maximum(class_sizes, 1))[:, None]
    pairs = _pairs_among_first(share).sum(axis=0)
    rows_ns = (pairs[-1] - pairs) * _INCREMENT_NS + n_others.sum() * _LIST_NS
    rows_ns[-1] = 0
    n_features = len(n_columns)
    n_dense = {"popcount": n_features, "rows": 0}.get(method, int(np.argmin(words_ns + rows_ns)))
    n_cells = _pairs_among_first(n_columns + 1)[-1] * np.count_nonzero(class_sizes)
    return n_dense, words_ns[n_dense] + rows_ns[n_dense] + n_cells * _CELL_NS


def _pairs_among_first(x):
    """Entry k of the last axis: sum of x_f x_g over f < g < k, for k = 0..D."""
    x = np.concatenate((np.zeros((*x.shape[:-1], 1)), x), axis=-1)
    return (np.cumsum(x, axis=-1) ** 2 - np.cumsum(x**2, axis=-1)) / 2


def _best_kernel():
    return pair_counts.available_kernels()[-1]


# ---------------------------------------------------------------------------------------------------------------------
# Phase 3: count, and put the sums together


def _pair_information(table, plan, n_threads):
    n_features = len(plan.feature)
    n_threads = max(1, min(n_threads, int(plan.expected_ns / _THREAD_NS)))
    incomplete = plan.stop != plan.first[1:]
    sums = np.zeros((n_features, n_features))  # above the diagonal: sum n_abc log n_abc; all four sums if incomplete
    n_present = np.zeros(sums.shape if incomplete.any() else (0, 0))
    margins = np.ascontiguousarray(table.masses[:, plan.margin_index])
    log_table = _n_log_n(int(np.diff(table.class_start).max()) if table.weights is None else 0)
    if table.weights is None and plan.n_dense > 1:
        _count_by_popcount(table, plan, margins, log_table, sums, n_present, n_threads)
    if plan.n_dense < n_features:
        _count_by_rows(table, plan, margins, log_table, sums, n_present, n_threads)
    return _assemble(table, plan, sums, n_present, incomplete)


def _n_log_n(largest):
    numbers = np.arange(largest + 1, dtype=np.float64)
    return xlogy(numbers, numbers)


def _count_by_popcount(table, plan, margins, log_table, sums, n_present, n_threads):
    words = (np.diff(table.class_start).max() + 511) // 512 * 8
    pair_counts.popcount_pairs(
        table.columns,
        plan.feature,
        table.class_start,
        plan.state_of_column,
        plan.first,
        plan.stop,
        plan.run_end,
        margins,
        log_table,
        _tiles(plan.first, plan.n_dense, max(1, _TILE_BYTES // (8 * words))),
        sums,
        n_present,
        pair_counts.KERNEL_NAMES.index(_best_kernel()),
        n_threads,
    )


def _tiles(first, n_features, tile_columns):
    """Tasks (f, begin, end): feature f against begin..end - 1, those of one cache-sized tile of columns in a row."""
    tasks = []
    begin = 0
    while begin < n_features:
        end = int(np.searchsorted(first, first[begin] + tile_columns, side="right")) - 1
        end = min(max(end, begin + 1), n_features)
        f = np.arange(end - 1)
        tasks.append(np.column_stack((f, np.maximum(f + 1, begin), np.full(end - 1, end))))
        begin = end
    return np.concatenate(tasks).astype(np.int32)


def _count_by_rows(table, plan, margins, log_table, sums, n_present, n_threads):
    n_columns = plan.first[-1]
    id_type = np.uint16 if n_columns <= 1 << 16 else np.uint32
    row_counts = np.ascontiguousarray(table.counts[:, plan.margin_index])
    listed = row_counts[:, plan.first[plan.n_dense] : n_columns].sum(axis=1, dtype=np.int64)
    pair_counts.row_pairs(
        table.columns,
        plan.feature,
        table.class_start,
        plan.dropped_state,
        table.state_start[plan.feature],
        plan.column_of_state,
        plan.first,
        plan.stop,
        plan.run_end,
        row_counts,
        margins,
        table.class_totals,
        np.zeros(len(table.columns[0])) if table.weights is None else table.weights,
        log_table,
        plan.n_dense,
        np.empty(listed.max() + 1, dtype=id_type),
        sums,
        n_present,
        n_threads,
    )


def _assemble(table, plan, sums, n_present, incomplete):
    """I(X_i; X_j | C) and H(X_i | C) from the sums of n log n, in the caller's order of features."""
    masses = table.masses
    missing = masses[:, table.state_start[1:] - 1]  # (C, D)
    present = table.class_totals[:, None] - missing
    n_log_n = xlogy(masses, masses).sum(axis=0)
    own = np.add.reduceat(n_log_n, table.state_start[:-1]) - n_log_n[table.state_start[1:] - 1]
    total = table.class_totals.sum()

    own_sorted = own[plan.feature]
    all_classes = xlogy(table.class_totals, table.class_totals).sum()
    information = (sums - own_sorted[:, None] - own_sorted + all_classes) / total
    if incomplete.any():
        pairs = incomplete[:, None] | incomplete
        information[pairs] = np.divide(sums, n_present, where=n_present > 0, out=np.zeros_like(sums))[pairs]
    information = np.triu(np.maximum(information, 0.0), 1)
    result = np.empty_like(information)
    result[np.ix_(plan.feature, plan.feature)] = information + information.T
    n_own = present.sum(axis=0)
    entropy = np.divide(xlogy(present, present).sum(axis=0) - own, n_own, where=n_own > 0, out=np.zeros(len(own)))
    np.fill_diagonal(result, np.maximum(entropy, 0.0))
    return result


# ---------------------------------------------------------------------------------------------------------------------
# Trees


def chow_liu_parents(weights, *, root=0):
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

    Returns
    -------
    parents : ndarray of shape (n_features,), int64
        Parent of each feature, -1 for the root.

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
    return _prim(weights, int(root))


def _is_symmetric(weights):
    off_diagonal = weights - np.diag(np.diag(weights))
    return np.array_equal(off_diagonal, off_diagonal.T)


def _prim(weights, root):
    # With a strict order of the edges the maximum spanning tree is unique, so Prim's tree is Kruskal's.
    n_features = len(weights)
    index = np.arange(n_features)
    parents = np.full(n_features, -1)
    best_weight = np.full(n_features, -np.inf)
    best_edge = np.full(n_features, n_features**2)  # i * D + j of that edge, i < j
    outside = np.ones(n_features, dtype=bool)
    newest = root
    for _ in range(n_features - 1):
        outside[newest] = False
        edge = np.minimum(index, newest) * n_features + np.maximum(index, newest)
        weight = weights[newest]
        better = outside & ((weight > best_weight) | ((weight == best_weight) & (edge < best_edge)))
        parents[better] = newest
        best_weight[better] = weight[better]
        best_edge[better] = edge[better]
        top = best_weight[outside].max()
        newest = int(np.argmin(np.where(outside & (best_weight == top), best_edge, n_features**2 + 1)))
    return parents


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
    array([-1,  0,  1,  0,  3])
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
        Parent of each feature, -1 for none.
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
    ValueError: parents must not form a cycle; feature 0 is among its own ancestors.
    """
    parents = np.asarray(parents)
    if parents.shape != (n_features,):
        raise ValueError(f"parents must have shape ({n_features},), one entry a feature, got {parents.shape}.")
    if not np.issubdtype(parents.dtype, np.integer):
        raise TypeError(f"parents must be integers (-1 for none), got dtype {parents.dtype}.")
    parents = parents.astype(np.int64)
    wrong = np.flatnonzero((parents < -1) | (parents >= n_features) | (parents == np.arange(n_features)))
    if len(wrong):
        raise ValueError(
            f"parents[{wrong[0]}] must be -1 or another feature from 0 to {n_features - 1}, got {parents[wrong[0]]}."
        )
    ancestor = np.arange(n_features)
    for _ in range(n_features):  # step up; whoever is still climbing after D steps is on or below a cycle
        if (ancestor < 0).all():
            return parents
        ancestor = np.where(ancestor >= 0, parents[ancestor], -1)
    if (ancestor < 0).all():
        return parents
    # ancestor now holds features on the cycle
    culprit = ancestor[ancestor >= 0].min()
    raise ValueError(f"parents must not form a cycle; feature {culprit} is among its own ancestors.")


# ---------------------------------------------------------------------------------------------------------------------
# Counts of a tree


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
    n_threads = effective_n_jobs(n_jobs)
    order, class_start = _class_order(y, n_classes)
    columns = _class_sorted_columns(codes, order, n_states, n_threads)
    shapes = [
        (r, n_classes) if parent < 0 else (r, n_states[parent], n_classes)
        for r, parent in zip(n_states.tolist(), parents.tolist(), strict=True)
    ]
    start = np.concatenate(([0], np.cumsum([np.prod(shape, dtype=np.int64) for shape in shapes])))
    flat = np.zeros(start[-1] + 1)  # never empty, so that every table has an address
    weights = np.empty(0) if weights is None else weights[order]
    if len(codes):
        class_counts.factor_counts(columns, class_start, parents, n_states, weights, start, flat, n_threads)
    return [flat[begin:end].reshape(shape) for begin, end, shape in zip(start[:-1], start[1:], shapes, strict=True)]


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
