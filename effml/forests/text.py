"""Snippets as rules, as indented text and as drawings.

Matplotlib is imported when something is drawn: ``pip install "effml[plot]"``.
"""

import math

import numpy as np
from sklearn.utils.validation import check_is_fitted

from effml._text import interval_text

__all__ = ["exit_rules", "plot_snippets", "snippet_names", "snippet_text"]

_MAX_TEST = 28  # characters of a test in a drawing
_COLUMNS = 3  # drawings side by side
_CHARACTER, _LEVEL = 0.075, 0.42  # inches
_FONT_POINTS = 8.0


# -- rules ------------------------------------------------------------------------------------------------------------


def exit_rules(snippets, feature_names, categories=None):
    """Return, for every snippet, the rule of each exit: the tests on the way, those of one feature joined.

    Parameters
    ----------
    snippets : Snippets
    feature_names : sequence of str (n_features,)
    categories : list of (array or None) or None, default=None
        Levels of the columns whose values are codes.

    Returns
    -------
    list of lists of str

    Examples
    --------
    >>> from effml.forests.mining import stump
    >>> exit_rules(stump(1, 0.5), ["width", "height"])
    [['height <= 0.5', 'height > 0.5']]
    """
    rules = []
    for root, end in zip(snippets.trees.roots, snippets.trees.split_starts[1:], strict=True):
        paths = {int(root): {}}
        found = []
        for split in range(root, end):
            path = paths.pop(split)
            for side, child in enumerate(snippets.trees.children[split].tolist()):
                longer = _narrowed(path, snippets.trees, split, side)
                if child >= 0:
                    paths[child] = longer
                else:
                    found.append((~child, " & ".join(_range_texts(longer, feature_names, categories))))
        rules.append([text for _, text in sorted(found)])
    return rules


def _narrowed(path, trees, split, side):
    """Return the path {feature: (above, up to, set of "missing" / "known")} with one test more."""
    feature, threshold = int(trees.feature[split]), float(trees.threshold[split])
    low, high, words = path.get(feature, (-math.inf, math.inf, ()))
    if math.isinf(threshold):
        words = (*words, "missing" if trees.missing_right[split] == bool(side) else "known")
    elif side:
        low = max(low, threshold)
    else:
        high = min(high, threshold)
    return path | {feature: (low, high, words)}


def _range_texts(path, names, categories):
    for feature, (low, high, words) in path.items():
        levels = None if categories is None else categories[feature]
        if not (math.isinf(low) and math.isinf(high)):
            yield (
                interval_text(names[feature], low, high)
                if levels is None
                else _level_text(names[feature], low, high, levels)
            )
        for word in dict.fromkeys(words):
            yield f"{names[feature]} is {word}"


def _level_text(name, low, high, levels):
    codes = np.arange(len(levels))
    inside = (codes > low) & (codes <= high)
    # Unknown levels have the code -1, so that a rule without a lower end holds for them too.
    if math.isinf(low):
        sign, shown = ("!=", "not in"), levels[~inside]
    else:
        sign, shown = ("=", "in"), levels[inside]
    texts = [str(level) for level in shown.tolist()]
    return f"{name} {sign[0]} {texts[0]}" if len(texts) == 1 else f"{name} {sign[1]} {{{', '.join(texts)}}}"


def snippet_names(snippets, feature_names, categories=None):
    """Return a short text for each snippet, its tests from the root on, led by its number."""
    texts = _left_tests(snippets.trees, feature_names, categories)
    starts = snippets.trees.split_starts
    return [f"snippet {i}: {', '.join(texts[starts[i] : starts[i + 1]])}" for i in range(len(snippets))]


def _left_tests(trees, names, categories):
    """Return, for every split, what holds for the rows that go left."""
    paths = (_narrowed({}, trees, split, 0) for split in range(trees.n_splits))
    return [" & ".join(_range_texts(path, names, categories)) for path in paths]


# -- text -------------------------------------------------------------------------------------------------------------


def snippet_text(model, which=None, *, feature_names=None):
    """Return snippets as small trees in text.

    Parameters
    ----------
    model : DecisionSnippetTransformer
        Fitted; or another estimator with `snippets_`.
    which : int, sequence of int or None, default=None
        Numbers of the snippets; None means all.
    feature_names : sequence of str, default=None
        None takes the names seen in `fit`, or x0, x1, ...

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is no snippet of a given number, or `feature_names` has the wrong length.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from effml.forests import DecisionSnippetTransformer
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> model = DecisionSnippetTransformer(n_cuts=4, random_state=0).fit(X, y)
    >>> print(snippet_text(model, [2, 14]))
    snippet 2, in 16 trees
    petal length (cm) < 5.05
    ├─ yes: exit 0
    └─ no: exit 1
    <BLANKLINE>
    snippet 14, in 6 trees
    petal width (cm) <= 0.8
    ├─ yes: exit 0
    └─ no: petal length (cm) <= 4.75
       ├─ yes: exit 1
       └─ no: exit 2
    """
    snippets, names, categories = _parts(model, feature_names)
    numbers = _chosen(snippets, which)
    shown = snippets.subset(numbers).trees
    tests = _left_tests(shown, names, categories)
    starts, leaf_starts = shown.split_starts, shown.leaf_starts
    blocks = []
    for i, number in enumerate(numbers.tolist()):
        lines = [f"snippet {number}, {_support_text(snippets.support[number])}", tests[starts[i]]]
        _add_branches(lines, shown.children, tests, int(starts[i]), int(leaf_starts[i]), "")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _add_branches(lines, children, tests, split, first_leaf, indent):
    for side, child in enumerate(children[split].tolist()):
        text = tests[child] if child >= 0 else f"exit {~child - first_leaf}"
        lines.append(f"{indent}{'└─ no: ' if side else '├─ yes: '}{text}")
        if child >= 0:
            _add_branches(lines, children, tests, child, first_leaf, indent + ("   " if side else "│  "))


def _parts(model, feature_names):
    """Return the snippets of a fitted model, the names of its columns and their levels."""
    check_is_fitted(model, "snippets_")
    n_features = model.n_features_in_
    if feature_names is None:
        feature_names = getattr(model, "feature_names_in_", [f"x{i}" for i in range(n_features)])
    if len(feature_names) != n_features:
        raise ValueError(f"feature_names must have {n_features} entries, one a feature, got {len(feature_names)}")
    return model.snippets_, [str(name) for name in feature_names], getattr(model, "categories_", None)


def _chosen(snippets, which):
    numbers = np.arange(len(snippets)) if which is None else np.atleast_1d(np.asarray(which, dtype=np.int64))
    outside = numbers[(numbers < 0) | (numbers >= len(snippets))]
    if outside.size:
        raise ValueError(f"which={which!r} holds {outside[0]}; there are snippets 0 to {len(snippets) - 1}")
    return numbers


def _support_text(support):
    return f"in {support} tree{'' if support == 1 else 's'}"


# -- drawing ----------------------------------------------------------------------------------------------------------


def plot_snippets(model, which=None, *, feature_names=None, figure=None):
    """Draw snippets as small trees side by side, rows that pass a test to the left.

    Parameters
    ----------
    model : DecisionSnippetTransformer
        Fitted; or another estimator with `snippets_`.
    which : int, sequence of int or None, default=None
        Numbers of the snippets; None means the first six.
    feature_names : sequence of str, default=None
        None takes the names seen in `fit`, or x0, x1, ...
    figure : matplotlib.figure.Figure or None, default=None
        Where to draw; None makes a new figure in which all text is readable.

    Returns
    -------
    list of matplotlib.axes.Axes
        One a snippet.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If there is no snippet of a given number, or `feature_names` has the wrong length.
    """
    snippets, names, categories = _parts(model, feature_names)
    numbers = _chosen(snippets, np.arange(min(6, len(snippets))) if which is None else which)
    shown = snippets.subset(numbers)
    tests = [
        text if len(text) <= _MAX_TEST else text[: _MAX_TEST - 1] + "…"
        for text in _left_tests(shown.trees, names, categories)
    ]
    n_columns = min(_COLUMNS, len(numbers))
    n_rows = -(-len(numbers) // n_columns)
    figure = _new_figure(shown, tests, n_columns, n_rows) if figure is None else figure
    starts = shown.trees.split_starts
    axes = []
    for i, number in enumerate(numbers.tolist()):
        ax = figure.add_subplot(n_rows, n_columns, i + 1)
        ax.set_axis_off()
        ax.set_title(f"snippet {number}, {_support_text(snippets.support[number])}", fontsize=_FONT_POINTS)
        _draw(ax, shown.trees, tests, int(starts[i]), int(starts[i + 1]), int(shown.trees.leaf_starts[i]))
        axes.append(ax)
    return axes


def _new_figure(snippets, tests, n_columns, n_rows):
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('plot_snippets needs matplotlib: pip install "effml[plot]"') from error
    widest = max(map(len, tests)) * _CHARACTER
    width = max(2.0, widest * (1 + int(snippets.n_exits.max() - 2) / 2))
    height = _LEVEL * (snippets.trees.depth() + 2)
    return plt.figure(figsize=(n_columns * width, n_rows * height), layout="constrained")


def _draw(ax, trees, tests, begin, end, first_leaf):
    """Place exits at 0, 1, 2, ... and every split in the middle of its children, one level a step down."""
    depth = {begin: 0}
    for split in range(begin, end):
        depth |= dict.fromkeys(trees.children[split].tolist(), depth[split] + 1)
    column = {~leaf: leaf - first_leaf for leaf in range(first_leaf, first_leaf + end - begin + 1)}
    for split in reversed(range(begin, end)):
        column[split] = sum(column[child] for child in trees.children[split].tolist()) / 2
    for split in range(begin, end):
        for child in trees.children[split].tolist():
            ax.plot([column[split], column[child]], [-depth[split], -depth[child]], color="0.65", linewidth=1, zorder=1)
    for node, x in column.items():
        text = tests[node] if node >= 0 else str(~node - first_leaf)
        frame = {"boxstyle": "round,pad=0.3", "facecolor": "white" if node >= 0 else "0.92", "edgecolor": "C0"}
        ax.text(
            x, -depth[node], text, fontsize=_FONT_POINTS, bbox=frame, ha="center", va="center", zorder=2,
            parse_math=False,
        )  # fmt: skip
    ax.set_xlim(-0.6, end - begin + 0.6)
    ax.set_ylim(-max(depth.values()) - 0.5, 0.5)
