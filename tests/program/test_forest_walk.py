"""Forests in integers: the fast loop, both C layouts and the packed words all say what a plain walk says."""

import shutil
import subprocess
from unittest import mock

import numpy as np
import pytest
from common.c_proof import assert_c_equals_run, compiles_everywhere, hostile_rows, sanitized_outputs
from common.random_programs import forest_program, random_forest, with_second_forest, with_useful_splits
from effml._cext.forest_walk import FASTEST
from hypothesis import given, settings
from hypothesis import strategies as st

from effml.persistence import TRUSTED_TYPES
from effml.program import Buffer, CompiledProgram, Program, footprint_of, generate_c
from effml.program.buffers import DTYPES, INPUT_DTYPES
from effml.program.steps import FOREST_LAYOUTS, ForestWalk, forests
from effml.program.steps.forest_words import direct_payload, pack_words, payload_of, word_format

ADDS = ("rows", "by_tree", "votes")


def plain_walk(step, x, start=None):
    """Return the sums, one tree and one row after the other."""
    out = np.repeat(step.start[None].astype(np.int64), len(x), axis=0)
    if start is not None:
        out += start
    for i, row in enumerate(x):
        for node in step.roots:
            while node >= 0:
                value = row[step.feature[node]]
                right = step.missing_right[node] if value != value else value > step.threshold[node]
                node = step.children[node, int(right)]
            if step.votes:
                out[i, step.leaf[~node]] += 1
            else:
                out[i] += step.values[step.leaf[~node]]
    return out.astype(np.int32)


def rows_for(step, n_rows, n_columns, rng):
    """Return rows of values at, beside and far from the thresholds; floats with NaN of both signs."""
    dtype = step.threshold.dtype
    bits = rng.integers(0, 256, size=(n_rows, n_columns * dtype.itemsize), dtype=np.uint8)
    rows = bits.view(dtype).reshape(n_rows, n_columns).copy()
    near = np.append(step.threshold, dtype.type(0))
    if dtype.kind == "f":
        near = np.concatenate([near, np.nextafter(near, dtype.type(np.inf)), np.float32([np.nan, -np.nan, -0.0])])
    else:
        near = np.concatenate([near, near + dtype.type(1), near - dtype.type(1)])
    chosen = rng.random(rows.shape) < 0.8
    rows[chosen] = rng.choice(near, size=int(chosen.sum()))
    return rows


def large_forest(rng, n_trees, n_splits, n_columns=10):
    """Return a one-output forest of byte ranks, as many a model of 100 deep trees has."""
    source = Buffer("x", "u8", n_columns)
    step = random_forest(rng, source, (n_splits,) * n_trees, 1)
    values = rng.integers(0, 200, size=(len(step.leaf), 1)).astype(np.int16)
    return step.replace(values=values, leaf=np.arange(len(step.leaf)), start=np.zeros(1, np.int32))


def raw_program(step, n_columns):
    """Return the program of a step alone, whose sums are its value."""
    from effml.program import InputSpec, Output

    dtype = next(name for name, kind in INPUT_DTYPES.items() if DTYPES[kind] == step.threshold.dtype)
    inputs = tuple(InputSpec(f"x{k}") for k in range(n_columns))
    return Program(inputs=inputs, input_dtype=dtype, steps=(step,), outputs={"value": Output(step.output.name)})


# -- run --------------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(sorted(DTYPES)),
    adds=st.sampled_from(ADDS),
    sizes=st.lists(st.integers(0, 12), max_size=6),
    n_out=st.integers(1, 4),
    n_rows=st.integers(0, 40),
    n_threads=st.integers(1, 3),
    missing=st.sampled_from([None, False, True]),
)
def test_the_fast_loop_equals_a_plain_walk(seed, dtype, adds, sizes, n_out, n_rows, n_threads, missing):
    rng = np.random.default_rng(seed)
    step = random_forest(rng, Buffer("x", dtype, 3), sizes, n_out, adds=adds, values="int16")
    if missing is not None:
        step = step.replace(missing_right=np.full(len(step.feature), missing))
    x = rows_for(step, n_rows, 4, rng)
    np.testing.assert_array_equal(step.run(x, n_threads=n_threads), plain_walk(step, x))
    before = rng.integers(-(2**20), 2**20, size=(n_rows, n_out)).astype(np.int32)
    np.testing.assert_array_equal(step.run(x, before), plain_walk(step, x, before))


@pytest.mark.parametrize("n_columns", [1, 700])
def test_rows_in_many_blocks_and_any_memory_order(n_columns):
    rng = np.random.default_rng(0)
    step = random_forest(rng, Buffer("x", "f32", n_columns), (60, 3, 0, 25), 2)
    x = rows_for(step, 1003, n_columns, rng)
    expected = plain_walk(step, x)
    for rows in (x, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
        for n_threads in (1, 2):
            np.testing.assert_array_equal(step.run(rows, n_threads=n_threads), expected)


def test_the_fast_loop_checks_what_it_reads():
    step = random_forest(np.random.default_rng(0), Buffer("x", "f32", 5), (9, 9), 2)
    with pytest.raises(ValueError, match=f"x is float32 of {step.feature.max()} columns"):
        step.run(np.zeros((3, step.feature.max()), dtype=np.float32))
    with pytest.raises(ValueError, match="x is float64"):
        step.run(np.zeros((3, 5)))
    damaged = step.replace()
    damaged.children[3, 1] = 10**6  # what a damaged model file may hold
    with pytest.raises(ValueError, match="children and roots"):
        damaged.run(np.zeros((3, 5), dtype=np.float32))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), adds=st.sampled_from(ADDS), sizes=st.lists(st.integers(0, 9), max_size=5))
def test_bounds_hold_for_every_row(seed, adds, sizes):
    rng = np.random.default_rng(seed)
    step = random_forest(rng, Buffer("x", "i16", 3), sizes, 3, adds=adds)
    low, high = step.bounds()
    found = step.run(rows_for(step, 200, 3, rng))
    assert (low <= found).all() and (found <= high).all()
    output = step.output_of_tree()
    assert (output is not None) == (adds == "by_tree" and bool(sizes)) or adds == "rows"


# -- C ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", FOREST_LAYOUTS)
@pytest.mark.parametrize("dtype", INPUT_DTYPES)
@pytest.mark.parametrize("adds, n_out", [("rows", 1), ("rows", 4), ("by_tree", 4), ("votes", 1), ("votes", 4)])
def test_c_equals_run(layout, dtype, adds, n_out):
    rng = np.random.default_rng([len(layout), n_out, len(adds)])
    for ranks, values, sizes in ((True, "int8", (3, 0, 40)), (False, "int16", (1,)), (False, "int32", (50, 0, 2, 0))):
        options = {"sizes": sizes, "n_out": n_out, "adds": adds, "values": values, "ranks": ranks, "layout": layout}
        program = forest_program(rng, dtype=dtype, n_columns=5, **options)
        if values != "int32":
            program = with_second_forest(program, rng, layout=layout)
        assert_c_equals_run(program, hostile_rows(program, 400, rng))


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("layout", FOREST_LAYOUTS)
def test_nan_goes_the_same_way_at_every_split(layout, missing):
    rng = np.random.default_rng(3)
    step = random_forest(rng, Buffer("x", "f32", 3), (30, 30), 2, layout=layout)
    program = raw_program(step.replace(missing_right=np.full(60, missing)), 3)
    assert_c_equals_run(program, hostile_rows(program, 1000, rng))


@pytest.mark.parametrize("layout", FOREST_LAYOUTS)
@pytest.mark.parametrize("sizes", [(), (0,), (0, 0)])
def test_forests_without_splits(layout, sizes):
    rng = np.random.default_rng(4)
    for adds in ADDS:
        step = random_forest(rng, Buffer("x", "f32", 3), sizes, 2, adds=adds, layout=layout)
        program = raw_program(step, 3)
        assert_c_equals_run(program, hostile_rows(program, 5, rng))
        assert footprint_of(program).operations.get("compare", 0) == 0


@pytest.mark.parametrize("bits, spread", [(8, 200), (16, 60_000), (32, 2**31 - 1)])
@pytest.mark.parametrize("n_out", [1, 3])
def test_payloads_of_every_width(bits, spread, n_out):
    """Values that are mostly different are held in the words, in one byte, one word or two."""
    rng = np.random.default_rng(bits)
    step = random_forest(rng, Buffer("x", "u8", 5), (400,), n_out, adds="by_tree", values="int32")
    values = np.zeros_like(step.values)
    values[:, 1 % n_out] = np.linspace(-spread / 2, spread / 2, len(values)).astype(np.int64)
    step = step.replace(values=values)
    assert direct_payload(step).bits == bits
    for packed in FOREST_LAYOUTS:
        program = raw_program(step.replace(layout=packed), 5)
        assert_c_equals_run(program, hostile_rows(program, 300, rng))


def test_few_different_wide_values_stand_in_a_table():
    rng = np.random.default_rng(5)
    step = random_forest(rng, Buffer("x", "u8", 5), (300,), 1, values="int32")
    step = step.replace(values=step.values[:100], leaf=step.leaf % 100)
    payload = payload_of(step)
    assert payload.bits == 8 and len(payload.values) <= 100
    program = raw_program(step, 5)
    assert generate_c(program, outputs=("value",)).constant_bytes == 4 * 300 + payload.values.astype(np.int32).nbytes
    assert_c_equals_run(program, hostile_rows(program, 300, rng))


@pytest.mark.parametrize("adds, n_values", [("rows", 70_000), ("rows", 300), ("votes", 70_000)])
def test_more_rows_than_a_byte_or_a_word_numbers(adds, n_values):
    rng = np.random.default_rng(6)
    step = random_forest(rng, Buffer("x", "u8", 5), (90, 4), n_values if adds == "votes" else 2, adds=adds)
    leaf = rng.integers(0, n_values, size=len(step.leaf))
    leaf[0] = n_values - 1
    values = None if adds == "votes" else rng.integers(-128, 128, size=(n_values, 2)).astype(np.int8)
    step = step.replace(leaf=leaf, values=values)
    program = raw_program(step, 5)
    assert_c_equals_run(program, hostile_rows(program, 50, rng))


def test_a_tree_so_large_that_offsets_need_two_words():
    rng = np.random.default_rng(7)
    n = 40_000
    step = large_forest(rng, 1, n + 2)
    below = random_forest(rng, Buffer("x", "u8", 10), (n,), 1).children
    below = np.where(below < 0, below, below + 1)
    children = np.concatenate([[[1, n + 1]], below, [[~(n + 1), ~(n + 2)]]])  # the root's right child comes last
    step = step.replace(children=children)
    form, words, length = pack_words(step, payload_of(step))
    assert form.offset_words == 2 and len(words) == length.sum() > 0xFFFF
    program = raw_program(step, 10)
    assert_c_equals_run(program, hostile_rows(program, 2000, rng))


@pytest.mark.parametrize("side", [0, 1])
def test_a_chain_of_600_splits_compiles_everywhere(side):
    """clang refuses more than 256 nested brackets: the larger subtree is never nested."""
    n = 600
    children = np.empty((n, 2), dtype=int)
    children[:, side] = np.append(np.arange(1, n), ~n)
    children[:, 1 - side] = ~np.arange(n)
    step = random_forest(np.random.default_rng(0), Buffer("x", "u8", 1), (n,), 1, layout="code")
    step = step.replace(children=children, threshold=(np.arange(n) * 255 // n).astype(np.uint8))
    program = raw_program(step, 1)
    compiles_everywhere(program)
    assert_c_equals_run(program, np.arange(256, dtype=np.uint8)[:, None])


@pytest.mark.parametrize(
    "n_columns, largest, dtype, narrow",
    [
        (64, 255, "u8", True),
        (65, 255, "u8", False),
        (65, 127, "u8", True),
        (1000, 15, "u8", True),
        (1024, 16, "u8", False),
        (16, 1023, "u16", True),
        (17, 1023, "u16", False),
        (1, 255, "i16", False),
    ],
)
def test_a_split_is_one_word_when_its_numbers_fit_14_bits(n_columns, largest, dtype, narrow):
    rng = np.random.default_rng(8)
    step = random_forest(rng, Buffer("x", dtype, n_columns), (50, 50), 1, largest=largest)
    step.feature[0], step.threshold[0] = n_columns - 1, largest
    form, words, _ = pack_words(step, payload_of(step))
    assert bool(form.shift) == narrow and len(words) == (200 if narrow else 300)
    if dtype in INPUT_DTYPES.values():
        program = raw_program(step, n_columns)
        assert_c_equals_run(program, hostile_rows(program, 200, rng))


def test_ranks_of_two_bytes_on_the_way():
    """Ranks of more than 256 cuts are u16: the C reads them from a buffer of that type."""
    rng = np.random.default_rng(9)
    for layout in FOREST_LAYOUTS:
        program = forest_program(rng, dtype="float32", n_columns=3, sizes=(80, 9), n_out=2, layout=layout)
        binned, walk = program.steps[0], program.steps[1]
        wide = Buffer(binned.output.name, "u16", binned.output.size)
        walk = walk.replace(threshold=walk.threshold.astype(np.uint16))
        program = program.replace(steps=(binned.replace(output=wide), walk, *program.steps[2:]))
        assert_c_equals_run(program, hostile_rows(program, 300, rng))


def test_the_table_layout_names_the_features_that_it_cannot_reach():
    rng = np.random.default_rng(10)
    step = random_forest(rng, Buffer("x", "f32", 9000), (60,), 1)
    step.feature[0] = 8999
    with pytest.raises(ValueError, match=r"feature=8999 is too large.*features 0 to 8191"):
        pack_words(step, payload_of(step))
    one_way = step.replace(missing_right=np.zeros(60, bool))
    program = raw_program(one_way, 9000)
    assert_c_equals_run(program, hostile_rows(program, 20, rng))


def test_sanitizers_find_nothing_and_every_compiler_agrees():
    rng = np.random.default_rng(11)
    for layout in FOREST_LAYOUTS:
        for adds, dtype, ranks in (("rows", "float32", False), ("by_tree", "int16", True), ("votes", "uint8", False)):
            options = {"sizes": (30, 0, 8), "n_out": 3, "adds": adds, "layout": layout, "ranks": ranks}
            program = forest_program(rng, dtype=dtype, n_columns=4, **options)
            rows = hostile_rows(program, 300, rng)
            np.testing.assert_array_equal(sanitized_outputs(program, rows), program.run(rows)["label"])
            compiles_everywhere(program)


def test_the_second_input_may_overflow_without_undefined_behaviour():
    rng = np.random.default_rng(12)
    for layout in FOREST_LAYOUTS:
        program = forest_program(rng, dtype="int16", n_columns=3, sizes=(5, 5), n_out=2, adds="votes", ranks=False)
        program = with_second_forest(program, rng, layout=layout)
        first = program.steps[0].replace(start=np.array([2**31 - 3, -(2**31)], dtype=np.int32))
        program = program.replace(steps=(first, *program.steps[1:]))
        rows = hostile_rows(program, 200, rng)
        np.testing.assert_array_equal(sanitized_outputs(program, rows), program.run(rows)["label"])


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="no compiler for Cortex-M")
@pytest.mark.parametrize("layout", FOREST_LAYOUTS)
def test_the_target_needs_no_floating_point_and_little_stack(layout, tmp_path):
    rng = np.random.default_rng(13)
    options = {"sizes": (60,) * 20, "n_out": 1, "adds": "rows", "layout": layout}
    for ranks in (False, True):
        program = forest_program(rng, dtype="float32", n_columns=10, ranks=ranks, **options)
        source = generate_c(program, outputs=("label",))
        (tmp_path / "model.h").write_text(source.header)
        (tmp_path / "model.c").write_text(source.source)
        flags = ["-mcpu=cortex-m3", "-mthumb", "-Os", "-std=c99", "-fstack-usage", "-c", "model.c", "-o", "model.o"]
        subprocess.run(["arm-none-eabi-gcc", *flags], cwd=tmp_path, check=True)
        symbols = subprocess.run(
            ["arm-none-eabi-nm", "-u", "model.o"], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        assert not symbols.strip()
        stack = [int(line.split("\t")[1]) for line in (tmp_path / "model.su").read_text().splitlines()]
        assert max(stack) <= 64


# -- bytes ------------------------------------------------------------------------------------------------------------


def test_four_bytes_a_split_leaves_included():
    step = large_forest(np.random.default_rng(14), 100, 260)
    program = raw_program(step, 10)
    assert generate_c(program, outputs=("value",)).constant_bytes == 4 * 26_000  # trees of one length need no table
    uneven = random_forest(np.random.default_rng(15), Buffer("x", "u8", 10), (3, 9, 100), 1)
    assert generate_c(raw_program(uneven, 10), outputs=("value",)).constant_bytes == 4 * 112 + 3


def test_boosting_of_many_classes_holds_numbers_and_not_rows():
    rng = np.random.default_rng(16)
    step = random_forest(rng, Buffer("x", "u8", 10), (15,) * 60, 20, adds="by_tree")
    constants = generate_c(raw_program(step, 10), outputs=("value",)).constant_bytes
    assert constants == 4 * 60 * 15 + 60 + 20 * 2  # the output of each tree and the start


@pytest.mark.parametrize("layout", FOREST_LAYOUTS)
@pytest.mark.parametrize("adds, n_out", [("rows", 1), ("rows", 5), ("by_tree", 5), ("votes", 5)])
def test_footprints_are_near_what_the_compiler_makes(layout, adds, n_out):
    rng = np.random.default_rng(17)
    options = {"sizes": (90,) * 12, "n_out": n_out, "adds": adds, "layout": layout, "ranks": False}
    program = forest_program(rng, dtype="uint8", n_columns=12, **options)
    program = program.replace(steps=(with_useful_splits(program.steps[0], rng, 12, 255), *program.steps[1:]))
    price = footprint_of(program)
    sizes = CompiledProgram(program, outputs=("label",)).section_sizes()
    assert abs(sizes["text"] + sizes["data"] - price.flash_bytes) < max(100, 0.1 * price.flash_bytes)


def test_functions_of_trees_are_counted_once_for_all_outputs():
    rng = np.random.default_rng(18)
    program = forest_program(rng, dtype="uint8", n_columns=5, sizes=(200,) * 5, n_out=3, layout="code")
    both = footprint_of(program, outputs=("label", "proba")).code_bytes
    alone = footprint_of(program, outputs=("label",)).code_bytes
    assert alone < both < 1.3 * alone


def test_26000_splits_print_quickly():
    import time

    for layout in FOREST_LAYOUTS:
        program = raw_program(large_forest(np.random.default_rng(19), 100, 260).replace(layout=layout), 10)
        begin = time.process_time()
        generate_c(program, outputs=("value",))
        assert time.process_time() - begin < 3  # 0.1 to 0.2 s where this was written


# -- validity and storage ---------------------------------------------------------------------------------------------


def test_a_forest_is_stored_and_read_back(tmp_path):
    rng = np.random.default_rng(20)
    for adds in ADDS:
        program = forest_program(rng, dtype="float32", n_columns=3, sizes=(7, 0, 3), n_out=2, adds=adds)
        program.save(tmp_path / "forest.effml")
        loaded = Program.load(tmp_path / "forest.effml")
        assert loaded.fingerprint() == program.fingerprint()
        assert generate_c(loaded).source == generate_c(program).source
    assert f"{ForestWalk.__module__}.{ForestWalk.__name__}" in TRUSTED_TYPES


def two_trees(**changes):
    fields = {
        "inputs": ("x",),
        "output": Buffer("sums", "i32", 1),
        "feature": np.array([0, 1, 0]),
        "threshold": np.array([1, 2, 3], dtype=np.uint8),
        "children": np.array([[1, ~0], [~1, ~2], [~3, ~4]]),
        "roots": np.array([0, 2]),
        "missing_right": np.zeros(3, dtype=bool),
        "leaf": np.arange(5),
        "values": np.array([[5], [6], [7], [8], [9]], dtype=np.int16),
        "start": np.array([100], dtype=np.int32),
    }
    return ForestWalk(**(fields | changes))


def test_two_trees_by_hand():
    rows = np.array([[0, 0], [0, 9], [2, 0], [9, 9]], dtype=np.uint8)
    np.testing.assert_array_equal(two_trees().run(rows)[:, 0], [100 + 6 + 8, 100 + 7 + 8, 100 + 5 + 8, 100 + 5 + 9])
    words = pack_words(two_trees(), payload_of(two_trees()))[1]
    leaf = {5: 0, 6: 1, 7: 2, 8: 3, 9: 4}  # less the smallest
    expected = [0x8001, leaf[5] * 0x101, 0xC102, leaf[6] | leaf[7] << 8, 0xC003, leaf[8] | leaf[9] << 8]
    np.testing.assert_array_equal(words, expected)
    assert repr(two_trees()) == "sums: i32[1] = ForestWalk(x)  # 2 trees, 3 splits, depth 2, table"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"layout": "tabel"}, "layout='tabel' must be one of"),
        ({"output": Buffer("sums", "i16", 1)}, "'i16'; a ForestWalk writes 'i32'"),
        ({"threshold": np.array([1, 2], dtype=np.uint8)}, r"threshold has shape \(2,\)"),
        ({"threshold": np.array([1.0, 2.0, 3.0])}, "got float64"),
        ({"threshold": np.float32([1, np.nan, 3])}, "without NaN"),
        ({"feature": np.array([0.0, 1.0, 0.0])}, "feature has type float64"),
        ({"feature": np.array([0, -1, 0])}, "feature=-1 must not be negative"),
        ({"missing_right": np.zeros(3, dtype=int)}, "missing_right has type int64"),
        ({"children": np.array([[1, ~0], [~1, 7], [~3, ~4]])}, "between -5 and 2"),
        ({"children": np.array([[1, ~5], [~1, ~2], [~3, ~4]])}, "between -5 and 2"),
        ({"children": np.array([[1, ~0], [~1, 0], [~3, ~4]])}, "larger numbers"),
        ({"children": np.array([[1, 1], [~1, ~2], [~3, ~4]])}, "every split once"),
        ({"roots": np.array([0])}, "every split once"),
        ({"leaf": np.array([0, 1, 2, 3, 5])}, "leaf must lie between 0 and 4, got 0 to 5"),
        ({"votes": True}, "votes=True needs values to be None"),
        ({"values": None}, "votes=False needs values to be an array"),
        ({"values": np.zeros((5, 2), dtype=np.int8)}, r"values is int8 of shape \(5, 2\)"),
        ({"values": np.zeros((5, 1))}, "values is float64"),
        ({"start": np.zeros(2, dtype=np.int32)}, r"start has shape \(2,\)"),
        ({"values": np.full((5, 1), 2**30, dtype=np.int32)}, "sums from 100 to 2147483748, which int32 cannot hold"),
        ({"start": np.array([-(2**31)], np.int32), "values": np.full((5, 1), -1, np.int8)}, "int32 cannot hold"),
    ],
)
def test_bad_arrays_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        two_trees(**changes)


def test_a_format_is_chosen_without_splits():
    step = random_forest(np.random.default_rng(0), Buffer("x", "u8", 3), (0,), 1)
    assert word_format(step, 8).header == 1


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_instruction_set_gives_the_same_sums(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    dtype = data.draw(st.sampled_from(["f32", "u8", "i16"]))
    splits = data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=6))
    step = random_forest(rng, Buffer("x", dtype, 4), tuple(splits), data.draw(st.sampled_from([1, 3, 9])))
    rows = rows_for(step, data.draw(st.sampled_from([1, 31, 33, 300])), 4, rng)
    expected = plain_walk(step, rows)
    for level in range(FASTEST + 1):
        with mock.patch.object(forests, "FASTEST", level):
            np.testing.assert_array_equal(step.run(rows), expected)
