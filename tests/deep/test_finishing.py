"""The model that ships: batch norm folded where that is exact, hooks gone."""

import copy

import pytest
import torch
from torch import nn

from effml.deep import Batch, Hooks, Recipe, remove_hooks


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


def test_batch_norm_is_folded_only_where_that_is_exact():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
            self.twice, self.after = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            h = self.norm(self.conv(x))
            g = self.twice(h)
            return self.after(g) + g  # g goes elsewhere, too

    torch.manual_seed(0)
    net = Net()
    for _ in range(3):
        net(torch.randn(8, 1, 6, 6))
    X = torch.randn(4, 1, 6, 6)
    expected = net.eval()(X)
    shipped = Recipe().finalize(net)
    assert isinstance(shipped.norm, nn.Identity) and isinstance(shipped.after, nn.BatchNorm2d)
    torch.testing.assert_close(shipped(X), expected, rtol=1e-4, atol=1e-5)
    assert isinstance(Recipe(fold_batch_norm=False).finalize(net).norm, nn.BatchNorm2d)


def test_a_model_that_cannot_be_traced_keeps_its_batch_norm_and_says_so():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2)

        def forward(self, x):
            return self.norm(self.conv(x)) if x.sum() > 0 else x

    with pytest.warns(UserWarning, match="batch norm is not folded"):
        assert isinstance(Recipe().finalize(Branching()).norm, nn.BatchNorm1d)


def test_hooks_on_a_copy_are_found():
    model, seen = mlp().eval(), []
    hooks = Hooks()
    hooks.on_forward(model[0], lambda *_: seen.append(1))
    twin = copy.deepcopy(model)
    hooks.remove()
    twin(torch.zeros(1, 64))
    assert seen == [1]
    remove_hooks(twin)(torch.zeros(1, 64))
    assert seen == [1]


def test_a_batch_has_what_terms_need():
    batch = Batch(torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, 1))
    assert batch.progress == 0.0 and batch.weights is None and batch.features == {}
