"""Missing values summed out, against the definition: add up the joint probability of every completion."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp

from effml.bayes import NaiveBayesClassifier, TANClassifier, inference
from effml.bayes.inference import depths, marginal_scores
from effml.bayes.structure import DROPPED


def random_network(seed, n_features, n_classes, *, sharpness=1.0, edges=0.8, no_table=0.0):
    """Return log prior, tables, parents and states of a random forest whose features are in random order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(n_features)
    parents = np.full(n_features, -1)
    for position, i in enumerate(order):
        if position and rng.random() < edges:
            parents[i] = order[rng.integers(position)]
    parents[rng.random(n_features) < no_table] = DROPPED
    n_states = rng.integers(1, 5, n_features)
    tables = []
    for i, parent in enumerate(parents):
        shape = (n_states[i], n_classes) if parent < 0 else (n_states[i], n_states[parent], n_classes)
        tables.append(log_softmax(sharpness * rng.normal(size=shape), axis=0))
    return log_softmax(rng.normal(size=n_classes)), tables, parents, n_states


def random_codes(seed, n_rows, n_states, missing):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_states, (n_rows, len(n_states)))
    return np.where(rng.random(codes.shape) < missing, n_states + rng.integers(0, 3, codes.shape), codes)


def joint(states, log_prior, tables, parents):
    total = log_prior.copy()
    for i, parent in enumerate(parents):
        if parent != DROPPED:
            total += tables[i][states[i]] if parent < 0 else tables[i][states[i], states[parent]]
    return total


def by_enumeration(row, log_prior, tables, parents, n_states):
    """Return the log of the summed joint; a feature without a table has each state with probability 1/r."""
    choices = [[code] if code < r else range(r) for code, r in zip(row, n_states, strict=True)]
    spread = sum(np.log(r) for code, r, p in zip(row, n_states, parents, strict=True) if code >= r and p == DROPPED)
    completions = [joint(states, log_prior, tables, parents) for states in itertools.product(*choices)]
    return logsumexp(completions, axis=0) - spread


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_features=st.integers(1, 6),
    n_classes=st.integers(1, 4),
    missing=st.sampled_from([0.2, 0.6, 1.0]),
    sharpness=st.sampled_from([1.0, 20.0, 300.0]),
    no_table=st.sampled_from([0.0, 0.3]),
)
def test_scores_are_sums_over_all_completions(seed, n_features, n_classes, missing, sharpness, no_table):
    network = random_network(seed, n_features, n_classes, sharpness=sharpness, no_table=no_table)
    network[1][:] = [np.maximum(table, -500) for table in network[1]]
    codes = random_codes(seed, 5, network[3], missing).astype(np.uint8)
    expected = [by_enumeration(row, *network) for row in codes]
    np.testing.assert_allclose(marginal_scores(codes, *network), expected, rtol=1e-10, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from([np.uint8, np.uint16]))
def test_rows_without_missing_codes_have_the_plain_sums(seed, dtype):
    network = random_network(seed, 7, 3)
    codes = random_codes(seed, 20, network[3], 0.1).astype(dtype)
    complete = (codes < network[3]).all(axis=1)
    expected = [joint(row, *network[:3]) for row in codes[complete]]
    np.testing.assert_array_equal(marginal_scores(codes, *network)[complete], np.reshape(expected, (-1, 3)))


def test_blocks_of_rows_change_nothing(monkeypatch):
    network = random_network(3, 12, 4, edges=1.0)
    codes = random_codes(3, 50, network[3], 0.5).astype(np.uint8)
    whole = marginal_scores(codes, *network)
    monkeypatch.setattr(inference, "_BLOCK", 1)
    np.testing.assert_allclose(marginal_scores(codes, *network), whole, rtol=1e-14)


def test_nothing_observed_leaves_the_prior():
    log_prior, tables, parents, n_states = random_network(1, 8, 3)
    codes = np.tile(n_states, (2, 1)).astype(np.uint8)
    np.testing.assert_array_equal(marginal_scores(codes, log_prior, tables, parents, n_states), [log_prior, log_prior])


def test_many_observed_children_of_a_missing_feature_do_not_underflow():
    """300 children see the parent in state 0 with probability 1e-100 each: e^-69078 in total."""
    n_children = 300
    root = np.log(np.array([[0.5], [0.5]]))
    child = np.log(np.array([[[1e-100], [1e-90]], [[1.0], [1.0]]]))
    codes = np.array([[2] + [0] * n_children], dtype=np.uint8)
    parents, n_states = [-1] + [0] * n_children, [2] * (n_children + 1)
    scores = marginal_scores(codes, np.zeros(1), [root] + [child] * n_children, parents, n_states)
    assert scores[0, 0] == pytest.approx(np.log(0.5) + n_children * np.log(1e-90), rel=1e-12)


def test_impossible_states_stay_finite_where_they_are_summed():
    root, child = np.log([[0.5, 0.5], [0.5, 0.5]]), np.full((2, 2, 2), -np.inf)
    child[0, 0] = child[1, 1] = 0  # a copy of the root
    codes = np.array([[2, 0], [2, 1], [2, 2]], dtype=np.uint8)
    scores = marginal_scores(codes, np.zeros(2), [root, child], [-1, 0], [2, 2])
    np.testing.assert_allclose(scores, [[np.log(0.5)] * 2] * 2 + [[0, 0]])


def test_naive_bayes_drops_the_factor():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 4, (200, 5)).astype(float), rng.integers(0, 3, 200)
    model = NaiveBayesClassifier(discretizer=None).fit(X, y)
    X[rng.random(X.shape) < 0.3] = np.nan
    codes = np.where(np.isnan(X), 4, X).astype(np.uint8)
    scores = marginal_scores(codes, model.class_log_prior_, model.log_tables_, model.parents_, model.n_states_)
    np.testing.assert_allclose(scores, model.predict_joint_log_proba(X), atol=1e-5)


def test_a_fitted_tree_agrees_with_exact_inference_in_pgmpy():
    inference_of = pytest.importorskip("pgmpy.inference").VariableElimination
    rng = np.random.default_rng(4)
    y = rng.integers(0, 3, 400)
    X = (np.add.accumulate(rng.integers(0, 2, (400, 5)), axis=1) + y[:, None]) % 4
    model = TANClassifier(discretizer=None).fit(X, y)
    assert depths(model.parents_).max() >= 2
    codes = X[:6].astype(np.uint8)
    codes[rng.random(codes.shape) < 0.5] = 4
    scores = marginal_scores(codes, model.class_log_prior_, model.log_tables_, model.parents_, model.n_states_)
    ours = np.exp(log_softmax(scores, axis=1))
    exact = inference_of(model.to_pgmpy())
    for row, probabilities in zip(codes, ours, strict=True):
        evidence = {f"x{i}": int(code) for i, code in enumerate(row) if code < 4}
        posterior = exact.query(["class"], evidence=evidence, show_progress=False)
        inferred = [posterior.get_value(**{"class": int(label)}) for label in model.classes_]
        np.testing.assert_allclose(probabilities, inferred, atol=1e-6)


def test_cycles_are_refused():
    with pytest.raises(ValueError, match=r"must not form a cycle, got \[1, 2, 0, -1\]"):
        depths([1, 2, 0, -1])
