"""Where a name is looked for, and what is said when it is nowhere; no network, no shared data."""

from urllib.error import URLError

import numpy as np
import pytest
from sklearn.utils import Bunch

from effml.datasets import _remote, list_datasets, load_dataset


@pytest.fixture
def no_folder(monkeypatch):
    monkeypatch.delenv("EFFML_DATA", raising=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFML_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("no_folder")
def test_sets_of_sklearn_need_neither_folder_nor_network():
    digits = load_dataset("digits")
    assert digits.source == "scikit-learn"
    assert digits.data.dtype == np.uint8
    assert digits.data.max() == 16
    assert digits.class_names == list("0123456789")


@pytest.mark.usefixtures("no_folder")
@pytest.mark.parametrize("name", ["no_such_set", "../letter", "", 3, None])
def test_unknown_name_lists_known_ones(name):
    with pytest.raises(ValueError, match=r"is no known data set; accepted: adult, .*, wine"):
        load_dataset(name)


def test_file_needs_only_x_and_y(folder):
    np.savez(folder / "mine.npz", X=np.arange(6.0).reshape(3, 2), y=np.array([0, 1, 0]))
    assert list_datasets()["mine"] == "file"
    mine = load_dataset("mine")
    assert mine.source == "file"
    assert mine.feature_names == ["x0", "x1"]
    assert not mine.categorical.any()
    assert mine.description == "mine: 3 rows, 2 features, unknown task."


def test_file_goes_before_download(folder, monkeypatch):
    np.savez(folder / "letter.npz", X=np.zeros((2, 1)), y=np.array([0, 1]))
    monkeypatch.setattr(_remote.sklearn_datasets, "fetch_openml", lambda **_: pytest.fail("must not download"))
    assert load_dataset("letter").data.shape == (2, 1)


def test_pickled_arrays_are_refused(folder):
    np.savez(folder / "bad.npz", X=np.array([{"a": 1}], dtype=object), y=np.array([0]))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_dataset("bad")


def test_variable_that_names_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("EFFML_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"EFFML_DATA=.*nowhere.* is no folder"):
        load_dataset("digits")


@pytest.mark.usefixtures("no_folder")
def test_offline_message_says_what_to_do(monkeypatch):
    def no_network(**_):
        raise URLError("name resolution failed")

    monkeypatch.setattr(_remote.sklearn_datasets, "fetch_openml", no_network)
    with pytest.raises(FileNotFoundError, match=r"'letter' .*data_id=6.*set EFFML_DATA to a folder .*letter\.npz"):
        load_dataset("letter")


@pytest.mark.usefixtures("no_folder")
def test_openml_set_is_encoded(monkeypatch):
    asked = {}

    def answer(**kwargs):
        asked.update(kwargs)
        return Bunch(
            data=np.array([[0.0, 1.5], [1.0, 2.5], [0.0, 3.5]]),
            target=np.array(["10", "9", "10"], dtype=object),
            feature_names=["colour", "size"],
            categories={"colour": ["red", "blue"], "class": ["9", "10"]},
            DESCR="three things",
        )

    monkeypatch.setattr(_remote.sklearn_datasets, "fetch_openml", answer)
    data = load_dataset("letter")
    assert asked["data_id"] == 6
    assert data.source == "OpenML"
    assert data.class_names == ["9", "10"]
    assert data.target.tolist() == [1, 0, 1]
    assert data.categorical.tolist() == [True, False]
    assert data.category_levels == {"colour": ["red", "blue"]}
    assert data.X_train is None
    assert data.description == "three things"


@pytest.mark.usefixtures("no_folder")
def test_split_that_a_source_lacks():
    with pytest.raises(ValueError, match=r"split=2 is unknown for data set 'digits' from scikit-learn"):
        load_dataset("digits", split=2)
