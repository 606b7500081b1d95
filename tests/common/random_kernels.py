"""Random programs of gates and kernels: what the properties of their exported C are checked on."""

import numpy as np
from common.random_programs import inputs

from effml.program import Buffer, Output, Program
from effml.program.steps import (
    Affine,
    ArgBest,
    Dense,
    KernelRows,
    LiveWeights,
    Positive,
    Relu,
    Sigmoid,
    Softmax,
    SquaredDistances,
)


def dense(rng, source, name, n_in, n_out):
    return Dense(
        inputs=(source,),
        output=Buffer(name, "f32", n_out),
        columns=np.arange(n_in),
        weight=rng.normal(size=(n_in, n_out)).astype(np.float32),
        bias=rng.normal(size=n_out).astype(np.float32),
    )


def random_kernels(rng, n_columns, *, n_landmarks, groups, gaussians, powers, weights=None, side_by_side=False):
    """Return a KernelRows step on the buffer "z": in each group first Gaussian kernels, then powers."""
    columns = [np.sort(rng.permutation(n_columns)[: int(rng.integers(1, n_columns + 1))]) for _ in range(groups)]
    landmarks = rng.normal(size=(n_landmarks, n_columns)).astype(np.float32)
    norms = [(landmarks[:, part] ** 2).sum(axis=1) for part in columns]
    shapes = np.concatenate([rng.uniform(0.01, 2, gaussians), rng.choice([0.0, 1.0, 5.0], powers)])
    degrees = np.concatenate([np.zeros(gaussians), rng.integers(1, 5, powers)])
    factors = [1 / np.sqrt(np.maximum(norm + o, 1e-12)) for norm in norms for o in shapes[gaussians:]]
    n_kernels = groups * (gaussians + powers)
    return KernelRows(
        inputs=("z",) if weights is None else ("z", weights),
        output=Buffer("kernels", "f32", n_landmarks * (n_kernels if side_by_side else 1)),
        columns=np.concatenate(columns),
        column_start=np.cumsum([0, *(len(part) for part in columns)]),
        kernel_start=np.arange(groups + 1) * (gaussians + powers),
        shapes=np.tile(shapes, groups).astype(np.float32),
        degrees=np.tile(degrees, groups).astype(np.int32),
        landmarks=np.concatenate([landmarks[:, part].ravel() for part in columns]),
        norms=np.array(norms, dtype=np.float32),
        factors=np.array(factors, dtype=np.float32).reshape(-1, n_landmarks),
        weights=rng.uniform(0.1, 1, n_kernels).astype(np.float32) if weights is None else np.empty(0, np.float32),
        side_by_side=side_by_side,
    )


def kernel_program(
    rng, *, dtype, n_columns, n_landmarks=7, n_out=3, gate="softmax", groups=1, gaussians=2, powers=2, side=False
):
    """Return standardise -> gate -> kernels -> dense, relu, dense -> best class (or sign) and probabilities."""
    scale = {"float32": 1.0, "uint8": 0.02, "int16": 1e-4, "int32": 1e-9}[dtype]
    z = Affine(
        inputs=("x",),
        output=Buffer("z", "f32", n_columns),
        scale=np.full(n_columns, scale, np.float32),
        offset=rng.normal(size=n_columns).astype(np.float32),
    )
    steps, n_kernels = [z], groups * (gaussians + powers)
    if gate == "rbf":
        centres = rng.normal(size=(n_kernels, n_columns)).astype(np.float32)
        widths = -rng.uniform(0.1, 1, n_kernels).astype(np.float32)
        steps.append(
            SquaredDistances(inputs=("z",), output=Buffer("logit", "f32", n_kernels), centres=centres, scale=widths)
        )
    elif gate != "constant":
        steps.append(dense(rng, "z", "logit", n_columns, n_kernels))
    if gate != "constant":
        step = Sigmoid if gate == "sigmoid" else Softmax
        steps.append(step(inputs=("logit",), output=Buffer("gate", "f32", n_kernels)))
        live = {"smallest": 0.1, "normalize": gate != "sigmoid"}
        steps.append(LiveWeights(inputs=("gate",), output=Buffer("weight", "f32", n_kernels), **live))
    weights = None if gate == "constant" else "weight"
    shape = {"n_landmarks": n_landmarks, "groups": groups, "gaussians": gaussians, "powers": powers}
    kernels = random_kernels(rng, n_columns, weights=weights, side_by_side=side, **shape)
    hidden = int(rng.integers(1, 6))
    steps += [kernels, dense(rng, "kernels", "first", kernels.output.size, hidden)]
    steps.append(Relu(inputs=("first",), output=Buffer("hidden", "f32", hidden)))
    steps.append(dense(rng, "hidden", "scores", hidden, n_out))
    if n_out == 1:
        steps.append(Positive(inputs=("scores",), output=Buffer("label", "u8", 1)))
    else:
        steps.append(ArgBest(inputs=("scores",), output=Buffer("label", "u8", 1), n_inputs=n_out))
    n_classes = max(n_out, 2)
    pair = Affine(
        inputs=("scores",),
        output=Buffer("pair", "f32", n_classes),
        scale=np.linspace(0, 1, n_classes).astype(np.float32),
        offset=np.zeros(n_classes, np.float32),
        broadcast=n_out == 1,
    )
    steps += [pair, Softmax(inputs=("pair",), output=Buffer("proba", "f32", n_classes))]
    return Program(
        inputs=inputs(n_columns),
        input_dtype=dtype,
        steps=tuple(steps),
        outputs={"label": Output("label"), "score": Output("scores"), "proba": Output("proba")},
        classes=tuple(range(n_classes)),
    )
