"""A linked program as functions of instructions: what stack depths and worst cases are read from."""

import bisect
import re
from dataclasses import dataclass
from functools import cached_property

from effml.program.targets.profiles import Target

__all__ = ["Disassembly", "Instruction"]

_LABEL = re.compile(r"^([0-9a-f]+) <([^>]+)>:$")
_LINE = re.compile(r"^ *([0-9a-f]+):\t([^\t]+?)\s*(?:\t(.*))?$")
_AVR_TARGET = re.compile(r"; 0x([0-9a-f]+)")
_TARGET = re.compile(r"(?:^|[,\s])(?:0x)?([0-9a-f]+) <")
_WORD = re.compile(r"\t\.word\t0x([0-9a-f]{8})")
_DUMPED = re.compile(r"^ [0-9a-f]+ ((?:[0-9a-f]{2,8} ){1,4})", re.MULTILINE)
_ARM_REGISTERS = re.compile(r"\{([^}]*)\}")


@dataclass(frozen=True)
class Instruction:
    """One machine instruction.

    Attributes
    ----------
    address : int
    name, operands : str
    target : int or None
        Address that a branch or call names.
    """

    address: int
    name: str
    operands: str
    target: int | None


class Disassembly:
    """Instructions of a linked program by function.

    Parameters
    ----------
    text : str
        What ``objdump -d --no-show-raw-insn`` prints.
    target : Target
    constants : str
        What ``objdump -s`` prints: the contents of the sections, among which are the tables of computed jumps.
    """

    def __init__(self, text: str, target: Target, constants: str = ""):
        self.target = target
        self.words = _words(constants) | {int(word, 16) for word in _WORD.findall(text)}
        self.functions: dict[str, list[Instruction]] = {}
        self._starts: list[tuple[int, str]] = []
        current: list[Instruction] = []
        for line in text.splitlines():
            if label := _LABEL.match(line):
                current = self.functions.setdefault(label.group(2), [])
                self._starts.append((int(label.group(1), 16), label.group(2)))
            elif found := _LINE.match(line):
                address, name, operands = found.groups(default="")
                if not name.startswith("."):  # data among the code
                    named = (_AVR_TARGET if target.name == "avr" else _TARGET).search(operands)
                    destination = int(named.group(1), 16) if named and self._goes(name) else None
                    current.append(Instruction(int(address, 16), name, operands.split(";")[0], destination))
        self._starts.sort()

    def _goes(self, name) -> bool:
        """Return whether an instruction with an address in its operands goes there, instead of reading it."""
        first = {"avr": ("br", "rj", "jm", "rc", "ca"), "riscv32": ("b", "j", "c.")}.get(self.target.name, ("b", "cb"))
        return name.startswith(first) and not name.startswith(("bic", "bfi", "bfc", "bkpt"))

    def function_at(self, address: int) -> str | None:
        """Return the function that holds an address."""
        place = bisect.bisect_right(self._starts, (address, "\x7f")) - 1
        return self._starts[place][1] if place >= 0 else None

    def in_tables(self, name: str) -> list[int]:
        """Return the addresses inside a function that some constant holds: where its computed jumps can go."""
        body = {each.address for each in self.functions[name]}
        return sorted(body & (self.words | {word - 1 for word in self.words if word & 1}))

    @cached_property
    def callees(self) -> dict[str, set[str]]:
        """Functions that each function calls or goes on to."""
        return {
            name: {self.function_at(each.target) for each in body if each.target is not None} - {name, None}
            for name, body in self.functions.items()
        }

    def frame_bytes(self, name: str) -> int:
        """Return what a function's own instructions push, each counted once: a bound where none is in a loop.

        On AVR also its return address, which a call pushes there.
        """
        return_address = 2 if self.target.name == "avr" else 0
        return return_address + sum(_pushed(self.target, each) for each in self.functions[name])

    def stack_bytes(self, name: str, frames: dict[str, int]) -> int:
        """Return the deepest stack of a function and all that it calls.

        Parameters
        ----------
        name : str
        frames : dict of str to int
            What the compiler says of its own functions (``-fstack-usage``); others are read off their instructions.
        """
        below = {}

        def depth(function, above):
            if function in above or function not in self.functions:
                return 0
            if function not in below:
                own = frames.get(function, self.frame_bytes(function))
                called = [depth(each, (*above, function)) for each in self.callees[function]]
                below[function] = own + max(called, default=0)
            return below[function]

        return depth(name, ())


def _words(dump: str) -> set[int]:
    """Return the little-endian words of four bytes in the constants of a program."""
    words = set()
    for section in dump.split("Contents of section ")[1:]:
        if section.startswith((".rodata", ".srodata", ".text")):
            groups = [group for line in _DUMPED.findall(section) for group in line.split()]
            words |= {int.from_bytes(bytes.fromhex(group), "little") for group in groups if len(group) == 8}
    return words


def _pushed(target: Target, instruction: Instruction) -> int:
    name, operands = instruction.name, instruction.operands
    if target.name == "avr":
        return {"push": 1, "call": 2, "rcall": 2}.get(name, 0)
    if target.name == "riscv32":
        moved = re.match(r"sp,sp,-(\d+)", operands) if name.startswith(("add", "c.add")) else None
        return int(moved.group(1)) if moved else 0
    if name.startswith(("push", "stmdb")) and (name.startswith("push") or operands.startswith("sp!")):
        return 4 * _count_registers(_ARM_REGISTERS.search(operands).group(1))
    if name.startswith("vpush"):
        return 4 * _count_registers(_ARM_REGISTERS.search(operands).group(1))
    moved = re.match(r"sp, (?:sp, )?#(\d+)", operands) if name.startswith("sub") else None
    if moved:
        return int(moved.group(1))
    stored = re.search(r"\[sp, #-(\d+)\]!", operands)
    return int(stored.group(1)) if stored else 0


def _count_registers(text: str) -> int:
    total = 0
    for part in text.split(","):
        ends = [int(number) for number in re.findall(r"[rs](\d+)", part)]
        total += ends[1] - ends[0] + 1 if len(ends) == 2 else 1
    return total
