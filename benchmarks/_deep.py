"""What the deep benchmarks share: data, networks, one training protocol, results that stay on disk."""

import json
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from effml.datasets import load_dataset
from effml.deep import evaluate, size_bits, train

RESULTS = Path(__file__).resolve().parent / "results"


def data(name, n_train=10_000):
    """((X_train, y_train), (X_test, y_test)) as Tensors in [0, 1]; images of digits, mnist or fashion_mnist."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        X = (X / 16).astype("float32").reshape(-1, 1, 8, 8)
        parts = train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
        X_train, X_test, y_train, y_test = map(torch.as_tensor, parts)
        return (X_train, y_train), (X_test, y_test)
    loaded = load_dataset(name)
    X_train, y_train = loaded.X_train, loaded.y_train
    if n_train < len(y_train):
        X_train, _, y_train, _ = train_test_split(
            X_train, y_train, train_size=n_train, random_state=0, stratify=y_train
        )
    return tuple(
        (torch.as_tensor(X.reshape(-1, 1, 28, 28).astype("float32") / 255), torch.as_tensor(y.astype(np.int64)))
        for X, y in ((X_train, y_train), (loaded.X_test, loaded.y_test))
    )


def mlp(n_inputs, hidden, seed, linear=nn.Linear):
    """Flatten, two hidden layers with batch norm, ten outputs."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(),
        linear(n_inputs, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        linear(hidden, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        linear(hidden, 10),
    )


def fitted(model, parts, recipe, seed, epochs, batch_size=64, learning_rate=0.005):
    """Accuracy in percent, stored bits and seconds of a model trained by Adam with a cosine schedule."""
    start = time.perf_counter()
    state = train(
        recipe.apply(model),
        parts[0],
        recipe=recipe,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=lambda parameters: torch.optim.Adam(parameters, learning_rate),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs),
        random_state=seed,
    )
    seconds = time.perf_counter() - start
    shipped = recipe.finalize(state.model)
    return {"accuracy": 100 * evaluate(shipped, parts[1]), "bits": size_bits(shipped), "seconds": seconds}, state.model


def remembered(folder, key, compute):
    """The result of `compute`, from its file where there is one."""
    path = RESULTS / folder / f"{key}.json"
    if path.is_file():
        return json.loads(path.read_text())
    result = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))
    return result


def spread(values):
    """Mean and standard deviation as text."""
    return f"{np.mean(values):.2f} +- {np.std(values, ddof=1):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def show(title, headings, rows):
    """Print a table as Markdown, and readably."""
    table = Table(*headings, title=title)
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=140).print(table)
    print("| " + " | ".join(headings) + " |\n|" + "---|" * len(headings))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
