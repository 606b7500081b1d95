"""Sparse Bayesian regression: few columns or itemsets, chosen by the evidence, with error bars."""

from effml.itemsets.itemset_regressor import ItemsetSparseBayesRegressor
from effml.itemsets.plots import plot_importance
from effml.itemsets.sparse_bayes import SparseBayesRegressor

__all__ = ["ItemsetSparseBayesRegressor", "SparseBayesRegressor", "plot_importance"]
