"""Activations of straight pieces between knots that lie where they are needed, and their integers.

From all candidate knots the inner one whose removal costs least goes, again and again.

Source: E. Sari, V. Courville, V. Partovi Nia, "iRNN: Integer-only Recurrent Neural Network", ICPRAM 2022; that error is
squared and the ends stay is our reading (reconstructed).
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

__all__ = ["Curve", "curve_of", "greedy_knots"]

N_CANDIDATES = 257
SAMPLES = 16  # points between two candidates on which errors are measured
REACH = 8.0  # beyond it sigmoid and tanh are flat
FUNCTIONS = {"sigmoid": lambda x: 0.5 + 0.5 * np.tanh(0.5 * x), "tanh": np.tanh}


def greedy_knots(function, low, high, n_pieces) -> np.ndarray:
    """Return the knots (n_pieces + 1,) of a function of straight pieces that interpolates `function`.

    Parameters
    ----------
    function : callable on float64 arrays
    low, high : float
    n_pieces : int

    Examples
    --------
    >>> import numpy as np
    >>> from effml.deep.pieces import greedy_knots
    >>> greedy_knots(np.abs, -4.0, 4.0, 2).tolist()
    [-4.0, 0.0, 4.0]
    """
    if not 1 <= n_pieces < N_CANDIDATES:
        raise ValueError(f"n_pieces={n_pieces} must be from 1 to {N_CANDIDATES - 1}")
    knots = list(np.linspace(low, high, N_CANDIDATES))
    grid = np.linspace(low, high, (N_CANDIDATES - 1) * SAMPLES + 1)
    values = function(grid)

    def error(left, right):
        """Squared error of the straight line between two knots."""
        first, last = np.searchsorted(grid, (left - 1e-9, right - 1e-9))
        x = grid[first:last]
        line = np.interp(x, (left, right), function(np.array([left, right])))
        return ((line - values[first:last]) ** 2).sum()

    pieces = [error(*pair) for pair in pairwise(knots)]
    merged = [error(knots[k - 1], knots[k + 1]) for k in range(1, len(knots) - 1)]
    while len(pieces) > n_pieces:
        rise = [both - pieces[k] - pieces[k + 1] for k, both in enumerate(merged)]
        k = int(np.argmin(rise))
        pieces[k : k + 2] = [merged[k]]
        del knots[k + 1], merged[k]
        for near in (k - 1, k):
            if 0 <= near < len(merged):
                merged[near] = error(knots[near], knots[near + 2])
    return np.array(knots)


@dataclass(frozen=True, eq=False)
class Curve:
    """An activation on int16: ``q = clip((v * slope[p] + intercept[p]) >> shift, lowest, largest)``, p = limits <= v.

    Attributes
    ----------
    limits : int16 array (n - 1,)
    slope : int16 array (n,)
    intercept : int32 array (n,)
        With the half that rounds.
    shift, lowest, largest : int
    """

    limits: np.ndarray
    slope: np.ndarray
    intercept: np.ndarray
    shift: int
    lowest: int
    largest: int

    def fields(self) -> dict:
        """Return the fields of the step :class:`effml.program.steps.Pieces`."""
        names = ("limits", "slope", "intercept", "shift", "lowest", "largest")
        return {name: getattr(self, name) for name in names}


@cache
def curve_of(name: str, in_bits: int, n_pieces: int, largest: int) -> Curve:
    """Return the integers of sigmoid or tanh.

    Parameters
    ----------
    name : {"sigmoid", "tanh"}
    in_bits : int
        One step of the input is ``2^-in_bits``; at most 12.
    n_pieces : int
        Within [-8, 8]; the function is flat beyond.
    largest : int
        One step of the output is ``1 / largest``.
    """
    function = FUNCTIONS[name]
    knots = greedy_knots(function, -REACH, REACH, n_pieces)
    values = function(knots) * largest
    values[0], values[-1] = (0 if name == "sigmoid" else -largest), largest
    steps = np.rint(knots * 2.0**in_bits)
    slope = np.diff(values) / np.diff(steps)
    shift = int(np.floor(np.log2(32767 / slope.max())))
    if in_bits < 12:  # the input reaches beyond the knots
        steps, values = (
            np.concatenate([steps[:1], steps, steps[-1:]]),
            np.concatenate([values[:1], values, values[-1:]]),
        )
        slope = np.concatenate([[0.0], slope, [0.0]])
    whole = np.rint(slope * 2.0**shift)
    # each line is right in the middle of its piece
    middle, height = (steps[:-1] + steps[1:]) / 2, (values[:-1] + values[1:]) / 2
    intercept = np.rint((height + 0.5) * 2.0**shift - whole * middle)
    lowest = 0 if name == "sigmoid" else -largest
    limits = steps[1:-1].astype(np.int16)
    return Curve(limits, whole.astype(np.int16), intercept.astype(np.int32), shift, lowest, largest)
