"""The classic solvers that benchmarks compare with: their gradients, optima and limits."""

import itertools
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from lmkl_rivals import (
    AverageKernelSVC,
    EasyMKLClassifier,
    GonenLMKLClassifier,
    SimpleMKLClassifier,
    hull_gap,
    komd,
    nearest_points,
    relative_gap,
)
from lmkl_svm import GateObjective, KernelBank, WeightObjective, gate_values, pair_products, train_svc

MODELS = [
    AverageKernelSVC(KernelBank()),
    SimpleMKLClassifier(KernelBank()),
    EasyMKLClassifier(KernelBank()),
    EasyMKLClassifier(KernelBank(), C=10.0),
    GonenLMKLClassifier(KernelBank(), tol=0.03, random_state=0),
    GonenLMKLClassifier(KernelBank(), gate="sigmoid", tol=0.03, random_state=0),
    GonenLMKLClassifier(KernelBank(), gate="constant", n_seeds=2, random_state=0),
]
NAMES = ["average", "simple", "easy-komd", "easy-svc", "softmax", "sigmoid", "constant"]
GATES = ["softmax", "sigmoid", "constant"]
TIGHT = 1e-9
N_CLASSES = [2, 3]


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def overlapping(n_rows, n_classes, seed=0):
    """Classes that overlap, so that some alpha are between 0 and C and some are C."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_rows) % n_classes
    centres = rng.normal(size=(n_classes, 4))
    return centres[y] + rng.normal(size=(n_rows, 4)), y


def regions(n_rows, seed):
    """The first feature tells which of two others decides the class."""
    X = np.random.default_rng(seed).normal(size=(n_rows, 3))
    return X, np.where(X[:, 0] > 0, X[:, 1] > 0, X[:, 2] > 0).astype(int)


def dual_value(kernel, y, C):
    """J of a machine for each pair of classes, by itself."""
    value = 0.0
    for pair in itertools.combinations(np.unique(y), 2):
        rows = np.flatnonzero(np.isin(y, pair))
        svc = SVC(C=C, kernel="precomputed", tol=TIGHT).fit(kernel[np.ix_(rows, rows)], y[rows])
        beta, support = svc.dual_coef_[0], rows[svc.support_]
        value += np.abs(beta).sum() - beta @ kernel[np.ix_(support, support)] @ beta / 2
    return value


@pytest.mark.parametrize(
    "bank, n_kernels",
    [
        (KernelBank(), 9),
        (KernelBank(groups=[[0, 1], [2]]), 2),
        (KernelBank(groups=[[0, 1], [2]], linear=True), 4),
    ],
)
def test_kernels_have_unit_diagonals_and_no_negative_eigenvalue(bank, n_kernels):
    X, _ = overlapping(40, 2)
    stack = bank.fit(X).stack(X, X)
    assert stack.shape == (n_kernels, 40, 40) and stack.dtype == np.float64
    np.testing.assert_allclose(np.einsum("mii->mi", stack), 1, rtol=1e-12)
    np.testing.assert_allclose(stack, stack.transpose(0, 2, 1), atol=1e-14)
    assert np.linalg.eigvalsh(stack).min() > -1e-10
    np.testing.assert_allclose(bank.stack(X[:5], X[7:]), stack[:, :5, 7:], atol=1e-12)
    assert np.abs(stack[:, None] - stack[None]).max(axis=(2, 3))[~np.eye(n_kernels, dtype=bool)].min() > 0.01


def test_bank_has_the_kernels_of_its_formulas():
    X, _ = overlapping(40, 2)
    stack = KernelBank().fit(X).stack(X[:1], X[1:2])[:, 0, 0]
    x, a = X[:2]
    pairs = np.array([np.sum((p - q) ** 2) for p, q in itertools.combinations(X, 2)])
    rbf = [np.exp(-(2.0**j) / np.median(pairs) * np.sum((x - a) ** 2)) for j in (-3, -2, -1, 0, 1)]
    affine = (x @ a / 4 + 1) / np.sqrt((x @ x / 4 + 1) * (a @ a / 4 + 1))
    cosine = x @ a / np.sqrt((x @ x) * (a @ a))
    np.testing.assert_allclose(stack, [*rbf, affine, affine**2, affine**3, cosine], rtol=1e-10)


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_objective_is_the_sum_of_the_pairs_dual_values(n_classes):
    X, y = overlapping(90, n_classes)
    stack = KernelBank().fit(X).stack(X, X)
    solved = WeightObjective(stack, y, 3.0, TIGHT).solve(np.arange(1.0, 10.0))
    kernel = np.einsum("m,mij->ij", np.arange(1.0, 10.0) / 45, stack)
    assert solved.value == pytest.approx(dual_value(kernel, y, 3.0), rel=1e-6)


def test_pair_products_are_the_outer_products_of_every_pair():
    X, y = overlapping(60, 3)
    kernel = KernelBank().fit(X).stack(X, X).mean(axis=0)
    whole = train_svc(kernel, y, 2.0, TIGHT)
    products = np.zeros((60, 60))
    products[np.ix_(whole.support_, whole.support_)] = pair_products(whole)
    expected = np.zeros((60, 60))
    for pair in itertools.combinations(range(3), 2):
        rows = np.flatnonzero(np.isin(y, pair))
        svc = train_svc(kernel[np.ix_(rows, rows)], y[rows], 2.0, TIGHT)
        beta = np.zeros(60)
        beta[rows[svc.support_]] = svc.dual_coef_[0]
        expected += np.outer(beta, beta)
    np.testing.assert_allclose(products, expected, atol=1e-4)


def central_differences(value, point, step=1e-5):
    gradient = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        shift = np.zeros_like(point)
        shift[index] = step
        gradient[index] = (value(point + shift) - value(point - shift)) / (2 * step)
    return gradient


@pytest.mark.parametrize("n_classes", N_CLASSES)
@pytest.mark.parametrize("gate", GATES)
def test_gate_gradient_equals_central_differences(gate, n_classes):
    X, y = overlapping(60, n_classes)
    stack = KernelBank().fit(X).stack(X, X)[[1, 4, 6]]
    inputs = np.ones((60, 1)) if gate == "constant" else np.column_stack([np.ones(60), X])
    objective = GateObjective(stack, y, 2.0, TIGHT, inputs, gate)
    V = np.random.default_rng(1).normal(size=(3, inputs.shape[1])) / 2
    solved = objective.solve(V)
    assert 0 < (np.abs(solved.svc.dual_coef_).max(axis=0) > 2 - 1e-6).mean() < 1  # some alpha at C, not all
    numeric = central_differences(lambda V: objective.solve(V).value, V)
    np.testing.assert_allclose(objective.gradient(solved), numeric, atol=1e-5 * np.abs(numeric).max())


@pytest.mark.parametrize("n_classes", N_CLASSES)
def test_weight_gradient_equals_central_differences_along_the_simplex(n_classes):
    X, y = overlapping(60, n_classes)
    objective = WeightObjective(KernelBank().fit(X).stack(X, X)[[1, 4, 6]], y, 2.0, TIGHT)
    weights, direction = np.array([0.2, 0.5, 0.3]), np.array([1.0, -0.3, -0.7])
    numeric = central_differences(lambda t: objective.solve(weights + t[0] * direction).value, np.zeros(1))
    assert objective.solve(weights).gradient @ direction == pytest.approx(numeric[0], rel=1e-5)


def test_gated_kernel_has_unit_mean_diagonal():
    X, y = overlapping(30, 2)
    objective = GateObjective(KernelBank().fit(X).stack(X, X), y, 1.0, TIGHT, X, "sigmoid")
    eta = gate_values(np.random.default_rng(0).normal(size=(9, 4)), X, "sigmoid")
    kernel = objective.kernel(eta)
    assert np.trace(kernel) == pytest.approx(30)
    expected = np.einsum("mi,mij,mj->ij", eta, objective.stack, eta)
    np.testing.assert_allclose(kernel * np.trace(expected) / 30, expected, rtol=1e-12)


@pytest.mark.parametrize("n_classes", N_CLASSES)
def test_simple_mkl_finds_the_best_of_all_weights_of_two_kernels(n_classes):
    X, y = overlapping(100, n_classes)
    bank = KernelBank(groups=[[0, 1], [2, 3]])
    model = SimpleMKLClassifier(bank, C=1.0, tol=1e-5, svm_tol=1e-6).fit(X, y)
    stack = model.bank_.stack(X, X)
    shares = np.linspace(0, 1, 101)
    values = [dual_value(share * stack[0] + (1 - share) * stack[1], y, 1.0) for share in shares]
    assert 0.05 < shares[np.argmin(values)] < 0.95
    assert model.weights_[0] == pytest.approx(shares[np.argmin(values)], abs=0.02)
    assert min(values) * (1 - 1e-4) < model.objective_curve_[-1] < min(values) * (1 + 1e-6)


@pytest.mark.parametrize("n_classes", N_CLASSES)
def test_simple_mkl_falls_on_the_simplex_to_its_duality_gap(n_classes):
    X, y = overlapping(120, n_classes)
    model = SimpleMKLClassifier(KernelBank(groups=[[0], [1], [2], [3]], linear=True), tol=1e-3).fit(X, y)
    assert model.weights_.min() >= 0 and model.weights_.sum() == pytest.approx(1)
    assert model.n_iter_ == len(model.objective_curve_) - 1 >= 2
    assert (np.diff(model.objective_curve_) < 0).all()
    again = WeightObjective(model.bank_.stack(X, X), y, 10.0, TIGHT).solve(model.weights_)
    assert again.value == pytest.approx(model.objective_curve_[-1], rel=1e-3)
    assert relative_gap(again) < 2e-3


def test_simple_mkl_says_when_it_ran_out_of_iterations():
    X, y = overlapping(80, 2)
    with pytest.warns(ConvergenceWarning, match="after 1 iterations"):
        SimpleMKLClassifier(KernelBank(), max_iter=1, tol=1e-9).fit(X, y)


def by_general_solver(Q, sign):
    """argmin of gamma' Q gamma over the simplices of both classes."""
    sums = [{"type": "eq", "fun": lambda g, side=side: g[sign == side].sum() - 1} for side in (1, -1)]
    found = minimize(
        lambda g: g @ Q @ g,
        np.where(sign > 0, 1 / (sign > 0).sum(), 1 / (sign < 0).sum()),
        jac=lambda g: 2 * Q @ g,
        bounds=[(0, 1)] * len(sign),
        constraints=sums,
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert found.success
    return found.x


@pytest.mark.parametrize("ridge", [0.1, 1.0])
def test_nearest_points_match_a_general_solver(ridge):
    X, y = overlapping(24, 2)
    sign, kernel = np.where(y == 1, 1.0, -1.0), KernelBank().fit(X).stack(X, X).sum(axis=0)
    gamma = nearest_points(kernel, ridge, sign)
    assert gamma.min() >= 0
    assert gamma[sign > 0].sum() == pytest.approx(1) and gamma[sign < 0].sum() == pytest.approx(1)
    Q = sign[:, None] * sign * (kernel + ridge * np.eye(24))
    general = by_general_solver(Q, sign)
    assert gamma @ Q @ gamma == pytest.approx(general @ Q @ general, rel=1e-5)
    np.testing.assert_allclose(gamma, general, atol=1e-3)


def test_komd_matches_a_general_solver():
    X, y = overlapping(27, 3)
    sign, kernel = np.where(y == 1, 1.0, -1.0), KernelBank().fit(X).stack(X, X).mean(axis=0)
    coef, _ = komd(kernel, sign, 0.3)
    Q = 0.7 * sign[:, None] * sign * kernel + 0.3 * (9 * 18 / 27) * np.eye(27)
    np.testing.assert_allclose(coef, sign * by_general_solver(Q, sign), atol=1e-3)


@pytest.mark.parametrize("lam", [0.1, 0.5, 1.0])
def test_nearest_points_have_a_small_duality_gap(lam):
    X, y = load_breast_cancer(return_X_y=True)
    X, sign = StandardScaler().fit_transform(X), np.where(y == 1, 1.0, -1.0)
    kernel = (1 - lam) * KernelBank().fit(X).stack(X, X).sum(axis=0)
    gamma, uniform = nearest_points(kernel, lam, sign), np.where(y == 1, 1 / (y == 1).sum(), 1 / (y == 0).sum())
    ridged = kernel + lam * np.eye(len(y))
    assert abs(hull_gap(ridged, sign, gamma)) < 2e-4
    if lam < 1:
        assert hull_gap(ridged, sign, uniform) > 0.1
    else:
        np.testing.assert_allclose(gamma, uniform, rtol=1e-5)


def test_komd_is_zero_halfway_between_the_nearest_points():
    X, y = overlapping(60, 2)
    sign, kernel = np.where(y == 1, 1.0, -1.0), KernelBank().fit(X).stack(X, X).mean(axis=0)
    coef, bias = komd(kernel, sign, 0.1)
    decision = kernel @ coef - bias
    at_positive, at_negative = decision @ np.maximum(coef, 0), decision @ np.maximum(-coef, 0)
    assert at_positive == pytest.approx(-at_negative)
    assert at_positive == pytest.approx(coef @ kernel @ coef / 2)


def test_easy_mkl_weights_are_the_shares_of_the_margin():
    X, y = overlapping(80, 2)
    model = EasyMKLClassifier(KernelBank(), lam=0.3).fit(X, y)
    stack, sign = model.bank_.stack(X, X), np.where(y == 1, 1.0, -1.0)
    signed = sign * nearest_points(0.7 * stack.sum(axis=0), 0.3, sign)
    margins = np.einsum("i,mij,j->m", signed, stack, signed)
    np.testing.assert_allclose(model.weights_, margins / margins.sum(), rtol=1e-10)


@pytest.mark.parametrize("model", [SimpleMKLClassifier, EasyMKLClassifier])
def test_the_kernel_of_the_only_useful_feature_gets_most_weight(model):
    X = np.random.default_rng(0).normal(size=(150, 4))
    fitted = model(KernelBank(groups=[[0], [1], [2], [3]])).fit(X, X[:, 2] > 0)
    assert fitted.weights_.argmax() == 2 and fitted.weights_[2] > 0.5


def test_easy_mkl_of_three_classes_is_one_against_the_rest(wine):
    X, y = wine
    model = EasyMKLClassifier(KernelBank(), C=10.0).fit(X, y)
    assert model.weights_per_class_.shape == (3, 9)
    for c in range(3):
        single = EasyMKLClassifier(KernelBank(), C=10.0).fit(X, y == c)
        np.testing.assert_allclose(model.weights_per_class_[c], single.weights_, rtol=1e-10)
        np.testing.assert_allclose(model.decision_function(X)[:, c], single.decision_function(X), atol=1e-10)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("n_classes", N_CLASSES)
def test_gate_descent_lowers_the_objective_every_iteration(gate, n_classes):
    X, y = overlapping(80, n_classes)
    model = GonenLMKLClassifier(KernelBank(), C=1.0, gate=gate, tol=0.01, random_state=0).fit(X, y)
    assert model.n_iter_ == len(model.objective_curve_) - 1 >= 1
    assert (np.diff(model.objective_curve_) < 0).all()
    assert model.objective_curve_[-1] < 0.95 * model.objective_curve_[0]


@pytest.mark.parametrize("n_classes", N_CLASSES)
def test_constant_gate_reaches_the_optimum_of_simple_mkl(n_classes):
    X, y = overlapping(100, n_classes)
    bank = KernelBank(groups=[[0], [1], [2], [3]])
    gate = GonenLMKLClassifier(bank, C=1.0, gate="constant", tol=1e-5, max_iter=200, random_state=0).fit(X, y)
    simple = SimpleMKLClassifier(bank, C=1.0, tol=1e-4).fit(X, y)
    assert gate.objective_curve_[-1] == pytest.approx(simple.objective_curve_[-1], rel=2e-3)
    eta = gate.kernel_weights(X)
    assert np.ptp(eta, axis=0).max() == 0
    np.testing.assert_allclose(eta[0] ** 2 / (eta[0] ** 2).sum(), simple.weights_, atol=0.05)


def test_softmax_gate_finds_the_kernel_of_each_region():
    (X, y), (X_new, y_new) = regions(200, seed=0), regions(1000, seed=1)
    bank = KernelBank(groups=[[1], [2]])
    local = GonenLMKLClassifier(bank, gate="softmax", random_state=0).fit(X, y)
    constant = GonenLMKLClassifier(bank, gate="constant", random_state=0).fit(X, y)
    assert local.score(X_new, y_new) > constant.score(X_new, y_new) + 0.05
    eta = local.kernel_weights(X_new)
    np.testing.assert_allclose(eta.sum(axis=1), 1)
    right = X_new[:, 0] > 0
    assert eta[right, 0].mean() > eta[~right, 0].mean() + 0.3
    assert eta[~right, 1].mean() > eta[right, 1].mean() + 0.3


def test_the_best_of_several_starts_is_kept():
    X, y = regions(80, seed=2)
    model = GonenLMKLClassifier(KernelBank(), tol=0.02, n_seeds=4, random_state=0).fit(X, y)
    rng = np.random.RandomState(0)
    starts = [GonenLMKLClassifier(KernelBank(), tol=0.02, random_state=rng).fit(X, y) for _ in range(4)]
    ends = [one.objective_curve_[-1] for one in starts]
    assert model.objective_curve_[-1] == min(ends) < max(ends)
    assert model.n_svms_ == sum(one.n_svms_ for one in starts)


def test_average_is_a_machine_on_the_mean_kernel(wine):
    X, y = wine
    model = AverageKernelSVC(KernelBank(), C=2.0).fit(X[::2], y[::2])
    bank = KernelBank().fit(X[::2])
    svc = SVC(C=2.0, kernel="precomputed").fit(bank.stack(X[::2], X[::2]).mean(axis=0), y[::2])
    expected = svc.decision_function(bank.stack(X[1::2], X[::2]).mean(axis=0))
    np.testing.assert_allclose(model.decision_function(X[1::2]), expected, atol=2e-3)


@pytest.mark.parametrize(
    "model", [m for m in MODELS if not isinstance(m, EasyMKLClassifier)], ids=lambda m: str(m)[:30]
)
def test_training_kernel_and_prediction_kernel_agree(model, wine):
    X, y = wine
    fitted = clone(model).fit(X, y)
    stack = fitted.bank_.stack(X, X)
    if isinstance(fitted, GonenLMKLClassifier):
        eta = fitted.kernel_weights(X).T
        kernel = np.einsum("mi,mij,mj->ij", eta, stack, eta) / (eta**2).sum(axis=0).mean()
    else:
        kernel = np.einsum("m,mij->ij", fitted.weights_, stack)
    again = SVC(C=10.0, kernel="precomputed", tol=getattr(fitted, "svm_tol", 1e-3)).fit(kernel, y)
    np.testing.assert_allclose(fitted.decision_function(X), again.decision_function(kernel), atol=5e-3)


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_every_solver_classifies_two_and_three_classes(model, wine):
    X, y = wine
    names = np.array(["red", "rose", "white"])[y]
    for rows, n_classes in ((names != "rose", 2), (names != "none", 3)):
        train, test = np.flatnonzero(rows)[::2], np.flatnonzero(rows)[1::2]
        fitted = clone(model).fit(X[train], names[train])
        assert fitted.score(X[test], names[test]) > 0.93
        scores = fitted.decision_function(X[test])
        if n_classes == 2:
            np.testing.assert_array_equal(fitted.predict(X[test]), fitted.classes_[(scores > 0).astype(int)])
        else:
            assert scores.shape == (len(test), 3)
            assert (fitted.classes_[scores.argmax(axis=1)] == fitted.predict(X[test])).mean() > 0.95
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).decision_function(X[test]), scores)
        assert not hasattr(fitted.bank, "gammas_")


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_too_many_rows_are_refused_before_the_kernels_are_made(model):
    class CountingBank(KernelBank):
        largest = 0

        def stack(self, X, A):
            CountingBank.largest = max(CountingBank.largest, len(X) * len(A))
            return super().stack(X, A)

    X, y = overlapping(6001, 2)
    with pytest.raises(ValueError, match=r"6001 training rows and 9 kernels need 2\.6 GB .* max_rows is 6000"):
        clone(model).set_params(bank=CountingBank()).fit(X, y)
    assert CountingBank.largest == 1


def test_wrong_arguments_are_named():
    X, y = overlapping(20, 2)
    with pytest.raises(ValueError, match="one class"):
        AverageKernelSVC(KernelBank()).fit(X, np.zeros(20))
    with pytest.raises(ValueError, match="gate must be one of softmax, sigmoid, constant, got 'rbf'"):
        GonenLMKLClassifier(KernelBank(), gate="rbf").fit(X, y)
    with pytest.raises(ValueError, match="lam must be above 0"):
        EasyMKLClassifier(KernelBank(), lam=0).fit(X, y)
    for model in MODELS:
        with pytest.raises(NotFittedError):
            clone(model).predict(X)
