"""S3 Inventories: lists of the objects of a bucket that S3 writes itself, with sizes and ETags.

An inventory is a ``manifest.json`` that names data files, as gzipped CSV, Parquet or ORC:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast
from urllib.parse import unquote_plus

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from fruits.errors import DatasetError
from fruits.images.decode import EXTENSIONS
from fruits.images.skipped import NOT_IMAGE, OLD_VERSION, SkippedFiles, skipped_by_name
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.folder import FolderSource
from fruits.images.sources.source import Content
from fruits.images.sources.tables.files import TableFile
from fruits.images.sources.tables.ordering import list_table, ordered_list
from fruits.images.sources.tables.rows import READERS, Batch, Column, csv_batches
from fruits.images.sources.tables.values import checked_paths, checked_versions
from fruits.storage.folder import Folder
from fruits.storage.parquet import number_array, number_scalar, text_array
from fruits.storage.prefetch import UNKNOWN_SIZE
from fruits.text import brief

MAX_MANIFEST = 64 * 2**20
CHUNK = 8 * 2**20
FORMATS = {"CSV": "csv", "Parquet": "parquet", "ORC": "orc"}
# The columns that are used, by their name in Parquet and ORC: that in CSV. All but the key are optional.
COLUMNS = {
    "key": "Key",
    "size": "Size",
    "e_tag": "ETag",
    "is_latest": "IsLatest",
    "is_delete_marker": "IsDeleteMarker",
}


@dataclass(frozen=True, slots=True)
class _Manifest:
    """The content of a ``manifest.json``: the buckets, the format and its columns, and each data file with its MD5."""

    source: str
    destination: str
    format: str
    schema: str
    files: tuple[tuple[str, str], ...]

    def columns(self) -> list[Column]:
        """Return the columns to read: those of :data:`COLUMNS` that the inventory contains."""
        names = COLUMNS.items() if self.format == "CSV" else zip(COLUMNS, COLUMNS, strict=True)
        return [Column(key, name) for key, name in names if re.search(rf"\b{name}\b", self.schema)]


@dataclass(frozen=True, slots=True)
class InventorySource:
    """The images of a bucket, as an inventory lists them.

    Objects are images by the extensions of their keys. Of an object with versions, the latest one is used. A path is a
    key, as in a folder that is the whole bucket.

    Attributes
    ----------
    given : str
        The address of the ``manifest.json`` as it was given, for messages.
    place : Folder
        The same address, absolute.
    include_hidden : bool, default False
        Include hidden files and folders; see :class:`fruits.images.sources.folder.FolderSource`.
    """

    given: str
    place: Folder
    include_hidden: bool = False

    @property
    def address(self) -> str:
        """The address of the ``manifest.json``."""
        return self.place.address

    def tables(self, skipped: SkippedFiles, limit: int | None = None) -> Iterator[pa.Table]:
        """Yield the images as tables; see :class:`fruits.images.sources.source.Source`."""
        manifest = self._manifest()
        destination = self._bucket(manifest.destination)
        files = [TableFile(destination, key, -1, "") for key, _ in manifest.files]
        return ordered_list(self._tables(manifest, files, skipped), self.given, files)

    def read(self, entries: Iterable[ImageEntry]) -> Iterator[Content]:
        """Yield the content of each image; see :class:`fruits.images.sources.source.Source`."""
        return FolderSource(self.given, self._bucket(self._manifest().source)).read(entries)

    def _bucket(self, name: str) -> Folder:
        return Folder(f"{self.place.address.partition('://')[0]}://{name}", self.place.s3)

    def _manifest(self) -> _Manifest:
        """Return the content of the ``manifest.json``.

        Raises
        ------
        DatasetError
            It cannot be read, or is no manifest of an inventory.
        """
        if "://" not in self.place.address:
            raise DatasetError(
                f"{self.given}: a local file. Give the address of the manifest.json of an S3 Inventory on S3."
            )
        store, path = self.place.open()
        try:
            content = orjson.loads(store.read(path, limit=MAX_MANIFEST))
            manifest = _Manifest(
                source=content["sourceBucket"].rpartition(":")[2],
                destination=content["destinationBucket"].rpartition(":")[2],  # of an ARN
                format=content["fileFormat"],
                schema=content["fileSchema"],
                files=tuple((each["key"], each["MD5checksum"]) for each in content["files"]),
            )
            columns = manifest.columns()
            if not all(isinstance(text, str) for text in (manifest.format, *(md5 for _, md5 in manifest.files))):
                raise TypeError("fileFormat and MD5checksum are texts")
        except OSError as error:
            raise DatasetError(f"{self.given} cannot be read: {error.strerror or error}.") from error
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{self.given} is no manifest.json of an S3 Inventory: {error!r}. For a list of images, give .jsonl, "
                "with a JSON object on each line, .csv or .parquet."
            ) from error
        if manifest.format not in FORMATS or "key" not in {column.parameter for column in columns}:
            raise DatasetError(
                f"{self.given}: the format {brief(manifest.format)} with the columns {brief(manifest.schema)}. "
                f"Allowed: {', '.join(FORMATS)}, with the key."
            )
        return manifest

    def _tables(self, manifest: _Manifest, files: list[TableFile], skipped: SkippedFiles) -> Iterator[pa.Table]:
        columns = manifest.columns()
        header = [name.strip() for name in manifest.schema.split(",")]
        for number, (file, (_, md5)) in enumerate(zip(files, manifest.files, strict=True)):
            with _downloaded(file, md5) as stream:
                if manifest.format != "CSV":
                    batches = READERS[FORMATS[manifest.format]](file, stream, columns)
                else:
                    batches = _gzipped(file, stream, columns, header)
                for batch in batches:
                    chosen = self._chosen(batch, skipped)
                    if chosen.numbers.size:
                        yield _table(chosen, number)

    def _chosen(self, batch: Batch, skipped: SkippedFiles) -> Batch:
        """Return the rows of a batch that are images; the values of CSV, which are texts, in the types of Parquet."""
        keys = batch.columns["key"].to_pylist()
        if (row := next((row for row, key in enumerate(keys) if not isinstance(key, str)), None)) is not None:
            raise batch.error(row, f"the key {brief(keys[row])} is no text.")
        latest, deleted = (_truths(batch, name) for name in ("is_latest", "is_delete_marker"))
        rows = []
        for row, key in enumerate(keys):
            if latest[row] is False or deleted[row]:
                skipped.add(OLD_VERSION, key)
            elif not self.include_hidden and (named := skipped_by_name(key)):
                skipped.add(*named)
            elif not key.lower().endswith(EXTENSIONS):
                skipped.add(NOT_IMAGE, key)
            else:
                rows.append(row)
        positions = number_array(np.array(rows, np.int64))
        columns = {name: column.take(positions) for name, column in batch.columns.items()}
        return batch._replace(numbers=batch.numbers[rows], columns=columns)


def _truths(batch: Batch, name: str) -> list[bool | None]:
    if name not in batch.columns:
        return [None] * len(batch.numbers)
    return [
        value if isinstance(value, bool) or value is None else value == "true"
        for value in batch.columns[name].to_pylist()
    ]


def _table(batch: Batch, number: int) -> pa.Table:
    """Return the images of a batch as a table of entries."""
    sizes, versions = None, None
    if "size" in batch.columns:
        try:
            sizes = batch.columns["size"].cast(pa.int64()).fill_null(number_scalar(UNKNOWN_SIZE))
        except pa.ArrowException as error:
            raise DatasetError(f"{batch.file}: a size is no whole number: {error}.") from error
    if "e_tag" in batch.columns:
        versions = pc.utf8_trim(checked_versions(batch, "e_tag"), '"')
    return list_table(batch, number, checked_paths(batch, "key"), versions, sizes=sizes)


@contextmanager
def _downloaded(file: TableFile, md5: str) -> Iterator[BinaryIO]:
    """Yield a data file, copied to the local disk, after a check of its MD5.

    Raises
    ------
    DatasetError
        It cannot be read, or differs.
    """
    digest = hashlib.md5(usedforsecurity=False)  # the checksum that S3 writes
    with tempfile.TemporaryFile(prefix="fruits-inventory-") as copy:
        with file.open() as stream:
            while data := stream.read(CHUNK):
                digest.update(data)
                copy.write(data)
        if digest.hexdigest() != md5:
            raise DatasetError(
                f"{file} differs from its inventory: its MD5 is {digest.hexdigest()}, and not {brief(md5)}. Give "
                "another inventory."
            )
        copy.seek(0)
        try:
            yield cast(BinaryIO, copy)
        except OSError as error:  # pyarrow raises it for corrupt ORC and Parquet too
            raise DatasetError(f"{file} cannot be read: {error.strerror or error}. Give another inventory.") from error


def _gzipped(file: TableFile, stream: BinaryIO, columns: list[Column], header: list[str]) -> Iterator[Batch]:
    """Yield the columns of a gzipped CSV file without a header, in which keys are encoded as in URLs."""
    try:
        with gzip.open(stream) as unpacked:
            for batch in csv_batches(file, cast(BinaryIO, unpacked), columns, header):
                keys = [_decoded(batch, row, key or "") for row, key in enumerate(batch.columns["key"].to_pylist())]
                yield batch._replace(columns=batch.columns | {"key": text_array(keys, pa.string())})
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetError(f"{file} is no gzipped CSV file: {error}.") from error


def _decoded(batch: Batch, row: int, key: str) -> bytes:
    try:
        return unquote_plus(key, errors="strict").encode() if "%" in key or "+" in key else key.encode()
    except UnicodeDecodeError:
        raise batch.error(row, f"the key {brief(key)} is no UTF-8 in the encoding of URLs.") from None
