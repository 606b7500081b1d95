"""Closed forms read from a Program: its steps between the raw row and an output, as terms that can be integrated."""

from dataclasses import replace

import numpy as np

from effml._trees import Trees
from effml.program.buffers import RAW, Output
from effml.program.steps import (
    Affine,
    Bin,
    Dense,
    ForestWalk,
    Gather,
    LookupSum,
    MultiplyInput,
    PackedDense,
    QuantizeInput,
    Select,
    TreeWalk,
    WeightedAdd,
)
from effml.shapley.terms import Additive, NoClosedForm, Piece, Tables, TreeSum

__all__ = ["program_pieces"]

_ONE_COLUMN_EACH = (Affine, Bin, MultiplyInput, QuantizeInput, Select)  # steps whose elements read one column each


def program_pieces(program, output):
    """Return an output of a Program, up to a constant, as pieces of a closed form.

    Raises NoClosedForm, which names the step, where the output is no sum of linear forms, table entries and
    trees over functions of one raw column each.
    """
    steps = {step.output.name: step for step in program.steps}
    result = program.outputs[output]

    def source_of(name):
        """Return the raw column of each element of a buffer, None where one depends on several."""
        if name == RAW:
            return np.arange(len(program.inputs))
        step = steps[name]
        below = source_of(step.inputs[0]) if isinstance(step, _ONE_COLUMN_EACH) else None
        if below is None:
            return None
        if isinstance(step, Affine):
            return np.repeat(below, step.output.size) if step.broadcast else below
        return below[step.columns]

    def piece(step, term):
        source = source_of(step.inputs[0])
        if source is None:
            raise NoClosedForm(f"step {step.output.name!r} reads {step.inputs[0]!r}, which mixes raw columns")
        return Piece(_reader(program, step.inputs[0]), source, term)

    def pieces_of(name):
        step = steps.get(name)
        if isinstance(step, WeightedAdd):
            shifts = dict(zip(step.inputs, step.shifts, strict=True))
            return [_scaled(p, slice(None), 2.0**shift) for part, shift in shifts.items() for p in pieces_of(part)]
        before = pieces_of(step.inputs[1]) if step is not None and len(step.inputs) > 1 else []
        if isinstance(step, LookupSum):
            return [piece(step, _tables(step))]
        if isinstance(step, Dense):
            return [*before, piece(step, _dense(step.weight, step.columns))]
        if isinstance(step, PackedDense) and not step.packed:
            weight = (2.0 * step.codes - step.top) * 2.0**step.shift
            return [piece(step, _dense(weight, np.arange(step.n_in)))]
        if isinstance(step, ForestWalk):
            return [*before, piece(step, TreeSum(_trees_of_walk(step)))]
        if isinstance(step, Gather) and isinstance(steps.get(step.inputs[0]), TreeWalk):
            walk = steps[step.inputs[0]]
            return [piece(walk, TreeSum(_tree_of_walk(walk, step.table)))]
        if isinstance(step, Affine):
            pick = np.zeros(step.output.size, dtype=np.int64) if step.broadcast else slice(None)
            return [_scaled(p, pick, step.scale.astype(np.float64)) for p in pieces_of(step.inputs[0])]
        if isinstance(step, Select):
            return [_scaled(p, step.columns, 1.0) for p in pieces_of(step.inputs[0])]
        what = "the raw row" if step is None else f"{type(step).__name__} step {name!r}"
        raise NoClosedForm(f"{what} is no sum that can be integrated")

    return [replace(p, scale=p.scale * result.scale) for p in pieces_of(result.buffer)]


def _reader(program, name):
    reduced = program.replace(outputs={"read": Output(name)}).with_outputs("read")
    return lambda X: reduced.run(reduced.encode(X))["read"]


def _scaled(piece, pick, scale):
    if isinstance(pick, slice):
        return replace(piece, scale=piece.scale * scale)
    inner = pick if piece.pick is None else piece.pick[pick]
    own = piece.scale if np.ndim(piece.scale) == 0 else piece.scale[pick]
    return replace(piece, pick=np.asarray(inner), scale=own * scale)


def _tables(step):
    """Return a LookupSum with a row and column of zeros for codes out of range: such a factor adds nothing."""
    starts = np.concatenate([[0], np.cumsum(step.rows_per_factor)])
    tables = []
    for i, (column, parent) in enumerate(zip(step.columns, step.parents, strict=True)):
        n_parent = int(step.states[parent]) if parent >= 0 else 0
        rows = step.table[starts[i] : starts[i + 1]].astype(np.float64)
        table = rows.reshape(int(step.states[column]), max(n_parent, 1), -1)
        tables.append(np.pad(table, ((0, 1), (0, int(n_parent > 0)), (0, 0))))
    return Tables(step.columns, step.parents, tables)


def _dense(weight, columns):
    weight, columns = weight.astype(np.float64), np.asarray(columns)

    def parts(X):
        out = np.zeros((len(X), X.shape[1], weight.shape[1]))
        np.add.at(out, (slice(None), columns), X[:, columns, None].astype(np.float64) * weight)
        return out

    return Additive(parts)


def _trees_of_walk(step):
    value = np.eye(step.output.size)[step.leaf] if step.votes else step.values[step.leaf].astype(np.float64)
    return _in_order(step, np.asarray(step.roots), value)


def _tree_of_walk(step, table):
    if not len(step.feature):
        return _in_order(step, np.array([~0]), table[[step.only_leaf]].astype(np.float64))
    return _in_order(step, np.array([0]), table.astype(np.float64))


def _in_order(step, roots, value):
    return Trees(
        feature=np.asarray(step.feature, dtype=np.int64),
        threshold=step.threshold.astype(np.float64),
        children=np.asarray(step.children, dtype=np.int64),
        missing_right=np.asarray(step.missing_right, dtype=bool),
        roots=roots.astype(np.int64),
        value=value,
    )
