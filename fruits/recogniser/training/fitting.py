"""Fitting of a scorer to groups: the labels of each source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fruits.model.moments import Moments
from fruits.recogniser.methods import Method
from fruits.recogniser.products import product, to_grid
from fruits.recogniser.scoring import UNKNOWN, Scorer
from fruits.recogniser.training.discriminant import discriminant, within_covariance
from fruits.recogniser.training.prototypes import find_prototypes, prototypes_of_group
from fruits.recogniser.training.sample import Sample

LEAST_VARIANCE = 1e-12  # if all images of each label are equal

Float64 = npt.NDArray[np.float64]
Chosen = Sequence[npt.NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The summary of the images of one source.

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


class Group(NamedTuple):
    """A label of a source, its class or `UNKNOWN`, and its rows: the crops of its images times their weight."""

    source: int
    label: str
    class_index: int
    rows: int


class Statistics(NamedTuple):
    """The groups, sorted by class, those of no class last; their means, (g, d); the covariance within them, (d, d)."""

    groups: tuple[Group, ...]
    means: Float64
    within: Float64

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """The counts of the groups."""
        return np.array([group.rows for group in self.groups], np.int64)


class Fit(NamedTuple):
    """A scorer, and the sampled image nearest each prototype: source, label and path."""

    scorer: Scorer
    representatives: tuple[tuple[int, str, str], ...]


def group_statistics(sources: Sequence[Source], moments: Sequence[Moments], labels: Sequence[str]) -> Statistics:
    """Return the statistics of moments, one for each source."""
    index = {label: number for number, label in enumerate(labels)}
    found = []
    for number, (source, own) in enumerate(zip(sources, moments, strict=True)):
        for (label, part), mean in zip(own.classes.items(), own.class_means(), strict=True):
            name = label or ""
            class_index = UNKNOWN if source.classes is None else index[source.classes[name]]
            found.append((Group(number, name, class_index, part.count * source.weight), mean))
    found.sort(key=lambda each: (each[0].class_index == UNKNOWN, each[0].class_index, each[0].source, each[0].label))
    groups, means = tuple(group for group, _ in found), np.stack([mean for _, mean in found])
    total = Moments.sum_all(own for source, own in zip(sources, moments, strict=True) for _ in range(source.weight))
    counts = np.array([group.rows for group in groups], np.int64)
    return Statistics(groups, means, within_covariance(total.covariance(), counts, means))


def without_group(statistics: Statistics, number: int, rows: npt.NDArray[np.float32]) -> Statistics:
    """Return the statistics without a group, whose covariance is taken from a sample of its rows, (n, d)."""
    counts = statistics.counts
    own = Moments.from_features(rows)
    covariance = own.covariance() * ((own.count - 1) / own.count)
    rest = int(counts.sum() - counts[number])
    within = (statistics.within * int(counts.sum()) - covariance * int(counts[number])) / rest
    groups = statistics.groups[:number] + statistics.groups[number + 1 :]
    return Statistics(groups, np.delete(statistics.means, number, axis=0), within)


def fit(statistics: Statistics, samples: Sequence[Sample], chosen: Chosen, method: Method = "prototypes") -> Fit:
    """Return the scorer of groups, with prototypes of the chosen rows of the samples, one for each source.

    A group without a chosen row has no prototype. With the method ``linear``, every group has one, its mean direction:
    the class of the largest cosine is then that of the largest of linear functions of the features.

    Raises
    ------
    DatasetError
        No feature varies.
    """
    space = discriminant(statistics.within, statistics.counts, statistics.means)
    directions = to_grid(space.projection.T)
    prototypes, lengths, spreads, classes, representatives = [], [], [], [], []
    variance = max(float(np.add.reduce(np.diagonal(statistics.within))), LEAST_VARIANCE)
    rows = _rows_by_group(samples, chosen)
    for group in statistics.groups:
        members, sample = rows.get((group.source, group.label)), samples[group.source]
        if members is None:
            continue
        crops = sample.features.shape[1]
        features = sample.features[members].reshape(len(members) * crops, -1)
        points = product(features - space.mean, directions)
        most = 1 if method == "linear" else prototypes_of_group(len(members), len(statistics.groups))
        found = find_prototypes(points, most)
        prototypes.append(found.directions)
        lengths.append(found.lengths)
        spreads += [_spread(features, variance)] * len(found.lengths)
        classes += [group.class_index] * len(found.lengths)
        representatives += [(group.source, group.label, sample.paths[members[row // crops]]) for row in found.nearest]
    scorer = Scorer(
        mean=space.mean,
        projection=space.projection,
        prototypes=np.concatenate(prototypes),
        lengths=np.concatenate(lengths),
        spreads=np.array(spreads),
        classes=np.array(classes, np.int64),
    )
    return Fit(scorer, tuple(representatives))


def _spread(rows: npt.NDArray[np.float32], variance: float) -> float:
    """Return the root mean squared distance of rows, (n, d), from their mean, which is one of the n degrees of freedom.

    In its place, `variance` counts as the squared distance of another row, so that a single row has a spread too.
    """
    values = rows.astype(np.float64)
    offsets = values - np.add.reduce(values, axis=0) / len(values)
    squares = np.add.reduce(np.add.reduce(offsets * offsets, axis=1))
    return float(np.sqrt((squares + variance) / len(values)))


def _rows_by_group(samples: Sequence[Sample], chosen: Chosen) -> dict[tuple[int, str], list[int]]:
    rows: dict[tuple[int, str], list[int]] = {}
    for number, (sample, own) in enumerate(zip(samples, chosen, strict=True)):
        for row in np.flatnonzero(own).tolist():
            rows.setdefault((number, sample.labels[row]), []).append(row)
    return rows
