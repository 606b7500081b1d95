"""The structure of a fitted classifier as a plot, as text and as HTML.

Matplotlib is imported when a plot is drawn: ``pip install "effml[plot]"``.
"""

import math
from dataclasses import dataclass
from html import escape

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_html_repr
from sklearn.utils.validation import check_is_fitted

from effml.bayes.inference import depths
from effml.bayes.structure import DROPPED

__all__ = ["html_repr", "plot_structure", "structure_html", "structure_text"]

_FLOAT_BITS = 32
_MAX_NAME = 18  # characters of a name in a plot
_LONE_COLUMNS = 16  # features without edges in a row of the plot
_MAX_HTML_ROWS = 256

_FONT_POINTS = 8.0
_CHARACTER = 0.62  # width of a character,
_GAP = 2.0  # room between two nodes of a row
_LINE = 2.8  # and height of a row with its edges, all in font sizes
_POINTS = 72  # an inch
_TITLE = 0.4  # height of the title, inches
_ASPECT = 1.5  # of the plot, where the axes are not given
_LINE_WIDTHS = 0.06, 0.4  # of the smallest and the largest table, in font sizes


@dataclass(frozen=True)
class _Feature:
    name: str
    n_states: int
    parent: int  # -1: none, -2: and no table either
    depth: int
    n_entries: int
    bits: int


def _features(model, feature_names=None):
    """Return the `_Feature` list of a fitted model, in the order of the columns."""
    check_is_fitted(model)
    n_features = len(model.parents_)
    if feature_names is None:
        feature_names = getattr(model, "feature_names_in_", [f"x{i}" for i in range(n_features)])
    if len(feature_names) != n_features:
        raise ValueError(f"feature_names must have {n_features} entries, one a feature, got {len(feature_names)}")
    sizes = [
        0 if parent == DROPPED else int(np.size(table))
        for table, parent in zip(model.log_tables_, model.parents_, strict=True)
    ]
    columns = zip(feature_names, model.n_states_, model.parents_, depths(model.parents_), sizes, strict=True)
    bits = _bits(model)
    return [_Feature(_plain(name), int(r), int(p), int(d), n, n * bits) for name, r, p, d, n in columns]


def _bits(model):
    return _FLOAT_BITS if model.codes_ is None else model.n_bits_


def _prior_entries(model):
    return 0 if model.table_format_ == "contrast" else len(model.classes_)  # contrast tables hold the prior


def _plain(name):
    """Return a name on one line: what cannot be printed is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def _depth_first(parents):
    """Return the features with every parent before its children, subtrees together."""
    children = _children(parents)
    order, stack = [], [i for i in reversed(range(len(parents))) if parents[i] < 0]
    while stack:
        order.append(stack.pop())
        stack.extend(reversed(children[order[-1]]))
    return order


def _children(parents):
    children = [[] for _ in parents]
    for i, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(i)
    return children


# -- text -------------------------------------------------------------------------------------------------------------


def structure_text(model, *, feature_names=None, class_name="class"):
    """Return the tree of the features as indented text, with what each table costs.

    Parameters
    ----------
    model : NaiveBayesClassifier or TANClassifier
        Fitted.
    feature_names : sequence of str, default=None
        None takes the names seen in `fit`, or x0, x1, ...
    class_name : str, default="class"
        Name of the class, a parent of every feature, in the first line.

    Returns
    -------
    str
        One line a feature, under its parent: name, number of states, table entries and bits ("-": no table). The last
        line sums up what is stored; contrast tables store no class prior.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the model is not fitted.
    ValueError
        If `feature_names` has the wrong length.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from effml.bayes import TANClassifier
    >>> model = TANClassifier(max_bins=3, n_bits=4).fit(*load_iris(return_X_y=True))
    >>> print(structure_text(model, feature_names=["sepal l", "sepal w", "petal l", "petal w"]))
    feature      states  entries  bits
    class             3        -     -
    sepal l           3        9    36
      sepal w         3       27   108
      petal l         3       27   108
        petal w       3       27   108
    total                     90   360
    """
    features = _features(model, feature_names)
    step = 2 if max(feature.depth for feature in features) <= 20 else 1
    n_prior, bits = _prior_entries(model), _bits(model)
    rows = [("feature", "states", "entries", "bits")]
    rows.append((_plain(class_name), str(len(model.classes_)), _count(n_prior), _count(n_prior * bits)))
    for i in _depth_first(model.parents_):
        feature = features[i]
        name = " " * (step * feature.depth) + feature.name
        rows.append((name, str(feature.n_states), _count(feature.n_entries), _count(feature.bits)))
    n_entries = n_prior + sum(feature.n_entries for feature in features)
    rows.append(("total", "", _count(n_entries), _count(n_entries * bits)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        for name, *cells in rows
    )


def _count(number):
    return f"{number:,}" if number else "-"


# -- HTML -------------------------------------------------------------------------------------------------------------


def html_repr(model):
    """Return scikit-learn's diagram of an estimator, followed by `structure_html` where it is fitted."""
    diagram = estimator_html_repr(model)
    try:
        return diagram + structure_html(model)
    except NotFittedError:
        return diagram


def structure_html(model):
    """Return two HTML tables of a fitted classifier: the model's size, and (folded) states and parent of each feature.

    Parameters
    ----------
    model : NaiveBayesClassifier or TANClassifier
        Fitted.

    Returns
    -------
    str
        Text from the data is escaped.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the model is not fitted.
    """
    features = _features(model)
    bits = _prior_entries(model) * _bits(model) + sum(feature.bits for feature in features)
    dropped = sum(feature.parent == DROPPED for feature in features)
    totals = {
        "classes": f"{len(model.classes_):,}",
        "features": f"{len(features):,}" + (f", {dropped:,} without table" if dropped else ""),
        "edges between features": f"{sum(feature.parent >= 0 for feature in features):,}",
        "number format": _number_format(model),
        "parameters": f"{model.n_parameters_:,}",
        "table bits": f"{bits:,} ({-(-bits // 8):,} bytes)",
    }
    rows = [
        (f.name, f"{f.n_states:,}", _parent_name(f, features), _count(f.n_entries), _count(f.bits)) for f in features
    ]
    shown = _html_table(["feature", "states", "parent", "entries", "bits"], rows[:_MAX_HTML_ROWS])
    hidden = f"<p>{len(rows) - _MAX_HTML_ROWS:,} more features</p>" if len(rows) > _MAX_HTML_ROWS else ""
    return (
        '<div class="effml-structure">'
        + _html_table([], totals.items())
        + f"<details><summary>Structure</summary>{shown}{hidden}</details></div>"
    )


def _parent_name(feature, features):
    return features[feature.parent].name if feature.parent >= 0 else "no table" if feature.parent == DROPPED else "-"


def _number_format(model):
    if model.codes_ is None:
        return "float32"
    if model.table_format_ == "contrast":
        return f"contrast, {model.n_bits_} bits, step {model.scale_:.4g}"
    return f"fixed point, {model.integer_bits_} integer and {model.fraction_bits_} fraction bits"


def _html_table(header, rows):
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


# -- plot -------------------------------------------------------------------------------------------------------------


def plot_structure(model, ax=None, *, feature_names=None, class_name="class"):
    """Draw the tree of the features; those without edges, all of them in naive Bayes, stand in rows below it.

    Parameters
    ----------
    model : NaiveBayesClassifier or TANClassifier
        Fitted.
    ax : matplotlib.axes.Axes or None, default=None
        Axes to draw on, whose size sets the size of the text; None makes a new figure in which all text is readable.
    feature_names : sequence of str, default=None
        None takes the names seen in `fit`, or x0, x1, ...
    class_name : str, default="class"
        Name of the class, a parent of every feature: it is written above instead of drawn.

    Returns
    -------
    matplotlib.axes.Axes
        Nodes show the feature's name and its number of states in brackets; the root is at the top or at the left,
        whichever suits the format better. The line to a node's parent is the wider the larger the node's table.
        Features without a table are faded.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    sklearn.exceptions.NotFittedError
        If the model is not fitted.
    ValueError
        If `feature_names` has the wrong length.
    """
    features = _features(model, feature_names)
    labels = [f"{_shortened(feature.name)} ({feature.n_states})" for feature in features]
    width = max(map(len, labels)) * _CHARACTER + _GAP  # of a column, in font sizes
    level_lane = _layout(model.parents_, [feature.depth for feature in features])
    aspect = _ASPECT if ax is None else np.divide(*_inches(ax))
    lone_columns = _LONE_COLUMNS if ax is None else math.ceil(math.sqrt(len(features) * aspect * _LINE / width))
    column, row, downwards = _places(*level_lane, lone_columns, lambda n, m: n * width / (m * _LINE) / aspect)
    n_columns, n_rows = column.max() + 1, row.max() + 1
    ax = _new_axes(n_columns * width, n_rows * _LINE) if ax is None else ax
    room = np.divide(_inches(ax), (n_columns * width, n_rows * _LINE))
    font = min(_FONT_POINTS, room.min() * _POINTS)
    _draw_edges(ax, features, column, row, downwards, font)
    _draw_nodes(ax, features, labels, column, row, font)
    ax.set_xlim(-0.5, n_columns - 0.5)
    ax.set_ylim(n_rows - 0.5, -0.5)  # the first row on top
    ax.set_axis_off()
    title = f"{_plain(class_name)} ({len(model.classes_)}) is a parent of every feature"
    ax.set_title(f"{title}; {model.n_parameters_:,} parameters", fontsize=_FONT_POINTS + 1, parse_math=False)
    return ax


def _shortened(name):
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"


def _inches(ax):
    box = ax.get_window_extent()
    return np.array([box.width, box.height]) / ax.figure.dpi


def _new_axes(width, height):
    """Return axes of at least a size given in font sizes, in a new figure with room for the title."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('plot_structure needs matplotlib: pip install "effml[plot]"') from error
    inch = _FONT_POINTS / _POINTS
    size = max(width * inch, 5.5), max(height * inch, 0.6) + _TITLE
    return plt.figure(figsize=size).add_axes([0, 0, 1, 1 - _TITLE / size[1]])


def _draw_edges(ax, features, column, row, downwards, font):
    from matplotlib.collections import LineCollection

    largest = max(feature.n_entries for feature in features)
    thin, thick = np.multiply(_LINE_WIDTHS, font)
    paths, widths = [], []
    for i in [i for i, feature in enumerate(features) if feature.parent >= 0]:
        (x0, y0), (x1, y1) = (column[features[i].parent], row[features[i].parent]), (column[i], row[i])
        bends = [(x0, y1 - 0.5), (x1, y1 - 0.5)] if downwards else [(x1 - 0.5, y0), (x1 - 0.5, y1)]
        paths.append([(x0, y0), *bends, (x1, y1)])
        widths.append(thin + (thick - thin) * math.sqrt(features[i].n_entries / largest))
    ax.add_collection(LineCollection(paths, linewidths=widths, colors="0.65", capstyle="round", zorder=1))


def _draw_nodes(ax, features, labels, column, row, font):
    for feature, label, x, y in zip(features, labels, column, row, strict=True):
        faded = feature.parent == DROPPED
        frame = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": "0.75" if faded else "C0"}
        frame |= {"linestyle": "--" if faded else "-", "linewidth": 0.08 * font}
        color = "0.6" if faded else "black"
        ax.text(
            x, y, label, fontsize=font, color=color, bbox=frame, ha="center", va="center", zorder=2, parse_math=False
        )


def _places(level, lane, lone, lone_columns, stretch):
    """Return column and row of every feature, int (n_features,), and whether the trees grow downwards.

    They do where ``stretch(n_columns, n_rows)``, width by height against the format that is wanted, is then nearer 1.
    """
    n_levels, n_lanes = (0, 0) if len(lone) == len(lane) else (level.max() + 1, lane.max() + 1)
    downwards = True
    if n_levels:
        downwards = abs(math.log(stretch(n_lanes, n_levels))) <= abs(math.log(stretch(n_levels, n_lanes)))
    column, row = (lane, level) if downwards else (level, lane)
    first = n_levels if downwards else n_lanes
    n_columns = max(n_lanes if downwards else n_levels, min(lone_columns, len(lone)))
    for k, i in enumerate(lone):
        row[i], column[i] = first + k // n_columns, k % n_columns
    return column, row, downwards


def _layout(parents, depth):
    """Return level and lane of every feature, int (n_features,), and the list of those without edges (in lane 0).

    Every branch runs along one lane, its longest way to a leaf first; it takes the first lane that is free on all its
    levels. Branches are placed the deepest first, which keeps edges from crossing.
    """
    children = _children(parents)
    reach = np.array(depth)  # deepest level of the subtree
    for i in reversed(_depth_first(parents)):
        reach[i] = max([reach[i], *reach[children[i]]])
    lane = np.zeros(len(parents), dtype=np.int64)
    free = np.zeros(reach.max() + 1, dtype=np.int64)  # first free lane of every level
    lone = [i for i, parent in enumerate(parents) if parent < 0 and not children[i]]
    heads = sorted(set(np.flatnonzero(np.asarray(parents) < 0)) - set(lone), reverse=True)
    while heads:
        branch = [heads.pop()]
        others = []
        while children[branch[-1]]:
            longest, *rest = sorted(children[branch[-1]], key=lambda child: -reach[child])
            others.extend(reversed(rest))
            branch.append(longest)
        levels = slice(depth[branch[0]], depth[branch[-1]] + 1)
        lane[branch] = free[levels].max()
        free[levels] = lane[branch[0]] + 1
        heads.extend(others)  # the deepest is the next
    return np.array(depth), lane, lone
