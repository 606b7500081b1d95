"""Sparse Bayesian regression: few columns, chosen by the evidence, with error bars."""

from effml.itemsets.sparse_bayes import SparseBayesRegressor

__all__ = ["SparseBayesRegressor"]
