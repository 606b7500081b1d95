"""Networks as Programs: the same integers in Python and C, files, footprints, pipelines."""

import numpy as np
import pytest
from common.c_proof import assert_c_equals_run, hostile_rows, sanitized_outputs
from numpy.testing import assert_array_equal
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler

import effml
from effml.neural import QuantizedConvClassifier, QuantizedMLPClassifier, QuantizedMLPRegressor
from effml.persistence import load_model, save_model
from effml.program import LoweringError, Program

DIGITS, LABELS = load_digits(return_X_y=True)
QUICK = {"hidden_layer_sizes": (21, 13), "max_iter": 4, "random_state": 0}
FORMATS = [{"weight_bits": b} for b in (*range(1, 9), None)]
FORMATS += [{"weight_bits": b, "activation": "sign", "batch_norm": b != 3} for b in (1, 3, None)]
FORMATS += [{"weight_bits": b, "activation_bits": a, "batch_norm": a > 2} for b, a in ((1, 1), (5, 8), (None, 3))]
FORMATS += [{"weight_bits": 2, "batch_norm": True}]


@pytest.mark.parametrize("given", FORMATS, ids=str)
def test_c_predicts_what_python_predicts(given):
    model = QuantizedMLPClassifier(**QUICK | given).fit(DIGITS, LABELS)
    program, rows = effml.lower(model), DIGITS.astype(np.float32)
    assert_array_equal(program.labels(rows), model.predict(DIGITS))
    assert_array_equal(program.run(rows)["score"] * program.outputs["score"].scale, model.decision_function(DIGITS))
    assert np.abs(program.run(rows)["proba"] - model.predict_proba(DIGITS)).max() < 1e-5
    assert_c_equals_run(program, rows)
    assert_c_equals_run(program, hostile_rows(program, 100, np.random.default_rng(0)))


@pytest.mark.parametrize("given", [*FORMATS[::2], *FORMATS[8::3]], ids=str)
def test_convolutions_in_c(given):
    model = QuantizedConvClassifier(image_shape=(8, 8), channels=(3, 4), max_iter=2, random_state=0, **given)
    model.fit(DIGITS, LABELS)
    program, rows = effml.lower(model), DIGITS.astype(np.float32)
    assert_array_equal(program.labels(rows), model.predict(DIGITS))
    assert_c_equals_run(program, rows)
    assert_array_equal(effml.compile_c(model, input_dtype="uint8").predict(DIGITS), model.predict(DIGITS))


@pytest.mark.parametrize("given", [{"weight_bits": 3}, {"weight_bits": 1, "activation": "sign", "batch_norm": True}])
def test_sanitizers_find_nothing(given):
    model = QuantizedMLPClassifier(**QUICK | given).fit(DIGITS, LABELS)
    program = effml.lower(model)
    rows = hostile_rows(program, 100, np.random.default_rng(1))
    assert_array_equal(sanitized_outputs(program, rows), program.run(rows)["label"])


def test_two_classes_have_one_score():
    X, y = load_breast_cancer(return_X_y=True)
    model = QuantizedMLPClassifier(**QUICK).fit(X, y)
    program = effml.lower(model)
    assert model.decision_function(X).shape == (569,)
    assert_array_equal(program.labels(X.astype(np.float32)), model.predict(X))
    assert_array_equal(model.classes_[(model.decision_function(X) > 0).astype(int)], model.predict(X))
    assert_c_equals_run(program, X.astype(np.float32))


@pytest.mark.parametrize("weight_bits", [2, None])
def test_regressors_in_c(weight_bits):
    X, y = load_diabetes(return_X_y=True)
    model = QuantizedMLPRegressor(weight_bits=weight_bits, **QUICK).fit(X, np.column_stack([y, -y]))
    program = effml.lower(model)
    found = program.run(X.astype(np.float32))["value"]
    np.testing.assert_allclose(found, model.predict(X), rtol=1e-5)
    assert_c_equals_run(program, X.astype(np.float32))


def test_bits_are_what_the_program_ships():
    sizes = {}
    for bits in (1, 2, 4, 8):
        given = {"input_scaling": "common", **QUICK, "weight_bits": bits}
        model = QuantizedMLPClassifier(**given).fit(DIGITS, LABELS)
        sizes[bits] = effml.footprint(model, input_dtype="uint8")
        layers = [n_out * -(-n_in * bits // 8) for n_in, n_out in (codes.shape for codes in model.codes_)]
        assert sizes[bits].constant_bytes - sum(layers) in (10, 20, 40)  # a bias of one, two or four bytes
        assert model.size_bits_ == sizes[bits].bits
    assert sizes[1].flash_bytes < sizes[2].flash_bytes < sizes[4].flash_bytes < sizes[8].flash_bytes


def test_one_bit_weights_and_signs_need_no_float_after_the_input():
    given = {"weight_bits": 1, "activation": "sign", "batch_norm": True, "input_scaling": "common"}
    model = QuantizedMLPClassifier(**QUICK | given).fit(DIGITS, LABELS)
    source = effml.program.generate_c(effml.program.with_input_dtype(effml.lower(model), "uint8")).source
    assert "float" not in source and "double" not in source


@pytest.mark.parametrize(
    "model",
    [
        QuantizedMLPClassifier(**QUICK, weight_bits=3),
        QuantizedMLPClassifier(**QUICK, weight_bits=1, activation="sign", batch_norm=True),
        QuantizedMLPClassifier(**QUICK, weight_bits=None),
        QuantizedMLPRegressor(**QUICK),
        QuantizedConvClassifier(image_shape=(8, 8), channels=(3,), max_iter=1, random_state=0),
    ],
    ids=str,
)
def test_files_bring_back_model_and_program(model, tmp_path):
    model.fit(DIGITS, LABELS)
    again = load_model(save_model(model, tmp_path / "model.skops"))
    assert_array_equal(again.predict(DIGITS), model.predict(DIGITS))
    again.set_params(warm_start=True).fit(DIGITS, LABELS)
    program, rows = effml.lower(model), DIGITS.astype(np.float32)
    program.save(tmp_path / "program.zip")
    loaded = Program.load(tmp_path / "program.zip")
    for output, values in program.run(rows).items():
        assert_array_equal(loaded.run(rows)[output], values)
    assert loaded.fingerprint() == program.fingerprint()


def test_scalers_fold_into_the_input():
    X, y = load_breast_cancer(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), QuantizedMLPClassifier(**QUICK)).fit(X, y)
    program, rows = effml.lower(pipeline), X.astype(np.float32)
    assert np.mean(program.labels(rows) == pipeline.predict(rows)) > 0.99
    assert any("scalers" in note for note in program.notes)
    assert_c_equals_run(program, rows)
    with pytest.raises(LoweringError, match="QuantizedMLPClassifier lowers behind affine scalers"):
        effml.lower(make_pipeline(PowerTransformer(), QuantizedMLPClassifier(**QUICK)).fit(X, y))


def test_check_export_knows_the_networks():
    for model in (QuantizedMLPClassifier(), QuantizedMLPRegressor(), QuantizedConvClassifier()):
        assert effml.check_export(model).supported
