"""Pareto fronts: the rows of a table that no other row beats on every column."""

import numpy as np

__all__ = ["pareto_front", "pareto_layers"]


def pareto_front(points, *, minimize=True):
    """Indices of the rows that no other row dominates.

    A row dominates another when it is at least as good in every column and better in one.

    Parameters
    ----------
    points : array-like of shape (n_points, n_columns)
        One row per candidate, one column per objective. Infinities are ordinary values; a row with a NaN is never
        on the front and dominates nothing.
    minimize : bool or sequence of n_columns bools, default=True
        Whether small values are good, for all columns or column by column.

    Returns
    -------
    front : ndarray of shape (n_front,), dtype intp
        Indices into `points`, ascending. Of several equal rows the first one is kept.

    Raises
    ------
    ValueError
        If `points` is not a two-dimensional table or `minimize` does not match its columns.

    Notes
    -----
    Rows are taken in lexicographic order, so that each survivor is on the front, and remove what they dominate:
    O(n_front x n_points) (Kung, Luccio, Preparata, "On Finding the Maxima of a Set of Vectors", J. ACM 1975).

    Examples
    --------
    >>> from effml.selection import pareto_front
    >>> error_and_bytes = [[0.10, 900], [0.20, 300], [0.20, 400], [0.05, 4000]]
    >>> pareto_front(error_and_bytes)
    array([0, 1, 3])
    """
    costs = _as_costs(points, minimize)
    candidates = np.flatnonzero(~np.isnan(costs).any(axis=1))
    remaining = candidates[np.lexsort(costs[candidates].T[::-1])]
    front = []
    while remaining.size:
        best = remaining[0]
        front.append(best)
        remaining = remaining[(costs[remaining] < costs[best]).any(axis=1)]
    return np.sort(np.asarray(front, dtype=np.intp))


def pareto_layers(points, *, minimize=True):
    """Layer number of each row: 0 on the front, 1 on the front of the others, and so on; -1 for rows with a NaN.

    Parameters
    ----------
    points, minimize
        As in :func:`pareto_front`.

    Returns
    -------
    layers : ndarray of shape (n_points,), dtype intp

    Examples
    --------
    >>> from effml.selection.pareto import pareto_layers
    >>> pareto_layers([[1, 1], [2, 2], [0, 3]])
    array([0, 1, 0])
    """
    costs = _as_costs(points, minimize)
    layers = np.full(len(costs), -1, dtype=np.intp)
    open_rows = np.flatnonzero(~np.isnan(costs).any(axis=1))
    layer = 0
    while open_rows.size:
        front = pareto_front(costs[open_rows])
        layers[open_rows[front]] = layer
        open_rows = np.delete(open_rows, front)
        layer += 1
    return layers


def _as_costs(points, minimize):
    """The table as float64 with every column to be minimised."""
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] == 0:
        raise ValueError(
            f"points must be a table of shape (n_points, n_columns) with at least one column, got {points.shape}"
        )
    minimize = np.asarray(minimize)
    if minimize.dtype != bool or minimize.shape not in {(), (points.shape[1],)}:
        raise ValueError(f"minimize must be a bool or {points.shape[1]} bools, one for each column, got {minimize!r}")
    return np.where(minimize, points, -points)
