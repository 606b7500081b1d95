"""Choosing a model under a budget: Pareto fronts, footprint scorers and searches that keep to a byte count."""

from effml.selection.budget import BudgetError, most_accurate_under, parse_budget
from effml.selection.candidates import bayes_candidates, default_candidates
from effml.selection.pareto import pareto_front
from effml.selection.scorers import footprint_scorer
from effml.selection.search import BudgetSearchCV

__all__ = [
    "BudgetError",
    "BudgetSearchCV",
    "bayes_candidates",
    "default_candidates",
    "footprint_scorer",
    "most_accurate_under",
    "pareto_front",
    "parse_budget",
]
