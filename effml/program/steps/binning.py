"""Bin raw columns into small integer codes: by edges (numbers) or by exact values (categories)."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml._cext.bin_edges import bin_edges
from effml.program.buffers import DTYPES, smallest_unsigned
from effml.program.cwriter import C_TYPES, block, indent, key_of_float32, narrowest, turns
from effml.program.steps.base import Cost, Step
from effml.program.steps.packing import emit_count

__all__ = ["Bin", "as_keys", "emit_key", "ranges"]


def ranges(lengths: np.ndarray) -> np.ndarray:
    """Return the cumulative starts of consecutive runs, one longer than `lengths`."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def as_keys(thresholds: np.ndarray) -> np.ndarray:
    """Return thresholds as C compares them: int32 keys for float32 (no soft float on the target), else unchanged."""
    return key_of_float32(thresholds) if thresholds.dtype == np.float32 else thresholds


def emit_key(c, dtype: str) -> str:
    """Return the conversion of a raw value to what C compares: a cast, or for floats a helper that gives int32 keys."""
    if dtype != "f32":
        return f"({C_TYPES[dtype]})"
    return c.helper(
        "key",
        """/* Integer key in the order of the floats (both zeros give 0), so that comparing needs no floating point. */
static int32_t {name}(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (bits > 0x80000000u) {
        return -(int32_t)(bits & 0x7fffffffu);
    }
    return (int32_t)(bits & 0x7fffffffu);
}""",
    )


NAN_KEY = "0x7f800000"  # keys beyond +-0x7f800000 belong to NaN


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Bin(Step):
    """Code of each column: ``number of edges e with x > e``, or the position of x among exact `values`.

    Attributes
    ----------
    columns : int array (n_out,)
        Which raw column each output reads.
    by_value : bool array (n_out,)
        Columns coded by exact match.
    n_cuts : int array (n_out,)
        Edges of the column, or number of its values.
    cuts : array (sum of n_cuts,)
        Ascending edges or values in the type of the raw row.
    codes : int array (sum of n_cuts + n_out,)
        Output codes. By edges: of each interval, ``n_cuts + 1`` of them. By value: of each value, then of no match.
    missing : int array (n_out,)
        Code of a NaN (by value: equal to the code of no match).
    """

    kind: ClassVar[str] = "bin"

    columns: np.ndarray
    by_value: np.ndarray
    n_cuts: np.ndarray
    cuts: np.ndarray
    codes: np.ndarray
    missing: np.ndarray

    @property
    def dtype(self) -> np.dtype:
        return self.cuts.dtype

    def parts(self):
        """Yield (output position, column, by_value, cuts, codes, missing) of every output."""
        starts = ranges(self.n_cuts)
        for i, column in enumerate(self.columns):
            cuts = self.cuts[starts[i] : starts[i + 1]]
            codes = self.codes[starts[i] + i : starts[i + 1] + i + 1]
            yield i, int(column), bool(self.by_value[i]), cuts, codes, int(self.missing[i])

    @classmethod
    def of(cls, columns, output, *, inputs=("x",), dtype=np.float32):
        """Build from ``(column, by_value, cuts, codes or None, missing)`` tuples; `codes` None counts from 0."""
        cuts = [np.asarray(part[2], dtype=dtype) for part in columns]
        codes = [
            np.arange(len(cut) + 1) if part[3] is None else np.asarray(part[3])
            for cut, part in zip(cuts, columns, strict=True)
        ]
        for cut in cuts:
            if cut.size > 1 and not np.all(cut[1:] > cut[:-1]):
                raise ValueError(f"cuts {cut} must ascend strictly")
        return cls(
            inputs=tuple(inputs),
            output=output,
            columns=np.array([part[0] for part in columns], dtype=np.int32),
            by_value=np.array([part[1] for part in columns], dtype=bool),
            n_cuts=np.array([len(cut) for cut in cuts], dtype=np.int32),
            cuts=np.concatenate([*cuts, np.empty(0, dtype=dtype)]).astype(dtype),
            codes=np.concatenate(codes).astype(np.int32),
            missing=np.array([part[4] for part in columns], dtype=np.int32),
        )

    def run(self, x):
        out = np.empty((len(x), self.output.size), dtype=DTYPES[self.output.dtype])
        for i, column, by_value, cuts, codes, missing in self.parts():
            values = x[:, column]
            if by_value:
                position = np.searchsorted(cuts, values, side="left")
                inside = position < len(cuts)
                hit = np.zeros(len(values), dtype=bool)
                hit[inside] = cuts[position[inside]] == values[inside]
                out[:, i] = np.where(hit, codes[np.minimum(position, len(cuts))], codes[-1])
                if values.dtype.kind == "f":
                    out[np.isnan(values), i] = missing
            else:
                bin_edges(values, cuts, codes, missing, out[:, i])
        return out

    @property
    def n_states(self):
        is_float = self.dtype.kind == "f"
        return np.array([max(codes.max(), missing if is_float else 0) + 1 for *_, codes, missing in self.parts()])

    def cost(self):
        searches = [(search, len(part[3])) for search, parts in self._groups().items() for part in parts]
        compares = sum({"bisect": int(n).bit_length(), "index": 2, "mask": 1}.get(search, n) for search, n in searches)
        dtype = "float" if self.dtype.kind == "f" else "int"
        groups = sorted({search for search, _ in searches})
        variants = [f"{search}_{dtype}" for search in groups] + ["count_bits"] * ("mask" in groups)
        recoded = {search for search, parts in self._groups().items() if not all(_counts(part[4]) for part in parts)}
        scattered = len(groups) > 1 or not np.array_equal(self.columns, np.arange(len(self.columns)))
        variants += ["recoded"] * len(recoded) + ["scattered"] * (len(groups) if scattered else 0)
        width = 8 * self.dtype.itemsize
        counted = Counter(popcount=sum(search == "mask" for search, _ in searches))
        return Cost(
            operations=Counter(compare=compares) + counted,
            bits=int(self.n_cuts.sum()) * width,
            variants=tuple(variants),
        )

    def describe(self):
        by_value = int(self.by_value.sum())
        text = f"{self.output.size - by_value} columns by {int(self.n_cuts[~self.by_value].sum())} edges"
        return text + (f", {by_value} by value" if by_value else "")

    # -- C ------------------------------------------------------------------------------------------------------------

    def emit_c(self, c, ref):
        return "\n".join(self._emit_group(c, ref, search, parts) for search, parts in sorted(self._groups().items()))

    def _groups(self) -> dict[str, list]:
        """Return the parts by how C finds their codes: small edges by counting bits where that takes less flash."""
        groups: dict[str, list] = {}
        for part in self.parts():
            groups.setdefault(_search_of(part), []).append(part)
        linear = groups.get("linear", [])
        if self.dtype.kind == "u" and linear and max(int(part[3][-1]) for part in linear) <= MAX_MASKED:
            masks = np.array([_mask_of(part) for part in linear])
            if narrowest(masks).nbytes + MASK_CODE < sum(len(part[3]) + 1 for part in linear):
                groups["mask"] = groups.pop("linear")
        return groups

    def _emit_group(self, c, ref, search, parts):
        """Return the loop over all columns that are searched in the same way."""
        tag = f"{self.output.name}_{search}"
        dtype = next(name for name, value in DTYPES.items() if value == self.dtype)
        ctype = "int32_t" if dtype == "f32" else C_TYPES[dtype]
        counts = np.array([len(part[3]) for part in parts])
        size = C_TYPES[smallest_unsigned(int(counts.max()) + 1)]

        def raw():
            return f"{ref(self.inputs[0])}[{_indexed(c, f'{tag}_column', [part[1] for part in parts])}]"

        target = f"{ref(self.output.name)}[{_indexed(c, f'{tag}_output', [part[0] for part in parts])}]"
        head, body = ["unsigned i;"], _emit_search(search, size, dtype, int(counts.max()))
        if search == "mask":
            masks = c.constant(f"{tag}s", np.array([_mask_of(part) for part in parts]))
            below = f"(uint32_t){masks}[i] & ~(0xffffffffu << (v < {MAX_MASKED + 1}u ? v : {MAX_MASKED + 1}u))"
            body = [f"const {size} k = ({size}){emit_count(c)}({below});"]
        if search in ("linear", "bisect", "match"):
            cuts = c.constant(f"{tag}_cuts", as_keys(np.concatenate([part[3] for part in parts])))
            head.append(f"const {c.space} {c.type_of(cuts)} *cut = {cuts};")
            body.append("cut += n;")
        code = "k"
        if not all(_counts(part[4]) for part in parts):
            codes = c.constant(f"{tag}_codes", np.concatenate([part[4] for part in parts]))
            head.append(f"const {c.space} {c.type_of(codes)} *code = {codes};")
            body += ["code += n + 1u;"]
            code = "code[k]"
        if dtype == "f32" and search in _BY_EDGE and any(not part[2] for part in parts):
            after_last = code == "k" and all(part[5] == len(part[3]) + 1 for part in parts)
            missing = "n + 1" if after_last else _indexed(c, f"{tag}_nan", [part[5] for part in parts])
            code = f"(v > {NAN_KEY} || v < -{NAN_KEY}) ? {missing} : {code}"
        position = next((k for k, line in enumerate(body) if line in ("cut += n;", "code += n + 1u;")), len(body))
        body.insert(position, f"{target} = ({C_TYPES[self.output.dtype]})({code});")
        if _reads(body, "n"):
            body = [f"const {size} n = ({size}){_indexed(c, f'{tag}_count', counts)};", *body]
        if _reads(body, "v"):
            value = f"const float v = {raw()};" if search == "index" and dtype == "f32" else None
            body = [value or f"const {ctype} v = {emit_key(c, dtype)}({raw()});", *body]
        return block([*head, f"for (i = 0; i < {len(parts)}u; i++) {{", *indent(body), "}"])


MAX_MASKED = 30  # the largest edge with a bit of its own; a word shifted by one more is still defined
MASK_CODE = 20  # bytes of code beyond those of a linear search
MAX_LINEAR_CUTS = 24  # from here on a binary search costs fewer operations than its 30 extra bytes of code are worth


def _counts(codes) -> bool:
    return np.array_equal(codes, np.arange(len(codes)))


def _mask_of(part) -> int:
    """Return one bit for every edge."""
    return sum(1 << cut for cut in part[3].tolist())


def _search_of(part) -> str:
    """Return how C finds the code of a column: "linear" or "bisect" by edges, "match" or "index" by value."""
    _, _, by_value, cuts, *_ = part
    if not len(cuts):
        return "constant"
    if not by_value:
        return "linear" if len(cuts) <= MAX_LINEAR_CUTS else "bisect"
    return "index" if np.array_equal(cuts, np.arange(len(cuts))) else "match"


_BY_EDGE = ("linear", "bisect", "constant")


def _reads(body, name):
    return any(re.search(rf"\b{name}\b", line) for line in body)


def _emit_search(search, size, dtype, largest):
    if search == "constant":
        return [f"const {size} k = 0;"]
    if search == "linear":
        return [f"{size} k = 0;", f"while (k < n && v > cut[k]) {{{turns(largest)}", "    k++;", "}"]
    if search == "match":
        return [f"{size} k = 0;", f"while (k < n && v != cut[k]) {{{turns(largest)}", "    k++;", "}"]
    if search == "bisect":
        return [
            f"{size} k = 0, end = n;",
            f"while (k < end) {{{turns(largest.bit_length())}",
            f"    const {size} middle = ({size})(k + (end - k) / 2);",
            "    if (v > cut[middle]) {",
            f"        k = ({size})(middle + 1);",
            "    } else {",
            "        end = middle;",
            "    }",
            "}",
        ]
    if dtype == "f32":  # a NaN fails both comparisons
        return [
            f"{size} k = n;",
            "if (v >= 0.0f && v < (float)n) {",
            f"    k = ({size})v;",
            "    if ((float)k != v) {",
            "        k = n;",
            "    }",
            "}",
        ]
    guard = "v < n" if dtype in ("u8", "u16") else "v >= 0 && v < n"
    return [f"const {size} k = ({guard}) ? ({size})v : n;"]


def _indexed(c, hint, values):
    """Return C for ``values[i]``: ``i`` itself or a literal where possible, else an element of a constant array."""
    values = np.asarray(values)
    if np.array_equal(values, np.arange(len(values))):
        return "i"
    return str(int(values[0])) if (values == values[0]).all() else f"{c.constant(hint, values)}[i]"
