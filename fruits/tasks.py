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

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from fruits.arrow import vectors, write_table
from fruits.backbones import backbone
from fruits.dataset import Entry, Partition, read_partition
from fruits.errors import DamageError
from fruits.featurizer import Network
from fruits.images import ImageError, decode
from fruits.isolation import IsolatedDecoder
from fruits.moments import Group, Moments
from fruits.rows import encode_rows, features_table, rejects_table
from fruits.scaled_pca import ScaledPCA
from fruits.storage import MAX_BYTES, ChangedFileError, Folder, part_name
from fruits.text import utf8

__all__ = [
    "Batch",
    "PartReport",
    "Rows",
    "Source",
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


@dataclass(frozen=True, slots=True)
class Source:
    """What every worker needs to turn partitions into features: where they are, where to write, and the network."""

    images: Folder
    out: Folder
    network: Network


@dataclass(frozen=True, slots=True)
class Rows:
    """How rows are made of features, and where they go."""

    out: Folder
    model: ScaledPCA
    format: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some partitions, looked at together."""

    partitions: tuple[Partition, ...]

    def __str__(self) -> str:
        return f"partitions {self.partitions[0].index} to {self.partitions[-1].index}"


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
    """

    index: int
    images: int
    rows: int
    rejects: Mapping[str, int]
    seconds: Mapping[str, float] = field(default_factory=dict)


def featurize(partition: Partition, source: Source) -> PartReport:
    """Write ``rejects/`` and then ``features/`` of a partition."""
    clock = _Clock()
    with _decoder(partition, source.out) as decoder:
        features, rejects = _features(partition, source, decoder, clock)
        with clock("write"):
            report = _write_rejects(partition, rejects, source.out)
            (source.out / "features").write(part_name(partition.index, "parquet"), write_table(features))
    return replace(report, seconds=clock.seconds)


def transform(partition: Partition, shared: tuple[Source, Rows]) -> PartReport:
    """Write ``rejects/`` and then ``rows/`` of a partition, with a fitted model and no stored features between."""
    source, rows = shared
    clock = _Clock()
    with _decoder(partition, source.out) as decoder:
        features, rejects = _features(partition, source, decoder, clock)
        with clock("write"):
            report = _write_rejects(partition, rejects, source.out)
            _write_rows(partition, features, rows)
    return replace(report, seconds=clock.seconds)


def write_rows(partition: Partition, rows: Rows) -> PartReport:
    """Write ``rows/`` of a partition from its stored features."""
    clock = _Clock()
    with clock("read"):
        table = (rows.out / "features").read_table(part_name(partition.index, "parquet"))
    with clock("write"):
        _write_rows(partition, table, rows)
    return PartReport(partition.index, partition.images, table.num_rows, {}, clock.seconds)


def merge(group: Group, out: Folder) -> int:
    """Write one node of the tree of moments from the shards of features, or the nodes, below it; return its rows."""
    indices = range(group.start, group.stop)
    if group.level == 1:
        features = out / "features"
        parts = (
            Moments.of(vectors(features.read_table(part_name(index, "parquet"), ["features"])["features"]))
            for index in indices
        )
    else:
        parts = (Moments.from_bytes(out.read(moments_name(group.level - 1, index))) for index in indices)
    merged = Moments.merged(parts)
    out.write(moments_name(group.level, group.index), merged.to_bytes())
    return merged.count


def moments_name(level: int, index: int) -> str:
    """Return the name, below the output folder, of a node of the tree of moments."""
    return f"moments/level-{level}/{part_name(index, 'safetensors')}"


def survey(batch: Batch, out: Folder) -> list[PartReport]:
    """Return the reports of partitions that are done already, from what they stored."""
    rejects = out / "rejects"
    return [
        _report(partition, rejects.read_table(part_name(partition.index, "parquet"))) for partition in batch.partitions
    ]


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
        entries = read_partition(source.out / "plan", partition)
        featurizer = source.network.load()
        size = backbone(source.network.backbone).size
        contents = source.images.fetch(entries)
    features = np.empty((len(entries), source.network.features), np.float32)
    pictures = np.empty((GROUP, size, size, 3), np.uint8)
    used: list[Entry] = []
    rejects: list[tuple[str, str | None, str, str]] = []
    for start in range(0, len(entries), GROUP):
        done = len(used)
        for entry in entries[start : start + GROUP]:
            try:
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
    account = orjson.dumps({"images": len(entries), "rows": len(used), "rejects": reasons})
    return features_table(paths, labels, features[: len(used)]), rejects_table(rejects, {ACCOUNT: account})


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


def _write_rejects(partition: Partition, rejects: pa.Table, out: Folder) -> PartReport:
    (out / "rejects").write(part_name(partition.index, "parquet"), write_table(rejects))
    return _report(partition, rejects)


def _report(partition: Partition, rejects: pa.Table) -> PartReport:
    account = orjson.loads((rejects.schema.metadata or {}).get(ACCOUNT, b"{}"))
    if account.get("images") != partition.images:
        raise DamageError(
            f"the stored rejects of {partition} do not belong to this plan. Use --overwrite to begin anew."
        )
    return PartReport(partition.index, partition.images, account["rows"], account["rejects"])


def _write_rows(partition: Partition, features: pa.Table, rows: Rows) -> None:
    data = encode_rows(features, rows.model, rows.format, rows.columns)
    (rows.out / "rows").write(part_name(partition.index, rows.format), data)
