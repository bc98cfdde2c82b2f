"""Products, lengths and softmax with the same bits on every CPU.

The order in which BLAS adds depends on its kernel, and so on the CPU. A sum of integers below 2^53 does not depend on
the order. Rows are therefore rounded to a grid of 2^-26 of their length: all partial sums of the product of two such
rows are integers of at most 2^52, by the inequality of Cauchy and Schwarz, and BLAS computes them exactly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["lengths", "product", "softmax", "to_unit"]

Float64 = npt.NDArray[np.float64]

BITS = 26
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # ln 2; the first part has 33 bits
LOWEST = -700.0  # exp(-700) is 1e-304
DEGREE = 13  # of the Taylor series of exp on |x| <= ln 2 / 2: its error is below 2^-53


def product(left: npt.ArrayLike, right: npt.ArrayLike) -> Float64:
    """Return ``left @ right.T`` for rows rounded to 26 bits of their length.

    Parameters
    ----------
    left : array_like of shape (n, d)
    right : array_like of shape (m, d)

    Returns
    -------
    ndarray of shape (n, m), float64
        Each element has an error of at most 2^-25 of the product of the lengths of its two rows.
    """
    rows, row_units = _to_integers(left)
    others, other_units = _to_integers(right)
    result: Float64 = rows @ others.T
    result *= row_units[:, None]
    result *= other_units
    return result


def lengths(rows: npt.ArrayLike) -> Float64:
    """Return the Euclidean length of each row, shape (n,); rows of shape (n, d)."""
    values = np.asarray(rows, np.float64)
    squares: Float64 = np.add.reduce(values * values, axis=1)  # NumPy's pairwise order is the same on every CPU
    norms: Float64 = np.sqrt(squares, dtype=np.float64)
    return norms


def to_unit(rows: npt.ArrayLike) -> Float64:
    """Return rows scaled to length 1, shape (n, d); rows of zeros stay."""
    values = np.asarray(rows, np.float64)
    norm = lengths(values)[:, None]
    return np.divide(values, norm, out=np.zeros_like(values), where=norm > 0)


def softmax(logits: npt.ArrayLike) -> Float64:
    """Return the softmax of each row, shape (n, m)."""
    values = np.asarray(logits, np.float64)
    powers = _exp(values - values.max(axis=1, keepdims=True))
    return powers / np.add.reduce(powers, axis=1)[:, None]


def _to_integers(rows: npt.ArrayLike) -> tuple[Float64, Float64]:
    """Return rows as integers of length at most 2^26, and the unit of each row, a power of 2."""
    values = np.asarray(rows, np.float64)
    _, exponents = np.frexp(lengths(values))
    units = np.ldexp(1.0, exponents - BITS)
    return np.rint(values / units[:, None]), units


def _exp(values: Float64) -> Float64:
    """Return exp of values of at most 0, from operations that IEEE 754 defines to the last bit.

    NumPy's exp differs between CPUs with and without AVX-512 in the last bit.
    """
    values = np.maximum(values, LOWEST)
    quotient = np.rint(values / (LN2_HIGH + LN2_LOW))
    rest = (values - quotient * LN2_HIGH) - quotient * LN2_LOW
    result = np.ones_like(rest)
    for n in range(DEGREE, 0, -1):
        result = result * rest / n + 1.0
    powers: Float64 = np.ldexp(result, quotient.astype(np.int64))
    return powers
