"""Search over model families for the most accurate model within a budget of bytes and operations."""

import itertools
import math
import numbers
import re
import time
import warnings
from functools import partial

import numpy as np
from sklearn.base import _fit_context, clone
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions

from effml.selection.budget import (
    QUANTITIES,
    check_budget,
    closest_to,
    describe_candidate,
    footprints_of,
    load_of,
    over_budget_error,
    rank_within_budget,
)
from effml.selection.pareto import pareto_front, pareto_layers
from effml.selection.scorers import MeasuredScore, MeasuringScorer, measure
from effml.selection.switch import (
    CandidateSwitch,
    max_iter_parameter,
    named_candidates,
    rows_of_grids,
    seed_unseeded,
)

__all__ = ["BudgetSearchCV"]

_KEPT_SHARE = 1 / 3  # of the candidates with max_iter, from one rung to the next


class BudgetSearchCV(BaseSearchCV):
    """Cross-validated search over several families for the best score within a budget.

    Every candidate is fitted on the same folds; its score and its footprint are averaged over them. The best score
    among the candidates whose mean footprint keeps to the budget wins (ties: the smaller one). The winner is refitted
    on all the data and measured again; if it then exceeds the budget, the next one is refitted, and so on.

    Parameters
    ----------
    candidates : list
        Estimators, ``(estimator, param_grid)``, ``(name, estimator)`` or ``(name, estimator, param_grid)``; grids as
        in :class:`~sklearn.model_selection.GridSearchCV`. All classifiers or all regressors.
    budget : dict, str or None
        Largest amount allowed of "flash_bytes", "ram_bytes", "n_operations", "n_parameters" or "bits", as a dict or as
        the text :func:`parse_budget` reads (``"flash=4KiB,ram=256"``). None sets no limit.
    scoring : str, callable or None, default=None
        One score, greater is better; None means the candidate's own ``score``.
    cv : int, splitter, iterable or None, default=None
        As in GridSearchCV. It is split once, and all candidates and rungs see the same folds.
    n_jobs : int or None, default=None
        Number of fits run in parallel.
    refit : bool, default=True
        Fit the chosen candidate on all the data. Without it nothing is measured again, and `best_footprint_` is the
        mean over the folds.
    verbose, error_score, return_train_score, pre_dispatch
        As in GridSearchCV. With a numeric `error_score`, a candidate that cannot be fitted, scored or lowered in some
        fold gets that score, its reason goes to ``cv_results_["failure"]``, and it is never chosen.
    max_iter_rungs : sequence of increasing int or None, default=None
        Successive halving over training length: candidates with a ``max_iter`` parameter (or a pipeline whose last
        step has one) not set by their grid are fitted at the first rung, and the best third by Pareto layer of error
        and flash goes to the next rung. The number of samples never changes, since bins depend on it.
    target : str, default="host"
        Target whose code size the footprint assumes.
    input_dtype : {"float32", "int32", "int16", "uint8"}, default="float32"
        Type of the raw row on the device; thresholds on integers take fewer bytes.
    random_state : int, RandomState instance or None, default=None
        Unless None, the seed given to every ``random_state`` of the candidates that is None.

    Attributes
    ----------
    cv_results_ : dict of arrays
        As in GridSearchCV, with the score under ``mean_test_score``, the *negative* footprint under
        ``mean_test_flash_bytes`` and so on for all five quantities, the reason of a failure ("" if none) under
        ``failure``, and the ``max_iter_rung`` of each row (0 where it had none). ``params`` reads
        ``{"candidate": name, **params}``.
    best_index_, best_params_, best_score_
        Row, parameters and mean score of the chosen candidate.
    best_estimator_ : estimator
        The chosen candidate itself, refitted; not wrapped. Only with ``refit=True``.
    best_footprint_ : dict of str to number
        Its footprint, measured after the refit, over the five quantities.
    front_ : ndarray of int
        Rows on the Pareto front of mean score against mean flash bytes, ascending in flash. RAM and operations are
        not objectives of the front: they stand beside it in ``cv_results_``.
    rejected_ : list of (int, str)
        Rows that were refitted before the chosen one, with what was wrong. Empty with ``refit=False``.
    scorer_ : callable
        The scorer that `score` uses.
    n_splits_, refit_time_, multimetric_, n_features_in_, feature_names_in_, classes_
        As in GridSearchCV.

    Raises
    ------
    BudgetError
        From `fit`, when no candidate fits the budget; its ``smallest`` attribute holds the parameters and the
        footprint of the one that comes closest. `cv_results_` and `front_` are set even then.
    ValueError
        From `fit`, when every candidate failed, with the first reason.

    See Also
    --------
    effml.selection.most_accurate_under : The same choice inside GridSearchCV.
    effml.report.pareto_table : The front as a table.

    Notes
    -----
    Fit parameters (`groups`, `sample_weight`, ...) go where GridSearchCV sends them. With metadata routing enabled,
    the requests of the first candidate count for all.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from effml.selection import BudgetSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> search = BudgetSearchCV(
    ...     [(DecisionTreeClassifier(random_state=0), {"max_leaf_nodes": [2, 4, 8, 16]})], budget={"flash_bytes": 4096}
    ... )
    >>> search.fit(X, y).best_footprint_["flash_bytes"] <= 4096
    True
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        "candidates": "no_validation",  # by named_candidates
        "budget": "no_validation",  # by check_budget
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "cv": ["cv_object"],
        "n_jobs": [numbers.Integral, None],
        "refit": ["boolean"],
        "verbose": ["verbose"],
        "error_score": [StrOptions({"raise"}), numbers.Real],
        "return_train_score": ["boolean"],
        "pre_dispatch": [numbers.Integral, str],
        "max_iter_rungs": ["array-like", None],
        "target": [str],
        "input_dtype": [StrOptions({"float32", "int32", "int16", "uint8"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        candidates,
        *,
        budget,
        scoring=None,
        cv=None,
        n_jobs=None,
        refit=True,
        verbose=0,
        error_score=np.nan,
        return_train_score=False,
        pre_dispatch="2*n_jobs",
        max_iter_rungs=None,
        target="host",
        input_dtype="float32",
        random_state=None,
    ):
        self.candidates = candidates
        self.budget = budget
        self.scoring = scoring
        self.cv = cv
        self.n_jobs = n_jobs
        self.refit = refit
        self.verbose = verbose
        self.error_score = error_score
        self.return_train_score = return_train_score
        self.pre_dispatch = pre_dispatch
        self.max_iter_rungs = max_iter_rungs
        self.target = target
        self.input_dtype = input_dtype
        self.random_state = random_state

    @property
    def estimator(self):
        """The one estimator BaseSearchCV clones and asks for its kind: a switch between the candidates."""
        if "_switch" in vars(self):
            return self._switch
        named = named_candidates(self.candidates)
        return CandidateSwitch({name: estimator for name, (estimator, _) in named.items()})

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, **params):
        """Search, choose within the budget, and refit.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
        **params : dict
            `groups` for the splitter; anything else goes to the candidates' ``fit``, cut by fold where it has
            n_samples entries.

        Returns
        -------
        self : BudgetSearchCV

        Raises
        ------
        BudgetError
            If nothing fits the budget.
        ValueError
            If a parameter is wrong or every candidate failed.
        """
        self._limits = check_budget(self.budget)
        self._rungs = _check_rungs(self.max_iter_rungs)
        self._named = named_candidates(self.candidates)
        self._switch = self._seeded_switch()
        try:
            super().fit(X, y, **params)
            self.scorer_ = self.scorer_.scorer  # what `score` uses measures no bytes
            self._keep_to_budget(X, y, params)
        finally:
            del self._switch, self._named
        return self

    def _seeded_switch(self):
        estimators = {name: estimator for name, (estimator, _) in self._named.items()}
        if self.random_state is not None:
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            estimators = {name: seed_unseeded(estimator, seed) for name, estimator in estimators.items()}
        return CandidateSwitch(estimators)

    # ------------------------------------------------------------ what BaseSearchCV asks

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = False  # a footprint is that of one output
        if tags.classifier_tags is not None:
            tags.classifier_tags.multi_label = False
        return tags

    def _get_scorers(self):
        first = next(iter(self.estimator.candidates.values()))
        scorer = check_scoring(first, self.scoring)
        device = {"target": self.target, "input_dtype": self.input_dtype}
        return MeasuringScorer(scorer, **device, error_score=self.error_score), "score"

    def _run_search(self, evaluate_candidates):
        rows = rows_of_grids(self._named)
        # Only a splitter can change its mind between calls: BaseSearchCV keeps the other kinds of cv as they are.
        evaluate_candidates = partial(
            evaluate_candidates, cv=_SplitOnce(self.cv) if hasattr(self.cv, "split") else None
        )
        if self._rungs is None:
            evaluate_candidates(rows, more_results={"max_iter_rung": [0] * len(rows)})
            return
        iterative, fixed = [], []
        for row in rows:
            parameter = max_iter_parameter(self._named[row["candidate"]][0])
            (fixed if parameter is None or parameter in row else iterative).append(row)
        self._climb(evaluate_candidates, iterative, fixed)

    def _climb(self, evaluate_candidates, iterative, fixed):
        """Evaluate the fixed rows once and the iterative ones rung by rung, dropping the worst at each."""
        for rung in self._rungs:
            rows = [{**row, max_iter_parameter(self._named[row["candidate"]][0]): rung} for row in iterative]
            more_results = {"max_iter_rung": [0] * len(fixed) + [rung] * len(rows)}
            results = evaluate_candidates(fixed + rows, more_results=more_results)
            iterative = self._survivors(results, iterative)
            fixed = []
            if not iterative:
                return

    def _survivors(self, results, iterative):
        """The best third of the rows just evaluated (the last ones of `results`), by Pareto layer, then by score."""
        if not iterative:
            return []
        last = slice(len(results["params"]) - len(iterative), None)
        scores = results["mean_test_score"][last]
        flash = -results["mean_test_flash_bytes"][last]
        layers = pareto_layers(np.column_stack([-scores, flash]))
        over_budget = load_of(results, self._limits)[last] > 1
        order = np.lexsort((-scores, layers, over_budget))
        alive = order[layers[order] >= 0]
        return [iterative[i] for i in np.sort(alive[: math.ceil(len(iterative) * _KEPT_SHARE)])]

    def _format_results(self, candidate_params, n_splits, out, more_results=None):
        kinds = [kind for kind in ("test_scores", "train_scores") if kind in out[0]]
        columns = [{**result, **{kind: _score_columns(result[kind]) for kind in kinds}} for result in out]
        with warnings.catch_warnings():
            # one warning of ours names the failed candidates and says why
            warnings.filterwarnings("ignore", message="One or more of the", category=UserWarning)
            results = super()._format_results(candidate_params, n_splits, columns, more_results)
        reasons = [_failure(result) for result in out]
        folds = [reasons[start : start + n_splits] for start in range(0, len(out), n_splits)]
        results["failure"] = np.array([next(filter(None, fold), "") for fold in folds], dtype=object)
        failed = results["failure"] != ""
        for quantity in QUANTITIES:
            results[f"mean_test_{quantity}"][failed] = np.nan
        return results

    def _select_best_index(self, refit, refit_metric, results):
        """Row of the best score within the budget, by the mean footprint over the folds."""
        self.cv_results_ = results
        self.rejected_ = []
        _report_failures(results)
        self.front_ = _front(results)
        ranking = rank_within_budget(results, self._limits)
        if ranking.size == 0:
            raise over_budget_error(results, self._limits)
        return int(ranking[0])

    # ------------------------------------------------------------ refits until one keeps to the budget

    def _keep_to_budget(self, X, y, params):
        if not self.refit:
            means = footprints_of(self.cv_results_, QUANTITIES)[self.best_index_]
            self.best_footprint_ = dict(zip(QUANTITIES, means.tolist(), strict=True))
            return
        closest = None
        for position, row in enumerate(rank_within_budget(self.cv_results_, self._limits)):
            if position > 0:
                self._refit_row(int(row), X, y, params)
            try:
                footprint = measure(self.best_estimator_, self.target, self.input_dtype)
            except Exception as error:
                if self.error_score == "raise":
                    raise
                self.rejected_.append((int(row), f"{type(error).__name__}: {error}"))
                continue
            load = max((footprint[quantity] / limit for quantity, limit in self._limits.items()), default=0.0)
            if load <= 1:
                self.best_footprint_ = footprint
                return
            over = {quantity: footprint[quantity] for quantity in self._limits}
            self.rejected_.append((int(row), f"over budget after the refit: {over}"))
            if closest is None or load < closest[0]:
                closest = load, self.best_params_, footprint
        del self.best_estimator_, self.best_index_, self.best_params_, self.best_score_
        if closest is None:
            raise ValueError(f"no candidate could be lowered after the refit; {self.rejected_[0][1]}")
        raise closest_to(self._limits, *closest[1:])

    def _refit_row(self, row, X, y, params):
        self.best_index_ = row
        self.best_params_ = self.cv_results_["params"][row]
        self.best_score_ = self.cv_results_["mean_test_score"][row]
        self.best_estimator_ = self._switch.set_params(**clone(self.best_params_, safe=False))
        fit_params = self._get_routed_params_for_fit(params).estimator.fit
        start = time.time()
        self.best_estimator_.fit(X, *(() if y is None else (y,)), **fit_params)
        self.refit_time_ = time.time() - start
        vars(self).pop("feature_names_in_", None)
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_


class _SplitOnce:
    """The folds of the first call, for good: an unseeded shuffling splitter would give each rung other ones."""

    def __init__(self, cv):
        self.cv = cv
        self.folds = None

    def split(self, X, y=None, **params):
        if self.folds is None:
            self.folds = list(self.cv.split(X, y, **params))
        return self.folds


def _check_rungs(rungs):
    if rungs is None:
        return None
    rungs = list(rungs)
    whole = all(isinstance(rung, numbers.Integral) and not isinstance(rung, bool) for rung in rungs)
    if not rungs or not whole or rungs[0] < 1 or any(a >= b for a, b in itertools.pairwise(rungs)):
        raise ValueError(f"max_iter_rungs must be increasing whole numbers from 1 up, such as (5, 20, 80); got {rungs}")
    return [int(rung) for rung in rungs]


def _score_columns(score):
    """One fold's score as the columns of cv_results_: the score itself and the negative footprint."""
    footprint = getattr(score, "footprint", None) or dict.fromkeys(QUANTITIES, np.nan)
    return {"score": float(score), **{quantity: -float(footprint[quantity]) for quantity in QUANTITIES}}


def _failure(result):
    """Why this fold has no measured score, or None."""
    if result["fit_error"] is not None:
        return _last_exception(result["fit_error"])
    score = result["test_scores"]
    if isinstance(score, MeasuredScore):
        return score.failure or ("the score is NaN" if math.isnan(score) else None)
    return "scoring failed"


def _last_exception(trace):
    """The exception's own line of a formatted traceback: the first flush-left line after the last frame."""
    lines = re.split(r'^  File ".*$', trace, flags=re.MULTILINE)[-1].splitlines()
    return next((line for line in lines if line and not line.startswith(" ")), trace.strip())


def _report_failures(results):
    """Warn about the candidates that failed; raise if that is all of them."""
    failed = np.flatnonzero(results["failure"] != "")
    if failed.size == 0:
        return
    first = f"{describe_candidate(results['params'][failed[0]])}: {results['failure'][failed[0]]}"
    n_candidates = len(results["params"])
    if failed.size == n_candidates:
        raise ValueError(f"all {n_candidates} candidates failed. The first one, {first}")
    warnings.warn(
        f"{failed.size} of {n_candidates} candidates failed and cannot be chosen (cv_results_['failure'] says why). "
        f"The first one, {first}",
        UserWarning,
        stacklevel=4,
    )


def _front(results):
    """Rows on the front of mean score against mean flash, ascending in flash."""
    flash = footprints_of(results, ["flash_bytes"])[:, 0]
    front = pareto_front(np.column_stack([-results["mean_test_score"], flash]))
    return front[np.argsort(flash[front], kind="stable")]
