"""Random programs of low-bit networks: what the properties of their exported C are checked on."""

import numpy as np
from common.random_programs import inputs

from effml.program import Buffer, Output, Program
from effml.program.buffers import DTYPES
from effml.program.steps import (
    Affine,
    ArgBest,
    Conv,
    Dense,
    PackedConv,
    PackedDense,
    Positive,
    QuantizeInput,
    Relu,
    Requantise,
    Softmax,
    Threshold,
)
from effml.program.steps.packing import n_words


def codes_of(rng, n_in, n_out, n_bits):
    return rng.integers(0, 2**n_bits, (n_in, n_out)).astype(np.uint8)


def random_bias(rng, n, largest=2**20):
    return rng.integers(-largest, largest, n).astype(np.int32)


def random_activation(rng, kind, source, name, n):
    """Return a step behind the integer buffer `source` of n channels or neurons: signs, packed signs or levels."""
    size, n_values = source.size, n if rng.random() < 0.8 else 1
    if kind in ("i8", "u8", "u16", "u32"):
        packed = kind != "i8"
        buffer = Buffer(name, kind, n_words(size, kind) if packed else size)
        threshold = np.full(n, 3, np.int32) if n_values == 1 else random_bias(rng, n, 300)
        return Threshold(inputs=(source.name,), output=buffer, threshold=threshold, n_inputs=size, packed=packed)
    wide, plain = kind == "wide", kind == "shift"
    factor = np.ones(n_values, np.int32) if plain else random_bias(rng, n_values, 2**30 if wide else 2**10)
    return Requantise(
        inputs=(source.name,),
        output=Buffer(name, "i16" if wide else "u8", size),
        factor=factor,
        offset=random_bias(rng, n_values),
        shift=int(rng.choice([0, 5, 12, 20])),
        largest=32767 if wide else int(rng.choice([1, 15, 255])),
        wide=wide,
    )


def network_program(rng, *, dtype, n_columns, n_out, n_bits, activations=("wide",), image_shape=None):
    """Return quantised input -> (product -> activation)* -> product -> best class (or sign) and probabilities.

    With `image_shape` all products but the last are convolutions.
    """
    n_columns = n_columns if image_shape is None else int(np.prod(image_shape))
    identity = bool(rng.random() < 0.5)
    first = QuantizeInput(
        inputs=("x",),
        output=Buffer("q", "u8", n_columns),
        columns=np.arange(n_columns),
        scale=np.ones(n_columns, np.float32) if identity else rng.uniform(0.5, 40, n_columns).astype(np.float32),
        offset=np.zeros(n_columns, np.float32) if identity else rng.normal(size=n_columns).astype(np.float32) * 30,
        largest=255,
    )
    steps, zero_point, packed, n, shape = [first], 128, "", n_columns, image_shape
    for number, kind in enumerate(activations):
        width = int(rng.integers(1, 70 if shape is None else 5))
        if shape is None:
            product = packed_dense(rng, steps[-1], f"sum{number}", n, width, n_bits, zero_point, packed)
        else:
            product = packed_conv(rng, steps[-1], f"sum{number}", shape, width, n_bits, zero_point)
            shape = product.out_shape
        steps += [product, random_activation(rng, kind, product.output, f"level{number}", width)]
        n, zero_point, packed = product.output.size, 0, kind if kind in ("u8", "u16", "u32") else ""
    bias = random_bias(rng, n_out) if rng.random() < 0.8 else np.empty(0, np.int32)
    steps.append(packed_dense(rng, steps[-1], "scores", n, n_out, n_bits, zero_point, packed, bias=bias, shift=4))
    return _with_outputs(rng, steps, n_columns, n_out, dtype)


def float_images_program(rng, *, dtype, n_out, image_shape):
    """Return float convolution -> relu -> convolution -> signs -> dense -> best class and probabilities."""

    def conv(source, name, shape, n):
        weight = rng.normal(size=(9 * shape[2], n)).astype(np.float32)
        bias = rng.normal(size=n).astype(np.float32)
        fields = {"image_shape": shape, "weight": weight, "bias": bias}
        size = Conv(inputs=(), output=Buffer(name, "f32", 1), **fields).out_shape
        return Conv(inputs=(source,), output=Buffer(name, "f32", int(np.prod(size))), **fields)

    first = conv("x", "first", image_shape, 3)
    relu = Relu(inputs=("first",), output=Buffer("relu", "f32", first.output.size))
    second = conv("relu", "second", first.out_shape, 2)
    n = second.output.size
    zero = np.zeros(2, np.float32)
    signs = Threshold(inputs=("second",), output=Buffer("signs", "i8", n), threshold=zero, n_inputs=n)
    dense = Dense(
        inputs=("signs",),
        output=Buffer("scores", "f32", n_out),
        columns=np.arange(n),
        weight=rng.normal(size=(n, n_out)).astype(np.float32),
        bias=rng.normal(size=n_out).astype(np.float32),
    )
    steps = [first, relu, second, signs, dense]
    return _with_outputs(rng, steps, int(np.prod(image_shape)), n_out, dtype)


def packed_dense(rng, source, name, n_in, n_out, n_bits, zero_point, packed, **fields):
    return PackedDense(
        inputs=(source.output.name,),
        output=Buffer(name, "i32", n_out),
        codes=codes_of(rng, n_in, n_out, n_bits),
        n_bits=n_bits,
        zero_point=zero_point,
        packed=packed,
        **({"bias": np.empty(0, np.int32)} | fields),
    )


def packed_conv(rng, source, name, shape, n_out, n_bits, zero_point):
    fields = {"image_shape": shape, "n_bits": n_bits, "zero_point": zero_point}
    codes = codes_of(rng, 9 * shape[2], n_out, n_bits)
    size = PackedConv(inputs=(), output=Buffer(name, "i32", 1), codes=codes, **fields).out_shape
    return PackedConv(
        inputs=(source.output.name,), output=Buffer(name, "i32", int(np.prod(size))), codes=codes, **fields
    )


def _with_outputs(rng, steps, n_columns, n_out, dtype):
    if n_out == 1:
        steps.append(Positive(inputs=("scores",), output=Buffer("label", "u8", 1)))
    else:
        steps.append(ArgBest(inputs=("scores",), output=Buffer("label", "u8", 1), n_inputs=n_out))
    n_classes = max(n_out, 2)
    pair = Affine(
        inputs=("scores",),
        output=Buffer("pair", "f32", n_classes),
        scale=np.linspace(0, 1e-4, n_classes).astype(np.float32),
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


def packed_inputs(rng, n_rows, n, dtype):
    """Return random packed signs (n_rows, n_words) and the +-1 that they stand for (n_rows, n)."""
    signs = rng.choice([-1, 1], (n_rows, n))
    words = np.zeros((n_rows, n_words(n, dtype)), dtype=DTYPES[dtype])
    width = 8 * DTYPES[dtype].itemsize
    for j in range(n):
        words[:, j // width] |= (signs[:, j] > 0).astype(DTYPES[dtype]) << DTYPES[dtype].type(j % width)
    return words, signs
