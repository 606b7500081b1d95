"""Time of one training epoch of a TAN classifier under its quantiser, against the same model written with torch.

    EFFML_DATA=/path/to/npz python benchmarks/bayes_training_speed.py [--quick]

letter (published bins, batches of 100) and MNIST in 14x14 (Fayyad-Irani bins, batches of 250); the tree is Chow-Liu's.
Tables are float, 4-bit fixed point (3 integer bits) or 4-bit contrast tables of a learned step. The loss is the
published hybrid one, for contrast tables (which are no distributions) its margin term.

The torch model is float32 with the same loss, straight-through quantiser and Adam (fused, epsilon 1e-7), vectorised
over the features, on the row numbers of all samples computed beforehand (effml computes them in the epoch). It looks
the tables up by "gather" (index_select forward, index_add backward) or by "embedding_bag" (mode sum); a dense one-hot
batch times the tables was slower than both. It normalises with one log_softmax for each number of states or, padded,
with one for all; the script times both and goes on with the faster one.

Before anything is timed, losses and gradients of one batch must agree. Then the contestants, each with 1 and with 2
threads, take turns; times are medians of wall time. On a busy machine a second thread makes both slower, torch by far
more, so the last column divides the fastest of the four torch times by the faster of effml's two. Memory is that of the
trainer's arrays, and as a multiple of 3 floats a parameter (value and Adam's two moments).
"""

import argparse
import os
import time
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from effml._optim import ADAM
from effml._quantization import ContrastFormat, FixedPointFormat
from effml.bayes.structure import chow_liu_parents, conditional_mutual_information, table_shapes
from effml.bayes.training import Objective, TableTrainer
from effml.datasets import load_dataset
from effml.discretization import MDLPDiscretizer

N_BITS, INTEGER_BITS = 4, 3
MARGIN_WEIGHT, MARGIN, SHARPNESS = 110.42, 17.97, 10.0
RATE = 3e-3
N_BATCHES = 40  # a measurement, which is then scaled to the batches of an epoch
LOOKUPS = ("gather", "embedding_bag")
THREADS = (1, 2)
FORMATS = {
    "fixed point": FixedPointFormat(INTEGER_BITS, N_BITS - INTEGER_BITS),
    "float": None,
    "contrast": ContrastFormat(N_BITS, 0.25),
}
TOLERANCE = 1e-4


class FixedPoint(torch.autograd.Function):
    """q(x) + (x - x.detach()): nearest multiple of the scale in [-top * scale, 0], identity gradient."""

    @staticmethod
    def forward(ctx, x, scale, top):
        return torch.fake_quantize_per_tensor_affine(x, scale, top, 0, top)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, None


class Contrast(torch.autograd.Function):
    """Mid-rise codes of a learned step with the gradient of LSQ in the step, identity gradient in the values."""

    @staticmethod
    def forward(ctx, x, log_step, top):
        step, half = log_step.exp(), top / 2
        v = x / step
        levels = (v + half).round_().clamp_(0, top).sub_(half)
        ctx.save_for_backward(v, levels, step)
        ctx.half = half
        return levels * step

    @staticmethod
    def backward(ctx, gradient):
        v, levels, step = ctx.saved_tensors
        outside = v.abs() > ctx.half
        return gradient, (gradient * torch.where(outside, levels, levels - v)).sum() * step, None


class TorchTAN:
    """Tables in one (rows, classes) parameter, grouped by their number of states so that a group is one log_softmax.

    Within a group of r states, row (state, column) is state * n_columns + column, a column being (feature, parent
    state). Padded, all features have the largest number of states, and rows that stand for no state hold -1e30.
    """

    def __init__(self, case, number_format, logits, *, lookup, padded):
        self.lookup, self.number_format, self.margin_only = lookup, number_format, number_format is FORMATS["contrast"]
        n_classes = case.n_classes
        parent_states = np.where(case.parents >= 0, case.n_states[case.parents], 1)
        contrast = isinstance(number_format, ContrastFormat)
        states = np.full_like(case.n_states, case.n_states.max()) if padded and not contrast else case.n_states
        self.groups, self.position, n_rows = [], [None] * len(states), 0
        rows = np.empty(case.codes.shape, dtype=np.int64)
        codes = case.codes.astype(np.int64)
        for r in np.unique(states):
            members = np.flatnonzero(states == r)
            n_columns = int(parent_states[members].sum())
            first = np.cumsum([0, *parent_states[members]])
            for i, column in zip(members, first, strict=False):
                other = codes[:, case.parents[i]] if case.parents[i] >= 0 else 0
                rows[:, i] = n_rows + codes[:, i] * n_columns + column + other
                own = np.arange(case.n_states[i])[:, None] * n_columns + np.arange(parent_states[i])
                self.position[i] = (n_rows + column + own).ravel()
            self.groups.append((int(r), n_columns))
            n_rows += int(r) * n_columns
        self.position = np.concatenate(self.position)
        flat = np.full((n_rows, n_classes), -1e30, dtype=np.float32)
        flat[self.position] = np.concatenate([table.reshape(-1, n_classes) for table in logits[1]])
        self.logits = torch.from_numpy(flat).requires_grad_()
        self.parameters = [self.logits]
        if contrast:
            self.log_step = torch.tensor(float(np.log(number_format.scale)), requires_grad=True)
            self.parameters.append(self.log_step)
        else:
            self.prior = torch.from_numpy(logits[0].astype(np.float32)).requires_grad_()
            self.parameters.append(self.prior)
        self.rows, self.y = torch.from_numpy(rows), torch.from_numpy(case.y.astype(np.int64))
        self.adam = torch.optim.Adam(
            self.parameters, lr=RATE, betas=(ADAM["beta1"], ADAM["beta2"]), eps=ADAM["epsilon"], fused=True
        )

    def score_tables(self):
        """Return the rows that score, (n_rows, n_classes), and the class prior or 0."""
        if isinstance(self.number_format, ContrastFormat):
            centred = self.logits - self.logits.mean(dim=1, keepdim=True)
            return Contrast.apply(centred, self.log_step, 2**N_BITS - 1), 0.0
        prior, n_classes = functional.log_softmax(self.prior, dim=0), self.logits.shape[1]
        parts = self.logits.split([r * n for r, n in self.groups])
        tables = [
            functional.log_softmax(part.view(r, n * n_classes), dim=0).view(r * n, n_classes)
            for part, (r, n) in zip(parts, self.groups, strict=True)
        ]
        tables = torch.cat(tables) if len(tables) > 1 else tables[0]
        if self.number_format is not None:
            scale, top = self.number_format.scale, 2**N_BITS - 1
            tables, prior = FixedPoint.apply(tables, scale, top), FixedPoint.apply(prior, scale, top)
        return tables, prior

    def loss(self, samples):
        tables, prior = self.score_tables()
        rows, y = self.rows.index_select(0, samples), self.y.index_select(0, samples)
        if self.lookup == "gather":
            shape = (*rows.shape, tables.shape[1])
            scores = tables.index_select(0, rows.view(-1)).view(shape).sum(dim=1)
        else:
            scores = functional.embedding_bag(rows, tables, mode="sum")
        scores = scores + prior
        own = y[:, None]
        own_scores = scores.gather(1, own)
        others = scores.scatter(1, own, -torch.inf)
        margins = torch.logsumexp(SHARPNESS * (MARGIN - own_scores + others), dim=1) / SHARPNESS
        if self.margin_only:
            return functional.relu(margins).mean()
        return MARGIN_WEIGHT * functional.relu(margins).mean() - own_scores.mean()

    def step(self, samples):
        loss = self.loss(samples)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()

    def epoch(self, order, batch_size):
        for samples in torch.from_numpy(order).split(batch_size):
            self.step(samples)


class Case:
    """One data set with its tree."""

    def __init__(self, name, codes, y, n_states, batch_size):
        self.name, self.codes, self.batch_size = name, np.ascontiguousarray(codes), batch_size
        self.y, self.n_states = y.astype(np.int32), np.asarray(n_states, dtype=np.int64)
        self.n_classes = int(y.max()) + 1
        self.weights = np.ones(len(y))
        information = conditional_mutual_information(codes, y, n_states=n_states, n_jobs=-1)
        self.parents = np.asarray(chow_liu_parents(information))
        self.shapes = table_shapes(self.parents, self.n_states, self.n_classes)

    def logits(self, seed):
        draw = np.random.default_rng(seed)
        shapes = [(self.n_classes,), *self.shapes]
        prior, *tables = (draw.uniform(-1, 1, shape).astype(np.float32) for shape in shapes)
        return prior, tables

    def trainer(self, number_format, logits, n_threads):
        contrast = isinstance(number_format, ContrastFormat)
        objective = Objective.named(
            "margin" if contrast else "hybrid", margin=MARGIN, margin_weight=MARGIN_WEIGHT, sharpness=SHARPNESS
        )
        if contrast:
            logits = (np.zeros(self.n_classes), logits[1])
        return TableTrainer(
            self.parents,
            self.n_states,
            self.n_classes,
            objective=objective,
            number_format=number_format,
            logits=logits,
            batch_size=self.batch_size,
            n_threads=n_threads,
        )


def check_agreement(case, number_format, logits, lookup, padded):
    """Raise unless the loss and the gradients of one batch agree."""
    order = np.random.default_rng(1).permutation(len(case.y))[: case.batch_size]
    trainer = case.trainer(number_format, logits, 1)
    loss = trainer.batch(case.codes, case.y, case.weights, order, 0.0) / len(order)
    prior, tables = trainer.tables(trainer.first_moments)
    model = TorchTAN(case, number_format, logits, lookup=lookup, padded=padded)
    peer_loss = model.loss(torch.from_numpy(order))
    peer_loss.backward()
    pairs = {
        "loss": (loss, peer_loss.item()),
        "table gradients": (
            np.concatenate([table.reshape(-1, case.n_classes) for table in tables]),
            model.logits.grad.numpy()[model.position],
        ),
    }
    if isinstance(number_format, ContrastFormat):
        pairs["step gradient"] = (np.sum(trainer.trainer.step_gradients), model.log_step.grad.item())
    else:
        pairs["prior gradient"] = (prior, model.prior.grad.numpy())
    for what, (ours, peers) in pairs.items():
        difference = np.linalg.norm(np.subtract(ours, peers)) / np.linalg.norm(peers)
        if not difference < TOLERANCE:
            raise AssertionError(f"{case.name}, {lookup}: {what} differ by {difference:.1e} of their norm")


def seconds(function):
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def faster_padding(case, number_format, logits):
    """Return whether the padded form normalises faster, by some steps of each."""
    times = {}
    samples = torch.arange(case.batch_size)
    torch.set_num_threads(1)
    for padded in (False, True):
        model = TorchTAN(case, number_format, logits, lookup="gather", padded=padded)
        times[padded] = median(seconds(lambda model=model: model.step(samples)) for _ in range(15))
    return times[True] < times[False]


def measure(case, number_format, repeats):
    """Return {(contestant, threads): median seconds an epoch}, the first round left out."""
    logits = case.logits(0)
    padded = faster_padding(case, number_format, logits)
    runs = {}
    for n_threads in THREADS:
        trainer = case.trainer(number_format, logits, n_threads)
        runs["effml", n_threads] = lambda order, trainer=trainer: trainer.epoch(
            case.codes, case.y, case.weights, order, RATE
        )
    for lookup in LOOKUPS:
        check_agreement(case, number_format, logits, lookup, padded)
        for n_threads in THREADS:
            model = TorchTAN(case, number_format, logits, lookup=lookup, padded=padded)
            runs[lookup, n_threads] = lambda order, model=model: model.epoch(order, case.batch_size)
    draw, times = np.random.default_rng(2), {name: [] for name in runs}
    n_rows = min(len(case.y), N_BATCHES * case.batch_size)
    for _ in range(repeats + 1):
        order = draw.permutation(len(case.y))[:n_rows]
        for name, run in runs.items():
            torch.set_num_threads(name[1])
            times[name].append(seconds(lambda run=run, order=order: run(order)))
    return {name: median(values[1:]) * len(case.y) / n_rows for name, values in times.items()}


def memory(case):
    """Return the bytes of the arrays over all rows, and as a multiple of 3 float32 a parameter."""
    used = sum(array.nbytes for array in case.trainer(None, case.logits(0), 1).trainer.arrays)
    return used, used / (3 * 4 * sum(int(np.prod(shape)) for shape in case.shapes))


def cases(quick):
    letter = load_dataset("letter_mdl")
    yield Case("letter", letter.X_train, letter.y_train, letter.X_train.max(axis=0).astype(int) + 1, 100)
    if not quick:
        mnist = load_dataset("mnist")
        images = mnist.X_train.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196)
        discretizer = MDLPDiscretizer(n_jobs=-1).fit(images, mnist.y_train)
        yield Case("mnist 14x14", discretizer.transform(images), mnist.y_train, discretizer.n_states_, 250)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="letter alone, fewer repeats")
    arguments = parser.parse_args()
    table = Table(title=f"ms an epoch with 1 / 2 threads; torch {torch.__version__}; {os.cpu_count()} processors")
    for column in ("data", "tables", "effml", *LOOKUPS, "effml faster"):
        table.add_column(column, justify="left" if column in ("data", "tables") else "right")
    for case in cases(arguments.quick):
        for label, number_format in FORMATS.items():
            times = measure(case, number_format, 5 if arguments.quick else 11)
            cells = [[times[name, n_threads] for n_threads in THREADS] for name in ("effml", *LOOKUPS)]
            ratio = min(map(min, cells[1:])) / min(cells[0])
            table.add_row(
                case.name,
                label,
                *(" / ".join(f"{1e3 * value:.1f}" for value in cell) for cell in cells),
                f"{ratio:.1f}x",
            )
        used, multiple = memory(case)
        print(f"{case.name}: {used / 1e6:.2f} MB in the trainer's arrays, {multiple:.2f} times 3 floats a parameter")
    Console(width=130).print(table)
    print(f"load average at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
