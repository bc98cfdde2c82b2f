"""Arrays of large integers: int64 words in base 2^50, each in [-2^49, 2^49), so that a value has one representation.

The first axis of an array of shape (words, …) counts the words, the lowest first. All-zero words at the top, except the
first word, are left out. :data:`MOST` words represent any integer below 2^149 in magnitude.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

BITS = 50
HALF = 1 << (BITS - 1)
MOST = 3
TERMS = 4096  # arrays added before a carry: 2^12 words of at most 2^49 are below 2^63
CHUNK = 1 << 14  # values carried at a time, so that they stay in the CPU cache


def zeros(*shape: int) -> Int64:
    """Return zeros of the given shape with room for :data:`MOST` words."""
    return np.zeros((MOST, *shape), np.int64)


def add_shifted(words: Int64, values: Int64, shift: int) -> None:
    """Add ``values · 2^shift`` to words, in place, without a carry; `shift` is less than ``BITS · (MOST - 1)``.

    The words must be small enough: a call adds less than 2^50 to the lower of two words and ``values / 2`` or less to
    the higher one; or, with a shift of 0, the values to the lowest.
    """
    if shift == 0:
        words[0] += values
        return
    word, low = divmod(shift, BITS)
    words[word] += (values & ((1 << (BITS - low)) - 1)) << low
    words[word + 1] += values >> (BITS - low)


def carry(words: Int64) -> None:
    """Bring every word into [-2^49, 2^49), in place.

    Raises
    ------
    OverflowError
        A value does not fit.
    """
    flat = words.reshape(len(words), -1)
    for start in range(0, flat.shape[1], CHUNK):
        chunk = flat[:, start : start + CHUNK]
        for lower, higher in pairwise(chunk):
            carried = (lower + HALF) >> BITS
            higher += carried
            carried <<= BITS
            lower -= carried
        if len(chunk[-1]) and not (-HALF <= chunk[-1].min() and chunk[-1].max() < HALF):
            raise OverflowError(f"an integer does not fit into {len(words)} words of {BITS} bits")


def trimmed(words: Int64) -> Int64:
    """Return the words without all-zero ones at the top."""
    count = len(words)
    while count > 1 and not words[count - 1].any():
        count -= 1
    return words if count == len(words) else words[:count].copy()


def is_canonical(words: Int64) -> bool:
    """Return whether words are in the range, and all-zero ones at the top are left out."""
    return (
        1 <= len(words) <= MOST
        and -HALF <= words.min(initial=0)
        and words.max(initial=0) < HALF
        and (len(words) == 1 or bool(words[-1].any()))
    )


class Sum:
    """A running sum of words of shape (words, `*shape`), which carries only when it must."""

    def __init__(self, *shape: int) -> None:
        self._total = zeros(*shape)
        self._terms = 0

    def add(self, words: Int64, sign: int = 1) -> None:
        """Add words, or subtract them if `sign` is -1."""
        self._terms += 1
        if self._terms == TERMS:
            carry(self._total)
            self._terms = 1
        part = self._total[: len(words)]
        (np.add if sign > 0 else np.subtract)(part, words, out=part)

    def result(self) -> Int64:
        """Return the sum; nothing can be added afterwards."""
        carry(self._total)
        return trimmed(self._total)
