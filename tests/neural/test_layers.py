"""Forward passes against plain formulas, gradients against central differences in float64."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from effml._quantization import WeightFormat
from effml.neural.images import Conv3x3, MaxPool
from effml.neural.layers import BatchNorm, ClippedReLU, Dense, Layer, ReLU, Sign
from effml.neural.losses import LOSSES
from effml.neural.network import ConvArchitecture, DenseArchitecture, build, start


def target_of(loss, rng, n_rows, n_outputs):
    if loss == "squared":
        return rng.normal(size=(n_rows, n_outputs))
    return rng.integers(0, 2 if loss == "logistic" else n_outputs, n_rows)


def check_gradients(network, parameters, x, loss, rng, names):
    """Compare the gradient of every named parameter with central differences, a few elements of each."""
    n_outputs = len(parameters["bias"])
    target, weights = target_of(loss, rng, len(x), n_outputs), rng.uniform(0.5, 2, len(x))

    def value():
        network.refresh()
        return LOSSES[loss](network.forward(x, training=True), target, weights)[0]

    network.refresh()
    _, to_out = LOSSES[loss](network.forward(x, training=True), target, weights)
    network.backward(to_out)
    assert set(names) <= set(network.gradients)
    for name in names:
        array, gradient = network.parameters[name], network.gradients[name].copy()
        for index in rng.permutation(array.size)[:10]:
            place, step = np.unravel_index(index, array.shape), 1e-6
            before = array[place]
            array[place] = before + step
            above = value()
            array[place] = before - step
            below = value()
            array[place] = before
            assert_allclose((above - below) / (2 * step), gradient[place], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("loss, n_outputs", [("cross_entropy", 4), ("logistic", 1), ("squared", 2)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_dense_gradients(batch_norm, loss, n_outputs):
    rng = np.random.default_rng(0)
    architecture = DenseArchitecture(5, (7, 6), n_outputs, None, "relu", None, batch_norm)
    parameters = start(architecture, np.random.RandomState(1), dtype=np.float64)
    for value in parameters.values():
        value += 0.2 * rng.normal(size=value.shape)
    network = build(architecture, parameters)
    check_gradients(network, parameters, rng.normal(size=(9, 5)), loss, rng, set(network.parameters))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("shape", [(6, 5, 1), (4, 4, 3), (1, 9, 2)])
def test_convolution_gradients(batch_norm, shape):
    rng = np.random.default_rng(0)
    architecture = ConvArchitecture(int(np.prod(shape)), (3, 4), 3, None, "relu", None, batch_norm, image_shape=shape)
    parameters = start(architecture, np.random.RandomState(1), dtype=np.float64)
    for value in parameters.values():
        value += 0.2 * rng.normal(size=value.shape)
    network = build(architecture, parameters)
    x = rng.normal(size=(5, architecture.n_inputs))
    check_gradients(network, parameters, x, "cross_entropy", rng, set(network.parameters))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_gradients_of_what_is_not_rounded_in_a_quantised_network(batch_norm):
    """Gains, batch norm and bias are not rounded: their gradients are exact while the codes stay."""
    rng = np.random.default_rng(3)
    architecture = DenseArchitecture(5, (7, 6), 4, 3, "relu", None, batch_norm)
    parameters = start(architecture, np.random.RandomState(1), dtype=np.float64)
    network = build(architecture, parameters)
    names = {name for name in network.parameters if not name.startswith("weight")}
    assert "log_gain3" in names
    check_gradients(network, parameters, rng.normal(size=(9, 5)), "cross_entropy", rng, names)


def test_exact_sums_have_the_gradients_of_scaled_weights():
    rng = np.random.default_rng(4)
    weight, log_gain = rng.uniform(-1, 1, (6, 4)), np.array([-0.7])
    x, to_out = rng.normal(size=(5, 6)), rng.normal(size=(5, 4))
    results = []
    for exact in (False, True):
        layer = Dense(weight, weight_format=WeightFormat(3), log_gain=log_gain, exact=exact)
        out = layer.forward(x, training=True).copy()
        to_x = layer.backward(to_out.copy())
        results.append([out, to_x, layer.gradients["weight"], layer.gradients["log_gain"]])
    for first, second in zip(*results, strict=True):
        assert_allclose(first, second, rtol=1e-12)


def test_weight_gradient_passes_through_the_rounding():
    rng = np.random.default_rng(5)
    x, to_out = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    layer = Dense(rng.uniform(-1, 1, (3, 2)), weight_format=WeightFormat(1))
    layer.forward(x, training=True)
    layer.backward(to_out.copy())
    assert_allclose(layer.gradients["weight"], x.T @ to_out)


def test_convolution_is_a_sum_over_neighbours():
    rng = np.random.default_rng(6)
    image, weight = rng.normal(size=(2, 5, 4, 3)), rng.normal(size=(27, 6))
    found = Conv3x3(weight).forward(image)
    expected = np.zeros((2, 5, 4, 6))
    for y in range(5):
        for x in range(4):
            for tap in range(9):
                row, column = y + tap // 3 - 1, x + tap % 3 - 1
                if 0 <= row < 5 and 0 <= column < 4:
                    expected[:, y, x] += image[:, row, column] @ weight[3 * tap : 3 * tap + 3]
    assert_allclose(found, expected, atol=1e-12)


def test_convolution_forgets_the_images_of_the_last_batch():
    rng = np.random.default_rng(7)
    layer, few = Conv3x3(rng.normal(size=(9, 2))), rng.normal(size=(2, 4, 4, 1))
    alone = Conv3x3(layer.parameters["weight"]).forward(few).copy()
    layer.forward(rng.normal(size=(5, 4, 4, 1)))
    assert_array_equal(layer.forward(few), alone)


def test_pooling_sends_the_gradient_to_the_first_of_equals():
    layer = MaxPool()
    x = np.array([[1.0, 1.0, 5.0], [1.0, 0.0, 9.0]]).reshape(1, 2, 3, 1)
    assert_array_equal(layer.forward(x, training=True).ravel(), [1.0])
    assert_array_equal(layer.backward(np.full((1, 1, 1, 1), 7.0)).ravel(), [7, 0, 0, 0, 0, 0])


def test_batch_norm_moments_and_moving_averages():
    rng = np.random.default_rng(8)
    x = rng.normal(2, 3, size=(50, 2))
    gamma, beta, mean, inverse_std = np.ones(2), np.zeros(2), np.zeros(2), np.ones(2)
    layer = BatchNorm(gamma, beta, mean, inverse_std)
    out = layer.forward(x.copy(), training=True)
    assert_allclose(out.mean(axis=0), 0, atol=1e-12)
    assert_allclose(out.std(axis=0, ddof=1), 1, rtol=1e-5)
    assert_allclose(mean, 0.1 * x.mean(axis=0))
    assert_allclose(inverse_std, 0.9 + 0.1 / np.sqrt(x.var(axis=0, ddof=1) + 1e-6))
    assert_allclose(layer.forward(x.copy()), (x - mean) * inverse_std)


def test_sign_of_zero_is_plus_one():
    assert_array_equal(Sign().forward(np.array([[-0.0, 0.0, -1e-30, 2.0]])), [[1, 1, -1, 1]])


def test_sign_is_random_in_training_and_its_slope_is_that_of_tanh():
    layer = Sign(np.random.default_rng(0))
    x = np.repeat([[-2.0, -0.5, 0.0, 0.5, 2.0]], 20_000, axis=0)
    share = (layer.forward(x.copy(), training=True) > 0).mean(axis=0)
    assert_allclose(share, [0, 0.25, 0.5, 0.75, 1], atol=0.02)
    assert_allclose(layer.backward(np.ones_like(x))[0], 1 - np.tanh(x[0]) ** 2)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_clipped_relu_levels_and_slope(scale):
    layer = ClippedReLU(3, scale)
    x = np.linspace(-1, 5, 101)[:, None]
    out = layer.forward(x.copy(), training=True)
    assert_allclose(out, np.rint(np.clip(x / scale, 0, 1) * 7) / 7)
    assert_allclose(layer.backward(np.ones_like(x)), ((x >= 0) & (x <= scale)) / scale)


def test_relu_stops_the_gradient_below_zero():
    layer = ReLU()
    assert_array_equal(layer.forward(np.array([[-1.0, 0.0, 2.0]])), [[0, 0, 2]])
    assert_array_equal(layer.backward(np.full((1, 3), 5.0)), [[0, 0, 5]])


def test_every_layer_reports_the_gradients_of_its_parameters():
    rng = np.random.default_rng(9)
    layers = [Dense(rng.normal(size=(3, 3)), np.zeros(3), log_gain=np.zeros(1)), BatchNorm(*np.ones((4, 3)))]
    layers += [Conv3x3(rng.normal(size=(27, 3))), ReLU(), ClippedReLU(2), Sign(), MaxPool()]
    assert {type(layer) for layer in layers} <= _subclasses(Layer)
    for layer in layers:
        assert set(layer.gradients) == set(layer.parameters)


def _subclasses(cls):
    return {sub for direct in cls.__subclasses__() for sub in {direct} | _subclasses(direct)}
