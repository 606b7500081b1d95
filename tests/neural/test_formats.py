"""Levels of weights, the optimiser's clip, sizes and operations of the paper, scaling of the inputs."""

import numpy as np
import pytest
from effml._cext.neural_training import adam_step, nearest_levels
from numpy.testing import assert_allclose, assert_array_equal

from effml._optim import Adam
from effml._quantization import WeightFormat
from effml.neural.inputs import fit_input_format
from effml.neural.optimizer import ClippedAdam
from effml.neural.sizes import (
    conv_channels,
    conv_operations,
    conv_sides,
    conv_size_bits,
    dense_operations,
    dense_size_bits,
    dense_width,
)


@pytest.mark.parametrize("n_bits", range(1, 9))
def test_levels_are_equidistant_odd_multiples(n_bits):
    levels = WeightFormat(n_bits).decode(np.arange(2**n_bits))
    assert_allclose(levels, np.linspace(-1, 1, 2**n_bits), atol=1e-7)
    assert not (levels == 0).any()


@pytest.mark.parametrize("n_bits", range(1, 9))
def test_quantising_twice_changes_nothing_and_codes_come_back(n_bits):
    format_ = WeightFormat(n_bits)
    weights = np.random.default_rng(0).uniform(-1.5, 1.5, 2000).astype(np.float32)
    once = format_.quantize(weights)
    assert_array_equal(format_.quantize(once), once)
    codes = np.arange(2**n_bits, dtype=np.uint8)
    assert_array_equal(format_.encode(format_.decode(codes)), codes)
    assert_array_equal(format_.integers(codes), 2 * codes.astype(int) - (2**n_bits - 1))


def test_the_formula_of_the_paper():
    weights = np.linspace(-1.2, 1.2, 999)
    for n_bits in range(2, 9):
        top = 2**n_bits - 1
        expected = 2 * np.clip(np.rint((weights + 1) / 2 * top) / top, 0, 1) - 1
        assert_allclose(WeightFormat(n_bits).quantize(weights), expected, atol=1e-6)


def test_one_bit_is_the_sign_and_zero_is_plus_one():
    assert_array_equal(WeightFormat(1).quantize(np.array([-2.0, -0.0, 0.0, 1e-9, -1e-9])), [-1, 1, 1, 1, -1])


@pytest.mark.parametrize("n_bits", [0, 9])
def test_width_of_a_code_is_checked(n_bits):
    with pytest.raises(ValueError, match=f"n_bits={n_bits} must be between 1 and 8"):
        WeightFormat(n_bits)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("n_bits", range(1, 9))
def test_training_computes_with_the_codes_that_ship(n_bits, level):
    rng = np.random.default_rng(n_bits)
    format_ = WeightFormat(n_bits)
    ties = (np.arange(2.0 * format_.top + 1) / format_.top - 1).astype(np.float32)
    weights = np.concatenate([rng.uniform(-1, 1, 1003).astype(np.float32), ties, np.float32([0, -0.0, 3, -3])])
    out = np.empty_like(weights)
    nearest_levels(weights, format_.top, 1.0, out, level)
    assert_array_equal(out, format_.integers(format_.encode(weights)))
    nearest_levels(weights, format_.top, 0.25, out, level)
    assert_array_equal(out, 0.25 * format_.integers(format_.encode(weights)))
    double = np.empty(len(weights))
    nearest_levels(weights.astype(np.float64), format_.top, 1.0, double)
    assert_array_equal(double, format_.integers(format_.encode(weights.astype(np.float64))))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_are_those_of_adam(dtype):
    rng = np.random.default_rng(0)
    ours = {"w": rng.normal(size=(5, 7)).astype(dtype), "b": rng.normal(size=3).astype(dtype)}
    theirs = {name: value.copy() for name, value in ours.items()}
    first, second = ClippedAdam(ours, clipped=set(), decayed=set()), Adam(theirs)
    for _ in range(20):
        gradients = {name: rng.normal(size=value.shape).astype(dtype) for name, value in ours.items()}
        first.step(ours, gradients, 0.03)
        second.step(theirs, gradients, 0.03)
    for name in ours:
        assert_allclose(ours[name], theirs[name], rtol=1e-5 if dtype == np.float32 else 1e-12)


def test_every_instruction_level_takes_the_same_step():
    rng = np.random.default_rng(1)
    start = [rng.normal(size=1001).astype(np.float32) for _ in range(4)]
    start[3] = np.abs(start[3])
    results = []
    for level in range(3):
        arrays = [array.copy() for array in start]
        adam_step(*arrays, 0.05, 0.1, 0.001, 1e-7, 0.01, -1.0, 1.0, level)
        results.append(arrays)
    for arrays in results[1:]:
        for found, expected in zip(arrays, results[0], strict=True):
            assert_array_equal(found, expected)
    assert np.abs(results[0][0]).max() == 1


def test_decay_pulls_towards_zero():
    parameters = {"weight1": np.array([0.5]), "bias": np.array([0.5])}
    adam = ClippedAdam(parameters, clipped=set(), decayed={"weight1"})
    adam.step(parameters, {name: np.zeros(1) for name in parameters}, 0.01, decay=1.0)
    assert parameters["weight1"] < 0.5 and parameters["bias"] == 0.5


# the table of the paper's formulas: hidden units for 1, 2, 4 and 8 bits
LETTER, SATIMAGE, USPS, MNIST = (16, 26, 3822), (36, 6, 2508), (256, 10, 8650), (196, 10, 25_800)
WIDTHS = [
    (LETTER, 1, [(71, 36, 18, 9), (28, 20, 13, 7), (16, 13, 9, 6)]),
    (LETTER, 4, [(344, 172, 86, 43), (136, 98, 62, 36), (62, 47, 34, 22)]),
    (LETTER, 8, [(708, 354, 177, 89), (281, 201, 128, 74), (107, 80, 57, 39)]),
    (SATIMAGE, 1, [(55, 28, 14, 7), (22, 16, 10, 6), (13, 10, 7, 5)]),
    (SATIMAGE, 8, [(473, 237, 118, 59), (187, 134, 86, 50), (80, 60, 43, 29)]),
    (USPS, 1, [(31, 16, 8, 4), (25, 14, 7, 4), (20, 12, 7, 4)]),
    (USPS, 8, [(259, 129, 65, 32), (209, 116, 61, 31), (131, 83, 50, 28)]),
    (MNIST, 1, [(124, 62, 31, 15), (94, 54, 29, 15), (64, 41, 24, 14)]),
    (MNIST, 8, [(1000, 500, 250, 125), (763, 433, 232, 120), (317, 213, 137, 84)]),
]


@pytest.mark.parametrize("data, bits_of_parameter, expected", WIDTHS)
def test_widths_of_the_paper(data, bits_of_parameter, expected):
    n_inputs, n_outputs, n_parameters = data
    budget = n_parameters * bits_of_parameter
    for (n_hidden, batch_norm), widths in zip([(1, False), (1, True), (2, True)], expected, strict=True):
        for bits, width in zip((1, 2, 4, 8), widths, strict=True):
            formats = {"weight_bits": bits, "batch_norm": batch_norm}
            assert dense_width(budget, n_inputs, n_hidden, n_outputs, **formats) == width


def test_sizes_and_operations_of_known_networks():
    rows = [((41,), 4, False, 7720, 1748), ((62,), 4, True, 15_216, 2692), ((26, 26), 2, True, 7696, 1846)]
    for hidden, bits, batch_norm, size, operations in rows:
        assert dense_size_bits(16, hidden, 26, weight_bits=bits, batch_norm=batch_norm) == size
        assert dense_operations(16, hidden, 26, batch_norm=batch_norm) == operations


def test_tiny_budgets_give_one_neuron():
    assert dense_width(10, 16, 1, 26, weight_bits=4, batch_norm=False) == 1
    assert conv_channels(10, (14, 14, 1), 2, 10, weight_bits=4, batch_norm=False) == (1, 2)


def test_convolutions_follow_the_formulas_of_the_paper():
    for side, bits, n in [(14, 2, 5), (16, 4, 9)]:
        s1, s2 = side // 2, side // 4
        two = conv_size_bits((side, side, 1), (n,), 10, weight_bits=bits, batch_norm=True)
        assert two == bits * (9 * n + s1**2 * n * 10) + 64 * n + 320
        three = conv_size_bits((side, side, 1), (n, 2 * n), 10, weight_bits=bits, batch_norm=True)
        assert three == bits * (9 * n + 18 * n**2 + s2**2 * 2 * n * 10) + 64 * 3 * n + 320
        assert conv_channels(two, (side, side, 1), 1, 10, weight_bits=bits, batch_norm=True) == (n,)
        assert conv_channels(three, (side, side, 1), 2, 10, weight_bits=bits, batch_norm=True) == (n, 2 * n)
        operations = conv_operations((side, side, 1), (n, 2 * n), 10, batch_norm=True)
        expected = side**2 * 9 * n + 2 * s1**2 * 9 * n**2 + 2 * s2**2 * n * 10
        assert operations == expected + side**2 * n + 2 * s1**2 * n + 10


def test_sides_of_one_are_not_pooled():
    assert conv_sides((1, 9, 2), 2) == [(1, 9), (1, 4), (1, 2)]


def test_inputs_are_standardised_within_a_step():
    rng = np.random.default_rng(2)
    X = rng.normal([3, -50, 0], [1, 20, 1e-3], (5000, 3)).astype(np.float32)
    X = np.column_stack([X, np.full(5000, 7, np.float32)])
    format_ = fit_input_format(X, n_bits=8, scaling="feature")
    codes = format_.encode(X)
    assert codes.dtype == np.uint8
    inside = (codes > 0) & (codes < 255)
    assert inside.mean() > 0.998
    middles = (codes + 0.5 - format_.offset.astype(float)) / format_.scale
    assert (np.abs(middles - X) <= 0.51 / format_.scale)[inside].all()
    assert (codes[:, 3] == format_.zero_point).all()
    assert_allclose(codes[:, :3].mean(axis=0), format_.zero_point, atol=0.1)
    assert_allclose(codes[:, :3].std(axis=0), codes[:, 0].std(), rtol=0.02)
    assert np.log2(format_.step) == np.rint(np.log2(format_.step))


def test_pixels_are_read_as_they_are():
    X = np.random.default_rng(3).integers(0, 256, (100, 9)).astype(np.float32)
    format_ = fit_input_format(X, n_bits=8, scaling="common")
    assert_array_equal(format_.encode(X), X.astype(np.uint8))
    assert format_.zero_point == np.rint(X.mean())
    assert not (fit_input_format(X + 0.5, n_bits=8, scaling="common").scale == 1).any()


def test_float_inputs_are_standardised_exactly():
    X = np.random.default_rng(4).normal(5, 2, (300, 2)).astype(np.float32)
    values = fit_input_format(X, n_bits=None, scaling="feature").encode(X)
    assert_allclose(values.mean(axis=0), 0, atol=1e-5)
    assert_allclose(values.std(axis=0), 1, rtol=1e-5)
