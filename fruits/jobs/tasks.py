"""What runs on a worker: each task takes one small item, reads and writes storage, and returns a small report.

A task may run twice, or on two workers at once: it writes the same bytes under the same names, and the file that
counts as "done" is always the last one it writes.
"""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import TypeVar

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from fruits.errors import DamageError
from fruits.images.decode import ImageError, decode
from fruits.images.isolation import IsolatedDecoder
from fruits.images.listing import ImageEntry
from fruits.images.plan import Partition, plan_file, planned
from fruits.model.moments import Group, Moments
from fruits.model.rows import encode_rows, features_table, rejects_table
from fruits.model.scaled_pca import ScaledPCA
from fruits.network.backbones import backbone
from fruits.network.featurizer import NeuralNetwork
from fruits.storage.checksums import Damage, PartError, checksum, read_part
from fruits.storage.folder import Folder, part_name
from fruits.storage.parquet import read_table, vectors, write_table
from fruits.storage.prefetch import MAX_BYTES, ChangedFileError
from fruits.text import utf8

__all__ = [
    "Batch",
    "Checked",
    "PartReport",
    "Parts",
    "Rows",
    "Source",
    "check",
    "featurize",
    "merge",
    "moments_name",
    "survey",
    "transform",
    "write_rows",
]

# Pictures that are decoded one after the other before the network sees them, one by one: in turn with each other, the
# two would drive one another out of the core's caches, which costs a third of the time of decoding.
GROUP = 16
# The key, in the metadata of a rejects part, under which it tells what became of its images.
ACCOUNT = b"fruits.account"
# Reading fails like this when the file is at fault; anything else may be the storage's fault, and is tried again.
FILE_AT_FAULT = {
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

Decoder = Callable[[bytes, int], NDArray[np.uint8]]

Item = TypeVar("Item")
Shared = TypeVar("Shared")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Source:
    """What every worker needs to turn partitions into features: where they are, where to write, and the network."""

    images: Folder
    out: Folder
    network: NeuralNetwork


@dataclass(frozen=True, slots=True)
class Rows:
    """How rows are made of features, and where they go."""

    out: Folder
    model: ScaledPCA
    format: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some partitions that are done, looked at together.

    Attributes
    ----------
    partitions : tuple of Partition
        Each with the SHA-256 of its rejects and of its `folder`, where the manifest knows them.
    folder, suffix : str
        Of what was written last of each: ``features`` or ``rows``.
    """

    partitions: tuple[Partition, ...]
    folder: str
    suffix: str

    def __str__(self) -> str:
        return f"partitions {self.partitions[0].index} to {self.partitions[-1].index}"


@dataclass(frozen=True, slots=True)
class Parts:
    """Some parts, looked at together: their names, and their checksums where the manifest knows them."""

    names: tuple[str, ...]
    checksums: tuple[bytes | None, ...]

    def __str__(self) -> str:
        return f"{self.names[0]} to {self.names[-1]}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of parts that are stored.

    Attributes
    ----------
    checksums : mapping of str to bytes
        The SHA-256 of each that is whole, by its name.
    damages : tuple of Damage
        What is missing or not whole.
    reports : tuple of PartReport
        What became of the partitions that are whole.
    """

    checksums: Mapping[str, bytes] = field(default_factory=dict)
    damages: tuple[Damage, ...] = ()
    reports: tuple[PartReport, ...] = ()


@dataclass(frozen=True, slots=True)
class PartReport:
    """What became of a partition.

    Attributes
    ----------
    index : int
        The number of the partition.
    images, rows : int
        How many images it lists, and how many of them were used.
    rejects : mapping of str to int
        How many were not used, by reason.
    seconds : mapping of str to float
        The time of each step: ``read``, ``decode``, ``network``, ``write``; empty when the work was found done.
    checksums : mapping of str to bytes
        The SHA-256 of each part that was written, by its name.
    """

    index: int
    images: int
    rows: int
    rejects: Mapping[str, int]
    seconds: Mapping[str, float] = field(default_factory=dict)
    checksums: Mapping[str, bytes] = field(default_factory=dict)


def _returns_damage(task: Callable[[Item, Shared], Result]) -> Callable[[Item, Shared], Result | Checked]:
    """Make a task return the damage of a part that it reads: the driver has that part made again, and not the task."""

    @wraps(task)
    def returning(item: Item, shared: Shared) -> Result | Checked:
        try:
            return task(item, shared)
        except PartError as error:
            return Checked(damages=(error.damage,))

    return returning


@_returns_damage
def featurize(partition: Partition, source: Source) -> PartReport:
    """Write ``rejects/`` and then ``features/`` of a partition."""
    clock = _Clock()
    with _decoder(partition, source.out) as decoder:
        features, rejects = _features(partition, source, decoder, clock)
        with clock("write"):
            part = f"features/{part_name(partition.index, 'parquet')}"
            report = _write(partition, rejects, part, write_table(features), source.out)
    return replace(report, seconds=clock.seconds)


@_returns_damage
def transform(partition: Partition, shared: tuple[Source, Rows]) -> PartReport:
    """Write ``rejects/`` and then ``rows/`` of a partition, with a fitted model and no stored features between."""
    source, rows = shared
    clock = _Clock()
    with _decoder(partition, source.out) as decoder:
        features, rejects = _features(partition, source, decoder, clock)
        with clock("write"):
            data = encode_rows(features, rows.model, rows.format, rows.columns)
            part = f"rows/{part_name(partition.index, rows.format)}"
            report = _write(partition, rejects, part, data, source.out)
    return replace(report, seconds=clock.seconds)


@_returns_damage
def write_rows(partition: Partition, rows: Rows) -> PartReport:
    """Write ``rows/`` of a partition from its stored features."""
    clock = _Clock()
    with clock("read"):
        (expected,) = partition.inputs or (None,)
        table = read_table(read_part(rows.out, f"features/{part_name(partition.index, 'parquet')}", expected))
    with clock("write"):
        name = f"rows/{part_name(partition.index, rows.format)}"
        data = encode_rows(table, rows.model, rows.format, rows.columns)
        rows.out.write(name, data)
    written = {name: checksum(data)}
    return PartReport(partition.index, partition.images, table.num_rows, {}, clock.seconds, written)


@_returns_damage
def merge(group: Group, out: Folder) -> Checked:
    """Write one node of the tree of moments from the shards of features, or the nodes, below it."""
    indices = range(group.start, group.stop)
    inputs = zip(indices, group.inputs or (None,) * len(indices), strict=True)
    if group.level == 1:
        shards = (read_part(out, f"features/{part_name(index, 'parquet')}", expected) for index, expected in inputs)
        parts = (Moments.of(vectors(read_table(data, ["features"])["features"])) for data in shards)
    else:
        nodes = (read_part(out, moments_name(group.level - 1, index), expected) for index, expected in inputs)
        parts = (Moments.from_bytes(data) for data in nodes)
    name, data = moments_name(group.level, group.index), Moments.merged(parts).to_bytes()
    out.write(name, data)
    return Checked({name: checksum(data)})


def moments_name(level: int, index: int) -> str:
    """Return the name, below the output folder, of a node of the tree of moments."""
    return f"moments/level-{level}/{part_name(index, 'safetensors')}"


def survey(batch: Batch, out: Folder) -> Checked:
    """Return the reports of partitions that are done already, from what they stored, which is verified."""
    reports: list[PartReport] = []
    damages: list[Damage] = []
    for partition in batch.partitions:
        name = f"rejects/{part_name(partition.index, 'parquet')}"
        last = f"{batch.folder}/{part_name(partition.index, batch.suffix)}"
        known, known_last = partition.inputs or (None, None)
        try:
            data = _read_whole(out, name, known)
            report, stated = _account(partition, name, read_table(data))
            found = checksum(read_part(out, last, known_last or stated))
        except PartError as error:
            damages.append(error.damage)
        else:
            reports.append(replace(report, checksums={name: checksum(data), last: found}))
    return Checked(damages=tuple(damages), reports=tuple(reports))


def check(parts: Parts, out: Folder) -> Checked:
    """Return the checksums of parts that are stored, and which of them are missing or damaged."""
    checksums: dict[str, bytes] = {}
    damages: list[Damage] = []
    for name, known in zip(parts.names, parts.checksums, strict=True):
        try:
            checksums[name] = checksum(_read_whole(out, name, known))
        except PartError as error:
            damages.append(error.damage)
    return Checked(checksums, tuple(damages))


def _read_whole(out: Folder, name: str, known: bytes | None) -> bytes:
    """Return the bytes of a part; one that the manifest does not know has to tell of itself that it is whole."""
    data = read_part(out, name, known)
    if known is None:
        try:
            again = (
                Moments.from_bytes(data).to_bytes() if name.endswith("safetensors") else write_table(read_table(data))
            )
        except (ValueError, OSError, pa.ArrowException) as error:
            raise PartError(name, f"not in the manifest, and cannot be read: {error}") from error
        if again != data:
            raise PartError(name, "not in the manifest, and not as it was written")
    return data


class _Clock:
    """Adds up the seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start


@contextmanager
def _decoder(partition: Partition, out: Folder) -> Iterator[Decoder]:
    """Yield what is to decode a partition: where a worker may have died of it, a process that a picture may end."""
    with (out / "rejects").begun(part_name(partition.index, "parquet")) as before:
        if before:
            with IsolatedDecoder() as isolated:
                yield isolated
        else:
            yield decode


def _features(partition: Partition, source: Source, decoder: Decoder, clock: _Clock) -> tuple[pa.Table, pa.Table]:
    """Return the table of the features of the images that could be used, and that of the other images."""
    with clock("load"):
        entries = _planned(partition, source.out)
        featurizer = source.network.load()
        size = backbone(source.network.backbone).size
        contents = source.images.fetch(entry for entry in entries if not entry.leads_out)
    features = np.empty((len(entries), source.network.features), np.float32)
    pictures = np.empty((GROUP, size, size, 3), np.uint8)
    used: list[ImageEntry] = []
    rejects: list[tuple[str, str | None, str, str]] = []
    for start in range(0, len(entries), GROUP):
        done = len(used)
        for entry in entries[start : start + GROUP]:
            try:
                if entry.leads_out:
                    raise ImageError("unreadable", "its path leads out of the folder of the images")
                with clock("read"):
                    data = _whole(next(contents))
                with clock("decode"):
                    pictures[len(used) - done] = decoder(data, size)
            except ImageError as error:
                rejects.append((utf8(entry.path), entry.label and utf8(entry.label), error.reason, error.detail))
            else:
                used.append(entry)
        with clock("network"):
            features[done : len(used)] = featurizer(pictures[: len(used) - done])
    paths = [utf8(entry.path) for entry in used]
    labels = [entry.label and utf8(entry.label) for entry in used]
    reasons = dict(sorted(Counter(reason for _, _, reason, _ in rejects).items()))
    account = {"images": len(entries), "rows": len(used), "rejects": reasons}
    return features_table(paths, labels, features[: len(used)]), rejects_table(
        rejects, {ACCOUNT: orjson.dumps(account)}
    )


def _planned(partition: Partition, out: Folder) -> list[ImageEntry]:
    name = f"plan/{plan_file(partition)}"
    (expected,) = partition.inputs or (None,)
    data = read_part(out, name, expected)
    try:
        return planned(data, partition)
    except DamageError as error:
        raise PartError(name, str(error)) from error


def _whole(content: bytes | OSError) -> bytes:
    """Return the bytes of an image file, as it was when it was listed.

    Raises
    ------
    ImageError
        The file itself is at fault.
    """
    if isinstance(content, ChangedFileError):
        raise ImageError("changed", str(content)) from content
    if isinstance(content, OSError):
        if content.errno == errno.EFBIG:
            raise ImageError("too-large", f"more than {MAX_BYTES:,} bytes") from content
        if content.errno not in FILE_AT_FAULT and not isinstance(content, FileNotFoundError | PermissionError):
            raise content
        raise ImageError("unreadable", content.strerror or str(content)) from content
    return content


def _write(partition: Partition, rejects: pa.Table, last: str, data: bytes, out: Folder) -> PartReport:
    """Write the rejects of a partition, which state the checksum of what comes last and means that it is done."""
    found = checksum(data)
    account = orjson.loads(rejects.schema.metadata[ACCOUNT]) | {"sha256": found.hex()}
    name = f"rejects/{part_name(partition.index, 'parquet')}"
    table = rejects.replace_schema_metadata({ACCOUNT: orjson.dumps(account)})
    stored = write_table(table)
    out.write(name, stored)
    out.write(last, data)
    report, _ = _account(partition, name, table)
    return replace(report, checksums={name: checksum(stored), last: found})


def _account(partition: Partition, name: str, rejects: pa.Table) -> tuple[PartReport, bytes]:
    """Return what a rejects part tells of its partition, and the checksum of what was written after it."""
    try:
        account = orjson.loads((rejects.schema.metadata or {}).get(ACCOUNT, b"{}"))
        report = PartReport(partition.index, account["images"], account["rows"], account["rejects"])
        last = bytes.fromhex(account["sha256"])
        adds_up = report.rows + rejects.num_rows == partition.images == report.images
        adds_up = adds_up and sum(report.rejects.values()) == rejects.num_rows
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PartError(name, f"no account of a partition: {error!r}") from error
    if not adds_up:
        raise PartError(name, f"its account does not add up to {partition.images} images")
    return report, last
