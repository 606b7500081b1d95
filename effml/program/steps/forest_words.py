"""Trees as one stream of 16-bit words, and the C loop that walks it: the "table" layout of a ForestWalk.

Splits come in pre-order, so the left child of a split follows it, or the right child when the left one is a leaf::

    head       threshold | feature << shift | left is a leaf << 14 | right is a leaf << 15
               (wide: the threshold has one or two words of its own, and bit 13 may say where a NaN goes)
    then       two splits: how many words further the right child begins
               one leaf:   its payload (8 bits: in both bytes)
               two leaves: two 8-bit payloads in one word, or one after the other

A payload is the row of a table of values, the number of an output, or the value itself less the smallest value.
"""

from dataclasses import dataclass

import numpy as np

from effml.program.cwriter import C_TYPES, block, indent, narrowest, turns
from effml.program.steps.binning import NAN_KEY, as_keys, emit_key

__all__ = [
    "Payload",
    "WordFormat",
    "direct_payload",
    "emit_walk",
    "no_inline",
    "pack_words",
    "payload_of",
    "word_format",
]

LEFT, RIGHT = 14, 15  # bits of the head that say that a child is a leaf


@dataclass(frozen=True)
class Payload:
    """What the leaves of the stream hold.

    Attributes
    ----------
    of_leaf : int64 array (n_leaves,)
        Not negative.
    bits : {8, 16, 32}
    values : array or None
        Table that the payloads number the rows of; None when they are the numbers to add (or the outputs to vote for).
    output : int array (trees with splits,) or None
        The one output that each tree adds a number to; None when a leaf adds a row, or 1 to the output that it names.
    bias : int
        With `output`: what to add for every tree beside the payload.
    """

    of_leaf: np.ndarray
    bits: int
    values: np.ndarray | None
    output: np.ndarray | None = None
    bias: int = 0

    @property
    def ctype(self) -> str:
        return "uint32_t" if self.bits == 32 else "unsigned"


@dataclass(frozen=True)
class WordFormat:
    """Where the parts of a split lie.

    Attributes
    ----------
    shift : int
        First bit of the feature in the head; 0 when the threshold has words of its own.
    threshold_words : {0, 1, 2}
    missing_bit : bool
        Whether bit 13 of the head says where a NaN goes.
    payload_bits : {8, 16, 32}
    offset_words : {1, 2}
    """

    shift: int
    threshold_words: int
    missing_bit: bool
    payload_bits: int
    offset_words: int = 1

    @property
    def header(self) -> int:
        return 1 + self.threshold_words

    @property
    def per_leaf(self) -> int:
        return 2 if self.payload_bits == 32 else 1

    @property
    def own(self) -> np.ndarray:
        """Words of a split with none, one and two leaves."""
        one = max(self.offset_words, self.per_leaf)  # so that the left child is always as far away
        two = 1 if self.payload_bits == 8 else 2 * self.per_leaf
        return self.header + np.array([one, one, two])

    @property
    def feature_mask(self) -> int:
        top = 13 if self.missing_bit else 14
        return (1 << (top - self.shift)) - 1


def word_format(step, payload_bits: int) -> WordFormat:
    """Return the narrowest format of a step's splits, with offsets of one word."""
    feature_bits = max(int(step.feature.max(initial=0)).bit_length(), 1)
    if step.threshold.dtype.kind == "u":
        bits = max(int(step.threshold.max(initial=0)).bit_length(), 1)
        shift = 8 if bits <= 8 and feature_bits <= 6 else bits  # whole bytes are read fastest
        if shift + feature_bits <= 14:
            return WordFormat(shift, 0, False, payload_bits)
    mixed = step.threshold.dtype.kind == "f" and np.unique(step.missing_right).size > 1
    wide = WordFormat(0, 1 if step.threshold.dtype.itemsize <= 2 else 2, mixed, payload_bits)
    if step.feature.max(initial=0) > wide.feature_mask:
        raise ValueError(
            f"feature={step.feature.max()} is too large: the table layout reads features 0 to {wide.feature_mask}; "
            "select the columns that the trees read, or use layout='code'"
        )
    return wide


def direct_payload(step) -> Payload:
    """Return the numbers to add, less the smallest, where every tree adds to one output; else rows, or outputs."""
    output = step.output_of_tree()
    if output is None:
        return Payload(step.leaf, _payload_bits(step.leaf), step.values)
    value = step.values.sum(axis=1, dtype=np.int64)[step.leaf]  # all others of the row are zero
    smallest = int(value.min()) if value.size else 0
    output = output[step.roots >= 0]
    return Payload(value - smallest, _payload_bits(value - smallest), None, output, smallest)


def payload_of(step) -> Payload:
    """Return what the words hold: the direct payload, or rows of the distinct values where that takes fewer bytes."""
    direct = direct_payload(step)
    if direct.bits == 8 or direct.output is None:
        return direct
    distinct, row = np.unique(direct.of_leaf + direct.bias, return_inverse=True)
    by_row = Payload(row, _payload_bits(row), distinct, direct.output)
    fewer_words = _stream_words(step, direct.bits) - _stream_words(step, by_row.bits)
    return by_row if 2 * fewer_words > narrowest(distinct).nbytes else direct


def _payload_bits(payload) -> int:
    return next(bits for bits in (8, 16, 32) if int(payload.max(initial=0)) < 1 << bits)


def _stream_words(step, payload_bits) -> int:
    return int(word_format(step, payload_bits).own[(step.children < 0).sum(axis=1)].sum())


def pack_words(step, payload: Payload) -> tuple[WordFormat, np.ndarray, np.ndarray]:
    """Return the format, the stream (uint16) and the words of each tree that has splits."""
    form = word_format(step, payload.bits)
    own, size, begin = _places(step, form)
    inner = (step.children >= 0).all(axis=1)
    offset = begin[step.children[inner, 1]] - begin[inner]
    if offset.max(initial=0) > 0xFFFF:
        form = WordFormat(**(vars(form) | {"offset_words": 2}))
        own, size, begin = _places(step, form)
        offset = begin[step.children[inner, 1]] - begin[inner]
    words = np.zeros(int(own.sum()), dtype=np.uint16)
    at_leaf = step.children < 0
    head = step.feature.astype(np.int64) << form.shift | at_leaf[:, 0] << LEFT | at_leaf[:, 1] << RIGHT
    if form.missing_bit:
        head |= step.missing_right.astype(np.int64) << 13
    threshold = as_keys(step.threshold).astype(np.int64)
    if form.shift:
        words[begin] = head | threshold
    else:
        words[begin] = head
        _store(words, begin + 1, threshold, form.threshold_words)
    after = begin + form.header
    _store(words, after[inner], offset, form.offset_words)
    of_side = payload.of_leaf.astype(np.int64)[~np.where(at_leaf, step.children, -1)]
    left, right = at_leaf.T
    if payload.bits == 8:
        low, high = np.where(left, of_side[:, 0], of_side[:, 1]), np.where(right, of_side[:, 1], of_side[:, 0])
        words[after[~inner]] = (low | high << 8)[~inner]
    else:
        _store(words, after[left], of_side[left, 0], form.per_leaf)
        second = after + np.where(left, form.per_leaf, 0)
        _store(words, second[right], of_side[right, 1], form.per_leaf)
    return form, words, size[step.roots[step.roots >= 0]]


def _store(words, place, number, n_words):
    for k in range(n_words):
        words[place + k] = number >> 16 * k & 0xFFFF


def _places(step, form) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each split its own words, those of its subtree, and where it begins."""
    levels = step.levels()
    own = form.own[(step.children < 0).sum(axis=1)].astype(np.int64)
    size = step.subtree_sums(own, levels)
    begin = np.zeros(len(own), dtype=np.int64)
    roots = step.roots[step.roots >= 0]
    begin[roots] = np.cumsum(size[roots]) - size[roots]
    for level in levels:
        first = begin[level] + own[level]
        left, right = step.children[level].T
        begin[left[left >= 0]] = first[left >= 0]
        first += np.where(left >= 0, size[np.maximum(left, 0)], 0)
        begin[right[right >= 0]] = first[right >= 0]
    return own, size, begin


# -- C ----------------------------------------------------------------------------------------------------------------


def no_inline(c) -> str:
    """Return the attribute of functions that must stay functions."""
    name = f"{c.name.upper()}_NOINLINE"
    c.helper(
        "noinline",
        f"""/* Functions of trees stay functions: so they compile quickly and keep their pointers in registers. */
#if defined(__GNUC__)
#define {name} __attribute__((noinline))
#else
#define {name}
#endif""",
    )
    return name


def emit_walk(c, step, payload: Payload, x: str, add: list[str]) -> list[str]:
    """Return the loop over all trees; the lines `add` use what `leaf` holds."""
    form, words, length = pack_words(step, payload)
    tag, n = step.output.name, len(length)
    stream = c.constant(f"{tag}_words", words, "u16")
    find = c.helper(f"{tag}_leaf", _leaf_function(c, step, form, payload))
    if n == 1:
        return ["{", *indent([f"const {payload.ctype} leaf = {find}({x}, {stream});", *add]), "}"]
    same = (length == length[0]).all()
    next_tree = f"{int(length[0])}u" if same else f"{c.constant(f'{tag}_length', length)}[i]"
    counter = "unsigned" if n < 1 << 16 else "uint32_t"
    body = [f"const {payload.ctype} leaf = {find}({x}, tree);", *add, f"tree += {next_tree};"]
    head = [f"const {c.space} uint16_t *tree = {stream};", f"{counter} i;", f"for (i = 0; i < {n}u; i++) {{"]
    return ["{", *indent([*head, *indent(body), "}"]), "}"]


def _leaf_function(c, step, form, payload) -> str:
    """Return the C function that walks from the root at `w` to the payload of a leaf."""
    h = form.header
    left, right = f"head & 0x{1 << LEFT:x}u", f"head & 0x{1 << RIGHT:x}u"
    left_leaf, right_leaf = _emit_payload(form)
    further = f"w[{h}]" if form.offset_words == 1 else f"(w[{h}] | (uint32_t)w[{h + 1}] << 16)"
    step_on = int(form.own[0])
    declare, goes_right = _emit_test(c, step, form)
    walk = [
        f"for (;;) {{{turns(step.depths().max())}",
        *indent(
            [
                "const unsigned head = *w;",
                *declare,
                f"if ({goes_right}) {{",
                f"    if ({right}) {{",
                f"        return {right_leaf};",
                "    }",
                f"    w += ({left}) ? {step_on}u : {further};",
                "} else {",
                f"    if ({left}) {{",
                f"        return {left_leaf};",
                "    }",
                f"    w += {step_on};",
                "}",
            ]
        ),
        "}",
    ]
    row, words = f"const {C_TYPES[step.input_dtype]} *x", f"const {c.space} uint16_t *w"
    return f"static {no_inline(c)} {payload.ctype} {{name}}({row}, {words})\n{block(walk)}"


def _emit_payload(form) -> tuple[str, str]:
    h = form.header
    if form.payload_bits == 8:
        return f"w[{h}] & 255u", f"w[{h}] >> 8"
    if form.payload_bits == 16:
        return f"w[{h}]", f"w[{h}u + (head >> {LEFT} & 1u)]"
    second = f"(head >> {LEFT - 1} & 2u)"
    return (
        f"w[{h}] | (uint32_t)w[{h + 1}] << 16",
        f"w[{h}u + {second}] | (uint32_t)w[{h + 1}u + {second}] << 16",
    )


def _emit_test(c, step, form) -> tuple[list[str], str]:
    """Return declarations and the condition under which a row goes right."""
    dtype = step.input_dtype
    feature = f"head & {form.feature_mask}u" if not form.shift else f"head >> {form.shift} & {form.feature_mask}u"
    value = f"x[{feature}]"
    if form.shift:
        return [], f"{value} > (head & {(1 << form.shift) - 1}u)"
    threshold = {
        "u8": "w[1]",
        "u16": "w[1]",
        "i8": "(int16_t)w[1]",
        "i16": "(int16_t)w[1]",
        "u32": "(w[1] | (uint32_t)w[2] << 16)",
    }.get(dtype, "(int32_t)(w[1] | (uint32_t)w[2] << 16)")
    if dtype != "f32":
        return [], f"{value} > {threshold}"
    missing = "head & 0x2000u" if form.missing_bit else str(int(step.missing_right[0]))
    return (
        [f"const int32_t v = {emit_key(c, dtype)}({value});"],
        f"(v > {NAN_KEY} || v < -{NAN_KEY}) ? ({missing}) : v > {threshold}",
    )
