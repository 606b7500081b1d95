"""Plots of a search. Matplotlib is imported when a plot is drawn: ``pip install "effml[plot]"``."""

from effml.report.tables import pareto_rows
from effml.selection.budget import QUANTITIES, check_budget

__all__ = ["plot_pareto"]

_AXIS_LABELS = {
    "flash_bytes": "flash (bytes)",
    "ram_bytes": "RAM (bytes)",
    "n_operations": "operations per prediction",
    "n_parameters": "parameters",
    "bits": "parameter bits",
}


def plot_pareto(search_or_rows, ax=None, *, x="flash_bytes"):
    """Draw error (or score) against size: all candidates, the front as a staircase, the chosen one as a star.

    Parameters
    ----------
    search_or_rows : BudgetSearchCV or list of ParetoRow
        A search shows all its candidates and, where it bounds `x`, its budget as a vertical line.
    ax : matplotlib.axes.Axes or None, default=None
        Axes to draw on; None makes a new figure.
    x : {"flash_bytes", "ram_bytes", "n_operations", "n_parameters", "bits"}, default="flash_bytes"
        The quantity on the horizontal axis, in logarithmic scale. The front is that of score and flash bytes; its
        staircase is drawn over flash bytes only, over the others its rows are marked.

    Returns
    -------
    ax : matplotlib.axes.Axes

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If `x` is unknown or there are no rows.
    """
    if x not in QUANTITIES:
        raise ValueError(f"x must be one of {', '.join(QUANTITIES)}; got {x!r}")
    is_search = hasattr(search_or_rows, "cv_results_")
    rows = pareto_rows(search_or_rows, which="all") if is_search else list(search_or_rows)
    if not rows:
        raise ValueError("search_or_rows holds no candidate to plot")
    ax = _new_axes() if ax is None else ax
    metric = "error" if all(row.error is not None for row in rows) else "score"
    _scatter(ax, rows, x, metric)
    limit = check_budget(search_or_rows.budget).get(x) if is_search else None
    if limit is not None:
        ax.axvline(limit, color="0.4", linestyle="--", linewidth=1, label="budget")
    ax.set_xscale("log")
    ax.set_xlabel(_AXIS_LABELS[x])
    ax.set_ylabel(f"{metric} (mean over folds)")
    ax.legend()
    return ax


def _new_axes():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('plot_pareto needs matplotlib: pip install "effml[plot]"') from error
    return plt.subplots()[1]


def _scatter(ax, rows, x, metric):
    def points(selected):
        return [getattr(row, x) for row in selected], [getattr(row, metric) for row in selected]

    front = sorted((row for row in rows if row.on_front), key=lambda row: row.flash_bytes)
    others = [row for row in rows if not row.on_front]
    chosen = [row for row in rows if row.chosen]
    if others:
        ax.scatter(*points(others), s=14, color="0.7", label="dominated")
    if front:
        ax.scatter(*points(front), s=24, color="C0", label="Pareto front")
        if x == "flash_bytes":
            ax.plot(*points(front), drawstyle="steps-post", color="C0", linewidth=1)
    if chosen:
        ax.scatter(*points(chosen), s=140, marker="*", color="C3", zorder=3, label="chosen")
