"""Exchange with pgmpy, whose exact inference is the reference for our posterior."""

import shutil
import sys
import warnings

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.exceptions import NotFittedError

from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.bayes.inference import marginal_scores
from effml.bayes.interop import _words, write_bif
from effml.bayes.structure import DROPPED

pd = pytest.importorskip("pandas")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    models = pytest.importorskip("pgmpy.models")
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.inference import VariableElimination
    from pgmpy.readwrite import BIFReader, XMLBIFReader

FORMATS = [{}, {"n_bits": 3}, {"n_bits": 1}, {"n_bits": 4, "integer_bits": 2}, {"integer_bits": 5, "fraction_bits": -2}]


def table(n_samples=300, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.choice(["a", "b", "c"], n_samples)
    colour = np.where(rng.random(n_samples) < 0.6, np.char.add("level-", y), "level-z")
    size = np.where(colour == "level-z", rng.integers(0, 3, n_samples), rng.integers(1, 4, n_samples))
    return pd.DataFrame({"colour": colour, "size": size, "other": rng.integers(0, 2, n_samples)}), y


@pytest.mark.parametrize("bits", FORMATS, ids=str)
@pytest.mark.parametrize("estimator", [NaiveBayesClassifier, TANClassifier])
def test_pgmpy_infers_our_posterior(estimator, bits):
    X, y = table()
    model = estimator(discretizer=None, **bits).fit(X, y)
    inference = VariableElimination(model.to_pgmpy("label"))
    for row in range(5):
        evidence = dict(zip(X.columns, X.iloc[row].tolist(), strict=True))
        posterior = inference.query(["label"], evidence=evidence, show_progress=False)
        inferred = [posterior.get_value(label=label) for label in model.classes_.tolist()]
        np.testing.assert_allclose(model.predict_proba(X.iloc[[row]])[0], inferred, atol=1e-6)


def test_float_tables_are_handed_over_as_they_are():
    X, y = table()
    model = TANClassifier(discretizer=None).fit(X, y)
    network = model.to_pgmpy()
    for name, ours in zip(X.columns, model.log_tables_, strict=True):
        theirs = network.get_cpds(name).get_values()
        np.testing.assert_allclose(theirs, np.exp(ours).reshape(theirs.shape), rtol=1e-6)


def test_a_feature_without_table_says_nothing_but_its_children_may_depend_on_it():
    X, y = table()
    model = TANClassifier(discretizer=None, structure=[-1, 0, 1]).fit(X, y)
    model.parents_[1] = DROPPED
    inference = VariableElimination(model.to_pgmpy())
    codes = np.array([[0, 1, 1], [0, 9, 1], [9, 2, 0]], dtype=np.uint8)
    scores = marginal_scores(codes, model.class_log_prior_, model.log_tables_, model.parents_, model.n_states_)
    for row, expected in zip(codes, softmax(scores, axis=1), strict=True):
        levels = zip(X.columns, [model.categories_[0], range(4), range(2)], row, strict=True)
        evidence = {name: states[code] for name, states, code in levels if code < 9}
        posterior = inference.query(["class"], evidence=evidence, show_progress=False)
        np.testing.assert_allclose([posterior.get_value(**{"class": c}) for c in "abc"], expected, atol=1e-6)


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
    with pytest.raises(ValueError, match="class_name='size' is the name of a feature"):
        NaiveBayesClassifier(discretizer=None).fit(X, y).to_pgmpy("size")


def test_without_pgmpy_the_error_names_the_extra(monkeypatch):
    X, y = table()
    model = NaiveBayesClassifier(discretizer=None).fit(X, y)
    monkeypatch.setitem(sys.modules, "pgmpy.models", None)
    with pytest.raises(ImportError, match=r"effml\[pgmpy\]"):
        model.to_pgmpy()


def awkward_table():
    """Names and states that break the grammar, or each other, once they are written down."""
    X, y = table()
    X.columns = ["Size", "size", 'a {"b"} | c,']
    X["Size"] = X["Size"].map({"level-a": "//", "level-b": "a,b", "level-c": "a b", "level-z": "}; /*"})
    return X.assign(probability=(-1.5 * X["size"]).astype(str), **{"1st": X["size"]}), y


@pytest.mark.parametrize("bits", FORMATS[:2], ids=str)
@pytest.mark.parametrize(("format", "reader"), [("bif", BIFReader), ("xmlbif", XMLBIFReader)])
def test_files_hold_the_same_tables(tmp_path, format, reader, bits):
    X, y = awkward_table()
    model = TANClassifier(discretizer=None, **bits).fit(X, y)
    words = write_bif(model, tmp_path / "new folder" / f"model.{format}", format, class_name="label")
    written, network = reader(str(tmp_path / "new folder" / f"model.{format}")).get_model(), model.to_pgmpy("label")
    assert set(written.nodes) == {word for word, _ in words.values()}
    assert {(words[a][0], words[b][0]) for a, b in network.edges} == set(written.edges)
    for cpd in network.get_cpds():
        word, states = words[cpd.variable]
        read = written.get_cpds(word)
        assert read.variables == [words[node][0] for node in cpd.variables]
        assert read.state_names[word] == [states[state] for state in cpd.state_names[cpd.variable]]
        np.testing.assert_array_equal(read.get_values(), cpd.get_values())


@pytest.mark.parametrize(("format", "suffix"), [("bif", "bif"), ("xmlbif", "bifxml")])
def test_other_software_reads_the_files(tmp_path, format, suffix):
    gum = pytest.importorskip("pyagrum")
    X, y = awkward_table()
    model = TANClassifier(discretizer=None, n_bits=4).fit(X, y)
    words = write_bif(model, tmp_path / f"model.{format}", format)
    if suffix != format:
        shutil.move(tmp_path / f"model.{format}", tmp_path / f"model.{suffix}")
    inference = gum.LazyPropagation(gum.loadBN(str(tmp_path / f"model.{suffix}")))
    for row in range(4):
        evidence = X.iloc[row].to_dict()
        inference.setEvidence({words[name][0]: words[name][1][value] for name, value in evidence.items()})
        posterior = inference.posterior("class")
        inferred = [posterior[{"class": words["class"][1][label]}] for label in "abc"]
        np.testing.assert_allclose(model.predict_proba(X.iloc[[row]])[0], inferred, atol=1e-6)


def test_words_are_distinct_and_fit_the_grammar():
    assert _words(["a", "A", "a_2", "9", "", "é", "table", "x y"], prefix="x") == [
        "a", "A_2", "a_2_2", "x9", "x_", "x__2", "table_2", "x_y",
    ]  # fmt: skip
    assert _words([0, 1, 10, -1, 1.5]) == ["0", "1", "10", "_1", "1_5"]


def test_write_bif_says_what_is_wrong_and_leaves_no_file(tmp_path):
    X, y = table()
    model = NaiveBayesClassifier(discretizer=None).fit(X, y)
    with pytest.raises(ValueError, match="format must be 'bif' or 'xmlbif', got 'xml'"):
        write_bif(model, tmp_path / "model.xml", "xml")
    with pytest.raises(ValueError, match="class_name='size' is the name of a feature"):
        write_bif(model, tmp_path / "model.bif", class_name="size")
    with pytest.raises(NotFittedError):
        write_bif(NaiveBayesClassifier(), tmp_path / "model.bif")
    assert list(tmp_path.iterdir()) == []
