"""The space an optimiser searches: named dimensions, each a finite set of values.

    Categorical(["steel", "brass"])         levels without an order
    Integer(1, 10)                          1, 2, ..., 10
    Real(0.0, 1.0, n=21)                    an even grid; log=True: even in the logarithm; step=0.05: by distance

A point is a dict from names to values. Inside, it is a row of numbers: the value of an integer or real dimension, the
position of the level of a categorical one.
"""

import math
from dataclasses import dataclass
from numbers import Integral
from numbers import Real as RealNumber

import numpy as np

__all__ = ["Categorical", "Integer", "Real", "Space"]

DEFAULT_GRID = 33  # values of a real dimension
MOST_VALUES = 100_000  # of a dimension: they are listed


@dataclass(frozen=True, init=False)
class Categorical:
    """A dimension of levels without an order.

    Parameters
    ----------
    levels : sequence of str, or of numbers
        At least one, all different.

    Examples
    --------
    >>> Categorical(["steel", "brass"]).values
    ('steel', 'brass')
    """

    levels: tuple

    def __init__(self, levels):
        if isinstance(levels, str) or not hasattr(levels, "__iter__"):
            raise TypeError(f"levels must be a sequence of text or of numbers, got {levels!r}")
        found = tuple(_plain(level) for level in levels)
        kinds = {"text" if isinstance(level, str) else "number" for level in found}
        if len(kinds) > 1 or not all(isinstance(level, str | RealNumber) and level == level for level in found):
            raise TypeError(f"levels must be all text or all numbers, got {list(levels)!r}")
        if not found or len(set(found)) < len(found):
            raise ValueError(f"levels must be at least one and all different, got {list(levels)!r}")
        object.__setattr__(self, "levels", found)

    @property
    def values(self):
        return self.levels

    @property
    def numbers(self):
        """The values as the numbers that stand for them inside, float64 (n,)."""
        return np.arange(len(self.levels), dtype=np.float64)

    def number(self, value, name):
        """Return the number that stands for a value, or raise."""
        value = _plain(value)
        if not isinstance(value, str | RealNumber) or value not in self.levels:
            raise ValueError(f"{name}={value!r} is no level of the space; accepted: {list(self.levels)}")
        return float(self.levels.index(value))

    def value(self, number):
        return self.levels[int(number)]


@dataclass(frozen=True)
class Integer:
    """A dimension of the integers from `low` to `high`, both included.

    Parameters
    ----------
    low, high : int

    Examples
    --------
    >>> Integer(1, 4).values
    (1, 2, 3, 4)
    """

    low: int
    high: int

    def __post_init__(self):
        for name in ("low", "high"):
            value = _plain(getattr(self, name))
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise TypeError(f"{name} of an Integer must be an int, got {value!r}")
            object.__setattr__(self, name, value)
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got Integer({self.low}, {self.high})")
        if self.high - self.low >= MOST_VALUES or max(abs(self.low), abs(self.high)) > 2**53:
            raise ValueError(
                f"an Integer has at most {MOST_VALUES} values, got Integer({self.low}, {self.high}); "
                "for larger ranges use a Real with a grid of n values"
            )

    @property
    def values(self):
        return tuple(range(self.low, self.high + 1))

    @property
    def numbers(self):
        return np.arange(self.low, self.high + 1, dtype=np.float64)

    def number(self, value, name):
        plain = _plain(value)
        whole = isinstance(plain, RealNumber) and not isinstance(plain, bool) and plain == plain // 1
        if not whole or not self.low <= plain <= self.high:
            raise ValueError(f"{name}={value!r} is outside the space; accepted: integers {self.low} to {self.high}")
        return float(plain)

    def value(self, number):
        return int(number)


@dataclass(frozen=True)
class Real:
    """A dimension of real numbers, searched on a grid from `low` to `high`.

    Parameters
    ----------
    low, high : float
    n : int or None, default=None
        Number of grid values, both ends included; 33 if `step` is None too.
    step : float or None, default=None
        Distance between grid values; the last is `high` at most. Not together with `n` or `log`.
    log : bool, default=False
        Even in the logarithm; `low` must be positive.

    Examples
    --------
    >>> Real(0.0, 1.0, n=5).values
    (0.0, 0.25, 0.5, 0.75, 1.0)
    >>> Real(0.01, 100.0, n=5, log=True).values
    (0.01, 0.1, 1.0, 10.0, 100.0)
    >>> Real(0.0, 1.0, step=0.4).values
    (0.0, 0.4, 0.8)
    """

    low: float
    high: float
    n: int | None = None
    step: float | None = None
    log: bool = False

    def __post_init__(self):
        for name in ("low", "high"):
            value = _plain(getattr(self, name))
            if not isinstance(value, RealNumber) or not math.isfinite(value):
                raise TypeError(f"{name} of a Real must be a finite number, got {value!r}")
            object.__setattr__(self, name, float(value))
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got Real({self.low}, {self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be positive with log=True, got {self.low}")
        if self.step is not None:
            self._check_step()
        elif self.n is not None and (not isinstance(self.n, Integral) or not 2 <= self.n <= MOST_VALUES):
            raise ValueError(f"n must be an int from 2 to {MOST_VALUES} or None, got {self.n!r}")

    def _check_step(self):
        if self.n is not None or self.log:
            raise ValueError("step is the distance of an even grid; it goes with neither n nor log=True")
        if not isinstance(self.step, RealNumber) or not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step must be positive and at most high - low, got {self.step!r}")

    @property
    def values(self):
        return tuple(self.numbers.tolist())

    @property
    def numbers(self):
        if self.step is not None:
            n = math.floor((self.high - self.low) / self.step * (1 + 1e-12)) + 1
            return np.minimum(self.low + self.step * np.arange(n), self.high)
        n = DEFAULT_GRID if self.n is None else int(self.n)
        grid = np.geomspace(self.low, self.high, n) if self.log else np.linspace(self.low, self.high, n)
        grid[[0, -1]] = self.low, self.high
        return grid

    def number(self, value, name):
        plain = _plain(value)
        if not isinstance(plain, RealNumber) or not self.low <= plain <= self.high:
            raise ValueError(f"{name}={value!r} is outside the space; accepted: numbers {self.low} to {self.high}")
        return float(plain)

    def value(self, number):
        return float(number)


class Space:
    """Named dimensions and what an optimiser asks of them.

    Parameters
    ----------
    dimensions : dict from str to dimension, or list of dimensions
        A list gets the names x0, x1, ... A dimension is a `Categorical`, `Integer` or `Real`, or short for one: a list
        of levels, or a pair (low, high), of integers for `Integer`, with a float for `Real`.

    Attributes
    ----------
    names : list of str
    dimensions : list of Categorical, Integer or Real
    size : int
        Number of points on the grid.

    Examples
    --------
    >>> space = Space({"metal": ["steel", "brass"], "layers": (1, 3), "heat": Real(0.0, 1.0, n=5)})
    >>> space.size
    30
    >>> space.row({"metal": "brass", "layers": 2, "heat": 0.25}).tolist()
    [1.0, 2.0, 0.25]
    >>> space.point([1.0, 2.0, 0.25])
    {'metal': 'brass', 'layers': 2, 'heat': 0.25}
    """

    def __init__(self, dimensions):
        if not isinstance(dimensions, dict):
            if isinstance(dimensions, str) or not hasattr(dimensions, "__iter__"):
                raise TypeError(f"space must be a dict or a list of dimensions, got {dimensions!r}")
            dimensions = {f"x{k}": dimension for k, dimension in enumerate(dimensions)}
        if not dimensions:
            raise ValueError("space must have at least one dimension, got none")
        wrong = [name for name in dimensions if not isinstance(name, str)]
        if wrong:
            raise TypeError(f"names of dimensions must be text, got {wrong[0]!r}")
        self.names = list(dimensions)
        self.dimensions = [_dimension(name, given) for name, given in dimensions.items()]
        self.grids = [dimension.numbers for dimension in self.dimensions]
        self.size = math.prod(len(grid) for grid in self.grids)

    @property
    def categorical(self):
        """Bool array (n_dimensions,): which dimensions have levels."""
        return np.array([isinstance(dimension, Categorical) for dimension in self.dimensions])

    def row(self, point):
        """Return a point as numbers, float64 (n_dimensions,); raise where it is none of this space.

        A real value may lie between two values of the grid.
        """
        if not isinstance(point, dict):
            raise TypeError(f"a point must be a dict from names to values, got {type(point).__name__} {point!r}")
        for name in point:
            if name not in self.names:
                raise ValueError(f"the point has {name!r}, which is no dimension of the space; these are {self.names}")
        for name in self.names:
            if name not in point:
                raise ValueError(f"the point lacks a value of {name!r}; dimensions are {self.names}")
        pairs = zip(self.names, self.dimensions, strict=True)
        return np.array([dimension.number(point[name], name) for name, dimension in pairs])

    def point(self, row):
        """Return the point of a row of numbers."""
        triples = zip(self.names, self.dimensions, row, strict=True)
        return {name: dimension.value(number) for name, dimension, number in triples}

    def all_rows(self):
        """Return every point of the grid, float64 (size, n_dimensions)."""
        return np.stack([mesh.ravel() for mesh in np.meshgrid(*self.grids, indexing="ij")], axis=1)

    def random_rows(self, n, rng):
        """Return `n` points of the grid, each drawn uniformly, float64 (n, n_dimensions)."""
        return np.stack([grid[rng.integers(len(grid), size=n)] for grid in self.grids], axis=1)

    def neighbours(self, row, rng, most_levels=16):
        """Return the points that differ from a row in one dimension, float64 (n, n_dimensions).

        An ordered dimension moves to the grid values 1, 2, 4, ... steps away in either direction, a categorical one to
        every other level, or to `most_levels` of them drawn at random.
        """
        rows = []
        for j, (grid, categorical) in enumerate(zip(self.grids, self.categorical, strict=True)):
            at = int(np.argmin(np.abs(grid - row[j])))
            if categorical:
                others = np.delete(np.arange(len(grid)), at)
                if len(others) > most_levels:
                    others = rng.choice(others, most_levels, replace=False)
            else:
                steps = 2 ** np.arange(len(grid).bit_length())
                others = np.concatenate([at - steps, at + steps])
                others = others[(others >= 0) & (others < len(grid))]
            changed = np.repeat(np.asarray(row, dtype=np.float64)[None], len(others), axis=0)
            changed[:, j] = grid[others]
            rows.append(changed)
        return np.concatenate(rows)

    def to_json(self):
        """Return the dimensions as lists and numbers that JSON can hold."""
        kinds = [type(dimension).__name__ for dimension in self.dimensions]
        fields = [dict(vars(dimension)) for dimension in self.dimensions]
        return [[name, kind, field] for name, kind, field in zip(self.names, kinds, fields, strict=True)]

    @classmethod
    def from_json(cls, content):
        """Return the space that `to_json` described."""
        kinds = {"Categorical": Categorical, "Integer": Integer, "Real": Real}
        return cls({name: kinds[kind](**fields) for name, kind, fields in content})


def _dimension(name, given):
    if isinstance(given, Categorical | Integer | Real):
        return given
    if isinstance(given, list):
        return Categorical(given)
    if isinstance(given, tuple) and len(given) == 2:
        low, high = (_plain(end) for end in given)
        whole = all(isinstance(end, Integral) and not isinstance(end, bool) for end in (low, high))
        return Integer(low, high) if whole else Real(low, high)
    raise TypeError(
        f"dimension {name!r} must be a Categorical, Integer or Real, a list of levels or a pair (low, high), "
        f"got {given!r}"
    )


def _plain(value):
    """Return numpy's scalars as Python's own."""
    return value.item() if isinstance(value, np.generic) else value
