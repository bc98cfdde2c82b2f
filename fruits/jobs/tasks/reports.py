"""Reports: the small values that tasks return to the driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fruits.storage.checksums import CorruptPart


@dataclass(frozen=True, slots=True)
class PartitionReport:
    """The outcome of one partition.

    Attributes
    ----------
    index : int
        The number of the partition.
    images, rows : int
        The number of listed images, and of usable ones.
    rejects : mapping of str to int
        The number of unusable images by reason.
    seconds : mapping of str to float
        The duration of each step: ``load``, ``read``, ``decode``, ``network``, ``write``. Empty for a partition that
        an earlier command finished.
    checksums : mapping of str to bytes
        The SHA-256 of each written part, by name below the output folder.
    added, removed : int or None
        For a partition that replaces stored features: the number of rows whose features were computed, and of stored
        rows that were dropped; None for other partitions.
    """

    index: int
    images: int
    rows: int
    rejects: Mapping[str, int]
    seconds: Mapping[str, float] = field(default_factory=dict)
    checksums: Mapping[str, bytes] = field(default_factory=dict)
    added: int | None = None
    removed: int | None = None


@dataclass(frozen=True, slots=True)
class MergeReport:
    """The outcome of one merge of moments: the SHA-256 of the written part, by name."""

    checksums: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class SurveyReport:
    """The outcome of verifying finished parts.

    Attributes
    ----------
    reports : tuple of PartitionReport
        The intact partitions.
    corrupt : tuple of CorruptPart
        The parts that are missing or corrupt.
    """

    reports: tuple[PartitionReport, ...] = ()
    corrupt: tuple[CorruptPart, ...] = ()
