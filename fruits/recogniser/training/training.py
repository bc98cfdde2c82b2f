"""Training of a recogniser on the driver, from class moments and samples that workers made.

Memory, for g labels in all sources, d features and c crops: moments of 20 MB for each source if d is 1,280, twice, as
held-out rows have their own; sums of 16 g d bytes, twice; the sample, 256 MiB or one image a label; its points in the
discriminant space, 2 KB for each crop of an image. For 10,000 labels that is about 1 GB, for any number of images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from fruits.errors import DatasetError
from fruits.recogniser.methods import Method
from fruits.recogniser.scoring import UNKNOWN, Scorer
from fruits.recogniser.training.calibration import UNCALIBRATED, Calibration, calibrate
from fruits.recogniser.training.fitting import Source, fit, group_statistics
from fruits.recogniser.training.holdout import is_held_out, series

MOST_SCORES = 2**24  # similarities of held-out images in memory, 128 MiB


class Trained(NamedTuple):
    """A trained recogniser.

    Attributes
    ----------
    labels : tuple of str
        The classes, sorted.
    method : {"prototypes", "linear"}
    scorer : Scorer
    calibration : Calibration
    counts : dict of str to int
        The images of each class.
    representatives : tuple of (int, str, str)
        Source, label and path of the sampled image nearest each prototype.
    """

    labels: tuple[str, ...]
    method: Method
    scorer: Scorer
    calibration: Calibration
    counts: dict[str, int]
    representatives: tuple[tuple[int, str, str], ...]


def class_labels(sources: Sequence[Source]) -> tuple[str, ...]:
    """Return the classes of the sources, sorted.

    Raises
    ------
    DatasetError
        There are fewer than two.
    """
    labels = _classes(sources, "fit") | _classes(sources, "held_out")
    if len(labels) < 2:
        raise DatasetError(
            f"{len(labels)} class in the sources: not allowed. Allowed: at least 2. Give images of another class; "
            "images that belong to no class can be given as `unknown`."
        )
    return tuple(sorted(labels))


def _classes(sources: Sequence[Source], part: Literal["fit", "held_out"]) -> set[str]:
    """Return the classes of the images that are not held out, or of those that are."""
    moments = [(source.classes, getattr(source, part)) for source in sources]
    return {classes[label or ""] for classes, own in moments if classes is not None for label in own.classes}


def train(sources: Sequence[Source], method: Method = "prototypes") -> Trained:
    """Return the recogniser of the sources; for the methods see :func:`fruits.recogniser.training.fitting.fit`.

    A preliminary recogniser of the images that are not held out scores the others; temperature and thresholds are
    those of its scores. The result is then trained on all images.

    Raises
    ------
    DatasetError
        There are fewer than two classes, or no feature varies.
    """
    labels = class_labels(sources)
    samples = [source.sample for source in sources]
    calibration = _calibrate(sources, labels, method)
    statistics = group_statistics(sources, [each.fit + each.held_out for each in sources], labels)
    final = fit(statistics, samples, [np.ones(len(sample), bool) for sample in samples], method)
    counts = dict.fromkeys(labels, 0)
    for group in statistics.groups:
        if group.class_index != UNKNOWN:
            source = sources[group.source]
            counts[labels[group.class_index]] += group.rows // (source.weight * source.sample.features.shape[1])
    return Trained(labels, method, final.scorer, calibration, counts, final.representatives)


def _calibrate(sources: Sequence[Source], labels: Sequence[str], method: Method) -> Calibration:
    """Return the calibration on the held-out images of the sources of the largest weight.

    The weights state which images are like those of use: with studio images among them, the confidences of photographs
    are too high. Images of labels that have no other image are left out. Nothing is calibrated if no recogniser can be
    trained on the images that are not held out.
    """
    if len(_classes(sources, "fit")) < 2:
        return UNCALIBRATED
    samples = [source.sample for source in sources]
    held = [np.array([is_held_out(path) for path in sample.paths], bool) for sample in samples]
    try:
        statistics = group_statistics(sources, [each.fit for each in sources], labels)
        preliminary = fit(statistics, samples, [~each for each in held], method)
    except DatasetError:  # they do not differ, but all images do
        return UNCALIBRATED
    index = {label: number for number, label in enumerate(labels)}
    features, classes, weights, names = [], [], [], []
    usable = []
    for source, chosen in zip(sources, held, strict=True):
        if source.classes is not None:
            rows = [row for row in np.flatnonzero(chosen).tolist() if source.sample.labels[row] in source.fit.classes]
            usable.append((source, source.classes, rows))
    largest = max((source.weight for source, _, rows in usable if rows), default=0)
    for number, (source, mapping, rows) in enumerate(usable):
        if source.weight < largest:
            continue
        sampled = Counter(source.sample.labels[row] for row in rows)
        for row in rows:
            label = source.sample.labels[row]
            features.append(source.sample.features[row])
            classes.append(index[mapping[label]])
            weights.append(source.held_out.classes[label].count / sampled[label])
            names.append(f"{number} {series(source.sample.paths[row])}")
    if not features:
        return UNCALIBRATED
    step = -(-len(features) * len(labels) // MOST_SCORES)  # 1, unless their scores take too much memory
    scores = preliminary.scorer.scores(np.stack(features[::step]), len(labels))
    _, codes = np.unique(names[::step], return_inverse=True)
    return calibrate(scores, np.array(classes[::step], np.int64), np.array(weights[::step]), codes)
