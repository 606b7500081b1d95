"""Fitted linear models and networks of scikit-learn, one of every class that is lowered."""

import inspect

import numpy as np
from sklearn import linear_model, svm
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, make_regression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import effml
from effml.adapters.rounding import rounding_bound

CLASSIFIERS = {
    "LogisticRegression": linear_model.LogisticRegression(max_iter=200),
    "LogisticRegression-l1": linear_model.LogisticRegression(
        C=0.1, l1_ratio=1.0, solver="saga", max_iter=30, random_state=0
    ),
    "LogisticRegressionCV": linear_model.LogisticRegressionCV(Cs=2, cv=2, max_iter=100),
    "LinearSVC": svm.LinearSVC(C=0.01),
    "LinearSVC-crammer": svm.LinearSVC(C=0.01, multi_class="crammer_singer"),
    "Perceptron": linear_model.Perceptron(max_iter=20, tol=None, random_state=0),
    "PassiveAggressiveClassifier": linear_model.PassiveAggressiveClassifier(max_iter=20, tol=None, random_state=0),
    "RidgeClassifier": linear_model.RidgeClassifier(),
    "RidgeClassifierCV": linear_model.RidgeClassifierCV(),
    "SGDClassifier": linear_model.SGDClassifier(random_state=0),
    "SGDClassifier-log_loss": linear_model.SGDClassifier(loss="log_loss", random_state=0),
    "SGDClassifier-modified_huber": linear_model.SGDClassifier(loss="modified_huber", random_state=0),
}
REGRESSORS = {
    "LinearRegression": linear_model.LinearRegression(),
    "LinearRegression-no-intercept": linear_model.LinearRegression(fit_intercept=False),
    "ARDRegression": linear_model.ARDRegression(),
    "BayesianRidge": linear_model.BayesianRidge(),
    "ElasticNet": linear_model.ElasticNet(alpha=0.01),
    "ElasticNetCV": linear_model.ElasticNetCV(cv=2),
    "GammaRegressor": linear_model.GammaRegressor(),
    "HuberRegressor": linear_model.HuberRegressor(max_iter=1000),
    "Lars": linear_model.Lars(),
    "LarsCV": linear_model.LarsCV(cv=2),
    "Lasso": linear_model.Lasso(alpha=0.5),
    "LassoCV": linear_model.LassoCV(cv=2),
    "LassoLars": linear_model.LassoLars(alpha=0.1),
    "LassoLarsCV": linear_model.LassoLarsCV(cv=2),
    "LassoLarsIC": linear_model.LassoLarsIC(),
    "LinearSVR": svm.LinearSVR(max_iter=5000),
    "OrthogonalMatchingPursuit": linear_model.OrthogonalMatchingPursuit(),
    "OrthogonalMatchingPursuitCV": linear_model.OrthogonalMatchingPursuitCV(cv=2),
    "PassiveAggressiveRegressor": linear_model.PassiveAggressiveRegressor(random_state=0),
    "PoissonRegressor": linear_model.PoissonRegressor(),
    "QuantileRegressor": linear_model.QuantileRegressor(alpha=0.0),
    "Ridge": linear_model.Ridge(),
    "RidgeCV": linear_model.RidgeCV(),
    "SGDRegressor": linear_model.SGDRegressor(random_state=0),
    "TheilSenRegressor": linear_model.TheilSenRegressor(max_subpopulation=50, random_state=0),
    "TweedieRegressor-log": linear_model.TweedieRegressor(power=1.5),
    "TweedieRegressor-identity": linear_model.TweedieRegressor(power=0),
    "SparseBayesRegressor": effml.itemsets.SparseBayesRegressor(),
}
SEVERAL = {
    "MultiTaskElasticNet": linear_model.MultiTaskElasticNet(),
    "MultiTaskElasticNetCV": linear_model.MultiTaskElasticNetCV(cv=2),
    "MultiTaskLasso": linear_model.MultiTaskLasso(),
    "MultiTaskLassoCV": linear_model.MultiTaskLassoCV(cv=2),
    "LinearRegression": linear_model.LinearRegression(),
    "Ridge": linear_model.Ridge(),
    "RidgeCV": linear_model.RidgeCV(),
    "MLPRegressor": MLPRegressor(hidden_layer_sizes=(12,), max_iter=200, random_state=0),
}
ACTIVATIONS = ("identity", "relu", "logistic", "tanh")
NETWORKS = {
    f"{activation}-{'x'.join(map(str, sizes))}": {"activation": activation, "hidden_layer_sizes": sizes}
    for activation in ACTIVATIONS
    for sizes in ((20,), (14, 9))
}


def classes_tested() -> set:
    """Return the classes of all models here by name."""
    tables = (CLASSIFIERS, REGRESSORS, SEVERAL, {"MLPClassifier": MLPClassifier(), "MLPRegressor": MLPRegressor()})
    return {type(model) for table in tables for model in table.values()}


def with_scaler(model):
    return make_pipeline(StandardScaler(), model)


def classification(n_classes):
    """Return 300 rows to fit on and the others, of two or ten classes."""
    X, y = load_breast_cancer(return_X_y=True) if n_classes == 2 else load_digits(return_X_y=True)
    return X[:300], y[:300], X[300:], y[300:]


def regression(n_outputs=1):
    """Return 250 rows to fit on and the others; targets are positive."""
    if n_outputs == 1:
        X, y = load_diabetes(return_X_y=True)
        X = 100 * X
    else:
        X, y = make_regression(442, 8, n_targets=n_outputs, noise=5, random_state=0)
        y = y / 50
    return X[:250], y[:250], X[250:], y[250:]


def network(kind, n_classes=None):
    """Return an unfitted network of a few epochs; a regressor without `n_classes`."""
    made = MLPRegressor if n_classes is None else MLPClassifier
    parameters = {"max_iter": 60, "learning_rate_init": 0.01, "random_state": 0}
    return made(
        **NETWORKS[kind],
        **{name: parameters[name] for name in inspect.signature(made).parameters if name in parameters},
    )


def assert_within_rounding(model, X) -> None:
    """Compare a lowered model with Python's predict on the rows as the device sees them, by the proven bound."""
    seen = np.asarray(X, dtype=np.float32)
    program = effml.lower(model)
    found, bound = program.run(program.encode(X)), rounding_bound(model, X)
    if program.classes is None:
        expected = np.asarray(model.predict(seen), dtype=np.float64).reshape(len(seen), -1)
        assert (np.abs(found["value"] - expected) <= bound).all()
        assert bound.max() < 1e-3 * (1 + np.abs(expected).max())  # a bound that says something
        return
    scores = _scores(model, seen)
    assert (np.abs(found["score"] - scores) <= bound).all()
    if scores.shape[1] == 1:
        lead, doubt = np.abs(scores[:, 0]), bound[:, 0]
    else:
        order = np.argsort(scores, axis=1)[:, -2:]
        lead = np.diff(np.take_along_axis(scores, order, axis=1), axis=1)[:, 0]
        doubt = np.sort(bound, axis=1)[:, -2:].sum(axis=1)
    clear = lead > doubt
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(program.labels(program.encode(X))[clear], model.predict(seen)[clear])


def _scores(model, X):
    """Return the sums before the link."""
    final = model[-1] if hasattr(model, "steps") else model
    if not hasattr(final, "coefs_"):
        return np.asarray(model.decision_function(X), dtype=np.float64).reshape(len(X), -1)
    hidden = model[:-1].transform(X) if hasattr(model, "steps") else X
    link, final.out_activation_ = final.out_activation_, "identity"
    try:
        return np.asarray(final._forward_pass_fast(hidden), dtype=np.float64)
    finally:
        final.out_activation_ = link
