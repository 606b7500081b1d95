"""Landmarks: the rows that every kernel compares to."""

import numpy as np
from sklearn.cluster import MiniBatchKMeans

__all__ = ["choose_landmarks"]


def choose_landmarks(how, n_landmarks, Z, strata, random_state) -> np.ndarray:
    """Return landmarks (L, d) from training rows (n_samples, d).

    Parameters
    ----------
    how : {"stratified", "random", "kmeans"}
        Rows drawn so that every stratum keeps its share (at least one row, where there are landmarks enough), drawn
        from all rows alike, or centres of k-means.
    n_landmarks : int or None
        None: every row.
    strata : int array (n_samples,) or None
        Class of every row; None draws from all rows alike.
    """
    n = len(Z) if n_landmarks is None else min(n_landmarks, len(Z))
    if n == len(Z):
        return Z.copy()
    if how == "kmeans":
        seed = random_state.randint(2**31 - 1)
        return MiniBatchKMeans(n, random_state=seed, n_init=1, batch_size=4096).fit(Z).cluster_centers_.astype(Z.dtype)
    if how == "random" or strata is None:
        return Z[random_state.choice(len(Z), n, replace=False)]
    return Z[_stratified(strata, n, random_state)]


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
