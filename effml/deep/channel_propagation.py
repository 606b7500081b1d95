"""Dynamic Channel Propagation: only the channels that have been useful so far go on; what stays useless is cut.

Each channel has a utility u. In every step, from the map Z behind its batch norm and the loss's gradient G there,

    s_c = (1 / BHW) sum_b | sum_hw G Z |,   s <- s / max_c s,   u <- decay u + s    (channels that are off keep u)

and the share `ratio` of all channels with the lowest utility is off in the next step, until others lose utility. When
the model ships, torch-pruning cuts the channels that are off.

Source: S. Shen, R. Li, Z. Zhao, H. Zhang, Y. Zhou, "Learning to Prune in Training via Dynamic Channel Propagation",
ICPR 2020, arXiv 2007.01486, and its code. Unlike there, at least 5 % of the channels of each layer stay.
"""

from numbers import Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import nn

from effml.deep.plugs import Callback, GraphSurgery, ModuleSwap, Selective

__all__ = ["ChannelPropagation"]

_LEAST_SHARE = 0.05


class _Gate(nn.Module):
    """Batch norm, then channels switched on or off; scores channels as the gradient comes back."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm
        n_channels = norm.num_features
        self.register_buffer("on", torch.ones(n_channels, dtype=torch.bool))
        self.register_buffer("utility", torch.full((n_channels,), 1.0 / n_channels))
        self.score = None

    def forward(self, x):
        z = self.norm(x)
        if self.training and z.requires_grad:
            z.register_hook(lambda gradient: self._note(gradient, z.detach()))
        return z * self.on.reshape(-1, *[1] * (z.dim() - 2))

    def _note(self, gradient, z):
        products = (gradient * z).reshape(*z.shape[:2], -1)
        self.score = products.sum(2).abs().sum(0) / (products.shape[0] * products.shape[2])

    def update(self, decay):
        """Take the last score into the utility."""
        largest = self.score.max()
        if largest > 0:
            self.utility[self.on] *= decay
            self.utility += self.score / largest

    def keep_at_least(self, threshold):
        """On above the threshold, and in any case the best few."""
        self.on.copy_(self.utility > threshold)
        least = max(1, round(_LEAST_SHARE * len(self.on)))
        self.on[self.utility.topk(least).indices] = True


class ChannelPropagation(Selective, ModuleSwap, Callback, GraphSurgery):
    """Prune channels while training, by the use the loss makes of them.

    Parameters
    ----------
    ratio : float in (0, 1), default=0.4
        Share of the channels, of all chosen layers together, that go.
    decay : float in [0, 1], default=0.6
        Of a utility in one step.
    explore : float in [0, 1), default=0.1
        Share of the training in which all channels are on and utilities are only gathered.
    include, exclude : as in `Selective`, default=None
        Of the batch norms. Leave out those whose channels are added to a shortcut.

    Notes
    -----
    Needs `example_inputs` in `Recipe.apply`, and torch-pruning.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import ChannelPropagation, Recipe
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 2, 3))
    >>> recipe = Recipe([ChannelPropagation(ratio=0.5)])
    >>> gated = recipe.apply(net, torch.zeros(1, 1, 8, 8))
    >>> _ = gated[1].on[:4].fill_(False)
    >>> recipe.finalize(gated)[0].out_channels
    4
    """

    at: ClassVar[str] = "finalize"
    module_types: ClassVar[tuple] = (nn.BatchNorm1d, nn.BatchNorm2d)
    _parameter_constraints: ClassVar[dict] = {
        **Selective._parameter_constraints,
        "ratio": [Interval(Real, 0, 1, closed="neither")],
        "decay": [Interval(Real, 0, 1, closed="both")],
        "explore": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(self, *, ratio=0.4, decay=0.6, explore=0.1, include=None, exclude=None):
        super().__init__(include=include, exclude=exclude)
        self.ratio = ratio
        self.decay = decay
        self.explore = explore

    def swap(self, name, module):
        """A gate around a chosen batch norm."""
        return _Gate(module) if self.matches(name, module) else None

    def step_end(self, state):
        """Update utilities; after exploration switch channels by their rank among all."""
        gates = self._gates(state.model).values()
        for gate in gates:
            gate.update(self.decay)
        if state.progress > self.explore:
            utilities = torch.cat([gate.utility for gate in gates]).sort().values
            threshold = utilities[max(0, round(self.ratio * len(utilities)) - 1)]
            for gate in gates:
                gate.keep_at_least(threshold)

    def _gates(self, model):
        return {name: model.get_submodule(name) for name in self.swapped_}

    def harden(self, model):
        """Remember which channels are off."""
        self.off_ = {name: (~gate.on).nonzero().flatten().tolist() for name, gate in self._gates(model).items()}

    def restore(self, name, module):
        """The batch norm alone."""
        return module.norm

    def operate(self, model, example_inputs):
        """Cut the channels that are off, with all that depends on them."""
        import torch_pruning as tp

        if example_inputs is None:
            raise ValueError(
                "ChannelPropagation needs example_inputs in Recipe.apply, to follow channels through the net"
            )
        for name, channels in self.off_.items():
            if channels:
                graph = tp.DependencyGraph().build_dependency(model, example_inputs)
                group = graph.get_pruning_group(
                    model.get_submodule(name), tp.prune_batchnorm_out_channels, idxs=channels
                )
                group.prune()
        return model
