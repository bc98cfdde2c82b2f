"""The rejects part of a partition, which also carries the partition's account.

The account is JSON in the Parquet metadata: the counts of images, rows and rejects, and the SHA-256 of the rejects and
of the part that is written after them. With it, a partition that no manifest lists can still be verified.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import orjson
import pyarrow as pa

from fruits.jobs.tasks.reports import PartitionReport
from fruits.model.rows import rejects_table
from fruits.plan.partitions import Partition
from fruits.storage.checksums import CorruptPartError, checksum
from fruits.storage.commits import OwnedFolder
from fruits.storage.parquet import read_table, write_table

ACCOUNT = b"fruits.account"  # key in the metadata of a rejects part

Reject = tuple[str, str | None, str, str]  # path, label, reason, detail


def write_partition(
    out: OwnedFolder,
    partition: Partition,
    rejects: Sequence[Reject],
    last: str,
    data: bytes,
    others: Mapping[str, bytes] | None = None,
) -> PartitionReport:
    """Write the rejects and other parts of a partition, then its last part, which marks the partition as finished.

    Parameters
    ----------
    out : OwnedFolder
    partition : Partition
    rejects : sequence of Reject
    last : str
        The name of the last part, in ``features/`` or ``rows/``.
    data : bytes
        Its content.
    others : mapping of str to bytes, optional
        Other parts: content by name.
    """
    reasons = Counter(reason for _, _, reason, _ in rejects)
    report = PartitionReport(
        partition.index, partition.images, partition.images - len(rejects), dict(sorted(reasons.items()))
    )
    last_checksum = checksum(data)
    table = rejects_table(rejects, {})
    account = {
        "images": report.images,
        "rows": report.rows,
        "rejects": report.rejects,
        "rejects_sha256": _checksum(table),
        "sha256": last_checksum.hex(),
    }
    stored = write_table(table.replace_schema_metadata({ACCOUNT: orjson.dumps(account)}))
    written = {out.part("rejects", partition.index, "parquet", partition.owner): stored, **(others or {}), last: data}
    for name, content in written.items():
        out.write(name, content)
    return replace(report, checksums={name: checksum(content) for name, content in written.items()})


def read_rejects(data: bytes) -> list[Reject]:
    """Return the images in a rejects part."""
    columns = read_table(data).to_pydict()
    return list(zip(*(columns[name] for name in ("path", "label", "reason", "detail")), strict=True))


def read_account(partition: Partition, name: str, data: bytes) -> tuple[PartitionReport, bytes]:
    """Return the report in a rejects part, and the SHA-256 of the part that was written after it.

    Raises
    ------
    CorruptPartError
        The part cannot be read, has no account, or its account does not add up.
    """
    try:
        rejects = read_table(data)
        account = orjson.loads((rejects.schema.metadata or {})[ACCOUNT])
        report = PartitionReport(partition.index, account["images"], account["rows"], account["rejects"])
        last_checksum = bytes.fromhex(account["sha256"])
        intact = _checksum(rejects) == account["rejects_sha256"]
        adds_up = (
            report.rejects == Counter(rejects["reason"].to_pylist())
            and report.rows + rejects.num_rows == report.images == partition.images
        )
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptPartError(name, f"no readable account of a partition: {error!r}") from error
    if not intact:
        raise CorruptPartError(name, "its rejects differ from the SHA-256 in its account")
    if not adds_up:
        raise CorruptPartError(name, f"its account does not add up to {partition.images} images")
    return report, last_checksum


def _checksum(rejects: pa.Table) -> str:
    """Return the SHA-256 of the columns of rejects, as in the account."""
    return checksum(orjson.dumps(rejects.to_pydict())).hex()
