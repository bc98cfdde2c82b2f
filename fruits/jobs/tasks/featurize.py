"""Turn the images of a partition into features, or, with a fitted model, directly into rows."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fruits.errors import DamageError
from fruits.images.decode import DEFAULT, Decoding, ImageError, decode_crops
from fruits.images.isolation import IsolatedDecoder
from fruits.images.listing import ImageEntry
from fruits.images.plan import Partition, decode_partition, plan_index
from fruits.jobs.tasks.rejects import Reject, write_partition
from fruits.jobs.tasks.reports import PartitionReport
from fruits.jobs.tasks.rows import RowSettings
from fruits.model.rows import encode_rows, features_table
from fruits.network.backbones import backbone
from fruits.network.featurizer import NeuralNetwork
from fruits.storage.checksums import CorruptPartError, read_part
from fruits.storage.commits import OwnedFolder
from fruits.storage.folder import Folder
from fruits.storage.parquet import write_table
from fruits.storage.prefetch import MAX_BYTES, ChangedFileError
from fruits.text import name_text, without_secrets

__all__ = [
    "IMAGES_PER_GROUP",
    "FeaturizeSettings",
    "PlannedPartition",
    "TransformSettings",
    "featurize",
    "image_bytes",
    "transform",
]

# Images that are decoded in a row before the network runs on them, one by one. Alternating the two for each image
# evicts both from the core's caches and makes decoding a third slower.
IMAGES_PER_GROUP = 16
# Errors that concern one file. Any other error may come from the storage and is retried.
FILE_ERRORS = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.EIO,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENXIO,  # a socket, a FIFO or a device
    errno.ENODEV,
}
NON_FINITE = ImageError("non-finite", "its features contain NaN or infinity")

Decoder = Callable[[bytes, int, Decoding], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class PlannedPartition:
    """A partition to featurize, and the SHA-256 of the plan file that lists its images; None: not verified."""

    partition: Partition
    plan_checksum: bytes | None = None

    def __str__(self) -> str:
        return str(self.partition)


@dataclass(frozen=True, slots=True)
class FeaturizeSettings:
    """The inputs that all partitions share: the image folder, the output folder, the network, and how to decode."""

    images: Folder
    out: OwnedFolder
    network: NeuralNetwork
    decoding: Decoding = DEFAULT


@dataclass(frozen=True, slots=True)
class TransformSettings:
    """The inputs of :func:`transform`: those of :func:`featurize`, and the settings of the rows."""

    featurize: FeaturizeSettings
    rows: RowSettings


def featurize(item: PlannedPartition, settings: FeaturizeSettings) -> PartitionReport:
    """Write ``rejects/`` and then ``features/`` of a partition."""
    return _process(item, settings, settings.out.part("features", item.partition.index, "parquet"), write_table)


def transform(item: PlannedPartition, settings: TransformSettings) -> PartitionReport:
    """Write ``rejects/`` and then ``rows/`` of a partition, without storing its features."""
    rows = settings.rows

    def encode(features: pa.Table) -> bytes:
        return encode_rows(features, rows.model, rows.format, rows.columns)

    return _process(item, settings.featurize, rows.out.part("rows", item.partition.index, rows.format), encode)


def _process(
    item: PlannedPartition, settings: FeaturizeSettings, last: str, encode: Callable[[pa.Table], bytes]
) -> PartitionReport:
    timer = _StepTimer()
    with _decoder(item.partition, settings.out) as decoder:
        features, rejects = _features(item, settings, decoder, timer)
        with timer.step("write"):
            report = write_partition(settings.out, item.partition, rejects, last, encode(features))
    return replace(report, seconds=timer.seconds)


class _StepTimer:
    """Adds up the seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@contextmanager
def _decoder(partition: Partition, out: OwnedFolder) -> Iterator[Decoder]:
    """Yield the decoder of a partition: isolated in its own process if an earlier attempt may have crashed."""
    with out.begun(out.part("rejects", partition.index, "parquet")) as retried:
        if retried:
            with IsolatedDecoder() as isolated:
                yield isolated
        else:
            yield decode_crops


def _features(
    item: PlannedPartition, settings: FeaturizeSettings, decoder: Decoder, timer: _StepTimer
) -> tuple[pa.Table, list[Reject]]:
    """Return the features of the usable images of a partition, and its rejects."""
    with timer.step("load"):
        entries = _entries(item, settings.out)
        featurizer = settings.network.load()
        size, decoding = backbone(settings.network.backbone).size, settings.decoding
        contents = settings.images.fetch(entry for entry in entries if not entry.leads_out)
    features = np.empty((len(entries), decoding.crops, settings.network.features), np.float32)
    pixels = np.empty((IMAGES_PER_GROUP, decoding.crops, size, size, 3), np.uint8)
    used: list[ImageEntry] = []
    rejects: dict[int, Reject] = {}
    for start in range(0, len(entries), IMAGES_PER_GROUP):
        decoded: list[int] = []
        for index, entry in enumerate(entries[start : start + IMAGES_PER_GROUP], start):
            try:
                if entry.leads_out:
                    raise ImageError("unreadable", "its path leads out of the image folder")
                with timer.step("read"):
                    data = image_bytes(next(contents))
                with timer.step("decode"):
                    pixels[len(decoded)] = decoder(data, size, decoding)
            except ImageError as error:
                rejects[index] = _reject(entry, error)
            else:
                decoded.append(index)
        with timer.step("network"):
            computed = featurizer(pixels[: len(decoded)].reshape(-1, size, size, 3))
            computed = computed.reshape(len(decoded), *features.shape[1:])
        for index, row in zip(decoded, computed, strict=True):
            if np.isfinite(row).all():
                features[len(used)] = row
                used.append(entries[index])
            else:
                rejects[index] = _reject(entries[index], NON_FINITE)
    paths = [name_text(entry.path) for entry in used]
    table = features_table(paths, list(map(_label, used)), *features[: len(used)].swapaxes(0, 1))
    return table, [rejects[index] for index in sorted(rejects)]


def _reject(entry: ImageEntry, error: ImageError) -> Reject:
    return name_text(entry.path), _label(entry), error.reason, without_secrets(error.detail)


def _label(entry: ImageEntry) -> str | None:
    return None if entry.label is None else name_text(entry.label)


def _entries(item: PlannedPartition, out: OwnedFolder) -> list[ImageEntry]:
    """Return the images of a partition from the stored plan."""
    name = out.part("plan", plan_index(item.partition), "parquet")
    data = read_part(out.folder, name, item.plan_checksum)
    try:
        return decode_partition(data, item.partition)
    except DamageError as error:
        raise CorruptPartError(name, str(error)) from error


def image_bytes(content: bytes | OSError) -> bytes:
    """Return the content of an image file, or raise the reason why it is a reject.

    Raises
    ------
    ImageError
        The file changed since it was listed, is too large, or cannot be read.
    OSError
        The storage failed; the task is retried.
    """
    if isinstance(content, ChangedFileError):
        raise ImageError("changed", str(content)) from content
    if isinstance(content, OSError):
        if content.errno == errno.EFBIG:
            raise ImageError("too-large", f"more than {MAX_BYTES:,} bytes") from content
        if content.errno not in FILE_ERRORS and not isinstance(content, FileNotFoundError | PermissionError):
            raise content
        raise ImageError("unreadable", content.strerror or str(content)) from content
    return content
