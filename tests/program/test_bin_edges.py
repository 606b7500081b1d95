"""The binning loop is numpy's searchsorted, NaN apart."""

import numpy as np
import pytest
from effml._cext.bin_edges import bin_edges
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float32])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_codes_are_those_of_searchsorted(dtype, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    edges = np.unique(rng.integers(0, 100, data.draw(st.integers(0, 40))).astype(dtype))
    x = rng.integers(0, 101, (50, 3)).astype(dtype)
    if dtype == np.float32:
        x[rng.random(x.shape) < 0.2] = np.nan
        x[0] = np.inf, -np.inf, -0.0
    codes = rng.integers(0, 256, len(edges) + 1).astype(np.int32)
    out = np.empty((50, 2), dtype=np.uint8)
    bin_edges(x[:, 1], edges, codes, 7, out[:, 1])
    expected = codes[np.searchsorted(edges, x[:, 1], side="left")]
    np.testing.assert_array_equal(out[:, 1], np.where(np.isnan(x[:, 1]), 7, expected))
