"""From scores to labels with probabilities, or rejections."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fruits.recogniser.products import softmax
from fruits.recogniser.scoring import Scores

__all__ = ["REASONS", "TOP", "Decided", "Decision", "Reason", "Thresholds"]

Reason: TypeAlias = Literal["uncertain", "unlike-anything"]

REASONS: tuple[Reason | None, ...] = (None, "uncertain", "unlike-anything")
TOP = 5  # labels of a recognition


class Thresholds(NamedTuple):
    """The smallest values of an image that is not rejected.

    Attributes
    ----------
    confidence : float
        Of the probability of the best class by similarity; below it, an image is ``uncertain``.
    similarity : float
        Of the cosine to a prototype; below it, an image is ``unlike-anything``.
    agreement : float
        Of the probability of the best class by distance; below it, an image is ``uncertain``.
    """

    confidence: float
    similarity: float
    agreement: float


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
    """Divisors of similarities and of distances before the softmax, and thresholds.

    Distances are those of k nearest neighbours; similarities ignore the lengths of points. Images of new objects are
    often between the prototypes of several classes by one of them: the second rejects 3 points more of them.
    """

    temperature: float
    distance_temperature: float
    thresholds: Thresholds

    def criteria(self, scores: Scores) -> npt.NDArray[np.float64]:
        """Return the values that are compared with the thresholds, in their order, shape (3, n)."""
        return self._criteria(scores, self._probabilities(scores))

    def _probabilities(self, scores: Scores) -> npt.NDArray[np.float64]:
        """Return the probabilities of the classes by similarity, shape (n, classes)."""
        return softmax(scores.similarity / self.temperature)[:, :-1]

    def _criteria(self, scores: Scores, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        agreement = softmax(-scores.distance / self.distance_temperature)[:, :-1].max(axis=1)
        return np.stack([probabilities.max(axis=1), scores.similarity[:, :-1].max(axis=1), agreement])

    def decide(self, scores: Scores) -> Decided:
        """Return the decisions on images.

        An image is also ``unlike-anything`` if it is nearer to the unknown prototypes than to all others.
        """
        probabilities = self._probabilities(scores)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
        confidence, similarity, agreement = self._criteria(scores, probabilities)
        unlike = (scores.similarity[:, -1] > similarity) | (similarity < self.thresholds.similarity)
        uncertain = (confidence < self.thresholds.confidence) | (agreement < self.thresholds.agreement)
        reasons = np.where(unlike, 2, np.where(uncertain, 1, 0))
        return Decided(order, np.take_along_axis(probabilities, order, axis=1), reasons)
