"""QuantLSTM: knots, the integers against C and against training, no float on the device, digits row by row."""

import functools
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import effml
from effml.deep import QuantLSTM, quantize_module
from effml.deep.pieces import FUNCTIONS, curve_of, greedy_knots
from effml.program import CompiledProgram, footprint_of, generate_c, with_input_dtype
from effml.program.frame import LoweringError
from effml.program.steps import Loop

# errors of straight pieces on [-8, 8], largest and root mean square, of a run for the method's sheet
ERRORS = {
    ("sigmoid", 8): (2.2e-2, 1.0e-2),
    ("sigmoid", 16): (7.5e-3, 2.1e-3),
    ("sigmoid", 32): (1.6e-3, 4.9e-4),
    ("tanh", 8): (7.8e-2, 1.8e-2),
    ("tanh", 16): (1.5e-2, 3.7e-3),
    ("tanh", 32): (3.1e-3, 9.2e-4),
}


class Reader(nn.Module):
    """A recurrent layer and a dense one on its last hidden state."""

    def __init__(self, lstm, n_hidden, n_out):
        super().__init__()
        self.lstm, self.head = lstm, nn.Linear(n_hidden, n_out)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.head(out[:, -1])


class Sequence(nn.Module):
    """The hidden states of all steps."""

    def __init__(self, lstm):
        super().__init__()
        self.lstm = lstm

    def forward(self, x):
        return self.lstm(x)[0].flatten(1)


@pytest.mark.parametrize("name, n_pieces", ERRORS)
def test_greedy_knots_reach_the_errors_of_the_sheet(name, n_pieces):
    function, grid = FUNCTIONS[name], np.linspace(-8, 8, 20001)
    knots = greedy_knots(function, -8, 8, n_pieces)
    error = np.interp(grid, knots, function(knots)) - function(grid)
    found = np.abs(error).max(), np.sqrt((error**2).mean())
    np.testing.assert_allclose(found, ERRORS[name, n_pieces], rtol=0.03)
    uniform = np.linspace(-8, 8, n_pieces + 1)
    assert found[1] < 0.7 * np.sqrt(((np.interp(grid, uniform, function(uniform)) - function(grid)) ** 2).mean())


@pytest.mark.parametrize("in_bits", [12, 9])
@pytest.mark.parametrize("name, largest", [("sigmoid", 255), ("tanh", 127)])
def test_curves_reach_their_ends_and_never_fall_by_more_than_a_step(name, largest, in_bits):
    curve = curve_of(name, in_bits, 16, largest)
    v = np.arange(-(2**15), 2**15)
    piece = np.searchsorted(curve.limits, v, side="right")
    value = v * curve.slope.astype(np.int64)[piece] + curve.intercept[piece]
    assert np.abs(value).max() < 2**31
    q = np.clip(value >> curve.shift, curve.lowest, curve.largest)
    assert q[0] == curve.lowest and q[-1] == largest and np.diff(q).min() >= -1
    assert np.abs(q / largest - FUNCTIONS[name](v / 2.0**in_bits)).max() < 0.02


@pytest.mark.parametrize("norm", [None, "std", "mad"])
def test_simulator_equals_c_on_a_thousand_sequences(norm):
    torch.manual_seed(0)
    lstm = QuantLSTM(5, 12, norm=norm)
    lstm.calibrate(torch.randn(200, 20, 5))
    program = quantize_module(Reader(lstm, 12, 4).eval(), torch.randn(100, 20, 5)).lower()
    rows = torch.randn(1000, 100).numpy() * np.float32(2)  # beyond the ranges, too
    compiled, expected = CompiledProgram(program), program.run(rows)
    for output, values in expected.items():
        np.testing.assert_array_equal(compiled.run(rows, output), values)


@pytest.mark.parametrize(
    "options, share",
    [
        ({}, 0.999),
        ({"norm": "std"}, 0.99),
        ({"norm": "mad"}, 0.99),
        ({"num_layers": 2}, 0.96),  # the second reads what the first has one off, in smaller steps
        ({"bidirectional": True}, 0.999),
        ({"scales": "tensor"}, 0.999),
    ],
    ids=str,
)
def test_training_rounds_as_the_integers_do(options, share):
    torch.manual_seed(1)
    lstm = QuantLSTM(6, 16, **options)
    x = torch.randn(150, 50, 6)
    lstm.calibrate(x)
    lstm.eval()
    program = quantize_module(Sequence(lstm), x, regression=True).lower()
    loops = [step for step in program.steps if isinstance(step, Loop)]
    values = {"x": x.reshape(150, -1).numpy()}
    for step in program.steps[: program.steps.index(loops[-1]) + 2]:
        values[step.output.name] = step.run(*(values[name] for name in step.inputs))
    n_directions = 1 + lstm.bidirectional
    found = values["both" if lstm.bidirectional else loops[-1].output.name].astype(int)
    with torch.no_grad():
        wanted = lstm(x)[0] / lstm.hidden[-1].unit(127)
    wanted = wanted.round().numpy().reshape(150, -1)
    assert found.shape == (150, 50 * 16 * n_directions)
    assert (np.abs(found - wanted) <= 1).mean() >= share


def test_ranges_are_moving_averages_until_they_are_frozen():
    lstm = QuantLSTM(2, 4).train()
    lstm(torch.ones(3, 5, 2) * 2)
    assert float(lstm.input.high) == 2
    lstm(torch.ones(3, 5, 2) * 12)
    assert float(lstm.input.high) == pytest.approx(0.9 * 2 + 0.1 * 12)
    lstm.freeze()(torch.ones(3, 5, 2) * 100)
    assert float(lstm.input.high) == pytest.approx(3.0)
    lstm.freeze(False).eval()(torch.ones(3, 5, 2) * 100)
    assert float(lstm.input.high) == pytest.approx(3.0)


def test_the_forget_gate_can_keep_everything():
    lstm = QuantLSTM(1, 1)
    with torch.no_grad():
        for direction in lstm.layers[0]:
            direction.weight_ih[:] = torch.tensor([[7.0], [0.0], [0.0], [7.0]])
            direction.weight_hh.zero_()
            direction.bias[:] = torch.tensor([0.0, 9.0, 9.0, 0.0])
    x = torch.zeros(1, 300, 1)
    x[0, 0] = 1.0
    lstm.calibrate(x)
    with torch.no_grad():
        out, (_, cell) = lstm.eval()(x)
    # the first step writes 1; then i g = 0.5 * 0 adds nothing, and a sigmoid of 1 forgets nothing
    assert float(cell[0, 0, 0]) > 0.99 and float(out[0, -1, 0]) == float(out[0, 0, 0])


def test_weights_from_torch_follow_its_order_of_gates():
    torch.manual_seed(2)
    lstm = nn.LSTM(3, 7, 2, batch_first=True, bidirectional=True)
    x = torch.randn(40, 9, 3)
    own = QuantLSTM.from_lstm(lstm, n_pieces=64)
    own.calibrate(x, momentum=0.0)
    with torch.no_grad():
        exact, _ = own._layers(x, momentum=0.0)
        wanted, (hidden, _) = lstm(x)
        rounded, (own_hidden, _) = own.eval()(x)
    torch.testing.assert_close(exact, wanted)
    assert (rounded - wanted).abs().mean() < 0.01 and own_hidden.shape == hidden.shape


def test_binary_recurrent_weights_are_kept():
    lstm = nn.LSTM(8, 16, batch_first=True)
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0"):
            weight = getattr(lstm, name)
            weight.copy_(torch.where(weight < 0, -0.2, 0.2))
    loop = next(
        s for s in quantize_module(Reader(lstm, 16, 3), torch.randn(60, 5, 8)).lower().steps if s.kind == "loop"
    )
    assert [step.n_bits for step in loop.body if step.kind == "packed_dense"] == [1, 1]


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="needs arm-none-eabi-gcc")
@pytest.mark.parametrize("norm", [None, "std", "mad"])
def test_no_float_in_the_object_file_for_cortex_m0(norm, tmp_path):
    lstm = QuantLSTM(8, 16, norm=norm)
    x = torch.randint(0, 17, (80, 8, 8)).float()
    lstm.calibrate(x)
    program = with_input_dtype(quantize_module(Reader(lstm, 16, 10).eval(), x).lower(), "uint8")
    source = generate_c(program, outputs=("label",))
    (tmp_path / "model.h").write_text(source.header)
    (tmp_path / "model.c").write_text(source.source)
    call = ["arm-none-eabi-gcc", "-mcpu=cortex-m0", "-mthumb", "-Os", "-std=c99", "-c", "model.c", "-o", "model.o"]
    subprocess.run(call, cwd=tmp_path, check=True)
    names = subprocess.run(["arm-none-eabi-nm", "model.o"], cwd=tmp_path, capture_output=True, text=True, check=True)
    called = re.findall(r" U (\S+)", names.stdout)
    floats = [
        name
        for name in called
        if re.match(r"__aeabi_(c?[fd](?!iv)|u?[il]2[fd]|ul2[fd])|__(add|mul|sub|div)[sd]f", name)
    ]
    assert "model_predict" in names.stdout and not floats, called
    assert "float" not in source.source


def test_gated_layers_that_do_not_lower_say_so():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.deep = nn.ModuleDict({"reader": nn.LSTM(3, 4)})

        def forward(self, x):
            return self.deep["reader"](x)[0][:, -1]

    with pytest.raises(LoweringError, match=r"deep\.reader: an LSTM .* batch_first=True"):
        quantize_module(Outer(), torch.randn(5, 6, 3))
    with pytest.raises(LoweringError, match=r"0.*quantize_module"):
        effml.deep.lower_module(nn.Sequential(Reader(nn.LSTM(3, 4, batch_first=True), 4, 2)), (5, 3))
    with pytest.raises(ValueError, match="norm='layer' must be one of"):
        QuantLSTM(2, 3, norm="layer")


# -- digits as eight steps of eight -----------------------------------------------------------------------------------


@functools.cache
def digits():
    X, y = load_digits(return_X_y=True)
    X = torch.from_numpy(X.astype(np.float32)).reshape(-1, 8, 8)
    return train_test_split(X, torch.from_numpy(y), test_size=0.4, random_state=0, stratify=y)


def trained(lstm, epochs, lr, head=None, batch_size=32):
    X, _, y, _ = digits()
    net = Reader(lstm, 64, 10)
    if head is not None:
        net.head.load_state_dict(head)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        if epoch == epochs - 2 and isinstance(lstm, QuantLSTM):
            lstm.freeze()
        for batch in torch.randperm(len(X)).split(batch_size):
            loss = nn.functional.cross_entropy(net(X[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return net.eval()


def test_digits_read_row_by_row_lose_at_most_a_point_in_a_quarter_of_the_bytes():
    X, X_test, _, y_test = digits()
    torch.manual_seed(0)
    plain = trained(nn.LSTM(8, 64, batch_first=True), 14, 5e-3)
    with torch.no_grad():
        accuracy = (plain(X_test).argmax(1) == y_test).double().mean()
    assert accuracy > 0.95
    own = QuantLSTM.from_lstm(plain.lstm, scales="tensor")
    own.calibrate(X, momentum=0.0)
    tuned = trained(own, 3, 5e-4, plain.head.state_dict())
    small = quantize_module(tuned, X)
    assert (small.predict(X_test) == y_test.numpy()).mean() >= accuracy - 0.01
    n_numbers = sum(parameter.numel() for parameter in plain.parameters())
    assert footprint_of(small.lower(), outputs=("label",)).constant_bytes <= 0.27 * 4 * n_numbers
