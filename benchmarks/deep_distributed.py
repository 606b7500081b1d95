"""A recipe under torch's DistributedDataParallel: the loop of one's own, on as many processes as torchrun starts.

    torchrun --standalone --nproc-per-node=2 benchmarks/deep_distributed.py [--epochs 10]

Runs on CPUs (gloo). Every process applies the recipe to the same model, wraps that in DistributedDataParallel, and
tells the recipe of its steps; gradients are averaged, so weights, shadows and levels stay the same everywhere, which is
checked.
"""

import argparse
import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from effml.deep import ProxConnect, Recipe, evaluate


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    X, y = load_digits(return_X_y=True)
    parts = train_test_split((X / 16).astype("float32"), y, test_size=0.25, random_state=0, stratify=y)
    X_train, X_test, y_train, y_test = map(torch.as_tensor, parts)
    rows = TensorDataset(X_train, y_train)
    sampler = DistributedSampler(rows, seed=0)
    loader = DataLoader(rows, batch_size=32, sampler=sampler)

    torch.manual_seed(0)  # the same start everywhere
    network = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    recipe = Recipe([ProxConnect(bits=2)])
    model = recipe.apply(network)
    everywhere = DistributedDataParallel(model)
    state = recipe.begin(
        model, lambda parameters: torch.optim.Adam(parameters, 0.01), epochs=epochs, steps_per_epoch=len(loader)
    )
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        recipe.epoch_begin(state)
        model.train()
        for inputs, targets in loader:
            state.optimizer.zero_grad()
            recipe.loss(nn.functional.cross_entropy, state, inputs, targets, everywhere(inputs)).backward()
            state.optimizer.step()
            recipe.step_end(state)
        recipe.epoch_end(state)
    recipe.end(state)

    for parameter in model.parameters():  # every process holds the same weights
        gathered = [torch.empty_like(parameter) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, parameter.detach())
        assert all(torch.equal(gathered[0], other) for other in gathered)
    if dist.get_rank() == 0:
        shipped = recipe.finalize(model)
        levels = max(len(row.unique()) for row in shipped[0].weight)
        print(f"{dist.get_world_size()} processes, {os.environ.get('OMP_NUM_THREADS', '?')} thread each")
        print(f"accuracy {evaluate(shipped, (X_test, y_test)):.4f}, at most {levels} values in a row of weights")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
