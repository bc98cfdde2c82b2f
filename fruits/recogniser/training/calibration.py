"""Temperature and thresholds from the scores of held-out images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fruits.recogniser.decision import Decision, Thresholds, doubts
from fruits.recogniser.products import softmax
from fruits.recogniser.scoring import Scores

KEPT = 0.95  # of known images
DEVIATIONS = 1.645  # of a normal distribution, below which 95 % of it are
COLDEST, HOTTEST = 1e-3, 1.0  # temperatures
CHANCE = 1e3  # the temperature of images that are hardly ever right: probabilities differ by 0.2 % at most
QUANTILES = 100
STEPS = 40  # halvings of the range of 1 / temperature, on a logarithmic scale

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class Calibration(NamedTuple):
    """A decision, and the number of held-out images that it was chosen on; if 0, it rejects nothing."""

    decision: Decision
    images: int


UNCALIBRATED = Calibration(Decision(0.05, Thresholds((0.0,), (0.0,), 0)), 0)


def calibrate(scores: Scores, classes: Int64, weights: Float64, series: Int64) -> Calibration:
    """Return the calibration on known images.

    The negative log-likelihood is convex in 1 / temperature; at its minimum, the expected similarity under the softmax
    is that of the true classes (Guo et al., "On calibration of modern neural networks", 2017). Few series do not
    determine the minimum well. The temperature is the upper end of its one-sided 95 % confidence interval, so that
    confidences are rather too low than too high. The thresholds reject 5 % of the images.

    Parameters
    ----------
    scores : Scores
        Of n images, at least one.
    classes : ndarray of shape (n,), int64
        The true classes.
    weights : ndarray of shape (n,), float64
        The number of images that each stands for.
    series : ndarray of shape (n,), int64
        The series of each image, from 0; images of one series are not independent.
    """
    temperature = _temperature(scores.similarity, classes, weights, series)
    accepting = Decision(temperature, UNCALIBRATED.decision.thresholds)
    probabilities = accepting.probabilities(scores)
    known = Thresholds(_quantiles(doubts(probabilities), weights), _quantiles(scores.distance, weights), 0)
    decision = accepting._replace(thresholds=known)
    products = np.multiply.reduce(decision.ranks(scores, probabilities), axis=0)
    product = _smallest_kept(np.where(scores.nearest_unknown, 0, products), weights)
    return Calibration(decision._replace(thresholds=known._replace(product=product)), len(classes))


def _temperature(similarity: Float64, classes: Int64, weights: Float64, series: Int64) -> float:
    true = similarity[np.arange(len(classes)), classes]

    def is_too_soft(inverse: float, deviations: float) -> bool:
        expected = np.add.reduce(softmax(similarity * inverse) * similarity, axis=1)
        slopes = np.bincount(series, weights * (expected - true))  # of the negative log-likelihood, by 1 / temperature
        count, slope = len(slopes), np.add.reduce(slopes)
        variance = np.add.reduce(np.square(slopes - slope / count)) * count / max(count - 1, 1)
        return bool(slope < -deviations * np.sqrt(variance))

    low, high, deviations = 1 / HOTTEST, 1 / COLDEST, DEVIATIONS
    if not is_too_soft(low, 0.0):  # the minimum is at a higher temperature
        low, high, deviations = 1 / CHANCE, low, 0.0
    for _ in range(STEPS):
        middle = float(np.sqrt(low * high))
        if is_too_soft(middle, deviations):
            low = middle
        else:
            high = middle
    return 1 / float(np.sqrt(low * high))


def _quantiles(values: Float64, weights: Float64) -> tuple[float, ...]:
    """Return the quantiles of values at the middles of equal parts of their weight, increasing."""
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order])
    middles = (np.arange(QUANTILES) + 0.5) / QUANTILES * sums[-1]
    return tuple(values[order][np.searchsorted(sums, middles)].tolist())


def _smallest_kept(values: Int64, weights: Float64) -> int:
    """Return the largest of the values below which at most 5 % of the weight is."""
    order = np.argsort(values, kind="stable")
    before = np.cumsum(weights[order]) - weights[order]
    first = np.searchsorted(values[order], values[order], side="left")
    return int(values[order][before[first] <= (1 - KEPT) * np.add.reduce(weights)].max())
