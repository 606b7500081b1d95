"""What a step is: one meaning (`run`), one price (`cost`), one printing (`emit_c`)."""

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effml.program.buffers import Buffer

__all__ = ["STEP_TYPES", "Cost", "Step", "equal_states"]

STEP_TYPES: dict[str, type["Step"]] = {}


@dataclass(frozen=True)
class Cost:
    """What one step costs beside the bytes of its constants, which are read off the emitted C.

    Attributes
    ----------
    n_parameters, bits : int
        Learned numbers and the bits they need (the papers' size measure: parameters x bits).
    operations : Counter
        Worst case per row, by kind (compare, add, multiply, lookup, exp, divide).
    variants : tuple of str
        Which code shapes `emit_c` prints: keys, with the step's kind, into the calibrated code sizes.
    """

    n_parameters: int = 0
    bits: int = 0
    operations: Counter = dataclasses.field(default_factory=Counter)
    variants: tuple[str, ...] = ("",)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Step(ABC):
    """One typed step of a Program.

    Attributes
    ----------
    inputs : tuple of str
        Names of the buffers it reads.
    output : Buffer
        The buffer it writes.
    """

    inputs: tuple[str, ...]
    output: Buffer

    kind: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls.kind:
            STEP_TYPES[cls.kind] = cls

    @abstractmethod
    def run(self, *arrays: np.ndarray) -> np.ndarray:
        """Return the output, shape (n_rows, output.size), from the inputs, each (n_rows, size)."""

    @abstractmethod
    def cost(self) -> Cost:
        """Return parameters, bits and operations of one row."""

    @abstractmethod
    def emit_c(self, c, ref) -> str:
        """Return the C statements of this step.

        Parameters
        ----------
        c : CWriter
            Takes constants and helper functions.
        ref : callable
            ``ref(buffer_name)`` is the C expression of a buffer's first element's array.
        """

    @property
    def n_states(self):
        """Exclusive bound on each output element, shape (output.size,), or None when nothing is known."""
        return None

    @property
    def scratch_bytes(self) -> int:
        """Bytes of buffers inside of the step, beside its output."""
        return 0

    @property
    def inner(self) -> tuple["Step", ...]:
        """Steps that are part of this one."""
        return ()

    def replace(self, **changes) -> "Step":
        return dataclasses.replace(self, **changes)

    def describe(self) -> str:
        """Return a few words on what the step holds, for `effml inspect`."""
        return ""

    def __repr__(self):
        note = self.describe()
        return (
            f"{self.output.name}: {self.output.dtype}[{self.output.size}] = "
            f"{type(self).__name__}({', '.join(self.inputs)})" + (f"  # {note}" if note else "")
        )


def equal_states(first, second) -> bool:
    """Return whether two dataclass steps hold the same fields (arrays compared by value)."""
    if type(first) is not type(second):
        return False
    for field in dataclasses.fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
            if not (np.asarray(a).dtype == np.asarray(b).dtype and np.array_equal(a, b)):
                return False
        elif a != b:
            return False
    return True
