"""Merge partial moments: one node of the merge tree.

Moments are exact sums, so that the tree only distributes the work: no bit of the result depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fruits.jobs.tasks.reports import MergeReport
from fruits.model.moments import Moments
from fruits.storage.checksums import checksum, read_parts
from fruits.storage.commits import OwnedFolder
from fruits.storage.folder import Folder
from fruits.storage.parquet import read_table, vectors

ROWS = 8192  # rows of a group of the first level: a node is as large as the features of 3,000 rows
FAN_IN = 32  # nodes of a group of the other levels
JOINED = 512  # rows: smaller blocks are joined

Input = tuple[str, bytes | None]  # the name of a part, and its SHA-256; None: not verified
Block = tuple[NDArray[np.float32], list[str | None]]  # features, and the label of each row


@dataclass(frozen=True, slots=True)
class Group:
    """One node of the merge tree: it merges the nodes `start` to `stop - 1` of the level below.

    Attributes
    ----------
    level : int
        1 for a node that merges features, 2 for one that merges nodes of level 1, and so on.
    index : int
        Number within the level.
    start, stop : int
        Range of the merged parts or nodes.
    """

    level: int
    index: int
    start: int
    stop: int

    def __str__(self) -> str:
        return f"moments level {self.level}, group {self.index} ({self.start} to {self.stop - 1})"


def levels(rows: Sequence[int]) -> list[list[Group]]:
    """Return the merge tree over parts with this many rows, level by level; the last level is a single group.

    Examples
    --------
    >>> [[(group.start, group.stop) for group in level] for level in levels([5000, 5000, 300])]
    [[(0, 2), (2, 3)], [(0, 2)]]
    """
    first: list[Group] = []
    start = size = 0
    for stop, count in enumerate(rows, 1):
        size += count
        if size >= ROWS or stop == len(rows):
            first.append(Group(1, len(first), start, stop))
            start, size = stop, 0
    tree = [first]
    while len(tree[-1]) > 1:
        below, level = len(tree[-1]), len(tree) + 1
        starts = range(0, below, FAN_IN)
        tree.append([Group(level, index, start, min(start + FAN_IN, below)) for index, start in enumerate(starts)])
    return tree


@dataclass(frozen=True, slots=True)
class MergeItem:
    """A node of the merge tree: its name, and the parts that it merges, features or other nodes."""

    group: Group
    name: str
    inputs: tuple[Input, ...]

    def __str__(self) -> str:
        return str(self.group)


@dataclass(frozen=True, slots=True)
class MergeSettings:
    """The folder with the features, the length of a feature vector, the output folder, and whether to sum by label."""

    features: Folder
    dimension: int
    out: OwnedFolder
    by_label: bool


def merge(item: MergeItem, settings: MergeSettings) -> MergeReport:
    """Write a node of the merge tree from the features, or the nodes, below it."""
    if item.group.level == 1:
        blocks = _features(item, settings.features, by_label=settings.by_label)
        moments = Moments.from_blocks(_joined(blocks), settings.dimension)
    else:
        moments = Moments.sum_all(_nodes(item, settings.out.folder))
    data = moments.to_bytes()
    settings.out.write(item.name, data)
    return MergeReport({item.name: checksum(data)})


def _features(item: MergeItem, folder: Folder, *, by_label: bool) -> Iterator[Block]:
    """Yield features and labels of each part; an image with a list of labels is of no class."""
    for data in read_parts(folder, item.inputs):
        table = read_table(data, ["label", "features"])
        has_classes = by_label and not pa.types.is_list(table.schema.field("label").type)
        yield vectors(table["features"]), table["label"].to_pylist() if has_classes else [None] * table.num_rows


def _joined(blocks: Iterable[Block]) -> Iterator[Block]:
    """Join small blocks, such as the rows that an update added to each partition: each costs passes over all sums."""
    waiting: list[Block] = []
    for block in blocks:
        waiting.append(block)
        if sum(len(features) for features, _ in waiting) >= JOINED:
            yield _concatenated(waiting)
            waiting = []
    if waiting:
        yield _concatenated(waiting)


def _concatenated(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate([features for features, _ in blocks]), [label for _, labels in blocks for label in labels]


def _nodes(item: MergeItem, folder: Folder) -> Iterator[Moments]:
    return map(Moments.from_bytes, read_parts(folder, item.inputs))
