"""Bayesian optimisation with itemset models: ask where to measure, tell what was found.

Sources: UCB, EI and Thompson sampling as in `effml.itemsets.acquisition`; batches, by measurements of the expected
value in place of those not yet told: T. Desautels, A. Krause, J. Burdick, "Parallelizing exploration-exploitation
tradeoffs in Gaussian process bandit optimization", JMLR 15, 2014.
"""

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state, check_scalar
from threadpoolctl import threadpool_limits

from effml.itemsets import optimizer_file
from effml.itemsets.acquisition import ACQUISITIONS, expected_improvement, upper_confidence_bound
from effml.itemsets.all_itemsets import ItemCoordinates
from effml.itemsets.candidates import Pool, SpaceCandidates
from effml.itemsets.explanation import Summary
from effml.itemsets.itemset_regressor import ItemsetSparseBayesRegressor
from effml.itemsets.problem import LARGEST
from effml.itemsets.spaces import Space
from effml.itemsets.surrogate import Surrogate

__all__ = ["ItemsetBayesOptimizer", "Observation"]

TIE = 1e-9  # share of the range of an acquisition within which candidates are tied
MOST_DRAWN = 500  # candidates at which a function is drawn jointly
FILTER_KAPPA = 3.0  # a function is drawn where the mean plus so many standard deviations is highest
N_EXPLAINED = 1000  # candidates whose predictions an explanation describes


@dataclass(frozen=True)
class Observation:
    """A point and the value measured there; NaN if the measurement failed."""

    point: object
    value: float

    @property
    def failed(self):
        return bool(np.isnan(self.value))


class ItemsetBayesOptimizer:
    """Choose measurements by a model of few readable conditions, until the best point is found.

    The function is modelled as a sum over all itemsets, conjunctions of conditions such as ``heat > 0.3 and metal =
    brass``: all of them have a small common prior, which makes a Gaussian process of their sum, and those that
    :class:`ItemsetSparseBayesRegressor` finds, and that pay for having been searched for, have weights of their own.
    `explain` says which few conditions drive the predictions.

    Parameters
    ----------
    space : dict or list of dimensions, default=None
        `Categorical`, `Integer` or `Real`, or short for one: a list of levels, or a pair (low, high), of integers for
        `Integer`. Points are dicts from names to values; a list has the names x0, x1, ...
    pool : DataFrame or array-like of shape (n_candidates, n_features), default=None
        The candidates, instead of a space; numbers and text, NaN where missing. Points are row numbers.
    regressor : ItemsetSparseBayesRegressor, default=None
        The model of the few conditions; None: its defaults. Its `categorical_features` is set by the optimiser. A fixed
        `kappa` is advised: "cv" fits 16 models in place of one.
    direction : {"minimize", "maximize"}, default="minimize"
        As in Optuna; scikit-optimize always minimises.
    acquisition : {"ei", "ucb", "thompson"}, default="ei"
        Expected improvement on the best value told; the optimistic bound, ``mean + kappa std`` when maximising,
        ``mean - kappa std`` when minimising; or the best point of a function drawn from the model.
    kappa : float, default=1.96
        Standard deviations of optimism in "ucb".
    xi : float, default=0.0
        Least improvement that counts in "ei", in units of the values.
    n_initial : int, default=8
        Points drawn at random before the model is used; failed ones do not count.
    refit_growth : float, default=0.1
        Conditions and hyperparameters are searched for anew once the measurements are more by this share; until then a
        measurement only updates weights and predictions, which takes milliseconds. 0: at every measurement.
    n_candidates : int, default=2000
        A space of more points is searched by a random sample of this size and the neighbourhoods of good points.
    categorical_features : "from_dtype", None or array-like of bool, int or str, default="from_dtype"
        Columns of the pool whose values are levels; by default its text and category columns.
    random_state : int, RandomState or None, default=None
        The same seed, points and values give the same questions, also after `save` and `load`.

    Attributes
    ----------
    best_ : Observation
        Point and value of the best measurement.
    history : list of Observation
        All that was told, in order.
    pending : list
        Points asked and not yet told.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range; `ask` if no candidate is left; `tell` if a point is none of the candidates'
        kind, or a value is infinite.

    Notes
    -----
    A failed measurement is told as NaN. Its point is not asked again, and counts as measured with the value expected
    there: it takes uncertainty away and says nothing of the mean. So does a point asked and not yet told, which is why
    several points can be asked at once or by several workers.

    Measured (benchmarks/isb_bo.py): bootstrap samples of itemset models in place of the sum over all itemsets needed
    twice the measurements, and four to seven times the time. Itemsets with weights of their own matter after some
    fifty measurements; before, few pay their price.

    Examples
    --------
    >>> from effml.itemsets import Integer, ItemsetBayesOptimizer, Real
    >>> space = {"metal": ["steel", "brass", "zinc"], "layers": Integer(1, 4), "heat": Real(0.0, 1.0, n=21)}
    >>> def strength(point):
    ...     return 2.0 * (point["metal"] == "brass") * point["layers"] - 8.0 * (point["heat"] - 0.6) ** 2
    >>> optimizer = ItemsetBayesOptimizer(space, direction="maximize", random_state=0)
    >>> for _ in range(30):
    ...     point = optimizer.ask()
    ...     optimizer.tell(point, strength(point))
    >>> optimizer.best_.point["metal"], optimizer.best_.point["layers"]
    ('brass', 4)

    A pool, two questions at a time:

    >>> import numpy as np
    >>> pool = np.array([[a, b] for a in range(5) for b in range(5)])
    >>> optimizer = ItemsetBayesOptimizer(pool=pool, random_state=0)
    >>> points = optimizer.ask(n_points=2)
    >>> optimizer.tell(points, [float(pool[k].sum()) for k in points])
    >>> len(optimizer.history)
    2
    """

    def __init__(
        self,
        space=None,
        pool=None,
        *,
        regressor=None,
        direction="minimize",
        acquisition="ei",
        kappa=1.96,
        xi=0.0,
        n_initial=8,
        refit_growth=0.1,
        n_candidates=2000,
        categorical_features="from_dtype",
        random_state=None,
    ):
        self.regressor, self.direction, self.acquisition = regressor, direction, acquisition
        self.kappa, self.xi, self.n_initial = kappa, xi, n_initial
        self.refit_growth, self.n_candidates = refit_growth, n_candidates
        self._check_parameters()
        if (space is None) == (pool is None):
            raise ValueError(f"give either space or pool, got {'neither' if pool is None else 'both'}")
        if pool is not None:
            self._where = pool if isinstance(pool, Pool) else Pool(pool, categorical_features)
        else:
            self._where = SpaceCandidates(Space(space), n_candidates)
        self._start(random_state)

    def _check_parameters(self):
        if self.regressor is not None and not isinstance(self.regressor, ItemsetSparseBayesRegressor):
            raise TypeError(f"regressor must be an ItemsetSparseBayesRegressor or None, got {self.regressor!r}")
        if self.regressor is not None:
            self.regressor._validate_params()
            if "cv" in (self.regressor.kappa, self.regressor.inclusion_prior) and self.n_initial < 10:
                raise ValueError(f"a regressor with 'cv' needs n_initial of at least 10, got {self.n_initial}")
        if self.direction not in ("minimize", "maximize"):
            raise ValueError(f"direction must be 'minimize' or 'maximize', got {self.direction!r}")
        if self.acquisition not in ACQUISITIONS:
            raise ValueError(f"acquisition must be one of {list(ACQUISITIONS)}, got {self.acquisition!r}")
        for name in ("kappa", "xi", "refit_growth"):
            check_scalar(getattr(self, name), name, Real, min_val=0)
        for name in ("n_initial", "n_candidates"):
            check_scalar(getattr(self, name), name, Integral, min_val=1)

    def _start(self, random_state):
        if isinstance(random_state, Integral):
            check_scalar(random_state, "random_state", Integral, min_val=0)
            self._seed = int(random_state)
        else:
            self._seed = int(check_random_state(random_state).randint(2**31 - 1))
        self._sign = 1.0 if self.direction == "maximize" else -1.0
        self._keys, self._rows, self._values = [], [], []
        self._pending = {}  # key -> row
        self._n_asked = 0
        self._coordinates = ItemCoordinates(self._where.reference, self._where.categorical)
        self._surrogate = None
        self._fit_length = 0  # measurements, failed ones too, when the surrogate was last fitted
        self._n_learned = 0  # measurements that it knows

    # -- ask and tell -------------------------------------------------------------------------------------------------

    def ask(self, n_points=None):
        """Return where to measure next.

        Parameters
        ----------
        n_points : int or None, default=None
            None: one point; otherwise a list of so many.

        Returns
        -------
        point : int, dict, or a list of them
            A row number of the pool, or a dict of values. Never one that was told or is pending.
        """
        if n_points is not None:
            check_scalar(n_points, "n_points", Integral, min_val=1)
        with threadpool_limits(1, user_api="blas"):
            before, n_asked, points = dict(self._pending), self._n_asked, []
            try:
                for _ in range(n_points or 1):
                    points.append(self._ask_one())
            except ValueError:
                self._pending, self._n_asked = before, n_asked
                raise
        return points[0] if n_points is None else points

    def tell(self, points, values):
        """Take measurements in.

        Parameters
        ----------
        points : int, dict, list of them, DataFrame or array of shape (n, n_features)
            Asked or not; of a pool also rows of its columns that are not in it.
        values : float or array-like of shape (n,)
            NaN for a failed measurement.
        """
        keys, rows, single = self._where.read(points)
        values = np.asarray(values, dtype=np.float64)
        if values.shape != (() if single else (len(keys),)):
            wanted = "a single value" if single else f"{len(keys)} values, one a point"
            raise ValueError(f"values must be {wanted}, got an array of shape {values.shape}")
        if np.isinf(values).any():
            raise ValueError("values must be finite, or NaN for a failed measurement; got infinity")
        if (np.abs(values) > LARGEST).any():
            raise ValueError(f"values must have magnitudes up to {LARGEST:g}, got {np.nanmax(np.abs(values)):g}")
        self._keys += keys
        self._rows += list(rows)
        self._values += np.atleast_1d(values).tolist()
        for key in keys:
            self._pending.pop(key, None)

    @property
    def history(self):
        triples = zip(self._keys, self._rows, self._values, strict=True)
        return [Observation(self._where.point(key, row), value) for key, row, value in triples]

    @property
    def pending(self):
        return [self._where.point(key, row) for key, row in self._pending.items()]

    @property
    def best_(self):
        values = self._sign * np.array(self._values)
        if np.isnan(values).all():
            raise ValueError("there is no best point yet: no value was told, or all measurements failed")
        k = int(np.nanargmax(values))
        return Observation(self._where.point(self._keys[k], self._rows[k]), self._values[k])

    def predict(self, points):
        """Return what the model expects at points, asked or not.

        Parameters
        ----------
        points : list of int or dict, DataFrame or array of shape (n, n_features)

        Returns
        -------
        mean, std : ndarrays of shape (n,)
            Of the function, without the noise of a measurement.
        """
        _, rows, _ = self._where.read(points)
        with threadpool_limits(1, user_api="blas"):
            mean, std = self._learned(pending=False).predict(rows)
        return self._sign * mean, std

    def explain(self, point=None, *, n_effects=10):
        """Say which conditions drive the predictions.

        Few itemsets are chosen that describe what the model predicts at the candidates (1,000 of them, drawn at random,
        if there are more); the explanation says how much of it they leave out.

        Parameters
        ----------
        point : int or dict, default=None
            None: the conditions and their weights; otherwise what each adds at this point.
        n_effects : int, default=10
            Conditions at most.

        Returns
        -------
        Explanation
            ``print`` shows it as text.
        """
        check_scalar(n_effects, "n_effects", Integral, min_val=1)
        where = self._where
        measured = np.array(self._rows)[~np.isnan(self._values)] if self._rows else None
        with threadpool_limits(1, user_api="blas"):
            sample = where.sample(N_EXPLAINED, np.random.default_rng(self._seed))
            summary = Summary(self._learned(pending=False), sample, n_effects)
            if point is None:
                return summary.overall(where.names, where.levels, measured, self._sign)
            _, rows, single = where.read(point)
            if not single:
                raise ValueError(f"point must be a single point of the candidates, got {point!r}")
            return summary.at(rows[0], where.names, where.levels, measured, self._sign, point)

    # -- the choice of a point ----------------------------------------------------------------------------------------

    def _ask_one(self):
        taken = {key for key in self._keys if key is not None} | set(self._pending)
        rng = np.random.default_rng([self._seed, self._n_asked])
        listed = self._where.listed(taken)
        free = None if listed is None else self._where.free(taken)
        if free is not None and not len(free):
            raise ValueError(f"no candidate is left: all {self._where.size} were told or are pending")
        n_told = np.count_nonzero(~np.isnan(self._values))
        if n_told == 0 or n_told + len(self._pending) < self.n_initial:
            key, row = self._random(taken, free, listed, rng)
        elif free is None:
            key, row = self._from_space(taken, rng)
        else:
            position = self._from_list(free, listed, rng)
            key, row = self._where.key(position), listed[position]
        self._n_asked += 1
        self._pending[key] = row
        return self._where.point(key, row)

    def _random(self, taken, free, listed, rng):
        if free is None:
            return self._where.random(taken, rng)
        position = free[rng.integers(len(free))]
        return self._where.key(position), listed[position]

    def _from_list(self, free, listed, rng):
        surrogate = self._learned(listed)
        mean, std = (part[free] for part in surrogate.predict_watched())
        if self.acquisition == "thompson":
            return free[self._drawn_best(surrogate, listed[free], mean, std, rng)]
        return free[_highest(self._worth(mean, std), rng)]

    def _from_space(self, taken, rng):
        surrogate = self._learned()
        best = np.array(self._rows)[np.argsort(-self._sign * np.array(self._values), kind="stable")]
        keys, rows, worth = self._where.promising(taken, best, rng, lambda rows: self._worth(*surrogate.predict(rows)))
        if self.acquisition == "thompson":
            k = self._drawn_best(surrogate, rows, *surrogate.predict(rows), rng)
        else:
            k = _highest(worth, rng)
        return keys[k], rows[k]

    def _worth(self, mean, std):
        """Return the acquisition; where functions are drawn, the bound that picks the rows to draw them at."""
        if self.acquisition == "ei":
            return expected_improvement(mean, std, np.nanmax(self._sign * np.array(self._values)), self.xi)
        kappa = FILTER_KAPPA if self.acquisition == "thompson" else self.kappa
        return upper_confidence_bound(mean, std, kappa)

    def _drawn_best(self, surrogate, rows, mean, std, rng):
        """Return the position of the best row of a drawn function."""
        kept = np.sort(np.argsort(-self._worth(mean, std), kind="stable")[:MOST_DRAWN])
        return kept[_highest(surrogate.draw(rows[kept], rng), rng)]

    # -- the model ----------------------------------------------------------------------------------------------------

    def _learned(self, listed=None, *, pending=True):
        """Return the surrogate with all that was told and, by its own expectation, what is pending."""
        values = self._sign * np.array(self._values)
        failed = np.isnan(values)
        n_told = int((~failed).sum())
        if not n_told:
            raise ValueError("the model needs at least one measurement that did not fail; none was told")
        n_fitted = int((~failed[: self._fit_length]).sum())
        if n_told > n_fitted and n_told >= n_fitted * (1 + self.refit_growth):
            self._fit(len(values))
        elif self._surrogate is None:  # loaded from a file
            self._fit(self._fit_length)
        surrogate = self._surrogate
        surrogate.shrink(self._n_learned)
        if listed is not None:
            surrogate.watch(listed)
        for k in range(self._n_learned, len(values)):
            surrogate.extend(self._rows[k][None], None if failed[k] else values[k : k + 1])
        self._n_learned = len(values)
        if pending and self._pending:
            surrogate.extend(np.array(list(self._pending.values())))
        return surrogate

    def _fit(self, n):
        """Fit a new surrogate to the first `n` measurements."""
        values = self._sign * np.array(self._values[:n])
        rows = np.array(self._rows[:n])
        failed = np.isnan(values)
        self._surrogate = Surrogate(self._own_regressor(), self._coordinates).fit(rows[~failed], values[~failed])
        self._surrogate.extend(rows[failed])
        self._fit_length = self._n_learned = n

    def _own_regressor(self):
        regressor = ItemsetSparseBayesRegressor() if self.regressor is None else clone(self.regressor)
        regressor.set_params(categorical_features=self._where.categorical)
        if regressor.random_state is None:
            regressor.set_params(random_state=self._seed % 2**32)
        return regressor

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, path):
        """Write the optimiser to a file that `load` reads: candidates, parameters and all that was told and asked.

        The file appears whole or not at all. It is an npz archive without pickled objects.

        Parameters
        ----------
        path : str or path-like

        Returns
        -------
        pathlib.Path
        """
        return optimizer_file.save(self, path)

    @classmethod
    def load(cls, path):
        """Return the optimiser that `save` wrote; it asks what the saved one would have asked.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged or was not written by `save`.
        """
        return optimizer_file.load(cls, path)


def _highest(worth, rng):
    """Return the position of the highest value, of ties one at random."""
    top = worth.max()
    ties = np.flatnonzero(worth >= top - TIE * (top - worth.min()))
    return ties[rng.integers(len(ties))]
