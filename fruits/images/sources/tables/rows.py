"""Columns of Parquet, ORC, CSV and JSON Lines files, read batch by batch. Every row has its place, for messages."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fruits.errors import DatasetError
from fruits.images.sources.tables.files import TableFile
from fruits.storage.parquet import text_array, text_lists
from fruits.text import brief, counted, printable

BATCH = 16_384  # rows
LINE_BYTES = 2**24  # of a line of JSON; also characters of a line of CSV
SHOWN = 20  # columns in a message
UNREADABLE = (pa.ArrowException, UnicodeDecodeError)  # exceptions of pyarrow for a corrupt Parquet file


class Column(NamedTuple):
    """A column to read: the parameter that names it, and its name; a dot separates the fields of a struct."""

    parameter: str
    name: str


class Batch(NamedTuple):
    """Some rows of a file.

    Attributes
    ----------
    file : TableFile
    unit : {"line", "row"}
    numbers : ndarray of shape (n,), int64
        The number of each row: lines count from 1, rows from 0.
    columns : mapping of str to pyarrow.Array
        The columns by parameter.
    metadata : mapping of bytes, optional
        The metadata of the schema of the file.
    """

    file: TableFile
    unit: str
    numbers: Any
    columns: dict[str, pa.Array]
    metadata: dict[bytes, bytes] | None = None

    def error(self, row: int, problem: str) -> DatasetError:
        """Return the error of a row of the batch."""
        return DatasetError(f"{self.file}, {self.unit} {self.numbers[row]:,}: {problem}")


def read_batches(file: TableFile, columns: Sequence[Column]) -> Iterator[Batch]:
    """Yield the columns of a file, at most 16,384 rows at a time.

    Raises
    ------
    DatasetError
        The file cannot be read, is not of its format, or lacks a column; the message names the row.
    """
    read = READERS[file.name.lower().rpartition(".")[2]]
    with file.open() as stream:
        yield from read(file, stream, columns)


def _check(file: TableFile, existing: Sequence[str], columns: Sequence[Column]) -> None:
    """Raise for the first column that a file lacks, or has twice."""
    for column in columns:
        count = list(existing).count(column.name)
        if count != 1:
            names = ", ".join(printable(brief(name)) for name in existing[:SHOWN])
            more = f" and {len(existing) - SHOWN} more" if len(existing) > SHOWN else ""
            raise DatasetError(
                f"{file} has {'no' if not count else f'{count:,}'} column{'s' * (count > 1)} {brief(column.name)}. Its "
                f"columns: {names or 'none'}{more}. Give one of them as `{column.parameter}`."
            )


def _parquet(file: TableFile, stream: BinaryIO, columns: Sequence[Column]) -> Iterator[Batch]:
    try:
        parquet = pq.ParquetFile(stream, pre_buffer=False, buffer_size=2**20)
        _check(file, [name for name, _ in field_types(parquet.schema_arrow)], columns)
        row = 0
        # One column is requested once, also if two parameters name it.
        names = list(dict.fromkeys(column.name for column in columns))
        for batch in parquet.iter_batches(BATCH, columns=names, use_threads=False):
            values = {column.parameter: nested(batch, column.name) for column in columns}
            numbers = np.arange(row, row + batch.num_rows)
            yield Batch(file, "row", numbers, values, parquet.schema_arrow.metadata)
            row += batch.num_rows
    except UNREADABLE as error:
        raise DatasetError(f"{file} is no readable Parquet file: {error}.") from error


def field_types(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    """Return the types of the columns and of the fields of structs, which are named with a dot; names can repeat."""
    types = []
    for field in schema:
        types.append((field.name, field.type))
        if pa.types.is_struct(field.type):
            types += [(f"{field.name}.{each.name}", each.type) for each in field.type]
    return types


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is one of texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether a type is one of bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def nested(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Return a column of a batch, or a field of a struct by its name with a dot."""
    if name in batch.schema.names:
        return batch[name]
    column, _, field = name.partition(".")
    return pc.struct_field(batch[column], field)  # null where the struct is null


def _orc(file: TableFile, stream: BinaryIO, columns: Sequence[Column]) -> Iterator[Batch]:
    from pyarrow import orc

    try:
        table = orc.ORCFile(stream)
        _check(file, table.schema.names, columns)
        row = 0
        for stripe in range(table.nstripes):
            batch = table.read_stripe(stripe, columns=[column.name for column in columns])
            values = {column.parameter: batch[column.name] for column in columns}
            yield Batch(file, "row", np.arange(row, row + batch.num_rows), values)
            row += batch.num_rows
    except pa.ArrowException as error:
        raise DatasetError(f"{file} is no readable ORC file: {error}.") from error


def _csv(file: TableFile, stream: BinaryIO, columns: Sequence[Column]) -> Iterator[Batch]:
    """Yield the columns of a file with a header, separated by commas. An empty cell is a null."""
    yield from csv_batches(file, stream, columns, None)


def csv_batches(
    file: TableFile, stream: BinaryIO, columns: Sequence[Column], header: Sequence[str] | None
) -> Iterator[Batch]:
    """Yield the columns of a CSV file; `header` names the columns of a file without header."""
    text = TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        rows = _csv_rows(file, csv.reader(_lines(text), strict=True))
        if header is None:
            header = next(rows, (1, []))[1]
        if any("\0" in name or not _is_utf8(name) for name in header):
            raise DatasetError(f"{file} is no CSV file in UTF-8. Convert it to UTF-8.")
        _check(file, header, columns)
        indices = [header.index(column.name) for column in columns]
        while some := list(islice(rows, BATCH)):
            for line, row in some:
                if len(row) != len(header):
                    raise DatasetError(
                        f"{file}, line {line:,}: {counted(len(row), 'value')} for "
                        f"{counted(len(header), 'column')}. Give one for each."
                    )
            batch = Batch(file, "line", np.array([line for line, _ in some], np.int64), {})
            for column, index in zip(columns, indices, strict=True):
                batch.columns[column.parameter] = _texts(batch, [row[index] or None for _, row in some])
            yield batch
    finally:
        text.detach()  # else it closes the stream when it is collected


def _lines(text: TextIOWrapper) -> Iterator[str]:
    """Yield the lines of a text; a longer one would be in memory as a whole."""
    while line := text.readline(LINE_BYTES):
        if len(line) == LINE_BYTES:
            raise csv.Error(f"a line of more than {LINE_BYTES:,} characters")
        yield line


def _csv_rows(file: TableFile, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which a row begins, and the row; without empty lines."""
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DatasetError(
                f"{file}, line {line:,}: {error}. Allowed: CSV in UTF-8 with a header, and cells of at most 131,072 "
                "characters."
            ) from error
        if row is None:
            return
        if row:
            yield line, row


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _texts(batch: Batch, values: Sequence[str | None]) -> pa.Array:
    try:
        return text_array([None if value is None else value.encode() for value in values], pa.string())
    except UnicodeEncodeError:
        row = next(row for row, value in enumerate(values) if value is not None and not _is_utf8(value))
        raise batch.error(row, "it is not UTF-8. Convert the file to UTF-8.") from None


def _jsonl(file: TableFile, stream: BinaryIO, columns: Sequence[Column]) -> Iterator[Batch]:
    """Yield the columns of a file with a JSON object on each line. A missing key is a null."""
    rows = _json_rows(file, stream)
    is_first = True
    while some := list(islice(rows, BATCH)):
        if is_first:
            _check(file, list(dict.fromkeys(key for _, row in some for key in row)), columns)
            is_first = False
        batch = Batch(file, "line", np.array([line for line, _ in some], np.int64), {})
        for column in columns:
            batch.columns[column.parameter] = _json_array(batch, column, [row.get(column.name) for _, row in some])
        yield batch
    if is_first:
        _check(file, [], columns)


def _json_rows(file: TableFile, stream: BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the object of each line that is not empty."""
    line = 0
    while data := stream.readline(LINE_BYTES):
        line += 1
        if line == 1:
            data = data.removeprefix(b"\xef\xbb\xbf")
        if not data.strip():
            continue
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise DatasetError(
                f"{file}, line {line:,}: {error}. Allowed: a JSON object in UTF-8 on each line."
            ) from error
        if not isinstance(value, dict):
            raise DatasetError(
                f'{file}, line {line:,}: {brief(value)}. Allowed: a JSON object, such as {{"path": "a/1.jpg"}}.'
            )
        yield line, value


def _json_array(batch: Batch, column: Column, values: Sequence[Any]) -> pa.Array:
    """Return texts as ``string``, whole numbers as ``int64``, and lists of texts as ``list<string>``."""
    kinds = {type(value) for value in values if value is not None}
    try:
        if kinds == {list}:
            items = [[None if item is None else item.encode() for item in value or ()] for value in values]
            return text_lists(items, pa.list_(pa.string()))
        if kinds <= {str}:
            return _texts(batch, values)
        if kinds == {int}:
            known = pa.py_buffer(np.packbits([value is not None for value in values], bitorder="little"))
            data = pa.py_buffer(np.array([value or 0 for value in values], np.int64))
            return pa.Array.from_buffers(pa.int64(), len(values), [known, data])
    except (AttributeError, OverflowError):  # an item that is no text, a number beyond 64 bits
        pass
    first = next(value for value in values if value is not None)
    row = next((row for row, value in enumerate(values) if value is not None and not _fits(value, type(first))), 0)
    raise batch.error(
        row,
        f"{brief(column.name)} is {brief(values[row])}. Allowed: texts in all rows, whole numbers in all rows, or "
        "lists of texts in all rows.",
    )


def _fits(value: Any, kind: type) -> bool:
    if isinstance(value, list):
        return kind is list and all(item is None or isinstance(item, str) for item in value)
    return type(value) is kind and (not isinstance(value, int) or -(2**63) <= value < 2**63)


READERS: dict[str, Callable[[TableFile, BinaryIO, Sequence[Column]], Iterator[Batch]]] = {
    "parquet": _parquet,
    "orc": _orc,
    "csv": _csv,
    "jsonl": _jsonl,
}
