"""Count, mean and scatter of features, centred before summation and merged pairwise to avoid cancellation.

The model is solved from one :class:`Moments`, for any number of rows. Partial moments are merged in a fixed tree with
fan-in :data:`FAN_IN` over contiguous shard numbers. The order of additions, and so every bit of the result, depends on
the shards only, not on the engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import safetensors.numpy

if TYPE_CHECKING:
    from typing import Self

__all__ = ["FAN_IN", "Group", "Moments", "levels"]

FAN_IN = 8
BLOCK = 16  # rows of a scatter matrix merged at a time, so that all operands fit into the CPU cache

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """The first two moments of a set of rows.

    Attributes
    ----------
    count : int
        The number of rows.
    mean : ndarray of shape (d,), float64
        The mean of each feature; zeros for an empty set.
    scatter : ndarray of shape (d, d), float64
        The sum of the outer products of each centred row with itself.

    Notes
    -----
    Merging follows Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979), for vectors.
    """

    count: int
    mean: Float64
    scatter: Float64

    @classmethod
    def from_features(cls, features: npt.NDArray[np.float32]) -> Self:
        """Return the moments of features of shape (n, d); n may be 0."""
        count, dimension = features.shape
        if count == 0:
            return cls(0, np.zeros(dimension), np.zeros((dimension, dimension)))
        rows = features.astype(np.float64)
        mean = rows.sum(axis=0) / count
        rows -= mean
        return cls(count, mean, rows.T @ rows)

    def merge(self, other: Moments) -> Moments:
        """Return the moments of the union, with `self` as the first operand of every addition."""
        if other.count == 0:
            return self
        if self.count == 0:
            return other
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        scatter = np.empty_like(self.scatter)
        for start in range(0, len(delta), BLOCK):
            rows = slice(start, start + BLOCK)
            block = np.multiply.outer(delta[rows], delta)  # exactly symmetric, like the sums below
            block *= self.count * other.count / count
            block += self.scatter[rows]
            np.add(block, other.scatter[rows], out=scatter[rows])
        return Moments(count, mean, scatter)

    @staticmethod
    def merge_all(parts: Iterable[Moments]) -> Moments:
        """Return the moments of all parts, merged from left to right; at least one part is required."""
        return reduce(Moments.merge, parts)

    def to_bytes(self) -> bytes:
        """Return the moments in the safetensors format, with the upper triangle of the symmetric scatter only."""
        upper = np.concatenate([row[index:] for index, row in enumerate(self.scatter)])
        arrays = {"count": np.array([self.count], np.int64), "mean": self.mean, "scatter_upper": upper}
        return safetensors.numpy.save(arrays | {"sha256": _checksum(arrays)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the moments encoded by :meth:`to_bytes`.

        Raises
        ------
        ValueError
            The data are corrupt.
        """
        try:
            arrays = safetensors.numpy.load(data)
            if not np.array_equal(arrays.pop("sha256"), _checksum(arrays)):
                raise ValueError("the SHA-256 of its arrays differs from the stated one")
        except (safetensors.SafetensorError, KeyError) as error:
            raise ValueError(f"not moments: {error}") from error
        mean, upper = arrays["mean"], arrays["scatter_upper"]
        if len(upper) != len(mean) * (len(mean) + 1) // 2:
            raise ValueError(f"not moments: {len(upper)} numbers for the scatter of {len(mean)} features")
        scatter = np.empty((len(mean), len(mean)))
        place = 0
        for index in range(len(mean)):
            row = upper[place : place + len(mean) - index]
            scatter[index, index:] = scatter[index:, index] = row
            place += len(row)
        return cls(int(arrays["count"][0]), mean, scatter)


@dataclass(frozen=True, slots=True)
class Group:
    """One node of the merge tree: it merges the nodes `start` to `stop - 1` of the level below.

    Attributes
    ----------
    level : int
        1 for a node that merges shards of features, 2 for one that merges nodes of level 1, and so on.
    index : int
        Number within the level.
    start, stop : int
        Range of the merged shards or nodes.
    """

    level: int
    index: int
    start: int
    stop: int

    def __str__(self) -> str:
        return f"moments level {self.level}, group {self.index} ({self.start} to {self.stop - 1})"


def _checksum(arrays: Mapping[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.uint8]:
    digest = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays)))
    return np.frombuffer(digest.digest(), np.uint8)


def levels(shards: int) -> Sequence[Sequence[Group]]:
    """Return the merge tree over `shards` shards, level by level; the last level is a single group.

    Examples
    --------
    >>> [[(group.start, group.stop) for group in level] for level in levels(10)]
    [[(0, 8), (8, 10)], [(0, 2)]]
    """
    tree: list[list[Group]] = []
    size = shards
    while not tree or size > 1:
        level = len(tree) + 1
        starts = range(0, size, FAN_IN)
        tree.append([Group(level, index, start, min(start + FAN_IN, size)) for index, start in enumerate(starts)])
        size = len(starts)
    return tree
