"""Closed forms: equal to enumeration of all coalitions, for every kind of term and every family of models."""

from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import (
    BayesianRidge,
    Lasso,
    LinearRegression,
    LogisticRegression,
    MultiTaskLasso,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, PowerTransformer, StandardScaler
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import effml
from effml._trees import Trees
from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.forests import DecisionSnippetClassifier, DecisionSnippetRegressor, SplittingStumpClassifier
from effml.shapley import MultilinearShapleyExplainer
from effml.shapley.closed_form import NoClosedForm, closed_form
from effml.shapley.game import predict_and_form
from effml.shapley.terms import Tables, TreeSum

COLUMNS = [0, 2, 3, 4, 6, 8, 9]


@pytest.fixture(scope="module")
def numbers():
    X, y = load_diabetes(return_X_y=True)
    return X[:, COLUMNS], y


@pytest.fixture(scope="module")
def classes():
    X, y = load_iris(return_X_y=True)
    return X, y


def assert_exact(model, X, *, output="auto", features=None, rows=slice(20, 24), rtol=1e-9, background=7):
    """The closed form of a model is what enumeration of all coalitions of the same output gives."""
    options = {"features": features, "interactions": True, "batch_size": 100_000}
    form = MultilinearShapleyExplainer(model, X[:background], method="closed_form", output=output, **options)(X[rows])
    assert form.method[0] == "closed_form"
    predict = _explained(model, output)
    exact = MultilinearShapleyExplainer(lambda Z: predict(Z), X[:background], method="exact", **options)(X[rows])
    scale = np.abs(exact.values).max()
    assert scale > 0
    assert form.values.shape == exact.values.shape
    np.testing.assert_allclose(form.values, exact.values, rtol=0, atol=rtol * scale)
    np.testing.assert_allclose(form.base_values, exact.base_values, rtol=rtol)
    np.testing.assert_allclose(form.interactions, exact.interactions, rtol=0, atol=10 * rtol * scale)
    assert (form.standard_errors == 0).all()
    assert list(form.n_evaluations) == [2] * len(form)
    return form


def _explained(model, output):
    """Return the output of a model as a plain function, which no closed form is read from."""
    return predict_and_form(model, output, "closed_form")[0]


# -- terms against definitions ----------------------------------------------------------------------------------------


def random_trees(rng, n_trees, depth, n_columns, n_outputs):
    """Return full random trees in which features repeat along paths."""
    n_splits, n_leaves = 2**depth - 1, 2**depth
    order = []

    def grow(level, counter):
        if level == depth:
            counter[1] += 1
            return ~(counter[1] - 1)
        counter[0] += 1
        me = counter[0] - 1
        order.append((me, grow(level + 1, counter), grow(level + 1, counter)))
        return me

    counter, roots = [0, 0], []
    for _ in range(n_trees):
        roots.append(grow(0, counter))
    children = np.array([pair[1:] for pair in sorted(order)]).reshape(-1, 2)
    return Trees(
        feature=rng.integers(0, n_columns, n_trees * n_splits),
        threshold=rng.normal(size=n_trees * n_splits),
        children=children,
        missing_right=rng.integers(0, 2, n_trees * n_splits).astype(bool),
        roots=np.array(roots),
        value=rng.normal(size=(n_trees * n_leaves, n_outputs)),
    )


def enumerated(score, rows, background, player, n_players):
    """Return values and interactions from all coalitions, by the weights of the definition."""
    coalitions = np.array([[k >> i & 1 for i in range(n_players)] for k in range(2**n_players)], dtype=bool)
    v = np.stack(
        [[score(np.where(S[player], row, background)).mean(axis=0) for S in coalitions] for row in rows]
    )  # (n_rows, 2**n, n_outputs)
    number = {tuple(S): k for k, S in enumerate(coalitions)}
    values = np.zeros((len(rows), n_players, v.shape[2]))
    pairs = np.zeros((len(rows), n_players, n_players, v.shape[2]))

    def at(S, *extra):
        S = np.array(S)
        S[list(extra)] = True
        return v[:, number[tuple(S)]]

    for S in coalitions:
        s = int(S.sum())
        for i in np.flatnonzero(~S):
            weight = factorial(s) * factorial(n_players - s - 1) / factorial(n_players)
            values[:, i] += weight * (at(S, i) - at(S))
            for j in np.flatnonzero(~S):
                if i != j:
                    weight = factorial(s) * factorial(n_players - s - 2) / factorial(n_players - 1)
                    pairs[:, i, j] += weight * (at(S, i, j) - at(S, i) - at(S, j) + at(S))
    return values, pairs


@settings(max_examples=25, deadline=None)
@given(
    n_columns=st.integers(1, 5),
    n_players=st.integers(1, 5),
    depth=st.integers(0, 4),
    n_outputs=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_trees_follow_the_definition(n_columns, n_players, depth, n_outputs, seed):
    rng = np.random.default_rng(seed)
    n_players = min(n_players, n_columns)
    player = rng.permutation(np.concatenate([np.arange(n_players), rng.integers(0, n_players, n_columns - n_players)]))
    trees = random_trees(rng, 3, depth, n_columns, n_outputs)
    rows, background = rng.normal(size=(2, n_columns)), rng.normal(size=(3, n_columns))
    rows[0, 0] = background[0, -1] = np.nan
    values, pairs = TreeSum(trees).shapley(rows, background, player, n_players, interactions=True)
    expected = enumerated(
        lambda Z: trees.value[trees.leaves_of(Z, dtype=np.float64)].sum(axis=1), rows, background, player, n_players
    )
    np.testing.assert_allclose(values, expected[0], atol=1e-12)
    np.testing.assert_allclose(pairs, expected[1], atol=1e-12)
    only, none = TreeSum(trees).shapley(rows, background, player, n_players)
    np.testing.assert_array_equal(only, values)
    assert none is None


@settings(max_examples=25, deadline=None)
@given(n_players=st.integers(1, 4), seed=st.integers(0, 999))
def test_tables_follow_the_definition(n_players, seed):
    rng = np.random.default_rng(seed)
    states = rng.integers(1, 4, 4)
    player = rng.permutation(np.concatenate([np.arange(n_players), rng.integers(0, n_players, 4 - n_players)]))
    parents = np.array([-1, 0, 1, 0])
    tables = [
        np.pad(rng.normal(size=(states[i], states[p] if p >= 0 else 1, 2)), ((0, 1), (0, int(p >= 0)), (0, 0)))
        for i, p in enumerate(parents)
    ]

    def score(codes):
        total = np.zeros((len(codes), 2))
        for i, p in enumerate(parents):
            inside = (codes[:, i] < states[i]) & ((codes[:, p] < states[p]) if p >= 0 else True)
            other = codes[:, p] if p >= 0 else np.zeros(len(codes), dtype=int)
            total[inside] += tables[i][codes[inside, i], other[inside]]
        return total

    rows, background = rng.integers(0, 4, (2, 4)), rng.integers(0, 4, (3, 4))  # some codes are out of range
    values, pairs = Tables(np.arange(4), parents, tables).shapley(rows, background, player, n_players, True)
    expected = enumerated(score, rows, background, player, n_players)
    np.testing.assert_allclose(values, expected[0], atol=1e-12)
    np.testing.assert_allclose(pairs, expected[1], atol=1e-12)


# -- scikit-learn -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        LinearRegression(),
        Ridge(),
        Lasso(0.1),
        BayesianRidge(),
        SGDRegressor(tol=0.1, random_state=0),
        LinearSVR(random_state=0),
        DecisionTreeRegressor(max_depth=6, random_state=0),
        RandomForestRegressor(7, max_depth=6, random_state=0),
        GradientBoostingRegressor(n_estimators=20, max_depth=4, random_state=0),
        HistGradientBoostingRegressor(max_iter=20),
        make_pipeline(StandardScaler(), Ridge()),
        make_pipeline(PowerTransformer(), RandomForestRegressor(5, random_state=0)),
        make_pipeline(KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), LinearRegression()),
        make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), Ridge())),
        make_pipeline(make_column_transformer((StandardScaler(), [3, 0, 1]), remainder="passthrough"), Lasso(0.1)),
        GridSearchCV(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [0.1, 1.0]}, cv=2),
    ],
    ids=lambda model: "-".join(type(step).__name__ for step in getattr(model, "named_steps", {"": model}).values()),
)
def test_regressors(numbers, model):
    X, y = numbers
    assert_exact(model.fit(X, y), X)


@pytest.mark.parametrize(
    ("model", "output"),
    [
        (LogisticRegression(max_iter=500), "decision_function"),
        (RidgeClassifier(), "decision_function"),
        (LinearSVC(), "decision_function"),
        (SGDClassifier(random_state=0), "decision_function"),
        (LinearDiscriminantAnalysis(), "decision_function"),
        (GaussianNB(), "predict_joint_log_proba"),
        (MultinomialNB(), "predict_joint_log_proba"),
        (ComplementNB(), "predict_joint_log_proba"),
        (BernoulliNB(binarize=2.0), "predict_joint_log_proba"),
        (DecisionTreeClassifier(random_state=0), "predict_proba"),
        (RandomForestClassifier(7, random_state=0), "predict_proba"),
        (ExtraTreesClassifier(7, random_state=0), "predict_proba"),
        (GradientBoostingClassifier(n_estimators=5), "decision_function"),
        (HistGradientBoostingClassifier(max_iter=5), "decision_function"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "decision_function"),
        (make_pipeline(StandardScaler(), GaussianNB()), "predict_joint_log_proba"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_classifiers(classes, model, output, n_classes):
    X, y = classes
    chosen = y < n_classes
    X, y = X[chosen][::-1], y[chosen][::-1]
    model.fit(X, y)
    assert_exact(model, X, output=output, rows=slice(50, 54))
    if "proba" in output or not hasattr(model, "predict_proba"):
        found = MultilinearShapleyExplainer(model, X[:7], method="closed_form")(X[50:54])
        wanted = MultilinearShapleyExplainer(model, X[:7], method="closed_form", output=output)(X[50:54])
        np.testing.assert_array_equal(found.values, wanted.values)


def test_categorical_naive_bayes():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 4, size=(200, 5))
    model = CategoricalNB().fit(X, (X[:, 0] + X[:, 1] + rng.integers(0, 2, 200)) % 3)
    assert_exact(model, X.astype(float), output="predict_joint_log_proba")
    explainer = MultilinearShapleyExplainer(model, X[:5], output="predict_joint_log_proba")
    with pytest.raises(IndexError):
        explainer(np.full((1, 5), 9.0))  # the model itself takes no unseen code


def test_several_targets(numbers):
    X, y = numbers
    model = MultiTaskLasso(0.1).fit(X, np.stack([y, X[:, 0]], axis=1))
    form = assert_exact(model, X)
    assert form.values.shape == (4, len(COLUMNS), 2)


@pytest.mark.parametrize("kind", [RandomForestRegressor, HistGradientBoostingRegressor, LinearRegression])
def test_groups_of_columns(numbers, kind):
    X, y = numbers
    model = kind().fit(X, y)
    form = assert_exact(model, X, features={"a": [0, 4], "b": [1], "c": [6, 2, 3], "d": [5]})
    assert form.feature_names == ["a", "b", "c", "d"]


def test_missing_values_go_where_the_trees_send_them(numbers):
    X, y = numbers
    X = X.copy()
    X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    for model in HistGradientBoostingRegressor(max_iter=20), RandomForestRegressor(5, random_state=0):
        assert_exact(model.fit(X, y), X)


def test_shap_agrees_on_trees_and_linear_models(numbers):
    shap = pytest.importorskip("shap")
    X, y = np.round(1000 * numbers[0]), numbers[1]  # whole numbers: shap rounds thresholds to float32
    forest = RandomForestRegressor(10, random_state=0).fit(X, y)
    ours = MultilinearShapleyExplainer(forest, X[:30])(X[40:50])
    theirs = shap.TreeExplainer(forest, X[:30], feature_perturbation="interventional").shap_values(X[40:50])
    np.testing.assert_allclose(ours.values, theirs, atol=1e-4 * np.abs(theirs).max())  # float32 there
    linear = LinearRegression().fit(X, y)
    theirs = shap.LinearExplainer(linear, shap.maskers.Independent(X[:30], 30)).shap_values(X[40:50])
    np.testing.assert_allclose(MultilinearShapleyExplainer(linear, X[:30])(X[40:50]).values, theirs, rtol=1e-9)


# -- models of effml and Programs -------------------------------------------------------------------------------------


def as_float32(X):
    return np.asarray(X, dtype=np.float32)


@pytest.mark.parametrize("kind", [DecisionSnippetClassifier, SplittingStumpClassifier])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_snippet_classifiers(classes, kind, n_classes):
    X, y = classes
    X, y = as_float32(X[y < n_classes][::-1]), y[y < n_classes][::-1]
    model = kind(random_state=0).fit(X, y)
    assert_exact(model, X, output="decision_function", rows=slice(50, 54))


def test_snippet_regressor(numbers):
    X, y = as_float32(numbers[0]), numbers[1]
    model = DecisionSnippetRegressor(random_state=0).fit(X, y)
    assert_exact(model, X, rtol=1e-7)  # the scale of the target is float32 in the Program
    assert_exact(make_pipeline(StandardScaler(), model).fit(X, y), X, rtol=1e-7)


@pytest.mark.parametrize("bits", [None, 6])
@pytest.mark.parametrize("kind", [NaiveBayesClassifier, TANClassifier])
def test_bayesian_networks_in_the_log_domain(classes, kind, bits):
    X, y = classes
    X = as_float32(X[::-1])
    options = {} if bits is None else {"integer_bits": 3, "fraction_bits": bits - 3}
    model = kind(random_state=0, **options).fit(X, y[::-1])
    form = assert_exact(
        model, X, output="predict_joint_log_proba", rows=slice(50, 54), rtol=2e-6 if bits is None else 1e-9
    )
    if kind is TANClassifier:
        each = np.arange(4)
        form.interactions[:, each, each] = 0
        assert np.abs(form.interactions).max() > 0


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(5, random_state=0),
        DecisionTreeClassifier(max_depth=4, random_state=0),
        GradientBoostingClassifier(n_estimators=4),
        LogisticRegression(max_iter=500),
        make_pipeline(KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), LogisticRegression()),
        make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)),
        NaiveBayesClassifier(n_bits=4),
        TANClassifier(integer_bits=3, fraction_bits=2, random_state=0),
        DecisionSnippetClassifier(random_state=0),
    ],
    ids=lambda model: "-".join(type(step).__name__ for step in getattr(model, "named_steps", {"": model}).values()),
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_programs_are_explained_by_their_integers(classes, model, n_classes):
    X, y = classes
    X, y = as_float32(X[y < n_classes][::-1]), y[y < n_classes][::-1]
    program = effml.lower(model.fit(X, y))
    assert_exact(program, X, rows=slice(50, 54), rtol=2e-6)  # the Program itself adds in float32 at the end


def test_regressor_and_quantised_programs(numbers, classes):
    X, y = as_float32(numbers[0]), numbers[1]
    for model in RandomForestRegressor(5, random_state=0), DecisionTreeRegressor(max_depth=4, random_state=0):
        assert_exact(effml.lower(model.fit(X, y)), X, rtol=1e-5)
    X, y = as_float32(classes[0][::-1]), classes[1][::-1]
    quantised = effml.quantize(LogisticRegression(max_iter=500).fit(X, y), X, weight_bits=6)
    assert_exact(effml.lower(quantised), X, output="decision_function", rows=slice(50, 54))
    table = np.column_stack([X[:, :2], np.arange(len(X)) % 3]).astype(np.float32)
    encoder = make_column_transformer((OneHotEncoder(), [2]), remainder="passthrough")
    quantised = effml.quantize(make_pipeline(encoder, LogisticRegression()).fit(table, y + table[:, 2] > 1), table)
    assert "WeightedAdd" in [type(step).__name__ for step in effml.lower(quantised).steps]
    assert_exact(effml.lower(quantised), table, output="decision_function", rows=slice(50, 54))
    whole = np.stack([X[:, 0] > 5.5, np.rint(10 * X[:, 1]), np.rint(X[:, 2])], axis=1).astype(np.float32)
    quantised = effml.quantize(LogisticRegression(max_iter=500).fit(whole, y), whole)
    assert type(effml.lower(quantised).steps[0]).__name__ == "MultiplyInput"
    assert_exact(effml.lower(quantised), whole, output="decision_function", rows=slice(50, 54))


# -- choice and refusal -----------------------------------------------------------------------------------------------


def test_auto_takes_the_closed_form_of_the_output_that_is_explained(classes):
    X, y = classes
    logistic, forest = LogisticRegression(max_iter=500).fit(X, y), RandomForestClassifier(3).fit(X, y)
    assert MultilinearShapleyExplainer(logistic, X[:3])(X[:1]).method == ("exact",)  # probabilities are no sums
    assert MultilinearShapleyExplainer(logistic, X[:3], output="decision_function")(X[:1]).method == ("closed_form",)
    assert MultilinearShapleyExplainer(forest, X[:3])(X[:1]).method == ("closed_form",)
    assert MultilinearShapleyExplainer(forest.predict_proba, X[:3])(X[:1]).method == ("closed_form",)
    assert MultilinearShapleyExplainer(lambda Z: forest.predict_proba(Z), X[:3])(X[:1]).method == ("exact",)
    assert MultilinearShapleyExplainer(forest, X[:3], method="gp")(X[:1]).method == ("exact",)


class Doubled(LinearRegression):
    def predict(self, X):
        return 2 * super().predict(X)


class Renamed(LinearRegression):
    pass


def test_models_without_a_closed_form_are_refused_with_a_reason(numbers, classes):
    X, y = numbers
    refused = [
        (Doubled(), "overrides predict of LinearRegression"),
        (PoissonRegressor(), "no sum"),
        (AdaBoostRegressor(n_estimators=3), "no sum"),
        (HistGradientBoostingRegressor(loss="poisson", max_iter=3), "exponential"),
        (GradientBoostingRegressor(init=Ridge(), n_estimators=3), "init="),
        (make_pipeline(PCA(2), LinearRegression()), "PCA"),
    ]
    for model, reason in refused:
        model.fit(X, y)
        with pytest.raises(NoClosedForm, match=reason):
            MultilinearShapleyExplainer(model, X[:3], method="closed_form")
        explanation = MultilinearShapleyExplainer(model, X[:3], method="auto")(X[:1])
        assert explanation.method == ("exact",)
    assert MultilinearShapleyExplainer(Renamed().fit(X, y), X[:3])(X[:1]).method == ("closed_form",)
    with pytest.raises(NoClosedForm, match="no estimator"):
        MultilinearShapleyExplainer(lambda Z: Z[:, 0], X[:3], method="closed_form")
    logistic = LogisticRegression(max_iter=500).fit(*classes)
    with pytest.raises(NoClosedForm, match="predict_proba has no closed form"):
        MultilinearShapleyExplainer(logistic, X[:3], method="closed_form", output="predict_proba")
    with pytest.raises(NoClosedForm, match="Softmax step"):
        MultilinearShapleyExplainer(effml.lower(logistic), X[:3], method="closed_form", output="predict_proba")
    with pytest.raises(ValueError, match="no such method"):
        MultilinearShapleyExplainer(effml.lower(logistic), X[:3], output="predict")
    with pytest.raises(NotFittedError):
        closed_form(Ridge(), "predict")


def test_rows_with_nan_are_refused_by_the_model(numbers):
    X, y = numbers
    explainer = MultilinearShapleyExplainer(LinearRegression().fit(X, y), X[:5])
    with pytest.raises(ValueError, match="NaN"):
        explainer(np.full((1, len(COLUMNS)), np.nan))


def test_closed_forms_do_not_depend_on_n_jobs(numbers):
    X, y = numbers
    forest = RandomForestRegressor(5, random_state=0).fit(X, y)
    one, two = (MultilinearShapleyExplainer(forest, X[:9], n_jobs=n_jobs)(X[20:31]) for n_jobs in (1, 2))
    np.testing.assert_array_equal(one.values, two.values)
