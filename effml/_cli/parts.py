"""The held-out part, which is looked at once, and the cross-validation on the rest."""

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import (
    GroupShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    TimeSeriesSplit,
    train_test_split,
)

from effml._cli.errors import CommandError


@dataclass(frozen=True)
class Parts:
    """Row numbers of both parts, the splitter for the training part, and both in words."""

    train: np.ndarray
    test: np.ndarray
    cv: object
    words: str


def split(y, *, groups=None, time_ordered=False, test_size=0.25, n_folds=5, seed=0):
    """Hold out a part: stratified by class, or whole groups, or the last rows of a file in time order.

    Parameters
    ----------
    y : (n_rows,) labels
    groups : None or (n_rows,); rows of one group are never in both parts
    time_ordered : whether the rows are in time order; then the last ones are held out
    test_size : share of rows (of groups, with groups) to hold out
    """
    rows = np.arange(len(y))
    n_test = round(test_size * len(y))
    n_classes = len(np.unique(y))
    if groups is not None and time_ordered:
        raise CommandError(
            "--group-column and --time-ordered cannot be combined: hold out either groups or the last rows."
        )
    if groups is not None:
        n_groups = len(np.unique(groups))
        if n_groups < n_folds + 1:
            raise CommandError(f"--group-column has {n_groups} groups; --cv {n_folds} needs at least {n_folds + 1}.")
        train, test = next(GroupShuffleSplit(1, test_size=test_size, random_state=seed).split(rows, y, groups))
        cv = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        words = f"whole groups held out, {n_folds}-fold cross-validation by group"
    elif time_ordered:
        train, test = rows[: len(y) - n_test], rows[len(y) - n_test :]
        cv = TimeSeriesSplit(n_folds)
        words = f"last rows held out, {n_folds} forward-chaining folds"
    else:
        if min(n_test, len(y) - n_test) < n_classes:
            raise CommandError(
                f"--test-size {test_size:g} of {len(y)} rows leaves a part with fewer rows than classes ({n_classes})."
            )
        train, test = train_test_split(rows, test_size=n_test, stratify=y, random_state=seed)
        cv = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
        words = f"held-out rows stratified by class, {n_folds}-fold cross-validation"
    _check(y, np.sort(train), np.sort(test), n_folds)
    return Parts(np.sort(train), np.sort(test), cv, words)


def _check(y, train, test, n_folds):
    if len(test) == 0 or len(train) < 2 * n_folds:
        raise CommandError(f"{len(y)} rows are too few for this --test-size and --cv {n_folds}.")
    classes, counts = np.unique(y[train], return_counts=True)
    if len(classes) < 2:
        raise CommandError(f"The training part has one class only, {classes[0].item()!r}; at least two are needed.")
    if counts.max() < n_folds:
        raise CommandError(f"No class has {n_folds} rows in the training part; use a smaller --cv.")
