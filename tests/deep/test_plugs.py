"""Recipes: techniques of every kind on one model, their order, their state, and the plain model at the end."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from effml.deep import (
    Analysis,
    Callback,
    Foothill,
    GraphSurgery,
    Hooks,
    LossTerm,
    ModuleSwap,
    OptimizerWrapper,
    Parametrization,
    ProxConnect,
    Recipe,
    SmartTernary,
    evaluate,
    regroup,
    train,
)


def fast_adam(parameters):
    return torch.optim.Adam(parameters, 0.01)


def mlp(seed=0, width=16):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 10))


class Double(nn.Module):
    def forward(self, weight):
        return 2 * weight


class Doubled(Parametrization):
    def parametrization(self, name, module):
        return Double()


class Everything(Parametrization, ModuleSwap, LossTerm, OptimizerWrapper, Callback, Analysis):
    """Of every kind at once, noting what is called."""

    def __init__(self, *, exclude=None):
        super().__init__(exclude=exclude)

    def parametrization(self, name, module):
        return Double()

    def swap(self, name, module):
        return nn.Hardtanh() if isinstance(module, nn.ReLU) else None

    def restore(self, name, module):
        return nn.ReLU6()

    def watch(self, model):
        return ["0"]

    def term(self, model, batch):
        self.seen_ = (tuple(batch.features["0"].shape), batch.progress)
        return batch.features["0"].square().mean()

    def wrap(self, optimizer, model):
        self.events_ = ["wrap"]
        return optimizer

    def release(self, optimizer, model):
        self.events_.append("release")

    def train_begin(self, state):
        self.events_.append("train_begin")

    def epoch_begin(self, state):
        self.events_.append("epoch_begin")

    def step_end(self, state):
        self.events_.append("step_end")

    def epoch_end(self, state):
        self.events_.append("epoch_end")

    def train_end(self, state):
        self.events_.append("train_end")

    def analyse(self, model, batches):
        return len(list(batches))


def test_one_technique_may_be_of_every_kind():
    X, y = torch.randn(40, 64), torch.randint(0, 10, (40,))
    recipe = Recipe([Everything()])
    model = recipe.apply(mlp())
    state = train(model, (X, y), recipe=recipe, epochs=2, batch_size=20, random_state=0)
    technique = recipe.techniques_["everything"]
    epoch = ["epoch_begin", "step_end", "step_end", "epoch_end"]
    assert technique.events_ == ["wrap", "train_begin", *epoch, *epoch, "train_end", "release"]
    assert technique.seen_ == ((20, 16), 0.75)
    assert recipe.analyse(state.model, [(X, y)]) == {"everything": 1}
    shipped = recipe.finalize(state.model)
    assert [type(module) for module in shipped] == [nn.Linear, nn.Identity, nn.ReLU6, nn.Linear]


def test_finalize_is_plain_and_computes_what_the_trained_model_computes(digits):
    recipe = Recipe([Doubled(), SmartTernary(warmup=0.0)])
    state = train(recipe.apply(mlp()), digits[0], recipe=recipe, epochs=2, random_state=0)
    shipped = recipe.finalize(state.model)
    assert not any(parametrize.is_parametrized(module) for module in shipped.modules())
    assert not any(module._forward_hooks or module._backward_hooks for module in shipped.modules())
    assert type(shipped[0]) is nn.Linear and isinstance(shipped[1], nn.Identity) and not shipped.training
    X = digits[1][0]
    recipe.techniques_["smartternary"].harden(state.model)
    torch.testing.assert_close(shipped(X), state.model.eval()(X), rtol=1e-4, atol=1e-4)
    assert set(shipped.state_dict()) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    pickle.loads(pickle.dumps(shipped))


def test_finalize_leaves_the_model_in_training_as_it_was():
    recipe = Recipe([SmartTernary()])
    model = recipe.apply(mlp())
    before = copy.deepcopy(model.state_dict())
    recipe.finalize(model)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert parametrize.is_parametrized(model[0])
    model(torch.zeros(2, 64)).sum().backward()  # and it still works


def test_apply_copies_unless_told_otherwise():
    model = mlp()
    assert not parametrize.is_parametrized(model[0])
    assert Recipe([Doubled()]).apply(model) is not model and not parametrize.is_parametrized(model[0])
    assert Recipe([Doubled()]).apply(model, copy_model=False) is model and parametrize.is_parametrized(model[0])


def test_techniques_on_one_weight_act_in_order():
    class Add(nn.Module):
        def forward(self, weight):
            return weight + 1

    class Added(Parametrization):
        def parametrization(self, name, module):
            return Add()

    layer = nn.Linear(3, 2)
    start = layer.weight.detach().clone()
    assert torch.equal(Recipe([Doubled(), Added()]).apply(layer).weight, 2 * start + 1)
    recipe = Recipe([Added(), Doubled()])
    model = recipe.apply(layer)
    assert torch.equal(model.weight, 2 * (start + 1))
    assert torch.equal(recipe.finalize(model).weight, 2 * (start + 1))


RECIPES = {
    "prox": lambda: Recipe([ProxConnect(bits=2, warmup=0.2)]),
    "ternary": lambda: Recipe([SmartTernary(warmup=0.3, binary_weight=0.1)]),
    "two": lambda: Recipe([("first", ProxConnect(bits=1, include="0")), ("second", Foothill(include="3"))]),
}


class Interrupted(nn.CrossEntropyLoss):
    """A loss that fails in the middle of the third epoch."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, outputs, targets):
        self.calls += 1
        if self.calls == 15:
            raise InterruptedError
        return super().forward(outputs, targets)


def weights_after_training(name, data, checkpoint=None, criterion=None):
    recipe = RECIPES[name]()
    state = train(
        recipe.apply(mlp()),
        data,
        recipe=recipe,
        epochs=5,
        batch_size=50,
        criterion=criterion,
        checkpoint=checkpoint,
        random_state=3,
    )
    return recipe.finalize(state.model).state_dict()


@pytest.mark.parametrize("name", RECIPES)
def test_training_resumed_in_the_middle_ends_the_same(name, digits, tmp_path):
    data, path = tuple(part[:300] for part in digits[0]), tmp_path / "checkpoint.pt"
    whole = weights_after_training(name, data)
    with pytest.raises(InterruptedError):
        weights_after_training(name, data, path, Interrupted())
    assert torch.load(path, weights_only=True)["recipe"]["training"]["epoch"] == 2
    resumed = weights_after_training(name, data, path)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


RESUME = """
import sys, torch
sys.path.insert(0, {folder!r})
from test_plugs import weights_after_training
torch.set_num_threads(1)
torch.save(weights_after_training("prox", torch.load({data!r}), {path!r}), {result!r})
"""


def test_training_resumed_in_a_fresh_process_ends_the_same(digits, tmp_path):
    data, path, result = tuple(part[:300] for part in digits[0]), tmp_path / "checkpoint.pt", tmp_path / "result.pt"
    torch.save(data, tmp_path / "data.pt")
    with pytest.raises(InterruptedError):
        weights_after_training("prox", data, path, Interrupted())
    names = {"folder": str(Path(__file__).parent), "data": str(tmp_path / "data.pt")}
    script = RESUME.format(**names, path=str(path), result=str(result))
    subprocess.run([sys.executable, "-P", "-c", script], check=True, capture_output=True)
    whole, resumed = weights_after_training("prox", data), torch.load(result)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_state_dict_of_the_applied_model_round_trips():
    recipe = Recipe([SmartTernary(), Foothill(include="3")])
    model = recipe.apply(mlp(0))
    other = Recipe([SmartTernary(), Foothill(include="3")]).apply(mlp(1))
    other.load_state_dict(model.state_dict())
    X = torch.randn(5, 64)
    assert torch.equal(model.eval()(X), other.eval()(X))


def test_random_state_fixes_training_and_leaves_the_global_state_alone(digits):
    data = tuple(part[:200] for part in digits[0])

    def trained():
        return train(copy.deepcopy(start), data, epochs=2, random_state=5).model.state_dict()

    start = nn.Sequential(nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 10))
    before = torch.get_rng_state()
    first = trained()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    second = trained()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_of_rows_count_as_repeated_rows():
    X, y = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 1, 0])
    weights = torch.tensor([2.0, 1, 1, 0, 1, 1])
    rows = torch.tensor([0, 0, 1, 2, 4, 5])

    def trained(data):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        criterion = nn.CrossEntropyLoss(reduction="none")
        sgd = lambda p: torch.optim.SGD(p, 0.1)  # noqa: E731
        return train(model, data, epochs=5, batch_size=10, criterion=criterion, optimizer=sgd, random_state=0).model

    weighted, repeated = trained((X, y, weights)), trained((X[rows], y[rows]))
    torch.testing.assert_close(weighted.weight, repeated.weight)
    with pytest.raises(ValueError, match="one value a row"):
        train(nn.Linear(4, 2), (X, y, weights), epochs=1)


def test_a_term_may_replace_the_loss_hold_a_teacher_and_take_gradients(digits):
    class Smooth(LossTerm):
        replaces_task = True

        def __init__(self, *, teacher):
            self.teacher = teacher

        def term(self, model, batch):
            inputs = batch.inputs.clone().requires_grad_()
            outputs = model(inputs)
            (gradient,) = torch.autograd.grad(outputs.sum(), inputs, create_graph=True)
            with torch.no_grad():
                taught = self.teacher(batch.inputs)
            return (outputs - taught).square().mean() + 1e-3 * gradient.square().sum(1).mean()

    teacher = train(nn.Linear(64, 10), digits[0], epochs=20, random_state=0).model
    data = (digits[0][0], torch.zeros(len(digits[0][0]), dtype=torch.long))  # the labels say nothing
    recipe = Recipe([Smooth(teacher=teacher)])
    state = train(recipe.apply(nn.Linear(64, 10)), data, recipe=recipe, epochs=20, optimizer=fast_adam)
    assert evaluate(state.model, digits[1]) > 0.85
    assert len(list(state.model.parameters())) == 2  # the teacher is not trained


def test_a_wrapper_may_add_parameters_of_its_own(digits):
    class Generator(OptimizerWrapper, LossTerm):
        def wrap(self, optimizer, model):
            self.shift_ = nn.Parameter(torch.zeros(64))
            optimizer.add_param_group({"params": [self.shift_], "lr": 0.01})
            return optimizer

        def term(self, model, batch):
            return nn.functional.cross_entropy(model(batch.inputs + self.shift_), batch.targets)

    recipe = Recipe([Generator()])
    state = train(recipe.apply(mlp()), digits[0], recipe=recipe, epochs=1, random_state=0)
    assert recipe.techniques_["generator"].shift_.abs().max() > 0
    assert "shift_" not in "".join(state.model.state_dict())


def test_a_callback_may_change_the_data_and_hook_the_model():
    class FewerRows(Callback):
        def train_begin(self, state):
            self.sizes_ = []
            state.hooks.on_forward(state.model[0], lambda module, inputs, output: self.sizes_.append(len(output)))

        def epoch_begin(self, state):
            state.data = [(batch[0][: 5 + state.epoch], batch[1][: 5 + state.epoch]) for batch in state.data]

    recipe = Recipe([FewerRows()])
    data = [(torch.randn(8, 64), torch.randint(0, 10, (8,)))]
    state = train(recipe.apply(mlp()), data, recipe=recipe, epochs=3)
    assert recipe.techniques_["fewerrows"].sizes_ == [5, 5, 5]
    state.model(torch.randn(3, 64))
    assert len(recipe.techniques_["fewerrows"].sizes_) == 3  # the hook went with the training


class NarrowHidden(GraphSurgery):
    """Cut hidden units of smallest norm by torch-pruning."""

    def __init__(self, *, at=1, ratio=0.5):
        super().__init__(at=at)
        self.ratio = ratio

    def operate(self, model, example_inputs):
        tp = pytest.importorskip("torch_pruning")
        pruner = tp.pruner.BasePruner(
            model,
            example_inputs,
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=self.ratio,
            ignored_layers=[model[-1]],
        )
        pruner.step()
        return model


@pytest.mark.parametrize("at", ["start", 1, [1, 2], "finalize"])
def test_surgery_happens_when_it_should(at, digits):
    recipe = Recipe([NarrowHidden(at=at)])
    example = digits[0][0][:2]
    model = recipe.apply(mlp(), example)
    assert model[0].out_features == (8 if at == "start" else 16)
    state = train(model, digits[0], recipe=recipe, epochs=4, optimizer=fast_adam, random_state=0)
    assert state.model[0].out_features == {"start": 8, "finalize": 16, "1": 8}.get(str(at), 4)
    shipped = recipe.finalize(state.model)
    assert shipped[0].out_features == (8 if not isinstance(at, list) else 4)
    assert evaluate(shipped, digits[1]) > (0.3 if at == "finalize" else 0.6)


def test_surgery_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="is parametrized"):
        Recipe([NarrowHidden(at=1), Doubled()]).apply(mlp())
    with pytest.raises(ValueError, match="'0' is parametrized"):
        Recipe([Doubled(), NarrowHidden(at="start")]).apply(mlp())
    with pytest.raises(ValueError, match="at=0 must be"):
        Recipe([NarrowHidden(at=0)]).apply(mlp())
    recipe = Recipe([NarrowHidden(at=1)])
    model = recipe.apply(mlp())
    with pytest.raises(ValueError, match="callable"):
        recipe.begin(model, torch.optim.SGD(model.parameters(), 0.1), epochs=1, steps_per_epoch=1)


def test_shared_modules_stay_shared_when_swapped():
    class Swap(ModuleSwap):
        def swap(self, name, module):
            return nn.Sigmoid() if isinstance(module, nn.ReLU) else None

    shared = nn.ReLU()
    model = Recipe([Swap()]).apply(nn.Sequential(nn.Linear(2, 2), shared, nn.Linear(2, 2), shared))
    assert isinstance(model[1], nn.Sigmoid) and model[1] is model[3]


@pytest.mark.parametrize(
    "include, exclude, expected",
    [
        (None, None, ["0", "3"]),
        ("0", None, ["0"]),
        (["0", "3"], "3", ["0"]),
        (lambda name, module: module.out_features == 10, None, ["3"]),
    ],
)
def test_selection_by_pattern_list_and_predicate(include, exclude, expected):
    assert [name for name, _ in SmartTernary(include=include, exclude=exclude).chosen(mlp())] == expected


def test_inner_leaves_out_first_and_last():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    assert [name for name, _ in SmartTernary(include="inner").chosen(model)] == ["1", "2"]


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="choose no module; there are: 0, 3"):
        Recipe([SmartTernary(include="conv*")]).apply(mlp())
    with pytest.raises(ValueError, match="'bits' parameter of ProxConnect"):
        Recipe([ProxConnect(bits=9)]).apply(mlp())
    with pytest.raises(TypeError, match="must inherit one of the kinds"):
        Recipe([("scaler", object())]).apply(mlp())
    with pytest.raises(ValueError, match="mixture"):
        Recipe([("one", SmartTernary()), SmartTernary()]).apply(mlp())
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        Recipe().apply("model")
    with pytest.raises(ValueError, match="Invalid parameter 'nothing__bits'"):
        Recipe([SmartTernary()]).set_params(nothing__bits=2)
    with pytest.raises(ValueError, match="no module 'nowhere'"):
        Hooks().capture(mlp(), ["nowhere"], {})
    with pytest.raises(ValueError, match="not in the optimizer"):
        regroup(torch.optim.SGD(mlp().parameters(), 0.1), [nn.Parameter(torch.zeros(1))])


def test_a_recipe_is_applied_to_each_model_it_has_not_seen(digits):
    recipe = Recipe([SmartTernary(include="0")])
    first = recipe.apply(mlp(1))
    for model in (first, mlp(0)):
        state = train(model, digits[0], recipe=recipe, epochs=1, random_state=0)
        assert len(state.model[0].parametrizations.weight) == 1
        assert recipe.is_applied_to(state.model)
    with pytest.raises(ValueError, match="applied to this model already"):
        train(first, digits[0], recipe=recipe)  # another one came in between
    assert pickle.loads(pickle.dumps(recipe)).techniques_.keys() == {"smartternary"}


def test_parameters_are_nested_and_the_original_stays():
    prox = ProxConnect(bits=2)
    recipe = Recipe([("prox", prox), ("wells", Foothill())])
    recipe.set_params(prox__bits=1, wells=SmartTernary())
    assert prox.bits == 1 and isinstance(recipe.techniques[1][1], SmartTernary)
    assert recipe.get_params()["prox__bits"] == 1
    recipe.apply(mlp())
    assert recipe.techniques_["prox"] is not prox
    named = Recipe([ProxConnect(), ProxConnect()])
    assert {"proxconnect-1", "proxconnect-2"} <= set(named.get_params())


def test_the_summary_names_kinds_places_and_changed_parameters():
    recipe = Recipe([ProxConnect(bits=1, exclude="3"), SmartTernary(include="3")])
    text = recipe.summary(recipe.apply(mlp()))
    assert "Parametrization, LossTerm, OptimizerWrapper, Callback" in text
    assert "3.weight" in text and "bits=1" in text and "1,243 trained parameters" in text
