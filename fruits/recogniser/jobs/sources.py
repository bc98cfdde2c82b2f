"""Sources of a training: outputs with features, and image folders, which are featurized first."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

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
from fruits.text import without_secrets

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


def open_sources(training: Training, executor: Executor, progress: Progress) -> list[FeatureSource]:
    """Return the sources of a training, the unknown one last; image folders are featurized below `out`.

    Raises
    ------
    DatasetError
        Two sources have the same images, or images have lists of labels.
    SettingsError
        Their features are of different networks, or lack crops.
    """
    given = [
        (address, weight, False) for address, weight in zip(training.sources, training.source_weights, strict=True)
    ]
    if training.unknown is not None:
        given.append((training.unknown, 1, True))
    found = [feature_source(address) for address, _, _ in given]
    images = [_location(address, stored) for stored, (address, _, _) in zip(found, given, strict=True)]
    tested = [] if training.test is None else [(training.test, feature_source(training.test))]
    images += [_location(address, stored) for address, stored in tested]
    options = training.source_options().given()
    if options and None not in [*found, *(stored for _, stored in tested)]:
        raise SettingsError(
            f"`{next(iter(options))}` with outputs as `sources`: not allowed, because their images are labelled. "
            "Leave it out."
        )
    for stored, (address, _, _) in zip(found, given, strict=True):
        if stored is not None:
            check_crops(address, stored.commit.job["features"], training.crops, f"`crops` {training.crops}")
    _check_disjoint(images)
    for address, stored in [*zip((address for address, _, _ in given), found, strict=True), *tested]:
        check_labels(address, stored, training.source_options())  # before hours of work
    sources = [
        FeatureSource(stored or _featurized(training, address, is_unknown, executor, progress), weight, is_unknown)
        for stored, (address, weight, is_unknown) in zip(found, given, strict=True)
    ]
    for source, (address, _, _) in zip(sources, given, strict=True):
        check_labels(address, source.job, training.source_options())
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


def _location(address: str, stored: StoredJob | None) -> str:
    """Return the folder of the images of a source, without credentials."""
    return without_secrets(Folder.at(address).address) if stored is None else str(stored.commit.job["images"])


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
    digest = hashlib.sha256(without_secrets(location).encode("utf-8", "surrogateescape")).hexdigest()[:8]
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
