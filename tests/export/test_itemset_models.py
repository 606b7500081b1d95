"""Itemset models as Programs and C: memberships exact, values up to float32 rounding, only what conditions read."""

import numpy as np
import pandas as pd
import pytest
from common.c_proof import assert_c_equals_run, compiles_everywhere, hostile_rows, sanitized_outputs
from common.itemset_states import random_model
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder, PowerTransformer, StandardScaler

import effml
from effml.itemsets import ItemsetSparseBayesRegressor
from effml.program import CompiledProgram, LoweringError, Output, Program, footprint_of, with_input_dtype
from effml.program.steps import Bin, ItemsetMatch

SCALES = {"float32": 1.0, "uint8": 60.0, "int16": 9e3, "int32": 8e8}


def buffer_of(program, name, rows):
    return program.replace(outputs={name: Output(name)}).run(rows)[name]


def step_of(program, kind):
    return next(step for step in program.steps if isinstance(step, kind))


def matches(program, rows):
    return buffer_of(program, "miss", rows) == 0


def assert_same_numbers(program, model, rows, seen):
    """Compare memberships exactly and values within the program's own bound."""
    n_itemsets = len(model.conditions_)
    phi = model.transform(seen)
    if n_itemsets:
        assert_array_equal(matches(program, rows), phi[:, :n_itemsets] == 1)
    error = np.abs(program.run(rows)["value"][:, 0].astype(np.float64) - model.predict(seen))
    assert program.outputs["value"].tolerance < 1e-4 * (1 + np.abs(model.coef_).sum())
    assert error.max() <= program.outputs["value"].tolerance


@pytest.mark.parametrize("seed", range(12))
def test_program_matches_what_python_matches(seed):
    rng = np.random.default_rng(seed)
    levels = [np.arange(4.0), np.array([-2.5, 0.0, 3.0, 10.0])][: seed % 3]
    model = random_model(rng, levels=levels, n_itemsets=int(rng.integers(1, 40)), n_linear=seed % 4)
    program = effml.lower(model)
    rows = hostile_rows(program, 400, rng)
    rows[:200] = np.round(rng.normal(size=(200, 6)) * 2, 1)
    assert_same_numbers(program, model, rows, rows)
    assert_c_equals_run(program, rows)


@pytest.mark.parametrize("dtype", SCALES)
@pytest.mark.parametrize("options", [{}, {"weight_bits": 8}, {"std": True}, {"std": True, "weight_bits": 3}], ids=str)
def test_c_equals_run_for_every_input_type(dtype, options):
    rng = np.random.default_rng(len(str(options)))
    for n_linear in (0, 3):
        levels = [np.arange(5)]
        model = random_model(rng, scale=SCALES[dtype], levels=levels, n_linear=n_linear, whole=dtype != "float32")
        program = with_input_dtype(effml.lower(model, **options), dtype)
        rows = hostile_rows(program, 400, rng)
        assert_c_equals_run(program, rows)
        assert_array_equal(matches(program, rows), model.transform(rows.astype(np.float32))[:, :12] == 1)
        expected = effml.lower(model, **options).run(rows.astype(np.float32))
        for name, values in program.run(rows).items():
            assert_array_equal(values, expected[name])


def test_text_levels_missing_and_unknown_values():
    rng = np.random.default_rng(3)
    levels = [np.array(["green", "red", "blue"]), np.array(["a", "b", "c", "d", "e"])]
    model = random_model(rng, levels=levels, n_itemsets=25, n_features=4)
    table = pd.DataFrame(
        {
            "colour": rng.choice(["green", "red", "blue", "pink"], 300),
            "letter": rng.choice(["a", "b", "c", "d", "e", None], 300),
            "u": rng.normal(size=300).astype(np.float32),
            "v": rng.normal(size=300).astype(np.float32),
        }
    )
    table.loc[::7, "u"] = np.nan
    model.feature_names_in_ = np.array(table.columns, dtype=object)
    program = effml.lower(model)
    rows = program.encode(table)
    assert_same_numbers(program, model, rows, table)
    assert_c_equals_run(program, np.concatenate([rows, hostile_rows(program, 200, rng)]))
    assert effml.compile_c(model).agreement(table).n_equal == 300
    assert program.inputs[0].categories == ("green", "red", "blue")


def test_std_is_that_of_python():
    rng = np.random.default_rng(4)
    for n_itemsets, n_linear in ((30, 4), (8, 0), (0, 3)):
        model = random_model(rng, n_itemsets=n_itemsets, n_linear=n_linear)
        program = effml.lower(model, std=True)
        rows = rng.normal(size=(300, 6)).astype(np.float32)
        rows[::9, 2] = np.nan
        mean, std = model.predict(rows, return_std=True)
        found = program.run(rows)
        assert_allclose(found["std"][:, 0], std, rtol=2e-6)
        assert_allclose(found["value"][:, 0], mean, atol=1e-5)
        assert_c_equals_run(program, hostile_rows(program, 200, rng))
        assert program.main_output == "value"


def test_std_ships_only_directions_that_can_change_it():
    rng = np.random.default_rng(5)
    model = random_model(rng, n_itemsets=20, n_linear=0)
    root = rng.normal(size=(20, 3))
    model.sigma_ = root @ root.T + 1e-12 * np.eye(20)
    program = effml.lower(model, std=True)
    assert program.buffers["spread"].size == 3
    rows = rng.normal(size=(200, 6)).astype(np.float32)
    assert_allclose(program.run(rows)["std"][:, 0], model.predict(rows, return_std=True)[1], rtol=2e-6)
    model.sigma_ = np.zeros((20, 20))
    constant = effml.lower(model, std=True)
    assert_allclose(constant.run(rows)["std"], np.sqrt(0.04 * (1 + 1 / 200)), rtol=1e-7)
    assert_c_equals_run(constant, rows)


def test_always_and_never_matching_itemsets_become_constants():
    rng = np.random.default_rng(6)
    model = random_model(rng, n_itemsets=5, n_linear=1)
    width = len(model.cuts_[0]) + 1
    model.conditions_[1] = [(0, np.zeros(width, dtype=bool))]
    model.conditions_[2] = []
    program = effml.lower(model, std=True)
    assert step_of(program, ItemsetMatch).output.size == 3
    rows = hostile_rows(program, 300, rng)
    mean, std = model.predict(rows, return_std=True)
    assert_allclose(program.run(rows)["value"][:, 0], mean, atol=1e-5)
    assert_allclose(program.run(rows)["std"][:, 0], std, rtol=2e-6)


@pytest.mark.parametrize("options", [{}, {"std": True}, {"weight_bits": 8}], ids=str)
@pytest.mark.parametrize("n_itemsets, n_linear", [(0, 0), (0, 2), (3, 0)])
def test_models_of_few_terms(n_itemsets, n_linear, options):
    rng = np.random.default_rng(7)
    model = random_model(rng, n_itemsets=n_itemsets, n_linear=n_linear)
    program = effml.lower(model, **options)
    rows = hostile_rows(program, 200, rng)
    mean, std = model.predict(rows, return_std=True)
    assert_allclose(program.run(rows)["value"][:, 0], mean, atol=program.outputs["value"].tolerance)
    if "std" in options:
        assert_allclose(program.run(rows)["std"][:, 0], std, rtol=2e-6)
    assert_c_equals_run(program, rows)
    compiles_everywhere(program)


# -- weights of few bits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_bits", [2, 4, 8])
@pytest.mark.parametrize("n_linear", [0, 3])
def test_integer_weights_stay_within_their_bound(n_linear, weight_bits):
    rng = np.random.default_rng([8, weight_bits, n_linear])
    model = random_model(rng, n_itemsets=40, n_linear=n_linear)
    program = effml.lower(model, weight_bits=weight_bits)
    rows = rng.normal(size=(2000, 6)).astype(np.float32)
    value, tolerance = program.run(rows)["value"][:, 0], program.outputs["value"].tolerance
    error = value - model.predict(rows)
    largest = np.abs(model.coef_[:40]).max() / (2 ** (weight_bits - 1) - 1)  # the unit of the integers
    assert np.abs(error).max() <= tolerance <= 40 * largest / 2
    compiled = effml.compile_c(model, weight_bits=weight_bits)
    assert compiled.agreement(rows).n_equal == len(rows)
    if n_linear == 0:
        output = program.outputs["sum"]
        summed = program.run(rows)["sum"][:, 0]
        assert summed.dtype == np.int32
        assert_allclose((summed - output.zero_point) * output.scale, value, rtol=1e-6, atol=1e-6)
        assert_array_equal(compiled.compiled.run(rows, "sum")[:, 0], summed)
        assert program.notes[1] == f"value = (sum - {output.zero_point:.9g}) * {output.scale:.9g}"


def test_integer_weights_take_one_byte_instead_of_four():
    model = random_model(np.random.default_rng(9), n_itemsets=60, n_linear=0)
    exact, small = effml.footprint(model), effml.footprint(model, weight_bits=8)
    assert 170 < exact.constant_bytes - small.constant_bytes < 60 * 3
    assert small.flash_bytes < exact.flash_bytes


def test_the_intercept_takes_up_the_mean_rounding_error():
    rng = np.random.default_rng(10)
    model = random_model(rng, n_itemsets=30, n_linear=0)
    rows = rng.normal(size=(5000, 6)).astype(np.float32)
    model.term_means_ = model.transform(rows).mean(axis=0)
    error = effml.lower(model, weight_bits=3).run(rows)["value"][:, 0] - model.predict(rows)
    assert abs(error.mean()) < 1e-5 < 0.05 < error.std()


# -- what is shipped --------------------------------------------------------------------------------------------------


def test_only_cuts_and_levels_that_conditions_tell_apart_are_shipped():
    rng = np.random.default_rng(11)
    model = random_model(rng, n_features=5, levels=[np.arange(9.0)], max_cuts=12, n_linear=0, n_itemsets=2)
    model.cuts_[2] = np.arange(8.0)
    model.cuts_[3] = np.arange(5.0)
    between = np.isin(np.arange(9), [2, 3, 4])
    model.conditions_ = [[(2, between), (0, np.arange(9) == 3)], [(3, np.arange(6) > 2)]]
    program = effml.lower(model)
    binned = step_of(program, Bin)
    assert [part[3].tolist() for part in binned.parts()] == [[0.0, 1.0, 2.0, 3.0], [1.0, 4.0], [2.0]]
    assert [spec.used for spec in program.inputs] == [True, False, True, True, False]
    rows = hostile_rows(program, 300, rng)
    assert_same_numbers(program, model, rows, rows)


def test_terms_without_weight_are_not_shipped():
    rng = np.random.default_rng(12)
    model = random_model(rng, n_itemsets=6, n_linear=2)
    model.coef_[[1, 4, 6]] = 0
    assert step_of(effml.lower(model), ItemsetMatch).output.size == 4
    assert step_of(effml.lower(model, std=True), ItemsetMatch).output.size == 6
    rows = rng.normal(size=(100, 6)).astype(np.float32)
    assert_allclose(effml.lower(model).run(rows)["value"][:, 0], model.predict(rows), atol=1e-5)


def test_forty_levels_and_forty_cuts_fit_words_of_conditions():
    rng = np.random.default_rng(13)
    for width, n_itemsets in ((40, 30), (40, 4), (300, 50), (12, 40)):
        levels = [np.arange(float(width)), 3.0 * np.arange(width) - 7]
        model = random_model(rng, n_features=4, levels=levels, n_itemsets=n_itemsets, n_linear=0, size=2)
        model.cuts_[3] = np.arange(width - 1.0)
        for conditions in model.conditions_:
            conditions[:] = [(j, rng.random(width) < 0.4) if j == 3 else (j, holds) for j, holds in conditions]
        program = effml.lower(model)
        step = step_of(program, ItemsetMatch)
        assert (program.steps[0].n_states <= step.word_bits).all()
        rows = rng.integers(-9, width + 9, size=(800, 4)).astype(np.float32)
        assert_same_numbers(program, model, rows, rows)
        assert_c_equals_run(program, np.concatenate([rows, hostile_rows(program, 200, rng)]))
        sanitized = sanitized_outputs(program, rows[:100], output="value")
        assert_array_equal(sanitized, program.run(rows[:100])["value"])


@pytest.mark.parametrize("n_cuts, n_code_columns", [(10, 10), (11, 20)])
def test_columns_of_many_codes_are_split_before_words_get_wider(n_cuts, n_code_columns):
    rng = np.random.default_rng(22)
    model = random_model(rng, n_features=10, n_itemsets=10 * n_cuts, n_linear=0)
    model.cuts_ = [np.arange(float(n_cuts))] * 10
    above = [np.arange(n_cuts + 1) > cut for cut in range(n_cuts)]
    model.conditions_ = [[(j, holds)] for j in range(10) for holds in above]
    program = effml.lower(model)
    step = step_of(program, ItemsetMatch)
    assert step.word_bits == 16 and program.buffers["code"].size == n_code_columns
    rows = rng.integers(-2, n_cuts + 2, size=(300, 10)).astype(np.float32)
    assert_same_numbers(program, model, rows, rows)
    assert_c_equals_run(program, rows)


def test_typical_conditions_take_two_bytes_and_no_check():
    model = random_model(np.random.default_rng(14), n_features=10, n_itemsets=30, n_linear=0, max_cuts=7)
    source = CompiledProgram(effml.lower(model), outputs=("value",)).source.source
    assert "uint16_t model_miss_conditions[" in source
    assert "hold &= k >> 5 >> b" in source


@pytest.mark.parametrize("options", [{}, {"weight_bits": 8}, {"std": True}], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_footprints_are_near_what_the_compiler_makes(seed, options):
    rng = np.random.default_rng([15, seed])
    model = random_model(rng, n_features=10, n_itemsets=int(rng.integers(5, 60)), n_linear=int(rng.choice([0, 4])))
    for dtype in ("float32", "int16"):
        program = with_input_dtype(effml.lower(model, **options), dtype)
        output = "std" if "std" in options else "value"
        price = footprint_of(program, outputs=(output,))
        sizes = CompiledProgram(program, outputs=(output,)).section_sizes(outputs=(output,))
        assert abs(sizes["text"] + sizes["data"] - price.flash_bytes) < max(150, 0.1 * price.flash_bytes)


# -- pipelines --------------------------------------------------------------------------------------------------------


def pipeline_of(model, X, *transformers):
    return make_pipeline(*transformers, model).fit(X)


@pytest.mark.parametrize("scaler", [StandardScaler, MinMaxScaler])
def test_scalers_fold_into_cuts_and_linear_columns(scaler):
    rng = np.random.default_rng(16)
    X = (rng.normal(size=(500, 6)) * [1, 10, 1e3, 0.01, 5, 2] + [0, 100, 5, 0, -7, 1e3]).astype(np.float32)
    model = pipeline_of(random_model(rng, n_itemsets=30, n_linear=4, scale=0.5), X, scaler())
    program = effml.lower(model)
    phi = model[-1].transform(model[:-1].transform(X))
    assert_array_equal(matches(program, X), phi[:, :30] == 1)
    error = np.abs(program.run(X)["value"][:, 0] - model.predict(X))
    assert error.max() <= program.outputs["value"].tolerance < 1e-2
    assert_c_equals_run(program, np.concatenate([X, hostile_rows(program, 200, rng)]))
    assert effml.compile_c(model).agreement(X).n_equal == len(X)


@pytest.mark.parametrize("options", [{}, {"weight_bits": 8}], ids=str)
def test_two_scalers_fold_without_a_proven_bound(options):
    rng = np.random.default_rng(23)
    X = rng.normal(5, 3, size=(300, 6)).astype(np.float32)
    model = pipeline_of(random_model(rng, n_itemsets=0, n_linear=4), X, StandardScaler(), MinMaxScaler((-2, 2)))
    program = effml.lower(model, **options)
    assert_allclose(program.run(X)["value"][:, 0], model.predict(X), atol=1e-5)
    assert program.outputs["value"].tolerance is None
    model = pipeline_of(random_model(rng, n_itemsets=9, n_linear=4), X, StandardScaler(), MinMaxScaler((-2, 2)))
    program = effml.lower(model, **options)
    assert_allclose(program.run(X)["value"][:, 0], model.predict(X), atol=0.1 if options else 1e-5)
    assert program.outputs["value"].tolerance is None


def test_one_hot_and_binned_columns_are_tables():
    rng = np.random.default_rng(17)
    X = np.column_stack([rng.integers(0, 4, 600), rng.normal(size=(600, 3))]).astype(np.float32)
    X[::11, 3] = np.nan
    before = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), [0]),
        (KBinsDiscretizer(5, encode="ordinal", quantile_method="averaged_inverted_cdf"), [1]),
        (StandardScaler(), [2]),
        (SimpleImputer(), [3]),
    )
    inner = random_model(rng, n_features=7, n_itemsets=25, n_linear=0)
    inner.cuts_ = [np.array([0.5])] * 4 + [np.array([0.5, 2.0])] + [np.array([-0.3, 0.4])] * 2
    for conditions in inner.conditions_:
        conditions[:] = [(j, rng.permutation([True] + [False] * len(inner.cuts_[j]))) for j, _ in conditions]
    inner.linear_features_, n_linear = np.array([1, 4, 5]), 3  # one-hot, binned, scaled
    inner.linear_low_, inner.linear_range_ = np.array([0.0, 1.0, -1.0]), np.array([1.0, 2.5, 2.0])
    inner.linear_fill_ = np.full(n_linear, 0.5)
    inner.coef_, inner.term_means_ = rng.normal(size=28), rng.uniform(0.1, 0.9, 28)
    inner.sigma_ = 0.01 * np.eye(28)
    model = pipeline_of(inner, X, before)
    program = effml.lower(model, std=True)
    rows = np.concatenate([X, np.column_stack([np.full(50, 9), rng.normal(size=(50, 3))])]).astype(np.float32)
    phi = inner.transform(model[:-1].transform(rows))
    live = [m for m, one in enumerate(inner.conditions_) if len({j for j, h in one if j < 4 and h[1]}) < 2]
    assert len(live) < 25  # two levels of one column at once never hold
    assert_array_equal(matches(program, rows)[:, : len(live)], phi[:, live] == 1)
    mean, std = inner.predict(model[:-1].transform(rows), return_std=True)
    assert_allclose(program.run(rows)["value"][:, 0], mean, atol=1e-5)
    assert_allclose(program.run(rows)["std"][:, 0], std, rtol=5e-6)
    assert_c_equals_run(program, np.concatenate([rows, hostile_rows(program, 200, rng)]))


def test_what_cannot_lower_says_so_and_how_to_cure_it():
    rng = np.random.default_rng(18)
    X = rng.normal(size=(200, 6)).astype(np.float32)
    with pytest.raises(LoweringError, match=r"PowerTransformer before a linear term.*linear_terms=False"):
        effml.lower(pipeline_of(random_model(rng), X, PowerTransformer()))
    curved = pipeline_of(random_model(rng, n_linear=0), X, PowerTransformer())
    program = effml.lower(curved)
    assert_array_equal(matches(program, X), curved[-1].transform(curved[:-1].transform(X)) == 1)
    with pytest.raises(LoweringError, match="encoded as categories behind another transformer"):
        effml.lower(pipeline_of(random_model(rng, levels=[np.arange(3)], n_itemsets=30), X, StandardScaler()))


def test_options_are_checked():
    model = random_model(np.random.default_rng(19))
    for bits in (1, 9, 0):
        with pytest.raises(ValueError, match=rf"weight_bits={bits} must be None or an integer from 2 to 8"):
            effml.lower(model, weight_bits=bits)
    for bits in (8.0, "8", True):
        with pytest.raises(TypeError, match=rf"weight_bits={bits!r} must be None or an integer from 2 to 8"):
            effml.lower(model, weight_bits=bits)
    with pytest.raises(TypeError, match="std=1 must be True or False"):
        effml.lower(model, std=1)


def test_programs_survive_the_disk(tmp_path):
    rng = np.random.default_rng(20)
    program = effml.lower(random_model(rng), std=True)
    program.save(tmp_path / "model.program")
    again = Program.load(tmp_path / "model.program")
    assert again.fingerprint() == program.fingerprint()
    rows = hostile_rows(program, 100, rng)
    for name, values in program.run(rows).items():
        assert_array_equal(again.run(rows)[name], values)


def test_check_export_knows_the_model():
    assert "float" in str(effml.check_export(random_model(np.random.default_rng(21))))


@pytest.mark.parametrize("parameters", [{}, {"n_bags": 3}, {"inclusion_prior": 0.5, "encoding": "onehot"}])
def test_fitted_models_give_values_and_standard_deviations_in_c(parameters):
    X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    model = ItemsetSparseBayesRegressor(random_state=0, **parameters).fit(X, y)
    compiled = effml.compile_c(model, std=True)
    assert compiled.agreement(X).n_equal == len(X)
    mean, std = compiled.predict(X, return_std=True)
    expected, expected_std = model.predict(X.astype(np.float32), return_std=True)
    assert_allclose(mean, expected, rtol=1e-5)
    assert_allclose(std, expected_std, rtol=1e-5)
    both = effml.footprint(model, std=True, outputs=("value", "std"))
    assert both.flash_bytes > effml.footprint(model).flash_bytes
    with pytest.raises(ValueError, match="compiled with std=True"):
        effml.compile_c(model).predict(X, return_std=True)
