"""Itemset models as Programs: code the columns that conditions read, match, add weights, and the variance if wanted.

value = bias + sum over matching itemsets of w_m + sum over linear columns of w_l z_l
std   = sqrt(noise (1 + 1/n) + |R (phi - mean)|^2),   sigma = R'R
"""

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from threadpoolctl import threadpool_limits

from effml.adapters.preprocessing import cut_columns
from effml.itemsets.condition_codes import add_matches
from effml.program.buffers import RAW, Output
from effml.program.frame import Column, Frame, LoweringError
from effml.program.steps import Affine, ClippedAffine, Dense, LookupSum, SquareRoot, SumSquares

__all__ = ["Terms", "itemset_regressor", "terms_of"]

ROUNDING = 2.0**-24  # largest relative error of one float32 operation


def itemset_regressor(est, frame: Frame, *, weight_bits=None, std=False) -> None:
    """Lower a fitted ItemsetSparseBayesRegressor: which itemsets match is exact, values up to float32 rounding.

    Parameters
    ----------
    est : ItemsetSparseBayesRegressor
    frame : Frame
    weight_bits : int or None, default=None
        2 to 8: weights of itemsets become signed integers of so many bits with one scale, each in one byte. The
        intercept takes up the mean error. Without linear terms there is an output "sum" then, the integers alone;
        linear terms stay float32. None: float32.
    std : bool, default=False
        Whether there is an output "std", the standard deviation that ``predict(X, return_std=True)`` gives. Its weights
        are float32 in any case.

    Raises
    ------
    LoweringError
        Where a linear term reads a column behind a transformer that is not affine, or numbers leave float32.
    ValueError, TypeError
        If `weight_bits` or `std` is not accepted.
    """
    _check_options(weight_bits, std)
    terms = terms_of(est, frame, np.ones(len(est.coef_), dtype=bool) if std else est.coef_ != 0)
    weights = terms.effect @ est.coef_  # of the flags
    bias = float(est.intercept_) + float(terms.constant @ est.coef_)
    scale = None
    if weight_bits is not None and weights.any():
        scale = np.abs(weights).max() / (2 ** (weight_bits - 1) - 1)
        rounded = np.rint(weights / scale)
        bias += float((weights - scale * rounded) @ terms.means)
    kept = np.ones(len(weights), dtype=bool) if std else (weights if scale is None else rounded) != 0
    flags, sources = add_matches(frame.builder, terms.columns, [terms.sets[m] for m in np.flatnonzero(kept)])
    z = _add_linear(frame.builder, terms)
    for position in set(range(len(frame.builder.inputs))) - sources - set(terms.sources.tolist()):
        frame.builder.mark_unused(position)
    slopes = est.coef_[terms.linear]
    error = _rounding_error(terms, weights, slopes, bias)
    note = "float32 model: which itemsets match is exact, values are those of Python up to float32 rounding"
    if scale is None:
        value = _add_sum(frame.builder, "value", flags, weights[kept, None], z, slopes[:, None], np.array([bias]))
        outputs = {}
    else:
        error += float(np.abs(weights - scale * rounded) @ np.maximum(terms.means, 1 - terms.means))
        value, outputs = _add_integers(frame.builder, flags, rounded[kept], scale, bias, z, slopes)
        note += f" and weights of {weight_bits} bits"
    notes = [f"value = (sum - {one.zero_point:.9g}) * {one.scale:.9g}" for one in outputs.values()]
    frame.builder.notes += [note, *notes]
    tolerance = error if np.isfinite(error) else None
    frame.builder.outputs = {"value": Output(value, tolerance=tolerance), **outputs}
    if std:
        frame.builder.outputs["std"] = Output(_add_deviation(est, frame.builder, terms, flags, z))
    frame.builder.describe_missing("no condition on the column holds; a linear term takes its mean in training")


def _check_options(weight_bits, std):
    if not isinstance(std, bool | np.bool_):
        raise TypeError(f"std={std!r} must be True or False")
    if weight_bits is None:
        return
    if not isinstance(weight_bits, Integral) or isinstance(weight_bits, bool):
        raise TypeError(f"weight_bits={weight_bits!r} must be None or an integer from 2 to 8")
    if not 2 <= weight_bits <= 8:
        raise ValueError(f"weight_bits={weight_bits!r} must be None or an integer from 2 to 8")


# -- the model on raw columns -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Terms:
    """The columns phi of a model as ``constant + flags @ effect``, and the linear ones that stay numbers.

    Attributes
    ----------
    columns : list of Column
        Raw columns cut into states.
    sets : list of dict
        Of each flag, from positions in `columns` to the states in which the flag may be set, bool (n_states + 1,), the
        last one for missing values. No condition holds everywhere or nowhere.
    effect : float64 array (n_flags, n_terms)
        What a flag adds to each term.
    means : float64 array (n_flags,)
        How often a flag is set in training.
    constant : float64 array (n_terms,)
    linear : int array (L,)
        Terms that are ``clip((x[source] - low) * inverse, 0, 1)``, `fill` for a NaN.
    sources : int array (L,)
    low, inverse, fill : float64 arrays (L,)
    error : float64 array (L,)
        Bound on what float32 rounding does to each, infinite where none is known.
    """

    columns: list
    sets: list
    effect: np.ndarray
    means: np.ndarray
    constant: np.ndarray
    linear: np.ndarray
    sources: np.ndarray
    low: np.ndarray
    inverse: np.ndarray
    fill: np.ndarray
    error: np.ndarray


def terms_of(est, frame: Frame, live) -> Terms:
    """Return the live terms of a fitted model as functions of the raw row.

    Parameters
    ----------
    est : ItemsetSparseBayesRegressor
    frame : Frame
    live : bool array (n_terms,)
    """
    if len(frame.columns) != est.n_features_in_:
        raise LoweringError(
            f"{type(est).__name__} was fitted on {est.n_features_in_} columns and gets {len(frame.columns)}"
        )
    n_sets, n_terms = len(est.conditions_), len(est.coef_)
    read = sorted({int(j) for m in np.flatnonzero(live[:n_sets]) for j, _ in est.conditions_[m]})
    columns, states = _code_states(est, frame, read)
    sets, effect, means = [], [], []
    constant = np.zeros(n_terms)
    for m in np.flatnonzero(live[:n_sets]):
        joined = _joined(est.conditions_[m], states)
        if joined:
            sets.append(joined)
            effect.append((m, 1.0))
            means.append(est.term_means_[m])
        elif joined is not None:
            constant[m] = 1.0
    numbers = []
    for term in n_sets + np.flatnonzero(live[n_sets:]):
        column = frame.columns[int(est.linear_features_[term - n_sets])]
        if column.is_discrete:
            constant[term], steps = _steps(est, term - n_sets, column)
            position = _position(columns, column)
            sets += [{position: holds} for holds, _ in steps]
            effect += [(term, height) for _, height in steps]
            means += [0.5] * len(steps)
        else:
            numbers.append((term, *_folded(est, term - n_sets, column)))
    matrix = np.zeros((len(effect), n_terms))
    for flag, (term, height) in enumerate(effect):
        matrix[flag, term] = height
    table = np.array(numbers, dtype=np.float64).reshape(len(numbers), 6)
    return Terms(
        columns,
        sets,
        matrix,
        np.array(means, dtype=np.float64),
        constant,
        table[:, 0].astype(np.int64),
        table[:, 1].astype(np.int64),
        *table[:, 2:].T,
    )


def _code_states(est, frame, read):
    """Return cut columns, none twice, and of each feature its position there and its code in each state."""
    numeric = [j for j in read if est.categories_[j] is None]
    cut = dict(zip(numeric, cut_columns(frame, numeric, [est.cuts_[j] for j in numeric]), strict=True))
    columns: list[Column] = []
    states = {}
    for j in read:
        column = cut[j] if est.categories_[j] is None else frame.set_categories(j, est.categories_[j])
        states[j] = _position(columns, column), column.values.astype(np.int64)
    return columns, states


def _position(columns, column) -> int:
    """Return where the states of a column stand in a list, which it is added to if they are new."""
    for position, other in enumerate(columns):
        if other.same_states(column):
            return position
    columns.append(column)
    return len(columns) - 1


def _joined(conditions, states):
    """Return an itemset as a dict of states, without conditions that always hold; None if it never matches."""
    joined: dict[int, np.ndarray] = {}
    for feature, holds in conditions:
        position, codes = states[int(feature)]
        inside = np.append(np.asarray(holds, dtype=bool), False)[codes]  # a value without code has the number past them
        joined[position] = joined[position] & inside if position in joined else inside
    if not all(inside.any() for inside in joined.values()):
        return None
    return {position: inside for position, inside in joined.items() if not inside.all()}


def _steps(est, position, column):
    """Return a linear term of a discrete column: its value where missing, and (states, height) of its other values."""
    low, width, fill = est.linear_low_[position], est.linear_range_[position], est.linear_fill_[position]
    z = np.where(np.isnan(column.values), fill, np.clip((column.values - low) / width, 0, 1))
    return z[-1], [(z == value, value - z[-1]) for value in np.unique(z[z != z[-1]])]


def _folded(est, position, column):
    """Return source, low, inverse and fill of a linear term on the raw column, and a bound on its rounding."""
    low, width, fill = est.linear_low_[position], est.linear_range_[position], est.linear_fill_[position]
    if column.affine is None:
        name = type(column.links[-1][0]).__name__
        raise LoweringError(
            f"{name} before a linear term of {type(est).__name__} is not affine and cannot be folded; "
            "use an affine scaler, or fit with linear_terms=False"
        )
    scale, offset = column.affine
    folded = (low - offset) / scale, scale / width
    if not (np.isfinite(np.float32(folded)).all() and np.float32(folded[1]) > 0):
        raise LoweringError(f"linear column {column.source} from {low} over {width} has no float32 form")
    # two subtractions, products and roundings of constants here, the same in a scaler that works in float32
    error = ROUNDING * (8 * (1 + abs(low) / width) + 4 * abs(offset) / width)
    return column.source, *folded, fill, np.inf if len(column.links) > 1 else error


def _rounding_error(terms, weights, slopes, bias):
    """Return a bound on the float32 rounding of a value, infinite where a linear column has none."""
    operations = len(weights) + 2 * len(slopes) + 12  # a rounded weight may be twice as large
    total = abs(bias) + float(np.abs(weights).sum() + np.abs(slopes).sum())
    return 1.01 * (operations * ROUNDING * total + float(np.abs(slopes) @ terms.error))


# -- steps ------------------------------------------------------------------------------------------------------------


def _add_linear(builder, terms):
    """Add the linear columns from 0 to 1 and return their buffer; None without any."""
    if not len(terms.linear):
        return None
    names = ("low", "inverse", "fill")
    fields = {name: getattr(terms, name).astype(np.float32) for name in names}
    return builder.add(ClippedAffine, "z", "f32", len(terms.linear), columns=terms.sources, **fields)


def _add_sum(builder, hint, flags, weights, z, slopes, bias) -> str:
    """Add ``bias + matches @ weights + z @ slopes``, (n_out,), in float32 and return its buffer."""
    weights, slopes, bias = (np.asarray(part, dtype=np.float64).astype(np.float32) for part in (weights, slopes, bias))
    summed = None
    if flags is not None:
        n = len(weights)
        fields = {"columns": np.arange(n), "states": np.ones(n, dtype=np.int64), "parents": np.full(n, -1)}
        summed = builder.add(
            LookupSum,
            hint if z is None else f"{hint}_matches",
            "f32",
            len(bias),
            inputs=(flags,),  # code 0, a match, adds a row; code 1 is out of range and adds nothing
            table=weights,
            start=bias if z is None else None,
            n_bits=32,
            layout="float",
            **fields,
        )
    return summed if z is None and summed is not None else _add_dense(builder, hint, z, slopes, bias, summed)


def _add_dense(builder, hint, z, slopes, bias, start) -> str:
    inputs = (RAW if z is None else z, *(() if start is None else (start,)))
    n = 0 if z is None else len(slopes)
    weight = np.ascontiguousarray(slopes[:n])
    return builder.add(Dense, hint, "f32", len(bias), inputs=inputs, columns=np.arange(n), weight=weight, bias=bias)


def _add_integers(builder, flags, rounded, scale, bias, z, slopes):
    """Add the sum of integer weights and the value; return the value's buffer and the output of the sum."""
    # a flag is 0 for a match: the sum of all weights less those of the flags that are set
    fields = {"weight": -rounded[:, None].astype(np.int8), "bias": np.array([rounded.sum()], dtype=np.int32)}
    summed = builder.add(Dense, "sum", "i32", 1, inputs=(flags,), columns=np.arange(len(rounded)), **fields)
    unit, offset = np.float32([scale]), np.float32([bias])
    if z is None:
        value = builder.add(Affine, "value", "f32", 1, inputs=(summed,), scale=unit, offset=offset)
        return value, {"sum": Output(summed, scale=float(scale), zero_point=-bias / float(scale))}
    matches = builder.add(
        Affine, "value_matches", "f32", 1, inputs=(summed,), scale=unit, offset=np.zeros(1, dtype=np.float32)
    )
    slopes = slopes[:, None].astype(np.float32)
    return _add_dense(builder, "value", z, slopes, offset, matches), {}


def _add_deviation(est, builder, terms, flags, z) -> str:
    """Add the standard deviation of a new observation and return its buffer."""
    start = float(est.noise_variance_) * (1 + 1 / est.n_observations_)
    factor = _factor(np.asarray(est.sigma_, dtype=np.float64), np.asarray(est.term_means_, dtype=np.float64), start)
    if not len(factor):
        bias = np.sqrt(np.array([start])).astype(np.float32)
        return _add_dense(builder, "std", None, np.empty((0, 1), dtype=np.float32), bias, None)
    offset = factor @ (terms.constant - est.term_means_)
    rows = _add_sum(builder, "spread", flags, (factor @ terms.effect.T).T, z, factor[:, terms.linear].T, offset)
    fields = {"n_inputs": len(factor), "start": np.float32([start])}
    variance = builder.add(SumSquares, "variance", "f32", 1, inputs=(rows,), **fields)
    return builder.add(SquareRoot, "std", "f32", 1, inputs=(variance,))


def _factor(sigma, means, noise) -> np.ndarray:
    """Return R (K, n_terms) with R'R = sigma, less directions that cannot change the variance beyond float32 rounding.

    The eigenvalues left out add up to at most ``ROUNDING * noise / D``, with D the largest ``|phi - means|^2`` that
    columns between 0 and 1 allow.
    """
    if not len(sigma):
        return np.empty((0, 0))
    with threadpool_limits(1, user_api="blas"):
        values, vectors = np.linalg.eigh((sigma + sigma.T) / 2)
    reach = float((np.maximum(np.abs(means), np.abs(1 - means)) ** 2).sum())
    positive = np.maximum(values, 0)  # ascending
    kept = np.cumsum(positive) * reach > ROUNDING * noise
    return (np.sqrt(positive[kept])[:, None] * vectors[:, kept].T)[::-1]
