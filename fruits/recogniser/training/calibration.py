"""Temperature and thresholds from the scores of held-out images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fruits.recogniser.decision import Decision, Thresholds
from fruits.recogniser.products import softmax
from fruits.recogniser.scoring import Scores

__all__ = ["KEPT", "UNCALIBRATED", "Calibration", "calibrate"]

KEPT = 0.95  # of known images
COLDEST, HOTTEST = 1e-3, 1.0  # temperatures
STEPS = 40  # halvings of the range of 1 / temperature, on a logarithmic scale

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class Calibration(NamedTuple):
    """A decision, and the number of held-out images that it was chosen on; if 0, it rejects nothing."""

    decision: Decision
    images: int


UNCALIBRATED = Calibration(Decision(0.05, 0.05, Thresholds(0.0, -1.0, 0.0)), 0)


def calibrate(scores: Scores, classes: Int64, weights: Float64) -> Calibration:
    """Return the calibration on known images.

    The temperatures minimise the negative log-likelihood. It is convex in 1 / temperature; at its minimum, the expected
    similarity under the softmax is that of the true classes (Guo et al., "On calibration of modern neural networks",
    2017). The thresholds reject equal fractions by each of the three criteria, and 5 % together.

    Parameters
    ----------
    scores : Scores
        Of n images, at least one.
    classes : ndarray of shape (n,), int64
        The true classes.
    weights : ndarray of shape (n,), float64
        The number of images that each stands for.
    """
    temperature = _temperature(scores.similarity, classes, weights)
    distance_temperature = _temperature(-scores.distance, classes, weights)
    accepting = Decision(temperature, distance_temperature, UNCALIBRATED.decision.thresholds)
    criteria = accepting.criteria(scores)
    ranks = np.stack([_ranks(each, weights) for each in criteria])
    nearest_unknown = scores.similarity[:, -1] > scores.similarity[:, :-1].max(axis=1)
    worst = np.where(nearest_unknown, 0.0, ranks.min(axis=0))
    limit = _quantile(worst, weights, 1 - KEPT)
    # A criterion rejects the values below its smallest kept one.
    lowest = [float(each[rank >= limit].min()) for each, rank in zip(criteria, ranks, strict=True)]
    return Calibration(accepting._replace(thresholds=Thresholds(*lowest)), len(classes))


def _temperature(similarity: Float64, classes: Int64, weights: Float64) -> float:
    true = similarity[np.arange(len(classes)), classes]
    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(STEPS):
        middle = float(np.sqrt(low * high))
        expected = np.add.reduce(softmax(similarity * middle) * similarity, axis=1)
        if np.add.reduce(weights * (expected - true)) < 0:  # too soft
            low = middle
        else:
            high = middle
    return 1 / float(np.sqrt(low * high))


def _ranks(values: Float64, weights: Float64) -> Float64:
    """Return the fraction of the weight of smaller values, for each value."""
    order = np.argsort(values, kind="stable")
    before = np.cumsum(weights[order]) - weights[order]
    first = np.searchsorted(values[order], values[order], side="left")
    ranks = np.empty_like(values)
    ranks[order] = before[first] / np.add.reduce(weights)
    return ranks


def _quantile(values: Float64, weights: Float64, fraction: float) -> float:
    """Return the largest of the values below which at most a fraction of the weight is."""
    ranks = _ranks(values, weights)
    return float(values[ranks <= fraction].max())
