"""Folders at any address: the storage that jobs use.

Everything that a job stores is written through :class:`Folder`, atomically. The name of a part depends only on its
index, so that a second attempt replaces the part by the same bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

import orjson

from fruits.errors import OutputError
from fruits.parameters import address as checked_address
from fruits.storage.addresses import absolute, is_http, is_s3, open_store, split_chain
from fruits.storage.prefetch import AHEAD, File, Range
from fruits.storage.s3.settings import S3Settings
from fruits.storage.stores import FileInfo, Store
from fruits.text import utf8, without_secrets

if TYPE_CHECKING:
    import pyarrow as pa

READERS = 16  # threads that read or list at once
TEMPORARY = re.compile(r"^\..+\.(?:[0-9a-f]+|begun)\.tmp$")  # not every .tmp: a user may have others


def is_temporary(name: str) -> bool:
    """Return whether a file name is that of an unfinished file or a marker."""
    return TEMPORARY.match(name) is not None


def part_name(index: int, suffix: str, owner: str = "") -> str:
    """Return the file name of part `index`, such as ``part-00017-3f9c2a1b4d5e.parquet``, of a job or of no job."""
    return f"part-{index:05d}{owner and '-'}{owner}.{suffix}"


@dataclass(frozen=True, slots=True, repr=False)
class Folder:
    """A folder at any address, which need not exist. It pickles as its address and its settings of S3.

    Parameters
    ----------
    address : str
        A local path or any fsspec URL.
    s3 : S3Settings, optional
        Settings of S3; default: those of the process that uses the folder.
    """

    address: str
    s3: S3Settings | None = None

    def __repr__(self) -> str:
        return f"Folder({without_secrets(self.address)!r})"

    @classmethod
    def at(cls, address: str | os.PathLike[str]) -> Folder:
        """Return the folder with an absolute address and the S3 settings of this process, to use in any process."""
        address = checked_address("address", address)
        settings = S3Settings.from_environment() if is_s3(address) else None
        return cls(absolute(address, settings), settings)

    def __truediv__(self, name: str) -> Folder:
        first, separator, others = split_chain(self.address)
        if is_http(first):
            name = quote(name, errors="surrogateescape")
        return Folder(f"{first}/{name}{separator}{others}", self.s3)

    def open(self) -> tuple[Store, str]:
        """Return the store of the folder, and its path on the store."""
        return open_store(self.address, self.s3)

    def fetch(
        self, files: Iterable[File], *, ahead: int = AHEAD, is_confined: bool = False
    ) -> Iterator[bytes | OSError]:
        """Yield the content of each file in order, or its error, prefetching on object stores.

        Parameters
        ----------
        files : iterable of (str, int, str)
            Path below this folder, size in bytes, and version as listed (empty: not compared). Consumed no further
            than needed.
        ahead : int, default 32
            The largest number of files requested or waiting; less where they are large, to hold at most 64 MiB.
        is_confined : bool, default False
            Do not follow links out of this folder, also if one replaced a file since it was listed.

        Yields
        ------
        bytes or OSError
            :class:`~fruits.storage.prefetch.ChangedFileError` for another size or version; EFBIG for a file of more
            than 400 MB, which is not read. No request is left when the iterator is exhausted or closed.
        """
        store, root = self.open()
        paths = ((f"{root}/{path}", size, version) for path, size, version in files)
        return store.fetch(paths, ahead=ahead, inside=root if is_confined else "")

    def fetch_ranges(self, ranges: Iterable[Range], *, ahead: int = AHEAD) -> Iterator[bytes | OSError]:
        """Yield the bytes of ranges of files in this folder, as :meth:`fetch` does for whole files."""
        store, root = self.open()
        return store.fetch_ranges((place._replace(path=f"{root}/{place.path}") for place in ranges), ahead=ahead)

    def info(self, name: str) -> FileInfo:
        """Return the size and version of a file in this folder."""
        store, path = (self / name).open()
        return store.info(path)._replace(path=name)

    def writing(self, name: str, *, check: Callable[[], None] | None = None) -> AbstractContextManager[BinaryIO]:
        """Create or replace a file of any size; see :meth:`fruits.storage.stores.Store.writing`."""
        store, path = (self / name).open()
        return store.writing(path, check=check)

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        """Return the content of a file.

        Parameters
        ----------
        name : str
            Path below this folder.
        limit : int, optional
            The largest size in bytes; a larger file is not read.

        Raises
        ------
        FileNotFoundError
            The file does not exist.
        OSError
            The file is not a regular file, or it is larger than `limit` (EFBIG).
        """
        store, path = (self / name).open()
        return store.read(path, limit=limit)

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return a Parquet file as a table."""
        from fruits.storage.parquet import read_table  # pyarrow takes 32 MB, which a server has no use for

        return read_table(self.read(name), columns)

    def write(self, name: str, data: bytes, *, check: Callable[[], None] | None = None) -> None:
        """Create or replace a file; it appears complete or not at all.

        `check` is called right before the file appears; if it raises, nothing appears.
        """
        store, path = (self / name).open()
        store.write(path, data, check=check)

    def create(self, name: str, data: bytes) -> bool:
        """Create a file unless it exists; return whether it was created. Of several callers one succeeds."""
        store, path = (self / name).open()
        return store.create(path, data)

    @contextmanager
    def begun(self, name: str) -> Iterator[bool]:
        """Mark work on a file as begun until the context ends; yield whether it was marked before.

        It was marked before if another worker works on the same file, or was killed while doing so.
        """
        store, path = (self / f".{name}.begun.tmp").open()
        existed = store.is_file(path) or not store.create(path, b"")  # some servers ignore the condition of a creation
        try:
            yield existed
        finally:
            with suppress(OSError):  # a marker that stays only costs time
                store.remove_files([path])

    def exists(self, name: str) -> bool:
        """Return whether a file exists."""
        return (self / name).is_file()

    def is_file(self) -> bool:
        """Return whether the address is that of a file instead of a folder."""
        store, path = self.open()
        return store.is_file(path)

    def names(self) -> list[str]:
        """Return the names of the files and folders in this folder, sorted; empty if it does not exist."""
        store, path = self.open()
        return store.names(path)

    def files(self) -> dict[str, FileInfo]:
        """Return the files in this folder by name, sorted; empty if it does not exist."""
        store, path = self.open()
        return {file.path: file for file in store.files(path)}

    def remove_files(self, names: Iterable[str]) -> None:
        """Remove files in this folder, if they exist."""
        store, path = self.open()
        store.remove_files([f"{path}/{name}" for name in names])

    def remove_empty(self, name: str) -> None:
        """Remove a folder in this folder if it is empty."""
        store, path = (self / name).open()
        store.remove_empty(path)

    def abort_uploads(self, chosen: Callable[[str], bool]) -> None:
        """Abort the unfinished uploads below a folder whose names below it are chosen."""
        store, path = self.open()
        store.abort_uploads(path, chosen)

    def check(self) -> None:
        """Check that a folder can be listed and written, where the store can check it; change nothing.

        Raises
        ------
        OutputError
            It cannot: the store is only read, or, on S3, the message names the credentials, bucket, permission, region
            or network at fault.
        """
        store, path = self.open()
        try:
            store.check_writable(path)
        except OSError as error:
            raise OutputError(f"`out` = {self.address}: {error}.") from error

    def read_json(self, name: str) -> dict[str, object]:
        """Return the JSON object in a file.

        Raises
        ------
        OutputError
            The file does not contain a JSON object.
        """
        try:
            value = orjson.loads(self.read(name))
        except orjson.JSONDecodeError as error:
            raise OutputError(f"{self.address}/{name} is corrupt: {error}. Use `overwrite` to start again.") from error
        if not isinstance(value, dict):
            raise OutputError(f"{self.address}/{name} is corrupt: not a JSON object. Use `overwrite` to start again.")
        return value

    def write_json(self, name: str, value: dict[str, object]) -> None:
        """Store a JSON object, indented for human readers."""
        self.write(name, encode_json(value))


def encode_json(value: Mapping[str, object]) -> bytes:
    """Return a JSON object, indented for human readers."""
    return orjson.dumps(utf8(dict(value)), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
