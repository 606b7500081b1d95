"""Gradient training of the tables of a Bayesian network classifier, under their quantiser if there is one.

A mini-batch goes logits -> log-probabilities (normalised over the states) -> quantiser -> sum of table rows -> loss,
and back with the straight-through gradient: the quantiser counts as the identity, saturated or not. Contrast tables are
centred over the classes instead of normalised, and the distance of their levels is learned along (the gradient of a
learned step size: S. Esser et al., "Learned step size quantization", ICLR 2020).

Loss of a sample with scores s and class y:

    generative * (-s_y) + margin_weight * max(0, m) + cross_entropy * (-s_y + logsumexp_c s_c)
    m = 1/eta * log sum_{c != y} exp(eta * (gamma - s_y + s_c))

Source: W. Roth, G. Schindler, H. Froening, F. Pernkopf, "On Resource-Efficient Bayesian Network Classifiers and Deep
Neural Networks", ICPR 2020.
"""

from dataclasses import dataclass, field

import numpy as np
from sklearn.model_selection import train_test_split

from effml._cext.bayes_training import Trainer, training_arrays
from effml._optim import ADAM, log_linear
from effml._quantization import ContrastFormat, FixedPointFormat
from effml.bayes.rounding import Rounded
from effml.bayes.structure import table_shapes
from effml.bayes.tables import ScoreTable

__all__ = [
    "OBJECTIVES",
    "Objective",
    "Schedule",
    "TableTrainer",
    "Trained",
    "first_contrast",
    "score_rows",
    "settings",
    "split_rows",
    "train_tables",
]

OBJECTIVES = ("likelihood", "hybrid", "margin", "cross_entropy")

_FLOAT, _FIXED_POINT, _CONTRAST = 0, 1, 2  # effml_training.format
_START = 0.1  # logits start uniform in [-0.1, 0.1], as published
_FIRST_RANGE = 4.0  # contrast codes first span this many nats; the step is learned from there
LAST_RATE = 1e-3  # the learning rate falls log-linearly to this share of its start
_ENTRY_NS, _THREAD_NS = 3.0, 60e3  # time of a table entry or a sum in a batch, and what a second thread must save


@dataclass(frozen=True)
class Objective:
    """Weights of the three terms of the loss, margin gamma and sharpness eta."""

    generative: float = 0.0
    margin_weight: float = 0.0
    cross_entropy: float = 0.0
    margin: float = 1.0
    sharpness: float = 10.0

    @classmethod
    def named(cls, name: str, *, margin: float, margin_weight: float, sharpness: float) -> "Objective":
        """Return the objective of a constructor parameter.

        "hybrid": likelihood and margin; "margin", "cross_entropy" and "likelihood" alone.
        """
        terms = {
            "hybrid": {"generative": 1.0, "margin_weight": margin_weight},
            "margin": {"margin_weight": 1.0},
            "cross_entropy": {"cross_entropy": 1.0},
            "likelihood": {"generative": 1.0},
        }
        return cls(**terms[name], margin=margin, sharpness=sharpness)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; the names are those of scikit-learn's MLPClassifier."""

    max_iter: int = 40
    batch_size: int | str = "auto"
    learning_rate_init: float = 3e-2
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 10
    tol: float = 1e-4
    verbose: bool = False

    def rows_of_batch(self, n_samples: int) -> int:
        """Return the batch size for so many rows."""
        auto = min(max(n_samples // 30, 10), 100)
        return min(auto if self.batch_size == "auto" else self.batch_size, n_samples)


@dataclass
class Trained:
    """What training gives.

    Attributes
    ----------
    log_prior, log_tables : arrays of the final scores; None for quantised tables
    rounded : Rounded or None
    logits : (prior, tables, scale), from which training can go on
    loss_curve : list of float, one an epoch
    validation_scores : list of float, empty without early stopping
    """

    log_prior: np.ndarray | None = None
    log_tables: list | None = None
    rounded: Rounded | None = None
    logits: tuple = ()
    loss_curve: list = field(default_factory=list)
    validation_scores: list = field(default_factory=list)


class TableTrainer:
    """Tables of a fixed structure in training.

    Parameters
    ----------
    parents, n_states : int64 arrays (n_features,)
    n_classes : int
    objective : Objective
    number_format : None, FixedPointFormat or ContrastFormat
        None trains float tables. The step of a contrast format is where learning it starts.
    logits : (array (n_classes,), list of arrays (r_i, n_classes) or (r_i, r_parent, n_classes))
        Starting values.
    batch_size, n_threads : int
    dtype : float32 or float64
    portable : bool
        Do without special instructions; the result is the same.
    """

    def __init__(
        self,
        parents,
        n_states,
        n_classes,
        *,
        objective,
        number_format,
        logits,
        batch_size,
        n_threads=1,
        dtype=np.float32,
        portable=False,
    ):
        log_prior, log_tables = logits
        self.n_classes, self.number_format, self.batch_size = n_classes, number_format, batch_size
        self.shapes = [np.shape(table) for table in log_tables]
        rows = [int(np.prod(shape[:-1])) for shape in self.shapes]
        self.first = np.cumsum([0, *rows]).astype(np.int64)
        buffer, arrays = training_arrays(self.first[-1] + 1, n_classes, dtype)
        self.logits, self.probabilities, self.scores, self.first_moments, _ = arrays
        self.logits[:] = np.concatenate([*(np.reshape(t, (-1, n_classes)) for t in log_tables), [log_prior]])
        self.selected = np.arange(len(parents) + 1, dtype=np.int64)
        n_options = len(parents) + int(self.has_prior)
        self.trainer = Trainer(
            buffer,
            n_classes,
            np.ascontiguousarray(n_states, dtype=np.int64),
            np.append(np.arange(len(parents) + 1), n_options).astype(np.int64),
            np.append(parents, -1)[:n_options].astype(np.int64),
            self.first[:n_options].copy(),
            np.ones(n_options, dtype=np.uint8),
            settings(objective, number_format),
            batch_size,
            n_threads,
            portable,
        )
        self.trainer.prepare()

    @property
    def has_prior(self) -> bool:
        """Contrast tables hold the class prior."""
        return not isinstance(self.number_format, ContrastFormat)

    def epoch(self, codes, y, weights, order, rate) -> float:
        """Train one epoch over the rows in `order`; return the mean loss. A last short batch counts as one."""
        total = 0.0
        for start in range(0, len(order), self.batch_size):
            total += self.batch(codes, y, weights, order[start : start + self.batch_size], rate)
        return total / len(order)

    def batch(self, codes, y, weights, rows, rate) -> float:
        """Train on one batch; return the sum of the losses of its rows, before the step."""
        scaled = weights[rows] / len(rows)
        loss = self.trainer.batch(codes, y, scaled, rows, 0, len(rows), self.selected, rate, False)
        return loss * len(rows)

    def tables(self, array):
        """Return (prior, tables) of one of the arrays over all rows."""
        parts = np.split(array[:-1], self.first[1:-1])
        return array[-1], [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def score_table(self, parents, n_states) -> ScoreTable:
        """Return the tables as `predict` uses them."""
        prior, tables = self.tables(self.scores)
        return ScoreTable(prior if self.has_prior else np.zeros(self.n_classes), tables, parents, n_states)

    def result(self) -> Trained:
        """Return copies of the tables as they are."""
        prior, tables = self.tables(self.scores)
        scale = self.trainer.scale
        log_prior, log_tables = self.tables(self.logits)
        trained = Trained(logits=(log_prior.copy(), [table.copy() for table in log_tables], scale))
        if self.number_format is None:
            trained.log_prior, trained.log_tables = prior.copy(), [table.copy() for table in tables]
        elif self.has_prior:
            codes = [np.rint(-values / scale).astype(np.uint8) for values in (prior, *tables)]
            trained.rounded = Rounded(self.number_format, codes[0], codes[1:])
        else:
            half = (2**self.number_format.n_bits - 1) / 2
            codes = [np.rint(values / scale + half).astype(np.uint8) for values in tables]
            trained.rounded = Rounded(ContrastFormat(self.number_format.n_bits, scale), None, codes)
        return trained


def settings(objective: Objective, number_format) -> dict:
    """Return the fields of the kernel's struct."""
    form, scale, top = _FLOAT, 1.0, 0
    if number_format is not None:
        form = _FIXED_POINT if isinstance(number_format, FixedPointFormat) else _CONTRAST
        scale, top = number_format.scale, 2**number_format.n_bits - 1
    return {
        "generative": objective.generative,
        "margin_weight": objective.margin_weight,
        "cross_entropy": objective.cross_entropy,
        "margin": objective.margin,
        "sharpness": objective.sharpness,
        "format": form,
        "scale": scale,
        "top": top,
        **ADAM,
    }


def first_contrast(n_bits: int) -> ContrastFormat:
    """Return the contrast format that training starts from."""
    return ContrastFormat(n_bits, _FIRST_RANGE / 2**n_bits)


def train_tables(
    codes,
    y,
    weights,
    *,
    parents,
    n_states,
    n_classes,
    objective,
    number_format,
    schedule,
    random_state,
    n_threads=1,
    logits=None,
) -> Trained:
    """Train the tables of a fixed structure.

    Parameters
    ----------
    codes : uint8 or uint16 array (n_samples, n_features)
    y : int array (n_samples,)
    weights : array (n_samples,) or None
    parents, n_states : int arrays (n_features,)
    n_classes : int
    objective : Objective
    number_format : None, FixedPointFormat or ContrastFormat
    schedule : Schedule
    random_state : RandomState
    n_threads : int
    logits : (prior, tables, scale), optional
        Where to go on from; by default logits start near 0.

    Returns
    -------
    Trained
        With early stopping, the tables of the epoch that did best on the held-out rows.
    """
    codes, y = np.ascontiguousarray(codes), np.asarray(y).astype(np.int32)
    weights = np.ones(len(y)) if weights is None else weights / np.mean(weights)
    shapes = table_shapes(parents, n_states, n_classes)
    if logits is None:
        draw = lambda shape: random_state.uniform(-_START, _START, shape)  # noqa: E731
        logits = (draw(n_classes), [draw(shape) for shape in shapes], None)
    if logits[2] is not None and isinstance(number_format, ContrastFormat):
        number_format = ContrastFormat(number_format.n_bits, logits[2])
    batch_size = schedule.rows_of_batch(len(y))
    work = (sum(int(np.prod(s)) for s in shapes) + batch_size * len(shapes) * n_classes) * _ENTRY_NS
    trainer = TableTrainer(
        np.asarray(parents),
        n_states,
        n_classes,
        objective=objective,
        number_format=number_format,
        logits=logits[:2],
        batch_size=batch_size,
        n_threads=max(1, min(n_threads, int(work / _THREAD_NS))),
    )
    train, held_out = np.arange(len(y)), None
    if schedule.early_stopping:
        train, held_out = split_rows(y, schedule.validation_fraction, random_state)
    best, stale, losses, scores = None, 0, [], []
    start = schedule.learning_rate_init
    for rate in log_linear(start, start * LAST_RATE, schedule.max_iter):
        order = train[random_state.permutation(len(train))]
        losses.append(trainer.epoch(codes, y, weights, order, rate))
        if schedule.verbose:
            print(f"Iteration {len(losses)}, loss = {losses[-1]:.8f}")
        if held_out is None:
            continue
        found = trainer.score_table(parents, n_states).argmax(codes[held_out]) == y[held_out]
        scores.append(float(np.average(found, weights=weights[held_out])))
        stale = 0 if best is None or scores[-1] > best[0] + schedule.tol else stale + 1
        if best is None or scores[-1] > best[0]:
            best = (scores[-1], trainer.result())
        if stale >= schedule.n_iter_no_change:
            break
    trained = trainer.result() if best is None else best[1]
    trained.loss_curve, trained.validation_scores = losses, scores
    return trained


def split_rows(y, fraction, random_state):
    """Return training and held-out rows, stratified where every class has two rows."""
    stratify = y if np.bincount(y)[np.unique(y)].min() > 1 and fraction * len(y) >= len(np.unique(y)) else None
    rows = np.arange(len(y))
    return train_test_split(rows, test_size=fraction, random_state=random_state, stratify=stratify)


def score_rows(rounded: Rounded, parents, n_states, codes):
    """Return the class numbers that quantised tables predict."""
    table = ScoreTable.from_codes(rounded.prior_codes, rounded.codes, parents, n_states)
    return table.argmax(np.ascontiguousarray(codes))
