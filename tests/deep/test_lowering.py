"""Torch modules lowered: the same numbers as torch within proven bounds, C = Program.run, few levels kept, digits."""

import functools

import numpy as np
import pytest
import torch
from common.c_proof import assert_c_equals_run, hostile_rows
from common.torch_modules import modules
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import effml
from effml.deep import lower_module, module_bound, quantize_module
from effml.deep.calibration import few_levels
from effml.program import CompiledProgram, Program, generate_c, with_input_dtype
from effml.program.frame import LoweringError
from effml.program.steps import Conv, PackedConv, PackedDense, QuantizeInput

SIGNS = ("binary", "pooled signs")
NAMES = (
    "residual",
    "pieces",
    "image",
    "line",
    "odd",
    "norm first",
    "flat rows",
    "probabilities",
    "pooled signs",
    "binary",
)


@functools.cache
def network(name):
    torch.manual_seed(NAMES.index(name))
    module, shape = modules()[name]
    return module, shape, torch.randn(200, *shape)


def outputs_of(module, X):
    with torch.no_grad():
        return module(X).numpy()


@pytest.mark.parametrize("name", NAMES)
def test_float_programs_stay_within_their_bound_of_torch(name):
    module, shape, X = network(name)
    program = lower_module(module, shape)
    rows = X.reshape(len(X), -1).numpy()
    found, wanted = program.run(rows), outputs_of(module, X)
    bound = module_bound(module, X)
    gap = np.abs(found["proba" if name == "probabilities" else "score"] - wanted)
    assert (gap <= bound + (1e-6 if name == "probabilities" else 0)).all()
    assert np.median(bound) < 1e-2 if name in SIGNS else bound.max() < 1e-3  # a sign may turn where it is in doubt
    labels = wanted.argmax(1) if wanted.shape[1] > 1 else wanted[:, 0] > 0
    different = found["label"][:, 0] != labels
    ordered = np.sort(wanted, axis=1)
    lead = ordered[:, -1] - ordered[:, -2] if wanted.shape[1] > 1 else np.abs(wanted[:, 0])
    assert (lead[different] <= 2 * bound.max(axis=1)[different]).all()


@pytest.mark.parametrize("weight_bits", [None, 8, 3])
@pytest.mark.parametrize("name", NAMES)
def test_c_equals_run(name, weight_bits):
    module, shape, X = network(name)
    if weight_bits is None:
        program = lower_module(module, shape)
    else:
        program = quantize_module(module, X, weight_bits=weight_bits).lower()
    rng = np.random.default_rng(0)
    rows = np.concatenate([X.reshape(len(X), -1).numpy(), hostile_rows(program, 100, rng)])
    with np.errstate(all="ignore"):
        assert_c_equals_run(program, rows)


@pytest.mark.parametrize("name", NAMES)
def test_eight_bits_come_close_to_torch(name):
    module, _, X = network(name)
    small = quantize_module(module, X)
    wanted = outputs_of(module, X)
    found = (
        small.predict_proba(X) if name == "probabilities" else small.scores(X) * small.program.outputs["score"].scale
    )
    labels = wanted.argmax(1) if wanted.shape[1] > 1 else (wanted[:, 0] > 0).astype(int)
    assert (small.predict(X) == labels).mean() >= (0.9 if name in SIGNS else 0.97)
    error = np.sqrt(((found - wanted) ** 2).mean()) / wanted.std()
    assert error < (0.3 if name in SIGNS else 0.05)


def test_programs_are_kept_in_files(tmp_path):
    module, _, X = network("residual")
    program = quantize_module(module, X).lower()
    program.save(tmp_path / "model.effml")
    loaded = Program.load(tmp_path / "model.effml")
    assert loaded.fingerprint() == program.fingerprint()
    rows = X.reshape(len(X), -1).numpy()
    np.testing.assert_array_equal(loaded.run(rows)["score"], program.run(rows)["score"])
    price = effml.footprint(program)
    weights = sum(p.numel() for p in module.parameters())
    assert weights <= price.constant_bytes <= 3 * weights and price.operations["multiply"] > weights


# -- weights on few levels --------------------------------------------------------------------------------------------

LEVELS = {
    "binary": ([-0.7, 0.7], 1, False),
    "ternary": ([-0.2, 0.0, 0.2], 2, True),
    "2 bits, odd": ([-0.9, -0.3, 0.3, 0.9], 2, False),
    "2 bits, any": ([-0.9, -0.2, 0.2, 0.9], 2, True),
    "3 bits, even": ([-0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3], 3, True),
    "4 bits, odd": (list(np.arange(-15, 16, 2) * 0.05), 4, False),
}


@pytest.mark.parametrize("each_output", [False, True])
@pytest.mark.parametrize("name", LEVELS)
def test_weights_on_few_levels_are_found_and_kept(name, each_output):
    levels, n_bits, has_table = LEVELS[name]
    rng = np.random.default_rng(1)
    weight = rng.choice(np.float32(levels), (60, 12)).astype(np.float64)
    if each_output:
        weight = weight * rng.uniform(0.1, 3, 12).astype(np.float32)
    found = few_levels(weight, largest_level=2000)
    assert found.n_bits == n_bits and (found.levels is not None) is has_table
    error = np.abs(found.integers * found.unit - weight).max() / np.abs(weight).max()
    assert error < 1e-6 or (name == "2 bits, any" and error < 1 / 1000)  # no common unit: to the finest level


@pytest.mark.parametrize("n_bits", [8, 6])
def test_symmetric_bytes_with_zero_are_kept_exactly(n_bits):
    top = 2 ** (n_bits - 1) - 1
    weight = np.random.default_rng(4).normal(size=(64, 64))
    unit = np.abs(weight).max(axis=0) / top
    weight = (np.rint(weight / unit) * unit).astype(np.float32).astype(np.float64)
    found = few_levels(weight)
    assert found.n_bits == n_bits
    assert np.abs(found.integers * found.unit - weight).max() < 1e-6 * np.abs(weight).max()


def test_levels_of_their_own_in_each_output():
    rng = np.random.default_rng(2)
    levels = np.sort(rng.normal(size=(8, 4)), axis=1)
    weight = np.stack([rng.choice(own, 300) for own in levels], axis=1)
    found = few_levels(weight, largest_level=30000)
    assert found.n_bits == 2 and found.levels.shape == (8, 4)
    assert np.abs(found.integers * found.unit - weight).max() < 1e-3


def test_ordinary_weights_are_no_levels():
    assert few_levels(np.random.default_rng(3).normal(size=(50, 20))) is None


def test_signs_between_binary_layers_are_packed_into_words():
    module, _, X = network("binary")
    small = quantize_module(module, X).lower()
    dense = [step for step in small.steps if isinstance(step, PackedDense)]
    assert [step.n_bits for step in dense] == [8, 1, 1] and [step.packed for step in dense] == ["", "u8", "u8"]
    assert small.steps[-4].inputs  # scores, label, logits and probabilities follow


def test_norms_and_signs_move_before_maximum_pooling_where_they_rise():
    module, _, X = network("pooled signs")
    steps = quantize_module(module, X).lower().steps
    kinds = [step.kind for step in steps]
    second = [k for k, kind in enumerate(kinds) if kind == "packed_conv"][1]
    assert kinds[second : second + 3] == ["packed_conv", "threshold", "pool"] and steps[second].n_bits == 1
    first = kinds.index("packed_conv")
    assert kinds[first : first + 3] == ["packed_conv", "requantise", "threshold"]  # some scales fall
    assert steps[first].requantise is not None and steps[second].requantise is None


def test_ternary_convolutions_take_two_bits_a_weight():
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, 3, padding=1)
    conv.weight.data = torch.randint(-1, 2, conv.weight.shape) * torch.rand(8, 1, 1, 1)
    net = nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(200, 3)).eval()
    X = torch.randn(100, 4, 5, 5)
    step = next(s for s in quantize_module(net, X).lower().steps if isinstance(s, PackedConv))
    assert step.n_bits == 2 and step.replace(requantise=None).cost().bits == 2 * conv.weight.numel() + 16 * 4


# -- what cannot be lowered -------------------------------------------------------------------------------------------


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Softplus(), nn.Linear(4, 4))
        self.mixer = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x):
        x = self.inner(x)
        return self.mixer(x, x, x)[0]


@pytest.mark.parametrize(
    "module, shape, words",
    [
        (Branches(), (3,), ["Branches.forward", "torch.fx", "lowers_as"]),
        (Attention(), (5, 4), ["mixer", "MultiheadAttention", "use linear"]),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3, padding_mode="reflect", padding=1)),
            (1, 5, 5),
            ["0:", "padding_mode", "zeros"],
        ),
        (nn.Sequential(nn.AdaptiveAvgPool2d(3)), (1, 5, 5), ["0:", "divides"]),
        (nn.Sequential(nn.Linear(3, 3), nn.MaxPool1d(2, ceil_mode=True)), (2, 3), ["1:", "ceil_mode"]),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1), nn.Linear(3, 3)), (3,), ["1:", "softmax", "end"]),
        (nn.GRU(3, 3, batch_first=True), (5, 3), ["GRU", "LSTM"]),
    ],
)
def test_errors_name_the_module_and_the_cure(module, shape, words):
    with pytest.raises(LoweringError) as caught:
        quantize_module(module.eval(), torch.randn(9, *shape))
    assert all(word in str(caught.value) for word in words), caught.value


def test_float_lowering_points_to_integers_for_what_only_they_have():
    net = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))
    with pytest.raises(LoweringError, match=r"1: gelu .* effml\.quantize"):
        lower_module(net, (3,))
    assert quantize_module(net, torch.randn(50, 3)).predict(torch.randn(4, 3)).shape == (4,)


@pytest.mark.parametrize("bits", [{"weight_bits": 1}, {"activation_bits": 9}, {"weight_bits": 2.5}])
def test_bits_are_checked(bits):
    with pytest.raises(ValueError, match="whole number from 2 to 8"):
        quantize_module(nn.Linear(3, 2), torch.randn(5, 3), **bits)


def test_rows_are_checked():
    with pytest.raises(ValueError, match="missing or infinite"):
        quantize_module(nn.Linear(3, 2), torch.full((5, 3), float("nan")))
    small = quantize_module(nn.Linear(3, 2), torch.randn(5, 3))
    with pytest.raises(ValueError, match=r"expected \(n_rows, 3\)"):
        small.predict(torch.randn(5, 4))


# -- on digits --------------------------------------------------------------------------------------------------------


@functools.cache
def trained_on_digits():
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32).reshape(-1, 1, 8, 8)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, random_state=0, stratify=y)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    rows, labels = torch.from_numpy(X_train), torch.from_numpy(y_train)
    for _ in range(12):
        for batch in torch.randperm(len(rows)).split(64):
            loss = nn.functional.cross_entropy(net(rows[batch] / 16), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Scaled(net).eval(), X_train, X_test, y_test


class Scaled(nn.Module):
    """A network behind a scaling of its input."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x / 16)


def test_digits_lose_nothing_at_eight_bits_and_little_at_four():
    net, X_train, X_test, y_test = trained_on_digits()
    plain = (outputs_of(net, torch.from_numpy(X_test)).argmax(1) == y_test).mean()
    assert plain > 0.95
    for bits, lost in ((8, 0.005), (4, 0.015)):
        small = quantize_module(net, X_train, weight_bits=bits)
        assert (small.predict(X_test) == y_test).mean() >= plain - lost


def test_images_of_whole_numbers_need_no_float_on_the_device():
    net, X_train, _, _ = trained_on_digits()
    small = quantize_module(net.net, X_train)
    assert isinstance(small.program.steps[0], QuantizeInput) and small.program.steps[0].is_identity
    source = generate_c(with_input_dtype(small.lower(), "uint8"), outputs=("label",)).source
    assert "float" not in source


def test_convolution_sums_are_pooled_before_they_become_levels():
    net, X_train, _, _ = trained_on_digits()
    first = next(step for step in quantize_module(net.net, X_train).lower().steps if isinstance(step, PackedConv))
    assert first.pool == 2 and not any(
        isinstance(step, Conv) for step in quantize_module(net.net, X_train).lower().steps
    )


@pytest.mark.parametrize("shape", [np.zeros((4, 3), np.float32), (), (4, 0), (2.5,), 3])
def test_the_shape_of_a_row_is_checked(shape):
    with pytest.raises(TypeError, match=r"input_shape=.* must be the shape of one row"):
        lower_module(nn.Linear(3, 2), shape)


def test_rows_that_a_layer_cannot_take_are_told_in_one_line():
    with pytest.raises(LoweringError, match=r"^0 does not run on the given rows: mat1 and mat2[^\n]*$"):
        quantize_module(nn.Sequential(nn.Linear(4, 2)), np.zeros((5, 3), np.float32))


@pytest.mark.parametrize("module", [nn.Identity(), nn.Softmax(1)])
def test_rows_that_are_handed_out_as_they_are_get_a_buffer(module):
    program = lower_module(module, (5,))
    rows = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    np.testing.assert_array_equal(CompiledProgram(program).run(rows, "score"), rows)
    np.testing.assert_array_equal(CompiledProgram(program).run(rows)[:, 0], rows.argmax(1))
