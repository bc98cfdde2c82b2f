"""Plans: an ordered listing of images, cut into partitions.

The plan goes to storage as it is made, and an item that is sent to a worker is two numbers: the driver's memory does
not grow with the number of images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
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

__all__ = ["Partition", "Plan", "Store", "make_plan", "plan_file", "planned", "read_partition"]

PARTITIONS_PER_FILE = 64  # a plan file of 64 row groups of 1,024 images is one to two megabytes: one request to S3
SCHEMA = pa.schema(
    [
        pa.field("path", pa.binary(), nullable=False),  # bytes, because a file's name need not be UTF-8
        pa.field("size", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Partition:
    """A contiguous slice of the ordered listing: the unit of work.

    Attributes
    ----------
    index : int
        Its position in the plan; the part files that come of it bear this number.
    images : int
        How many images it holds.
    """

    index: int
    images: int

    def __str__(self) -> str:
        return f"partition {self.index} ({self.images:,} images)"


@dataclass(frozen=True, slots=True)
class Plan:
    """A listing, cut into partitions.

    Attributes
    ----------
    images : int
        How many images were listed.
    partition_size : int
        Images per partition; the last may hold fewer.
    digest : str
        SHA-256 over the ordered paths, sizes and versions: two plans with one digest mean the same images.
    """

    images: int
    partition_size: int
    digest: str

    def partitions(self) -> list[Partition]:
        """Return the partitions in order."""
        starts = range(0, self.images, self.partition_size)
        return [Partition(index, min(self.partition_size, self.images - start)) for index, start in enumerate(starts)]


class Store(Protocol):
    """Takes the files of a plan; a :class:`fruits.storage.folder.Folder` does."""

    def write(self, name: str, data: bytes) -> object:
        """Store the bytes of a file."""


def make_plan(entries: Iterable[ImageEntry], partition_size: int, out: Store | None = None) -> Plan:
    """Return the plan of an ordered listing, cut into partitions.

    Parameters
    ----------
    entries : iterable of ImageEntry
        The listing, in order.
    partition_size : int
        Images per partition.
    out : Store, optional
        Where the plan is stored, for :func:`read_partition`; without it the plan is only measured.
    """
    digest = hashlib.sha256()
    images = 0
    stored = _PlanWriter(out) if out is not None else None
    entries = iter(entries)
    while batch := list(islice(entries, partition_size)):
        paths = [entry.path.encode("utf-8", "surrogateescape") for entry in batch]
        sizes = [entry.size for entry in batch]
        versions = [entry.version.encode() for entry in batch]
        # Paths and versions hold no NUL and a size is a number, so the text can be read in one way only.
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
    """Writes partitions as row groups, :data:`PARTITIONS_PER_FILE` to a file."""

    def __init__(self, out: Store) -> None:
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


def plan_file(partition: Partition) -> str:
    """Return the name of the file of a stored plan that holds a partition."""
    return part_name(partition.index // PARTITIONS_PER_FILE, "parquet")


def read_partition(plan: Folder, partition: Partition) -> list[ImageEntry]:
    """Return the images of a partition, in order, from a stored plan."""
    return planned(plan.read(plan_file(partition)), partition)


def planned(data: bytes, partition: Partition) -> list[ImageEntry]:
    """Return the images of a partition, in order, from the bytes of the file of a plan that holds it.

    Raises
    ------
    DamageError
        The file cannot be read, or holds another partition.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = file.read_row_group(partition.index % PARTITIONS_PER_FILE, use_threads=False)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DamageError(
            f"{partition} cannot be read from the stored plan: {error}. Start the command again with --overwrite."
        ) from error
    paths = (path.decode("utf-8", "surrogateescape") for path in table["path"].to_pylist())
    others = (table[name].to_pylist() for name in ("size", "version"))
    entries = [ImageEntry(*image) for image in zip(paths, *others, strict=True)]
    if len(entries) != partition.images:
        raise DamageError(
            f"{partition} has {len(entries):,} images in the stored plan. Start the command again with --overwrite."
        )
    return entries
