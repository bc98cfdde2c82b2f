"""Sort tables of any length by path, with bounded memory: sorted runs on the local disk, merged block by block."""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fruits.errors import DatasetError
from fruits.text import brief, bytes_name, printable

RUN_BYTES = 16 * 2**20  # of a run in memory; sorting needs about three times as much
BLOCK = 4096  # rows of a run that are in memory while it is merged: 0.4 MB, and 90 MB for 100,000,000 rows


class RepeatedPathError(DatasetError):
    """Two rows have the same path."""


def sorted_tables(tables: Iterable[pa.Table], given: str, shown: Callable[[int], str]) -> Iterator[pa.Table]:
    """Yield the rows of tables, sorted by the bytes of their paths, which for UTF-8 is the order of code points.

    Parameters
    ----------
    tables : iterable of pyarrow.Table
        Of one schema: ``path`` as binary, ``place`` as int64, and any other columns.
    given : str
        The address in messages.
    shown : callable
        Returns the text of a place.

    Yields
    ------
    pyarrow.Table
        In one piece.

    Raises
    ------
    RepeatedPathError
        Two rows have the same path; the message states the places of both.
    DatasetError
        The temporary folder is full. It needs about as much space as the tables.
    """
    with tempfile.TemporaryDirectory(prefix="fruits-sort-") as folder:
        try:
            last: tuple[bytes, int] | None = None
            for table in _merged([_Run(path) for path in _write_runs(tables, Path(folder))]):
                for path, *places in _repeated(table, last):
                    one, other = map(shown, sorted(places))
                    raise RepeatedPathError(
                        f"{given}: the path {printable(brief(bytes_name(path)))} is there twice: {one}, and {other}. "
                        "Give each image a path of its own, or leave one of them out."
                    )
                last = _at(table, table.num_rows - 1)
                yield table
        except OSError as error:  # those of reading are DatasetErrors
            raise DatasetError(
                f"{given} cannot be sorted in {folder}: {error.strerror or error}. Free space there, or name a larger "
                "folder in the environment variable TMPDIR."
            ) from error


def _write_runs(tables: Iterable[pa.Table], folder: Path) -> list[Path]:
    """Write sorted runs. Tables that continue the order of the last run are appended to it."""
    runs: list[Path] = []
    writer: pa.RecordBatchFileWriter | None = None
    end = b""
    for table in _chunks(tables):
        paths = table["path"].chunk(0)
        if not _is_sorted(paths):
            table = table.take(pc.array_sort_indices(paths)).combine_chunks()
            paths = table["path"].chunk(0)
        if writer is None or paths[0].as_py() < end:
            if writer is not None:
                writer.close()
            runs.append(folder / f"{len(runs)}.arrow")
            writer = pa.ipc.new_file(runs[-1], table.schema)
        writer.write_table(table, max_chunksize=BLOCK)
        end = paths[-1].as_py()
    if writer is not None:
        writer.close()
    return runs


def _chunks(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables of about :data:`RUN_BYTES`, each in one piece."""
    collected: list[pa.Table] = []
    size = 0
    for table in tables:
        if table.num_rows:
            collected.append(table)
            size += table.nbytes
        if size >= RUN_BYTES:
            yield pa.concat_tables(collected).combine_chunks()
            collected, size = [], 0
    if collected:
        yield pa.concat_tables(collected).combine_chunks()


def _is_sorted(paths: pa.Array) -> bool:
    return len(paths) < 2 or bool(pc.all(pc.less_equal(paths[:-1], paths[1:])).as_py())


class _Run:
    """A sorted run on the disk, of which one block is in memory."""

    def __init__(self, path: Path) -> None:
        self._file = pa.OSFile(str(path))
        self._reader = pa.ipc.open_file(self._file)
        self._next = 0
        self._block: pa.Table | None = None
        self._start = 0
        self._load()

    def _load(self) -> None:
        self._start = 0
        if self._next == self._reader.num_record_batches:
            self._block = None
            self._file.close()
            return
        self._block = pa.Table.from_batches([self._reader.get_batch(self._next)])
        self._next += 1

    @property
    def end(self) -> bytes | None:
        """The last path of the block; None if the run is exhausted."""
        return None if self._block is None else _at(self._block, self._block.num_rows - 1)[0]

    def take(self, bound: bytes) -> pa.Table:
        """Return the next rows of the block whose paths are at most `bound`."""
        assert self._block is not None
        block, start = self._block, self._start
        paths = block["path"].chunk(0)
        self._start = bisect_right(range(len(paths)), bound, start, key=lambda row: paths[row].as_py())
        stop = self._start
        if stop == len(paths):
            self._load()
        return block.slice(start, stop - start)


def _merged(runs: list[_Run]) -> Iterator[pa.Table]:
    """Yield the rows of all runs in order.

    A step takes from every run the rows up to the smallest of the last paths in memory. No row that follows is smaller.
    """
    while True:
        runs = [run for run in runs if run.end is not None]
        if not runs:
            return
        bound = min(end for run in runs if (end := run.end) is not None)
        some = [table for run in runs if (table := run.take(bound)).num_rows]
        if len(some) == 1:
            yield some[0].combine_chunks()
        else:
            both = pa.concat_tables(some).combine_chunks()
            yield both.take(pc.array_sort_indices(both["path"].chunk(0))).combine_chunks()


def _at(table: pa.Table, row: int) -> tuple[bytes, int]:
    return table["path"][row].as_py(), table["place"][row].as_py()


def _repeated(table: pa.Table, last: tuple[bytes, int] | None) -> Iterator[tuple[bytes, int, int]]:
    """Yield each path that two rows of a sorted table have, or its first and the one before it, with both places."""
    first = _at(table, 0)
    if last is not None and first[0] == last[0]:
        yield *last, first[1]
    paths = table["path"].chunk(0)
    if len(paths) > 1:
        for row in pc.indices_nonzero(pc.equal(paths[:-1], paths[1:])).to_pylist():
            yield *_at(table, row), _at(table, row + 1)[1]
