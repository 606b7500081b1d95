"""Classic multiple kernel learning from the formulas: what localized multiple kernel learning is compared with.

The mean kernel, SimpleMKL and EasyMKL have one weight a kernel; the localized support vector machine of Goenen and
Alpaydin has weights that depend on the row. Symbols and the bank of kernels: see lmkl_svm.py.
"""

import warnings

import numpy as np
from lmkl_svm import (
    GATES,
    CombinedKernelSVC,
    GateObjective,
    KernelClassifier,
    WeightObjective,
    gate_values,
    gated,
    train_svc,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

MOST_ROWS = 6000
LINE_TRIALS = 20
FLAT_ENOUGH = 0.1  # a line search ends where the slope is this share of the first
HARD_MARGIN = 1e12  # C of a support vector machine without slack
HULL_TOL = 1e-6
HULL_GAP = 1e-3  # largest relative duality gap of EasyMKL's problem that passes without a warning


class AverageKernelSVC(CombinedKernelSVC):
    """A support vector machine on the mean of the kernels."""

    def __init__(self, bank, C=10.0, max_rows=MOST_ROWS):
        self.bank = bank
        self.C = C
        self.max_rows = max_rows

    def _learn(self, stack, codes, X):
        self.weights_ = np.full(len(stack), 1 / len(stack))
        self._keep(train_svc(stack.mean(axis=0), codes, self.C), X)

    def _combine(self, stack, X):
        return stack.mean(axis=0)


class SimpleMKLClassifier(CombinedKernelSVC):
    """SimpleMKL: one weight a kernel, by reduced gradient descent of J on the simplex.

    min_d J(d), d >= 0, sum d = 1. Each iteration moves along the reduced gradient from one face of the simplex to the
    next while J falls, then searches the last piece: J is convex, so the zero of its slope is bracketed and found by
    secants, in place of the paper's golden section. It stops where the duality gap, max_m(-g_m) - sum_m d_m (-g_m), is
    at most tol J.

    Source: Rakotomamonjy, Bach, Canu and Grandvalet, "SimpleMKL", JMLR 9 (2008).

    Attributes
    ----------
    weights_ : array (M,), objective_curve_ : J from the start on, gap_ : duality gap over J, n_iter_, n_svms_ : int
    """

    def __init__(self, bank, C=10.0, max_iter=100, tol=0.01, svm_tol=1e-4, max_rows=MOST_ROWS):
        self.bank = bank
        self.C = C
        self.max_iter = max_iter
        self.tol = tol
        self.svm_tol = svm_tol
        self.max_rows = max_rows

    def _learn(self, stack, codes, X):
        objective = WeightObjective(stack, codes, self.C, self.svm_tol)
        now = objective.solve(np.ones(len(stack)))
        curve = [now.value]
        while relative_gap(now) > self.tol and len(curve) <= self.max_iter:
            new = reduced_step(objective, now)
            if new is now:
                break
            now = new
            curve.append(now.value)
        self.weights_, self.objective_curve_, self.gap_ = now.point, np.array(curve), relative_gap(now)
        self.n_iter_, self.n_svms_ = len(curve) - 1, objective.n_svms
        if self.gap_ > self.tol:
            warnings.warn(
                f"SimpleMKL stopped after {self.n_iter_} iterations at a relative duality gap of {self.gap_:.2g}, "
                f"above tol={self.tol}",
                ConvergenceWarning,
                stacklevel=3,
            )
        self._keep(now.svc, X)

    def _combine(self, stack, X):
        return np.tensordot(self.weights_, stack, axes=1)


def relative_gap(solved):
    """Return (max_m(-g_m) - sum_m d_m (-g_m)) / J."""
    return float(solved.point @ solved.gradient - solved.gradient.min()) / solved.value


def reduced_direction(weights, gradient):
    """Return (D, mu): the reduced gradient's descent direction, which sums to 0, and the heaviest kernel."""
    heaviest = int(np.argmax(weights))
    direction = gradient[heaviest] - gradient
    direction[(weights == 0) & (direction < 0)] = 0
    return balanced(direction, heaviest), heaviest


def balanced(direction, heaviest):
    """Set the heaviest kernel's part so that the direction sums to 0; exactly 0 where all others stay."""
    direction[heaviest] = 0
    direction[heaviest] = -direction.sum()
    return direction


def reduced_step(objective, now):
    """Return the solution after one iteration of SimpleMKL; `now` itself where none is better."""
    direction, heaviest = reduced_direction(now.point, now.gradient)
    while (falling := np.flatnonzero(direction < 0)).size:
        limits = -now.point[falling] / direction[falling]
        first, limit = falling[np.argmin(limits)], limits.min()
        corner = now.point + limit * direction
        corner[first] = 0
        there = objective.solve(corner)
        if there.value >= now.value:
            return secant_search(objective, now, direction, limit, there)
        now = there
        if first == heaviest:
            break
        direction[first] = 0
        direction = balanced(direction, heaviest)
    return now


def secant_search(objective, now, direction, limit, there):
    """Return a solution on the way from `now` to `there` at which J is lower and almost flat.

    The slope of J is a rising function of the step: its zero is bracketed, by the Illinois variant of false position.
    """
    (low, low_slope), (high, high_slope) = (0.0, now.gradient @ direction), (limit, there.gradient @ direction)
    flat, best, last = FLAT_ENOUGH * abs(low_slope), now, 0
    for _ in range(LINE_TRIALS):
        if low_slope >= 0 or high_slope <= 0:
            break
        step = (low * high_slope - high * low_slope) / (high_slope - low_slope)
        trial = objective.solve(now.point + step * direction)
        best = min(best, trial, key=lambda one: one.value)
        slope = trial.gradient @ direction
        if abs(slope) <= flat and best is trial:
            break
        side = 1 if slope > 0 else -1
        if side > 0:
            high, high_slope, low_slope = step, slope, low_slope / (2 if last == side else 1)
        else:
            low, low_slope, high_slope = step, slope, high_slope / (2 if last == side else 1)
        last = side
    return best


class EasyMKLClassifier(KernelClassifier):
    """EasyMKL: weights from one problem over the simplices of both classes, then a classifier on the weighted kernel.

    gamma = argmin (1 - lam) gamma' Y (sum_m K_m) Y gamma + lam |gamma|^2, where gamma >= 0 sums to 1 over each class;
    eta_m = gamma' Y K_m Y gamma, divided by its sum. Without C the classifier is KOMD: the same problem on
    K = sum_m eta_m K_m with the ridge lam_komd n+ n- / (n+ + n-), decision K Y gamma - 1/2 gamma' K Y gamma. More than
    two classes are one against the rest, each with its own weights.

    Source: Aiolli and Donini, "EasyMKL", Neurocomputing 169 (2015).

    Parameters
    ----------
    lam, lam_komd : float in (0, 1]
    C : float or None
        A support vector machine with this C takes the place of KOMD.

    Attributes
    ----------
    weights_per_class_ : array (1 or n_classes, M), weights_ : array (M,), their mean
    """

    def __init__(self, bank, lam=0.1, C=None, lam_komd=0.1, max_rows=MOST_ROWS):
        self.bank = bank
        self.lam = lam
        self.C = C
        self.lam_komd = lam_komd
        self.max_rows = max_rows

    def _learn(self, stack, codes, X):
        for name, share in (("lam", self.lam), ("lam_komd", self.lam_komd)):
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {share!r}")
        n_classes = len(self.classes_)
        total = stack.sum(axis=0)
        positives = [1] if n_classes == 2 else range(n_classes)
        problems = [self._one_problem(stack, total, np.where(codes == c, 1.0, -1.0)) for c in positives]
        weights, coefs, biases = zip(*problems, strict=True)
        self.weights_per_class_, self.intercepts_ = np.array(weights), -np.array(biases)
        self.weights_ = self.weights_per_class_.mean(axis=0)
        support = np.flatnonzero(np.any(coefs, axis=0))
        self.support_rows_, self.coef_ = X[support], np.array(coefs)[:, support]

    def _one_problem(self, stack, total, sign):
        """Return (weights, coefficients of the training rows, bias) of one class against the rest."""
        signed = sign * nearest_points((1 - self.lam) * total, self.lam, sign)
        weights = np.maximum((stack @ signed) @ signed, 0)
        weights /= weights.sum()
        kernel = np.tensordot(weights, stack, axes=1)
        if self.C is None:
            return weights, *komd(kernel, sign, self.lam_komd)
        svc = train_svc(kernel, sign, self.C)
        coef = np.zeros(len(sign))
        coef[svc.support_] = svc.dual_coef_[0]
        return weights, coef, -svc.intercept_[0]

    def decision_function(self, X):
        X = self._checked(X)
        scores = np.empty((len(X), len(self.coef_)))
        for rows, stack in self._stacks(X):
            scores[rows] = np.einsum("mip,pm->ip", stack @ self.coef_.T, self.weights_per_class_) + self.intercepts_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X):
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)]


def komd(kernel, sign, lam):
    """Return (Y gamma, 1/2 gamma' K Y gamma) of KOMD."""
    n_positive = int((sign > 0).sum())
    ridge = lam * n_positive * (len(sign) - n_positive) / len(sign)
    gamma = nearest_points((1 - lam) * kernel, ridge, sign)
    return sign * gamma, gamma @ (kernel @ (sign * gamma)) / 2


def nearest_points(kernel, ridge, sign):
    """Return argmin gamma' Q gamma, Q = Y (K + ridge I) Y, over gamma >= 0 that sums to 1 over each class.

    It is the dual of a support vector machine without slack on K + ridge I: with alpha = s gamma, which sums to 2 s,
    max 2 s - 1/2 s^2 gamma' Q gamma over s is 2 / gamma' Q gamma. So alpha, divided by its sum over each class, is the
    minimum; the ridge keeps the classes separable.
    """
    ridged = kernel + ridge * np.eye(len(kernel))
    svc = train_svc(ridged, sign, HARD_MARGIN, HULL_TOL)
    gamma = np.zeros(len(sign))
    gamma[svc.support_] = np.abs(svc.dual_coef_[0])
    for side in (sign > 0, sign < 0):
        gamma[side] /= gamma[side].sum()
    gap = hull_gap(ridged, sign, gamma)
    if gap > HULL_GAP:
        warnings.warn(
            f"the nearest points of the classes have a relative duality gap of {gap:.2g}, above {HULL_GAP}",
            ConvergenceWarning,
            stacklevel=2,
        )
    return gamma


def hull_gap(kernel, sign, gamma):
    """Return a bound on (f(gamma) - min f) / f(gamma), f = gamma' Y K Y gamma, by its linearisation at gamma."""
    half_gradient = sign * (kernel @ (sign * gamma))
    value = gamma @ half_gradient
    return float(2 * (value - half_gradient[sign > 0].min() - half_gradient[sign < 0].min()) / value)


class GonenLMKLClassifier(CombinedKernelSVC):
    """Localized multiple kernel learning of Goenen and Alpaydin: a gate gives each row its weights of the kernels.

    K[i, j] = 1/s sum_m eta_m(x_i) K_m[i, j] eta_m(x_j), where s makes the mean diagonal 1 (see `GateObjective`), and
    eta = softmax(V (1, x)) or its sigmoid; the constant gate is the softmax of biases alone. V falls along the gradient
    of J, scaled to unit length: a step of 1 is doubled while J falls, or else halved until it does. It stops where J
    changes by at most tol J, or where no step of at least tol lowers J. The gate sees standardised features.

    Neither eta nor alpha is rounded to its bounds, so that the gradient stays exact.

    Source: Goenen and Alpaydin, "Localized multiple kernel learning", ICML 2008; Pattern Recognition 46 (2013).

    Parameters
    ----------
    gate : "softmax", "sigmoid" or "constant"
    n_seeds : int
        Starts from V ~ U(-0.01, 0.01); the one of least J is kept.

    Attributes
    ----------
    gate_parameters_ : array (M, 1 + n_features), or (M, 1) of the constant gate; biases first
    objective_curve_ : J from the start on, n_iter_, n_svms_ : int (of all starts)
    """

    def __init__(
        self,
        bank,
        C=10.0,
        gate="softmax",
        max_iter=50,
        tol=1e-3,
        n_seeds=1,
        random_state=None,
        svm_tol=1e-4,
        max_rows=MOST_ROWS,
    ):
        self.bank = bank
        self.C = C
        self.gate = gate
        self.max_iter = max_iter
        self.tol = tol
        self.n_seeds = n_seeds
        self.random_state = random_state
        self.svm_tol = svm_tol
        self.max_rows = max_rows

    def _learn(self, stack, codes, X):
        if self.gate not in GATES:
            raise ValueError(f"gate must be one of {', '.join(GATES)}, got {self.gate!r}")
        self.gate_mean_, spread = X.mean(axis=0), X.std(axis=0)
        self.gate_scale_ = np.where(spread > 0, spread, 1.0)
        objective = GateObjective(stack, codes, self.C, self.svm_tol, self._gate_input(X), self.gate)
        rng = check_random_state(self.random_state)
        shape = (len(stack), objective.inputs.shape[1])
        runs = [descend(objective, rng.uniform(-0.01, 0.01, shape), self) for _ in range(self.n_seeds)]
        best, curve = min(runs, key=lambda run: run[0].value)
        self.gate_parameters_, self.objective_curve_ = best.point, np.array(curve)
        self.n_iter_, self.n_svms_ = len(curve) - 1, objective.n_svms
        eta = gate_values(best.point, objective.inputs, self.gate)
        self.scale_, self.support_weights_ = (eta**2).sum(axis=0).mean(), eta[:, best.svc.support_]
        self._keep(best.svc, X)

    def _gate_input(self, X):
        """Return (1, standardised x), or 1 alone for the constant gate."""
        ones = np.ones((len(X), 1))
        return ones if self.gate == "constant" else np.hstack([ones, (X - self.gate_mean_) / self.gate_scale_])

    def _combine(self, stack, X):
        eta = gate_values(self.gate_parameters_, self._gate_input(X), self.gate)
        return gated(stack, eta, self.support_weights_) / self.scale_

    def kernel_weights(self, X):
        """Return eta (n_rows, M)."""
        return gate_values(self.gate_parameters_, self._gate_input(self._checked(X)), self.gate).T


def descend(objective, V, model):
    """Return (solution, J of every iteration) of the gradient descent from V; model has max_iter and tol."""
    now = objective.solve(V)
    curve = [now.value]
    for _ in range(model.max_iter):
        new = doubling_search(objective, now, model.tol)
        if new is now:
            return now, curve
        now = new
        curve.append(now.value)
        if curve[-2] - curve[-1] <= model.tol * abs(curve[-2]):
            return now, curve
    warnings.warn(
        f"the gate still changed after max_iter={model.max_iter} iterations", ConvergenceWarning, stacklevel=5
    )
    return now, curve


def doubling_search(objective, now, smallest):
    """Return the solution a step along the scaled gradient away; `now` itself where no step lowers J."""
    gradient = objective.gradient(now)
    length = np.linalg.norm(gradient)
    if length == 0:
        return now
    step, best = 1.0, now
    while (trial := objective.solve(now.point - step / length * gradient)).value < best.value:
        step, best = 2 * step, trial
    while best is now and (step := step / 2) >= smallest:
        trial = objective.solve(now.point - step / length * gradient)
        if trial.value < now.value:
            best = trial
    return best
