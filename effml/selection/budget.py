"""Budgets: what a model may cost, how that is written, and which rows of a search keep to it."""

import math
import numbers
import re

import numpy as np

__all__ = [
    "QUANTITIES",
    "BudgetError",
    "check_budget",
    "describe_candidate",
    "describe_footprint",
    "most_accurate_under",
    "parse_budget",
]

QUANTITIES = ("flash_bytes", "ram_bytes", "n_operations", "n_parameters", "bits")
"""The numbers of a footprint that can be bounded, all of them better when smaller."""

_FULL_NAMES = {
    "flash": "flash_bytes",
    "ram": "ram_bytes",
    "operations": "n_operations",
    "parameters": "n_parameters",
} | {name: name for name in QUANTITIES}

_BYTE_UNITS = {"": 1, "b": 1, "kb": 1000, "kib": 1024, "mb": 1000**2, "mib": 1024**2}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*")


class BudgetError(ValueError):
    """No candidate fits the budget.

    Attributes
    ----------
    smallest : dict or None
        The candidate that comes closest: its "params" and its "footprint" (quantity -> amount).
    """

    def __init__(self, message, smallest=None):
        super().__init__(message)
        self.smallest = smallest


def parse_budget(text):
    """Read a budget such as ``"flash=4KiB,ram=256"``.

    Parameters
    ----------
    text : str
        Comma-separated ``name=amount``. Names: flash, ram, operations, parameters, bits, or the full names
        flash_bytes, ram_bytes, n_operations, n_parameters. Amounts of bytes take B, KB (1000), KiB (1024), MB
        (1000 x 1000) and MiB (1024 x 1024), in any case; the other amounts are plain whole numbers.

    Returns
    -------
    budget : dict of str to int
        Full name of each quantity -> largest amount allowed.

    Raises
    ------
    ValueError
        If a name or unit is unknown, a name comes twice, or an amount is not a positive whole number.

    Examples
    --------
    >>> from effml.selection import parse_budget
    >>> parse_budget("flash=4KiB,ram=256")
    {'flash_bytes': 4096, 'ram_bytes': 256}
    """
    if not isinstance(text, str):
        raise TypeError(f"budget must be text such as 'flash=4KiB,ram=256', got {text!r}")
    budget = {}
    for item in text.split(","):
        name, equals, amount = item.partition("=")
        if not equals:
            raise ValueError(f"budget={text!r}: {item.strip()!r} is not of the form name=amount, such as flash=4KiB")
        quantity = _full_name(name.strip())
        if quantity in budget:
            raise ValueError(f"budget={text!r}: {quantity} is given twice")
        budget[quantity] = _parse_amount(quantity, amount)
    return budget


def check_budget(budget):
    """A budget as the user gave it -> dict of full quantity name to limit.

    Parameters
    ----------
    budget : None, str or dict
        None (no limit), the text that :func:`parse_budget` reads, or a dict of quantity -> positive number or
        amount with a unit.

    Returns
    -------
    limits : dict of str to number

    Examples
    --------
    >>> from effml.selection.budget import check_budget
    >>> check_budget({"flash": "2KiB", "n_operations": 500})
    {'flash_bytes': 2048, 'n_operations': 500}
    """
    if budget is None:
        return {}
    if isinstance(budget, str):
        return parse_budget(budget)
    if not hasattr(budget, "items"):
        raise TypeError(
            f"budget must be None, a dict of quantity -> limit, or text such as 'flash=4KiB'; got {budget!r}"
        )
    limits = {}
    for name, limit in budget.items():
        quantity = _full_name(name)
        if quantity in limits:
            raise ValueError(f"budget={budget!r}: {quantity} is given twice")
        if isinstance(limit, str):
            limit = _parse_amount(quantity, limit)
        is_number = isinstance(limit, numbers.Real) and not isinstance(limit, bool)
        if not is_number or not math.isfinite(limit) or limit <= 0:
            raise ValueError(f"budget[{name!r}] must be a positive finite number, got {limit!r}")
        limits[quantity] = limit
    return limits


def _full_name(name):
    if name not in _FULL_NAMES:
        raise ValueError(f"budget: unknown quantity {name!r}; accepted: {', '.join(_FULL_NAMES)}")
    return _FULL_NAMES[name]


def _parse_amount(quantity, text):
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"budget: {quantity}={text.strip()!r} is not an amount; write for example 4096 or 4KiB")
    number, unit = match.groups()
    units = _BYTE_UNITS if quantity.endswith("_bytes") else {"": 1}
    if unit.lower() not in units:
        accepted = "B, KB (1000), KiB (1024), MB, MiB or none" if len(units) > 1 else "none: it is a plain number"
        raise ValueError(f"budget: unknown unit {unit!r} for {quantity}; accepted: {accepted}")
    amount = float(number) * units[unit.lower()]
    if amount <= 0 or amount != int(amount):
        raise ValueError(f"budget: {quantity}={text.strip()!r} must come to a positive whole number")
    return int(amount)


# ---------------------------------------------------------------- rows of cv_results_


def footprints_of(results, quantities):
    """Mean footprints over the folds, positive, shape (n_candidates, n_quantities)."""
    columns = []
    for quantity in quantities:
        key = f"mean_test_{quantity}"
        if key not in results:
            raise ValueError(
                f"cv_results_ has no {key!r}: give the search scoring={{..., {quantity!r}: "
                f"footprint_scorer({quantity!r})}}"
            )
        columns.append(-np.asarray(results[key], dtype=np.float64))
    return np.column_stack(columns) if columns else np.empty((len(results["params"]), 0))


def load_of(results, limits):
    """Largest share of any limit that each row uses (1 = exactly full; NaN where unknown), shape (n_candidates,)."""
    if not limits:
        return np.zeros(len(results["params"]))
    return (footprints_of(results, limits) / np.array([*limits.values()], dtype=np.float64)).max(axis=1)


def rank_within_budget(results, limits, score="score"):
    """Indices of the rows that keep to the limits, best score first; ties go to the smaller one, then the earlier."""
    scores = np.asarray(results[f"mean_test_{score}"], dtype=np.float64)
    load = load_of(results, limits)
    failed = np.asarray(results.get("failure", [""] * len(scores))) != ""  # a numeric error_score is no score
    fitting = np.flatnonzero((load <= 1) & ~np.isnan(scores) & ~failed)
    size = load if limits or "mean_test_flash_bytes" not in results else -np.asarray(results["mean_test_flash_bytes"])
    return fitting[np.lexsort((size[fitting], -scores[fitting]))]


def over_budget_error(results, limits):
    """The BudgetError that names the candidate which comes closest to the limits."""
    load = load_of(results, limits)
    if np.isnan(load).all():
        return ValueError("no candidate has a footprint: all of them failed")
    row = int(np.nanargmin(load))
    quantities = [q for q in QUANTITIES if f"mean_test_{q}" in results]
    amounts = footprints_of(results, quantities)[row]
    footprint = {q: float(amount) for q, amount in zip(quantities, amounts, strict=True)}
    return closest_to(limits, dict(results["params"][row]), footprint)


def closest_to(limits, params, footprint):
    """BudgetError for this closest candidate."""
    message = (
        f"no candidate fits the budget {describe_footprint(limits)}; the smallest is {describe_candidate(params)} "
        f"with {describe_footprint({q: footprint[q] for q in limits})}"
    )
    return BudgetError(message, smallest={"params": params, "footprint": footprint})


def describe_footprint(amounts):
    """``{'flash_bytes': 4096.0}`` -> ``'flash_bytes=4096'``, for messages.

    Examples
    --------
    >>> from effml.selection.budget import describe_footprint
    >>> describe_footprint({"flash_bytes": 4096.0, "ram_bytes": 12.4})
    'flash_bytes=4096, ram_bytes=12'
    """
    return ", ".join(f"{quantity}={amount:.0f}" for quantity, amount in amounts.items())


def describe_candidate(params):
    """Short label of one row's parameters: the candidate's name, then what varies, without pipeline prefixes.

    Examples
    --------
    >>> from effml.selection.budget import describe_candidate
    >>> describe_candidate({"candidate": "logistic", "logisticregression__C": 0.1})
    'logistic (C=0.1)'
    """
    values = {key.rpartition("__")[2]: value for key, value in params.items() if key != "candidate"}
    settings = ", ".join(f"{key}={value}" for key, value in values.items())
    name = str(params.get("candidate", ""))
    return f"{name} ({settings})" if name and settings else name or settings or "the only candidate"


# ---------------------------------------------------------------- refit callable for scikit-learn's own searches


def most_accurate_under(budget, *, score="accuracy"):
    """A `refit` callable for scikit-learn's searches: the best score among the candidates within a budget.

    Parameters
    ----------
    budget : dict or str
        Quantity -> largest amount allowed, or the text :func:`parse_budget` reads. Each quantity must be scored by the
        search under its own name with :func:`~effml.selection.footprint_scorer`.
    score : str, default="accuracy"
        Name of the score to maximise, a key of the search's `scoring`.

    Returns
    -------
    refit : callable
        Takes ``cv_results_``, returns the index of the chosen row. Ties go to the smaller model. It raises
        :class:`~effml.selection.BudgetError` when nothing fits.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from effml.selection import footprint_scorer, most_accurate_under
    >>> search = GridSearchCV(
    ...     DecisionTreeClassifier(random_state=0),
    ...     {"max_leaf_nodes": [2, 4, 8]},
    ...     scoring={"accuracy": "accuracy", "flash_bytes": footprint_scorer("flash_bytes")},
    ...     refit=most_accurate_under({"flash_bytes": 4096}),
    ... )
    >>> bool(search.fit(*load_iris(return_X_y=True)).best_index_ >= 0)
    True
    """
    return _MostAccurateUnder(check_budget(budget), score)


class _MostAccurateUnder:
    """A class, not a closure, so that a search holding it can be cloned, pickled and printed."""

    def __init__(self, limits, score):
        self.limits = limits
        self.score = score

    def __call__(self, results):
        if f"mean_test_{self.score}" not in results:
            raise ValueError(f"cv_results_ has no score named {self.score!r}; name it in the search's scoring")
        ranking = rank_within_budget(results, self.limits, self.score)
        if ranking.size == 0:
            raise over_budget_error(results, self.limits)
        return int(ranking[0])

    def __eq__(self, other):
        return isinstance(other, _MostAccurateUnder) and vars(self) == vars(other)

    __hash__ = None

    def __repr__(self):
        return f"most_accurate_under({self.limits!r}, score={self.score!r})"
