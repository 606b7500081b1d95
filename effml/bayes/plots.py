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

from effml.bayes.inference import NO_TABLE, depths

__all__ = ["html_repr", "plot_structure", "structure_html", "structure_text"]

_FLOAT_BITS = 32
_MAX_NAME = 18  # characters of a name in a plot
_LONE_COLUMNS = 16  # features without edges in a row of the plot
_MAX_HTML_ROWS = 256

_FONT_POINTS = 8.0
_CHARACTER = 0.62  # width of a character and
_LINE = 1.9  # height of a row of nodes, both in font sizes
_PADDING = 3.5  # between columns of nodes, in font sizes
_POINTS = 72  # an inch


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
        0 if parent == NO_TABLE else int(np.size(table))
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
    dropped = sum(feature.parent == NO_TABLE for feature in features)
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
    return features[feature.parent].name if feature.parent >= 0 else "no table" if feature.parent == NO_TABLE else "-"


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
    """Draw the tree of the features from left to right; features without edges stand in rows below it.

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
        Nodes show the feature's name and its number of states in brackets. The area of the line to a node's parent, or
        of the frame of a node without one, grows with the node's table. Features without a table are faded.

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
    x, y = _layout(model.parents_, [feature.depth for feature in features])
    column_width = max(map(len, labels)) * _CHARACTER + _PADDING  # in font sizes
    n_columns, n_rows = int(x.max()) + 1, math.ceil(y.max()) + 1
    ax = _new_axes(n_columns * column_width, n_rows * _LINE) if ax is None else ax
    box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    font = min(_FONT_POINTS, _POINTS * box.width / (n_columns * column_width), _POINTS * box.height / (n_rows * _LINE))
    _draw(ax, features, labels, x, y, font)
    ax.set_xlim(-0.5, n_columns - 0.5)
    ax.set_ylim(n_rows - 0.5, -0.5)  # the first row on top
    ax.set_axis_off()
    bits = _prior_entries(model) * _bits(model) + sum(feature.bits for feature in features)
    ax.set_title(
        f"{_plain(class_name)} ({len(model.classes_)}) is a parent of every feature; "
        f"{model.n_parameters_:,} parameters, {-(-bits // 8):,} bytes of tables",
        fontsize=_FONT_POINTS + 1,
        parse_math=False,
    )
    return ax


def _shortened(name):
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"


def _new_axes(width, height):
    """Return axes of a size given in font sizes, in a new figure with room for the title."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('plot_structure needs matplotlib: pip install "effml[plot]"') from error
    inch = _FONT_POINTS / _POINTS
    size = max(width * inch, 5.5), max(height * inch, 0.6) + 0.4
    figure = plt.figure(figsize=size)
    return figure.add_axes([0, 0, 1, 1 - 0.4 / size[1]])


def _layout(parents, depth):
    """Return level and lane of every feature, (n_features,) integers: trees first, then what has no edges.

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
