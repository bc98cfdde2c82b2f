"""Files of this machine: only regular files are read, and writes are atomic."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from fruits.storage.prefetch import MAX_BYTES, ChangedFileError, File, Range, places, read_one_by_one, too_large
from fruits.storage.stores import FileInfo, walk_folders
from fruits.text import canonical, native, printable

OPEN_FILES = "/proc/self/fd"  # on Linux, links to the files that this process has open
Publish = Callable[[Path, Path], None]  # gives a temporary file its name
MAX_LINKS = 1000  # to one folder in a walk; links below links can multiply the paths to it without end
MOST_OF_NAME = 216  # bytes: with the rest of a temporary name up to 255, which file systems allow
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class LocalStore:
    """The file system of this machine, or one that is mounted on it.

    Paths are the UTF-8 text of their bytes in every locale, so that the same files have the same names everywhere.
    """

    __slots__ = ()

    def read(self, path: str, *, limit: int | None = None) -> bytes:
        """Return the content of a regular file; see :class:`fruits.storage.stores.Store`."""
        return _read(path, limit)[0]

    def read_heads(self, paths: Sequence[str], count: int) -> Sequence[bytes | Exception]:
        """Return the first `count` bytes of each file, or the error of reading it."""
        return [_read_head(path, count) for path in paths]

    def open(self, path: str) -> BinaryIO:
        """Open a regular file."""
        with _regular(path) as file:
            return os.fdopen(os.dup(file), "rb")

    def info(self, path: str) -> FileInfo:
        """Return the size and the version of a regular file."""
        with _regular(path) as file:
            return _file(path, os.fstat(file))

    def fetch(self, files: Iterable[File], *, ahead: int, inside: str = "") -> Iterator[bytes | OSError]:
        """Yield the content of each file or its error, without prefetching: a local disk is fast enough."""
        root = os.path.join(os.path.realpath(native(inside)), "") if inside else ""
        return read_one_by_one(partial(_read, limit=MAX_BYTES, inside=root), files)

    def fetch_ranges(self, ranges: Iterable[Range], *, ahead: int) -> Iterator[bytes | OSError]:
        """Yield the bytes of each range or its error, without prefetching."""
        return read_one_by_one(_read_range, places(ranges))

    def writing(self, path: str, *, check: Callable[[], None] | None = None) -> AbstractContextManager[BinaryIO]:
        """Write a file under a temporary name, flush it to the disk, and rename it."""
        return _published(Path(native(path)), partial(_rename, check))

    def write(self, path: str, data: bytes, *, check: Callable[[], None] | None = None) -> None:
        """Write a file under a temporary name, flush it to the disk, and rename it."""
        _write(Path(native(path)), data, partial(_rename, check))

    def create(self, path: str, data: bytes) -> bool:
        """Create a file unless it exists, as a hard link to a temporary file, which is complete and flushed.

        A file system without hard links, such as FAT, gets an empty file first, which is then replaced.
        """

        def publish(temporary: Path, target: Path) -> None:
            try:
                os.link(temporary, target)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                target.touch(exist_ok=False)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

        try:
            _write(Path(native(path)), data, publish)
        except FileExistsError:
            return False
        return True

    def is_file(self, path: str) -> bool:
        """Return whether a path is that of a regular file, or of a link to one."""
        try:
            return stat.S_ISREG(os.stat(native(path)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def names(self, path: str) -> list[str]:
        """Return the names of the files and folders in a folder, sorted; empty if the folder does not exist."""
        try:
            return sorted(map(canonical, os.listdir(native(path))))
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            if os.path.lexists(native(path)):
                return []
            raise

    def files(self, path: str) -> list[FileInfo]:
        """Return the regular files in a folder, sorted by name; empty if the folder does not exist."""
        try:
            names = self.names(path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = []
        for name in names:
            with suppress(FileNotFoundError):  # a temporary file, renamed since
                state = os.stat(native(os.path.join(path, name)))
                if stat.S_ISREG(state.st_mode):
                    found.append(FileInfo(name, state.st_size, str(state.st_mtime), state.st_mtime))
        return found

    def walk(
        self, path: str, *, follow_links: bool = False, prune: Callable[[str], bool] | None = None
    ) -> Iterator[list[FileInfo]]:
        """Yield all files below a folder; see :meth:`fruits.storage.stores.Store.walk`."""
        path = native(path)
        if not stat.S_ISDIR(os.stat(path).st_mode):  # os.path.isdir is false for a folder inside of a forbidden one
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        tree = _Tree(path.rstrip("/"), os.path.join(os.path.realpath(path), ""), follow_links)
        yield from walk_folders(tree.entries, prune)

    def remove_files(self, paths: Sequence[str]) -> None:
        """Remove files, if they exist; a link is removed, not its target."""
        for path in paths:
            with suppress(FileNotFoundError):
                os.remove(native(path))

    def remove_empty(self, path: str) -> None:
        """Remove a folder if it is empty."""
        with suppress(OSError):
            os.rmdir(native(path))

    def abort_uploads(self, path: str, chosen: Callable[[str], bool]) -> None:
        """Do nothing: unfinished files have temporary names."""

    def check_writable(self, path: str) -> None:
        """Do nothing: the first write fails fast."""

    def check_readable(self, paths: Sequence[str]) -> None:
        """Do nothing: an unreadable file is a reject."""


@contextmanager
def _regular(path: str) -> Iterator[int]:
    """Open a regular file, and yield its descriptor; opening a FIFO or a device neither blocks nor takes it over."""
    file = os.open(native(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        mode = os.fstat(file).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.ENXIO, "Not a regular file", path)
        yield file
    finally:
        os.close(file)


def _read(path: str, limit: int | None = None, inside: str = "") -> tuple[bytes, str]:
    """Return the content and the version of a regular file, which is below the folder `inside`, if given."""
    with _regular(path) as file:
        if inside and not _real_path(file, path).startswith(inside):
            raise ChangedFileError("a link out of the folder, which it was not when it was listed")
        size = os.fstat(file).st_size
        if limit is not None and size > limit:
            raise too_large(path, limit)
        data = os.read(file, size + 1)  # one byte more, to detect a file that has grown
        while len(data) < size and (more := os.read(file, size + 1 - len(data))):  # one call reads at most 2 GiB
            data += more
        return data, str(os.fstat(file).st_mtime)  # after reading, to detect a concurrent write


def _real_path(file: int, path: str) -> str:
    """Return the path of an open file without links; on Linux, whatever its path leads to meanwhile."""
    try:
        return os.readlink(f"{OPEN_FILES}/{file}")
    except OSError:  # another system
        return os.path.realpath(native(path))


def _read_range(place: Range) -> tuple[bytes, str]:
    """Return the bytes of a range, fewer at the end of the file, and the version of the file."""
    with _regular(place.path) as file:
        parts: list[bytes] = []
        start, end = place.start, place.start + place.size
        while start < end and (part := os.pread(file, end - start, start)):  # one call reads at most 2 GiB
            parts.append(part)
            start += len(part)
        return b"".join(parts), str(os.fstat(file).st_mtime or "")  # after reading, to detect a concurrent write


def _read_head(path: str, count: int) -> bytes | OSError:
    try:
        with _regular(path) as file:
            return os.read(file, count)
    except OSError as error:
        return error


@contextmanager
def _published(path: Path, publish: Publish) -> Iterator[BinaryIO]:
    """Yield a temporary file beside a path; flush it to the disk, and publish it when the context ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = os.fsdecode(os.fsencode(path.name)[:MOST_OF_NAME])
    temporary = path.parent / f".{name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _rename(check: Callable[[], None] | None, temporary: Path, target: Path) -> None:
    if check is not None:
        check()
    temporary.replace(target)


def _write(path: Path, data: bytes, publish: Publish, *, retry: bool = True) -> None:
    try:
        with _published(path, publish) as file:
            file.write(data)
    except FileNotFoundError:  # swept by another command that has just finished the same job
        if not retry:
            raise
        _write(path, data, publish, retry=False)


class _NestedLinksError(OSError):
    """More links lead to one folder than are followed."""


@dataclass(frozen=True, slots=True)
class _Tree:
    """A folder being walked: its path, its real path with ``/``, and whether links are followed."""

    root: str
    inside: str
    follow_links: bool
    followed: Counter[tuple[int, int]] = field(default_factory=Counter)  # links to folders, by device and inode

    def entries(self, folder: str) -> Mapping[str, FileInfo | None]:
        """Return the entries of one folder for :func:`walk_folders`."""
        found: dict[str, FileInfo | None] = {}
        place = f"{self.root}/{native(folder)}"
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    path = folder + canonical(entry.name)
                    with suppress(FileNotFoundError):  # removed since
                        if entry.is_dir(follow_symlinks=False):
                            found[path + "/"] = None
                        elif not entry.is_symlink():
                            found[path] = _file(path, entry.stat(follow_symlinks=False))
                        elif (target := self._target(entry, path, folder)) is not None:
                            found[path] = target
                        else:
                            found[path + "/"] = None
        except _NestedLinksError:
            raise
        except OSError as error:
            place = place.rstrip("/")
            raise OSError(f"{place} cannot be listed: {error}. Make it readable, or leave it out") from error
        return found

    def _target(self, entry: os.DirEntry[str], path: str, folder: str) -> FileInfo | None:
        """Return the file to which a link leads; None for a folder. A broken link is a file that cannot be read."""
        try:
            state = os.stat(entry.path)
        except OSError:
            return FileInfo(path, 0)
        if stat.S_ISDIR(state.st_mode):
            if not self.follow_links or self._contains(entry.path, folder):
                return FileInfo(path, 0, is_file=False, unfollowed=True)
            self.followed[state.st_dev, state.st_ino] += 1
            if self.followed[state.st_dev, state.st_ino] > MAX_LINKS:
                raise _NestedLinksError(
                    f"{printable(entry.path)} and {MAX_LINKS:,} other links, or paths through nested links, lead to "
                    f"the folder {printable(os.path.realpath(entry.path))}. Remove links, or leave out `follow_links`"
                )
            return None
        file = _file(path, state)
        if self.follow_links or not file.is_file or os.path.realpath(entry.path).startswith(self.inside):
            return file
        return file._replace(unfollowed=True)

    def _contains(self, link: str, folder: str) -> bool:
        """Return whether a link leads to a folder that contains one of those above the link."""
        target, names = os.path.join(os.path.realpath(link), ""), native(folder).split("/")
        above = (os.path.realpath("/".join((self.root, *names[:count]))) for count in range(len(names)))
        return any(os.path.join(place, "").startswith(target) for place in above)


def _file(path: str, state: os.stat_result) -> FileInfo:
    return FileInfo(path, state.st_size, str(state.st_mtime or ""), state.st_mtime, stat.S_ISREG(state.st_mode))
