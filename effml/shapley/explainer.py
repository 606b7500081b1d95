"""Explainers: from a model, background rows and rows to explain to Shapley values."""

import itertools
from numbers import Integral, Real

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.utils import check_random_state

from effml.shapley.estimators import METHODS, Estimate, make_plan
from effml.shapley.explanation import ShapleyExplanation
from effml.shapley.game import InterventionalGame, check_values, predict_and_form

EXPLAINER_METHODS = (*METHODS, "closed_form")
_NESTED = ("auto", "exact", "castro", "permutation", "regression", "gp", "surrogate", "closed_form")
_MAX_ROWS = 64  # solved together
_MAX_VALUES = 1 << 22  # of coalitions and rows kept at once
_KEPT_PLANS = 2  # factors of a large plan take tens of megabytes
_ENDS = 2  # coalitions that a closed form evaluates: none and all
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
    model : estimator, callable or Program
        A callable takes rows (n, n_columns) and returns (n,) or (n, n_outputs). A method such as
        ``forest.predict_proba`` is read as the estimator and its `output`.
    background : array-like (n_background, n_columns) or pandas DataFrame
        One row is a baseline. Model rows evaluated are coalitions times background rows. The model gets DataFrames
        with the columns and dtypes of a DataFrame, text and categories included.
    method : str, default="auto"
        - "auto": "closed_form" where the output has one; "exact" where all 2**n coalitions fit the budget (n <= 20);
          else "gp" with a kernel for each row and output, or "regression" of order 3 where that predicts left-out
          coalitions far better. Takes 10 to 280 ms a row: "gp" and "regression" are quicker where the model is.
        - "closed_form": exact values read from the model, see Notes.
        - "exact": all coalitions.
        - "gp": Gaussian process on the odd part of the game, one kernel for the rows that are explained together.
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
    output : {"auto", "predict_proba", "decision_function", "predict", "predict_joint_log_proba"}, default="auto"
        Method of the estimator to explain. "auto" takes the first of the first three that it has; with method
        "closed_form" the first of all that has a closed form.
    features : dict {name: columns} or sequence of columns, optional
        Groups of columns that are present or absent together.
    interactions : bool, default=False
        Pairwise interactions beside the values, from the same evaluations: with "closed_form" and "exact", and where
        other methods are exact.
    tol : float, optional
        Grow the budget from an eighth by doubling and stop for a row once its largest standard error is at most `tol`
        times the range of its values. Not for the Owen estimators.
    batch_size : int, default=16384
        Most rows in one call of the model.
    n_jobs : int, optional
        Threads, as in joblib. Results do not depend on it.
    random_state : int, RandomState or None, default=None
    verbose : int, default=0
        Progress messages of joblib.

    Notes
    -----
    Closed forms exist for predictions of linear regressions, decision functions of linear classifiers, joint log
    probabilities of naive Bayes; for regression trees and forests, boosted regression trees of squared, absolute or
    quantile loss, probabilities of classification trees and forests, decision functions of boosting; for the same
    behind transformers that work on one column each; for effml's snippets and Bayesian network classifiers and for
    Programs. Models of effml are read from their Program, so values are those of the integers that ship and of
    float32 rows. The model is read when the explainer is made; the calls evaluate it on the background, once, and the
    rows only.

    Standard errors say how far other draws would fall; they leave out the bias of "owen" and "owen_halved". Those of
    "gp" are posterior standard deviations.

    On 16 games of 10 to 60 features (networks, forests, boosting, kernel machines, neighbours), at 5 to 100
    coalitions a feature, "auto" had about a tenth of the error of "regression" of order 1 and a third of that of
    "surrogate", in geometric means; methods that average marginal contributions were further behind
    (benchmarks/shapley_accuracy.py). It fits a kernel to every row and output: 60 ms of CPU time at 10 features and the
    default budget, 0.3 s at 60. "gp", whose values depend on which rows are explained together, had a fifth more error
    with four rows at a time.

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
        interactions=False,
        tol=None,
        batch_size=16384,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        _check_options(method, budget, order, n_levels, n_repeats, methods=EXPLAINER_METHODS)
        _check_integer("batch_size", batch_size, 1)
        if not isinstance(interactions, bool | np.bool_):
            raise ValueError(f"interactions={interactions!r}: expected True or False")
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
        self.interactions = interactions
        self.tol = tol
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self._read()

    def _read(self):
        self._kept_plans, self._base = {}, None
        predict, self._form = predict_and_form(self.model, self.output, self.method)
        self._game = InterventionalGame(predict, self.background, features=self.features, batch_size=self.batch_size)

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state):
        vars(self).update(state)
        self._read()

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
        if self._form is not None:
            return self._in_closed_form(rows)
        seed, active = _seed(self.random_state), self._game.active(rows)
        sizes = active.sum(axis=1)
        owners, parts = [], []
        for size in np.unique(sizes):
            plans = self._plans_of(int(size), seed)
            mine = np.flatnonzero(sizes == size)
            block = max(1, min(_MAX_ROWS, _MAX_VALUES // len(plans[-1].coalitions)))
            for begin in range(0, len(mine), block):
                owners.append(mine[begin : begin + block])
                parts.append(self._explain(rows[owners[-1]], active[owners[-1]], plans))
        return self._collect(rows, owners, parts)

    def _in_closed_form(self, rows):
        """Return the explanation by the closed form; the model itself gives the base values and checks the rows."""
        game, n_players = self._game, self._game.n_players
        if self._base is None:
            self._base = game(rows[:1], np.zeros((1, n_players), dtype=bool))[0, 0]
        check_values(game.predict(game.inputs(rows)), len(rows), "model")
        background, player = game.background_inputs(), game.player

        def explain(part):
            return self._form.shapley(game.inputs(part), background, player, n_players, self.interactions)

        n_parts = min(effective_n_jobs(self.n_jobs), len(rows))
        ends = np.linspace(0, len(rows), n_parts + 1).astype(int)
        jobs = Parallel(n_jobs=self.n_jobs, prefer="threads", verbose=self.verbose)
        parts = jobs(delayed(explain)(rows[a:b]) for a, b in itertools.pairwise(ends))
        phi = np.concatenate([values for values, _ in parts])
        pairs = np.concatenate([pairs for _, pairs in parts]) if self.interactions else None
        counts, methods = np.full(len(rows), _ENDS), ["closed_form"] * len(rows)
        return self._explanation(
            rows, phi, np.zeros_like(phi), np.tile(self._base, (len(rows), 1)), counts, methods, pairs
        )

    def _plans_of(self, n_players, seed):
        """Return the plans for rows with as many active players; those of the last calls are kept."""
        key = (n_players, seed, self.method, self.budget, self.order, self.n_levels, self.n_repeats, self.tol)
        plans = self._kept_plans.pop(key, None) or self._plans(n_players, [seed, n_players])
        if self.interactions:
            _check_interactions(plans)
        self._kept_plans[key] = plans
        while len(self._kept_plans) > _KEPT_PLANS:
            del self._kept_plans[next(iter(self._kept_plans))]
        return plans

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

    def _explain(self, rows, active, plans):
        """Return values, standard errors, base values, counts, methods and interactions (None without) of some rows.

        All rows have the same number of active players (n_rows, n_players).
        """
        known, result = {}, None
        left = np.arange(len(rows))
        place = np.nonzero(active)[1].reshape(len(rows), -1)  # (n_rows, n_active)
        for plan in plans:
            # values: (m, n_left, n_outputs)
            if len(plans) == 1:
                values, count = self._values(rows, active, plan.coalitions), len(plan.coalitions)
            else:
                values, count = self._missing_values(rows, left, plan, active, known), len(known)
            columns, shape = values.reshape(len(values), -1), values.shape[1:]
            estimate = plan.solve(columns)
            phi, error = (_by_row(a, *shape) for a in (estimate.values, estimate.standard_errors))
            if result is None:
                full = (*active.shape, shape[1])
                result = np.zeros(full), np.zeros(full), values[0].copy(), np.zeros(len(rows), int), [""] * len(rows)
            for array, new in zip(result[:2], (phi, error), strict=True):
                array[left[:, None], place[left]] = new
            result[3][left] = count
            for row in left:
                result[4][row] = plan.method
            if self.tol is not None:
                spread = np.ptp(phi, axis=1) if phi.shape[1] else np.zeros((len(left), 1))
                done = (error.max(axis=1, initial=0) <= self.tol * spread).all(axis=1)
                left = left[~done]
                if len(left) == 0:
                    break
        if not self.interactions:
            return *result, None
        pairs, n_active = np.zeros((len(rows), active.shape[1], *result[0].shape[1:])), place.shape[1]
        found = _by_row(plan.interactions(columns), *shape).reshape(len(rows), n_active, n_active, shape[1])
        pairs[np.arange(len(rows))[:, None, None], place[:, :, None], place[:, None, :]] = found
        return *result, pairs

    def _values(self, rows, active, coalitions):
        """Return the values of coalitions of the active players of each row, (m, n_rows, n_outputs)."""
        patterns, pattern_of = np.unique(active, axis=0, return_inverse=True)
        # Tasks do not depend on n_jobs: a model may round differently in batches of another size.
        step = max(1, self.batch_size // (len(coalitions) * len(self._game.background)))
        tasks = []
        for number, pattern in enumerate(patterns):
            mine = np.flatnonzero(pattern_of.ravel() == number)
            tasks += [(mine[k : k + step], _embed(coalitions, pattern)) for k in range(0, len(mine), step)]
        jobs = Parallel(n_jobs=self.n_jobs, prefer="threads", verbose=self.verbose)
        parts = jobs(delayed(self._game)(rows[mine], embedded) for mine, embedded in tasks)
        values = np.empty((len(coalitions), len(rows), parts[0].shape[2]))
        for (mine, _), part in zip(tasks, parts, strict=True):
            values[:, mine] = part
        return values

    def _missing_values(self, rows, left, plan, active, known):
        """Return the values of the plan's coalitions for the rows left, evaluating those not known yet."""
        keys = _ordered_keys(plan.coalitions)
        new = [k for k, key in enumerate(keys) if key not in known]
        if new:
            fresh = self._values(rows[left], active[left], plan.coalitions[new])
            for k, value in zip(new, fresh, strict=True):
                full = np.full((len(rows), fresh.shape[2]), np.nan)
                full[left] = value
                known[keys[k]] = full
        return np.stack([known[key][left] for key in keys])

    def _collect(self, rows, owners, parts):
        order = np.argsort(np.concatenate(owners), kind="stable")
        phi, errors, base, counts = (np.concatenate([part[k] for part in parts])[order] for k in range(4))
        methods = [method for part in parts for method in part[4]]
        pairs = np.concatenate([part[5] for part in parts])[order] if self.interactions else None
        return self._explanation(rows, phi, errors, base, counts, [methods[k] for k in order], pairs)

    def _explanation(self, rows, phi, errors, base, counts, methods, pairs):
        if pairs is not None:
            each = np.arange(phi.shape[1])
            pairs[:, each, each] = phi - pairs.sum(axis=2) / 2
        if self._game.squeeze:
            phi, errors, base = phi[:, :, 0], errors[:, :, 0], base[:, 0]
            pairs = None if pairs is None else pairs[..., 0]
        data = rows if isinstance(rows, np.ndarray) else self._game.inputs(rows).to_numpy(dtype=object)
        return ShapleyExplanation(phi, base, errors, counts, tuple(methods), list(self._game.player_names), data, pairs)


def _by_row(array, n_rows, n_outputs):
    """Return an estimate (..., n_rows * n_outputs) as (n_rows, flattened ..., n_outputs)."""
    return np.moveaxis(array.reshape(-1, n_rows, n_outputs), 1, 0)


def _check_interactions(plans):
    """Raise where a plan gives no interactions, before anything is evaluated."""
    lacking = [plan.method for plan in plans if not hasattr(plan, "interactions")]
    if lacking:
        raise ValueError(
            f"interactions=True: method {lacking[0]!r} does not give them; accepted are 'closed_form', 'exact', and "
            "'auto', 'gp', 'regression' or 'surrogate' with a budget that holds all coalitions (and tol=None)"
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


def _check_options(method, budget, order, n_levels, n_repeats, methods=METHODS):
    if method not in methods:
        raise ValueError(f"method={method!r}: expected one of {', '.join(map(repr, methods))}")
    _check_integer("budget", budget, 2, none=True)
    _check_integer("n_levels", n_levels, 1, none=True)
    _check_integer("n_repeats", n_repeats, 1)
    if order not in (None, 1, 2, 3):
        raise ValueError(f"order={order!r}: expected 1, 2, 3 or None")
