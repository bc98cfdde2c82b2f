"""Reading images from the rows of Parquet files, with bounded memory whatever the size of a row group is."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fruits.images.decode import ImageError
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.source import Content
from fruits.images.sources.tables.rows import UNREADABLE, field_types, is_bytes, nested
from fruits.storage.folder import Folder
from fruits.storage.prefetch import MAX_BYTES, ChangedFileError, too_large

WINDOW_BYTES = 64 * 2**20  # of images that are collected before the first is returned
WINDOW = 1024  # images of a window, at most
REQUEST_BYTES = 8 * 2**20


def read_rows(root: Folder, column: str, entries: Iterable[ImageEntry]) -> Iterator[Content]:
    """Yield the images of rows, in the order of the entries.

    Entries are taken in windows, and the rows of a window are read in the order of the files. Each row group is read
    once if the order of the entries is that of the rows.

    Parameters
    ----------
    root : Folder
        The folder of the files.
    column : str
        The column of the images.
    entries : iterable of ImageEntry
    """
    entries = iter(entries)
    with ExitStack() as stack:
        reader = _Reader(root, column, stack)
        window = list(islice(entries, 1))
        while window:
            window += islice(entries, max(0, reader.window(window[0]) - len(window)))
            found = deque(reader.read(window))
            window = window[len(found) :] or list(islice(entries, 1))
            while found:
                yield found.popleft()


class _Reader:
    """The open file, and the row that was read last."""

    def __init__(self, root: Folder, column: str, stack: ExitStack) -> None:
        self._root = root
        self._column = column
        self._stack = stack
        self._name = ""
        self._problem: OSError | ImageError | None = None
        self._file: pq.ParquetFile | None = None
        self._starts: list[int] = []
        self._mean_bytes = 1  # of the images of the file
        self._row_group = -1
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._row = -1  # that was read last
        self._image = pa.nulls(1, pa.binary())[0]

    def window(self, entry: ImageEntry) -> int:
        """Return the number of images to collect, from the mean size of those in the file of an entry."""
        self._open(entry)
        return max(1, min(WINDOW, WINDOW_BYTES // self._mean_bytes))

    def read(self, window: Sequence[ImageEntry]) -> list[Content]:
        """Return the images of a window, in its order: all, or the first ones that fit in :data:`WINDOW_BYTES`."""
        contents: dict[int, Content] = {}
        stop, held = len(window), 0
        for index in sorted(range(len(window)), key=lambda index: (window[index].file, window[index].position)):
            if index >= stop:
                continue
            self._open(window[index])
            contents[index] = self._problem or self._content(window[index].position)
            held += _size(contents[index])
            while held > WINDOW_BYTES and len(contents) > 1:  # images are of very different sizes
                stop = max(contents)
                held -= _size(contents.pop(stop))
        return [contents[index] for index in range(stop)]

    def _open(self, entry: ImageEntry) -> None:
        """Open the file of an entry, unless it is open."""
        if entry.file == self._name:
            return
        self._stack.close()
        self._name, self._file, self._row_group, self._problem = entry.file, None, -1, None
        self._row, self._mean_bytes = -1, 1
        try:
            store, root = self._root.open()
            found = store.info(f"{root}/{entry.file}")
            if entry.version and found.version != entry.version:
                raise ChangedFileError(
                    f"{entry.file} was written again: version {found.version}; {entry.version} when it was listed"
                )
            stream = self._stack.enter_context(store.open(f"{root}/{entry.file}"))
            file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=REQUEST_BYTES)
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            self._starts = [0, *np.cumsum(counts).tolist()]
            if not is_bytes(dict(field_types(file.schema_arrow)).get(self._column, pa.null())):
                raise ChangedFileError(f"{entry.file} has no column of bytes {self._column}")  # its version is unknown
            self._file, self._mean_bytes = file, _mean_bytes(file.metadata, self._column)
        except (OSError, *UNREADABLE) as error:
            self._problem = _problem(error, entry.file)

    def _content(self, row: int) -> Content:
        """Return the image of a row."""
        try:
            self._seek(row)
        except (OSError, *UNREADABLE) as error:
            self._row_group = -1
            return _problem(error, f"{self._name}, row {row:,}")
        if not self._image.is_valid:
            return ImageError("unreadable", f"{self._name}, row {row:,}: `image_column` {self._column} is null")
        data = self._image.as_buffer()
        return data.to_pybytes() if data.size <= MAX_BYTES else too_large(self._name, MAX_BYTES)

    def _seek(self, row: int) -> None:
        """Read on until a row; start the row group again if it was passed."""
        assert self._file is not None
        if not 0 <= row < self._starts[-1]:
            raise ChangedFileError(f"{self._name} has {self._starts[-1]:,} rows, and no row {row:,}")
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        if group != self._row_group or row < self._row:
            # Row by row: only the mean size of the images is known, and a batch costs 4 µs.
            self._batches = self._file.iter_batches(1, row_groups=[group], columns=[self._column], use_threads=False)
            self._row_group, self._row = group, self._starts[group] - 1
        while self._row < row:
            batch = next(self._batches, None)
            if batch is None:
                raise ChangedFileError(f"{self._name} ends before row {row:,}")
            self._row += 1
            self._image = nested(batch, self._column)[0]


def _problem(error: Exception, place: str) -> OSError | ImageError:
    """Return the error of the storage, or the reason of a reject if the file is corrupt."""
    # Of a page that cannot be decompressed, pyarrow raises an OSError without a number.
    if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
        return error
    return ImageError("unreadable", f"{place}: {error}")


def _mean_bytes(metadata: pq.FileMetaData, column: str) -> int:
    """Return the mean size of the images of a file."""
    size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        size += sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column)
    return int(max(1, size // max(1, metadata.num_rows)))


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else 0
