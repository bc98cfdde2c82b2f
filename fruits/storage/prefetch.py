"""Many files read, in order, with the next ones on their way where that saves time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from fruits.storage import local as local_files
from fruits.storage.stores import is_s3

__all__ = ["AHEAD", "MAX_BYTES", "ChangedFileError", "File", "fetch", "heads"]

AHEAD = 32  # requests: 320 files a second where each takes 100 ms
AHEAD_BYTES = 64 * 2**20
MAX_BYTES = 400_000_000  # of an image file: what 50 megapixels of four 16-bit samples take, not compressed

File = tuple[str, int, str]  # a path, the size in bytes, and the version as a listing gives it


class ChangedFileError(OSError):
    """A file is not the one that was listed: it has another size, or was written again since."""


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
        return _read_one_by_one(partial(local_files.read, limit=MAX_BYTES), files)
    if not file_system.async_impl:
        return _read_one_by_one(lambda path: (file_system.cat_file(path), ""), files)
    return _read_ahead(file_system, files, ahead)


def heads(file_system: fsspec.AbstractFileSystem, paths: Sequence[str], count: int) -> Sequence[bytes | Exception]:
    """Return the first `count` bytes of every file, or the error that came of reading it."""
    if isinstance(file_system, LocalFileSystem):
        return [local_files.read_head(path, count) for path in paths]
    found: list[bytes | Exception] = file_system.cat_ranges(list(paths), 0, count, on_error="return")
    return found


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
            data = _as_listed(*read(path), size, version) if size <= MAX_BYTES else local_files.too_large(path)
        except OSError as error:
            data = error
        yield data


def _read_ahead(file_system: Any, files: Iterable[File], ahead: int) -> Iterator[bytes | OSError]:
    async def once(path: str, size: int, version: str) -> bytes | ChangedFileError:
        data, found = await file_system.read(path) if is_s3(file_system) else (await file_system._cat_file(path), "")
        return _as_listed(data, found, size, version)

    async def read(path: str, size: int, version: str) -> bytes | OSError:
        if size > MAX_BYTES:
            return local_files.too_large(path)
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
