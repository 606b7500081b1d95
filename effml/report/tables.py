"""The Pareto front of a search as a table: for the terminal, for documents and for spreadsheets."""

import csv
import io
from dataclasses import dataclass, field

from effml.selection.budget import QUANTITIES, describe_candidate, footprints_of

__all__ = ["ParetoRow", "pareto_rows", "pareto_table"]

_ERROR_SCORES = (None, "accuracy", "balanced_accuracy")  # scores whose complement is an error rate

_HEADERS = {
    "flash_bytes": "flash (B)",
    "ram_bytes": "RAM (B)",
    "n_operations": "operations",
    "n_parameters": "parameters",
    "bits": "bits",
}


@dataclass(frozen=True)
class ParetoRow:
    """One candidate of a search.

    Attributes
    ----------
    model : str
        Label: the candidate's name and settings.
    score : float
        Mean score over the folds.
    flash_bytes, ram_bytes, n_operations, n_parameters, bits : float
        Mean footprint over the folds.
    error : float or None
        1 - score where the score is an accuracy, None for any other score.
    on_front : bool
        Whether no other candidate has both a better score and fewer flash bytes.
    chosen : bool
        Whether the search chose it.
    index : int
        Its row in ``cv_results_``.
    extra : dict of str to value
        Further columns, such as the error on held-out rows; the same keys in every row of a table.
    """

    model: str
    score: float
    flash_bytes: float
    ram_bytes: float
    n_operations: float
    n_parameters: float
    bits: float
    error: float | None = None
    on_front: bool = True
    chosen: bool = False
    index: int = -1
    extra: dict = field(default_factory=dict)


def pareto_rows(search, *, which="front"):
    """The rows of a fitted :class:`~effml.selection.BudgetSearchCV`, ascending in flash.

    Parameters
    ----------
    search : BudgetSearchCV
        Fitted, or stopped by a BudgetError: then no row is marked as chosen.
    which : {"front", "all"}, default="front"
        The Pareto front and the chosen row, or every candidate that has a footprint.

    Returns
    -------
    rows : list of ParetoRow

    Raises
    ------
    ValueError
        If `which` is unknown.
    AttributeError
        If the search has no results.
    """
    if which not in {"front", "all"}:
        raise ValueError(f"which must be 'front' or 'all', got {which!r}")
    results = search.cv_results_
    footprints = footprints_of(results, QUANTITIES)
    chosen = getattr(search, "best_index_", None)
    front = {int(row) for row in search.front_}
    shown = front | ({int(chosen)} if chosen is not None else set())
    rows = [
        _row(results, footprints, index, on_front=index in front, chosen=index == chosen, scoring=search.scoring)
        for index in range(len(footprints))
        if (index in shown if which == "front" else results["failure"][index] == "")
    ]
    return sorted(rows, key=lambda row: (row.flash_bytes, -row.score))


def _row(results, footprints, index, *, on_front, chosen, scoring):
    score = float(results["mean_test_score"][index])
    is_accuracy = isinstance(scoring, (str, type(None))) and scoring in _ERROR_SCORES
    return ParetoRow(
        model=describe_candidate(results["params"][index]),
        score=score,
        **dict(zip(QUANTITIES, footprints[index].tolist(), strict=True)),
        error=1.0 - score if is_accuracy else None,
        on_front=on_front,
        chosen=bool(chosen),
        index=index,
    )


def pareto_table(search_or_rows, *, format="rich", title=None):
    """The Pareto front as a table; the chosen row is marked with ``*``.

    Parameters
    ----------
    search_or_rows : BudgetSearchCV or list of ParetoRow
        A search stands for its front, see :func:`pareto_rows`.
    format : {"rich", "text", "markdown", "csv"}, default="rich"
        A :class:`rich.table.Table`, or text. CSV holds plain unrounded numbers.
    title : str or None, default=None
        Shown above a rich table only.

    Returns
    -------
    table : rich.table.Table or str
        Columns: model, error (or score, where the score is no accuracy), flash, RAM, operations, parameters, bits,
        then the `extra` columns of the rows.

    Raises
    ------
    ValueError
        If `format` is unknown or the rows do not share their extra columns.

    Examples
    --------
    >>> from effml.report import ParetoRow, pareto_table
    >>> small = ParetoRow("nb (n_bits=2)", 0.8, 310, 4, 90, 200, 400, error=0.2)
    >>> large = ParetoRow("tan (n_bits=4)", 0.9, 2100, 4, 90, 900, 3600, error=0.1, chosen=True)
    >>> print(pareto_table([small, large], format="text"))
       model           error  flash (B)  RAM (B)  operations  parameters   bits
       nb (n_bits=2)   20.0%        310        4          90         200    400
    *  tan (n_bits=4)  10.0%      2,100        4          90         900  3,600
    """
    if format not in _WRITERS:
        raise ValueError(f"format must be one of {', '.join(_WRITERS)}; got {format!r}")
    rows = pareto_rows(search_or_rows) if hasattr(search_or_rows, "cv_results_") else list(search_or_rows)
    extras = list(rows[0].extra) if rows else []
    if any(list(row.extra) != extras for row in rows):
        raise ValueError("rows: all must have the same extra columns in the same order")
    return _WRITERS[format](rows, extras, title)


def _metric(rows):
    """Column name of the score: "error" if every row has one."""
    return "error" if rows and all(row.error is not None for row in rows) else "score"


def _cells(row, metric, extras):
    """The row as text."""
    value = getattr(row, metric)
    quality = f"{value:.1%}" if metric == "error" else f"{value:.4g}"
    amounts = [f"{getattr(row, quantity):,.0f}" for quantity in QUANTITIES]
    further = [f"{row.extra[key]:.4g}" if isinstance(row.extra[key], float) else str(row.extra[key]) for key in extras]
    return ["*" if row.chosen else "", row.model, quality, *amounts, *further]


def _headers(metric, extras):
    return ["", "model", metric, *(_HEADERS[quantity] for quantity in QUANTITIES), *extras]


def _rich(rows, extras, title):
    from rich.table import Table
    from rich.text import Text

    metric = _metric(rows)
    table = Table(title=None if title is None else Text(title))
    for position, header in enumerate(_headers(metric, extras)):
        table.add_column(Text(header), justify="right" if position >= 2 else "left", overflow="fold")
    for row in rows:
        # Text, not str: brackets in a model's label are no markup
        table.add_row(*map(Text, _cells(row, metric, extras)), style="bold green" if row.chosen else None)
    return table


def _text(rows, extras, title):
    metric = _metric(rows)
    lines = [_headers(metric, extras), *(_cells(row, metric, extras) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _markdown(rows, extras, title):
    metric = _metric(rows)
    headers = _headers(metric, extras)
    rule = ["---", "---", *["---:"] * (len(headers) - 2)]
    lines = [headers, rule, *(_cells(row, metric, extras) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _csv(rows, extras, title):
    metric = _metric(rows)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["model", metric, *QUANTITIES, "on_front", "chosen", *extras])
    for row in rows:
        amounts = [getattr(row, quantity) for quantity in (metric, *QUANTITIES)]
        writer.writerow([row.model, *amounts, row.on_front, row.chosen, *row.extra.values()])
    return stream.getvalue()


_WRITERS = {"rich": _rich, "text": _text, "markdown": _markdown, "csv": _csv}
