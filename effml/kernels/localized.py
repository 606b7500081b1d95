"""What the localized kernel classifier and regressor share: checks, fitting, prediction by their own Program."""

from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

from effml._optim import Adam
from effml.kernels.bank import KernelBank
from effml.kernels.base_kernels import parse_kernels
from effml.kernels.gates import GATES
from effml.kernels.landmarks import choose_landmarks
from effml.kernels.lowering import constant_weights, gate_program, model_program
from effml.kernels.network import FEATURE_SCALE, Network, whitening
from effml.kernels.training import Rows, Schedule, train

__all__ = ["LocalizedMKL"]

ROWS_OF_STATISTICS = 1000  # for bandwidths and the centre of the kernel features
ROWS_A_LANDMARK = 8  # landmarks are learned where so many rows stand behind each
ROWS_AT_ONCE = 4096  # of a prediction and of the features' moments
FLOATS = (np.float64, np.float32)  # rows of these types are read as they are, without a copy


class LocalizedMKL(BaseEstimator):
    """Base of LocalizedMKLClassifier and LocalizedMKLRegressor."""

    _parameter_constraints: ClassVar[dict] = {
        "kernels": "no_validation",
        "groups": "no_validation",
        "n_landmarks": [Interval(Integral, 1, None, closed="left"), None],
        "landmarks": [StrOptions({"stratified", "random", "kmeans"}), "array-like"],
        "learn_landmarks": ["boolean", StrOptions({"auto"})],
        "learn_bandwidths": ["boolean"],
        "gate": [StrOptions(set(GATES))],
        "gate_hidden_size": [Interval(Integral, 0, None, closed="left")],
        "combine": [StrOptions({"sum", "concat"})],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "whiten": ["boolean"],
        "standardize": ["boolean"],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "gate_alpha": [Interval(Real, 0, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # -- fitting ------------------------------------------------------------------------------------------------------

    def _fit_network(self, X, target, weights, loss, strata, *, n_outputs, go_on=False, one_epoch=False):
        """Fit to X (n, d) and a target as its loss takes it; `strata` are classes to draw landmarks by."""
        seed = self.random_state
        if go_on and isinstance(seed, Integral):  # a new order of rows, not that of the fit before
            seed = seed + self.n_iter_
        random_state = check_random_state(seed)
        weights = np.ones(len(X)) if weights is None else weights * (len(weights) / weights.sum())
        self.__dict__.pop("program_", None)  # an interrupted fit leaves no fitted model
        training = validation = np.arange(len(X))
        validate = None
        if self.early_stopping and not one_epoch:
            seed = random_state.randint(2**31 - 1)
            training, validation = self._split(len(X), strata, seed)
            validate = lambda: self._score_rows(X[validation], target[validation], weights[validation])  # noqa: E731
        if not go_on:
            self._start(X[training], n_outputs, None if strata is None else strata[training], random_state)
        self.network_.bank.n_threads = self._n_threads(len(training))
        data = Rows(X, target, weights, training, self._standardized)
        schedule = self._schedule(len(training), one_epoch)
        trained = train(self.network_, self.parameters_, self._adam, data, loss, schedule, random_state, validate)
        self.network_.bank.n_threads = 1
        self.loss_curve_ = (self.loss_curve_ if go_on else []) + trained.loss_curve
        self.validation_scores_ = (self.validation_scores_ if go_on else []) + trained.validation_scores
        self.n_iter_ = len(self.loss_curve_)
        self._summarize(X)
        self.program_ = None if self.network_.bank.has_functions else model_program(self)

    def _n_threads(self, n_rows):
        return min(effective_n_jobs(self.n_jobs), max(1, n_rows // 64))

    def _split(self, n, strata, seed):
        """Return training and validation positions, by class where every class allows it."""
        if strata is not None:
            counts = np.bincount(strata)[np.unique(strata)]
            if counts.min() < 2 or min(self.validation_fraction, 1 - self.validation_fraction) * n < len(counts):
                strata = None
        return train_test_split(np.arange(n), test_size=self.validation_fraction, random_state=seed, stratify=strata)

    def _schedule(self, n, one_epoch):
        auto = int(np.clip(n // 20, 16, 128))
        return Schedule(
            max_iter=1 if one_epoch else self.max_iter,
            batch_size=min(auto if self.batch_size == "auto" else self.batch_size, n),
            learning_rate=self.learning_rate_init,
            alpha=self.alpha,
            gate_alpha=self.gate_alpha,
            dropout=self.dropout,
            n_iter_no_change=self.n_iter_no_change,
            tol=self.tol,
            constant_rate=one_epoch,
            verbose=bool(self.verbose),
        )

    def _start(self, X, n_outputs, strata, random_state, dtype=np.float32):
        """Set scales, landmarks, bandwidths, whitening and the first parameters."""
        groups, labels = self._groups(X.shape[1])
        kernels = parse_kernels(self.kernels, grouped=self.groups is not None)
        self.mean_, self.scale_ = _moments(X) if self.standardize else (np.zeros(X.shape[1]), np.ones(X.shape[1]))
        landmarks = self._first_landmarks(X, strata, random_state).astype(dtype)
        rows = self._standardized(X[random_state.permutation(len(X))[:ROWS_OF_STATISTICS]]).astype(dtype)
        bank = KernelBank(groups, kernels, labels).fit(rows)
        self.learns_landmarks_ = self._learns_landmarks(bank, len(X), len(landmarks))
        bank.set_landmarks(landmarks)
        gate = GATES[self.gate](bank.n_kernels, X.shape[1], self.gate_hidden_size)
        parameters = gate.start(rows, random_state)
        learned = set()
        if self.learns_landmarks_:
            learned.add("A")
            parameters["A"] = landmarks.copy()
        if self.learn_bandwidths:
            learned.add("log_gamma")
            parameters["log_gamma"] = bank.log_gamma()
        hidden = self._hidden_sizes()
        network = Network(bank, gate, self.combine, None, np.zeros(1), len(hidden) + 1, learned)
        parameters = {name: value.astype(dtype) for name, value in parameters.items()}
        if self.whiten:
            network.transforms = self._transforms(network, parameters, landmarks, dtype)
        parameters |= _first_layers(network, parameters, rows, [*hidden, n_outputs], random_state)
        self.network_, self.parameters_ = network, parameters
        self._adam = Adam(parameters)

    def _hidden_sizes(self):
        sizes = np.atleast_1d(np.asarray(self.hidden_layer_sizes))
        if sizes.ndim != 1 or (sizes.size and (sizes.dtype.kind not in "iu" or sizes.min() < 1)):
            raise ValueError(f"hidden_layer_sizes={self.hidden_layer_sizes!r} must be positive integers, or ()")
        return sizes.astype(int).tolist()

    def _first_landmarks(self, X, strata, random_state):
        if isinstance(self.landmarks, str):
            return choose_landmarks(self.landmarks, self.n_landmarks, X, self._standardized, strata, random_state)
        given = np.asarray(self.landmarks, dtype=np.float64)
        if given.ndim != 2 or given.shape[1] != X.shape[1] or not len(given) or not np.isfinite(given).all():
            raise ValueError(
                f"landmarks has shape {given.shape}; expected finite numbers of shape (n_landmarks, {X.shape[1]}), "
                "in the units of X"
            )
        return self._standardized(given)

    def _learns_landmarks(self, bank, n_rows, n_landmarks):
        if self.learn_landmarks == "auto":
            return not bank.has_functions and n_rows >= ROWS_A_LANDMARK * n_landmarks
        if self.learn_landmarks and bank.has_functions:
            raise ValueError("learn_landmarks=True needs kernels with a gradient; callables have none")
        return bool(self.learn_landmarks)

    def _transforms(self, network, parameters, landmarks, dtype):
        eta = network.gate.forward(parameters, landmarks)[0].mean(axis=0)
        kernels = network.bank.forward(landmarks).kernels
        if self.combine == "sum":
            return [(FEATURE_SCALE * whitening(np.einsum("m,bml->bl", eta, kernels))).astype(dtype)]
        # phi_m = T_m eta_m kappa_m with |phi|^2 = sum_m eta_m k_m: the average kernel again
        scales = FEATURE_SCALE / np.sqrt(np.maximum(eta, 1e-6))
        return [(whitening(kernels[:, m]) * scales[m]).astype(dtype) for m in range(len(eta))]

    def _groups(self, n_features):
        """Return the columns of every group and what to call it."""
        if self.groups is None:
            return [np.arange(n_features)], None
        if not isinstance(self.groups, dict | list | tuple):
            raise TypeError(f"groups={self.groups!r} must be a list or dict of groups of columns, or None")
        named = self.groups if isinstance(self.groups, dict) else dict(enumerate(self.groups))
        if not named:
            raise ValueError("groups is empty; give at least one group of columns, or None")
        return [self._columns(part, n_features) for part in named.values()], [str(label) for label in named]

    def _columns(self, part, n_features):
        chosen = np.arange(n_features)[part] if isinstance(part, slice) else np.atleast_1d(np.asarray(part))
        if chosen.dtype.kind in "UO" and all(isinstance(name, str) for name in chosen.tolist()):
            names = _check_feature_names_in(self).tolist()
            unknown = [name for name in chosen.tolist() if name not in names]
            if unknown:
                raise ValueError(f"groups names the column {unknown[0]!r}, which X does not have")
            return np.array([names.index(name) for name in chosen.tolist()])
        if chosen.dtype.kind == "b" and chosen.shape == (n_features,):
            chosen = np.flatnonzero(chosen)
        if chosen.ndim != 1 or not len(chosen) or chosen.dtype.kind not in "iu":
            raise ValueError(f"groups holds {part!r}; a group is a list of column names or indices, a slice or a mask")
        if chosen.min() < -n_features or chosen.max() >= n_features:
            raise ValueError(f"groups holds column {chosen.max()}; X has {n_features} columns")
        return chosen.astype(np.int64) % n_features

    def _standardized(self, X):
        return ((X - self.mean_) / self.scale_).astype(np.float32)

    def _summarize(self, X):
        """Set the mean kernel weights of (at most 10,000) training rows."""
        rows = X[:: max(1, len(X) // 10_000)]
        eta = self._weights_of(rows.astype(np.float32))
        self.kernel_weights_ = eta.mean(axis=0)
        self.kernel_names_ = list(self.network_.bank.names)

    # -- prediction ---------------------------------------------------------------------------------------------------

    @property
    def landmarks_(self) -> np.ndarray:
        """Landmarks in the units of X, float64 (n_landmarks, n_features_in_)."""
        check_is_fitted(self, "program_")
        return self.network_.bank.landmarks * self.scale_ + self.mean_

    def kernel_weights(self, X) -> np.ndarray:
        """Return how much each kernel counts for each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_kernels)
            In the order of `kernel_names_`; kernels that are not evaluated have 0.
        """
        check_is_fitted(self, "program_")
        return self._weights_of(validate_data(self, X, reset=False, dtype=np.float32))

    def _weights_of(self, X):
        if not self.network_.gate.sees_rows:
            return np.repeat(constant_weights(self).astype(np.float64)[None], len(X), axis=0)
        return self._in_parts(gate_program(self), X, "weights").astype(np.float64)

    def _scores(self, X):
        """Return the network's outputs float32 (n, n_outputs), by the Program that is exported where there is one."""
        check_is_fitted(self, "program_")
        X = validate_data(self, X, reset=False, dtype=np.float32)
        if self.program_ is None:
            return self._network_scores(X)
        return self._in_parts(self.program_, X, "score")

    def _in_parts(self, program, X, output):
        parts = list(gen_batches(len(X), ROWS_AT_ONCE))
        n_jobs = min(effective_n_jobs(self.n_jobs), len(parts))
        X = np.ascontiguousarray(X, dtype=np.float32)
        run = lambda rows: program.run(X[rows])[output]  # noqa: E731
        if n_jobs == 1:
            return np.concatenate([run(rows) for rows in parts])
        return np.concatenate(Parallel(n_jobs=n_jobs, prefer="threads")(delayed(run)(rows) for rows in parts))

    def _network_scores(self, X):
        parts = [X[rows] for rows in gen_batches(len(X), 1024)]
        return np.concatenate([self.network_.forward(self.parameters_, self._standardized(part))[0] for part in parts])


def _moments(X):
    """Return the mean of each column and its standard deviation, 1 where there is none; without a copy of X."""
    parts = list(gen_batches(len(X), ROWS_AT_ONCE))
    mean = sum(X[rows].sum(axis=0, dtype=np.float64) for rows in parts) / len(X)
    deviation = np.sqrt(sum(((X[rows] - mean) ** 2).sum(axis=0) for rows in parts) / len(X))
    return mean, np.where(deviation > 1e-7 * np.maximum(1e-30, np.abs(mean)), deviation, 1.0)


def _first_layers(network, parameters, rows, sizes, random_state):
    """Return W1, b1, ...: He-normal on centred kernel features, zeros before the outputs; set the centre."""
    eta = network.gate.forward(parameters, rows)[0]
    features = network.weigh(eta, network.bank.forward(rows).kernels)
    if network.transforms is not None:
        blocks = np.split(features, len(network.transforms), axis=1)
        features = np.hstack([part @ T.T for part, T in zip(blocks, network.transforms, strict=True)])
    network.centre = features.mean(axis=0)
    power = float(((features - network.centre) ** 2).sum(axis=1).mean())
    layers, n_in = {}, features.shape[1]
    for layer, n_out in enumerate(sizes, 1):
        scale = np.sqrt(2 / max(power, 1e-12)) if layer == 1 else np.sqrt(2 / n_in)
        if layer == len(sizes):
            scale = 0.0
        layers[f"W{layer}"] = (random_state.normal(size=(n_out, n_in)) * scale).astype(rows.dtype)
        layers[f"b{layer}"] = np.zeros(n_out, dtype=rows.dtype)
        n_in = n_out
    return layers
