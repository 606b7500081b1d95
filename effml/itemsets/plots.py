"""The terms of an itemset model and their error bars. Matplotlib is imported when a plot is drawn."""

from numbers import Integral

import numpy as np
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

__all__ = ["plot_importance"]


def plot_importance(model, max_terms=20, ax=None):
    """Draw how far each term moves the prediction, the largest on top, with 95 % intervals.

    Parameters
    ----------
    model : fitted ItemsetSparseBayesRegressor
    max_terms : int, default=20
        Terms to draw: those of largest weight times standard deviation of the column.
    ax : matplotlib.axes.Axes or None, default=None
        Axes to draw on; None makes a new figure.

    Returns
    -------
    ax : matplotlib.axes.Axes
        Bars from 0 to the posterior mean of each weight, in units of y. For a linear term that is the difference
        between the ends of its training range.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If `max_terms` is not positive or the model has no term.
    """
    check_is_fitted(model)
    check_scalar(max_terms, "max_terms", Integral, min_val=1)
    names = model.get_feature_names_out()
    if not len(names):
        raise ValueError("the model has no term to plot: its predictions are the mean of y")
    chosen = np.argsort(-model.term_importances_, kind="stable")[:max_terms]
    ax = _new_axes(len(chosen)) if ax is None else ax
    mean, std = model.coef_[chosen], np.sqrt(np.diag(model.sigma_))[chosen]
    colors = np.where(mean > 0, "tab:blue", "tab:red")
    ax.barh(np.arange(len(chosen)), mean, xerr=1.96 * std, color=colors, alpha=0.8, ecolor="0.3")
    is_linear = chosen >= len(model.conditions_)
    labels = [
        f"{name} (low to high)" if linear else name for name, linear in zip(names[chosen], is_linear, strict=True)
    ]
    ax.set_yticks(np.arange(len(chosen)), [label.replace("$", r"\$") for label in labels])
    ax.invert_yaxis()
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_xlabel("change of the prediction, with 95 % interval")
    return ax


def _new_axes(n_bars):
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('plot_importance needs matplotlib: pip install "effml[plot]"') from error
    return plt.subplots(figsize=(8, 1 + 0.3 * n_bars), layout="constrained")[1]
