"""Smart Ternary Quantization: the border, depths that follow the pull, mixed nets against pure ones."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from effml.deep import ProxConnect, Recipe, SmartTernary, evaluate, size_bits, train
from effml.deep.smart_ternary import _BinaryOrTernary, basin_border


def net(seed=0, width=64):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(),
        nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 10),
    )  # fmt: skip


def trained(data, technique, seed=0, epochs=15, width=24):
    recipe = Recipe([technique])
    state = train(
        recipe.apply(net(seed, width)),
        data,
        recipe=recipe,
        epochs=epochs,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.01),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs),
        random_state=seed,
    )
    return recipe, state.model


def depths(recipe, model):
    return list(recipe.techniques_["smartternary"].depths(model).bits.values())


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("beta", [0.8, 1.0, 1.3, 1.5])
def test_the_border_is_where_the_two_wells_are_equal(p, beta):
    mu = 0.7
    delta = basin_border(mu, math.tan(beta), p)
    assert abs(delta - mu) ** p == pytest.approx(math.tan(beta) * delta**p)
    assert basin_border(mu, 1.0, p) == pytest.approx(mu / 2)


def test_the_penalty_falls_towards_the_wells():
    quantiser = _BinaryOrTernary(p=1, start=-2.0)
    inside = torch.tensor([-0.5, 0.0, 0.5, 0.5])
    away = torch.tensor([-0.35, 0.12, 0.4, 0.65])
    assert float(quantiser.penalty(inside).detach()) == pytest.approx(0.0, abs=1e-6)
    assert quantiser.penalty(away) > 0.05


def test_the_gradient_of_the_shape_is_that_of_the_formula():
    quantiser = _BinaryOrTernary(p=2, start=0.3).double()
    weights = torch.tensor([0.02, -0.05, 0.5, -0.6, 0.55], dtype=torch.float64)
    quantiser.penalty(weights).backward()
    tan = math.tan(float(quantiser.beta.detach()))
    share = 1 / (1 + math.exp(-0.3))
    slope = math.pi / 4 * share * (1 - share)
    expected = (1 + tan**2) * (0.02**2 + 0.05**2) / 5 * slope
    assert float(quantiser.shape.grad) == pytest.approx(expected)


def test_rounding_is_straight_through_and_has_three_levels_or_two():
    quantiser = _BinaryOrTernary(p=1, start=-2.0)
    weights = torch.tensor([-0.5, 0.01, 0.4, -0.02, 0.6], requires_grad=True)
    out = quantiser(weights)
    assert len(out.unique()) == 3 and out[1] == 0
    out.sum().backward()
    assert torch.equal(weights.grad, torch.ones(5))
    quantiser.binary.fill_(True)
    out = quantiser(weights)
    assert len(out.unique()) == 2
    assert float(out.abs().unique().detach()) == pytest.approx(float(weights.detach().abs().mean()))


def test_the_pull_decides_the_depth(digits):
    assert depths(*trained(digits[0], SmartTernary(binary_weight=0.0))) == [2, 2, 2]
    assert depths(*trained(digits[0], SmartTernary(binary_weight=1.0))) == [1, 1, 1]


def test_bits_fall_as_the_pull_grows(digits):
    bits = []
    for pull in (0.0, 3e-3, 1e-2, 2e-2, 1.0):
        depth = depths(*trained(digits[0], SmartTernary(binary_weight=pull)))
        bits.append(sum(n * b for n, b in zip((64 * 24, 24 * 24, 240), depth, strict=True)))
    assert sorted(bits, reverse=True) == bits, bits
    assert bits[-1] < bits[0]


def test_what_ships_has_three_values_or_two(digits):
    recipe, model = trained(digits[0], SmartTernary(), epochs=5)
    shipped = recipe.finalize(model)
    for layer, bits in zip((shipped[0], shipped[3], shipped[6]), depths(recipe, model), strict=True):
        assert max(len(row.unique()) for row in layer.weight) <= 2 * bits - (bits == 2)
    stored = size_bits(shipped)
    assert stored < 0.15 * size_bits(Recipe().finalize(net(width=24)))


def test_a_mixed_net_is_on_or_above_the_line_between_pure_ones(digits):
    """Accuracy against bits of the weights, mean of 3 seeds; the pure ones are the same technique at its two ends."""

    def point(pull, seed):
        recipe, model = trained(digits[0], SmartTernary(binary_weight=pull), seed)
        bits = sum(n * b for n, b in zip((64 * 24, 24 * 24, 240), depths(recipe, model), strict=True))
        return bits, 100 * evaluate(recipe.finalize(model), digits[1])

    (few, low), (mixed_bits, mixed), (many, high) = (
        np.mean([point(pull, seed) for seed in range(3)], axis=0) for pull in (0.02, 0.014, 0.0)
    )
    assert few < mixed_bits < many
    on_the_line = low + (high - low) * (mixed_bits - few) / (many - few)
    assert mixed >= on_the_line - 0.3, (few, low, mixed_bits, mixed, many, high)


def test_it_composes_with_another_technique_on_other_layers(digits):
    recipe = Recipe([SmartTernary(include="0"), ProxConnect(bits=2, include=["3", "6"])])
    state = train(recipe.apply(net()), digits[0], recipe=recipe, epochs=5, random_state=0)
    shipped = recipe.finalize(state.model)
    assert [max(len(row.unique()) for row in shipped[i].weight) for i in (0, 3, 6)] <= [3, 4, 4]
    assert evaluate(shipped, digits[1]) > 0.8
