"""Random programs that between them hold every step, layout and input type."""

from common.random_deep import deep_programs
from common.random_elementwise import elementwise_program
from common.random_itemsets import itemset_program
from common.random_kernels import kernel_program
from common.random_networks import float_images_program, network_program
from common.random_programs import classifier, forest_program, linear_program, tree_program

from effml.program.buffers import INPUT_DTYPES
from effml.program.steps import LogisticShares


def covering(rng):
    """Return a few programs that between them hold every step and layout, of changing input types."""
    programs = list(all_kinds(rng))
    chosen, seen = [], set()
    for k in rng.permutation(len(programs)):
        held = {
            (step.kind, getattr(step, "layout", "")) for outer in programs[k].steps for step in (outer, *outer.inner)
        }
        if held - seen:
            chosen.append(programs[k])
            seen |= held
    return chosen


def all_kinds(rng):
    """Yield programs of every kind for every input type."""
    for dtype in INPUT_DTYPES:
        for layout, n_bits in (("float", 32), ("byte", 8), ("dense", 5), ("swar", 4), ("swar", 1)):
            for parents in (False, True):
                yield classifier(rng, dtype=dtype, n_columns=9, n_out=5, n_bits=n_bits, layout=layout, parents=parents)
        given = {"n_bits": 2, "layout": "swar", "parents": True, "plain": True}
        yield classifier(rng, dtype=dtype, n_columns=40, n_out=11, max_cuts=20, largest=31, **given)
        yield tree_program(rng, dtype=dtype, n_columns=4, n_splits=20, n_out=3)
        for layout in ("table", "code"):
            yield forest_program(rng, dtype=dtype, n_columns=4, sizes=(20, 0, 7), n_out=3, layout=layout)
        for integer in (False, True):
            yield linear_program(rng, dtype=dtype, n_columns=5, n_out=3, integer=integer)
            yield linear_program(rng, dtype=dtype, n_columns=5, n_out=1, integer=integer)
        for gate in ("constant", "softmax", "sigmoid", "rbf"):
            yield kernel_program(rng, dtype=dtype, n_columns=5, gate=gate, side=gate == "rbf", groups=2)
        for n_linear, mask_bits in ((0, 8), (2, 8), (2, 20)):
            yield itemset_program(rng, dtype=dtype, n_columns=5, n_linear=n_linear, mask_bits=mask_bits, max_cuts=30)
        for n_bits in (1, 3, 8):
            given = {"dtype": dtype, "n_columns": 9, "n_out": 3, "n_bits": n_bits}
            yield network_program(rng, activations=("u16", "wide", "u8"), **given)
            yield network_program(rng, activations=("i8", "shift"), image_shape=(5, 4, 2), **given)
        yield float_images_program(rng, dtype=dtype, n_out=3, image_shape=(5, 4, 2))
        yield elementwise_program(rng, dtype=dtype, n_columns=6, n_out=3, n_bits=4)
        yield elementwise_program(rng, dtype=dtype, n_columns=6, n_out=4, n_bits=8, n_entries=20, link=LogisticShares)
        yield from deep_programs(rng, dtype)
