"""What an emulated microcontroller computes: every held-out row as in Python, bit for bit, within the stated bounds."""

from functools import cache

import numpy as np
import pytest
from common.c_proof import hostile_rows
from common.devices import need
from common.every_step import covering
from common.random_networks import network_program
from numpy.testing import assert_array_equal
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import effml
from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.forests import DecisionSnippetClassifier
from effml.itemsets import ItemsetSparseBayesRegressor
from effml.kernels import LocalizedMKLClassifier
from effml.neural import QuantizedConvClassifier, QuantizedMLPClassifier
from effml.program import CompileError, generate_c, with_input_dtype
from effml.program.targets import TARGETS, build, run_on_device, run_program
from effml.program.targets.firmware import entry_of, section_bytes
from effml.program.targets.measure import measure_program
from effml.program.targets.worst_case import BoundError, worst_case_instructions

COUNTING = [name for name, target in TARGETS.items() if target.counts == "instructions"]
UNBOUNDED = {  # functions of the compiler's library
    "riscv32": "__divsf3 jumps to an address that is computed",
    "cortex-m0": "is entered in its middle",  # division of integers of 64 bits, which layer norm takes
}
FEW = {"max_iter": 5, "random_state": 0}
SIGNS = QuantizedMLPClassifier(hidden_layer_sizes=(40,), weight_bits=1, activation="sign", **FEW)
CLIPPED = QuantizedMLPClassifier(hidden_layer_sizes=(16,), weight_bits=3, activation_bits=4, **FEW)
# name: (estimator, input type, options of lower, rows on AVR)
MODELS = {
    "naive Bayes": (NaiveBayesClassifier(n_bits=4, max_bins=4), "uint8", {}, 200),
    "TAN": (TANClassifier(n_bits=3, max_bins=4), "uint8", {}, 200),
    "snippets": (DecisionSnippetClassifier(n_estimators=6, max_depth=4, random_state=0), "uint8", {}, 200),
    "forest": (RandomForestClassifier(8, max_depth=6, random_state=0), "float32", {"leaf_bits": 8}, 200),
    "forest code": (RandomForestClassifier(8, max_depth=6, random_state=0), "int16", {"layout": "code"}, 200),
    "boosting": (GradientBoostingClassifier(n_estimators=4, random_state=0), "float32", {}, 200),
    "kernels": (LocalizedMKLClassifier(n_landmarks=12, max_iter=4, random_state=0), "float32", {}, 5),
    "linear": (make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)), "float32", {}, 60),
    "signs": (SIGNS, "uint8", {}, 40),
    "network": (CLIPPED, "float32", {}, 40),
    "images": (QuantizedConvClassifier(image_shape=(8, 8), channels=(6,), weight_bits=2, **FEW), "uint8", {}, 8),
    "quantised linear": (make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)), "uint8", {}, 60),
    "quantised network": (MLPClassifier((16,), max_iter=30, random_state=0), "uint8", {}, 60),
    "itemsets": (ItemsetSparseBayesRegressor(n_bins=4, random_state=0), "float32", {}, 100),
}


@cache
def fitted(name):
    """Return a model fitted on two thirds of real data, its program, and the held-out rows."""
    estimator, dtype, options, _ = MODELS[name]
    X, y = load_diabetes(return_X_y=True) if name == "itemsets" else load_digits(return_X_y=True)
    held_out = np.arange(len(X)) % 3 == 2
    model = estimator.fit(X[~held_out], y[~held_out])
    if name.startswith("quantised"):
        model = effml.quantize(model, X[~held_out], weight_bits=4)
    return model, with_input_dtype(effml.lower(model, **options), dtype), X[held_out].astype(np.float32)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("target", TARGETS)
def test_every_held_out_row_is_predicted_as_in_python(target, name):
    need(target)
    model, program, X = fitted(name)
    if target == "avr":
        X = X[: MODELS[name][3]]
    run = run_program(program, program.encode(X), target=target)
    expected = program.run(program.encode(X))[program.main_output]
    assert_array_equal(run.results, expected)
    if name == "itemsets":
        tolerance = program.outputs["value"].tolerance
        assert np.abs(run.results[:, 0] - model.predict(X)).max() <= tolerance
    else:
        assert_array_equal(np.asarray(program.classes)[run.results[:, 0]], model.predict(X))


@pytest.mark.parametrize("target", TARGETS)
def test_every_step_computes_the_same_bits(target):
    need(target)
    rng = np.random.default_rng(sum(map(ord, target)))
    for program in covering(rng):
        rows = hostile_rows(program, 25, rng)
        expected = program.run(rows)
        for output in ("label", "proba"):
            found = run_program(program, rows, target=target, output=output).results
            assert_array_equal(found, expected[output], err_msg=f"{output} of {program!r}")


@pytest.mark.parametrize("n_bits", range(1, 9))
@pytest.mark.parametrize("target", TARGETS)
def test_networks_of_every_width_compute_the_same_bits(target, n_bits):
    need(target)
    rng = np.random.default_rng([sum(map(ord, target)), n_bits])
    given = {"n_columns": 20, "n_out": 4, "n_bits": n_bits}
    for activations, image_shape in ((("u32", "wide"), None), (("narrow", "i8"), (5, 4, 2))):
        dtype = str(rng.choice(["uint8", "int16", "float32"]))
        program = network_program(rng, dtype=dtype, activations=activations, image_shape=image_shape, **given)
        rows = hostile_rows(program, 15, rng)
        found = run_program(program, rows, target=target, output="score").results
        assert_array_equal(found, program.run(rows)["score"])


@pytest.mark.parametrize("target", COUNTING)
def test_no_row_takes_more_instructions_than_the_bound(target):
    need(target)
    rng = np.random.default_rng(sum(map(ord, target)) + 1)
    for program in [*(fitted(name)[1] for name in MODELS), *covering(rng)]:
        try:
            bound = worst_case_instructions(program, target=target)
        except BoundError as error:
            assert UNBOUNDED[target] in str(error)
            continue
        rows = hostile_rows(program, 60, rng)
        assert run_program(program, rows, target=target).counts.max() <= bound, program


@pytest.mark.parametrize("target", COUNTING)
def test_the_bound_counts_loops_around_unrolled_ones(target):
    """57 columns, one sum: no loop over the sums is left in the machine code."""
    need(target)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 57)).astype(np.float32)
    program = effml.lower(LogisticRegression().fit(X, X[:, 0] > 0))
    assert run_program(program, X, target=target).counts.max() <= worst_case_instructions(program, target=target)


def test_far_jumps_of_small_processors_are_no_calls():
    need("cortex-m0")
    X, y = load_digits(return_X_y=True)
    program = effml.lower(RandomForestClassifier(3, random_state=0).fit(X, y), layout="code")
    rows = X[:50].astype(np.float32)
    counts = run_program(program, rows, target="cortex-m0").counts
    assert counts.max() <= worst_case_instructions(program, target="cortex-m0") < 10 * counts.max()


def test_the_bound_is_tight_where_all_rows_take_the_same_way():
    need("cortex-m4f")
    _, program, X = fitted("linear")
    counts = run_program(program, program.encode(X), target="cortex-m4f").counts
    assert counts.max() <= worst_case_instructions(program, target="cortex-m4f") <= 1.25 * counts.max()


@pytest.mark.parametrize("target", TARGETS)
def test_the_stated_stack_is_never_exceeded(target):
    need(target)
    for name in MODELS:
        _, program, X = fitted(name)
        measured = measure_program(program, target=target)
        used = run_program(program, program.encode(X[:20]), target=target).stack_bytes
        assert 0 < used <= measured.stack_bytes <= used + 48, name


@pytest.mark.parametrize("target", TARGETS)
def test_tables_stay_in_flash(target):
    need(target, emulator=False)
    for name in MODELS:
        program = fitted(name)[1]
        measured = measure_program(program, target=target)
        assert measured.data_bytes == 0, name
        footprint = effml.footprint(program, target=target, input_dtype=program.input_dtype)
        assert footprint.basis == f"measured with {measured.compiler}"
        assert footprint.flash_bytes == measured.flash_bytes == measured.code_bytes + measured.constant_bytes
        analytic = effml.footprint(program, input_dtype=program.input_dtype).constant_bytes
        assert abs(footprint.constant_bytes - analytic) <= 64 + 0.01 * analytic, (
            name
        )  # alignment; small tables become code


SECTION = '-DMODEL_CONST_ATTR=__attribute__((section(".rodata.tables")))'


@pytest.mark.parametrize(
    "target, flag",
    [("avr", "-DMODEL_CONST_SPACE=__memx"), ("avr", "-DMODEL_CONST_SPACE="), ("cortex-m3", SECTION)],
    ids=["far flash", "RAM", "section"],
)
@pytest.mark.parametrize("name", ["naive Bayes", "TAN", "boosting", "itemsets"])
def test_tables_can_be_placed_elsewhere(target, flag, name, tmp_path):
    profile = need(target)
    _, program, X = fitted(name)
    rows = program.encode(X[:40])
    source = generate_c(program, outputs=(program.main_output,))
    model = build(profile, source, tmp_path, flags=("-Os", flag))
    assert (section_bytes(profile, model)["data"] > 0) == (flag == "-DMODEL_CONST_SPACE=")
    if target == "cortex-m3":
        assert b".rodata.tables" in model.read_bytes()
    run = run_on_device(profile, [model], entry_of(program, source, program.main_output), rows, tmp_path)
    assert_array_equal(run.results, program.run(rows)[program.main_output])


def test_counts_are_the_same_in_every_run():
    need("cortex-m3")
    _, program, X = fitted("TAN")
    rows = program.encode(X)
    first, second = (run_program(program, rows, target="cortex-m3") for _ in range(2))
    assert_array_equal(first.counts, second.counts)
    assert first.counts.min() > 0


def test_a_model_that_does_not_fit_the_board_is_refused():
    need("cortex-m0")
    X, y = load_digits(return_X_y=True)
    forest = RandomForestClassifier(400, random_state=0).fit(X, y)
    program = effml.lower(forest)
    with pytest.raises(CompileError, match="ROM"):
        run_program(program, program.encode(X[:2]), target="cortex-m0")
