"""Analytic gradients against central differences in float64, and the Cython kernels against plain numpy."""

import numpy as np
import pytest
from effml._cext.kernel_rows import kernel_rows, ordered_product, rsqrt
from numpy.testing import assert_allclose, assert_array_equal

from effml.kernels import RBF, LocalizedMKLClassifier, LocalizedMKLRegressor, Polynomial
from effml.kernels.bank import KernelBank
from effml.kernels.training import LOSSES

KERNELS = [RBF(0.5), RBF(2.0), Polynomial(2), Polynomial(3), Polynomial(1, 0.0)]


def started(rng, *, n_outputs, **parameters):
    """Return a network in float64 with every parameter away from its start, and rows."""
    parameters = {"n_landmarks": 7, "random_state": 0, "kernels": KERNELS} | parameters
    model = LocalizedMKLClassifier(**parameters)
    X = rng.normal(size=(40, 5))
    model._start(X, n_outputs, None, np.random.RandomState(0), dtype=np.float64)
    for value in model.parameters_.values():
        value += 0.3 * rng.normal(size=value.shape)
    model.network_.set_bank(model.parameters_)
    return model.network_, model.parameters_, rng.normal(size=(6, 5))


def target_of(loss, rng, n_rows, n_outputs):
    if loss == "squared":
        return rng.normal(size=(n_rows, n_outputs))
    return rng.integers(0, 2 if loss == "logistic" else n_outputs, n_rows)


@pytest.mark.parametrize("combine", ["sum", "concat"])
@pytest.mark.parametrize("gate", ["uniform", "constant", "softmax", "sigmoid", "rbf"])
@pytest.mark.parametrize("whiten, hidden, loss", [(True, (4,), "cross_entropy"), (False, (), "logistic")])
def test_gradients_equal_central_differences(gate, combine, whiten, hidden, loss):
    rng = np.random.default_rng([len(gate), len(combine), whiten])
    n_outputs = 1 if loss == "logistic" else 3
    network, parameters, Z = started(
        rng,
        n_outputs=n_outputs,
        gate=gate,
        combine=combine,
        whiten=whiten,
        hidden_layer_sizes=hidden,
        gate_hidden_size=3 if whiten else 0,
        learn_landmarks=True,
        learn_bandwidths=True,
        groups=[[0, 1, 2], [2, 3, 4]],
    )
    target, weights = target_of(loss, rng, len(Z), n_outputs), rng.uniform(0.5, 2, len(Z))

    def value():
        network.set_bank(parameters)
        return LOSSES[loss](network.forward(parameters, Z)[0], target, weights)[0]

    out, state = network.forward(parameters, Z)
    gradients = network.backward(parameters, state, LOSSES[loss](out, target, weights)[1])
    assert set(gradients) == set(parameters)
    for name, array in parameters.items():
        numeric = np.empty_like(array)
        for place in np.ndindex(array.shape):
            kept, step = array[place], 1e-5
            array[place] = kept + step
            above = value()
            array[place] = kept - step
            numeric[place] = (above - value()) / (2 * step)
            array[place] = kept
        value()
        scale = max(np.abs(numeric).max(), 1e-3)
        assert np.abs(gradients[name] - numeric).max() / scale < 1e-6, name


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_gradients_of_the_losses(loss):
    rng = np.random.default_rng(3)
    n_outputs = 1 if loss == "logistic" else 3
    out = rng.normal(size=(4, n_outputs))
    target, weights = target_of(loss, rng, 4, n_outputs), rng.uniform(0.5, 2, 4)
    gradient = LOSSES[loss](out, target, weights)[1]
    for place in np.ndindex(out.shape):
        shift = np.zeros_like(out)
        shift[place] = 1e-6
        numeric = (LOSSES[loss](out + shift, target, weights)[0] - LOSSES[loss](out - shift, target, weights)[0]) / 2e-6
        assert_allclose(gradient[place], numeric, atol=1e-8)


def by_numpy(kernel, X, A, shape):
    if isinstance(kernel, RBF):
        return np.exp(-shape * ((X[:, None] - A) ** 2).sum(axis=2))
    norms = np.sqrt(((X**2).sum(axis=1)[:, None] + shape) * ((A**2).sum(axis=1) + shape))
    return ((X @ A.T + shape) / norms) ** kernel.degree


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 3e-6), (np.float64, 1e-12)])
def test_kernel_values_equal_plain_numpy(dtype, tolerance):
    rng = np.random.default_rng(0)
    X, A = rng.normal(size=(50, 6)), rng.normal(size=(33, 6))
    bank = KernelBank([np.arange(6), np.array([1, 4])], KERNELS).fit(X)
    bank.set_landmarks(A.astype(dtype))
    values = bank.forward(X.astype(dtype)).kernels
    for group in bank.groups:
        for m, kernel in enumerate(KERNELS):
            expected = by_numpy(kernel, X[:, group.columns], A[:, group.columns], group.shapes[m])
            assert_allclose(values[:, group.first + m], expected, atol=tolerance)


def test_default_kernels_have_a_unit_diagonal():
    X = np.random.default_rng(0).normal(size=(20, 4))
    bank = KernelBank([np.arange(4)], KERNELS).fit(X)
    bank.set_landmarks(X)
    values = bank.forward(X).kernels
    assert_allclose(np.einsum("imi->im", values), 1, atol=1e-12)


@pytest.mark.parametrize("level", [0, 1])
def test_every_instruction_set_and_thread_count_gives_the_same_numbers(level):
    rng = np.random.default_rng(1)
    dots = rng.normal(size=(9, 37)).astype(np.float32)
    norms, landmark_norms = rng.uniform(1, 4, 9).astype(np.float32), rng.uniform(1, 4, 37).astype(np.float32)
    shapes, degrees = np.float32([0.3, 2.0, 1.0, 0.0]), np.int32([0, 0, 3, 1])
    factors = rng.uniform(0.1, 1, (4, 37)).astype(np.float32)
    best, portable = np.zeros((2, 9, 4, 37), dtype=np.float32)
    kernel_rows(dots, norms, landmark_norms, factors, shapes, degrees, best, 0, None, 2)
    kernel_rows(dots, norms, landmark_norms, factors, shapes, degrees, portable, 0, None, 1, level)
    assert_array_equal(best, portable)
    weight = rng.normal(size=(37, 11)).astype(np.float32)
    one, two = np.zeros((2, 9, 11), dtype=np.float32)
    ordered_product(dots, weight, one)
    ordered_product(dots, weight, two, 2, level)
    assert_array_equal(one, two)


def test_ordered_product_adds_in_the_order_of_the_rows():
    rng = np.random.default_rng(2)
    x, weight = rng.normal(size=(5, 70)).astype(np.float32), rng.normal(size=(70, 9)).astype(np.float32)
    out, expected = np.zeros((5, 9), np.float32), np.zeros((5, 9), np.float32)
    ordered_product(x, weight, out)
    for j in range(70):
        expected = expected + x[:, j, None] * weight[j]
    assert_array_equal(out, expected)


def test_reciprocal_root_is_precise():
    x = np.geomspace(1e-12, 1e30, 4001).astype(np.float32)
    out = np.empty_like(x)
    rsqrt(x, out)
    assert_allclose(out, 1 / np.sqrt(x.astype(np.float64)), rtol=3e-7)


def test_kernels_of_weight_zero_are_left_alone():
    X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    bank = KernelBank([np.arange(3)], KERNELS).fit(X)
    bank.set_landmarks(X)
    out = np.full((4, 5, 4), -7, dtype=np.float32)
    weights = np.float32([[1, 0, 1, 0, 1]] * 4)
    group = bank.groups[0]
    kernel_rows(
        X @ X.T, (X * X).sum(axis=1), (X * X).sum(axis=1), bank._factors[0], group.shapes.astype(np.float32),
        group.degrees, out, 0, weights,
    )  # fmt: skip
    assert (out[:, [1, 3]] == -7).all() and (out[:, [0, 2, 4]] != -7).all()


def test_regressor_shares_the_network():
    X = np.random.default_rng(0).normal(size=(60, 3))
    model = LocalizedMKLRegressor(max_iter=2, random_state=0).fit(X, X[:, 0])
    assert type(model.network_).__name__ == "Network" and model.parameters_["W2"].shape[0] == 1
