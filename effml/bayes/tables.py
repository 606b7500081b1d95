"""The tables of a Bayesian network classifier in the layout that scoring wants.

One row per (feature, state, parent state) with the classes side by side, padded to whole vector registers, so that the
score of a sample is the sum of D + 1 rows: ``score = prior + sum_i rows[first_i + x_i * r_pa(i) + x_pa(i)]``.
"""

import numpy as np

from effml._cext.tables import table_argmax, table_scores

__all__ = ["MAX_STATES", "ScoreTable", "codes_dtype"]

# A code is stored as uint8 or uint16, one past the last state meaning "missing".
MAX_STATES = 65_535

_LANES = 8  # floats in the kernel's vector type
_ROW_NS = 0.5  # to add one vector register of a table row, order of magnitude
_THREAD_NS = 2e6  # less work than this per thread is done sooner by one thread


def codes_dtype(n_states):
    """Return the smallest unsigned type that holds every code and the code ``n_states`` for missing."""
    return np.dtype(np.uint8 if np.max(n_states) <= 255 else np.uint16)


class ScoreTable:
    """Tables packed for scoring; a code out of range drops its factor and those of its children.

    Parameters
    ----------
    prior : array (n_classes,)
        Start of every score.
    tables : list of arrays (r_i, n_classes) or (r_i, r_parent, n_classes)
        What feature i adds.
    parents : int array (n_features,)
        Position of the feature's parent, -1 for none.
    n_states : int array (n_features,)

    Notes
    -----
    Scores are float32 sums in the order prior, feature 0, feature 1, ...; integer tables are summed exactly while
    every partial sum stays below 2^24 in absolute value (see `effml.bayes.rounding`).
    """

    def __init__(self, prior, tables, parents, n_states):
        self.n_classes = len(prior)
        self.parents = np.ascontiguousarray(parents, dtype=np.int64)
        self.n_states = np.ascontiguousarray(n_states, dtype=np.int64)
        rows = [np.reshape(table, (-1, self.n_classes)) for table in tables]
        # first[i] is where feature i begins, first[D] the prior's row; the row after it is the zero row.
        self.first = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        width = -(-self.n_classes // _LANES) * _LANES
        self.table = np.zeros((self.first[-1] + 2, width), dtype=np.float32)
        self.table[: self.first[-1] + 1, : self.n_classes] = np.concatenate([*rows, np.reshape(prior, (1, -1))])

    @classmethod
    def from_codes(cls, prior_codes, codes, parents, n_states):
        """Return the table whose integer sums rank the classes, the largest first.

        Parameters
        ----------
        prior_codes : uint8 array (n_classes,), or None
            Fixed-point codes are costs and enter negated; None means contrast codes, larger is better, no prior.
        codes : list of uint8 arrays
        parents, n_states : int arrays (n_features,)
        """
        if prior_codes is None:
            return cls(np.zeros(codes[0].shape[-1]), codes, parents, n_states)
        return cls(0.0 - prior_codes, [0.0 - table for table in codes], parents, n_states)

    def scores(self, codes, *, n_threads=1, portable=False):
        """Return the scores of every class.

        Parameters
        ----------
        codes : uint8 or uint16 array (n_samples, n_features)
        n_threads : int
        portable : bool
            Do without special instructions; the result is the same.

        Returns
        -------
        float32 array (n_samples, n_classes)
        """
        scratch = self._scratch(codes, n_threads)
        out = np.empty((len(codes), self.table.shape[1]), dtype=np.float32)
        table_scores(
            np.ascontiguousarray(codes), self.table, self.first, self.parents, self.n_states, scratch, out, portable
        )
        return out[:, : self.n_classes]

    def argmax(self, codes, *, n_threads=1, portable=False):
        """Return the index of the class of largest score, the lowest such index on ties; int64 array (n_samples,)."""
        scratch = self._scratch(codes, n_threads)
        out = np.empty(len(codes), dtype=np.int64)
        table_argmax(
            np.ascontiguousarray(codes),
            self.table,
            self.first,
            self.parents,
            self.n_states,
            self.n_classes,
            scratch,
            np.empty((len(scratch), self.table.shape[1]), dtype=np.float32),
            out,
            portable,
        )
        return out

    def _scratch(self, codes, n_threads):
        n_rows = len(self.parents) + 1
        work = len(codes) * n_rows * (self.table.shape[1] / _LANES) * _ROW_NS
        return np.empty((max(1, min(n_threads, int(work / _THREAD_NS))), n_rows), dtype=np.int64)
