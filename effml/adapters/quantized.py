"""Linear classifiers in integers: inputs of a few bits, signed weights of a few bits, exact 32-bit sums.

The estimator's own `predict` runs the integer Program, so the exported C has nothing left to disagree about.
"""

from numbers import Integral
from typing import ClassVar

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, _fit_context, clone
from sklearn.utils import check_array, get_tags
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from effml.adapters.linear import raw_linear_form
from effml.program.buffers import Output, smallest_unsigned
from effml.program.frame import LoweringError
from effml.program.steps import Affine, ArgBest, Bin, Dense, LookupSum, Positive, QuantizeInput, Softmax

__all__ = ["QuantizedLinearClassifier", "lower_quantized", "quantize_linear"]


class QuantizedLinearClassifier(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """A linear classifier whose predictions are integer arithmetic: low-bit inputs times low-bit weights.

    Inputs are mapped to ``q = clip(floor(x * scale + offset), 0, 2**activation_bits - 1)`` over the range seen in
    calibration; columns that already are such integers stay as they are, and then no float is left. All weights share
    one scale, so sums of different classes compare. One-hot encoded columns become rows of an 8-bit table.

    Parameters
    ----------
    estimator : LogisticRegression, or Pipeline of affine scalers / encoders ending in one
    weight_bits, activation_bits : int, default=8
        2 to 8.

    Attributes
    ----------
    classes_ : ndarray
    estimator_ : estimator
        The fitted float model.
    program_ : effml.program.Program
        The integer model; `predict` runs it.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Present when fitted on a DataFrame with string column names.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from effml.adapters.quantized import QuantizedLinearClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = QuantizedLinearClassifier(LogisticRegression(max_iter=500)).fit(X, y)
    >>> bool(model.score(X, y) > 0.9)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "estimator": [HasMethods(["fit", "predict"])],
        "weight_bits": [Interval(Integral, 2, 8, closed="both")],
        "activation_bits": [Interval(Integral, 2, 8, closed="both")],
    }

    def __init__(self, estimator, *, weight_bits=8, activation_bits=8):
        self.estimator = estimator
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, **fit_params):
        """Fit the float model, then quantise it over the ranges of X.

        Parameters
        ----------
        X : array or DataFrame of shape (n_samples, n_features)
        y : array of shape (n_samples,)
        **fit_params
            Passed to the estimator, for example `sample_weight`.

        Returns
        -------
        self
        """
        return self._quantize(clone(self.estimator).fit(X, y, **fit_params), X)

    def _quantize(self, fitted, X_calib):
        from effml.export import lower

        self.estimator_ = fitted
        self.classes_ = fitted.classes_
        validate_data(self, X_calib, skip_check_array=True)
        self.program_ = _best_program(fitted, X_calib, lower(fitted), self.weight_bits, self.activation_bits)
        return self

    def _run(self, X, output):
        check_is_fitted(self)
        if issparse(X):
            raise TypeError("X is a sparse matrix; QuantizedLinearClassifier takes arrays and DataFrames")
        if not hasattr(X, "columns"):
            X = check_array(X, dtype=None, ensure_all_finite=False)
        validate_data(self, X, reset=False, skip_check_array=True)
        rows = self.program_.encode(X)
        if not np.isfinite(rows).all():
            raise ValueError("Input X contains NaN or infinity; impute missing values before this classifier")
        return self.program_.run(rows)[output]

    def predict(self, X):
        """Return the class labels, shape (n_samples,), by the integer path."""
        number = self._run(X, "label")[:, 0]
        return self.classes_[number]

    def predict_proba(self, X):
        """Return the softmax of the scaled integer scores, float32, shape (n_samples, n_classes)."""
        return self._run(X, "proba")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        tags.classifier_tags.multi_class = get_tags(self.estimator).classifier_tags.multi_class
        return tags


def quantize_linear(est, X_calib, *, weight_bits=8, activation_bits=8) -> QuantizedLinearClassifier:
    """Return the quantised form of a fitted linear classifier; see :func:`effml.quantize`."""
    model = QuantizedLinearClassifier(est, weight_bits=weight_bits, activation_bits=activation_bits)
    model._validate_params()
    check_is_fitted(est)
    final = est.steps[-1][1] if hasattr(est, "steps") else est
    if type(final).__name__ != "LogisticRegression":
        raise LoweringError(f"quantize supports LogisticRegression so far, got {type(final).__name__}")
    return model._quantize(est, X_calib)


# Shares of the largest weight at which weights are clipped: a few extreme ones need not set the step of all others.
_CLIPS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08)
_MAX_CALIBRATION_ROWS = 5000
_LARGEST_BIAS = 2.0**28  # leaves room for the products in 32 bits


def _best_program(est, X, program, weight_bits, activation_bits):
    """Return the integer Program, over the clips, whose labels agree most often with the float model's."""
    rows = program.encode(X)
    if len(rows) == 0 or not np.isfinite(rows).all():
        raise ValueError("X_calib must hold at least one row and no missing or infinite values")
    some = rows[:: -(-len(rows) // _MAX_CALIBRATION_ROWS)]
    expected = program.run(some)["label"]
    candidates = [_integer_program(est, rows, weight_bits, activation_bits, clip) for clip in _CLIPS]
    return max(candidates, key=lambda c: int((c.run(some)["label"] == expected).sum()))


def _integer_program(est, rows, weight_bits, activation_bits, clip):
    """Return the integer Program of a fitted linear model, ranges taken from raw float32 rows."""
    from effml.export import frame_of

    builder, frame, final = frame_of(est)
    sources, weight, bias, tables = raw_linear_form(frame, final.coef_, final.intercept_)
    largest = 2**activation_bits - 1
    scale, offset = _input_scale(rows[:, sources], largest)
    weight = weight / scale[:, None]  # of one input step
    rounding = np.where((scale == 1) & (offset == 0), 0.0, 0.5)
    bias = bias - ((offset - rounding)[:, None] * weight).sum(axis=0)
    n_out, top = len(bias), 2 ** (weight_bits - 1) - 1
    highest = max([np.abs(weight).max(initial=0.0), *(np.abs(table).max() for _, table in tables), 1e-30])
    step = max(clip * highest / top, np.abs(bias).max() / _LARGEST_BIAS)
    total = np.round(bias / step)
    scores = None
    if tables:
        codes = builder.add(
            Bin,
            "level",
            smallest_unsigned(max(column.n_states for column, _ in tables)),
            len(tables),
            parts=[column.bin_part() for column, _ in tables],
        )
        integers = [np.clip(np.round(table / step), -top, top) for _, table in tables]
        total += sum(table.min() for table in integers)
        scores = builder.add(
            LookupSum,
            "levels_sum",
            smallest_unsigned(int(sum(np.ptp(table) for table in integers))),
            n_out,
            inputs=(codes,),
            columns=np.arange(len(tables)),
            states=np.array([len(table) for table in integers], dtype=np.int64),  # the unseen level has its own row
            parents=np.full(len(tables), -1),
            table=np.concatenate([table - table.min() for table in integers]).astype(np.uint8),
            start=None,
            n_bits=8,
            layout="byte",
        )
    quantised = builder.add(
        QuantizeInput,
        "input",
        "u8",
        max(len(sources), 1),
        columns=sources if len(sources) else np.zeros(1, dtype=np.int64),
        scale=scale.astype(np.float32) if len(sources) else np.ones(1, dtype=np.float32),
        offset=offset.astype(np.float32) if len(sources) else np.zeros(1, dtype=np.float32),
        largest=largest,
    )
    scores = builder.add(
        Dense,
        "scores",
        "i32",
        n_out,
        inputs=(quantised,) if scores is None else (quantised, scores),
        columns=np.arange(len(sources)),
        weight=np.clip(np.round(weight / step), -top, top).astype(np.int8),
        bias=total.astype(np.int32),
    )
    _add_outputs(builder, scores, step, len(final.classes_))
    builder.classes = tuple(np.asarray(final.classes_).tolist())
    return builder.program(f"quantised to {weight_bits}-bit weights and {activation_bits}-bit inputs: {est!r}")


def _input_scale(columns, largest):
    """Return the scale and offset of each input, rounding included; 1 and 0 for what already is a small integer."""
    low, high = columns.min(axis=0, initial=np.inf), columns.max(axis=0, initial=-np.inf)
    whole = (columns == np.floor(columns)).all(axis=0) & (low >= 0) & (high <= largest)
    width = np.where(high > low, high - low, 1.0).astype(np.float64)
    scale = np.where(whole, 1.0, largest / width)
    return scale, np.where(whole, 0.0, -low * scale + 0.5)


def _add_outputs(builder, scores, step, n_classes):
    if n_classes == 2:
        label = builder.add(Positive, "label", "u8", 1, inputs=(scores,))
        factors, broadcast = np.float32([0, step]), True
    else:
        dtype = smallest_unsigned(n_classes - 1)
        label = builder.add(ArgBest, "label", dtype, 1, inputs=(scores,), n_inputs=n_classes)
        factors, broadcast = np.full(n_classes, step, dtype=np.float32), False
    scaled = builder.add(
        Affine,
        "scaled",
        "f32",
        n_classes,
        inputs=(scores,),
        scale=factors,
        offset=np.zeros(n_classes, dtype=np.float32),
        broadcast=broadcast,
    )
    proba = builder.add(Softmax, "proba", "f32", n_classes, inputs=(scaled,))
    builder.outputs = {"label": Output(label), "score": Output(scores, scale=float(step)), "proba": Output(proba)}


def lower_quantized(est: QuantizedLinearClassifier, frame) -> None:
    """Hand out the Program that the estimator itself runs."""
    if any(column.links or column.is_discrete or column.source != k for k, column in enumerate(frame.columns)):
        raise LoweringError("QuantizedLinearClassifier holds its preprocessing inside; put no transformer before it")
    program, builder = est.program_, frame.builder
    builder.inputs[:] = program.inputs
    builder.steps[:] = program.steps
    builder.outputs = dict(program.outputs)
    builder.classes = program.classes
