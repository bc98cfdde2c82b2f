"""Files on any file system that fsspec supports, through its common interface."""

from __future__ import annotations

import errno
import os
import posixpath
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from operator import itemgetter
from typing import Any, BinaryIO, cast

from fruits.storage.prefetch import MAX_BYTES, UNKNOWN_SIZE, File, Range, places, read_ahead, read_one_by_one, too_large
from fruits.storage.stores import BATCH, FileInfo, walk_folders
from fruits.text import bytes_name, name_bytes

WITHOUT_PARENTS = ("ftp", "sftp", "smb", ("sftp", "ssh"))  # protocols of file systems that do not create folders
BLOCK_BYTES = 2**20  # of the reads of an open file
UTF_8_FLAG = 0x800  # of the general purpose flags of an entry; APPNOTE.TXT 4.4.4
UNIX_SYSTEMS = (3, 19)  # Unix and macOS; APPNOTE.TXT 4.4.2


class FsspecStore:
    """A file system of fsspec.

    Parameters
    ----------
    file_system : fsspec.AbstractFileSystem
        Cached by fsspec, one instance for each set of options; this class keeps no state.
    """

    def __init__(self, file_system: Any) -> None:
        self.file_system = file_system

    def read(self, path: str, *, limit: int | None = None) -> bytes:
        """Return the content of a file; see :class:`fruits.storage.stores.Store`."""
        with _os_errors(path):
            if limit is not None and (self.file_system.size(path) or 0) > limit:
                raise too_large(path, limit)
            data: bytes = self.file_system.cat_file(path)
            return data

    def read_heads(self, paths: Sequence[str], count: int) -> Sequence[bytes | Exception]:
        """Return the first `count` bytes of each file, or the error of reading it."""
        heads: list[bytes | Exception] = self.file_system.cat_ranges(list(paths), 0, count, on_error="return")
        return heads

    def open(self, path: str) -> BinaryIO:
        """Open a file to read at any place."""
        with _os_errors(path):
            file: BinaryIO = self.file_system.open(path, "rb", block_size=BLOCK_BYTES)
            return file

    def info(self, path: str) -> FileInfo:
        """Return the size and the version of a file."""
        self.file_system.invalidate_cache()
        with _os_errors(path):
            entry = self.file_system.info(path)
        if entry["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return FileInfo(path, UNKNOWN_SIZE if entry["size"] is None else entry["size"], _version(entry))

    def fetch(self, files: Iterable[File], *, ahead: int, inside: str = "") -> Iterator[bytes | OSError]:
        """Yield the content of each file or its error, prefetching if the file system is asynchronous."""
        if not self.file_system.async_impl:
            return read_one_by_one(lambda path: (self._content(path), ""), files)

        async def read(path: str) -> tuple[bytes, str]:
            return await self.file_system._cat_file(path), ""

        return read_ahead(read, files, loop=self.file_system.loop, ahead=ahead)

    def fetch_ranges(self, ranges: Iterable[Range], *, ahead: int) -> Iterator[bytes | OSError]:
        """Yield the bytes of each range or its error, prefetching if the file system is asynchronous."""
        if not self.file_system.async_impl:

            def read(place: Range) -> tuple[bytes, str]:
                return self.file_system.cat_file(place.path, place.start, place.start + place.size), ""

            return read_one_by_one(read, places(ranges))

        async def read_async(place: Range) -> tuple[bytes, str]:
            return await self.file_system._cat_file(place.path, place.start, place.start + place.size), ""

        return read_ahead(read_async, places(ranges), loop=self.file_system.loop, ahead=ahead)

    @contextmanager
    def writing(self, path: str, *, check: Callable[[], None] | None = None) -> Iterator[BinaryIO]:
        """Write a temporary file on this machine, and upload it."""
        with tempfile.TemporaryDirectory(prefix="fruits-") as folder:
            name = os.path.join(folder, "file")
            with open(name, "xb") as file:
                yield file
            if check is not None:
                check()
            with self._stored(path):
                self._upload(name, path)

    def _upload(self, file: str, path: str) -> None:
        self.file_system.put_file(file, path)

    def write(self, path: str, data: bytes, *, check: Callable[[], None] | None = None) -> None:
        """Create or replace a file; atomic on object stores."""
        if check is not None:
            check()
        with self._stored(path):
            self.file_system.pipe_file(path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Create a file unless it exists. fsspec has no atomic operation for this: two callers at once may succeed."""
        if self.is_file(path):
            return False
        with self._stored(path):
            self.file_system.pipe_file(path, data)
        return True

    @contextmanager
    def _stored(self, path: str) -> Iterator[None]:
        """Create the folder of a file, unless the implementation does, and raise its failure as an ``OSError``."""
        try:
            if self.file_system.protocol in WITHOUT_PARENTS:
                self._make_folder(posixpath.dirname(path))
            yield
        except OSError:
            raise
        except Exception as error:  # implementations of fsspec raise exceptions of many libraries
            problem = f"{type(error).__name__} {error}".rstrip(".")
            raise OSError(f"{path} cannot be written: {problem}") from error

    def _make_folder(self, path: str) -> None:
        self.file_system.invalidate_cache()
        try:
            self.file_system.makedirs(path, exist_ok=True)
        except Exception:  # another thread has just made it, or one above it
            self.file_system.invalidate_cache()
            self.file_system.makedirs(path, exist_ok=True)

    def is_file(self, path: str) -> bool:
        """Return whether a path exists and is a file."""
        try:
            self.info(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False
        return True

    def names(self, path: str) -> list[str]:
        """Return the names of the files and folders in a folder, sorted; empty if the folder does not exist."""
        places = [entry["name"].rstrip("/") for entry in self._listed(path)]
        return sorted(posixpath.basename(place) for place in places if place != path)

    def files(self, path: str) -> list[FileInfo]:
        """Return the files directly in a folder, sorted by name; empty if the folder does not exist."""
        return [
            FileInfo(posixpath.basename(entry["name"]), entry["size"] or 0, _version(entry), _modified(entry))
            for entry in sorted(self._listed(path), key=itemgetter("name"))
            if entry["type"] == "file"
        ]

    def _listed(self, path: str) -> list[dict[str, Any]]:
        """Return the entries of a folder; none if it does not exist."""
        self.file_system.invalidate_cache()
        try:
            with _os_errors(path):
                entries: list[dict[str, Any]] = self.file_system.ls(path, detail=True)
                return entries
        except FileNotFoundError:
            return []

    def walk(
        self, path: str, *, follow_links: bool = False, prune: Callable[[str], bool] | None = None
    ) -> Iterator[list[FileInfo]]:
        """Yield all files below a folder, listing one folder at a time; fsspec does not report links."""
        self.file_system.invalidate_cache()
        if not self.file_system.exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if not self.file_system.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        yield from walk_folders(lambda folder: self._entries(path, folder), prune)

    def remove_files(self, paths: Sequence[str]) -> None:
        """Remove files, if they exist."""
        for path in paths:
            try:
                with _os_errors(path):
                    self._remove_file(path)
            except OSError:
                if self.is_file(path):
                    raise

    def _remove_file(self, path: str) -> None:
        try:
            self.file_system.rm_file(path)
        except NotImplementedError:  # of implementations such as DBFS; else `rm` takes a name for a pattern
            self.file_system.rm(path)

    def remove_empty(self, path: str) -> None:
        """Do nothing: most of these stores have no empty folders."""

    def abort_uploads(self, path: str, chosen: Callable[[str], bool]) -> None:
        """Do nothing: fsspec cannot list unfinished uploads."""

    def check_writable(self, path: str) -> None:
        """Do nothing: fsspec cannot check this without writing a file."""

    def check_readable(self, paths: Sequence[str]) -> None:
        """Do nothing: an unreadable file is a reject."""

    def _entries(self, root: str, folder: str) -> Mapping[str, FileInfo | None]:
        """Return the entries of one folder for :func:`walk_folders`."""
        place, prefix = (f"{root}/{folder}" if root else folder).rstrip("/"), f"{root}/"
        try:
            entries = self.file_system.ls(place, detail=True)
            if not entries and self.file_system.protocol == "ftp":
                self.file_system.ftp.cwd(place)  # raises if it cannot be opened; fsspec lists it as empty
        except Exception as error:  # implementations of fsspec raise exceptions of many libraries
            problem = error if isinstance(error, OSError) else f"{type(error).__name__} {error}"
            text = str(problem).rstrip(".")
            raise OSError(f"{place} cannot be listed: {text}. Make it readable, or leave it out") from error
        found: dict[str, FileInfo | None] = {}
        for entry in entries:
            name = entry["name"].rstrip("/")
            path = name.removeprefix(prefix)
            if name == place or not path.startswith(folder):
                continue  # the folder itself: object stores list its marker
            if entry["type"] == "directory":
                found[path + "/"] = None
            else:
                size = UNKNOWN_SIZE if entry["size"] is None else entry["size"]
                found[path] = FileInfo(path, size, _version(entry), 0.0, entry["type"] == "file")
        return found

    def _content(self, path: str) -> bytes:
        """Return the content of a file; an error of the format of an archive concerns the one file."""
        with _os_errors(path):
            data: bytes = self.file_system.cat_file(path)
            return data


class ZipStore(FsspecStore):
    """A ZIP archive to read.

    Entries are found by their whole names: fsspec loses those that no file system could contain, such as
    ``a//1.jpg``, or ``a/1.jpg`` beside ``a``. Of several entries with one name, the last counts.

    Parameters
    ----------
    file_system : fsspec.implementations.zip.ZipFileSystem
    """

    def __init__(self, file_system: Any) -> None:
        super().__init__(file_system)
        self._files = {_name_in_zip(entry): entry for entry in file_system.zip.infolist() if not entry.is_dir()}

    def read(self, path: str, *, limit: int | None = None) -> bytes:
        """Return the content of a file; see :class:`fruits.storage.stores.Store`."""
        if limit is not None and self._file(path).file_size > limit:
            raise too_large(path, limit)
        return self._content(path)

    def read_heads(self, paths: Sequence[str], count: int) -> Sequence[bytes | Exception]:
        """Return the first `count` bytes of each file, or the error of reading it."""
        heads: list[bytes | Exception] = []
        for path in paths:
            try:
                heads.append(self._content(path, count))
            except OSError as error:
                heads.append(error)
        return heads

    def open(self, path: str) -> BinaryIO:
        """Open a file to read at any place, by unpacking it from its start."""
        return cast(BinaryIO, self.file_system.zip.open(self._file(path)))

    def info(self, path: str) -> FileInfo:
        """Return the size of a file; archives contain no versions."""
        return FileInfo(path, self._file(path).file_size)

    def is_file(self, path: str) -> bool:
        """Return whether a path is that of a file."""
        return path.removeprefix("/") in self._files

    def walk(
        self, path: str, *, follow_links: bool = False, prune: Callable[[str], bool] | None = None
    ) -> Iterator[list[FileInfo]]:
        """Yield all files below a folder; as on S3, folders are not listed one by one."""
        prefix = f"{path}/" if path else ""
        names = sorted((name for name in self._files if name.startswith(prefix)), key=name_bytes)
        if not names and path:
            if self.is_file(path):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        for start in range(0, len(names), BATCH):
            yield [FileInfo(name[len(prefix) :], self._files[name].file_size) for name in names[start : start + BATCH]]

    def check_writable(self, path: str) -> None:
        """Raise an ``OSError``."""
        raise OSError("ZIP archives are only read. Give a folder, and pack it afterwards")

    def _file(self, path: str) -> Any:
        file = self._files.get(path.removeprefix("/"))  # the path of a file below the root of the archive
        if file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return file

    def _content(self, path: str, count: int = -1) -> bytes:
        file = self._file(path)
        if count < 0 and file.file_size > MAX_BYTES:
            raise too_large(path, MAX_BYTES)
        try:
            with self.file_system.zip.open(file) as stream:
                data: bytes = stream.read(count)
                return data
        except Exception as error:  # BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError of encryption
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: an offset before the archive
                raise
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}", path) from error


@contextmanager
def _os_errors(path: str) -> Iterator[None]:
    """Raise the errors of implementations of fsspec, which are those of many libraries, as OSErrors with a text."""
    try:
        yield
    except FileNotFoundError as error:
        if error.strerror:
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
    except (OSError, EOFError):
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", path) from error


def _name_in_zip(entry: Any) -> str:
    """Return the name of an entry. Without the flag for UTF-8, Unix and macOS store the bytes of the file name.

    Python decodes these by code page 437, which is that of DOS.
    """
    name: str = entry.filename
    if entry.flag_bits & UTF_8_FLAG or entry.create_system not in UNIX_SYSTEMS:
        return name
    try:
        return bytes_name(name.encode("cp437"))
    except UnicodeEncodeError:  # from the extra field for Unicode names
        return name


def _version(entry: Mapping[str, Any]) -> str:
    """Return the version of a file, for which implementations of fsspec have different keys; empty if unknown."""
    keys = ("ETag", "etag", "mtime", "modify", "modificationTime")
    return next((str(entry[key]) for key in keys if entry.get(key)), "")


def _modified(entry: Mapping[str, Any]) -> float:
    """Return the modification time, for which implementations of fsspec have different keys."""
    times = (entry.get(name) for name in ("mtime", "LastModified", "last_modified", "modified", "created"))
    time = next((time for time in times if time is not None), 0.0)
    return time.timestamp() if isinstance(time, datetime) else float(time) if isinstance(time, int | float) else 0.0
