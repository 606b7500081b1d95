"""The exported C of an estimator, compiled on this machine, and the count of where it agrees with Python."""

from dataclasses import dataclass

import numpy as np

from effml.adapters.layers import is_layered
from effml.adapters.rounding import rounding_bound
from effml.program import CompiledProgram

__all__ = ["Agreement", "CompiledModel"]


@dataclass(frozen=True)
class Agreement:
    """How the C, the Program and the estimator agree on some rows.

    Attributes
    ----------
    n_rows : int
    n_equal : int
        Rows whose C label is the estimator's label for the row as the device sees it (float32, or the integers). For a
        regressor: rows whose values lie within the proven bound of each other, `Output.tolerance` or, for linear models
        and networks, :func:`effml.adapters.rounding.rounding_bound`.
    n_cast_changes : int
        Rows whose Python label (or value) itself changes when X is cast to the device's input type.
    different : int array
        The rows that make up the difference, for a look.
    """

    n_rows: int
    n_equal: int
    n_cast_changes: int
    different: np.ndarray


class CompiledModel:
    """The exported C of one estimator, compiled and loaded.

    Parameters
    ----------
    est : estimator
    input_dtype : str
    """

    def __init__(self, est, *, input_dtype: str = "float32", **options):
        from effml.export import lower

        self.estimator = est
        self.program = lower(est, **options)
        self.compiled = CompiledProgram(self.program, input_dtype=input_dtype)

    @property
    def input_dtype(self) -> str:
        return self.compiled.program.input_dtype

    def _rows(self, X):
        return self.compiled.program.encode(X)

    def predict(self, X, return_std=False) -> np.ndarray:
        """Return class labels (n_rows,), or float32 values of a regressor (n_rows,) or (n_rows, n_outputs).

        X is what the estimator takes. With `return_std` the values and their standard deviations, where the model was
        compiled with ``std=True``.
        """
        result = self.compiled.run(self._rows(X), self.program.main_output)
        if return_std:
            if "std" not in self.program.outputs:
                raise ValueError("return_std=True needs a model with standard deviations, compiled with std=True")
            return result[:, 0], self.compiled.run(self._rows(X), "std")[:, 0]
        if self.program.classes is not None:
            return np.asarray(self.program.classes)[result[:, 0]]
        return result[:, 0] if result.shape[1] == 1 else result

    def predict_proba(self, X) -> np.ndarray:
        """Return the class probabilities, float32, shape (n_rows, n_classes)."""
        if "proba" not in self.program.outputs:
            raise AttributeError(f"{type(self.estimator).__name__} gives no probabilities")
        return self.compiled.run(self._rows(X), "proba")

    @property
    def flash_bytes(self) -> int:
        """Measured bytes of code, tables and initialised data of the predict function, compiled with -Os."""
        return self.compiled.flash_bytes

    def agreement(self, X) -> Agreement:
        """Compare the labels (or values) of C and estimator on every row of X."""
        seen = _as_seen(X, self.input_dtype)
        python, found = np.asarray(self.estimator.predict(seen)), self.predict(X)
        changed = np.asarray(self.estimator.predict(X)) != python
        if self.program.classes is not None:
            equal = found == python
        else:
            gap = np.abs(found.astype(np.float64).reshape(len(found), -1) - python.reshape(len(found), -1))
            equal = (gap <= self._value_bound(seen)).all(axis=1)
            changed = changed.reshape(len(found), -1).any(axis=1)
        different = np.flatnonzero(~equal)
        return Agreement(len(found), len(found) - len(different), int(changed.sum()), different)

    def _value_bound(self, X):
        """Return the proven bound on how far values may lie from Python's, one number or one a row and output."""
        from effml.export import final_of

        tolerance = self.program.outputs["value"].tolerance
        final = final_of(self.estimator)
        if tolerance is None and is_layered(final):
            return rounding_bound(self.estimator, X)
        if tolerance is None and hasattr(final, "export_module_"):
            from effml.deep.lowering_bound import estimator_bound

            return estimator_bound(self.estimator, X)
        return tolerance or 0.0

    def n_cast_changes(self, X) -> int:
        """Return on how many rows the cast to the device's input type alone changes the Python label."""
        return self.agreement(X).n_cast_changes


def _as_seen(X, input_dtype):
    """Return X with its numbers rounded as the device's input rounds them; categorical columns stay as they are."""
    if hasattr(X, "dtypes") and hasattr(X, "columns"):
        numeric = [name for name, dtype in X.dtypes.items() if getattr(dtype, "kind", "O") in "iuf"]
        return X.astype(dict.fromkeys(numeric, np.float32))
    X = np.asarray(X)
    return X.astype(np.float32) if X.dtype.kind in "iufb" else X
