"""Sparse Bayesian regression on given columns, by fast maximisation of the evidence.

    y = intercept + X w + noise,   w_j ~ N(0, 1 / alpha_j),   noise ~ N(0, sigma^2)

Columns enter and leave one at a time, whichever gains most; `effml.itemsets.evidence` has the formulas.

Sources: M. E. Tipping, A. C. Faul, "Fast marginal likelihood maximisation for sparse Bayesian models", AISTATS 2003;
the prior on how many columns there are: J. G. Scott, J. O. Berger, "Bayes and empirical-Bayes multiplicity adjustment
in the variable-selection problem", Annals of Statistics 38, 2010.
"""

import warnings
from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from effml._validation import check_weights, drop_weightless
from effml.itemsets.evidence import (
    FEWEST_ROWS,
    LEAST_NOISE,
    MOST_WEIGHTS,
    REDUNDANT,
    Action,
    ActiveSet,
    add_gain,
    ascend,
    best_alpha,
    inclusion_price,
)
from effml.itemsets.problem import check_range, checked_target

__all__ = ["MatrixColumns", "SparseBayesRegressor"]

AGREES = 1.01  # ratio of Q^2/S, kept and exact, up to which a column is taken for the best
COPY = 1 - 1e-10  # squared cosine from which two columns are the same
LOW_NOISE = 0.1  # noise variance at the start of the second ascent, as a share of the variance of y


class MatrixColumns:
    """The source of columns that are given as a matrix: S and Q of all of them are kept up to date.

    Products X'Phi with the active columns are kept, so an ADD costs O(N p), any other action O(p M), and the exact
    recomputation after a change of noise O(p M^2).

    Parameters
    ----------
    X : ndarray (N, p)
        A column of zeros is never added.
    target : ndarray (N,)
    price : callable
        From the number of other columns in use to the nats that one more costs.

    Attributes
    ----------
    S, Q : ndarrays (p,)
        Of every column, active or not, with all active columns in C.
    """

    def __init__(self, X, target, price):
        self.X = X
        self.squares = np.einsum("ij,ij->j", X, X)  # phi'phi
        self.projections = X.T @ target  # phi't
        self._price = price
        self._products = np.empty((X.shape[1], 16), order="F")
        self._copies = []  # of each active column: the columns that equal it up to scale, itself among them
        self._n_blocking = np.zeros(X.shape[1], dtype=np.intp)
        self.S = self.Q = None

    @property
    def products(self):
        """X'Phi, (p, M)."""
        return self._products[:, : len(self._copies)]

    def prices(self, keys, n_active):
        return np.full(len(keys), self._price(n_active))

    def refresh(self, active):
        """Recompute S and Q by their definitions."""
        G = self.products
        self.S = active.beta * self.squares - active.beta**2 * np.einsum("ij,ij->i", G @ active.covariance, G)
        self.Q = active.beta * (self.projections - G @ active.mean)

    def changed(self, active, change):
        """Update S and Q after an action."""
        if change.kind == "add":
            new = self.X.T @ self.X[:, active.keys[-1]]
            r = active.beta * (new - self.products @ change.v)
            self._append(active.keys[-1], new)
        else:
            r = active.beta * (self.products @ change.v)
            if change.kind == "delete":
                self._drop(change.position)
        if active.ill_conditioned:
            self.refresh(active)
        else:
            self.S -= change.scale * r * r
            self.Q -= change.step * r

    def best_addition(self, active, least):
        """Return the ADD of highest gain, None if it is `least` or lower. Of equal columns the first is taken."""
        floor = REDUNDANT * active.beta * self.squares
        free = (self._n_blocking == 0) & (floor < self.S)
        rho = np.where(free, self.Q**2, 0.0) / np.where(free, self.S, 1.0)
        while True:
            best = int(np.argmax(rho))
            if add_gain(1.0, np.sqrt(rho[best])) - self._price(len(active)) <= least:
                return None
            S, Q = active.statistics(self.X[:, best])  # the kept ones have lost digits where S is small
            gain = float(add_gain(S, Q)) - self._price(len(active))
            useful = floor[best] < S and gain > least
            if useful and rho[best] <= AGREES * Q * Q / S:
                return Action("add", gain, float(best_alpha(S, Q)), key=best, column=self.X[:, best])
            rho[best] = Q * Q / S if useful else 0.0

    def _append(self, key, new):
        M = len(self._copies)
        if self._products.shape[1] == M:
            larger = np.empty((len(new), 2 * M), order="F")
            larger[:, :M] = self._products
            self._products = larger
        self._products[:, M] = new
        copies = np.flatnonzero((new * new >= COPY * self.squares * self.squares[key]) & (self.squares > 0))
        self._copies.append(copies)
        self._n_blocking[copies] += 1

    def _drop(self, m):
        M = len(self._copies)
        self._products[:, m : M - 1] = self._products[:, m + 1 : M]
        self._n_blocking[self._copies.pop(m)] -= 1


class SparseBayesRegressor(RegressorMixin, BaseEstimator):
    """Linear regression that keeps few columns, with a standard deviation for every prediction.

    Every weight has a normal prior with a precision of its own (automatic relevance determination); the precisions
    and the noise are those of highest evidence, found by adding, re-estimating and deleting single columns. The scale
    of a column does not matter.

    The evidence alone keeps too many of many columns: among p useless ones the best looks useful. The set of columns
    therefore has a prior too (`inclusion_prior`), and each addition has to gain more than the log odds against it.

    Parameters
    ----------
    fit_intercept : bool, default=True
        With a flat prior on the intercept, which its uncertainty in predictions and the noise account for.
    inclusion_prior : "beta-binomial" or float in (0, 0.5], default="beta-binomial"
        Prior probability that a column has a weight. "beta-binomial" leaves it open, uniformly distributed, so all
        numbers of used columns are equally probable, and one column beside m others costs
        ``max(0, log((p - m) / (m + 1)))`` nats: log p for the first, less the more turn out useful. 0.5 is the
        evidence alone. On Gaussian designs of 1000 rows and 20 weights in 200 to 1000 columns (benchmarks/
        isb_columns.py) "beta-binomial" kept 20 to 26 columns, the evidence alone 72 to 311 with 3 to 35 times the
        error. A fixed 1 / p was a little better there, but worse on the diabetes data (r^2 0.462 against 0.479), and
        lost 9 of 10 weights where 100 of 200 columns had one.
    noise_variance : float or None, default=None
        Noise variance to start from, in squared units of y, 1e-6 of the variance of y at least. None: two ascents,
        one that updates the noise after every action, one that starts at a tenth of the variance of y and updates it
        when nothing else gains; the one that ends higher in log evidence plus log prior is the model. The first is
        right where signals are weak and columns many, the second where many weights are each too weak to be seen
        alone.
    update_noise : bool, default=True
        Learn the noise variance (1e-6 of the variance of y at least); False keeps `noise_variance`.
    max_iter : int, default=1000
        Actions at most: columns added, re-estimated and deleted, and updates of the noise.
    tol : float, default=1e-4
        Stop when no action gains more than this, in nats, and the noise variance has settled within 0.1 %.
    verbose : bool, default=False
        Print each action.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features_in_,)
        Posterior means; 0 for columns that are not kept.
    intercept_ : float
    active_ : ndarray of int
        The columns kept, ascending.
    sigma_ : ndarray of shape (n_active, n_active)
        Posterior covariance of the weights of the active columns.
    alpha_ : ndarray of shape (n_active,)
        Prior precisions of the weights of the active columns.
    noise_variance_ : float
    evidence_curve_ : ndarray of shape (n_iter_ + 1,)
        Log evidence at the start (no columns) and after each action, in nats.
    log_prior_curve_ : ndarray of shape (n_iter_ + 1,)
        Log prior of the set of columns, up to a constant. Only an update of the noise can lower the sum of both.
    actions_ : list of str, length n_iter_
        "add", "re-estimate", "delete" or "noise".
    n_iter_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if X has string column names.

    Examples
    --------
    >>> import numpy as np
    >>> from effml.itemsets import SparseBayesRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 500))
    >>> y = 3.0 * X[:, 7] - 2.0 * X[:, 100] + 0.5 * rng.normal(size=200)
    >>> model = SparseBayesRegressor().fit(X, y)
    >>> model.active_.tolist(), model.coef_[model.active_].round(1).tolist()
    ([7, 100], [3.0, -2.0])
    >>> mean, std = model.predict(X[:2], return_std=True)
    >>> std.round(1).tolist()
    [0.5, 0.5]
    """

    _parameter_constraints: ClassVar[dict] = {
        "fit_intercept": ["boolean"],
        "inclusion_prior": [StrOptions({"beta-binomial"}), Interval(Real, 0, 0.5, closed="right")],
        "noise_variance": [None, Interval(Real, 0, None, closed="neither")],
        "update_noise": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        fit_intercept=True,
        inclusion_prior="beta-binomial",
        noise_variance=None,
        update_noise=True,
        max_iter=1000,
        tol=1e-4,
        verbose=False,
    ):
        self.fit_intercept = fit_intercept
        self.inclusion_prior = inclusion_prior
        self.noise_variance = noise_variance
        self.update_noise = update_noise
        self.max_iter = max_iter
        self.tol = tol
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit to rows and targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite numbers.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts: a weight of 2 is the row twice, and the sum of the weights is the number of
            observations. Scaling all weights changes the model.

        Returns
        -------
        self
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        if self.noise_variance is None and not self.update_noise:
            raise ValueError("update_noise=False keeps noise_variance, which must be a positive number; got None")
        y = checked_target(y)
        check_range(X, "X")
        weights = check_weights(sample_weight, X)
        X, y, weights = drop_weightless(X, y, weights)
        scaled = _scaled(X, y, weights, self.fit_intercept)
        if scaled.n_rows + self.fit_intercept < FEWEST_ROWS or scaled.target_scale == 0:
            return self._fit_mean(scaled)
        self._check_noise(scaled)
        with threadpool_limits(1, user_api="blas"):  # products are short: threads would only wait for each other
            self._fit_weights(scaled)
        return self

    def _check_noise(self, scaled):
        least = LEAST_NOISE * scaled.target_scale**2
        if self.noise_variance is not None and self.noise_variance < least:
            raise ValueError(
                f"noise_variance={self.noise_variance} is too small to compute with: "
                f"it must be at least {LEAST_NOISE} times the variance of y, {least:.3g}"
            )

    def _fit_weights(self, scaled):
        active, trace = self._ascended(scaled)
        if not trace.converged:
            warnings.warn(
                f"max_iter={self.max_iter} actions were taken and the evidence still rises by more than tol={self.tol}",
                ConvergenceWarning,
                stacklevel=3,
            )
        order = np.argsort(active.keys)
        self._keep(
            scaled,
            active=np.array(active.keys, dtype=np.intp)[order],
            mean=active.mean[order],
            covariance=active.covariance[np.ix_(order, order)],
            alpha=active.alpha[order],
            noise_variance=active.noise_variance,
        )
        units = scaled.n_rows * np.log(scaled.target_scale)  # a density of y, not of y / target_scale
        self.evidence_curve_ = np.array(trace.log_evidence) - units
        self.log_prior_curve_ = np.array(trace.log_prior)
        self.actions_ = trace.kinds[1:]
        self.n_iter_ = len(self.actions_)

    def _ascended(self, scaled):
        """Return the active columns and the trace of the ascent that ends highest."""
        if self.noise_variance is None:
            ways = [(1.0, "each"), (LOW_NOISE, "settled")]
        else:
            ways = [(self.noise_variance / scaled.target_scale**2, "settled" if self.update_noise else "fixed")]
        best = None
        for noise_variance, noise in ways:
            active = ActiveSet(scaled.target, noise_variance=noise_variance, n_rows=scaled.n_rows)
            trace = ascend(
                active,
                MatrixColumns(
                    scaled.columns, scaled.target, inclusion_price(self.inclusion_prior, self.n_features_in_)
                ),
                max_iter=self.max_iter,
                tol=self.tol,
                noise=noise,
                noise_floor=LEAST_NOISE,
                max_effective=MOST_WEIGHTS * scaled.n_rows,
                report=_print_action if self.verbose else None,
            )
            if best is None or trace.objective > best[1].objective + self.tol:
                best = active, trace
        return best

    def _fit_mean(self, scaled):
        """Keep no column: y is constant, or the rows are too few."""
        if scaled.target_scale > 0:
            n = scaled.n_rows + self.fit_intercept
            warnings.warn(
                f"{n:g} observations (rows, or the sum of sample_weight) are fewer than {FEWEST_ROWS}: "
                "no column is used, predictions are the intercept",
                UserWarning,
                stacklevel=3,
            )
        given = self.noise_variance is not None and not self.update_noise
        scale = scaled.target_scale**2
        self._keep(
            scaled,
            active=np.empty(0, dtype=np.intp),
            mean=np.empty(0),
            covariance=np.empty((0, 0)),
            alpha=np.empty(0),
            noise_variance=self.noise_variance / scale if given and scale > 0 else 1.0,
        )
        if given:
            self.noise_variance_ = float(self.noise_variance)
        self.evidence_curve_, self.log_prior_curve_ = np.empty(0), np.empty(0)
        self.actions_, self.n_iter_ = [], 0
        return self

    def _keep(self, scaled, *, active, mean, covariance, alpha, noise_variance):
        """Store the model in the units of X and y."""
        unit = scaled.target_scale / scaled.scale[active]
        self.active_ = active
        self.coef_ = np.zeros(len(scaled.scale))
        self.coef_[active] = mean * unit
        self.sigma_ = covariance * np.outer(unit, unit)
        self.alpha_ = alpha / unit**2
        self.noise_variance_ = float(noise_variance * scaled.target_scale**2)
        self._mean = scaled.mean[active]
        self.intercept_ = float(scaled.target_mean - self._mean @ self.coef_[active])
        self._n_observations = scaled.n_rows + self.fit_intercept

    def predict(self, X, return_std=False):
        """Return the predicted means and, if asked for, standard deviations.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        return_std : bool, default=False

        Returns
        -------
        mean : ndarray of shape (n_samples,)
        std : ndarray of shape (n_samples,)
            Of a new observation: noise, weights and intercept. Only if `return_std`.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        rows = X[:, self.active_]
        mean = rows @ self.coef_[self.active_] + self.intercept_
        if not return_std:
            return mean
        rows = rows - self._mean
        variance = self.noise_variance_ + np.einsum("ij,ij->i", rows @ self.sigma_, rows)
        if self.fit_intercept:
            variance += self.noise_variance_ / self._n_observations
        return mean, np.sqrt(variance)


@dataclass(frozen=True, eq=False)
class _Scaled:
    """Rows and target, centred (with an intercept), of mean square 1 a column, times the root of their weights.

    A scale of 0 marks a constant target; a constant column has scale 1 and is all zeros.
    """

    columns: np.ndarray
    target: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    target_mean: float
    target_scale: float
    n_rows: float  # sum of the weights, less 1 for an intercept


def _scaled(X, y, weights, centre):
    n = len(X) if weights is None else float(weights.sum())
    root = None if weights is None else np.sqrt(weights)
    columns, mean, scale = _standardised(X, weights, root, n, centre)
    target, target_mean, target_scale = _standardised(y[:, None], weights, root, n, centre)
    scale[scale == 0] = 1.0
    return _Scaled(columns, target[:, 0], mean, scale, float(target_mean[0]), float(target_scale[0]), n - centre)


def _standardised(Z, weights, root, n, centre):
    """Return the scaled columns, their means and their scales; a column that is constant up to rounding has scale 0."""
    mean = np.average(Z, axis=0, weights=weights) if centre else np.zeros(Z.shape[1])
    moved = Z - mean
    if root is not None:
        moved *= root[:, None]
    scale = np.sqrt(np.einsum("ij,ij->j", moved, moved) / n)
    rounding = np.finfo(float).eps * np.sqrt(len(Z)) * np.abs(mean)
    scale[scale <= rounding] = 0.0
    moved *= np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    return moved, mean, scale


def _print_action(trace):
    print(
        f"[SparseBayesRegressor] {len(trace.kinds) - 1}: {trace.kinds[-1]}, {trace.n_active[-1]} columns, "
        f"log evidence {trace.log_evidence[-1]:.6g}"
    )
