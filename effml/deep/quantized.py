"""Torch estimators whose `predict` is integer arithmetic: what :func:`effml.quantize` makes of them."""

from sklearn.utils.validation import check_is_fitted, validate_data

from effml.adapters.quantized import _calibration_rows, _QuantizedClassifier, _QuantizedRegressor
from effml.deep.lowering import integer_program, module_shape
from effml.program.frame import LoweringError

__all__ = ["QuantizedTorchClassifier", "QuantizedTorchRegressor", "quantize_estimator"]


class _QuantizedTorch:
    """What both have instead of a linear model's layers: the module of a torch estimator."""

    def _quantize(self, fitted, X_calib):
        from effml.export import check_export, frame_of

        builder, frame, final = frame_of(fitted)
        if not hasattr(final, "export_module_"):
            raise LoweringError(f"{type(self).__name__} takes a torch estimator, got {type(final).__name__}")
        is_classifier = hasattr(final, "classes_")
        if is_classifier is not isinstance(self, QuantizedTorchClassifier):
            raise LoweringError(f"{type(self).__name__} does not fit {type(final).__name__}")
        if not (report := check_export(fitted)).supported:
            raise LoweringError(str(report))
        rows = _calibration_rows(_encoded(builder, X_calib))
        self.estimator_ = fitted
        if is_classifier:
            self.classes_ = fitted.classes_
        validate_data(self, X_calib, skip_check_array=True)
        self.program_ = integer_program(
            builder,
            frame.columns,
            final.export_module_,
            rows,
            module_shape(final, len(frame.columns)),
            classes=self.classes_ if is_classifier else None,
            regression=not is_classifier,
            weight_bits=self.weight_bits,
            activation_bits=self.activation_bits,
            source=f"quantised to {self.weight_bits}-bit weights: {fitted!r}",
        )
        if not is_classifier:
            values = self.program_.outputs["value"].buffer
            self.n_outputs_ = self.program_.buffers[values].size
            self.is_flat_ = self.n_outputs_ == 1
        return self


def _encoded(builder, X):
    return builder.program("").encode(X)


class QuantizedTorchClassifier(_QuantizedTorch, _QuantizedClassifier):
    """A torch classifier in integers; see :func:`effml.deep.quantize_module` for how.

    Parameters
    ----------
    estimator : TorchClassifier, or Pipeline that ends in one
    weight_bits, activation_bits : int, default=8
        2 to 8. Weights that take few levels already keep them.

    Attributes
    ----------
    classes_ : ndarray
    estimator_ : estimator
        The fitted float model.
    program_ : effml.program.Program
        The integer model; `predict` runs it.
    n_features_in_ : int
    """


class QuantizedTorchRegressor(_QuantizedTorch, _QuantizedRegressor):
    """A torch regressor in integers; the last sums are scaled to values in float32.

    Parameters
    ----------
    estimator : TorchRegressor, or Pipeline that ends in one
    weight_bits, activation_bits : int, default=8
        2 to 8. Weights that take few levels already keep them.

    Attributes
    ----------
    estimator_ : estimator
        The fitted float model.
    program_ : effml.program.Program
        The integer model; `predict` runs it.
    n_outputs_ : int
    n_features_in_ : int
    """


def quantize_estimator(est, X_calib, *, weight_bits=8, activation_bits=8):
    """Return the quantised form of a fitted torch estimator or Pipeline; see :func:`effml.quantize`."""
    check_is_fitted(est)
    wanted = QuantizedTorchClassifier if hasattr(est, "classes_") else QuantizedTorchRegressor
    model = wanted(est, weight_bits=weight_bits, activation_bits=activation_bits)
    model._validate_params()
    return model._quantize(est, X_calib)
