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
    """Limits beyond which an image is rejected.

    Attributes
    ----------
    confidence : float
        The smallest confidence; below it, an image is ``uncertain``.
    similarity : float
        The smallest cosine to a prototype; below it, an image is ``unlike-anything``.
    atypicality : float
        The largest relative Mahalanobis distance; above it, an image is ``unlike-anything``.
    """

    confidence: float
    similarity: float
    atypicality: float


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
    """The temperature, by which similarities are divided before the softmax, and the thresholds."""

    temperature: float
    thresholds: Thresholds

    def decide(self, scores: Scores) -> Decided:
        """Return the decisions on images.

        An image is ``unlike-anything`` if it is nearest to the unknown prototypes, or beyond a threshold of distance.
        """
        probabilities = softmax(scores.similarity / self.temperature)[:, :-1]
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
        top = np.take_along_axis(probabilities, order, axis=1)
        similarity = scores.similarity[:, :-1].max(axis=1)
        unlike = (
            (scores.similarity[:, -1] > similarity)
            | (similarity < self.thresholds.similarity)
            | (scores.atypicality > self.thresholds.atypicality)
        )
        reasons = np.where(unlike, 2, np.where(top[:, 0] < self.thresholds.confidence, 1, 0))
        return Decided(order, top, reasons)
