"""Verify finished parts when a job is resumed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fruits.jobs.tasks.rejects import read_account
from fruits.jobs.tasks.reports import PartitionReport, SurveyReport
from fruits.plan.partitions import Partition
from fruits.storage.checksums import CorruptPart, CorruptPartError, checksum, read_part
from fruits.storage.commits import OwnedFolder
from fruits.storage.parquet import read_table


@dataclass(frozen=True, slots=True)
class FinishedPartition:
    """A finished partition.

    Attributes
    ----------
    partition : Partition
    rejects, last : str
        The names of its rejects and of its last part.
    rejects_checksum, last_checksum : bytes or None
        Their SHA-256; None if the manifest does not list them.
    changes : tuple of (str, bytes)
        The names and the SHA-256 of its rows in ``added/`` and ``removed/``, if it replaces stored features.
    """

    partition: Partition
    rejects: str
    rejects_checksum: bytes | None
    last: str
    last_checksum: bytes | None
    changes: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class PartitionBatch:
    """Finished partitions that one task verifies."""

    partitions: tuple[FinishedPartition, ...]

    def __len__(self) -> int:
        return len(self.partitions)

    def __str__(self) -> str:
        first, last = self.partitions[0].partition, self.partitions[-1].partition
        return f"partitions {first.index} to {last.index}"


@dataclass(frozen=True, slots=True)
class PartBatch:
    """Parts that one task verifies: their names and checksums."""

    checksums: tuple[tuple[str, bytes], ...]

    def __len__(self) -> int:
        return len(self.checksums)

    def __str__(self) -> str:
        return f"{self.checksums[0][0]} to {self.checksums[-1][0]}"


def survey(batch: PartitionBatch, out: OwnedFolder) -> SurveyReport:
    """Return the reports of finished partitions from their rejects parts, and the corrupt parts among them."""
    reports: list[PartitionReport] = []
    corrupt: list[CorruptPart] = []
    for finished in batch.partitions:
        try:
            data = read_part(out.folder, finished.rejects, finished.rejects_checksum)
            report, stated = read_account(finished.partition, finished.rejects, data)
            last_checksum = finished.last_checksum or stated
            read_part(out.folder, finished.last, last_checksum)
            changes = [read_table(read_part(out.folder, *part), ["path"]).num_rows for part in finished.changes]
        except CorruptPartError as error:
            corrupt.append(error.part)
        else:
            checksums = {finished.rejects: checksum(data), finished.last: last_checksum}
            added, removed = changes or (None, None)
            reports.append(replace(report, checksums=checksums, added=added, removed=removed))
    return SurveyReport(tuple(reports), tuple(corrupt))


def verify_parts(batch: PartBatch, out: OwnedFolder) -> SurveyReport:
    """Return the parts of a batch that are missing or corrupt."""
    corrupt: list[CorruptPart] = []
    for name, expected in batch.checksums:
        try:
            read_part(out.folder, name, expected)
        except CorruptPartError as error:
            corrupt.append(error.part)
    return SurveyReport(corrupt=tuple(corrupt))
