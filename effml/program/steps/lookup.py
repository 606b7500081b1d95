"""Sum rows of lookup tables: naive Bayes, TAN and one-hot linear models, in four layouts of the same integers."""

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml.program.buffers import DTYPES, smallest_unsigned
from effml.program.cwriter import C_TYPES, block, indent
from effml.program.steps.base import Cost, Step
from effml.program.steps.binning import ranges

__all__ = ["LAYOUTS", "LookupSum", "choose_layout", "pack_fields"]

LAYOUTS = ("byte", "dense", "swar", "float")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LookupSum(Step):
    """``out[c] = start[c] + sum_i table[row_i, c]`` with ``row_i`` chosen by feature i's code and its parent's.

    A factor whose own or parent's code is out of range adds nothing, so no input can read past the table.

    Attributes
    ----------
    columns : int array (n_factors,)
        Code that each factor reads.
    states : int array (n_codes,)
        Number of states of each code.
    parents : int array (n_factors,)
        The other code that a factor depends on, -1 for none.
    table : uint8 or float32 array (n_rows, n_out)
        Rows of factor 0, factor 1, ...; within a factor the row is ``code * states[parent] + code_of_parent``.
    start : array (n_out,) or None
        Initial value (the class prior); the table's type, or uint16.
    n_bits : int
        Bits of an integer entry, 1 to 8; 32 for float tables.
    layout : {"byte", "dense", "swar", "float"}
        How the integers are stored and added in C: one a byte; `n_bits` each without gaps; 1, 2 or 4 bits each, four
        lanes added at once in a 32-bit word. Float tables are always "float".
    checked : bool
        Whether codes may be out of range. A pass clears it when the producer cannot make such codes.
    """

    kind: ClassVar[str] = "lookup_sum"

    columns: np.ndarray
    states: np.ndarray
    parents: np.ndarray
    table: np.ndarray
    start: np.ndarray | None
    n_bits: int
    layout: str
    checked: bool = True

    def __post_init__(self):
        rows = self.rows_per_factor.sum()
        if self.table.shape != (rows, self.output.size):
            raise ValueError(f"table has shape {self.table.shape}, states and parents need {(rows, self.output.size)}")
        if self.layout not in LAYOUTS or (self.layout == "float") != (self.table.dtype == np.float32):
            raise ValueError(f"layout={self.layout!r} does not fit a table of {self.table.dtype}; layouts: {LAYOUTS}")

    @property
    def rows_per_factor(self) -> np.ndarray:
        parent_states = np.where(self.parents >= 0, self.states[self.parents], 1)
        return self.states[self.columns].astype(np.int64) * parent_states

    def run(self, codes):
        accumulator = np.float32 if self.layout == "float" else np.int64
        out = np.zeros((len(codes), self.output.size), dtype=accumulator)
        if self.start is not None:
            out += self.start.astype(accumulator)
        first = ranges(self.rows_per_factor)
        for i, (column, parent) in enumerate(zip(self.columns, self.parents, strict=True)):
            row, valid = codes[:, column].astype(np.int64), codes[:, column] < self.states[column]
            if parent >= 0:
                row = row * self.states[parent] + codes[:, parent]
                valid = valid & (codes[:, parent] < self.states[parent])
            out[valid] += self.table[first[i] + row[valid]].astype(accumulator)
        return out.astype(DTYPES[self.output.dtype])

    def cost(self):
        n_values = self.table.size + (0 if self.start is None else self.start.size)
        adds = len(self.columns) * self.output.size
        variant = self.layout + ("_parents" if (self.parents >= 0).any() else "")
        if self.layout == "swar" and self._needs_flush():
            variant += "_flush"
        return Cost(
            n_parameters=n_values,
            bits=n_values * self.n_bits,
            operations=Counter(lookup=len(self.columns), add=adds),
            variants=(variant, *(("checked",) if self.checked else ())),
        )

    def describe(self):
        edges = int((self.parents >= 0).sum())
        text = f"{len(self.table)} rows x {self.output.size}, "
        text += "float32" if self.layout == "float" else f"{self.n_bits} bits, {self.layout}"
        return text + (f", {edges} parents" if edges else "")

    def in_range(self, bound) -> bool:
        """Return whether codes below `bound` (one of each column) need no check."""
        return bool((bound <= self.states).all())

    def largest_sum(self) -> int:
        """Return a proven bound on every output of integer tables."""
        first = ranges(self.rows_per_factor)
        total = np.zeros(self.output.size, dtype=np.int64)
        if self.start is not None:
            total += self.start.astype(np.int64)
        for a, b in itertools.pairwise(first):
            if b > a:
                total += self.table[a:b].max(axis=0)
        return int(total.max())

    # -- C ------------------------------------------------------------------------------------------------------------

    def emit_c(self, c, ref):
        out = ref(self.output.name)
        emit = {"byte": self._add_plain, "float": self._add_plain, "dense": self._add_dense, "swar": self._add_swar}
        head, add, after_each, tail = emit[self.layout](c, out)
        return block(["unsigned i, c;", *head, *self._emit_factors(c, ref(self.inputs[0]), add, after_each), *tail])

    def _emit_start(self, c, out):
        cell, zero = C_TYPES[self.output.dtype], "0.0f" if self.layout == "float" else "0"
        value = zero if self.start is None else f"{self._start_constant(c)}[c]"
        return [f"for (c = 0; c < {self.output.size}u; c++) {{", f"    {out}[c] = ({cell}){value};", "}"]

    def _start_constant(self, c):
        return c.constant(f"{self.output.name}_start", self.start)

    def _emit_factors(self, c, codes, add, after_each):
        """Return the loop over features; `add` uses `row`, the number of the table row."""
        n, tag = len(self.columns), self.output.name
        plain = np.array_equal(self.columns, np.arange(n)) and n == len(self.states)
        own = "i" if plain else f"{c.constant(f'{tag}_columns', self.columns)}[i]"
        row_type = C_TYPES[smallest_unsigned(max(len(self.table), 256))]
        same = (self.states == self.states[0]).all()
        states = f"{int(self.states[0])}u" if same else f"{c.constant(f'{tag}_states', self.states)}[j]"
        head, body = [f"{row_type} first = 0;"], [f"const unsigned j = {own}, n = {states}, k = {codes}[j];"]
        if (self.parents >= 0).any():
            none = 255 if len(self.states) <= 255 else 65535
            parents = c.constant(f"{tag}_parents", np.where(self.parents < 0, none, self.parents))
            table = f"{int(self.states[0])}u" if same else f"{c.constant(f'{tag}_states', self.states)}[p]"
            body += [
                f"const unsigned p = {parents}[i];",
                f"const unsigned np = p == {none}u ? 1u : {table}, kp = p == {none}u ? 0u : {codes}[p];",
            ]
            row, valid, size = "k * np + kp", "k < n && kp < np", "n * np"
        else:
            row, valid, size = "k", "k < n", "n"
        add = [f"const {row_type} row = ({row_type})(first + {row});", *add]
        body += [f"if ({valid}) {{", *indent(add), "}"] if self.checked else add
        body += [f"first = ({row_type})(first + {size});", *after_each]
        return [*head, f"for (i = 0; i < {n}u; i++) {{", *indent(body), "}"]

    def _add_plain(self, c, out):
        table = c.constant(f"{self.output.name}_table", self.table, "f32" if self.layout == "float" else "u8")
        n, cell = self.output.size, C_TYPES[self.output.dtype]
        c.uses_float |= self.layout == "float"
        index = _wide("row", len(self.table) * n)
        add = [
            f"const {c.space} {c.type_of(table)} *t = {table} + {index} * {n}u;",
            f"for (c = 0; c < {n}u; c++) {{",
            f"    {out}[c] = ({cell})({out}[c] + t[c]);",
            "}",
        ]
        return self._emit_start(c, out), add, [], []

    def _add_dense(self, c, out):
        bits, n, cell = self.n_bits, self.output.size, C_TYPES[self.output.dtype]
        straddles = bits not in (1, 2, 4, 8)
        packed = pack_fields(self.table.ravel(), bits)
        table = c.constant(f"{self.output.name}_packed", np.append(packed, np.uint8(0)) if straddles else packed, "u8")
        first_bit = _wide("row", self.table.size * bits)
        word = "(t[0] | (unsigned)t[1] << 8)" if straddles else "(unsigned)t[0]"
        add = [
            f"const {'uint32_t' if '32' in first_bit else 'unsigned'} bit = {first_bit} * {n * bits}u;",
            f"const {c.space} uint8_t *t = {table} + (bit >> 3);",
            "unsigned shift = (unsigned)(bit & 7u);",
            f"for (c = 0; c < {n}u; c++) {{",
            f"    {out}[c] = ({cell})({out}[c] + ({word} >> shift & {(1 << bits) - 1}u));",
            f"    shift += {bits}u;",
            "    t += shift >> 3;",
            "    shift &= 7u;",
            "}",
        ]
        return self._emit_start(c, out), add, [], []

    # SWAR: a row is little-endian `width`-bit fields padded to whole bytes. A 32-bit word holds 32 / width fields;
    # field f is lane f // per (a byte) of accumulator f % per, so one shift, mask and add serves four fields.

    @property
    def _width(self) -> int:
        return next(width for width in (1, 2, 4) if self.n_bits <= width)

    def _needs_flush(self) -> bool:
        start = 0 if self.start is None else int(self.start.min())
        return self.largest_sum() - start > 255

    def _add_swar(self, c, out):
        width, n, cell = self._width, self.output.size, C_TYPES[self.output.dtype]
        per, fields = 8 // width, 32 // width
        row_bytes, words = -(-n * width // 8), -(-n // fields)
        rows = np.stack([pack_fields(row, width) for row in self.table]) if len(self.table) else self.table
        # the last word of the last row may reach past its bytes
        table = c.constant(f"{self.output.name}_lanes", np.append(rows.ravel(), np.zeros(4, np.uint8)), "u8")
        lane_mask = sum(((1 << width) - 1) << (8 * lane) for lane in range(4))
        head = [f"uint32_t lane[{words * per}] = {{0}};"]
        shifts = [f"lane[w * {per}u + {m}u] += word >> {m * width} & 0x{lane_mask:08x}u;" for m in range(per)]
        add = [
            f"const {c.space} uint8_t *t = {table} + {_wide('row', len(self.table) * row_bytes)} * {row_bytes}u;",
            "unsigned w;",
            f"for (w = 0; w < {words}u; w++) {{",
            "    const uint32_t word = t[0] | (uint32_t)t[1] << 8 | (uint32_t)t[2] << 16 | (uint32_t)t[3] << 24;",
            *indent(shifts),
            "    t += 4;",
            "}",
        ]
        log = {2: 1, 4: 2, 8: 3, 16: 4, 32: 5}
        field = f"(c & {fields - 1}u)"
        lane = f"lane[(c >> {log[fields]}) * {per}u + (c & {per - 1}u)] >> ({field} >> {log[per]}) * 8u & 255u"
        spread = [f"{out}[c] = ({cell})({out}[c] + ({lane}));"]
        if not self._needs_flush():
            start = "" if self.start is None else f" + {self._start_constant(c)}[c]"
            tail = [f"for (c = 0; c < {n}u; c++) {{", f"    {out}[c] = ({cell})(({lane}){start});", "}"]
            return head, add, [], tail
        every = 255 // int(self.table.max())  # rows that surely fit a byte lane
        flush = [
            f"if (++filled == {every}u || i == {len(self.columns) - 1}u) {{",
            "    filled = 0;",
            f"    for (c = 0; c < {n}u; c++) {{",
            *indent(indent(spread)),
            "    }",
            f"    memset(lane, 0, {words * per * 4}u);",
            "}",
        ]
        head += ["unsigned filled = 0;", *self._emit_start(c, out)]
        return head, add, flush, []


def _wide(index: str, limit: int) -> str:
    """Return `index` in a type in which products up to `limit` cannot wrap, on 16-bit machines either."""
    return f"(uint32_t){index}" if limit > 65535 else f"(unsigned){index}"


def pack_fields(values: np.ndarray, width: int) -> np.ndarray:
    """Return unsigned values as consecutive `width`-bit fields, least significant bit first, in whole bytes."""
    values = np.asarray(values, dtype=np.uint8)
    bits = (values[:, None] >> np.arange(width, dtype=np.uint8)) & 1
    return np.packbits(bits.ravel(), bitorder="little")


# SWAR is two to three times as fast as the other layouts (benchmarks/bayes_flash.py): worth this share of the bytes.
_SPEED_WORTH = 0.03


def choose_layout(n_bits: int, n_rows: int, n_out: int, *, prefer: str = "auto") -> str:
    """Return how to store integer tables, by table bytes plus calibrated code bytes.

    Parameters
    ----------
    n_bits, n_rows, n_out : int
    prefer : {"auto", "size", "speed"}
        "size": the fewest bytes. "speed": SWAR lanes where the entries fit 4 bits, else bytes. "auto": the fewest
        bytes, but SWAR where it costs at most 3 % more.
    """
    from effml.program.code_bytes import CODE_BYTES

    code = CODE_BYTES["host"]
    sizes = {"byte": n_rows * n_out + code["lookup_sum", "byte"]}
    if n_bits < 8:
        sizes["dense"] = -(-n_rows * n_out * n_bits // 8) + code["lookup_sum", "dense"]
    if n_bits <= 4:
        width = next(width for width in (1, 2, 4) if n_bits <= width)
        sizes["swar"] = n_rows * -(-n_out * width // 8) + 4 + code["lookup_sum", "swar"]
    smallest = min(sizes, key=sizes.get)
    if prefer == "speed":
        return "swar" if "swar" in sizes else "byte"
    if prefer == "auto" and sizes.get("swar", np.inf) <= (1 + _SPEED_WORTH) * sizes[smallest]:
        return "swar"
    return smallest
