"""Random programs of quantised models with states and tables, on which properties of their exported C are checked."""

import numpy as np
from common.random_networks import packed_dense, random_activation
from common.random_programs import inputs, random_bin, random_lookup

from effml.program import Buffer, Output, Program
from effml.program.steps import Affine, ArgBest, Exp, LookupEach, MultiplyInput, Positive, QuantizeInput, WeightedAdd


def elementwise_program(
    rng, *, dtype, n_columns, n_out, n_bits, n_entries=256, with_numbers=True, with_bias=True, link=Exp
):
    """Return numbers times weights and tables of states -> sum -> level -> table -> product -> best class and a link.

    Parameters
    ----------
    n_bits : int
        Of weights and tables.
    n_entries : int
        Of the table of the levels.
    with_numbers : bool
        Whether numbers are read at all, beside the states.
    link : {Exp, LogisticShares}
    """
    binned = random_bin(rng, n_columns, dtype, plain=True)
    states = np.array([len(part[3]) + 1 for part in binned.parts()], dtype=np.int64)
    width = int(rng.integers(1, 20))
    layout = "byte" if n_bits == 8 else "dense"
    tables = random_lookup(rng, states, width, n_bits=n_bits, layout=layout, start=False, every=True)
    steps, parts, shifts = [binned, tables], ["scores"], [int(rng.integers(0, 12))]
    if with_numbers:
        steps.append(_numbers(rng, n_columns))
        steps.append(packed_dense(rng, steps[-1], "product", n_columns, width, n_bits, 0, ""))
        parts, shifts = ["product", "scores"], [int(rng.choice([0, 3])), *shifts]
    bias = rng.integers(-(2**20), 2**20, width if with_bias else 0).astype(np.int32)
    total = Buffer("sum", "i32", width)
    steps.append(WeightedAdd(inputs=tuple(parts), output=total, shifts=tuple(shifts), bias=bias))
    steps.append(random_activation(rng, "narrow", total, "level", width).replace(largest=255, shift=12))
    table = rng.integers(0, 256, n_entries).astype(np.uint8)
    steps.append(LookupEach(inputs=("level",), output=Buffer("hidden", "u8", width), table=table))
    steps.append(packed_dense(rng, steps[-1], "last", width, n_out, n_bits, 0, ""))
    best = Positive if n_out == 1 else ArgBest
    fields = {} if n_out == 1 else {"n_inputs": n_out}
    steps.append(best(inputs=("last",), output=Buffer("label", "u8", 1), **fields))
    scale = np.full(n_out, (10.0 if link is Exp else 1000.0) / (width * 255 * 2**n_bits), dtype=np.float32)
    fields = {"scale": scale, "offset": rng.normal(size=n_out).astype(np.float32)}
    steps.append(Affine(inputs=("last",), output=Buffer("scaled", "f32", n_out), **fields))
    steps.append(link(inputs=("scaled",), output=Buffer("rate", "f32", n_out)))
    return Program(
        inputs=inputs(n_columns),
        input_dtype=dtype,
        steps=tuple(steps),
        outputs={"label": Output("label"), "proba": Output("rate")},
        classes=tuple(range(max(n_out, 2))),
    )


def _numbers(rng, n):
    columns, target = rng.permutation(n) if rng.random() < 0.5 else np.arange(n), Buffer("q", "u8", n)
    if rng.random() < 0.5:
        largest, factor = int(rng.choice([15, 255])), rng.integers(1, 256, n).astype(np.uint8)
        return MultiplyInput(inputs=("x",), output=target, columns=columns, factor=factor, largest=largest)
    return QuantizeInput(
        inputs=("x",),
        output=target,
        columns=columns,
        scale=rng.uniform(0.5, 40, n).astype(np.float32),
        offset=rng.normal(size=n).astype(np.float32) * 30,
        largest=255,
    )
