"""What the splits of a forest compare: raw values, or ranks of a column among its thresholds, found once a row.

Ranks are small integers, so a split is small and quick; the thresholds then stand in one table, each once.
"""

from collections.abc import Sequence

import numpy as np

from effml.program.buffers import RAW, Buffer, smallest_unsigned
from effml.program.steps import Bin, ForestWalk
from effml.program.steps.forest_words import payload_of, word_format

__all__ = [
    "BIN_BYTES",
    "MAX_NARROW_COLUMNS",
    "MAX_NARROW_CUTS",
    "forests_on_integers",
    "rank_tests",
    "table_bytes",
    "without_decided_splits",
]

BIN_BYTES = 200  # code of a binary search that ranks all columns, about
MAX_NARROW_CUTS = 255  # ranks among so many cuts fit a byte ...
MAX_NARROW_COLUMNS = 64  # ... and beside them in a word of 16 bits so many columns (two bits say which child is a leaf)


def rank_tests(group: np.ndarray, threshold: np.ndarray):
    """Rank the thresholds of each group of tests.

    A group with more than 255 thresholds is cut into several ranks as long as all of them together still fit the short
    form of a split.

    Parameters
    ----------
    group : int array (n_splits,)
        0, 1, ...: tests that may share a rank, each number used.
    threshold : array (n_splits,)

    Returns
    -------
    position : int64 array (n_splits,)
        Which rank a test reads.
    rank : uint8 or uint16 array (n_splits,)
        The test's new threshold: right iff the rank, the number of cuts below the value, is larger.
    owners : list of int
        Group of each rank.
    cuts : list of arrays
        Thresholds of each rank, ascending.
    """
    order = np.lexsort((threshold, group))
    ends = np.cumsum(np.bincount(group))[:-1]
    tests = np.split(order, ends)
    levels = [np.unique(threshold[members]) for members in tests]
    narrow = sum(-(-len(values) // MAX_NARROW_CUTS) for values in levels) <= MAX_NARROW_COLUMNS
    width = MAX_NARROW_CUTS if narrow else max(map(len, levels))
    position, rank = (np.empty(len(group), dtype=np.int64) for _ in range(2))
    owners: list[int] = []
    cuts: list[np.ndarray] = []
    for owner, (members, values) in enumerate(zip(tests, levels, strict=True)):
        level = np.searchsorted(values, threshold[members])
        position[members], rank[members] = len(cuts) + level // width, level % width
        starts = range(0, len(values), width)
        owners += [owner] * len(starts)
        cuts += [values[start : start + width] for start in starts]
    narrowest = np.uint8 if max(map(len, cuts)) <= MAX_NARROW_CUTS else np.uint16
    return position, rank.astype(narrowest), owners, cuts


def table_bytes(walk: ForestWalk) -> int:
    """Return the bytes of a forest's splits and leaves in the table layout, without tables of values."""
    words = word_format(walk, payload_of(walk).bits).own[(walk.children < 0).sum(axis=1)]
    return 2 * int(words.sum())


# -- integer rows -----------------------------------------------------------------------------------------------------


def forests_on_integers(steps: Sequence, kept: frozenset[str]) -> list:
    """Let each forest that ranks integers read the raw integers, or rank them anew, whichever takes fewer bytes.

    Parameters
    ----------
    steps : sequence of Step
        Of a program on integer rows: thresholds and cuts on the raw row are integers already.
    kept : frozenset of str
        Buffers that are outputs of the program.
    """
    steps = list(steps)
    for walk in [step for step in steps if isinstance(step, ForestWalk)]:
        made_by = next((step for step in steps if step.output.name == walk.inputs[0]), None)
        if not isinstance(made_by, Bin) or made_by.inputs[0] != RAW or made_by.output.name in kept:
            continue
        if sum(made_by.output.name in step.inputs for step in steps) > 1:
            continue
        tests = _raw_tests(made_by, walk)
        if tests is None:
            continue
        raw = without_decided_splits(walk.replace(inputs=(RAW, *walk.inputs[1:])), *tests, made_by.dtype)
        position = steps.index(made_by)
        steps[steps.index(walk)] = raw
        steps.remove(made_by)
        ranked = _ranked_again(raw, made_by)
        if ranked is not None:
            steps[steps.index(raw)] = ranked[1]
            steps.insert(position, ranked[0])
    return steps


def _raw_tests(ranks: Bin, walk: ForestWalk):
    """Return raw columns and thresholds (int64) of tests of ranks; None where ranks are no counts of edges below."""
    info = np.iinfo(ranks.dtype)
    feature, limit = (np.empty(len(walk.feature), dtype=np.int64) for _ in range(2))
    for i, column, by_value, cuts, codes, _ in ranks.parts():
        tests = walk.feature == i
        if not tests.any():
            continue
        if by_value or (codes[1:] < codes[:-1]).any():
            return None
        # right iff the code is larger than the threshold: from interval `first` on, which begins above cut `first - 1`
        first = np.searchsorted(codes, walk.threshold[tests].astype(np.int64), side="right")
        bounds = np.concatenate([[info.min - 1], cuts.astype(np.int64), [info.max]])
        feature[tests], limit[tests] = column, bounds[first]
    return feature, limit


def without_decided_splits(walk: ForestWalk, feature, limit, dtype) -> ForestWalk:
    """Return the forest with tests ``x[feature] > limit`` of integers of `dtype`, without those that none can pass.

    Parameters
    ----------
    walk : ForestWalk
        Its own features and thresholds are not read.
    feature : int array (n_splits,)
    limit : int64 array (n_splits,)
        One below the range of `dtype` where every value goes right, its largest number where every one goes left.
    dtype : dtype
    """
    info = np.iinfo(dtype)
    decided = (limit < info.min) | (limit >= info.max)
    onward = np.where(limit < info.min, walk.children[:, 1], walk.children[:, 0])

    def behind(node):
        node = node.copy()
        while (at := (node >= 0) & decided[np.maximum(node, 0)]).any():
            node[at] = onward[node[at]]
        return node

    roots = walk.roots.copy() if not len(decided) else behind(walk.roots)
    children = walk.children.copy() if not len(decided) else behind(walk.children.ravel()).reshape(-1, 2)
    used = np.zeros(len(decided), dtype=bool)
    level = roots[roots >= 0]
    while level.size:
        used[level] = True
        below = children[level].ravel()
        level = below[below >= 0]
    split_number = np.cumsum(used) - 1
    ends = np.concatenate([children[used].ravel(), roots])
    leaves, leaf_number = np.unique(~ends[ends < 0], return_inverse=True)
    moved = np.empty_like(ends)
    moved[ends >= 0] = split_number[ends[ends >= 0]]
    moved[ends < 0] = ~leaf_number.reshape(-1)
    return walk.replace(
        feature=feature[used],
        threshold=limit[used].astype(dtype),
        children=moved[: 2 * int(used.sum())].reshape(-1, 2),
        roots=moved[2 * int(used.sum()) :],
        missing_right=np.zeros(int(used.sum()), dtype=bool),
        leaf=walk.leaf[leaves],
    )


def _ranked_again(raw: ForestWalk, old: Bin):
    """Return (Bin, ForestWalk) of ranks of the raw integers that `raw` reads; None where that takes more bytes."""
    if raw.layout == "code" or not len(raw.feature):
        return None
    columns, group = np.unique(raw.feature, return_inverse=True)
    position, rank, owners, cuts = rank_tests(group.reshape(-1), raw.threshold)
    parts = [(int(columns[owner]), False, values, None, 0) for owner, values in zip(owners, cuts, strict=True)]
    output = Buffer(old.output.name, smallest_unsigned(max(map(len, cuts))), len(parts))
    ranked = raw.replace(inputs=(output.name, *raw.inputs[1:]), feature=position, threshold=rank)
    cut_bytes = sum(values.nbytes for values in cuts)
    if table_bytes(ranked) + cut_bytes + BIN_BYTES >= table_bytes(raw):
        return None
    return Bin.of(parts, output, inputs=old.inputs, dtype=old.dtype), ranked
