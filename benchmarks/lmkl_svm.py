"""What classic multiple kernel learning is made of: a bank of kernels, support vector machines on a stack, and J.

Every classifier takes a bank: `fit(X)` learns bandwidths, `stack(X, A)` returns M unit-diagonal kernels between the
rows of X and of A as float64, shape (M, len(X), len(A)). Training holds all of them, 8 M N^2 bytes. Support vector
machines of more than two classes are one against one; weights (or a gate) are shared by all pairs of classes, and J is
the sum of the pairs' dual values.

Symbols: N training rows, M kernels, S support vectors, K_m base kernels, beta = alpha * y of one pair of classes, and
A = sum over the pairs of beta beta', so that dJ = -1/2 <A, dK> for any change of the kernel K.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.svm import SVC
from sklearn.utils import gen_batches
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

ROWS_AT_ONCE = 256  # of a prediction
ROWS_OF_MEDIAN = 1000
WIDTHS = 2.0 ** np.arange(-3, 2)  # of the RBF kernels, over the median squared distance
LARGEST_DEGREE = 3
GATES = ("softmax", "sigmoid", "constant")


class KernelBank(BaseEstimator):
    """Nine kernels on all features, or one RBF (and one linear kernel) on each group of features; unit diagonals.

    On all features: exp(-gamma |x - a|^2) with gamma = 2^j / med2, j = -3, ..., 1; (x.a/d + 1)^p with p = 1, 2, 3;
    x.a. Each is divided by sqrt(k(x, x) k(a, a)). The linear kernel is the one with p = 1: without the added 1 it
    would be the cosine again. Groups have gamma = scale / med2 of the group. med2 is the median squared
    distance between up to 1000 evenly spaced training rows that differ.

    Parameters
    ----------
    groups : list of arrays of column indices, or None for all columns
    linear : bool, default False
        With groups, one linear kernel a group follows the RBF kernels.
    scale : float, default=1.0
        Of groups: gamma = scale / med2.
    """

    def __init__(self, groups=None, linear=False, scale=1.0):
        self.groups = groups
        self.linear = linear
        self.scale = scale

    def fit(self, X):
        if self.groups is None:
            self.gammas_ = WIDTHS / median_squared_distance(X)
        else:
            self.gammas_ = np.array([self.scale / median_squared_distance(X[:, group]) for group in self.groups])
        return self

    def stack(self, X, A):
        if self.groups is None:
            return self._on_all(X, A)
        n_groups = len(self.groups)
        kernels = np.empty((n_groups * (2 if self.linear else 1), len(X), len(A)))
        for g, group in enumerate(self.groups):
            here, there = X[:, group], A[:, group]
            _rbf(here, there, self.gammas_[g : g + 1], out=kernels[g : g + 1])
            if self.linear:
                kernels[n_groups + g] = _affine(here, there)
        return kernels

    def _on_all(self, X, A):
        n_widths = len(self.gammas_)
        kernels = np.empty((n_widths + LARGEST_DEGREE + 1, len(X), len(A)))
        _rbf(X, A, self.gammas_, out=kernels[:n_widths])
        powers = kernels[n_widths:-1]
        powers[0] = _affine(X, A)
        for lower, higher in pairwise(powers):
            np.multiply(lower, powers[0], out=higher)
        kernels[-1] = _cosine(X, A)
        return kernels


def median_squared_distance(X):
    """Return the median over pairs of different rows; 1 where all rows are the same."""
    rows = np.linspace(0, len(X) - 1, min(len(X), ROWS_OF_MEDIAN)).astype(int)
    squared = euclidean_distances(X[rows], squared=True)
    squared = squared[squared > 0]
    return float(np.median(squared)) if squared.size else 1.0


def _rbf(X, A, gammas, out):
    squared = euclidean_distances(X, None if A is X else A, squared=True)
    for gamma, kernel in zip(gammas, out, strict=True):
        np.exp(np.multiply(squared, -gamma, out=kernel), out=kernel)


def _affine(X, A):
    """Return (x.a/d + 1) over the square root of its values at (x, x) and (a, a)."""
    d = X.shape[1]
    here, there = (np.sqrt(np.einsum("ij,ij->i", Z, Z) / d + 1) for Z in (X, A))
    return (X @ A.T / d + 1) / here[:, None] / there


def _cosine(X, A):
    here, there = (np.maximum(np.linalg.norm(Z, axis=1), 1e-12) for Z in (X, A))
    return (X @ A.T) / here[:, None] / there


class KernelClassifier(ClassifierMixin, BaseEstimator):
    """The frame: checks of the rows, the bank, and the stack in batches. A subclass has `_learn(stack, codes, X)`."""

    def fit(self, X, y):
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]!r}; a classifier needs two or more")
        self.bank_ = clone(self.bank).fit(X)
        refuse_large(len(X), len(self.bank_.stack(X[:1], X[:1])), self.max_rows)
        self._learn(self.bank_.stack(X, X), codes, X)
        return self

    def _checked(self, X):
        check_is_fitted(self)
        return validate_data(self, X, dtype=np.float64, reset=False)

    def _stacks(self, X):
        """Yield (rows, kernels between these rows of X and the support vectors), a batch at a time."""
        for rows in gen_batches(len(X), ROWS_AT_ONCE):
            yield rows, self.bank_.stack(X[rows], self.support_rows_)


class CombinedKernelSVC(KernelClassifier):
    """One support vector machine on a combined kernel. A subclass has `_combine(stack, X)`, which returns it."""

    def _keep(self, svc, X):
        self.svc_, self.support_rows_, self.n_train_ = svc, X[svc.support_], len(X)

    def _kernel(self, X):
        """Return the combined kernel to the training rows; zeros where a row is no support vector."""
        X = self._checked(X)
        kernel = np.zeros((len(X), self.n_train_))
        for rows, stack in self._stacks(X):
            kernel[rows, self.svc_.support_] = self._combine(stack, X[rows])
        return kernel

    def decision_function(self, X):
        kernel = self._kernel(X)
        return self.svc_.decision_function(kernel)

    def predict(self, X):
        kernel = self._kernel(X)
        return self.classes_[self.svc_.predict(kernel)]


def refuse_large(n_rows, n_kernels, max_rows):
    if n_rows > max_rows:
        gigabytes = 8 * n_kernels * n_rows**2 / 1e9
        raise ValueError(
            f"{n_rows} training rows and {n_kernels} kernels need {gigabytes:.1f} GB for the kernels alone; "
            f"max_rows is {max_rows}"
        )


def train_svc(kernel, y, C, tol=1e-3):
    return SVC(C=C, kernel="precomputed", cache_size=1000, tol=tol).fit(kernel, y)


def pair_products(svc):
    """Return A, the sum over pairs of classes of beta beta', among the support vectors (S, S).

    The columns of `dual_coef_` are ordered by class. For the pair (i, j) with i < j, row j - 1 holds beta at the
    support vectors of class i, and row i holds beta at those of class j.
    """
    coef = svc.dual_coef_
    ends = np.cumsum(svc.n_support_)
    parts = [slice(end - size, end) for size, end in zip(svc.n_support_, ends, strict=True)]
    products = np.empty((coef.shape[1], coef.shape[1]))
    for i, here in enumerate(parts):
        products[here, here] = coef[:, here].T @ coef[:, here]
        for j, there in enumerate(parts[i + 1 :], start=i + 1):
            products[here, there] = np.outer(coef[j - 1, here], coef[i, there])
            products[there, here] = products[here, there].T
    return products


@dataclass(frozen=True, eq=False)
class Solved:
    """A support vector machine on the kernel that `point` (weights or gate parameters) gives."""

    point: np.ndarray
    svc: SVC = field(repr=False)
    value: float  # J, the dual value summed over the pairs
    products: np.ndarray = field(repr=False)  # A
    inner: float  # <A, K>
    gradient: np.ndarray | None = None


@dataclass(eq=False)
class Objective:
    """J as a function of the kernel; counts the machines trained."""

    stack: np.ndarray
    y: np.ndarray
    C: float
    svm_tol: float
    n_svms: int = field(default=0, init=False)

    def _train(self, point, kernel):
        self.n_svms += 1
        svc = train_svc(kernel, self.y, self.C, self.svm_tol)
        products = pair_products(svc)
        inner = float(np.vdot(products, kernel[np.ix_(svc.support_, svc.support_)]))
        return Solved(point, svc, float(np.abs(svc.dual_coef_).sum()) - inner / 2, products, inner)


class WeightObjective(Objective):
    """J(d) of K = sum_m d_m K_m, with dJ/dd_m = -1/2 <A, K_m>."""

    def solve(self, weights):
        weights = np.maximum(weights, 0) / np.maximum(weights, 0).sum()
        solved = self._train(weights, np.tensordot(weights, self.stack, axes=1))
        block = np.ix_(solved.svc.support_, solved.svc.support_)
        gradient = np.array([-np.vdot(solved.products, kernel[block]) / 2 for kernel in self.stack])
        return replace(solved, gradient=gradient)


def gate_values(V, inputs, gate):
    """Return eta (M, N)."""
    activation = V @ inputs.T
    return expit(activation) if gate == "sigmoid" else softmax(activation, axis=0)


def gated(stack, here, there):
    """Return sum_m eta_m(x_i) K_m[i, j] eta_m(x_j)."""
    total, part = np.zeros(stack.shape[1:]), np.empty(stack.shape[1:])
    for kernel, eta, eta_there in zip(stack, here, there, strict=True):
        np.multiply(kernel, eta[:, None], out=part)
        part *= eta_there
        total += part
    return total


@dataclass(eq=False)
class GateObjective(Objective):
    """J(V) of K = K_eta / s, where s is the mean diagonal of K_eta, sum_i sum_m eta_m(x_i)^2 / N.

    s is part of the function of V, so that J has no gain from larger gates and falls from one iteration to the next:
    <A, dK> = <A / s - <A, K> / (s N) I, dK_eta>. With B for that matrix and r_m[i] = eta_m(x_i) sum_j B[i, j] K_m[i, j]
    eta_m(x_j), the gradient by the activations z = V (1, x) is

        softmax: dJ/dz_m(x_i) = -(r_m[i] - eta_m(x_i) sum_h r_h[i])
        sigmoid: dJ/dz_m(x_i) = -r_m[i] (1 - eta_m(x_i))
    """

    inputs: np.ndarray
    gate: str

    def solve(self, V):
        kernel = self.kernel(gate_values(V, self.inputs, self.gate))
        return self._train(V, kernel)

    def kernel(self, eta):
        return gated(self.stack, eta, eta) / (eta**2).sum(axis=0).mean()

    def gradient(self, solved):
        """Return dJ/dV (M, 1 + n_features)."""
        eta = gate_values(solved.point, self.inputs, self.gate)
        r = self._row_sums(eta, solved)
        if self.gate == "sigmoid":
            by_activation = -r * (1 - eta)
        else:
            by_activation = eta * r.sum(axis=0) - r
        return by_activation @ self.inputs

    def _row_sums(self, eta, solved):
        """Return r (M, N)."""
        scale, support = (eta**2).sum(axis=0).mean(), solved.svc.support_
        r = -(eta**2) * solved.inner / (scale * eta.shape[1])
        for m, kernel in enumerate(self.stack):
            on_support = eta[m, support]
            block = solved.products * kernel[np.ix_(support, support)]
            r[m, support] += on_support * (block @ on_support) / scale
        return r
