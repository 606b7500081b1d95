"""The main job: search under a budget, fit and compile the front, hold it against the held-out rows once.

The choice is made by cross-validation on the training part alone. A chosen model keeps to the budget twice: by the
analytic footprint, which is the same on every machine, and by the size of the C as the host's compiler builds it.
"""

import functools
import os
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import get_scorer

from effml._cli.errors import NOT_EQUAL, NOTHING_FITS, CommandError
from effml._cli.progress import counted

ACCURACY_SCORES = ("accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class Settings:
    """What to search and how."""

    budget: dict = field(default_factory=dict)  # full quantity name -> limit, as parse_budget gives it
    scoring: str = "accuracy"
    class_weight: str | None = None
    effort: int = 1
    jobs: int = 1
    seed: int = 0
    input_dtype: str = "float32"


@dataclass
class Model:
    """One candidate, fitted on the whole training part; then compiled, and compared with its C on the held-out rows.

    `flash_bytes` is measured: what the host's compiler makes of the C at -Os; None before it is compiled. Models of
    exact steps always agree with their C; one with float sums may differ within rounding, and is then not chosen.
    """

    label: str
    cv_score: float
    estimator: object
    footprint: object
    flash_bytes: int | None = None
    n_rows: int = 0
    n_equal: int = 0
    held_out_score: float = np.nan

    @property
    def is_equal(self):
        return self.n_equal == self.n_rows

    def sizes(self, budget):
        """The quantities that a budget limits; flash is the larger of estimate and measurement."""
        sizes = {quantity: getattr(self.footprint, quantity) for quantity in budget}
        if "flash_bytes" in sizes and self.flash_bytes is not None:
            sizes["flash_bytes"] = max(sizes["flash_bytes"], self.flash_bytes)
        return sizes

    def load(self, budget):
        """The largest share of any limit that the model uses; at most 1 keeps to the budget."""
        return max((size / budget[quantity] for quantity, size in self.sizes(budget).items()), default=0.0)


@dataclass
class Outcome:
    """The front in ascending measured size, the chosen model (one of them), and remarks."""

    front: list
    best: Model
    notes: list


def run(X_train, y_train, X_test, y_test, *, cv, settings, console, groups=None, categorical=(), missing=False):
    """Search on the training part, then measure the front on the held-out part.

    Raises CommandError: nothing fits the budget (exit code 3), or C and Python differ on a held-out row (1).
    """
    _check_scoring(settings.scoring, X_train, y_train)
    candidates = _candidates(X_train, y_train, settings, categorical, missing)
    search, notes = _search(candidates, X_train, y_train, cv, groups, settings, console)

    @functools.cache
    def model(row):
        return _fit(search, candidates, row, X_train, y_train, settings)

    @functools.cache
    def proven(row):
        return _prove(model(row), X_test, settings)

    with console.status("Compiling the front and comparing it with Python"):
        best_row = _choose(search, model, proven, settings.budget)
        front = [proven(row) for row in {*map(int, search.front_), best_row}]
        for each in front:  # the one look at the held-out labels
            each.held_out_score = float(get_scorer(settings.scoring)(each.estimator, X_test, y_test))
    notes += [_difference(each) for each in front if not each.is_equal]
    return Outcome(sorted(front, key=lambda each: each.flash_bytes), proven(best_row), notes)


def _check_scoring(scoring, X, y):
    """Score a guesser, so that a scorer that does not suit the labels is refused before the search."""
    guesser = DummyClassifier(strategy="stratified", random_state=0).fit(X, y)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a guesser may predict no row of a class
            get_scorer(scoring)(guesser, X, y)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise CommandError(f"--scoring {scoring!r} cannot score these labels: {reason}") from None


def _candidates(X, y, settings, categorical, missing):
    from effml.selection import default_candidates

    return default_candidates(
        budget=settings.budget or None,
        n_classes=len(np.unique(y)),
        n_features=X.shape[1],
        categorical=list(categorical),
        missing=missing,
        class_weight=settings.class_weight,
        random_state=settings.seed,
        effort=settings.effort,
    )


def _search(candidates, X, y, cv, groups, settings, console):
    """Cross-validate all candidates; the warnings become notes.

    The search itself gets no budget: `_choose` holds each model against its compiled size, too.
    """
    from sklearn.model_selection import ParameterGrid

    from effml.selection import BudgetSearchCV

    n_fits = sum(len(ParameterGrid(grid)) for _, _, grid in candidates) * cv.get_n_splits(X, y, groups)
    with (
        quiet_workers(),
        warnings.catch_warnings(record=True) as caught,
        counted(settings.scoring, n_fits, f"Cross-validating {n_fits} fits", console) as scorer,
    ):
        warnings.simplefilter("always")
        search = BudgetSearchCV(
            candidates,
            budget=None,
            scoring=scorer,
            cv=cv,
            n_jobs=settings.jobs,
            refit=False,
            input_dtype=settings.input_dtype,
        )
        search.fit(X, y, **({} if groups is None else {"groups": groups}))
    # scikit-learn prints the tracebacks of failed fits; the search's own warning names them in one line
    return search, sorted({_first_line(each.message) for each in caught if each.category is not FitFailedWarning})


@contextmanager
def quiet_workers():
    """Keep the warnings of worker processes, which would come once a fit, off the user's screen."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _first_line(message):
    return str(message).strip().splitlines()[0]


def _choose(search, model, proven, budget):
    """The first row, in the order of cross-validation, that keeps to the budget once fitted, and once compiled."""
    from effml.selection.budget import describe_footprint, rank_within_budget

    loads = {}
    for row in map(int, rank_within_budget(search.cv_results_, {})):
        if model(row).load(budget) <= 1 and proven(row).load(budget) <= 1 and proven(row).is_equal:
            return row
        loads[row] = model(row).load(budget)
    smallest = model(min(loads, key=loads.get))
    raise CommandError(
        f"No candidate fits the budget {describe_footprint(budget)}; the smallest is {smallest.label} with "
        f"{describe_footprint(smallest.sizes(budget))}.",
        NOTHING_FITS,
    )


def _fit(search, candidates, row, X, y, settings):
    """Fit the candidate of one row of the search on all training rows, and price it."""
    from effml.export import footprint
    from effml.selection.budget import describe_candidate

    params = dict(search.cv_results_["params"][row])
    label = describe_candidate(params)
    estimators = {name: estimator for name, estimator, _ in candidates}
    estimator = clone(estimators[params.pop("candidate")]).set_params(**params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the search has met, and noted, the same ones
        estimator.fit(X, y)
    score = float(search.cv_results_["mean_test_score"][row])
    return Model(label, score, estimator, footprint(estimator, input_dtype=settings.input_dtype))


def _prove(model, X_test, settings):
    """Compile a model, measure it, and compare it with its C on the held-out rows, without their labels."""
    from effml.export import check_export, compile_c

    compiled = compile_c(model.estimator, input_dtype=settings.input_dtype)
    model.flash_bytes = compiled.flash_bytes
    model.n_rows = len(X_test)
    model.n_equal = int(np.sum(np.asarray(compiled.predict(X_test)) == model.estimator.predict(X_test)))
    if not model.is_equal and all(step.status == "exact" for step in check_export(model.estimator).rows):
        raise CommandError(f"{_difference(model)}; nothing was written. Please report this.", NOT_EQUAL)
    return model


def _difference(model):
    return f"{model.label}: C and Python differ on {model.n_rows - model.n_equal} of {model.n_rows} held-out rows"
