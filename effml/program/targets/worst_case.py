"""A bound on the instructions of one prediction that holds for every row, from the machine code itself.

1. The linked function is disassembled and cut into basic blocks, and its loops are found (``flow.py``).
2. Every loop of the generated C says how often it turns at most, by its head or by a comment
   (``loops.py``). Line numbers of the debugging information lead from a machine loop to the loops of the C that it can
   be: those with a line of it, with as many loops around and within as the machine loop has.
3. The longest way through the blocks, each loop at its most turns, is the bound; called functions count at theirs.

It counts what the emulator counts, one for an instruction, and never less than any row takes. It is loose where the
longest branch is not taken in every turn, and in trees, all of which count as deep as the deepest.

Compilers move instructions out of loops, never into them, and at ``-Os`` turn no loop more often than its text says.
A machine loop that can be several gets the most turns of these; one that can be none raises `BoundError`. Loops of
library functions: those of arithmetic run at most once a bit (32); those that fill or copy memory as often as the bytes
that they are told suffice for what a pass writes.
"""

import bisect
import itertools
import re
import tempfile
from pathlib import Path

from effml.program.cgen import generate_c
from effml.program.program import Program
from effml.program.targets.disassembly import Disassembly, Instruction
from effml.program.targets.firmware import build, check_program, require, run_tool
from effml.program.targets.flow import Block, BoundError, longest_way
from effml.program.targets.loops import SourceLoop, loops_of
from effml.program.targets.measure import linked_alone, stated_frames
from effml.program.targets.profiles import Target, find_target

__all__ = ["BoundError", "worst_case_instructions"]

ARITHMETIC_TURNS = 32
_MEMORY = re.compile(r"mem(set|cpy|move)")
_STORES = {"strb": 1, "strh": 2, "str": 4, "strd": 8, "sb": 1, "sh": 2, "sw": 4}
_CONSTANTS = ("movs", "mov", "mov.w", "movw", "li")
ARM_CONDITIONS = ("eq", "ne", "cs", "hs", "cc", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le")


def worst_case_instructions(program: Program, *, target: str, output: str | None = None) -> int:
    """Return a number of instructions that no prediction exceeds.

    Parameters
    ----------
    program : Program
    target : {"cortex-m0", "cortex-m3", "cortex-m4f", "riscv32"}
    output : str, optional
        By default the label, or the value of a regressor.

    Raises
    ------
    BoundError
        A ValueError: the code has a loop or a jump that cannot be bounded, or the target counts cycles.
    CompileError
        A tool is not installed.
    """
    check_program(program)
    profile = find_target(target)
    if profile.counts != "instructions":
        raise BoundError(f"target={target!r} counts {profile.counts}; a bound is known for instructions alone")
    require(profile)
    source = generate_c(program, outputs=(output or program.main_output,))
    name = re.search(r"(\w+)\(", source.functions[0]).group(1)
    with tempfile.TemporaryDirectory(prefix="effml-") as folder:
        model = build(profile, source, folder)
        assembly = linked_alone(profile, [model], [name], folder)
        lines = _line_table(profile, Path(folder, "alone.elf"), f"{source.name}.c")
        frames = stated_frames(model.with_suffix(".su").read_text())
    return _Bounds(assembly, lines, source.source, max(frames.values(), default=0)).of(name)


def _line_table(target: Target, elf, file_name) -> list[tuple[int, int]]:
    """Return (address, line of the model's C, or 0 for any other file) of each piece of code, ascending."""
    text = run_tool([f"{target.prefix}objdump", "--dwarf=decodedline", "--wide", elf], None)
    table = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and words[2].startswith("0x"):
            known = words[0] == file_name and words[1].isdigit()
            table.append((int(words[2], 16), int(words[1]) if known else 0))
    return sorted(set(table))


class _Bounds:
    """The worst cases of the functions of one program, each found once."""

    def __init__(self, assembly: Disassembly, lines, text: str, stack_bytes: int):
        self.assembly, self.lines, self.stack_bytes = assembly, lines, stack_bytes
        self.places = [address for address, _ in lines]
        self.loops = loops_of(text)
        self.functions = _function_ranges(text)
        self.known: dict[tuple, int] = {}

    def of(self, name: str, above=(), n_bytes: int | None = None, entry: int | None = None) -> int:
        """Return the bound of a function and all that it calls.

        Parameters
        ----------
        name : str
        above : tuple of str
            The functions that have called it.
        n_bytes : int, optional
            What a memset or memcpy is told to do.
        entry : int, optional
            Where it is entered, if not at its first instruction: library functions share their ends.
        """
        body = self.assembly.functions.get(name)
        if not body:
            raise BoundError(f"the code of {name} is not in the program")
        if name in above:
            raise BoundError(f"{name} calls itself")
        entry = body[0].address if entry is None else entry
        if (entry, n_bytes) not in self.known:
            blocks = self._blocks(name, body, entry, (*above, name))
            found = longest_way(blocks, entry, lambda loops: self._passes(name, loops, n_bytes))
            self.known[entry, n_bytes] = found
        return self.known[entry, n_bytes]

    # -- blocks -------------------------------------------------------------------------------------------------------

    def _blocks(self, name, body, entry, above) -> dict[int, Block]:
        """Return the basic blocks of a function by address."""
        addresses = [each.address for each in body]
        inside, follows = set(addresses), dict(itertools.pairwise(addresses))
        kinds = [kind_of(self.assembly.target, each) for each in body]
        # Thumb-1 has no other jump as far as that of a call
        kinds = [
            "jump" if kind == "call" and each.target in inside and each.target != body[0].address else kind
            for kind, each in zip(kinds, body, strict=True)
        ]
        goes = {
            each.address: self._goes_to(name, each, kind, inside)
            for each, kind in zip(body, kinds, strict=True)
            if kind not in ("plain", "call")
        }
        begins = {addresses[0], entry}.union(*goes.values())
        begins |= {follows[address] for address in goes if address in follows}
        blocks, current = {}, None
        for position, (each, kind) in enumerate(zip(body, kinds, strict=True)):
            if each.address in begins:
                current, lines = Block(0, []), set()
                blocks[each.address] = current
            current.cost += 1 + self._called(each, kind, above, inside, body[:position])
            current.stored += _stored(each)
            lines.add(self._line_of(each.address))
            current.lines = frozenset(lines - {0})
            after = follows.get(each.address)
            onward = kind in ("plain", "call", "branch", "maybe")
            if onward and after is None and kind != "maybe":
                current.cost += self._runs_into(each, above)
            if each.address in goes or after in begins:
                current.successors = [*goes.get(each.address, ()), *([after] if onward and after is not None else [])]
        return blocks

    def _goes_to(self, name, each, kind, inside) -> list[int]:
        """Return the addresses inside the function that a jump can go to; one elsewhere is a call that ends it."""
        if kind == "indirect":
            found = self.assembly.in_tables(name)
            if not found or name in self.functions:
                raise BoundError(f"{name} jumps to an address that is computed ({each.name} {each.operands})")
            return found
        return [each.target] if each.target in inside else []

    def _called(self, each: Instruction, kind, above, inside, before) -> int:
        """Return the bound of what an instruction calls, or goes on to outside its function."""
        if each.target is None or kind in ("plain", "return", "maybe") or (kind != "call" and each.target in inside):
            return 0
        callee = self.assembly.function_at(each.target)
        if callee == above[-1]:
            raise BoundError(f"{callee} calls itself")
        n_bytes = self._size_told(before) if _MEMORY.search(callee) else None
        return self.of(callee, above, n_bytes, each.target)

    def _runs_into(self, each, above) -> int:
        """Return the bound of the function behind the last instruction of one."""
        later = [
            body[0].address for body in self.assembly.functions.values() if body and body[0].address > each.address
        ]
        if each.name.startswith(("udf", "nop", "ebreak")) or not later:
            return 0
        return self.of(self.assembly.function_at(min(later)), above, None, min(later))

    def _size_told(self, before) -> int:
        """Return the third argument of a call, if a constant is put into its register just before; else the stack."""
        register = "a2" if self.assembly.target.name == "riscv32" else "r2"
        for each in reversed(before):
            if each.operands.split(",")[0].strip() == register and not each.name.startswith(("cmp", "str")):
                number = re.fullmatch(rf"{register}, ?#?(\d+)", each.operands.strip())
                return int(number.group(1)) if number and each.name in _CONSTANTS else self.stack_bytes
            if kind_of(self.assembly.target, each) != "plain":
                break
        return self.stack_bytes

    def _line_of(self, address) -> int:
        place = bisect.bisect_right(self.places, address) - 1
        return self.lines[place][1] if place >= 0 else 0

    # -- loops --------------------------------------------------------------------------------------------------------

    def _passes(self, name, loops, n_bytes) -> dict[int, int]:
        """Return how often the head of each machine loop of a function is passed per entry."""
        own = self.functions.get(name.split(".")[0])
        if own is None:
            turns = {
                loop.head: ARITHMETIC_TURNS if n_bytes is None else n_bytes // max(loop.stored, 1) for loop in loops
            }
            return {head: number + 1 for head, number in turns.items()}
        return {loop.head: self._most_passes(name, loop, loops, own) for loop in loops}

    def _most_passes(self, name, loop, loops, own) -> int:
        """Return how often a machine loop is passed at most, whichever loop of the C it is."""
        possible = self._source_loops(loop, loops, own)
        if not possible:
            raise BoundError(f"{name} has a loop at {loop.head:#x} that is none of its C")
        return max(each.turns + (0 if loop.left_at_latches_only and not each.tests_first else 1) for each in possible)

    def _source_loops(self, loop, loops, own) -> list[SourceLoop]:
        """Return the loops of the C that a machine loop can be.

        Any loop with a line of it can, its own inner ones unrolled or its outer ones; as many loops of the C as of the
        machine must be around it, though, and within it. Lines of other functions are inlined ones.
        """
        touched = [each for each in self.loops if any(each.first <= line <= each.last for line in loop.lines)]
        if any(not own[0] <= line <= own[1] for line in loop.lines):
            return touched
        around = sum(1 for other in loops if loop.blocks < other.blocks)
        within = _nesting([other.blocks for other in loops if other.blocks < loop.blocks])
        ranges = [frozenset(range(each.first, each.last + 1)) for each in touched]
        return [
            each
            for each, lines in zip(touched, ranges, strict=True)
            if sum(1 for other in ranges if lines < other) >= around
            and _nesting([other for other in ranges if other < lines]) >= within
        ]


def _nesting(sets) -> int:
    """Return the length of the longest chain of sets, each within the one before."""
    return max((1 + _nesting([other for other in sets if other < each]) for each in sets), default=0)


def _stored(each: Instruction) -> int:
    """Return how many bytes an instruction surely writes."""
    return _STORES.get(each.name.removesuffix(".n").removesuffix(".w"), 0)


def _function_ranges(text) -> dict[str, tuple[int, int]]:
    """Return first and last line of each function of the generated C."""
    ranges, name, first, before = {}, None, 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if line == "{" and (found := re.search(r"(\w+)\([^()]*\)$", before)):
            name, first = found.group(1), number
        if line == "}" and name:
            ranges[name], name = (first, number), None
        before = line
    return ranges


def kind_of(target: Target, each: Instruction) -> str:
    """Return what an instruction does to the flow: "plain", "call", "branch", "jump", "return", "maybe" or "indirect".

    "maybe" is a return under a condition; an indirect jump goes to an address that is not in the instruction.
    """
    name, operands = each.name, each.operands
    if target.name == "riscv32":
        if name in ("ret", "jr"):
            return "return" if name == "ret" or operands.strip() in ("ra", "t0") else "indirect"
        if name == "jal":
            return "call"
        if name == "jalr":
            return "indirect"
        return "jump" if name == "j" else "branch" if name.startswith("b") else "plain"
    name = name.removesuffix(".n").removesuffix(".w")
    if name in ("tbb", "tbh", "udf") or (name == "blx" and each.target is None):
        return "indirect"
    if name in ("bl", "blx"):
        return "call"
    if name in ("cbz", "cbnz"):
        return "branch"
    if name == "b":
        return "jump"
    if name[:1] == "b" and name[1:] in ARM_CONDITIONS:
        return "branch"
    stem = name[:-2] if name[-2:] in ARM_CONDITIONS and name[:-2] in ("bx", "pop", "ldmia", "ldr", "mov", "b") else name
    conditional = stem != name
    if stem == "bx":
        return "indirect" if operands.strip() != "lr" else "maybe" if conditional else "return"
    loads_pc = (stem == "pop" or stem.startswith("ldm")) and re.search(r"\bpc\b", operands)
    if loads_pc or (stem in ("ldr", "mov") and operands.startswith("pc,")):
        if stem == "mov" and operands.split(",")[1].strip() != "lr":
            return "indirect"
        return "maybe" if conditional else "return"
    return "plain"
