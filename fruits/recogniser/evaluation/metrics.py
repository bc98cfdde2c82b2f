"""Numbers of an evaluation, from predictions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 10
Z = 1.959963984540054  # the 97.5 % point of the normal distribution
CONFUSIONS = 20
MISTAKES = 20
COVERAGES = tuple(range(100, 0, -5))  # per cent

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The recognition of one labelled image.

    Attributes
    ----------
    path : str
    label : str
        The true class.
    top : tuple of str
        The most probable classes, at most five, the most probable first.
    confidence : float
        The probability of the first.
    reason : str or None
        The reason of a rejection.
    """

    path: str
    label: str
    top: tuple[str, ...]
    confidence: float
    reason: str | None

    @property
    def is_right(self) -> bool:
        """True if the most probable class is the true one."""
        return self.top[0] == self.label


@dataclass(frozen=True, slots=True)
class UnknownImages:
    """The images whose label the recogniser does not know, and how many of them it rejected."""

    images: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin of the reliability diagram: its bounds, its images, their mean confidence and their accuracy."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class ClassResult:
    """A class: its images, and the precision and the recall of its predictions; None if there are none."""

    label: str
    images: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """A pair of classes: images of `label` that were recognised as `prediction`, and the path of the surest one."""

    label: str
    prediction: str
    images: int
    example: str


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """The accuracy of the surest images, and the least confidence among them."""

    coverage: float
    accuracy: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """The numbers of an evaluation. Fractions are in [0, 1]; rejections count in `kept` and `kept_accuracy` alone.

    Attributes
    ----------
    images : int
    top1, top5 : float
        The fraction of images whose class is the first, or one of the first five.
    interval : tuple of two floats
        The 95 % Wilson interval of `top1`.
    ece : float
        The expected calibration error: the mean over images of the distance between the confidence and the accuracy of
        their bin, ten bins of equal width. With few images, also a calibrated recogniser has an error.
    kept : float
        The fraction of images that were not rejected.
    kept_accuracy : float or None
        The accuracy among these.
    rejected : dict of str to int
        Rejected images by reason.
    reliability : list of Bin
        Bins with images.
    coverage : list of CoveragePoint
        From all images to the surest 5 %.
    classes : list of ClassResult
        The classes, sorted by recall.
    confusions : list of Confusion
        The most frequent pairs, at most 20.
    mistakes : list of Outcome
        The surest wrong images that were not rejected, at most 20.
    """

    images: int
    top1: float
    top5: float
    interval: tuple[float, float]
    ece: float
    kept: float
    kept_accuracy: float | None
    rejected: dict[str, int]
    reliability: list[Bin]
    coverage: list[CoveragePoint]
    classes: list[ClassResult]
    confusions: list[Confusion]
    mistakes: list[Outcome]


def measure(outcomes: Sequence[Outcome]) -> Metrics:
    """Return the numbers of outcomes, at least one, in any order."""
    ordered = sorted(outcomes, key=lambda each: (-each.confidence, each.path))
    right = np.array([each.is_right for each in ordered])
    confidence = np.array([each.confidence for each in ordered])
    kept = np.array([each.reason is None for each in ordered])
    reliability = _reliability(confidence, right)
    return Metrics(
        images=len(ordered),
        top1=float(right.mean()),
        top5=sum(each.label in each.top for each in ordered) / len(ordered),
        interval=wilson(int(right.sum()), len(ordered)),
        ece=sum(each.images * abs(each.confidence - each.accuracy) for each in reliability) / len(ordered),
        kept=float(kept.mean()),
        kept_accuracy=float(right[kept].mean()) if kept.any() else None,
        rejected=dict(sorted(Counter(each.reason for each in ordered if each.reason is not None).items())),
        reliability=reliability,
        coverage=_coverage(confidence, right),
        classes=_classes(ordered),
        confusions=_confusions(ordered),
        mistakes=[each for each in ordered if not each.is_right and each.reason is None][:MISTAKES],
    )


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson, "Probable inference, the law of succession …", 1927)."""
    share = successes / trials
    centre = share + Z * Z / (2 * trials)
    half = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials))
    scale = 1 + Z * Z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _reliability(confidence: Float64, right: npt.NDArray[np.bool_]) -> list[Bin]:
    numbers = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return [
        Bin(
            low=number / BINS,
            high=(number + 1) / BINS,
            images=int((numbers == number).sum()),
            confidence=float(confidence[numbers == number].mean()),
            accuracy=float(right[numbers == number].mean()),
        )
        for number in np.unique(numbers).tolist()
    ]


def _coverage(confidence: Float64, right: npt.NDArray[np.bool_]) -> list[CoveragePoint]:
    """Return points of images sorted by decreasing confidence."""
    points = []
    for percent in COVERAGES:
        count = max(1, round(len(right) * percent / 100))
        points.append(CoveragePoint(count / len(right), float(right[:count].mean()), float(confidence[count - 1])))
    return points


def _classes(outcomes: Sequence[Outcome]) -> list[ClassResult]:
    images = Counter(each.label for each in outcomes)
    predicted = Counter(each.top[0] for each in outcomes)
    hits = Counter(each.label for each in outcomes if each.is_right)
    results = [
        ClassResult(
            label=label,
            images=images[label],
            precision=hits[label] / predicted[label] if predicted[label] else None,
            recall=hits[label] / images[label] if images[label] else None,
        )
        for label in images.keys() | predicted.keys()
    ]
    return sorted(results, key=lambda each: (2.0 if each.recall is None else each.recall, each.label))


def _confusions(outcomes: Sequence[Outcome]) -> list[Confusion]:
    """Return the most frequent pairs of outcomes sorted by decreasing confidence."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for each in outcomes:
        if not each.is_right:
            pairs.setdefault((each.label, each.top[0]), []).append(each.path)
    most = sorted(pairs, key=lambda pair: (-len(pairs[pair]), pair))[:CONFUSIONS]
    return [Confusion(*pair, len(pairs[pair]), pairs[pair][0]) for pair in most]
