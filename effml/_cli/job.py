"""The main job: search under a budget, fit and compile the front, hold it against the held-out rows once.

The choice is made by cross-validation on the training part alone. A chosen model keeps to the budget twice: by the
analytic footprint, which is the same on every machine, and by the size of the C as the host's compiler builds it.
"""

import warnings
from dataclasses import dataclass, field

import numpy as np
from sklearn.base import clone
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
    """One candidate, fitted on the whole training part, compiled, and compared with its C on the held-out rows.

    `flash_bytes` is measured: what the host's compiler makes of the C at -Os. Models of exact steps always agree with
    their C; one with float sums may differ within rounding, and is then not chosen.
    """

    label: str
    cv_score: float
    estimator: object
    footprint: object
    flash_bytes: int
    fits: bool
    n_rows: int
    n_equal: int
    held_out_score: float = np.nan

    @property
    def is_equal(self):
        return self.n_equal == self.n_rows


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
    candidates = _candidates(X_train, y_train, settings, categorical, missing)
    search, notes = _search(candidates, X_train, y_train, cv, groups, settings, console)
    models = {}

    def model(row):
        if row not in models:
            models[row] = _fit(search, candidates, row, X_train, y_train, X_test, settings)
        return models[row]

    with console.status("Compiling the front and comparing it with Python"):
        best = _choose(search, model, settings)
        front = {id(each): each for each in [*(model(int(row)) for row in search.front_), best]}.values()
        for each in front:  # the one look at the held-out labels
            each.held_out_score = float(get_scorer(settings.scoring)(each.estimator, X_test, y_test))
    notes += [_difference(each) for each in models.values() if not each.is_equal]
    return Outcome(sorted(front, key=lambda each: each.flash_bytes), best, notes)


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
    """Run the cross-validated search; its warnings become notes."""
    from sklearn.model_selection import ParameterGrid

    from effml.selection import BudgetError, BudgetSearchCV

    n_fits = sum(len(ParameterGrid(grid)) for _, _, grid in candidates) * cv.get_n_splits(X, y, groups)
    with (
        warnings.catch_warnings(record=True) as caught,
        counted(settings.scoring, n_fits, f"Cross-validating {n_fits} fits", console) as scorer,
    ):
        warnings.simplefilter("always")
        search = BudgetSearchCV(
            candidates, budget=settings.budget or None, scoring=scorer, cv=cv, n_jobs=settings.jobs, refit=False
        )
        try:
            search.fit(X, y, **({} if groups is None else {"groups": groups}))
        except BudgetError as error:
            raise CommandError(f"{_sentence(error)}.", NOTHING_FITS) from None
    return search, sorted({" ".join(str(warning.message).split()) for warning in caught})


def _choose(search, model, settings):
    """The first model, in the order of cross-validation, that keeps to the budget once fitted and compiled."""
    from effml.selection.budget import rank_within_budget

    smallest = None
    for row in rank_within_budget(search.cv_results_, settings.budget):
        candidate = model(int(row))
        if candidate.fits and candidate.is_equal:
            return candidate
        if smallest is None or candidate.flash_bytes < smallest.flash_bytes:
            smallest = candidate
    raise CommandError(
        f"No candidate fits the budget once fitted on all training rows and compiled; the smallest is {smallest.label} "
        f"with {smallest.flash_bytes} bytes of flash and {smallest.footprint.ram_bytes} bytes of RAM.",
        NOTHING_FITS,
    )


def _fit(search, candidates, row, X, y, X_test, settings):
    """Fit one candidate on all training rows, compile it, and compare both on the held-out rows, without labels."""
    from effml.export import check_export, compile_c, footprint
    from effml.selection.budget import describe_candidate

    params = dict(search.cv_results_["params"][row])
    label = describe_candidate(params)
    estimators = {name: estimator for name, estimator, _ in candidates}
    estimator = clone(estimators[params.pop("candidate")]).set_params(**params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the search has met, and noted, the same ones
        estimator.fit(X, y)
    compiled = compile_c(estimator, input_dtype=settings.input_dtype)
    analytic = footprint(estimator, input_dtype=settings.input_dtype)
    model = Model(
        label=label,
        cv_score=float(search.cv_results_["mean_test_score"][row]),
        estimator=estimator,
        footprint=analytic,
        flash_bytes=compiled.flash_bytes,
        fits=_fits(analytic, compiled.flash_bytes, settings.budget),
        n_rows=len(X_test),
        n_equal=int(np.sum(np.asarray(compiled.predict(X_test)) == estimator.predict(X_test))),
    )
    if not model.is_equal and all(step.status == "exact" for step in check_export(estimator).rows):
        raise CommandError(f"{_difference(model)}; nothing was written. Please report this.", NOT_EQUAL)
    return model


def _fits(analytic, measured_flash, budget):
    """Whether both sizes, the estimate and what the compiler made of it, keep to the budget."""
    sizes = {quantity: getattr(analytic, quantity) for quantity in budget}
    if "flash_bytes" in sizes:
        sizes["flash_bytes"] = max(sizes["flash_bytes"], measured_flash)
    return all(sizes[quantity] <= limit for quantity, limit in budget.items())


def _difference(model):
    return f"{model.label}: C and Python differ on {model.n_rows - model.n_equal} of {model.n_rows} held-out rows"


def _sentence(error):
    text = str(error)
    return text[:1].upper() + text[1:]
