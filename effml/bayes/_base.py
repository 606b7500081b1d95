"""What naive Bayes and TAN share: table -> codes -> counts -> log tables -> number format -> score table."""

from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from joblib import effective_n_jobs
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call
from sklearn.utils.validation import check_is_fitted

from effml._quantization import MAX_BITS, MAX_INTEGER_BITS, table_format_of
from effml._validation import class_factors, encode_labels
from effml.bayes import encoding
from effml.bayes._gradient import GradientTraining
from effml.bayes._reader import CodesReader
from effml.bayes.inference import marginal_scores
from effml.bayes.interop import from_pgmpy, to_pgmpy, write_bif
from effml.bayes.parameters import log_conditionals, log_prior, n_parameters
from effml.bayes.rounding import round_tables
from effml.bayes.structure import joint_counts
from effml.bayes.tables import ScoreTable
from effml.bayes.training import OBJECTIVES

__all__ = ["BayesNetClassifier"]


def _can_partial_fit(estimator):
    """Raise AttributeError where partial_fit over batches could not give what fit gives."""
    if isinstance(estimator.discretizer, str):
        raise AttributeError(
            f"partial_fit needs discretizer=None or a fitted transformer, got {estimator.discretizer!r}: bins are "
            "learned from all rows at once"
        )
    if estimator.objective != "likelihood":
        raise AttributeError(f"partial_fit adds counts; objective={estimator.objective!r} is trained by gradient")
    kind, fixed_point = estimator._number_format()
    if kind is not None and fixed_point is None:
        raise AttributeError(
            "partial_fit needs float tables or integer_bits given as a number: contrast tables and "
            "integer_bits='auto' choose their scale on all training rows"
        )
    return True


class BayesNetClassifier(CodesReader, GradientTraining, ClassifierMixin, BaseEstimator):
    """Base class; subclasses define the parameters in ``__init__`` and `_learn_parents`."""

    _parameter_constraints: ClassVar[dict] = {
        "objective": [StrOptions(set(OBJECTIVES))],
        "margin": [Interval(Real, 0, None, closed="neither")],
        "margin_weight": [Interval(Real, 0, None, closed="neither")],
        "margin_sharpness": [Interval(Real, 0, None, closed="neither")],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "n_bits": [None, Interval(Integral, 1, MAX_BITS, closed="both")],
        "integer_bits": [None, StrOptions({"auto"}), Interval(Integral, 0, MAX_INTEGER_BITS, closed="both")],
        "fraction_bits": [None, Interval(Integral, -MAX_INTEGER_BITS, MAX_BITS, closed="both")],
        "table_format": [StrOptions({"auto", "log_prob", "contrast"})],
        "discretizer": [None, StrOptions({"mdlp"}), HasMethods(["fit", "transform"])],
        "max_bins": [None, Interval(Integral, 2, None, closed="left")],
        "n_states": [None, Interval(Integral, 1, None, closed="left"), "array-like"],
        "categorical_features": [None, StrOptions({"from_dtype"}), "array-like"],
        "missing": [StrOptions({"drop", "error", "state", "marginalize"})],
        "class_weight": [None, StrOptions({"balanced"}), dict],
        "init": [StrOptions({"random", "likelihood", "float"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
        "n_jobs": [None, Integral],
    }

    # -- training -----------------------------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Learn bins, structure and tables.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            Numbers and categories, or codes if ``discretizer=None``. NaN is missing.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts; a row of weight 0 is not there.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If the parameters contradict each other or the data are not what they announce.
        """
        self._check_parameters()
        X, y, weights = self._check_rows(X, y, sample_weight, reset=True)
        classes, y_index = encode_labels(y)
        goes_on = self._goes_on(classes)
        self.classes_ = classes
        weights = self._with_class_weight(y_index, weights)
        if goes_on:
            self._train(self._as_codes(self._values(X)), y_index, weights, self._logits)
            return self
        self.discretizer_ = None
        if self.discretizer is not None:
            self.discretizer_ = encoding.fit_discretizer(
                self.discretizer,
                X,
                y,
                weights,
                max_bins=self.max_bins,
                categorical_features=self.categorical_features,
                missing=self.missing,
                n_jobs=self.n_jobs,
            )
        codes = self._first_codes(X)
        self._start(codes, y_index, weights)
        self._finish(codes, y_index, weights)
        return self

    @available_if(_can_partial_fit)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Add the rows of a batch to the counts.

        The number of states and the structure are settled by the first batch. Given `n_states` and parents, batch by
        batch gives the same model as `fit` on all rows.

        Available with ``discretizer=None`` or a fitted transformer, and with number formats that are not chosen on
        the data (float tables, `integer_bits` given as a number).

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        classes : array-like of shape (n_classes,), default=None
            All class labels; needed by the first call only.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If the first call names no `classes`, a label is not among them, a code is not below the number of states
            or ``class_weight="balanced"``, which needs all rows.
        sklearn.exceptions.NotFittedError
            If the transformer given as `discretizer` is not fitted.
        """
        self._check_parameters()
        if self.class_weight == "balanced":
            raise ValueError("class_weight='balanced' needs all rows at once; give partial_fit a dict or sample_weight")
        first = _check_partial_fit_first_call(self, classes)
        if not first and self.counts_ is None:
            raise ValueError("partial_fit needs counts, a model made by from_pgmpy has none")
        X, y, weights = self._check_rows(X, y, sample_weight, reset=first)
        y_index = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        unknown = self.classes_[y_index] != y
        if unknown.any():
            raise ValueError(
                f"y has the label {y[unknown].tolist()[0]!r}, which is not among classes={self.classes_.tolist()}"
            )
        weights = self._with_class_weight(y_index, weights)
        if first:
            if self.discretizer is not None:
                check_is_fitted(self.discretizer)
            self.discretizer_ = self.discretizer
            codes = self._first_codes(X)
            self._start(codes, y_index, weights)
        else:
            values = self._values(X)
            if self.discretizer_ is None:
                self._check_levels(values)
                encoding.check_states(values, self.n_states_, self._names())
            codes = self._as_codes(values)
            self._count(codes, y_index, weights)
        self._finish(codes, y_index, weights)
        return self

    def _check_parameters(self):
        self._check_objective()
        if self.missing == "marginalize" and (self.n_bits is not None or self.integer_bits is not None):
            raise ValueError(
                "missing='marginalize' needs tables of probabilities, that is no bits at all; with quantised tables "
                "use 'drop' or 'state'"
            )
        if self.n_states is not None and isinstance(self.discretizer, str):
            raise ValueError(
                f"n_states={self.n_states!r} needs discretizer=None or a transformer, got {self.discretizer!r}, "
                "which decides on the number of bins; max_bins limits it"
            )

    def _number_format(self):
        """Return (None | "log_prob" | "contrast", fixed-point format where it is given); None means float tables."""
        kind, fixed_point = table_format_of(self.n_bits, self.integer_bits, self.fraction_bits, self.table_format)
        is_float = self.n_bits is None and self.integer_bits is None
        return (None if is_float else kind), fixed_point

    def _with_class_weight(self, y_index, weights):
        if self.class_weight is None:
            return weights
        factors = class_factors(self.class_weight, self.classes_, y_index, weights)
        return factors[y_index] if weights is None else weights * factors[y_index]

    def _start(self, codes, y_index, weights):
        self.parents_ = self._learn_parents(codes, y_index, weights)
        self.n_parameters_ = n_parameters(self.n_states_, self.parents_, len(self.classes_))
        self.class_count_, self.counts_ = 0.0, None
        self._count(codes, y_index, weights)

    def _count(self, codes, y_index, weights):
        n_classes = len(self.classes_)
        counts = joint_counts(codes, y_index, self.parents_, self.n_states_, n_classes, weights, self.n_jobs)
        self.class_count_ = self.class_count_ + np.bincount(y_index, weights=weights, minlength=n_classes)
        before = [0.0] * len(counts) if self.counts_ is None else self.counts_
        self.counts_ = [old + new for old, new in zip(before, counts, strict=True)]

    def _finish(self, codes, y_index, weights):
        """Set the tables, in the number format asked for, from the counts or by training on the rows."""
        if self._by_gradient:
            self._train(codes, y_index, weights)
            return
        self.loss_curve_, self.validation_scores_, self.n_iter_, self._logits = [], [], 1, None
        prior, tables = self._likelihood_tables()
        kind, fixed_point = self._number_format()
        if kind is None:
            self._set_float_tables(prior, tables)
        else:
            rounded = self._round(prior, tables, fixed_point or kind, codes, y_index, weights)
            self._set_rounded_tables(rounded, kind)

    def _likelihood_tables(self):
        return log_prior(self.class_count_, self.alpha), [log_conditionals(n, self.alpha) for n in self.counts_]

    def _round(self, prior, tables, number_format, codes, y_index, weights):
        return round_tables(
            prior,
            tables,
            number_format,
            self.n_bits,
            parents=self.parents_,
            n_states=self.n_states_,
            codes=codes,
            y=y_index,
            weights=weights,
            n_threads=effective_n_jobs(self.n_jobs),
        )

    def _set_float_tables(self, prior, tables):
        self.table_format_ = "log_prob"
        self.n_bits_ = self.integer_bits_ = self.fraction_bits_ = self.scale_ = None
        self.prior_codes_ = self.codes_ = None
        self.class_log_prior_ = prior.astype(np.float32)
        self.log_tables_ = [table.astype(np.float32) for table in tables]
        self._score_table = self._pack()

    def _set_rounded_tables(self, rounded, kind):
        number_format = rounded.format
        self.table_format_ = kind
        self.n_bits_ = int(number_format.n_bits)
        self.integer_bits_ = getattr(number_format, "integer_bits", None)
        self.fraction_bits_ = getattr(number_format, "fraction_bits", None)
        self.scale_ = float(number_format.scale)
        self.prior_codes_, self.codes_ = rounded.prior_codes, rounded.codes
        if kind == "contrast":
            self.class_log_prior_ = np.zeros(len(self.classes_), dtype=np.float32)
        else:
            self.class_log_prior_ = number_format.decode(rounded.prior_codes)
        self.log_tables_ = [number_format.decode(codes) for codes in rounded.codes]
        self._score_table = self._pack()

    def _pack(self):
        if self.codes_ is None:
            return ScoreTable(self.class_log_prior_, self.log_tables_, self.parents_, self.n_states_)
        return ScoreTable.from_codes(self.prior_codes_, self.codes_, self.parents_, self.n_states_)

    # -- prediction ---------------------------------------------------------------------------------------------------

    def predict(self, X):
        """Return the label of the largest score, the lowest class index on ties.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            A value that is missing, or was not seen in training, drops the factors that read it.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        codes = self._codes(X)
        best = self._score_table.argmax(codes, n_threads=effective_n_jobs(self.n_jobs))
        summed_out = self._rows_to_marginalize(codes)
        if len(summed_out):
            best[summed_out] = np.argmax(self._marginal_scores(codes[summed_out]), axis=1)
        return self.classes_[best]

    def predict_proba(self, X):
        """Return the class probabilities, float64 (n_samples, n_classes); see `predict_log_proba`."""
        return softmax(self._scores(X), axis=1)

    def predict_log_proba(self, X):
        """Return the log-probabilities of the classes.

        Quantised tables give the probabilities that their codes stand for; these saturate with few bits, and
        `predict` breaks ties between them as the integers do.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)

        Returns
        -------
        float64 ndarray of shape (n_samples, n_classes)
        """
        return log_softmax(self._scores(X), axis=1)

    def predict_joint_log_proba(self, X):
        """Return log p(class, x) without the factors of missing values.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)

        Returns
        -------
        float64 ndarray of shape (n_samples, n_classes)

        Raises
        ------
        ValueError
            For contrast tables, which keep only the differences between classes.
        """
        check_is_fitted(self)
        if self.table_format_ == "contrast":
            raise ValueError(
                "contrast tables keep only the differences between classes, not p(class, x); "
                "use predict_log_proba, or give integer_bits for tables of log-probabilities"
            )
        return self._scores(X)

    def _scores(self, X):
        codes = self._codes(X)
        scores = self._score_table.scores(codes, n_threads=effective_n_jobs(self.n_jobs)).astype(np.float64)
        summed_out = self._rows_to_marginalize(codes)
        if len(summed_out):
            scores[summed_out] = self._marginal_scores(codes[summed_out])
        return scores if self.scale_ is None else scores * self.scale_

    def _rows_to_marginalize(self, codes):
        """Return the rows in which a feature that others depend on is missing, if such features are summed out."""
        parents = np.unique(self.parents_[self.parents_ >= 0])
        if self.missing != "marginalize" or not len(parents):
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero((codes[:, parents] >= self.n_states_[parents]).any(axis=1))

    def _marginal_scores(self, codes):
        return marginal_scores(codes, self.class_log_prior_, self.log_tables_, self.parents_, self.n_states_)

    def _learn_parents(self, codes, y_index, weights):
        raise NotImplementedError

    # -- pgmpy --------------------------------------------------------------------------------------------------------

    def to_pgmpy(self, class_name="class"):
        """Return the model as a pgmpy network with the same tables.

        Nodes are named by the features (``x0, x1, ...`` without names), states by their levels or codes; the network
        reads codes, so pass data through `discretizer_` first where there is one.

        Parameters
        ----------
        class_name : str, default="class"
            Name of the class node.

        Returns
        -------
        pgmpy.models.DiscreteBayesianNetwork

        Raises
        ------
        ImportError
            Without pgmpy 1.1 or newer (``pip install "effml[pgmpy]"``).
        ValueError
            If a feature is called `class_name`.

        Notes
        -----
        For rounded tables, the network whose posterior of complete rows is the model's.
        """
        check_is_fitted(self)
        return to_pgmpy(self, class_name)

    def write_bif(self, path, format="bif", *, class_name="class"):
        """Write the model as a BIF or XMLBIF file through pgmpy; see :func:`effml.bayes.interop.write_bif`."""
        check_is_fitted(self)
        return write_bif(self, path, format, class_name=class_name)

    def plot_structure(self, ax=None, *, feature_names=None, class_name="class"):
        """Draw the tree of the features; see :func:`effml.bayes.plots.plot_structure`."""
        from effml.bayes.plots import plot_structure

        check_is_fitted(self)
        return plot_structure(self, ax, feature_names=feature_names, class_name=class_name)

    @property
    def _html_repr(self):
        """The hook of scikit-learn's notebook view."""
        from effml.bayes.plots import html_repr

        return lambda: html_repr(self)

    @classmethod
    def from_pgmpy(cls, network, class_name="class"):
        """Return a fitted classifier with the tables of a pgmpy network.

        Parameters
        ----------
        network : pgmpy.models.DiscreteBayesianNetwork
            The class node must be a parent of every other node, which may have one more parent (TAN only). States that
            are not the integers from 0 become levels (`categories_`). Probabilities of 0 become the smallest normal
            float32, 1.2e-38.
        class_name : str, default="class"
            Name of the class node.

        Returns
        -------
        estimator of this class with ``discretizer=None``; it holds no counts, so `partial_fit` refuses it

        Raises
        ------
        ValueError
            If the network has another structure or lacks tables.
        """
        return from_pgmpy(cls, network, class_name)

    @classmethod
    def _with_structure(cls, parents, n_states):
        raise NotImplementedError

    def _set_network(self, log_prior, tables):
        """Set the tables of a model that was not counted."""
        self.class_count_ = self.counts_ = None
        self.n_parameters_ = n_parameters(self.n_states_, self.parents_, len(self.classes_))
        self._set_float_tables(log_prior, tables)

    # -- scikit-learn and pickle --------------------------------------------------------------------------------------

    def __getstate__(self):
        # The packed copy of the tables is rebuilt on loading: files hold arrays and plain Python only.
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_score_table"}

    def __setstate__(self, state):
        super().__setstate__(state)
        if "log_tables_" in self.__dict__:
            self._score_table = self._pack()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "error"
        if self.discretizer is None:
            tags.input_tags.categorical = True
            tags.input_tags.positive_only = True
        elif not isinstance(self.discretizer, str):
            tags.input_tags.allow_nan &= get_tags(self.discretizer).input_tags.allow_nan
        return tags
