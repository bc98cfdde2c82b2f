"""The protocol of stores: the operations on files that jobs need, whatever system holds the files.

:func:`fruits.storage.addresses.open_store` selects the implementation: a local disk, S3, or any other file system of
fsspec. Paths are those of the store: absolute on a local disk, ``bucket/key`` on S3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, NamedTuple, Protocol

from fruits.storage.prefetch import File, Range
from fruits.text import name_bytes

END_OF_URL = "\0"  # in a path of a web server: the names of a file below the URL follow
BATCH = 1000  # files, as many as one response of S3 lists


class FileInfo(NamedTuple):
    """A file in a listing.

    Attributes
    ----------
    path : str
        Path below the listed folder, with ``/``.
    size : int
        Size in bytes; -1 if unknown.
    version : str
        A value that changes when the file is rewritten: the modification time on a local disk, the ETag on S3 and
        either of them elsewhere; empty if unknown.
    modified : float
        Modification time in seconds since the epoch; 0 if unknown. Walks may omit it.
    is_file : bool
        False for a FIFO, a device, a folder that was not listed, or a link to a folder.
    unfollowed : bool
        True for a link that was not followed: to a folder, or to a file outside the listed folder.
    """

    path: str
    size: int
    version: str = ""
    modified: float = 0.0
    is_file: bool = True
    unfollowed: bool = False


class Store(Protocol):
    """Operations on the files of one system. Failures are ``OSError``, or exceptions of the fsspec implementation."""

    def read(self, path: str, *, limit: int | None = None) -> bytes:
        """Return the content of a file, which may have at most `limit` bytes; larger raises EFBIG."""

    def read_heads(self, paths: Sequence[str], count: int) -> Sequence[bytes | Exception]:
        """Return the first `count` bytes of each file, or the error of reading it."""

    def open(self, path: str) -> BinaryIO:
        """Open a file to read at any place, by requests of ranges where the store supports them."""

    def info(self, path: str) -> FileInfo:
        """Return the size and the version of a file; raise a ``FileNotFoundError`` if it does not exist."""

    def fetch(self, files: Iterable[File], *, ahead: int, inside: str = "") -> Iterator[bytes | OSError]:
        """Yield the content of each file in order, or its error; see :mod:`fruits.storage.prefetch`.

        A link that leads out of the folder `inside`, if given, is not followed; only local disks have links.
        """

    def fetch_ranges(self, ranges: Iterable[Range], *, ahead: int) -> Iterator[bytes | OSError]:
        """Yield the bytes of each range in order, or its error, as :meth:`fetch` does for whole files."""

    def writing(self, path: str, *, check: Callable[[], None] | None = None) -> AbstractContextManager[BinaryIO]:
        """Create or replace a file of any size by what is written to the yielded file.

        It appears complete when the context ends, and not at all if the context or `check`, which is called right
        before, fails.
        """

    def write(self, path: str, data: bytes, *, check: Callable[[], None] | None = None) -> None:
        """Create or replace a file; it appears complete or not at all.

        `check` is called right before the file appears; if it raises, nothing appears.
        """

    def create(self, path: str, data: bytes) -> bool:
        """Create a file, complete, unless it exists; return whether it was created.

        Of several callers at once exactly one succeeds, on a local disk and on S3 with conditional requests.
        """

    def is_file(self, path: str) -> bool:
        """Return whether a path exists and is a file."""

    def names(self, path: str) -> list[str]:
        """Return the names of the files and folders in a folder, sorted; empty if the folder does not exist."""

    def files(self, path: str) -> list[FileInfo]:
        """Return the files directly in a folder, sorted by name; empty if the folder does not exist."""

    def walk(
        self, path: str, *, follow_links: bool = False, prune: Callable[[str], bool] | None = None
    ) -> Iterator[list[FileInfo]]:
        """Yield all files below a folder in batches, ordered by the bytes of their paths.

        Parameters
        ----------
        path : str
            The folder.
        follow_links : bool, default False
            Follow links to folders, and to files outside the folder. A link to a folder that contains it is never
            followed.
        prune : callable, optional
            Returns whether to skip a folder, given its path below the root with a ``/`` at its end. It is not listed
            where folders are listed one by one: instead of its files, the folder itself is yielded.

        Raises
        ------
        FileNotFoundError
            The folder does not exist.
        NotADirectoryError
            The path is that of a file.
        OSError
            A folder cannot be listed.
        """

    def remove_files(self, paths: Sequence[str]) -> None:
        """Remove files, if they exist; all are of one bucket on S3."""

    def remove_empty(self, path: str) -> None:
        """Remove a folder if it is empty; object stores have no empty folders."""

    def abort_uploads(self, path: str, chosen: Callable[[str], bool]) -> None:
        """Abort the unfinished uploads below a folder whose names below it are chosen, if the store has any."""

    def check_writable(self, path: str) -> None:
        """Raise an ``OSError`` if a folder cannot be listed and written; change nothing. Not all stores can check."""

    def check_readable(self, paths: Sequence[str]) -> None:
        """Raise a ``PermissionError`` if an object store refuses to read every one of these files."""


def walk_folders(
    list_folder: Callable[[str], Mapping[str, FileInfo | None]], prune: Callable[[str], bool] | None = None
) -> Iterator[list[FileInfo]]:
    """Yield all files of a tree in batches, in the order of the bytes of their paths, listing one folder at a time.

    Parameters
    ----------
    list_folder : callable
        Returns the entries of a folder by path below the root: a file, or None for a folder, whose path ends with
        ``/``. The path of the root is empty. A folder's ``/`` is part of its sort key, because it continues the paths
        of its files.
    prune : callable
        As for :meth:`Store.walk`.
    """

    def entries(folder: str) -> Iterator[tuple[str, FileInfo | None]]:
        found = list_folder(folder)
        return ((path, found[path]) for path in sorted(found, key=name_bytes))

    batch: list[FileInfo] = []
    folders = [entries("")]  # a stack instead of recursion: folders can be nested by the thousand
    while folders:
        for path, file in folders[-1]:
            if file is None and prune is not None and prune(path):
                file = FileInfo(path, 0, is_file=False)
            if file is None:
                if batch:  # before the next folder is listed, which can fail or be beyond the caller's limit
                    yield batch
                    batch = []
                folders.append(entries(path))
                break
            batch.append(file)
            if len(batch) == BATCH:
                yield batch
                batch = []
        else:
            folders.pop()
    if batch:
        yield batch
