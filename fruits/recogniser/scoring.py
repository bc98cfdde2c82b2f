"""Scores of images: similarity to each class, and distance from all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fruits.recogniser.products import Grid, lengths, on_grid, product, to_grid, to_unit

UNKNOWN = -1  # the class of prototypes that belong to no class
SMALLEST = 1e-100  # mean squared distance
BLOCK = 256  # rows at a time, which bounds the memory of the similarities

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class Scores(NamedTuple):
    """Scores of n images, averaged over the crops; the last column is that of the unknown prototypes.

    Attributes
    ----------
    similarity : ndarray of shape (n, classes + 1), float64
        The largest cosine between an image and the prototypes of each class, in [-1, 1]; -1 if there are none.
    distance : ndarray of shape (n,), float64
        The smallest squared distance between an image and a prototype of a class, divided by the spread of the
        prototype; this, divided by its mean over all classes, in [0, 1].
    nearest : ndarray of shape (n, neighbours), int64
        The prototypes with the largest cosine to the whole image, the largest first.
    """

    similarity: Float64
    distance: Float64
    nearest: Int64

    @property
    def nearest_unknown(self) -> npt.NDArray[np.bool_]:
        """The images nearer to the unknown prototypes than to all others, shape (n,)."""
        nearer: npt.NDArray[np.bool_] = self.similarity[:, -1] > self.similarity[:, :-1].max(axis=1)
        return nearer


@dataclass(frozen=True, eq=False, repr=False)
class Scorer:
    """A discriminant space with prototypes in it.

    Attributes
    ----------
    mean : ndarray of shape (d,), float64
        The mean of the training rows.
    projection : ndarray of shape (d, r), float64
        Discriminant directions, of within-class variance 1.
    prototypes : ndarray of shape (p, r), float32
        Directions of the prototypes: rows of length 1 in multiples of 2^-24, sorted by class.
    lengths : ndarray of shape (p,), float64
        Lengths of the prototypes.
    spreads : ndarray of shape (p,), float64
        Root of the mean squared distance of the features of a prototype's label from their mean.
    classes : ndarray of shape (p,), int64
        The class of each prototype; `UNKNOWN` for those of no class, which are last.
    """

    mean: Float64
    projection: Float64
    prototypes: Float32
    lengths: Float64
    spreads: Float64
    classes: Int64

    def project(self, features: npt.NDArray[np.floating]) -> Float64:
        """Return features of shape (n, d) in the space, shape (n, r)."""
        return product(np.asarray(features, np.float64) - self.mean, self._projection)

    @cached_property
    def _projection(self) -> Grid:
        return to_grid(self.projection.T)

    @cached_property
    def _prototypes(self) -> Float64:
        return self.prototypes.astype(np.float64)

    @cached_property
    def _class_starts(self) -> tuple[Int64, Int64]:
        """The first prototype of each class, and the column of the class; that of class -1 is the last."""
        starts = np.flatnonzero(np.diff(self.classes, prepend=-2))
        return starts, self.classes[starts]

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
        starts, columns = self._class_starts
        similarity = np.full((n * crops, classes + 1), -1.0)
        similarity[:, columns] = np.maximum.reduceat(cosines, starts, axis=1)
        sizes = lengths(points)[:, None]
        squares = ((self.lengths - 2.0 * sizes * cosines) * self.lengths + sizes * sizes) / self.spreads
        known = np.count_nonzero(columns != UNKNOWN)  # the unknown prototypes are last
        by_class = np.maximum(np.minimum.reduceat(squares, starts, axis=1)[:, :known], 0.0)
        means = np.add.reduce(by_class, axis=1) / known
        distance = by_class.min(axis=1) / np.maximum(means, SMALLEST)
        return Scores(
            _over_crops(similarity, crops),
            _over_crops(distance[:, None], crops)[:, 0],
            _largest(cosines[::crops], neighbours),
        )


def _largest(values: Float64, count: int) -> Int64:
    """Return the columns of the largest values of each row, (n, count), the first of equal ones first; alter `values`.

    Three passes take a tenth of the time of a sort.
    """
    columns = np.empty((len(values), count), np.int64)
    rows = np.arange(len(values))
    for place in range(count):
        columns[:, place] = values.argmax(axis=1)
        values[rows, columns[:, place]] = -np.inf
    return columns


def _over_crops(values: Float64, crops: int) -> Float64:
    """Return the means over crops: (n * crops, k) to (n, k), added in order."""
    mean: Float64 = np.add.reduce(values.reshape(-1, crops, values.shape[1]), axis=1) / crops
    return mean
