"""The optimizer behind ProxConnect: a shadow of every quantised weight, and one step of each of the four corners."""

import torch

from effml.deep.prox_maps import nearest, prox_map

__all__ = ["ProxOptimizer", "Site"]


class Site:
    """One quantised weight: its parameter, its level sets, and when its annealing takes place.

    Parameters
    ----------
    name : str
    parameter : Parameter (out, ...)
    window : (float, float)
        Progress of the training at which annealing starts and ends.
    per_channel : bool
        A level set for each output channel instead of one.
    """

    def __init__(self, name, parameter, window, per_channel):
        self.name = name
        self.parameter = parameter
        self.window = window
        self.per_channel = per_channel
        self.shadow = parameter.detach().clone()
        self.levels = None

    def rows(self, tensor):
        """As (rows, n): a row is what shares a level set."""
        return tensor.reshape(len(tensor), -1) if self.per_channel else tensor.reshape(1, -1)

    def annealed(self, progress):
        """Share of the annealing that is over; below 0 before its start."""
        start, end = self.window
        return (progress - start) / (end - start) if end > start else float(progress >= start) - 0.5


class ProxOptimizer(torch.optim.Optimizer):
    """A base optimizer acting on shadows, while the parameters hold the shadows' image under a map that hardens.

    Parameters
    ----------
    base : torch.optim.Optimizer
    sites : list of Site
    level_sets : callable
        ``level_sets(rows) -> sorted levels (rows, k)``.
    schedule, steepness : as in `prox_map`
    gradient_at, update_from : {"quantised", "shadow"}
    warmup_steps, total_steps, period : int
        Steps of the base optimizer alone, steps in all (None while unknown), steps between two estimates of the levels.
    clip : float or None
        Bound on the shadow.
    """

    def __init__(
        self,
        base,
        sites,
        level_sets,
        *,
        schedule,
        steepness,
        gradient_at,
        update_from,
        warmup_steps,
        total_steps,
        period,
        clip,
    ):
        self._built = False
        self.base = base
        self.sites = sites
        self.level_sets = level_sets
        self.schedule = schedule
        self.steepness = steepness
        self.gradient_at = gradient_at
        self.update_from = update_from
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.period = period
        self.clip = clip
        self.n_steps = 0
        super().__init__(base.param_groups, base.defaults)
        self.param_groups, self.state = base.param_groups, base.state  # one list: schedulers act on the base
        self._built = True

    def __setstate__(self, state):  # copies and pickles of a training in progress
        super().__setstate__(state)
        self.param_groups, self.state = self.base.param_groups, self.base.state

    @torch.no_grad()
    def step(self, closure=None):
        """One step of the base optimizer from shadow or image, with the gradient found at whichever the model held."""
        if self.total_steps is None:
            raise RuntimeError("the length of the training is not known: start it by recipe.begin")
        loss = None
        if closure is not None:  # before the shadow comes back: the gradient belongs to what the model holds
            with torch.enable_grad():
                loss = closure()
        quantising = self.n_steps >= self.warmup_steps
        if quantising and self.n_steps > self.warmup_steps:
            self._load_start()
        self.base.step()
        self.n_steps += 1
        if quantising:
            update = (self.n_steps - 1 - self.warmup_steps) % self.period == 0
            for site in self.sites:
                self._quantise(site, update)
        return loss

    def _load_start(self):
        """Put into the parameters what the update starts from."""
        for site in self.sites:
            if self.update_from == "shadow":
                site.parameter.copy_(site.shadow)
            elif self.gradient_at == "shadow":
                site.parameter.copy_(self.image(site))

    def _quantise(self, site, update):
        if self.clip is not None:
            site.parameter.clamp_(-self.clip, self.clip)
        site.shadow.copy_(site.parameter)
        settled = (
            self.update_from == "quantised" and site.annealed(self._progress()) >= 1
        )  # else levels feed on themselves
        if site.levels is None or (update and not settled):
            site.levels = self.level_sets(site.rows(site.shadow))
        if self.gradient_at == "quantised":
            site.parameter.copy_(self.image(site))

    def image(self, site):
        """P_t of a site's shadow at the present step."""
        progress = site.annealed(self._progress())
        rows = prox_map(self.schedule, site.rows(site.shadow), site.levels, progress, self.steepness)
        return rows.reshape(site.shadow.shape)

    def _progress(self):
        """Share of the training after warm-up that is over."""
        return (self.n_steps - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)

    @torch.no_grad()
    def harden(self):
        """Round the shadows to their levels and leave them in the parameters."""
        for site in self.sites:
            if site.levels is None:
                site.shadow.copy_(site.parameter)
                site.levels = self.level_sets(site.rows(site.shadow))
            rows = nearest(site.rows(site.shadow), site.levels)
            site.parameter.copy_(rows.reshape(site.shadow.shape))

    def zero_grad(self, set_to_none=True):
        """As in torch."""
        self.base.zero_grad(set_to_none)

    def add_param_group(self, param_group):
        """As in torch; the group goes to the base optimizer."""
        if self._built:
            self.base.add_param_group(param_group)
        else:  # torch's constructor
            super().add_param_group(param_group)

    def state_dict(self):
        """State of the base optimizer, the shadows, the levels and the step."""
        sites = {site.name: {"shadow": site.shadow, "levels": site.levels} for site in self.sites}
        return {"base": self.base.state_dict(), "sites": sites, "n_steps": self.n_steps}

    def load_state_dict(self, state_dict):
        """Go on from what `state_dict` returned."""
        if set(state_dict["sites"]) != {site.name for site in self.sites}:
            raise ValueError(f"saved weights {sorted(state_dict['sites'])} are not {[s.name for s in self.sites]}")
        self.base.load_state_dict(state_dict["base"])
        self.param_groups, self.state = self.base.param_groups, self.base.state
        self.n_steps = state_dict["n_steps"]
        for site in self.sites:
            saved = state_dict["sites"][site.name]
            site.shadow.copy_(saved["shadow"])
            site.levels = None if saved["levels"] is None else saved["levels"].clone()
