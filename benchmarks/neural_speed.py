"""Speed of low-bit networks: binary products against numpy's float32 and onnxruntime's int8, an epoch against torch.

    python benchmarks/neural_speed.py [--torch /path/to/python/with/torch]

Products are timed in this process with one thread each, alternating, best of many; onnxruntime's where it and `onnx`
are installed. Epochs of the same network
(quantised weights, straight-through gradients, Adam, clip) are timed in this process, with one thread, and in a process
of the Python that has torch, with two threads. Best of several, as the machine may be busy.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from effml._cext.packed import LEVELS, best_level
from rich.console import Console
from rich.table import Table

from effml.neural.network import DenseArchitecture, build, start
from effml.neural.optimizer import ClippedAdam
from effml.neural.training import Rows, Schedule, train
from effml.program import Buffer
from effml.program.steps import PackedDense
from effml.program.steps.packing import pack_signs

# rows, inputs, hidden, classes, batch, weight bits, batch norm, activation
EPOCHS = [
    (13_300, 16, (41,), 26, 100, 4, False, "relu"),
    (13_300, 16, (62,), 26, 100, 4, True, "relu"),
    (10_000, 784, (128,), 10, 250, 4, False, "relu"),
    (10_000, 784, (512, 512), 10, 100, 1, True, "sign"),
    (10_000, 784, (512, 512), 10, 250, 2, True, "relu"),
    (10_000, 784, (512, 512), 10, 250, None, False, "relu"),
]

TORCH = """
import json, sys, time
import torch
import torch.nn.functional as F

n, d, hidden, classes, batch, bits, batch_norm, activation, repeats, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
X, y = torch.randn(n, d), torch.randint(0, classes, (n,))


def quantise(w):
    if bits is None:
        return w
    if bits == 1:
        level = torch.where(w >= 0, 1.0, -1.0)
    else:
        top = 2**bits - 1
        level = 2 * torch.round((w + 1) / 2 * top) / top - 1
    return w + (level - w).detach()


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(torch.rand_like(x) < (x + 1) / 2, 1.0, -1.0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (1 - torch.tanh(ctx.saved_tensors[0]) ** 2)


sizes = [d, *hidden, classes]
weights = [torch.nn.Parameter((torch.rand(b, a) * 2 - 1) * (6 / (a + b)) ** 0.5) for a, b in zip(sizes, sizes[1:])]
norms = [torch.nn.BatchNorm1d(h) for h in hidden] if batch_norm else []
bias = torch.nn.Parameter(torch.zeros(classes))
optimiser = torch.optim.Adam([*weights, bias, *(p for norm in norms for p in norm.parameters())], lr=1e-3)


def epoch():
    order = torch.randperm(n)
    for begin in range(0, n - batch + 1, batch):
        rows = order[begin : begin + batch]
        x = X[rows]
        for k, w in enumerate(weights[:-1]):
            x = x @ quantise(w).T
            x = norms[k](x) if batch_norm else x
            x = F.relu(x) if activation == "relu" else Sign.apply(x)
        loss = F.cross_entropy(x @ quantise(weights[-1]).T + bias, y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if bits is not None:
            with torch.no_grad():
                for w in weights:
                    w.clamp_(-1, 1)


epoch()
times = []
for _ in range(repeats):
    begin = time.perf_counter()
    epoch()
    times.append(time.perf_counter() - begin)
print(min(times))
"""


def best_of(functions, repeats):
    """Return the least seconds of each function, called in turn."""
    least = [np.inf] * len(functions)
    for _ in range(repeats):
        for k, function in enumerate(functions):
            begin = time.perf_counter()
            function()
            least[k] = min(least[k], time.perf_counter() - begin)
    return least


def onnx_int8_product(weights):
    """Return a function of uint8 rows (m, n) -> int32 products with int8 weights (n, k) by onnxruntime, or None."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return None
    helper, types = onnx.helper, onnx.TensorProto
    node = helper.make_node("MatMulInteger", ["x", "weights"], ["sum"])
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", types.UINT8, [None, weights.shape[0]])],
        [helper.make_tensor_value_info("sum", types.INT32, [None, weights.shape[1]])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def products(console, n=1024):
    """Print the time of a product with n x n weights of one bit by instruction level, and of its peers."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, (n, n)).astype(np.uint8)
    fields = {"codes": codes, "n_bits": 1, "bias": np.empty(0, np.int32), "packed": "u32"}
    step = PackedDense(inputs=("x",), output=Buffer("sum", "i32", n), **fields)
    weights = (2 * codes.astype(np.float32) - 1).astype(np.float32)
    levels = range(best_level() + 1)
    int8 = onnx_int8_product(weights.astype(np.int8))
    columns = [f"{LEVELS[level]}, us (ratio)" for level in levels] + ["onnxruntime int8, us (ratio)"] * (
        int8 is not None
    )
    table = Table("rows", "float32, us", *columns, title=f"{n} x {n} bits; ratio to float32")
    for rows in (1, 64, 256):
        x = rng.choice([-1.0, 1.0], (rows, n)).astype(np.float32)
        packed, out = pack_signs(x > 0, "u32"), np.empty((rows, n), np.float32)
        calls = [lambda: np.matmul(x, weights, out=out)]  # noqa: B023
        calls += [lambda level=level: step.run(packed, n_threads=1, level=level) for level in levels]  # noqa: B023
        assert (step.run(packed) == x @ weights).all()
        if int8 is not None:
            bits = (x > 0).astype(np.uint8)  # as 0 and 1: onnxruntime has no kernel for signed rows
            calls.append(lambda: int8(bits))  # noqa: B023
            assert (2 * int8(bits) - weights.sum(axis=0) == x @ weights).all()
        times = best_of(calls, 300 if rows == 1 else 30)
        cells = [f"{1e6 * t:.1f} ({times[0] / t:.1f}x)" for t in times[1:]]
        table.add_row(str(rows), f"{1e6 * times[0]:.1f}", *cells)
    console.print(table)


def our_epoch(case, repeats):
    n, d, hidden, classes, batch, bits, batch_norm, activation = case
    rng, random_state = np.random.default_rng(0), np.random.RandomState(0)
    architecture = DenseArchitecture(d, hidden, classes, bits, activation, None, batch_norm)
    parameters = start(architecture, random_state)
    network = build(architecture, parameters, rng)
    weights = {name for name in parameters if name.startswith("weight")}
    adam = ClippedAdam(network.parameters, clipped=weights if bits else set(), decayed=weights)
    codes = rng.integers(0, 256, (n, d)).astype(np.uint8)
    rows = Rows(codes, rng.integers(0, classes, n), np.ones(n, np.float32), np.arange(n), zero_point=128, step=1 / 64)
    schedule = Schedule(1, batch, 1e-3, 0.0, 1, 0.0)
    return best_of(
        [lambda: train(network, parameters, adam, rows, "cross_entropy", schedule, random_state)], repeats + 1
    )[0]


def torch_epoch(python, case, repeats, threads):
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "epoch.py")
        script.write_text(TORCH)
        hidden = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONPATH"}
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        command = [python, str(script), json.dumps([*case, repeats, threads])]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(result.stdout)


def epochs(console, python, repeats, threads):
    """Print the time of a training epoch of each network, here and in torch."""
    table = Table(
        "rows", "network", "batch", "weights", "activation", "effml, s", "torch, s", "ratio", title="one epoch"
    )
    for case in EPOCHS:
        n, d, hidden, classes, batch, bits, batch_norm, activation = case
        ours, theirs = our_epoch(case, repeats), torch_epoch(python, case, repeats, threads)
        network = "-".join(map(str, (d, *hidden, classes))) + (" bn" if batch_norm else "")
        cells = (f"{n:,}", network, str(batch), "float" if bits is None else f"{bits} bits", activation)
        table.add_row(*cells, f"{ours:.3f}", f"{theirs:.3f}", f"{ours / theirs:.2f}")
    console.print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--torch", default=sys.executable, help="Python that has torch; by default this one")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of torch; on a busy machine 1 may be faster")
    arguments = parser.parse_args()
    console = Console(width=120)
    products(console)
    has_torch = (
        subprocess.run([arguments.torch, "-c", "import torch"], capture_output=True, check=False).returncode == 0
    )
    if has_torch:
        epochs(console, arguments.torch, arguments.repeats, arguments.threads)
    else:
        console.print(f"{arguments.torch} has no torch: epochs are not compared; name a Python that has it by --torch")


if __name__ == "__main__":
    main()
