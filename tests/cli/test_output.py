"""Files appear whole or not at all."""

import pytest

from effml._cli.errors import CommandError
from effml._cli.output import staged


def test_files_appear_together_at_the_end(tmp_path):
    out = tmp_path / "a" / "b"
    with staged(out) as stage:
        (stage / "model.c").write_text("int x;")
        assert not out.exists()
    assert (out / "model.c").read_text() == "int x;"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_failure_leaves_nothing(tmp_path):
    def fail():
        with staged(tmp_path / "out") as stage:
            (stage / "model.c").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_keeps_its_other_files(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    (tmp_path / "model.c").write_text("old")
    with staged(tmp_path) as stage:
        (stage / "model.c").write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "model.c"]
    assert (tmp_path / "model.c").read_text() == "new"


def test_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(CommandError, match="is a file; name a folder"), staged(tmp_path / "out"):
        pytest.fail("must not get here")
    with pytest.raises(CommandError, match="cannot be written"), staged(tmp_path / "out" / "below"):
        pytest.fail("must not get here")
