"""Random programs that between them hold every step, layout and input type."""

from common.random_itemsets import itemset_program
from common.random_kernels import kernel_program
from common.random_programs import classifier, forest_program, linear_program, tree_program

from effml.program.buffers import INPUT_DTYPES


def covering(rng):
    """Return a few programs that between them hold every step and layout, of changing input types."""
    programs = list(all_kinds(rng))
    chosen, seen = [], set()
    for k in rng.permutation(len(programs)):
        held = {(step.kind, getattr(step, "layout", "")) for step in programs[k].steps}
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
