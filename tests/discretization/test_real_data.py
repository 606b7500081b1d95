"""Cuts on real data: against the published discretisation of letter, and on raw letter and MNIST."""

import os
from pathlib import Path

import numpy as np
import pytest

from effml.discretization import MDLPDiscretizer


@pytest.fixture(scope="module")
def real():
    folder = os.environ.get("EFFML_DATA")

    def load(name):
        path = Path(folder or "", f"{name}.npz")
        if not folder or not path.is_file():
            pytest.skip(f"{name}.npz is not in the folder that EFFML_DATA names")
        with np.load(path) as data:
            return tuple(data[key] for key in ("X_train", "y_train", "X_test", "y_test"))

    return load


@pytest.fixture(scope="module")
def published_letter(real):
    """Return the raw rows of the published training part and the published cuts (last value of each bin but one).

    The release holds codes only. Bin sizes over all 20,000 rows give the cuts, and coded rows with their class give
    back the split, up to rows that differ only within bins.
    """
    X, X_test = real("letter")[::2]
    y, y_test = real("letter")[1::2]
    X, y = np.vstack([X, X_test]), np.concatenate([y, y_test])
    coded, coded_y, coded_test, _ = real("letter_mdl")
    all_coded = np.vstack([coded, coded_test])
    cuts = []
    for i in range(16):
        rows_up_to = np.cumsum(np.bincount(X[:, i]))
        bin_ends = np.cumsum(np.bincount(all_coded[:, i]))[:-1]
        assert np.isin(bin_ends, rows_up_to).all()
        cuts.append(np.searchsorted(rows_up_to, bin_ends))
    codes = np.column_stack([np.searchsorted(cuts[i], X[:, i]) for i in range(16)])

    rows_with = {}
    for row, key in enumerate(map(tuple, np.column_stack([y, codes]).tolist())):
        rows_with.setdefault(key, []).append(row)
    train = [rows_with[key].pop(0) for key in map(tuple, np.column_stack([coded_y, coded]).tolist())]
    return X[train], y[train], cuts


def test_cuts_of_letter_equal_the_published_ones(published_letter):
    X, y, cuts = published_letter
    discretizer = MDLPDiscretizer().fit(X, y)
    assert discretizer.n_states_[1] == 1  # y-box
    # Columns 0, 2, 7 and 15 depend on which of the rows with equal codes were drawn for training.
    for i in [1, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14]:
        np.testing.assert_array_equal(np.floor(discretizer.bin_edges_[i]), cuts[i])


def test_raw_letter_gets_sensible_bins(real):
    X, y, X_test, _ = real("letter")
    discretizer = MDLPDiscretizer().fit(X, y)
    assert discretizer.n_states_[1] == 1
    assert (np.delete(discretizer.n_states_, 1) >= 3).all()
    for edges in discretizer.bin_edges_:
        assert (np.diff(edges) > 0).all()
        assert ((edges % 1 == 0.5) & (edges < 15)).all()  # letter's values are the integers 0 to 15, all of them used
    codes, codes_test = discretizer.transform(X), discretizer.transform(X_test)
    np.testing.assert_array_equal(codes.max(axis=0) + 1, discretizer.n_states_)
    assert (codes_test < discretizer.n_states_).all()
    capped = MDLPDiscretizer(max_bins=4).fit(X, y)
    assert capped.n_states_.max() == 4
    for edges, all_edges in zip(capped.bin_edges_, discretizer.bin_edges_, strict=True):
        assert set(edges) <= set(all_edges)


def test_mnist_is_cut_alike_as_bytes_and_as_floats_by_any_number_of_threads(real):
    X, y, X_test, _ = real("mnist")
    bytes_ = MDLPDiscretizer(n_jobs=2).fit(X[:20_000], y[:20_000])
    floats = MDLPDiscretizer(n_jobs=1).fit(X[:20_000] / np.float32(255), y[:20_000])
    for edges, float_edges in zip(bytes_.bin_edges_, floats.bin_edges_, strict=True):
        np.testing.assert_allclose(float_edges * 255, edges, rtol=1e-6)
    np.testing.assert_array_equal(bytes_.transform(X_test), floats.transform(X_test / np.float32(255)))
