"""Folders on any file system, in which a file appears whole or not at all.

Everything that a job stores goes through :class:`Folder`. On a local disk a file is written under a temporary name,
flushed and renamed; on an object store it is one PUT. A name depends on a part's index alone, so that a second
attempt, or a twin, writes the same bytes to the same place.
"""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
import re
import stat
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import fsspec
import orjson
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from fruits.arrow import read_table
from fruits.errors import FruitsError, OutputError
from fruits.s3 import S3Settings
from fruits.text import utf8

__all__ = [
    "MAX_BYTES",
    "ChangedFileError",
    "File",
    "Folder",
    "StoredFile",
    "fetch",
    "heads",
    "is_s3",
    "is_temporary",
    "open_address",
    "part_index",
    "part_name",
]

PART = re.compile(r"^part-(\d{5,})\.\w+$")
TEMPORARY = re.compile(r"^\..+\.tmp$")
S3_PROTOCOLS = ("s3", "s3a")
S3_CREDENTIALS = re.compile(r"^(?!arn:)[^/]*:")  # no bucket has a colon in its name
AHEAD = 32  # requests: 320 files a second where each takes 100 ms
AHEAD_BYTES = 64 * 2**20
MAX_BYTES = 400_000_000  # of an image file: what 50 megapixels of four 16-bit samples take, not compressed

File = tuple[str, int, str]  # a path, the size in bytes, and the version as a listing gives it


class ChangedFileError(OSError):
    """A file is not the one that was listed: it has another size, or was written again since."""


def open_address(address: str, s3: S3Settings | None = None) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of an address, and the path on it.

    A path without a protocol is local and taken letter by letter, whatever characters it has.

    Parameters
    ----------
    address : str
        A local path or any fsspec address.
    s3 : S3Settings, optional
        How S3 is reached; default: as this process says.

    Raises
    ------
    OutputError
        It is empty, its protocol is unknown or cannot be set up, the package is not installed, or credentials stand in
        an address of S3.
    """
    if not address:
        raise OutputError("an empty address, as of a variable that is not set. Allowed: a path or an address.")
    if "://" not in address:
        return LocalFileSystem(), os.path.abspath(os.path.expanduser(address))
    protocol, _, path = address.partition("://")
    try:
        if protocol in S3_PROTOCOLS:
            if S3_CREDENTIALS.match(path):
                raise OutputError(
                    f"{protocol}://***: credentials stand in this address. Give the bucket alone, and the credentials "
                    "in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or by a profile (AWS_PROFILE)."
                )
            from fruits.s3_file_system import S3FileSystem

            return S3FileSystem.of(s3 or S3Settings.of_this_process()), path.strip("/")
        urlsplit(address)  # HTTP's file system is made of what is no URL, and fails at its first request
        file_system, path = fsspec.core.url_to_fs(address)
    except FruitsError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise OutputError(
            f"{address}: cannot be opened: {str(error) or type(error).__name__}. "
            "Allowed: a local path, or an address that fsspec knows; s3:// needs pip install 'fruits[s3]'."
        ) from error
    return file_system, str(path).rstrip("/")


def is_s3(file_system: Any) -> bool:
    """Tell whether a file system is a :class:`fruits.s3_file_system.S3FileSystem`."""
    return "s3" in file_system.protocol


def fetch(
    file_system: fsspec.AbstractFileSystem, files: Iterable[File], *, ahead: int = AHEAD
) -> Iterator[bytes | OSError]:
    """Yield the content of every file, in order, or the error that came of reading it.

    Where a request takes long and many can be under way, as on an object store, the next files are on their way while
    the caller works on this one. Files of this machine are simply read, one by one, when they are asked for.

    Parameters
    ----------
    file_system : fsspec.AbstractFileSystem
        As :func:`open_address` gives it.
    files : iterable of (str, int, str)
        Paths on that file system, each with the size in bytes and the version that it had when it was listed: an
        iterable that is read no further than needed. The version is looked at on a local disk and on S3, which give
        it with the content; an empty one fits all. What has more than 400 MB is not read: its error is EFBIG.
    ahead : int, default 32
        How many files are under way, or waiting to be taken, at the same time; fewer where they are large, so that they
        hold no more than 64 MiB.

    Yields
    ------
    bytes or OSError
        An error is a value, for one file that cannot be read must not end the others; a :class:`ChangedFileError` for
        a file that is not as it was listed. When the iterator is exhausted or closed, no request is left.

    Examples
    --------
    >>> for data in fetch(file_system, ((f"{root}/{path}", size, version) for path, size, version in entries)):
    ...     if isinstance(data, OSError): ...
    """
    if isinstance(file_system, LocalFileSystem):
        return _read_one_by_one(_read_local, files)
    if not file_system.async_impl:
        return _read_one_by_one(lambda path: (file_system.cat_file(path), ""), files)
    return _read_ahead(file_system, files, ahead)


def heads(file_system: fsspec.AbstractFileSystem, paths: Sequence[str], count: int) -> Sequence[bytes | Exception]:
    """Return the first `count` bytes of every file, or the error that came of reading it."""
    if isinstance(file_system, LocalFileSystem):
        return [_head(path, count) for path in paths]
    found: list[bytes | Exception] = file_system.cat_ranges(list(paths), 0, count, on_error="return")
    return found


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


class StoredFile(NamedTuple):
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
            return _read_local(path, limit)[0]
        if limit is not None and file_system.size(path) > limit:
            raise _too_large(path)
        data: bytes = file_system.cat_file(path)
        return data

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return the Parquet file `name` as a table."""
        return read_table(self.read(name), columns)

    def write(self, name: str, data: bytes) -> None:
        """Store `data` as the file `name`, whole or not at all, in place of what was there."""
        file_system, path = (self / name).open()
        if isinstance(file_system, LocalFileSystem):
            _write_local(Path(path), data)
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
            before = _mark_local(Path(path))
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

    def stored(self) -> dict[str, StoredFile]:
        """Return the files in this folder by name, in order; none where it does not exist."""
        file_system, path = self.open()
        if isinstance(file_system, LocalFileSystem):
            return _stored_locally(path)
        if is_s3(file_system):
            files = (file for page in file_system.pages(path, deep=False) for file in page.files)
            return {file.path: StoredFile(file.size, file.modified.timestamp()) for file in files}
        file_system.invalidate_cache()
        try:
            entries = file_system.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {
            posixpath.basename(entry["name"]): StoredFile(entry["size"] or 0, _modified(entry))
            for entry in sorted(entries, key=itemgetter("name"))
            if entry["type"] == "file"
        }

    def remove(self, name: str) -> None:
        """Remove the file or folder `name` and all it holds; nothing happens where it does not exist."""
        file_system, path = (self / name).open()
        file_system.invalidate_cache()
        if file_system.exists(path):
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


def _stored_locally(path: str) -> dict[str, StoredFile]:
    found = {}
    try:
        names = sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    for name in names:
        with suppress(FileNotFoundError):  # a temporary name, which a writer has meanwhile given up for the file's own
            told = os.stat(os.path.join(path, name))
            if stat.S_ISREG(told.st_mode):
                found[name] = StoredFile(told.st_size, told.st_mtime)
    return found


def _modified(entry: Mapping[str, Any]) -> float:
    """Return when a file was written, under the names that file systems have for it."""
    times = (entry.get(name) for name in ("mtime", "LastModified", "last_modified", "modified", "created"))
    time = next((time for time in times if time is not None), 0.0)
    return time.timestamp() if isinstance(time, datetime) else float(time) if isinstance(time, int | float) else 0.0


def _open_regular(path: str) -> int:
    """Return a regular file, open to be read; to open a FIFO or a device must neither wait nor be taken for one."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        return file
    os.close(file)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.ENXIO, "Not a regular file", path)


def _read_local(path: str, limit: int | None = MAX_BYTES) -> tuple[bytes, str]:
    file = _open_regular(path)
    try:
        size = os.fstat(file).st_size
        if limit is not None and size > limit:
            raise _too_large(path)
        data = os.read(file, size + 1)  # one more, so that a file which has grown is not taken for whole
        while len(data) < size and (more := os.read(file, size + 1 - len(data))):  # 2 GiB is all that one call reads
            data += more
        return data, str(os.fstat(file).st_mtime)  # after reading, so that no writing is missed
    finally:
        os.close(file)


def _head(path: str, count: int) -> bytes | OSError:
    try:
        file = _open_regular(path)
    except OSError as error:
        return error
    try:
        return os.read(file, count)
    except OSError as error:
        return error
    finally:
        os.close(file)


def _too_large(path: str) -> OSError:
    return OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)


def _as_listed(data: bytes, found: str, size: int, version: str) -> bytes | ChangedFileError:
    """Return the content of a file, or what says that it is not the one that was listed."""
    if len(data) != size:
        return ChangedFileError(f"{len(data):,} bytes; {size:,} when it was listed")
    if version and found and found != version:
        return ChangedFileError(f"written again: version {found}; {version} when it was listed")
    return data


def _read_one_by_one(read: Callable[[str], tuple[bytes, str]], files: Iterable[File]) -> Iterator[bytes | OSError]:
    for path, size, version in files:
        data: bytes | OSError
        try:
            data = _as_listed(*read(path), size, version) if size <= MAX_BYTES else _too_large(path)
        except OSError as error:
            data = error
        yield data


def _read_ahead(file_system: Any, files: Iterable[File], ahead: int) -> Iterator[bytes | OSError]:
    async def once(path: str, size: int, version: str) -> bytes | ChangedFileError:
        data, found = await file_system.read(path) if is_s3(file_system) else (await file_system._cat_file(path), "")
        return _as_listed(data, found, size, version)

    async def read(path: str, size: int, version: str) -> bytes | OSError:
        if size > MAX_BYTES:
            return _too_large(path)
        try:
            data = await once(path, size, version)
            # A body that ends too early is asked for once more.
            return data if isinstance(data, bytes) else await once(path, size, version)
        except OSError as error:
            return error

    files = iter(files)
    under_way: deque[tuple[Future[bytes | OSError], int]] = deque()
    held = 0
    try:
        while True:
            # Many at a time: each time the loop's thread is woken, it keeps this one from its work.
            room = ahead - len(under_way) if len(under_way) <= ahead // 2 else 0
            while room and held < AHEAD_BYTES and (file := next(files, None)):
                room -= 1
                under_way.append((asyncio.run_coroutine_threadsafe(read(*file), file_system.loop), file[1]))
                held += file[1]
            if not under_way:
                return
            future, size = under_way.popleft()
            held -= size
            yield future.result()
    finally:
        for future, _ in under_way:
            future.cancel()


def _mark_local(path: Path) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return True
    return False


def _write_local(path: Path, data: bytes, *, again: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except FileNotFoundError:  # swept away by another command that has just finished the same job
        if not again:
            raise
        _write_local(path, data, again=False)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
