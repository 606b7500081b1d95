"""Exchange with pgmpy: our tables as conditional probability tables of a DiscreteBayesianNetwork, and back."""

from importlib import import_module

import numpy as np

__all__ = ["from_pgmpy", "to_pgmpy"]

# log 0 stays a number: probabilities below this are as good as zero in float32.
_SMALLEST = float(np.finfo(np.float32).tiny)


def _pgmpy(module):
    try:
        return import_module(f"pgmpy.{module}")
    except ImportError as error:
        raise ImportError("this needs pgmpy 1.1 or newer: pip install 'effml[pgmpy]'") from error


def to_pgmpy(model, class_name="class"):
    """Return a fitted float classifier as a pgmpy network; see `BayesNetClassifier.to_pgmpy`."""
    if model.codes_ is not None:
        raise ValueError(
            "quantised tables are no probabilities (their rows do not sum to 1); fit without bits for to_pgmpy"
        )
    network_class = _pgmpy("models").DiscreteBayesianNetwork
    cpd_class = _pgmpy("factors.discrete").TabularCPD
    names = _node_names(model)
    if class_name in names:
        raise ValueError(f"class_name={class_name!r} is the name of a feature; choose another")
    states = {class_name: model.classes_.tolist()}
    for i, name in enumerate(names):
        levels = None if model.categories_ is None else model.categories_[i]
        states[name] = list(range(model.n_states_[i])) if levels is None or not len(levels) else levels.tolist()
    network = network_class()
    network.add_nodes_from([class_name, *names])
    prior = _normalised(model.class_log_prior_[:, None])
    network.add_cpds(cpd_class(class_name, len(prior), prior, state_names={class_name: states[class_name]}))
    for i, name in enumerate(names):
        parent = model.parents_[i]
        evidence = [class_name] if parent < 0 else [names[parent], class_name]
        network.add_edges_from((node, name) for node in evidence)
        network.add_cpds(
            cpd_class(
                name,
                int(model.n_states_[i]),
                _normalised(model.log_tables_[i].reshape(model.n_states_[i], -1)),
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


def _normalised(log_probabilities):
    """Return probabilities whose columns sum to 1 in float64; float32 logarithms miss that by 1e-7."""
    probabilities = np.exp(log_probabilities.astype(np.float64))
    return probabilities / probabilities.sum(axis=0)


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
