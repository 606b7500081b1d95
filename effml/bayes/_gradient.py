"""How the classifiers train their tables by gradient: from constructor parameters to `effml.bayes.training`."""

import numpy as np
from joblib import effective_n_jobs
from sklearn.utils import check_random_state

from effml._quantization import FixedPointFormat
from effml.bayes.training import Objective, Schedule, first_contrast, score_rows, split_rows, train_tables

__all__ = ["GradientTraining"]

_INTEGER_BITS = range(1, 6)  # log-probabilities past 2^5 nats decide nothing


class GradientTraining:
    """Mixin of the Bayesian network classifiers for every objective but the likelihood."""

    @property
    def _by_gradient(self) -> bool:
        return self.objective != "likelihood"

    def _check_objective(self):
        kind, _ = self._number_format()
        if self.objective == "hybrid" and kind == "contrast":
            raise ValueError(
                "objective='hybrid' needs tables of log-probabilities (integer_bits, or no bits at all): contrast "
                f"tables, which n_bits={self.n_bits!r} alone means, hold no likelihood; use 'margin' or 'cross_entropy'"
            )

    def _goes_on(self, classes) -> bool:
        """Return whether fit continues the training of the last one."""
        return (
            self.warm_start
            and self._by_gradient
            and getattr(self, "_logits", None) is not None
            and np.array_equal(self.classes_, classes)
            and len(self.n_states_) == self.n_features_in_
        )

    def _train(self, codes, y_index, weights, logits=None):
        """Set the tables by gradient training."""
        random_state = check_random_state(self.random_state)
        kind, number_format = self._number_format()
        if logits is None and (self.init == "likelihood" or (self.init == "float" and kind is not None)):
            prior, tables = self._first_tables(codes, y_index, weights, random_state)
            if kind == "contrast":  # the step of the best rounding is where learning it starts
                number_format = self._round(prior, tables, kind, codes, y_index, weights).format
                tables = [table + prior / len(tables) for table in tables]
            logits = (prior, tables, None)
        if kind == "contrast":
            number_format = number_format or first_contrast(self.n_bits)
        elif kind == "log_prob" and number_format is None:
            number_format = self._choose_integer_bits(codes, y_index, weights, logits)
        trained = self._train_tables(codes, y_index, weights, number_format, random_state, logits)
        if number_format is None:
            self._set_float_tables(trained.log_prior, trained.log_tables)
        else:
            self._set_rounded_tables(trained.rounded, kind)
        self._logits = trained.logits if self.warm_start else None
        self.loss_curve_, self.validation_scores_ = trained.loss_curve, trained.validation_scores
        self.n_iter_ = len(trained.loss_curve)

    def _first_tables(self, codes, y_index, weights, random_state):
        if self.init == "likelihood":
            return self._likelihood_tables()
        trained = self._train_tables(codes, y_index, weights, None, random_state)
        return trained.log_prior, trained.log_tables

    def _objective_terms(self):
        return Objective.named(
            self.objective, margin=self.margin, margin_weight=self.margin_weight, sharpness=self.margin_sharpness
        )

    def _schedule(self, max_iter):
        return Schedule(
            max_iter=max_iter,
            batch_size=self.batch_size,
            learning_rate_init=self.learning_rate_init,
            early_stopping=self.early_stopping,
            validation_fraction=self.validation_fraction,
            n_iter_no_change=self.n_iter_no_change,
            tol=self.tol,
            verbose=bool(self.verbose),
        )

    def _train_tables(self, codes, y_index, weights, number_format, random_state, logits=None):
        return train_tables(
            codes,
            y_index,
            weights,
            parents=self.parents_,
            n_states=self.n_states_,
            n_classes=len(self.classes_),
            objective=self._objective_terms(),
            number_format=number_format,
            schedule=self._schedule(self.max_iter),
            random_state=random_state,
            n_threads=effective_n_jobs(self.n_jobs),
            logits=logits,
        )

    def _choose_integer_bits(self, codes, y_index, weights, logits):
        """Return the fixed-point format whose tables, trained on some rows, do best on the others; ties: fewer bits."""
        train, held_out = split_rows(y_index, self.validation_fraction, check_random_state(self.random_state))
        weights = np.ones(len(y_index)) if weights is None else weights
        best = None
        for integer_bits in _INTEGER_BITS:
            number_format = FixedPointFormat(integer_bits, self.n_bits - integer_bits)
            random_state = check_random_state(self.random_state)
            some = (codes[train], y_index[train], weights[train])
            trained = self._train_tables(*some, number_format, random_state, logits)
            found = score_rows(trained.rounded, self.parents_, self.n_states_, codes[held_out]) == y_index[held_out]
            accuracy = np.average(found, weights=weights[held_out])
            if best is None or accuracy > best[0]:
                best = (accuracy, number_format)
        return best[1]
