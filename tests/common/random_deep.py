"""Random programs of lowered deep networks: convolutions of every kind, pooling, joints, sums and recurrent loops."""

import numpy as np
from common.random_networks import codes_of, packed_dense, random_bias
from common.random_programs import inputs

from effml.program import Buffer, Output, Program
from effml.program.steps import (
    Affine,
    ArgBest,
    Clip,
    Combine,
    Conv,
    Dense,
    GatedSum,
    Join,
    Loop,
    Normalise,
    PackedConv,
    PackedDense,
    Pieces,
    Pool,
    QuantizeInput,
    Requantise,
    Softmax,
)


def deep_programs(rng, dtype):
    """Yield one program of each kind here."""
    for is_float in (False, True):
        for _ in range(2):
            yield image_program(rng, dtype=dtype, is_float=is_float, **random_convolution(rng))
    for spread in ("", "std", "mad"):
        yield recurrent_program(rng, dtype=dtype, spread=spread)
    yield image_program(rng, dtype=dtype, is_float=False, short=True, **random_convolution(rng))
    yield recurrent_program(rng, dtype=dtype, spread="", short=True)


def random_convolution(rng):
    """Return the fields of a convolution: odd sizes, strides, paddings, dilations and groups."""
    kernel = tuple(int(side) for side in rng.integers(1, 4, 2))
    dilation = tuple(int(step) for step in rng.integers(1, 3, 2))
    padding = tuple(int(side) for side in rng.integers(0, 3, 4)) if rng.random() < 0.7 else (0, 0, 0, 0)
    groups = int(rng.choice([1, 1, 2, 3]))
    sides = [dilation[k] * (kernel[k] - 1) + 1 + int(rng.integers(0, 7)) for k in (0, 1)]
    return {
        "image_shape": (*sides, groups * int(rng.integers(1, 3))),
        "kernel": kernel,
        "stride": tuple(int(step) for step in rng.integers(1, 4, 2)),
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "pool": int(rng.choice([1, 1, 2])),
    }


def quantised_row(rng, n, largest=255):
    return QuantizeInput(
        inputs=("x",),
        output=Buffer("q", "u8", n),
        columns=np.arange(n),
        scale=rng.uniform(0.5, 40, n).astype(np.float32),
        offset=rng.normal(size=n).astype(np.float32) * 30,
        largest=largest,
    )


def random_levels(rng, n_bits, n_out):
    """Return no levels, levels of all outputs or levels of each."""
    kind = rng.integers(3)
    if kind == 0:
        return None
    return rng.integers(-3000, 3000, (1 if kind == 1 else n_out, 2**n_bits)).astype(np.int16)


def requantised(rng, source, name, size, n, *, factors=1, wide=None):
    """Return a Requantise to u8 of the buffers named in `source`."""
    wide = bool(rng.random() < 0.5) if wide is None else wide
    factor = random_bias(rng, (factors, n), 2**28 if wide else 2**9)
    return Requantise(
        inputs=source,
        output=Buffer(name, "u8", size),
        factor=factor[0] if factors == 1 else factor,
        offset=random_bias(rng, n),
        shift=int(rng.choice([5, 20, 30]) if wide else rng.choice([0, 5, 12])),
        largest=255,
        wide=wide,
    )


def image_program(rng, *, dtype, is_float, image_shape, short=False, **fields):
    """Return input -> convolution -> pooling, beside a plain pooling -> joint -> sum with itself -> dense -> class.

    With `short` much of it is left out.
    """
    n = int(np.prod(image_shape))
    n_filters = fields["groups"] * int(rng.integers(1, 4))
    n_taps = fields["kernel"][0] * fields["kernel"][1] * image_shape[2] // fields["groups"]
    make = _float_images if is_float else _integer_images
    steps = make(rng, n, {"image_shape": image_shape, **fields}, n_taps, n_filters, short)
    n_hidden = steps[-1].output.size
    if is_float:
        last = Dense(
            inputs=(steps[-1].output.name,),
            output=Buffer("scores", "f32", 4),
            columns=np.arange(n_hidden),
            weight=rng.normal(size=(n_hidden, 4)).astype(np.float32),
            bias=rng.normal(size=4).astype(np.float32),
        )
    else:
        n_bits = int(rng.integers(1, 9))
        levels = random_levels(rng, n_bits, 4)
        fields = {"bias": random_bias(rng, 4), "levels": levels}
        last = packed_dense(rng, steps[-1], "scores", n_hidden, 4, n_bits, 9, "", **fields)
    return _with_outputs([*steps, last], n, dtype)


def _pool(rng, source, name, shape, dtype, *, mode):
    window = tuple(int(min(side, w)) for side, w in zip(shape[:2], rng.integers(1, 4, 2), strict=True))
    padding = tuple(int(rng.integers(0, w)) for w in (*window, *window)) if rng.random() < 0.5 else (0, 0, 0, 0)
    stride = tuple(int(s) for s in rng.integers(1, 3, 2))
    fill = int(rng.choice([-1, 0, 7])) if mode != "largest" and dtype != "f32" else int(rng.choice([-1, 0]))
    fields = {"image_shape": shape, "window": window, "stride": stride, "padding": padding, "mode": mode, "fill": fill}
    size = int(np.prod(Pool(inputs=(), output=Buffer(name, dtype, 1), **fields).out_shape))
    return Pool(inputs=(source,), output=Buffer(name, dtype, size), **fields)


def _integer_images(rng, n, fields, n_taps, n_filters, short):
    n_bits = int(rng.integers(1, 9))
    levels = random_levels(rng, n_bits, n_filters)
    fields |= {"n_bits": n_bits, "zero_point": int(rng.choice([0, 128])), "levels": levels}
    fields["codes"] = codes_of(rng, n_taps, n_filters, n_bits)
    shape = PackedConv(inputs=(), output=Buffer("sum", "i32", 1), **fields).out_shape
    conv = PackedConv(inputs=("q",), output=Buffer("sum", "i32", int(np.prod(shape))), **fields)
    level = requantised(rng, ("sum",), "level", conv.output.size, n_filters)
    pool = _pool(rng, "level", "pool", shape, "u8", mode=str(rng.choice(["largest", "mean"])))
    total = _pool(rng, "q", "total", fields["image_shape"], "i32", mode="sum")
    n_channels = fields["image_shape"][2]
    other = requantised(rng, ("total",), "other", total.output.size, n_channels, wide=False)
    m = pool.output.size + other.output.size
    if short:
        if rng.random() < 0.5:
            conv, level = conv.replace(output=level.output, requantise=level), None
        return [quantised_row(rng, n), conv, *([level] if level else []), *([pool] if rng.random() < 0.5 else [])]
    join = Join(inputs=("pool", "other"), output=Buffer("join", "u8", m), sizes=(pool.output.size, other.output.size))
    both = requantised(rng, ("join", "join"), "both", m, 1, factors=2, wide=bool(rng.random() < 0.3))
    return [quantised_row(rng, n), conv, level, pool, total, other, join, both]


def _float_images(rng, n, fields, n_taps, n_filters, short):
    weight = rng.normal(size=(n_taps, n_filters)).astype(np.float32)
    fields |= {"weight": weight, "bias": rng.normal(size=n_filters).astype(np.float32)}
    shape = Conv(inputs=(), output=Buffer("sum", "f32", 1), **fields).out_shape
    size = int(np.prod(shape))
    conv = Conv(inputs=("x",), output=Buffer("sum", "f32", size), **fields)
    clip = Clip(inputs=("sum",), output=Buffer("clip", "f32", size), low=-0.3, high=2.5)
    product = Combine(inputs=("sum", "clip"), output=Buffer("product", "f32", size), multiply=True)
    total = Combine(inputs=("product", "clip"), output=Buffer("total", "f32", size))
    if short:
        chosen = rng.choice(3)
        pool = _pool(rng, "sum", "pool", shape, "f32", mode=str(rng.choice(["largest", "mean"])))
        return [conv, *([clip] if chosen == 1 else [pool] if chosen else [])]
    pools = [_pool(rng, "total", f"pool{k}", shape, "f32", mode=("largest", "mean")[k]) for k in (0, 1)]
    sizes = tuple(pool.output.size // shape[2] for pool in pools)
    if len(set(sizes)) == 1:  # pixel by pixel
        sizes = (shape[2], shape[2])
    else:
        sizes = tuple(pool.output.size for pool in pools)
    join = Join(inputs=("pool0", "pool1"), output=Buffer("join", "f32", sum(p.output.size for p in pools)), sizes=sizes)
    return [conv, clip, product, total, *pools, join]


def recurrent_program(rng, *, dtype, spread, short=False):
    """Return input -> loop of an LSTM in integers -> dense -> class; with `spread` its sums are normalised.

    With `short` the body has no gates: the products are added and requantised, or go through a curve.
    """
    n_turns, width, n_hidden = int(rng.integers(1, 7)), int(rng.integers(1, 6)), int(rng.integers(1, 9))
    collect, reverse = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    n_bits = int(rng.integers(2, 9))
    body = (_simple_body if short else _lstm_body)(rng, width, n_hidden, n_bits, spread)
    n_out = n_hidden * (n_turns if collect else 1)
    loop = Loop(
        inputs=("q",),
        output=Buffer("hidden", "i8", n_out),
        body=body,
        element=Buffer("part", "u8", width),
        carries=(Buffer("h", "i8", n_hidden), Buffer("c", "i16", n_hidden))[: 2 - short],
        starts=(3, 0)[: 2 - short],
        successors=("h_next", "c_next")[: 2 - short],
        n=n_turns,
        result="h_next",
        collect=collect,
        reverse=reverse,
    )
    last = packed_dense(rng, loop, "scores", n_out, 4, n_bits, 0, "")
    return _with_outputs([quantised_row(rng, n_turns * width), loop, last], n_turns * width, dtype)


def _simple_body(rng, width, n_hidden, n_bits, spread):
    n = n_hidden
    fields = {"n_bits": n_bits, "bias": np.empty(0, np.int32), "codes": codes_of(rng, width, n, n_bits)}
    read = PackedDense(inputs=("part",), output=Buffer("read", "i32", n), zero_point=7, **fields)
    if not spread and rng.random() < 0.5:
        added = _to_shorts(rng, ("read", "h"), "sums", n)
        return read, added, _pieces(rng, "h_next", "i8", n, 0, -127, 127)
    scaled = _to_shorts(rng, ("read",), "scaled", n)
    if not spread:
        return read, scaled, _to_shorts(rng, ("scaled", "h"), "h_next", n, "i8")
    given = {"gain": random_bias(rng, n, 2**12), "offset": random_bias(rng, n, 2**20), "shift": 10, "spread": spread}
    normal = Normalise(inputs=("scaled",), output=Buffer("normal", "i16", n), largest=32767, **given)
    return read, scaled, normal, _to_shorts(rng, ("normal", "h"), "h_next", n, "i8")


def _lstm_body(rng, width, n_hidden, n_bits, spread):
    n = 4 * n_hidden
    bias = np.empty(0, np.int32)
    common = {"n_bits": n_bits, "bias": bias}
    read = PackedDense(
        inputs=("part",), output=Buffer("read", "i32", n), codes=codes_of(rng, width, n, n_bits), zero_point=7, **common
    )
    kept = PackedDense(
        inputs=("h",), output=Buffer("kept", "i32", n), codes=codes_of(rng, n_hidden, n, n_bits), **common
    )
    steps, names = [read, kept], ("read", "kept")
    if spread:
        for name in ("read", "kept"):
            scaled = _to_shorts(rng, (name,), f"{name}_scaled", n)
            normal = Normalise(
                inputs=(f"{name}_scaled",),
                output=Buffer(f"{name}_normal", "i16", n),
                gain=random_bias(rng, n, 2**12),
                offset=random_bias(rng, n, 2**20),
                shift=10,
                largest=32767,
                spread=spread,
            )
            steps += [scaled, normal]
        names = ("read_normal", "kept_normal")
    steps.append(_to_shorts(rng, names, "sums", n))
    steps.append(_pieces(rng, "gates", "u8", 3 * n_hidden, 0, 0, 255))
    steps.append(_pieces(rng, "new", "i8", n_hidden, 3 * n_hidden, -127, 127))
    fields = {"offset": 1 << 23, "shift": 24}
    limits = {"largest": 32767, "lowest": -32767}
    cell = Buffer("c_next", "i16", n_hidden)
    starts = (n_hidden, 0, 0, 0)
    memory = GatedSum(
        inputs=("gates", "c", "gates", "new"), output=cell, starts=starts, factors=(66_000, 900_000), **fields, **limits
    )
    steps += [memory, _pieces(rng, "bent", "i8", n_hidden, 0, -127, 127, source="c_next")]
    hidden = Buffer("h_next", "i8", n_hidden)
    limits = {"largest": 127, "lowest": -127}
    steps.append(
        GatedSum(
            inputs=("gates", "bent"), output=hidden, starts=(2 * n_hidden, 0), factors=(66_000,), **fields, **limits
        )
    )
    return tuple(steps)


def _to_shorts(rng, names, hint, n, dtype="i16"):
    wide = bool(rng.random() < 0.5)
    factor = random_bias(rng, (len(names), n), 2**28 if wide else 2**6)
    return Requantise(
        inputs=names,
        output=Buffer(hint, dtype, n),
        factor=factor if len(names) > 1 else factor[0],
        offset=random_bias(rng, n),
        shift=24 if wide else 2,
        largest=32767 if dtype == "i16" else 127,
        lowest=-32767 if dtype == "i16" else -127,
        wide=wide,
    )


def _pieces(rng, name, dtype, n, first, lowest, largest, source="sums"):
    m = int(rng.integers(1, 20))
    limits = np.sort(rng.choice(np.arange(-20000, 20000), m - 1, replace=False)).astype(np.int16)
    return Pieces(
        inputs=(source,),
        output=Buffer(name, dtype, n),
        limits=limits,
        slope=rng.integers(-20000, 20000, m).astype(np.int16),
        intercept=rng.integers(-(2**28), 2**28, m).astype(np.int32),
        shift=20,
        largest=largest,
        lowest=lowest,
        first=first,
    )


def _with_outputs(steps, n_columns, dtype):
    steps.append(ArgBest(inputs=("scores",), output=Buffer("label", "u8", 1), n_inputs=4))
    scaled = Affine(
        inputs=("scores",),
        output=Buffer("scaled", "f32", 4),
        scale=np.linspace(1e-5, 1e-4, 4).astype(np.float32),
        offset=np.zeros(4, np.float32),
    )
    steps += [scaled, Softmax(inputs=("scaled",), output=Buffer("proba", "f32", 4))]
    return Program(
        inputs=inputs(n_columns),
        input_dtype=dtype,
        steps=tuple(steps),
        outputs={"label": Output("label"), "score": Output("scores"), "proba": Output("proba")},
        classes=tuple(range(4)),
    )
