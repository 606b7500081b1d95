"""Fast maximisation of the evidence of a linear model whose columns each have a prior precision of their own.

    t | w ~ N(Phi w, I / beta),   w_m ~ N(0, 1 / alpha_m)
    L = log p(t) = log N(t | 0, C),   C = I / beta + Phi A^-1 Phi'
    Sigma = (A + beta Phi'Phi)^-1,   mu = beta Sigma Phi't,   u = C^-1 t = beta (t - Phi mu)
    S = phi'C^-1 phi = beta phi'phi - beta^2 b'Sigma b with b = Phi'phi,   Q = phi'u         for any column phi

N rows, M active columns. As a function of one precision, L is l(alpha) = (log alpha - log(alpha + s) + q^2 / (alpha +
s)) / 2 and a constant, with s, q = S, Q once the column itself is left out of C; the maximum is at s^2 / (q^2 - s), or
at infinity, that is, without the column. `ActiveSet` holds the columns in use; where other columns come from (a matrix,
a search) is the business of a `source`, see `ascend`.

Sources: M. E. Tipping, "Sparse Bayesian learning and the relevance vector machine", JMLR 1, 2001; A. C. Faul, M. E.
Tipping, "Analysis of sparse Bayesian learning", NIPS 2001; M. E. Tipping, A. C. Faul, "Fast marginal likelihood
maximisation for sparse Bayesian models", AISTATS 2003.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.linalg import cho_solve

__all__ = [
    "Action",
    "ActiveSet",
    "Change",
    "add_gain",
    "ascend",
    "best_alpha",
    "delete_gain",
    "inclusion_price",
    "precision_gain",
]

NO_DATA = 1e-10  # a column whose data tell less than this share of its posterior precision is taken for unused
EXACT_EVERY = 10  # actions between two exact recomputations of Sigma
NEARLY_DEPENDENT = 0.03  # share of a column's length that the others leave, below which Sigma is always recomputed
FEWEST_ROWS = 5  # with fewer there is nothing to tell weights from noise
LEAST_NOISE = 1e-6  # least noise variance that is learned, as a share of the variance of y
MOST_WEIGHTS = 1 / 3  # weights that the data may determine, as a share of the rows
REDUNDANT = 1e-8  # share of beta phi'phi: a column with less of S is a combination of active ones
NOISE_TOL = 1e-3  # relative change of the noise variance that counts as none


def best_alpha(s, q):
    """Return the precision of highest evidence, s^2 / (q^2 - s), and infinity where q^2 <= s.

    Examples
    --------
    >>> import numpy as np
    >>> best_alpha(np.array([2.0, 2.0]), np.array([2.0, 1.0])).tolist()
    [2.0, inf]
    """
    theta = np.asarray(q * q - s)
    useful = theta > 0
    return np.where(useful, s * s / np.where(useful, theta, 1.0), np.inf)


def add_gain(S, Q):
    """Return the gain of a column that is out, at its best precision: (rho - 1 - log rho)/2 of rho = Q^2/S > 1, else 0.

    Examples
    --------
    >>> import numpy as np
    >>> add_gain(np.array([1.0, 1.0]), np.array([3.0, 0.5])).round(3).tolist()
    [2.901, 0.0]
    """
    rho = np.maximum(Q * Q / S, 1.0)
    return 0.5 * (rho - 1.0 - np.log(rho))


def inclusion_price(inclusion_prior, n_columns):
    """Return the function from the number of columns in use to the nats that another costs.

    Parameters
    ----------
    inclusion_prior : "beta-binomial" or float in (0, 0.5]
        Prior probability that a column has a weight; "beta-binomial" has it uniformly distributed.
    n_columns : int

    Returns
    -------
    callable

    Examples
    --------
    >>> price = inclusion_price("beta-binomial", 100)
    >>> round(price(0), 3), round(price(9), 3), inclusion_price(0.5, 100)(9)
    (4.605, 2.208, 0.0)
    """
    if inclusion_prior == "beta-binomial":
        return lambda m: float(np.log(max(1.0, (n_columns - m) / (m + 1))))
    log_odds = float(np.log1p(-inclusion_prior) - np.log(inclusion_prior))
    return lambda m: log_odds


def precision_gain(alpha, new_alpha, s, q):
    """Return l(new_alpha) - l(alpha) of a column in the model: its gain by RE-ESTIMATE."""
    old, new = alpha + s, new_alpha + s
    return 0.5 * (np.log(new_alpha / alpha) - np.log(new / old) + q * q * (old - new) / (old * new))


def delete_gain(alpha, s, q):
    """Return l(infinity) - l(alpha) of a column in the model: its gain by DELETE."""
    return -0.5 * (np.log(alpha / (alpha + s)) + q * q / (alpha + s))


@dataclass(frozen=True, eq=False)
class Change:
    """What an action does to Sigma and mu, from which a source updates S and Q of its columns.

    With r_k = beta phi_k'(column - Phi v) for ADD and beta phi_k'Phi v otherwise:
    S_k -= scale r_k^2,  Q_k -= step r_k.

    Attributes
    ----------
    kind : {"add", "re-estimate", "delete"}
    position : int
        Among the active columns; before the action for "delete", after it for "add".
    v : ndarray (M,)
        M as before the action.
    scale, step : float
    """

    kind: str
    position: int
    v: np.ndarray
    scale: float
    step: float


class ActiveSet:
    """The columns in use, their precisions, and the posterior of their weights.

    Parameters
    ----------
    target : ndarray (N,)
        t, centred.
    noise_variance : float
        1 / beta.
    n_rows : float or None, default=None
        What N counts in the evidence and the noise: less than the length of `target` by 1 where a mean was taken out
        (a flat prior on the intercept), the sum of the weights where rows are scaled by the root of theirs.

    Attributes
    ----------
    keys : list
        What the source calls each column.
    columns : ndarray (N, M)
        Phi.
    alpha, mean : ndarrays (M,)
    covariance, gram : ndarrays (M, M)
        Sigma and Phi'Phi.
    log_evidence : float
        L.
    ill_conditioned : bool
        Columns are nearly dependent: updates would lose digits, so Sigma is recomputed after every action.
    """

    def __init__(self, target, *, noise_variance, n_rows=None):
        self.target = target
        self.n_rows = len(target) if n_rows is None else n_rows
        self.beta = 1.0 / noise_variance
        self.keys = []
        self._buffer = np.empty((len(target), 16), order="F")
        self.alpha, self.mean, self._projection = np.empty(0), np.empty(0), np.empty(0)  # the last is Phi't
        self.covariance, self.gram = np.empty((0, 0)), np.empty((0, 0))
        self.refresh()

    def __len__(self):
        return len(self.keys)

    @property
    def columns(self):
        return self._buffer[:, : len(self)]

    @property
    def noise_variance(self):
        return 1.0 / self.beta

    def scaled_residual(self):
        """Return u = C^-1 t = beta (t - Phi mu), (N,)."""
        return self.beta * (self.target - self.columns @ self.mean)

    def statistics(self, column):
        """Return S and Q of any column (N,).

        S is computed as the minimum over v of beta |phi - Phi v|^2 + v'A v, which is beta phi'phi - beta^2 b'Sigma b
        but has no difference of large numbers: rounding errors of v enter squared.
        """
        v = self.beta * (self.covariance @ (self.columns.T @ column))
        rest = column - self.columns @ v
        return self.beta * (rest @ rest) + self.alpha @ v**2, column @ self.scaled_residual()

    def own_statistics(self):
        """Return s and q of the active columns, each (M,): 1 / Sigma_mm - alpha_m and mu_m / Sigma_mm.

        Where the data say nothing of a column, s is 0 up to rounding and q is set to 0: the column can only go.
        """
        variance = np.diag(self.covariance)
        s, q = 1.0 / variance - self.alpha, self.mean / variance
        told = s * variance > NO_DATA
        return np.where(told, s, NO_DATA / variance), np.where(told, q, 0.0)

    def n_effective(self):
        """Return sum_m (1 - alpha_m Sigma_mm): how many weights the data determine."""
        return len(self) - float(self.alpha @ np.diag(self.covariance))

    def refresh(self):
        """Recompute Sigma, mu and L from the precisions, by a factorisation: O(N M + M^3).

        L = -(N log 2 pi - N log beta + log|A^-1 (A + beta Phi'Phi)| + beta |t - Phi mu|^2 + mu'A mu) / 2
        """
        factor, scale = self._factor()
        inverse = self._solved(factor, scale, np.eye(len(self)))
        self.covariance = 0.5 * (inverse + inverse.T)
        self.mean = self._solved(factor, scale, self.beta * self._projection)
        residual = self.target - self.columns @ self.mean
        log_det = 2 * np.log(np.diag(factor)).sum() + 2 * np.log(scale).sum() - np.log(self.alpha).sum()
        fit = self.beta * (residual @ residual) + self.alpha @ self.mean**2
        self.log_evidence = -0.5 * (self.n_rows * (np.log(2 * np.pi) - np.log(self.beta)) + log_det + fit)
        self.ill_conditioned = len(self) > 0 and np.diag(factor).min() < NEARLY_DEPENDENT
        self._n_updates = 0

    def set_noise_variance(self, noise_variance):
        """Change beta and recompute the posterior. A source has to recompute S and Q of all its columns."""
        self.beta = 1.0 / noise_variance
        self.refresh()

    def fitted_noise_variance(self):
        """Return |t - Phi mu|^2 / (N - M + sum_m alpha_m Sigma_mm), the fixed point of the evidence in the noise."""
        residual = self.target - self.columns @ self.mean
        return float(residual @ residual) / (self.n_rows - self.n_effective())

    def add(self, key, column, alpha):
        """Take in a column (N,); it becomes the last one. Returns the `Change`."""
        M, b = len(self), self.columns.T @ column
        S, Q = self.statistics(column)
        v = self.beta * (self.covariance @ b)
        variance = 1.0 / (alpha + S)
        self.log_evidence -= delete_gain(alpha, S, Q)
        self.ill_conditioned |= S + alpha < NEARLY_DEPENDENT**2 * self.beta * (column @ column)
        self._store(column)
        self.keys.append(key)
        self.gram = _bordered(self.gram, b, column @ column)
        self._projection = np.append(self._projection, column @ self.target)
        self.alpha = np.append(self.alpha, alpha)
        self.covariance = _bordered(self.covariance + variance * np.outer(v, v), -variance * v, variance)
        self.mean = np.append(self.mean - variance * Q * v, variance * Q)
        self._updated()
        return Change("add", M, v, variance, variance * Q)

    def re_estimate(self, m, alpha):
        """Give active column m another precision. Returns the `Change`."""
        v = self.covariance[:, m].copy()
        s, q = (statistic[m] for statistic in self.own_statistics())
        self.log_evidence += precision_gain(self.alpha[m], alpha, s, q)
        kappa = (alpha - self.alpha[m]) / (v[m] * (alpha - self.alpha[m]) + 1.0)
        change = Change("re-estimate", m, v, -kappa, -kappa * self.mean[m])
        self._downdate(change)
        self.alpha[m] = alpha
        self._updated()
        return change

    def delete(self, m):
        """Take active column m out. Returns the `Change`."""
        v = self.covariance[:, m].copy()
        s, q = (statistic[m] for statistic in self.own_statistics())
        self.log_evidence += delete_gain(self.alpha[m], s, q)
        change = Change("delete", m, v, -1.0 / v[m], -self.mean[m] / v[m])
        self._downdate(change)
        kept = np.delete(np.arange(len(self)), m)
        self._buffer[:, m : len(self) - 1] = self._buffer[:, m + 1 : len(self)]
        del self.keys[m]
        self.gram = self.gram[np.ix_(kept, kept)]
        self.covariance = self.covariance[np.ix_(kept, kept)]
        self.alpha, self.mean, self._projection = self.alpha[kept], self.mean[kept], self._projection[kept]
        self._updated()
        return change

    def _downdate(self, change):
        self.covariance = self.covariance + change.scale * np.outer(change.v, change.v)
        self.mean = self.mean + change.step * change.v

    def _updated(self):
        self._n_updates += 1
        if self._n_updates >= EXACT_EVERY or self.ill_conditioned:
            self.refresh()

    def _store(self, column):
        M = len(self)
        if self._buffer.shape[1] == M:
            larger = np.empty((len(column), 2 * M), order="F")
            larger[:, :M] = self._buffer
            self._buffer = larger
        self._buffer[:, M] = column

    def _factor(self):
        """Return the Cholesky factor of D^-1 (A + beta Phi'Phi) D^-1 and the diagonal of D."""
        H = self.beta * self.gram
        H[np.diag_indices(len(self))] += self.alpha
        scale = np.sqrt(np.diag(H))
        return np.linalg.cholesky(H / np.outer(scale, scale)), scale

    @staticmethod
    def _solved(factor, scale, right):
        if not len(scale):
            return np.zeros_like(right)
        scaled = (right.T / scale).T
        return (cho_solve((factor, True), scaled).T / scale).T


def _bordered(matrix, side, corner):
    M = len(matrix)
    larger = np.empty((M + 1, M + 1))
    larger[:M, :M] = matrix
    larger[:M, M] = larger[M, :M] = side
    larger[M, M] = corner
    return larger


@dataclass(frozen=True)
class Action:
    """One step of the ascent, with its gain: log evidence plus log prior of the set of columns, in nats.

    Attributes
    ----------
    kind : {"add", "re-estimate", "delete"}
    gain, alpha : float
        The new precision; infinite for "delete".
    position : int
        Of an active column.
    key, column
        Of a column to be added: what the source calls it, and its values (N,).
    """

    kind: str
    gain: float
    alpha: float
    position: int = -1
    key: Any = None
    column: np.ndarray | None = None


@dataclass(eq=False)
class Trace:
    """What `ascend` did: one entry for the start and one an action, noise updates included.

    Attributes
    ----------
    kinds : list of {"start", "add", "re-estimate", "delete", "noise"}
    log_evidence, log_prior : lists of float
        L, and minus the prices of the columns in use. Only "noise" may lower their sum; `objective` is the last.
    n_active : list of int
    converged : bool
    """

    kinds: list = field(default_factory=list)
    log_evidence: list = field(default_factory=list)
    log_prior: list = field(default_factory=list)
    n_active: list = field(default_factory=list)
    converged: bool = False

    @property
    def objective(self):
        return self.log_evidence[-1] + self.log_prior[-1]

    def note(self, kind, active, paid=0.0):
        self.kinds.append(kind)
        self.log_evidence.append(float(active.log_evidence))
        self.log_prior.append((self.log_prior[-1] if self.log_prior else 0.0) - paid)
        self.n_active.append(len(active))


def _best_own_action(active, source, tol):
    """Return the RE-ESTIMATE (gaining more than `tol`) or DELETE (gaining at all) of highest gain, or None.

    A column may go although its evidence speaks for it, where its price is higher.
    """
    if not len(active):
        return None
    s, q = active.own_statistics()
    deleting = delete_gain(active.alpha, s, q) + source.prices(active.keys, len(active) - 1)
    alpha = best_alpha(s, q)
    finite = np.isfinite(alpha)
    moving = np.where(finite, precision_gain(active.alpha, np.where(finite, alpha, 1.0), s, q), 0.0)
    out, moved = int(np.argmax(deleting)), int(np.argmax(moving))
    if moving[moved] > max(tol, deleting[out]):
        return Action("re-estimate", float(moving[moved]), float(alpha[moved]), position=moved)
    if deleting[out] > 0:
        return Action("delete", float(deleting[out]), np.inf, position=out)
    return None


def ascend(
    active,
    source,
    *,
    max_iter,
    tol=1e-4,
    noise="each",
    noise_floor=0.0,
    max_effective=np.inf,
    settle_first=False,
    report=None,
):
    """Take the action of highest gain until none gains more than `tol` and the noise stays; return the `Trace`.

    The gain is that of log evidence plus log prior, the latter minus the prices of the columns in use. At fixed noise
    the sum never falls.

    Parameters
    ----------
    active : ActiveSet
        Changed in place.
    source : object
        Where columns come from. Has ``prices(keys, n_active)``, nats to pay for each column beside `n_active` others;
        ``best_addition(active, least)``, the ADD `Action` of highest gain, price deducted, None if it is `least` or
        lower; ``changed(active, change)``, told after every action; ``refresh(active)``, told after a change of noise.
    max_iter : int
        Actions, noise updates included.
    tol : float
        Least gain of ADD and RE-ESTIMATE, in nats.
    noise : {"each", "settled", "fixed"}
        When the noise variance is updated: after each action, when no action is left, or never. "each" starts from
        noise that explains all the columns do not, so no column comes in for want of noise, whatever the noise at the
        start; "settled" from a low noise finds many weak columns that only together make sense, but may fail to let
        go of useless ones.
    noise_floor : float
        Least noise variance.
    max_effective : float
        No ADD while the data determine this many weights or more.
    settle_first : bool
        Ask the source for an ADD only when RE-ESTIMATE and DELETE are done: for sources that take long to answer.
    report : callable or None
        Called with the trace after every action.
    """
    trace = Trace()
    trace.note("start", active)
    source.refresh(active)
    while len(trace.kinds) <= max_iter:
        early = noise == "each" and trace.kinds[-1] != "noise" and _update_noise(active, source, noise_floor)
        action = None if early else _best_action(active, source, tol, max_effective, settle_first)
        if action is not None:
            trace.note(action.kind, active, _apply(active, source, action))
        elif early or (noise != "fixed" and _update_noise(active, source, noise_floor)):
            trace.note("noise", active)
        else:
            trace.converged = True
            break
        if report is not None:
            report(trace)
    return trace


def _best_action(active, source, tol, max_effective, settle_first):
    """Return the action of highest gain, None if there is none that counts."""
    own = _best_own_action(active, source, tol)
    if (own is not None and settle_first) or active.n_effective() >= max_effective:
        return own
    addition = source.best_addition(active, tol if own is None else max(tol, own.gain))
    return own if addition is None else addition


def _apply(active, source, action):
    """Carry out an action; return what it costs in log prior."""
    if action.kind == "add":
        paid = float(source.prices([action.key], len(active))[0])
        change = active.add(action.key, action.column, action.alpha)
    elif action.kind == "delete":
        paid = -float(source.prices([active.keys[action.position]], len(active) - 1)[0])
        change = active.delete(action.position)
    else:
        paid = 0.0
        change = active.re_estimate(action.position, action.alpha)
    source.changed(active, change)
    return paid


def _update_noise(active, source, floor):
    """Set the noise variance to its fixed point; return whether it moved."""
    new = max(active.fitted_noise_variance(), floor)
    if abs(new - active.noise_variance) <= NOISE_TOL * active.noise_variance:
        return False
    active.set_noise_variance(new)
    source.refresh(active)
    return True
