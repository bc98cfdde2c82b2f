"""Write the rows of a partition from its stored features."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from fruits.jobs.tasks.rejects import read_rejects, write_partition
from fruits.jobs.tasks.reports import PartitionReport
from fruits.model.rows import encode_rows
from fruits.model.scaled_pca import ScaledPCA
from fruits.plan.partitions import Partition
from fruits.storage.checksums import checksum, read_part
from fruits.storage.commits import OwnedFolder
from fruits.storage.folder import Folder
from fruits.storage.parquet import read_table

__all__ = ["FeaturizedPartition", "RowSettings", "write_rows"]


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
    """The output folder, the model, and the format and columns of the rows.

    `source` is the folder that contains the features, if it is another one: the rejects are then copied as well.
    """

    out: OwnedFolder
    model: ScaledPCA
    format: str
    columns: tuple[str, ...]
    source: Folder | None = None


def write_rows(item: FeaturizedPartition, settings: RowSettings) -> PartitionReport:
    """Write ``rows/`` of a partition from its stored features; with another source, also ``rejects/``."""
    partition, out = item.partition, settings.out
    folder = settings.source or out.folder
    start = time.perf_counter()
    features = read_table(read_part(folder, *item.features), ["path", "label", "features"])
    read = time.perf_counter()
    data = encode_rows(features, settings.model, settings.format, settings.columns)
    name = out.part("rows", partition.index, settings.format)
    if settings.source is not None:
        rejects = read_rejects(read_part(folder, *item.rejects))
        report = write_partition(out, replace(partition, owner=""), rejects, name, data)
    else:
        out.write(name, data)
        report = PartitionReport(partition.index, partition.images, features.num_rows, {}, {}, {name: checksum(data)})
    return replace(report, seconds={"read": read - start, "write": time.perf_counter() - read})
