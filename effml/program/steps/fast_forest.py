"""The arrays that `effml._cext.forest_walk` reads: a ForestWalk laid out for many rows at once."""

from dataclasses import dataclass

import numpy as np

from effml._cext.forest_walk import LANES, TOP_EXITS, TOP_LEVELS, TOP_ROWS
from effml.program.steps.binning import as_keys

__all__ = ["FastForest", "fast_forest"]

_BLOCK_KEYS = 1 << 12  # numbers of the rows that walk one tree before the next tree is fetched: they stay in the cache
_MOST_ROWS = 256


@dataclass(frozen=True, eq=False)
class FastForest:
    """See `effml._cext.forest_walk.forest_walk`; nodes are splits, then leaves, which lead to themselves."""

    columns: np.ndarray
    nan_left: bool
    nan_right: bool
    nodes: np.ndarray  # threshold, column, left, right
    tops: np.ndarray  # threshold, column, bits of the exits to keep
    first_top: np.ndarray
    exits: np.ndarray
    leaf: np.ndarray
    narrow: np.ndarray
    wide: np.ndarray
    block: int


def fast_forest(walk) -> FastForest:
    """Return the arrays of a ForestWalk whose links are sound."""
    n, n_leaves = len(walk.feature), len(walk.leaf)
    read = np.zeros(max(int(walk.feature.max(initial=0)) + 1, 1), dtype=bool)
    read[walk.feature] = True
    read[0] |= n == 0
    nan_left = walk.threshold.dtype.kind != "f" or not walk.missing_right.all()
    nan_right = walk.threshold.dtype.kind == "f" and bool(walk.missing_right.any() or n == 0)
    width = int(read.sum())
    block = min(max(_BLOCK_KEYS // (width + walk.output.size) // TOP_ROWS * TOP_ROWS, TOP_ROWS), _MOST_ROWS)
    column = (np.cumsum(read) - 1)[walk.feature]
    if nan_left and nan_right:
        column = column + walk.missing_right * width
    nodes = np.zeros((n + n_leaves, 4), dtype=np.int32)
    nodes[:n, 0] = as_keys(walk.threshold).astype(np.int64) - (2**31 if walk.input_dtype == "u32" else 0)
    nodes[:n, 1] = column * block
    nodes[:n, 2:] = np.where(walk.children < 0, n + ~walk.children, walk.children)
    nodes[n:, 0] = np.iinfo(np.int32).max
    nodes[n:, 2:] = np.arange(n, n + n_leaves)[:, None]
    roots = np.where(walk.roots < 0, n + ~walk.roots, walk.roots)
    narrow, wide = _padded_values(walk)
    return FastForest(
        np.flatnonzero(read).astype(np.int32),
        nan_left,
        nan_right,
        nodes,
        *_tops(nodes, n, roots),
        walk.leaf.astype(np.int32),
        narrow,
        wide,
        block,
    )


def _tops(nodes, n_splits, roots):
    """Return the splits of the trees' tops, where those of each tree begin, and the nodes at their exits.

    A top is numbered as if it were complete: what hangs at a level has 2 ** (levels below) exits, a leaf the first.
    """
    exits = np.zeros((len(roots), TOP_EXITS), dtype=np.int32)
    at, tree, place = roots, np.arange(len(roots)), np.zeros(len(roots), dtype=np.int64)  # place: its first exit
    found = []
    for level in range(TOP_LEVELS):
        is_split = at < n_splits
        exits[tree[~is_split], place[~is_split]] = at[~is_split]
        at, tree, place = at[is_split], tree[is_split], place[is_split]
        half = TOP_EXITS >> (level + 1)
        keep = ~(((np.int64(1) << half) - 1) << place)
        found.append(np.column_stack([tree, nodes[at, 0], nodes[at, 1], keep]))
        at, tree = nodes[at, 2:].ravel(), np.repeat(tree, 2)
        place = (place[:, None] + [0, half]).ravel()
    exits[tree, place] = at
    found = np.concatenate(found)
    found = found[np.argsort(found[:, 0], kind="stable")]
    first = np.searchsorted(found[:, 0], np.arange(len(roots) + 1))
    if not len(found):
        found = np.zeros((1, 4), dtype=np.int64)
    return (found[:, 1:] & 0xFFFFFFFF).astype(np.uint32).view(np.int32), first.astype(np.int64), exits


def _padded_values(walk):
    """Return the values as int16 and as int32 (n_values, padded), one of them, or both of votes, without rows."""
    n_outputs = walk.output.size
    padded = 1 if n_outputs == 1 else -(-n_outputs // LANES) * LANES
    narrow, wide = np.zeros((0, padded), dtype=np.int16), np.zeros((0, padded), dtype=np.int32)
    if walk.votes:
        return narrow, wide
    is_narrow = walk.values.dtype != np.int32
    values = np.zeros((len(walk.values), padded), dtype=np.int16 if is_narrow else np.int32)
    values[:, :n_outputs] = walk.values
    return (values, wide) if is_narrow else (narrow, values)
