"""ProxConnect: the corners of the family against plain definitions, the maps, the levels, torchao, digits."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torchao")

from torch import nn

from effml.deep import ProxConnect, Recipe, SmartTernary, evaluate, train
from effml.deep.prox_maps import SCHEDULES, linear_map, nearest, prox_map


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=1e-3)


def batches(digits, n):
    X, y = digits[0]
    return [(X[20 * i : 20 * i + 20], y[20 * i : 20 * i + 20]) for i in range(n)]


def trained(technique, data, model=None, optimizer=sgd):
    recipe = Recipe([] if technique is None else [technique])
    model = recipe.apply(net() if model is None else model)
    return recipe, train(model, data, recipe=recipe, epochs=1, optimizer=optimizer).model


def test_the_hard_map_is_straight_through_binary_connect_bit_for_bit(digits):
    data = batches(digits, 20)
    hard = ProxConnect(bits=1, schedule="hard", period=1, levels="sign")
    _, model = trained(hard, data)

    shadow, held = net(), net()  # the textbook: gradient at the signs, update of the clipped floats
    optimizer = sgd(shadow.parameters())
    weights = [name for name, p in shadow.named_parameters() if p.dim() == 2]
    for step, (X, y) in enumerate(data):
        held.train()
        loss = nn.functional.cross_entropy(held(X), y)
        held.zero_grad()
        loss.backward()
        for ours, theirs in zip(shadow.parameters(), held.parameters(), strict=True):
            ours.grad = theirs.grad.clone()
        optimizer.step()
        for name in weights:
            shadow.get_parameter(name).data.clamp_(-1, 1)
        with torch.no_grad():
            for (name, target), source in zip(held.named_parameters(), shadow.parameters(), strict=True):
                target.copy_(torch.where(source > 0, 1.0, -1.0) if name in weights else source)
        assert step < 20
    for name in weights:
        assert torch.equal(model.get_parameter(name), held.get_parameter(name))
    assert torch.equal(model[0].bias, held[0].bias)


def test_the_identity_is_the_base_optimizer(digits):
    data = batches(digits, 20)
    recipe = Recipe([ProxConnect(bits=2, schedule="identity")])
    model = recipe.apply(net())
    state = recipe.begin(model, sgd, epochs=1, steps_per_epoch=20)
    plain = net()
    optimizer = sgd(plain.parameters())
    for X, y in data:
        for network, chosen in ((model, state.optimizer), (plain, optimizer)):
            chosen.zero_grad()
            nn.functional.cross_entropy(network(X), y).backward()
            chosen.step()
        recipe.step_end(state)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("gradient_at", ["quantised", "shadow"])
@pytest.mark.parametrize("update_from", ["quantised", "shadow"])
def test_the_four_corners_follow_their_table(gradient_at, update_from, digits):
    """u <- start - lr * gradient(point), written out for one layer and plain SGD."""
    data = batches(digits, 12)
    technique = ProxConnect(
        bits=1, schedule="linear", gradient_at=gradient_at, update_from=update_from, period=1, anneal=(0.0, 1.0)
    )
    torch.manual_seed(0)
    start = nn.Linear(64, 10)
    recipe = Recipe([technique])
    model = recipe.apply(start)
    state = recipe.begin(model, lambda p: torch.optim.SGD(p, 0.5), epochs=1, steps_per_epoch=12)
    u, bias = start.weight.detach().clone(), start.bias.detach().clone()
    w, levels = u.clone(), None
    for step, (X, y) in enumerate(data, 1):
        state.optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), y).backward()
        state.optimizer.step()
        recipe.step_end(state)

        point = (w if gradient_at == "quantised" else u).clone().requires_grad_()
        free = bias.clone().requires_grad_()
        loss = nn.functional.cross_entropy(X @ point.T + free, y)
        slope, bias_slope = torch.autograd.grad(loss, (point, free))
        u, bias = (u if update_from == "shadow" or step == 1 else w) - 0.5 * slope, bias - 0.5 * bias_slope
        scale = u.abs().mean(1, keepdim=True)
        if update_from == "shadow" or step < 12:  # else they would feed on themselves
            levels = torch.cat([-scale, scale], 1)
        w = linear_map(u, levels, step / 12, 1.0)
        torch.testing.assert_close(model.weight.detach(), w if gradient_at == "quantised" else u)
    recipe.end(state)
    assert torch.equal(model.weight.abs(), levels[:, 1:].expand_as(w)) or torch.allclose(
        model.weight, nearest(u, levels)
    )


@pytest.mark.parametrize("bits", [1, 2, 3, "ternary"])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("levels", ["least-squares", "uniform"])
def test_weights_have_few_values_after_training(bits, per_channel, levels, digits):
    technique = ProxConnect(bits=bits, per_channel=per_channel, levels=levels, anneal=(0.0, 0.8))
    recipe, model = trained(technique, batches(digits, 30))
    n_levels = 3 if bits == "ternary" else 2**bits
    for layer in (model[0], model[3]):
        rows = layer.weight if per_channel else layer.weight.reshape(1, -1)
        assert max(len(row.unique()) for row in rows) <= n_levels
        assert len(layer.weight.unique()) > 1
    shipped = recipe.finalize(model)
    assert torch.equal(shipped[3].weight, model[3].weight)  # hardened already
    assert max(len(row.unique()) for row in shipped[0].weight) <= n_levels  # batch norm folded in


def test_weights_are_hard_before_the_end_and_the_rest_of_training_is_for_batch_norm(digits):
    recipe = Recipe([ProxConnect(bits=2, anneal=(0.0, 0.5))])
    model = recipe.apply(net())
    data = batches(digits, 40)
    state = recipe.begin(model, sgd, epochs=1, steps_per_epoch=40)
    counts = []
    for X, y in data:
        state.optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), y).backward()
        state.optimizer.step()
        recipe.step_end(state)
        counts.append(max(len(row.unique()) for row in model[0].weight))
    assert min(counts[:15]) > 4 and max(counts[20:]) <= 4


def test_layers_harden_one_after_the_other(digits):
    recipe = Recipe([ProxConnect(bits=1, layer_by_layer=True, anneal=(0.0, 1.0))])
    model = recipe.apply(net())
    state = recipe.begin(model, sgd, epochs=1, steps_per_epoch=40)
    for X, y in batches(digits, 22):
        state.optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), y).backward()
        state.optimizer.step()
        recipe.step_end(state)
    assert len(model[0].weight[0].unique()) == 2 and len(model[3].weight[0].unique()) > 2


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1), st.integers(2, 9))
def test_every_map_is_monotone_and_stays_between_its_neighbours(seed, rho, vrho, n_levels):
    rng = np.random.default_rng(seed)
    levels = torch.as_tensor(np.sort(rng.normal(size=(3, n_levels))).astype(np.float32))
    u = torch.as_tensor(np.sort(rng.normal(scale=2, size=(3, 200))).astype(np.float32))
    w = linear_map(u, levels, rho, vrho)
    assert (w.diff(dim=1) >= -1e-6).all()
    assert (w >= levels[:, :1]).all() and (w <= levels[:, -1:]).all()
    for schedule in SCHEDULES:
        assert (prox_map(schedule, u, levels, rho, 10).diff(dim=1) >= -1e-6).all()


def test_the_corners_of_the_map():
    levels = torch.tensor([[-1.0, 0.5, 2.0]])
    u = torch.linspace(-3, 4, 301).reshape(1, -1)
    clipped = u.clamp(-1, 2)
    assert torch.equal(linear_map(u, levels, 0.3, 0.0), nearest(clipped, levels))
    assert torch.equal(linear_map(u, levels, 1.0, 0.7), nearest(clipped, levels))
    assert torch.equal(linear_map(u, levels, 0.0, 1.0), clipped)
    relaxed = linear_map(u, levels, 0.0, 0.4)  # BinaryRelax within the range: vrho = G / (1 + lam), lam = 1.5
    torch.testing.assert_close(relaxed, (clipped + 1.5 * nearest(clipped, levels)) / 2.5)
    gap, lam = 0.75, 0.3  # ProxQuant: rho = lam, vrho = G - lam
    quantised = nearest(clipped, levels)
    away = (clipped - quantised).sign() * ((clipped - quantised).abs() - lam).clamp(min=0)
    torch.testing.assert_close(linear_map(u, levels, lam / gap, 1 - lam / gap), quantised + away)


@pytest.mark.parametrize("schedule", ["hard", "parq", "relax"])
def test_equals_torchao_where_it_does_the_same(schedule, digits):
    """torchao counts a step from 0 where we count from 1, so its annealing starts one step earlier."""
    from torchao.prototype import parq

    data = batches(digits, 30)
    maps = {
        "hard": parq.ProxHardQuant(),
        "parq": parq.ProxPARQ(-1, 23, steepness=10),
        "relax": parq.ProxBinaryRelax(-1, 23),
    }
    peer = net()
    weights = [p for p in peer.parameters() if p.dim() == 2]
    rest = [p for p in peer.parameters() if p.dim() == 1]
    base = torch.optim.SGD([{"params": weights, "quant_bits": 1}, {"params": rest}], 0.1, momentum=0.9)
    optimizer = parq.QuantOptimizer(base, parq.LSBQuantizer(), maps[schedule], quant_period=10, quant_per_channel=True)
    for X, y in data:
        optimizer.zero_grad()
        nn.functional.cross_entropy(peer(X), y).backward()
        optimizer.step()
    ours = ProxConnect(bits=1, schedule=schedule, anneal=(0.0, 0.8), period=10)
    _, model = trained(ours, data, optimizer=lambda p: torch.optim.SGD(p, 0.1, momentum=0.9))
    for mine, theirs in zip(model.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_a_learning_rate_schedule_reaches_the_base_optimizer(digits):
    recipe = Recipe([ProxConnect()])
    state = train(
        recipe.apply(net()),
        digits[0],
        recipe=recipe,
        epochs=2,
        optimizer=sgd,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1),
    )
    assert state.optimizer.base.param_groups[0]["lr"] == pytest.approx(0.001)


def test_a_closure_takes_its_gradient_where_the_model_stands(digits):
    data = batches(digits, 10)
    ends = []
    for with_closure in (False, True):
        recipe = Recipe([ProxConnect(bits=1, schedule="hard")])
        model = recipe.apply(net())
        state = recipe.begin(model, sgd, epochs=1, steps_per_epoch=10)
        for X, y in data:

            def closure(X=X, y=y, model=model, state=state):
                state.optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(X), y)
                loss.backward()
                return loss

            if with_closure:
                state.optimizer.step(closure)
            else:
                closure()
                state.optimizer.step()
            recipe.step_end(state)
        ends.append(copy.deepcopy(model.state_dict()))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_what_cannot_be_quantised_is_named():
    frozen = net()
    frozen[0].weight.requires_grad_(False)
    recipe = Recipe([ProxConnect()])
    with pytest.raises(ValueError, match=r"does not train \['0.weight'\]"):
        recipe.begin(
            recipe.apply(frozen),
            lambda p: torch.optim.SGD([q for q in p if q.requires_grad], 0.1),
            epochs=1,
            steps_per_epoch=1,
        )
    with pytest.raises(ValueError, match="does not train"):
        both = Recipe([SmartTernary(warmup=0.0), ProxConnect()])
        both.begin(both.apply(net()), sgd, epochs=1, steps_per_epoch=1)
    for wrong, words in (({"anneal": (0.5, 0.2)}, "start < end"), ({"levels": "sign", "bits": 2}, "needs bits=1")):
        with pytest.raises(ValueError, match=words):
            Recipe([ProxConnect(**wrong)]).apply(net())
    made = ProxConnect().wrap(sgd((model := net()).parameters()), model)
    with pytest.raises(RuntimeError, match=r"recipe\.begin"):
        made.step()


def accuracy(technique, digits, seed):
    recipe = Recipe([] if technique is None else [technique])
    model = recipe.apply(net(seed))
    optimizer = lambda p: torch.optim.Adam(p, 0.01)  # noqa: E731
    scheduler = lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 30)  # noqa: E731
    given = {"epochs": 30, "batch_size": 32, "optimizer": optimizer, "scheduler": scheduler, "random_state": seed}
    state = train(model, digits[0], recipe=recipe, **given)
    return 100 * evaluate(recipe.finalize(state.model), digits[1])


@pytest.mark.parametrize("gradient_at", ["quantised", "shadow"])
def test_levels_do_not_shrink_when_updates_start_from_rounded_weights(gradient_at, digits):
    technique = ProxConnect(bits="ternary", schedule="linear", gradient_at=gradient_at, update_from="quantised")
    assert accuracy(technique, digits, 0) > 90
    torch.manual_seed(0)
    rows = torch.randn(3, 50)
    levels = ProxConnect(bits="ternary").level_sets(rows)
    torch.testing.assert_close(ProxConnect(bits="ternary").level_sets(nearest(rows, levels)), levels)


def test_on_digits_one_bit_is_no_worse_than_straight_through_and_two_bits_are_near_float(digits):
    seeds = range(5)
    real = np.mean([accuracy(None, digits, seed) for seed in seeds])
    straight = np.mean([accuracy(ProxConnect(bits=1, schedule="hard"), digits, seed) for seed in seeds])
    one = np.mean([accuracy(ProxConnect(bits=1), digits, seed) for seed in seeds])
    two = np.mean([accuracy(ProxConnect(bits=2), digits, seed) for seed in seeds])
    assert one >= straight - 0.5, (real, straight, one, two)
    assert two >= real - 1.0, (real, straight, one, two)
