"""From scores to labels with probabilities, or rejections."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fruits.recogniser.products import softmax
from fruits.recogniser.scoring import Scores

Reason: TypeAlias = Literal["uncertain", "unlike-anything"]

REASONS: tuple[Reason | None, ...] = (None, "uncertain", "unlike-anything")
TOP = 5  # labels of a recognition


class Thresholds(NamedTuple):
    """The doubts and distances of known images that were held out of training, and the least unusual ones rejected.

    Attributes
    ----------
    doubt : tuple of float
        Quantiles of the probability of all classes but the best, increasing.
    distance : tuple of float
        Quantiles of the distance; see :class:`fruits.recogniser.scoring.Scores`.
    product : int
        The smallest product of the two ranks of an image that is not rejected.
    """

    doubt: tuple[float, ...]
    distance: tuple[float, ...]
    product: int


class Decided(NamedTuple):
    """The decisions on n images.

    Attributes
    ----------
    order : ndarray of shape (n, k), int64
        The k most probable classes, the most probable first; k is 5, or the number of classes if that is smaller.
    probabilities : ndarray of shape (n, k), float64
        Their probabilities; the sum of all, and of that of no class, is 1.
    reasons : ndarray of shape (n,), int64
        Index into `REASONS`; 0 for images that are not rejected.
    """

    order: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    reasons: npt.NDArray[np.int64]


class Decision(NamedTuple):
    """The divisor of similarities before the softmax, and thresholds.

    The rank of a doubt or of a distance is 1 plus the number of larger quantiles: it grows with the fraction of known
    images that are as unusual, the p-value of conformal prediction (Vovk et al., "Algorithmic learning in a random
    world", 2005). Their product combines them (Fisher, "Statistical methods for research workers", 4th edition, 1932):
    an image that is a little unusual in both ways is rejected like one that is very unusual in one.
    """

    temperature: float
    thresholds: Thresholds

    def probabilities(self, scores: Scores) -> npt.NDArray[np.float64]:
        """Return the probabilities of the classes, shape (n, classes + 1); the last one is that of no class."""
        return softmax(scores.similarity / self.temperature)

    def ranks(self, scores: Scores, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the ranks of the doubts and of the distances, shape (2, n)."""
        criteria = doubts(probabilities), scores.distance
        quantiles = self.thresholds.doubt, self.thresholds.distance
        return np.stack(
            [
                1 + len(known) - np.searchsorted(np.array(known), values, side="right")
                for known, values in zip(quantiles, criteria, strict=True)
            ]
        )

    def decide(self, scores: Scores) -> Decided:
        """Return the decisions on images.

        The reason of a rejection is that of the smaller rank, ``unlike-anything`` if they are equal. An image is also
        ``unlike-anything`` if it is nearer to the unknown prototypes than to all others.
        """
        probabilities = self.probabilities(scores)
        order = np.argsort(-probabilities[:, :-1], axis=1, kind="stable")[:, :TOP]
        by_doubt, by_distance = self.ranks(scores, probabilities)
        rejected = by_doubt * by_distance < self.thresholds.product
        unlike = scores.nearest_unknown | (rejected & (by_distance <= by_doubt))
        reasons = np.where(unlike, 2, np.where(rejected, 1, 0))
        return Decided(order, np.take_along_axis(probabilities, order, axis=1), reasons)


def doubts(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the probability of all classes but the best, (n,), without the rounding of 1 - confidence."""
    others = probabilities.copy()
    np.put_along_axis(others, probabilities[:, :-1].argmax(axis=1)[:, None], 0.0, axis=1)
    sums: npt.NDArray[np.float64] = np.add.reduce(others, axis=1)
    return sums
