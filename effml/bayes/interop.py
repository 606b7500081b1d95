"""Exchange with pgmpy: our tables as conditional probability tables of a DiscreteBayesianNetwork, and back.

Rounded tables do not sum to 1, contrast tables not even nearly. They are still factors of a tree, and every tree of
factors is a Bayesian network: with F_i(x_i, x_pa, c) = exp of table i, children first,

    Z_i(x_pa, c) = sum_a F_i(a, x_pa, c) prod_j Z_j(a, c)              j: children of i
    p(x_i | x_pa, c) = F_i(x_i, x_pa, c) prod_j Z_j(x_i, c) / Z_i(x_pa, c)

and p(c) is the class factor times the Z of the roots, normalised. The product of these probabilities is that of the
factors up to a constant, so the posterior of a complete row is the classifier's, whatever the number format. For tables
of probabilities all Z are 1.
"""

import re
from importlib import import_module
from pathlib import Path

import numpy as np
from scipy.special import log_softmax, logsumexp
from sklearn.utils.validation import check_is_fitted

from effml.bayes.inference import depths
from effml.bayes.structure import DROPPED

__all__ = ["from_pgmpy", "to_pgmpy", "write_bif"]

# log 0 stays a number: probabilities below this are as good as zero in float32.
_SMALLEST = float(np.finfo(np.float32).tiny)

# Words of the BIF grammar, in lower case.
_RESERVED = {"network", "variable", "probability", "property", "type", "discrete", "default", "table"}


def _pgmpy(module):
    try:
        return import_module(f"pgmpy.{module}")
    except ImportError as error:
        raise ImportError("this needs pgmpy 1.1 or newer: pip install 'effml[pgmpy]'") from error


def to_pgmpy(model, class_name="class"):
    """Return a fitted classifier as a pgmpy network; see `BayesNetClassifier.to_pgmpy`."""
    network_class = _pgmpy("models").DiscreteBayesianNetwork
    cpd_class = _pgmpy("factors.discrete").TabularCPD
    names = _node_names(model)
    if class_name in names:
        raise ValueError(f"class_name={class_name!r} is the name of a feature; choose another")
    states = {class_name: model.classes_.tolist()}
    for i, name in enumerate(names):
        levels = None if model.categories_ is None else model.categories_[i]
        states[name] = list(range(model.n_states_[i])) if levels is None or not len(levels) else levels.tolist()
    prior, tables = _probabilities(model)
    network = network_class()
    network.add_nodes_from([class_name, *names])
    network.add_cpds(cpd_class(class_name, len(prior), prior[:, None], state_names={class_name: states[class_name]}))
    for name, parent, table in zip(names, model.parents_, tables, strict=True):
        evidence = [class_name] if parent < 0 else [names[parent], class_name]
        network.add_edges_from((node, name) for node in evidence)
        network.add_cpds(
            cpd_class(
                name,
                len(table),
                table.reshape(len(table), -1),
                evidence=evidence,
                evidence_card=[len(states[node]) for node in evidence],
                state_names={node: states[node] for node in (name, *evidence)},
            )
        )
    network.check_model()
    return network


def _node_names(model):
    names = getattr(model, "feature_names_in_", None)
    return [f"x{i}" for i in range(model.n_features_in_)] if names is None else list(names)


def _probabilities(model):
    """Return p(c) and the tables p(x_i[ | x_parent], c) of the network whose joint is that of the model's factors."""
    prior = model.class_log_prior_.astype(np.float64)
    factors = [
        np.zeros((r, len(prior))) if parent == DROPPED else table.astype(np.float64)
        for r, parent, table in zip(model.n_states_, model.parents_, model.log_tables_, strict=True)
    ]
    for i in np.argsort(-depths(model.parents_), kind="stable"):
        parent, factor = model.parents_[i], factors[i]
        total = logsumexp(factor, axis=0)
        factors[i] = np.exp(log_softmax(factor, axis=0))
        if parent < 0:
            prior += total
        else:  # its shape (r_parent, C) fits both forms of the parent's table
            factors[parent] += total if factors[parent].ndim == 2 else total[:, None, :]
    return np.exp(log_softmax(prior)), factors


def write_bif(model, path, format="bif", *, class_name="class"):
    """Write a fitted classifier as a BIF or XMLBIF file, the exchange formats of Bayesian network software.

    The file holds the network of `to_pgmpy` with every probability in full float64 precision.

    Names and states become words that every reader takes: characters other than ASCII letters, digits and ``_`` turn
    into ``_``, names that do not begin with a letter get an ``x`` in front, words of the BIF grammar and names already
    taken (in upper or lower case: some readers ignore it) get a number behind. States may begin with a digit, so that
    codes stay ``0``, ``1``, ...

    Parameters
    ----------
    model : NaiveBayesClassifier or TANClassifier
        Fitted.
    path : path-like
        Written whole or not at all; its folder is made where it does not exist.
    format : {"bif", "xmlbif"}, default="bif"
    class_name : str, default="class"
        Name of the class node.

    Returns
    -------
    dict
        For every node of `to_pgmpy` its word and those of its states: ``{node: (word, {state: word})}``.

    Raises
    ------
    ImportError
        Without pgmpy 1.1 or newer (``pip install "effml[pgmpy]"``).
    ValueError
        If the format is unknown or a feature is called `class_name`.
    sklearn.exceptions.NotFittedError
        If the model is not fitted.

    Notes
    -----
    Sources: F. Cozman, "The Interchange Format for Bayesian Networks", 1998 (XMLBIF 0.3), and BIF 0.15.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from effml.bayes import NaiveBayesClassifier
    >>> model = NaiveBayesClassifier(discretizer=None).fit([[0, 1], [1, 0]], ["a b", "a-b"])
    >>> with TemporaryDirectory() as folder:
    ...     names = write_bif(model, f"{folder}/model.bif")
    >>> names["class"]
    ('class', {'a b': 'a_b', 'a-b': 'a_b_2'})
    """
    check_is_fitted(model)
    if format not in ("bif", "xmlbif"):
        raise ValueError(f"format must be 'bif' or 'xmlbif', got {format!r}")
    writer = getattr(_pgmpy("readwrite"), f"{format.upper()}Writer")
    network = to_pgmpy(model, class_name)
    node_words = dict(zip(network.nodes, _words(network.nodes, prefix="x"), strict=True))
    words = {}
    for node, word in node_words.items():
        states = network.get_cpds(node).state_names[node]
        words[node] = word, dict(zip(states, _words(states), strict=True))
    from effml.program.cgen import write_files  # not needed to train and predict

    path = Path(path)
    write_files(path.parent, {path.name: str(writer(_renamed(network, words)))})
    return words


def _words(values, prefix=""):
    """Return distinct words of the BIF grammar for values that may be any text or number."""
    words, taken = [], set(_RESERVED)
    for value in values:
        word = re.sub(r"[^A-Za-z0-9_]", "_", str(value)) or "_"
        if prefix and not word[0].isalpha():
            word = prefix + word
        distinct, number = word, 2
        while distinct.lower() in taken:
            distinct, number = f"{word}_{number}", number + 1
        taken.add(distinct.lower())
        words.append(distinct)
    return words


def _renamed(network, words):
    """Return the network with every node and state under its word."""
    result = type(network)()
    result.add_nodes_from(words[node][0] for node in network.nodes)
    result.add_edges_from((words[a][0], words[b][0]) for a, b in network.edges)
    for cpd in network.get_cpds():
        evidence = cpd.variables[1:]
        result.add_cpds(
            type(cpd)(
                words[cpd.variable][0],
                cpd.variable_card,
                cpd.get_values(),
                evidence=[words[node][0] for node in evidence],
                evidence_card=cpd.cardinality[1:].tolist(),
                state_names={
                    words[node][0]: [words[node][1][state] for state in cpd.state_names[node]] for node in cpd.variables
                },
            )
        )
    return result


def from_pgmpy(estimator_class, network, class_name="class"):
    """Return a fitted classifier with the tables of a pgmpy network; see `BayesNetClassifier.from_pgmpy`."""
    names = [node for node in network.nodes if node != class_name]
    if len(names) == len(network.nodes) or not names:
        raise ValueError(f"the network needs a node {class_name!r} and others, it has {list(network.nodes)}")
    parents = _parents(network, names, class_name)
    states = {node: _sorted_states(network.get_cpds(node), node) for node in (class_name, *names)}
    cardinalities = {node: len(values) for node, values in states.items()}
    tables = [
        _table(network.get_cpds(name), name, names[parent] if parent >= 0 else None, class_name, cardinalities)
        for name, parent in zip(names, parents, strict=True)
    ]
    prior = network.get_cpds(class_name)
    order = np.argsort(np.array(prior.state_names[class_name]), kind="stable")
    log_prior = np.log(np.asarray(prior.values, dtype=np.float64)[order].clip(min=_SMALLEST))
    n_states = np.array([cardinalities[name] for name in names], dtype=np.int64)
    levels = [None if _are_codes(states[name]) else states[name] for name in names]
    model = estimator_class._with_structure(parents, n_states)
    model.n_features_in_ = len(names)
    if all(isinstance(name, str) for name in names):
        model.feature_names_in_ = np.array(names, dtype=object)
    model.classes_ = states[class_name]
    model.discretizer_ = None
    model.categories_ = None if all(column is None for column in levels) else levels
    model.n_states_, model.parents_ = n_states, parents
    model.has_missing_state_ = np.zeros(len(parents), dtype=bool)
    model._set_network(log_prior, tables)
    return model


def _parents(network, names, class_name):
    if list(network.get_parents(class_name)):
        raise ValueError(f"{class_name!r} must have no parents, it has {list(network.get_parents(class_name))}")
    parents = []
    for name in names:
        others = [node for node in network.get_parents(name) if node != class_name]
        if len(others) == len(network.get_parents(name)) or len(others) > 1:
            raise ValueError(
                f"every feature must have {class_name!r} and at most one other node as parents, "
                f"{name!r} has {list(network.get_parents(name))}"
            )
        parents.append(names.index(others[0]) if others else -1)
    return np.array(parents, dtype=np.int64)


def _sorted_states(cpd, name):
    if cpd is None:
        raise ValueError(f"the network has no conditional probability table for {name!r}; fit it first")
    states = cpd.state_names[name]
    if len({type(state) for state in states}) > 1:
        raise ValueError(f"the states of {name!r} must be of one type, got {states}")
    return np.sort(np.array(states))


def _are_codes(states):
    return states.dtype.kind in "iu" and np.array_equal(states, np.arange(len(states)))


def _table(cpd, name, parent_name, class_name, n_states):
    """Return log p(name | parent, class) with states and classes sorted, axes (state[, parent state], class)."""
    axes = [name, *([] if parent_name is None else [parent_name]), class_name]
    values = np.transpose(np.asarray(cpd.values, dtype=np.float64), [cpd.variables.index(node) for node in axes])
    for axis, node in enumerate(axes):  # every table lists the states of its evidence in its own order
        order = np.argsort(np.array(cpd.state_names[node]), kind="stable")
        if len(order) != n_states[node]:
            raise ValueError(f"the table of {name!r} knows {len(order)} states of {node!r} instead of {n_states[node]}")
        values = np.take(values, order, axis=axis)
    return np.log(values.clip(min=_SMALLEST))
