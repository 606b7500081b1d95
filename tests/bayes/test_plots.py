"""The structure as plot, text and HTML."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.bayes.inference import depths
from effml.bayes.plots import _layout, html_repr, plot_structure, structure_html, structure_text
from effml.bayes.structure import DROPPED

NASTY = "<b>$x_1$ & {\n"


def fitted(parents=(-1, 0, 0, 2), **parameters):
    rng = np.random.default_rng(0)
    X = rng.integers(0, [2, 3, 4, 5][: len(parents)], (200, len(parents)))
    X[0] = [1, 2, 3, 4][: len(parents)]
    model = TANClassifier(structure=list(parents), discretizer=None, **parameters)
    return model.fit(X, rng.choice(["a", "b", "c"], 200))


def without_table(model, *features):
    model.parents_[list(features)] = DROPPED
    return model


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


# -- text and HTML ----------------------------------------------------------------------------------------------------


def test_the_text_is_the_tree_with_what_it_costs():
    assert structure_text(fitted(n_bits=4, integer_bits=2), class_name="label").splitlines() == [
        "feature  states  entries  bits",
        "label         3        3    12",
        "x0            2        6    24",
        "  x1          3       18    72",
        "  x2          4       24    96",
        "    x3        5       60   240",
        "total                111   444",
    ]


def test_contrast_tables_hold_the_prior_and_float_tables_have_32_bits():
    contrast, plain = structure_text(fitted(n_bits=2)).splitlines(), structure_text(fitted()).splitlines()
    assert contrast[1].split() == ["class", "3", "-", "-"]
    assert contrast[-1].split() == ["total", "108", "216"]
    assert plain[-1].split() == ["total", "111", "3,552"]


def test_features_without_table_cost_nothing():
    lines = structure_text(without_table(fitted(), 0, 3), feature_names=["a", "b", "c", "d"]).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["a", "2", "-", "-"],
        ["b", "3", "18", "576"],
        ["c", "4", "24", "768"],
        ["d", "5", "-", "-"],
        ["total", "45", "1,440"],
    ]


def test_a_line_is_a_feature_whatever_its_name():
    assert len(structure_text(fitted(), feature_names=[NASTY, "b\r", "c", "d\u2028"]).splitlines()) == 7


def test_deep_trees_are_listed_in_order():
    depth = 1500  # beyond Python's limit on recursion
    X = np.zeros((4, depth), dtype=np.uint8)
    model = TANClassifier(structure=np.arange(depth) - 1, discretizer=None).fit(X, [0, 1, 0, 1])
    names = [line.split()[0] for line in structure_text(model).splitlines()[2:-1]]
    assert names == [f"x{i}" for i in range(depth)]


def test_html_shows_size_and_parents_and_escapes_names():
    pd = pytest.importorskip("pandas")
    model = fitted(n_bits=4, integer_bits=2)
    X = pd.DataFrame(np.zeros((4, 2), dtype=int), columns=[NASTY, "<script>"])
    named = TANClassifier(structure=[-1, 0], discretizer=None).fit(X, ["a", "b", "a", "b"])
    shown = structure_html(model)
    for cells in (["parameters", "111"], ["table bits", "444 (56 bytes)"], ["x3", "5", "x2", "60", "240"]):
        assert f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" in shown
    assert "<td>fixed point, 2 integer and 2 fraction bits</td>" in shown
    shown = structure_html(without_table(named, 1))
    assert "<td>&lt;b&gt;$x_1$ &amp; {\\n</td>" in shown
    assert "<td>&lt;script&gt;</td><td>1</td><td>no table</td>" in shown
    assert "<b>" not in shown and "<script>" not in shown


def test_long_tables_are_cut_and_say_so():
    X = np.zeros((4, 300), dtype=np.uint8)
    shown = structure_html(NaiveBayesClassifier(discretizer=None).fit(X, [0, 1, 0, 1]))
    assert "<p>44 more features</p>" in shown
    assert "<td>x255</td>" in shown and "<td>x256</td>" not in shown


def test_notebooks_show_the_structure_of_fitted_models_only():
    class Shown(NaiveBayesClassifier):
        _html_repr = html_repr

    unfitted = Shown(discretizer=None)
    model = Shown(discretizer=None).fit([[0], [1]], [0, 1])
    assert "effml-structure" not in unfitted._repr_mimebundle_()["text/html"]
    for shown in (model._repr_mimebundle_()["text/html"], model._repr_html_()):
        assert "effml-structure" in shown
        assert "sk-container" in shown


def test_unfitted_models_are_refused():
    for view in (structure_text, structure_html, plot_structure):
        with pytest.raises(NotFittedError):
            view(TANClassifier())


# -- plot -------------------------------------------------------------------------------------------------------------


@st.composite
def forests(draw):
    n_features = draw(st.integers(1, 30))
    earlier = [draw(st.integers(-1, i - 1)) for i in range(n_features)]
    order = draw(st.permutations(range(n_features)))
    parents = np.full(n_features, -1)
    for i, parent in enumerate(earlier):
        parents[order[i]] = -1 if parent < 0 else order[parent]
    return parents


@given(forests())
def test_nodes_have_places_of_their_own_and_edges_do_not_cross(parents):
    level, lane, lone = _layout(parents, depths(parents))
    placed = [i for i in range(len(parents)) if i not in lone]
    assert len({(level[i], lane[i]) for i in placed}) == len(placed)
    np.testing.assert_array_equal(level, depths(parents))
    children = [i for i in placed if parents[i] >= 0]
    # An edge leaves its parent's lane between two levels, so only edges between the same levels could cross or touch.
    spans = {i: sorted((lane[parents[i]], lane[i])) for i in children}
    for i in children:
        for j in children:
            if level[i] == level[j] and parents[i] != parents[j]:
                assert spans[i][1] < spans[j][0] or spans[j][1] < spans[i][0]


def test_the_plot_shows_names_states_and_table_sizes(pyplot):
    ax = plot_structure(fitted(), feature_names=["one", NASTY, "x" * 40, "four"], class_name="kind")
    assert [text.get_text() for text in ax.texts] == ["one (2)", "<b>$x_1$ & {\\n (3)", "x" * 17 + "… (4)", "four (5)"]
    assert ax.get_title() == "kind (3) is a parent of every feature; 111 parameters"
    (edges,) = ax.collections
    places = {text.get_position() for text in ax.texts}
    assert all({tuple(path.vertices[0]), tuple(path.vertices[-1])} <= places for path in edges.get_paths())
    thin, middle, thick = edges.get_linewidths()
    assert thin < middle < thick
    ax.figure.canvas.draw()  # a name is no formula: "$x_1$" would be set as one, and lone "$" be an error


def test_all_text_lies_inside_a_new_figure_and_does_not_overlap(pyplot):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 3, (50, 60))
    names = ["a rather long name"] * 60
    for model in (TANClassifier(structure="random", random_state=0), NaiveBayesClassifier()):
        model.set_params(discretizer=None).fit(X, rng.integers(0, 2, 50))
        ax = plot_structure(model, feature_names=names)
        ax.figure.canvas.draw()
        boxes = [text.get_bbox_patch().get_window_extent() for text in ax.texts]
        assert all(ax.figure.bbox.containsx(edge) for box in boxes for edge in (box.x0, box.x1))
        assert all(ax.figure.bbox.containsy(edge) for box in boxes for edge in (box.y0, box.y1))
        assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_naive_bayes_is_a_row(pyplot):
    model = NaiveBayesClassifier(discretizer=None).fit(np.eye(6, dtype=int), [0, 1, 0, 1, 0, 1])
    places = [text.get_position() for text in plot_structure(model).texts]
    assert places == [(i, 0) for i in range(6)]


def test_features_without_table_are_faded(pyplot):
    ax = plot_structure(without_table(fitted(), 3))
    assert [text.get_color() for text in ax.texts] == ["black"] * 3 + ["0.6"]
    assert [text.get_bbox_patch().get_linestyle() for text in ax.texts] == ["-"] * 3 + ["--"]


def test_given_axes_are_used_and_text_fits_them(pyplot):
    _, ax = pyplot.subplots(figsize=(1, 1))
    assert plot_structure(fitted(), ax) is ax
    ax.figure.canvas.draw()
    assert all(text.get_fontsize() < 8 for text in ax.texts)
    widths = [text.get_bbox_patch().get_window_extent().width for text in ax.texts]
    columns = 1 + max(text.get_position()[0] for text in ax.texts)
    assert max(widths) * columns <= ax.get_window_extent().width


def test_wrong_names_are_a_clear_error(pyplot):
    with pytest.raises(ValueError, match="feature_names must have 4 entries, one a feature, got 2"):
        plot_structure(fitted(), feature_names=["a", "b"])


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"effml\[plot\]"):
        plot_structure(fitted())


def test_importing_the_module_does_not_import_matplotlib():
    code = "import effml.bayes.plots, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
