"""Named, typed values of a Program: what one row holds at each point, and what goes in and out.

A :class:`Buffer` is single-assignment: exactly one step (or the raw row) writes it. Sizes are per row; `run` adds the
leading axis of rows.
"""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Buffer", "DTYPES", "INPUT_DTYPES", "InputSpec", "Output", "smallest_unsigned"]

DTYPES = {
    "u8": np.dtype(np.uint8),
    "u16": np.dtype(np.uint16),
    "u32": np.dtype(np.uint32),
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "f32": np.dtype(np.float32),
}

# what a user may declare as the type of the raw row, and the buffer type it becomes
INPUT_DTYPES = {"float32": "f32", "int32": "i32", "int16": "i16", "uint8": "u8"}

RAW = "x"  # name of the buffer that holds the raw row


@dataclass(frozen=True)
class Buffer:
    """One named value of `size` elements per row."""

    name: str
    dtype: str
    size: int

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r} of buffer {self.name!r} must be one of {sorted(DTYPES)}")
        if self.size < 1:
            raise ValueError(f"size={self.size} of buffer {self.name!r} must be at least 1")

    @property
    def nbytes(self) -> int:
        return self.size * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class InputSpec:
    """One raw column.

    Parameters
    ----------
    name : str
        Column name, for documentation and for reading DataFrames.
    categories : tuple or None
        Levels of a categorical column. The row then holds the level's position (0, 1, ...), anything else means an
        unknown level. None for a number.
    missing : str
        What a NaN does, in words; it goes into the header of the generated C.
    used : bool
        Whether the model reads the column at all; one that it does not read may hold anything.
    """

    name: str
    categories: tuple | None = None
    missing: str = "rejected"
    used: bool = True


@dataclass(frozen=True)
class Output:
    """One named result: `value = (buffer - zero_point) * scale`.

    `tolerance` is the proven bound on how far a number may lie from the estimator's; for a label, below which lead of
    the best class over the next (in mean probability, or in raw score) it may be another one. 0 where all are equal,
    None where nothing is proven.
    """

    buffer: str
    scale: float = 1.0
    zero_point: float = 0.0
    names: tuple = field(default=())
    tolerance: float | None = None


def smallest_unsigned(largest: int) -> str:
    """Return the narrowest unsigned buffer type that holds 0..largest."""
    for name, bits in (("u8", 8), ("u16", 16), ("u32", 32)):
        if largest < 1 << bits:
            return name
    raise ValueError(f"{largest} does not fit 32 bits")
