"""Control flow of one machine function: basic blocks, loops, and the longest way through them.

Loops are natural loops (a branch back to a block that dominates it); what has others has no bound. The longest way is
found from the innermost loop outwards: a loop of at most t passes costs t times the longest way from its head round to
it, plus the longest way from its head to where it is left.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Block", "BoundError", "Loop", "longest_way"]


class BoundError(ValueError):
    """The worst case of a piece of code cannot be bounded; the message says why."""


@dataclass
class Block:
    """A straight piece of code.

    Attributes
    ----------
    cost : int
        Instructions, those of called functions included.
    successors : list of int
        Addresses of the blocks that can follow.
    lines : frozenset of int
        Lines of the C that it comes from.
    stored : int
        Bytes that it surely writes to memory.
    """

    cost: int
    successors: list[int]
    lines: frozenset = frozenset()
    stored: int = 0


@dataclass
class Loop:
    """A natural loop: its head, all its blocks, those that branch back, and the bytes that each pass surely writes."""

    head: int
    blocks: set[int]
    latches: set[int]
    lines: frozenset = field(default=frozenset())
    left_at_latches_only: bool = False
    stored: int = 0


def longest_way(blocks: dict[int, Block], entry: int, passes_of: Callable[[list[Loop]], dict[int, int]]) -> int:
    """Return the most instructions of any way from the entry to an end.

    Parameters
    ----------
    blocks : dict of int to Block
        By address.
    entry : int
    passes_of : callable
        ``passes_of(loops)``: by the head's address, how often each loop's head is passed at most per entry.
    """
    reached = _order(blocks, entry)
    loops = _natural_loops(blocks, entry, reached)
    passes = passes_of(loops) if loops else {}
    cost = {address: blocks[address].cost for address in reached}
    inner_of = {address: address for address in reached}  # the node that stands for a block once its loops are merged
    exits = {address: list(blocks[address].successors) for address in reached}
    for loop in sorted(loops, key=lambda each: len(each.blocks)):
        members = {inner_of[address] for address in loop.blocks}
        back = {address for address in members if any(inner_of[s] == loop.head for s in exits[address])}
        ways = _ways(members, loop.head, cost, exits, inner_of)
        round_trip = max(ways[address] for address in back)
        leaving = [a for a in members if any(inner_of[s] not in members for s in exits[a]) or not exits[a]]
        last = max((ways[address] for address in leaving), default=round_trip)
        out = sorted({s for a in members for s in exits[a] if inner_of[s] not in members})
        cost[loop.head] = max(passes[loop.head] - 1, 0) * round_trip + max(last, round_trip)
        for address in loop.blocks:
            inner_of[address] = loop.head
        exits[loop.head] = out
    nodes = set(inner_of.values())
    ways = _ways(nodes, inner_of[entry], cost, exits, inner_of)
    return max(ways.values())


def _order(blocks, entry) -> list[int]:
    """Return the blocks that the entry reaches, in reverse postorder."""
    seen, out, stack = {entry}, [], [(entry, iter(blocks[entry].successors))]
    while stack:
        address, rest = stack[-1]
        step = next((s for s in rest if s not in seen), None)
        if step is None:
            out.append(address)
            stack.pop()
        else:
            if step not in blocks:
                raise BoundError(f"a branch goes to {step:#x}, which is no instruction")
            seen.add(step)
            stack.append((step, iter(blocks[step].successors)))
    return out[::-1]


def _dominators(blocks, entry, order) -> dict[int, set[int]]:
    before = {address: [] for address in order}
    for address in order:
        for successor in blocks[address].successors:
            before[successor].append(address)
    dominators = {address: set(order) for address in order}
    dominators[entry] = {entry}
    changed = True
    while changed:
        changed = False
        for address in order:
            if address != entry:
                new = set.intersection(*(dominators[b] for b in before[address])) | {address}
                changed |= new != dominators[address]
                dominators[address] = new
    return dominators


def _natural_loops(blocks, entry, order) -> list[Loop]:
    place = {address: k for k, address in enumerate(order)}
    backward = [(a, s) for a in order for s in blocks[a].successors if place[s] <= place[a]]
    if not backward:
        return []
    dominators = _dominators(blocks, entry, order)
    before = {address: [] for address in order}
    for address in order:
        for successor in blocks[address].successors:
            before[successor].append(address)
    loops: dict[int, Loop] = {}
    for latch, head in backward:
        if head not in dominators[latch]:
            raise BoundError(f"the loop at {head:#x} is entered in its middle")
        loop = loops.setdefault(head, Loop(head, {head}, set()))
        loop.latches.add(latch)
        waiting = [latch]
        while waiting:
            address = waiting.pop()
            if address not in loop.blocks:
                loop.blocks.add(address)
                waiting += before[address]
    for loop in loops.values():
        loop.lines = frozenset().union(*(blocks[address].lines for address in loop.blocks))
        leaving = {a for a in loop.blocks if not set(blocks[a].successors) <= loop.blocks or not blocks[a].successors}
        loop.left_at_latches_only = leaving <= loop.latches
        loop.stored = blocks[loop.head].stored if len(loop.blocks) == 1 else 0
    return list(loops.values())


def _ways(members, head, cost, exits, inner_of) -> dict[int, int]:
    """Return the longest way from the head to the end of each member, not going through the head again."""
    following = {a: {inner_of[s] for s in exits[a]} & members - {head, a} for a in members}
    entering = dict.fromkeys(members, 0)
    for a in members:
        for s in following[a]:
            entering[s] += 1
    ways, ready = {head: cost[head]}, [head]
    while ready:
        address = ready.pop()
        for successor in following[address]:
            ways[successor] = max(ways.get(successor, 0), ways[address] + cost[successor])
            entering[successor] -= 1
            if not entering[successor]:
                ready.append(successor)
    return ways
