"""Entries of a list of images: single values on workers, tables on the driver and in storage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from fruits.storage.parquet import number_array, text_array, text_lists
from fruits.text import bytes_name, name_bytes

GROUP = 1024  # entries of a table

NO_NAMES = ("", ".", "..")  # folders in a path that are no labels

Label = str | tuple[str, ...] | None

# File names, and thus labels, need not be UTF-8: columns of texts are binary.
PATHS = (
    pa.field("path", pa.binary(), nullable=False),
    pa.field("size", pa.int64(), nullable=False),
    pa.field("version", pa.string(), nullable=False),
)
LABEL = pa.field("label", pa.binary())
LABELS = pa.field("label", pa.list_(pa.field("element", pa.binary(), nullable=False)), nullable=False)
PLACES = (
    pa.field("file", pa.binary(), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
)


class ImageEntry(NamedTuple):
    """An image of a list.

    Attributes
    ----------
    path : str
        The logical name of the image within its source, with ``/``: its place in the order of the list, and its name
        in rows, updates and comparisons. In a folder, the path below the folder.
    size : int
        Size in bytes; -1 if unknown.
    version : str
        A value that changes when the image is rewritten: the modification time on a local disk, the ETag on S3, either
        of them elsewhere; empty if unknown.
    own_label : str, tuple of str, or None
        The label that the source gives, empty for no label. A tuple is a list of labels. None: the label is the folder
        in the path.
    file : str
        The file that contains the image among others; empty if the image is a file of its own.
    position : int
        The place of the image in that file, such as a byte offset or a row number.
    """

    path: str
    size: int
    version: str = ""
    own_label: Label = None
    file: str = ""
    position: int = 0

    @property
    def label(self) -> Label:
        """The label, or the tuple of labels; None for an image without a label."""
        if self.own_label is None:
            folder = self.path.rpartition("/")[0].rstrip("/").rpartition("/")[2]
            return None if folder in NO_NAMES else folder
        return None if self.own_label == "" else self.own_label

    @property
    def leads_out(self) -> bool:
        """True if the path, below a folder, leads out of it, as keys of S3 can."""
        return ".." in self.path.split("/")


def entry_table(entries: Sequence[ImageEntry], *, labelled: bool = False, placed: bool = False) -> pa.Table:
    """Return the table ``path, size, version[, label][, file, position]`` of some entries.

    Parameters
    ----------
    entries : sequence of ImageEntry
    labelled : bool, default False
        Include the labels, as lists if that of the first entry is a tuple. In a table without labels, those of all
        images are the folders in their paths.
    placed : bool, default False
        Include the places of the images in files that contain several.
    """
    fields = [*PATHS]
    columns = [
        text_array([name_bytes(entry.path) for entry in entries], pa.binary()),
        number_array(np.array([entry.size for entry in entries], np.int64)),
        text_array([entry.version.encode() for entry in entries], pa.string()),
    ]
    if labelled:
        labels = [entry.label for entry in entries]
        if labels and isinstance(labels[0], tuple):
            fields.append(LABELS)
            columns.append(text_lists([[name_bytes(each) for each in label or ()] for label in labels], LABELS.type))
        else:
            fields.append(LABEL)
            columns.append(text_array([name_bytes(str(label)) if label else None for label in labels], pa.binary()))
    if placed:
        fields += PLACES
        columns.append(text_array([name_bytes(entry.file) for entry in entries], pa.binary()))
        columns.append(number_array(np.array([entry.position for entry in entries], np.int64)))
    return pa.table(columns, schema=pa.schema(fields))


def entry_tables(entries: Iterable[ImageEntry], *, labelled: bool = False, placed: bool = False) -> Iterator[pa.Table]:
    """Yield tables of at most 1,024 entries, in their order; see :func:`entry_table`."""
    entries = iter(entries)
    while group := list(islice(entries, GROUP)):
        yield entry_table(group, labelled=labelled, placed=placed)


def table_entries(table: pa.Table) -> Iterator[ImageEntry]:
    """Yield the entries of a table that :func:`entry_table` describes."""
    columns = {name: table[name].to_pylist() for name in table.column_names}
    paths = map(bytes_name, columns["path"])
    labels = map(_own_label, columns["label"]) if "label" in columns else [None] * table.num_rows
    values = [paths, columns["size"], columns["version"], labels]
    if "file" in columns:
        values += [map(bytes_name, columns["file"]), columns["position"]]
    return (ImageEntry(*image) for image in zip(*values, strict=True))


def _own_label(value: bytes | list[bytes] | None) -> Label:
    if isinstance(value, list):
        return tuple(map(bytes_name, value))
    return "" if value is None else bytes_name(value)
