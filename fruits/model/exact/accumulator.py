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

from fruits.model.exact import words
from fruits.model.exact.words import Int64

__all__ = ["GRID_BITS", "LIMIT", "Accumulator", "representable"]

Float64 = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Label = str | None

GRID_BITS = 36
LIMIT = 2.0**19  # of the magnitude of a value
LIMB_BITS = 20
LIMBS = 3
BLOCK = 1024  # rows of one BLAS call
ROWS = 8192  # rows that float64 sums hold without rounding
TILE = 256  # columns of a tile of products, which fits into the CPU cache
SPLIT = 64  # rows split into limbs at a time, for the same reason


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
        self._counts: dict[Label, int] = {}
        self._sums: dict[Label, Int64] = {}  # of limbs, (LIMBS, d)
        self._limbs = np.empty((LIMBS, BLOCK, dimension))
        self._pair = np.empty((BLOCK, dimension))
        self._tile = np.empty(TILE * TILE)

    def add(self, features: Features, labels: Sequence[Label] | None) -> None:
        """Add the rows of features, (n, d), which must be representable."""
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
        if self._rows + len(block) > ROWS:
            self._flush()
        self._rows += len(block)
        limbs = self._split(block)
        start = 0
        for label, count in runs:
            self._counts[label] = self._counts.get(label, 0) + count
            sums = self._sums.setdefault(label, np.zeros((LIMBS, self.dimension), np.int64))
            for limb, values in limbs.items():
                sums[limb] += values[start : start + count].sum(axis=0).astype(np.int64)
            start += count
        for limb, values in limbs.items():
            self._add_squares((limb,), values)
        for low, high in combinations(limbs, 2):
            self._add_squares((low, high), np.add(limbs[low], limbs[high], out=self._pair[: len(block)]))

    def _split(self, block: Features) -> dict[int, Float64]:
        """Return the limbs that are not all zero, by number, each of shape (n, d)."""
        largest = float(np.abs(block).max(initial=0.0)) * 2.0**GRID_BITS
        top = 0 if largest <= 2**19 else 1 if largest <= 2**39 else 2
        limbs = self._limbs[:, : len(block)]
        for start in range(0, len(block), SPLIT):
            rows = slice(start, start + SPLIT)
            rest = limbs[0, rows]
            np.multiply(block[rows], 2.0**GRID_BITS, out=rest)
            np.rint(rest, out=rest)
            scaled = self._pair[: len(rest)]
            for limb in range(top, 0, -1):
                unit = 2.0 ** (LIMB_BITS * limb)
                values = limbs[limb, rows]
                np.rint(np.multiply(rest, 1 / unit, out=scaled), out=values)
                rest -= np.multiply(values, unit, out=scaled)
        return {limb: limbs[limb] for limb in range(top + 1) if limbs[limb].any()}

    def _add_squares(self, key: tuple[int, ...], values: Float64) -> None:
        """Add the upper triangle of ``values.T @ values``, in tiles."""
        d = self.dimension
        if key not in self._squares:
            self._squares[key] = np.zeros((d, d))
        total = self._squares[key]
        for top in range(0, d, TILE):
            left = values[:, top : top + TILE]
            for start in range(top, d, TILE):
                right = values[:, start : start + TILE]
                shape = left.shape[1], right.shape[1]
                tile = self._tile[: shape[0] * shape[1]].reshape(shape)
                np.matmul(left.T, right, out=tile)
                total[top : top + TILE, start : start + TILE] += tile

    def _flush(self) -> None:
        """Carry the float64 sums into the words of the products."""
        place = 0
        for row in range(self.dimension):
            squares = {key: total[row, row:].astype(np.int64) for key, total in self._squares.items()}
            row_words = self._products[:, place : place + self.dimension - row]
            for key, values in squares.items():
                if len(key) == 2:
                    values = values - squares[key[:1]] - squares[key[1:]]
                words.add_shifted(row_words, values, LIMB_BITS * (key[0] + key[-1]))
            place += self.dimension - row
        words.carry(self._products)
        self._squares.clear()
        self._rows = 0
