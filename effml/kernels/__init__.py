"""Localized multiple kernel learning: kernels weighted by where a row lies, trained in linear time."""

from effml.kernels.base_kernels import RBF, Polynomial
from effml.kernels.estimators import LocalizedMKLClassifier, LocalizedMKLRegressor
from effml.kernels.plots import plot_gate

__all__ = ["RBF", "LocalizedMKLClassifier", "LocalizedMKLRegressor", "Polynomial", "plot_gate"]
