"""A Gaussian process on the odd part of the game, read through the multilinear extension.

Write x_j = +1 for absent players, -1 for present ones, and g(S) = (v(S) - v(complement)) / 2 = sum over odd T of
w_T prod_{j in T} x_j. The prior: independent w_T with variance prod_{j in T} rho_j, so that every player has its own
share in interactions, plus tau where |T| = 1. With theta_j = artanh(rho_j) and z = sum_j theta_j x_j x'_j,

    cov(g(x), g(x')) = [prod_j (1 + rho_j x_j x'_j) - prod_j (1 - rho_j x_j x'_j)] / 2 + tau sum_j x_j x'_j
                     = sinh(z) / prod_j cosh(theta_j) + tau sum_j x_j x'_j.

As phi_i = -2 sum over T containing i of w_T / |T|, and 1 / |T| is the integral of s**(|T| - 1) over [0, 1],

    cov(phi_i, g(x)) = -x_i (rho_i integral over s of prod_{j != i} (1 + s rho_j x_j) + prod_{j != i} (1 - s rho_j x_j)
                             + 2 tau).

Values are observed without noise. theta and tau maximise the marginal likelihood of the odd part plus that of the even
part, whose covariance has cosh in place of sinh, in the mean over games, with a prior that keeps the log theta_j
together. All variances are divided by prod_j (1 + rho_j), which leaves the estimates as they are.
"""

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from effml.shapley.estimators._base import Estimate, Plan, odd_part, pair_plan_coalitions, spread_gap, too_small
from effml.shapley.estimators.regression import RegressionPlan
from effml.shapley.samplers import layered_counts, paired_coalitions, starred_pairs

MAX_PAIRS = 3000
"""The process sees so many pairs at most; a regression takes what it leaves of the others."""

_LIKELIHOOD_PAIRS = (200, 400)  # half of the pairs choose theta and tau, but so many at least and at most
_STARRED_PLAYERS = 6  # with fewer, the two stars overlap
_STEPS = 12
_STARTS = (0.5, 2.0, 6.0)  # rho_j times players
_TOGETHER = 3.0  # precision of log theta_j around their mean
_LOG_THETA, _LOG_TAU = (-14.0, 1.2), (-16.0, 14.0)
_NODES = 32  # exact up to 64 players, which give polynomials of degree 63; beyond, they are smooth
_JITTER = 1e-10  # added to the diagonal, relative to it
_NOISE = 1e-8  # the same where the likelihood is computed
_CONSTANT = 100.0  # prior variance of the even part's mean


class OddKernel:
    """Covariances of the odd part and of the Shapley values.

    Parameters
    ----------
    theta : array (n_players,)
    tau : float
    """

    def __init__(self, theta, tau):
        self.theta, self.tau = np.asarray(theta, dtype=np.float64), tau
        self.rho = np.tanh(self.theta)

    def between(self, signs, others):
        """Return cov(g(x), g(x')) for rows of signs (m, n_players) and (k, n_players): (m, k)."""
        total = self.theta.sum()
        z = (signs * self.theta) @ others.T
        return (np.exp(z - total) - np.exp(-z - total)) / 2 + self.tau * (signs @ others.T)

    def with_values(self, signs):
        """Return cov(phi_i, g(x)) for rows x of signs (m, n_players): (n_players, m)."""
        nodes, weights = _rule(signs.shape[1])
        integral = np.zeros(signs.shape)
        for s, weight in zip(nodes, weights, strict=True):
            integral += weight * self._others(s * self.rho * signs)
        return -(signs * (self.rho * integral + 2 * self.tau)).T

    def variance(self):
        """Return the prior variances of the Shapley values (n_players,)."""
        # 1 / |T|**2 is the integral of (s t)**(|T| - 1) over both.
        nodes, weights = _rule(len(self.rho))
        products, weights = np.outer(nodes, nodes).ravel(), np.outer(weights, weights).ravel()
        integral = weights @ self._others(products[:, None] * self.rho)
        return 2 * self.rho * integral + 4 * self.tau

    def _others(self, terms):
        """Return prod_{j != i} (1 + terms_j) + prod_{j != i} (1 - terms_j), scaled, for rows of terms."""
        scale = np.log1p(self.rho).sum()
        plus, minus = np.log1p(terms), np.log1p(-terms)
        return np.exp(plus.sum(axis=1, keepdims=True) - plus - scale) + np.exp(
            minus.sum(axis=1, keepdims=True) - minus - scale
        )


def _rule(n_players):
    """Return Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(min((n_players + 1) // 2, _NODES))
    return (nodes + 1) / 2, weights / 2


# -- hyper-parameters -------------------------------------------------------------------------------------------------


def fit_kernel(signs, odd, even):
    """Return the `OddKernel` of highest likelihood, found from the best of some alike players by L-BFGS.

    Parameters
    ----------
    signs : array (m, n_players)
    odd, even : array (m, n_games)
        (v(S) - v(complement)) / 2, and the same with a plus.
    """
    n_players = signs.shape[1]
    odd, even = _scaled(odd), _scaled(even - even.mean(axis=0))

    def objective(point):
        return _objective(point, signs, odd, even)

    starts = []
    for share in _STARTS:
        theta = np.full(n_players, np.arctanh(min(share / n_players, 0.8)))
        starts.append(np.append(np.log(theta), np.log(-np.expm1(-2 * theta.sum()) / 2 / n_players)))
    best = min(starts, key=lambda point: objective(point)[0])
    bounds = [_LOG_THETA] * n_players + [_LOG_TAU]
    found = minimize(objective, best, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS})
    return OddKernel(np.exp(found.x[:-1]), np.exp(found.x[-1]))


def _scaled(values):
    largest = np.abs(values).max(axis=0)
    return values[:, largest > 0] / largest[largest > 0]


def _objective(point, signs, odd, even):
    """Return the negative log posterior of (log theta, log tau), and its gradient."""
    log_theta, tau = point[:-1], np.exp(point[-1])
    theta, linear = np.exp(log_theta), signs @ signs.T
    # cosh and sinh of z, over exp(sum theta)
    cosh = (signs * theta) @ signs.T
    cosh -= theta.sum() + np.log(2)
    np.exp(cosh, out=cosh)
    sinh = np.exp(-2 * theta.sum() - np.log(4)) / cosh
    cosh, sinh = cosh + sinh, np.subtract(cosh, sinh, out=sinh)
    apart = log_theta - log_theta.mean()
    value, gradient = _TOGETHER / 2 * apart @ apart, np.append(_TOGETHER * apart, 0.0)
    for covariance, slope, scale, target in (
        (sinh + tau * linear, cosh, sinh, odd),
        (cosh + _CONSTANT, sinh, cosh, even),
    ):
        # slope = d covariance / dz; the division by exp(sum theta) adds -scale to the derivative of each theta_j
        part, by_covariance = _likelihood(covariance, target, _NOISE * scale[0, 0])
        if part is None:
            return 1e12, np.zeros_like(point)
        value += part
        if target is odd:
            gradient[-1] = tau * np.vdot(by_covariance, linear)
        by_scale = np.vdot(by_covariance, scale)
        by_covariance *= slope
        gradient[:-1] += theta * (np.einsum("ij,ij->j", signs, by_covariance @ signs) - by_scale)
    return value, gradient


def _likelihood(covariance, target, noise):
    """Return the negative log likelihood, its scale profiled out, and its derivative by the covariance."""
    n, n_targets = target.shape
    if not n_targets:
        return 0.0, np.zeros_like(covariance)
    shifted = covariance.copy(order="F")
    shifted.ravel(order="K")[:: n + 1] += noise + 1e-13 * n * covariance[0, 0]
    factor, failed = dpotrf(shifted, lower=True, overwrite_a=True)
    if failed:
        return None, None
    weights, _ = dpotrs(factor, target, lower=True)
    quadratic = np.einsum("ij,ij->j", target, weights) / n
    value = n / 2 * np.log(quadratic).mean() + np.log(np.diag(factor)).sum()
    half, _ = dpotri(factor, lower=True, overwrite_c=True)  # lower half of the inverse, zeros above
    half.ravel(order="K")[:: n + 1] /= 2
    derivative = half + half.T
    derivative -= weights / quadratic @ weights.T / n_targets
    derivative /= 2
    return value, derivative


# -- the plan ---------------------------------------------------------------------------------------------------------


class GaussianProcessPlan(Plan):
    """Posterior means and standard deviations.

    Parameters
    ----------
    n_players, n_pairs : int
    seed : sequence of int
    shared : bool, default=False
        Choose one kernel for all columns, which is several times faster, in place of one for each.

    Attributes
    ----------
    counts : int array
        Pairs by size.
    """

    def __init__(self, n_players, n_pairs, seed, shared=False):
        if n_players >= _STARRED_PLAYERS and 2 * n_players + 1 <= n_pairs < 3 * n_players:
            halves = starred_pairs(n_players, n_pairs, seed)
            self.counts = np.bincount(halves.sum(axis=1), minlength=n_players // 2 + 1)[1:]
        else:
            self.counts = layered_counts(n_players, n_pairs)
            halves = paired_coalitions(n_players, self.counts, seed)
        super().__init__("gp", pair_plan_coalitions(halves))
        self._signs = 1.0 - 2.0 * self.coalitions[: len(self.coalitions) // 2]
        rng = np.random.default_rng([*seed, len(halves)])
        self._shared = shared
        self._seen = self._choose(MAX_PAIRS, rng)
        self._chosen = self._choose(int(np.clip(len(halves) // 2, *_LIKELIHOOD_PAIRS)), rng)
        self._rest = None
        if len(self._seen) < len(self._signs):
            self._rest = RegressionPlan(n_players, 1, self.counts, seed)

    def _choose(self, most, rng):
        """Return numbers of at most so many pairs, that of empty and full among them."""
        n_drawn = len(self._signs) - 1
        some = np.arange(n_drawn) if n_drawn < most else np.sort(rng.choice(n_drawn, most - 1, replace=False))
        return np.append(0, some + 1)

    def solve(self, values):
        """Return the values, which sum to v(all) - v(empty), and posterior standard deviations."""
        return self.solve_and_check(values, check=False)[0]

    def solve_and_check(self, values, check=True):
        """Return the `Estimate`, and the mean squared leave-one-out error of the odd part for every column."""
        gap, odd = values[-1] - values[0], odd_part(values)
        even = values[: len(odd)] - odd
        estimate = np.zeros((self.coalitions.shape[1], values.shape[1]))
        errors, left_out = np.zeros_like(estimate), np.zeros(values.shape[1])
        residuals = np.zeros_like(odd)
        moving = np.flatnonzero(odd.any(axis=0))
        for some in [moving] if self._shared and len(moving) else moving[:, None]:
            chosen = np.ix_(self._chosen, some)
            with threadpool_limits(1, user_api="blas"):  # matrices are small: threads would only wait for each other
                kernel = fit_kernel(self._signs[self._chosen], odd[chosen], even[chosen])
            estimate[:, some], errors[:, some], factor, weights = self._posterior(kernel, odd[np.ix_(self._seen, some)])
            if check:
                # The pair of empty and full is not left out: no other estimator goes without it.
                inverse, _ = dpotri(factor, lower=True)
                left_out[some] = np.mean((weights[1:] / np.diag(inverse)[1:, None]) ** 2, axis=0)
            if self._rest is not None:
                residuals[:, some] = odd[:, some] - self._predict(kernel, weights)
        if self._rest is not None:
            estimate += self._rest.solve(np.concatenate([residuals, -residuals[::-1]])).values
        return Estimate(spread_gap(estimate, gap), errors), left_out

    def _predict(self, kernel, weights):
        """Return the posterior means of all pairs."""
        blocks = [
            kernel.between(self._signs[begin : begin + MAX_PAIRS], self._signs[self._seen]) @ weights
            for begin in range(0, len(self._signs), MAX_PAIRS)
        ]
        return np.concatenate(blocks)

    def _posterior(self, kernel, odd):
        """Return means and deviations (n_players,), the factor of the covariance, and the weights of the pairs."""
        signs = self._signs[self._seen]
        factor = _factor(kernel.between(signs, signs), kernel.tau * signs.shape[1])
        weights = cho_solve((factor, True), odd, check_finite=False)
        covariance = kernel.with_values(signs)
        half = solve_triangular(factor, covariance.T, lower=True, check_finite=False)
        variance = np.maximum(kernel.variance() - (half**2).sum(axis=0), 0)
        scale = np.maximum(np.einsum("ij,ij->j", odd, weights), 0) / len(odd)
        return covariance @ weights, np.sqrt(np.outer(variance, scale)), factor, weights


def _factor(covariance, linear):
    """Return the Cholesky factor of the covariance, with the least jitter that lets it exist.

    The jitter is relative to the variance of interactions, `linear` being the rest of the diagonal.
    """
    jitter = _JITTER * max(covariance[0, 0] - linear, 1e-12 * covariance[0, 0])
    while True:
        shifted = covariance.copy(order="F")  # LAPACK's order
        shifted[np.diag_indices_from(shifted)] += jitter
        try:
            return cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            if jitter > covariance[0, 0]:
                raise
            jitter *= 10


def plan_gp(n_players, budget, seed):
    """Return the plan for the pairs that the budget holds."""
    n_pairs = budget // 2 - 1
    if n_pairs < 1:
        raise too_small("gp", budget, 4, n_players)
    return GaussianProcessPlan(n_players, n_pairs, seed, shared=True)
