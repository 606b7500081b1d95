"""Fit of an itemset model to a matrix of numbers and level numbers, and the choice of its multiplicity prior."""

from dataclasses import dataclass, replace

import numpy as np
from joblib import Parallel, delayed
from scipy.special import gammaln
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits

from effml.itemsets.conditions import ItemTable, joined_conditions, learn_items
from effml.itemsets.evidence import ActiveSet, Trace, ascend, inclusion_price
from effml.itemsets.itemset_columns import ItemsetColumns
from effml.itemsets.problem import multiplicity_penalty

__all__ = [
    "FEWEST_ROWS",
    "ItemsetModel",
    "LinearColumns",
    "Settings",
    "choose_by_cv",
    "choose_by_evidence",
    "fit_model",
]

FEWEST_ROWS = 5  # with fewer there is nothing to tell weights from noise
LEAST_NOISE = 1e-6  # least noise variance, as a share of the variance of y
MOST_WEIGHTS = 1 / 3  # weights that the data may determine, as a share of the rows
KAPPAS = (0.5, 1.0, 2.0)
INCLUSION_PRIORS = ("beta-binomial", 0.25, 0.5)  # in the order of the number of terms that they keep
N_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The parameters of the estimator that a fit needs, by their names there; `min_support` is a number of rows."""

    cuts: str
    encoding: str
    n_bins: int
    max_order: int
    min_support: int
    linear_terms: bool
    inclusion_prior: float | str
    max_iter: int
    tol: float
    n_threads: int = 1
    report: object = None


@dataclass(frozen=True, eq=False)
class LinearColumns:
    """Numeric columns as ``clip((x - low) / range, 0, 1)``, `fill` where x is missing.

    Attributes
    ----------
    features : int array (n,)
    low, range, fill : float64 arrays (n,)
    """

    features: np.ndarray
    low: np.ndarray
    range: np.ndarray
    fill: np.ndarray

    @classmethod
    def of(cls, matrix, features):
        """Learn from the columns `features` of a matrix; columns of up to two values are left to their items."""
        columns = matrix[:, features]
        known = ~np.isnan(columns)
        low = np.min(columns, axis=0, initial=np.inf, where=known)
        high = np.max(columns, axis=0, initial=-np.inf, where=known)
        kept = ((columns > low) & (columns < high)).any(axis=0)
        span = high - low
        learned = cls(features[kept], low[kept], span[kept], np.zeros(int(kept.sum())))
        values = learned.values(matrix)
        known = known[:, kept]
        return cls(*(learned.features, learned.low, learned.range), values.sum(axis=0, where=known) / known.sum(axis=0))

    def values(self, matrix):
        """Return the columns of a matrix, float64 (n_rows, n)."""
        z = np.clip((matrix[:, self.features] - self.low) / self.range, 0.0, 1.0)
        return np.where(np.isnan(z), self.fill, z)

    def subset(self, kept):
        return LinearColumns(self.features[kept], self.low[kept], self.range[kept], self.fill[kept])


@dataclass(frozen=True, eq=False)
class ItemsetModel:
    """A fitted model: y = intercept + phi'coef + noise, phi the itemsets and after them the linear terms.

    Attributes
    ----------
    table : ItemTable
    itemsets : list of tuples of item numbers
    linear : LinearColumns
        Those in use.
    coef, means, importances : float64 arrays (n_terms,)
        Posterior means of the weights; means of the columns; weight times standard deviation of the column.
    sigma : float64 array (n_terms, n_terms)
        Posterior covariance of the weights.
    intercept, noise_variance : float
    n_rows : int
    trace : Trace or None
        None if nothing was fitted: too few rows, or a constant y.
    target_scale : float
    n_items : int
    n_nodes : int
    """

    table: ItemTable
    itemsets: list
    linear: LinearColumns
    coef: np.ndarray
    means: np.ndarray
    importances: np.ndarray
    sigma: np.ndarray
    intercept: float
    noise_variance: float
    n_rows: int
    trace: Trace | None
    target_scale: float
    n_items: int
    n_nodes: int

    @property
    def conditions(self):
        """Of each itemset, ``[(feature, bool array over its codes), ...]``."""
        return [joined_conditions(self.table, itemset) for itemset in self.itemsets]


def columns_of(conditions, table, linear, matrix):
    """Return phi, float64 (n_rows, n_terms), for the rows of a matrix."""
    codes = table.codes(matrix)
    phi = np.empty((len(matrix), len(conditions) + len(linear.features)))
    for k, conditions_of_one in enumerate(conditions):
        phi[:, k] = np.logical_and.reduce([np.append(holds, False)[codes[:, j]] for j, holds in conditions_of_one])
    phi[:, len(conditions) :] = linear.values(matrix)
    return phi


def mean_and_variance(phi, coef, means, sigma, intercept, noise_variance, n_rows):
    """Return the mean and the variance of a new observation, float64 arrays (n,)."""
    centred = phi - means
    variance = noise_variance * (1 + 1 / n_rows) + np.einsum("ij,ij->i", centred @ sigma, centred)
    return intercept + phi @ coef, variance


def fit_model(matrix, y, categories, kappa, settings):
    """Fit a model with a given multiplicity prior.

    Parameters
    ----------
    matrix : float64 array (n_rows, n_features)
    y : float64 array (n_rows,)
    categories : list of (array or None)
    kappa : float
    settings : Settings

    Returns
    -------
    ItemsetModel
    """
    table, items = learn_items(
        matrix,
        y,
        categories,
        cuts=settings.cuts,
        encoding=settings.encoding,
        n_bins=settings.n_bins,
        min_support=settings.min_support,
    )
    numeric = np.array([j for j, levels in enumerate(categories) if levels is None and not table.binary[j]], dtype=int)
    linear = LinearColumns.of(matrix, numeric if settings.linear_terms else numeric[:0])
    scale, centre = float(y.std()), float(y.mean())
    if len(y) < FEWEST_ROWS or scale <= np.finfo(float).eps * np.sqrt(len(y)) * abs(centre):
        none = np.empty(0)
        variance = float(y.var(ddof=1)) if len(y) > 1 and scale > 0 else 0.0
        nothing = (linear.subset(slice(0, 0)), none, none, none, np.empty((0, 0)))
        return ItemsetModel(table, [], *nothing, centre, variance, len(y), None, scale, len(table.holds), 0)
    source = ItemsetColumns(
        items,
        table.group,
        linear.values(matrix),
        penalty=multiplicity_penalty(len(table.holds), settings.max_order, kappa),
        price=inclusion_price(settings.inclusion_prior, len(table.holds) + len(linear.features)),
        min_support=settings.min_support,
        n_threads=settings.n_threads,
    )
    active = ActiveSet((y - centre) / scale, noise_variance=1.0, n_rows=len(y) - 1)
    with threadpool_limits(1, user_api="blas"):  # products are short: threads would only wait for each other
        trace = ascend(
            active,
            source,
            max_iter=settings.max_iter,
            tol=settings.tol,
            noise="each",
            noise_floor=LEAST_NOISE,
            max_effective=MOST_WEIGHTS * len(y),
            settle_first=True,
            report=settings.report,
        )
    return _in_units(active, source, table, linear, trace, scale, centre)


def _in_units(active, source, table, linear, trace, scale, centre):
    """Return the model in the units of y, terms by decreasing importance, itemsets first."""
    spread = np.array([source.column(key).std() for key in active.keys])
    importance = np.abs(active.mean) * spread
    order = sorted(range(len(active)), key=lambda k: (not isinstance(active.keys[k], tuple), -importance[k]))
    keys = [active.keys[k] for k in order]
    itemsets = [key for key in keys if isinstance(key, tuple)]
    means = np.array([source.column(key).mean() for key in keys])
    coef = active.mean[order] * scale
    return ItemsetModel(
        table=table,
        itemsets=itemsets,
        linear=linear.subset(np.array(keys[len(itemsets) :], dtype=np.intp)),
        coef=coef,
        means=means,
        importances=importance[order] * scale,
        sigma=active.covariance[np.ix_(order, order)] * scale**2,
        intercept=float(centre - means @ coef),
        noise_variance=float(active.noise_variance * scale**2),
        n_rows=len(active.target),
        trace=trace,
        target_scale=scale,
        n_items=source.items.n_items,
        n_nodes=source.n_nodes,
    )


# -- the choice of the priors ------------------------------------------------------------------------------------------


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
    d = model.n_items + len(model.linear.features)
    k = np.arange(1, min(max_order, max(d, 1)) + 1)
    log_binomial = gammaln(d + 1) - gammaln(k + 1) - gammaln(d - k + 1)
    log_normaliser = np.logaddexp.reduce((1 - kappa) * log_binomial)
    orders = np.array([len(itemset) for itemset in model.itemsets] + [1] * len(model.linear.features), dtype=int)
    return float(gammaln(len(orders) + 1) - (kappa * log_binomial[orders - 1] + log_normaliser).sum())
