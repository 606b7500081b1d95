"""Every form of the shared sets, on the sets themselves: shapes, splits and order as their README states."""

import numpy as np
import pytest

from effml.datasets import list_datasets, load_dataset

pytestmark = pytest.mark.usefixtures("shared_data")


@pytest.mark.parametrize(
    ("name", "n_train", "n_test", "n_features", "n_classes"),
    [
        ("letter", 16000, 4000, 16, 26),
        ("satimage", 4435, 2000, 36, 6),
        ("usps", 7291, 2007, 256, 10),
        ("adult", 32561, 16281, 14, 2),
        ("letter_mdl", 13342, 6658, 16, 26),
    ],
)
def test_official_split(name, n_train, n_test, n_features, n_classes):
    data = load_dataset(name)
    assert data.X_train.shape == (n_train, n_features)
    assert data.X_test.shape == (n_test, n_features)
    assert (len(data.y_train), len(data.y_test)) == (n_train, n_test)
    assert np.array_equal(data.data, np.vstack([data.X_train, data.X_test]))
    assert np.array_equal(data.target, np.concatenate([data.y_train, data.y_test]))
    assert np.array_equal(np.unique(data.target), np.arange(n_classes))
    assert len(data.class_names) == n_classes
    assert len(data.feature_names) == len(data.categorical) == n_features


def test_set_without_split_has_all_rows_and_no_parts():
    data = load_dataset("spambase")
    assert data.data.shape == (4601, 57)
    assert data.X_train is data.y_train is data.X_test is data.y_test is None


def test_folds_stored_as_arrays():
    n_rows = {fold: len(load_dataset("satimage_mdl", split=fold).X_test) for fold in range(1, 6)}
    assert n_rows == {1: 1284, 2: 1282, 3: 1279, 4: 1282, 5: 1284}
    official, first = load_dataset("satimage_mdl"), load_dataset("satimage_mdl", split=1)
    assert np.array_equal(official.X_test, first.X_test)
    second = load_dataset("satimage_mdl", split=2)
    assert not np.array_equal(first.cmi_train, second.cmi_train)
    assert second.X_train.shape == (5153, 36)


def test_folds_stored_as_numbers():
    data = load_dataset("communities_crime", split=3)
    assert len(data.X_train) + len(data.X_test) == len(data.data) == 1994
    assert np.array_equal(data.y_test, data.target[data.fold == 3])
    assert data.class_names is None


def test_split_stored_as_both_index_lists():
    data = load_dataset("magic", split="dsf")
    assert (len(data.X_train), len(data.X_test)) == (15000, 4020)


def test_split_stored_as_test_indices_leaves_the_rest_to_train():
    data = load_dataset("bank_marketing", split="dsf")
    assert (len(data.X_train), len(data.X_test)) == (41188 - 4118, 4118)
    assert np.array_equal(data.X_test, data.data[data.dsf_test_idx])


def test_groups_and_category_levels_are_kept():
    assert np.unique(load_dataset("wearable_postures").groups).size == 4
    adult = load_dataset("adult")
    assert adult.categorical.sum() == len(adult.category_levels) == 8
    assert adult.category_levels["sex"] == ["Female", "Male"]


def test_text_becomes_next_character_prediction():
    data = load_dataset("tiny_shakespeare")
    assert np.array_equal(data.X_train[1:, 0], data.y_train[:-1])
    assert len(data.class_names) == 65


def test_unknown_split_names_the_known_ones():
    with pytest.raises(ValueError, match=r"split='x' is unknown for data set 'magic'; accepted: None, 'dsf'"):
        load_dataset("magic", split="x")
    with pytest.raises(ValueError, match=r"split=6 .* accepted: None, 1, 2, 3, 4, 5"):
        load_dataset("satimage_mdl", split=6)


def test_array_file_that_is_no_data_set():
    assert "mnist14_mdl_cmi" not in list_datasets()
    with pytest.raises(ValueError, match="holds no data set"):
        load_dataset("mnist14_mdl_cmi")


def test_every_listed_file_loads():
    heavy = {"mnist", "fashion_mnist", "cifar10_subset"}
    for name in [name for name, source in list_datasets().items() if source == "file" and name not in heavy]:
        data = load_dataset(name)
        assert len(data.data) == len(data.target), name
        assert data.data.shape[1] == len(data.feature_names) == len(data.categorical), name
