"""Trees as C functions of nested ifs: the "code" layout of a ForestWalk."""

import numpy as np

from effml.program.cwriter import C_TYPES, key_of_float32
from effml.program.steps.forest_words import Payload, direct_payload, no_inline

__all__ = ["adds_up", "distinct_leaves", "emit_trees", "needed_ranges", "read_anew"]


def distinct_leaves(step) -> int:
    """Return how many different results the functions have, added over the trees: equal ones share their code."""
    tree, leaf, _ = step.leaves_by_tree()
    return np.unique(np.stack([tree, direct_payload(step).of_leaf[leaf]]), axis=1).shape[1]


def inlines_trees(step) -> bool:
    """Return whether trees are inlined where the compiler deems it small: a leaf then is a number known beforehand."""
    return step.votes or len(step.values) <= 2 or step.n_trees == 1


def read_anew(c, pointer) -> str:
    """Return a statement behind which GCC knows nothing of what `pointer` points to.

    Trees that test the same columns would be woven into each other and grow: a third on some sets.
    """
    name = f"{c.name.upper()}_READ_ANEW"
    c.helper(
        "read_anew",
        f"""/* Keeps trees that test the same columns from being woven into each other. */
#if defined(__GNUC__)
#define {name}(pointer) __asm__ volatile("" : "+r"(pointer))
#else
#define {name}(pointer) ((void)0)
#endif""",
    )
    return f"{name}({pointer});"


def adds_up(step) -> bool:
    """Return whether the functions take the sum so far and return it with their leaf added."""
    return inlines_trees(step) and not step.votes and step.n_trees > 1 and step.output.size == 1


def emit_trees(c, step, payload: Payload) -> list[str]:
    """Add a function for each tree that has splits and return their names."""
    dtype = step.input_dtype
    right, left = _float_tests(c, step) if dtype == "f32" else _integer_tests(step)
    size = step.subtree_sums(np.ones(len(step.feature)), step.levels())
    # the smaller subtree is nested, so that no compiler's limit on nesting is met
    nested_right = np.where(step.children < 0, 0, size[np.maximum(step.children, 0)]).argmin(axis=1)
    test = np.where(nested_right, right, left).tolist()
    order = np.take_along_axis(step.children, np.stack([nested_right, 1 - nested_right], axis=1), axis=1).tolist()
    attribute = "" if inlines_trees(step) else f"{no_inline(c)} "
    result, arguments = payload.ctype, f"const {C_TYPES[dtype]} *x"
    leaf, names = [f"{number}u" for number in payload.of_leaf.tolist()], []
    if adds_up(step):
        result, arguments = "uint32_t", f"{arguments}, uint32_t sum"
        leaf = ["sum" if number == "0u" else f"sum + {number}" for number in leaf]
    for number, root in enumerate(step.roots.tolist()):
        if root >= 0:
            body = "\n".join(_tree_lines(root, order, test, leaf))
            source = f"static {attribute}{result} {{name}}({arguments})\n{{\n{body}\n}}"
            names.append(c.helper(f"{step.output.name}_tree{number}", source))
    return names


def _tree_lines(root, order, test, leaf) -> list[str]:
    lines, waiting = [], [(root, "    ")]
    while waiting:
        node, pad = waiting.pop()
        if node is None:
            lines.append(f"{pad}}}")
        elif node < 0:
            lines.append(f"{pad}return {leaf[~node]};")
        else:
            lines.append(f"{pad}if ({test[node]}) {{")
            nested, after = order[node]
            waiting += [(after, pad), (None, pad), (nested, pad + "    ")]
    return lines


def _integer_tests(step) -> tuple[list[str], list[str]]:
    suffix = "u" if step.input_dtype == "u32" else ""
    largest = np.iinfo(step.threshold.dtype).max
    right, left = [], []
    for feature, threshold in zip(step.feature.tolist(), step.threshold.tolist(), strict=True):
        if threshold == largest:  # a comparison that is always false would be warned about
            right.append("0")
            left.append("1")
            continue
        limit = f"{threshold}{suffix}" if threshold > -(2**31) else "(-2147483647 - 1)"
        right.append(f"x[{feature}] > {limit}")
        left.append(f"x[{feature}] <= {limit}")
    return right, left


# Bit patterns of float32 in the order of unsigned numbers:
# 0 ... infinity, NaN, -0 ... -infinity, NaN with a sign
INFINITY, MINUS_ZERO, MINUS_INFINITY = 0x7F800000, 0x80000000, 0xFF800000


def needed_ranges(step) -> np.ndarray:
    """Return how many ranges of bit patterns each test of a float32 compares with."""
    return 1 + ((step.threshold >= 0) == step.missing_right)


def _float_tests(c, step) -> tuple[list[str], list[str]]:
    """Return tests on bit patterns, which need neither floating point nor a test for NaN of their own."""
    bits = c.helper(
        "bits",
        """static uint32_t {name}(const float *value)
{
    uint32_t bits;
    memcpy(&bits, value, sizeof bits);
    return bits;
}""",
    )
    right, left = [], []
    keys = key_of_float32(step.threshold).tolist()
    for feature, key, missing_right in zip(step.feature.tolist(), keys, step.missing_right.tolist(), strict=True):
        pattern = key if key >= 0 else MINUS_ZERO - key
        # the patterns that go to one side, as ranges from the first to the last; and whether that side is the right one
        if key >= 0 and not missing_right:
            ranges, side = [(pattern + 1, INFINITY)], True
        elif key >= 0:
            ranges, side = [(0, pattern), (MINUS_ZERO, MINUS_INFINITY)], False
        elif missing_right:
            ranges, side = [(pattern, MINUS_INFINITY)], False
        else:
            ranges, side = [(0, INFINITY), (MINUS_ZERO, pattern - 1)], True
        inside, outside = _in_ranges(f"{bits}(x + {feature})", ranges)
        right.append(inside if side else outside)
        left.append(outside if side else inside)
    return right, left


def _in_ranges(value, ranges) -> tuple[str, str]:
    """Return C for "is in one of the ranges" and for its opposite."""
    inside, outside = [], []
    for first, last in ranges:
        if first > last:
            return "0", "1"
        shifted = f"{value} - {first}u" if first else value
        inside.append(f"{shifted} <= {last - first}u")
        outside.append(f"{shifted} > {last - first}u")
    return " || ".join(inside), " && ".join(outside)
