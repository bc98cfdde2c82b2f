"""Turn the images of a partition into features, or, with a fitted model, directly into rows."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fruits.errors import DamageError, SettingsError
from fruits.images.decode import DEFAULT, Decoding, ImageError, decode_crops, resize_crops
from fruits.images.isolation import IsolatedDecoder
from fruits.images.pasting import SIDE, Backgrounds
from fruits.images.sources.entries import ImageEntry, Label
from fruits.images.sources.source import Source
from fruits.images.sources.tables.addressed import Contents
from fruits.jobs.tasks.rejects import Reject, write_partition
from fruits.jobs.tasks.reports import PartitionReport
from fruits.jobs.tasks.rows import RowSettings
from fruits.model.fingerprint import numeric_fingerprint
from fruits.model.moments import representable
from fruits.model.rows import LABEL, LABELS, features_table, label_text
from fruits.network.backbones import backbone
from fruits.network.featurizer import Featurizer, NeuralNetwork
from fruits.plan.changes import is_unchanged
from fruits.plan.pages import decode_images
from fruits.plan.partitions import Partition, Stored
from fruits.storage.checksums import CorruptPartError, read_part
from fruits.storage.commits import OwnedFolder
from fruits.storage.parquet import read_table, write_table
from fruits.text import name_text, without_secrets

# Images that are decoded in a row before the network runs on them, one by one. Alternating the two for each image
# evicts both from the core's caches and makes decoding a third slower.
IMAGES_PER_GROUP = 16
_checked: set[tuple[str, str]] = set()  # networks, by digest and fingerprint, that this process has compared
NON_FINITE = ImageError("non-finite", "its features contain NaN, infinity, or a number of 2^19 or more")

Decoder = Callable[[bytes, int, Decoding], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class StoredFeatures:
    """The features of an earlier job that a partition uses again.

    Attributes
    ----------
    images : Stored
        The slice of the earlier list.
    pages : tuple of (str, bytes)
        The name and the SHA-256 of each page that lists it.
    features : tuple of str and bytes
        The name and the SHA-256 of the features.
    """

    images: Stored
    pages: tuple[tuple[str, bytes], ...]
    features: tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class PlannedPartition:
    """A partition to featurize.

    Attributes
    ----------
    partition : Partition
    pages : tuple of (str, bytes or None)
        The name and the SHA-256 (None: not verified) of each page that lists its images.
    stored : StoredFeatures, optional
        Features to use again.
    """

    partition: Partition
    pages: tuple[tuple[str, bytes | None], ...]
    stored: StoredFeatures | None = None

    def __str__(self) -> str:
        return str(self.partition)


@dataclass(frozen=True, slots=True)
class FeaturizeSettings:
    """The inputs that all partitions share: source, output, network and its fingerprint, decoding, backgrounds."""

    source: Source
    out: OwnedFolder
    network: NeuralNetwork
    fingerprint: str
    decoding: Decoding = DEFAULT
    backgrounds: Backgrounds | None = None


@dataclass(frozen=True, slots=True)
class TransformSettings:
    """The inputs of :func:`transform`: those of :func:`featurize`, and the settings of the rows."""

    featurize: FeaturizeSettings
    rows: RowSettings


def featurize(item: PlannedPartition, settings: FeaturizeSettings) -> PartitionReport:
    """Write ``rejects/`` and then ``features/`` of a partition.

    A partition that uses stored features again also writes ``added/`` and ``removed/``: the rows whose features were
    computed, and the stored rows that it dropped. The network runs on added and changed images only.
    """
    partition, out = item.partition, settings.out
    timer = _StepTimer()
    with timer.step("load"):
        entries = _entries(item.pages, partition.start, partition.images, out)
        stored = _stored_rows(item.stored, entries, out) if item.stored is not None else _StoredRows({}, [], None)
    fresh = [entry for entry in entries if entry.path not in stored.reused]
    with _decoder(partition, out) as decoder:
        added, rejects = _features(fresh, settings, decoder, timer)
    with timer.step("write"):
        if stored.table is None:
            return replace(_write_features(settings, partition, added, rejects, {}), seconds=timer.seconds)
        removed = stored.table.take(pa.array(stored.dropped, pa.int64()))
        others = {
            out.part(kind, partition.index, "parquet"): write_table(table)
            for kind, table in (("added", added), ("removed", removed))
        }
        table = _merged(entries, added, stored)
        report = _write_features(settings, partition, table, rejects, others)
    return replace(report, added=added.num_rows, removed=removed.num_rows, seconds=timer.seconds)


def transform(item: PlannedPartition, settings: TransformSettings) -> PartitionReport:
    """Write ``rejects/`` and then ``rows/`` of a partition, without storing its features."""
    rows, partition = settings.rows, item.partition
    timer = _StepTimer()
    with timer.step("load"):
        entries = _entries(item.pages, partition.start, partition.images, rows.out)
    with _decoder(partition, rows.out) as decoder:
        features, rejects = _features(entries, settings.featurize, decoder, timer)
    with timer.step("write"):
        data = rows.encoder.encode(features)
        name = rows.out.part("rows", partition.index, rows.encoder.format)
        report = write_partition(rows.out, partition, rejects, name, data)
    return replace(report, seconds=timer.seconds)


def _write_features(
    settings: FeaturizeSettings,
    partition: Partition,
    features: pa.Table,
    rejects: list[Reject],
    others: Mapping[str, bytes],
) -> PartitionReport:
    name = settings.out.part("features", partition.index, "parquet", partition.owner)
    return write_partition(settings.out, partition, rejects, name, write_table(features), others)


@dataclass(frozen=True, slots=True)
class _StoredRows:
    """Stored features: the row of each path that is used again, the rows that are dropped, and the table."""

    reused: Mapping[str, int]
    dropped: list[int]
    table: pa.Table | None


def _stored_rows(stored: StoredFeatures, entries: Sequence[ImageEntry], out: OwnedFolder) -> _StoredRows:
    """Select the stored rows of the images that have not changed."""
    images = stored.images
    before = {entry.path: entry for entry in _entries(stored.pages, images.start, images.images, out)}
    table = read_table(read_part(out.folder, *stored.features))
    rows = {path: row for row, path in enumerate(table["path"].to_pylist())}
    reused = {}
    for entry in entries:
        known, row = before.get(entry.path), rows.get(name_text(entry.path))
        if known is not None and row is not None and is_unchanged(known, entry):
            reused[entry.path] = row
    kept = set(reused.values())
    replaced = (rows.get(name_text(path)) for path in before)
    return _StoredRows(reused, [row for row in replaced if row is not None and row not in kept], table)


def _merged(entries: Sequence[ImageEntry], added: pa.Table, stored: _StoredRows) -> pa.Table:
    """Return the rows that were computed and those that are used again, in the order of the images."""
    assert stored.table is not None
    computed = {path: row for row, path in enumerate(added["path"].to_pylist())}
    rows = computed | {name_text(path): len(computed) + row for path, row in stored.reused.items()}
    order = [rows[name] for entry in entries if (name := name_text(entry.path)) in rows]
    known = stored.table if stored.reused else stored.table.slice(0, 0)
    if not added.num_rows:  # whose labels have no type
        added = known.slice(0, 0)
    elif not known.num_rows:
        known = added.slice(0, 0)
    both = pa.concat_tables([added, known.cast(added.schema)])
    starts = [place for place, row in enumerate(order) if place == 0 or row != order[place - 1] + 1]
    runs = [both.slice(order[start], stop - start) for start, stop in pairwise([*starts, len(order)])]
    return pa.concat_tables(runs or [both.slice(0, 0)]).combine_chunks()


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
    with out.begun(out.part("rejects", partition.index, "parquet", partition.owner)) as retried:
        if retried:
            with IsolatedDecoder() as isolated:
                yield isolated
        else:
            yield decode_crops


def _features(
    entries: Sequence[ImageEntry], settings: FeaturizeSettings, decoder: Decoder, timer: _StepTimer
) -> tuple[pa.Table, list[Reject]]:
    """Return the features of the usable images, and the rejects."""
    decoding = settings.decoding
    features = np.empty((len(entries), decoding.crops, settings.network.features), np.float32)
    if not entries:
        return features_table([], [], *features.swapaxes(0, 1)), []
    with timer.step("load"):
        size = backbone(settings.network.backbone).size
        featurizer = checked_featurizer(settings.network, settings.fingerprint)
        read = settings.source.read(entries)
    contents = Contents()

    def pixels(index: int) -> NDArray[np.uint8]:
        with timer.step("read"):
            data = contents.bytes(entries[index].path, next(read))
        with timer.step("decode"):
            return _pixels(data, entries[index].path, size, settings, decoder)

    def network(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with timer.step("network"):
            return featurizer(pixels)

    used: list[ImageEntry] = []
    rejects: list[Reject] = []
    for entry, found in zip(entries, compute(len(entries), pixels, network), strict=True):
        if isinstance(found, ImageError):
            rejects.append(_reject(entry, found))
        else:
            features[len(used)] = found
            used.append(entry)
    contents.check()
    paths = [name_text(entry.path) for entry in used]
    labelled = LABELS if isinstance(entries[0].own_label, tuple) else LABEL
    table = features_table(paths, list(map(_label, used)), *features[: len(used)].swapaxes(0, 1), labelled=labelled)
    return table, rejects


def _pixels(data: bytes, path: str, size: int, settings: FeaturizeSettings, decoder: Decoder) -> NDArray[np.uint8]:
    """Return the crops of an image, pasted onto a background if there are any and its border is white."""
    if settings.backgrounds is not None:
        (whole,) = decoder(data, SIDE, replace(settings.decoding, crops=1))
        if (pasted := settings.backgrounds.paste(whole, path)) is not None:
            return resize_crops(pasted, size, settings.decoding.crops)
    return decoder(data, size, settings.decoding)


def compute(
    count: int, pixels: Callable[[int], NDArray[np.uint8]], featurizer: Featurizer
) -> Iterator[NDArray[np.float32] | ImageError]:
    """Yield the features of each image in order, or the reason why it cannot be used.

    Parameters
    ----------
    count : int
    pixels : callable
        The index of an image → its crops, shape (crops, size, size, 3), or an ``ImageError``; called in order.
    featurizer : Featurizer

    Yields
    ------
    ndarray of float32, shape (crops, d), or ImageError
    """
    for start in range(0, count, IMAGES_PER_GROUP):
        group: list[NDArray[np.uint8] | ImageError] = []
        for index in range(start, min(start + IMAGES_PER_GROUP, count)):
            try:
                group.append(pixels(index))
            except ImageError as error:
                group.append(error)
        decoded = [each for each in group if not isinstance(each, ImageError)]
        rows = iter(_rows(featurizer, decoded) if decoded else ())
        yield from (each if isinstance(each, ImageError) else next(rows) for each in group)


def _rows(featurizer: Featurizer, decoded: list[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32] | ImageError]:
    features = featurizer(np.concatenate(decoded))
    usable = representable(features.reshape(len(decoded), -1))
    for row, is_usable in zip(features.reshape(len(decoded), -1, features.shape[-1]), usable, strict=True):
        yield row if is_usable else NON_FINITE


def checked_featurizer(network: NeuralNetwork, fingerprint: str) -> Featurizer:
    """Return the loaded network, after a check that this machine computes the features of the others."""
    featurizer = network.load()
    if (network.digest, fingerprint) not in _checked:
        found = numeric_fingerprint(featurizer, backbone(network.backbone).size)
        if found != fingerprint:
            raise SettingsError(
                f"the machine {socket.gethostname()} computes other features than the one that started the job "
                f"(fingerprints {found[:12]} and {fingerprint[:12]}): its CPU or its version of "
                f"{network.package} differs. Use workers like the machine of the command, or start the command on a "
                "machine like the workers."
            )
        _checked.add((network.digest, fingerprint))
    return featurizer


def _reject(entry: ImageEntry, error: ImageError) -> Reject:
    return name_text(entry.path), label_text(_label(entry)), error.reason, without_secrets(error.detail)


def _label(entry: ImageEntry) -> Label:
    label = entry.label
    return tuple(map(name_text, label)) if isinstance(label, tuple) else label and name_text(label)


def _entries(pages: Sequence[tuple[str, bytes | None]], start: int, images: int, out: OwnedFolder) -> list[ImageEntry]:
    """Return some images of a stored list."""
    contents = (read_part(out.folder, name, expected) for name, expected in pages)
    try:
        return list(decode_images(contents, start, images))
    except CorruptPartError:
        raise
    except DamageError as error:
        raise CorruptPartError(pages[0][0], str(error)) from error
