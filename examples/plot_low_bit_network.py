"""
A network of one, two and four bits
===================================

Dense networks of the same size in bits: more bits a weight mean fewer neurons. Predictions are integer arithmetic.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from effml.neural import QuantizedMLPClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
budgets = [2_000, 4_000, 8_000, 16_000, 32_000]
for bits in (1, 2, 4):
    errors = []
    for budget in budgets:
        model = QuantizedMLPClassifier(
            weight_bits=bits, budget_bits=budget, batch_norm=True, max_iter=40, random_state=0
        )
        errors.append(100 * (1 - model.fit(X_train, y_train).score(X_test, y_test)))
    plt.plot(budgets, errors, marker="o", label=f"{bits} bits")
plt.xscale("log")
plt.xticks(budgets, [f"{budget:,}" for budget in budgets])
plt.minorticks_off()
plt.xlabel("model, bits")
plt.ylabel("test error %")
plt.legend()
