"""A small convolutional network for digits as C: accuracy, bytes and instructions in float32 and in 8 to 2 bits.

    python benchmarks/deep_cnn.py [--seeds 3]

Two convolutions (8 and 16 filters) with batch norm and a dense layer, 1,946 parameters, 12 epochs on 1,078 images of
scikit-learn's digits, scored on the other 719. Flash, RAM and instructions are those of the label on a Cortex-M3 (the
cross compiler and the emulator must be installed), uint8 rows; instructions are the mean over 200 test images.
"""

import argparse

import numpy as np
import torch
from _deep import show, spread
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from effml.deep import evaluate, lower_module, quantize_module, train
from effml.program import with_input_dtype
from effml.program.targets import run_program
from effml.program.targets.measure import measure_program

TARGET = "cortex-m3"


def trained(X, y, seed):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    state = train(net, (X, y), epochs=12, optimizer=lambda p: torch.optim.Adam(p, 5e-3), random_state=seed)
    return state.model.eval()


def forms(net, X):
    """Yield names and Programs."""
    yield "float32", lower_module(net, X.shape[1:])
    for bits in (8, 4, 3, 2):
        yield f"{bits}-bit weights", quantize_module(net, X, weight_bits=bits).lower()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32).reshape(-1, 1, 8, 8)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.4, random_state=0, stratify=y)
    scores, costs = {}, {}
    for seed in range(parser.parse_args().seeds):
        net = trained(X, y, seed)
        scores.setdefault("torch", []).append(100 * evaluate(net, (X_test, y_test)))
        for name, program in forms(net, X):
            rows = X_test.reshape(len(X_test), -1)
            scores.setdefault(name, []).append(100 * np.mean(program.labels(rows) == y_test))
            if seed:
                continue
            program = with_input_dtype(program, "uint8")
            size = measure_program(program, target=TARGET)
            run = run_program(program, rows[:200].astype(np.uint8), target=TARGET)
            costs[name] = f"{size.flash_bytes:,}", f"{size.ram_bytes:,}", f"{run.counts.mean():,.0f}"
    lines = [(name, spread(found), *costs.get(name, ("-", "-", "-"))) for name, found in scores.items()]
    show("digits", ("form", "test accuracy, %", "flash, bytes", "RAM, bytes", "instructions"), lines)


if __name__ == "__main__":
    main()
