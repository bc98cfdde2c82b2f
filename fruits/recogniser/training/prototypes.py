"""Prototypes: spherical k-means of the sampled rows of each group, with the same bits on every CPU.

The start is deterministic: the row nearest the mean direction, then repeatedly the row farthest from all chosen ones
(Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985). Rows are multiples of 2^-24 of
length 1, so that BLAS computes their sums and products exactly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fruits.recogniser.products import on_grid, to_unit

__all__ = ["MOST_PROTOTYPES", "find_prototypes", "prototypes_per_group"]

MOST_PROTOTYPES = 8_192  # of all groups together, unless there are more groups
MOST_PER_GROUP = 64
ITERATIONS = 10

Float64 = npt.NDArray[np.float64]


def prototypes_per_group(groups: int) -> int:
    """Return the largest number of prototypes of each of a number of groups: 1 to 64."""
    return max(1, min(MOST_PER_GROUP, MOST_PROTOTYPES // groups))


def find_prototypes(points: Float64, most: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the prototypes of one group.

    Parameters
    ----------
    points : ndarray of shape (n, r), float64
        Rows of the group in the discriminant space, at least one.
    most : int
        The largest number of prototypes.

    Returns
    -------
    prototypes : ndarray of shape (k, r), float32
        Rows of length 1; k is `most`, or the number of distinct rows if that is smaller.
    nearest : ndarray of shape (k,), int64
        The row nearest each prototype.
    """
    rows = on_grid(to_unit(points))
    prototypes = rows[_spread(rows, most)]
    for _ in range(ITERATIONS if len(prototypes) < len(rows) else 0):
        members = np.argmax(rows @ prototypes.T, axis=1)
        chosen = (members == np.arange(len(prototypes))[:, None]).astype(np.float64)
        sums = on_grid(to_unit(chosen @ rows))
        moved = np.where(sums.any(axis=1, keepdims=True), sums, prototypes)
        if np.array_equal(moved, prototypes):
            break
        prototypes = moved
    nearest = np.argmax(prototypes @ rows.T, axis=1)
    return prototypes.astype(np.float32), nearest


def _spread(rows: Float64, most: int) -> list[int]:
    """Return the rows of the start, at most `most`."""
    centre = to_unit(np.add.reduce(rows, axis=0)[None])
    chosen = [int(np.argmax(rows @ on_grid(centre)[0]))]
    best = rows @ rows[chosen[0]]
    while len(chosen) < min(most, len(rows)):
        farthest = int(np.argmin(best))
        if best[farthest] >= 1 - 2**-20:  # a copy of a chosen row
            break
        chosen.append(farthest)
        best = np.maximum(best, rows @ rows[farthest])
    return chosen
