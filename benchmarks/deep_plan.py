"""Shrink and improve on Fashion-MNIST: a small convolutional network, at least 20 times smaller in its file.

    EFFML_DATA=/path/to/npz python benchmarks/deep_plan.py [--seeds 3] [--rows 10000] [--plot FILE]

Trains on the first part of the training rows, judges phases on 5,000 others, and scores the first trained model and
what ships once each on the official 10,000 test rows. The plan's folder in benchmarks/results/ makes it resumable.
"""

import argparse

import numpy as np
import torch
from _deep import RESULTS, data, remembered, show, spread
from torch import nn

from effml.deep import IntegerWeights, MagnitudePrune, Plan, Train, Width, evaluate, file_bytes


def network(width):
    """Two convolutions of 16 and 32 channels, each with batch norm and pooling, and 128 hidden units, times `width`."""
    first, second, hidden = (max(1, round(size * width)) for size in (16, 32, 128))
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(49 * second, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )


def shifted(images):
    """The images of a batch, moved by up to 2 pixels and half the time mirrored, all in the same way."""
    down, right = (int(torch.randint(-2, 3, ())) for _ in range(2))
    moved = nn.functional.pad(images, (2, 2, 2, 2))[:, :, 2 + down : 30 + down, 2 + right : 30 + right]
    return moved.flip(3) if torch.rand(()) < 0.5 else moved


PHASES = [
    Train(epochs=15),
    Width(factor=0.625, epochs=15),
    MagnitudePrune(sparsity=0.75, rounds=3, epochs=5, distill=1.0),
    IntegerWeights(bits=5),
]


def plan_of(seed, n_rows):
    """The plan of one seed, run or read from its folder; and its results on test rows."""
    (X, y), test = data("fashion_mnist", n_rows + 5000)
    parts, validation = (X[:n_rows], y[:n_rows]), (X[n_rows:], y[n_rows:])
    folder = RESULTS / "deep_plan" / f"rows{n_rows}-seed{seed}"
    given = {
        "build": network,
        "learning_rate": 0.003,
        "transform": shifted,
        "verbose": True,
        "random_state": 1000 * seed,
    }
    plan = Plan(PHASES, max_drop=0.02, folder=folder, **given)
    torch.manual_seed(seed)
    small = plan.run(network(1.0), parts, validation)
    teacher = torch.load(folder / "phase_01.pt", weights_only=False)[0]

    def scores():
        return {
            "before": 100 * evaluate(teacher, test),
            "after": 100 * evaluate(small, test),
            "bytes_before": plan.ledger_[1].file_bytes,
            "bytes_after": file_bytes(small),
        }

    return plan, remembered("deep_plan", f"rows{n_rows}-seed{seed}-test", scores)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--plot")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for seed in range(arguments.seeds):
        plan, result = plan_of(seed, arguments.rows)
        results.append(result)
        print(plan.ledger_, plan.ledger_.to_markdown(), result, sep="\n", flush=True)
        if seed == 0 and arguments.plot:
            plan.plot().figure.savefig(arguments.plot, dpi=120)
    columns = {key: [result[key] for result in results] for key in results[0]}
    ratio = np.array(columns["bytes_before"]) / np.array(columns["bytes_after"])
    lost = np.array(columns["before"]) - np.array(columns["after"])
    show(
        "Fashion-MNIST, test",
        ("accuracy before", "accuracy after", "points lost", "bytes before", "bytes after", "times smaller"),
        [
            (
                spread(columns["before"]),
                spread(columns["after"]),
                spread(lost),
                f"{np.mean(columns['bytes_before']):,.0f}",
                f"{np.mean(columns['bytes_after']):,.0f}",
                spread(ratio),
            )
        ],
    )


if __name__ == "__main__":
    main()
