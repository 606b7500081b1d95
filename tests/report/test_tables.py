import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from effml.report import ParetoRow, pareto_rows, pareto_table


def row(model="nb (n_bits=2)", **changes):
    values = {"score": 0.8, "flash_bytes": 310.4, "ram_bytes": 4, "n_operations": 90, "n_parameters": 200, "bits": 400}
    return ParetoRow(model, **(values | {"error": 0.2} | changes))


@pytest.fixture
def search():
    """What a fitted search shows: four candidates, the second dominated, the third failed, the last chosen."""
    flash = np.array([300.0, 400.0, np.nan, 2000.0])
    results = {
        "params": [{"candidate": name} for name in ("small", "dominated", "broken", "large")],
        "mean_test_score": np.array([0.8, 0.7, np.nan, 0.9]),
        "failure": np.array(["", "", "ValueError: no", ""], dtype=object),
    }
    for factor, quantity in enumerate(("flash_bytes", "ram_bytes", "n_operations", "n_parameters", "bits"), start=1):
        results[f"mean_test_{quantity}"] = -flash * factor
    return SimpleNamespace(
        cv_results_=results, front_=np.array([0, 3]), best_index_=3, scoring=None, budget="flash=1KiB"
    )


def test_front_rows_of_a_search(search):
    rows = pareto_rows(search)
    assert [(r.model, r.flash_bytes, r.on_front, r.chosen, r.index) for r in rows] == [
        ("small", 300, True, False, 0),
        ("large", 2000, True, True, 3),
    ]
    assert rows[0].error == pytest.approx(0.2)
    assert rows[0].bits == 1500


def test_chosen_row_is_shown_off_the_front_too(search):
    search.best_index_ = 1
    assert [(r.model, r.on_front, r.chosen) for r in pareto_rows(search)][1] == ("dominated", False, True)


def test_all_rows_leave_out_failures(search):
    assert [r.model for r in pareto_rows(search, which="all")] == ["small", "dominated", "large"]


def test_no_row_is_chosen_after_a_budget_error(search):
    del search.best_index_
    assert not any(r.chosen for r in pareto_rows(search))


def test_which_is_checked(search):
    with pytest.raises(ValueError, match="which must be 'front' or 'all', got 'best'"):
        pareto_rows(search, which="best")


@pytest.mark.parametrize(("scoring", "header"), [("balanced_accuracy", "error"), ("f1_macro", "score"), (max, "score")])
def test_scores_that_are_no_accuracy_stay_scores(search, scoring, header):
    search.scoring = scoring
    assert pareto_table(search, format="text").split()[1] == header


def test_text_table_lines_up_and_marks_the_chosen_row(search):
    lines = pareto_table(search, format="text").splitlines()
    assert lines[0].split("  ")[-1] == "bits"
    assert lines[1].startswith("   small")
    assert lines[2].startswith("*  large")
    assert "2,000" in lines[2]
    assert len({len(line) for line in lines}) == 1


def test_markdown_escapes_bars():
    lines = pareto_table([row("a|b", chosen=True)], format="markdown").splitlines()
    assert lines[0].startswith("|  | model | error | flash (B) | RAM (B) | operations |")
    assert lines[1].startswith("| --- | --- | ---: |")
    assert lines[2].startswith("| * | a\\|b | 20.0% | 310 |")


def test_csv_keeps_unrounded_numbers_and_quotes_labels():
    table = pareto_table([row('tan (a="x", b=1)', chosen=True, extra={"held-out error": 0.25})], format="csv")
    (read,) = csv.DictReader(io.StringIO(table))
    assert read["model"] == 'tan (a="x", b=1)'
    assert float(read["flash_bytes"]) == 310.4
    assert read["chosen"] == "True"
    assert read["held-out error"] == "0.25"


def test_rich_table_shows_labels_literally():
    console = Console(file=io.StringIO(), width=160)
    console.print(pareto_table([row("nb [red]"), row("tan", chosen=True, extra={})], title="front [bold]"))
    shown = console.file.getvalue()
    assert "nb [red]" in shown and "front [bold]" in shown and "20.0%" in shown and "*" in shown


def test_extra_columns_come_last():
    header, line = pareto_table([row(extra={"C flash": 1234, "held-out": 0.123456})], format="text").splitlines()
    assert header.endswith("C flash  held-out")
    assert line.endswith("   1234    0.1235")


def test_extra_columns_must_agree():
    with pytest.raises(ValueError, match="same extra columns"):
        pareto_table([row(extra={"a": 1}), row()])


def test_empty_table_has_headers_only():
    assert pareto_table([], format="markdown").count("\n") == 1


def test_format_is_checked():
    with pytest.raises(ValueError, match="format must be one of rich, text, markdown, csv; got 'html'"):
        pareto_table([], format="html")
