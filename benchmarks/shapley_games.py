"""Games of features with known Shapley values: models on real data, explained against 16 background rows.

Up to 16 features the values of all coalitions are enumerated once and kept, so that a lookup takes the place of the
model. Larger games call the model, and their Shapley values come from effml's closed form (trees; it equals enumeration
to rounding, where shap's interventional TreeExplainer, which compares float32 thresholds, was off by up to 0.01 of a
log odds), from the multilinear extension of a product of one kernel a feature (support vector machines), or are those
of a linear function.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import SVC

from effml.datasets import load_dataset
from effml.shapley import InterventionalGame, MultilinearShapleyExplainer
from effml.shapley.estimators import make_plan

N_BACKGROUND, N_ROWS = 16, 4
ALL = slice(None)
MOST_TRAINING_ROWS = 4000


@dataclass(frozen=True)
class Game:
    """Players, values (m, n_rows) as a function of coalitions and of rows, and Shapley values (n_players, n_rows)."""

    name: str
    n_players: int
    values: object
    truth: np.ndarray


def split_of(name, n_columns, seed=0):
    """Return standardised rows: training X and y, background, rows to explain."""
    data = load_dataset(name)
    X = data.data if data.data is not None else np.concatenate([data.X_train, data.X_test])
    y = data.target if data.target is not None else np.concatenate([data.y_train, data.y_test])
    X, y = np.asarray(X, dtype=np.float64)[:, :n_columns], np.asarray(y)
    order = np.random.default_rng(seed).permutation(len(X))[: MOST_TRAINING_ROWS + N_BACKGROUND + N_ROWS]
    X, y = X[order], y[order]
    X = (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1)
    rest = N_BACKGROUND + N_ROWS
    return X[rest:], y[rest:], X[:N_BACKGROUND], X[N_BACKGROUND:rest]


def probability(model, X):
    """Return the function that gives the probability of the class most frequent in the rows' own predictions."""
    likely = np.bincount(model.predict_proba(X).argmax(axis=1)).argmax()
    return lambda rows: model.predict_proba(rows)[:, likely]


def _mlp(n_units, activation="relu"):
    return MLPClassifier(hidden_layer_sizes=(n_units, n_units), activation=activation, max_iter=200, random_state=0)


def _mlp_regressor():
    return MLPRegressor(hidden_layer_sizes=(32, 32), max_iter=1000, random_state=0)


ENUMERATED = {
    "MLP magic": ("magic", 10, lambda: _mlp(32)),
    "MLP wdbc": ("breast_cancer_wdbc", 14, lambda: _mlp(32, "logistic")),
    "MLP boston": (
        "boston_housing",
        13,
        _mlp_regressor,
    ),
    "MLP letter": ("letter", 16, lambda: _mlp(48)),
    "forest eeg": ("eeg_eye_state", 14, lambda: RandomForestClassifier(100, random_state=0)),
    "forest wine": ("wine_quality", 12, lambda: RandomForestRegressor(100, min_samples_leaf=5, random_state=0)),
    "boosting credit": ("credit_default", 15, lambda: HistGradientBoostingClassifier(max_depth=8, random_state=0)),
    "kNN adult": ("adult", 14, lambda: KNeighborsClassifier(15, weights="distance")),
    "logistic australian": ("australian_credit", 14, lambda: LogisticRegression(C=10)),
    "SVM heart": ("heart_statlog", 13, lambda: SVC(gamma=0.1)),
}

FRESH = {
    "MLP satimage": ("satimage", 12, lambda: _mlp(32)),
    "MLP german": ("german_credit", 13, lambda: _mlp(16, "logistic")),
    "forest spambase": ("spambase", 12, lambda: RandomForestClassifier(100, random_state=0)),
    "boosting adult": ("adult", 13, lambda: HistGradientBoostingClassifier(max_depth=6, random_state=0)),
    "kNN magic": ("magic", 10, lambda: KNeighborsClassifier(25)),
    "SVM spambase": ("spambase", 14, lambda: SVC(gamma=0.1)),
}
"""Games that no setting of effml was chosen by."""


def _enumerated(name):
    data, n_columns, make = (ENUMERATED | FRESH)[name]
    X, y, background, rows = split_of(data, n_columns)
    model = make().fit(X, y)
    if hasattr(model, "predict_proba"):
        predict = probability(model, rows)
    else:
        predict = getattr(model, "decision_function", None) or model.predict
    plan = make_plan("exact", n_columns, None, [0])
    table = InterventionalGame(predict, background, batch_size=1 << 16)(rows, plan.coalitions)[:, :, 0]
    return {"table": table, "truth": plan.solve(table).values}


# -- larger games -----------------------------------------------------------------------------------------------------


def _values(predict, background, rows):
    game = InterventionalGame(predict, background, batch_size=1 << 16)
    return lambda coalitions, which=ALL: game(rows[which], coalitions)[:, :, 0]


def _linear(X, y, background, rows):
    model = LogisticRegression(C=1).fit(X, y)
    return _values(model.decision_function, background, rows), model.coef_[0, :, None] * (
        rows - background.mean(axis=0)
    ).T


def _trees(make, margin):
    def built(X, y, background, rows):
        model = make().fit(X, y)
        output = "decision_function" if margin else "predict_proba"
        explainer = MultilinearShapleyExplainer(model, background, method="closed_form", output=output)
        phi = explainer(rows).values
        phi = phi if phi.ndim == 2 else phi[:, :, 1]
        predict = model.decision_function if margin else lambda Z: model.predict_proba(Z)[:, 1]
        return _values(predict, background, rows), phi.T

    return built


def _svm(gamma):
    """A support vector machine: its kernel is a product over the features, so its multilinear extension is one too."""

    def built(X, y, background, rows):
        model = SVC(gamma=gamma).fit(X, y)
        nodes, weights = np.polynomial.legendre.leggauss((X.shape[1] + 1) // 2)
        vectors, phi = model.support_vectors_, np.zeros((X.shape[1], len(rows)))
        for number, row in enumerate(rows):
            here = np.exp(-gamma * (row - vectors) ** 2)  # (n_vectors, n_players)
            for other in background:
                there = np.exp(-gamma * (other - vectors) ** 2)
                for q, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
                    factor = q * here + (1 - q) * there
                    rest = factor.prod(axis=1, keepdims=True) / factor
                    phi[:, number] += weight * (model.dual_coef_[0] @ ((here - there) * rest)) / len(background)
        # log kernels (n_players, n_background * n_vectors); they add up over the features
        there = -gamma * (background[:, None] - vectors) ** 2
        there = there.transpose(2, 0, 1).reshape(X.shape[1], -1)
        weights = np.tile(model.dual_coef_[0] / len(background), len(background))

        def values(coalitions, which=ALL):
            present = np.asarray(coalitions, dtype=np.float64)
            absent, parts = (1 - present) @ there, []
            for row in rows[which]:
                here = present @ (-gamma * (row - vectors) ** 2).T
                parts.append(np.exp(absent + np.tile(here, len(background))) @ weights + model.intercept_)
            return np.stack(parts, axis=1)

        return values, phi

    return built


LARGE = {
    "logistic margin german": ("german_credit", 20, _linear),
    "SVM wdbc": ("breast_cancer_wdbc", 30, _svm(0.03)),
    "SVM sonar": ("sonar", 60, _svm(0.02)),
    "boosting spambase": (
        "spambase",
        57,
        _trees(lambda: GradientBoostingClassifier(n_estimators=100, max_depth=6, random_state=0), True),
    ),
    "forest sonar": ("sonar", 60, _trees(lambda: RandomForestClassifier(100, random_state=0), False)),
    "boosting wdbc": (
        "breast_cancer_wdbc",
        30,
        _trees(lambda: GradientBoostingClassifier(n_estimators=100, max_depth=5, random_state=0), True),
    ),
}
GAMES = (*ENUMERATED, *LARGE)


def load_game(name, folder):
    """Return a game, its table of values or Shapley values read from or kept in the folder."""
    path = Path(folder) / f"{name.replace(' ', '_')}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    if name in ENUMERATED | FRESH:
        if not path.is_file():
            np.savez(path, **_enumerated(name))
        kept = np.load(path)
        table, truth = kept["table"], kept["truth"]
        bits = 1 << np.arange(len(truth))
        return Game(name, len(truth), lambda S, which=ALL: table[np.asarray(S) @ bits][:, which], truth)
    data, n_columns, build = LARGE[name]
    X, y, background, rows = split_of(data, n_columns)
    values, truth = build(X, y, background, rows)
    return Game(name, n_columns, values, truth)
