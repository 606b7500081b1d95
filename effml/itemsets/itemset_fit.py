"""Fit of itemset models to a matrix of numbers and level numbers, one or the mean of several."""

from dataclasses import dataclass, replace

import numpy as np
from joblib import Parallel, delayed
from sklearn.utils import check_random_state
from threadpoolctl import threadpool_limits

from effml.itemsets.conditions import ItemTable, joined_conditions, learn_items
from effml.itemsets.evidence import FEWEST_ROWS, LEAST_NOISE, MOST_WEIGHTS, ActiveSet, Trace, ascend, inclusion_price
from effml.itemsets.itemset_columns import ItemsetColumns
from effml.itemsets.problem import multiplicity_penalty

__all__ = [
    "Candidates",
    "ItemsetModel",
    "LinearColumns",
    "Posterior",
    "Settings",
    "columns_of",
    "fit_bags",
    "fit_model",
    "fit_posterior",
    "mean_and_variance",
    "mixture",
    "model_of",
]


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
        Candidate items and linear columns.
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


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a model of some rows may be made of.

    Attributes
    ----------
    table : ItemTable
    items : uint8 array (n_rows, n_items)
    linear : LinearColumns
    values : float64 array (n_rows, n_linear)
    """

    table: ItemTable
    items: np.ndarray
    linear: LinearColumns
    values: np.ndarray

    @classmethod
    def learn(cls, matrix, y, categories, settings):
        """Learn items and linear columns from a matrix (n_rows, n_features); see :func:`fit_model`."""
        table, items = learn_items(
            matrix,
            y,
            categories,
            cuts=settings.cuts,
            encoding=settings.encoding,
            n_bins=settings.n_bins,
            min_support=settings.min_support,
        )
        numeric = [j for j, levels in enumerate(categories) if levels is None and not table.binary[j]]
        linear = LinearColumns.of(matrix, np.array(numeric if settings.linear_terms else [], dtype=np.intp))
        return cls(table, items, linear, linear.values(matrix))

    def rows(self, chosen):
        """Return the candidates of some rows, given by number."""
        return replace(self, items=self.items[chosen], values=self.values[chosen])

    def columns(self, keys):
        """Return the columns of terms, float64 (n_rows, n_terms): itemsets by their items, linear ones by number."""
        phi = np.empty((len(self.items), len(keys)))
        for k, key in enumerate(keys):
            phi[:, k] = self.items[:, list(key)].all(axis=1) if isinstance(key, tuple) else self.values[:, key]
        return phi


@dataclass(frozen=True, eq=False)
class Posterior:
    """Terms and what is believed of their weights, in units of y.

    Attributes
    ----------
    keys : list of (tuple of item numbers, or int for a linear column)
    coef : float64 array (n_terms,)
    sigma : float64 array (n_terms, n_terms)
    intercept, noise_variance : float
    trace : Trace or None
        None if nothing was fitted: too few rows, or a constant y.
    target_scale : float
    n_nodes : int
    """

    keys: list
    coef: np.ndarray
    sigma: np.ndarray
    intercept: float
    noise_variance: float
    trace: Trace | None
    target_scale: float
    n_nodes: int


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
    candidates = Candidates.learn(matrix, y, categories, settings)
    return model_of(candidates, fit_posterior(candidates, y, kappa, settings))


def fit_posterior(candidates, y, kappa, settings):
    """Return the posterior of highest evidence and prior."""
    scale, centre, n_items = float(y.std()), float(y.mean()), len(candidates.table.holds)
    if len(y) < FEWEST_ROWS or scale <= np.finfo(float).eps * np.sqrt(len(y)) * abs(centre):
        variance = float(y.var(ddof=1)) if len(y) > 1 and scale > 0 else 0.0
        return Posterior([], np.empty(0), np.empty((0, 0)), centre, variance, None, scale, 0)
    source = ItemsetColumns(
        candidates.items,
        candidates.table.group,
        candidates.values,
        penalty=multiplicity_penalty(n_items, settings.max_order, kappa),
        price=inclusion_price(settings.inclusion_prior, n_items + candidates.values.shape[1]),
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
    coef = active.mean * scale
    return Posterior(
        keys=active.keys,
        coef=coef,
        sigma=active.covariance * scale**2,
        intercept=float(centre - candidates.columns(active.keys).mean(axis=0) @ coef),
        noise_variance=float(active.noise_variance * scale**2),
        trace=trace,
        target_scale=scale,
        n_nodes=source.n_nodes,
    )


def model_of(candidates, posterior):
    """Return the model: itemsets first, by decreasing importance, then linear terms."""
    phi = candidates.columns(posterior.keys)
    importance = np.abs(posterior.coef) * phi.std(axis=0)
    order = sorted(range(len(importance)), key=lambda k: (not isinstance(posterior.keys[k], tuple), -importance[k]))
    keys = [posterior.keys[k] for k in order]
    itemsets = [key for key in keys if isinstance(key, tuple)]
    return ItemsetModel(
        table=candidates.table,
        itemsets=itemsets,
        linear=candidates.linear.subset(np.array(keys[len(itemsets) :], dtype=np.intp)),
        coef=posterior.coef[order],
        means=phi.mean(axis=0)[order],
        importances=importance[order],
        sigma=posterior.sigma[np.ix_(order, order)],
        intercept=posterior.intercept,
        noise_variance=posterior.noise_variance,
        n_rows=len(phi),
        trace=posterior.trace,
        target_scale=posterior.target_scale,
        n_items=len(candidates.table.holds) + len(candidates.linear.features),
        n_nodes=posterior.n_nodes,
    )


# -- bags -------------------------------------------------------------------------------------------------------------


def fit_bags(matrix, y, categories, kappa, settings, n_bags, random_state, n_jobs):
    """Fit models to rows drawn with replacement and return their mean as one model, and the factor of its variances.

    Items are those of all rows, so that bags share terms. The factor is the mean square of the errors on the rows that
    a bag has not seen, in units of the predicted standard deviations.
    """
    candidates = Candidates.learn(matrix, y, categories, settings)
    rng = check_random_state(random_state)
    bags = [rng.randint(len(y), size=len(y)) for _ in range(n_bags)]
    inside = replace(settings, n_threads=1)
    posteriors = Parallel(n_jobs=n_jobs)(
        delayed(fit_posterior)(candidates.rows(bag), y[bag], kappa, inside) for bag in bags
    )
    joined = mixture(posteriors)
    unseen = np.array([~np.isin(np.arange(len(y)), bag) for bag in bags])
    means = np.array([one.intercept + candidates.columns(one.keys) @ one.coef for one in posteriors])
    told = unseen.any(axis=0)
    model = model_of(candidates, joined)
    phi = candidates.columns(joined.keys)
    _, variance = mean_and_variance(
        phi, joined.coef, phi.mean(axis=0), joined.sigma, joined.intercept, joined.noise_variance, len(y)
    )
    told &= variance > 0
    if not told.any():
        return model, 1.0
    mean = means[:, told].mean(axis=0, where=unseen[:, told])
    return model, float(((y[told] - mean) ** 2 / variance[told]).mean())


def mixture(posteriors):
    """Return the mean of several posteriors; its covariance is the mean of theirs plus that of their means.

    Its trace is that of one that did not converge, if there is any, else of the first.
    """
    keys = list(dict.fromkeys(key for one in posteriors for key in one.keys))
    where = {key: k for k, key in enumerate(keys)}
    coef, sigma = np.zeros((len(posteriors), len(keys))), np.zeros((len(keys), len(keys)))
    for b, one in enumerate(posteriors):
        places = [where[key] for key in one.keys]
        coef[b, places] = one.coef
        sigma[np.ix_(places, places)] += one.sigma / len(posteriors)
    centred = coef - coef.mean(axis=0)
    unfinished = (one for one in posteriors if one.trace is not None and not one.trace.converged)
    told = next(unfinished, posteriors[0])
    return Posterior(
        keys=keys,
        coef=coef.mean(axis=0),
        sigma=sigma + centred.T @ centred / len(posteriors),
        intercept=float(np.mean([one.intercept for one in posteriors])),
        noise_variance=float(np.mean([one.noise_variance for one in posteriors])),
        trace=told.trace,
        target_scale=told.target_scale,
        n_nodes=sum(one.n_nodes for one in posteriors),
    )
