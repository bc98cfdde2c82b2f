"""Mean, standard deviation, covariance and correlation from exact integer sums, without cancellation.

With n rows, sums s_i and sums of products S_ij of the integers on the grid, the covariance is N_ij / (n(n - 1)), where
N_ij = n · S_ij - s_i · s_j is computed in integers: digits in base 2^25, in int64. Only then follow a rounding to
np.longdouble, of 64 bits on x86-64, and one to float64. So each result is within one unit in the last place.
Where np.longdouble is no wider than float64, as on Windows, it is a few units.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fruits.errors import DamageError
from fruits.model.exact.accumulator import GRID_BITS
from fruits.model.exact.words import BITS, Int64

Float64 = npt.NDArray[np.float64]
Extended = npt.NDArray[np.longdouble]

DIGIT_BITS = BITS // 2
SLAB = 1 << 15  # values computed at a time, so that their digits stay in the CPU cache


def mean(count: int, sums: Int64) -> Float64:
    """Return the mean of each feature, (d,), from the words of its sum; zeros if there is no row."""
    return _rounded(_extended(sums) / max(count, 1), -GRID_BITS)


def std(count: int, sums: Int64, products: Int64) -> Float64:
    """Return the standard deviation (n - 1) of each feature, (d,); zeros for fewer than two rows."""
    if count < 2:
        return np.zeros(sums.shape[1])
    return _rounded(np.sqrt(_diagonal(count, sums, products) / np.longdouble(count * (count - 1))), -GRID_BITS)


def covariance(count: int, sums: Int64, products: Int64) -> Float64:
    """Return the covariance (n - 1) of the features, (d, d); zeros for fewer than two rows."""
    size = sums.shape[1]
    result = np.zeros((size, size))
    if count >= 2:
        for rows, columns, numerators in _numerators(count, sums, products):
            values = _rounded(numerators / np.longdouble(count * (count - 1)), -2 * GRID_BITS)
            result[rows, columns] = values
            result[columns, rows] = values.T
    return result


def correlation(count: int, sums: Int64, products: Int64) -> Float64:
    """Return the covariance of the scaled features, (d, d): 0 with a constant feature, else the correlation."""
    size = sums.shape[1]
    result = np.zeros((size, size))
    if count >= 2:
        diagonal = _diagonal(count, sums, products)
        diagonal[diagonal == 0] = np.inf
        for rows, columns, numerators in _numerators(count, sums, products):
            values = _rounded(numerators / np.sqrt(diagonal[rows, np.newaxis] * diagonal[columns]), 0)
            result[rows, columns] = values
            result[columns, rows] = values.T
    return result


def _rounded(values: Extended, exponent: int) -> Float64:
    """Return ``values · 2^exponent`` in float64."""
    return (values * np.longdouble(2.0**exponent)).astype(np.float64)


def _diagonal(count: int, sums: Int64, products: Int64) -> Extended:
    """Return N_ii, (d,)."""
    size = sums.shape[1]
    rows = np.arange(size)
    numerators = _numerator(count, products[:, rows * size - rows * (rows - 1) // 2], sums, sums)
    if (numerators < 0).any():
        raise DamageError(
            "moments with a negative variance: rows were subtracted that they did not contain. "
            "Stored moments are corrupt, or of another job. Start the job again with `overwrite`."
        )
    return numerators


def _numerators(count: int, sums: Int64, products: Int64) -> Iterator[tuple[slice, slice, Extended]]:
    """Yield N_ij in slabs that cover the upper triangle: their rows, their columns and the values."""
    size = sums.shape[1]
    starts = np.concatenate([[0], np.cumsum(np.arange(size, 0, -1))])
    top = 0
    while top < size:
        stop = min(size, top + max(1, SLAB // (size - top)))
        slab = np.zeros((len(products), stop - top, size - top), np.int64)
        for row in range(top, stop):
            slab[:, row - top, row - top :] = products[:, starts[row] : starts[row + 1]]
            # Below the diagonal, which lies within the slab, the matrix is its own mirror image.
            slab[:, row - top + 1 : stop - top, row - top] = slab[:, row - top, row - top + 1 : stop - top]
        rows, columns = slice(top, stop), slice(top, size)
        yield rows, columns, _numerator(count, slab, sums[:, rows, np.newaxis], sums[:, np.newaxis, columns])
        top = stop


def _numerator(count: int, products: Int64, left: Int64, right: Int64) -> Extended:
    """Return ``count · products - left · right``; all are words, which broadcast."""
    factors = _digits(np.array([count]))
    terms, left, right = _digits(products), _digits(left), _digits(right)
    length = max(len(factors) + len(terms), len(left) + len(right))
    total = np.zeros((length + 1, *products.shape[1:]), np.int64)
    # A product of digits is at most 2^48, and at most eight are added: int64 holds the sums.
    for low, factor in enumerate(factors):
        for high, values in enumerate(terms):
            total[low + high] += factor * values
    for low, first in enumerate(left):
        for high, second in enumerate(right):
            total[low + high] -= first * second
    return _value(total)


def _digits(words: Int64) -> Int64:
    """Return words as digits in [-2^24, 2^24], without all-zero ones at the top."""
    high = (words + (1 << (DIGIT_BITS - 1))) >> DIGIT_BITS
    digits = np.stack([words - (high << DIGIT_BITS), high], axis=1).reshape(-1, *words.shape[1:])
    count = len(digits)
    while count > 1 and not digits[count - 1].any():
        count -= 1
    return digits[:count]


def _value(digits: Int64) -> Extended:
    """Return the value of digits of any size, which are carried in place."""
    for lower, higher in pairwise(digits):
        carried = (lower + (1 << (DIGIT_BITS - 1))) >> DIGIT_BITS
        lower -= carried << DIGIT_BITS
        higher += carried
    pairs = [low + (high << DIGIT_BITS) for low, high in zip(digits[::2], digits[1::2], strict=False)]
    if len(digits) % 2:
        pairs.append(digits[-1])
    return _extended(np.stack(pairs))


def _extended(words: Int64) -> Extended:
    """Return the value of words in base 2^50, added from the lowest: within 2^-62 of it, relatively."""
    total = words[0].astype(np.longdouble)
    for number, word in enumerate(words[1:], start=1):
        total += word * np.longdouble(2.0 ** (BITS * number))
    return total  # type: ignore[no-any-return]
