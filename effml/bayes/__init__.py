"""Bayesian network classifiers: naive Bayes and TAN in float32 or low-bit tables."""

from effml.bayes.classifiers import NaiveBayesClassifier, TANClassifier
from effml.discretization import MDLPDiscretizer

__all__ = ["MDLPDiscretizer", "NaiveBayesClassifier", "TANClassifier"]
