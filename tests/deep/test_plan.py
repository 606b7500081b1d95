"""Plans: phases, the ledger, the way back, going on from a folder."""

import copy
import json

import pytest
import torch
from torch import nn

from effml.deep import (
    Distillation,
    IntegerWeights,
    KeepZeros,
    LowRank,
    MagnitudePrune,
    Phase,
    Plan,
    ProxConnect,
    Recipe,
    Train,
    Width,
    evaluate,
    load_compact,
    params,
    save_compact,
    train,
)
from effml.deep.phases import factored, integer_rows


def cnn(width=1.0):
    torch.manual_seed(0)
    c, h = max(1, round(16 * width)), max(1, round(64 * width))
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(c, 2 * c, 3, padding=1), nn.BatchNorm2d(2 * c), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * c, h), nn.ReLU(), nn.Linear(h, 10),
    )  # fmt: skip


GIVEN = {"learning_rate": 0.005, "batch_size": 32}


def test_shrink_and_improve_on_digits_is_twenty_times_smaller_for_a_point(digits, tmp_path):
    phases = [
        Train(epochs=15),
        Width(factor=0.5, epochs=15),
        MagnitudePrune(sparsity=0.6, rounds=2, epochs=8, distill=1.0),
        IntegerWeights(bits=4),
    ]
    plan = Plan(phases, max_drop=0.02, build=cnn, **GIVEN)
    small = plan.run(cnn(), *digits)
    first, last = plan.ledger_[1], plan.ledger_[-1]
    assert [entry.kind for entry in plan.ledger_] == ["-", "improve", "shrink", "shrink", "shrink"]
    assert all(entry.kept for entry in plan.ledger_), str(plan.ledger_)
    assert first.file_bytes >= 20 * last.file_bytes, str(plan.ledger_)
    assert last.quality >= first.quality - 0.01, str(plan.ledger_)
    assert last.file_bytes == save_compact(small, tmp_path / "small.efdm")
    again = load_compact(tmp_path / "small.efdm", copy.deepcopy(small))
    assert evaluate(again, digits[1]) == last.quality
    assert "shrink" in str(plan.ledger_) and plan.ledger_.to_markdown().count("\n") == 6


class Spoil(Phase):
    kind = "shrink"

    def run(self, model, circumstances):
        with torch.no_grad():
            model[-1].weight.zero_()
        return model


def test_a_phase_below_the_floor_is_taken_back(digits):
    plan = Plan([Train(epochs=8), Spoil(), IntegerWeights(bits=8)], floor=0.5, **GIVEN)
    small = plan.run(cnn(), *digits)
    assert [entry.kept for entry in plan.ledger_] == [True, True, False, True]
    assert plan.ledger_[2].quality < 0.5
    assert evaluate(small, digits[1]) == plan.ledger_[-1].quality > 0.9
    assert plan.ledger_.front() and 2 not in plan.ledger_.front()[-1:]


def test_phases_of_a_group_are_judged_together(digits):
    plan = Plan([Train(epochs=8), [Spoil(), Train(epochs=8)]], max_drop=0.05, **GIVEN)
    plan.run(cnn(), *digits)
    assert [entry.kept for entry in plan.ledger_] == [True, True, True, True]
    assert plan.ledger_[2].quality < 0.5 < plan.ledger_[3].quality


def test_a_plan_goes_on_from_its_folder(digits, tmp_path):
    phases = [Train(epochs=3), MagnitudePrune(sparsity=0.5, rounds=1, epochs=2), IntegerWeights(bits=6)]
    whole = Plan(phases, **GIVEN).run(cnn(), *digits).state_dict()
    Plan(phases[:2], folder=tmp_path, **GIVEN).run(cnn(), *digits)
    resumed = Plan(phases, folder=tmp_path, **GIVEN)
    rest = resumed.run(cnn(), *digits).state_dict()
    assert all(torch.equal(whole[name], rest[name]) for name in whole)
    assert [entry.phase[:5] for entry in resumed.ledger_] == ["start", "Train", "Magni", "Integ"]
    assert json.loads((tmp_path / "ledger.json").read_text())["done"] == 3
    with pytest.raises(ValueError, match=r"another plan .other phases."):
        Plan([Train(epochs=4)] * 3, folder=tmp_path, **GIVEN).run(cnn(), *digits)


def test_a_folder_is_not_taken_for_another_run(digits, tmp_path):
    def run(model=None, data=digits[0], **changes):
        phases = [Train(epochs=1), IntegerWeights(bits=6)]
        return Plan(phases, folder=tmp_path, **(GIVEN | changes)).run(model or cnn(), data, digits[1])

    first = run().state_dict()
    again = run().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    few = tuple(part[:40] for part in digits[0])
    for what, given in (
        ("learning_rate", {"learning_rate": 0.5}),
        ("random_state", {"random_state": 9}),
        ("model", {"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 10))}),
        ("data", {"data": few}),
    ):
        with pytest.raises(ValueError, match=rf"another plan .other {what}."):
            run(**given)
    (tmp_path / "ledger.json").write_text("{")
    with pytest.raises(ValueError, match=r"ledger.json' is damaged"):
        run()


def test_growing_trains_a_wider_net_and_width_is_remembered(digits):
    plan = Plan([Train(epochs=3), Width(factor=2.0, epochs=3), Width(factor=0.25, epochs=3)], build=cnn, **GIVEN)
    plan.run(cnn(), *digits)
    assert [entry.kind for entry in plan.ledger_] == ["-", "improve", "grow", "shrink"]
    assert plan.ledger_[2].params == params(Recipe().finalize(cnn(2.0)))
    assert plan.ledger_[3].params == params(Recipe().finalize(cnn(0.5)))


def test_a_recipe_is_a_phase(digits):
    pytest.importorskip("torchao")
    plan = Plan([Train(epochs=5), Train(epochs=10, recipe=Recipe([ProxConnect(bits=2)]), distill=1.0)], **GIVEN)
    small = plan.run(cnn(), *digits)
    assert max(len(row.unique()) for row in small[1].weight) <= 4
    assert plan.ledger_[-1].quality > 0.9 and plan.ledger_[-1].kind == "shrink"


@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.Linear(40, 30), (5, 40)),
        (nn.Conv2d(8, 16, 3, padding=1), (2, 8, 9, 9)),
        (nn.Conv2d(4, 6, 3, stride=2, bias=False), (2, 4, 9, 9)),
    ],
)
def test_full_rank_factors_compute_the_same(layer, shape):
    X = torch.randn(*shape)
    pair = factored(layer, 1.0)
    torch.testing.assert_close(pair(X), layer(X), rtol=1e-4, atol=1e-5)
    rank = min(layer.weight.shape[0], layer.weight[0].numel())
    assert sum(m.weight.numel() for m in pair) == rank * (layer.weight.shape[0] + layer.weight[0].numel())


def test_factors_keep_the_energy_asked_for_or_the_layer_stays():
    torch.manual_seed(0)
    layer = nn.Linear(60, 50)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(50, 3) @ torch.randn(3, 60))
    pair = factored(layer, 0.999)
    assert pair[0].out_features <= 3
    assert factored(nn.Linear(20, 20), 0.99) is None


def test_low_rank_shrinks_a_trained_net(digits):
    plan = Plan([Train(epochs=8), LowRank(energy=0.8, epochs=8)], **GIVEN)
    plan.run(cnn(), *digits)
    assert plan.ledger_[2].params < 0.8 * plan.ledger_[1].params
    assert plan.ledger_[2].quality > plan.ledger_[1].quality - 0.02


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("scale", ["max", "mse"])
def test_integer_rows_are_integers_with_one_scale(bits, scale):
    rows = torch.randn(6, 200)
    rows[2] = 0
    rounded = integer_rows(rows, bits, scale)
    assert max(len(row.unique()) for row in rounded) <= 2**bits - 1
    assert torch.equal(rounded[2], torch.zeros(200))
    plain = integer_rows(rows, bits, "max")
    assert (rounded - rows).square().sum() <= (plain - rows).square().sum() + 1e-6


def test_zeros_stay_zero_in_training(digits):
    model = cnn()
    with torch.no_grad():
        model[-1].weight[:, ::2] = 0
    recipe = Recipe([KeepZeros()])
    state = train(recipe.apply(model), digits[0], recipe=recipe, epochs=1, random_state=0)
    shipped = recipe.finalize(state.model)
    assert (shipped[-1].weight[:, ::2] == 0).all() and (shipped[-1].weight[:, 1::2] != 0).any()


def test_distillation_has_its_limits():
    from effml.deep import Batch

    torch.manual_seed(0)
    teacher, logits = nn.Linear(4, 3), torch.randn(5, 3, requires_grad=True)
    X = torch.randn(5, 4)
    taught = teacher(X).detach()
    logits, taught, teacher = logits.double(), taught.double(), teacher.double()
    X = X.double()
    hot = Distillation(teacher=teacher, temperature=1e3).term(None, Batch(X, None, logits))
    centred = (logits - logits.mean(1, keepdim=True)) - (taught - taught.mean(1, keepdim=True))
    assert hot.item() == pytest.approx((centred.square().sum(1) / 6).mean().item(), rel=0.02)
    one = Distillation(teacher=teacher, temperature=1.0).term(None, Batch(X, None, logits))
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=taught), torch.distributions.Categorical(logits=logits)
    ).mean()
    assert one.item() == pytest.approx(kl.item(), rel=1e-5)


def test_wrong_plans_are_named(digits):
    with pytest.raises(TypeError, match="must hold Phase objects"):
        Plan(["prune"]).run(cnn(), *digits)
    with pytest.raises(ValueError, match="'sparsity' parameter of MagnitudePrune"):
        Plan([MagnitudePrune(sparsity=1.5)]).run(cnn(), *digits)
    with pytest.raises(ValueError, match="needs the plan's build"):
        Plan([Width()]).run(cnn(), *digits)


def test_the_plot_shows_every_phase(digits):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    plan = Plan([Train(epochs=2), Spoil()], floor=0.5, **GIVEN)
    plan.run(cnn(), *digits)
    ax = plan.plot()
    assert [text.get_text() for text in ax.texts] == ["Train", "Spoil"]
    assert [text.get_text() for text in plan.plot(start=True).texts] == ["start", "Train", "Spoil"]
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"Pareto front", "kept", "taken back"}
