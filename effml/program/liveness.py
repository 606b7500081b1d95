"""Storage for buffers by how long they live: those never alive together share it."""

from dataclasses import dataclass

from effml.program.cwriter import C_TYPES

__all__ = ["Slot", "assign", "declare"]


@dataclass(frozen=True)
class Slot:
    """Storage shared by buffers that are never alive together."""

    buffers: list
    nbytes: int


def assign(steps, kept, outside=frozenset()) -> list[Slot]:
    """Assign the outputs of steps to storage, largest first.

    Parameters
    ----------
    steps : sequence of Step
        In their order.
    kept : iterable of str
        Names of buffers that are read behind the last step.
    outside : set of str
        Names of buffers that lie elsewhere.
    """
    last_use = {}
    for position, step in enumerate(steps):
        for name in step.inputs:
            last_use[name] = position
    last_use |= dict.fromkeys(kept, len(steps))
    spans = []
    for position, step in enumerate(steps):
        if step.output.name not in outside:
            spans.append((position, last_use.get(step.output.name, position), step.output))
    slots: list[tuple[list, list]] = []
    for span in sorted(spans, key=lambda s: -s[2].nbytes):
        for members, taken in slots:
            # alive from the step that writes it up to and including the last step that reads it
            if all(span[1] < a or b < span[0] for a, b in taken):
                members.append(span[2])
                taken.append(span[:2])
                break
        else:
            slots.append(([span[2]], [span[:2]]))
    return [Slot(members, max(buffer.nbytes for buffer in members)) for members, _ in slots]


def declare(slots, prefix="b") -> tuple[list[str], dict[str, str]]:
    """Return the C declarations of slots, and the C expression of each buffer in them."""
    declarations, expressions = [], {}
    for number, slot in enumerate(slots):
        types = {}
        for member in slot.buffers:
            types[member.dtype] = max(types.get(member.dtype, 0), member.size)
        for member in slot.buffers:
            expressions[member.name] = f"{prefix}{number}.{member.dtype}" if len(types) > 1 else f"{prefix}{number}"
        if len(types) > 1:
            fields = " ".join(f"{C_TYPES[dtype]} {dtype}[{size}];" for dtype, size in types.items())
            declarations.append(f"union {{ {fields} }} {prefix}{number};")
        else:
            declarations += [f"{C_TYPES[dtype]} {prefix}{number}[{size}];" for dtype, size in types.items()]
    return declarations, expressions
