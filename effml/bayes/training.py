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

from dataclasses import dataclass

import numpy as np

from effml._cext.bayes_training import Trainer

__all__ = ["FLOAT", "Objective", "Quantiser", "TableTrainer"]

_LANES = 8  # table rows are padded to whole vector registers
FLOAT, FIXED_POINT, CONTRAST = 0, 1, 2


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
class Quantiser:
    """What stands between log-probabilities and scores: nothing, fixed point, or contrast codes of a learned step."""

    kind: int = FLOAT
    scale: float = 1.0
    top: int = 0


class TableTrainer:
    """Tables of a fixed structure in training.

    Parameters
    ----------
    parents, n_states : int64 arrays (n_features,)
    n_classes : int
    objective : Objective
    quantiser : Quantiser
    log_prior, log_tables : starting values, shapes (n_classes,) and (r_i, n_classes) or (r_i, r_parent, n_classes)
    batch_size, n_threads : int
    dtype : float32 or float64
    """

    def __init__(
        self,
        parents,
        n_states,
        n_classes,
        *,
        objective,
        quantiser,
        log_prior,
        log_tables,
        batch_size,
        n_threads=1,
        dtype=np.float32,
        portable=False,
    ):
        self.n_classes, self.quantiser = n_classes, quantiser
        self.shapes = [np.shape(table) for table in log_tables]
        rows = [int(np.prod(shape[:-1])) for shape in self.shapes]
        self.first = np.cumsum([0, *rows]).astype(np.int64)
        has_prior = quantiser.kind != CONTRAST
        width = -(-n_classes // _LANES) * _LANES
        self.logits = np.zeros((self.first[-1] + 1, width), dtype=dtype)
        self.logits[: self.first[-1], :n_classes] = np.concatenate([np.reshape(t, (-1, n_classes)) for t in log_tables])
        self.logits[-1, :n_classes] = log_prior
        arrays = [self.logits, *(np.zeros_like(self.logits) for _ in range(4))]
        _, _, self.scores, self.first_moments, _ = arrays
        n_options = len(parents) + int(has_prior)
        self.selected = np.arange(len(parents) + 1, dtype=np.int64)
        self.trainer = Trainer(
            *arrays,
            n_classes,
            np.ascontiguousarray(n_states, dtype=np.int64),
            np.append(np.arange(len(parents) + 1), n_options).astype(np.int64),
            np.append(parents, -1)[:n_options].astype(np.int64),
            self.first[:n_options].copy(),
            np.ones(n_options, dtype=np.uint8),
            {
                "generative": objective.generative,
                "margin_weight": objective.margin_weight,
                "cross_entropy": objective.cross_entropy,
                "margin": objective.margin,
                "sharpness": objective.sharpness,
                "format": quantiser.kind,
                "scale": quantiser.scale,
                "top": quantiser.top,
                "beta1": 0.9,
                "beta2": 0.999,
                "epsilon": 1e-7,
            },
            batch_size,
            n_threads,
            portable,
        )
        self.batch_size = batch_size
        self.trainer.prepare()

    def epoch(self, codes, y, weights, order, rate) -> float:
        """Train one epoch over the rows in `order` and return the mean loss; a short last batch counts as it is."""
        total = 0.0
        scaled = weights[order]
        starts = range(0, len(order), self.batch_size)
        for start in starts:
            stop = min(start + self.batch_size, len(order))
            scaled[start:stop] /= stop - start
        for start in starts:
            stop = min(start + self.batch_size, len(order))
            loss = self.trainer.batch(codes, y, scaled, order, start, stop, self.selected, rate, False)
            total += loss * (stop - start)
        return total / len(order)
