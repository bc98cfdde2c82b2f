"""Write the rows of a partition from its stored features."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fruits.images.plan import Partition
from fruits.jobs.tasks.reports import PartitionReport
from fruits.model.rows import encode_rows
from fruits.model.scaled_pca import ScaledPCA
from fruits.storage.checksums import checksum, read_part
from fruits.storage.commits import OwnedFolder
from fruits.storage.parquet import read_table

__all__ = ["FeaturizedPartition", "RowSettings", "write_rows"]


@dataclass(frozen=True, slots=True)
class FeaturizedPartition:
    """A partition with stored features, and their SHA-256."""

    partition: Partition
    features_checksum: bytes

    def __str__(self) -> str:
        return str(self.partition)


@dataclass(frozen=True, slots=True)
class RowSettings:
    """The output folder, the model, and the format and columns of the rows."""

    out: OwnedFolder
    model: ScaledPCA
    format: str
    columns: tuple[str, ...]


def write_rows(item: FeaturizedPartition, settings: RowSettings) -> PartitionReport:
    """Write ``rows/`` of a partition from its stored features."""
    partition = item.partition
    start = time.perf_counter()
    stored = settings.out.part("features", partition.index, "parquet")
    data = read_part(settings.out.folder, stored, item.features_checksum)
    features = read_table(data, ["path", "label", "features"])
    read = time.perf_counter()
    data = encode_rows(features, settings.model, settings.format, settings.columns)
    name = settings.out.part("rows", partition.index, settings.format)
    settings.out.write(name, data)
    seconds = {"read": read - start, "write": time.perf_counter() - read}
    return PartitionReport(partition.index, partition.images, features.num_rows, {}, seconds, {name: checksum(data)})
