"""Tar archives of images, in the layout of WebDataset; see :mod:`fruits.images.tar.samples`.

The path of an image is that of its member, whichever archive contains it. Archives are listed by their headers, several
at once, and images are read by byte offset, neighbours by one request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fruits.errors import DatasetError
from fruits.images.skipped import SkippedFiles
from fruits.images.sources.entries import LABEL, LABELS, PATHS, PLACES, ImageEntry
from fruits.images.sources.source import Content
from fruits.images.sources.tables.sorting import sorted_tables
from fruits.images.tar.members import BLOCK, Window, read_members
from fruits.images.tar.ranges import read_places
from fruits.images.tar.samples import Sample, read_samples
from fruits.images.tar.shards import find_shards
from fruits.storage.addresses import name_in, split_chain
from fruits.storage.folder import Folder
from fruits.storage.parquet import number_array, text_array, text_lists
from fruits.storage.prefetch import UNKNOWN_SIZE, Range
from fruits.storage.stores import FileInfo
from fruits.text import name_bytes

SHARDS_AT_ONCE = 8  # archives being listed, each with 8 MiB in memory
ROWS = 16_384  # of a table before sorting
BLOCK_BITS = 40  # of the block number in the place of an image; the other bits are the number of its archive


@dataclass(frozen=True, slots=True)
class TarSource:
    """The images of tar archives.

    Attributes
    ----------
    folder : Folder
        The archives are below it.
    pattern : str
        The name of an archive below the folder, or a pattern; see :mod:`fruits.images.tar.shards`.
    include_hidden : bool, default False
        Include members whose names start with a dot, and folders of systems and tools, such as ``__MACOSX``.
    """

    folder: Folder
    pattern: str
    include_hidden: bool = False

    @property
    def address(self) -> str:
        """The address of the archives."""
        first, separator, others = split_chain(self.folder.address)
        return f"{first}/{self.pattern}{separator}{others}"

    def tables(self, skipped: SkippedFiles, limit: int | None = None) -> Iterator[pa.Table]:
        """Yield the images as tables; see :class:`fruits.images.sources.source.Source`.

        All archives are listed, whatever the limit is, because the first paths can be in any of them.

        Raises
        ------
        DatasetError
            An archive is missing, truncated or corrupt, a member is refused, or two images have the same path.
        """
        shards = find_shards(self.folder, name_in(self.folder.address, self.pattern))
        files = pa.array([name_bytes(shard.path) for shard in shards], pa.binary())
        lists: set[bool] = set()
        tables = self._listed(shards, skipped, lists)
        for table in sorted_tables(tables, self.address, lambda place: self._shown(shards, place)):
            yield _entries(table, shards, files, labelled_by_lists=True in lists)

    def read(self, entries: Iterable[ImageEntry]) -> Iterator[Content]:
        """Yield the content of each image; see :class:`fruits.images.sources.source.Source`."""
        places = (Range(entry.file, entry.position, entry.size, entry.version.rpartition(":")[0]) for entry in entries)
        return read_places(self.folder, places)

    def _listed(self, shards: Sequence[FileInfo], skipped: SkippedFiles, lists: set[bool]) -> Iterator[pa.Table]:
        """Yield the images of all archives as unsorted tables, and note which kinds of labels they have."""
        remaining = iter(enumerate(shards))
        pending: deque[Future[tuple[list[pa.Table], SkippedFiles, set[bool]]]] = deque()
        with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
            try:
                while True:
                    for number, shard in islice(remaining, SHARDS_AT_ONCE - len(pending)):
                        pending.append(pool.submit(self._list, number, shard))
                    if not pending:
                        return
                    tables, others, kinds = pending.popleft().result()
                    skipped.include(others)
                    lists |= kinds
                    yield from tables
            finally:
                for future in pending:
                    future.cancel()

    def _list(self, number: int, shard: FileInfo) -> tuple[list[pa.Table], SkippedFiles, set[bool]]:
        """Return the images of one archive, what was skipped, and whether labels are lists."""
        name = (self.folder / shard.path).address
        if shard.size == UNKNOWN_SIZE:
            raise DatasetError(f"{name}: its size is unknown, so that it cannot be read by ranges. Copy it first.")

        def read(start: int, end: int) -> bytes:
            (data,) = self.folder.fetch_ranges([Range(shard.path, start, end - start, shard.version)])
            if isinstance(data, OSError):
                raise DatasetError(f"{name}: at byte {start:,}: {data.strerror or data}.") from data
            return data

        skipped = SkippedFiles()
        window = Window(name, shard.size, read)
        samples = read_samples(window, read_members(window), skipped.add, hidden=self.include_hidden)
        tables = []
        kinds: set[bool] = set()
        while some := list(islice(samples, ROWS)):
            kinds |= {isinstance(sample.label, tuple) for sample in some}
            tables.append(_table(number, some))
        return tables, skipped, kinds

    def _shown(self, shards: Sequence[FileInfo], place: int) -> str:
        shard = shards[place >> BLOCK_BITS].path
        return f"{(self.folder / shard).address} at byte {(place & (1 << BLOCK_BITS) - 1) * BLOCK:,}"


def _table(number: int, samples: Sequence[Sample]) -> pa.Table:
    """Return the images of an archive as ``path, size, labels, place``; lists of labels have the type of all labels."""
    positions = np.array([sample.position for sample in samples], np.int64)
    return pa.table(
        {
            "path": text_array([name_bytes(sample.path) for sample in samples], pa.binary()),
            "size": number_array(np.array([sample.size for sample in samples], np.int64)),
            "labels": text_lists([[name_bytes(each) for each in _labels(sample)] for sample in samples], LABELS.type),
            "place": number_array((np.int64(number) << BLOCK_BITS) + positions // BLOCK),
        }
    )


def _labels(sample: Sample) -> Sequence[str]:
    if isinstance(sample.label, tuple):
        return sample.label
    label = ImageEntry(sample.path, sample.size, own_label=sample.label).label
    return () if label is None else (str(label),)


def _entries(table: pa.Table, shards: Sequence[FileInfo], files: pa.Array, *, labelled_by_lists: bool) -> pa.Table:
    """Return a sorted table as one of entries."""
    places = table["place"].to_numpy()
    numbers = places >> BLOCK_BITS
    positions = (places & (1 << BLOCK_BITS) - 1) * BLOCK
    versions = [
        f"{version}:{position}".encode() if (version := shards[number].version) else b""
        for number, position in zip(numbers.tolist(), positions.tolist(), strict=True)
    ]
    labels = table["labels"].combine_chunks()
    if not labelled_by_lists:
        counts = pc.list_value_length(labels)
        labels = pc.if_else(pc.equal(counts, 0), None, labels)
        labels = pc.list_element(labels, 0)
    return pa.table(
        [
            table["path"],
            table["size"],
            text_array(versions, pa.string()),
            labels,
            files.take(number_array(numbers)),
            number_array(positions),
        ],
        schema=pa.schema([*PATHS, LABELS if labelled_by_lists else LABEL, *PLACES]),
    )
