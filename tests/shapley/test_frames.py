"""DataFrames with columns of several types reach the model as they are."""

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from effml.bayes import NaiveBayesClassifier
from effml.shapley import InterventionalGame, MultilinearShapleyExplainer

pd = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def people():
    rng = np.random.default_rng(0)
    n = 200
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": rng.normal(3.0, 1.0, n).astype(np.float32),
            "job": pd.Categorical(rng.choice(["cook", "clerk", "pilot"], n)),
            "town": rng.choice(["Rome", "Oslo"], n).astype(object),
            "member": rng.random(n) < 0.5,
        }
    )
    score = frame["age"] / 40 + (frame["job"] == "pilot") * frame["income"] + frame["member"]
    return frame, (score > score.median()).to_numpy().astype(int), score.to_numpy()


def test_masked_rows_have_the_columns_and_dtypes_of_the_background(people):
    frame, _, _ = people
    frame = frame.assign(
        since=pd.date_range("2020-01-01", periods=len(frame), tz="UTC"),
        visits=pd.array([1, None] * (len(frame) // 2), dtype="Int64"),
        note=pd.array(["a", None] * (len(frame) // 2), dtype="string"),
    )
    seen = []

    def model(X):
        assert list(X.columns) == list(frame.columns)
        assert list(X.dtypes) == list(frame.dtypes)
        seen.append(X)
        return X["age"].to_numpy() + X["visits"].fillna(0).to_numpy(dtype=float)

    background, rows = frame[:3], frame[10:12]
    game = InterventionalGame(model, background)
    coalitions = np.array([[1, 0, 1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1, 0, 1]], dtype=bool)
    game(game.rows(rows), coalitions)
    mixed = pd.concat(seen, ignore_index=True)
    expected = [
        {
            name: (rows if inside else background)[name].iloc[r if inside else b]
            for name, inside in zip(frame, S, strict=True)
        }
        for r in range(2)
        for S in coalitions
        for b in range(3)
    ]
    pd.testing.assert_frame_equal(mixed, pd.DataFrame(expected).astype(frame.dtypes.to_dict()))


@pytest.mark.parametrize("method", ["exact", "gp", "permutation"])
def test_pipelines_with_encoders_are_explained_by_raw_column(people, method):
    frame, y, _ = people
    encoder = make_column_transformer(
        (OneHotEncoder(), ["job", "town"]), (StandardScaler(), ["age", "income"]), remainder="passthrough"
    )
    model = make_pipeline(encoder, LogisticRegression()).fit(frame, y)
    explainer = MultilinearShapleyExplainer(model, frame[:20], method=method, random_state=0)
    explanation = explainer(frame[50:54])
    assert explanation.feature_names == list(frame.columns)
    np.testing.assert_allclose(
        explanation.values.sum(axis=1) + explanation.base_values, model.predict_proba(frame[50:54]), atol=1e-12
    )
    assert np.abs(explanation.values[:, 2]).max() > 0.05
    assert explanation.data.shape == (4, 5)
    assert list(explanation.data[:, 3]) == list(frame["town"][50:54])
    one = explainer(frame.iloc[51])  # a Series
    np.testing.assert_allclose(one.values[0], explanation.values[1], atol=1e-9)


def test_exact_values_of_a_mixed_frame_by_hand():
    background = pd.DataFrame({"a": [1, 3], "b": ["x", "y"]})
    explanation = MultilinearShapleyExplainer(lambda X: X["a"] * (X["b"] == "y"), background, method="exact")(
        pd.DataFrame({"a": [5], "b": ["y"]})
    )
    # v() = 3/2, v(a) = 5/2, v(b) = (1 + 3)/2, v(a b) = 5
    np.testing.assert_allclose(explanation.base_values, [1.5])
    np.testing.assert_allclose(explanation.values, [[(1.0 + 3.0) / 2, (0.5 + 2.5) / 2]])


@pytest.mark.parametrize("last", [Ridge(), RandomForestRegressor(5, random_state=0)])
@pytest.mark.parametrize("encoder", [OneHotEncoder, OrdinalEncoder])
def test_closed_forms_behind_encoders(people, last, encoder):
    frame, _, score = people
    columns = make_column_transformer((encoder(), ["job", "town"]), remainder="passthrough")
    model = make_pipeline(columns, last).fit(frame, score)
    for features in None, {"who": ["age", "job"], "where": ["town"], "what": ["income", "member"]}:
        options = {"features": features, "interactions": True}
        form = MultilinearShapleyExplainer(model, frame[:9], method="closed_form", **options)(frame[20:24])
        exact = MultilinearShapleyExplainer(model, frame[:9], method="exact", **options)(frame[20:24])
        np.testing.assert_allclose(form.values, exact.values, atol=1e-6)
        np.testing.assert_allclose(form.interactions, exact.interactions, atol=1e-5)
        np.testing.assert_allclose(form.base_values, exact.base_values, atol=1e-6)
    assert MultilinearShapleyExplainer(model, frame[:9])(frame[20:21]).method == ("closed_form",)


def test_models_that_read_frames_themselves(people):
    frame, y, _ = people
    boosting = HistGradientBoostingClassifier(max_iter=10, categorical_features="from_dtype")
    boosting.fit(frame.drop(columns="town"), y)
    explanation = MultilinearShapleyExplainer(boosting, frame[:9].drop(columns="town"))(
        frame[30:33].drop(columns="town")
    )
    assert explanation.method[0] == "exact"
    bayes = NaiveBayesClassifier().fit(frame, y)
    options = {"output": "predict_joint_log_proba"}
    form = MultilinearShapleyExplainer(bayes, frame[:9], method="closed_form", **options)(frame[30:33])
    exact = MultilinearShapleyExplainer(bayes, frame[:9], method="exact", **options)(frame[30:33])
    np.testing.assert_allclose(form.values, exact.values, atol=1e-5)


def test_columns_without_effect_cost_nothing(people):
    frame, _, _ = people
    background = frame[:4].assign(town=None)
    background["job"] = frame["job"].iloc[[40] * 4].array
    explainer = MultilinearShapleyExplainer(lambda X: X["age"].to_numpy(), background, method="exact")
    row = frame[40:41].assign(town=None)
    assert list(explainer(row).n_evaluations) == [8]


def test_types_of_rows_and_background_meet(people):
    frame, _, _ = people

    def model(X):
        return X["age"].to_numpy(dtype=float)

    explainer = MultilinearShapleyExplainer(model, frame[:3], method="exact")
    expected = explainer(frame[9:11]).values
    whole = frame[9:11].astype({"age": float})  # numbers of another type
    np.testing.assert_allclose(explainer(whole).values, expected)
    other = frame[9:11].assign(job=pd.Categorical(["pilot", "baker"]))  # another list of categories
    np.testing.assert_allclose(explainer(other).values, expected)
    np.testing.assert_allclose(explainer(frame[9:11].to_numpy()).values, expected)  # objects


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: X.drop(columns="age"), "X has columns"),
        (lambda X: X[list(X.columns[::-1])], "X has columns"),
        (lambda X: X.assign(age="old"), "column 'age'"),
        (lambda X: X.assign(job=1.0), "column 'job' is float64, in the background it is category"),
        (lambda X: X.assign(member=3), "column 'member'"),
        (lambda X: X.to_numpy()[:, :4], "X has 4 columns, the background has 5"),
        (lambda X: X[:0], "at least one row"),
        (lambda X: np.full((1, 5), "word", dtype=object), "column 'age' does not hold int64"),
    ],
)
def test_rows_that_do_not_fit_are_named(people, change, message):
    frame, _, _ = people
    explainer = MultilinearShapleyExplainer(lambda X: X["age"].to_numpy(), frame[:3], method="exact")
    with pytest.raises(ValueError, match=message):
        explainer(change(frame[5:7]))


def test_other_tables_are_refused():
    class Table:
        columns = ("a", "b")

        def __array__(self, dtype=None, copy=None):
            return np.zeros((2, 2))

    with pytest.raises(TypeError, match="background=Table"):
        MultilinearShapleyExplainer(lambda X: X[:, 0], Table())
