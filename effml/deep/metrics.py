"""What a torch model costs: numbers, bits, bytes, multiplications, memory, time.

Definitions are those of the efficient-deep-learning literature, one for each name: a MAC counts one and batch norm that
is folded nothing; `peak_activation_bytes` is the largest sum of tensors that are alive at once; `latency` is the median
of runs on one thread with a batch of one.
"""

import time
import warnings
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from effml.deep.storage import file_bytes, stored_tensors
from effml.deep.training import evaluating

__all__ = ["Cost", "Latency", "cost", "latency", "macs", "nonzero", "params", "peak_activation_bytes", "size_bits"]

_WARM_UPS = 10


def params(model):
    """Number of parameters, each shared one once."""
    return sum(parameter.numel() for parameter in model.parameters())


def nonzero(model):
    """Number of parameters that are not zero."""
    return sum(int(torch.count_nonzero(parameter)) for parameter in model.parameters())


def size_bits(model):
    """Bits of all parameters and buffers, each tensor in its cheapest exact form: tables, scales, codes, masks.

    Names and shapes are not counted; `file_bytes` counts them.

    Examples
    --------
    >>> import torch
    >>> layer = torch.nn.Linear(64, 8, bias=False)
    >>> size_bits(layer)
    16384
    >>> with torch.no_grad():
    ...     _ = layer.weight.sign_()
    >>> size_bits(layer)
    544
    """
    return sum(stored.size_bits for stored in stored_tensors(model).values())


def macs(model, example_inputs):
    """Multiply-accumulates of one forward pass: convolutions and matrix products.

    Examples
    --------
    >>> import torch
    >>> macs(torch.nn.Linear(64, 8), torch.zeros(1, 64))
    512
    """
    with evaluating(model), _without_fused_layers(), FlopCounterMode(display=False) as counter:
        model(*_as_tuple(example_inputs))
    return counter.get_total_flops() // 2


@contextmanager
def _without_fused_layers():
    """Within it no recurrent layer of oneDNN and no transformer layer is one operation, which no counter knows."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Intel's GPUs
            with torch.backends.mkldnn.flags(enabled=False):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def peak_activation_bytes(model, example_inputs):
    """Largest sum of the bytes of all tensors alive at one operation, inputs included and parameters not.

    A tensor lives from the operation that makes it to the last one that reads it; views share memory. Give a batch of
    one for what a device needs.

    Examples
    --------
    >>> import torch
    >>> peak_activation_bytes(torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Linear(8, 2)), torch.zeros(1, 64))
    288
    """
    inputs = tree_map(torch.clone, _as_tuple(example_inputs))  # a slice would count as all it is a part of
    recorder = _Lifetimes([*model.parameters(), *model.buffers()], inputs)
    with evaluating(model), recorder:
        outputs = model(*inputs)
    return recorder.peak(outputs)


class _Lifetimes(TorchDispatchMode):
    """Notes which memory each operation touches."""

    def __init__(self, constants, inputs):
        super().__init__()
        self.constants = {tensor.untyped_storage()._cdata for tensor in constants}
        self.kept, self.bytes, self.born, self.last = [], {}, {}, {}
        self.n_operations = 0
        for tensor in tree_leaves(inputs):
            self._touch(tensor)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.n_operations += 1
        for tensor in tree_leaves((args, kwargs, result)):
            self._touch(tensor)
        return result

    def _touch(self, tensor):
        if not torch.is_tensor(tensor):
            return
        storage = tensor.untyped_storage()
        if storage._cdata in self.constants:
            return
        if storage._cdata not in self.born:
            self.kept.append(tensor)  # so that no other storage gets its address
            self.born[storage._cdata] = self.n_operations
        self.bytes[storage._cdata] = storage.nbytes()
        self.last[storage._cdata] = self.n_operations

    def peak(self, outputs):
        for tensor in tree_leaves(outputs):
            self._touch(tensor)
        alive = np.zeros(self.n_operations + 1, dtype=np.int64)
        for key, n_bytes in self.bytes.items():
            alive[self.born[key] : self.last[key] + 1] += n_bytes
        return int(alive.max())


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward pass: median, 10th and 90th percentile."""

    median_ms: float
    p10_ms: float
    p90_ms: float

    def __str__(self):
        return f"{self.median_ms:.3f} ms ({self.p10_ms:.3f} to {self.p90_ms:.3f})"


def latency(model, example_inputs, *, n_runs=50):
    """Time of a forward pass on one thread, after 10 runs that are not counted.

    Parameters
    ----------
    model : nn.Module
    example_inputs : Tensor or tuple of Tensors
        A batch of one, by convention.
    n_runs : int, default=50

    Returns
    -------
    Latency
    """
    inputs, threads = _as_tuple(example_inputs), torch.get_num_threads()
    seconds = []
    torch.set_num_threads(1)
    try:
        with evaluating(model):
            for _ in range(_WARM_UPS + n_runs):
                start = time.perf_counter()
                model(*inputs)
                seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    low, middle, high = np.percentile(seconds[_WARM_UPS:], [10, 50, 90]) * 1000
    return Latency(float(middle), float(low), float(high))


@dataclass(frozen=True)
class Cost:
    """All the numbers of one model; `print` shows them one a line."""

    params: int
    nonzero: int
    size_bits: int
    file_bytes: int
    macs: int
    peak_activation_bytes: int
    latency_ms: float

    def __str__(self):
        return "\n".join(f"{name:<22}{value:>14,}" for name, value in asdict(self).items())


def cost(model, example_inputs, *, n_runs=50):
    """Every number at once.

    Parameters
    ----------
    model : nn.Module
        Finalized.
    example_inputs : Tensor or tuple of Tensors
        A batch of one.
    n_runs : int, default=50
        Of `latency`.

    Returns
    -------
    Cost
    """
    return Cost(
        params=params(model),
        nonzero=nonzero(model),
        size_bits=size_bits(model),
        file_bytes=file_bytes(model),
        macs=macs(model, example_inputs),
        peak_activation_bytes=peak_activation_bytes(model, example_inputs),
        latency_ms=round(latency(model, example_inputs, n_runs=n_runs).median_ms, 4),
    )


def _as_tuple(inputs):
    return inputs if isinstance(inputs, tuple) else (inputs,)
