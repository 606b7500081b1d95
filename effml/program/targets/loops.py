"""The loops of the generated C, with how often each turns at most: read off the text, which says so at every loop."""

import re
from dataclasses import dataclass

__all__ = ["SourceLoop", "loops_of"]

_COMMENT = re.compile(r"/\* at most (\d+) turns \*/")
_COUNTED = re.compile(r"for \((\w+) = (\d+)u?; \1 < (\d+)u; \1\+\+\)")
_HEAD = re.compile(r"^\s*(?:for|while) \(|^\s*do \{")


@dataclass(frozen=True)
class SourceLoop:
    """One loop.

    Attributes
    ----------
    first, last : int
        Lines, from 1.
    turns : int
        The most times its body begins.
    tests_first : bool
        Whether it tests once more than it turns.
    """

    first: int
    last: int
    turns: int
    tests_first: bool


def loops_of(source: str) -> list[SourceLoop]:
    """Return the loops of generated C.

    Raises
    ------
    ValueError
        A loop says neither by its head nor by a comment how often it turns.

    Examples
    --------
    >>> from effml.program.targets.loops import loops_of
    >>> loops_of("for (i = 0; i < 16u; i++) {\\n    do { /* at most 3 turns */\\n    } while (n);\\n}")[1].turns
    3
    """
    loops, open_loops, depth = [], [], 0
    for number, line in enumerate(source.splitlines(), start=1):
        code = re.sub(r"/\*.*?\*/", "", line)
        if _HEAD.search(line):
            open_loops.append((number, depth, line))
        depth += code.count("{") - code.count("}")
        while open_loops and depth <= open_loops[-1][1] and number > open_loops[-1][0]:
            first, _, head = open_loops.pop()
            loops.append(_loop(first, number, head))
    return sorted(loops, key=lambda loop: loop.first)


def _loop(first, last, head) -> SourceLoop:
    stated, counted = _COMMENT.search(head), _COUNTED.search(head)
    if not stated and not counted:
        raise ValueError(f"the loop of line {first} does not say how often it turns: {head.strip()}")
    turns = int(stated.group(1)) if stated else int(counted.group(3)) - int(counted.group(2))
    # "for (;;)" and "do" begin with a turn, and so does a loop that counts to a constant: its first test is known
    tests_first = stated is not None and re.search(r"for \(;;\)|\bdo \{", head) is None
    return SourceLoop(first, last, max(turns, 0), tests_first)
