"""Write the rows of a partition from its stored features."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa

from fruits.jobs.tasks.rejects import read_rejects, write_partition
from fruits.jobs.tasks.reports import PartitionReport
from fruits.plan.partitions import Partition
from fruits.storage.checksums import checksum, read_part
from fruits.storage.commits import OwnedFolder
from fruits.storage.folder import Folder
from fruits.storage.parquet import read_table


class Encoder(Protocol):
    """Turns the features of a partition into its rows."""

    @property
    def parameter(self) -> str:
        """The parameter of a job that names what was fitted: ``model`` or ``recogniser``."""
        ...

    @property
    def network(self) -> Mapping[str, str]:
        """The network of the features that it was fitted on: ``backbone``, ``engine``, ``weights`` and ``decode``."""
        ...

    @property
    def crops(self) -> int:
        """The crops of each image that it needs, 1 or 2."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of features that it needs."""
        ...

    @property
    def format(self) -> str:
        """The suffix of the files of rows."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the rows of given features."""
        ...

    def encode(self, table: pa.Table) -> bytes:
        """Return the rows of a table of features as the content of a file."""
        ...


@dataclass(frozen=True, slots=True)
class FeaturizedPartition:
    """A partition with stored features.

    Attributes
    ----------
    partition : Partition
    features, rejects : tuple of str and bytes
        The name and the SHA-256 of each of its parts.
    """

    partition: Partition
    features: tuple[str, bytes]
    rejects: tuple[str, bytes]

    def __str__(self) -> str:
        return str(self.partition)


@dataclass(frozen=True, slots=True)
class RowSettings:
    """The output folder, and the encoder of the rows.

    `source` is the folder that contains the features, if it is another one: the rejects are then copied as well.
    """

    out: OwnedFolder
    encoder: Encoder
    source: Folder | None = None


def write_rows(item: FeaturizedPartition, settings: RowSettings) -> PartitionReport:
    """Write ``rows/`` of a partition from its stored features; with another source, also ``rejects/``."""
    partition, out = item.partition, settings.out
    folder = settings.source or out.folder
    start = time.perf_counter()
    features = read_table(read_part(folder, *item.features), settings.encoder.reads)
    read = time.perf_counter()
    data = settings.encoder.encode(features)
    name = out.part("rows", partition.index, settings.encoder.format, partition.rows_owner)
    if settings.source is not None:
        rejects = read_rejects(read_part(folder, *item.rejects))
        report = write_partition(out, replace(partition, owner=""), rejects, name, data)
    else:
        out.write(name, data)
        report = PartitionReport(partition.index, partition.images, features.num_rows, {}, {}, {name: checksum(data)})
    return replace(report, seconds={"read": read - start, "write": time.perf_counter() - read})
