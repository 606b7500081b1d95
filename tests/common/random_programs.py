"""Random programs over every step, layout and input type: what the properties of exported C are checked on."""

import numpy as np

from effml.program import Buffer, InputSpec, Output, Program
from effml.program.buffers import DTYPES, INPUT_DTYPES, smallest_unsigned
from effml.program.steps import (
    Affine,
    ArgBest,
    Bin,
    Dense,
    ForestWalk,
    Gather,
    LookupSum,
    Positive,
    QuantizeInput,
    Select,
    Softmax,
    TreeWalk,
)


def inputs(n):
    return tuple(InputSpec(f"x{k}") for k in range(n))


def random_bin(rng, n_columns, dtype, *, max_cuts=6, plain=False, largest=300):
    """Return a Bin step over the raw row: edges and exact values mixed, some columns skipped or read twice.

    A `plain` one is what a discretizer alone makes: every column once, by edges, states counted.
    """
    dtype = np.dtype(dtype)
    parts = []
    for column in range(n_columns):
        n = int(rng.integers(1 if plain else 0, max_cuts + 1))
        by_value = not plain and bool(rng.random() < 0.4)
        if by_value and rng.random() < 0.5:
            cuts = np.arange(n)
        elif dtype.kind == "f":
            cuts = np.unique(rng.normal(size=n).astype(dtype))
        else:
            info = np.iinfo(dtype)
            cuts = np.unique(rng.integers(max(info.min, -largest), min(info.max, largest), size=n))
        n = len(cuts)
        codes = None if plain or rng.random() < 0.6 else rng.integers(0, n + 2, size=n + 1)
        missing = n + 1 if codes is None and not by_value else int(rng.integers(0, n + 2))
        if by_value:
            missing = n if codes is None else int(codes[-1])
        column = column if plain else int(rng.integers(0, n_columns))
        parts.append((column, by_value, cuts, codes, missing))
    largest = max(max(part[4], len(part[2]) + 1) for part in parts)
    return Bin.of(parts, Buffer("code", smallest_unsigned(largest), n_columns), dtype=dtype)


def random_lookup(rng, states, n_out, *, n_bits, layout, parents=False, start=True, every=False):
    """Return a LookupSum over codes with the given numbers of states; without `every` some codes have no table."""
    n = len(states)
    columns = (
        np.arange(n) if every or rng.random() < 0.6 else np.sort(rng.permutation(n)[: int(rng.integers(1, n + 1))])
    )
    parent = np.array([int(rng.integers(-1, k)) if parents and k else -1 for k in columns])
    rows = int((states[columns] * np.where(parent >= 0, states[parent], 1)).sum())
    if layout == "float":
        table = rng.normal(size=(rows, n_out)).astype(np.float32)
        first = rng.normal(size=n_out).astype(np.float32) if start else None
        dtype = "f32"
    else:
        table = rng.integers(0, 2**n_bits, size=(rows, n_out)).astype(np.uint8)
        first = rng.integers(0, 2**n_bits, size=n_out).astype(np.uint8) if start else None
        dtype = smallest_unsigned((n + 1) * (2**n_bits - 1))
    return LookupSum(
        inputs=("code",),
        output=Buffer("scores", dtype, n_out),
        columns=columns,
        states=states,
        parents=parent,
        table=table,
        start=first,
        n_bits=32 if layout == "float" else n_bits,
        layout=layout,
    )


def classifier(
    rng, *, dtype, n_columns, n_out, n_bits, layout, parents, start=True, max_cuts=6, plain=False, largest=300
):
    """Return bin -> lookup sum -> best class, with probabilities."""
    binned = random_bin(rng, n_columns, dtype, max_cuts=max_cuts, plain=plain, largest=largest)
    # some features know fewer states than the codes that can occur: those are unseen
    states = [len(part[3]) + 1 if plain else max(1, len(part[3]) + int(rng.integers(0, 2))) for part in binned.parts()]
    states = np.array(states, dtype=np.int64)
    scores = random_lookup(rng, states, n_out, n_bits=n_bits, layout=layout, parents=parents, start=start, every=plain)
    best = ArgBest(
        inputs=("scores",),
        output=Buffer("label", smallest_unsigned(n_out - 1), 1),
        n_inputs=n_out,
        largest=bool(rng.random() < 0.5),
    )
    scaled = Affine(
        inputs=("scores",),
        output=Buffer("scaled", "f32", n_out),
        scale=np.full(n_out, 0.125, dtype=np.float32),
        offset=rng.normal(size=n_out).astype(np.float32),
    )
    proba = Softmax(inputs=("scaled",), output=Buffer("proba", "f32", n_out))
    return Program(
        inputs=inputs(n_columns),
        input_dtype=dtype,
        steps=(binned, scores, best, scaled, proba),
        outputs={"label": Output("label"), "score": Output("scores"), "proba": Output("proba")},
        classes=tuple(f"class {k}" for k in range(n_out)),
    )


def random_tree(rng, n_raw, dtype, n_splits):
    """Return one TreeWalk on the raw row and the table of its leaves."""
    dtype = np.dtype(dtype)
    children = np.full((n_splits, 2), -1, dtype=np.int64)
    open_ends = [(0, 0), (0, 1)] if n_splits else []
    for node in range(1, n_splits):
        parent, side = open_ends.pop(int(rng.integers(len(open_ends))))
        children[parent, side] = node
        open_ends += [(node, 0), (node, 1)]
    for leaf, (parent, side) in enumerate(open_ends):
        children[parent, side] = ~leaf
    if dtype.kind == "f":
        threshold = rng.normal(size=n_splits).astype(dtype)
        threshold[rng.random(n_splits) < 0.2] = -0.0
    else:
        info = np.iinfo(dtype)
        threshold = rng.integers(max(info.min, -300), min(info.max, 300), size=n_splits).astype(dtype)
    step = TreeWalk(
        inputs=("x",),
        output=Buffer("leaf", smallest_unsigned(max(n_splits, 1)), 1),
        feature=rng.integers(0, n_raw, size=n_splits),
        threshold=threshold,
        children=children,
        missing_right=rng.random(n_splits) < 0.5,
    )
    return step, max(n_splits + 1, 1)


def tree_program(rng, *, dtype, n_columns, n_splits, n_out):
    """Return tree -> label and probabilities."""
    walk, n_leaves = random_tree(rng, n_columns, dtype, n_splits)
    label = Gather(
        inputs=("leaf",),
        output=Buffer("label", smallest_unsigned(n_out - 1), 1),
        table=rng.integers(0, n_out, size=(n_leaves, 1)),
    )
    proba = Gather(
        inputs=("leaf",), output=Buffer("proba", "f32", n_out), table=rng.random((n_leaves, n_out)).astype(np.float32)
    )
    return Program(
        inputs=inputs(n_columns),
        input_dtype=dtype,
        steps=(walk, label, proba),
        outputs={"label": Output("label"), "proba": Output("proba")},
        classes=tuple(range(n_out)),
    )


def random_forest(rng, source, sizes, n_out, *, adds="rows", values="int8", layout="table", largest=None):
    """Return a ForestWalk that reads a buffer.

    Parameters
    ----------
    source : Buffer
    sizes : sequence of int
        Splits of each tree.
    adds : {"rows", "by_tree", "votes"}
        A leaf adds a row of values, a number to its tree's output, or 1 to an output.
    values : {"int8", "int16", "int32"}
    largest : int, optional
        Largest threshold of an integer buffer.
    """
    dtype = DTYPES[source.dtype]
    trees = [random_tree(rng, source.size, dtype if dtype.kind == "f" else "int32", size)[0] for size in sizes]
    n_splits, n_leaves = sum(sizes), sum(sizes) + len(sizes)
    splits = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    leaves = splits + np.arange(len(sizes) + 1)
    children = [np.where(t.children < 0, t.children - leaves[i], t.children + splits[i]) for i, t in enumerate(trees)]
    if dtype.kind == "f":
        threshold = np.concatenate([*(tree.threshold for tree in trees), np.empty(0, dtype)])
        threshold[rng.random(n_splits) < 0.05] = np.inf
        threshold[rng.random(n_splits) < 0.05] = -np.inf
    else:
        info = np.iinfo(dtype)
        top = info.max if largest is None else largest
        threshold = rng.integers(max(info.min, -top), top + 1, size=n_splits).astype(dtype)
    bound = np.iinfo(values).max
    bound = bound if values != "int32" else bound // (len(sizes) + 1)
    if adds == "by_tree":
        table = np.zeros((n_leaves, n_out), dtype=values)
        output = np.repeat(rng.integers(0, n_out, size=len(sizes)), np.asarray(sizes, dtype=int) + 1)
        table[np.arange(n_leaves), output] = rng.integers(-bound, bound + 1, size=n_leaves)
        leaf = np.arange(n_leaves)
    else:
        table = rng.integers(-bound, bound + 1, size=(max(n_leaves // 2, 1), n_out)).astype(values)
        leaf = rng.integers(0, n_out if adds == "votes" else len(table), size=n_leaves)
    return ForestWalk(
        inputs=(source.name,),
        output=Buffer("sums", "i32", n_out),
        feature=np.concatenate([*(tree.feature for tree in trees), np.empty(0, int)]).astype(int),
        threshold=threshold,
        children=np.concatenate([*children, np.empty((0, 2), int)]).astype(int),
        roots=np.where(np.asarray(sizes, dtype=int) > 0, splits[:-1], ~leaves[:-1]),
        missing_right=np.concatenate([*(tree.missing_right for tree in trees), np.empty(0, bool)]).astype(bool),
        leaf=leaf,
        values=None if adds == "votes" else table,
        start=rng.integers(-1000, 1000, size=n_out).astype(np.int32),
        votes=adds == "votes",
        layout=layout,
    )


def with_useful_splits(step, rng, n_columns, largest):
    """Return a forest of ranks 0 to `largest` in which every split divides the values that can reach it.

    A compiler removes tests whose answer is known, which a trained forest has none of.
    """
    feature, threshold = step.feature.copy(), step.threshold.copy()
    low, high = np.zeros((len(feature), n_columns), dtype=int), np.full((len(feature), n_columns), largest)
    for node, (left, right) in enumerate(step.children):
        column = int(rng.choice(np.flatnonzero(high[node] > low[node])))
        cut = int(rng.integers(low[node, column], high[node, column]))
        feature[node], threshold[node] = column, cut
        for child in (left, right):
            if child >= 0:
                low[child], high[child] = low[node], high[node]
        if left >= 0:
            high[left, column] = cut
        if right >= 0:
            low[right, column] = cut + 1
    return step.replace(feature=feature, threshold=threshold)


def forest_program(rng, *, dtype, n_columns, sizes, n_out, adds="rows", values="int8", layout="table", ranks=True):
    """Return forest -> best class (or sign) and probabilities, on the raw row or on the ranks of a Bin."""
    steps, source = [], Buffer("x", INPUT_DTYPES[dtype], n_columns)
    if ranks:
        steps.append(random_bin(rng, n_columns, dtype, plain=True))
        source = steps[0].output
    options = {"adds": adds, "values": values, "layout": layout, "largest": 6 if ranks else None}
    steps.append(random_forest(rng, source, sizes, n_out, **options))
    best = ArgBest(inputs=("sums",), output=Buffer("label", "u8", 1), n_inputs=n_out)
    if n_out == 1:
        best = Positive(inputs=("sums",), output=Buffer("label", "u8", 1))
    n_proba = max(n_out, 2)
    scaled = Affine(
        inputs=("sums",),
        output=Buffer("scaled", "f32", n_proba),
        scale=np.linspace(0, 1e-3, n_proba).astype(np.float32),
        offset=np.zeros(n_proba, np.float32),
        broadcast=n_out == 1,
    )
    proba = Softmax(inputs=("scaled",), output=Buffer("proba", "f32", n_proba))
    return Program(
        inputs=inputs(n_columns),
        input_dtype=dtype,
        steps=(*steps, best, scaled, proba),
        outputs={"label": Output("label"), "score": Output("sums"), "proba": Output("proba")},
        classes=tuple(range(n_proba)),
    )


def with_second_forest(program, rng, *, layout):
    """Return a forest program whose sums go on through a second forest."""
    position = next(k for k, step in enumerate(program.steps) if isinstance(step, ForestWalk))
    first, after = program.steps[position], program.steps[position + 1 :]
    source = program.buffers[first.inputs[0]]
    second = random_forest(rng, source, (4, 0, 9), first.output.size, layout=layout)
    second = second.replace(inputs=(source.name, "first"))
    first = first.replace(output=Buffer("first", "i32", first.output.size))
    return program.replace(steps=(*program.steps[:position], first, second, *after))


def linear_program(rng, *, dtype, n_columns, n_out, integer):
    """Return select or quantise -> dense -> best class (or sign) -> probabilities."""
    chosen = rng.permutation(n_columns)[: int(rng.integers(1, n_columns + 1))]
    n = len(chosen)
    if integer:
        identity = bool(rng.random() < 0.5)
        first = QuantizeInput(
            inputs=("x",),
            output=Buffer("q", "u8", n),
            columns=chosen,
            scale=np.ones(n, np.float32) if identity else rng.uniform(0.5, 40, n).astype(np.float32),
            offset=np.zeros(n, np.float32) if identity else rng.normal(size=n).astype(np.float32) * 30,
            largest=int(rng.choice([15, 127, 255])),
        )
        weight = rng.integers(-127, 128, size=(n, n_out)).astype(np.int8)
        bias = rng.integers(-(2**20), 2**20, size=n_out).astype(np.int32)
    else:
        first = Select(inputs=("x",), output=Buffer("q", INPUT_DTYPES[dtype], n), columns=chosen)
        weight = rng.normal(size=(n, n_out)).astype(np.float32)
        bias = rng.normal(size=n_out).astype(np.float32)
    dense = Dense(
        inputs=("q",),
        output=Buffer("scores", "i32" if integer else "f32", n_out),
        columns=np.arange(n),
        weight=weight,
        bias=bias,
    )
    label = (
        Positive(inputs=("scores",), output=Buffer("label", "u8", 1))
        if n_out == 1
        else ArgBest(inputs=("scores",), output=Buffer("label", "u8", 1), n_inputs=n_out)
    )
    scaled = Affine(
        inputs=("scores",),
        output=Buffer("scaled", "f32", max(n_out, 2)),
        scale=np.linspace(0, 1e-3, max(n_out, 2)).astype(np.float32),
        offset=np.zeros(max(n_out, 2), np.float32),
        broadcast=n_out == 1,
    )
    proba = Softmax(inputs=("scaled",), output=Buffer("proba", "f32", max(n_out, 2)))
    return Program(
        inputs=inputs(n_columns),
        input_dtype=dtype,
        steps=(first, dense, label, scaled, proba),
        outputs={"label": Output("label"), "score": Output("scores"), "proba": Output("proba")},
        classes=tuple(range(max(n_out, 2))),
    )
