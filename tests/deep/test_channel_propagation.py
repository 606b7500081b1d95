"""Dynamic channel propagation, a technique from outside on the plugs as they are: the checks of its sheet."""

import copy

import pytest
import torch

pytest.importorskip("torch_pruning")

from torch import nn

from effml.deep import Callback, ChannelPropagation, Recipe, evaluate, params, train


class Residual(nn.Module):
    """A stem, one block with a shortcut, a head."""

    def __init__(self, width=16):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.first, self.norm1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.second, self.norm2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.head = nn.Linear(width * 16, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x.reshape(-1, 1, 8, 8)))
        x = torch.relu(x + self.norm2(self.second(torch.relu(self.norm1(self.first(x))))))
        return self.head(nn.functional.max_pool2d(x, 2).flatten(1))


def vgg(width=16):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * width, 10),
    )  # fmt: skip


GIVEN = {"epochs": 12, "batch_size": 32, "optimizer": lambda p: torch.optim.Adam(p, 0.005), "random_state": 0}


class Flips(Callback):
    """Counts how often channels that were off come back."""

    def train_begin(self, state):
        self.back_, self.before_ = 0, None

    def step_end(self, state):
        now = torch.cat([module.on for module in state.model.modules() if hasattr(module, "utility")])
        if self.before_ is not None:
            self.back_ += int((now & ~self.before_).sum())
        self.before_ = now


@pytest.fixture(scope="module")
def trained(digits):
    recipe = Recipe([ChannelPropagation(ratio=0.4), Flips()])
    model = recipe.apply(vgg(), digits[0][0][:2])
    return recipe, train(model, digits[0], recipe=recipe, **GIVEN).model


def test_scores_are_the_brute_force_sum():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    recipe = Recipe([ChannelPropagation()])
    gated = recipe.apply(net, torch.zeros(2, 1, 6, 6)).train()
    gated[1].on[1] = False
    X = torch.randn(4, 1, 6, 6)
    gated(X).square().sum().backward()
    z = copy.deepcopy(net[1]).train()(net[0](X)).detach().requires_grad_()
    masked = z * torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1)
    net[4](torch.relu(masked).flatten(1)).square().sum().backward()
    expected = [sum(abs(float((z.grad * z)[b, c].sum().detach())) for b in range(4)) / (4 * 16) for c in range(3)]
    torch.testing.assert_close(gated[1].score, torch.tensor(expected), rtol=1e-4, atol=1e-6)
    assert gated[1].score[1] == 0


def test_what_is_cut_computes_what_was_masked(trained, digits):
    recipe, model = trained
    shipped = recipe.finalize(model)
    torch.testing.assert_close(shipped(digits[1][0]), model.eval()(digits[1][0]), rtol=1e-3, atol=1e-3)
    channels = [module.out_channels for module in shipped if isinstance(module, nn.Conv2d)]
    assert sum(channels) == pytest.approx(0.6 * 64, abs=1)
    assert params(shipped) < 0.75 * params(Recipe().finalize(vgg()))


def test_accuracy_is_near_that_of_the_dense_net(trained, digits):
    recipe, model = trained
    dense = train(vgg(), digits[0], **GIVEN).model
    assert evaluate(recipe.finalize(model), digits[1]) >= evaluate(dense, digits[1]) - 0.015


def test_utilities_separate_and_channels_come_back(trained):
    recipe, model = trained
    gates = [module for module in model.modules() if hasattr(module, "utility")]
    on, utility = torch.cat([gate.on for gate in gates]), torch.cat([gate.utility for gate in gates])
    assert utility[on].mean() >= 3 * utility[~on].mean()
    assert recipe.techniques_["flips"].back_ > 0


def test_through_a_shortcut(digits):
    torch.manual_seed(0)
    recipe = Recipe([ChannelPropagation(ratio=0.5, include="norm1")])
    model = recipe.apply(Residual(), digits[0][0][:2])
    model = train(model, digits[0], recipe=recipe, **{**GIVEN, "epochs": 3}).model
    shipped = recipe.finalize(model)
    assert shipped.first.out_channels == 8 and shipped.second.in_channels == 8 and shipped.stem.out_channels == 16
    torch.testing.assert_close(shipped(digits[1][0]), model.eval()(digits[1][0]), rtol=1e-3, atol=1e-3)


def test_example_inputs_are_asked_for(trained):
    recipe = Recipe([ChannelPropagation()])
    model = recipe.apply(vgg())
    model[2].on[0] = False
    with pytest.raises(ValueError, match="needs example_inputs"):
        recipe.finalize(model)
