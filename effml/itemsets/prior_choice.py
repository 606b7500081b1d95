"""Choice of the priors of an itemset model: by held-out rows or by the evidence."""

from dataclasses import dataclass, replace

import numpy as np
from joblib import Parallel, delayed
from scipy.special import gammaln
from sklearn.model_selection import KFold

from effml.itemsets.itemset_fit import columns_of, fit_model, mean_and_variance

__all__ = ["INCLUSION_PRIORS", "KAPPAS", "Choice", "choose_by_cv", "choose_by_evidence"]

KAPPAS = (0.5, 1.0, 2.0)
INCLUSION_PRIORS = ("beta-binomial", 0.25, 0.5)  # in the order of the number of terms that they keep
N_FOLDS = 5


@dataclass(frozen=True)
class Choice:
    """A prior and how it did on held-out folds.

    Attributes
    ----------
    kappa : float
    inclusion_prior : float or str
    error : float
        Mean squared error.
    spread : float
        Mean square of the held-out errors in units of the predicted standard deviations.
    """

    kappa: float
    inclusion_prior: float | str
    error: float
    spread: float


def choose_by_cv(matrix, y, categories, settings, kappas, priors, random_state, n_jobs):
    """Return the choice of least error on held-out folds, and all that were tried.

    All `kappas` are tried with the first of the `priors`, then one prior after the other with the best kappa, as long
    as the error falls: the later ones keep more terms and take longer. The `spread` of the choice multiplies the
    variances of the final model: selection over many itemsets makes the evidence's too small.
    """
    folds = list(KFold(min(N_FOLDS, len(y)), shuffle=True, random_state=random_state).split(matrix))
    tried = []

    def measure(kappa, prior):
        inside = replace(settings, inclusion_prior=prior)
        held_out = Parallel(n_jobs=n_jobs)(
            delayed(_held_out)(matrix, y, categories, kappa, inside, train, test) for train, test in folds
        )
        squares = np.concatenate([squares for squares, _ in held_out])
        variance = np.concatenate([variance for _, variance in held_out])
        told = variance > 0
        spread = float((squares[told] / variance[told]).mean()) if told.any() else 1.0
        tried.append(Choice(float(kappa), prior, float(squares.mean()), spread))
        return tried[-1]

    best = min((measure(kappa, priors[0]) for kappa in kappas), key=lambda choice: choice.error)
    for prior in priors[1:]:
        choice = measure(best.kappa, prior)
        if choice.error >= best.error:
            break
        best = choice
    return best, tried


def _held_out(matrix, y, categories, kappa, settings, train, test):
    """Return the squared errors and the predicted variances on the rows `test`."""
    model = fit_model(matrix[train], y[train], categories, kappa, settings)
    phi = columns_of(model.conditions, model.table, model.linear, matrix[test])
    mean, variance = mean_and_variance(
        phi, model.coef, model.means, model.sigma, model.intercept, model.noise_variance, model.n_rows
    )
    return (y[test] - mean) ** 2, variance


def choose_by_evidence(matrix, y, categories, settings):
    """Return (model, kappa, log posteriors of KAPPAS): the highest log evidence plus log prior of the itemsets.

    An itemset of k of d items has the prior C(d, k)^-kappa / Z(kappa), Z = sum over k of C(d, k)^(1 - kappa): a kappa
    that makes likely what was found makes other things unlikely. The M terms of a model are a set: M! orders.
    """
    best, scores = None, []
    for kappa in KAPPAS:
        model = fit_model(matrix, y, categories, kappa, settings)
        if model.trace is None:
            return model, KAPPAS[0], []
        score = model.trace.log_evidence[-1] + log_prior(model, kappa, settings.max_order)
        scores.append(float(score))
        if best is None or score > best[0]:
            best = score, model, kappa
    return *best[1:], scores


def log_prior(model, kappa, max_order):
    """Return the log prior of the terms of a model; linear terms count as single items."""
    d = model.n_items
    k = np.arange(1, min(max_order, max(d, 1)) + 1)
    log_binomial = gammaln(d + 1) - gammaln(k + 1) - gammaln(d - k + 1)
    log_normaliser = np.logaddexp.reduce((1 - kappa) * log_binomial)
    orders = np.array([len(itemset) for itemset in model.itemsets] + [1] * len(model.linear.features), dtype=int)
    return float(gammaln(len(orders) + 1) - (kappa * log_binomial[orders - 1] + log_normaliser).sum())
