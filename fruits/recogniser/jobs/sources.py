"""Sources of a training: outputs with features, and image folders, which are featurized first."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from fruits.errors import DatasetError, SettingsError
from fruits.executor import Executor
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions
from fruits.jobs import pipeline
from fruits.jobs.fitting import check_crops, without_links
from fruits.jobs.job import Job
from fruits.jobs.stored import StoredJob, feature_source
from fruits.progress.reporter import Progress
from fruits.recogniser.jobs.request import Training
from fruits.storage.folder import Folder
from fruits.text import name_bytes, without_secrets

SOURCES = "sources"  # below the recogniser


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """A source whose features are stored.

    Attributes
    ----------
    job : StoredJob
        The job that computed them.
    weight : int
        The number of times that each image counts.
    is_unknown : bool
        Whether its images belong to no class.
    """

    job: StoredJob
    weight: int
    is_unknown: bool

    @property
    def images(self) -> str:
        """The folder of its images, without credentials."""
        return str(self.job.commit.job["images"])

    @property
    def features(self) -> dict[str, Any]:
        """The identity of its features."""
        features: dict[str, Any] = self.job.commit.job["features"]
        return features

    @property
    def rejects(self) -> int:
        """The number of its images that could not be used."""
        return sum(sum(report.rejects.values()) for report in self.job.accounts().values())


class _Given(NamedTuple):
    """A source as it is given: its address, and the job that stored its features, if it is an output."""

    address: str
    stored: StoredJob | None
    weight: int = 1
    is_unknown: bool = False

    @property
    def images(self) -> str:
        """The folder of its images, without credentials."""
        if self.stored is None:
            return without_secrets(Folder.at(self.address).address)
        return str(self.stored.commit.job["images"])


def open_sources(training: Training, executor: Executor, progress: Progress) -> list[FeatureSource]:
    """Return the sources of a training, the unknown one last; image folders are featurized below `out`.

    Raises
    ------
    DatasetError
        Two sources have the same images, or images have lists of labels.
    SettingsError
        Their features are of different networks, or lack crops.
    """
    weighted = zip(training.sources, training.source_weights, strict=True)
    given = [_Given(address, feature_source(address), weight) for address, weight in weighted]
    if training.unknown is not None:
        given.append(_Given(training.unknown, feature_source(training.unknown), is_unknown=True))
    tested = [] if training.test is None else [_Given(training.test, feature_source(training.test))]
    options = training.source_options()
    if options.given() and all(each.stored for each in given + tested):
        raise SettingsError(
            f"`{next(iter(options.given()))}` with outputs as `sources`: not allowed, because their images are "
            "labelled. Leave it out."
        )
    for each in given:
        if each.stored is not None:
            check_crops(each.address, each.stored.commit.job["features"], training.crops, f"`crops` {training.crops}")
    _check_disjoint([each.images for each in given + tested])
    for each in given + tested:
        check_labels(each.address, each.stored, options)  # before hours of work
    sources = []
    for each in given:
        job = each.stored or _featurized(training, each.address, each.is_unknown, executor, progress)
        sources.append(FeatureSource(job, each.weight, each.is_unknown))
    for each, source in zip(given, sources, strict=True):
        check_labels(each.address, source.job, options)
    _check_alike(sources)
    return sources


def check_labels(address: str, stored: StoredJob | None, options: SourceOptions) -> None:
    """Raise a ``DatasetError`` if a source, or an output, has no images, or if they have lists of labels."""
    images = stored.images() if stored is not None else iter(Listing(open_source(address, options), limit=1))
    first = next(images, None)
    if first is None:
        raise DatasetError(f"{without_secrets(address)}: no image found. Give a folder <label>/<file> of images.")
    if isinstance(first.label, tuple):
        raise DatasetError(
            f"{address}: its images have lists of labels. A recogniser has one label for each image: give a column of "
            "texts as `label_column`, or make one."
        )


def _check_disjoint(images: Sequence[str]) -> None:
    """Raise if a folder of images is another one, or contains it: its images would count twice."""
    for one, other in combinations(sorted(map(without_links, images)), 2):
        if f"{other}/".startswith(f"{one}/"):
            raise DatasetError(
                f"two sources have the images of {other}: {one} and {other}. Give each image once; "
                "`weights` makes a source count several times."
            )


def _featurized(
    training: Training, address: str, is_unknown: bool, executor: Executor, progress: Progress
) -> StoredJob:
    """Featurize a folder of images, or find its features, and return their job."""
    location = Folder.at(address).address
    name = posixpath.basename(location.rstrip("/")).replace("::", "-") or "images"
    digest = hashlib.sha256(name_bytes(without_secrets(location))).hexdigest()[:8]
    out = Folder.at(training.out) / SOURCES / f"{name}-{digest}"
    progress.note(f"features of {without_secrets(address)}")
    job = Job(
        images=address,
        out=out.address,
        **training.source_options().given(),
        crops=training.crops,
        backgrounds=None if is_unknown else training.backgrounds,
        max_reject_fraction=training.max_reject_fraction,
        overwrite=training.overwrite,
        report=training.report,
    )
    pipeline.fit(job, executor, progress=progress)
    stored = feature_source(out.address)
    assert stored is not None
    return stored


def _check_alike(sources: Sequence[FeatureSource]) -> None:
    """Raise unless the features of all sources are of one network, decoding and numeric fingerprint."""
    first, *others = sources
    for other in others:
        for name in ("network", "decode", "fingerprint"):
            if (one := first.features[name]) != (two := other.features[name]):
                raise SettingsError(
                    f"the features of {first.images} and {other.images} differ in their {name}: {one} and {two}. "
                    "Make the features of all sources with the same network, decoding and kind of machine."
                )
