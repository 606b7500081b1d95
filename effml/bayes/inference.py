"""Exact scores of rows with missing values: what is not known is summed out by one pass over the tree, leaves first.

With x_i observed or not, pa(i) the parent of feature i (or none) and L_i its log table, feature i tells its parent

    M_i[b] = L_i[x_i, b] + sum_j M_j[x_i]                      x_i observed
    M_i[b] = log sum_a exp(L_i[a, b] + sum_j M_j[a])           x_i missing

over its children j, for each class and each state b that the parent may have: the observed one or, where the parent is
missing too, all of them. A missing feature that no observed feature depends on sums to log 1 = 0 and is left out.
That is all naive Bayes needs: it drops the factor.

Pearl, "Probabilistic Reasoning in Intelligent Systems", 1988, section 4.2 (upward propagation in trees).
"""

import numpy as np
from scipy.special import logsumexp

from effml.bayes.structure import DROPPED

__all__ = ["depths", "marginal_scores"]

# Where states are summed, smaller log-probabilities count as this (1e-261): keeps sums of exponentials in range.
_LOWEST = -600.0

_BLOCK = 2**22  # float64 numbers that the messages of one block of rows may fill, 32 MiB


def depths(parents):
    """Return how many ancestors each feature has.

    Parameters
    ----------
    parents : int array-like (n_features,)
        Negative for none.

    Returns
    -------
    int64 array (n_features,)

    Raises
    ------
    ValueError
        If the parents form a cycle.

    Examples
    --------
    >>> depths([1, -1, 0]).tolist()
    [1, 0, 2]
    """
    parents = np.asarray(parents)
    result = np.zeros(len(parents), dtype=np.int64)
    ancestor = parents
    while (ancestor >= 0).any():
        if result.max(initial=0) >= len(parents):
            raise ValueError(f"parents must not form a cycle, got {parents.tolist()}")
        result += ancestor >= 0
        ancestor = np.where(ancestor >= 0, parents[ancestor], -1)
    return result


def marginal_scores(codes, log_prior, log_tables, parents, n_states):
    """Return log p(class, observed codes) of every row: missing codes are summed out.

    Exact for tables of log-probabilities, whose exponentials sum to 1 over the states of the feature: float models, and
    up to its rounding a quantised model with ``table_format_="log_prob"``. Contrast tables say nothing about a feature
    that is not seen, so a classifier that has them drops the factors that read a missing code instead.

    Parameters
    ----------
    codes : uint8 or uint16 array (n_samples, n_features)
        Codes from ``n_states[i]`` on are missing.
    log_prior : array (n_classes,)
    log_tables : list of arrays (r_i, n_classes) or (r_i, r_parent, n_classes)
        log p(x_i | x_parent, class); what stands at a feature without a table is not read.
    parents : int array (n_features,)
        Position of the feature's parent, -1 for none, -2 for no table: the feature is then uniform, and its states
        weigh the same where it is missing and other features depend on it.
    n_states : int array (n_features,)

    Returns
    -------
    float64 array (n_samples, n_classes)
        Rows without missing codes have the plain sums, in the order prior, feature 0, feature 1, ...

    Raises
    ------
    ValueError
        If the parents form a cycle.

    Notes
    -----
    Time is the plain sums' plus, for rows that miss a parent only, the table sizes of the features below it. Where
    states are summed, log-probabilities below -600 count as -600; float32 tables of counted models never are that low.

    Examples
    --------
    A feature that is 0 or 1 with the class, seen through a copy of it that errs once in ten; then nothing is seen:

    >>> prior = np.log([0.5, 0.5])
    >>> feature = np.log([[0.8, 0.4], [0.2, 0.6]])
    >>> copy = np.log([[[0.9] * 2, [0.1] * 2], [[0.1] * 2, [0.9] * 2]])
    >>> codes = np.array([[2, 0], [2, 2]], dtype=np.uint8)
    >>> np.exp(marginal_scores(codes, prior, [feature, copy], [-1, 0], [2, 2])).round(2).tolist()
    [[0.37, 0.21], [0.5, 0.5]]
    """
    parents, n_states = np.asarray(parents, dtype=np.int64), np.asarray(n_states, dtype=np.int64)
    depth = depths(parents)
    tables = [np.asarray(table, dtype=np.float64) if parents[i] != DROPPED else None for i, table in _each(log_tables)]
    observed = codes < n_states
    scores = np.tile(np.asarray(log_prior, dtype=np.float64), (len(codes), 1))
    for i, table in _each(tables):
        if table is None:
            continue
        rows = observed[:, i] if parents[i] < 0 else observed[:, i] & observed[:, parents[i]]
        rows = slice(None) if rows.all() else np.flatnonzero(rows)
        scores[rows] += _rows_of(table, codes[rows, i], None if parents[i] < 0 else codes[rows, parents[i]])

    is_parent = np.zeros(len(parents), dtype=bool)
    is_parent[parents[parents >= 0]] = True
    rows = np.flatnonzero(~observed[:, is_parent].all(axis=1))
    if len(rows):
        tree = _Tree(np.argsort(-depth, kind="stable"), parents, n_states, tables, scores.shape[1])
        size = max(1, _BLOCK // (int(n_states[is_parent].sum()) * scores.shape[1]))
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            scores[block] += tree.summed_out(codes[block], observed[block])
    return scores


def _each(values):
    return list(enumerate(values))


def _rows_of(table, states, parent_states):
    return table[states] if parent_states is None else table[states, parent_states]


class _Tree:
    """The upward pass; `leaves_first` lists the features, children before parents."""

    def __init__(self, leaves_first, parents, n_states, tables, n_classes):
        self.leaves_first, self.parents, self.n_states, self.n_classes = leaves_first, parents, n_states, n_classes
        self.tables = [
            # A feature without a table is uniform.
            np.full((r, n_classes), -np.log(r)) if table is None else np.maximum(table, _LOWEST)
            for table, r in zip(tables, n_states.tolist(), strict=True)
        ]

    def summed_out(self, codes, observed):
        """Return what the sums over missing parents add to the scores of some rows, float64 (n_rows, n_classes)."""
        added = np.zeros((len(codes), self.n_classes))
        inbox = {}  # feature -> sum of its children's messages, (n_rows, r_i, n_classes), for the rows that miss it
        heard = np.zeros(observed.shape, dtype=bool)  # rows where a message has come
        for i in self.leaves_first:
            parent, speaks = self.parents[i], observed[:, i] | heard[:, i]
            if parent >= 0:
                asks = ~observed[:, parent] & speaks
                if asks.any():
                    box = inbox.setdefault(parent, np.zeros((len(codes), self.n_states[parent], self.n_classes)))
                    heard[:, parent] |= asks
                    rows = np.flatnonzero(asks & observed[:, i])
                    box[rows] += self.tables[i][codes[rows, i]]
                    rows = np.flatnonzero(asks & ~observed[:, i])
                    if len(rows):
                        box[rows] += self._to_all_states(i, inbox[i][rows])
            rows = heard[:, i] if parent < 0 else heard[:, i] & observed[:, parent]
            rows = np.flatnonzero(rows)
            if len(rows):
                table = self.tables[i] if parent < 0 else self.tables[i][:, codes[rows, parent]].swapaxes(0, 1)
                added[rows] += logsumexp(table + inbox[i][rows], axis=1)
            inbox.pop(i, None)
        return added

    def _to_all_states(self, i, messages):
        """Return log sum_a exp(L_i[a, b] + messages[n, a]) for all b, (n_rows, r_parent, n_classes).

        A matrix product for each class, because r_i r_parent exponentials a row would take a hundred times as long.
        The product loses nothing: where exp(messages - largest) underflows at 1e-308, the largest one's share is at
        least exp(_LOWEST) = 1e-261.
        """
        largest = messages.max(axis=1, keepdims=True)
        weights = np.exp(messages - largest)
        sums = np.exp(self.tables[i]).transpose(2, 1, 0) @ weights.transpose(2, 1, 0)  # (class, b, row)
        return np.log(sums).transpose(2, 1, 0) + largest
