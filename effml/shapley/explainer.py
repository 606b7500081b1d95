"""Explainers: from a model, background rows and rows to explain to Shapley values."""

from numbers import Integral, Real

import numpy as np
from joblib import Parallel, delayed
from sklearn.utils import check_random_state

from effml.shapley.estimators import METHODS, Estimate, make_plan
from effml.shapley.explanation import ShapleyExplanation
from effml.shapley.game import InterventionalGame, predict_function

_NESTED = ("auto", "exact", "castro", "permutation", "regression", "gp", "surrogate")
_FIRST_STEP = 8  # with a tolerance, the first estimate takes this part of the budget


def shapley_values(game, *, method="auto", budget=None, order=None, n_levels=None, n_repeats=2, random_state=None):
    """Return the Shapley values of a game of coalitions.

    Parameters
    ----------
    game : CoalitionGame
    method, budget, order, n_levels, n_repeats, random_state
        As in `MultilinearShapleyExplainer`.

    Returns
    -------
    estimate : Estimate
        Attributes `values` and `standard_errors`, (n_players,) or (n_players, n_outputs).

    Examples
    --------
    >>> from effml.shapley import CoalitionGame, shapley_values
    >>> game = CoalitionGame(lambda S: S[:, 0] & S[:, 1], 3)
    >>> shapley_values(game).values
    array([0.5, 0.5, 0. ])
    """
    _check_options(method, budget, order, n_levels, n_repeats)
    seed = _seed(random_state)
    plan = make_plan(
        method, game.n_players, budget, [seed, game.n_players], order=order, n_levels=n_levels, n_repeats=n_repeats
    )
    estimate = plan.solve(game(plan.coalitions))
    if game.squeeze:
        return Estimate(estimate.values[:, 0], estimate.standard_errors[:, 0])
    return estimate


class MultilinearShapleyExplainer:
    """Shapley values of a model's output by sampling coalitions of features.

    The value of a coalition is the mean output with the absent features taken from the background rows. Features that
    equal all background rows get 0 and cost nothing. All outputs of the model, and all rows that have as many
    features left, share one draw of coalitions; their errors are therefore related.

    Parameters
    ----------
    model : estimator or callable
        A callable takes rows (n, n_columns) and returns (n,) or (n, n_outputs).
    background : array-like (n_background, n_columns)
        Numeric. One row is a baseline. Model rows evaluated are coalitions times background rows.
    method : str, default="auto"
        - "auto": exact where all 2**n coalitions fit the budget (n <= 20), else "gp".
        - "exact": all coalitions.
        - "gp": Gaussian process on the odd part of the game; "regression" above 2,000 pairs of coalitions.
        - "regression": weighted least squares on pairs of coalitions drawn by leverage, see `order`.
        - "surrogate": boosted trees on the same coalitions, their exact values, and "regression" on what they leave.
        - "permutation", "castro": random orders, with or without their reverses.
        - "owen", "owen_halved": the rules of Okhrati and Lipani (ICPR 2020), biased by O(1 / n_levels).
        - "owen_unbiased": the same family without bias, with complements and corrected sum.

        "gp", "regression" and "surrogate" are exact too where all coalitions fit.
    budget : int, optional
        Distinct coalitions evaluated for a row at most, empty and full included. Default: 40 a feature, at least 512.
    order : {1, 2, 3}, optional
        Highest interactions that "regression" models; 2 is the same as 1. Default: 3 where the budget holds 1.15 pairs
        an unknown, else 1.
    n_levels : int, optional
        Levels of the Owen estimators: Q of the paper; for "owen_unbiased" Gauss-Legendre nodes in place of jittered
        levels. Default: what the budget holds.
    n_repeats : int, default=2
        Draws at each level.
    output : {"auto", "predict_proba", "decision_function", "predict"}, default="auto"
        Method of the estimator to explain; "auto" takes the first it has.
    features : dict {name: columns} or sequence of columns, optional
        Groups of columns that are present or absent together.
    tol : float, optional
        Grow the budget from an eighth by doubling and stop for a row once its largest standard error is at most `tol`
        times the range of its values. Not for the Owen estimators.
    batch_size : int, default=4096
        Most rows in one call of the model.
    n_jobs : int, optional
        Threads, as in joblib. Results do not depend on it.
    random_state : int, RandomState or None, default=None
    verbose : int, default=0
        Progress messages of joblib.

    Notes
    -----
    Standard errors say how far other draws would fall; they leave out the bias of "owen" and "owen_halved". Those of
    "gp" are posterior standard deviations.

    On games of 11 features, at 5 to 40 coalitions a feature, "gp" had lower errors than "regression" and that again
    lower errors than all methods that average marginal contributions.

    References
    ----------
    R. Okhrati and A. Lipani, A multilinear sampling algorithm to estimate Shapley values, ICPR 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.ensemble import RandomForestRegressor
    >>> from effml.shapley import MultilinearShapleyExplainer
    >>> X, y = load_diabetes(return_X_y=True)
    >>> forest = RandomForestRegressor(10, max_depth=4, random_state=0).fit(X, y)
    >>> explainer = MultilinearShapleyExplainer(forest, X[:20], budget=200, random_state=0)
    >>> explanation = explainer(X[50:53])
    >>> explanation.values.shape
    (3, 10)
    >>> bool(abs(explanation.values.sum(1) + explanation.base_values - forest.predict(X[50:53])).max() < 1e-9)
    True
    """

    def __init__(
        self,
        model,
        background,
        *,
        method="auto",
        budget=None,
        order=None,
        n_levels=None,
        n_repeats=2,
        output="auto",
        features=None,
        tol=None,
        batch_size=4096,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        _check_options(method, budget, order, n_levels, n_repeats)
        _check_integer("batch_size", batch_size, 1)
        if tol is not None:
            if isinstance(tol, bool) or not isinstance(tol, Real) or not tol > 0:
                raise ValueError(f"tol={tol!r}: expected a positive number or None")
            if method not in _NESTED:
                raise ValueError(f"tol={tol!r}: not with method {method!r}, whose levels change with the budget")
        self.model = model
        self.background = background
        self.method = method
        self.budget = budget
        self.order = order
        self.n_levels = n_levels
        self.n_repeats = n_repeats
        self.output = output
        self.features = features
        self.tol = tol
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self._game = InterventionalGame(
            predict_function(model, output), background, features=features, batch_size=batch_size
        )

    def __call__(self, X):
        """Explain rows.

        Parameters
        ----------
        X : array-like (n_rows, n_columns) or (n_columns,)

        Returns
        -------
        explanation : ShapleyExplanation

        Raises
        ------
        ValueError
            If X has other columns than the background, the budget is too small for the method, or the model returns
            NaN, infinity or labels.
        """
        rows = self._game.rows(X)
        if len(rows) == 0:
            raise ValueError("X: expected at least one row")
        seed = _seed(self.random_state)
        plans, tasks = {}, []
        active = self._game.active(rows)
        patterns, pattern_of = np.unique(active, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            mine = np.flatnonzero(pattern_of.ravel() == number)
            size = int(pattern.sum())
            if size not in plans:
                plans[size] = self._plans(size, [seed, size])
            # Tasks do not depend on n_jobs: a model may round differently in batches of another size.
            cost = len(plans[size][0].coalitions) * len(self._game.background)
            step = max(1, self.batch_size // cost)
            tasks += [(mine[k : k + step], pattern, plans[size]) for k in range(0, len(mine), step)]
        jobs = Parallel(n_jobs=self.n_jobs, prefer="threads", verbose=self.verbose)
        parts = jobs(delayed(self._explain)(rows[mine], pattern, plans) for mine, pattern, plans in tasks)
        return self._collect(rows, [mine for mine, _, _ in tasks], parts)

    def _plan(self, n_players, budget, seed):
        return make_plan(
            self.method,
            n_players,
            budget,
            seed,
            order=self.order,
            n_levels=self.n_levels,
            n_repeats=self.n_repeats,
        )

    def _plans(self, n_players, seed):
        """Return the plans to go through: one, or with a tolerance several, together within the budget."""
        last = self._plan(n_players, self.budget, seed)
        most = len(last.coalitions)
        if self.tol is None or self.method == "exact":
            return [last]
        plans, used = [], set()
        budget = -(-most // _FIRST_STEP)
        while budget < most:
            try:
                plans.append(self._plan(n_players, budget, seed))
                used |= _keys(plans[-1].coalitions)
            except ValueError:  # too small for the method
                pass
            budget *= 2
        allowed = most if self.budget is None else self.budget
        while True:
            union = len(used | _keys(last.coalitions))
            if union <= allowed:
                return [*plans, last]
            most -= union - allowed
            last = self._plan(n_players, most, seed)

    def _explain(self, rows, pattern, plans):
        """Return Shapley values, standard errors (n_rows, n_players, n_outputs), base values, counts and methods."""
        known, result = {}, None
        left = np.arange(len(rows))
        for plan in plans:
            # values: (m, n_left, n_outputs)
            if len(plans) == 1:
                values, count = self._game(rows, _embed(plan.coalitions, pattern)), len(plan.coalitions)
            else:
                values, count = self._evaluate(rows, left, plan, pattern, known), len(known)
            estimate = plan.solve(values.reshape(len(values), -1))
            shape = (-1, len(left), values.shape[2])
            phi, error = (a.reshape(shape).transpose(1, 0, 2) for a in (estimate.values, estimate.standard_errors))
            if result is None:
                full = (len(rows), len(pattern), values.shape[2])
                result = np.zeros(full), np.zeros(full), values[0].copy(), np.zeros(len(rows), int), [""] * len(rows)
            for array, new in zip(result[:2], (phi, error), strict=True):
                array[np.ix_(left, pattern)] = new
            result[3][left] = count
            for row in left:
                result[4][row] = plan.method
            if self.tol is not None:
                spread = np.ptp(phi, axis=1) if phi.shape[1] else np.zeros((len(left), 1))
                done = (error.max(axis=1, initial=0) <= self.tol * spread).all(axis=1)
                left = left[~done]
                if len(left) == 0:
                    break
        return result

    def _evaluate(self, rows, left, plan, pattern, known):
        """Return the values of the plan's coalitions for the rows left, evaluating those not known yet."""
        keys = _ordered_keys(plan.coalitions)
        new = [k for k, key in enumerate(keys) if key not in known]
        if new:
            fresh = self._game(rows[left], _embed(plan.coalitions[new], pattern))
            for k, value in zip(new, fresh, strict=True):
                full = np.full((len(rows), fresh.shape[2]), np.nan)
                full[left] = value
                known[keys[k]] = full
        return np.stack([known[key][left] for key in keys])

    def _collect(self, rows, owners, parts):
        order = np.argsort(np.concatenate(owners), kind="stable")
        phi, errors, base, counts = (np.concatenate([part[k] for part in parts])[order] for k in range(4))
        methods = [method for part in parts for method in part[4]]
        if self._game.squeeze:
            phi, errors, base = phi[:, :, 0], errors[:, :, 0], base[:, 0]
        return ShapleyExplanation(
            phi, base, errors, counts, tuple(methods[k] for k in order), list(self._game.player_names), rows
        )


def _embed(coalitions, pattern):
    """Return coalitions of all players, those without effect present."""
    embedded = np.ones((len(coalitions), len(pattern)), dtype=bool)
    embedded[:, pattern] = coalitions
    return embedded


def _ordered_keys(coalitions):
    packed = np.packbits(coalitions, axis=1)
    return [row.tobytes() for row in packed]


def _keys(coalitions):
    return set(_ordered_keys(coalitions))


def _seed(random_state):
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _check_integer(name, value, least, *, none=False):
    if none and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}={value!r}: expected an integer of at least {least}{' or None' if none else ''}")


def _check_options(method, budget, order, n_levels, n_repeats):
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(map(repr, METHODS))}")
    _check_integer("budget", budget, 2, none=True)
    _check_integer("n_levels", n_levels, 1, none=True)
    _check_integer("n_repeats", n_repeats, 1)
    if order not in (None, 1, 2, 3):
        raise ValueError(f"order={order!r}: expected 1, 2, 3 or None")
