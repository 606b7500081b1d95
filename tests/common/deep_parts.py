"""Small programs with and without one step of a lowered torch module: what the step's code weighs."""

import numpy as np
from common.random_deep import _pieces, _to_shorts, requantised
from common.random_networks import codes_of
from common.random_programs import inputs

from effml.program import Buffer, Output, Program
from effml.program.steps import (
    Clip,
    Combine,
    Conv,
    GatedSum,
    Join,
    Loop,
    Normalise,
    PackedConv,
    PackedDense,
    Pool,
    QuantizeInput,
    Select,
)

SHAPE = (8, 7, 4)
N = int(np.prod(SHAPE))


def parts(rng):
    """Yield (key of the code table, program with the step, program without)."""
    first = QuantizeInput(
        inputs=("x",),
        output=Buffer("q", "u8", N),
        columns=np.arange(N),
        scale=np.ones(N, np.float32),
        offset=np.zeros(N, np.float32),
        largest=255,
    )
    yield from _images(rng, first)
    yield from _integers(rng, first)
    yield from _floats(rng)


def _program(steps, dtype="uint8"):
    value = steps[-1].output.name
    return Program(inputs=inputs(N), input_dtype=dtype, steps=tuple(steps), outputs={"value": Output(value)})


def _images(rng, first):
    for mode, dtype in (("largest", "u8"), ("mean", "u8"), ("sum", "i32")):
        fields = {"image_shape": SHAPE, "window": (2, 2), "stride": (2, 2), "mode": mode, "fill": 0}
        pool = Pool(inputs=("q",), output=Buffer("pool", dtype, 4 * 3 * 4), **fields)
        yield ("pool", mode), _program([first, pool]), _program([first])
    for shape, n_bits in (("byte", 8), ("even", 4), ("odd", 3)):
        conv = _conv(rng, n_bits)
        yield ("packed_conv", f"{shape}_unpooled"), _program([first, conv]), _program([first])
    levels = rng.integers(-300, 300, (1, 16)).astype(np.int16)
    yield ("packed_conv", "levels"), _program([first, _conv(rng, 4, levels=levels)]), _program([first, _conv(rng, 4)])
    yield ("packed_conv", "groups"), _program([first, _conv(rng, 4, groups=2)]), _program([first, _conv(rng, 4)])
    conv, level = _conv(rng, 4), requantised(rng, ("sum",), "level", 8 * 7 * 6, 6, wide=False)
    held = conv.replace(output=level.output, requantise=level)
    yield ("packed_conv", "requantise"), _program([first, held]), _program([first, conv])
    dense = _dense(rng, None)
    yield ("packed_dense", "levels"), _program([first, _dense(rng, levels)]), _program([first, dense])


def _conv(rng, n_bits, groups=1, levels=None):
    fields = {"image_shape": SHAPE, "pool": 1, "n_bits": n_bits, "zero_point": 3, "groups": groups, "levels": levels}
    codes = codes_of(rng, 9 * SHAPE[2] // groups, 6, n_bits)
    return PackedConv(inputs=("q",), output=Buffer("sum", "i32", 8 * 7 * 6), codes=codes, **fields)


def _dense(rng, levels):
    fields = {"codes": codes_of(rng, N, 6, 4), "n_bits": 4, "bias": np.empty(0, np.int32), "levels": levels}
    return PackedDense(inputs=("q",), output=Buffer("sum", "i32", 6), **fields)


def _integers(rng, first):
    plain = requantised(rng, ("q",), "level", N, 4, wide=False)
    more = requantised(rng, ("q", "q"), "level", N, 4, factors=2, wide=False)
    yield ("requantise", "more"), _program([first, more]), _program([first, plain])
    signed = plain.replace(output=Buffer("level", "i8", N), lowest=-128, largest=127)
    yield ("requantise", "signed"), _program([first, signed]), _program([first, plain])
    join = Join(inputs=("q", "q"), output=Buffer("join", "u8", 2 * N), sizes=(4, 4))
    once = Join(inputs=("q",), output=Buffer("join", "u8", N), sizes=(N,))
    yield ("join", ""), _program([first, once]), _program([first])
    yield ("join", "and another input"), _program([first, join]), _program([first, once])
    shorts = _to_shorts(rng, ("q",), "sums", N)
    yield ("pieces", ""), _program([first, shorts, _many(rng)]), _program([first, shorts])
    one, two = (_gated(pairs) for pairs in (1, 2))
    yield ("gated_sum", ""), _program([first, one]), _program([first])
    yield ("gated_sum", "and another pair"), _program([first, two]), _program([first, one])
    yield from _norms(rng, first, shorts)
    one, two = (_loop(rng, n) for n in (1, 2))
    inside = list(one.body)
    inside = [inside[0].replace(inputs=("q",), output=Buffer("next", "u8", 8)), *inside[1:]]
    yield ("loop", "and one carry"), _program([first, one]), _program([first, *inside])
    yield ("loop", "and another carry, with a requantisation"), _program([first, two]), _program([first, one])


def _many(rng):
    step = _pieces(rng, "bent", "u8", N, 0, 0, 255)
    limits = np.linspace(-9000, 9000, 15).astype(np.int16)
    fields = {"slope": rng.integers(-20000, 20000, 16).astype(np.int16)}
    return step.replace(limits=limits, intercept=rng.integers(0, 2**28, 16).astype(np.int32), **fields)


def _gated(pairs):
    fields = {"offset": 1 << 23, "shift": 24, "largest": 127, "lowest": -127}
    names, starts = ("q",) * 2 * pairs, (0, 1, 2, 3)[: 2 * pairs]
    return GatedSum(
        inputs=names, output=Buffer("gated", "i8", N - 4), starts=starts, factors=(66_000, 90_000)[:pairs], **fields
    )


def _norms(rng, first, shorts):
    for spread in ("mad", "std"):
        fields = {"gain": rng.integers(1, 4000, N).astype(np.int32), "offset": np.full(N, 512, np.int32), "shift": 10}
        norm = Normalise(inputs=("sums",), output=Buffer("n", "i16", N), largest=32767, spread=spread, **fields)
        yield ("normalise", spread), _program([first, shorts, norm]), _program([first, shorts])


def _loop(rng, n_carries):
    carries = (Buffer("state", "u8", 8), Buffer("other", "u8", 8))[:n_carries]
    step = requantised(rng, ("state",), "next", 8, 4, wide=False)
    last = requantised(rng, ("other",), "after", 8, 4, wide=False) if n_carries > 1 else None
    return Loop(
        inputs=("q",),
        output=Buffer("out", "u8", 8),
        body=(step,) if last is None else (step, last),
        element=Buffer("part", "u8", N // 8),
        carries=carries,
        starts=(1, 2)[:n_carries],
        successors=("next", "after")[:n_carries],
        n=8,
        result="next",
    )


def _floats(rng):
    start = Select(inputs=("x",), output=Buffer("q", "f32", N), columns=np.arange(N)[::-1].copy())
    clip = Clip(inputs=("q",), output=Buffer("clip", "f32", N), low=-1.0, high=2.0)
    yield ("clip", ""), _program([start, clip], "float32"), _program([start], "float32")
    both = Combine(inputs=("q", "q"), output=Buffer("both", "f32", N))
    yield ("combine", ""), _program([start, both], "float32"), _program([start], "float32")
    convs = []
    for groups in (1, 2):
        weight, bias = (rng.normal(size=size).astype(np.float32) for size in ((36 // groups, 6), 6))
        fields = {"image_shape": SHAPE, "pool": 1, "groups": groups, "weight": weight, "bias": bias}
        convs.append(Conv(inputs=("q",), output=Buffer("sum", "f32", 8 * 7 * 6), **fields))
    yield ("conv", "unpooled"), _program([start, convs[0]], "float32"), _program([start], "float32")
    yield ("conv", "groups"), _program([start, convs[1]], "float32"), _program([start, convs[0]], "float32")
