"""What models cost, against hand counts; compact files give back every number."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from effml.deep import (
    Recipe,
    SmartTernary,
    cost,
    file_bytes,
    latency,
    load_compact,
    macs,
    nonzero,
    params,
    peak_activation_bytes,
    save_compact,
    size_bits,
)
from effml.deep.storage import encode


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10)
    )


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.integers(1, 30),
    st.sampled_from([1, 2, 3, 5, 16, 300]),
    st.booleans(),
    st.booleans(),
    st.floats(0, 1),
)
def test_every_form_gives_back_every_number(seed, rows, columns, n_levels, per_row, integers, zeros):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_levels, (rows, columns))
    if integers:
        array = ((codes - n_levels // 2) * rng.uniform(1e-3, 1, (rows if per_row else 1, 1))).astype(np.float32)
    else:
        table = rng.normal(size=(rows if per_row else 1, n_levels)).astype(np.float32)
        array = np.take_along_axis(np.broadcast_to(table, (rows, n_levels)), codes, 1)
    array = np.where(rng.random(array.shape) < zeros, np.float32(0), array)
    stored = encode(array)
    np.testing.assert_array_equal(stored.decode(), array)
    assert stored.size_bits <= 32 * array.size


@pytest.mark.parametrize(
    "array, form, bits",
    [
        (np.random.default_rng(0).normal(size=(4, 500)).astype(np.float32), "raw", 4 * 500 * 32),
        (np.tile(np.float32([-1, 1]), (4, 250)), "levels", 2000 + 32),
        (np.tile(np.float32([-1, 1]), (4, 250)) * np.float32([[1], [2], [3], [4]]), "levels", 2000 + 4 * 32),
        (np.arange(-127, 128, dtype=np.float32) * np.float32(0.013), "affine", 255 * 8 + 32),
        (np.eye(100, dtype=np.float32) * 3, "levels", 100 * 100 + 32),  # a mask, one value, no codes
        (np.arange(10), "raw", 640),
        (np.where(np.arange(3000) % 3, 0, np.sqrt(np.arange(3000))).astype(np.float32), "raw", 3000 + 999 * 32),
        (np.float32([[np.nan, np.nan]]), "raw", 64),
    ],
)
def test_bits_by_hand(array, form, bits):
    stored = encode(array)
    assert (stored.form, stored.size_bits) == (form, bits)


def test_eight_bit_rows_are_found_exactly():
    rng = np.random.default_rng(1)
    integers = rng.integers(-127, 128, (32, 75))
    integers[:, 0] = 127
    scales = rng.uniform(1e-4, 3, (32, 1)).astype(np.float32)
    stored = encode(integers.astype(np.float32) * scales)
    assert stored.form == "affine" and stored.size_bits == 32 * 75 * 8 + 32 * 32


@pytest.mark.parametrize("prepare", ["float", "ternary", "pruned"])
def test_compact_files_load_back_equal(prepare, tmp_path):
    model = cnn().eval()
    if prepare == "ternary":
        recipe = Recipe([SmartTernary(warmup=0.0)])
        model = recipe.finalize(recipe.apply(model))
    if prepare == "pruned":
        with torch.no_grad():
            model[5].weight[torch.rand_like(model[5].weight) < 0.9] = 0
    written = save_compact(model, tmp_path / "m.efdm")
    assert written == (tmp_path / "m.efdm").stat().st_size == file_bytes(model)
    other = cnn().eval()
    if prepare == "ternary":
        other[1] = nn.Identity()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    load_compact(tmp_path / "m.efdm", other)
    assert all(torch.equal(other.state_dict()[name], value) for name, value in model.state_dict().items())
    assert written >= size_bits(model) / 8 * 0.9


def test_tensors_shared_by_two_names_are_stored_once(tmp_path):
    def tied():
        model = nn.Sequential(nn.Linear(50, 50, bias=False), nn.Linear(50, 50, bias=False))
        model[1].weight = model[0].weight
        return model

    model = tied()
    assert size_bits(model) == 50 * 50 * 32 and params(model) == 2500
    save_compact(model, tmp_path / "m")
    other = load_compact(tmp_path / "m", tied())
    assert torch.equal(other[1].weight, model[0].weight)


def test_files_that_do_not_fit_are_refused(tmp_path):
    save_compact(nn.Linear(3, 2), tmp_path / "m")
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_compact(tmp_path / "m", nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"has no '0\.weight'"):
        load_compact(tmp_path / "m", nn.Sequential(nn.Linear(3, 2)))
    (tmp_path / "text").write_text("hello, world")
    with pytest.raises(ValueError, match="not a compact model file"):
        load_compact(tmp_path / "text", nn.Linear(3, 2))
    with pytest.raises(ValueError, match="finalize"):
        save_compact(Recipe([SmartTernary()]).apply(nn.Linear(3, 2)), tmp_path / "m")


def test_counts_by_hand():
    model, image = cnn(), torch.zeros(1, 1, 8, 8)
    assert params(model) == 4 * 9 + 4 + 8 + 360 + 10
    assert nonzero(model) == params(model) - 4  # the shifts of batch norm start at zero
    assert macs(model, image) == 36 * 4 * 9 + 360
    # conv output and batch norm output, 4 x 6 x 6 floats each
    assert peak_activation_bytes(model, image) >= 2 * 4 * 36 * 4
    assert model.training  # as it was


def test_peak_counts_what_lives_at_once():
    class Residual(nn.Module):
        def forward(self, x):
            h = torch.relu(x)
            for _ in range(5):
                h = torch.relu(h)
            return h + x

    x = torch.zeros(1, 100)
    assert peak_activation_bytes(nn.Sequential(*[nn.Sigmoid()] * 6), x) == 800
    assert peak_activation_bytes(Residual(), x) == 1200
    assert peak_activation_bytes(nn.Flatten(), x) == 400  # a view
    assert peak_activation_bytes(nn.Flatten(), torch.zeros(50, 100)[:1]) == 400


def test_latency_and_all_numbers_together():
    model, image = cnn().eval(), torch.zeros(1, 1, 8, 8)
    measured = latency(model, image)
    assert 0 < measured.p10_ms <= measured.median_ms <= measured.p90_ms
    everything = cost(model, image)
    assert everything.params == params(model) and everything.file_bytes == file_bytes(model)
    assert "peak_activation_bytes" in str(everything)


def test_macs_see_layers_that_torch_computes_at_once():
    steps = torch.zeros(1, 7, 4)
    assert macs(nn.LSTM(4, 6, batch_first=True), steps) == 7 * 24 * (4 + 6)
    assert macs(nn.GRU(4, 6, batch_first=True), steps) == 7 * 18 * (4 + 6)
    transformer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert macs(transformer, torch.zeros(1, 5, 8)) >= 5 * (4 * 64 + 2 * 128)
