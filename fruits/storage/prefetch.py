"""Reading files in order, with prefetching where requests are slow and many can run at once.

The size and version of each file are compared with those of the listing. An error is a value, so that one unreadable
file does not stop the others.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

AHEAD = 32  # requests: 320 files a second where each takes 100 ms
AHEAD_BYTES = 64 * 2**20
MAX_BYTES = 400_000_000  # of an image file: 50 megapixels of four uncompressed 16-bit samples

UNKNOWN_SIZE = -1
ASSUMED_BYTES = 2**22  # of a file of unknown size after small ones, for the bound on memory: 16 at once

# Path, size in bytes and version, as listed. UNKNOWN_SIZE and an empty version match every other.
File = tuple[str, int, str]


class Range(NamedTuple):
    """Some bytes of a file: path, first byte and number of bytes, and the version of the whole file as listed."""

    path: str
    start: int
    size: int
    version: str = ""


Place = TypeVar("Place")  # a path, or a Range


def places(ranges: Iterable[Range]) -> Iterator[tuple[Range, int, str]]:
    """Yield ranges as the items of :func:`read_one_by_one` and :func:`read_ahead`."""
    return ((range_, range_.size, range_.version) for range_ in ranges)


class ChangedFileError(OSError):
    """A file differs from the listed one in size or version."""


class UnreachableError(ConnectionError):
    """No connection to a server can be opened: its name, port or certificate is wrong, or it is down.

    Attributes
    ----------
    server : str
        Host and port, or what the addresses of its files have in common.
    """

    def __init__(self, server: str, problem: object) -> None:
        super().__init__(f"no connection to {server}: {problem}")
        self.server = server


def web_server(url: str) -> str:
    """Return the host and the port of a URL; empty if it is not valid."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    except ValueError:
        return ""


def too_large(path: str, limit: int) -> OSError:
    """Return the error of a file with more than `limit` bytes."""
    return OSError(errno.EFBIG, f"more than {limit:,} bytes", path)


def read_one_by_one(
    read: Callable[[Place], tuple[bytes, str]], files: Iterable[tuple[Place, int, str]]
) -> Iterator[bytes | OSError]:
    """Yield the content of each file or range, or its error, reading it when it is requested.

    Parameters
    ----------
    read : callable
        Returns the content of a path or range, and the version of the file; the version is empty if unknown.
    files : iterable of File, or of a Range with its size and version
        A file of more than 400 MB is not read; its error is EFBIG.
    """
    for place, size, version in files:
        data: bytes | OSError
        try:
            data = _checked(*read(place), size, version) if size <= MAX_BYTES else too_large(str(place), MAX_BYTES)
        except OSError as error:
            data = error
        yield data


def read_ahead(
    read: Callable[[Place], Awaitable[tuple[bytes, str]]],
    files: Iterable[tuple[Place, int, str]],
    *,
    loop: asyncio.AbstractEventLoop,
    ahead: int,
) -> Iterator[bytes | OSError]:
    """Yield the content of each file, or its error, while the next files are read on an event loop.

    A file that differs from the listed one is read a second time, because a response can end early. No request is left
    when the iterator is exhausted or closed.

    Parameters
    ----------
    read, files
        As for :func:`read_one_by_one`. `files` is consumed no further than needed, and one item more.
    loop : asyncio.AbstractEventLoop
        The running loop of another thread.
    ahead : int
        The largest number of files requested or waiting; less where they are large, to hold at most 64 MiB, or one
        file that is larger. Files of unknown size count as the last ones, at first as 16 MiB.
    """

    async def read_checked(place: Place, size: int, version: str) -> bytes | OSError:
        if size > MAX_BYTES:
            return too_large(str(place), MAX_BYTES)
        try:
            data = _checked(*await read(place), size, version)
            return data if isinstance(data, bytes) else _checked(*await read(place), size, version)
        except OSError as error:
            return error

    files = iter(files)
    upcoming = next(files, None)
    pending: deque[tuple[Future[bytes | OSError], int]] = deque()
    held, assumed = 0, 4 * ASSUMED_BYTES
    try:
        while True:
            # Submit half of the window at a time: every submission wakes the loop's thread, which then competes with
            # this one for the interpreter.
            room = ahead - len(pending) if len(pending) <= ahead // 2 else 0
            while room and upcoming is not None:
                size = assumed if upcoming[1] == UNKNOWN_SIZE else upcoming[1]
                if pending and held + size > AHEAD_BYTES:
                    break
                room -= 1
                pending.append((asyncio.run_coroutine_threadsafe(read_checked(*upcoming), loop), size))
                held += size
                upcoming = next(files, None)
            if not pending:
                return
            future, size = pending.popleft()
            held -= size
            found = future.result()
            assumed = max(ASSUMED_BYTES, assumed // 2, len(found) if isinstance(found, bytes) else 0)
            yield found
    finally:
        for future, _ in pending:
            future.cancel()


def _checked(data: bytes, found: str, size: int, version: str) -> bytes | OSError:
    if size == UNKNOWN_SIZE:
        if len(data) > MAX_BYTES:
            return too_large("", MAX_BYTES)
    elif len(data) != size:
        return ChangedFileError(f"{len(data):,} bytes; {size:,} when it was listed")
    if version and found and found != version:
        return ChangedFileError(f"written again: version {found}; {version} when it was listed")
    return data
