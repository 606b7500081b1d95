"""Codes and masks of conditions: only what the conditions of a model tell apart is shipped, in the fewest bytes.

The states of a raw column that no condition tells apart become one code, and a condition becomes a mask over the codes.
In C column, mask and an end mark share a word of 16 or 32 bits (:class:`effml.program.steps.itemsets.ItemsetMatch`), so
the width of the words bounds the codes of a column; where it has more, its conditions are shared out among several
columns of codes.
"""

from dataclasses import dataclass, replace

import numpy as np

from effml.program.frame import LoweringError
from effml.program.steps import Bin, ItemsetMatch
from effml.program.steps.itemsets import column_bits

__all__ = ["CodeColumn", "add_matches", "code_columns"]

RECODE_BYTES = 64  # calibrated code of a Bin step whose codes do not just count


def add_matches(builder, columns, sets):
    """Add the steps that tell which itemsets match, 0 for a match, and return their buffer and the raw columns read.

    Parameters
    ----------
    builder : Builder
    columns : list of discrete Column
    sets : list of dict
        Of each itemset, from positions in `columns` to the states in which a condition holds, bool (n_states + 1,), the
        last entry for missing values.

    Returns
    -------
    flags : str or None
        None without itemsets.
    sources : set of int
    """
    if not sets:
        return None, set()
    coded = code_columns(columns, sets)
    parts = [column.part for column in coded]
    codes = builder.add(Bin, "code", "u8", len(parts), parts=parts)
    where = {key: (k, mask) for k, column in enumerate(coded) for key, mask in column.masks.items()}
    items = [where[position, holds.tobytes()] for itemset in sets for position, holds in itemset.items()]
    flags = builder.add(
        ItemsetMatch,
        "miss",
        "u8",
        len(sets),
        inputs=(codes,),
        columns=np.array([column for column, _ in items], dtype=np.int64),
        masks=np.array([mask for _, mask in items], dtype=np.uint32),
        sizes=np.array([len(itemset) for itemset in sets], dtype=np.int64),
    )
    return flags, {part[0] for part in parts}


@dataclass(frozen=True, eq=False)
class CodeColumn:
    """One column of codes.

    Attributes
    ----------
    part : tuple
        Argument of Bin.of.
    masks : dict
        From (position of the raw column, states as bytes) to the mask over the codes.
    """

    part: tuple
    masks: dict

    @property
    def recoded(self) -> bool:
        return self.part[3] is not None

    @property
    def nbytes(self) -> int:
        """Constants of the column, roughly: its number, count, cuts or values, and codes."""
        _, by_value, cuts, codes, _ = self.part
        counted = by_value and np.array_equal(cuts, np.arange(len(cuts)))
        return 2 + (0 if counted else 4 * len(cuts)) + (0 if codes is None else len(codes))


def code_columns(columns, sets) -> list[CodeColumn]:
    """Return the columns of codes of all conditions, for words of the width that takes the fewest bytes."""
    distinct: dict[int, dict[bytes, np.ndarray]] = {}
    for itemset in sets:
        for position, holds in itemset.items():
            distinct.setdefault(position, {})[holds.tobytes()] = holds
    n_items = sum(len(itemset) for itemset in sets)
    plans = []
    for word in (16, 32):
        coded = _plan(columns, distinct, word)
        if coded is not None:
            nbytes = n_items * word // 8 + sum(column.nbytes for column in coded)
            plans.append((nbytes + RECODE_BYTES * any(column.recoded for column in coded), word, coded))
    if not plans:
        raise LoweringError(f"{len(distinct)} columns are read by conditions, more than words of 32 bits can number")
    return min(plans, key=lambda plan: plan[:2])[2]


def _plan(columns, distinct, word):
    """Return columns of codes whose masks fit a word beside the column's number and the end mark, None without any."""
    for bits in range(word - 2):
        limit = word - 1 - bits
        coded = [
            made
            for position in sorted(distinct)
            for made in _coded(columns[position], position, _sorted(distinct[position]), limit)
        ]
        if column_bits(len(coded)) <= bits:
            return coded
    return None


def _sorted(conditions):
    """Return conditions, bool (n, n_states + 1), so that those which share edges stand together."""
    return np.array(sorted((holds.tolist() for holds in conditions.values()), reverse=True))


def _coded(column, position, holds, limit):
    """Return the columns of codes, at most `limit` codes with a mask bit in each, that these conditions read."""
    whole = column
    column, by_state = _without_needless_states(column, holds, limit)
    codes = np.arange(by_state.shape[1])
    needed = len(codes) - 1 + by_state[:, -1].any()  # the code of missing values needs no bit where nothing holds
    if needed > limit:
        by_state, codes = np.unique(by_state, axis=1, return_inverse=True)
        codes, needed = codes.ravel(), by_state.shape[1]
    if needed > limit:
        half = len(holds) // 2
        parts = (holds[:half], holds[half:])
        return [made for part in parts for made in _coded(whole, position, part, limit)]
    masks = (by_state.astype(np.int64) << np.arange(by_state.shape[1])).sum(axis=1)
    keys = [(position, row.tobytes()) for row in holds]
    return [CodeColumn(column.bin_part(codes), dict(zip(keys, masks.tolist(), strict=True)))]


def _without_needless_states(column, holds, limit):
    """Return the column with states merged that no condition tells apart, and the conditions over them and missing."""
    last = holds.shape[1] - 1
    if not column.by_value:
        change = (holds[:, 1:last] != holds[:, : last - 1]).any(axis=0)
        kept = np.append(0, np.flatnonzero(change) + 1)
        return replace(column, cuts=column.cuts[change], values=None), holds[:, np.append(kept, last)]
    kept = np.flatnonzero((holds[:, :last] != holds[:, -1:]).any(axis=0))  # others are like an unknown value
    if np.array_equal(column.cuts, np.arange(last)):  # read by index, without a table of values
        counted = np.arange(kept[-1] + 1)
        if len(counted) <= limit or len(counted) <= 4 * len(kept):
            kept = counted
    return replace(column, cuts=column.cuts[kept], values=None), holds[:, np.append(kept, last)]
