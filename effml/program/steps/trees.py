"""Walk one binary tree from the root to a leaf."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml.program.buffers import DTYPES, smallest_unsigned
from effml.program.cwriter import C_TYPES, block, turns
from effml.program.steps.base import Cost, Step
from effml.program.steps.binning import NAN_KEY, as_keys, emit_key

__all__ = ["TreeWalk"]

SMALL_TREE = 8  # up to so many splits gcc turns the tables into code


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TreeWalk(Step):
    """Payload of the leaf that a row reaches; node i sends it right when ``x[feature[i]] > threshold[i]``.

    Attributes
    ----------
    feature : int array (n_splits,)
    threshold : array (n_splits,)
        In the type of the input buffer.
    children : int array (n_splits, 2)
        Left and right: a split's number, or ``~payload`` of a leaf. Split 0 is the root.
    missing_right : bool array (n_splits,)
        Where a NaN goes.
    only_leaf : int
        The payload when there is no split.
    """

    kind: ClassVar[str] = "tree_walk"

    feature: np.ndarray
    threshold: np.ndarray
    children: np.ndarray
    missing_right: np.ndarray
    only_leaf: int = 0

    def run(self, x):
        node = np.zeros(len(x), dtype=np.int64) if len(self.feature) else np.full(len(x), ~self.only_leaf)
        rows = np.arange(len(x))
        while (active := node >= 0).any():
            at, row = node[active], rows[active]
            value = x[row, self.feature[at]]
            right = value > self.threshold[at]
            if value.dtype.kind == "f":
                right = np.where(np.isnan(value), self.missing_right[at], right)
            node[active] = self.children[at, right.astype(np.int64)]
        return (~node)[:, None].astype(DTYPES[self.output.dtype])

    def depth(self) -> int:
        """Return the most splits that a row can meet."""
        depth = np.zeros(len(self.feature), dtype=np.int64)
        for node in reversed(range(len(self.feature))):  # children come after their parent
            below = [depth[child] for child in self.children[node] if child >= 0]
            depth[node] = 1 + max(below, default=0)
        return int(depth[0]) if len(depth) else 0

    @property
    def n_states(self):
        leaves = ~self.children[self.children < 0] if len(self.feature) else np.array([self.only_leaf])
        return np.array([int(leaves.max()) + 1])

    def cost(self):
        n = len(self.feature)
        width = 8 * self.threshold.dtype.itemsize
        is_float = self.threshold.dtype.kind == "f"
        return Cost(
            n_parameters=2 * n + 1,
            bits=n * (width + 16),
            operations=Counter(compare=self.depth(), lookup=3 * self.depth()),
            variants=(("float" if is_float else "int") + ("_small" if n <= SMALL_TREE else "") if n else "leaf",),
        )

    def describe(self):
        return f"{len(self.feature)} splits, depth {self.depth()}"

    def emit_c(self, c, ref):
        n, tag, cell = len(self.feature), self.output.name, C_TYPES[self.output.dtype]
        target = f"{ref(self.output.name)}[0]"
        if not n:
            return f"{target} = {self.only_leaf};"
        dtype = next(name for name, value in DTYPES.items() if value == self.threshold.dtype)
        ctype = "int32_t" if dtype == "f32" else C_TYPES[dtype]
        feature = c.constant(f"{tag}_feature", self.feature)
        threshold = c.constant(f"{tag}_threshold", as_keys(self.threshold))
        # one number per child: splits first, leaves after them
        child = c.constant(f"{tag}_child", np.where(self.children < 0, ~self.children + n, self.children))
        right = f"v > {threshold}[node]"
        if dtype == "f32":
            right = f"(v > {NAN_KEY} || v < -{NAN_KEY}) ? {self._emit_missing(c, tag)} : {right}"
        node = C_TYPES[smallest_unsigned(int(max(2 * n, (~self.children).max() + n)))]
        return block(
            [
                f"{node} node = 0;",
                f"do {{{turns(self.depth())}",
                f"    const {ctype} v = {emit_key(c, dtype)}({ref(self.inputs[0])}[{feature}[node]]);",
                f"    node = {child}[2u * node + (unsigned)({right})];",
                f"}} while (node < {n}u);",
                f"{target} = ({cell})(node - {n}u);",
            ]
        )

    def _emit_missing(self, c, tag):
        if (self.missing_right == self.missing_right[0]).all():
            return str(int(self.missing_right[0]))
        bits = c.constant(f"{tag}_missing", np.packbits(self.missing_right, bitorder="little"))
        return f"({bits}[node >> 3] >> (node & 7u) & 1)"
