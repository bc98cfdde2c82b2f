"""Merge partial moments: one node of the merge tree."""

from __future__ import annotations

from dataclasses import dataclass

from fruits.jobs.tasks.reports import MergeReport
from fruits.jobs.tasks.rows import features_name
from fruits.model.moments import Group, Moments
from fruits.storage.checksums import checksum, read_part
from fruits.storage.folder import Folder, part_name
from fruits.storage.parquet import read_table, vectors

__all__ = ["MergeItem", "merge", "moments_name"]


@dataclass(frozen=True, slots=True)
class MergeItem:
    """A node of the merge tree, and the SHA-256 of each of its inputs; None: not verified."""

    group: Group
    input_checksums: tuple[bytes | None, ...]

    def __str__(self) -> str:
        return str(self.group)


def moments_name(level: int, index: int) -> str:
    """Return the name, below the output folder, of a node of the merge tree."""
    return f"moments/level-{level}/{part_name(index, 'safetensors')}"


def merge(item: MergeItem, out: Folder) -> MergeReport:
    """Write a node of the merge tree from the features, or the nodes, below it."""
    group = item.group
    inputs = zip(range(group.start, group.stop), item.input_checksums, strict=True)
    if group.level == 1:
        features = (read_part(out, features_name(index), expected) for index, expected in inputs)
        partials = (Moments.from_features(vectors(read_table(data, ["features"])["features"])) for data in features)
    else:
        nodes = (read_part(out, moments_name(group.level - 1, index), expected) for index, expected in inputs)
        partials = (Moments.from_bytes(data) for data in nodes)
    name, data = moments_name(group.level, group.index), Moments.merge_all(partials).to_bytes()
    out.write(name, data)
    return MergeReport({name: checksum(data)})
