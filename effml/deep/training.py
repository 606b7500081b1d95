"""A plain training loop around a recipe: seeded, resumable, without touching torch's global random state."""

import math
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from sklearn.utils import check_random_state

from effml.deep.recipe import Recipe

__all__ = ["Batches", "check_loss", "evaluate", "evaluating", "seeded", "train"]


class Batches:
    """Rows of tensors in shuffled batches, another order each epoch, from a seed.

    A last row that would be alone, which batch norm cannot take, joins the batch before.

    Parameters
    ----------
    tensors : sequence of Tensor or array, each (n, ...)
    batch_size : int
    seed : int or None
        None: in the order given.
    transform : callable or None
        ``transform(inputs) -> inputs`` on every batch, for augmentation.
    """

    def __init__(self, tensors, *, batch_size=64, seed=None, transform=None):
        self.tensors = [_tensor(tensor) for tensor in tensors]
        lengths = {len(tensor) for tensor in self.tensors}
        if len(lengths) != 1 or not min(lengths):
            raise ValueError(f"data must be arrays of the same number of rows, got {[len(t) for t in self.tensors]}")
        self.batch_size = batch_size
        self.seed = seed
        self.transform = transform
        self.epoch = 0

    def __len__(self):
        full, rest = divmod(len(self.tensors[0]), self.batch_size)
        return max(full + (rest > 1), 1)

    def __iter__(self):
        n_rows = len(self.tensors[0])
        if self.seed is None:
            order = torch.arange(n_rows)
        else:
            order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(self.seed + self.epoch))
        self.epoch += 1
        for rows in order.tensor_split(tuple(range(self.batch_size, self.batch_size * len(self), self.batch_size))):
            inputs, *rest = (tensor[rows] for tensor in self.tensors)
            yield (inputs if self.transform is None else self.transform(inputs), *rest)


def _tensor(values):
    if torch.is_tensor(values):
        return values
    values = np.asarray(values)
    if values.dtype.kind in "iu" and values.dtype != np.uint8:
        return torch.as_tensor(values.astype(np.int64))  # what losses take as classes
    return torch.as_tensor(values.astype(np.float32) if values.dtype == np.float64 else values)


@contextmanager
def seeded(random_state):
    """Within the block torch draws from this seed; outside its random state is as before. None leaves it alone."""
    if random_state is None:
        yield None
        return
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        torch.manual_seed(seed)
        yield seed


def train(
    model,
    data,
    *,
    recipe=None,
    epochs=10,
    criterion=None,
    optimizer=None,
    scheduler=None,
    batch_size=64,
    transform=None,
    checkpoint=None,
    random_state=None,
    verbose=False,
):
    """Train a model with a recipe and return the final state of training.

    Parameters
    ----------
    model : nn.Module
        As `Recipe.apply` returned it. To any other model the recipe is applied first; ``state.model`` is then another
        object, and `model` stays as it is.
    data : (inputs, targets) or (inputs, targets, weights), arrays or Tensors; or an iterable of such batches
        An iterable needs a length, such as a DataLoader's.
    recipe : Recipe or None
    epochs : int, default=10
    criterion : callable, default=cross entropy
        ``criterion(outputs, targets)`` -> scalar, or one value a row, which weights need.
    optimizer : callable, default=Adam at 0.001
        ``optimizer(parameters) -> torch.optim.Optimizer``.
    scheduler : callable or None
        ``scheduler(optimizer) -> learning-rate scheduler``, stepped once an epoch.
    batch_size : int, default=64
    transform : callable or None
        On the inputs of every batch.
    checkpoint : path or None
        File that is written after each epoch, and gone on from where it exists; the result is that of an unbroken run
        when `random_state` is an int and `data` are arrays.
    random_state : int, RandomState or None
    verbose : bool, default=False
        Print the loss of each epoch.

    Returns
    -------
    TrainingState
        With ``model`` (trained; `recipe.finalize` makes it plain), ``history``.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from effml.deep import train
    >>> X, y = load_digits(return_X_y=True)
    >>> state = train(torch.nn.Linear(64, 10), (X / 16, y), epochs=3, random_state=0)
    >>> state.history[-1]["loss"] < state.history[0]["loss"]
    True
    """
    recipe = Recipe() if recipe is None else recipe
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe must be a Recipe, got {type(recipe).__name__}; put techniques into Recipe([...])")
    if epochs < 0:
        raise ValueError(f"epochs={epochs!r} must be at least 0")
    criterion = torch.nn.CrossEntropyLoss() if criterion is None else criterion
    with seeded(random_state) as seed:
        if isinstance(data, (tuple, list)) and not (data and isinstance(data[0], (tuple, list))):
            shuffle = int(torch.randint(2**31, ())) if seed is None else seed
            data = Batches(data, batch_size=batch_size, seed=shuffle, transform=transform)
        if not recipe.is_applied_to(model):
            model = recipe.apply(model, example_inputs=next(iter(data))[0][:2])
            _restart(data)
        make = torch.optim.Adam if optimizer is None else optimizer
        state = recipe.begin(model, make, epochs=epochs, steps_per_epoch=len(data), data=data)
        schedule = None if scheduler is None else scheduler(state.optimizer)
        _resume(checkpoint, recipe, state, schedule)
        while state.epoch < epochs and not state.stop:
            _epoch(recipe, state, criterion)
            if schedule is not None:
                schedule.step()
            if verbose:
                print(f"epoch {state.epoch:4d}  " + "  ".join(f"{k} {v:.5f}" for k, v in state.metrics.items()))
            _save(checkpoint, recipe, state, schedule)
        recipe.end(state)
    return state


def _epoch(recipe, state, criterion):
    recipe.epoch_begin(state)
    state.model.train()
    total, n_batches = 0.0, 0
    for inputs, targets, *weights in state.data:
        state.optimizer.zero_grad()
        outputs = state.model(inputs)
        loss = recipe.loss(criterion, state, inputs, targets, outputs, *weights)
        loss.backward()
        state.optimizer.step()
        recipe.step_end(state)
        total, n_batches = total + state.loss, n_batches + 1
    state.metrics = {"loss": check_loss(total / n_batches, state.epoch + 1)}
    recipe.epoch_end(state)


def check_loss(loss, epoch):
    """Return the loss of an epoch; one that is no number ends the training."""
    if not math.isfinite(loss):
        raise ValueError(
            f"training diverged: the loss of epoch {epoch} is {loss}. Lower the learning rate, scale the inputs, and "
            "look for NaN in the data"
        )
    return loss


def _restart(data):
    if isinstance(data, Batches):
        data.epoch = 0


def _save(checkpoint, recipe, state, schedule):
    if checkpoint is None:
        return
    saved = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "recipe": recipe.state_dict(state),
        "scheduler": None if schedule is None else schedule.state_dict(),
        "random": torch.get_rng_state(),
    }
    path = Path(checkpoint)
    torch.save(saved, path.with_name(path.name + ".part"))
    os.replace(path.with_name(path.name + ".part"), path)


def _resume(checkpoint, recipe, state, schedule):
    if checkpoint is None or not Path(checkpoint).is_file():
        return
    saved = torch.load(checkpoint, weights_only=True)
    state.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    recipe.load_state_dict(saved["recipe"], state)
    if schedule is not None:
        schedule.load_state_dict(saved["scheduler"])
    torch.set_rng_state(saved["random"])
    if isinstance(state.data, Batches):
        state.data.epoch = state.epoch


def evaluate(model, data, metric=None, *, batch_size=1000):
    """Mean over rows of a metric of a model in eval mode; by default the share of rows classified rightly.

    Parameters
    ----------
    model : nn.Module
    data : (inputs, targets), arrays or Tensors
    metric : callable or None
        ``metric(outputs, targets)`` -> one number or one value a row.
    batch_size : int

    Returns
    -------
    float
    """
    metric = _accuracy if metric is None else metric
    total, n_rows = 0.0, 0
    with evaluating(model):
        for inputs, targets in Batches(data, batch_size=batch_size):
            total += float(torch.as_tensor(metric(model(inputs), targets), dtype=torch.float64).mean()) * len(inputs)
            n_rows += len(inputs)
    return total / n_rows


@contextmanager
def evaluating(model):
    """Eval mode without gradients, and the modes as they were afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _accuracy(outputs, targets):
    return (outputs.argmax(1) == targets).double()
