"""The foothill function: limits, derivatives, SignSwish; a robust loss; wells for weights; a binary quantiser."""

import numpy as np
import pytest
import torch
from torch import nn

from effml.deep import (
    Foothill,
    FoothillBinarize,
    FoothillLoss,
    FoothillSign,
    Recipe,
    evaluate,
    foothill_function,
    train,
)
from effml.deep.foothill import foothill_curvature, foothill_slope

GRID = torch.linspace(-5, 5, 1001, dtype=torch.float64)


def test_limits_are_the_absolute_value_and_the_square():
    assert (foothill_function(GRID, 1.0, 200.0) - GRID.abs()).abs().max() < 2.8e-3
    assert (foothill_function(GRID, 2 / 1e-3, 1e-3) - GRID**2).abs().max() < 5.3e-5


@pytest.mark.parametrize("a, b", [(1.0, 5.0), (0.3, 0.7), (2.0, 40.0)])
def test_derivatives(a, b):
    x = GRID.clone().requires_grad_()
    (slope,) = torch.autograd.grad(foothill_function(x, a, b).sum(), x, create_graph=True)
    torch.testing.assert_close(slope.detach(), foothill_slope(GRID, a, b))
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    torch.testing.assert_close(curvature, foothill_curvature(GRID, a, b), rtol=1e-6, atol=1e-9)
    assert torch.autograd.gradcheck(lambda t: foothill_function(t, a, b), GRID[::50].clone().requires_grad_())
    assert foothill_slope(torch.tensor(2.3994 / b), a, b) == pytest.approx(1.1997 * a, rel=1e-4)


def test_the_slope_is_sign_swish():
    b = 5.0
    sigmoid = torch.sigmoid(b * GRID)
    torch.testing.assert_close(foothill_slope(GRID, 1.0, b), 2 * sigmoid * (1 + b * GRID * (1 - sigmoid)) - 1)


def test_nothing_overflows():
    x = torch.tensor([-1e4, -100.0, 100.0, 1e4])
    assert torch.equal(foothill_function(x, 1.0, 5.0), x.abs())
    assert torch.equal(foothill_slope(x, 1.0, 5.0), x.sign())
    assert torch.equal(foothill_curvature(x, 1.0, 5.0), torch.zeros(4))


def test_the_sign_goes_forward_as_a_sign_and_back_as_the_curvature():
    x = torch.tensor([-0.4, 0.0, 0.2, 3.0], requires_grad=True)
    out = FoothillSign(b=5.0)(x)
    assert out.tolist() == [-1.0, 1.0, 1.0, 1.0]
    out.sum().backward()
    torch.testing.assert_close(x.grad, foothill_curvature(x.detach(), 1.0, 5.0))


def test_the_loss_resists_outliers():
    from sklearn.datasets import load_diabetes
    from sklearn.preprocessing import scale

    X, y = load_diabetes(return_X_y=True)
    X, y = scale(X).astype("float32"), scale(y).astype("float32").reshape(-1, 1)
    rng = np.random.default_rng(0)
    spoilt = y.copy()
    spoilt[rng.choice(300, 15, replace=False)] += 20
    errors = []
    for criterion in (FoothillLoss(b=2.0), nn.MSELoss()):
        torch.manual_seed(0)
        sgd = lambda p: torch.optim.Adam(p, 0.02)  # noqa: E731
        data = (X[:300], spoilt[:300])
        model = train(nn.Linear(10, 1), data, epochs=60, criterion=criterion, optimizer=sgd, random_state=0).model
        with torch.no_grad():
            errors.append(float((model(torch.as_tensor(X[300:])) - torch.as_tensor(y[300:])).abs().mean()))
    assert errors[0] < 0.9 * errors[1], errors
    assert FoothillLoss(reduction="none")(torch.zeros(3), torch.ones(3)).shape == (3,)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10))


def post_hoc(model):
    """Every weight to its layer's mean size with its sign."""
    with torch.no_grad():
        for layer in (model[0], model[3]):
            layer.weight.copy_(layer.weight.abs().mean() * torch.where(layer.weight < 0, -1.0, 1.0))
    return model


def test_wells_gather_the_weights_so_that_rounding_costs_little(digits):
    adam = lambda p: torch.optim.Adam(p, 0.005)  # noqa: E731
    falling = lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40)  # noqa: E731
    given = {"epochs": 40, "batch_size": 32, "optimizer": adam, "scheduler": falling, "random_state": 0}
    recipe = Recipe([Foothill()])
    state = train(recipe.apply(net()), digits[0], recipe=recipe, **given)
    soft, hard = evaluate(state.model, digits[1]), evaluate(recipe.finalize(state.model), digits[1])
    for layer in (state.model[0], state.model[3]):
        size, mu = layer.weight.detach().abs(), layer.parametrizations.weight[0].log_mu.detach().exp()
        assert ((size - mu).abs() <= 0.1 * mu).float().mean() >= 0.9
    assert hard >= soft - 0.02, (soft, hard)
    plain = train(net(), digits[0], **given).model
    before = evaluate(plain, digits[1])
    assert before - evaluate(post_hoc(plain), digits[1]) > soft - hard


def test_shrinkage_shrinks(digits):
    given = {"epochs": 10, "random_state": 0}
    recipe = Recipe([Foothill(binary=False)])
    torch.manual_seed(0)
    start = nn.Linear(64, 10)
    shrunk = recipe.finalize(train(recipe.apply(start), digits[0], recipe=recipe, **given).model)
    plain = train(start, digits[0], **given).model
    assert shrunk.weight.abs().mean() < 0.7 * plain.weight.abs().mean()
    assert len(shrunk.weight.unique()) > 100  # not rounded


def test_binary_weights_and_activations_learn(digits):
    recipe = Recipe([FoothillBinarize(activations=True, exclude="3")])
    adam = lambda p: torch.optim.Adam(p, 0.01)  # noqa: E731
    state = train(recipe.apply(net()), digits[0], recipe=recipe, epochs=15, optimizer=adam, random_state=0)
    shipped = recipe.finalize(state.model)
    assert max(len(row.unique()) for row in shipped[0].weight) == 2
    assert isinstance(shipped[2], FoothillSign)
    assert evaluate(shipped, digits[1]) > 0.93
