"""Shapley values of model outputs by the multilinear extension of the game of features."""

from effml.shapley.estimators import Estimate
from effml.shapley.explainer import MultilinearShapleyExplainer, shapley_values
from effml.shapley.explanation import ShapleyExplanation
from effml.shapley.game import CoalitionGame, InterventionalGame

__all__ = [
    "CoalitionGame",
    "Estimate",
    "InterventionalGame",
    "MultilinearShapleyExplainer",
    "ShapleyExplanation",
    "shapley_values",
]
