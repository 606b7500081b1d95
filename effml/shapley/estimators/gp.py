"""A Gaussian process on the odd part of the game, read through the multilinear extension.

Write x_j = +1 for absent players, -1 for present ones, and g(S) = (v(S) - v(complement)) / 2 = sum over odd T of
w_T prod_{j in T} x_j. The prior: independent w_T with variance rho**|T|, times tau where |T| = 1. Then, with Hamming
distance h,

    cov(g(x), g(x')) = [(1 + rho)**(n - h) (1 - rho)**h - (1 - rho)**(n - h) (1 + rho)**h] / 2
                       + (tau - 1) rho (n - 2 h).

As phi_i = -2 sum over T containing i of w_T / |T|, and 1 / |T| is an integral of t**(|T| - 1),

    cov(phi_i, g(x)) = -x_i integral over t in [0, rho] of prod_{j != i} (1 + t x_j) + prod_{j != i} (1 - t x_j)
                       - 2 x_i (tau - 1) rho.

Values are observed without noise, sizes 1, 2, ... whole as long as they fit, then by the kernel of Kernel SHAP.
(rho, tau) maximise the marginal likelihood on a grid, for each row and output by itself.
"""

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.special import gammaln

from effml.shapley.estimators._base import Estimate, Plan, odd_part, pair_plan_coalitions, spread_gap, too_small
from effml.shapley.samplers import border_counts, paired_coalitions

MAX_PAIRS = 2000
"""Above, the matrices take too long: `plan` then gives way to regression."""

RHO_TIMES_PLAYERS = (0.5, 1.0, 2.0, 4.0, 6.0)
TAU = (1.0, 10.0, 100.0, 1e4)
_LIKELIHOOD_PAIRS = 600  # pairs that choose (rho, tau); all of them up to this number
_NODES = 64  # exact up to 128 players, which give polynomials of degree 127; beyond, rho is small and they are smooth
_JITTER = 1e-10  # added to the diagonal, relative to it


class OddKernel:
    """Covariances of the odd part and of the Shapley values, relative to the variance of g.

    Parameters
    ----------
    n_players : int
    rho, tau : float
    """

    def __init__(self, n_players, rho, tau):
        self.n_players, self.rho, self.tau = n_players, rho, tau
        self._scale = 1.0
        self._scale = 1 / self.by_distance()[0]

    def by_distance(self):
        """Return cov(g(x), g(x')) for Hamming distances 0, ..., n."""
        n, rho, h = self.n_players, self.rho, np.arange(self.n_players + 1)
        near, far = (1 + rho) ** (n - h) * (1 - rho) ** h, (1 - rho) ** (n - h) * (1 + rho) ** h
        return self._scale * ((near - far) / 2 + (self.tau - 1) * rho * (n - 2 * h))

    def with_values(self, signs):
        """Return cov(phi_i, g(x)) for rows x of signs (m, n_players): (n_players, m)."""
        n = self.n_players
        nodes, weights = np.polynomial.legendre.leggauss(min((n + 1) // 2, _NODES))
        t, weights = (nodes + 1) * self.rho / 2, weights * self.rho / 2
        absent = np.arange(n)[:, None]  # of the n - 1 other players
        products = (1 + t) ** absent * (1 - t) ** (n - 1 - absent)
        integral = (products + products[::-1]) @ weights
        others = (signs > 0).sum(axis=1, keepdims=True) - (signs > 0)
        return -self._scale * (signs * (integral[others] + 2 * (self.tau - 1) * self.rho)).T

    def variance(self):
        """Return the prior variance of a Shapley value."""
        sizes = np.arange(1, self.n_players + 1, 2)
        n = self.n_players - 1
        choices = gammaln(n + 1) - gammaln(sizes) - gammaln(n - sizes + 2)  # log C(n, sizes - 1)
        orders = np.exp(choices + sizes * np.log(self.rho)) / sizes**2
        return 4 * self._scale * (orders.sum() + (self.tau - 1) * self.rho)


class GaussianProcessPlan(Plan):
    """Posterior means and standard deviations; factors are made once for all rows and outputs.

    Parameters
    ----------
    n_players : int
    counts : int array
        Pairs by size.
    seed : sequence of int
    """

    def __init__(self, n_players, counts, seed):
        halves = paired_coalitions(n_players, counts, seed)
        super().__init__("gp", pair_plan_coalitions(halves))
        self._signs = 1.0 - 2.0 * self.coalitions[: len(self.coalitions) // 2]
        self._distance = _distances(self._signs)
        n_pairs = len(self._signs)
        rng = np.random.default_rng([*seed, n_pairs])
        some = np.sort(rng.choice(n_pairs - 1, min(n_pairs - 1, _LIKELIHOOD_PAIRS), replace=False)) + 1
        self._chosen = np.append(0, some)
        self._kernels = [
            OddKernel(n_players, min(c / n_players, 0.9), tau)
            for c in RHO_TIMES_PLAYERS
            if c / n_players <= 0.9 or c == RHO_TIMES_PLAYERS[0]
            for tau in TAU
        ]
        self._factors = None
        self._maps = {}

    def solve(self, values):
        """Return the values, which sum to v(all) - v(empty), and posterior standard deviations."""
        gap = values[-1] - values[0]
        odd = odd_part(values)
        scale = np.abs(odd).max(axis=0)
        scaled = odd / np.where(scale > 0, scale, 1)
        best = self._most_likely(scaled)
        estimate = np.empty((self.coalitions.shape[1], odd.shape[1]))
        errors = np.empty_like(estimate)
        for number in np.unique(best):
            mine = best == number
            mean, inverse, variance = self._map(number)
            estimate[:, mine] = mean @ scaled[:, mine]
            quadratic = ((inverse @ scaled[:, mine]) * scaled[:, mine]).sum(axis=0) / len(odd)
            errors[:, mine] = np.sqrt(np.outer(variance, np.maximum(quadratic, 0)))
        return Estimate(spread_gap(estimate * scale, gap), errors * scale)

    def _most_likely(self, odd):
        """Return the number of the kernel of highest marginal likelihood, its scale profiled out, for every column."""
        if self._factors is None:
            distance = self._distance[np.ix_(self._chosen, self._chosen)]
            self._factors = [_factor(kernel, distance) for kernel in self._kernels]
        odd = odd[self._chosen]
        likelihood = np.empty((len(self._factors), odd.shape[1]))
        for number, factor in enumerate(self._factors):
            quadratic = (solve_triangular(factor, odd, lower=True, check_finite=False) ** 2).sum(axis=0)
            spread = np.log(np.maximum(quadratic / len(odd), 1e-300))
            likelihood[number] = -len(odd) / 2 * spread - np.log(np.diag(factor)).sum()
        return likelihood.argmax(axis=0)

    def _map(self, number):
        """Return the matrices from odd values to Shapley values and to their weights, and the posterior variances."""
        if number not in self._maps:
            kernel = self._kernels[number]
            factor = _factor(kernel, self._distance)
            covariance = kernel.with_values(self._signs)
            half = solve_triangular(factor, covariance.T, lower=True, check_finite=False)
            mean = solve_triangular(factor, half, lower=True, trans=1, check_finite=False).T
            variance = np.maximum(kernel.variance() - (half**2).sum(axis=0), 0)
            inverse = cho_solve((factor, True), np.eye(len(factor)), check_finite=False)
            self._maps[number] = mean, inverse, variance
        return self._maps[number]


def _distances(signs):
    """Return Hamming distances between rows of signs."""
    return np.rint((signs.shape[1] - signs @ signs.T) / 2).astype(np.int64)


def _factor(kernel, distance):
    """Return the Cholesky factor of the covariance, with the least jitter that lets it exist."""
    covariance = kernel.by_distance()[distance]
    jitter = _JITTER
    while True:
        shifted = covariance.copy()
        shifted[np.diag_indices_from(shifted)] += jitter
        try:
            return cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            if jitter > 1e-3:
                raise
            jitter *= 10


def plan_gp(n_players, budget, seed):
    """Return the plan for the pairs that the budget holds."""
    n_pairs = budget // 2 - 1
    if n_pairs < 1:
        raise too_small("gp", budget, 4, n_players)
    return GaussianProcessPlan(n_players, border_counts(n_players, n_pairs), seed)
