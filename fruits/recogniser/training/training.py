"""Training of a recogniser on the driver, from class moments and samples that workers made.

Memory, for g labels in all sources and d features of c crops: the moments, 20 MB for d = 1,280 for each source, twice,
as held-out rows have their own; the sums of the labels, 16 g d bytes, twice; the sample, at most 256 MiB or one row a label;
its points in the discriminant space, at most 1 KB for each crop of a sampled row. That is less than 1.5 GB for 10,000 labels, for any
number of images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fruits.errors import DatasetError
from fruits.model.moments import Moments
from fruits.recogniser.scoring import UNKNOWN, Scorer
from fruits.recogniser.training.calibration import DEFAULT, Calibration, calibrate
from fruits.recogniser.training.discriminant import discriminant
from fruits.recogniser.training.holdout import is_held_out
from fruits.recogniser.training.prototypes import find_prototypes, prototypes_per_group
from fruits.recogniser.training.sample import Sample

__all__ = ["Source", "Trained", "train"]

MOST_SCORES = 2**24  # similarities of held-out images in memory, 128 MiB

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What is known of the images of one source.

    Attributes
    ----------
    fit, held_out : Moments
        Moments per label of the crops of its images that are not held out, and of those that are; see
        :mod:`fruits.recogniser.training.holdout`.
    sample : Sample
        The sample of all its images.
    weight : int
        The number of times that each image counts.
    classes : mapping of str to str, or None
        The class of each label; None for a source that belongs to no class.
    """

    fit: Moments
    held_out: Moments
    sample: Sample
    weight: int
    classes: Mapping[str, str] | None


class Trained(NamedTuple):
    """A trained recogniser.

    Attributes
    ----------
    labels : tuple of str
        The classes, sorted.
    scorer : Scorer
    calibration : Calibration
    counts : dict of str to int
        The images of each class.
    representatives : tuple of (int, str, str)
        Source, label and path of the sampled image nearest each prototype.
    """

    labels: tuple[str, ...]
    scorer: Scorer
    calibration: Calibration
    counts: dict[str, int]
    representatives: tuple[tuple[int, str, str], ...]


class _Group(NamedTuple):
    """A label of a source: the source, the label, its class, and its images times their weight."""

    source: int
    label: str
    class_index: int
    count: int


def train(sources: Sequence[Source]) -> Trained:
    """Return the recogniser of the sources.

    A preliminary recogniser of the images that are not held out scores the others; temperature and thresholds are
    those of its scores. The result is then trained on all images.

    Raises
    ------
    DatasetError
        There are fewer than two classes, or no feature varies.
    """
    labels = tuple(sorted({name for source in sources if source.classes for name in source.classes.values()}))
    if len(labels) < 2:
        raise DatasetError(
            f"{len(labels)} class in the sources: not allowed. Allowed: at least 2. Give images of another class; "
            "images that belong to none can be given as `unknown`."
        )
    samples = [source.sample for source in sources]
    held = [np.array([is_held_out(path) for path in sample.paths], bool) for sample in samples]
    preliminary = _fit(sources, labels, [source.fit for source in sources], [~each for each in held])
    calibration = _calibrate(sources, preliminary, held)
    moments = [source.fit + source.held_out for source in sources]
    final = _fit(sources, labels, moments, [np.ones(len(sample), bool) for sample in samples])
    counts = dict.fromkeys(labels, 0)
    for group in final.groups:
        if group.class_index != UNKNOWN:
            source = sources[group.source]
            counts[labels[group.class_index]] += group.count // source.weight
    return Trained(labels, final.scorer, calibration, counts, final.representatives)


class _Fit(NamedTuple):
    labels: tuple[str, ...]
    scorer: Scorer
    groups: list[_Group]
    representatives: tuple[tuple[int, str, str], ...]


def _fit(
    sources: Sequence[Source],
    labels: tuple[str, ...],
    moments: Sequence[Moments],
    chosen: Sequence[npt.NDArray[np.bool_]],
) -> _Fit:
    """Return the scorer of moments by source, and of the chosen rows of their samples."""
    crops = sources[0].sample.features.shape[1]
    index = {label: number for number, label in enumerate(labels)}
    groups = [
        _Group(
            number,
            label or "",
            UNKNOWN if source.classes is None else index[source.classes[label or ""]],
            part.count // crops * source.weight,
        )
        for number, (source, own) in enumerate(zip(sources, moments, strict=True))
        for label, part in own.classes.items()
    ]
    counts = np.array([group.count for group in groups], np.int64) * crops
    means = np.concatenate([own.class_means() for own in moments])
    total = Moments.sum_all(own for source, own in zip(sources, moments, strict=True) for _ in range(source.weight))
    space = discriminant(total.covariance(), counts, means)
    known = np.array([group.class_index != UNKNOWN for group in groups])
    between = np.add.reduce(np.square(space.centres) * (counts / counts.sum())[:, None], axis=0)
    scorer = Scorer(
        mean=space.mean,
        projection=space.projection,
        between=between,
        centres=space.centres[known].astype(np.float32),
        prototypes=np.empty((0, len(between)), np.float32),
        classes=np.empty(0, np.int64),
    )
    return _with_prototypes(scorer, labels, groups, [source.sample for source in sources], chosen)


def _with_prototypes(
    scorer: Scorer,
    labels: tuple[str, ...],
    groups: list[_Group],
    samples: Sequence[Sample],
    chosen: Sequence[npt.NDArray[np.bool_]],
) -> _Fit:
    """Return the scorer with the prototypes of all groups, sorted by class; those of no class are last."""
    most = prototypes_per_group(len(groups))
    rows: dict[tuple[int, str], list[int]] = {}
    for number, (sample, own) in enumerate(zip(samples, chosen, strict=True)):
        for row in np.flatnonzero(own):
            rows.setdefault((number, sample.labels[row]), []).append(int(row))
    prototypes, classes, representatives = [], [], []
    for group in sorted(groups, key=lambda each: (each.class_index % (len(labels) + 1), each.source, each.label)):
        members = rows.get((group.source, group.label), [])
        if not members:
            continue
        sample = samples[group.source]
        crops = sample.features.shape[1]
        points = scorer.project(sample.features[members].reshape(len(members) * crops, -1))
        found, nearest = find_prototypes(points, most)
        prototypes.append(found)
        classes += [group.class_index] * len(found)
        representatives += [(group.source, group.label, sample.paths[members[row // crops]]) for row in nearest]
    complete = Scorer(
        mean=scorer.mean,
        projection=scorer.projection,
        between=scorer.between,
        centres=scorer.centres,
        prototypes=np.concatenate(prototypes),
        classes=np.array(classes, np.int64),
    )
    return _Fit(labels, complete, groups, tuple(representatives))


def _calibrate(sources: Sequence[Source], fit: _Fit, held: Sequence[npt.NDArray[np.bool_]]) -> Calibration:
    """Return the calibration on the held-out rows of known classes that the preliminary recogniser has."""
    index = {label: number for number, label in enumerate(fit.labels)}
    present = set(fit.scorer.classes.tolist())
    features, classes, weights = [], [], []
    for source, chosen in zip(sources, held, strict=True):
        if source.classes is None:
            continue
        sampled: dict[str, int] = {}
        for row in np.flatnonzero(chosen):
            sampled[source.sample.labels[row]] = sampled.get(source.sample.labels[row], 0) + 1
        crops = source.sample.features.shape[1]
        for row in np.flatnonzero(chosen):
            label = source.sample.labels[row]
            number = index[source.classes[label]]
            if number in present:
                features.append(source.sample.features[row])
                classes.append(number)
                stands_for = source.held_out.classes[label].count // crops / sampled[label]
                weights.append(source.weight * stands_for)
    if not features:
        return DEFAULT
    kept = max(1, MOST_SCORES // len(fit.labels))
    step = -(-len(features) // kept)  # every row if they fit
    scores = fit.scorer.scores(np.stack(features[::step]), len(fit.labels))
    return calibrate(scores, np.array(classes[::step], np.int64), np.array(weights[::step]))
