"""What is inferred from a CSV file, what is left out and said, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")

from effml._cli.errors import CommandError  # noqa: E402
from effml._cli.table import read_table  # noqa: E402


@pytest.fixture
def csv(tmp_path):
    def write(text):
        path = tmp_path / "data.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def kinds(table):
    return {column.name: column.kind for column in table.columns}


def test_kinds_of_columns(csv):
    path = csv("size,count,colour,on,label\n1.5,3,red,True,a\n2.5,250,blue,False,b\n-1,0,red,True,a\n0,7,red,False,b\n")
    table = read_table(path, target="label")
    assert kinds(table) == {"size": "number", "count": "integer", "colour": "category", "on": "integer"}
    assert table.input_dtype == "float32"
    assert table.X["size"].dtype == np.float32
    assert table.X["on"].tolist() == [1, 0, 1, 0]
    assert table.y.tolist() == ["a", "b", "a", "b"]
    assert table.notes == []


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        ("0 255 3 4", "uint8"),
        ("0 256 3 4", "int16"),
        ("-1 5 3 4", "int16"),
        ("0 40000 1 2", "int32"),
        ("0 3000000000 1 2", "float32"),
    ],
)
def test_smallest_input_type(csv, cells, dtype):
    rows = "\n".join(f"{cell},{label}" for cell, label in zip(cells.split(), "abab", strict=True))
    assert read_table(csv(f"x,y\n{rows}\n"), target="y").input_dtype == dtype


def test_missing_cell_rules_out_integer_types(csv):
    path = csv("x,z,y\n1,1,a\n,2,b\n3,1,a\n4,2,b\n")
    assert read_table(path, target="y").input_dtype == "float32"
    with pytest.raises(CommandError, match="--input-dtype uint8: column 'x' has missing cells"):
        read_table(path, target="y", input_dtype="uint8")


def test_numbers_that_the_input_type_cannot_hold(csv):
    with pytest.raises(CommandError, match=r"--input-dtype uint8: column 'x' holds 2\.5"):
        read_table(csv("x,y\n1,a\n2.5,b\n3,a\n4,b\n"), target="y", input_dtype="uint8")


def test_rows_without_a_label_are_dropped_and_counted(csv):
    table = read_table(csv("x,y\n1,a\n9,\n2,b\n1,a\n5,?\n3,b\n"), target="y", missing=["?"])
    assert table.X["x"].tolist() == [1, 2, 1, 3]
    assert table.notes == ["2 rows without a label (column 'y') were dropped"]


def test_empty_column_is_left_out_and_said(csv):
    table = read_table(csv("x,empty,y\n1,,a\n2,,b\n1,,a\n4,,b\n"), target="y")
    assert list(table.X) == ["x"]
    assert table.notes == ["column 'empty' has no value at all and was left out"]


def test_columns_that_tell_rows_apart_are_left_out(csv):
    rows = "\n".join(f"{i},name {i},{i % 3},{'ab'[i % 2]}" for i in range(60))
    table = read_table(csv(f"id,name,x,y\n{rows}\n"), target="y")
    assert list(table.X) == ["x"]
    assert len(table.notes) == 2


def test_a_row_counter_is_left_out_even_where_rows_were_dropped(csv):
    rows = "".join(f"{i + 7},{i % 3},{'' if i % 9 == 0 else 'ab'[i % 2]}\n" for i in range(60))
    table = read_table(csv("id,x,y\n" + rows), target="y")
    assert list(table.X) == ["x"]
    assert list(table.X.index) == list(range(len(table.y)))
    assert any("'id' tells rows apart (it counts the rows)" in note for note in table.notes)


@pytest.mark.parametrize("separator", ["\t", r"\t", "tab"])
def test_columns_separated_by_tabs(csv, separator):
    table = read_table(csv("x\ty\n1\ta\n2\tb\n3\ta\n4\tb\n"), target="y", separator=separator)
    assert list(table.X) == ["x"] and table.y.tolist() == ["a", "b", "a", "b"]


def test_named_numbers_are_categories(csv):
    table = read_table(csv("code,y\n7,a\n9,b\n7,a\n9,b\n"), target="y", categorical=["code"])
    assert kinds(table) == {"code": "category"}


def test_whole_number_labels_stay_numbers_even_beside_missing_ones(csv):
    table = read_table(csv("x,y\n1,3\n2,\n3,5\n2,3\n1,5\n"), target="y")
    assert table.y.tolist() == [3, 5, 3, 5]
    assert table.y.dtype == np.int64


def test_large_integers_that_float32_rounds_are_said(csv):
    table = read_table(csv("x,z,y\n16777217,0.5,a\n2,1,b\n3,1,a\n4,1,b\n"), target="y")
    assert table.X["x"].iloc[0] == np.float32(16777216)
    assert table.notes == ["integers beyond 2^24 were rounded to float32 in 'x'"]
    whole = csv("x,z,y\n16777217,5,a\n2,1,b\n3,1,a\n4,1,b\n")
    assert read_table(whole, target="y").notes == []  # auto takes int32
    assert "--input-dtype int32 keeps them" in read_table(whole, target="y", input_dtype="float32").notes[0]


def test_groups_leave_the_features(csv):
    table = read_table(csv("x,who,y\n1,ann,a\n2,bob,b\n3,ann,a\n2,bob,b\n"), target="y", group_column="who")
    assert table.groups.tolist() == ["ann", "bob", "ann", "bob"]
    assert list(table.X) == ["x"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("x,label\n1,a\n2,b\n", {"target": "lable"}, "--target: there is no column 'lable'; did you mean 'label'"),
        ("x;y\n1;a\n", {}, "the file has one column, 'x;y'; did you mean --separator ';'"),
        ("x:y\n1:a\n", {}, "the file has one column, 'x:y'; is --separator right"),
        ("x,y\n1,a\n", {"separator": "::"}, "--separator '::' must be one character"),
        ("x,y\n1,a\n", {"separator": ""}, "--separator '' must be one character"),
        ("x,x,y\n1,2,a\n3,4,b\n", {}, "has two columns named 'x'; rename one"),
        ("x,y\n1,a,7\n2,b,8\n", {}, "has more cells in its rows than names in its header"),
        ("x,y\n1,a\n2,a\n3,a\n", {}, "has one class only, 'a'"),
        ("x,y\n1,a\n2,a\n3,b\n", {}, "class 'b' has one row only"),
        ("x,y\n1,0.5\n2,0.25\n", {}, "holds numbers with fractions, such as 0.5"),
        (
            "x,y\n1,a\n2,b\noops,a\n4,b\n",
            {},
            r"Column 'x' holds numbers, but 1 of its 4 cells are text \(row 3: 'oops'\)",
        ),
        ("x,y\n1,\n2,b\noops,a\n4,b\n5,a\n", {}, r"text \(row 3: 'oops'\)"),  # the row of the file, not of those kept
        ("x,y\n1,a\n2,b\ninf,a\n4,b\n", {}, "Column 'x' holds inf in row 3"),
        ("x,y\n1,\n2,b\ninf,a\n4,b\n5,a\n", {}, "Column 'x' holds inf in row 3"),
        ("x,y\n1,a\n2,b\n1e300,a\n4,b\n", {}, r"Column 'x' holds 1e\+300 in row 3"),
        ("x,y\n", {}, "has a header but no rows"),
        ("", {}, "cannot be read as CSV: No columns to parse from file"),
        ("x,y\n1,a\n2,b,c,d\n", {}, "cannot be read as CSV: .*line 3"),
        ("x,y\n1,\n2,\n", {}, "has no row with a label"),
        ("y\na\nb\na\nb\n", {}, "There is no feature column left"),
        ("x,y\n1,a\n2,b\n", {"drop": ["y"]}, "--target 'y' is also named by"),
        ("x,y\n1,a\n2,b\n", {"drop": ["z"]}, "--drop: there is no column 'z'"),
        ("x,y\n" + "".join(f"1,c{i}\n1,c{i}\n" for i in range(300)), {}, "has 300 distinct values; at most 256"),
    ],
)
def test_bad_input_is_one_sentence(csv, text, options, message):
    with pytest.raises(CommandError, match=message) as caught:
        read_table(csv(text), **{"target": "y", **options})
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_file_that_is_no_text(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"x,y\n\xff\xfe\x00,1\n")
    with pytest.raises(CommandError, match="is no UTF-8 text"):
        read_table(path, target="y")


def test_file_that_is_not_there():
    with pytest.raises(CommandError, match="There is no file"):
        read_table(Path("no_such.csv"), target="y")
