"""Exact sums, and sums of outer products, of the rows of feature matrices.

A value x becomes the integer t = round(x · 2^36), in up to three limbs: t = l0 + l1 · 2^20 + l2 · 2^40, each in
[-2^19, 2^19]. float64 represents every partial sum of products of limbs of 8,192 rows, in any order, because
2^40 · 2^13 = 2^53. So BLAS computes the sums without rounding, whatever its kernel and block size.
Two limbs need three products, not four: ab + ba = (a + b)² - a² - b² (Karatsuba and Ofman 1962).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, groupby

import numpy as np
import numpy.typing as npt

from fruits.errors import DamageError
from fruits.model.exact import words
from fruits.model.exact.words import Int64

Float64 = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Label = str | None

GRID_BITS = 36
LIMIT = 2.0**19  # of the magnitude of a value
LIMB_BITS = 20
LIMBS = 3
BLOCK = 2048  # rows of one BLAS call; twice as many are 4 % faster and need 40 MB more
ROWS = 8192  # rows that float64 sums hold without rounding
TILE = 640  # columns of a tile of products, so that only the upper triangle of tiles is computed
SPLIT = 64  # rows split into limbs at a time, so that they stay in the CPU cache
SLAB = 8  # rows of products carried at a time, for the same reason


def representable(features: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Return which rows of features, (n, d), are finite and below 2^19 in magnitude; shape (n,)."""
    return (np.abs(features) < LIMIT).all(axis=1)  # type: ignore[no-any-return]


class Accumulator:
    """Sums of the rows, per label, and of their outer products.

    Parameters
    ----------
    dimension : int
        Number of features, d.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._products = words.zeros(dimension * (dimension + 1) // 2)
        self._squares: dict[tuple[int, ...], Float64] = {}  # by limbs: the sum of the squares of their sum
        self._rows = 0  # in _squares
        self._count = 0  # of limbs in _squares
        self._counts: dict[Label, int] = {}
        self._sums: dict[Label, Int64] = {}  # of limbs, (LIMBS, d)
        self._limbs: list[Float64] = []  # each of shape (BLOCK, d)
        self._scratch = np.empty((SPLIT, dimension))
        self._tile = np.empty(min(TILE, dimension) ** 2)

    def add(self, features: Features, labels: Sequence[Label] | None) -> None:
        """Add the rows of features, (n, d).

        Raises
        ------
        DamageError
            A row is not representable.
        """
        for start in range(0, len(features), BLOCK):
            block = features[start : start + BLOCK]
            if labels is None:
                self._add_block(block, [(None, len(block))])
                continue
            own = labels[start : start + BLOCK]
            runs = [(label, len(list(run))) for label, run in groupby(own)]
            if len(runs) > len(set(own)):
                order = sorted(range(len(own)), key=lambda row: (own[row] is not None, own[row]))
                block = block[order]
                runs = [(label, len(list(run))) for label, run in groupby(own[row] for row in order)]
            self._add_block(block, runs)

    def products(self) -> Int64:
        """Return the sums of t_i · t_j for i ≤ j, row by row: the upper triangle, shape (words, d(d + 1)/2)."""
        self._flush()
        return words.trimmed(self._products)

    def sums(self) -> dict[Label, tuple[int, Int64]]:
        """Return the number of rows of each label, and the sum of t, shape (words, d)."""
        sums = {}
        for label, limbs in self._sums.items():
            total = words.zeros(self.dimension)
            for limb, values in enumerate(limbs):
                words.add_shifted(total, values, LIMB_BITS * limb)
            words.carry(total)
            sums[label] = self._counts[label], words.trimmed(total)
        return sums

    def _add_block(self, block: Features, runs: Sequence[tuple[Label, int]]) -> None:
        count = _limbs_needed(block)
        if self._rows + len(block) > ROWS or (self._rows and count > self._count):
            self._flush()
        self._count = max(count, self._count)
        self._rows += len(block)
        limbs = self._split(block)
        start = 0
        for label, count in runs:
            self._counts[label] = self._counts.get(label, 0) + count
            sums = self._sums.setdefault(label, np.zeros((LIMBS, self.dimension), np.int64))
            for limb, values in enumerate(limbs):
                sums[limb] += values[start : start + count].sum(axis=0).astype(np.int64)
            start += count
        for limb, values in enumerate(limbs):
            self._add_squares((limb,), values)
        for low, high in combinations(range(len(limbs)), 2):
            limbs[low] += limbs[high]
            self._add_squares((low, high), limbs[low])
            limbs[low] -= limbs[high]

    def _split(self, block: Features) -> list[Float64]:
        """Return the limbs of a block, each of shape (n, d)."""
        while len(self._limbs) < self._count:
            self._limbs.append(np.empty((BLOCK, self.dimension)))
        limbs = [limb[: len(block)] for limb in self._limbs[: self._count]]
        for start in range(0, len(block), SPLIT):
            rows = block[start : start + SPLIT]
            rest, *higher = (limb[start : start + SPLIT] for limb in limbs)
            scratch = self._scratch[: len(rows)]
            np.multiply(rows, 2.0**GRID_BITS, out=rest)
            np.rint(rest, out=rest)
            for limb in range(self._count - 1, 0, -1):
                unit = 2.0 ** (LIMB_BITS * limb)
                values = higher[limb - 1]
                np.rint(np.multiply(rest, 1 / unit, out=values), out=values)
                rest -= np.multiply(values, unit, out=scratch)
        return limbs

    def _add_squares(self, key: tuple[int, ...], values: Float64) -> None:
        """Add the upper triangle of ``values.T @ values``, in tiles."""
        d = self.dimension
        is_first = key not in self._squares
        if is_first:
            self._squares[key] = np.empty((d, d))
        total = self._squares[key]
        for top in range(0, d, TILE):
            left = values[:, top : top + TILE].T
            for start in range(top, d, TILE):
                right = values[:, start : start + TILE]
                target = total[top : top + TILE, start : start + TILE]
                if is_first:
                    np.matmul(left, right, out=target)
                else:
                    target += np.matmul(left, right, out=self._tile[: target.size].reshape(target.shape))

    def _flush(self) -> None:
        """Carry the float64 sums into the words of the products."""
        d = self.dimension
        place = 0
        for top in range(0, d, SLAB):
            slab = words.zeros(min(SLAB, d - top), d - top)
            squares = {key: total[top : top + SLAB, top:].astype(np.int64) for key, total in self._squares.items()}
            for key, values in squares.items():
                if len(key) == 2:
                    values -= squares[key[:1]]
                    values -= squares[key[1:]]
                words.add_shifted(slab, values, LIMB_BITS * (key[0] + key[-1]))
            for row in range(slab.shape[1]):
                self._products[:, place : place + d - top - row] += slab[:, row, row:]
                place += d - top - row
        words.carry(self._products)
        self._squares.clear()
        self._rows = self._count = 0


def _limbs_needed(block: Features) -> int:
    """Return the number of limbs, from one to three, that represent the values of a block.

    Raises
    ------
    DamageError
        A value is not representable.
    """
    largest = max(float(block.max(initial=0.0)), -float(block.min(initial=0.0)))
    if not largest < LIMIT:
        raise DamageError(
            "features are NaN, infinite, or at least 2^19 in magnitude. Images with such features are rejects, "
            "so stored features are corrupt. Start the job again with `overwrite`."
        )
    return 1 + (largest > 2.0 ** (19 - GRID_BITS)) + (largest > 2.0 ** (39 - GRID_BITS))
