"""Scores of images: similarity to each class, and distance from all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fruits.recogniser.products import Grid, on_grid, product, to_grid, to_unit

__all__ = ["UNKNOWN", "Scorer", "Scores"]

UNKNOWN = -1  # the class of prototypes that belong to no class
BLOCK = 256  # rows at a time, which bounds the memory of the similarities

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class Scores(NamedTuple):
    """Scores of n images.

    Attributes
    ----------
    similarity : ndarray of shape (n, classes + 1), float64
        The largest cosine between an image and the prototypes of each class, averaged over the crops, in [-1, 1]; the
        last column is that of the unknown prototypes, -1 if there are none.
    atypicality : ndarray of shape (n,), float64
        The relative Mahalanobis distance to the nearest class mean: that distance minus the distance to the mean of
        all rows, averaged over the crops. Larger for images that are unlike every class.
    nearest : ndarray of shape (n, neighbours), int64
        The prototypes with the largest cosine to the whole image, the largest first.
    """

    similarity: Float64
    atypicality: Float64
    nearest: Int64


@dataclass(frozen=True, eq=False, repr=False)
class Scorer:
    """A discriminant space with prototypes in it.

    Attributes
    ----------
    mean : ndarray of shape (d,), float64
        The mean of the training rows.
    projection : ndarray of shape (d, r), float64
        Discriminant directions, of within-class variance 1.
    between : ndarray of shape (r,), float64
        The between-class variance along each direction.
    centres : ndarray of shape (groups, r), float32
        The means of the training labels in the space.
    prototypes : ndarray of shape (p, r), float32
        Rows of length 1 in multiples of 2^-24, sorted by class.
    classes : ndarray of shape (p,), int64
        The class of each prototype; `UNKNOWN` for those of no class, which are last.
    """

    mean: Float64
    projection: Float64
    between: Float64
    centres: Float32
    prototypes: Float32
    classes: Int64

    def project(self, features: npt.NDArray[np.floating]) -> Float64:
        """Return features of shape (n, d) in the space, shape (n, r)."""
        return product(np.asarray(features, np.float64) - self.mean, self._projection)

    @cached_property
    def _projection(self) -> Grid:
        return to_grid(self.projection.T)

    @cached_property
    def _centres(self) -> Grid:
        return to_grid(self.centres)

    @cached_property
    def _prototypes(self) -> Float64:
        return self.prototypes.astype(np.float64)

    def scores(self, features: Float32, classes: int, *, neighbours: int = 3) -> Scores:
        """Return the scores of features of shape (n, crops, d) for a number of classes."""
        blocks = [
            self._block(features[start : start + BLOCK], classes, min(neighbours, len(self.prototypes)))
            for start in range(0, max(len(features), 1), BLOCK)
        ]
        return Scores(*(np.concatenate(arrays) for arrays in zip(*blocks, strict=True)))

    def _block(self, features: Float32, classes: int, neighbours: int) -> Scores:
        n, crops, d = features.shape
        points = self.project(features.reshape(n * crops, d))
        cosines = on_grid(to_unit(points)) @ self._prototypes.T  # exact, as both are on the grid
        starts = np.flatnonzero(np.diff(self.classes, prepend=-2))
        best = np.full((n * crops, classes + 1), -1.0)
        best[:, self.classes[starts]] = np.maximum.reduceat(cosines, starts, axis=1)  # class -1 is the last column
        whole = cosines[::crops]
        order = np.argsort(-whole, axis=1, kind="stable")[:, :neighbours]
        return Scores(_over_crops(best, crops), _over_crops(self._atypicality(points)[:, None], crops)[:, 0], order)

    def _atypicality(self, points: Float64) -> Float64:
        """Return the relative Mahalanobis distance of points of shape (m, r), shape (m,).

        The part of the distances outside the space is the same for every mean, and cancels.
        """
        squares = np.add.reduce(points * points / (1.0 + self.between), axis=1)
        norms = np.add.reduce(points * points, axis=1)
        centre_norms = np.add.reduce(np.square(self.centres, dtype=np.float64), axis=1)
        distances = norms[:, None] - 2.0 * product(points, self._centres) + centre_norms
        nearest: Float64 = distances.min(axis=1) - squares
        return nearest


def _over_crops(values: Float64, crops: int) -> Float64:
    """Return the means over crops: (n * crops, k) to (n, k), added in order."""
    mean: Float64 = np.add.reduce(values.reshape(-1, crops, values.shape[1]), axis=1) / crops
    return mean
