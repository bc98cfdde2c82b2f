"""Plans: an ordered listing of images, split into partitions.

A plan is written to storage while the images are listed, and workers receive the number of a partition, not its paths:
the memory of the driver does not grow with the number of images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fruits.errors import DamageError
from fruits.images.listing import ImageEntry
from fruits.storage.folder import Folder, part_name
from fruits.storage.parquet import number_array, text_array

__all__ = [
    "Partition",
    "Plan",
    "PlanDestination",
    "changes",
    "decode_partition",
    "make_plan",
    "plan_files",
    "plan_index",
    "read_partition",
]

PARTITIONS_PER_FILE = 64  # 64 row groups of 1,024 images are 1 to 2 MB: one request on S3
EXAMPLES = 3  # images named for each kind of change
SCHEMA = pa.schema(
    [
        pa.field("path", pa.binary(), nullable=False),  # file names need not be UTF-8
        pa.field("size", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Partition:
    """A contiguous slice of the listing: the unit of work.

    Attributes
    ----------
    index : int
        Position in the plan, and the number of all parts made from it.
    images : int
        Number of images.
    """

    index: int
    images: int

    def __str__(self) -> str:
        return f"partition {self.index} ({self.images:,} images)"


@dataclass(frozen=True, slots=True)
class Plan:
    """A listing, split into partitions.

    Attributes
    ----------
    images : int
        Number of images listed.
    partition_size : int
        Images per partition; the last one may have fewer.
    digest : str
        SHA-256 of the paths, sizes and versions, in order: plans with equal digests contain the same images.
    """

    images: int
    partition_size: int
    digest: str

    def partitions(self) -> list[Partition]:
        """Return the partitions in order."""
        starts = range(0, self.images, self.partition_size)
        return [Partition(index, min(self.partition_size, self.images - start)) for index, start in enumerate(starts)]


def plan_files(images: int, partition_size: int) -> int:
    """Return the number of files of a plan; a plan without images has one too."""
    return max(1, -(-images // (partition_size * PARTITIONS_PER_FILE)))


class PlanDestination(Protocol):
    """A writer of files, such as :class:`fruits.storage.folder.Folder`."""

    def write(self, name: str, data: bytes) -> object:
        """Write a file."""


def make_plan(entries: Iterable[ImageEntry], partition_size: int, out: PlanDestination | None = None) -> Plan:
    """Return the plan of an ordered listing, and store it if `out` is given.

    Parameters
    ----------
    entries : iterable of ImageEntry
        The listing, in order.
    partition_size : int
        Images per partition.
    out : PlanDestination, optional
        Destination of the plan, for :func:`read_partition`.
    """
    digest = hashlib.sha256()
    images = 0
    stored = _PlanWriter(out) if out is not None else None
    entries = iter(entries)
    while batch := list(islice(entries, partition_size)):
        paths = [entry.path.encode("utf-8", "surrogateescape") for entry in batch]
        sizes = [entry.size for entry in batch]
        versions = [entry.version.encode() for entry in batch]
        # Unambiguous: paths and versions contain no NUL, and sizes are numbers.
        digest.update(b"".join(b"%b\0%d\0%b\0" % image for image in zip(paths, sizes, versions, strict=True)))
        images += len(batch)
        if stored is not None:
            stored.add(
                pa.record_batch(
                    [
                        text_array(paths, pa.binary()),
                        number_array(np.array(sizes, np.int64)),
                        text_array(versions, pa.string()),
                    ],
                    schema=SCHEMA,
                )
            )
    if stored is not None:
        stored.close()
    return Plan(images, partition_size, digest.hexdigest())


class _PlanWriter:
    """Writer of partitions as row groups, :data:`PARTITIONS_PER_FILE` to a file."""

    def __init__(self, out: PlanDestination) -> None:
        self.out = out
        self.files = 0
        self.open()

    def open(self) -> None:
        self.sink = pa.BufferOutputStream()
        self.writer = pq.ParquetWriter(
            self.sink,
            SCHEMA,
            compression="zstd",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        )
        self.groups = 0

    def add(self, partition: pa.RecordBatch) -> None:
        if self.groups == PARTITIONS_PER_FILE:
            self.close()
            self.open()
        self.writer.write_table(pa.Table.from_batches([partition]), row_group_size=partition.num_rows)
        self.groups += 1

    def close(self) -> None:
        self.writer.close()
        self.out.write(part_name(self.files, "parquet"), self.sink.getvalue().to_pybytes())
        self.files += 1


def plan_index(partition: Partition) -> int:
    """Return the index of the plan file that contains a partition."""
    return partition.index // PARTITIONS_PER_FILE


def read_partition(plan: Folder, partition: Partition, owner: str = "") -> list[ImageEntry]:
    """Return the images of a partition, in order, from the stored plan of a job."""
    return decode_partition(plan.read(part_name(plan_index(partition), "parquet", owner)), partition)


def decode_partition(data: bytes, partition: Partition) -> list[ImageEntry]:
    """Return the images of a partition, in order, from the content of its plan file.

    Raises
    ------
    DamageError
        The file is corrupt or contains another partition.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = file.read_row_group(partition.index % PARTITIONS_PER_FILE, use_threads=False)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DamageError(
            f"{partition} cannot be read from the stored plan: {error}. Run the command again with `overwrite`."
        ) from error
    paths = (path.decode("utf-8", "surrogateescape") for path in table["path"].to_pylist())
    others = (table[name].to_pylist() for name in ("size", "version"))
    entries = [ImageEntry(*image) for image in zip(paths, *others, strict=True)]
    if len(entries) != partition.images:
        raise DamageError(
            f"{partition} has {len(entries):,} images in the stored plan. Run the command again with `overwrite`."
        )
    return entries


def changes(stored: Folder, owner: str, plan: Plan, entries: Iterable[ImageEntry]) -> str:
    """Return the differences as text: ``2 replaced (a/1.jpg, a/7.jpg), 1 added (b.jpg)``.

    Both are streamed once, in the order of their paths, so memory does not grow with the number of images.

    Raises
    ------
    DamageError
        The stored plan cannot be read.
    """
    examples: dict[str, list[str]] = {"replaced": [], "added": [], "removed": []}
    counts = dict.fromkeys(examples, 0)
    planned = (entry for partition in plan.partitions() for entry in read_partition(stored, partition, owner))
    for before, now in _side_by_side(planned, iter(entries)):
        if before == now:
            continue
        kind = "added" if before is None else "removed" if now is None else "replaced"
        counts[kind] += 1
        if counts[kind] <= EXAMPLES:
            examples[kind].append((before or now).path)  # type: ignore[union-attr]  # one of them is not None
    return ", ".join(
        f"{count:,} {kind} ({', '.join(examples[kind])}{', …' * (count > EXAMPLES)})"
        for kind, count in counts.items()
        if count
    )


def _side_by_side(
    left: Iterator[ImageEntry], right: Iterator[ImageEntry]
) -> Iterator[tuple[ImageEntry | None, ImageEntry | None]]:
    """Merge two ordered listings: yield pairs of equal paths, with None for a path in one listing only."""
    one, two = next(left, None), next(right, None)
    while one is not None or two is not None:
        if two is None or (one is not None and one.path < two.path):
            yield one, None
            one = next(left, None)
        elif one is None or two.path < one.path:
            yield None, two
            two = next(right, None)
        else:
            yield one, two
            one, two = next(left, None), next(right, None)
