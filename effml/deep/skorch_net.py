"""skorch's training loop with a recipe in it: the net, its data and the callback that tells the recipe what happens."""

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback

from effml.deep.training import check_loss

__all__ = ["RecipeNet", "Rows"]


class Rows(torch.utils.data.Dataset):
    """Inputs with (targets,) or (targets, weights)."""

    def __init__(self, inputs, *targets):
        self.inputs = torch.as_tensor(inputs)
        self.targets = [torch.as_tensor(target) for target in targets]

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, row):
        return self.inputs[row], tuple(target[row] for target in self.targets)


class _Batches:
    """skorch's batches as callbacks of a recipe know them: (inputs, targets) or (inputs, targets, weights)."""

    def __init__(self, iterator):
        self.iterator = iterator

    def __len__(self):
        return len(self.iterator)

    def __iter__(self):
        for inputs, targets in self.iterator:
            yield (inputs, *targets)


class _Driver(Callback):
    """Tells the recipe of epochs and steps; scores what would ship, and ends training where that stops improving."""

    def __init__(self, score=None, patience=10, tol=1e-4):
        self.score = score
        self.patience = patience
        self.tol = tol

    def on_train_begin(self, net, **ignored):
        self.scores, self.best_score, self.best_model, self.waited = [], -float("inf"), None, 0

    def on_batch_end(self, net, batch=None, training=False, **ignored):
        if training:
            net.recipe.step_end(net.run_)

    def on_epoch_end(self, net, **ignored):
        net.run_.metrics = {"loss": check_loss(net.history[-1]["train_loss"], len(net.history))}
        if self.score is not None:
            self._validate(net)
        net.recipe.epoch_end(net.run_)
        net.module_, net.optimizer_ = net.run_.model, net.run_.optimizer
        if net.run_.stop or self.waited >= self.patience:
            raise KeyboardInterrupt  # how skorch's own callbacks end a training

    def _validate(self, net):
        model = net.recipe.finalize(net.module_)
        score = self.score(model)
        net.history.record("valid_score", score)
        net.run_.metrics["valid_score"] = score
        self.scores.append(score)
        self.waited = 0 if score > self.best_score + self.tol else self.waited + 1
        if score > self.best_score:
            self.best_score, self.best_model = score, model

    def on_train_end(self, net, **ignored):
        net.recipe.end(net.run_)


class RecipeNet(NeuralNet):
    """A skorch net for a module that a recipe was applied to.

    Parameters
    ----------
    module : nn.Module
        As `Recipe.apply` returned it.
    recipe : Recipe
    loss : callable
        The task's loss, one value a row where rows have weights.
    make_optimizer : callable
        parameters -> optimizer
    steps_per_epoch : int
    score : callable or None
        ``score(finalized model) -> float``, greater is better; training stops when it no longer improves.
    patience, tol : as `n_iter_no_change` and `tol` of scikit-learn
    **kwargs
        Of `skorch.NeuralNet`.
    """

    def __init__(
        self, module, *, recipe, loss, make_optimizer, steps_per_epoch, score=None, patience=10, tol=1e-4, **kwargs
    ):
        self.recipe = recipe
        self.loss = loss
        self.make_optimizer = make_optimizer
        self.steps_per_epoch = steps_per_epoch
        self.score = score
        self.patience = patience
        self.tol = tol
        super().__init__(module, criterion=torch.nn.Identity, train_split=None, **kwargs)

    @property
    def _default_callbacks(self):
        driver = _Driver(self.score, self.patience, self.tol)
        return [*super()._default_callbacks, ("recipe", driver)]  # after the losses are known

    @property
    def driver_(self):
        """The callback between net and recipe."""
        return dict(self.callbacks_)["recipe"]

    def initialize_optimizer(self, triggered_directly=None):
        """The optimizer in the recipe's wrappers, and the state of the run."""
        self.run_ = self.recipe.begin(
            self.module_, self.make_optimizer, epochs=self.max_epochs, steps_per_epoch=self.steps_per_epoch
        )
        self.optimizer_ = self.run_.optimizer
        return self

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """An epoch over the data that the recipe's callbacks leave in place."""
        if training:
            self.run_.data = _Batches(iterator) if self.run_.data is None else self.run_.data
            self.recipe.epoch_begin(self.run_)
            iterator = ((inputs, targets) for inputs, *targets in self.run_.data)
        super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """The task's loss and the techniques' terms."""
        targets, *weights = (tensor.to(self.device) for tensor in y_true)
        return self.recipe.loss(self.loss, self.run_, X.to(self.device), targets, y_pred, *weights)
