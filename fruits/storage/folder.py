"""Folders on any file system, in which a file appears whole or not at all.

Everything that a job stores goes through :class:`Folder`. On a local disk a file is written under a temporary name,
flushed and renamed; on an object store it is one PUT. A name depends on a part's index alone, so that a second
attempt, or a twin, writes the same bytes to the same place.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import orjson
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from fruits.errors import OutputError
from fruits.storage import local as local_files
from fruits.storage.parquet import read_table
from fruits.storage.prefetch import AHEAD, File, fetch
from fruits.storage.s3.settings import S3Settings
from fruits.storage.stores import S3_PROTOCOLS, is_s3, open_address
from fruits.text import utf8

__all__ = ["FileInfo", "Folder", "is_temporary", "part_index", "part_name"]

PART = re.compile(r"^part-(\d{5,})\.\w+$")
TEMPORARY = re.compile(r"^\..+\.tmp$")


def is_temporary(name: str) -> bool:
    """Tell whether a file is one that a writer has not finished, and never will where it was killed."""
    return TEMPORARY.match(name) is not None


def part_name(index: int, suffix: str) -> str:
    """Return the file name of part `index`: ``part-00017.parquet``."""
    return f"part-{index:05d}.{suffix}"


def part_index(name: str) -> int | None:
    """Return the index of the part that a file's name is made of; None where it is no part's."""
    match = PART.match(name)
    return None if match is None else int(match[1])


class FileInfo(NamedTuple):
    """A file of a folder: its size in bytes, and when it was written, in seconds since the epoch; 0 is not known."""

    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder at any address; it pickles as the address, and how S3 is reached.

    Parameters
    ----------
    address : str
        A local path or any fsspec address.
    s3 : S3Settings, optional
        How S3 is reached; default: as the process says that uses it.
    """

    address: str
    s3: S3Settings | None = None

    @classmethod
    def at(cls, address: str) -> Folder:
        """Return the folder as it means the same in every process: its address absolute, with the settings of here."""
        settings = S3Settings.of_this_process() if address.partition("://")[0] in S3_PROTOCOLS else None
        file_system, path = open_address(address, settings)
        local = isinstance(file_system, LocalFileSystem)
        return cls(path if local else str(file_system.unstrip_protocol(path)), settings)

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.address}/{name}", self.s3)

    def open(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """Return the file system that the folder is on, and its path there."""
        return open_address(self.address, self.s3)

    def fetch(self, files: Iterable[File], *, ahead: int = AHEAD) -> Iterator[bytes | OSError]:
        """Yield the content of every file, given by its path below this folder, size and version; see :func:`fetch`."""
        file_system, root = self.open()
        return fetch(file_system, ((f"{root}/{path}", size, version) for path, size, version in files), ahead=ahead)

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        """Return the bytes of the file `name`.

        Parameters
        ----------
        name : str
            Its path below this folder.
        limit : int, optional
            How many bytes it may have; nothing of a larger file is read.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        OSError
            It is no regular file, as a FIFO or a device, or it is larger than `limit`: EFBIG.
        """
        file_system, path = (self / name).open()
        if isinstance(file_system, LocalFileSystem):
            return local_files.read(path, limit)[0]
        if limit is not None and file_system.size(path) > limit:
            raise local_files.too_large(path)
        data: bytes = file_system.cat_file(path)
        return data

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return the Parquet file `name` as a table."""
        return read_table(self.read(name), columns)

    def write(self, name: str, data: bytes) -> None:
        """Store `data` as the file `name`, whole or not at all, in place of what was there."""
        file_system, path = (self / name).open()
        if isinstance(file_system, LocalFileSystem):
            local_files.write(Path(path), data)
        elif is_s3(file_system):
            file_system.write(path, data)
        else:
            file_system.pipe_file(path, data)

    @contextmanager
    def begun(self, name: str) -> Iterator[bool]:
        """Mark, beside it, that work on the file `name` has begun, until it ends; yield whether it was marked already.

        It was where another is at work on the same file, or has died of it: what is killed leaves its mark.
        """
        file_system, path = (self / f".{name}.begun.tmp").open()
        if isinstance(file_system, LocalFileSystem):
            before = local_files.mark(Path(path))
        else:
            before = bool(file_system.has(path) if is_s3(file_system) else file_system.exists(path))
            file_system.pipe_file(path, b"")
        try:
            yield before
        finally:
            with suppress(OSError):  # removed by the other; and a mark that stays costs nothing but time
                file_system.rm_file(path)

    def exists(self, name: str) -> bool:
        """Tell whether the file `name` is there."""
        return (self / name).is_file()

    def is_file(self) -> bool:
        """Tell whether the address is that of a file, and so of no folder."""
        file_system, path = self.open()
        file_system.invalidate_cache()
        try:
            return bool(file_system.info(path)["type"] == "file")
        except (FileNotFoundError, NotADirectoryError):
            return False

    def names(self) -> list[str]:
        """Return the names of the files and folders in this folder, sorted; none where it does not exist."""
        file_system, path = self.open()
        if is_s3(file_system):
            pages = file_system.pages(path, deep=False)
            return sorted(name for page in pages for name in (*page.folders, *(file.path for file in page.files)))
        file_system.invalidate_cache()
        try:
            entries = file_system.ls(path, detail=False)
        except FileNotFoundError:
            return []
        return sorted(posixpath.basename(str(entry).rstrip("/")) for entry in entries if str(entry).rstrip("/") != path)

    def parts(self) -> list[int]:
        """Return the indices of the parts in this folder, in order."""
        return sorted(index for name in self.names() if (index := part_index(name)) is not None)

    def stored(self) -> dict[str, FileInfo]:
        """Return the files in this folder by name, in order; none where it does not exist."""
        file_system, path = self.open()
        if isinstance(file_system, LocalFileSystem):
            return {name: FileInfo(told.st_size, told.st_mtime) for name, told in local_files.stats(path)}
        if is_s3(file_system):
            files = (file for page in file_system.pages(path, deep=False) for file in page.files)
            return {file.path: FileInfo(file.size, file.modified.timestamp()) for file in files}
        file_system.invalidate_cache()
        try:
            entries = file_system.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {
            posixpath.basename(entry["name"]): FileInfo(entry["size"] or 0, _modified(entry))
            for entry in sorted(entries, key=itemgetter("name"))
            if entry["type"] == "file"
        }

    def remove(self, name: str) -> None:
        """Remove the file or folder `name` and all it holds; nothing happens where it does not exist."""
        file_system, path = (self / name).open()
        file_system.invalidate_cache()
        while file_system.exists(path):
            with suppress(FileNotFoundError):  # some of it was removed by another just now
                file_system.rm(path, recursive=True)

    def remove_if_empty(self) -> None:
        """Remove this folder where it holds nothing; on S3 an empty folder is none."""
        file_system, path = self.open()
        if not is_s3(file_system) and file_system.isdir(path) and not self.names():
            file_system.rmdir(path)

    def sweep(self) -> None:
        """Remove what those that were killed left: files under temporary names, marks, and unfinished uploads to S3."""
        file_system, path = self.open()
        if is_s3(file_system):
            file_system.abort_uploads(path)
        for name in self.names():
            if is_temporary(name):
                self.remove(name)

    def check(self) -> None:
        """Find out whether the folder can be reached and written, where it is on S3; nothing is changed.

        Raises
        ------
        OutputError
            It cannot: names the credentials, the bucket, the permission, the region or the network.
        """
        file_system, path = self.open()
        if not is_s3(file_system):
            return
        try:
            next(file_system.pages(path, count=1))
            file_system.check_writable(path)
        except OSError as error:
            raise OutputError(f"--out {self.address}: {error}.") from error

    def read_json(self, name: str) -> dict[str, object]:
        """Return the JSON object in the file `name`.

        Raises
        ------
        OutputError
            The file is not a JSON object.
        """
        try:
            value = orjson.loads(self.read(name))
        except orjson.JSONDecodeError as error:
            raise OutputError(f"{self.address}/{name} is damaged: {error}. Use --overwrite to begin anew.") from error
        if not isinstance(value, dict):
            raise OutputError(f"{self.address}/{name} is damaged: not an object. Use --overwrite to begin anew.")
        return value

    def write_json(self, name: str, value: dict[str, object]) -> None:
        """Store a JSON object as the file `name`, for people to read too."""
        self.write(name, orjson.dumps(utf8(value), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _modified(entry: Mapping[str, Any]) -> float:
    """Return when a file was written, under the names that file systems have for it."""
    times = (entry.get(name) for name in ("mtime", "LastModified", "last_modified", "modified", "created"))
    time = next((time for time in times if time is not None), 0.0)
    return time.timestamp() if isinstance(time, datetime) else float(time) if isinstance(time, int | float) else 0.0
