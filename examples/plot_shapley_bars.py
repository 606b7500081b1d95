"""
Which features made a prediction
================================

Shapley values of a forest's probabilities, exact and read off its trees: no coalition is sampled.
"""

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from effml.shapley import MultilinearShapleyExplainer

data = load_breast_cancer(as_frame=True)
model = RandomForestClassifier(100, random_state=0).fit(data.data, data.target)
explanation = MultilinearShapleyExplainer(model, data.data[:100])(data.data[100:101])
explanation.plot_bar(row=0, output=1, max_features=12)
print(explanation.method, "calls of the model:", explanation.n_evaluations)
