"""Exchange with pgmpy, whose exact inference is the reference for our posterior."""

import sys
import warnings

import numpy as np
import pytest

from effml.bayes import NaiveBayesClassifier, TANClassifier

pd = pytest.importorskip("pandas")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    models = pytest.importorskip("pgmpy.models")
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.inference import VariableElimination


def table(n_samples=300, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.choice(["a", "b", "c"], n_samples)
    colour = np.where(rng.random(n_samples) < 0.6, np.char.add("level-", y), "level-z")
    size = np.where(colour == "level-z", rng.integers(0, 3, n_samples), rng.integers(1, 4, n_samples))
    return pd.DataFrame({"colour": colour, "size": size, "other": rng.integers(0, 2, n_samples)}), y


@pytest.mark.parametrize("estimator", [NaiveBayesClassifier, TANClassifier])
def test_pgmpy_infers_our_posterior(estimator):
    X, y = table()
    model = estimator(discretizer=None).fit(X, y)
    inference = VariableElimination(model.to_pgmpy("label"))
    for row in range(5):
        evidence = dict(zip(X.columns, X.iloc[row].tolist(), strict=True))
        posterior = inference.query(["label"], evidence=evidence, show_progress=False)
        inferred = [posterior.get_value(label=label) for label in model.classes_.tolist()]
        np.testing.assert_allclose(model.predict_proba(X.iloc[[row]])[0], inferred, atol=1e-6)


@pytest.mark.parametrize("estimator", [NaiveBayesClassifier, TANClassifier])
def test_a_round_trip_gives_the_same_model(estimator):
    X, y = table()
    model = estimator(discretizer=None).fit(X, y)
    again = estimator.from_pgmpy(model.to_pgmpy())
    np.testing.assert_array_equal(again.parents_, model.parents_)
    np.testing.assert_array_equal(again.classes_, model.classes_)
    assert again.n_parameters_ == model.n_parameters_
    for ours, theirs in zip(model.log_tables_, again.log_tables_, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(again.predict_proba(X), model.predict_proba(X), atol=1e-6)
    assert again.predict(X.assign(colour="new")).tolist() == model.predict(X.assign(colour="new")).tolist()


def test_nodes_without_names_are_numbered():
    X, y = table()
    codes = X[["size", "other"]].to_numpy()
    network = TANClassifier(discretizer=None).fit(codes, y).to_pgmpy()
    assert set(network.nodes) == {"class", "x0", "x1"}


def small_network():
    network = models.DiscreteBayesianNetwork([("class", "f"), ("class", "g"), ("g", "f")])
    network.add_cpds(
        TabularCPD("class", 2, [[0.3], [0.7]], state_names={"class": ["yes", "no"]}),
        TabularCPD("g", 2, [[0.2, 0.6], [0.8, 0.4]], ["class"], [2], state_names={"g": [1, 0], "class": ["yes", "no"]}),
        TabularCPD(
            "f",
            3,
            [[0.1, 0.2, 0.3, 0.0], [0.2, 0.3, 0.3, 1.0], [0.7, 0.5, 0.4, 0.0]],
            ["class", "g"],
            [2, 2],
            state_names={"f": ["low", "mid", "high"], "class": ["yes", "no"], "g": [1, 0]},
        ),
    )
    return network


def test_networks_made_in_pgmpy_are_read_whatever_the_order_of_their_states():
    model = TANClassifier.from_pgmpy(small_network())
    assert model.classes_.tolist() == ["no", "yes"]
    names = model.feature_names_in_.tolist()
    X = pd.DataFrame({"g": [0, 1, 1], "f": ["low", "mid", "high"]})[names]
    inference = VariableElimination(small_network())
    for row, evidence in enumerate(X.to_dict("records")):
        posterior = inference.query(["class"], evidence=evidence, show_progress=False)
        inferred = [posterior.get_value(**{"class": label}) for label in ("no", "yes")]
        np.testing.assert_allclose(model.predict_proba(X.iloc[[row]])[0], inferred, atol=1e-6)


def test_from_pgmpy_says_what_does_not_fit():
    network = small_network()
    with pytest.raises(ValueError, match="needs a node 'label'"):
        TANClassifier.from_pgmpy(network, class_name="label")
    with pytest.raises(ValueError, match=r"TANClassifier\.from_pgmpy takes it"):
        NaiveBayesClassifier.from_pgmpy(network)
    with pytest.raises(ValueError, match="'g' must have no parents"):
        TANClassifier.from_pgmpy(network, class_name="g")
    model = TANClassifier.from_pgmpy(network)
    with pytest.raises(ValueError, match="partial_fit needs counts"):
        model.partial_fit(
            pd.DataFrame({"g": [0], "f": ["low"]})[model.feature_names_in_], ["no"], classes=["no", "yes"]
        )


def test_to_pgmpy_says_what_does_not_fit():
    X, y = table()
    with pytest.raises(ValueError, match="quantised tables are no probabilities"):
        NaiveBayesClassifier(discretizer=None, n_bits=4).fit(X, y).to_pgmpy()
    with pytest.raises(ValueError, match="class_name='size' is the name of a feature"):
        NaiveBayesClassifier(discretizer=None).fit(X, y).to_pgmpy("size")


def test_without_pgmpy_the_error_names_the_extra(monkeypatch):
    X, y = table()
    model = NaiveBayesClassifier(discretizer=None).fit(X, y)
    monkeypatch.setitem(sys.modules, "pgmpy.models", None)
    with pytest.raises(ImportError, match=r"effml\[pgmpy\]"):
        model.to_pgmpy()
