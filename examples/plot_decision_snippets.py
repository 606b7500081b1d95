"""
Snippets of a random forest
===========================

A forest is cut into the small trees that occur in it again and again; a linear model over them keeps to 4 KiB of flash,
code included. The first few of the snippets it kept:
"""

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

import effml
from effml.forests import DecisionSnippetClassifier, plot_snippets

data = load_breast_cancer(as_frame=True)
X_train, X_test, y_train, y_test = train_test_split(data.data, data.target, stratify=data.target, random_state=0)
forest = RandomForestClassifier(50, random_state=0)
model = DecisionSnippetClassifier(forest=forest, budget_bytes=4096, random_state=0).fit(X_train, y_train)
plot_snippets(model)
print("forest  ", forest.fit(X_train, y_train).score(X_test, y_test), effml.footprint(forest).flash_bytes, "bytes")
print("snippets", model.score(X_test, y_test), effml.footprint(model).flash_bytes, "bytes")
