"""Merge partial moments: one node of the merge tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fruits.jobs.tasks.reports import MergeReport
from fruits.model.moments import Group, Moments
from fruits.storage.checksums import checksum, read_part
from fruits.storage.commits import OwnedFolder
from fruits.storage.parquet import read_table, vectors

__all__ = ["MergeItem", "merge", "moments_name"]


@dataclass(frozen=True, slots=True)
class MergeItem:
    """A node of the merge tree, and the SHA-256 of each of its inputs; None: not verified."""

    group: Group
    input_checksums: tuple[bytes | None, ...]

    def __str__(self) -> str:
        return str(self.group)


def moments_name(out: OwnedFolder, level: int, index: int) -> str:
    """Return the name, below the output folder, of a node of the merge tree."""
    return out.part(f"moments/level-{level}", index, "safetensors")


def merge(item: MergeItem, out: OwnedFolder) -> MergeReport:
    """Write a node of the merge tree from the features, or the nodes, below it."""
    group = item.group

    def read(name: Callable[[int], str]) -> Iterator[bytes]:
        for index, expected in zip(range(group.start, group.stop), item.input_checksums, strict=True):
            yield read_part(out.folder, name(index), expected)

    if group.level == 1:
        features = read(lambda index: out.part("features", index, "parquet"))
        partials = (Moments.from_features(vectors(read_table(data, ["features"])["features"])) for data in features)
    else:
        partials = (Moments.from_bytes(data) for data in read(lambda index: moments_name(out, group.level - 1, index)))
    name, data = moments_name(out, group.level, group.index), Moments.sum_all(partials).to_bytes()
    out.write(name, data)
    return MergeReport({name: checksum(data)})
