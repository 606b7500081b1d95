"""What shap and shapiq make of a game of coalitions: every rival gets the same values and at most the same budget.

shap's explainers see the game as a model of n binary features, explained at all ones against all zeros, so that one of
their model calls is one coalition. Every coalition is counted once, however often a rival asks for it; a rival that
fixes the number of its evaluations in steps gets the largest that fits. Rivals of libraries that are not installed are
left out. shapiq's LeverageSHAP, OddSHAP, PolySHAP, ProxySHAP and RegressionMSR came with its versions 1.5 to 1.8, which
need Python 3.12. Left out are its ShaplEIG (needs torch and fits a Gaussian process anew after every evaluation) and
ProxySPEX (3 to 9 seconds a row, errors above 2e-2 in a first look).
"""

import warnings
from importlib import import_module, metadata
from importlib.util import find_spec
from math import comb

import numpy as np

ONE_BY_ONE = ("SVARM", "StratifiedSamplingSV", "OwenSamplingSV")
MOST_ONE_BY_ONE = 1600
"""These call the game for one coalition at a time: above this budget they are not run."""

MOST_TERMS = 1000
"""Fits of order 3 with more unknowns are not run: under-determined, and minutes of dense algebra a row."""


class NotRun(ValueError):
    """A rival that cannot be run on a game at a budget."""


class Counted:
    """A game of one row, as a function of coalitions; counts distinct ones, 0 / 1 or boolean."""

    def __init__(self, values, n_players):
        self._values, self.n_players, self._known = values, n_players, set()

    def __call__(self, coalitions):
        coalitions = np.atleast_2d(np.asarray(coalitions)) > 0.5
        self._known.update(row.tobytes() for row in np.packbits(coalitions, axis=1))
        return self._values(coalitions)

    @property
    def n_evaluations(self):
        return len(self._known)


# -- shap -------------------------------------------------------------------------------------------------------------


def shap_permutation(game, budget, seed):
    import shap

    n = game.n_players
    rounds = max(1, (budget - 2) // (2 * n - 2))
    explainer = shap.PermutationExplainer(game, np.zeros((1, n)), seed=seed)
    return explainer(np.ones((1, n)), max_evals=rounds * (2 * n + 1), silent=True).values[0]


def shap_kernel(game, budget, seed):
    import shap

    np.random.seed(seed)  # noqa: NPY002, shap draws from it
    explainer = shap.KernelExplainer(game, np.zeros((1, game.n_players)))
    return explainer.shap_values(np.ones((1, game.n_players)), nsamples=budget - 2, l1_reg=False, silent=True)[0]


def shap_sampling(game, budget, seed):
    import shap

    np.random.seed(seed)  # noqa: NPY002, shap draws from it
    explainer = shap.SamplingExplainer(game, np.zeros((1, game.n_players)))
    share = budget // 2  # two evaluations a sample
    if share < 4 * game.n_players:
        raise NotRun("at least two samples of each feature in each of two rounds")
    least = min(100, share // (2 * game.n_players))
    return explainer.shap_values(np.ones(game.n_players), nsamples=share, min_samples_per_feature=max(least, 1))


# -- shapiq -----------------------------------------------------------------------------------------------------------


def _shapiq(name, **options):
    def run(game, budget, seed):
        n = game.n_players
        if options.get("max_order") == 3 and n + comb(n, 2) + comb(n, 3) > MOST_TERMS:
            raise NotRun(f"{n} players have too many terms of order 3")
        if name in ONE_BY_ONE and budget > MOST_ONE_BY_ONE:
            raise NotRun("seconds a row")
        approximator = getattr(import_module("shapiq.approximator"), name)
        result = approximator(n=n, random_state=seed, **options).approximate(budget, game)
        return result.get_n_order_values(1)

    return run


_SHAPIQ = {
    "KernelSHAP": ("KernelSHAP", {}),
    "KernelSHAP paired": ("KernelSHAP", {"pairing_trick": True}),
    "kADD-SHAP 3 paired": ("kADDSHAP", {"max_order": 3, "pairing_trick": True}),
    "LeverageSHAP": ("LeverageSHAP", {}),
    "OddSHAP": ("OddSHAP", {}),
    "PolySHAP 3 paired": ("PolySHAP", {"max_order": 3, "pairing_trick": True}),
    "ProxySHAP": ("ProxySHAP", {"index": "SV", "max_order": 1, "adjustment": True}),
    "ProxySHAP trees only": ("ProxySHAP", {"index": "SV", "max_order": 1}),
    "RegressionMSR": ("RegressionMSR", {"index": "SV"}),
    "UnbiasedKernelSHAP": ("UnbiasedKernelSHAP", {"pairing_trick": True}),
    "SVARM": ("SVARM", {}),
    "StratifiedSampling": ("StratifiedSamplingSV", {}),
    "OwenSampling": ("OwenSamplingSV", {}),
    "PermutationSampling": ("PermutationSamplingSV", {}),
}


def rivals():
    """Return {name: function of game, budget and seed} of what is installed."""
    found = {}
    if find_spec("shap"):
        found = {"shap Permutation": shap_permutation, "shap Kernel": shap_kernel, "shap Sampling": shap_sampling}
    if find_spec("shapiq"):
        module = import_module("shapiq.approximator")
        for name, (approximator, options) in _SHAPIQ.items():
            if hasattr(module, approximator):
                found[f"shapiq {name}"] = _shapiq(approximator, **options)
    return found


def versions():
    """Return the versions of the libraries, as one line."""
    names = ("numpy", "scikit-learn", "shap", "shapiq", "lightgbm", "xgboost")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names if find_spec(name.replace("scikit-", "sk")))


def estimate(rival, values, n_players, budget, seed):
    """Return what a rival says of one row (n_players,), and how many coalitions it evaluated."""
    game = Counted(values, n_players)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        phi = np.asarray(rival(game, budget, seed), dtype=np.float64).reshape(n_players)
    return phi, game.n_evaluations
