"""Supervised binning that spends a number of bins over all columns, where they tell most about the class."""

import heapq
from numbers import Integral

import numpy as np
from scipy.special import xlogy
from sklearn.utils._param_validation import Interval

from effml.discretization._base import SupervisedDiscretizer
from effml.discretization._cuts import cut_between

_MAX_FINE_BINS = 255  # a column of more distinct values starts from this many quantiles


class BottleneckDiscretizer(SupervisedDiscretizer):
    """Supervised binning by merging neighbouring values, of all columns together.

    Every distinct value starts as a bin. The two neighbours whose merging loses least information on the class, of
    whichever column, become one, until `total_bins` are left: an agglomerative information bottleneck. The size of a
    naive Bayes model is the number of bins times the classes, so this spends a budget of bytes where it tells most. A
    column that tells little may end with one bin, which exports as nothing.

    Parameters
    ----------
    total_bins : int, default=128
        Largest number of bins of all numeric columns together, where there are as many columns or fewer.
    max_bins : int or None, default=None
        Largest number of bins of one numeric column, at least 2.
    categorical_features, handle_unknown, missing, n_jobs
        As in `MDLPDiscretizer`; levels of categorical columns are never merged and do not count.

    Attributes
    ----------
    bin_edges_, categories_, n_states_, n_features_in_, feature_names_in_
        As in `MDLPDiscretizer`.

    Notes
    -----
    A merge of bins with class weights a and b loses ``H(a + b) - H(a) - H(b)``, ``H(n) = N log N - sum n log n`` and N
    the sum of n. Columns of more than 255 distinct values start from 255 bins of about equal weight. Of equal losses
    the first column and the lower bins go first.

    References
    ----------
    N. Slonim, N. Tishby, "Agglomerative information bottleneck", NIPS 1999.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from effml.discretization import BottleneckDiscretizer
    >>> X, y = load_iris(return_X_y=True)
    >>> discretizer = BottleneckDiscretizer(total_bins=8).fit(X, y)
    >>> discretizer.n_states_  # the petals tell more than the sepals
    array([2, 1, 2, 3])
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's own form
        **SupervisedDiscretizer._parameter_constraints,
        "total_bins": [Interval(Integral, 1, None, closed="left")],
        "max_bins": [Interval(Integral, 2, None, closed="left"), None],
    }

    def __init__(
        self,
        *,
        total_bins=128,
        max_bins=None,
        categorical_features="from_dtype",
        handle_unknown="missing",
        missing="code",
        n_jobs=None,
    ):
        self.total_bins = total_bins
        self.max_bins = max_bins
        self.categorical_features = categorical_features
        self.handle_unknown = handle_unknown
        self.missing = missing
        self.n_jobs = n_jobs

    def _learn_edges(self, matrix, classes, weights, numeric):
        columns = [_Column(matrix[:, i], classes, weights) if numeric[i] else None for i in range(len(numeric))]
        _merge([c for c in columns if c is not None], self.total_bins, self.max_bins)
        return [np.zeros(0) if column is None else column.edges() for column in columns]


class _Column:
    """The bins of a column as a linked list; bin k holds the values from `low[k]` to `high[k]`."""

    def __init__(self, x, classes, weights):
        if x.dtype.kind == "f":
            present = ~np.isnan(x)
            x, classes, weights = x[present], classes[present], weights[present]
        values, level = np.unique(x, return_inverse=True)
        first = _fine_bins(np.bincount(level, weights, minlength=len(values)))
        self.low = values[first].astype(np.float64)
        self.high = values[np.append(first, len(values))[1:] - 1].astype(np.float64)
        self.counts = np.zeros((len(first), int(classes.max(initial=0)) + 1))
        np.add.at(self.counts, (np.searchsorted(first, level, side="right") - 1, classes), weights)
        self.n_bins = len(first)
        self.after = np.arange(1, self.n_bins + 1)
        self.before = np.arange(-1, self.n_bins - 1)
        self.alive = np.ones(self.n_bins, dtype=bool)
        self.version = np.zeros(self.n_bins, dtype=int)
        self.heap = []
        for k in range(self.n_bins - 1):
            self._offer(k)

    def _offer(self, k):
        """Put up bin k for merging with the one after it."""
        self.version[k] += 1
        if self.after[k] < len(self.alive):
            a, b = self.counts[k], self.counts[self.after[k]]
            loss = round(float(_entropy(a + b) - _entropy(a) - _entropy(b)), 9)  # rounded so that equal losses tie
            heapq.heappush(self.heap, (loss, k, self.version[k]))

    def next_loss(self):
        """Return what the next merge loses; there must be two bins."""
        while not self.alive[self.heap[0][1]] or self.version[self.heap[0][1]] != self.heap[0][2]:
            heapq.heappop(self.heap)
        return self.heap[0][0]

    def merge(self):
        """Merge the two neighbours that lose least."""
        self.next_loss()
        _, k, _ = heapq.heappop(self.heap)
        gone = self.after[k]
        self.counts[k] += self.counts[gone]
        self.high[k] = self.high[gone]
        self.alive[gone] = False
        self.after[k] = self.after[gone]
        if self.after[k] < len(self.alive):
            self.before[self.after[k]] = k
        self.n_bins -= 1
        for changed in (self.before[k], k):
            if changed >= 0:
                self._offer(int(changed))

    def edges(self):
        left = self.high[self.alive]
        return np.array([cut_between(a, b) for a, b in zip(left[:-1], self.low[self.alive][1:], strict=True)])


def _fine_bins(weight):
    """Return the positions of the distinct values that start a bin: all of them, or quantiles of the weight."""
    if len(weight) <= _MAX_FINE_BINS:
        return np.arange(len(weight))
    share = np.cumsum(weight) - weight  # weight of the values below
    quantile = np.floor(share * (_MAX_FINE_BINS / weight.sum()))
    return np.flatnonzero(np.diff(quantile, prepend=-1.0))


def _entropy(n):
    """Return N log N - sum n log n."""
    total = n.sum()
    return xlogy(total, total) - xlogy(n, n).sum()


def _merge(columns, total_bins, max_bins):
    """Merge the bins of the columns until there are few enough of them."""
    for column in columns:
        while max_bins is not None and column.n_bins > max_bins:
            column.merge()
    heap = [(column.next_loss(), c) for c, column in enumerate(columns) if column.n_bins > 1]
    heapq.heapify(heap)
    for _ in range(sum(column.n_bins for column in columns) - total_bins):
        if not heap:
            return
        c = heap[0][1]
        columns[c].merge()
        if columns[c].n_bins > 1:
            heapq.heapreplace(heap, (columns[c].next_loss(), c))
        else:
            heapq.heappop(heap)
