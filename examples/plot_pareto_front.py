"""
What each byte buys
===================

Naive Bayes and tree-augmented classifiers with tables of 1 to 4 bits on handwritten digits, searched under a budget of
4 KiB of flash. Every point is a model that could ship; the star is the most accurate one within the budget.
"""

from sklearn.datasets import load_digits

from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.report import plot_pareto
from effml.selection import BudgetSearchCV

X, y = load_digits(return_X_y=True)
grid = {"n_bits": [1, 2, 4], "max_bins": [2, 4]}
candidates = [(NaiveBayesClassifier(max_iter=40), grid), (TANClassifier(max_iter=40), grid)]
search = BudgetSearchCV(candidates, budget="flash=4KiB", cv=3).fit(X, y)
plot_pareto(search)
