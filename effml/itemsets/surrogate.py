"""What an optimiser believes of a function: all itemsets together, and a few with weights of their own.

    f = intercept + r + sum over accepted terms w_j phi_j,     w_j ~ N(0, 1 / alpha_j),      y = f + noise,
    r ~ Gaussian process of all itemsets (`effml.itemsets.all_itemsets`)

A sparse model alone has no variance where none of its itemsets holds, and in few measurements it sees conditions that
are chance. Here the terms that :class:`ItemsetSparseBayesRegressor` finds are candidates: one is accepted if, beside r,
it gains more log evidence than log C(d, k) - log(m + 1), the price of having searched all itemsets of its order k from
d items for one that joins m others. f at any rows is normal, given the measurements:

    C = Phi A^-1 Phi' + tau^2 (K + lambda I),     K_ij = exp(-gamma d_ij / mean d)

gamma, tau^2 and the noise, lambda tau^2, are those of highest posterior density on a grid. Values are scaled to mean 0
and standard deviation 1.
"""

from math import lgamma

import numpy as np
from scipy.linalg import cholesky, eigh, solve_triangular
from sklearn.base import clone

from effml.itemsets.evidence import FEWEST_ROWS, add_gain, best_alpha

__all__ = ["Surrogate"]

GAMMAS = np.geomspace(0.25, 8.0, 6)
LAMBDAS = np.geomspace(1e-4, 3.0, 10)
TAU_SQUARES = np.geomspace(0.1, 10.0, 8)
# Normal priors on the logarithms: centre and standard deviation. With tau^2 around 2, twice the variance of the values,
# few measurements leave much to explore; on development seeds smaller ones stayed longer at local maxima.
GAMMA_PRIOR = np.log(2.0), 1.8
LAMBDA_PRIOR = np.log(0.05), 5.8
TAU_SQUARE_PRIOR = np.log(2.0), 1.0
INTERCEPT_VARIANCE = 1.0  # of scaled values
N_ROUNDS = 4  # hyperparameters and accepted terms, in turn, at most
LEAST_VARIANCE = 1e-10  # of a new measurement, given the others
REDUNDANT = 1e-10


class Surrogate:
    """A joint model of all itemsets and of accepted terms.

    `fit` searches for terms and hyperparameters; `extend` adds measurements by growing the Cholesky factor, and
    `shrink` takes the last of them away again.

    Parameters
    ----------
    regressor : ItemsetSparseBayesRegressor
        Cloned.
    coordinates : ItemCoordinates

    Attributes
    ----------
    model : fitted regressor, or None if no term was accepted
    accepted : int array
        Numbers of the accepted terms of `model`.
    gamma, tau_square, lam : float
    n : int
        Measurements in the factor.
    """

    def __init__(self, regressor, coordinates):
        self.regressor = regressor
        self.coordinates = coordinates
        self._watched = None

    def fit(self, rows, values):
        """Fit to rows (n, n_features) and values (n,)."""
        self._mean = float(values.mean())
        self._scale = float(values.std()) or 1.0
        y = (values - self._mean) / self._scale
        self._places = self.coordinates.of(rows)
        distances = self.coordinates.distances(self._places, self._places)
        self._unit = float(distances.mean()) or 1.0
        self._choose(rows, y, distances / self._unit)
        self._phi = self._terms(rows)
        covariance = self._covariance(distances, self._phi, self._phi)
        covariance[np.diag_indices(len(y))] += self.tau_square * self.lam
        self._factor = cholesky(covariance, lower=True)
        self._z = solve_triangular(self._factor, y, lower=True)
        self.n = len(y)
        self._watch_again()
        return self

    def extend(self, rows, values=None):
        """Add measurements; without values those that the model expects, which leaves its mean as it is."""
        for k, row in enumerate(rows):
            place, phi = self.coordinates.of(row[None]), self._terms(row[None])
            distances = self.coordinates.distances(self._places, place)
            across = solve_triangular(self._factor, self._covariance(distances, self._phi, phi)[:, 0], lower=True)
            own = float((phi * phi).sum()) + self.tau_square * (1 + self.lam)
            root = np.sqrt(max(own - across @ across, LEAST_VARIANCE))
            z = 0.0 if values is None else ((values[k] - self._mean) / self._scale - across @ self._z) / root
            self._append(place, phi, across, root, z)

    def shrink(self, n):
        """Keep the first `n` measurements."""
        self._places, self._phi, self._z = self._places[:n], self._phi[:n], self._z[:n]
        self._factor = self._factor[:n, :n]
        if self._watched is not None:
            self._watched["V"] = self._watched["V"][:n]
        self.n = n

    def watch(self, rows):
        """Keep predictions at these rows ready, at O(n) a row and measurement; `rows` must not change."""
        if self._watched is not None and self._watched["rows"] is rows:
            return
        self._watched = {"rows": rows, "places": self.coordinates.of(rows)}
        self._watch_again()

    def predict_watched(self):
        """Return mean and standard deviation of f at the watched rows."""
        return self._in_units(*self._moments(self._watched["V"], self._watched["phi"]))

    def predict(self, rows):
        """Return mean and standard deviation of f at rows, float64 arrays (n,)."""
        phi = self._terms(rows)
        return self._in_units(*self._moments(self._solved(self.coordinates.of(rows), phi), phi))

    def joint(self, rows):
        """Return mean (n,) and covariance (n, n) of f at rows."""
        places, phi = self.coordinates.of(rows), self._terms(rows)
        V = self._solved(places, phi)
        covariance = self._covariance(self.coordinates.distances(places, places), phi, phi) - V.T @ V
        return self._mean + self._scale * (V.T @ self._z), self._scale**2 * covariance

    def draw(self, rows, rng):
        """Return one function drawn from the posterior, at up to a few hundred rows, float64 (n,)."""
        mean, covariance = self.joint(rows)
        values, vectors = eigh(covariance, driver="evd", overwrite_a=True)
        return mean + vectors @ (np.sqrt(np.maximum(values, 0.0)) * rng.normal(size=len(values)))

    # -- fit ----------------------------------------------------------------------------------------------------------

    def _choose(self, rows, y, distances):
        """Choose hyperparameters and terms, in turn."""
        spectra = [eigh(np.exp(-gamma * distances), driver="evd", overwrite_a=True) for gamma in GAMMAS]
        self.model, self.accepted, self._root_variances = None, np.empty(0, dtype=np.intp), np.empty(0)
        self._tune(spectra, self._terms(rows), y)
        found = clone(self.regressor).fit(rows, y) if len(y) >= FEWEST_ROWS and y.any() else None
        if found is None or not len(found.coef_):
            return
        columns, prices = found.transform(rows) - found.term_means_, _prices(found)
        for _ in range(N_ROUNDS):
            covariance = self._covariance(distances * self._unit, self._terms(rows), self._terms(rows))
            covariance[np.diag_indices(len(y))] += self.tau_square * self.lam
            new, variances = _accepted(covariance, columns, y, prices, self.accepted)
            if not len(new):
                return
            self.model, self.accepted = found, np.append(self.accepted, new)
            self._root_variances = np.append(self._root_variances, np.sqrt(variances))
            self._tune(spectra, self._terms(rows), y)

    def _tune(self, spectra, phi, y):
        """Choose gamma, tau^2 and lambda; the eigenvectors of K serve all values of the other two."""
        best = -np.inf
        for gamma, (values, vectors) in zip(GAMMAS, spectra, strict=True):
            scores = _log_evidence(np.maximum(values, 0.0), vectors.T @ phi, vectors.T @ y)
            scores += _log_normal(np.log(gamma), *GAMMA_PRIOR)
            at = np.unravel_index(int(np.argmax(scores)), scores.shape)
            if scores[at] > best:
                best = scores[at]
                self.gamma, self.lam, self.tau_square = float(gamma), float(LAMBDAS[at[0]]), float(TAU_SQUARES[at[1]])

    def _terms(self, rows):
        """Return the centred terms times the roots of their prior variances, the intercept last, (n, n_terms + 1)."""
        intercept = np.full((len(rows), 1), np.sqrt(INTERCEPT_VARIANCE))
        if not len(self.accepted):
            return intercept
        columns = (self.model.transform(rows) - self.model.term_means_)[:, self.accepted]
        return np.hstack([columns * self._root_variances, intercept])

    # -- linear algebra -----------------------------------------------------------------------------------------------

    def _covariance(self, distances, phi, other):
        return self.tau_square * np.exp(-self.gamma / self._unit * distances) + phi @ other.T

    def _solved(self, places, phi):
        covariance = self._covariance(self.coordinates.distances(self._places, places), self._phi, phi)
        return solve_triangular(self._factor, covariance, lower=True, overwrite_b=True, check_finite=False)

    def _moments(self, V, phi):
        prior = self.tau_square + np.einsum("ij,ij->i", phi, phi)
        return V.T @ self._z, prior - np.einsum("ij,ij->j", V, V)

    def _in_units(self, mean, variance):
        return self._mean + self._scale * mean, self._scale * np.sqrt(np.maximum(variance, 0.0))

    def _append(self, place, phi, across, root, z):
        n = self.n
        grown = np.zeros((n + 1, n + 1))
        grown[:n, :n], grown[n, :n], grown[n, n] = self._factor, across, root
        if self._watched is not None:
            watched = self._watched
            k = self._covariance(self.coordinates.distances(place, watched["places"]), phi, watched["phi"])[0]
            watched["V"] = np.vstack([watched["V"], (k - across @ watched["V"]) / root])
        self._factor, self._z = grown, np.append(self._z, z)
        self._places, self._phi = np.vstack([self._places, place]), np.vstack([self._phi, phi])
        self.n = n + 1

    def _watch_again(self):
        if self._watched is None:
            return
        watched = self._watched
        watched["phi"] = self._terms(watched["rows"])
        watched["V"] = self._solved(watched["places"], watched["phi"])


def _accepted(covariance, columns, y, prices, already):
    """Return the numbers of the columns that gain more than their price, the best first, and their prior variances."""
    inverse = np.linalg.inv(covariance)
    free = np.ones(columns.shape[1], dtype=bool)
    free[already] = False
    new, variances = [], []
    while free.any():
        products = inverse @ columns
        S = np.einsum("ij,ij->j", columns, products)
        Q = products.T @ y
        usable = free & (S > REDUNDANT)
        gains = np.full(len(S), -np.inf)
        gains[usable] = add_gain(S[usable], Q[usable]) - prices[usable] + np.log(1 + len(already) + len(new))
        best = int(np.argmax(gains))
        if not gains[best] > 0 or Q[best] ** 2 <= S[best]:
            break
        alpha = float(best_alpha(S[best], Q[best]))
        inverse = inverse - np.outer(products[:, best], products[:, best]) / (alpha + S[best])
        free[best] = False
        new.append(best)
        variances.append(1 / alpha)
    return np.array(new, dtype=np.intp), np.array(variances)


def _prices(model):
    """Return log C(d, k) of each term of an itemset model: d items, k of them in the itemset; a linear term has one."""
    sizes = [
        len(levels) if levels is not None else 1 if binary else 2 * len(cuts)
        for cuts, binary, levels in zip(model.cuts_, model.binary_, model.categories_, strict=True)
    ]
    orders = [sum(_n_items(model, j, codes) for j, codes in conditions) for conditions in model.conditions_]
    orders = np.array(orders + [1] * len(model.linear_features_))
    d = max(sum(sizes), int(orders.max()))
    return np.array([lgamma(d + 1) - lgamma(k + 1) - lgamma(d - k + 1) for k in orders])


def _n_items(model, feature, codes):
    """Return how many items a condition joins: an interval inside the range has two."""
    ordered = model.categories_[feature] is None and not model.binary_[feature]
    return 2 if ordered and not codes[0] and not codes[-1] else 1


def _log_evidence(values, phi, y):
    """Return log p(y) less a constant plus the log priors of lambda and tau^2, (n_lambdas, n_tau_squares).

    Parameters
    ----------
    values : array (n,)
        Eigenvalues of K.
    phi : array (n, M)
    y : array (n,)
        Both in the basis of the eigenvectors of K.
    """
    scores = np.empty((len(LAMBDAS), len(TAU_SQUARES)))
    for k, lam in enumerate(LAMBDAS):
        precision = 1 / (values + lam)
        weighted = phi * precision[:, None]
        spread, basis = eigh(phi.T @ weighted)
        spread, b = np.maximum(spread, 0.0), basis.T @ (weighted.T @ y)
        size = 1 + spread / TAU_SQUARES[:, None]  # (n_tau_squares, M)
        square = (precision @ (y * y)) / TAU_SQUARES - (b * b / size).sum(axis=1) / TAU_SQUARES**2
        log_determinant = len(y) * np.log(TAU_SQUARES) - np.log(precision).sum() + np.log(size).sum(axis=1)
        scores[k] = -0.5 * (square + log_determinant) + _log_normal(np.log(lam), *LAMBDA_PRIOR)
    return scores + _log_normal(np.log(TAU_SQUARES), *TAU_SQUARE_PRIOR)


def _log_normal(x, centre, deviation):
    return -0.5 * ((x - centre) / deviation) ** 2
