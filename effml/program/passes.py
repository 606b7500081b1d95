"""Program to Program: the same predictions with fewer bytes or another input type."""

import numpy as np

from effml.program.buffers import RAW
from effml.program.program import Program
from effml.program.ranking import forests_on_integers, without_decided_splits
from effml.program.steps import (
    Bin,
    ForestWalk,
    Gather,
    ItemsetMatch,
    LookupSum,
    PackedConv,
    QuantizeInput,
    Requantise,
    TreeWalk,
)

__all__ = [
    "deployable",
    "drop_range_checks",
    "fold_leaves",
    "integer_threshold",
    "requantise_at_once",
    "with_input_dtype",
]


def deployable(program: Program) -> Program:
    """Return the program with every size pass applied: what is priced and printed as C."""
    return drop_range_checks(fold_leaves(program))


def with_input_dtype(program: Program, dtype: str) -> Program:
    """Return the program that reads raw rows of `dtype` and predicts what `program` predicts for their float32 values.

    Thresholds on raw values become integers: the largest i of the type with ``float32(i) <= t``; so does the scaling of
    a network's inputs where integers can give the same for every number of the type.
    """
    if dtype == program.input_dtype:
        return program
    if program.input_dtype != "float32":
        raise ValueError(f"input_dtype={program.input_dtype!r} of the program is already fixed; lower the model again")
    steps = []
    for step in program.steps:
        if RAW in step.inputs and isinstance(step, Bin):
            step = _integer_bin(step, np.dtype(dtype))
        elif RAW in step.inputs and isinstance(step, TreeWalk):
            step = _integer_tree(step, np.dtype(dtype))
        elif RAW in step.inputs and isinstance(step, QuantizeInput):
            step = step.on_integers(dtype)
        elif RAW in step.inputs and isinstance(step, ForestWalk):
            step = without_decided_splits(step, step.feature, integer_threshold(step.threshold, dtype), np.dtype(dtype))
        steps.append(step)
    kept = frozenset(output.buffer for output in program.outputs.values())
    return program.replace(steps=tuple(forests_on_integers(steps, kept)), input_dtype=dtype)


def integer_threshold(thresholds, dtype) -> np.ndarray:
    """Return the largest integers i of `dtype` with ``float32(i) <= t``, int64; one below the range where none is."""
    info = np.iinfo(dtype)
    thresholds = np.asarray(thresholds, dtype=np.float32)
    low = np.full(thresholds.shape, info.min - 1, dtype=np.int64)  # holds (or nothing does)
    high = np.full(thresholds.shape, info.max + 1, dtype=np.int64)  # fails (or everything holds)
    while (high - low > 1).any():
        middle = (low + high) // 2
        holds = middle.astype(np.float32) <= thresholds
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return low


def _integer_bin(step: Bin, dtype: np.dtype) -> Bin:
    info = np.iinfo(dtype)
    parts = []
    for _, column, by_value, cuts, codes, missing in step.parts():
        if by_value:
            whole = (cuts == np.trunc(cuts)) & (cuts >= info.min) & (cuts <= info.max)
            parts.append((column, True, cuts[whole], [*codes[:-1][whole], codes[-1]], missing))
            continue
        limit = integer_threshold(cuts, dtype)
        # below the range every x lies above the cut, at its end no x does; equal cuts leave an empty interval
        keep = (limit >= info.min) & (limit < info.max) & np.append(limit[1:] > limit[:-1], True)
        first = int((limit < info.min).sum())
        upper = [int(codes[i + 1]) for i in np.flatnonzero(keep)]
        parts.append((column, False, limit[keep], [int(codes[first]), *upper], missing))
    return Bin.of(_first_codes(parts), step.output, inputs=step.inputs, dtype=dtype)


def _first_codes(parts):
    """Return parts with codes None where they just count, so that no code table is shipped."""
    return [
        (column, by_value, cuts, None if list(codes) == list(range(len(cuts) + 1)) else codes, missing)
        for column, by_value, cuts, codes, missing in parts
    ]


def _integer_tree(step: TreeWalk, dtype: np.dtype) -> TreeWalk:
    info = np.iinfo(dtype)
    limit = integer_threshold(step.threshold, dtype)
    children = step.children.copy()
    always_right = limit < info.min  # no value of the type goes left: both ways lead right
    children[always_right, 0] = children[always_right, 1]
    always_left = limit >= info.max
    children[always_left, 1] = children[always_left, 0]
    threshold = np.clip(limit, info.min, info.max).astype(dtype)
    return _compact(step.replace(threshold=threshold, children=children))


def _compact(step: TreeWalk) -> TreeWalk:
    """Return the tree without splits whose two ways meet in the same node, and without unreachable splits."""
    n = len(step.feature)
    if not n:
        return step
    reduced = np.empty(n, dtype=np.int64)

    def resolve(child):
        return child if child < 0 else reduced[child]

    for node in reversed(range(n)):  # children come after their parent
        left, right = (resolve(child) for child in step.children[node])
        reduced[node] = left if left == right else node
    root = int(resolve(0))
    if root < 0:
        return _leaf(step, ~root)
    order, number = [], {}
    stack = [root]
    while stack:  # preorder keeps children after their parent
        node = stack.pop()
        if node not in number:
            number[node] = len(order)
            order.append(node)
            stack += [resolve(child) for child in step.children[node][::-1] if resolve(child) >= 0]
    children = [[number.get(int(resolve(c)), int(resolve(c))) for c in step.children[node]] for node in order]
    return step.replace(
        feature=step.feature[order],
        threshold=step.threshold[order],
        missing_right=step.missing_right[order],
        children=np.array(children, dtype=np.int64),
    )


def _leaf(step: TreeWalk, payload: int) -> TreeWalk:
    return step.replace(
        feature=step.feature[:0],
        threshold=step.threshold[:0],
        missing_right=step.missing_right[:0],
        children=step.children[:0],
        only_leaf=int(payload),
    )


def fold_leaves(program: Program) -> Program:
    """Put what a lone `Gather` reads for each leaf into the tree itself, and merge leaves that became equal."""
    steps = list(program.steps)
    readers: dict[str, list[int]] = {}
    for position, step in enumerate(steps):
        for name in step.inputs:
            readers.setdefault(name, []).append(position)
    outputs = {output.buffer for output in program.outputs.values()}
    removed = set()
    for position, tree in enumerate(steps):
        read_by = readers.get(tree.output.name, [])
        if not isinstance(tree, TreeWalk) or len(read_by) != 1 or tree.output.name in outputs:
            continue
        gather = steps[read_by[0]]
        if not isinstance(gather, Gather) or gather.output.size != 1 or gather.table.dtype.kind not in "iu":
            continue
        payload = gather.table[:, 0].astype(np.int64)
        children = np.where(tree.children < 0, ~payload[~np.minimum(tree.children, -1)], tree.children)
        folded = tree.replace(children=children, only_leaf=int(payload[tree.only_leaf]), output=gather.output)
        steps[read_by[0]] = _compact(folded)
        removed.add(position)
    return program.replace(steps=tuple(step for i, step in enumerate(steps) if i not in removed))


def requantise_at_once(program: Program) -> Program:
    """Let convolutions requantise each sum as they have it, so that the buffer of their sums is not needed."""
    readers: dict[str, list] = {output.buffer: [None] for output in program.outputs.values()}
    for step in program.steps:
        for name in step.inputs:
            readers.setdefault(name, []).append(step)
    steps, merged = [], set()
    for step in program.steps:
        read_by = readers.get(step.output.name, [])
        after = read_by[0] if len(read_by) == 1 else None
        fits = isinstance(step, PackedConv) and step.requantise is None and isinstance(after, Requantise)
        if fits and len(after.inputs) == 1 and len(after.offset) in (1, step.n_filters):
            steps.append(step.replace(output=after.output, requantise=after))
            merged.add(after.output.name)
        elif step.output.name not in merged or not isinstance(step, Requantise):
            steps.append(step)
    return program.replace(steps=tuple(steps))


def drop_range_checks(program: Program) -> Program:
    """Clear `checked` of table sums and itemsets whose codes are proven to stay in range."""
    bounds = {step.output.name: step.n_states for step in program.steps}
    steps = []
    for step in program.steps:
        if isinstance(step, ItemsetMatch | LookupSum) and step.checked:
            bound = bounds.get(step.inputs[0])
            if bound is not None and step.in_range(bound):
                step = step.replace(checked=False)
        steps.append(step)
    return program.replace(steps=tuple(steps))
