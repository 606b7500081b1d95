"""Numbers, intervals and names as text, shared by what describes models."""

import math
from collections import Counter

import numpy as np

__all__ = ["interval_text", "number_text", "unique_names"]


def number_text(value):
    """Return the shortest decimals that name a float32.

    Examples
    --------
    >>> import numpy as np
    >>> [number_text(v) for v in (3.0, np.float32(0.8), 1e-9)]
    ['3', '0.8', '1e-09']
    """
    exact = float(value)
    with np.errstate(over="ignore", under="ignore"):
        value = np.float32(exact)
    if np.isinf(value) != np.isinf(exact) or (value == 0) != (exact == 0):
        return f"{exact:.6g}"  # beyond the range of float32
    if value == 0 or 1e-4 <= abs(value) < 1e9:
        return np.format_float_positional(value, trim="-")
    return np.format_float_scientific(value, trim="-")


def unique_names(names):
    """Return the names as an object array, " #2", " #3" ... appended where one comes again.

    Examples
    --------
    >>> unique_names(["a", "b", "a"]).tolist()
    ['a', 'b', 'a #2']
    """
    taken, seen, out = set(names), Counter(), []
    for name in names:
        seen[name] += 1
        unique = name
        while seen[name] > 1 and unique in taken:
            unique = f"{name} #{seen[name]}"
            seen[name] += unique in taken
        taken.add(unique)
        out.append(unique)
    return np.array(out, dtype=object)


def interval_text(name, low, high):
    """Return the condition low < x <= high as text; infinite ends are left out.

    Examples
    --------
    >>> interval_text("x", -math.inf, 2.0), interval_text("x", 0.5, 2.0)
    ('x <= 2', '0.5 < x <= 2')
    """
    above, below = _bound(low), _bound(high)
    if math.isinf(low):
        return f"{name} {'<' if below[1] else '<='} {below[0]}"
    if math.isinf(high):
        return f"{name} {'>=' if above[1] else '>'} {above[0]}"
    return f"{above[0]} {'<=' if above[1] else '<'} {name} {'<' if below[1] else '<='} {below[0]}"


def _bound(value):
    """Return the text of a threshold; or of the float32 above it and True, if shorter: x <= 1.6999999 is x < 1.7."""
    with np.errstate(over="ignore", under="ignore"):
        above = np.nextafter(np.float32(value), np.float32(np.inf))
    text, text_above = number_text(value), number_text(above)
    if not np.isfinite(above) or not above:
        return text, False
    return (text_above, True) if len(text_above) + 3 < len(text) else (text, False)
