"""Prototypes: spherical k-means of the sampled rows of each group, with the same bits on every CPU.

The start is deterministic: the row nearest the mean direction, then repeatedly the row farthest from all chosen ones
(Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985). Rows are multiples of 2^-24 of
length 1, so that BLAS computes their sums and products exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fruits.recogniser.products import lengths, on_grid, to_unit

MOST_PROTOTYPES = 8_192  # of all groups together, unless there are more groups
MOST_PER_GROUP = 64
# Of held-out photographs, about 40 of a label, 94.0 % are right with an eighth of the images as prototypes, and 92.8 %
# with 38; of Fruits-360 with 30 images a label, 98.3 and 98.1 %. With 490 images a label, 64 are better than 16.
LEAST_PER_GROUP = 8
IMAGES_PER_PROTOTYPE = 8
ITERATIONS = 10

Float64 = npt.NDArray[np.float64]


def prototypes_of_group(images: int, groups: int) -> int:
    """Return the largest number of prototypes of a group of images: an eighth of them, 8 to 64, or 8,192 in total."""
    wanted = max(LEAST_PER_GROUP, -(-images // IMAGES_PER_PROTOTYPE))
    return max(1, min(wanted, MOST_PER_GROUP, MOST_PROTOTYPES // groups))


class Prototypes(NamedTuple):
    """The k prototypes of a group.

    Attributes
    ----------
    directions : ndarray of shape (k, r), float32
        Rows of length 1.
    lengths : ndarray of shape (k,), float64
        The mean length of the rows of each.
    nearest : ndarray of shape (k,), int64
        The row nearest each.
    """

    directions: npt.NDArray[np.float32]
    lengths: Float64
    nearest: npt.NDArray[np.int64]


def find_prototypes(points: Float64, most: int) -> Prototypes:
    """Return the prototypes of one group: `most`, or one for each distinct direction if these are fewer.

    Parameters
    ----------
    points : ndarray of shape (n, r), float64
        Rows of the group in the discriminant space, at least one.
    most : int
        The largest number of prototypes.
    """
    rows = on_grid(to_unit(points))
    prototypes = rows[_spread(rows, most)]
    for _ in range(ITERATIONS if len(prototypes) < len(rows) else 0):
        sums = on_grid(to_unit(_members(rows, prototypes) @ rows))
        moved = np.where(sums.any(axis=1, keepdims=True), sums, prototypes)
        if np.array_equal(moved, prototypes):
            break
        prototypes = moved
    nearest = np.argmax(prototypes @ rows.T, axis=1)
    own = _members(rows, prototypes)
    counts = np.add.reduce(own, axis=1)
    sizes = lengths(points)
    means = np.add.reduce(own * sizes, axis=1) / np.maximum(counts, 1.0)
    return Prototypes(prototypes.astype(np.float32), np.where(counts > 0, means, sizes[nearest]), nearest)


def _members(rows: Float64, prototypes: Float64) -> Float64:
    """Return 1 for the rows nearest each prototype, and 0 for the others, (k, n)."""
    nearest = np.argmax(rows @ prototypes.T, axis=1)
    members: Float64 = (nearest == np.arange(len(prototypes))[:, None]).astype(np.float64)
    return members


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
