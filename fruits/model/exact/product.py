"""Matrix products with the same bits on every CPU and for every block of rows.

A row is divided by a power of two that is at least its largest magnitude, and split into three limbs of w bits. Sums of
products of limbs are integers that float64 represents in any order of additions, so that BLAS computes them without
rounding. They are combined in a fixed order, element by element. The splitting follows Ozaki, Ogita, Oishi and Rump,
"Error-free transformations of matrix multiplication by using fast routines of matrix multiplication" (2012).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

SUM_BITS = 52  # of a sum of products; two such sums are added without rounding
LIMBS = 3
LEAST_EXPONENT = -990  # float64 represents 2^(w - 1 + 990)
BLOCK = 512  # rows computed at a time, so that their limbs stay in the CPU cache


def product(left: npt.NDArray[np.floating[Any]], right: npt.NDArray[np.floating[Any]]) -> Float64:
    """Return ``left @ right.T``; an element depends on its row of `left` and its row of `right` alone.

    Parameters
    ----------
    left : ndarray of shape (n, d), float32 or float64
    right : ndarray of shape (k, d), float32 or float64

    Returns
    -------
    ndarray of shape (n, k), float64
        NaN where one of the rows contains NaN or infinity. Otherwise, the error is at most 2^-53 of the element plus
        ``d · 2^(4 - 3w)`` of the product of the largest magnitudes of the two rows, each at least 2^-990, where
        w is 21 bits for d = 1,280 and 20 for d = 8,192.
    """
    rows, terms = left.shape
    width = (SUM_BITS - max(terms - 1, 0).bit_length()) // 2 + 1
    kept = len(right)
    factors, right_exponents = _limbs(right, width)
    factors = factors.reshape(LIMBS * kept, terms)
    result = np.empty((rows, kept))
    for start in range(0, rows, BLOCK):
        limbs, exponents = _limbs(left[start : start + BLOCK], width)
        zero, one, two = (limbs[i] @ factors[: (LIMBS - i) * kept].T for i in range(LIMBS))
        total = zero[:, 2 * kept :] + one[:, kept:] + two
        total *= 2.0**-width
        total += zero[:, kept : 2 * kept] + one[:, :kept]
        total *= 2.0**-width
        total += zero[:, :kept]
        np.ldexp(total, exponents[:, np.newaxis] + right_exponents - 2 * (width - 1), out=result[start : start + BLOCK])
    return result


def _limbs(rows: npt.NDArray[np.floating[Any]], width: int) -> tuple[Float64, npt.NDArray[np.int32]]:
    """Return the limbs of rows, shape (LIMBS, n, d), and their exponents, (n,).

    A row is about ``2^exponent · (l0 · 2^(1 - w) + l1 · 2^(1 - 2w) + l2 · 2^(1 - 3w))``; limbs are in ±2^(w - 1).
    """
    largest = np.abs(rows).max(axis=1, initial=0.0).astype(np.float64)
    finite = np.isfinite(largest)
    exponents = np.maximum(np.frexp(np.where(finite, largest, 1.0))[1], LEAST_EXPONENT)
    limbs = np.empty((LIMBS, *rows.shape))
    rest = rows * np.where(finite, np.ldexp(1.0, width - 1 - exponents), np.nan)[:, np.newaxis]
    for limb in limbs:
        np.rint(rest, out=limb)
        rest -= limb
        rest *= 2.0**width
    return limbs, exponents
