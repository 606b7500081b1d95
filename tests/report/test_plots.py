import subprocess
import sys

import numpy as np
import pytest

from effml.report import ParetoRow, plot_pareto

ROWS = [
    ParetoRow("small", 0.8, 300, 3, 90, 200, 400, error=0.2),
    ParetoRow("bad", 0.7, 900, 3, 90, 200, 400, error=0.3, on_front=False),
    ParetoRow("large", 0.9, 2000, 3, 80, 200, 400, error=0.1, chosen=True),
]


@pytest.fixture
def axes():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_points_front_and_choice_are_drawn(axes):
    assert plot_pareto(ROWS, axes) is axes
    by_label = {artist.get_label(): artist for artist in axes.collections}
    assert by_label["dominated"].get_offsets().tolist() == [[900, 0.3]]
    assert by_label["Pareto front"].get_offsets().tolist() == [[300, 0.2], [2000, 0.1]]
    assert by_label["chosen"].get_offsets().tolist() == [[2000, 0.1]]
    (staircase,) = axes.lines
    assert staircase.get_drawstyle() == "steps-post"
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel().startswith("error")


def test_other_quantities_have_no_staircase(axes):
    plot_pareto(ROWS, axes, x="n_operations")
    assert len(axes.lines) == 0
    assert axes.get_xlabel() == "operations per prediction"


def test_score_is_plotted_where_there_is_no_error(axes):
    plot_pareto([ParetoRow("r2", 0.5, 300, 3, 90, 200, 400)], axes)
    assert axes.get_ylabel().startswith("score")


def test_search_shows_its_budget(axes):
    from types import SimpleNamespace

    quantities = ("flash_bytes", "ram_bytes", "n_operations", "n_parameters", "bits")
    results = {f"mean_test_{quantity}": np.array([-300.0]) for quantity in quantities}
    results |= {"mean_test_score": np.array([0.8]), "failure": np.array([""]), "params": [{"candidate": "a"}]}
    search = SimpleNamespace(cv_results_=results, front_=[0], best_index_=0, scoring=None, budget="flash=1KiB")
    plot_pareto(search, axes)
    assert [list(line.get_xdata()) for line in axes.lines if line.get_label() == "budget"] == [[1024, 1024]]


def test_wrong_arguments_are_clear_errors(axes):
    with pytest.raises(ValueError, match="x must be one of flash_bytes"):
        plot_pareto(ROWS, axes, x="rom")
    with pytest.raises(ValueError, match="no candidate to plot"):
        plot_pareto([], axes)


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"effml\[plot\]"):
        plot_pareto(ROWS)


def test_importing_the_report_does_not_import_matplotlib():
    code = "import effml.report, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
