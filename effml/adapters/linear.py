"""Linear models: affine scalers fold into the weights, one-hot columns become rows of a table."""

import numpy as np

from effml.program.buffers import RAW, Output, smallest_unsigned
from effml.program.frame import Frame, LoweringError
from effml.program.steps import Affine, ArgBest, Bin, Dense, LookupSum, Positive, Softmax

__all__ = ["linear_regressor", "logistic_regression", "raw_linear_form"]


def logistic_regression(est, frame: Frame) -> None:
    """Lower a fitted LogisticRegression; float32 sums may turn near ties, so this is a float model."""
    builder = frame.builder
    scores = add_scores(frame, est.coef_, est.intercept_)
    n_classes = len(est.classes_)
    if n_classes == 2:
        label = builder.add(Positive, "label", "u8", 1, inputs=(scores,))
        # proba = softmax([0, d]) = [1 - sigmoid(d), sigmoid(d)]
        pair = builder.add(
            Affine,
            "pair",
            "f32",
            2,
            inputs=(scores,),
            scale=np.float32([0, 1]),
            offset=np.zeros(2, dtype=np.float32),
            broadcast=True,
        )
        proba = builder.add(Softmax, "proba", "f32", 2, inputs=(pair,))
    else:
        label_type = smallest_unsigned(n_classes - 1)
        label = builder.add(ArgBest, "label", label_type, 1, inputs=(scores,), n_inputs=n_classes)
        proba = builder.add(Softmax, "proba", "f32", n_classes, inputs=(scores,))
    builder.outputs = {"label": Output(label), "score": Output(scores), "proba": Output(proba)}
    builder.describe_missing("gives class 0; impute before the call")
    builder.classes = tuple(np.asarray(est.classes_).tolist())
    builder.notes.append(
        "float32 model: a row whose two best scores are closer than float32 rounding may get the other label; "
        "effml.quantize gives an exact integer model"
    )


def linear_regressor(est, frame: Frame) -> None:
    """Lower a fitted linear regressor by its `coef_` and `intercept_`; columns without a weight are not read."""
    kept = np.flatnonzero(est.coef_)
    used = {frame.columns[k].source for k in kept}
    for position in range(len(frame.builder.inputs)):
        if position not in used:
            frame.builder.mark_unused(position)
    value = add_scores(frame.with_columns(frame.columns[k] for k in kept), est.coef_[None, kept], est.intercept_)
    frame.builder.outputs = {"value": Output(value)}
    frame.builder.describe_missing("gives NaN; impute before the call")
    frame.builder.notes.append("float32 model: values are those of Python up to float32 rounding")


def add_scores(frame: Frame, coef, intercept) -> str:
    """Add the steps of ``X @ coef.T + intercept`` and return the buffer of scores."""
    builder = frame.builder
    sources, weight, bias, tables = raw_linear_form(frame, coef, intercept)
    n_out = len(bias)
    inputs = (RAW,)
    if tables:
        states = np.array([len(table) - 1 for _, table in tables], dtype=np.int64)
        parts, rows = [], []
        for column, table in tables:
            unseen = table[-1]  # goes into the bias, so that a row out of range adds exactly this
            bias = bias + unseen
            rows.append(table[:-1] - unseen)
            parts.append(column.bin_part())
        codes = builder.add(Bin, "level", smallest_unsigned(int(states.max()) + 1), len(tables), parts=parts)
        summed = builder.add(
            LookupSum,
            "levels_sum",
            "f32",
            n_out,
            inputs=(codes,),
            columns=np.arange(len(tables)),
            states=states,
            parents=np.full(len(tables), -1),
            table=np.concatenate(rows).astype(np.float32),
            start=None if len(sources) else bias.astype(np.float32),
            n_bits=32,
            layout="float",
        )
        if not len(sources):
            return summed
        inputs = (RAW, summed)
    return builder.add(
        Dense,
        "scores",
        "f32",
        n_out,
        inputs=inputs,
        columns=sources,
        weight=weight.astype(np.float32),
        bias=bias.astype(np.float32),
    )


def raw_linear_form(frame: Frame, coef, intercept):
    """Return a linear map of the frame as one of the raw row.

    Returns
    -------
    sources : int array (n_raw,)
        Raw columns that enter as numbers.
    weight : float64 array (n_raw, n_out)
    bias : float64 array (n_out,)
    tables : list of (Column, float64 array (n_states + 1, n_out))
        Raw columns that enter as states.
    """
    coef = np.asarray(coef, dtype=np.float64)
    bias = np.array(np.broadcast_to(intercept, (len(coef),)), dtype=np.float64)
    numbers: dict[int, np.ndarray] = {}
    tables: list[list] = []
    for position, column in enumerate(frame.columns):
        weight = coef[:, position]
        if column.is_discrete:
            table = next((entry for entry in tables if entry[0].same_states(column)), None)
            if table is None:
                table = [column, np.zeros((len(column.values), len(coef)))]
                tables.append(table)
            table[1] += column.values[:, None] * weight
        elif column.affine is None:
            name = type(column.links[-1][0]).__name__
            raise LoweringError(
                f"{name} before a linear model is not affine and cannot be folded; use an affine scaler"
            )
        else:
            scale, offset = column.affine
            numbers[column.source] = numbers.get(column.source, 0.0) + weight * scale
            bias = bias + weight * offset
    sources = np.array(sorted(numbers), dtype=np.int64)
    weight = np.array([numbers[k] for k in sorted(numbers)]).reshape(len(sources), len(coef))
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise LoweringError("the weights are not finite")
    return sources, weight, bias, [(column, table) for column, table in tables]
