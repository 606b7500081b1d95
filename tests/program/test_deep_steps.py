"""C = Program.run, bit for bit, for the steps of deep networks; what they mean against plain loops."""

import numpy as np
import pytest
from common.c_proof import assert_c_equals_run, hostile_rows
from common.random_deep import image_program, random_convolution, recurrent_program
from hypothesis import given
from hypothesis import strategies as st

from effml.program import Buffer, Program, footprint_of
from effml.program.buffers import INPUT_DTYPES
from effml.program.passes import requantise_at_once
from effml.program.steps import Conv, Loop, Pool, Requantise
from effml.program.steps.recurrent import integer_root


@pytest.mark.parametrize("is_float", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_convolutions_and_pooling(seed, is_float):
    rng = np.random.default_rng([seed, is_float])
    dtype = str(rng.choice(list(INPUT_DTYPES)))
    program = image_program(rng, dtype=dtype, is_float=is_float, **random_convolution(rng))
    assert_c_equals_run(program, hostile_rows(program, 50, rng))


@pytest.mark.parametrize("seed", range(8))
def test_convolutions_that_requantise_their_sums(seed):
    rng = np.random.default_rng(seed)
    program = image_program(rng, dtype="uint8", is_float=False, **random_convolution(rng))
    at_once = requantise_at_once(program)
    assert len(at_once.steps) == len(program.steps) - 1 and at_once.steps[1].requantise is not None
    rows = hostile_rows(program, 50, rng)
    for output, values in program.run(rows).items():
        np.testing.assert_array_equal(at_once.run(rows)[output], values)
    assert_c_equals_run(at_once, rows)
    assert footprint_of(at_once).ram_bytes <= footprint_of(program).ram_bytes
    assert requantise_at_once(at_once).fingerprint() == at_once.fingerprint()


@pytest.mark.parametrize("spread", ["", "std", "mad"])
@pytest.mark.parametrize("seed", range(4))
def test_recurrent_loops(seed, spread):
    rng = np.random.default_rng([seed, len(spread)])
    program = recurrent_program(rng, dtype=str(rng.choice(list(INPUT_DTYPES))), spread=spread)
    assert_c_equals_run(program, hostile_rows(program, 200, rng))


@pytest.mark.parametrize("seed", range(8))
def test_convolution_is_the_sum_over_its_neighbourhood(seed):
    rng = np.random.default_rng(seed)
    fields = random_convolution(rng) | {"pool": 1}
    (height, width, channels), (rows, columns), groups = fields["image_shape"], fields["kernel"], fields["groups"]
    n_filters, own = 2 * groups, channels // groups
    weight = rng.integers(-3, 4, (rows * columns * own, n_filters)).astype(np.float32)
    bias = rng.integers(-3, 4, n_filters).astype(np.float32)
    step = Conv(inputs=("x",), output=Buffer("s", "f32", 1), weight=weight, bias=bias, **fields)
    image = rng.integers(-9, 9, (height, width, channels)).astype(np.float32)
    top, left, bottom, right = fields["padding"]
    padded = np.pad(image, ((top, bottom), (left, right), (0, 0)))
    found = step.run(image.reshape(1, -1)).reshape(step.out_shape)
    for i in range(found.shape[0]):
        for j in range(found.shape[1]):
            for k in range(n_filters):
                first = k // 2 * own
                total = bias[k]
                for tap in range(rows * columns):
                    y = i * fields["stride"][0] + tap // columns * fields["dilation"][0]
                    x = j * fields["stride"][1] + tap % columns * fields["dilation"][1]
                    total += padded[y, x, first : first + own] @ weight[tap * own : (tap + 1) * own, k]
                assert found[i, j, k] == total


def test_means_of_integers_round_halves_up_and_count_a_border_that_is_filled():
    fields = {"image_shape": (2, 2, 1), "window": (2, 2), "stride": (2, 2), "mode": "mean"}
    image = np.array([[1, 2, 3, 4]], dtype=np.uint8)
    plain = Pool(inputs=("x",), output=Buffer("p", "u8", 1), **fields)
    assert plain.run(image).tolist() == [[3]]  # 2.5
    border = Pool(inputs=("x",), output=Buffer("p", "u8", 4), padding=(1, 1, 1, 1), fill=8, **fields)
    assert border.run(image).tolist() == [[6, 7, 7, 7]]  # (8 + 8 + 8 + 1) / 4, ...
    inside = Pool(inputs=("x",), output=Buffer("p", "u8", 4), padding=(1, 1, 1, 1), **fields)
    assert inside.run(image).tolist() == [[1, 2, 3, 4]]


@given(st.integers(0, 2**50))
def test_integer_roots(value):
    root = int(integer_root(np.array([value]))[0])
    assert root * root <= value < (root + 1) ** 2


def test_a_loop_hands_its_state_on():
    count = Requantise(
        inputs=("state", "part"),
        output=Buffer("next", "i16", 2),
        factor=np.array([[2], [1]], dtype=np.int32),
        offset=np.array([1], dtype=np.int32),
        shift=0,
        largest=1000,
    )
    fields = {"body": (count,), "element": Buffer("part", "u8", 2), "carries": (Buffer("state", "i16", 2),)}
    fields |= {"starts": (5,), "successors": ("next",), "n": 3, "result": "next"}
    x = np.array([[1, 2, 3, 4, 5, 6]], dtype=np.uint8)
    last = Loop(inputs=("x",), output=Buffer("out", "i16", 2), **fields)
    assert last.run(x).tolist() == [[2 * (2 * (11 + 1) + 1 + 3) + 1 + 5, 2 * (2 * (11 + 2) + 1 + 4) + 1 + 6]]
    every = Loop(inputs=("x",), output=Buffer("out", "i16", 6), collect=True, reverse=True, **fields)
    assert every.run(x)[0, 4:].tolist() == [16, 17] and every.run(x)[0, 2:4].tolist() == [36, 39]


def test_loops_count_every_turn_and_the_memory_inside(tmp_path):
    program = recurrent_program(np.random.default_rng(3), dtype="uint8", spread="std")
    loop = next(step for step in program.steps if isinstance(step, Loop))
    once = footprint_of(program.replace(steps=(program.steps[0], loop.replace(n=loop.n), *program.steps[2:])))
    assert once.operations["multiply"] >= loop.n * loop.body[0].codes.size
    assert loop.scratch_bytes >= 4 * loop.body[0].output.size + 3 * loop.carries[0].size
    program.save(tmp_path / "loop.effml")
    assert Program.load(tmp_path / "loop.effml").fingerprint() == program.fingerprint()
