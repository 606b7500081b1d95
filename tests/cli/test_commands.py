"""The commands as a user meets them: what comes out, exit codes, and one clear sentence for each wrong input."""

import errno
import re
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

pd = pytest.importorskip("pandas")

import effml  # noqa: E402
from effml.bayes import TANClassifier  # noqa: E402
from effml.cli import app  # noqa: E402
from effml.persistence import load_model, save_model  # noqa: E402
from effml.program import with_input_dtype  # noqa: E402

QUICK = ["--effort", "0", "--cv", "2", "--jobs", "1"]


@pytest.fixture(scope="module")
def frame():
    """Two informative columns, a category, noise; three classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    return pd.DataFrame(
        {
            "size": np.round(y + rng.normal(0, 0.4, 300), 3),
            "count": rng.poisson(3 * y + 1),
            "colour": np.array(["red", "green", "blue"])[(y + (rng.random(300) < 0.3)) % 3],
            "noise": rng.integers(0, 200, 300),
            "label": np.array(["low", "mid", "high"])[y],
        }
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def refused(result, message, exit_code=2):
    """Whether a command ended with this code and one sentence on stderr."""
    assert result.exit_code == exit_code, result.output
    sentence = result.stderr.strip().splitlines()[-1]
    assert re.search(message, sentence), result.stderr
    assert "Traceback" not in result.output
    return True


# ------------------------------------------------------------ what works


def test_search_writes_model_and_proves_it_equal(run, frame, tmp_path):
    frame.to_csv("data.csv", index=False)
    result = run("search", "data.csv", "--target", "label", "--budget", "flash=2KiB", "--out", "build", *QUICK)
    assert result.exit_code == 0, result.output
    assert re.search(r"C and Python predict the same label on 75 of 75 held-out rows \(float32 input", result.stdout)
    assert re.search(r"colour +category +3 levels: 'blue', 'green', 'red'", result.stdout)
    assert sorted(path.name for path in (tmp_path / "build").iterdir()) == ["model.c", "model.h", "model.skops"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build", "data.csv"]
    model = load_model("build/model.skops")
    assert model.score(frame.drop(columns="label"), frame["label"]) > 0.8


def test_integer_table_gets_an_integer_model(run, frame):
    frame[["count", "noise", "label"]].to_csv("data.csv", index=False)
    result = run("search", "data.csv", "--target", "label", *QUICK)
    assert result.exit_code == 0, result.output
    assert "(uint8 input" in result.stdout


def test_groups_time_order_and_weights(run, frame):
    frame.assign(who=np.arange(300) % 12).to_csv("data.csv", index=False)
    base = ("search", "data.csv", "--target", "label", *QUICK)
    by_group = run(*base, "--group-column", "who")
    assert by_group.exit_code == 0, by_group.output
    assert "whole groups held out" in by_group.stdout
    by_time = run(*base, "--time-ordered", "--drop", "who")
    assert by_time.exit_code == 0, by_time.output
    assert "last rows held out" in by_time.stdout
    weighed = run(*base, "--scoring", "f1_macro", "--class-weight", "balanced")
    assert weighed.exit_code == 0, weighed.output
    assert weighed.stdout.count("f1_macro") == 2


def test_missing_cells_and_empty_columns_are_fine(run, frame):
    holes = frame.assign(empty=np.nan)
    holes.loc[::7, "size"] = np.nan
    holes.loc[::11, "colour"] = np.nan
    holes.loc[::50, "label"] = np.nan
    holes.to_csv("data.csv", index=False)
    result = run("search", "data.csv", "--target", "label", *QUICK)
    assert result.exit_code == 0, result.output
    assert "note: column 'empty' has no value at all and was left out" in result.stderr
    assert "note: 6 rows without a label (column 'label') were dropped" in result.stderr
    assert re.search(r"on (\d+) of \1 held-out rows", result.stdout)


HOSTILE = ['he said "hi"', "*/ int main(void) { return 1; } /*", "back\\slash ??/", "// é %s {}"]


def test_labels_and_names_with_quotes_and_comment_signs(run, frame):
    hostile = frame.assign(label=np.array(HOSTILE)[np.arange(300) % 4], colour=np.array(HOSTILE)[frame["count"] % 4])
    hostile = hostile.rename(columns={"size": 'the "size" */'})
    hostile.to_csv("data.csv", index=False)
    result = run("search", "data.csv", "--target", "label", *QUICK)
    assert result.exit_code == 0, result.output
    assert re.search(r"on (\d+) of \1 held-out rows", result.stdout)
    assert set(load_model("effml-model/model.skops").classes_) == set(HOSTILE)


def test_result_depends_on_neither_run_nor_jobs(run, frame, tmp_path):
    frame.to_csv("data.csv", index=False)
    for out, jobs in (("first", 1), ("again", 1), ("parallel", 2)):
        base = ("search", "data.csv", "--target", "label", "--effort", "0", "--cv", "2", "--budget", "flash=2KiB")
        assert run(*base, "--out", out, "--jobs", jobs).exit_code == 0
    first, again, parallel = ((tmp_path / out / "model.c").read_bytes() for out in ("first", "again", "parallel"))
    assert first == again == parallel


def test_export_writes_c_under_the_given_name(run, frame, tmp_path):
    frame.to_csv("data.csv", index=False)
    assert run("search", "data.csv", "--target", "label", "--budget", "flash=2KiB", *QUICK).exit_code == 0
    result = run("export", "effml-model/model.skops", "--out", "firmware", "--name", "gesture")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "firmware").iterdir()) == ["gesture.c", "gesture.h"]
    assert "int gesture_predict(const float *x)" in (tmp_path / "firmware" / "gesture.h").read_text()


def test_export_and_inspect_keep_to_the_input_type_of_the_search(run, frame, tmp_path):
    frame[["count", "noise", "label"]].to_csv("data.csv", index=False)
    assert run("search", "data.csv", "--target", "label", *QUICK).exit_code == 0
    result = run("export", "effml-model/model.skops", "--out", "firmware")
    assert result.exit_code == 0 and "uint8 input: about" in result.stdout, result.output
    assert (tmp_path / "firmware" / "model.h").read_bytes() == (tmp_path / "effml-model" / "model.h").read_bytes()


def test_export_wraps_the_c_with_a_self_test(run, frame, tmp_path):
    model = TANClassifier(n_bits=4, categorical_features=["colour"]).fit(frame.drop(columns="label"), frame["label"])
    save_model(model, "tan.skops")
    frame.to_csv("rows.csv", index=False)
    options = ("--package", "arduino", "--self-test", "rows.csv", "--self-test-rows", "9", "--name", "fruit")
    result = run("export", "tan.skops", "--out", "library", *options)
    assert result.exit_code == 0, result.output
    assert "library/src/fruit.c" in result.stdout and (tmp_path / "library" / "library.properties").is_file()
    test = (tmp_path / "library" / "src" / "fruit_self_test.c").read_text()
    expected = effml.lower(model).run(effml.lower(model).encode(frame.drop(columns="label")))["label"][:, 0]
    table = re.search(r"fruit_label\[N_ROWS\]\[1\] = \{(.*?)\};", test, re.DOTALL).group(1)
    picked = np.unique(np.linspace(0, len(frame) - 1, 9).round().astype(int))
    assert re.findall(r"\d+", table) == [str(number) for number in expected[picked]]


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_programs_are_exported_and_inspected_as_models_are(run, frame, tmp_path, dtype):
    model = TANClassifier(n_bits=4).fit(frame[["count", "noise"]], frame["label"])
    save_model(model, "tan.skops", input_dtype=dtype)
    with_input_dtype(effml.lower(model), dtype).save("tan.program")
    frame.to_csv("rows.csv", index=False)
    for file, folder in (("tan.skops", "from_model"), ("tan.program", "from_program")):
        result = run("export", file, "--out", folder, "--self-test", "rows.csv")
        assert result.exit_code == 0 and f"{dtype} input: about" in result.stdout, result.output
    one, other = ((tmp_path / name) for name in ("from_model", "from_program"))
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {p.name: p.read_bytes() for p in other.iterdir()}
    shown = [run("inspect", file).stdout for file in ("tan.skops", "tan.program")]
    assert f"Program: 2 features, 3 classes, {dtype} input" in shown[1]
    assert re.findall(r"flash bytes.*", shown[0]) == re.findall(r"flash bytes.*", shown[1])
    frame[["noise"]].to_csv("rows.csv", index=False)
    result = run("export", "tan.program", "--out", "firmware", "--self-test", "rows.csv")
    assert refused(result, "--self-test: there is no column 'count'")


@pytest.mark.parametrize(
    "text", ["[1]", '{"format": 1, "program": [1]}', '{"format": 1, "program": {"type": "Odd"}}', "{"]
)
def test_damaged_programs_are_refused_in_one_sentence(run, tmp_path, text):
    with zipfile.ZipFile("odd.program", "w") as archive:
        archive.writestr("program.json", text)
    assert refused(run("export", "odd.program", "--out", "firmware"), r"odd\.program .*effml program")
    assert [path.name for path in tmp_path.iterdir()] == ["odd.program"]


def test_test_rows_of_text_are_refused_by_the_file(run, frame):
    save_model(TANClassifier(n_bits=4).fit(frame[["count", "noise"]].to_numpy(), frame["label"]), "tan.skops")
    frame[["count", "colour"]].to_csv("rows.csv", index=False)
    result = run("export", "tan.skops", "--out", "firmware", "--self-test", "rows.csv")
    assert refused(result, r"'rows\.csv' must hold numbers alone: could not convert string to float")


def test_export_refuses_test_rows_of_another_table(run, frame):
    model = TANClassifier(n_bits=4).fit(frame[["count", "noise"]], frame["label"])
    save_model(model, "tan.skops")
    frame[["noise"]].to_csv("rows.csv", index=False)
    result = run("export", "tan.skops", "--out", "firmware", "--self-test", "rows.csv")
    assert refused(result, "--self-test: there is no column 'count'")
    model = TANClassifier(n_bits=4).fit(frame[["count", "noise"]].to_numpy(), frame["label"])
    save_model(model, "tan.skops")
    result = run("export", "tan.skops", "--out", "firmware", "--self-test", "rows.csv")
    assert refused(result, "'rows.csv' has 1 columns; the model, which knows no names, reads 2")


def test_export_says_the_size_on_a_target(run, frame):
    model = TANClassifier(n_bits=4).fit(frame[["count", "noise"]], frame["label"])
    save_model(model, "tan.skops")
    result = run("export", "tan.skops", "--out", "firmware", "--target", "cortex-m3")
    footprint = effml.footprint(model, target="cortex-m3")
    assert f"about {footprint.flash_bytes:,} bytes of flash" in result.stdout
    assert f"(cortex-m3, {footprint.basis})" in result.stdout
    assert refused(run("export", "tan.skops", "--out", "firmware", "--target", "z80"), "target='z80' must be one of")


def test_inspect_prices_the_input_type_of_the_file(run, frame):
    model = TANClassifier(n_bits=4).fit(frame[["count", "noise"]], frame["label"])
    flash = {dtype: effml.footprint(model, input_dtype=dtype).flash_bytes for dtype in ("float32", "uint8")}
    assert flash["uint8"] < flash["float32"]
    for dtype, amount in flash.items():
        save_model(model, "tan.skops", input_dtype=dtype)
        result = run("inspect", "tan.skops")
        assert f"3 classes, {dtype} input" in result.stdout
        assert re.search(rf"\(estimate\) +{amount:,}\s", result.stdout), result.stdout


def test_export_to_a_type_that_holds_less_is_noted(run, frame):
    frame.to_csv("data.csv", index=False)
    assert run("search", "data.csv", "--target", "label", *QUICK).exit_code == 0
    result = run("export", "effml-model/model.skops", "--out", "firmware", "--input-dtype", "uint8")
    assert result.exit_code == 0 and "note: the model was made for float32 rows" in result.stderr
    result = run("export", "effml-model/model.skops", "--out", "firmware", "--input-dtype", "float32")
    assert result.exit_code == 0 and "note" not in result.stderr


def test_inspect_shows_size_steps_and_structure(run, frame):
    model = TANClassifier(n_bits=4, categorical_features=["colour"]).fit(frame.drop(columns="label"), frame["label"])
    save_model(model, "tan.skops")
    result = run("inspect", "tan.skops")
    assert result.exit_code == 0, result.output
    assert "TANClassifier: 4 features, 3 classes" in result.stdout
    assert f"{effml.footprint(model).n_operations:,}" in result.stdout
    for words in ("flash bytes (compiled, -Os)", "RAM bytes", "LookupSum", "ArgBest"):
        assert words in result.stdout
    for name, n_states, parent in zip(frame.columns, model.n_states_, model.parents_, strict=False):
        assert re.search(rf"{name} +{n_states} +{frame.columns[parent] if parent >= 0 else '-'} ", result.stdout)
    assert "'blue', 'green', 'red'" in result.stdout


def test_inspect_shows_a_pipeline_step_by_step(run, frame):
    model = make_pipeline(StandardScaler(), TANClassifier(n_bits=2)).fit(frame[["size", "noise"]], frame["label"])
    save_model(model, "pipeline.skops")
    result = run("inspect", "pipeline.skops")
    assert result.exit_code == 0, result.output
    assert "StandardScaler, TANClassifier: 2 features, 3 classes" in result.stdout


def test_demo_runs_from_nothing(run, tmp_path):
    result = run("demo", *QUICK)
    assert result.exit_code == 0, result.output
    assert "C and Python predict the same label on 449 of 449 held-out rows (uint8 input" in result.stdout
    assert sorted(path.name for path in (tmp_path / "effml-demo").iterdir()) == ["model.c", "model.h", "model.skops"]


def test_help_is_quick_and_lists_commands():
    result = subprocess.run([sys.executable, "-m", "effml.cli", "--help"], capture_output=True, text=True, check=True)
    for command in ("demo", "search", "export", "inspect"):
        assert command in result.stdout


# ------------------------------------------------------------ what is refused


def search(run, *arguments):
    return run("search", "data.csv", "--target", "label", *QUICK, *arguments)


def test_wrong_input_file_is_missing(run):
    assert refused(search(run), "There is no file 'data.csv'")


def test_wrong_input_target_is_missing(run, frame):
    frame.to_csv("data.csv", index=False)
    assert refused(run("search", "data.csv", "--target", "lable"), "no column 'lable'; did you mean 'label'")


def test_wrong_input_one_class(run, frame):
    frame.assign(label="same").to_csv("data.csv", index=False)
    assert refused(search(run), "has one class only, 'same'")


def test_wrong_input_only_an_empty_column(run, frame):
    frame[["label"]].assign(empty=np.nan).to_csv("data.csv", index=False)
    assert refused(search(run), "There is no feature column left")


def test_wrong_input_text_where_numbers_were(run, frame):
    frame.assign(size=frame["size"].astype(object).where(np.arange(300) != 17, "n/k")).to_csv("data.csv", index=False)
    assert refused(search(run), r"Column 'size' holds numbers, but 1 of its 300 cells are text \(row 18: 'n/k'\)")
    assert search(run, "--missing", "n/k").exit_code == 0


def test_wrong_input_budget_of_ten_bytes(run, frame, tmp_path):
    frame.to_csv("data.csv", index=False)
    result = search(run, "--budget", "flash=10")
    assert refused(
        result, r"[Nn]o candidate fits the budget flash_bytes=10; the smallest is \w+.* with flash_bytes=\d+", 3
    )
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


@pytest.mark.parametrize(
    ("budget", "message"),
    [("flash=4Kib,flash=2", "given twice"), ("flesh=4KiB", "unknown quantity 'flesh'"), ("4KiB", "not of the form")],
)
def test_wrong_input_budget_that_cannot_be_read(run, budget, message):
    assert refused(search(run, "--budget", budget), message)


@pytest.mark.parametrize("out", ["data.csv/below", "/proc/effml"])
def test_wrong_input_unwritable_folder(run, frame, out, tmp_path):
    frame.to_csv("data.csv", index=False)
    assert refused(search(run, "--out", out), "--out .* cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


@pytest.mark.parametrize("name", ["2fast", "a-b", "int", "é", ""])
def test_wrong_input_name_is_no_c_identifier(run, frame, name, tmp_path):
    frame.to_csv("data.csv", index=False)
    assert refused(search(run, "--name", name), f"name='{name}' is (no C identifier|reserved)")
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


@pytest.mark.parametrize("command", [["inspect"], ["export", "--out", "firmware"]])
def test_wrong_input_corrupt_model_file(run, command, tmp_path):
    (tmp_path / "model.skops").write_bytes(b"PK\x03\x04 and then nonsense")
    assert refused(run(*command, "model.skops"), r"'model\.skops' is damaged or no model file")
    assert refused(run(*command, "other.skops"), r"There is no model file 'other\.skops'")
    assert [path.name for path in tmp_path.iterdir()] == ["model.skops"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scoring", "precission"], "--scoring 'precission' is no scorer"),
        (["--scoring", "roc_auc"], "--scoring 'roc_auc' cannot score these labels: multi_class must be"),
        (["--scoring", "r2"], "--scoring 'r2' cannot score these labels: could not convert"),
        (["--test-size", "1.5"], "--test-size 1.5 must lie between 0 and 1"),
        (["--jobs", "0"], "--jobs 0 must be"),
        (["--input-dtype", "uint8"], "--input-dtype uint8: column 'size' holds"),
        (["--group-column", "colour", "--time-ordered"], "cannot be combined"),
    ],
)
def test_wrong_options(run, frame, arguments, message):
    frame.to_csv("data.csv", index=False)
    assert refused(search(run, *arguments), message)


def test_failure_in_a_real_process_has_no_traceback(tmp_path):
    command = [sys.executable, "-m", "effml.cli", "search", "no.csv", "--target", "y"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert result.stderr.strip() == "effml: There is no file 'no.csv'."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("sign", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_search_leaves_nothing(frame, tmp_path, sign, exit_code):
    frame.to_csv(tmp_path / "data.csv", index=False)
    command = [sys.executable, "-m", "effml.cli", "search", "data.csv", "--target", "label", "--effort", "2"]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    # a shell lets its background jobs ignore SIGINT, and the tests may run in one
    heard = lambda: signal.signal(sign, signal.SIG_DFL)  # noqa: E731
    with subprocess.Popen(command, preexec_fn=heard, **given) as process:
        seen = ""
        while "training rows" not in seen:  # the search itself follows
            seen = process.stdout.readline()
            assert seen, process.stderr.read()
        process.send_signal(sign)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


def test_a_full_disk_is_one_sentence(run, frame, monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "model.c")

    save_model(TANClassifier(n_bits=2).fit(frame[["size", "noise"]], frame["label"]), "tan.skops")
    monkeypatch.setattr("effml.export.to_c", full)
    assert refused(run("export", "tan.skops", "--out", "firmware"), "No space left on device: 'model.c'")
    assert [path.name for path in tmp_path.iterdir()] == ["tan.skops"]


def test_a_reader_that_has_gone_is_no_error(frame, tmp_path):
    frame.to_csv(tmp_path / "data.csv", index=False)
    command = [sys.executable, "-u", "-m", "effml.cli", "search", "data.csv", "--target", "label", *QUICK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


def test_version(run):
    result = run("--version")
    assert result.exit_code == 0 and result.stdout == f"effml {effml.__version__}\n"


def test_names_with_line_breaks_and_terminal_codes_are_spelled_out(run, frame):
    frame.rename(columns={"size": "si\nze\x1b[31m"}).to_csv("data.csv", index=False)
    result = search(run)
    assert result.exit_code == 0, result.output
    assert r"si\nze\x1b[31m" in result.stdout and "\x1b" not in result.stdout


def test_search_without_pandas_says_what_to_install(run, frame, monkeypatch):
    frame.to_csv("data.csv", index=False)
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert refused(search(run), r"needs pandas: pip install 'effml\[csv\]'")
