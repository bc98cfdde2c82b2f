"""The rows of tables as a list of images: ordered by path, each path once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from fruits.errors import DatasetError
from fruits.images.sources.tables.files import TableFile
from fruits.images.sources.tables.rows import Batch
from fruits.images.sources.tables.sorting import RepeatedPathError, SortedTables
from fruits.storage.parquet import number_array
from fruits.text import brief, printable

NUMBER_BITS = 40  # of a place: the number of a row; the others are the number of its file
PLACE = pa.field("place", pa.int64(), nullable=False)


def with_places(table: pa.Table, batch: Batch, file: int) -> pa.Table:
    """Return the table of a batch with a column ``place``: the numbers of the file and of each row."""
    return table.append_column(PLACE, number_array(batch.numbers + (file << NUMBER_BITS)))


def place_of(file: TableFile, row: int) -> bytes:
    """Return the path of an image without a name: its file and row, in the order of the rows."""
    return f"{file.name}/{row:09d}".encode("utf-8", "surrogateescape")


def ordered_list(tables: Iterable[pa.Table], given: str, files: Sequence[TableFile]) -> Iterator[pa.Table]:
    """Yield the rows of tables with places, without these, in code-point order of their paths.

    Parameters
    ----------
    tables : iterable of pyarrow.Table
        See :func:`with_places`.
    given : str
        The address in messages.
    files : sequence of TableFile
        The files that the places name.

    Raises
    ------
    DatasetError
        There is no row, two rows have the same path, or only some labels are lists.
    """
    with tempfile.TemporaryDirectory(prefix="fruits-sort-") as folder:
        is_empty = True
        try:
            for table in SortedTables(_alike(tables, given), Path(folder)):
                is_empty = False
                yield table.drop_columns(["place"])
        except RepeatedPathError as error:
            one, other = (_describe(place, files) for place in error.places)
            path = error.path.decode("utf-8", "surrogateescape")
            raise DatasetError(
                f"{given}: the path {printable(brief(path))} is there twice: {one}, and {other}. "
                "Remove one of these rows."
            ) from error
        except OSError as error:  # those of reading are DatasetErrors
            raise DatasetError(
                f"{given} cannot be sorted in {folder}: {error.strerror or error}. Free space there, or name a larger "
                "folder in the environment variable TMPDIR."
            ) from error
    if is_empty:
        raise DatasetError(f"{given} lists no image. Give a table with at least one row.")


def _alike(tables: Iterable[pa.Table], given: str) -> Iterator[pa.Table]:
    """Yield tables, after a check that they have one schema: without rows, all labels look like texts."""
    schema = None
    for table in tables:
        if not table.num_rows:
            continue
        schema = schema or table.schema
        if table.schema != schema:
            raise DatasetError(
                f"{given}: the labels of some rows are lists, and those of others are not. Give a list in every "
                "row, or in none."
            )
        yield table


def _describe(place: int, files: Sequence[TableFile]) -> str:
    file, number = place >> NUMBER_BITS, place & ((1 << NUMBER_BITS) - 1)
    unit = "line" if files[file].name.lower().endswith((".csv", ".csv.gz", ".jsonl")) else "row"
    return f"{files[file]}, {unit} {number:,}"
