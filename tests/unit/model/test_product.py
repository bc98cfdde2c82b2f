from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fruits.model.exact import product as module
from fruits.model.exact.product import product

ELEMENTS = st.one_of(st.floats(-1e150, 1e150), st.floats(-10, 10), st.sampled_from([0.0, 1.0, -1e-160, 5e-324]))


def bound(left, right):
    """Return the stated bound of the error of every element, without the rounding of the element."""
    width = {1280: 21, 8192: 20}.get(left.shape[1], 20)
    largest = [np.maximum(np.abs(rows).max(axis=1, initial=0), 2.0**-990) for rows in (left, right)]
    return left.shape[1] * 2.0 ** (4 - 3 * width) * np.multiply.outer(*largest)


def dot(left, right):
    return sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(left, right, strict=True)), Fraction())


def assert_within_bound(left, right):
    """Compare the product with exact fractions."""
    values, limits = product(left, right), bound(left, right)
    assert values.shape == (len(left), len(right))
    for i, row in enumerate(left):
        for j, column in enumerate(right):
            true = dot(row, column)
            rounding = abs(true) / 2**53 + Fraction(5e-324)
            assert abs(Fraction(float(values[i, j])) - true) <= rounding + Fraction(float(limits[i, j]))


@given(
    st.integers(1, 9).flatmap(
        lambda d: st.tuples(
            hnp.arrays(np.float64, st.tuples(st.integers(0, 5), st.just(d)), elements=ELEMENTS),
            hnp.arrays(np.float64, st.tuples(st.integers(0, 5), st.just(d)), elements=ELEMENTS),
        )
    )
)
def test_error_is_within_the_bound(factors):
    assert_within_bound(*factors)


@pytest.mark.parametrize("terms", [1280, 8192])
def test_sums_of_the_largest_limbs_are_exact(terms):
    rng = np.random.default_rng(terms)
    largest = np.nextafter(np.ones((2, terms)), 0)
    rows = np.concatenate([largest, rng.choice([1.0, -1.0], (2, terms)) * largest])
    assert_within_bound(rows, rows)


def test_an_element_depends_on_its_two_rows_alone():
    rng = np.random.default_rng(0)
    left = rng.standard_normal((1100, 1280)) * np.geomspace(1e-9, 1e9, 1100)[:, np.newaxis]
    right = rng.standard_normal((200, 1280))
    whole = product(left, right)
    for rows in (slice(0, 1), slice(3, 10), slice(500, 1100)):
        assert np.array_equal(product(left[rows], right), whole[rows])
    assert np.array_equal(product(left[:50], right[90:]), whole[:50, 90:])
    assert np.array_equal(product(np.asfortranarray(left[:50]), right[::-1]), whole[:50, ::-1])
    assert np.array_equal(product(right, left), whole.T)


def test_scores_are_as_exact_as_those_of_float64():
    rng = np.random.default_rng(1)
    left, right = rng.standard_normal((3, 1280)), np.linalg.qr(rng.standard_normal((1280, 4)))[0].T
    values = product(left, right)
    for i, row in enumerate(left):
        for j, column in enumerate(right):
            assert abs(Fraction(float(values[i, j])) / dot(row, column) - 1) <= Fraction(1, 10**14)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_gives_nan_and_changes_no_other(value):
    rng = np.random.default_rng(2)
    left, right = rng.standard_normal((40, 70)), rng.standard_normal((30, 70))
    whole = product(left, right)
    left[7, 3] = right[9, 5] = value
    values = product(left, right)
    assert np.isnan(values[7]).all()
    assert np.isnan(values[:, 9]).all()
    rest = np.ix_(np.arange(40) != 7, np.arange(30) != 9)
    assert np.array_equal(values[rest], whole[rest])


def test_blocks_change_no_bit(monkeypatch):
    rng = np.random.default_rng(3)
    left, right = rng.standard_normal((40, 70)).astype(np.float32), rng.standard_normal((30, 70))
    whole = product(left, right)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert np.array_equal(product(left, right), whole)
    assert product(left[:, :0], right[:, :0]).tolist() == np.zeros((40, 30)).tolist()
