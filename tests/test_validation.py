"""Checks of fit's arguments that scikit-learn does not have in this form."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from effml._validation import encode_labels

LABELS = st.sampled_from([np.uint8, np.int8, np.int64, np.uint64, np.float64]).flatmap(
    lambda dtype: arrays(dtype, st.integers(0, 60), elements=st.integers(0, 100)).map(
        lambda y: y if y.dtype.kind != "u" or y.itemsize < 8 else y + np.uint64(2**63)
    )
)


@given(LABELS)
def test_labels_are_encoded_as_unique_does(y):
    classes, index = encode_labels(y)
    expected, expected_index = np.unique(y, return_inverse=True)
    np.testing.assert_array_equal(classes, expected)
    np.testing.assert_array_equal(index, expected_index)
    assert classes.dtype == y.dtype
