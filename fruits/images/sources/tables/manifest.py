"""Manifests: tables with a path or an address for each image, and optionally its label and version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from fruits.images.skipped import SkippedFiles
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.source import Content
from fruits.images.sources.tables.addressed import read_addresses
from fruits.images.sources.tables.files import TableFile, TableFiles
from fruits.images.sources.tables.ordering import list_table, ordered_list
from fruits.images.sources.tables.rows import Column, read_batches
from fruits.images.sources.tables.values import checked_paths, checked_versions
from fruits.storage.s3.settings import S3Settings


@dataclass(frozen=True, slots=True)
class ManifestSource:
    """The images that a manifest lists: Parquet, CSV with a header, or JSON Lines, in one file or several.

    Attributes
    ----------
    files : TableFiles
    s3 : S3Settings
        Settings of S3 for addresses in the manifest.
    path_column : str
        The column of the paths: relative to the folder of the manifest, or absolute on any store.
    label_column : str, optional
        The column of the labels: texts, whole numbers, or lists of them. Default: the folder in the path.
    version_column : str, optional
        The column of a value that changes when the image is rewritten, such as an ETag, a checksum or a time. It is
        compared with that of another list of the images, and not with the storage. Default: versions are unknown, so
        that an update computes every image again.
    """

    files: TableFiles
    s3: S3Settings
    path_column: str
    label_column: str | None = None
    version_column: str | None = None

    @property
    def address(self) -> str:
        """The address of the manifest."""
        return self.files.place.address

    def tables(self, skipped: SkippedFiles, limit: int | None = None) -> Iterator[pa.Table]:
        """Yield the images as tables; see :class:`fruits.images.sources.source.Source`."""
        found = self.files.find()
        return ordered_list(self._tables(found), self.files.given, found)

    def _tables(self, found: list[TableFile]) -> Iterator[pa.Table]:
        names = ("path_column", "label_column", "version_column")
        columns = [Column(name, getattr(self, name)) for name in names if getattr(self, name) is not None]
        for number, file in enumerate(found):
            for batch in read_batches(file, columns):
                paths = checked_paths(batch, "path_column")
                versions = checked_versions(batch, "version_column") if self.version_column is not None else None
                yield list_table(batch, number, paths, versions, label_column=self.label_column)

    def read(self, entries: Iterable[ImageEntry]) -> Iterator[Content]:
        """Yield the content of each image; see :class:`fruits.images.sources.source.Source`."""
        return read_addresses(self.files.root, ((entry.path, entry.size, "") for entry in entries), self.s3)
