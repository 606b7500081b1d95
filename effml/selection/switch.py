"""The candidates of a search: their names, their grids, and the switch that stands for all of them."""

from collections import Counter

from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.model_selection import ParameterGrid
from sklearn.utils import get_tags

__all__ = ["CandidateSwitch", "named_candidates", "rows_of_grids", "seed_unseeded"]


class CandidateSwitch(BaseEstimator):
    """Stands where BaseSearchCV wants one estimator to clone and parametrise.

    ``set_params(candidate=name, **params)`` answers with a fresh clone of that candidate, so that folds, scorers and
    ``best_estimator_`` hold the user's own estimator and no wrapper. What a search asks before fitting (its type, its
    tags, which methods there are) is answered by the first candidate.

    Parameters
    ----------
    candidates : dict of str to estimator
    """

    def __init__(self, candidates):
        self.candidates = candidates

    def set_params(self, *, candidate, **params):
        return clone(self.candidates[candidate]).set_params(**params)

    def __sklearn_clone__(self):
        return self  # never changes: copying every candidate for every fold would be waste

    def __sklearn_tags__(self):
        tags = get_tags(self._first)
        tags.input_tags.sparse = all(get_tags(one).input_tags.sparse for one in self.candidates.values())
        return tags

    def get_metadata_routing(self):
        return self._first.get_metadata_routing()

    @property
    def _first(self):
        return next(iter(self.candidates.values()))

    def __getattr__(self, name):
        if name.startswith("_") or name == "candidates":
            raise AttributeError(name)
        return getattr(self._first, name)


def named_candidates(candidates):
    """Give every candidate a name and a grid.

    Parameters
    ----------
    candidates : sequence
        Each an estimator, ``(estimator, param_grid)``, ``(name, estimator)`` or ``(name, estimator, param_grid)``.
        An estimator without a name gets its class name in lower case (for a Pipeline, that of its last step), numbered
        where several share it.

    Returns
    -------
    named : dict of str to (estimator, list of dict)
        Each list holds one dict of parameters for every point of the grid, ``[{}]`` without a grid.

    Raises
    ------
    TypeError
        If `candidates` is not such a sequence.
    ValueError
        If it is empty, a name comes twice, a grid names a parameter the estimator lacks, or classifiers and other
        estimators are mixed.
    """
    if isinstance(candidates, (str, dict)) or hasattr(candidates, "fit"):
        raise TypeError(f"candidates must be a list of estimators or tuples, got {candidates!r}")
    parts = [_name_estimator_grid(item) for item in candidates]
    if not parts:
        raise ValueError("candidates must hold at least one estimator, got an empty list")
    defaults = Counter(_default_name(estimator) for name, estimator, _ in parts if name is None)
    numbers = Counter()
    named = {}
    for name, estimator, grid in parts:
        if name is None:
            name = _default_name(estimator)
            if defaults[name] > 1:
                numbers[name] += 1
                name = f"{name}-{numbers[name]}"
        if name in named:
            raise ValueError(f"candidates: the name {name!r} comes twice")
        named[name] = estimator, _points(name, estimator, grid)
    _check_same_kind(named)
    return named


def rows_of_grids(named):
    """One parameter dict for each candidate and grid point: ``{"candidate": name, **params}``."""
    return [{"candidate": name, **point} for name, (_, points) in named.items() for point in points]


def seed_unseeded(estimator, seed):
    """A clone whose ``random_state`` parameters, nested ones included, are `seed` where they were None."""
    estimator = clone(estimator)
    unseeded = {
        name: seed
        for name, value in estimator.get_params(deep=True).items()
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    }
    return estimator.set_params(**unseeded)


def max_iter_parameter(estimator):
    """Name of the estimator's iteration limit, ``max_iter`` itself or that of a pipeline's last step; None without."""
    parameters = estimator.get_params(deep=True)
    if "max_iter" in parameters:
        return "max_iter"
    if hasattr(estimator, "steps"):
        nested = f"{estimator.steps[-1][0]}__max_iter"
        return nested if nested in parameters else None
    return None


def _name_estimator_grid(item):
    """(name or None, estimator, grid) of one entry of `candidates`."""
    parts = item if isinstance(item, tuple) else (item,)
    name = None
    if parts and isinstance(parts[0], str):
        name, *parts = parts
    if len(parts) not in {1, 2} or not hasattr(parts[0], "fit") or isinstance(parts[0], type):
        raise TypeError(
            "candidates: each must be an estimator, (estimator, param_grid), (name, estimator) or "
            f"(name, estimator, param_grid); got {item!r}"
        )
    return name, parts[0], parts[1] if len(parts) == 2 else {}


def _default_name(estimator):
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return type(estimator).__name__.lower()


def _points(name, estimator, grid):
    points = list(ParameterGrid(grid))
    known = estimator.get_params(deep=True)
    for point in points:
        if "candidate" in point:
            raise ValueError(f"candidates: {name!r} has a parameter called 'candidate', a name the search itself uses")
    unknown = sorted({key for point in points for key in point if key.partition("__")[0] not in known})
    if unknown:
        raise ValueError(f"candidates: {name!r} ({type(estimator).__name__}) has no parameter {', '.join(unknown)}")
    return points


def _check_same_kind(named):
    kinds = {name: (is_classifier(estimator), is_regressor(estimator)) for name, (estimator, _) in named.items()}
    if len(set(kinds.values())) > 1:
        raise ValueError(f"candidates must be all classifiers or all regressors, got a mixture: {', '.join(kinds)}")
