"""How far float32 rounding can take a lowered module from torch's own numbers, row by row.

Running error analysis in float64: beside every number goes a bound on its error, counted for both, the Program and
torch, whose order of additions may be any.

Source: N. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, SIAM 2002, sections 3.1 to 3.3.
"""

import numpy as np
import torch
import torch.nn.functional as F

from effml.deep.lowering import module_shape, ready
from effml.deep.lowering_graph import read_graph
from effml.program.frame import LoweringError

__all__ = ["estimator_bound", "module_bound"]

_UNIT = 2.0**-24  # largest relative rounding error of one float32 operation
# of an activation: how steep it is at most, its rounding absolutely and relative to its input, both sides counted
_ACTIVATIONS = {
    "clip": (1.0, 0.0, 0.0),
    "sigmoid": (0.25, 16.0, 0.0),
    "tanh": (1.0, 32.0, 0.0),
    "hardsigmoid": (1 / 6, 8.0, 4.0),
    "hardswish": (1.5, 0.0, 16.0),
    "silu": (1.1, 0.0, 24.0),
}


def module_bound(module, X) -> np.ndarray:
    """Return how far the outputs of a lowered module and of torch may lie apart, float64 (n_rows, n_outputs).

    A label can be another one only where the best score leads the next (or 0, for a lone score) by at most the sum of
    both bounds. Of a softmax or sigmoid at the end the bound is that of the scores before it.

    Parameters
    ----------
    module : torch.nn.Module
    X : array or tensor (n_rows, ...)

    Raises
    ------
    LoweringError
        For modules that have no float32 form.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import module_bound
    >>> bound = module_bound(torch.nn.Linear(4, 3), torch.randn(5, 4))
    >>> bound.shape, bool((bound < 1e-4).all())
    ((5, 3), True)
    """
    rows = np.asarray(X, dtype=np.float32).astype(np.float64)
    return _bound(module, rows, np.zeros_like(rows))


def estimator_bound(est, X) -> np.ndarray:
    """Return the bound of :func:`module_bound` for a fitted torch estimator or a Pipeline that ends in one.

    Scalers before it, which the Program applies in float32, are counted.
    """
    from effml.adapters.rounding import column_errors
    from effml.export import frame_of, lower

    rows = lower(est).encode(X)
    _, frame, final = frame_of(est)
    value, _, error = column_errors(frame, rows)
    shape = (len(rows), *module_shape(final, value.shape[1]))
    return _bound(final.export_module_, value.reshape(shape), error.reshape(shape))


def _bound(module, value, error):
    graph = read_graph(ready(module), value.shape[1:])
    rows = torch.from_numpy(value)
    held = {graph.source: (rows, torch.from_numpy(error))}
    with torch.no_grad():
        for op in graph.ops:
            if op.kind not in _RULES:
                raise LoweringError(f"{op.path}: has no float32 form")
            value, error = _RULES[op.kind](op, *(held[name] for name in op.inputs))
            held[op.name] = _activated(op, value.reshape(len(rows), *op.shape), error.reshape(len(rows), *op.shape))
    return held[graph.result][1].reshape(len(rows), -1).numpy()


def _activated(op, value, error):
    if op.activation is None:
        return value, error
    name, outcome = op.activation.name, op.activation.function(value)
    if name == "sign":
        return outcome, torch.where(value.abs() <= error, 2.0, 0.0).to(value.dtype)
    if name not in _ACTIVATIONS:
        raise LoweringError(f"{op.activation.path}: {name} has no float32 form")
    steep, absolute, relative = _ACTIVATIONS[name]
    return outcome, steep * error + _UNIT * (absolute + relative * (value.abs() + error))


def _sums(value, error, product, weight, bias, size, n):
    """Return sums of n products and the bound on their error."""
    absolute = product(value.abs() + error, weight.abs()) + size
    return product(value, weight) + bias, product(error, weight.abs()) + 2 * (n + 6) * _UNIT * absolute


def _numbers(op):
    weight, bias = (torch.from_numpy(np.asarray(op.fields[name])) for name in ("weight", "bias"))
    return weight, bias, torch.from_numpy(np.asarray(op.fields.get("size", np.abs(op.fields["bias"]))))


def _dense(op, given):
    weight, bias, size = _numbers(op)
    return _sums(*given, lambda x, w: x @ w, weight, bias, size, len(weight))


def _as_images(op, given):
    return [part.reshape(*part.shape, *(1,) * (4 - part.ndim)) for part in given]


def _conv(op, given):
    weight, bias, size = _numbers(op)
    fields, n, n_out = op.fields, len(weight), weight.shape[1]
    weight = weight.reshape(*fields["kernel"], -1, n_out).permute(3, 2, 0, 1)
    top, left, bottom, right = fields["padding"]

    def product(x, w):
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, w, stride=fields["stride"], dilation=fields["dilation"], groups=fields["groups"])

    value, error = _as_images(op, given)
    return _sums(value, error, product, weight, bias[:, None, None], size[:, None, None], n)


def _pool(op, given):
    window, stride, padding = (op.fields[name] for name in ("window", "stride", "padding"))
    value, error = _as_images(op, given)
    if not op.fields["mean"]:
        return tuple(F.max_pool2d(part, window, stride, padding[:2]) for part in (value, error))
    mean = {"kernel_size": window, "stride": stride, "padding": padding[:2]}
    mean["count_include_pad"] = op.fields["counts_border"]
    n = window[0] * window[1]
    size = F.avg_pool2d(value.abs() + error, **mean)
    return F.avg_pool2d(value, **mean), F.avg_pool2d(error, **mean) + 2 * (n + 3) * _UNIT * size


def _scale(op, given):
    value, error = given
    scale, offset, size = (
        torch.from_numpy(np.asarray(op.fields.get(name, np.abs(op.fields["offset"])))).reshape(
            -1, *(1,) * (value.ndim - 2)
        )
        for name in ("scale", "offset", "size")
    )
    if value.ndim == 2:
        scale, offset, size = (part.reshape(-1) for part in (scale, offset, size))
    rounding = 8 * _UNIT * ((value.abs() + error) * scale.abs() + size)
    return value * scale + offset, error * scale.abs() + rounding


def _add(op, left, right):
    (a, a_error), (b, b_error) = left, right
    error = a_error + b_error
    return a + b, error + 2 * _UNIT * (a.abs() + b.abs() + error)


def _multiply(op, left, right):
    (a, a_error), (b, b_error) = left, right
    error = a.abs() * b_error + b.abs() * a_error + a_error * b_error
    return a * b, error + 2 * _UNIT * ((a * b).abs() + error)


def _join(op, *given):
    return tuple(torch.cat(parts, dim=op.fields["axis"] + 1) for parts in zip(*given, strict=True))


def _places(op, given):
    order = torch.from_numpy(op.fields["order"])
    return tuple(part.reshape(len(part), -1)[:, order] for part in given)


def _nothing(op, given):
    return given


_RULES = {
    "activation": _nothing,
    "add": _add,
    "conv": _conv,
    "dense": _dense,
    "join": _join,
    "multiply": _multiply,
    "places": _places,
    "pool": _pool,
    "scale": _scale,
}
