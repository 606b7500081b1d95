"""Number formats of tables: exact values, and the properties that a quantiser must have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from effml._quantization import ContrastFormat, FixedPointFormat, table_format_of

fixed_point = st.tuples(st.integers(0, 12), st.integers(1, 8)).map(lambda b: FixedPointFormat(b[0], b[1] - b[0]))
log_probabilities = hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e6, 0))


def test_rounding_is_half_to_even():
    assert FixedPointFormat(3, 0).encode([-0.5, -1.5, -2.5, -3.5]).tolist() == [0, 2, 2, 4]
    assert FixedPointFormat(2, 1).encode([-0.25, -0.75, -1.25]).tolist() == [0, 2, 2]


def test_one_bit_has_the_levels_0_and_minus_half_the_range():
    one_bit = FixedPointFormat(4, -3)  # levels 0 and -8
    codes = one_bit.encode([0.0, -3.9, -4.1, -100.0])
    assert codes.tolist() == [0, 0, 1, 1]
    assert one_bit.decode(codes).tolist() == [0.0, 0.0, -8.0, -8.0]


def test_negative_fraction_bits_make_steps_larger_than_one():
    coarse = FixedPointFormat(5, -2)
    assert (coarse.n_bits, coarse.scale) == (3, 4.0)
    assert coarse.encode([-1.9, -2.1, -6.0, -10.0, -1e9]).tolist() == [0, 1, 2, 2, 7]


@given(fixed_point, log_probabilities)
def test_fixed_point_is_the_formula_of_the_paper(number_format, values):
    bits, fraction = number_format.n_bits, number_format.fraction_bits
    expected = np.clip(np.round(-values * 2.0**fraction), 0, 2**bits - 1) * -(2.0**-fraction)
    np.testing.assert_array_equal(number_format.decode(number_format.encode(values)), expected.astype(np.float32))


@given(fixed_point, log_probabilities)
def test_fixed_point_is_idempotent_monotone_and_close(number_format, values):
    codes = number_format.encode(values)
    decoded = number_format.decode(codes)
    np.testing.assert_array_equal(number_format.encode(decoded), codes)
    assert (np.diff(codes[np.argsort(values)].astype(int)) <= 0).all()
    inside = values > -number_format.scale * (2**number_format.n_bits - 1)
    assert (np.abs(decoded - values)[inside] <= number_format.scale / 2 * (1 + 1e-6)).all()


rows = hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 9)), elements=st.floats(-50, 50))


@given(st.integers(1, 8), st.floats(1e-3, 50), rows)
def test_contrast_ignores_what_an_argmax_ignores(n_bits, step, values):
    number_format = ContrastFormat(n_bits, step)
    decoded = number_format.decode(number_format.encode(values)).astype(np.float64)
    top = (2**n_bits - 1) / 2 * step
    assert np.abs(decoded).max() <= top * (1 + 1e-6)
    best = np.take_along_axis(decoded, values.argmax(axis=1)[:, None], axis=1)[:, 0]
    np.testing.assert_array_equal(best, decoded.max(axis=1))


@given(st.integers(1, 8), hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 9))), st.floats(1e-3, 50))
def test_contrast_keeps_rows_that_fit_up_to_a_constant(n_bits, codes, step):
    number_format = ContrastFormat(n_bits, step)
    codes = codes & (2**n_bits - 1)
    again = number_format.encode(number_format.decode(codes)).astype(int)
    shift = again - codes
    assert (shift == shift[:, :1]).all()


def test_one_bit_contrast_keeps_the_likely_classes_apart_from_the_rest():
    assert ContrastFormat(1, 4.0).encode([[-1.0, -1.5, -9.0, -20.0]]).tolist() == [[1, 1, 0, 0]]


LEGAL = [
    ((None, None, None, "auto"), ("log_prob", None)),
    ((None, None, None, "log_prob"), ("log_prob", None)),
    ((None, 3, 2, "auto"), ("log_prob", FixedPointFormat(3, 2))),
    ((None, 4, -3, "log_prob"), ("log_prob", FixedPointFormat(4, -3))),
    ((2, 5, None, "auto"), ("log_prob", FixedPointFormat(5, -3))),
    ((4, "auto", None, "auto"), ("log_prob", None)),
    ((4, None, None, "auto"), ("contrast", None)),
    ((4, None, None, "contrast"), ("contrast", None)),
]


@pytest.mark.parametrize(("bits", "expected"), LEGAL)
def test_legal_combinations_of_bits(bits, expected):
    assert table_format_of(*bits) == expected


ILLEGAL = [
    ((None, 3, None, "auto"), "integer_bits=3.*no number format"),
    ((None, None, 2, "auto"), "fraction_bits=2.*no number format"),
    ((4, 3, 1, "auto"), "n_bits=4, integer_bits=3, fraction_bits=1 is no number format"),
    ((4, None, 1, "auto"), "no number format"),
    ((None, "auto", None, "auto"), "'auto'.*no number format"),
    ((None, "auto", 2, "auto"), "'auto'.*no number format"),
    ((None, 6, 3, "auto"), "between 1 and 8, got 6 \\+ 3 = 9"),
    ((None, 2, -2, "auto"), "between 1 and 8, got 2 \\+ -2 = 0"),
    ((9, 3, None, "auto"), "between 1 and 8"),
    ((None, None, None, "contrast"), "table_format='contrast' does not fit"),
    ((4, None, None, "log_prob"), "table_format='log_prob' does not fit"),
    ((4, 2, None, "contrast"), "table_format='contrast' does not fit"),
]


@pytest.mark.parametrize(("bits", "message"), ILLEGAL)
def test_illegal_combinations_of_bits_say_what_is_accepted(bits, message):
    with pytest.raises(ValueError, match=message):
        table_format_of(*bits)
