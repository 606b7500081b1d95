"""Landmarks: the rows that every kernel compares to."""

import numpy as np
from sklearn.cluster import MiniBatchKMeans

__all__ = ["choose_landmarks"]

ROWS_A_CENTRE = 256  # that k-means reads, drawn at random


def choose_landmarks(how, n_landmarks, X, standardize, strata, random_state) -> np.ndarray:
    """Return standardised landmarks (L, d) from training rows (n_samples, d).

    Parameters
    ----------
    how : {"stratified", "random", "kmeans"}
        Rows drawn so that every stratum keeps its share (at least one row, where there are landmarks enough), drawn
        from all rows alike, or centres of k-means.
    n_landmarks : int or None
        None: every row.
    standardize : callable
        From rows as they are to standardised rows.
    strata : int array (n_samples,) or None
        Class of every row; None draws from all rows alike.
    """
    n = len(X) if n_landmarks is None else min(n_landmarks, len(X))
    if n == len(X):
        return standardize(X)
    if how == "kmeans":
        rows = standardize(X[random_state.permutation(len(X))[: ROWS_A_CENTRE * n]])
        seed = random_state.randint(2**31 - 1)
        return MiniBatchKMeans(n, random_state=seed, n_init=1, batch_size=4096).fit(rows).cluster_centers_
    if how == "random" or strata is None:
        return standardize(X[random_state.choice(len(X), n, replace=False)])
    return standardize(X[_stratified(strata, n, random_state)])


def _stratified(strata, n, random_state):
    """Return n positions: from each stratum its share, rounded by largest remainder, at least one if n allows it."""
    counts = np.bincount(strata)
    present = np.flatnonzero(counts)
    share = n * counts[present] / len(strata)
    least = 1 if n >= len(present) else 0
    taken = np.maximum(np.floor(share).astype(int), least)
    while taken.sum() > n:
        taken[np.argmax(np.where(taken > least, taken - share, -np.inf))] -= 1
    order = np.argsort(-(share - taken), kind="stable")
    for k in np.resize(order, 2 * n):
        if taken.sum() == n:
            break
        if taken[k] < counts[present[k]]:
            taken[k] += 1
    chosen = [random_state.permutation(np.flatnonzero(strata == c))[:m] for c, m in zip(present, taken, strict=True)]
    return np.concatenate(chosen)
