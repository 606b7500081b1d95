"""
A readable regression
=====================

The progression of diabetes as a sum of linear terms and conditions on one or two measurements, each with an error bar.
"""

from sklearn.datasets import load_diabetes

from effml.itemsets import ItemsetSparseBayesRegressor, plot_importance

data = load_diabetes(as_frame=True)
model = ItemsetSparseBayesRegressor().fit(data.data, data.target)
plot_importance(model)
