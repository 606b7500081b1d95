"""Walk many binary trees and sum what their leaves hold, in integers: forests and boosted trees, in two layouts."""

from collections import Counter
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from effml._cext.forest_walk import FASTEST, forest_walk, max_threads
from effml.program.buffers import DTYPES
from effml.program.cwriter import C_TYPES, block
from effml.program.steps.base import Cost, Step
from effml.program.steps.fast_forest import FastForest, fast_forest
from effml.program.steps.forest_code import adds_up, distinct_leaves, emit_trees, needed_ranges, read_anew
from effml.program.steps.forest_words import direct_payload, emit_walk, no_inline, payload_of, word_format

__all__ = ["FOREST_LAYOUTS", "ForestWalk"]

FOREST_LAYOUTS = ("table", "code")
_VALUE_DTYPES = (np.int8, np.int16, np.int32)
_INT32 = np.iinfo(np.int32)
_WALKS_PER_THREAD = 5000  # of one row through one tree: what makes a further thread worth starting


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ForestWalk(Step):
    """``out[k] = start[k] + sum over trees of values[leaf[l], k]``, l being the leaf that the row reaches.

    Split i sends a row right when ``x[feature[i]] > threshold[i]``. With a second input the sum starts from that int32
    buffer plus `start`; sums wrap at 32 bits, and whoever adds that input proves with :meth:`bounds` that they do not.

    Attributes
    ----------
    feature : int array (n_splits,)
    threshold : array (n_splits,)
        In the type of the input buffer; not NaN.
    children : int array (n_splits, 2)
        Left and right: a split's number, larger than its parent's, or ``~leaf``. Every split has one parent.
    roots : int array (n_trees,)
        A split's number, or ``~leaf`` of a tree without splits.
    missing_right : bool array (n_splits,)
        Where a NaN goes.
    leaf : int array (n_leaves,)
        Row of `values` that a leaf adds; with `votes` the output to which it adds 1.
    values : int8, int16 or int32 array (n_values, n_outputs), or None
        None exactly with `votes`. Where every tree uses one column only (one output, or boosting of many classes), C
        holds the numbers themselves and no rows.
    start : int32 array (n_outputs,)
    votes : bool
    layout : {"table", "code"}
        A stream of 16-bit words and a short loop (small), or one function of nested ifs for each tree (fast).
    """

    kind: ClassVar[str] = "forest_walk"

    feature: np.ndarray
    threshold: np.ndarray
    children: np.ndarray
    roots: np.ndarray
    missing_right: np.ndarray
    leaf: np.ndarray
    values: np.ndarray | None
    start: np.ndarray
    votes: bool = False
    layout: str = "table"

    def __post_init__(self):
        self._check()
        low, high = self.bounds()
        if low.min(initial=0) < _INT32.min or high.max(initial=0) > _INT32.max:
            raise ValueError(
                f"values add up to sums from {low.min()} to {high.max()}, which int32 cannot hold; use a larger scale"
            )

    # -- validity -----------------------------------------------------------------------------------------------------

    def _check(self):
        """Raise for arrays that do not fit together; cheap enough for every run."""
        self._check_arrays()
        self._check_links()

    def _check_arrays(self):
        n, m = len(self.feature), self.output.size
        if self.layout not in FOREST_LAYOUTS:
            raise ValueError(f"layout={self.layout!r} must be one of {FOREST_LAYOUTS}")
        if self.output.dtype != "i32":
            raise ValueError(f"output has type {self.output.dtype!r}; a ForestWalk writes 'i32'")
        shapes = {"feature": (n,), "threshold": (n,), "children": (n, 2), "missing_right": (n,), "start": (m,)}
        shapes |= {"roots": (len(self.roots),), "leaf": (len(self.leaf),)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; {n} splits, {m} outputs need {shape}")
        for name in ("feature", "children", "roots", "leaf", "start"):
            if getattr(self, name).dtype.kind not in "iu":
                raise ValueError(f"{name} has type {getattr(self, name).dtype}; it must hold integers")
        if self.missing_right.dtype != bool:
            raise ValueError(f"missing_right has type {self.missing_right.dtype}; it must hold bools")
        if self.threshold.dtype not in DTYPES.values() or np.isnan(self.threshold).any():
            raise ValueError(f"threshold must hold numbers of {sorted(DTYPES)} without NaN, got {self.threshold.dtype}")
        if self.votes != (self.values is None):
            raise ValueError(f"votes={self.votes} needs values to be {'None' if self.votes else 'an array'}")
        if not self.votes and (self.values.dtype not in _VALUE_DTYPES or self.values.shape[1:] != (m,)):
            raise ValueError(
                f"values is {self.values.dtype} of shape {self.values.shape}; expected int8, int16 or int32 of shape "
                f"(n_values, {m})"
            )

    def _check_links(self):
        """Raise for links that lead out of the arrays or around in a circle."""
        n, n_leaves, n_rows = len(self.feature), len(self.leaf), self.output.size if self.votes else len(self.values)
        ends = np.concatenate([self.children.ravel(), self.roots])
        if ends.size and not (-n_leaves <= ends.min() and ends.max() < n):
            raise ValueError(f"children and roots must lie between {-n_leaves} and {n - 1} for {n_leaves} leaves")
        if ((self.children >= 0) & (self.children <= np.arange(n)[:, None])).any():
            raise ValueError("children must have larger numbers than their parents")
        if (np.bincount(ends[ends >= 0], minlength=n) != 1).any():
            raise ValueError("children and roots must name every split once")
        if n and self.feature.min() < 0:
            raise ValueError(f"feature={self.feature.min()} must not be negative")
        if n_leaves and not (self.leaf.min() >= 0 and self.leaf.max() < n_rows):
            raise ValueError(f"leaf must lie between 0 and {n_rows - 1}, got {self.leaf.min()} to {self.leaf.max()}")

    # -- structure ----------------------------------------------------------------------------------------------------

    @property
    def n_trees(self) -> int:
        return len(self.roots)

    @property
    def input_dtype(self) -> str:
        """Type of the input buffer."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.threshold.dtype)

    def levels(self) -> list[np.ndarray]:
        """Return the splits of each depth, those of all trees together."""
        found, level = [], self.roots[self.roots >= 0]
        while level.size:
            found.append(level)
            below = self.children[level].ravel()
            level = below[below >= 0]
        return found

    def tree_of_split(self) -> np.ndarray:
        """Return the tree of each split."""
        tree = np.empty(len(self.feature), dtype=np.int64)
        tree[self.roots[self.roots >= 0]] = np.flatnonzero(self.roots >= 0)
        for level in self.levels():
            for side in (0, 1):
                below = self.children[level, side]
                tree[below[below >= 0]] = tree[level[below >= 0]]
        return tree

    def subtree_sums(self, own, levels) -> np.ndarray:
        """Return for each split the sum of `own` over itself and all splits below it."""
        total = np.array(own, dtype=np.int64)
        for level in reversed(levels):
            for side in (0, 1):
                below = self.children[level, side]
                total[level[below >= 0]] += total[below[below >= 0]]
        return total

    def depths(self) -> np.ndarray:
        """Return the most splits that a row can meet in each tree."""
        depth = np.zeros(self.n_trees, dtype=np.int64)
        tree = self.tree_of_split()
        for number, level in enumerate(self.levels()):
            depth[tree[level]] = number + 1
        return depth

    def leaves_by_tree(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the tree and the number of each leaf, in the order of trees, and where each tree's leaves begin."""
        split, side = np.nonzero(self.children < 0)
        lone = np.flatnonzero(self.roots < 0)
        tree = np.concatenate([self.tree_of_split()[split], lone])
        leaf = ~np.concatenate([self.children[split, side], self.roots[lone]])
        order = np.argsort(tree, kind="stable")
        return tree[order], leaf[order], np.flatnonzero(np.diff(tree[order], prepend=-1))

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return proven bounds (int64) on every partial sum of each output, without the second input."""
        start = self.start.astype(np.int64)
        tree, leaf, first = self.leaves_by_tree()
        if not leaf.size:
            return start, start
        if self.votes:  # an output gets at most one vote of a tree
            pairs = np.unique(np.stack([tree, self.leaf[leaf]]), axis=1)
            return start, start + np.bincount(pairs[1], minlength=self.output.size)
        added = self.values[self.leaf[leaf]].astype(np.int64)
        low = np.minimum(np.minimum.reduceat(added, first, axis=0), 0).sum(axis=0)
        high = np.maximum(np.maximum.reduceat(added, first, axis=0), 0).sum(axis=0)
        return start + low, start + high

    def output_of_tree(self) -> np.ndarray | None:
        """Return the only output that each tree adds to (boosting), or None when some tree adds to several."""
        if self.votes or not self.n_trees:
            return None
        if self.output.size == 1:
            return np.zeros(self.n_trees, dtype=np.int64)
        _, leaf, first = self.leaves_by_tree()
        used = np.logical_or.reduceat(self.values[self.leaf[leaf]] != 0, first, axis=0)
        return None if (used.sum(axis=1) > 1).any() else used.argmax(axis=1)

    # -- meaning ------------------------------------------------------------------------------------------------------

    def run(self, x, start=None, *, n_threads=None):
        """Return the sums, int32 (n_rows, n_outputs).

        Parameters
        ----------
        x : array (n_rows, n_inputs)
        start : int32 array (n_rows, n_outputs), optional
        n_threads : int, optional
            By default what OpenMP would use (OMP_NUM_THREADS, threadpoolctl), less where there is little to do.
        """
        fast = self._fast
        if x.dtype != self.threshold.dtype or (len(self.feature) and x.shape[1] <= fast.columns[-1]):
            raise ValueError(
                f"x is {x.dtype} of {x.shape[1]} columns; the trees read {self.threshold.dtype} and column "
                f"{fast.columns[-1]}"
            )
        out = np.repeat(self.start[None].astype(np.int32), len(x), axis=0)
        if start is not None:
            out += start
        if not len(x) or not self.n_trees:
            return out
        forest_walk(
            x,
            fast.columns,
            fast.nan_left,
            fast.nan_right,
            fast.nodes,
            len(self.feature),
            fast.tops,
            fast.first_top,
            fast.exits,
            fast.leaf,
            fast.narrow,
            fast.wide,
            out.view(np.uint32),
            fast.block,
            n_threads or max(1, min(max_threads(), len(x) * self.n_trees // _WALKS_PER_THREAD)),
            FASTEST,
        )
        return out

    def __getstate__(self):
        return {field.name: getattr(self, field.name) for field in fields(self)}  # without `_fast`

    @cached_property
    def _fast(self) -> FastForest:
        self._check()  # a model file may hold anything, and the loop trusts these numbers
        return fast_forest(self)

    def cost(self):
        n, depth, by_tree = len(self.feature), int(self.depths().sum()), self.output_of_tree() is not None
        held = len(self.leaf) if by_tree else 0 if self.votes else self.values.size
        numbers = 8 * self.values.dtype.itemsize * held if held else 0
        links = 0 if by_tree else len(self.leaf)
        adds = self.n_trees * (1 if by_tree or self.votes else self.output.size)
        return Cost(
            n_parameters=2 * n + held + links,
            bits=n * (8 * self.threshold.dtype.itemsize + 16) + numbers + 8 * links,
            operations=Counter(compare=depth, lookup=2 * depth, add=adds),
            variants=self._variants(by_tree),
        )

    def _variants(self, by_tree) -> tuple[str, ...]:
        """Return the shape of the loop; for code also every tree, split and distinct leaf of a tree."""
        start = ("start",) if len(self.inputs) > 1 else ()
        if not len(self.feature):
            return ("empty", *start)
        adds = "votes" if self.votes else "rows" if not by_tree else "scalar" if self.output.size == 1 else "by_tree"
        if self.layout == "table":
            form = "float" if self.input_dtype == "f32" else "narrow" if word_format(self, 8).shift else "wide"
            return (f"table_{form}", adds, *start)
        split = "split_float" if self.input_dtype == "f32" else f"split_{8 * self.threshold.dtype.itemsize}"
        parts = {f"call_{adds}": int((self.roots >= 0).sum()), split: len(self.feature), "leaf": distinct_leaves(self)}
        parts["far_feature"] = int((self.feature * self.threshold.dtype.itemsize > 127).sum())  # beyond a short offset
        if self.input_dtype == "f32":
            parts["second_range"] = int((needed_ranges(self) - 1).sum())
        return (f"code_{adds}", *start, *(name for name, count in parts.items() for _ in range(count)))

    def describe(self):
        depth = int(self.depths().max(initial=0))
        return f"{self.n_trees} trees, {len(self.feature)} splits, depth {depth}, {self.layout}"

    # -- C ------------------------------------------------------------------------------------------------------------

    def emit_c(self, c, ref):
        out, x = ref(self.output.name), ref(self.inputs[0])
        before = ref(self.inputs[1]) if len(self.inputs) > 1 else None
        payload = payload_of(self) if self.layout == "table" else direct_payload(self)
        first, factor = self._first(payload), 1
        if self.layout == "code" and self.output.size == 1 and not self.votes:  # of two classes' votes: 0 or 1, not 2
            factor = max(int(np.gcd.reduce(payload.of_leaf, initial=0)), 1)
            payload = replace(payload, of_leaf=payload.of_leaf // factor)
        head, tail = self._emit_ends(c, out, before, first, factor)
        if not len(self.feature):
            return block([*head, *tail])
        if self.layout == "table":
            target = self._indexed_target(c, out, payload)
            walk = emit_walk(c, self, payload, x, self._emit_add(c, target, "leaf", payload))
            return block([*head, *walk, *tail])
        functions = emit_trees(c, self, payload)
        if adds_up(self):
            sums = [[f"sum = {function}(row, sum);", read_anew(c, "row")] for function in functions]
            adds = [f"const {C_TYPES[self.input_dtype]} *row = {x};", *(line for pair in sums for line in pair)]
        elif payload.output is not None:
            calls = [f"{function}({x})" for function in functions]
            targets = ["sum" if self.output.size == 1 else f"{out}[{k}]" for k in payload.output]
            adds = [self._emit_add(c, *at, payload)[0] for at in zip(targets, calls, strict=True)]
        elif self.votes:
            adds = [f"{self._vote_function(c, functions, payload)}({out}, {x});"]
        else:
            body = block(self._emit_add(c, "out", "leaf", payload))
            source = f"static void {{name}}(int32_t *out, {payload.ctype} leaf)\n{body}"
            helper = c.helper(f"{self.output.name}_add", source)
            adds = [f"{helper}({out}, {function}({x}));" for function in functions]
        return block([*head, *adds, *tail])

    def _vote_function(self, c, functions, payload) -> str:
        """Add the function that adds the votes of all trees and return its name: apart, `out` stays in a register."""
        anew = read_anew(c, "x")
        lines = [[f"leaf = {function}(x);", *self._emit_add(c, "out", "leaf", payload), anew] for function in functions]
        body = block([f"{payload.ctype} leaf;", *(line for part in lines for line in part)])
        arguments = f"int32_t *out, const {C_TYPES[self.input_dtype]} *x"
        return c.helper(f"{self.output.name}_votes", f"static {no_inline(c)} void {{name}}({arguments})\n{body}")

    def _first(self, payload) -> np.ndarray:
        """Return what every row gets: the start, the trees of one leaf and the bias of the others."""
        row = self.leaf[~self.roots[self.roots < 0]]
        lone = np.bincount(row, minlength=self.output.size) if self.votes else self.values[row].sum(axis=0, dtype=int)
        first = self.start.astype(np.int64) + lone
        if payload.output is not None:
            first += payload.bias * np.bincount(payload.output, minlength=self.output.size)
        return (first + 2**31) % 2**32 - 2**31  # sums wrap on their way and end in the range

    def _emit_ends(self, c, out, before, first, factor=1) -> tuple[list[str], list[str]]:
        """Return the lines before and after the trees, whose one sum counts `factor` times."""
        if self.output.size == 1 and not self.votes:
            start = f"{int(first[0]) % 2**32}u"
            start = f"(uint32_t){before}[0] + {start}" if before else start
            if factor > 1:
                return ["uint32_t sum = 0u;"], [f"{out}[0] = (int32_t)({start} + {factor}u * sum);"]
            return [f"uint32_t sum = {start};"], [f"{out}[0] = (int32_t)sum;"]
        value = before and f"{before}[k]"
        if first.any() or not before:
            own = f"{c.constant(f'{self.output.name}_start', first)}[k]" if first.any() else "0"
            value = f"(int32_t)((uint32_t){value} + (uint32_t){own})" if before else own
        return ["unsigned k;", f"for (k = 0; k < {self.output.size}u; k++) {{", f"    {out}[k] = {value};", "}"], []

    def _indexed_target(self, c, out, payload) -> str:
        """Return what tree `i` adds to."""
        if payload.output is None or self.output.size == 1:
            return out if payload.output is None else "sum"
        same = (payload.output == payload.output[0]).all()
        tree = payload.output[0] if same else f"{c.constant(f'{self.output.name}_output', payload.output)}[i]"
        return f"{out}[{tree}]"

    def _emit_add(self, c, target, leaf, payload) -> list[str]:
        """Return the lines that add to `target` what `leaf` stands for. Unsigned sums may wrap on their way."""
        if self.votes:
            return [f"{target}[{leaf}] = (int32_t)((uint32_t){target}[{leaf}] + 1u);"]
        table = payload.values is not None and c.constant(f"{self.output.name}_values", payload.values)
        if payload.output is not None:
            # a variable, as gcc warns of a cast right where it reads a table of narrow signed numbers
            read = [f"const int32_t added = {table}[{leaf}];"] if table else []
            value = "(uint32_t)added" if table else leaf
            sum_up = f"sum += {value};" if target == "sum" else f"{target} = (int32_t)((uint32_t){target} + {value});"
            return [*read, sum_up]
        n = self.output.size
        index = f"(uint32_t){leaf} * {n}u" if payload.values.size > 0xFFFF else f"{leaf} * {n}u"
        return [
            f"const {c.space} {c.type_of(table)} *t = {table} + {index};",
            "unsigned j;",
            f"for (j = 0; j < {n}u; j++) {{",
            f"    {target}[j] = (int32_t)((uint32_t){target}[j] + (uint32_t)t[j]);",
            "}",
        ]
