"""Size-aware differentiable structure learning of a TAN.

Each feature chooses among tables: one per candidate parent, one without a parent, and, if features may be dropped, none
at all. The choice of feature i is a categorical distribution with logits phi_i. A mini-batch draws one structure by the
Gumbel trick and trains the drawn tables; the gradient of the draw passes straight through its argmax to the softmax at
temperature tau. The expected number of table entries times `size_penalty` is added to the loss.

A dropped feature counts in the loss with its distribution over all classes, so that likelihoods compare; it adds the
same to every class and needs no table on the device.

Sources: W. Roth, F. Pernkopf, "Differentiable TAN structure learning for Bayesian network classifiers", PGM 2020;
W. Roth, G. Schindler, H. Froening, F. Pernkopf, ICPR 2020 (the size penalty). Dropping features is ours.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from effml._cext.bayes_training import Trainer, training_arrays
from effml._optim import ADAM, log_linear
from effml.bayes.parameters import log_conditionals, log_prior
from effml.bayes.structure import DROPPED, joint_counts
from effml.bayes.training import LAST_RATE, settings

__all__ = [
    "CANDIDATES",
    "LearnedStructure",
    "candidate_parents",
    "check_image_shape",
    "check_ordering",
    "learn_structure",
]

CANDIDATES = ("all", "random", "informative", "nearest")

_STRUCTURE_RATE = 1e-3
_TEMPERATURES = (10.0, 0.1)
_PSEUDO_COUNT = 1.0
_TINY = 1e-6  # keeps the Gumbel draws finite, as published


def candidate_parents(kind, n_candidates, ordering, n_states, *, information=None, image_shape=None, random_state=None):
    """Return the candidate parents of every feature: some of those before it in the ordering.

    Parameters
    ----------
    kind : {"all", "random", "informative", "nearest"}
    n_candidates : int
        How many at most; not used by "all".
    ordering : int array (n_features,)
        Permutation of the features; only earlier features can be parents, so every choice is acyclic.
    n_states : int array (n_features,)
        A feature with one state tells nothing and is nobody's candidate.
    information : array (n_features, n_features), for "informative"
        Class-conditional mutual information.
    image_shape : (rows, columns), for "nearest"
    random_state : RandomState, for "random"

    Returns
    -------
    list of int arrays, one a feature
    """
    candidates = [np.empty(0, dtype=np.int64)] * len(ordering)
    for position, feature in enumerate(ordering):
        earlier = np.sort(ordering[:position]).astype(np.int64)
        earlier = earlier[n_states[earlier] > 1]
        if kind == "random" and len(earlier) > n_candidates:
            earlier = np.sort(random_state.choice(earlier, n_candidates, replace=False))
        elif kind == "informative":
            earlier = np.sort(earlier[np.argsort(-information[feature, earlier], kind="stable")[:n_candidates]])
        elif kind == "nearest":
            place = np.stack(np.unravel_index(np.arange(len(ordering)), image_shape), axis=1)
            distance = ((place[earlier] - place[feature]) ** 2).sum(axis=1)
            earlier = np.sort(earlier[np.argsort(distance, kind="stable")[:n_candidates]])
        candidates[feature] = earlier
    return candidates


@dataclass
class LearnedStructure:
    """What structure learning gives.

    Attributes
    ----------
    parents : int64 array (n_features,)
        -1 for none, `DROPPED` for no table at all.
    probabilities : list of arrays
        Final probability of each option: candidates in order, none, dropped.
    loss_curve : list of float
    log_prior, log_tables
        The tables of the chosen options as they are, without training on the chosen structure.
    """

    parents: np.ndarray
    probabilities: list
    loss_curve: list
    log_prior: np.ndarray
    log_tables: list


class _Options:
    """The tables of all options behind each other: where they start, whose they are, what they cost."""

    def __init__(self, candidates, n_states, n_classes, may_drop):
        parents = [[*cs.tolist(), -1, *([DROPPED] if may_drop else [])] for cs in candidates]
        self.start = np.cumsum([0, *map(len, parents), 1]).astype(np.int64)  # the last one is the class prior
        self.parent = np.array([p for each in parents for p in each] + [-1], dtype=np.int64)
        self.feature = np.repeat(np.arange(len(parents)), list(map(len, parents)))
        of = self.parent[:-1]
        rows = n_states[self.feature] * np.where(of >= 0, n_states[of], 1)
        self.first = np.cumsum([0, *rows]).astype(np.int64)
        self.rows = rows
        self.size = np.where(of == DROPPED, 0, rows * n_classes).astype(np.float64)
        # (n_features, most options) positions for vectorised softmaxes; the padding points at a dead last entry
        most = max(map(len, parents))
        self.grid = np.full((len(parents), most), len(of))
        for i, each in enumerate(parents):
            self.grid[i, : len(each)] = np.arange(self.start[i], self.start[i] + len(each))
        self.live = self.grid < len(of)


def learn_structure(
    codes,
    y,
    weights,
    *,
    candidates,
    n_states,
    n_classes,
    objective,
    schedule,
    size_penalty=0.0,
    may_drop=False,
    random_state=None,
    n_threads=1,
) -> LearnedStructure:
    """Learn which table each feature has, together with float tables.

    Parameters
    ----------
    codes : uint8 or uint16 array (n_samples, n_features)
    y : int array (n_samples,)
    weights : array (n_samples,) or None
    candidates : list of int arrays
        See :func:`candidate_parents`.
    n_states : int64 array (n_features,)
    n_classes : int
    objective : Objective
    schedule : Schedule
        Epochs, batch size and learning rate of the tables. One structure is drawn a batch, so tables need about as many
        times more epochs as there are candidates; train them again on the chosen structure.
    size_penalty : float
        Loss per table entry.
    may_drop : bool
    random_state : RandomState
    n_threads : int

    Notes
    -----
    Memory: five reals per entry of all candidate tables. Tables that are not drawn rest (their moments do not decay),
    which spares their normalisation.
    """
    codes, y = np.ascontiguousarray(codes), np.asarray(y).astype(np.int32)
    weights = np.ones(len(y)) if weights is None else weights / np.mean(weights)
    options = _Options(candidates, n_states, n_classes, may_drop)
    buffer, (logits, _, scores, *_) = training_arrays(options.first[-1] + 1, n_classes)
    _start_tables(options, logits, scores, codes, y, weights, n_states)
    trained = np.append(options.parent[:-1] != DROPPED, True).astype(np.uint8)
    batch_size = schedule.rows_of_batch(len(y))
    trainer = Trainer(
        buffer,
        n_classes,
        np.ascontiguousarray(n_states, dtype=np.int64),
        options.start,
        np.maximum(options.parent, -1),
        options.first,
        trained,
        settings(objective, None),
        batch_size,
        n_threads,
    )
    trainer.prepare()
    phi = _StructureLogits(options, size_penalty)
    losses = []
    rates = log_linear(schedule.learning_rate_init, schedule.learning_rate_init * LAST_RATE, schedule.max_iter)
    for rate, temperature in zip(rates, log_linear(*_TEMPERATURES, schedule.max_iter), strict=True):
        order = random_state.permutation(len(y))
        total = 0.0
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            selected = phi.draw(temperature, random_state)
            loss = trainer.batch(codes, y, weights[rows] / len(rows), rows, 0, len(rows), selected, rate, True)
            phi.step(trainer.option_gradients)
            total += loss * len(rows)
        losses.append(total / len(order))
        if schedule.verbose:
            print(f"Structure iteration {len(losses)}, loss = {losses[-1]:.8f}, entries = {phi.expected_size():.0f}")
    return _chosen(options, phi, scores, n_states, n_classes, losses)


def _start_tables(options, logits, scores, codes, y, weights, n_states):
    """Set the logits to the likelihood solution; dropped options score with the distribution over all classes.

    From there every draw compares tables that are worth comparing: with random logits, choices are made before the
    tables have learned anything.
    """
    n_classes = logits.shape[1]
    logits[-1] = log_prior(np.bincount(y, weights, minlength=n_classes), _PSEUDO_COUNT)
    for place in range(options.grid.shape[1]):  # the options of one place hold a table of each feature
        option = options.grid[:, place]
        parents = np.append(options.parent[:-1], DROPPED)[option]
        counts = joint_counts(codes, y, np.maximum(parents, -1), n_states, n_classes, weights)
        for at, parent, table in zip(options.first[option], parents, counts, strict=True):
            if parent != DROPPED:
                rows = table.size // n_classes
                logits[at : at + rows] = log_conditionals(table, _PSEUDO_COUNT).reshape(-1, n_classes)
    for option in np.flatnonzero(options.parent[:-1] == DROPPED):
        feature = options.feature[option]
        known = codes[:, feature] < n_states[feature]
        counts = np.bincount(codes[known, feature], weights=weights[known], minlength=n_states[feature]) + 1.0
        block = slice(options.first[option], options.first[option + 1])
        scores[block] = np.log(counts / counts.sum())[:, None]


class _StructureLogits:
    """phi, its draws and its Adam."""

    def __init__(self, options, size_penalty):
        self.options, self.size_penalty = options, size_penalty
        self.phi = np.zeros(options.grid.shape)
        self.m, self.v, self.n_steps = np.zeros_like(self.phi), np.zeros_like(self.phi), 0
        self.size = np.append(options.size, 0.0)[options.grid]
        self.prior = options.start[-2]

    def _softmax(self, logits):
        return softmax(np.where(self.options.live, logits, -np.inf), axis=1)

    def expected_size(self):
        return float((self._softmax(self.phi) * self.size).sum())

    def draw(self, temperature, random_state):
        uniform = random_state.random_sample(self.phi.shape)
        gumbel = -np.log(-np.log(uniform + _TINY) + _TINY)
        self.temperature, self.z = temperature, self._softmax((self.phi + gumbel) / temperature)
        best = np.argmax(self.z, axis=1)
        return np.append(self.options.start[:-2] + best, self.prior)

    def step(self, option_gradients):
        """One step of Adam along the straight-through gradient and that of the expected size."""
        by_option = np.append(option_gradients[:-1], 0.0)[self.options.grid]
        gradient = self.z * (by_option - (self.z * by_option).sum(axis=1, keepdims=True)) / self.temperature
        if self.size_penalty:
            p = self._softmax(self.phi)
            gradient += self.size_penalty * p * (self.size - (p * self.size).sum(axis=1, keepdims=True))
        self.n_steps += 1
        self.m = ADAM["beta1"] * self.m + (1 - ADAM["beta1"]) * gradient
        self.v = ADAM["beta2"] * self.v + (1 - ADAM["beta2"]) * gradient**2
        rate = _STRUCTURE_RATE * np.sqrt(1 - ADAM["beta2"] ** self.n_steps) / (1 - ADAM["beta1"] ** self.n_steps)
        self.phi -= rate * self.m / (np.sqrt(self.v) + ADAM["epsilon"])


def _chosen(options, phi, scores, n_states, n_classes, losses) -> LearnedStructure:
    logits = np.where(options.live, phi.phi, -np.inf)
    best = options.start[:-2] + np.argmax(logits, axis=1)
    if (options.parent[best] == DROPPED).all():  # a classifier reads something: the table nearest to being kept
        kept = np.where(options.parent[np.minimum(options.grid, len(options.parent) - 1)] == DROPPED, -np.inf, logits)
        feature, option = np.unravel_index(np.argmax(kept - logits.max(axis=1, keepdims=True)), kept.shape)
        best[feature] = options.start[feature] + option
    parents, tables = options.parent[best], []
    for feature, (option, parent) in enumerate(zip(best, parents, strict=True)):
        block = scores[options.first[option] : options.first[option + 1]].copy()
        if parent == DROPPED:
            block = block[:0]
        elif parent >= 0:
            block = block.reshape(n_states[feature], n_states[parent], n_classes)
        tables.append(block)
    p = phi._softmax(phi.phi)
    probabilities = [row[live] for row, live in zip(p, options.live, strict=True)]
    return LearnedStructure(parents, probabilities, losses, scores[-1].copy(), tables)


def check_ordering(ordering, n_features) -> np.ndarray:
    """Return an ordering as int64 array, or raise ValueError when it is no permutation of the features."""
    found = np.asarray(ordering)
    if found.shape != (n_features,) or not np.array_equal(np.sort(found), np.arange(n_features)):
        raise ValueError(
            f"ordering={ordering!r} must be None, 'cmi' or a permutation of the {n_features} features (0 to "
            f"{n_features - 1})"
        )
    return found.astype(np.int64)


def check_image_shape(image_shape, n_features) -> tuple[int, int]:
    """Return (rows, columns), or raise ValueError when they do not fit the features."""
    if image_shape is None or len(image_shape) != 2 or np.prod(image_shape) != n_features:
        raise ValueError(
            f"image_shape={image_shape!r} must give rows and columns with rows * columns = {n_features} features; "
            "candidate_parents='nearest' needs it"
        )
    return int(image_shape[0]), int(image_shape[1])
