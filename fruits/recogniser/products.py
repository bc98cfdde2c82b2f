"""Products, lengths and softmax with the same bits on every CPU.

The order in which BLAS adds depends on its kernel, and so on the CPU. A sum of integers below 2^53 does not depend on
the order. Rows are therefore rounded to a grid of 2^-26 of their length: all partial sums of the product of two such
rows are integers of at most 2^52, by the inequality of Cauchy and Schwarz, and BLAS computes them exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

BITS = 26
UNIT_BITS = 24
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # ln 2; the first part has 33 bits
LOWEST = -700.0  # exp(-700) is 1e-304
BLOCK = 128  # rows of a softmax at a time, which fit into the cache: 14,000 rows of 131 take a fifth of the time
DEGREE = 13  # of the Taylor series of exp on |x| <= ln 2 / 2: its error is below 2^-53


class Grid(NamedTuple):
    """Rows rounded to 26 bits of their length: integers, (n, d), and the unit of each row, (n,), a power of 2."""

    integers: Float64
    units: Float64


def to_grid(rows: npt.ArrayLike) -> Grid:
    """Return rows of shape (n, d) on the grid."""
    values = np.asarray(rows, np.float64)
    _, exponents = np.frexp(lengths(values))
    units = np.ldexp(1.0, exponents - BITS)
    return Grid(np.rint(values / units[:, None]), units)


def product(left: npt.ArrayLike, right: Grid) -> Float64:
    """Return ``left @ right.T`` for rows rounded to 26 bits of their length.

    :func:`fruits.model.exact.product.product` has all bits of float64, and takes six times as long.

    Parameters
    ----------
    left : array_like of shape (n, d)
    right : Grid
        Of rows of shape (m, d).

    Returns
    -------
    ndarray of shape (n, m), float64
        Each element has an error of at most 2^-25 of the product of the lengths of its two rows.
    """
    rows = to_grid(left)
    result: Float64 = rows.integers @ right.integers.T
    result *= rows.units[:, None]
    result *= right.units
    return result


def lengths(rows: npt.ArrayLike) -> Float64:
    """Return the Euclidean length of each row, shape (n,); rows of shape (n, d)."""
    values = np.asarray(rows, np.float64)
    squares: Float64 = np.add.reduce(values * values, axis=1)  # NumPy's pairwise order is the same on every CPU
    norms: Float64 = np.sqrt(squares)
    return norms


def to_unit(rows: npt.ArrayLike) -> Float64:
    """Return rows scaled to length 1, shape (n, d); rows of zeros stay."""
    values = np.asarray(rows, np.float64)
    norm = lengths(values)[:, None]
    return np.divide(values, norm, out=np.zeros_like(values), where=norm > 0)


def on_grid(rows: Float64) -> Float64:
    """Return rows of length at most 1 rounded to multiples of 2^-24: float32 has them, and BLAS multiplies exactly."""
    return np.rint(rows * 2.0**UNIT_BITS) * 2.0**-UNIT_BITS


def softmax(logits: npt.ArrayLike) -> Float64:
    """Return the softmax of each row, shape (n, m)."""
    values = np.asarray(logits, np.float64)
    result = np.empty_like(values)
    for start in range(0, len(values), BLOCK):
        rows = values[start : start + BLOCK]
        powers = _exp(rows - rows.max(axis=1, keepdims=True))
        np.divide(powers, np.add.reduce(powers, axis=1)[:, None], out=result[start : start + BLOCK])
    return result


def _exp(values: Float64) -> Float64:
    """Return exp of values of at most 0, from operations that IEEE 754 defines to the last bit.

    NumPy's exp differs between CPUs with and without AVX-512 in the last bit.
    """
    values = np.maximum(values, LOWEST)
    quotient = np.rint(values / (LN2_HIGH + LN2_LOW))
    rest = (values - quotient * LN2_HIGH) - quotient * LN2_LOW
    result = np.ones_like(rest)
    for n in range(DEGREE, 0, -1):
        result *= rest
        result /= n
        result += 1.0
    powers: Float64 = np.ldexp(result, quotient.astype(np.int64))
    return powers
