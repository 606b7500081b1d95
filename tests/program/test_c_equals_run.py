"""C = Program.run, bit for bit, for every step, layout, bit width and input type."""

import numpy as np
import pytest
from common.c_proof import assert_c_equals_run, compiles_everywhere, hostile_rows, sanitized_outputs
from common.every_step import all_kinds
from common.random_elementwise import elementwise_program
from common.random_itemsets import itemset_program
from common.random_kernels import kernel_program
from common.random_networks import float_images_program, network_program
from common.random_programs import classifier, linear_program, tree_program

from effml.program import generate_c, with_input_dtype
from effml.program.buffers import INPUT_DTYPES
from effml.program.passes import deployable
from effml.program.steps import STEP_TYPES, Exp, LogisticShares, LookupSum

LAYOUT_BITS = [("float", 32)] + [("byte", b) for b in range(1, 9)] + [("dense", b) for b in range(1, 9)]
LAYOUT_BITS += [("swar", b) for b in range(1, 5)]


@pytest.mark.parametrize("parents", [False, True], ids=["naive", "tan"])
@pytest.mark.parametrize("layout, n_bits", LAYOUT_BITS)
def test_table_classifiers(layout, n_bits, parents):
    rng = np.random.default_rng([n_bits, len(layout), parents])
    program = classifier(
        rng,
        dtype=str(rng.choice(list(INPUT_DTYPES))),
        n_columns=int(rng.integers(1, 40)),
        n_out=int(rng.integers(1, 30)),
        n_bits=n_bits,
        layout=layout,
        parents=parents,
        start=bool(rng.random() < 0.7),
    )
    assert_c_equals_run(program, hostile_rows(program, 500, rng))


@pytest.mark.parametrize("largest", [8, 16, 31, 32])
@pytest.mark.parametrize("plain", [True, False])
def test_small_edges_are_counted_in_a_mask(plain, largest):
    rng = np.random.default_rng([largest, plain])
    given = {"n_columns": 30, "n_out": 6, "n_bits": 4, "layout": "swar", "parents": True}
    program = classifier(rng, dtype="uint8", max_cuts=20, plain=plain, largest=largest, **given)
    masked = "bits set" in generate_c(program).source
    assert masked == (program.steps[0].cuts.max() <= 30) or not plain
    rows = np.concatenate([hostile_rows(program, 200, rng), rng.integers(0, 35, (200, 30)).astype(np.uint8)])
    assert_c_equals_run(program, rows)


@pytest.mark.parametrize("dtype", INPUT_DTYPES)
@pytest.mark.parametrize("n_splits", [0, 1, 7, 60, 400])
def test_trees(dtype, n_splits):
    rng = np.random.default_rng(n_splits)
    program = tree_program(rng, dtype=dtype, n_columns=5, n_splits=n_splits, n_out=4)
    assert_c_equals_run(program, hostile_rows(program, 500, rng))


@pytest.mark.parametrize("dtype", INPUT_DTYPES)
@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("n_out", [1, 5])
def test_linear_models(dtype, integer, n_out):
    rng = np.random.default_rng([integer, n_out])
    program = linear_program(rng, dtype=dtype, n_columns=7, n_out=n_out, integer=integer)
    assert_c_equals_run(program, hostile_rows(program, 500, rng))


@pytest.mark.parametrize("gate", ["constant", "softmax", "sigmoid", "rbf"])
@pytest.mark.parametrize("side", [False, True], ids=["sum", "concat"])
@pytest.mark.parametrize("groups, gaussians, powers", [(1, 3, 2), (2, 1, 0), (1, 0, 2), (3, 2, 1)])
def test_gated_kernels(gate, side, groups, gaussians, powers):
    rng = np.random.default_rng([len(gate), side, groups, gaussians])
    program = kernel_program(
        rng,
        dtype=str(rng.choice(list(INPUT_DTYPES))),
        n_columns=int(rng.integers(1, 9)),
        n_landmarks=int(rng.integers(1, 40)),
        n_out=int(rng.choice([1, 4])),
        gate=gate,
        side=side,
        groups=groups,
        gaussians=gaussians,
        powers=powers,
    )
    assert_c_equals_run(program, hostile_rows(program, 500, rng))
    assert_c_equals_run(program, rng.integers(0, 120, (500, len(program.inputs))).astype(program.input_dtype))


@pytest.mark.parametrize("mask_bits", [1, 8, 11, 12, 26])
@pytest.mark.parametrize("n_out", [1, 5])
@pytest.mark.parametrize("n_linear, integer", [(0, False), (0, True), (3, False), (3, True)])
def test_itemsets(n_linear, integer, n_out, mask_bits):
    rng = np.random.default_rng([mask_bits, n_out, n_linear, integer])
    program = itemset_program(
        rng,
        dtype=str(rng.choice(list(INPUT_DTYPES))),
        n_columns=int(rng.integers(1, 17)),
        n_itemsets=int(rng.integers(1, 60)),
        n_linear=n_linear,
        n_out=n_out,
        mask_bits=mask_bits,
        max_cuts=int(rng.choice([3, 12, 40])),  # codes beyond the word included
        integer=integer,
    )
    assert_c_equals_run(program, hostile_rows(program, 500, rng))
    assert_c_equals_run(program, rng.integers(0, 120, (500, len(program.inputs))).astype(program.input_dtype))


@pytest.mark.parametrize("n_bits", range(1, 9))
@pytest.mark.parametrize(
    "activations, image_shape",
    [
        (("u32",), None),
        (("u8", "u16"), None),
        (("wide", "narrow"), None),
        (("shift", "i8"), None),
        ((), None),
        (("narrow", "wide"), (7, 6, 1)),
        (("i8", "u32"), (5, 5, 3)),
        (("shift",), (1, 9, 2)),
    ],
)
def test_low_bit_networks(activations, image_shape, n_bits):
    rng = np.random.default_rng([n_bits, len(activations), 0 if image_shape is None else 1])
    program = network_program(
        rng,
        dtype=str(rng.choice(list(INPUT_DTYPES))),
        n_columns=int(rng.integers(1, 50)),
        n_out=int(rng.choice([1, 4])),
        n_bits=n_bits,
        activations=activations,
        image_shape=image_shape,
    )
    assert_c_equals_run(program, hostile_rows(program, 200, rng))


@pytest.mark.parametrize("dtype", INPUT_DTYPES)
@pytest.mark.parametrize("image_shape", [(7, 6, 1), (5, 4, 3), (1, 9, 2), (1, 1, 1)])
def test_float_images(image_shape, dtype):
    rng = np.random.default_rng(image_shape)
    program = float_images_program(rng, dtype=dtype, n_out=4, image_shape=image_shape)
    assert_c_equals_run(program, hostile_rows(program, 200, rng))


@pytest.mark.parametrize("dtype", INPUT_DTYPES)
@pytest.mark.parametrize("n_bits", [2, 5, 8])
@pytest.mark.parametrize(
    "n_entries, with_numbers, with_bias", [(256, True, True), (7, False, True), (255, True, False)]
)
def test_states_tables_and_links(dtype, n_bits, n_entries, with_numbers, with_bias):
    rng = np.random.default_rng([n_bits, n_entries])
    given = {
        "link": Exp if rng.random() < 0.5 else LogisticShares,
        "n_entries": n_entries,
        "with_numbers": with_numbers,
        "with_bias": with_bias,
    }
    n_out = int(rng.choice([1, 4]))
    program = elementwise_program(rng, dtype=dtype, n_columns=5, n_out=n_out, n_bits=n_bits, **given)
    assert_c_equals_run(program, hostile_rows(program, 300, rng))


def test_long_columns_are_searched_by_bisection():
    rng = np.random.default_rng(5)
    program = classifier(
        rng, dtype="float32", n_columns=6, n_out=3, n_bits=4, layout="byte", parents=False, max_cuts=300
    )
    assert_c_equals_run(program, hostile_rows(program, 2000, rng))


def test_tables_over_64_kib():
    rng = np.random.default_rng(6)
    for layout, n_bits in (("byte", 8), ("dense", 7), ("swar", 4)):
        program = classifier(
            rng,
            dtype="uint8",
            n_columns=30,
            n_out=40,
            n_bits=n_bits,
            layout=layout,
            parents=True,
            max_cuts=24,
            plain=True,
        )
        step = next(step for step in program.steps if isinstance(step, LookupSum))
        assert step.table.size > 70_000
        assert_c_equals_run(program, hostile_rows(program, 300, rng))


def test_a_thousand_classes_and_three_hundred_features():
    rng = np.random.default_rng(7)
    program = classifier(
        rng, dtype="int16", n_columns=300, n_out=1000, n_bits=3, layout="dense", parents=True, max_cuts=2
    )
    assert_c_equals_run(program, hostile_rows(program, 50, rng))


def test_every_step_is_covered_here():
    rng = np.random.default_rng(0)
    steps = [step for program in all_kinds(rng) for step in program.steps]
    assert {step.kind for outer in steps for step in (outer, *outer.inner)} == set(STEP_TYPES)


def test_sanitizers_find_nothing():
    rng = np.random.default_rng(8)
    for program in list(all_kinds(rng))[::3]:
        rows = hostile_rows(program, 200, rng)
        expected = program.run(rows)
        np.testing.assert_array_equal(sanitized_outputs(program, rows), expected["label"])
        np.testing.assert_array_equal(sanitized_outputs(program, rows, output="proba"), expected["proba"])


def test_every_compiler_accepts_every_kind():
    rng = np.random.default_rng(9)
    for program in list(all_kinds(rng))[::4]:
        compiles_everywhere(program)


@pytest.mark.parametrize("dtype", ["int32", "int16", "uint8"])
@pytest.mark.parametrize("kind", ["table", "tree"])
def test_integer_inputs_predict_what_their_float32_values_predict(dtype, kind):
    rng = np.random.default_rng(10)
    for _ in range(5):
        if kind == "table":
            program = classifier(rng, dtype="float32", n_columns=6, n_out=4, n_bits=4, layout="byte", parents=True)
            spread = program.steps[0].replace(cuts=np.float32(program.steps[0].cuts * 100))
            spread = spread.replace(
                cuts=np.where(
                    program.steps[0].cuts == np.trunc(program.steps[0].cuts), program.steps[0].cuts, spread.cuts
                )
            )
        else:
            program = tree_program(rng, dtype="float32", n_columns=6, n_splits=30, n_out=4)
            spread = program.steps[0].replace(threshold=np.float32(program.steps[0].threshold * 100))
        program = program.replace(steps=(spread, *program.steps[1:]))
        integer = with_input_dtype(program, dtype)
        rows = hostile_rows(integer, 1000, rng)
        expected = program.run(rows.astype(np.float32))
        found = integer.run(rows)
        for output in program.outputs:
            np.testing.assert_array_equal(found[output], expected[output])
        assert_c_equals_run(integer, rows)


def test_size_passes_change_no_prediction():
    rng = np.random.default_rng(11)
    for program in all_kinds(rng):
        rows = hostile_rows(program, 300, rng)
        smaller = deployable(program.with_outputs("label"))
        np.testing.assert_array_equal(smaller.run(rows)["label"], program.run(rows)["label"])
