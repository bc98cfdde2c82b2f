"""Derived quantities against the exact rational values of the integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fruits.model.exact import derived
from fruits.model.moments import Moments
from tests.unit.model.test_moments import integers, on_grid

VALUES = st.one_of(
    st.floats(-1e5, 1e5, width=32),
    st.floats(0, 6, width=32),
    st.sampled_from([0.0, 1e-20, 3e-11, 1e-10, 1e5, 2.0**19 - 1 / 32]),
)


def within_one_ulp(value, square):
    """Return whether `value` is within one unit in the last place of the root of `square`, a fraction."""
    magnitude, ulp = Fraction(abs(float(value))), Fraction(float(np.spacing(abs(value))))
    return max(magnitude - ulp, 0) ** 2 <= square <= (magnitude + ulp) ** 2


def assert_derived(moments, places=None):
    """Compare with fractions, at some places of the matrices or at all."""
    n, d = moments.count, moments.dimension
    sums = integers(moments.sums)
    products = np.zeros((d, d), object)
    products[np.triu_indices(d)] = integers(moments.products)
    mean, std, covariance, correlation = moments.mean(), moments.std(), moments.covariance(), moments.correlation()
    assert np.array_equal(covariance, covariance.T)
    assert np.array_equal(correlation, correlation.T)
    for i, j in places or zip(*np.triu_indices(d), strict=True):
        assert abs(Fraction(float(mean[i])) - Fraction(sums[i], n * 2**36)) <= Fraction(float(np.spacing(abs(mean[i]))))
        numerator = [n * products[k] - sums[k[0]] * sums[k[1]] for k in ((i, i), (i, j), (j, j))]
        exact = Fraction(numerator[1], n * (n - 1) * 2**72)
        assert abs(Fraction(float(covariance[i, j])) - exact) <= Fraction(float(np.spacing(abs(covariance[i, j]))))
        assert within_one_ulp(std[i], Fraction(numerator[0], n * (n - 1) * 2**72))
        if numerator[0] == 0 or numerator[2] == 0:
            assert correlation[i, j] == 0
        else:
            assert within_one_ulp(correlation[i, j], Fraction(numerator[1] ** 2, numerator[0] * numerator[2]))
            assert np.sign(correlation[i, j]) == np.sign(float(numerator[1]))
            assert i != j or correlation[i, j] == 1


@given(hnp.arrays(np.float32, st.tuples(st.integers(2, 12), st.integers(1, 5)), elements=VALUES), st.integers(0, 30))
def test_derived_quantities_are_within_one_ulp_of_the_exact_ones(features, doublings):
    moments = Moments.from_features(features)
    for _ in range(doublings):
        moments += moments
    assert_derived(moments)


@pytest.mark.parametrize("doublings", [0, 29])
@pytest.mark.parametrize("offset", [0.0, 1000.0, 5e5])
def test_derived_quantities_of_many_features(offset, doublings):
    # More features than one slab of rows, with an offset that would cancel 30 bits in float64.
    rng = np.random.default_rng(1)
    features = (offset + rng.standard_normal((400, 300)) * np.geomspace(1e-3, 1, 300)).astype(np.float32)
    features[:, 17] = features[0, 17]
    moments = Moments.from_features(features)
    for _ in range(doublings):
        moments += moments
    assert_derived(moments, [(0, 0), (17, 17), (299, 299), *map(sorted, rng.integers(0, 300, (200, 2)).tolist())])


@pytest.mark.parametrize("slab", [1, 7, 100, 10**6])
def test_slabs_change_no_bit(monkeypatch, slab):
    moments = Moments.from_features(np.random.default_rng(2).uniform(0, 6, (50, 33)).astype(np.float32))
    expected = moments.covariance(), moments.correlation()
    monkeypatch.setattr(derived, "SLAB", slab)
    assert np.array_equal(moments.covariance(), expected[0])
    assert np.array_equal(moments.correlation(), expected[1])


def test_class_means_are_within_one_ulp_of_the_exact_ones():
    features = np.random.default_rng(3).uniform(-9, 9, (60, 4)).astype(np.float32)
    labels = [f"class {row % 7}" for row in range(60)]
    means = Moments.from_features(features, labels).class_means()
    for number in range(7):
        exact = [
            Fraction(total, len(features[number::7]) * 2**36) for total in on_grid(features[number::7]).sum(axis=0)
        ]
        for value, expected in zip(means[number], exact, strict=True):
            assert abs(Fraction(float(value)) - expected) <= Fraction(float(np.spacing(abs(value))))
