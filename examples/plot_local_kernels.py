"""
Where each kernel counts
========================

The classes lie close together on the left and far apart on the right, so a narrow kernel is needed in one half of the
plane only. The gate of a localized kernel model finds that out; darker is a larger weight.
"""

import numpy as np

from effml.kernels import RBF, LocalizedMKLClassifier, plot_gate

rng = np.random.default_rng(0)
X = rng.uniform(-1, 1, (800, 2))
fine = np.sin(25 * X[:, 1]) > 0
coarse = X[:, 1] > 0
y = np.where(X[:, 0] < 0, fine, coarse)
model = LocalizedMKLClassifier(kernels=[RBF(gamma=0.5), RBF(gamma=50.0)], n_landmarks=150, random_state=0)
model.fit(X, y)
plot_gate(model, X)
print("accuracy", model.score(X, y))
