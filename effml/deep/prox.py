"""ProxConnect and its relatives: weights of few levels, trained by a map that hardens from the identity to rounding.

A float shadow u gathers the updates; the model computes with w = P_t(u). With the gradient taken at w or u, and the
update made from u or w, four algorithms come out:

| gradient_at | update_from | with a hardening map | with the hard map |
|---|---|---|---|
| "quantised" | "shadow" | ProxConnect (PC) | BinaryConnect, straight-through |
| "quantised" | "quantised" | ProxQuant | - |
| "shadow" | "quantised" | reverse ProxConnect | - |
| "shadow" | "shadow" | quantised after training | quantised after training |

Sources: T. Dockhorn, Y. Yu, E. Sari, M. Zolnouri, V. Partovi Nia, "Demystifying and Generalizing BinaryConnect",
NeurIPS 2021, arXiv 2110.13220; "PARQ: Piecewise-Affine Regularized Quantization", arXiv 2503.15748, whose levels come
from torchao (prototype), hidden here; Y. Bai, Y.-X. Wang, E. Liberty, "ProxQuant", ICLR 2019. The table, the
L_{rho,vrho} map and the layer-by-layer annealing are reconstructed: our reading.
"""

import warnings
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions

from effml.deep.plugs import Callback, OptimizerWrapper, Selective
from effml.deep.prox_maps import SCHEDULES, nearest
from effml.deep.prox_optimizer import ProxOptimizer, Site

__all__ = ["ProxConnect"]


class ProxConnect(Selective, OptimizerWrapper, Callback):
    """Weights of 1 to 8 bits by a proximal map around the optimizer; the model itself is not changed.

    Parameters
    ----------
    bits : int from 1 to 8 or "ternary", default=2
    levels : {"least-squares", "uniform", "sign"}, default="least-squares"
        "least-squares": greedy least-squares binary levels, for ternary the mean of the large weights; "uniform":
        evenly spaced half-integer levels, scaled by the mean; "sign": -1 and +1 with the shadow clipped there,
        BinaryConnect's own, for ``bits=1``.
    schedule : {"parq", "linear", "relax", "hard", "identity"}, default="parq"
        How the map hardens: PARQ's sigmoid, a linearly growing dead zone, BinaryRelax; or rounding from the first step
        (straight-through), or not before the end (rounding after training).
    gradient_at, update_from : {"quantised", "shadow"}, default="quantised", "shadow"
        The corner of the family, as in the module's table.
    per_channel : bool, default=True
        Levels for each output channel, or for the whole tensor.
    anneal : (float, float), default=(0.0, 0.4)
        Shares of the training (after warm-up) at which hardening starts and ends; the rest is for the hard weights,
        which on digits with a falling learning rate was worth a point at one bit.
    steepness : float, default=10
        Of "parq".
    layer_by_layer : bool, default=False
        Incremental: the layers harden one after the other, each in its part of `anneal` (our reading).
    warmup : float in [0, 1), default=0.0
        Share of the training done by the optimizer alone.
    period : int, default=10
        Steps between two estimates of the levels.
    include, exclude : as in `Selective`, default=None
        Weights that are quantised: of all linear layers and convolutions, unless told otherwise.

    Attributes
    ----------
    levels_ : dict of str to Tensor (rows, k)
        Level sets of each weight, since the end of training.

    Notes
    -----
    The model holds w at any time (u with ``gradient_at="shadow"``); u is in the optimizer's state, so checkpoints need
    both. Put weight decay into the optimizer: it acts on what the update starts from.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import ProxConnect, Recipe, train
    >>> X, y = torch.randn(64, 4), torch.randint(0, 2, (64,))
    >>> recipe = Recipe([ProxConnect(bits=1)])
    >>> state = train(torch.nn.Linear(4, 2), (X, y), recipe=recipe, epochs=4, random_state=0)
    >>> max(len(row.unique()) for row in recipe.finalize(state.model).weight) <= 2
    True
    """

    state_names: ClassVar[tuple] = ("levels_",)
    _parameter_constraints: ClassVar[dict] = {
        **Selective._parameter_constraints,
        "bits": [Interval(Integral, 1, 8, closed="both"), StrOptions({"ternary"})],
        "levels": [StrOptions({"least-squares", "uniform", "sign"})],
        "schedule": [StrOptions(set(SCHEDULES))],
        "gradient_at": [StrOptions({"quantised", "shadow"})],
        "update_from": [StrOptions({"quantised", "shadow"})],
        "per_channel": ["boolean"],
        "anneal": [tuple, list],
        "steepness": [Interval(Real, 0, None, closed="neither")],
        "layer_by_layer": ["boolean"],
        "warmup": [Interval(Real, 0, 1, closed="left")],
        "period": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        bits=2,
        levels="least-squares",
        schedule="parq",
        gradient_at="quantised",
        update_from="shadow",
        per_channel=True,
        anneal=(0.0, 0.4),
        steepness=10,
        layer_by_layer=False,
        warmup=0.0,
        period=10,
        include=None,
        exclude=None,
    ):
        super().__init__(include=include, exclude=exclude)
        self.bits = bits
        self.levels = levels
        self.schedule = schedule
        self.gradient_at = gradient_at
        self.update_from = update_from
        self.per_channel = per_channel
        self.anneal = anneal
        self.steepness = steepness
        self.layer_by_layer = layer_by_layer
        self.warmup = warmup
        self.period = period

    def validate(self):
        """Raise ValueError or TypeError if a parameter is wrong."""
        super().validate()
        if len(self.anneal) != 2 or not 0 <= self.anneal[0] < self.anneal[1] <= 1:
            raise ValueError(f"anneal={self.anneal!r} must be (start, end) with 0 <= start < end <= 1")
        if self.levels == "sign" and self.bits != 1:
            raise ValueError(f'levels="sign" needs bits=1, got bits={self.bits!r}')

    # -- optimizer wrapper --------------------------------------------------------------------------------------------

    def wrap(self, optimizer, model):
        """The optimizer to train with; the length of the training is known from `train_begin` on."""
        chosen = self.chosen(model)
        windows = self._windows(len(chosen))
        sites = [
            Site(f"{name}.weight" if name else "weight", module.weight, window, self.per_channel)
            for (name, module), window in zip(chosen, windows, strict=True)
        ]
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        missing = [site.name for site in sites if id(site.parameter) not in trained]
        if missing:
            raise ValueError(f"ProxConnect: the optimizer does not train {missing}; are they frozen, or parametrized?")
        before = getattr(self, "optimizer_", None)
        self.optimizer_ = ProxOptimizer(
            optimizer,
            sites,
            self.level_sets,
            schedule=self.schedule,
            steepness=self.steepness,
            gradient_at=self.gradient_at,
            update_from=self.update_from,
            warmup_steps=0 if before is None else before.warmup_steps,
            total_steps=None if before is None else before.total_steps,
            period=self.period,
            clip=1.0 if self.levels == "sign" else None,
        )
        self.optimizer_.n_steps = 0 if before is None else before.n_steps
        return self.optimizer_

    def _windows(self, n_sites):
        start, end = self.anneal
        if not self.layer_by_layer:
            return [(start, end)] * n_sites
        width = (end - start) / n_sites
        return [(start + width * position, start + width * (position + 1)) for position in range(n_sites)]

    def train_begin(self, state):
        """Tell the optimizer how long the training is."""
        self.optimizer_.n_steps = state.step
        self.optimizer_.total_steps = state.total_steps
        self.optimizer_.warmup_steps = round(self.warmup * state.total_steps)

    def release(self, optimizer, model):
        """Round what the parameters hold, and keep the levels."""
        optimizer.harden()
        self.levels_ = {site.name: site.levels for site in optimizer.sites}

    def harden(self, model):
        """Round the weights of `model`, trained or in training."""
        levels = getattr(self, "levels_", None) or self._present_levels()
        for name, module in self.chosen(model):
            weight = module.weight.data
            rows = weight.reshape(len(weight), -1) if self.per_channel else weight.reshape(1, -1)
            own = levels.get(f"{name}.weight" if name else "weight")
            own = self.level_sets(rows) if own is None else own
            module.weight.data = nearest(rows, own.to(rows)).reshape(weight.shape)

    def _present_levels(self):
        sites = self.optimizer_.sites if hasattr(self, "optimizer_") else []
        return {site.name: site.levels for site in sites}

    # -- levels -------------------------------------------------------------------------------------------------------

    def level_sets(self, rows):
        """Sorted levels (rows, k) for weights (rows, n)."""
        if self.levels == "sign":
            return rows.new_tensor([[-1.0, 1.0]]).repeat(len(rows), 1)
        if self.levels == "least-squares" and self.bits == "ternary":
            return _ternary_levels(rows)
        parq = _parq()
        if self.levels == "least-squares":
            quantizer = parq.LSBQuantizer()
        else:
            quantizer = parq.TernaryUnifQuantizer() if self.bits == "ternary" else parq.UnifQuantizer()
        _, levels = quantizer.quantize(rows, 0 if self.bits == "ternary" else self.bits, dim=-1)
        return levels.sort(dim=-1).values.contiguous()


def _ternary_levels(rows):
    """-v, 0, v with v the mean size beyond 0.7 times the mean size, as in ProxQuant's code.

    torchao's 1.1 times the mean size shrinks to nothing when updates start from rounded weights: zeros pull it down.
    """
    size = rows.abs()
    large = size >= 0.7 * size.mean(1, keepdim=True)
    level = (size * large).sum(1, keepdim=True) / large.sum(1, keepdim=True)
    return torch.cat([-level, torch.zeros_like(level), level], 1)


def _parq():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchao.prototype import parq
    except ImportError as error:
        raise ImportError('ProxConnect takes its levels from torchao: pip install "effml[torch]"') from error
    return parq
