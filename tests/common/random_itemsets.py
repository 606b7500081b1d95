"""Random programs of itemsets, linear columns and error bars: what the properties of exported C are checked on."""

import numpy as np
from common.random_programs import inputs, random_bin

from effml.program import Buffer, Output, Program
from effml.program.buffers import smallest_unsigned
from effml.program.steps import (
    Affine,
    ArgBest,
    ClippedAffine,
    Dense,
    ItemsetMatch,
    LookupSum,
    Positive,
    Softmax,
    SquareRoot,
    SumSquares,
)


def random_itemsets(rng, n_columns, n_itemsets, *, mask_bits=8, largest=3):
    """Return an ItemsetMatch on the buffer "code" with 1 to `largest` conditions an itemset."""
    sizes = rng.integers(1, min(largest, n_columns) + 1, size=n_itemsets)
    columns = np.concatenate([rng.permutation(n_columns)[:size] for size in sizes])
    masks = rng.integers(1, 2**mask_bits, size=len(columns), dtype=np.uint64).astype(np.uint32)
    masks[0] |= np.uint32(1) << np.uint32(mask_bits - 1)
    return ItemsetMatch(
        inputs=("code",), output=Buffer("miss", "u8", n_itemsets), columns=columns, masks=masks, sizes=sizes
    )


def random_linear(rng, n_columns, n_linear, dtype):
    """Return a ClippedAffine on the raw row, ranges beside and across the values that it takes."""
    width = {"float32": 2.0, "uint8": 200.0, "int16": 3e4, "int32": 2e9}[dtype]
    return ClippedAffine(
        inputs=("x",),
        output=Buffer("z", "f32", n_linear),
        columns=rng.integers(0, n_columns, size=n_linear),
        low=(width * rng.normal(0, 0.3, n_linear)).astype(np.float32),
        inverse=(rng.uniform(0.5, 3, n_linear) / width).astype(np.float32),
        fill=rng.random(n_linear).astype(np.float32),
    )


def itemset_program(
    rng, *, dtype, n_columns, n_itemsets=9, n_linear=2, n_out=1, mask_bits=8, max_cuts=6, plain=False, integer=False
):
    """Return bin -> itemsets -> sums beside linear columns -> label; squares -> root -> probabilities, deviation."""
    steps = [random_bin(rng, n_columns, dtype, max_cuts=max_cuts, plain=plain)]
    steps.append(random_itemsets(rng, n_columns, n_itemsets, mask_bits=mask_bits))
    if integer:
        weight = rng.integers(-127, 128, size=(n_itemsets, n_out)).astype(np.int8)
        bias = rng.integers(-1000, 1000, size=n_out).astype(np.int32)
        fields = {"columns": np.arange(n_itemsets), "weight": weight, "bias": bias}
        steps.append(Dense(inputs=("miss",), output=Buffer("sums", "i32", n_out), **fields))
        scale, offset = np.full(n_out, 0.01, np.float32), np.zeros(n_out, np.float32)
        steps.append(Affine(inputs=("sums",), output=Buffer("matches", "f32", n_out), scale=scale, offset=offset))
    else:
        steps.append(
            LookupSum(
                inputs=("miss",),
                output=Buffer("matches", "f32", n_out),
                columns=np.arange(n_itemsets),
                states=np.ones(n_itemsets, dtype=np.int64),
                parents=np.full(n_itemsets, -1),
                table=rng.normal(size=(n_itemsets, n_out)).astype(np.float32),
                start=None if n_linear else rng.normal(size=n_out).astype(np.float32),
                n_bits=32,
                layout="float",
            )
        )
    scores = "matches"
    if n_linear:
        scores = "scores"
        steps.append(random_linear(rng, n_columns, n_linear, dtype))
        weight = rng.normal(size=(n_linear, n_out)).astype(np.float32)
        fields = {"columns": np.arange(n_linear), "weight": weight, "bias": rng.normal(size=n_out).astype(np.float32)}
        steps.append(Dense(inputs=("z", "matches"), output=Buffer("scores", "f32", n_out), **fields))
    start = {"n_inputs": n_out, "start": np.float32([0.1])}
    steps.append(SumSquares(inputs=(scores,), output=Buffer("variance", "f32", 1), **start))
    steps.append(SquareRoot(inputs=("variance",), output=Buffer("std", "f32", 1)))
    label = Buffer("label", smallest_unsigned(max(n_out - 1, 1)), 1)
    best = Positive(inputs=(scores,), output=label)
    steps.append(best if n_out == 1 else ArgBest(inputs=(scores,), output=label, n_inputs=n_out))
    n_classes = max(n_out, 2)
    scale, offset = np.linspace(0, 1, n_classes).astype(np.float32), np.zeros(n_classes, np.float32)
    pair = {"scale": scale, "offset": offset, "broadcast": True}
    steps.append(Affine(inputs=("std",), output=Buffer("pair", "f32", n_classes), **pair))
    steps.append(Softmax(inputs=("pair",), output=Buffer("proba", "f32", n_classes)))
    names = {"label": "label", "score": scores, "proba": "proba", "std": "std", "variance": "variance"}
    return Program(
        inputs=inputs(n_columns),
        input_dtype=dtype,
        steps=tuple(steps),
        outputs={name: Output(buffer) for name, buffer in names.items()},
        classes=tuple(range(n_classes)),
    )
