"""Where an optimiser may measure: the rows of a pool, or the points of a space.

Both give every candidate a key (a row number; the bytes of a point) and a row of numbers, in which a level of a
categorical column is its position among the levels and NaN is a missing value.
"""

from numbers import Integral

import numpy as np

from effml._columns import as_table, encode_table, is_table, learn_categories, resolve_categorical
from effml.itemsets.spaces import Categorical

__all__ = ["Pool", "SpaceCandidates"]

N_STARTS = 5  # best points whose neighbours are candidates
N_CLIMBS = 4  # rounds of neighbours of the most promising candidates


class Pool:
    """A finite set of candidates, given as rows.

    Parameters
    ----------
    table : DataFrame or array-like (n_candidates, n_features)
        Text columns are categorical, of an object array too.
    categorical_features : "from_dtype", None or array-like of bool, int or str
        See `effml._columns.resolve_categorical`.

    Attributes
    ----------
    rows : float64 array (n_candidates, n_features)
    names : list of str
    categorical : bool array (n_features,)
    levels : list of (array or None), one a feature

    Raises
    ------
    ValueError, TypeError
        If the pool is empty or holds anything but numbers and text.
    """

    def __init__(self, table, categorical_features="from_dtype"):
        table = as_table(table)
        if not table.shape[0] or not table.shape[1]:
            raise ValueError(f"pool must have at least one row and one column, got shape {tuple(table.shape)}")
        self.categorical = resolve_categorical(table, categorical_features)
        if isinstance(categorical_features, str) and not is_table(table) and table.dtype.kind in "OUS":
            self.categorical = np.array([_has_text(column) for column in table.T])
        self.levels = [_whole(levels) for levels in learn_categories(table, self.categorical)]
        plain = [f"x{k}" for k in range(table.shape[1])]
        self.names = [str(name) for name in table.columns] if is_table(table) else plain
        self.rows = self.encode(table)

    @classmethod
    def of(cls, rows, names, categorical, levels):
        """Return the pool of these attributes, checked."""
        pool = cls.__new__(cls)
        pool.rows, pool.names, pool.categorical, pool.levels = rows, names, categorical, levels
        codes = [rows[:, j][~np.isnan(rows[:, j])] for j in np.flatnonzero(categorical)]
        known = [
            np.isin(c, np.arange(len(levels[j]))).all() for j, c in zip(np.flatnonzero(categorical), codes, strict=True)
        ]
        if (
            rows.ndim != 2
            or not rows.size
            or not len(names) == len(levels) == len(categorical) == rows.shape[1]
            or not all(known)
        ):
            raise ValueError("the parts of the pool do not fit together")
        return pool

    @property
    def size(self):
        return len(self.rows)

    @property
    def reference(self):
        """Of each column the values that ranks are taken from."""
        return list(self.rows.T)

    def encode(self, table):
        """Return rows of the pool's columns as numbers; a level that the pool does not have is refused."""
        rows = np.array(encode_table(table, self.levels), dtype=np.float64)
        unknown = (rows[:, self.categorical] < 0).any(axis=0)
        if unknown.any():
            name = np.array(self.names)[self.categorical][unknown.argmax()]
            raise ValueError(f"a row holds a level of column {str(name)!r} that the pool does not have")
        if np.isinf(rows).any():
            raise ValueError("rows of a pool must hold finite numbers or NaN, got infinity")
        return rows

    def read(self, points):
        """Return the keys and rows of what `tell` was given, and whether it was a single point."""
        if is_table(points) or np.ndim(points) == 2:
            rows = self.encode(as_table(points))
            return [None] * len(rows), rows, False
        single = np.ndim(points) == 0
        keys = [self._index(point) for point in ([points] if single else list(points))]
        return keys, self.rows[keys].reshape(len(keys), self.rows.shape[1]), single

    def point(self, key, row):
        """Return what `ask` returns for a candidate: its row number; for a row from elsewhere a dict of values."""
        return int(key) if key is not None else self.described(row)

    def described(self, row):
        """Return a row as a dict from names to values."""
        triples = zip(self.names, self.levels, row, strict=True)
        return {
            name: float(x) if levels is None or np.isnan(x) else levels[int(x)].item() for name, levels, x in triples
        }

    def listed(self, taken):
        """Return all candidates as rows, whatever is `taken`; None where they are too many."""
        return self.rows

    def free(self, taken):
        """Return the positions among those listed that are not in `taken`."""
        mask = np.ones(self.size, dtype=bool)
        mask[[key for key in taken if key is not None]] = False
        return np.flatnonzero(mask)

    def key(self, position):
        """Return the key of a listed candidate."""
        return int(position)

    def sample(self, n, rng):
        """Return the rows of all candidates, or of `n` drawn at random if there are more."""
        return self.rows if self.size <= n else self.rows[np.sort(rng.choice(self.size, n, replace=False))]

    def _index(self, point):
        if isinstance(point, bool | np.bool_) or not isinstance(point, Integral):
            raise TypeError(f"points must be row numbers of the pool, or rows of its columns, got {point!r}")
        if not 0 <= point < self.size:
            raise ValueError(f"point {point} is no row of the pool; accepted: 0 to {self.size - 1}")
        return int(point)


class SpaceCandidates:
    """The points of a space: all of them if few, else a random sample and the neighbourhood of good ones.

    Parameters
    ----------
    space : Space
    n_candidates : int
        Up to so many points are all looked at; of more, so many are drawn.
    """

    def __init__(self, space, n_candidates):
        self.space = space
        self.n_candidates = n_candidates
        self.names, self.categorical, self.size = space.names, space.categorical, space.size
        self.levels = [
            np.array(dimension.levels) if isinstance(dimension, Categorical) else None for dimension in space.dimensions
        ]
        self.reference = space.grids
        self._rows = self._keys = None

    def read(self, points):
        """Return the keys and rows of what `tell` was given, and whether it was a single point."""
        single = isinstance(points, dict)
        rows = [self.space.row(point) for point in ([points] if single else points)]
        return self.keys(rows), np.array(rows).reshape(len(rows), len(self.names)), single

    def point(self, key, row):
        return self.space.point(row)

    def described(self, row):
        return self.space.point(row)

    def listed(self, taken):
        """Return all points of the grid as rows; None where they are too many."""
        if self._rows is None and self.size <= max(self.n_candidates, 2 * len(taken)):
            self._rows = self.space.all_rows()
            self._keys = self.keys(self._rows)
        return self._rows

    def free(self, taken):
        """Return the positions among those listed that are not in `taken`."""
        return np.array([k for k, key in enumerate(self._keys) if key not in taken], dtype=np.intp)

    def key(self, position):
        """Return the key of a listed candidate."""
        return self._keys[position]

    def sample(self, n, rng):
        """Return all points of the grid as rows, or `n` drawn at random if there are more."""
        return self.space.all_rows() if self.size <= n else self.space.random_rows(n, rng)

    def keys(self, rows):
        """Return the keys of rows."""
        return [_key(row) for row in rows]

    def random(self, taken, rng):
        """Return the key and the row of a point drawn at random, of a space too large to list."""
        while True:
            row = self.space.random_rows(1, rng)[0]
            if _key(row) not in taken:
                return _key(row), row

    def promising(self, taken, best, rng, promise):
        """Return keys and rows to choose from, of a space too large to list, and how promising they are.

        Parameters
        ----------
        taken : set
        best : array (n, n_dimensions)
            Rows already measured, best first; their neighbours are candidates beside the random ones.
        rng : numpy.random.Generator
        promise : callable
            From rows to how promising they are. The neighbours of the most promising candidates become candidates too,
            `N_CLIMBS` times.
        """
        near = [self.space.neighbours(row, rng) for row in best[:N_STARTS]]
        keys, rows = self._distinct(np.concatenate([self.space.random_rows(self.n_candidates, rng), *near]), taken)
        worth = promise(rows)
        for _ in range(N_CLIMBS):
            top = np.argsort(-worth, kind="stable")[:N_STARTS]
            near = [self.space.neighbours(row, rng) for row in rows[top]]
            more_keys, more = self._distinct(np.concatenate(near), taken | set(keys))
            if not more_keys:
                break
            keys, rows, worth = keys + more_keys, np.concatenate([rows, more]), np.append(worth, promise(more))
        return keys, rows, worth

    def _distinct(self, rows, taken):
        """Return keys and rows without repeats and without those in `taken`."""
        found = {}
        for k, row in enumerate(rows):
            key = _key(row)
            if key not in taken:
                found.setdefault(key, k)
        return list(found), rows[list(found.values())]


def _key(row):
    return (np.asarray(row, dtype=np.float64) + 0.0).tobytes()  # + 0.0: -0.0 and 0.0 are the same point


def _whole(levels):
    """Return levels that are whole numbers as integers, which read better."""
    if levels is not None and levels.dtype.kind == "f" and (levels == np.round(levels)).all():
        return levels.astype(np.int64) if (np.abs(levels) < 2**53).all() else levels
    return levels


def _has_text(column):
    return any(isinstance(value, str) for value in column.tolist())
