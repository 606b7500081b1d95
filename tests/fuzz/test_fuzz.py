"""Random models on random inputs under AddressSanitizer and UndefinedBehaviorSanitizer.

A few rounds in every run of the tests. ``EFFML_FUZZ_SECONDS=3600 pytest tests/fuzz`` goes on for an hour with new
seeds; ``EFFML_FUZZ_SEED=17`` begins at that one. A failure names its seed.
"""

import itertools
import os
import subprocess
import time

import numpy as np
import pytest
from common.c_proof import compiles_everywhere, hostile_rows, sanitized_outputs
from common.fuzzing import HOSTILE_TEXT, random_model, random_program
from common.random_programs import classifier, forest_program
from numpy.testing import assert_array_equal
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import effml
from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.itemsets import ItemsetSparseBayesRegressor
from effml.program import InputSpec, generate_c, with_input_dtype
from effml.program.compile import STRICT_FLAGS, find_compiler

ROUNDS = 5  # in a run without EFFML_FUZZ_SECONDS
FIRST_SEED = int(os.environ.get("EFFML_FUZZ_SEED", "0"))
SECONDS = float(os.environ.get("EFFML_FUZZ_SECONDS", "0"))


def seeds():
    """Yield seeds: a few, or as long as was asked for."""
    begin = time.monotonic()
    for seed in itertools.count(FIRST_SEED):
        if seed >= FIRST_SEED + ROUNDS and time.monotonic() - begin > SECONDS / 2:
            return
        yield seed


def assert_sanitized(program, rows, note):
    """Hold every floating-point or label output, run under the sanitizers, against Program.run."""
    expected = program.run(rows)
    for output in program.outputs:
        if output == "label" or program.buffers[program.outputs[output].buffer].dtype == "f32":
            found = sanitized_outputs(program, rows, output=output)
            assert_array_equal(found, expected[output], err_msg=f"{note}: {output} of {program!r}")


def assert_labels_differ_in_the_gap_only(program, model, X, note):
    """Labels are those of predict, but where the best class leads by less than the program states."""
    differs = program.labels(X) != model.predict(X)
    gap = program.outputs["label"].tolerance
    if not differs.any() or gap is None:  # nothing is promised of float sums of scikit-learn's linear models
        return
    score = model.decision_function(X) if hasattr(model, "decision_function") else model.predict_proba(X)
    ordered = np.sort(score, axis=1) if score.ndim == 2 else np.stack([-np.abs(score) / 2, np.abs(score) / 2], axis=1)
    assert (ordered[differs, -1] - ordered[differs, -2] < gap).all(), f"{note}: {model!r}"


def test_random_programs():
    for seed in seeds():
        rng = np.random.default_rng([seed, 1])
        program = random_program(rng)
        assert_sanitized(program, hostile_rows(program, 150, rng), f"seed {seed}")


def test_random_fitted_models():
    for seed in seeds():
        rng = np.random.default_rng([seed, 2])
        model, X = random_model(rng)
        program = effml.lower(model)
        rows = np.concatenate([X.astype(np.float32), hostile_rows(program, 100, rng)])
        assert_sanitized(program, rows, f"seed {seed}")
        if program.classes is not None:
            assert_labels_differ_in_the_gap_only(program, model, X.astype(np.float32), f"seed {seed}")


def test_hostile_text_everywhere(tmp_path):
    texts = [text for text in HOSTILE_TEXT if "\0" not in text]
    rng = np.random.default_rng(3)
    program = classifier(
        rng, dtype="int16", n_columns=len(texts), n_out=len(texts), n_bits=3, layout="byte", parents=True
    )
    inputs = tuple(InputSpec(text, categories=tuple(texts[:k])) for k, text in enumerate(texts))
    hostile = program.replace(classes=tuple(texts), inputs=inputs, source="\n".join(texts), notes=tuple(texts))
    compiles_everywhere(hostile)
    rows = hostile_rows(hostile, 100, rng)
    assert_array_equal(sanitized_outputs(hostile, rows), program.run(rows)["label"])
    for package in ("files", "arduino", "component"):
        effml.to_c(hostile, tmp_path / package, input_dtype="int16", package=package)


@pytest.mark.parametrize("text", HOSTILE_TEXT, ids=range(len(HOSTILE_TEXT)))
def test_a_hostile_label_reads_back_as_it_was(text, tmp_path):
    """The label table of the header holds the UTF-8 bytes of the label, up to a nul."""
    X, y = load_iris(return_X_y=True)
    program = effml.lower(DecisionTreeClassifier(max_leaf_nodes=3, random_state=0).fit(X, y))
    effml.to_c(program.replace(classes=("first", text, "last")), tmp_path)
    main = '#define MODEL_WITH_LABELS\n#include "model.h"\n#include <stdio.h>\n'
    main += "int main(void) { fputs(model_labels[1], stdout); return model_labels[2][0] != 'l'; }\n"
    (tmp_path / "main.c").write_text(main)
    command = [*find_compiler(), *STRICT_FLAGS, "main.c", "-o", "run"]
    subprocess.run(command, cwd=tmp_path, check=True)
    said = subprocess.run([str(tmp_path / "run")], capture_output=True, check=True).stdout
    assert said == text.encode("utf-8", "surrogatepass").split(b"\0")[0]


# -- the smallest and the largest -------------------------------------------------------------------------------------


def test_models_that_learned_nothing():
    X, y = load_iris(return_X_y=True)
    rng = np.random.default_rng(4)
    noise = rng.normal(size=len(X))
    for model in (
        DecisionTreeClassifier(max_depth=1).fit(X, np.zeros(len(X))),
        DecisionTreeRegressor().fit(X, np.ones(len(X))),
        RandomForestClassifier(3, random_state=0).fit(X, np.zeros(len(X))),
        NaiveBayesClassifier(n_bits=2).fit(np.zeros_like(X), y),
        TANClassifier(n_bits=2).fit(np.zeros_like(X), y),
        ItemsetSparseBayesRegressor(linear_terms=False, random_state=0).fit(X, noise),
    ):
        program = effml.lower(model)
        rows = np.concatenate([X.astype(np.float32), hostile_rows(program, 100, rng)])
        assert_sanitized(program, rows, type(model).__name__)


def test_one_feature():
    X, y = load_iris(return_X_y=True)
    rng = np.random.default_rng(5)
    for model in (NaiveBayesClassifier(n_bits=4), TANClassifier(n_bits=4), RandomForestClassifier(4, random_state=0)):
        program = effml.lower(model.fit(X[:, 2:3], y))
        for dtype in ("float32", "uint8"):
            typed = with_input_dtype(program, dtype)
            assert_sanitized(typed, hostile_rows(typed, 200, rng), f"{type(model).__name__} of {dtype}")


@pytest.mark.parametrize("layout, n_bits", [("byte", 8), ("dense", 3), ("swar", 2), ("float", 32)])
def test_three_hundred_features_and_a_thousand_classes(layout, n_bits):
    rng = np.random.default_rng(6)
    program = classifier(
        rng, dtype="int16", n_columns=300, n_out=1000, n_bits=n_bits, layout=layout, parents=False, max_cuts=2
    )
    assert program.steps[1].table.size > 2**18  # tables over 64 KiB, however packed
    rows = hostile_rows(program, 20, rng)
    assert_array_equal(sanitized_outputs(program, rows), program.run(rows)["label"])


def test_forests_over_64_kib():
    rng = np.random.default_rng(7)
    program = forest_program(rng, dtype="float32", n_columns=300, sizes=[400] * 20, n_out=10)
    assert generate_c(program, outputs=("label",)).constant_bytes > 2**16
    rows = hostile_rows(program, 50, rng)
    assert_array_equal(sanitized_outputs(program, rows), program.run(rows)["label"])


def test_the_sanitizers_are_awake():
    """A read past the end of a row is caught: the tests here can fail."""
    rng = np.random.default_rng(8)
    program = classifier(rng, dtype="uint8", n_columns=6, n_out=4, n_bits=8, layout="byte", parents=False, plain=True)
    short = program.replace(inputs=program.inputs[:2])
    with pytest.raises(AssertionError, match="AddressSanitizer: heap-buffer-overflow"):
        sanitized_outputs(short, np.zeros((3, 2), dtype=np.uint8))
