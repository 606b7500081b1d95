"""Long short-term memory whose inference is integer arithmetic alone, trained with the very rounding of the integers.

Weights have 8 bits or fewer, inputs and hidden states 8, the cell 16. The sums before the gates are whole multiples of
2^-12 between -8 and 8, on which sigmoid and tanh are straight pieces between well-placed knots. With `norm` both
products are layer-normalised, by the root of the mean square or by the mean absolute deviation.

Source: E. Sari, V. Courville, V. Partovi Nia, "iRNN: Integer-only Recurrent Neural Network", ICPRAM 2022. That the cell
has 16 bits, where the sums are rounded and which norm is meant is our reading (reconstructed).
"""

import numpy as np
import torch
from torch import nn

from effml.deep.calibration import few_levels
from effml.deep.pieces import curve_of
from effml.program.steps.recurrent import UNIT_BITS, integer_root

__all__ = ["CELL_TOP", "GATE_BITS", "NORM_SHIFT", "TOP_HIDDEN", "TOP_SIGMOID", "TOP_TANH", "QuantLSTM"]

GATE_BITS = 12  # one step of the sums before the gates is 2^-12
TOP_SIGMOID, TOP_TANH, TOP_HIDDEN = 255, 127, 127
CELL_TOP = 32767
NORM_BITS = 14  # of the gains of a layer norm
NORM_SHIFT = NORM_BITS + UNIT_BITS - GATE_BITS
MOMENTUM = 0.9
SHORT = 2**15


def rounded(values, unit, lowest, largest):
    """Return whole multiples of a unit, halves up, clipped; the gradient passes inside of the bounds."""
    inside = values.clamp(lowest * unit, largest * unit)
    steps = torch.floor(inside / unit + 0.5).clamp(lowest, largest)
    return inside + (steps * unit - inside).detach()


def normalised_integers(steps, gains, norm):
    """Return what the step :class:`effml.program.steps.Normalise` makes of int64 rows."""
    n = steps.shape[-1]
    d = steps - torch.div(steps.sum(dim=-1, keepdim=True), n, rounding_mode="floor")
    if norm == "std":
        spread = torch.from_numpy(integer_root((d * d).sum(dim=-1, keepdim=True).numpy() // n))
    else:
        spread = d.abs().sum(dim=-1, keepdim=True) // n
    y = d.sign() * ((d.abs() << UNIT_BITS) // spread.clamp(min=1))
    return ((y * gains + (1 << NORM_SHIFT - 1)) >> NORM_SHIFT).clamp(1 - SHORT, SHORT - 1)


class Range(nn.Module):
    """Smallest and largest value seen: moving averages over batches until it is frozen.

    Parameters
    ----------
    symmetric : bool
        Whether only the largest absolute value counts.
    """

    def __init__(self, symmetric=True):
        super().__init__()
        self.symmetric, self.frozen = symmetric, False
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("whole", torch.ones((), dtype=torch.bool))  # whether all were whole numbers from 0 to 255

    def see(self, values, momentum=MOMENTUM):
        """Take in the values of a batch."""
        low, high = values.min().clamp(max=0), values.max().clamp(min=0)
        if self.symmetric:
            high = torch.maximum(high, -low)
            low = -high
        if not self.symmetric:
            self.whole &= ((values == values.floor()) & (values >= 0) & (values <= 255)).all()
        if self.high == self.low:  # the first
            momentum = 0.0
        self.low.mul_(momentum).add_(low.detach() * (1 - momentum))
        self.high.mul_(momentum).add_(high.detach() * (1 - momentum))

    def unit(self, top) -> float:
        """Return the step of `top` levels on each side, or from low to high."""
        width = float(self.high) if self.symmetric else float(self.high - self.low)
        return width / top if width > 0 else 1.0 / top


class _Direction(nn.Module):
    """The weights of one layer in one direction and the ranges of its values; gates in the order i, f, o, g."""

    def __init__(self, input_size, hidden_size, norm):
        super().__init__()
        bound = hidden_size**-0.5
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        with torch.no_grad():
            self.bias[hidden_size : 2 * hidden_size] = 1.0  # forget little at first
        self.keeps_levels = {"ih": False, "hh": False}
        self.cell = Range()
        if norm is not None:
            for name in ("gain_ih", "gain_hh"):
                self.register_parameter(name, nn.Parameter(torch.full((4 * hidden_size,), 0.5)))
            self.products = nn.ModuleDict({"ih": Range(), "hh": Range()})

    def cell_bits(self) -> int:
        """Return b: one step of the cell is 2^-b, such that the range seen and a quarter more fits 16 bits."""
        peak = max(float(self.cell.high) * 1.25, 1e-6)
        return int(np.clip(np.floor(np.log2(CELL_TOP / peak)), 4, GATE_BITS))

    def gains(self, which):
        """Return the gains of a layer norm as whole numbers, int64."""
        return torch.round(getattr(self, f"gain_{which}").detach().double() * 2**NORM_BITS).long()

    def weight(self, which, bits, scales):
        """Return the weights as they act, (4 hidden, n_in), float32 with a gradient to the trained ones."""
        weight = getattr(self, f"weight_{which}")
        if self.keeps_levels[which]:
            return weight
        top, unit = 2**bits - 1, self.weight_unit(which, bits, scales)
        codes = torch.floor((weight / unit + top) / 2 + 0.5).clamp(0, top)
        return weight + ((2 * codes - top) * unit - weight).detach()

    def weight_unit(self, which, bits, scales):
        """Return the unit of the weights of each output, (4 hidden, 1)."""
        size = getattr(self, f"weight_{which}").detach().abs()
        largest = size.amax(dim=1, keepdim=True) if scales == "output" else size.amax().expand(len(size), 1)
        return largest.clamp(min=1e-8) / (2**bits - 1)


class QuantLSTM(nn.Module):
    """An LSTM in integers, to train like ``torch.nn.LSTM`` and to lower with the network that holds it.

    In training mode each batch is run once in float to see the ranges of values, until :meth:`freeze`; then, and in
    eval mode, they stay. Both modes round as the integers do (with straight-through gradients), so that what is trained
    is what ships.

    Parameters
    ----------
    input_size, hidden_size : int
    num_layers : int, default=1
    bidirectional : bool, default=False
        Both directions share the format of the hidden state.
    norm : {None, "std", "mad"}, default=None
        Layer normalisation of both products before they are added.
    n_pieces : int, default=16
        Of sigmoid and tanh.
    weight_bits : int, default=8
        2 to 8.
    scales : {"output", "tensor"}, default="output"
        What has a scale of its own: each output of a weight matrix, or the matrix.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import QuantLSTM
    >>> lstm = QuantLSTM(3, 8)
    >>> x = torch.randn(5, 10, 3)
    >>> lstm.calibrate(x)
    >>> out, (hidden, cell) = lstm.eval()(x)
    >>> out.shape, hidden.shape
    (torch.Size([5, 10, 8]), torch.Size([1, 5, 8]))
    """

    batch_first, proj_size = True, 0

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        *,
        bidirectional=False,
        norm=None,
        n_pieces=16,
        weight_bits=8,
        scales="output",
    ):
        super().__init__()
        for name, value, known in (("norm", norm, (None, "std", "mad")), ("scales", scales, ("output", "tensor"))):
            if value not in known:
                raise ValueError(f"{name}={value!r} must be one of {list(known)}")
        if not 2 <= weight_bits <= 8:
            raise ValueError(f"weight_bits={weight_bits!r} must be a whole number from 2 to 8")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional, self.norm = bidirectional, norm
        self.n_pieces, self.weight_bits, self.scales = n_pieces, weight_bits, scales
        n_directions = 1 + bidirectional
        sizes = [input_size] + [n_directions * hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList(
            nn.ModuleList(_Direction(size, hidden_size, norm) for _ in range(n_directions)) for size in sizes
        )
        self.input = Range(symmetric=False)
        self.hidden = nn.ModuleList(Range() for _ in range(num_layers))

    @classmethod
    def from_lstm(cls, lstm, **options):
        """Return a QuantLSTM with the weights of a ``torch.nn.LSTM``; give it rows by :meth:`calibrate`, or train it.

        Weights that take few levels already (binary, ternary, ...) keep them.
        """
        if not isinstance(lstm, nn.LSTM) or not lstm.batch_first or lstm.proj_size:
            raise ValueError("lstm must be a torch.nn.LSTM with batch_first=True and proj_size=0")
        sizes = {"num_layers": lstm.num_layers, "bidirectional": lstm.bidirectional}
        made = cls(lstm.input_size, lstm.hidden_size, **sizes, **options)
        n = lstm.hidden_size
        order = torch.cat([torch.arange(n) + n * gate for gate in (0, 1, 3, 2)])  # i, f, g, o -> i, f, o, g
        with torch.no_grad():
            for number, layer in enumerate(made.layers):
                for suffix, direction in zip(("", "_reverse"), layer, strict=False):
                    name = f"l{number}{suffix}"
                    for which in ("ih", "hh"):
                        weight = getattr(lstm, f"weight_{which}_{name}")
                        getattr(direction, f"weight_{which}").copy_(weight[order])
                        found = few_levels(weight.detach().numpy().T.astype(np.float64), most_bits=made.weight_bits)
                        direction.keeps_levels[which] = found is not None
                    bias = torch.zeros(4 * n)
                    if lstm.bias:
                        bias = getattr(lstm, f"bias_ih_{name}") + getattr(lstm, f"bias_hh_{name}")
                    direction.bias.copy_(bias[order])
        return made

    def freeze(self, frozen=True):
        """Keep the ranges as they are from now on, or let them move again; returns the module."""
        for module in self.modules():
            if isinstance(module, Range):
                module.frozen = frozen
        return self

    def calibrate(self, x, momentum=MOMENTUM):
        """Take the ranges of values from a batch of sequences (n_rows, n_steps, input_size), run in float."""
        with torch.no_grad():
            self.input.see(x, momentum)
            self._layers(x, momentum)

    def input_format(self) -> tuple[float, int]:
        """Return unit and zero point of the input's 8 bits; whole numbers from 0 to 255 stay what they are."""
        if self.input.whole and self.input.high > self.input.low:
            return 1.0, 0
        unit = self.input.unit(255)
        return unit, int(np.clip(np.rint(-float(self.input.low) / unit), 0, 255))

    def forward(self, x, state=None):
        """Return the hidden states (n_rows, n_steps, n) and ``(hidden, cell)`` behind the last step, as torch does."""
        if state is not None:
            raise ValueError("state: a QuantLSTM starts from zeros; give it whole sequences")
        if self.training and not self.input.frozen:
            self.calibrate(x.detach())
        unit, zero = self.input_format()
        return self._layers(rounded(x, unit, -zero, 255 - zero), None)

    def _layers(self, x, momentum):
        """Run all layers: rounded, or in float with ranges taken in where a momentum is given."""
        states = []
        for layer, hidden in zip(self.layers, self.hidden, strict=True):
            outputs = []
            for number, direction in enumerate(layer):
                part = x.flip(1) if number else x
                out, state = self._turns(direction, part, hidden.unit(TOP_HIDDEN), momentum)
                outputs.append(out.flip(1) if number else out)
                states.append(state)
            x = torch.cat(outputs, dim=2)
            if momentum is not None:
                hidden.see(x, momentum)
        return x, tuple(torch.stack(parts) for parts in zip(*states, strict=True))

    def _turns(self, direction, x, unit, momentum):
        n, exact = self.hidden_size, momentum is not None
        read = x @ self._weight(direction, "ih", exact).T
        recurrent = self._weight(direction, "hh", exact).T
        read = self._normalised(direction, "ih", read, momentum)
        hidden = x.new_zeros(len(x), n)
        cell, outputs, cells, kepts = hidden, [], [], []
        for t in range(x.shape[1]):
            kept = hidden @ recurrent
            kepts.append(kept.detach())
            sums = read[:, t] + self._normalised(direction, "hh", kept, None, exact) + direction.bias
            hidden, cell = self._turn(direction, sums, cell, unit, exact)
            outputs.append(hidden)
            cells.append(cell.detach())
        if exact:
            direction.cell.see(torch.stack(cells), momentum)
            if self.norm is not None:
                direction.products["hh"].see(torch.stack(kepts), momentum)
        return torch.stack(outputs, dim=1), (hidden, cell)

    def _weight(self, direction, which, exact):
        if exact:
            return getattr(direction, f"weight_{which}")
        return direction.weight(which, self.weight_bits, self.scales)

    def _turn(self, direction, sums, cell, unit, exact):
        """Return the next hidden state and cell from the sums before the gates."""
        n = self.hidden_size
        if exact:
            i, f, o = torch.sigmoid(sums[:, : 3 * n]).split(n, dim=1)
            cell = f * cell + i * torch.tanh(sums[:, 3 * n :])
            return o * torch.tanh(cell), cell
        sums = rounded(sums, 2.0**-GATE_BITS, -SHORT, SHORT - 1)
        i, f, o = self._curve("sigmoid", sums[:, : 3 * n], GATE_BITS, TOP_SIGMOID).split(n, dim=1)
        new = self._curve("tanh", sums[:, 3 * n :], GATE_BITS, TOP_TANH)
        bits = direction.cell_bits()
        cell = rounded(f * cell + i * new, 2.0**-bits, -CELL_TOP, CELL_TOP)
        return rounded(o * self._curve("tanh", cell, bits, TOP_TANH), unit, -TOP_HIDDEN, TOP_HIDDEN), cell

    def _curve(self, name, values, bits, largest):
        """Return an activation of straight pieces, rounded, with the slopes of the pieces as its gradient."""
        curve = curve_of(name, bits, self.n_pieces, largest)
        steps = values * 2.0**bits
        limits = torch.from_numpy(curve.limits.astype(np.float32))
        piece = torch.bucketize(steps.detach(), limits, right=True)
        slope = torch.from_numpy(curve.slope.astype(np.float32))[piece] * 2.0**-curve.shift
        offset = torch.from_numpy((curve.intercept / 2.0**curve.shift - 0.5).astype(np.float32))[piece]
        return rounded((steps * slope + offset) / largest, 1 / largest, curve.lowest, curve.largest)

    def _normalised(self, direction, which, products, momentum, exact=None):
        """Return the layer-normalised products, or what they are without a norm."""
        if self.norm is None:
            return products
        if momentum is not None:
            direction.products[which].see(products, momentum)
        exact = momentum is not None if exact is None else exact
        centred = products - products.mean(dim=-1, keepdim=True)
        spread = centred.pow(2).mean(dim=-1, keepdim=True).sqrt() if self.norm == "std" else None
        spread = centred.abs().mean(dim=-1, keepdim=True) if spread is None else spread
        out = centred / spread.clamp(min=1e-8) * getattr(direction, f"gain_{which}")
        if exact:
            return out
        unit = direction.products[which].unit(CELL_TOP)
        steps = torch.floor(products.detach() / unit + 0.5).clamp(-CELL_TOP, CELL_TOP).long()
        whole = normalised_integers(steps, direction.gains(which), self.norm) * 2.0**-GATE_BITS
        return out + (whole.to(out.dtype) - out).detach()

    def extra_repr(self):
        """Parameters, for printing."""
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, norm={self.norm!r}, "
            f"n_pieces={self.n_pieces}, weight_bits={self.weight_bits}"
        )
