"""How modules and functions of torch are read: one rule each, which gives kind, inputs, numbers and activation.

Weights are float64, inputs first: of a dense layer (n_in, n_out), of a convolution (taps * channels / groups, n_out).
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from effml.program.frame import LoweringError

__all__ = ["FUNCTIONS", "METHODS", "Activation", "is_leaf", "module_rule"]


@dataclass(frozen=True, eq=False)
class Activation:
    """A function of one number.

    Attributes
    ----------
    name : str
        "clip" (from `low` to `high`: ReLU, ReLU6), "sign", "sigmoid", "tanh", "hardswish", ...
    function : callable
        On a float64 tensor.
    low, high : float
        Of "clip".
    path : str
        Where it stands in the module, for messages.
    """

    name: str
    function: Callable
    low: float = -np.inf
    high: float = np.inf
    path: str = ""

    def __call__(self, values: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.function(torch.as_tensor(np.asarray(values, dtype=np.float64))).numpy()


def clip(low, high):
    """Return the activation that keeps values between two bounds."""
    return Activation("clip", lambda x: x.clamp(low, high), float(low), float(high))


SIGN = Activation("sign", lambda x: torch.where(x < 0, -1.0, 1.0).to(x.dtype))  # of 0 it is 1


def is_leaf(module) -> bool:
    """Return whether a module is read as a whole, not by what its forward does."""
    return hasattr(module, "lowers_as") or _dotted(module) in _OWN


def _dotted(module):
    return f"{type(module).__module__}.{type(module).__qualname__}"


def module_rule(module, path):
    """Return the rule of a module, None where there is none."""
    named = getattr(module, "lowers_as", None)
    if named is not None:
        if named not in _NAMED:
            raise LoweringError(f"{path}: lowers_as={named!r} must be one of {sorted(_NAMED)}")
        return _NAMED[named]
    if _dotted(module) in _OWN:
        return _OWN[_dotted(module)]
    return next((rule for cls, rule in _MODULES.items() if type(module) is cls), None)


# -- rules ------------------------------------------------------------------------------------------------------------


def _act(make):
    """Return the rule of an activation; `make` gives it from the call."""

    def rule(call):
        return "activation", call.tensors()[:1], {}, make(call)

    return rule


def _plain(name, function):
    return _act(lambda call: Activation(name, function))


def _of_module(name):
    """Return the rule of an activation module with settings of its own."""

    def make(call):
        module = call.module
        return Activation(name, lambda x: type(module).forward(module, x))

    return _act(make)


def _nothing(call):
    return "nothing", call.tensors()[:1], {}, None


def _places(call):
    source = call.tensors()[0]
    return "places", (source,), {"order": call.order()}, None


def _softmax(call):
    axis = call.module.dim if call.module is not None else call.argument(1, "dim")
    shape = call.shape(call.tensors()[0])
    if len(shape) != 1 or axis not in (None, 1, -1):
        raise LoweringError(f"{call.path}: softmax over axis {axis} of rows of shape {shape}; over classes it can be")
    return "softmax", call.tensors()[:1], {}, None


def _array(tensor):
    return tensor.detach().cpu().numpy().astype(np.float64)


def _linear(call):
    weight = _array(call.module.weight).T
    bias = np.zeros(weight.shape[1]) if call.module.bias is None else _array(call.module.bias)
    return "dense", call.tensors()[:1], {"weight": weight, "bias": bias}, None


def _pair(value):
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def _conv(call):
    module = call.module
    if module.padding_mode != "zeros":
        raise LoweringError(f"{call.path}: padding_mode={module.padding_mode!r} cannot be lowered; use 'zeros'")
    weight, kernel = _array(module.weight), tuple(module.kernel_size)
    stride, dilation = tuple(module.stride), tuple(module.dilation)
    padding = _padding(module, kernel, dilation)
    if weight.ndim == 3:  # along one axis: images of one column
        weight, kernel, stride, dilation = weight[..., None], (*kernel, 1), (*stride, 1), (*dilation, 1)
    n_out = len(weight)
    bias = np.zeros(n_out) if module.bias is None else _array(module.bias)
    fields = {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding, "groups": module.groups}
    # (n_out, channels / groups, rows, columns) -> (taps, channels / groups, n_out)
    fields["weight"] = weight.transpose(2, 3, 1, 0).reshape(-1, n_out)
    return "conv", call.tensors()[:1], {**fields, "bias": bias}, None


def _padding(module, kernel, dilation):
    """Return (top, left, bottom, right)."""
    if module.padding == "valid":
        sides = [(0, 0)] * len(kernel)
    elif module.padding == "same":
        reach = [step * (side - 1) for side, step in zip(kernel, dilation, strict=True)]
        sides = [(total // 2, total - total // 2) for total in reach]
    else:
        sides = [(side, side) for side in module.padding]
    sides = [*sides, (0, 0)][:2]
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def _batch_norm(call):
    module = call.module
    if module.running_var is None:
        raise LoweringError(f"{call.path}: batch norm without running statistics; use track_running_stats=True")
    scale = 1 / np.sqrt(_array(module.running_var) + module.eps)
    if module.weight is not None:
        scale = scale * _array(module.weight)
    shift = -_array(module.running_mean) * scale
    bias = np.zeros_like(shift) if module.bias is None else _array(module.bias)
    fields = {"scale": scale, "offset": shift + bias, "size": np.abs(shift) + np.abs(bias)}
    return "scale", call.tensors()[:1], fields, None


def _pooling(mean, dims):
    """Return the rule of a pooling module or function with a window."""

    def rule(call):
        def setting(position, name, default):
            return getattr(call.module, name, default) if call.module is not None else call.argument(position, name)

        window = setting(1, "kernel_size", None)
        stride = setting(2, "stride", None) or window
        padding = setting(3, "padding", 0) or 0
        pads = [tuple(value) if isinstance(value, tuple | list) else (value,) * dims for value in (window, stride)]
        sides = tuple(padding) if isinstance(padding, tuple | list) else (padding,) * dims
        if dims == 1:
            pads, sides = [(*value, 1) for value in pads], (*sides, 0)
        for name, usual in (("ceil_mode", False), ("dilation", 1), ("divisor_override", None)):
            value = getattr(call.module, name, usual) if call.module is not None else call.node.kwargs.get(name, usual)
            if value not in (usual, (usual,) * dims):
                raise LoweringError(f"{call.path}: {name}={value!r} cannot be lowered; use {usual!r}")
        counts = getattr(call.module, "count_include_pad", call.node.kwargs.get("count_include_pad", True))
        fields = {"window": pads[0], "stride": pads[1], "padding": (*sides, *sides), "mean": mean}
        return "pool", call.tensors()[:1], {**fields, "counts_border": bool(counts)}, None

    return rule


def _adaptive(mean, dims):
    def rule(call):
        wanted = call.module.output_size if call.module is not None else call.argument(1, "output_size")
        wanted = tuple(wanted) if isinstance(wanted, tuple | list) else (wanted,) * dims
        sides = call.shape(call.tensors()[0])[-dims:]
        wanted = tuple(side if want is None else want for want, side in zip(wanted, sides, strict=True))
        if any(side % want for want, side in zip(wanted, sides, strict=True)):
            raise LoweringError(
                f"{call.path}: adaptive pooling from {sides} to {wanted} has windows of several sizes; choose an "
                "output that divides the input"
            )
        window = tuple(side // want for want, side in zip(wanted, sides, strict=True)) + (1,) * (2 - dims)
        fields = {"window": window, "stride": window, "padding": (0, 0, 0, 0), "mean": mean, "counts_border": True}
        return "pool", call.tensors()[:1], fields, None

    return rule


def _mean(call):
    """Mean over all axes of an image: global pooling; keepdim or not is a matter of shape alone."""
    axes = call.argument(1, "dim")
    shape = call.shape(call.tensors()[0])
    n = len(shape) + 1
    axes = sorted(axis % n for axis in (axes if isinstance(axes, tuple | list) else [axes]))
    if len(shape) < 2 or axes != list(range(2, n)) or n > 4:
        raise LoweringError(
            f"{call.path}: mean over axes {axes} of rows of shape {shape}; over all axes but the "
            "channels it can be lowered"
        )
    window = (*shape[1:], *(1,) * (3 - len(shape)))
    fields = {"window": window, "stride": window, "padding": (0, 0, 0, 0), "mean": True, "counts_border": True}
    return "pool", call.tensors()[:1], fields, None


def _number(value):
    return float(value) if isinstance(value, int | float) else None


def _add(sign):
    """Return the rule of a sum of two values, or of a value and a number."""

    def rule(call):
        left, right = call.node.args[:2]
        names = call.tensors()
        alpha = call.node.kwargs.get("alpha", 1)
        if len(names) == 2 and sign > 0 and alpha == 1 and call.shape(names[0]) == call.shape(names[1]):
            return "add", tuple(names), {}, None
        if left is right and sign > 0 and alpha == 1:
            return "add", (names[0], names[0]), {}, None
        number = _number(right if not isinstance(right, torch.fx.Node) else left)
        if len(names) == 1 and number is not None and alpha == 1:
            scale = -1.0 if sign < 0 and isinstance(right, torch.fx.Node) else 1.0
            offset = number if scale < 0 else sign * number
            return "scale", names, {"scale": np.full(1, scale), "offset": np.full(1, offset)}, None
        raise LoweringError(f"{call.path}: sums of values of one shape, or of a value and a number, can be lowered")

    return rule


def _multiply(divide):
    def rule(call):
        left, right = call.node.args[:2]
        names = call.tensors()
        number = _number(right if not isinstance(right, torch.fx.Node) else left)
        if len(names) == 1 and number is not None and not (divide and isinstance(right, torch.fx.Node)):
            scale = 1 / number if divide else number
            return "scale", names, {"scale": np.full(1, scale), "offset": np.zeros(1)}, None
        if len(names) == 2 and not divide and call.shape(names[0]) == call.shape(names[1]):
            return "multiply", tuple(names), {}, None
        raise LoweringError(f"{call.path}: products of a value and a number, or of values of one shape, can be lowered")

    return rule


def _cat(call):
    axis = call.node.kwargs.get("dim", call.node.args[1] if len(call.node.args) > 1 else 0)
    names = [node.name for node in call.node.args[0]]
    n = len(call.shape(names[0])) + 1
    if axis % n == 0:
        raise LoweringError(f"{call.path}: values cannot be put together along the rows")
    return "join", tuple(names), {"axis": axis % n - 1}, None


def _lstm(call):
    module = call.module
    if not module.batch_first or getattr(module, "proj_size", 0) or len(call.node.all_input_nodes) != 1:
        raise LoweringError(
            f"{call.path}: an LSTM can be lowered with batch_first=True, proj_size=0 and no state given to it"
        )
    return "lstm", call.tensors()[:1], {"module": module}, None


def _recurrent_unknown(call):
    raise LoweringError(f"{call.path}: {type(call.module).__name__} cannot be lowered; use LSTM with batch_first=True")


def _foothill_sign(call):
    if call.module.scaled:
        raise LoweringError(f"{call.path}: a sign scaled by the mean of a batch cannot be lowered; use scaled=False")
    return "activation", call.tensors()[:1], {}, SIGN


_SIGMOID = _plain("sigmoid", torch.sigmoid)
_TANH = _plain("tanh", torch.tanh)
_RELU = _act(lambda call: clip(0, np.inf))
_RELU6 = _act(lambda call: clip(0, 6))
_HARD_SWISH = _plain("hardswish", F.hardswish)
_HARD_SIGMOID = _plain("hardsigmoid", F.hardsigmoid)
_SIGN = _act(lambda call: SIGN)
_CLAMP = _act(
    lambda call: clip(
        -np.inf if call.argument(1, "min") is None else call.argument(1, "min"),
        np.inf if call.argument(2, "max") is None else call.argument(2, "max"),
    )
)
_NAMED = {
    "hard_sigmoid": _HARD_SIGMOID,
    "hard_swish": _HARD_SWISH,
    "identity": _nothing,
    "relu": _RELU,
    "relu6": _RELU6,
    "sigmoid": _SIGMOID,
    "sign": _SIGN,
    "tanh": _TANH,
}
_OWN = {
    "effml.deep.foothill.FoothillSign": _foothill_sign,
    "effml.deep.recurrent.QuantLSTM": _lstm,
}
_MODULES = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.MaxPool1d: _pooling(False, 1),
    nn.MaxPool2d: _pooling(False, 2),
    nn.AvgPool1d: _pooling(True, 1),
    nn.AvgPool2d: _pooling(True, 2),
    nn.AdaptiveAvgPool1d: _adaptive(True, 1),
    nn.AdaptiveAvgPool2d: _adaptive(True, 2),
    nn.AdaptiveMaxPool1d: _adaptive(False, 1),
    nn.AdaptiveMaxPool2d: _adaptive(False, 2),
    nn.LSTM: _lstm,
    nn.GRU: _recurrent_unknown,
    nn.RNN: _recurrent_unknown,
    nn.ReLU: _RELU,
    nn.ReLU6: _RELU6,
    nn.Hardtanh: _act(lambda call: clip(call.module.min_val, call.module.max_val)),
    nn.Hardswish: _HARD_SWISH,
    nn.Hardsigmoid: _HARD_SIGMOID,
    nn.Sigmoid: _SIGMOID,
    nn.Tanh: _TANH,
    nn.Flatten: _places,
    nn.Unflatten: _places,
    nn.Softmax: _softmax,
    nn.LogSoftmax: _softmax,
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.Identity), _nothing),
    **{cls: _of_module(cls.__name__.lower()) for cls in (nn.ELU, nn.GELU, nn.LeakyReLU, nn.Mish, nn.SiLU, nn.Softplus)},
}
FUNCTIONS = {
    F.relu: _RELU,
    torch.relu: _RELU,
    F.relu6: _RELU6,
    F.hardswish: _HARD_SWISH,
    F.hardsigmoid: _HARD_SIGMOID,
    F.hardtanh: _act(lambda call: clip(call.argument(1, "min_val", -1.0), call.argument(2, "max_val", 1.0))),
    F.silu: _plain("silu", F.silu),
    F.gelu: _plain("gelu", F.gelu),
    torch.sigmoid: _SIGMOID,
    F.sigmoid: _SIGMOID,
    torch.tanh: _TANH,
    F.tanh: _TANH,
    torch.sign: _SIGN,
    torch.clamp: _CLAMP,
    operator.add: _add(1),
    operator.iadd: _add(1),
    torch.add: _add(1),
    operator.sub: _add(-1),
    torch.sub: _add(-1),
    operator.mul: _multiply(False),
    torch.mul: _multiply(False),
    operator.truediv: _multiply(True),
    torch.div: _multiply(True),
    torch.cat: _cat,
    torch.concat: _cat,
    torch.mean: _mean,
    F.max_pool1d: _pooling(False, 1),
    F.max_pool2d: _pooling(False, 2),
    F.avg_pool1d: _pooling(True, 1),
    F.avg_pool2d: _pooling(True, 2),
    F.adaptive_avg_pool1d: _adaptive(True, 1),
    F.adaptive_avg_pool2d: _adaptive(True, 2),
    F.softmax: _softmax,
    F.log_softmax: _softmax,
    torch.softmax: _softmax,
    torch.log_softmax: _softmax,
    F.dropout: _nothing,
    **dict.fromkeys(
        (operator.getitem, torch.flatten, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze), _places
    ),
    torch.reshape: _places,
}
METHODS = {
    "relu": _RELU,
    "sigmoid": _SIGMOID,
    "tanh": _TANH,
    "sign": _SIGN,
    "clamp": _CLAMP,
    "add": _add(1),
    "mul": _multiply(False),
    "mean": _mean,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "contiguous": _nothing,
    "float": _nothing,
    **dict.fromkeys(
        ("flatten", "permute", "transpose", "squeeze", "unsqueeze", "view", "reshape", "unflatten", "select"), _places
    ),
}
