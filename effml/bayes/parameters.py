"""Generative parameters: counts to smoothed log-probabilities (Laplace / Lidstone).

With n_ijc the weight of the rows with feature state i, parent state j and class c, r states and smoothing a::

    L[i, j, c] = log (n_ijc + a) / (sum_i n_ijc + a r)        prior: L0[c] = log (n_c + a) / (n + a C)
"""

import numpy as np

__all__ = ["log_conditionals", "log_prior", "n_parameters"]


def log_prior(class_count, alpha):
    """Return the smoothed log-probabilities of the classes.

    Parameters
    ----------
    class_count : array (n_classes,)
        Total weight of each class.
    alpha : float > 0
        Pseudo-count of each class.

    Returns
    -------
    float64 array (n_classes,)

    Examples
    --------
    >>> import numpy as np
    >>> np.exp(log_prior(np.array([2.0, 0.0]), alpha=1.0)).round(2).tolist()
    [0.75, 0.25]
    """
    return np.log(class_count + alpha) - np.log(class_count.sum() + alpha * len(class_count))


def log_conditionals(counts, alpha):
    """Return log p(state | parent state, class) of one feature.

    Parameters
    ----------
    counts : array (n_states, n_classes) or (n_states, n_parent_states, n_classes)
        Total weight of each combination.
    alpha : float > 0
        Pseudo-count of each cell.

    Returns
    -------
    float64 array of the shape of `counts`
    """
    if not len(counts):  # a dropped feature
        return counts
    return np.log(counts + alpha) - np.log(counts.sum(axis=0) + alpha * len(counts))


def n_parameters(n_states, parents, n_classes):
    """Return C + sum_i r_i r_pa(i) C, the size of all tables with every state stored and the class prior included."""
    parent_states = np.where(parents >= 0, n_states[parents], parents == -1)  # 0 where there is no table
    return int(n_classes * (1 + np.dot(n_states, parent_states)))
