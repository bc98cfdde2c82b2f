"""Partitions: contiguous slices of the list of images, the unit of work.

No result depends on the partitions. They may differ in size, and after an update some of them are those of an earlier
job, whose stored features are used again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from fruits.errors import DamageError
from fruits.plan.pages import ImageList, pages_of
from fruits.storage.parquet import number_array, read_table, text_array, write_table
from fruits.text import counted

LARGEST = 1024  # images, by default
SMALLEST = 16  # images, by default: below, the overhead of a task exceeds the work
PER_WORKER = 3  # partitions, by default: the last ones then end at about the same time
MOST_BYTES = 2**30  # of images: the work of 200 photos of 5 MB is that of 1,024 small images, about 10 s
METADATA = b"fruits.plan"
SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("owner", pa.string(), nullable=False),
        pa.field("rows_owner", pa.string(), nullable=False),
        pa.field("stored_index", pa.int64(), nullable=False),
        pa.field("stored_start", pa.int64(), nullable=False),
        pa.field("stored_images", pa.int64(), nullable=False),
        pa.field("stored_owner", pa.string()),
    ]
)


class Stored(NamedTuple):
    """A slice of the list of an earlier job, whose features are stored.

    Attributes
    ----------
    partition : int
        The number of the partition that contains it.
    start, images : int
        The position of its first image in the earlier list, and the number of images.
    owner : str
        The owner in the names of the parts of that partition.
    """

    partition: int
    start: int
    images: int
    owner: str


@dataclass(frozen=True, slots=True)
class Partition:
    """A contiguous slice of the list: the unit of work.

    Attributes
    ----------
    index : int
        The number in the names of all parts made from it; it may differ from the position in the plan.
    start, images : int
        The position of its first image in the list, and the number of images; 0 if all its images were deleted.
    owner : str
        The owner in the names of its features and rejects, if another job wrote them; empty for those of this job.
    rows_owner : str
        The owner in the name of its rows, if another job wrote them.
    stored : Stored, optional
        The slice of an earlier list that it replaces, for a partition in which images were added, changed or deleted.
    """

    index: int
    start: int
    images: int
    owner: str = ""
    rows_owner: str = ""
    stored: Stored | None = None

    def __str__(self) -> str:
        return f"partition {self.index} ({counted(self.images, 'image')})"


@dataclass(frozen=True, slots=True)
class Plan:
    """A list of images and its partitions.

    Attributes
    ----------
    list : ImageList
    partition_size : int
        The number of images of a new partition.
    partitions : tuple of Partition
        In the order of the list.
    pages : tuple of bytes
        The SHA-256 of each page of the list.
    labels : int
        The number of labels.
    """

    list: ImageList
    partition_size: int
    partitions: tuple[Partition, ...]
    pages: tuple[bytes, ...]
    labels: int = 0

    def __str__(self) -> str:
        labels = f" of {counted(self.labels, 'label')}" if self.labels else ""
        return f"{counted(self.images, 'image')}{labels} in {counted(len(self.partitions), 'partition')}"

    @property
    def images(self) -> int:
        """The number of images."""
        return self.list.images

    def encode(self) -> bytes:
        """Return the plan, without the list, as the content of a file."""
        numbers = [(each.index, each.start, each.images) for each in self.partitions]
        stored = [each.stored or Stored(0, 0, 0, "") for each in self.partitions]
        owners = [each.stored and each.stored.owner.encode() for each in self.partitions]
        columns = [
            *(_numbers(column) for column in zip(*numbers, strict=True)),
            text_array([each.owner.encode() for each in self.partitions], pa.string()),
            text_array([each.rows_owner.encode() for each in self.partitions], pa.string()),
            *(_numbers(column) for column in zip(*(each[:3] for each in stored), strict=True)),
            text_array(owners, pa.string()),
        ]
        metadata = {
            "images": self.list.images,
            "digest": self.list.digest,
            "partition_size": self.partition_size,
            "pages": [page.hex() for page in self.pages],
            "labels": self.labels,
        }
        return write_table(pa.table(columns, schema=SCHEMA.with_metadata({METADATA: orjson.dumps(metadata)})))

    @classmethod
    def decode(cls, data: bytes) -> Plan:
        """Return the plan that :meth:`encode` wrote.

        Raises
        ------
        DamageError
            It is corrupt.
        """
        try:
            table = read_table(data)
            metadata = orjson.loads((table.schema.metadata or {})[METADATA])
            columns = (table[name].to_pylist() for name in SCHEMA.names)
            partitions = tuple(
                Partition(index, start, images, owner, rows_owner, None if stored[3] is None else Stored(*stored))
                for index, start, images, owner, rows_owner, *stored in zip(*columns, strict=True)
            )
            plan = cls(
                ImageList(int(metadata["images"]), str(metadata["digest"])),
                int(metadata["partition_size"]),
                partitions,
                tuple(map(bytes.fromhex, metadata["pages"])),
                int(metadata["labels"]),
            )
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamageError(f"the stored plan cannot be read: {error!r}. Use `overwrite` to start over.") from error
        if plan._is_contiguous():
            return plan
        raise DamageError("the partitions of the stored plan contradict its list. Use `overwrite` to start over.")

    def _is_contiguous(self) -> bool:
        starts = [0, *accumulate(each.images for each in self.partitions)]
        return (
            self.partition_size >= 1
            and starts[-1] == self.images
            and len(self.pages) == len(pages_of(0, self.images))
            and all(each.images >= 0 and each.index >= 0 for each in self.partitions)
            and all(each.start == start for each, start in zip(self.partitions, starts, strict=False))
            and len({each.index for each in self.partitions}) == len(self.partitions)
        )


def default_size(images: int, workers: int, size: int = 0) -> int:
    """Return the number of images of a partition that keeps all workers busy until the end.

    Every worker gets the same number of partitions, at least three if there are enough images, of at most 1,024 images.
    Large images are fewer: half of :data:`MOST_BYTES` on average, so that :func:`bounded_partitions` rarely divides
    such a partition.

    Parameters
    ----------
    images, workers : int
    size : int, optional
        The bytes of all images, as far as known.
    """
    rounds = max(PER_WORKER, -(-images // (workers * LARGEST)), -(-2 * size // (workers * MOST_BYTES)))
    return max(SMALLEST, -(-images // (workers * rounds)))


def even_partitions(images: int, size: int) -> tuple[Partition, ...]:
    """Return partitions of `size` images; the last one may have fewer."""
    starts = range(0, images, size)
    return tuple(Partition(index, start, min(size, images - start)) for index, start in enumerate(starts))


def bounded_partitions(sizes: Iterable[int], most: int) -> tuple[Partition, ...]:
    """Return partitions of at most `most` images, and of at most :data:`MOST_BYTES` unless one image is larger.

    `sizes` are the bytes of each image in order, negative if unknown; those are not counted.
    """
    partitions: list[Partition] = []
    start = held = place = 0
    for place, size in enumerate(sizes, 1):
        held += max(size, 0)
        if place - start > most or (held > MOST_BYTES and place - start > 1):
            partitions.append(Partition(len(partitions), start, place - 1 - start))
            start, held = place - 1, max(size, 0)
    if place:
        partitions.append(Partition(len(partitions), start, place - start))
    return tuple(partitions)


def _numbers(values: Sequence[int]) -> pa.Array:
    return number_array(np.array(values, np.int64))
