"""All base kernels of a model between a batch of rows and the landmarks, and the gradients through them.

Symbols: B rows of a batch, L landmarks, M kernels, d features; K (B, M, L) kernel values, eta (B, M) their weights.
One matrix product a group of features gives the inner products; distances and all kernels of the group follow from them
row by row in Cython, so nothing of size N x L x M is ever held.
"""

from dataclasses import dataclass, field

import numpy as np

from effml._cext.kernel_rows import kernel_gradients, kernel_rows
from effml.kernels.base_kernels import RBF, Polynomial
from effml.program.steps.kernels import SMALLEST

__all__ = ["Group", "KernelBank", "median_squared_distance"]


@dataclass
class Group:
    """Kernels that read the same features: Gaussian ones first, then powers, then callables.

    Attributes
    ----------
    columns : int array (d_g,)
    shapes : array (M_g,), gamma of Gaussian kernels, offset of powers; without the callables
    degrees : int32 array (M_g,), 0 for Gaussian kernels
    functions : list of callables
    first : int
        Position of the first kernel among those of all groups.
    """

    columns: np.ndarray
    shapes: np.ndarray
    degrees: np.ndarray
    functions: list
    first: int

    @property
    def n_kernels(self) -> int:
        return len(self.shapes) + len(self.functions)

    @property
    def gaussian(self) -> np.ndarray:
        return np.flatnonzero(self.degrees == 0)


@dataclass
class _Forward:
    """What the way back needs of a batch, a group: rows, inner products, norms of rows."""

    rows: list = field(default_factory=list)
    dots: list = field(default_factory=list)
    norms: list = field(default_factory=list)
    kernels: np.ndarray | None = None


class KernelBank:
    """The kernels of a model with the landmarks they compare to.

    Parameters
    ----------
    groups : list of int arrays
        Columns of each group of features; every kernel is made once a group.
    kernels : list of RBF, Polynomial or callables
    labels : list of str or None
        Names of the groups, which become part of the kernels' names.
    n_threads : int
    """

    def __init__(self, groups, kernels, labels=None, n_threads=1):
        self.n_threads = n_threads
        self.groups, self.names = [], []
        order = {RBF: 0, Polynomial: 1}
        kernels = sorted(kernels, key=lambda kernel: order.get(type(kernel), 2))
        self._kernels = kernels
        for number, columns in enumerate(groups):
            known = [kernel for kernel in kernels if type(kernel) in order]
            self.groups.append(
                Group(
                    columns=np.asarray(columns),
                    shapes=np.zeros(len(known)),
                    degrees=np.array([getattr(k, "degree", 0) for k in known], dtype=np.int32),
                    functions=kernels[len(known) :],
                    first=len(self.names),
                )
            )
            where = "" if labels is None else f" of group {labels[number]}"
            self.names += [_name(kernel) + where for kernel in kernels]
        self.has_functions = any(group.functions for group in self.groups)

    @property
    def n_kernels(self) -> int:
        return len(self.names)

    def fit(self, Z) -> "KernelBank":
        """Learn bandwidths from (a sample of) standardised rows (n, d)."""
        for group in self.groups:
            kernels = self._kernels[: len(group.shapes)]
            relative = any(isinstance(kernel, RBF) and kernel.gamma is None for kernel in kernels)
            median = median_squared_distance(Z[:, group.columns]) if relative else None
            for position, kernel in enumerate(kernels):
                if isinstance(kernel, RBF):
                    value = kernel.scale / median if kernel.gamma is None else kernel.gamma
                else:
                    value = len(group.columns) if kernel.offset is None else kernel.offset
                group.shapes[position] = value
        return self

    def set_landmarks(self, A) -> None:
        """Take the landmarks (L, d); call again after they or a bandwidth moved."""
        dtype = A.dtype
        self.landmarks = A
        self._parts, self._norms, self._factors, self._shapes = [], [], [], []
        for group in self.groups:
            part = _columns(A, group.columns)
            norms = np.einsum("ld,ld->l", part, part)
            shapes = group.shapes.astype(dtype)
            factors = np.zeros((len(shapes), len(A)), dtype=dtype)
            for m in np.flatnonzero(group.degrees):
                factors[m] = 1 / np.sqrt(np.maximum(norms + shapes[m], dtype.type(SMALLEST)))
            self._parts.append(part)
            self._norms.append(norms)
            self._factors.append(factors)
            self._shapes.append(shapes)

    def forward(self, Z) -> _Forward:
        """Return the kernel values K (B, M, L) of rows (B, d), with what `backward` reads."""
        state = _Forward(kernels=np.empty((len(Z), self.n_kernels, len(self.landmarks)), dtype=Z.dtype))
        for g, group in enumerate(self.groups):
            rows = _columns(Z, group.columns)
            dots, norms = rows @ self._parts[g].T, np.einsum("bd,bd->b", rows, rows)
            self._fill(g, rows, dots, norms, state.kernels)
            state.rows.append(rows)
            state.dots.append(dots)
            state.norms.append(norms)
        return state

    def _fill(self, g, rows, dots, norms, kernels):
        group = self.groups[g]
        if len(group.shapes):
            kernel_rows(
                dots, norms, self._norms[g], self._factors[g], self._shapes[g], group.degrees, kernels,
                group.first, None, self.n_threads,
            )  # fmt: skip
        for position, function in enumerate(group.functions, group.first + len(group.shapes)):
            kernels[:, position] = _call(function, rows, self._parts[g])

    def backward(self, state, weights, grad, landmarks=True):
        """Return gradients with respect to weights (B, M), landmarks (L, d) and log gamma (M,), 0 for other kernels.

        Parameters
        ----------
        grad : array (B, 1, L) of the weighted sum of kernels, or (B, M, L) of the weighted kernels side by side
        landmarks : bool
            Whether the last two are wanted; None is returned for them if not. Callables have none.
        """
        to_weights = np.empty_like(weights)
        to_shapes = np.zeros_like(weights)
        to_landmarks = np.zeros_like(self.landmarks) if landmarks else None
        for g, group in enumerate(self.groups):
            if len(group.shapes):
                to_dots, to_norms = np.zeros((2, *state.dots[g].shape), dtype=weights.dtype)
                scratch = np.empty((self.n_threads, to_dots.shape[1]), dtype=weights.dtype)
                kernel_gradients(
                    state.dots[g], state.norms[g], self._norms[g], self._factors[g], self._shapes[g], group.degrees,
                    weights, state.kernels, grad, group.first, not landmarks, to_weights, to_dots, to_norms, to_shapes,
                    scratch, self.n_threads,
                )  # fmt: skip
                if landmarks:
                    part = to_dots.T @ state.rows[g] + 2 * to_norms.sum(axis=0)[:, None] * self._parts[g]
                    to_landmarks[:, group.columns] += part
            for m in range(group.first + len(group.shapes), group.first + group.n_kernels):
                flow = grad[:, m if grad.shape[1] > 1 else 0]
                to_weights[:, m] = np.einsum("bl,bl->b", flow, state.kernels[:, m])
        return to_weights, to_landmarks, to_shapes.sum(axis=0) if landmarks else None

    def set_log_gamma(self, log_gamma) -> None:
        """Set the gammas from their logarithms (M,); entries of other kernels are not read."""
        for group in self.groups:
            m = group.gaussian
            group.shapes[m] = np.exp(log_gamma[group.first + m])

    def log_gamma(self) -> np.ndarray:
        """Return the logarithm of every gamma (M,), 0 for other kernels."""
        out = np.zeros(self.n_kernels)
        for group in self.groups:
            out[group.first + group.gaussian] = np.log(group.shapes[group.gaussian])
        return out


def median_squared_distance(rows) -> float:
    """Return the median over pairs of rows that differ; 1 where all are the same.

    Examples
    --------
    >>> import numpy as np
    >>> median_squared_distance(np.array([[0.0], [1.0], [3.0]]))
    4.0
    """
    rows = np.asarray(rows, dtype=np.float64)
    norms = (rows * rows).sum(axis=1)
    squared = (norms[:, None] + norms - 2 * rows @ rows.T)[np.triu_indices(len(rows), 1)]
    squared = squared[squared > 1e-12 * max(1.0, norms.max(initial=0.0))]
    return float(np.median(squared)) if squared.size else 1.0


def _columns(array, columns):
    whole = len(columns) == array.shape[1] and np.array_equal(columns, np.arange(len(columns)))
    return array if whole else np.ascontiguousarray(array[:, columns])


def _name(kernel) -> str:
    if isinstance(kernel, RBF | Polynomial):
        return kernel.label
    return getattr(kernel, "__name__", type(kernel).__name__)


def _call(function, rows, landmarks):
    values = np.asarray(function(rows, landmarks))
    if values.shape != (len(rows), len(landmarks)):
        raise ValueError(
            f"the kernel {_name(function)} returned an array of shape {values.shape} for {len(rows)} rows and "
            f"{len(landmarks)} landmarks; it must be {(len(rows), len(landmarks))}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"the kernel {_name(function)} returned NaN or infinite values")
    return values
