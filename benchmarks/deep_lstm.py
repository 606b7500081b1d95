"""Recurrent networks in integers: spoken digits and characters, against float, torch's dynamic int8 and brevitas.

    python benchmarks/deep_lstm.py results/ [--tasks keywords characters] [--seeds 3] [--without brevitas]

`keywords`: 49 frames of 20 log-mel features (FSDD, official split), an LSTM of 64 and a dense layer; test accuracy.
`characters`: tiny Shakespeare, windows of 64 characters one-hot encoded, an LSTM of 128 from a state of zeros;
perplexity on validation windows. All start from the same float network of a seed. "calibrated" sees training rows
only; "tuned" trains some epochs more at a tenth of the learning rate, float as a control as well.

One thread. Every number is stored as soon as it is known; a second call goes on where the first stopped.
"""

import argparse
import copy
import io
import json
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from effml.datasets import load_dataset
from effml.deep import QuantLSTM, quantize_module
from effml.program import CompiledProgram, footprint_of, with_input_dtype

torch.set_num_threads(1)
warnings.filterwarnings("ignore", category=DeprecationWarning)
warnings.filterwarnings("ignore", message=".*deprecated.*")

TUNED = 3  # epochs


class Reader(nn.Module):
    """A recurrent layer and a dense one: on the last step, or on every step."""

    def __init__(self, lstm, head, every=False):
        super().__init__()
        self.lstm, self.head, self.every = lstm, head, every

    def forward(self, x):
        out = self.lstm(x)[0]
        return self.head(out).flatten(1) if self.every else self.head(out[:, -1])


class Keywords:
    """Spoken digits."""

    epochs, lr, batch, n_hidden = 30, 4e-3, 64, 64
    measure, better = "accuracy %", "more"

    def __init__(self):
        data = load_dataset("fsdd_logmel")
        X, X_test = (np.asarray(part, dtype=np.float32).reshape(-1, 49, 20) for part in (data.X_train, data.X_test))
        mean, scale = X.mean(), X.std()
        self.X, self.X_test = (torch.from_numpy((part - mean) / scale) for part in (X, X_test))
        self.y, self.y_test = (
            torch.from_numpy(np.asarray(part).astype(np.int64)) for part in (data.y_train, data.y_test)
        )

    def network(self):
        return Reader(nn.LSTM(20, self.n_hidden, batch_first=True), nn.Linear(self.n_hidden, 10))

    def loss(self, outputs, y):
        return F.cross_entropy(outputs, y)

    def score(self, predict):
        return 100 * float((predict(self.X_test).argmax(1) == self.y_test.numpy()).mean())


class Characters:
    """The next character of a text."""

    epochs, lr, batch, n_hidden = 4, 3e-3, 32, 128
    measure, better = "perplexity", "less"

    def __init__(self):
        data = load_dataset("tiny_shakespeare")
        self.X, self.y = self._windows(data["chars_train"][:400_000])
        self.X_test, self.y_test = self._windows(data["chars_val"][:40_000])

    def _windows(self, text):
        n = (len(text) - 1) // 64 * 64
        x, y = (torch.from_numpy(part.astype(np.int64)).reshape(-1, 64) for part in (text[:n], text[1 : n + 1]))
        return F.one_hot(x, 65).float(), y

    def network(self):
        return Reader(nn.LSTM(65, self.n_hidden, batch_first=True), nn.Linear(self.n_hidden, 65), every=True)

    def loss(self, outputs, y):
        return F.cross_entropy(outputs.reshape(-1, 65), y.reshape(-1))

    def score(self, predict):
        return float(np.exp(self.loss(torch.from_numpy(np.asarray(predict(self.X_test))), self.y_test)))


TASKS = {"keywords": Keywords, "characters": Characters}


def train(net, task, epochs, lr, freeze=None):
    """Train; `freeze` is called before the last epoch."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    n_steps = epochs * -(-len(task.X) // task.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    net.train()
    for epoch in range(epochs):
        if epoch == epochs - 1 and freeze is not None:
            freeze()
        for batch in torch.randperm(len(task.X)).split(task.batch):
            loss = task.loss(net(task.X[batch]), task.y[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return net.eval()


def outputs_of(net):
    def predict(X):
        with torch.no_grad():
            return np.concatenate([net(part).numpy() for part in X.split(128)])

    return predict


def microseconds(predict, X, repeats=5):
    """Return the best time for a row of a batch of 128."""
    X, best = X[:128], np.inf
    predict(X)
    for _ in range(repeats):
        start = time.perf_counter()
        predict(X)
        best = min(best, time.perf_counter() - start)
    return 1e6 * best / len(X)


def float_row(net, task):
    size = 4 * sum(parameter.numel() for parameter in net.parameters())
    predict = outputs_of(net)
    return {"score": task.score(predict), "bytes": size, "us": microseconds(predict, task.X_test)}


def own_row(net, task):
    """Return the row of our integers; the compiled C predicts, and is compared with Python on the test rows."""
    is_value = task.better == "less"
    small = quantize_module(net, task.X[:512], regression=is_value)
    program = small.lower()
    whole = bool((task.X.floor() == task.X).all())  # one-hot: the device reads bytes
    if whole:
        program = with_input_dtype(program, "uint8")
    output = "value" if is_value else "score"
    compiled = CompiledProgram(program, outputs=(output,), flags=("-O2",))

    def rows(X):
        return np.ascontiguousarray(X.reshape(len(X), -1).numpy().astype(program.input_dtype))

    def predict(X):
        return compiled.run(rows(X), output).astype(np.float32) * program.outputs[output].scale

    given = rows(task.X_test[:200])
    same = np.array_equal(compiled.run(given, output), program.run(given)[output])
    price = footprint_of(program, outputs=(program.main_output,))
    row = {"score": task.score(predict), "bytes": price.constant_bytes, "flash": price.flash_bytes, "equal": same}
    row["in_float"] = task.score(outputs_of(net))  # what trains: rounded as the integers are
    return row | {"ram": price.ram_bytes, "us": microseconds(predict, task.X_test)}


def with_own_lstm(net, **options):
    return Reader(QuantLSTM.from_lstm(net.lstm, **options), copy.deepcopy(net.head), net.every)


def calibrated(net, task, **options):
    own = with_own_lstm(net, **options)
    own.lstm.calibrate(task.X[:512], momentum=0.0)
    return own_row(own.eval(), task)


def tuned(net, task, **options):
    own = with_own_lstm(net, **options)
    own.lstm.calibrate(task.X[:512], momentum=0.0)
    return own_row(train(own, task, TUNED, task.lr / 10, freeze=own.lstm.freeze), task)


def torch_dynamic(net, task):
    small = torch.ao.quantization.quantize_dynamic(copy.deepcopy(net), {nn.LSTM, nn.Linear}, dtype=torch.qint8)
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    predict = outputs_of(small)
    return {"score": task.score(predict), "bytes": file.tell(), "us": microseconds(predict, task.X_test)}


def brevitas_row(net, task):
    """Return brevitas' QuantLSTM with 8-bit weights and activations, tuned alike; it simulates, so no time is given."""
    import brevitas.nn as qnn

    lstm = qnn.QuantLSTM(net.lstm.input_size, net.lstm.hidden_size, batch_first=True)
    lstm.load_state_dict(net.lstm.state_dict(), strict=False)
    head = qnn.QuantLinear(net.head.in_features, net.head.out_features, bias=True, weight_bit_width=8)
    head.load_state_dict(net.head.state_dict(), strict=False)
    own = Reader(lstm, head, net.every).train()
    with torch.no_grad():  # its scales are set by the first batches
        own(task.X[:256])
    own = train(own, task, TUNED, task.lr / 10)
    weights = sum(p.numel() for p in net.parameters() if p.ndim > 1)
    biases = sum(p.numel() for p in net.parameters() if p.ndim == 1)
    return {"score": task.score(outputs_of(own)), "bytes": weights + 4 * biases}


def rounded_float(net, task):
    return float_row(train(copy.deepcopy(net), task, TUNED, task.lr / 10), task)


METHODS = {
    "float": float_row,
    "float, tuned": rounded_float,
    "effml calibrated": calibrated,
    "effml tuned": tuned,
    "effml tuned, one scale a matrix": lambda net, task: tuned(net, task, scales="tensor"),
    "effml tuned, 8 pieces": lambda net, task: tuned(net, task, n_pieces=8),
    "effml tuned, 4-bit weights": lambda net, task: tuned(net, task, weight_bits=4),
    "torch dynamic int8": torch_dynamic,
    "brevitas tuned": brevitas_row,
}


def network_of(task, folder, key, seed):
    """Return the trained float network of a seed, from a file if there is one."""
    path = folder / f"{key}-{seed}.pt"
    net = task.network()
    if path.exists():
        net.load_state_dict(torch.load(path))
        return net.eval()
    torch.manual_seed(seed)
    net = train(task.network(), task, task.epochs, task.lr)
    torch.save(net.state_dict(), path)
    return net


def report(done, tasks, methods):
    for key in tasks:
        print(f"\n{key}: {TASKS[key].measure}, mean and spread of the seeds\n")
        print("| method | score | bytes | of float | rounding in float | us/row | RAM | seeds |\n" + "|---" * 8 + "|")
        whole = done.get(f"{key}/float/0", {}).get("bytes", np.nan)
        for method in methods:
            rows = [row for name, row in done.items() if name.startswith(f"{key}/{method}/")]
            if not rows:
                continue
            scores = [row["score"] for row in rows]
            size, inside, ram = (
                np.mean([row.get(name, np.nan) for row in rows]) for name in ("bytes", "in_float", "ram")
            )
            us = min(row.get("us", np.nan) for row in rows)
            print(
                f"| {method} | {np.mean(scores):.2f} +- {np.std(scores):.2f} | {size:.0f} | {size / whole:.3f} "
                f"| {inside:.2f} | {us:.0f} | {ram:.0f} | {len(rows)} |"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="folder for what is known")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--without", nargs="*", default=[], help="words of methods to leave out")
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / "rows.json"
    done = json.loads(path.read_text()) if path.exists() else {}
    methods = [name for name in METHODS if not any(word in name for word in arguments.without)]
    for key in arguments.tasks:
        task = TASKS[key]()
        for seed in range(arguments.seeds):
            for method in methods:
                name = f"{key}/{method}/{seed}"
                if name in done:
                    continue
                net = network_of(task, arguments.results, key, seed)
                torch.manual_seed(seed + 100)
                done[name] = METHODS[method](net, task)
                path.write_text(json.dumps(done, indent=1))
                print(name, done[name], flush=True)
    report(done, arguments.tasks, methods)


if __name__ == "__main__":
    main()
