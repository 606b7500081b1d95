"""Bayesian network classifiers: predict = Program.run = C, for every format, layout, input type and odd value."""

import numpy as np
import pandas as pd
import pytest
from common.c_proof import assert_c_equals_run, hostile_rows, sanitized_outputs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler

import effml
from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.program.steps import LookupSum

FORMATS = (
    [{}]
    + [{"n_bits": bits} for bits in range(1, 9)]
    + [{"n_bits": bits, "integer_bits": 3} for bits in range(1, 9)]
    + [{"integer_bits": 4, "fraction_bits": -2}]
)


def _data(rng, *, n_rows, n_columns, n_classes, integers):
    X = rng.integers(0, 30, size=(n_rows, n_columns)) if integers else rng.normal(size=(n_rows, n_columns))
    y = rng.integers(0, n_classes, size=n_rows)
    y[:n_classes] = np.arange(n_classes)
    X = X + y[:, None] * rng.integers(0, 4, size=n_columns)  # so that there is something to cut
    return X.astype(float), y


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_predict_is_the_program(data):
    """The estimator's own path and the numpy program agree on every row, odd values included."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    options = data.draw(st.sampled_from(FORMATS))
    structure = data.draw(st.sampled_from(["naive", "cmi", "random"]))
    X, y = _data(
        rng,
        n_rows=data.draw(st.integers(20, 120)),
        n_columns=data.draw(st.integers(1, 8)),
        n_classes=data.draw(st.integers(2, 12)),
        integers=data.draw(st.booleans()),
    )
    X[rng.random(X.shape) < 0.05] = np.nan
    if structure == "naive":
        model = NaiveBayesClassifier(**options)
    else:
        model = TANClassifier(structure=structure, random_state=0, **options)
    model.fit(X, y)
    layouts = ["auto"] if model.codes_ is None else ["auto", "byte", "dense"] + ["swar"] * (model.n_bits_ <= 4)
    program = effml.lower(model, layout=data.draw(st.sampled_from(layouts)))
    rows = hostile_rows(program, 300, rng)
    rows = rows[~np.isinf(rows).any(axis=1)]  # the estimator rejects infinities, the C does not
    rows = np.concatenate([rows, X.astype(np.float32)])
    np.testing.assert_array_equal(program.labels(rows), model.predict(rows))
    np.testing.assert_allclose(program.run(rows)["proba"], model.predict_proba(rows), atol=1e-6)


@pytest.mark.parametrize("options", FORMATS, ids=str)
def test_c_equals_predict_in_every_format(options):
    rng = np.random.default_rng(len(str(options)))
    X, y = _data(rng, n_rows=150, n_columns=6, n_classes=5, integers=True)
    for model in (NaiveBayesClassifier(**options), TANClassifier(**options)):
        model.fit(X, y)
        layouts = ["auto"] if model.codes_ is None else ["byte", "dense"] + ["swar"] * (model.n_bits_ <= 4)
        for layout in layouts:
            input_dtype = str(rng.choice(["float32", "int32", "int16", "uint8"]))
            compiled = effml.compile_c(model, input_dtype=input_dtype, layout=layout)
            rows = hostile_rows(compiled.compiled.program, 300, rng)
            np.testing.assert_array_equal(
                compiled.compiled.run(rows, "label"), compiled.compiled.program.run(rows)["label"]
            )
            np.testing.assert_array_equal(compiled.predict(X), model.predict(X))


def test_sanitizers_find_nothing_in_real_models():
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    for model in (NaiveBayesClassifier(n_bits=3), TANClassifier(n_bits=4), TANClassifier()):
        program = effml.lower(model.fit(X, y))
        rows = hostile_rows(program, 300, rng)
        np.testing.assert_array_equal(sanitized_outputs(program, rows), program.run(rows)["label"])


def test_integer_models_of_integer_rows_hold_no_float(tmp_path):
    X, y = load_digits(return_X_y=True)
    for options in ({"n_bits": 4}, {"n_bits": 6, "integer_bits": 4}):
        _, source = effml.to_c(TANClassifier(**options).fit(X, y), tmp_path, name="tan", input_dtype="uint8")
        text = source.read_text()
        assert "float" not in text and "double" not in text and "malloc" not in text and "math.h" not in text


def test_codes_as_inputs():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 5, size=(300, 4))
    y = (codes[:, 0] + codes[:, 1] > 4).astype(int)
    model = TANClassifier(discretizer=None, n_bits=4).fit(codes, y)
    odd = np.array([[0, 7, 2, 1], [-1, 0, 0, 0], [4, 4, 4, 4], [1, 2, 3, 1e9]], dtype=np.float32)
    compiled = effml.compile_c(model)
    np.testing.assert_array_equal(compiled.predict(odd), model.predict(odd))
    np.testing.assert_array_equal(compiled.predict(codes), model.predict(codes))
    assert_c_equals_run(compiled.program, hostile_rows(compiled.program, 300, rng))


@pytest.mark.filterwarnings("ignore")
def test_discretizers_of_scikit_learn_and_scalers_before():
    X, y = load_iris(return_X_y=True)
    bins = KBinsDiscretizer(6, encode="ordinal", strategy="quantile")
    for model in (
        NaiveBayesClassifier(discretizer=bins),
        TANClassifier(discretizer=bins, n_bits=4),
        make_pipeline(StandardScaler(), TANClassifier(n_bits=4)),
        make_pipeline(bins, NaiveBayesClassifier(discretizer=None, n_bits=3)),
        make_pipeline(
            make_column_transformer((StandardScaler(), [0, 2]), ("passthrough", [3])), NaiveBayesClassifier()
        ),
    ):
        compiled = effml.compile_c(model.fit(X, y))
        agreement = compiled.agreement(X)
        assert agreement.n_equal == agreement.n_rows


def test_text_columns_unknown_levels_and_missing_values():
    rng = np.random.default_rng(2)
    X = pd.DataFrame(
        {
            "size": rng.normal(size=300),
            "colour": rng.choice(["red", "green", "blue"], size=300),
            "shape": pd.Categorical(rng.choice(["round", "flat"], size=300)),
        }
    )
    y = np.where((X["colour"] == "red") | (X["size"] > 0.5), "stop", "go")
    X["grade"] = rng.integers(0, 4, size=300)
    codes = X.drop(columns="size")
    for model, table in (
        (NaiveBayesClassifier(), X),
        (TANClassifier(n_bits=4), X),
        (TANClassifier(discretizer=None), codes),
    ):
        compiled = effml.compile_c(model.fit(table, y))
        fresh = X.copy()
        fresh["colour"] = fresh["colour"].where(np.arange(300) % 3 > 0, "mauve")
        fresh.loc[::4, "size"] = np.nan
        fresh.loc[1::4, "colour"] = None
        fresh = fresh[table.columns]
        np.testing.assert_array_equal(compiled.predict(fresh), model.predict(fresh))
        spec = compiled.program.inputs[list(table.columns).index("colour")]
        assert spec.categories == ("blue", "green", "red")
        assert_c_equals_run(compiled.program, hostile_rows(compiled.program, 300, rng))


def test_the_layout_can_be_chosen_by_name_size_or_speed():
    X, y = load_digits(return_X_y=True)
    for n_bits in (2, 3, 4, 6):
        model = NaiveBayesClassifier(n_bits=n_bits).fit(X, y)
        names = ["byte", "dense"] + ["swar"] * (n_bits <= 4)
        sizes = {layout: effml.footprint(model, layout=layout).flash_bytes for layout in names}
        assert effml.footprint(model, layout="size").flash_bytes == min(sizes.values())
        assert effml.footprint(model).flash_bytes <= 1.03 * min(sizes.values())
        assert effml.footprint(model, layout="speed").flash_bytes == sizes["swar" if n_bits <= 4 else "byte"]
    model = NaiveBayesClassifier(n_bits=4).fit(X, y)
    step = next(step for step in effml.lower(model, layout="swar").steps if isinstance(step, LookupSum))
    assert step.layout == "swar"
    with pytest.raises(ValueError, match="layout='packed'"):
        effml.lower(model, layout="packed")


def test_cast_changes_are_counted():
    X, y = load_iris(return_X_y=True)
    model = NaiveBayesClassifier().fit(X, y)
    compiled = effml.compile_c(model)
    edge = model.discretizer_.bin_edges_[2][0]
    rows = np.repeat(X[:1], 2, axis=0)
    rows[:, 2] = [edge * (1 + 1e-12), edge]
    agreement = compiled.agreement(rows)
    assert agreement.n_equal == 2
    assert agreement.n_cast_changes == int((model.predict(rows) != model.predict(rows.astype(np.float32))).sum())
