"""Listings: all images of a source, the first ones, or a sample, with the counts of labels and of skipped files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from fruits.images.skipped import SkippedFiles
from fruits.images.sources.entries import NO_NAMES, ImageEntry, entry_tables, table_entries
from fruits.images.sources.source import Source
from fruits.images.stratified import stratified


class Listing:
    """Images of a source, in code-point order of their paths; each iteration lists them again.

    Parameters
    ----------
    source : Source
    limit : int, optional
        Only the first images, up to this number.
    sample : int, optional
        Only a sample of this size, with images of each label; see :func:`fruits.images.stratified.stratified`.
    seed : int, default 0
        The seed of the sample.
    """

    def __init__(self, source: Source, *, limit: int | None = None, sample: int | None = None, seed: int = 0) -> None:
        self.source = source
        self.limit = limit
        self.sample = sample
        self.seed = seed
        self._reset()

    def _reset(self) -> None:
        self._skipped = SkippedFiles()
        self._labels: set[bytes] = set()

    @property
    def labels(self) -> int:
        """The number of labels of the images listed so far."""
        return len(self._labels)

    @property
    def skipped(self) -> Counter[str]:
        """The number of files skipped so far, by kind; see :data:`fruits.images.skipped.KINDS`."""
        return self._skipped.counts

    def describe_skipped(self) -> list[str]:
        """Return a line for each kind of skipped files, with an example and the option that includes them."""
        return self._skipped.describe()

    def tables(self) -> Iterator[pa.Table]:
        """Yield the images as tables; see :meth:`fruits.images.sources.source.Source.tables`."""
        if self.sample is None:
            chosen = self._all(self.limit)
        else:
            chosen = self._sample(self.sample)
        remaining = self.limit
        for table in chosen:
            some = table if remaining is None else table.slice(0, remaining)
            self._labels |= _labels(some)
            yield some
            if remaining is not None:
                remaining -= some.num_rows
                if remaining == 0:
                    return

    def __iter__(self) -> Iterator[ImageEntry]:
        for table in self.tables():
            yield from table_entries(table)

    def _all(self, limit: int | None = None) -> Iterator[pa.Table]:
        """Yield all images, and count the files skipped."""
        self._reset()
        return self.source.tables(self._skipped, limit)

    def _sample(self, count: int) -> Iterator[pa.Table]:
        columns: set[str] = set()

        def images() -> Iterator[ImageEntry]:
            for table in self._all():
                columns.update(table.column_names)
                yield from table_entries(table)

        entries = stratified(images, count, self.seed)
        return entry_tables(entries, labelled="label" in columns, placed="file" in columns)


def _labels(table: pa.Table) -> set[bytes]:
    """Return the labels of the images of a table."""
    if "label" not in table.column_names:
        folders = {path.rpartition(b"/")[0].rstrip(b"/") for path in table["path"].to_pylist()}
        return {folder.rpartition(b"/")[2] for folder in folders} - {name.encode() for name in NO_NAMES}
    column = table["label"].combine_chunks()
    values = column.flatten() if pa.types.is_list(column.type) else column
    return set(values.unique().to_pylist()) - {None}
