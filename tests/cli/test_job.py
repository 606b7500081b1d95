"""The main job's promises: it fails rather than ship a C that differs, and prices what it ships."""

import os

import numpy as np
import pytest
from joblib import Parallel, delayed
from rich.console import Console
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.tree import DecisionTreeClassifier

from effml._cli import job
from effml._cli.errors import NOT_EQUAL, NOTHING_FITS, CommandError
from effml._cli.progress import counted

X, y = load_iris(return_X_y=True)
X = (X * 10).astype(np.uint8)
CONSOLE = Console(stderr=True)


@pytest.fixture(autouse=True)
def one_family(monkeypatch):
    """Search over trees alone: quick, and exact."""
    grid = {"max_leaf_nodes": [2, 3, 8]}
    monkeypatch.setattr(job, "_candidates", lambda *_: [("tree", DecisionTreeClassifier(random_state=0), grid)])


def run(**settings):
    return job.run(
        X[::2], y[::2], X[1::2], y[1::2], cv=StratifiedKFold(3), settings=job.Settings(**settings), console=CONSOLE
    )


def test_best_in_cross_validation_within_the_budget_is_chosen():
    free = run()
    assert free.best.cv_score == max(model.cv_score for model in free.front)
    assert all(model.n_equal == model.n_rows == 75 for model in free.front)
    smallest = free.front[0]
    budget = {"flash_bytes": max(smallest.flash_bytes, smallest.footprint.flash_bytes)}
    tight = run(budget=budget)
    assert tight.best.label == smallest.label != free.best.label
    assert tight.best.load(budget) == 1


def test_budget_is_about_the_declared_input_type():
    as_floats, as_bytes = run(input_dtype="float32"), run(input_dtype="uint8")
    assert as_bytes.best.label == as_floats.best.label
    assert as_bytes.best.footprint.flash_bytes < as_floats.best.footprint.flash_bytes
    between = {"flash_bytes": max(as_bytes.best.flash_bytes, as_bytes.best.footprint.flash_bytes)}
    assert run(input_dtype="uint8", budget=between).best.label == as_bytes.best.label
    try:
        assert run(input_dtype="float32", budget=between).best.label != as_floats.best.label
    except CommandError as error:
        assert error.exit_code == NOTHING_FITS


def test_exact_model_that_differs_from_its_c_ends_the_command(monkeypatch):
    from effml.export import CompiledModel

    true_predict = CompiledModel.predict

    def wrong_once(self, rows):
        labels = true_predict(self, rows)
        labels[7] = (labels[7] + 1) % 3
        return labels

    monkeypatch.setattr(CompiledModel, "predict", wrong_once)
    with pytest.raises(
        CommandError, match="C and Python differ on 1 of 75 held-out rows; nothing was written"
    ) as caught:
        run()
    assert caught.value.exit_code == NOT_EQUAL


def test_failing_candidates_become_notes(monkeypatch):
    trees = ("tree", DecisionTreeClassifier(random_state=0), {"max_leaf_nodes": [3, 0]})
    monkeypatch.setattr(job, "_candidates", lambda *_: [trees])
    assert any("max_leaf_nodes" in note for note in run().notes)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_progress_counts_fits_of_all_processes(n_jobs):
    model = DummyClassifier().fit(X, y)
    with counted("accuracy", 6, "test", CONSOLE) as scorer:
        scores = Parallel(n_jobs=n_jobs)(delayed(scorer)(model, X, y) for _ in range(6))
        assert os.path.getsize(scorer.path) == 6
    assert scores == [model.score(X, y)] * 6
