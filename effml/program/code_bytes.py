"""Code bytes of each step, calibrated: what makes flash estimates the same on every machine, compiler or not.

Measured with ``gcc -Os`` on x86-64 by ``benchmarks/calibrate_code_bytes.py``, which prints this table (``loop`` and its
carries are set by hand, so that whole recurrent networks come out right).
"""

from collections import Counter

from effml.program.passes import deployable

__all__ = ["CODE_BYTES", "STACK_BYTES", "TARGETS", "code_bytes", "code_parts"]

CODE_BYTES = {
    "host": {
        ("frame", ""): 1,
        ("helper", "exp"): 227,
        ("helper", "rsqrt"): 0,
        ("bin", "constant_float"): 39,
        ("bin", "constant_int"): 10,
        ("bin", "linear_float"): 145,
        ("bin", "linear_int"): 96,
        ("bin", "bisect_float"): 186,
        ("bin", "bisect_int"): 147,
        ("bin", "mask_int"): 66,
        ("bin", "match_float"): 90,
        ("bin", "match_int"): 49,
        ("bin", "index_float"): 64,
        ("bin", "index_int"): 20,
        ("bin", "recoded"): 64,
        ("bin", "scattered"): 0,
        ("lookup_sum", "byte"): 59,
        ("lookup_sum", "byte_parents"): 122,
        ("lookup_sum", "dense"): 96,
        ("lookup_sum", "dense_parents"): 160,
        ("lookup_sum", "swar"): 78,
        ("lookup_sum", "swar_parents"): 128,
        ("lookup_sum", "swar_flush"): 187,
        ("lookup_sum", "swar_parents_flush"): 251,
        ("lookup_sum", "lane"): 24,
        ("lookup_sum", "float"): 68,
        ("lookup_sum", "float_parents"): 121,
        ("lookup_sum", "checked"): 0,
        ("tree_walk", "float"): 180,
        ("tree_walk", "int"): 100,
        ("tree_walk", "float_small"): 115,
        ("tree_walk", "int_small"): 60,
        ("tree_walk", "leaf"): 10,
        ("forest_walk", "empty"): 0,
        ("forest_walk", "start"): 0,
        ("forest_walk", "table_narrow"): 95,
        ("forest_walk", "table_wide"): 101,
        ("forest_walk", "table_float"): 132,
        ("forest_walk", "scalar"): 0,
        ("forest_walk", "rows"): 55,
        ("forest_walk", "votes"): 23,
        ("forest_walk", "by_tree"): 26,
        ("forest_walk", "code_by_tree"): 0,
        ("forest_walk", "call_by_tree"): 0,
        ("forest_walk", "code_scalar"): 0,
        ("forest_walk", "code_rows"): 26,
        ("forest_walk", "code_votes"): 0,
        ("forest_walk", "call_scalar"): 0,
        ("forest_walk", "call_rows"): 12,
        ("forest_walk", "call_votes"): 50,
        ("forest_walk", "split_8"): 9.3,
        ("forest_walk", "split_16"): 12.3,
        ("forest_walk", "split_32"): 13.0,
        ("forest_walk", "split_float"): 21.5,
        ("forest_walk", "second_range"): 3.5,
        ("forest_walk", "far_feature"): 3.1,
        ("forest_walk", "leaf"): 3.9,
        ("dense", "float"): 65,
        ("dense", "int"): 65,
        ("dense", "start"): 10,
        ("affine", ""): 60,
        ("quantize_input", "identity"): 20,
        ("quantize_input", "float"): 65,
        ("quantize_input", "integer"): 65,
        ("arg_best", ""): 82,
        ("positive", ""): 10,
        ("gather", ""): 36,
        ("select", ""): 69,
        ("softmax", ""): 247,
        ("kernel_rows", "sum"): 189,
        ("kernel_rows", "side"): 176,
        ("kernel_rows", "group"): 5,
        ("kernel_rows", "gaussian"): 144,
        ("kernel_rows", "power"): 288,
        ("itemset_match", ""): 19,
        ("itemset_match", "checked"): 9,
        ("clipped_affine", "many"): 130,
        ("clipped_affine", "one"): 28,
        ("sum_squares", ""): 150,
        ("square_root", ""): 218,
        ("live_weights", ""): 0,
        ("live_weights", "normalize"): 123,
        ("relu", ""): 0,
        ("sigmoid", ""): 286,
        ("squared_distances", ""): 28,
        ("helper", "count_bits"): 69,
        ("helper", "root"): 60,
        ("packed_dense", "signs"): 65,
        ("packed_dense", "planes"): 95,
        ("packed_dense", "even"): 152,
        ("packed_dense", "odd"): 155,
        ("packed_dense", "byte"): 120,
        ("packed_conv", "even"): 285,
        ("packed_conv", "odd"): 300,
        ("conv", ""): 195,
        ("packed_conv", "byte"): 238,
        ("threshold", "signs"): 29,
        ("threshold", "packed"): 75,
        ("requantise", "shift"): 49,
        ("requantise", "narrow"): 70,
        ("requantise", "wide"): 102,
        ("exp", ""): 30,
        ("lookup_each", ""): 30,
        ("logistic_shares", ""): 330,
        ("multiply_input", ""): 70,
        ("weighted_add", ""): 46,
        ("packed_dense", "levels"): 0,
        ("packed_conv", "levels"): 19,
        ("packed_conv", "groups"): 58,
        ("packed_conv", "requantise"): 102,
        ("packed_conv", "even_unpooled"): 300,
        ("packed_conv", "odd_unpooled"): 322,
        ("packed_conv", "byte_unpooled"): 267,
        ("conv", "unpooled"): 261,
        ("conv", "groups"): 68,
        ("requantise", "more"): 9,
        ("requantise", "signed"): 7,
        ("pool", "largest"): 134,
        ("pool", "mean"): 124,
        ("pool", "sum"): 114,
        ("join", ""): 18,
        ("combine", ""): 48,
        ("clip", ""): 74,
        ("loop", ""): 20,
        ("loop", "carry"): 10,
        ("pieces", ""): 152,
        ("gated_sum", ""): 80,
        ("gated_sum", "pair"): 20,
        ("normalise", "std"): 229,
        ("normalise", "mad"): 256,
    }
}
STACK_BYTES = {"host": 64}  # return address and saved registers beside the buffers
TARGETS = tuple(CODE_BYTES)


HELPERS = ("exp", "rsqrt", "count_bits", "root")  # functions that steps call, printed once a file

# printed once, however many functions of the file use it: the functions of a forest's trees
_SPLITS = ("split_8", "split_16", "split_32", "split_float")
_SHARED = {("forest_walk", part) for part in (*_SPLITS, "far_feature", "second_range", "leaf")}


def code_bytes(program, outputs, target: str = "host") -> int:
    """Return the calibrated code bytes of the functions that compute some outputs of a program."""
    table = CODE_BYTES[target]
    return round(sum(count * table[part] for part, count in code_parts(program, outputs).items()))


def code_parts(program, outputs) -> Counter:
    """Return how often each part of the code, a key of the tables here, is printed."""
    parts, printed = Counter({("frame", ""): len(outputs)}), set()
    for output in outputs:
        for step in _flat(deployable(program.with_outputs(output)).steps):
            for variant, count in Counter(step.cost().variants).items():
                key, owner = (step.kind, variant), step.output.name
                if variant in HELPERS:
                    key, owner, count = ("helper", variant), "", 1
                if variant in HELPERS or key in _SHARED:
                    if (owner, key) in printed:
                        continue
                    printed.add((owner, key))
                parts[key] += count
    return parts


def _flat(steps):
    """Yield steps and those inside of them."""
    for step in steps:
        yield step
        yield from _flat(step.inner)
