"""Snippets in words: rules that say what the exits mean, trees in text, drawings."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.tree import DecisionTreeClassifier

from effml._text import number_text, unique_names
from effml._trees import Trees
from effml.forests import DecisionSnippetTransformer, plot_snippets, snippet_text
from effml.forests.mining import Snippets, stump
from effml.forests.text import exit_rules, snippet_names


def chain(tests, missing_right=None):
    """One snippet whose tests (feature, threshold) follow each other on the right."""
    n = len(tests)
    children = np.array([[~i, i + 1 if i + 1 < n else ~n] for i in range(n)])
    missing_right = np.ones(n, dtype=bool) if missing_right is None else np.array(missing_right)
    feature, threshold = (np.array(column) for column in zip(*tests, strict=True))
    exits = np.arange(n + 1.0)[:, None]
    trees = Trees(feature, threshold.astype(float), children, missing_right, np.array([0]), exits)
    return Snippets(trees, np.array([4]))


def test_tests_of_one_feature_are_joined():
    assert exit_rules(chain([(0, 1.0), (1, 0.5), (0, 3.0)]), ["a", "b"]) == [
        ["a <= 1", "a > 1 & b <= 0.5", "1 < a <= 3 & b > 0.5", "a > 3 & b > 0.5"]
    ]


def test_levels_are_named():
    levels = [np.array(["Bern", "Graz", "Oslo", "Rome"])]
    assert exit_rules(chain([(0, 0.5), (0, 2.5)]), ["city"], levels) == [
        ["city not in {Graz, Oslo, Rome}", "city in {Graz, Oslo}", "city = Rome"]
    ]
    assert exit_rules(stump(0, 2.0), ["city"], levels) == [["city != Rome", "city = Rome"]]


def test_tests_for_missing_values_are_named():
    known_left = chain([(0, np.inf), (0, 1.0)])
    assert exit_rules(known_left, ["a"])[0][0] == "a is known"
    assert exit_rules(chain([(0, -np.inf)], [False]), ["a"]) == [["a is missing", "a is known"]]


def test_thresholds_just_below_a_short_number_read_as_strict():
    below = float(np.nextafter(np.float32(1.7), np.float32(0)))
    assert exit_rules(stump(0, below), ["a"]) == [["a < 1.7", "a >= 1.7"]]
    assert exit_rules(chain([(0, below), (0, 5.0)]), ["a"])[0][1] == "1.7 <= a <= 5"


def test_numbers_name_their_float32():
    for value in np.random.default_rng(0).normal(size=200).astype(np.float32) * 10.0 ** np.arange(-10, 10).repeat(10):
        assert np.float32(number_text(value)) == np.float32(value)


def test_repeated_names_are_numbered():
    assert unique_names(["a", "a #2", "a", "a", "b"]).tolist() == ["a", "a #2", "a #3", "a #4", "b"]


def test_names_of_snippets_list_their_tests():
    assert snippet_names(chain([(0, 1.0), (1, 2.0)]), ["a", "b"]) == ["snippet 0: a <= 1, b <= 2"]


@pytest.fixture(scope="module")
def model():
    X, y = load_iris(return_X_y=True, as_frame=True)
    return DecisionSnippetTransformer(n_cuts=4, random_state=0).fit(X, y)


def test_rules_say_what_the_columns_hold(model):
    X, _ = load_iris(return_X_y=True, as_frame=True)
    names = [f"f{i}" for i in range(4)]
    X = X.set_axis(names, axis=1).astype(np.float32)
    rules = exit_rules(model.snippets_, names)
    columns = model.transform(X.set_axis(model.feature_names_in_, axis=1))
    flat = [rule for exits in rules for rule in exits[:-1]]
    assert len(flat) == columns.shape[1]
    for rule, column in zip(flat, columns.T, strict=True):
        holds = np.ones(len(X), dtype=bool)
        for condition in rule.split(" & "):
            # Numbers in a rule are float32; pandas would compare with the float64 of the same digits.
            words = [f"numpy.float32({word})" if word[0].isdigit() else word for word in condition.split()]
            text = " ".join(words)
            holds &= eval(text if len(words) == 3 else _chained(words), {"numpy": np, **dict(X.items())})
        np.testing.assert_array_equal(holds, column == 1, err_msg=rule)


def _chained(words):
    return f"({words[0]} {words[1]} {words[2]}) & ({words[2]} {words[3]} {words[4]})"


def test_text_of_chosen_snippets(model):
    text = snippet_text(model, 14, feature_names=["sl", "sw", "pl", "pw"])
    assert text.splitlines() == [
        "snippet 14, in 6 trees",
        "pw <= 0.8",
        "├─ yes: exit 0",
        "└─ no: pl <= 4.75",
        "   ├─ yes: exit 1",
        "   └─ no: exit 2",
    ]
    assert snippet_text(model).count("snippet ") == len(model.snippets_)


@pytest.mark.parametrize("function", [snippet_text, plot_snippets])
def test_wrong_requests_are_named(model, function):
    with pytest.raises(ValueError, match=r"which=\[0, 9999\] holds 9999; there are snippets 0 to"):
        function(model, [0, 9999])
    with pytest.raises(ValueError, match="feature_names must have 4 entries"):
        function(model, feature_names=["a"])
    with pytest.raises(NotFittedError):
        function(DecisionSnippetTransformer())


def test_drawing_shows_every_test_and_exit(model):
    plt = pytest.importorskip("matplotlib.pyplot")
    axes = plot_snippets(model, [0, 14])
    assert [ax.get_title() for ax in axes] == ["snippet 0, in 20 trees", "snippet 14, in 6 trees"]
    shown = sorted(text.get_text() for text in axes[1].texts)
    assert shown == ["0", "1", "2", "petal length (cm) <= 4.75", "petal width (cm) <= 0.8"]
    places = {text.get_text(): text.get_position() for text in axes[1].texts}
    assert places["0"][0] < places["1"][0] < places["2"][0]
    assert places["petal width (cm) <= 0.8"][1] > places["petal length (cm) <= 4.75"][1] > places["1"][1]
    figure = plt.figure()
    assert all(ax.figure is figure for ax in plot_snippets(model, figure=figure))
    assert len(figure.axes) == 6
    figure.canvas.draw()
    plt.close("all")


def test_names_with_dollar_signs_are_drawn_as_they_are():
    plt = pytest.importorskip("matplotlib.pyplot")
    X = pd.DataFrame({"price $x^$": [1.0, 2.0, 3.0, 4.0]})
    model = DecisionSnippetTransformer(DecisionTreeClassifier(), min_support=1).fit(X, [0, 0, 1, 1])
    axes = plot_snippets(model)
    axes[0].figure.canvas.draw()
    assert "price $x^$ <= 2" in [text.get_text() for text in axes[0].texts]
    plt.close("all")
