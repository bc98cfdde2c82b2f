"""Products, lengths and softmax against exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from fruits.recogniser.products import lengths, on_grid, product, softmax, to_grid, to_unit


def test_a_product_is_that_of_the_rounded_rows_exactly() -> None:
    random = np.random.default_rng(0)
    left, right = random.normal(0, 1e3, (3, 1280)), random.normal(0, 1e-5, (4, 1280))
    result = product(left, to_grid(right))
    a, b = to_grid(left), to_grid(right)
    for i in range(3):
        for j in range(4):
            terms = zip(a.integers[i].tolist(), b.integers[j].tolist(), strict=True)
            exact = sum(Fraction(x) * Fraction(y) for x, y in terms) * Fraction(a.units[i]) * Fraction(b.units[j])
            assert Fraction(result[i, j]) == exact
    bound = 2.0**-25 * np.outer(lengths(left), lengths(right))
    assert (np.abs(result - left @ right.T) <= bound).all()


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e150])
def test_partial_sums_are_exact_for_rows_of_any_size(scale: float) -> None:
    rows = np.full((1, 1280), scale)
    grid = to_grid(rows)
    assert np.abs(grid.integers).max() * grid.units[0] == pytest.approx(scale, rel=2**-20)
    assert float((grid.integers**2).sum()) <= 2.0**52


def test_rows_of_zeros() -> None:
    zeros = np.zeros((2, 5))
    assert to_unit(zeros).tolist() == zeros.tolist()
    assert product(zeros, to_grid(np.ones((1, 5)))).tolist() == [[0.0], [0.0]]


def test_unit_rows_on_the_grid_are_float32() -> None:
    rows = on_grid(to_unit(np.random.default_rng(1).normal(size=(50, 130))))
    assert np.array_equal(rows, rows.astype(np.float32).astype(np.float64))
    assert np.abs(lengths(rows) - 1).max() < 1e-6


def test_softmax_is_within_rounding_of_exact_exponentials() -> None:
    random = np.random.default_rng(2)
    logits = random.uniform(-80, 40, (20, 30))
    for row, result in zip(logits, softmax(logits), strict=True):
        powers = [math.exp(value - row.max()) for value in row]
        assert result == pytest.approx([power / sum(powers) for power in powers], rel=1e-14)
        assert result.sum() == pytest.approx(1.0, abs=1e-15 * 30)


def test_softmax_of_far_apart_values() -> None:
    assert softmax([[0.0, -1e6]])[0].tolist() == [1.0, pytest.approx(0.0, abs=1e-300)]
