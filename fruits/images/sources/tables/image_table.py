"""Parquet files that contain the images themselves, as `datasets` and pandas write them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from fruits.errors import DatasetError
from fruits.images.skipped import SkippedFiles
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.source import Content
from fruits.images.sources.tables.files import TableFile, TableFiles
from fruits.images.sources.tables.image_reader import read_rows
from fruits.images.sources.tables.ordering import list_table, ordered_list
from fruits.images.sources.tables.rows import UNREADABLE, Column, field_types, is_bytes, is_text, read_batches
from fruits.images.sources.tables.sorting import RepeatedPathError, sorted_tables
from fruits.images.sources.tables.values import UnusablePathError, checked_paths


@dataclass(frozen=True, slots=True)
class ImageTableSource:
    """The images in a column of Parquet files: one file, those of a folder, or those that a pattern matches.

    The version of an image is that of its file.

    Attributes
    ----------
    files : TableFiles
    image_column : str
        The column of the contents of image files; ``image.bytes`` names a field of a struct.
    path_column : str, optional
        The column of the names of the images. Default: the field ``path`` beside ``image.bytes``, if each image has one
        and no two the same. Else an image is named by its file and row.
    label_column : str, optional
        The column of the labels: texts, whole numbers, or lists of them. Numbers that `datasets` has named are replaced
        by their names. Default: the folder in the path.
    """

    files: TableFiles
    image_column: str
    path_column: str | None = None
    label_column: str | None = None

    @property
    def address(self) -> str:
        """The address of the files."""
        return self.files.place.address

    def tables(self, skipped: SkippedFiles, limit: int | None = None) -> Iterator[pa.Table]:
        """Yield the images as tables; see :class:`fruits.images.sources.source.Source`."""
        found = self.files.find()
        field = self._field_of_paths(found)
        path_column = self.path_column or (field if field is not None and self._is_unique(found, field) else None)
        return ordered_list(self._tables(found, path_column), self.files.given, found)

    def read(self, entries: Iterable[ImageEntry]) -> Iterator[Content]:
        """Yield the content of each image; see :class:`fruits.images.sources.source.Source`."""
        return read_rows(self.files.root, self.image_column, entries)

    def _field_of_paths(self, found: list[TableFile]) -> str | None:
        """Return the field ``path`` beside that of the images, if all files have it; check the column of the images.

        Raises
        ------
        DatasetError
            A file lacks the column, has it twice, or it contains no bytes.
        """
        column, _, field = self.image_column.rpartition(".")
        name = f"{column}.path" if column and field else ""
        has_paths = True
        for file in found:
            with file.open() as stream:
                try:
                    metadata = pq.read_metadata(stream)
                    fields = field_types(metadata.schema.to_arrow_schema())
                    is_null = _is_null(metadata, self.image_column)
                except UNREADABLE as error:
                    raise DatasetError(f"{file} is no readable Parquet file: {error}.") from error
            types = dict(fields)
            kind = types.get(self.image_column)
            is_single = sum(each == self.image_column for each, _ in fields) == 1
            if kind is None or not is_bytes(kind) or not is_single:
                usable = ", ".join(each for each, type_ in types.items() if is_bytes(type_))
                wrong = f"has it as {kind}" if is_single else "has it twice"
                problem = "has no such column" if kind is None else wrong
                raise DatasetError(
                    f"`image_column` {self.image_column}: {file} {problem}. Its columns of bytes: {usable or 'none'}."
                )
            if is_null:
                raise DatasetError(
                    f"`image_column` {self.image_column}: {file} contains no image: all values are null. If it names "
                    "image files instead, as `to_parquet` of datasets does, leave `image_column` out, and give "
                    f"`path_column`, such as {name or 'path'}."
                )
            has_paths &= name in types and is_text(types[name])
        return name if has_paths else None

    def _is_unique(self, found: list[TableFile], path_column: str) -> bool:
        """Return whether every image has a path, and no two have the same."""
        tables = self._tables(found, path_column, labelled=False)
        try:
            for _ in sorted_tables(tables, self.files.given, str):
                pass
        except (RepeatedPathError, UnusablePathError):
            return False
        return True

    def _tables(self, found: list[TableFile], path_column: str | None, *, labelled: bool = True) -> Iterator[pa.Table]:
        label_column = self.label_column if labelled else None
        given = {"path_column": path_column, "label_column": label_column}
        columns = [Column(parameter, name) for parameter, name in given.items() if name is not None]
        for number, file in enumerate(found):
            for batch in read_batches(file, columns):
                paths = None if path_column is None else checked_paths(batch, "path_column")
                yield list_table(batch, number, paths, label_column=label_column, in_file=True)


def _is_null(metadata: pq.FileMetaData, column: str) -> bool:
    """Return whether a file has rows, and states that all values of a column are null."""
    groups = (metadata.row_group(group) for group in range(metadata.num_row_groups))
    chunks = (group.column(index) for group in groups for index in range(group.num_columns))
    nulls = [
        chunk.statistics is not None and chunk.statistics.null_count == chunk.num_values
        for chunk in chunks
        if chunk.path_in_schema == column
    ]
    return metadata.num_rows > 0 and bool(nulls) and all(nulls)
