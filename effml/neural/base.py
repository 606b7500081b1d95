"""What the networks share: checks, fitting, prediction by their own Program."""

from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from effml.neural.inputs import fit_input_format
from effml.neural.layers import ReLU
from effml.neural.lowering import check_sums, model_program
from effml.neural.network import build, start
from effml.neural.optimizer import ClippedAdam
from effml.neural.training import Rows, Schedule, train

__all__ = ["LowBitNetwork"]

ROWS_OF_RANGES = 4000  # training rows that the largest activations are looked up in
ABOVE_RANGE = 1.25  # activations up to so many times the largest one seen are told apart
ROWS_AT_ONCE = 1024
AUTO_RATE = 0.03  # by held-out rows of letter, digits and satimage the best of 0.001 to 0.03, with float weights too


class LowBitNetwork(BaseEstimator):
    """Base of the estimators."""

    _parameter_constraints: ClassVar[dict] = {
        "weight_bits": [Interval(Integral, 1, 8, closed="both"), None],
        "activation": [StrOptions({"relu", "sign"})],
        "activation_bits": [Interval(Integral, 1, 8, closed="both"), None],
        "batch_norm": ["boolean"],
        "budget_bits": [Interval(Real, 0, None, closed="neither"), None],
        "input_bits": [Interval(Integral, 2, 8, closed="both")],
        "input_scaling": [StrOptions({"feature", "common"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # -- fitting ------------------------------------------------------------------------------------------------------

    def _fit_network(self, X, target, weights, loss, strata, *, n_outputs, go_on=False, one_epoch=False):
        """Fit to float32 X (n, d) and a target as its loss takes it; `strata` are classes to hold rows out by."""
        seed = self.random_state
        if go_on and isinstance(seed, Integral):  # a new order of rows, not that of the fit before
            seed = seed + self.n_iter_
        random_state = check_random_state(seed)
        weights = np.ones(len(X)) if weights is None else weights * (len(weights) / weights.sum())
        training, validation = np.arange(len(X)), None
        if self.early_stopping and not one_epoch:
            training, validation = self._split(len(X), strata, random_state.randint(2**31 - 1))
        if not go_on:
            self._start(X[training], n_outputs, random_state)
        elif self._architecture(X.shape[1], n_outputs) != self.architecture_:
            raise ValueError(f"training goes on with the architecture it began with, {self.architecture_}")
        self.__dict__.pop("program_", None)  # an interrupted fit leaves no fitted model
        network = self._network(np.random.default_rng(random_state.randint(2**31 - 1)))
        values = self.input_format_.encode(X)
        rows = self._rows(values, target, weights.astype(np.float32), training)
        validate = None
        if validation is not None:
            held = self._rows(values, target, weights, validation)
            validate = lambda: self._score_rows(network, held)  # noqa: E731
        schedule = self._schedule(len(training), one_epoch)
        trained = train(network, self.parameters_, self._adam, rows, loss, schedule, random_state, validate)
        self.loss_curve_ = (self.loss_curve_ if go_on else []) + trained.loss_curve
        self.validation_scores_ = (self.validation_scores_ if go_on else []) + trained.validation_scores
        self.n_iter_ = len(self.loss_curve_)
        self._settle(network, rows)

    def _start(self, X, n_outputs, random_state):
        """Set the input's format, the architecture and the first parameters."""
        if self.activation == "sign" and self.activation_bits not in (None, 1):
            raise ValueError(f"activation_bits={self.activation_bits} does not fit activation='sign', which is one bit")
        bits = None if self.weight_bits is None else self.input_bits
        self.input_format_ = fit_input_format(X, n_bits=bits, scaling=self.input_scaling)
        self.architecture_ = self._architecture(X.shape[1], n_outputs)
        if self.weight_bits is not None:
            self._check_sums()
        self.parameters_ = start(self.architecture_, random_state)
        network = self._network(None)
        weights = {name for name in network.parameters if name.startswith("weight")}
        clipped = set() if self.weight_bits is None else weights
        self._adam = ClippedAdam(network.parameters, clipped=clipped, decayed=weights)

    def _check_sums(self):
        """Raise before training where the integer sums of prediction would not fit."""
        given, architecture = self.input_format_, self.architecture_
        largest = max(given.zero_point, given.largest - given.zero_point)
        for n_in, _ in architecture.fans:
            check_sums(n_in, largest, architecture.weight_format.top)
            largest = 1  # a hidden layer takes as many bits as there are

    def _network(self, generator):
        return build(self.architecture_, self.parameters_, generator)

    def _rows(self, values, target, weights, positions):
        given = self.input_format_
        return Rows(values, target, weights, positions, zero_point=given.zero_point, step=given.step)

    def _split(self, n, strata, seed):
        """Return training and validation positions, by class where every class allows it."""
        if strata is not None:
            counts = np.bincount(strata)[np.unique(strata)]
            if counts.min() < 2 or min(self.validation_fraction, 1 - self.validation_fraction) * n < len(counts):
                strata = None
        return train_test_split(np.arange(n), test_size=self.validation_fraction, random_state=seed, stratify=strata)

    def _schedule(self, n, one_epoch):
        rate = AUTO_RATE if self.learning_rate_init == "auto" else self.learning_rate_init
        auto = int(np.clip(n // 20, 16, 100))
        return Schedule(
            max_iter=1 if one_epoch else self.max_iter,
            batch_size=min(auto if self.batch_size == "auto" else self.batch_size, n),
            learning_rate=rate,
            alpha=self.alpha,
            n_iter_no_change=self.n_iter_no_change,
            tol=self.tol,
            constant_rate=one_epoch,
            verbose=bool(self.verbose),
        )

    def _settle(self, network, rows):
        """Set what prediction reads from the trained parameters."""
        architecture = self.architecture_
        self.codes_ = None
        if architecture.weight_bits is not None:
            encode = architecture.weight_format.encode
            self.codes_ = [encode(self.parameters_[f"weight{k}"]) for k in range(1, architecture.n_layers + 1)]
        self.activation_ranges_ = _ranges(network, rows)
        self.program_ = model_program(self)

    # -- prediction ---------------------------------------------------------------------------------------------------

    @property
    def coefs_(self) -> list:
        """Weights that the network computes with, one array a layer, derived from `codes_` where they are quantised."""
        check_is_fitted(self, "program_")
        if self.codes_ is None:
            return [self.parameters_[f"weight{k}"] for k in range(1, self.architecture_.n_layers + 1)]
        return [self.architecture_.weight_format.decode(codes) for codes in self.codes_]

    @property
    def size_bits_(self) -> int:
        """Bits of weights, output biases and batch norm, as the paper counts them."""
        check_is_fitted(self, "program_")
        return self.architecture_.size_bits

    @property
    def n_operations_(self) -> int:
        """Operations of one row, as the paper counts them."""
        check_is_fitted(self, "program_")
        return self.architecture_.n_operations

    def _integer_scores(self, X):
        """Return the outputs (n, n_outputs) in the numbers of the Program: int32, or float32 with float weights."""
        check_is_fitted(self, "program_")
        X = validate_data(self, X, reset=False, dtype=np.float32)
        parts = [self.program_.run(X[rows])["score"] for rows in gen_batches(len(X), ROWS_AT_ONCE)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _scores(self, X):
        """Return the outputs (n, n_outputs) in their own unit, float64."""
        return self._integer_scores(X).astype(np.float64) * self.program_.outputs["score"].scale


def forward_parts(network, rows):
    """Return the outputs of a network for its rows, without training."""
    with threadpool_limits(1, user_api="blas"):
        parts = [
            network.forward(rows.batch(rows.positions[part])[0]).copy()
            for part in gen_batches(len(rows.positions), ROWS_AT_ONCE)
        ]
    return np.concatenate(parts)


def _ranges(network, rows):
    """Return up to where the output of each ReLU is told apart in integers, float list."""
    largest = [0.0] * sum(isinstance(layer, ReLU) for layer in network.layers)
    positions = rows.positions[:: max(1, len(rows.positions) // ROWS_OF_RANGES)]
    with threadpool_limits(1, user_api="blas"):
        for part in gen_batches(len(positions), ROWS_AT_ONCE):
            x, number = rows.batch(positions[part])[0], 0
            for layer in network.layers:
                x = layer.forward(x)
                if isinstance(layer, ReLU):
                    largest[number] = max(largest[number], float(x.max(initial=0)))
                    number += 1
    return [ABOVE_RANGE * max(value, 1e-6) for value in largest]
