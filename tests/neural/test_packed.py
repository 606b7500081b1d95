"""The packed products, thresholds and shifts against plain integer arithmetic, at every instruction level."""

from dataclasses import fields

import numpy as np
import pytest
from common.random_networks import packed_conv, packed_dense, packed_inputs
from effml._cext.packed import LEVELS, best_level
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from effml.program import Buffer
from effml.program.buffers import DTYPES
from effml.program.steps import PackedDense, QuantizeInput, Requantise, Threshold
from effml.program.steps.packing import pack_codes

LEVEL_NUMBERS = range(len(LEVELS))


def source(dtype, size):
    return QuantizeInput(
        inputs=("x",),
        output=Buffer("q", dtype, size),
        columns=np.arange(size),
        scale=np.ones(size, np.float32),
        offset=np.zeros(size, np.float32),
        largest=255,
    )


def plain_product(step, values):
    """What the step says, in 64 bits, wrapped to 32."""
    weights = 2 * step.codes.astype(np.int64) - step.top
    sums = (values.astype(np.int64) - step.zero_point) @ weights
    out = (sums << step.shift) + (step.bias if step.bias.size else 0)
    return ((out + 2**31) % 2**32 - 2**31).astype(np.int32)


@pytest.mark.parametrize("level", LEVEL_NUMBERS, ids=LEVELS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(0, 9), st.integers(1, 150), st.integers(1, 40)),
    n_bits=st.integers(1, 8),
    dtype=st.sampled_from(["u8", "i8", "i16"]),
    threads=st.integers(1, 3),
)
def test_products_of_integers(level, seed, shape, n_bits, dtype, threads):
    rng, (n, n_in, n_out) = np.random.default_rng(seed), shape
    info = np.iinfo(DTYPES[dtype])
    x = rng.integers(info.min, info.max + 1, (n, n_in)).astype(DTYPES[dtype])
    bias = rng.integers(-(2**31), 2**31, n_out).astype(np.int32) if rng.random() < 0.5 else np.empty(0, np.int32)
    given_ = {"bias": bias, "shift": int(rng.integers(0, 9))}
    step = packed_dense(rng, source(dtype, n_in), "sum", n_in, n_out, n_bits, int(rng.integers(0, 200)), "", **given_)
    assert_array_equal(step.run(x, n_threads=threads, level=level), plain_product(step, x))


@pytest.mark.parametrize("level", LEVEL_NUMBERS, ids=LEVELS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(0, 9), st.integers(1, 400), st.integers(1, 40)),
    n_bits=st.integers(1, 8),
    dtype=st.sampled_from(["u8", "u16", "u32"]),
    threads=st.integers(1, 3),
)
def test_products_of_signs(level, seed, shape, n_bits, dtype, threads):
    rng, (n, n_in, n_out) = np.random.default_rng(seed), shape
    words, signs = packed_inputs(rng, n, n_in, dtype)
    step = packed_dense(rng, source(dtype, words.shape[1]), "sum", n_in, n_out, n_bits, 0, dtype)
    assert_array_equal(step.run(words, n_threads=threads, level=level), plain_product(step, signs))


def test_long_sums_of_bits_do_not_overflow_a_byte():
    rng = np.random.default_rng(1)
    words, signs = packed_inputs(rng, 3, 20_000, "u32")
    step = packed_dense(rng, source("u32", words.shape[1]), "sum", 20_000, 9, 1, 0, "u32")
    for level in LEVEL_NUMBERS:
        assert_array_equal(step.run(words, level=level), plain_product(step, signs))


@pytest.mark.parametrize("shape", [(6, 5, 1), (4, 4, 3), (1, 9, 2), (7, 1, 1), (1, 1, 1), (3, 2, 5)])
@pytest.mark.parametrize("dtype", ["u8", "i8", "i16"])
def test_convolution_with_pooling(shape, dtype):
    rng = np.random.default_rng(2)
    height, width, channels = shape
    zero_point = 128 if dtype == "u8" else 0
    step = packed_conv(rng, source(dtype, int(np.prod(shape))), "sum", shape, 4, 3, zero_point)
    x = rng.integers(0, 100, (6, np.prod(shape))).astype(DTYPES[dtype])
    image = np.pad(x.reshape(-1, *shape).astype(int) - zero_point, ((0, 0), (1, 1), (1, 1), (0, 0)))
    sums = np.zeros((6, height, width, 4), dtype=int)
    for tap in range(9):
        view = image[:, tap // 3 : tap // 3 + height, tap % 3 : tap % 3 + width]
        sums += view @ (2 * step.codes[tap * channels : (tap + 1) * channels].astype(int) - 7)
    windows = [[slice(2 * i, 2 * i + 2) for i in range(side // 2)] or [slice(0, 1)] for side in (height, width)]
    expected = [sums[:, row, column].max(axis=(1, 2)) for row in windows[0] for column in windows[1]]
    assert_array_equal(step.run(x), np.stack(expected, axis=1).reshape(6, -1))


def test_convolution_in_parts_gives_the_same(monkeypatch):
    rng = np.random.default_rng(3)
    step = packed_conv(rng, source("u8", 32), "sum", (4, 4, 2), 3, 2, 128)
    x = rng.integers(0, 256, (11, 32)).astype(np.uint8)
    whole = step.run(x)
    monkeypatch.setattr("effml.program.steps.images._PATCH_BYTES", 1000)
    assert_array_equal(step.run(x), whole)


@pytest.mark.parametrize("dtype", ["u8", "u16", "u32"])
def test_thresholds_pack_signs(dtype):
    x = np.array([[5, 2, -1, 7, 5, 5], [0, 0, 0, 0, 0, 0]], dtype=np.int32)
    step = Threshold(
        inputs=("s",), output=Buffer("b", dtype, 1), threshold=np.int32([5, 2, 0]), n_inputs=6, packed=True
    )
    assert_array_equal(step.run(x), [[0b111011], [0b100100]])
    signs = Threshold(inputs=("s",), output=Buffer("b", "i8", 6), threshold=np.int32([5, 2, 0]), n_inputs=6)
    assert_array_equal(signs.run(x), [[1, 1, -1, 1, 1, 1], [-1, -1, 1, -1, -1, 1]])


def test_missing_number_is_below_a_float_threshold():
    step = Threshold(inputs=("s",), output=Buffer("b", "i8", 2), threshold=np.zeros(1, np.float32), n_inputs=2)
    assert_array_equal(step.run(np.float32([[np.nan, -0.0]])), [[-1, 1]])


def test_requantise_rounds_down_after_its_offset_and_clips():
    step = Requantise(
        inputs=("s",),
        output=Buffer("l", "u8", 1),
        factor=np.int32([3]),
        offset=np.int32([4]),
        shift=3,
        largest=10,
    )
    x = np.arange(-50, 50, dtype=np.int32)[:, None]
    assert_array_equal(step.run(x), np.clip(np.floor((3 * x + 4) / 8), 0, 10))


def test_wide_products_do_not_wrap():
    fields = {"factor": np.int32([2**30]), "offset": np.int32([0]), "shift": 30, "largest": 32767}
    step = Requantise(inputs=("s",), output=Buffer("l", "i16", 1), wide=True, **fields)
    assert_array_equal(step.run(np.int32([[5], [40_000]])), [[5], [32767]])


def test_codes_are_packed_without_gaps():
    rng = np.random.default_rng(4)
    for n_bits in range(1, 9):
        codes = rng.integers(0, 2**n_bits, (5, 7)).astype(np.uint8)
        stream = pack_codes(codes, n_bits)
        assert len(stream) == -(-35 * n_bits // 8)
        number = int.from_bytes(stream.tobytes(), "little")
        assert [(number >> (n_bits * k)) & (2**n_bits - 1) for k in range(35)] == codes.ravel().tolist()


def test_levels_are_those_of_this_processor():
    assert 0 <= best_level() < len(LEVELS)


def test_prepared_weights_do_not_ship():
    rng = np.random.default_rng(5)
    step = packed_dense(rng, source("u8", 8), "sum", 8, 3, 2, 0, "")
    before = set(step.__getstate__())
    step.run(np.zeros((1, 8), np.uint8))
    assert set(step.__getstate__()) == before == {field.name for field in fields(PackedDense)}
