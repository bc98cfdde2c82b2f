"""Tables of features, rejects and rows, and the encoding of rows as Parquet or CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from fruits.errors import OutputError
from fruits.model.scaled_pca import ScaledPCA
from fruits.storage.parquet import read_table, text_array, text_lists, vector_array, vectors, write_table

JSON_COLUMNS = ("confidence", "top")  # of predictions
LABEL = pa.string()
# Of some sources. Parquet's name for list items, so that a table equals the one read back.
LABELS = pa.list_(pa.field("element", pa.string(), nullable=False))
VECTORS = ("features", "scaled_features", "pca_features")
REJECTS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)

# A spreadsheet runs a cell that starts with one of these characters as a formula. It skips tabs and line ends; the last
# four are full-width. Where it separates cells by semicolons or tabs, it ignores quotes within a cell, so that cells
# also start after these separators and after line ends. An apostrophe makes such a cell a text. Cells that already have
# one get another, so that unescaping is unambiguous.
CELL_START = r"(?:\A|(?<=[;\t\r\n]))"
FORMULA = "(?=[\"']*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20])"
UNESCAPED = re.compile(CELL_START + FORMULA)
ESCAPED = re.compile(CELL_START + "'" + FORMULA)

Float32 = npt.NDArray[np.float32]
Label = str | Sequence[str] | None
Column = Sequence[Label] | Float32


def features_table(
    paths: Sequence[str],
    labels: Sequence[Label],
    features: Float32,
    crop_features: Float32 | None = None,
    *,
    labelled: pa.DataType = LABEL,
) -> pa.Table:
    """Return the table ``path, label, features[, crop_features]`` of n images; features have shape (n, d).

    `labelled` is the type of the labels, :data:`LABEL` or :data:`LABELS`.
    """
    columns: dict[str, Column] = {"path": list(paths), "label": list(labels), "features": features}
    if crop_features is not None:
        columns["crop_features"] = crop_features
    return _table(columns, labelled)


def label_array(labels: Sequence[Label], kind: pa.DataType) -> pa.Array:
    """Return labels as an array of the type :data:`LABEL` or :data:`LABELS`."""
    if pa.types.is_list(kind):
        return text_lists([[each.encode() for each in label or ()] for label in labels], kind)
    return _texts(labels)


def label_text(label: Label) -> str | None:
    """Return a label as text: that of a list is JSON."""
    return label if label is None or isinstance(label, str) else orjson.dumps(list(label)).decode()


def rejects_table(rejects: Sequence[tuple[str, str | None, str, str]], metadata: dict[bytes, bytes]) -> pa.Table:
    """Return the table ``path, label, reason, detail`` of the images that cannot be used."""
    columns = zip(*rejects, strict=True) if rejects else ((), (), (), ())
    arrays = [_texts(column) for column in columns]
    return pa.table(arrays, schema=REJECTS.with_metadata(metadata))


def encode_rows(table: pa.Table, model: ScaledPCA, format: str, columns: Sequence[str]) -> bytes:
    """Return the rows of a table of features, transformed by the model, as the content of a file.

    Parameters
    ----------
    table : pyarrow.Table
        Columns ``path, label, features``.
    model : ScaledPCA
        The model; applied in float64, and the result rounded to float32.
    format : {"parquet", "csv"}
        In CSV a vector is one JSON cell, ``[a,b,…]``, with the fewest digits that give each float32 back, and a list
        of labels is one, too. Apostrophes,
        which :func:`decode_rows` removes, keep a spreadsheet from running a text as a formula.
    columns : sequence of str
        The columns, in this order.
    """
    features = vectors(table["features"])
    values: dict[str, Column] = {}
    if "scaled_features" in columns or "pca_features" in columns:
        scaled, scores = model.transform(features)
        values = {"scaled_features": scaled.astype(np.float32), "pca_features": scores.astype(np.float32)}
    values |= {"path": table["path"].to_pylist(), "label": table["label"].to_pylist(), "features": features}
    chosen = {name: values[name] for name in columns}
    if format == "csv":
        return _csv(chosen)
    return write_table(_table(chosen, table.schema.field("label").type))


@dataclass(frozen=True, slots=True)
class RowEncoder:
    """Turns features into rows with a fitted model; see :func:`encode_rows`."""

    model: ScaledPCA
    format: str
    columns: tuple[str, ...]

    parameter: ClassVar[str] = "model"
    crops: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("path", "label", "features")

    @property
    def network(self) -> Mapping[str, str]:
        """The network of the features that the model was fitted on, and how images were decoded for it."""
        return {"decode": "full"} | dict(self.model.network)  # earlier versions decoded every image at full size

    def identity(self) -> dict[str, Any]:
        """Return the digest of the model, and the form of the rows."""
        return {"model": self.model.digest(), "format": self.format, "columns": list(self.columns)}

    def encode(self, table: pa.Table) -> bytes:
        """Return the rows of a table of features as the content of a file."""
        return encode_rows(table, self.model, self.format, self.columns)


def decode_rows(data: bytes, name: str) -> dict[str, list[str | None] | Float32]:
    """Return the columns of a file of rows by name; the suffix of `name` selects the format.

    Lists of labels are returned as JSON, as CSV contains them.

    Raises
    ------
    OutputError
        The file is corrupt.
    """
    try:
        if name.endswith(".csv"):
            return _read_csv(data.decode())
        table = read_table(data)
        columns: dict[str, list[str | None] | Float32] = {}
        for column in table.column_names:
            if column in VECTORS:
                columns[column] = vectors(table[column])
            elif column == "label":
                columns[column] = list(map(label_text, table[column].to_pylist()))
            else:
                columns[column] = table[column].to_pylist()
        return columns
    except (pa.ArrowException, OSError, ValueError, csv.Error) as error:
        raise OutputError(
            f"{name} is corrupt: {error}. Check the other parts with `fruits verify`, and run the command of the job "
            "again to regenerate the part."
        ) from error


def _table(columns: dict[str, Column], labelled: pa.DataType) -> pa.Table:
    arrays = [
        vector_array(values)
        if isinstance(values, np.ndarray)
        else label_array(values, labelled if name == "label" else LABEL)
        for name, values in columns.items()
    ]
    fields = [pa.field(name, array.type, nullable=name == "label") for name, array in zip(columns, arrays, strict=True)]
    return pa.table(arrays, schema=pa.schema(fields))


def _texts(values: Sequence[Any]) -> pa.Array:
    return text_array([None if value is None else value.encode() for value in values], pa.string())


def _csv(columns: dict[str, Column]) -> bytes:
    cells: dict[str, Iterable[bytes]] = {
        name: _vector_cells(values) if isinstance(values, np.ndarray) else map(label_cell, values)
        for name, values in columns.items()
    }
    if len(cells) == 1:  # CSV readers skip empty lines
        cells = {name: (cell or b'""' for cell in column) for name, column in cells.items()}
    return join_csv(cells)


def join_csv(cells: Mapping[str, Iterable[bytes]]) -> bytes:
    """Return RFC 4180 CSV of encoded cells by column.

    Python's csv module would scan every digit of the vectors for quotes.
    """
    lines = [",".join(cells).encode(), *(b",".join(row) for row in zip(*cells.values(), strict=True)), b""]
    return b"\r\n".join(lines)


def _vector_cells(values: Float32) -> Iterator[bytes]:
    return (b'"%b"' % orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in values)


def text_cell(text: str | None) -> bytes:
    """Return a text, or None, as a CSV cell that no spreadsheet runs as a formula."""
    if text is None:
        return b""
    return b'"%b"' % UNESCAPED.sub("'", text).encode().replace(b'"', b'""')


def label_cell(label: Label) -> bytes:
    """Return a label as a CSV cell; see :func:`text_cell` and :func:`label_text`."""
    return text_cell(label_text(label))


def _text(cell: str) -> str | None:
    return ESCAPED.sub("", cell) or None


def _read_csv(text: str) -> dict[str, list[str | None] | Float32]:
    limit = csv.field_size_limit(len(text) + 1)
    try:
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    finally:
        csv.field_size_limit(limit)
    columns: dict[str, list[str | None] | Float32] = {}
    for name, cells in zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True):
        if name in VECTORS:
            columns[name] = np.array([orjson.loads(cell) for cell in cells], np.float32)
        elif name in JSON_COLUMNS:
            columns[name] = [orjson.loads(ESCAPED.sub("", cell)) for cell in cells]
        else:
            columns[name] = [_text(cell) for cell in cells]
    return columns
