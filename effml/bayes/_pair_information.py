"""Class-conditional mutual information of all pairs of features: sort by class, plan, count, put together.

n_abc is the number (or weight) of rows with X_i = a, X_j = b and class c; a dot sums over an index. In

    n I(X_i; X_j | C) = sum n_abc log n_abc - sum n_a.c log n_a.c - sum n_.bc log n_.bc + sum n_..c log n_..c

only sums of n log n occur, so the counts of one pair of features in one class live in cache and are never stored.

Two kernels count. *popcount* keeps one bit per (row, state), rows sorted by class, and counts a pair of states by AND
and popcount; its work is words x pairs of states, whatever the data. *rows* keeps for every row the list of its states
other than the most common one of each feature and, for every state a, adds up the lists of the rows that hold a; its
work is the number of pairs of such states over all rows, small for sparse data. Both leave out the most common state
of a feature: what its cells hold follows from the margins. The plan gives popcount the pairs within the densest
features and rows the others (`_n_dense`).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from effml._cext import class_counts, pair_counts

# Nanoseconds on one core of a 2.6 GHz Zen 4 (measured): their ratios choose the kernel.
_WORD_NS = {"portable": 0.8, "popcnt": 0.28, "avx2": 0.18, "avx512": 0.06}  # one AND + popcount of 64 rows
INCREMENT_NS = 0.6  # one pair of states of one row
_LIST_NS = 3.0  # one entry of the row lists, made
_CELL_NS = 0.7  # one n log n
SORT_NS = 1.5  # one code, sorted by class and counted
_THREAD_NS = 1e7  # less work than this per thread is not worth waiting for a second one on a busy machine
_TILE_BYTES = 1 << 18  # bit columns of one tile: a quarter to a half of a second-level cache
_FEATURES_PER_TASK = 8  # these share what they read of a class
_ENTRY_BYTES = 16  # one entry of the row lists
_BATCH_BYTES = 1 << 27  # work space for a batch of classes, unless a single class needs more
_LEAST_SHARE = 1e-9  # of all weight: what pairs with missing codes must hold at least, else rounding is all there is


def pair_information(codes, y, n_states, n_classes, weights, method, n_threads):
    """Return I(X_i; X_j | C), with H(X_i | C) on the diagonal, for checked arguments."""
    # A feature without states has missing codes alone; one state that no row has says the same.
    table = _sort_by_class(codes, y, np.maximum(n_states, 1), n_classes, weights, n_threads)
    plan = _plan(table, method if weights is None else "rows")
    return _count_pairs(table, plan, n_threads)


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
    order, class_start = class_order(y, n_classes)
    n_threads = worthwhile_threads(n_threads, codes.size * SORT_NS)
    columns = class_sorted_columns(codes, order, n_states, n_threads)
    state_start = np.concatenate(([0], np.cumsum(n_states + 1))).astype(np.int32)
    counts = np.empty((n_classes, state_start[-1]), dtype=np.int32)
    class_counts.state_counts(columns, class_start, state_start, counts, n_threads)
    masses = counts
    if weights is not None:
        weights = weights[order]
        masses = np.zeros(counts.shape)
        class_counts.state_weights(columns, weights, class_start, state_start, masses, n_threads)
    return _Table(columns, class_start, weights, state_start, counts, masses)


def class_order(y, n_classes):
    """Stable order of the rows by class, and where each class starts."""
    small = y.astype(np.uint16) if n_classes <= 1 << 16 else y  # numpy sorts 16-bit integers by radix
    class_start = np.concatenate(([0], np.cumsum(np.bincount(y, minlength=n_classes)))).astype(np.int64)
    return np.argsort(small, kind="stable").astype(np.int64, copy=False), class_start


def class_sorted_columns(codes, order, n_states, n_threads):
    """Codes by feature, (D, n), rows in the given order; a missing code becomes n_states[f]."""
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
        state_of_column=state[with_column].astype(np.int32),
        column_of_state=column_of_state,
        dropped_state=dropped[feature].astype(np.int32),
        margin_index=np.concatenate((with_column, padding, (table.state_start[:-1] + dropped)[feature])),
        expected_ns=expected_ns,
    )


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
    rows_ns = (pairs[-1] - pairs) * INCREMENT_NS + n_others.sum() * _LIST_NS
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


def _count_pairs(table, plan, n_threads):
    n_features = len(plan.feature)
    n_threads = worthwhile_threads(n_threads, plan.expected_ns)
    incomplete = plan.stop != plan.first[1:]
    sums = np.zeros((n_features, n_features))  # above the diagonal: sum n_abc log n_abc; all four sums if incomplete
    n_present = np.zeros(sums.shape if incomplete.any() else (0, 0))
    if plan.n_dense > 1:
        _count_by_popcount(table, plan, sums, n_present, n_threads)
    if plan.n_dense < n_features:
        _count_by_rows(table, plan, sums, n_present, n_threads)
    return _assemble(table, plan, sums, n_present, incomplete)


def worthwhile_threads(n_threads, expected_ns):
    """The threads asked for, or fewer when there is too little to do."""
    return max(1, min(n_threads, int(expected_ns / _THREAD_NS)))


def _class_batches(n_bytes):
    """Slices of classes whose work space, n_bytes a class, stays within _BATCH_BYTES; a batch has one at least."""
    begin = 0
    while begin < len(n_bytes):
        end = begin + max(1, int(np.searchsorted(np.cumsum(n_bytes[begin:]), _BATCH_BYTES, side="right")))
        yield slice(begin, end)
        begin = end


def _n_log_n(largest):
    numbers = np.arange(largest + 1, dtype=np.float64)
    return xlogy(numbers, numbers)


def _count_by_popcount(table, plan, sums, n_present, n_threads):
    stride = (np.diff(table.class_start) + 511) // 512 * 64  # bytes of a bit column
    tasks = _tiles(plan.first, plan.n_dense, max(1, _TILE_BYTES // int(stride.max())))
    margins = table.counts[:, plan.margin_index]
    log_table = _n_log_n(np.diff(table.class_start).max())
    for batch in _class_batches(stride * int(plan.first[plan.n_dense])):
        pair_counts.popcount_pairs(
            table.columns,
            plan.feature,
            table.class_start[batch.start : batch.stop + 1],
            plan.state_of_column,
            plan.first,
            plan.stop,
            np.ascontiguousarray(margins[batch]),
            log_table,
            tasks,
            sums,
            n_present,
            pair_counts.KERNEL_NAMES.index(_best_kernel()),
            n_threads,
        )


def _tiles(first, n_features, tile_columns):
    """Tasks (f_begin, f_end, g_begin, g_end) for all pairs f < g; the columns of the g's are a cache-sized tile."""
    tasks = []
    begin = 0
    while begin < n_features:
        end = int(np.searchsorted(first, first[begin] + tile_columns, side="right")) - 1
        end = min(max(end, begin + 1), n_features)
        f = np.arange(0, end, _FEATURES_PER_TASK)
        tasks.append(
            np.column_stack((f, np.minimum(f + _FEATURES_PER_TASK, end), np.full_like(f, begin), np.full_like(f, end)))
        )
        begin = end
    return np.concatenate(tasks).astype(np.int32)


def _count_by_rows(table, plan, sums, n_present, n_threads):
    n_columns = int(plan.first[-1])
    id_type = np.uint16 if n_columns <= 1 << 16 else np.uint32
    row_counts = table.counts[:, plan.margin_index]
    margins = table.masses[:, plan.margin_index]
    entries = row_counts[:, :n_columns].sum(axis=1, dtype=np.int64)
    weights = np.empty(1) if table.weights is None else table.weights
    log_table = _n_log_n(np.diff(table.class_start).max() if table.weights is None else 0)
    for batch in _class_batches(entries * _ENTRY_BYTES):
        pair_counts.row_pairs(
            table.columns,
            plan.feature,
            table.class_start[batch.start : batch.stop + 1],
            plan.dropped_state,
            table.state_start[plan.feature],
            plan.column_of_state,
            plan.first,
            plan.stop,
            np.ascontiguousarray(row_counts[batch]),
            np.ascontiguousarray(margins[batch]),
            table.class_totals[batch],
            weights,
            log_table,
            plan.n_dense,
            np.empty(entries[batch].sum() + 1, dtype=id_type),
            sums,
            n_present,
            _FEATURES_PER_TASK,
            n_threads,
        )


def _assemble(table, plan, sums, n_present, incomplete):
    """I(X_i; X_j | C) and H(X_i | C) from the sums of n log n, in the caller's order of features."""
    masses = table.masses.astype(np.float64)
    masses[:, table.state_start[1:] - 1] = 0.0  # missing is no state
    own = np.add.reduceat(xlogy(masses, masses).sum(axis=0), table.state_start[:-1])
    present = np.add.reduceat(masses, table.state_start[:-1], axis=1)  # (C, D)
    total = table.class_totals.sum()

    own_sorted = own[plan.feature]
    all_classes = xlogy(table.class_totals, table.class_totals).sum()
    information = (sums - own_sorted[:, None] - own_sorted + all_classes) / total
    if incomplete.any():
        pairs = incomplete[:, None] | incomplete
        enough = n_present > (0 if table.weights is None else _LEAST_SHARE * total)
        information[pairs] = np.divide(sums, n_present, where=enough, out=np.zeros_like(sums))[pairs]
    one_state = plan.stop == plan.first[:-1]
    information[one_state | one_state[:, None]] = 0.0  # exactly, not within rounding: the tree's tie rule sees it
    information = np.triu(np.maximum(information, 0.0), 1)
    result = np.empty_like(information)
    result[np.ix_(plan.feature, plan.feature)] = information + information.T
    n_own = present.sum(axis=0)
    entropy = np.divide(xlogy(present, present).sum(axis=0) - own, n_own, where=n_own > 0, out=np.zeros(len(own)))
    np.fill_diagonal(result, np.maximum(entropy, 0.0))
    return result
