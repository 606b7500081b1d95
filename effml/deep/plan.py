"""Shrink and improve, or grow, improve and shrink: phases one after the other, with a ledger and a way back.

Source of the two strategies: G. Menghani, "Efficient Deep Learning: A Survey on Making Deep Learning Models Smaller,
Faster, and Better", ACM Computing Surveys 2023.
"""

import copy
import hashlib
import json
import os
import re
import time
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar

import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval

from effml.deep.ledger import Entry, Ledger
from effml.deep.metrics import cost
from effml.deep.phases import Circumstances, Phase
from effml.deep.recipe import Recipe
from effml.deep.training import Batches, evaluate

__all__ = ["Plan"]


class Plan(BaseEstimator):
    """Phases applied to a model in order; a phase after which quality is below the floor is taken back.

    Parameters
    ----------
    phases : list of Phase or of lists of Phase
        The phases of an inner list are judged together, at its end: shrinking that the next phase has to make up for.
    floor : float or None, default=None
        Lowest quality of what ships.
    max_drop : float or None, default=None
        Lowest quality, as a distance from the best so far.
    metric : callable or None, default=None
        ``metric(outputs, targets)``, greater is better; None is accuracy.
    criterion : callable or None, default=None
        Loss of the task; None is cross entropy.
    build : callable or None, default=None
        ``build(width) -> untrained model``, for phases that change the width; the first model has width 1.
    learning_rate : float, default=1e-3
        Of Adam, falling along half a cosine in each phase.
    batch_size : int, default=64
    transform : callable or None, default=None
        Augmentation of the inputs of a batch.
    folder : path or None, default=None
        Where the ledger and the model after each phase are kept; a run with the same plan goes on from there. The files
        are pickles: use folders you trust.
    random_state : int, default=0
    verbose : bool, default=False
        Print a line a phase.

    Attributes
    ----------
    ledger_ : Ledger
        One entry a phase, the first for the model as given. Costs are those of what would ship.
    model_ : nn.Module
        What ships: batch norm folded, eval mode.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from effml.deep import IntegerWeights, MagnitudePrune, Plan, Train
    >>> X, y = load_digits(return_X_y=True)
    >>> X = (X / 16).astype("float32")
    >>> network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    >>> plan = Plan([Train(epochs=10), MagnitudePrune(sparsity=0.7, rounds=1), IntegerWeights(bits=4)])
    >>> small = plan.run(network, (X[:1200], y[:1200]), (X[1200:], y[1200:]))
    >>> plan.ledger_[0].file_bytes / plan.ledger_[-1].file_bytes > 8
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "phases": [list, tuple],
        "floor": [Real, None],
        "max_drop": [Interval(Real, 0, None, closed="left"), None],
        "metric": [callable, None],
        "criterion": [callable, None],
        "build": [callable, None],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "transform": [callable, None],
        "folder": [str, os.PathLike, None],
        "random_state": [Interval(Integral, 0, None, closed="left")],
        "verbose": ["boolean"],
    }

    def __init__(
        self,
        phases,
        *,
        floor=None,
        max_drop=None,
        metric=None,
        criterion=None,
        build=None,
        learning_rate=1e-3,
        batch_size=64,
        transform=None,
        folder=None,
        random_state=0,
        verbose=False,
    ):
        self.phases = phases
        self.floor = floor
        self.max_drop = max_drop
        self.metric = metric
        self.criterion = criterion
        self.build = build
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.transform = transform
        self.folder = folder
        self.random_state = random_state
        self.verbose = verbose

    def run(self, model, data, validation):
        """Go through the phases and return what ships.

        Parameters
        ----------
        model : nn.Module
            Trained or not; it stays as it is.
        data : (inputs, targets)
            To train on.
        validation : (inputs, targets)
            For the quality in the ledger and the floor; keep a test set for yourself.

        Returns
        -------
        nn.Module
            Also `model_`.
        """
        self._check()
        self._data, self._validation = Batches(data).tensors, Batches(validation).tensors
        groups = [list(group) if isinstance(group, (list, tuple)) else [group] for group in self.phases]
        given = None if self.folder is None else self._given(model)
        done = self._resume(groups, given)
        if done is None:
            entry = self._entry("start", "-", model, time.perf_counter())
            self.ledger_ = Ledger([entry])
            done = (0, copy.deepcopy(model), copy.deepcopy(model), 1.0)
        start, model, teacher, width = done
        for position in range(start, len(groups)):
            model, teacher, width = self._group(position, groups[position], model, teacher, width)
            self._save(groups, given, position + 1, model, teacher, width)
        self.model_ = _ship(model)
        return self.model_

    def plot(self, ax=None, *, start=False):
        """Quality against bytes of the file, as `Ledger.plot`."""
        return self.ledger_.plot(ax, start=start)

    def _check(self):
        self._validate_params()
        for phase in (p for group in self.phases for p in (group if isinstance(group, (list, tuple)) else [group])):
            if not isinstance(phase, Phase):
                raise TypeError(f"phases must hold Phase objects or lists of them, got {phase!r}")
            phase.validate()

    def _group(self, position, phases, model, teacher, width):
        """Run the phases of a group; returns (model, teacher, width), those from before if the floor is broken."""
        before, entries, best = (model, teacher, width), [], self._best()
        for inner, phase in enumerate(phases):
            started = time.perf_counter()
            seed = self.random_state + 100 * position + inner
            model = phase.run(copy.deepcopy(model), self._circumstances(teacher, width, seed))
            width = phase.width(width)
            entries.append(self._entry(_name(phase), phase.kind, model, started))
            if entries[-1].quality > best:
                best, teacher = entries[-1].quality, _ship(model)
            if self.verbose:
                print(f"{entries[-1].phase}: quality {entries[-1].quality:.4f}, {entries[-1].file_bytes:,} bytes")
        kept = entries[-1].quality >= self._lowest()
        self.ledger_ += [replace(entry, kept=kept) for entry in entries]
        return (model, teacher, width) if kept else before

    def _best(self):
        return max(entry.quality for entry in self.ledger_ if entry.kept)

    def _lowest(self):
        floors = [-float("inf")] if self.floor is None else [self.floor]
        return max(floors + ([] if self.max_drop is None else [self._best() - self.max_drop]))

    def _circumstances(self, teacher, width, seed):
        return Circumstances(
            data=self._data,
            teacher=teacher,
            build=self.build,
            width=width,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            seed=seed,
            transform=self.transform,
            criterion=self.criterion,
        )

    def _entry(self, name, kind, model, started):
        seconds = time.perf_counter() - started
        shipped = _ship(model)
        quality = evaluate(shipped, self._validation, self.metric)
        spent = cost(shipped, self._validation[0][:1])
        return Entry(
            phase=name,
            kind=kind,
            quality=quality,
            params=spent.params,
            size_bits=spent.size_bits,
            file_bytes=spent.file_bytes,
            macs=spent.macs,
            peak_activation_bytes=spent.peak_activation_bytes,
            latency_ms=spent.latency_ms,
            seconds=round(seconds, 2),
        )

    # -- the folder ---------------------------------------------------------------------------------------------------

    def _given(self, model):
        """What a run depends on beside its phases, as JSON: settings by value or name, model and data by digest."""
        settings = {name: getattr(self, name) for name in ("floor", "max_drop", "learning_rate", "batch_size")}
        settings["random_state"] = self.random_state
        for name in ("metric", "criterion", "build", "transform"):
            value = getattr(self, name)
            settings[name] = getattr(value, "__qualname__", None if value is None else _text(value))
        state = [tensor for _, tensor in sorted(model.state_dict().items())]
        return settings | {
            "model": _digest(state, _text(model)),
            "data": _digest(self._data),
            "validation": _digest(self._validation),
        }

    def _save(self, groups, given, done, model, teacher, width):
        if self.folder is None:
            return
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / f"phase_{done:02d}.pt", lambda path: torch.save((model, teacher, width), path))
        log = {"plan": _plan_text(groups), "given": given, "done": done, "ledger": json.loads(self.ledger_.to_json())}
        _replace(folder / "ledger.json", lambda path: path.write_text(json.dumps(log, indent=1)))

    def _resume(self, groups, given):
        """(groups done, model, teacher, width) from the folder, or None if there is nothing."""
        if self.folder is None or not (Path(self.folder) / "ledger.json").is_file():
            return None
        log = _read(Path(self.folder) / "ledger.json", lambda path: json.loads(path.read_text()))
        other = [name for name, value in given.items() if log.get("given", {}).get(name) != value]
        if log["plan"][: log["done"]] != _plan_text(groups)[: log["done"]]:
            other.insert(0, "phases")
        if other:
            raise ValueError(
                f"folder={str(self.folder)!r} holds a run of another plan (other {', '.join(other)}); give another "
                "folder, or remove it"
            )
        self.ledger_ = Ledger.from_json(json.dumps(log["ledger"]))
        path = Path(self.folder) / f"phase_{log['done']:02d}.pt"
        return (log["done"], *_read(path, lambda path: torch.load(path, weights_only=False)))


def _read(path, read):
    try:
        return read(path)
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(f"{str(path)!r} is damaged ({error}); remove its folder, or give another") from error


def _text(value):
    """Its repr without addresses, which another process would not repeat."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _digest(tensors, text=""):
    """A hash of some tensors and a text."""
    digest = hashlib.blake2b(text.encode(), digest_size=12)
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        digest.update(
            f"{values.dtype}{tuple(values.shape)}".encode() + values.flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def _ship(model):
    """A copy with batch norm folded, in eval mode."""
    return Recipe().finalize(model)


def _name(phase):
    text = repr(phase)
    return text if len(text) <= 60 else type(phase).__name__


def _plan_text(groups):
    return [[_text(phase) for phase in group] for group in groups]


def _replace(path, write):
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)
