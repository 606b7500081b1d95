"""Programs as objects: validity, pruning, storage, documentation, prices."""

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
from common.c_proof import assert_c_equals_run, compiles_everywhere, hostile_rows
from common.random_programs import classifier, linear_program, tree_program
from hypothesis import given
from hypothesis import strategies as st

from effml.program import Buffer, CompiledProgram, InputSpec, Output, Program, footprint_of, generate_c, write_files
from effml.program.cgen import arena
from effml.program.cwriter import c_comment, c_string, check_c_name, key_of_float32
from effml.program.frame import round_down_float32
from effml.program.passes import integer_threshold
from effml.program.steps import ArgBest, QuantizeInput, Select
from effml.program.steps.lookup import pack_fields
from effml.program.steps.outputs import exp_float32

FLOATS = st.floats(width=32, allow_nan=False)


@pytest.fixture
def program():
    return classifier(
        np.random.default_rng(0), dtype="float32", n_columns=4, n_out=3, n_bits=4, layout="dense", parents=True
    )


@given(FLOATS, FLOATS)
def test_keys_order_floats(a, b):
    keys = key_of_float32(np.float32([a, b]))
    assert (keys[0] <= keys[1]) == (np.float32(a) <= np.float32(b))


@given(st.floats(allow_nan=False, allow_infinity=False), FLOATS)
def test_thresholds_rounded_down_compare_alike_for_every_float32(threshold, x):
    rounded = round_down_float32([threshold])[0]
    assert (np.float32(x) <= rounded) == (float(np.float32(x)) <= threshold)


@given(FLOATS, st.sampled_from(["uint8", "int16", "int32"]), st.data())
def test_integer_thresholds_compare_alike_for_every_integer(threshold, dtype, data):
    info = np.iinfo(dtype)
    limit = int(integer_threshold([threshold], dtype)[0])
    inside = info.min <= limit <= info.max
    low, high = (max(info.min, limit - 3), min(info.max, limit + 3)) if inside else (info.min, info.max)
    value = data.draw(st.integers(low, high))
    assert (value <= limit) == (np.float32(value) <= np.float32(threshold))


@given(st.lists(st.integers(0, 255), max_size=40), st.integers(1, 8))
def test_packed_fields_can_be_read_back(values, width):
    values = np.array(values, dtype=np.uint8) & ((1 << width) - 1)
    bits = np.unpackbits(pack_fields(values, width), bitorder="little")[: len(values) * width]
    found = (bits.reshape(-1, width) << np.arange(width)).sum(axis=1) if len(values) else values
    np.testing.assert_array_equal(found, values)


def test_exp_is_within_two_units_in_the_last_place():
    x = np.linspace(-87, 88, 200_001, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(exp_float32(x) - exact) / exact).max() < 2e-7
    assert np.isnan(exp_float32(np.float32([np.nan])))[0]


@given(st.text(max_size=60))
def test_no_text_ends_a_comment_or_a_string(text):
    comment = c_comment(text)
    assert "*/" not in comment and "/*" not in comment and "??" not in comment and comment.isprintable()
    literal = c_string(text)
    assert re.fullmatch(r'"(?:[^"\\]|\\[0-7]{3})*"', literal) and literal.isascii()


@pytest.mark.parametrize(
    "name", ["", "9lives", "a-b", "int", "a b", "x" * 80, "über", "a__b", "class", "stdint", None, 3]
)
def test_names_that_are_no_c_identifiers(name):
    with pytest.raises(ValueError, match="name="):
        check_c_name(name)


def test_hostile_labels_and_column_names_compile_in_c_and_cpp(program):
    labels = ('quote " and \\', "end */ /* of comment ??/", "line\nbreak\ttab \x00 nul ü 漢")
    names = ("*/ int main(void) {}", "??/", "\\", 'n"a\nme')
    hostile = program.replace(classes=labels, inputs=tuple(InputSpec(n) for n in names), source="*/ bad \\\n//")
    compiles_everywhere(hostile)
    source = generate_c(hostile)
    test = source.header + "\n#include <stdio.h>\nint main(void) { puts(model_labels[2]); return 0; }\n"
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "labels.c").write_text("#define MODEL_WITH_LABELS\n" + test)
        subprocess.run(["cc", "labels.c", "-o", "labels"], cwd=folder, check=True)
        printed = subprocess.run([f"{folder}/labels"], capture_output=True, check=True).stdout
    assert printed == b"line\nbreak\ttab \n"  # puts stops at the nul that the label holds


def test_outputs_that_are_not_asked_for_cost_nothing(program):
    pruned = program.with_outputs("label")
    assert {step.output.name for step in pruned.steps} == {"code", "scores", "label"}
    assert "float" not in generate_c(pruned.replace(input_dtype="float32"), outputs=("label",)).source.split("key")[-1]


def test_buffers_share_storage_only_when_never_alive_together(program):
    last = {}
    for position, step in enumerate(program.steps):
        for name in step.inputs:
            last[name] = position
    for output in program.outputs.values():
        last[output.buffer] = len(program.steps)
    first = {step.output.name: position for position, step in enumerate(program.steps)}
    slots = arena(program)
    assert sorted(b.name for slot in slots for b in slot.buffers) == sorted(first)
    for slot in slots:
        spans = sorted((first[b.name], last[b.name]) for b in slot.buffers)
        assert all(end < start for (_, end), (start, _) in itertools.pairwise(spans))


def test_save_and_load_give_the_same_program(program, tmp_path):
    rng = np.random.default_rng(1)
    others = [
        tree_program(rng, dtype="int16", n_columns=3, n_splits=9, n_out=3),
        linear_program(rng, dtype="uint8", n_columns=3, n_out=4, integer=True),
    ]
    for number, original in enumerate([program, *others]):
        path = tmp_path / f"{number}.effml"
        original.save(path)
        loaded = Program.load(path)
        assert loaded.fingerprint() == original.fingerprint()
        rows = hostile_rows(original, 100, rng)
        for output, values in original.run(rows).items():
            np.testing.assert_array_equal(loaded.run(rows)[output], values)
        assert generate_c(loaded).source == generate_c(original).source


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b'{"format": 1}'])
def test_files_that_are_no_programs_are_refused(content, tmp_path):
    path = tmp_path / "bad.effml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.effml is not an effml program"):
        Program.load(path)


def test_programs_check_their_steps():
    label = ArgBest(inputs=("nowhere",), output=Buffer("label", "u8", 1), n_inputs=2)
    with pytest.raises(ValueError, match="before it is written"):
        Program(inputs=(InputSpec("a"),), steps=(label,), outputs={})
    select = Select(inputs=("x",), output=Buffer("y", "f32", 1), columns=np.array([0]))
    with pytest.raises(ValueError, match="twice"):
        Program(inputs=(InputSpec("a"),), steps=(select, select), outputs={})
    with pytest.raises(ValueError, match="unknown buffer"):
        Program(inputs=(InputSpec("a"),), steps=(select,), outputs={"value": Output("z")})
    with pytest.raises(ValueError, match="input_dtype='float64'"):
        Program(inputs=(InputSpec("a"),), steps=(select,), outputs={}, input_dtype="float64")


def test_rows_of_the_wrong_type_or_shape_are_refused(program):
    with pytest.raises(TypeError, match="float64"):
        program.run(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="shape"):
        program.run(np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(TypeError, match="expected float32"):
        CompiledProgram(program).run(np.zeros((2, 4)))


def test_integer_rows_reject_what_the_type_cannot_hold(program):
    from effml.program import with_input_dtype

    small = with_input_dtype(program, "uint8")
    with pytest.raises(ValueError, match=r"cannot hold 300 of column 'x1'.*from 0 to 255"):
        small.encode(np.array([[1, 300, 0, 0]]))
    with pytest.raises(ValueError, match="nan"):
        small.encode(np.array([[np.nan, 3, 0, 0]]))


def test_files_are_written_all_or_none(tmp_path):
    folder = tmp_path / "new"
    with pytest.raises(OSError):
        write_files(folder, {"a.txt": "a", "a.txt/is/no/folder.txt": "b"})
    assert not folder.exists()
    write_files(folder, {"a.txt": "a", "b.bin": b"b"})
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.bin"]


def test_footprints_are_near_what_the_compiler_makes():
    rng = np.random.default_rng(2)
    for layout, n_bits, parents in (("byte", 8, False), ("dense", 5, True), ("swar", 4, False), ("float", 32, True)):
        made = classifier(
            rng, dtype="float32", n_columns=16, n_out=10, n_bits=n_bits, layout=layout, parents=parents, plain=True
        )
        price = footprint_of(made)
        sizes = CompiledProgram(made, outputs=("label",)).section_sizes()
        assert price.constant_bytes + price.code_bytes == price.flash_bytes
        assert abs(sizes["text"] + sizes["data"] - price.flash_bytes) < max(150, 0.1 * price.flash_bytes)
        assert price.operations["add"] == 16 * 10
        table = made.steps[1]
        assert price.n_parameters == table.table.size + (0 if table.start is None else table.start.size)


def test_fused_multiply_add_cannot_change_results(tmp_path):
    """The pragmas hold where a user compiles with GNU defaults for a machine that has fused multiply-add."""
    rng = np.random.default_rng(3)
    program = linear_program(rng, dtype="float32", n_columns=9, n_out=4, integer=False)
    try:
        assert_c_equals_run(program, hostile_rows(program, 500, rng), flags=("-O3", "-std=gnu99", "-mfma"))
    except Exception as error:
        if "mfma" not in str(error):
            raise
        pytest.skip("the compiler has no -mfma")


def test_importing_the_package_is_cheap():
    code = "import sys, effml; print(any(m in sys.modules for m in ('numpy', 'sklearn', 'scipy', 'pandas', 'torch')))"
    assert (
        subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


# -- inputs of networks -----------------------------------------------------------------------------------------------


@given(st.data())
def test_the_scaling_of_integer_inputs_becomes_integer_arithmetic_only_where_that_is_the_same(data):
    finite = st.floats(-300, 300, width=32, allow_subnormal=False)
    n = data.draw(st.integers(1, 4))
    scale = np.array(data.draw(st.lists(finite, min_size=n, max_size=n)), dtype=np.float32)
    offset = np.array(data.draw(st.lists(finite, min_size=n, max_size=n)), dtype=np.float32)
    if data.draw(st.booleans()):  # as networks have them: all of a column's range within the levels
        scale = np.abs(scale) / 300
    step = QuantizeInput(
        output=Buffer("q", "u8", n),
        inputs=("x",),
        columns=np.arange(n),
        scale=scale,
        offset=offset,
        largest=data.draw(st.sampled_from([1, 15, 255])),
    )
    dtype = np.dtype(data.draw(st.sampled_from(["uint8", "int16", "int32"])))
    whole = step.on_integers(dtype)
    info = np.iinfo(dtype if dtype.itemsize <= 2 else np.int16)
    rows = np.repeat(np.arange(info.min, info.max + 1).astype(dtype)[:, None], n, axis=1)
    np.testing.assert_array_equal(whole.run(rows), step.run(rows))
    if whole.shift is None:
        assert whole is step
    else:
        sums = rows.astype(np.int64) * whole.scale + whole.offset
        assert np.abs(sums).max() < 2**31 and dtype.itemsize <= 2


def test_standard_scaling_of_bytes_becomes_integer_arithmetic():
    rng = np.random.default_rng(0)
    scale = 32 / rng.uniform(10, 100, 50)
    step = QuantizeInput(
        output=Buffer("q", "u8", 50),
        inputs=("x",),
        columns=np.arange(50),
        scale=scale.astype(np.float32),
        offset=np.float32(128.5 - rng.uniform(0, 255, 50) * scale),
        largest=255,
    )
    whole = step.on_integers(np.uint8)
    assert whole.shift is not None
    assert whole.cost().bits <= step.cost().bits
