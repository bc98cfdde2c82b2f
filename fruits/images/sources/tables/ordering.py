"""The rows of tables as a list of images: ordered by path, each path once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from fruits.errors import DatasetError
from fruits.images.sources.entries import LABEL, LABELS, PATHS, PLACES
from fruits.images.sources.tables.files import TableFile
from fruits.images.sources.tables.rows import Batch
from fruits.images.sources.tables.sorting import sorted_tables
from fruits.images.sources.tables.values import checked_labels
from fruits.storage.parquet import number_array, text_array
from fruits.storage.prefetch import UNKNOWN_SIZE
from fruits.text import name_bytes

NUMBER_BITS = 40  # of a place: the number of a row; the others are the number of its file
PLACE = pa.field("place", pa.int64(), nullable=False)


def list_table(
    batch: Batch,
    number: int,
    paths: pa.Array | None,
    versions: pa.Array | None = None,
    *,
    sizes: pa.Array | None = None,
    label_column: str | None = None,
    in_file: bool = False,
) -> pa.Table:
    """Return the images of a batch as a table of entries with a column ``place``, the numbers of file and row.

    Parameters
    ----------
    batch : Batch
    number : int
        The number of its file.
    paths : pyarrow.Array of binary, or None
        None: images are named by file and row, and have no label unless `label_column` gives one.
    versions : pyarrow.Array of string, optional
        Default: unknown.
    sizes : pyarrow.Array of int64, optional
        Default: unknown.
    label_column : str, optional
        The name of the column of labels, which the batch has as ``label_column``.
    in_file : bool, default False
        The rows contain the images. Their version is that of the file.
    """
    rows, file = len(batch.numbers), batch.file
    if sizes is None:
        sizes = number_array(np.full(rows, UNKNOWN_SIZE))
    if versions is None:
        versions = text_array([file.version.encode() if in_file else b""] * rows, pa.string())
    columns = dict(zip(PATHS, (paths, sizes, versions), strict=True))
    if paths is None:
        columns[PATHS[0]] = text_array([name_bytes(f"{file.name}/{row:09d}") for row in batch.numbers], pa.binary())
        columns[LABEL] = pa.nulls(rows, LABEL.type)  # the folder in such a path is the file
    if label_column is not None:
        columns.pop(LABEL, None)
        labels = checked_labels(batch, "label_column", label_column)
        columns[LABELS if pa.types.is_list(labels.type) else LABEL] = labels
    if in_file:
        contents = text_array([name_bytes(file.name)] * rows, pa.binary()), number_array(batch.numbers)
        columns |= dict(zip(PLACES, contents, strict=True))
    columns[PLACE] = number_array(batch.numbers + (number << NUMBER_BITS))
    return pa.table(list(columns.values()), schema=pa.schema(list(columns)))


def ordered_list(tables: Iterable[pa.Table], given: str, files: Sequence[TableFile]) -> Iterator[pa.Table]:
    """Yield the rows of tables with places, without these, ordered by path.

    Parameters
    ----------
    tables : iterable of pyarrow.Table
        See :func:`list_table`.
    given : str
        The address in messages.
    files : sequence of TableFile
        The files that the places name.

    Raises
    ------
    DatasetError
        There is no row, two rows have the same path, or only some labels are lists.
    """
    is_empty = True
    for table in sorted_tables(_alike(tables, given, files), given, lambda place: _shown(place, files)):
        is_empty = False
        yield table.drop_columns(["place"])
    if is_empty:
        raise DatasetError(f"{given} lists no image. Give a table with at least one row.")


def _alike(tables: Iterable[pa.Table], given: str, files: Sequence[TableFile]) -> Iterator[pa.Table]:
    """Yield tables, after a check that they have one schema: without rows, all labels look like texts."""
    schema = None
    for table in tables:
        if not table.num_rows:
            continue
        schema = schema or table.schema
        if table.schema != schema:
            first = min(table["place"].to_pylist())
            raise DatasetError(
                f"{given}: the labels of some rows are lists, and those of others are texts or all null, from "
                f"{_shown(first, files)} on. Give a list in every row, [] for no label, or in none."
            )
        yield table


def _shown(place: int, files: Sequence[TableFile]) -> str:
    file, number = place >> NUMBER_BITS, place & ((1 << NUMBER_BITS) - 1)
    unit = "line" if files[file].name.lower().endswith((".csv", ".csv.gz", ".jsonl")) else "row"
    return f"{files[file]}, {unit} {number:,}"
