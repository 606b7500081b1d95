"""Sparse Bayesian regression over columns or itemsets, with error bars, and Bayesian optimisation by itemsets."""

from effml.itemsets.itemset_regressor import ItemsetSparseBayesRegressor
from effml.itemsets.optimizer import ItemsetBayesOptimizer
from effml.itemsets.plots import plot_importance
from effml.itemsets.spaces import Categorical, Integer, Real
from effml.itemsets.sparse_bayes import SparseBayesRegressor

__all__ = [
    "Categorical",
    "Integer",
    "ItemsetBayesOptimizer",
    "ItemsetSparseBayesRegressor",
    "Real",
    "SparseBayesRegressor",
    "plot_importance",
]
