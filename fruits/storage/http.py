"""Folders that web servers show as pages of links. Sizes and versions of the files are unknown until they are read."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from http import HTTPStatus
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urljoin

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientResponseError,
    ConnectionTimeoutError,
    TooManyRedirects,
)
from fsspec.asyn import sync

from fruits.storage.generic import BLOCK_BYTES, FsspecStore
from fruits.storage.prefetch import (
    MAX_BYTES,
    UNKNOWN_SIZE,
    File,
    Range,
    UnreachableError,
    places,
    read_ahead,
    too_large,
    web_server,
)
from fruits.storage.stores import END_OF_URL, FileInfo, walk_folders

MISSING = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
TRANSIENT = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
READERS = 32
RECONNECT_SECONDS = (0.5, 1, 2)  # before each new attempt to connect: as long as a server restarts
LONE_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
RESERVED = "%/:?&=;,@!$'()*+~[]"  # characters of URLs, which are sent as they are given


def _url(path: str) -> str:
    """Return the URL of a path, encoded."""
    url, _, names = path.partition(END_OF_URL)
    given = LONE_PERCENT.sub("%25", url.partition("#")[0])
    return quote(given, RESERVED, errors="surrogateescape") + quote(names, errors="surrogateescape")


def _decoded(url: str) -> str:
    return unquote(url, errors="surrogateescape")


class HttpStore(FsspecStore):
    """The files of web servers. It only reads.

    A path is a URL as it was given, a NUL, and the names of a file below it, which are not encoded.
    """

    def read(self, path: str, *, limit: int | None = None) -> bytes:
        """Return the content of a file; see :class:`fruits.storage.stores.Store`."""
        data: bytes = sync(self.file_system.loop, self._get, path, limit)
        return data

    def read_heads(self, paths: Sequence[str], count: int) -> Sequence[bytes | Exception]:
        """Return the first `count` bytes of each file, or the error of reading it."""

        async def read_all() -> list[bytes | Exception]:
            slots = asyncio.Semaphore(READERS)

            async def read_one(path: str) -> bytes | Exception:
                async with slots:
                    try:
                        return await self._get(path, head=count)
                    except OSError as error:
                        return error

            return await asyncio.gather(*map(read_one, paths))

        heads: list[bytes | Exception] = sync(self.file_system.loop, read_all)
        return heads

    def open(self, path: str) -> BinaryIO:
        """Open a file to read at any place; from a server without ranges, all of it is read first."""
        try:
            file: BinaryIO = self.file_system.open(_url(path), "rb", block_size=BLOCK_BYTES)
        except ClientError as error:
            raise ConnectionError(f"{path.replace(END_OF_URL, '')}: {str(error) or type(error).__name__}") from error
        if file.seekable():
            return file
        file.close()
        return BytesIO(self.read(path, limit=MAX_BYTES))

    def fetch(self, files: Iterable[File], *, ahead: int, inside: str = "") -> Iterator[bytes | OSError]:
        """Yield the content of each file or its error, with `ahead` requests at once.

        Connecting to a server is tried again; if it fails each time, its next files fail after one attempt.
        """
        unreachable: dict[str, UnreachableError] = {}

        async def get(path: str) -> bytes:
            for seconds in RECONNECT_SECONDS:
                try:
                    return await self._get(path, MAX_BYTES)
                except UnreachableError as error:
                    if error.server in unreachable:
                        raise
                    await asyncio.sleep(seconds)
            return await self._get(path, MAX_BYTES)

        async def read(path: str) -> tuple[bytes, str]:
            if (known := unreachable.get(web_server(path.partition(END_OF_URL)[0]))) is not None:
                raise known
            try:
                return await get(path), ""
            except UnreachableError as error:
                unreachable[error.server] = error
                raise

        return read_ahead(read, files, loop=self.file_system.loop, ahead=ahead)

    def fetch_ranges(self, ranges: Iterable[Range], *, ahead: int) -> Iterator[bytes | OSError]:
        """Yield the bytes of each range or its error, with `ahead` requests at once.

        A server that ignores ranges sends the file from its start up to the end of each range.
        """

        async def read(place: Range) -> tuple[bytes, str]:
            return await self._get(place.path, head=place.size, start=place.start), ""

        return read_ahead(read, places(ranges), loop=self.file_system.loop, ahead=ahead)

    def info(self, path: str) -> FileInfo:
        """Return the size of a file as the server states it, and its ETag."""
        found: FileInfo = sync(self.file_system.loop, self._headers, path)
        return found

    def is_file(self, path: str) -> bool:
        """Return whether a path can be read."""
        try:
            sync(self.file_system.loop, self._get, path, None, 1)
        except FileNotFoundError:
            return False
        return True

    def names(self, path: str) -> list[str]:
        """Return the names of the files and folders in a folder, sorted; empty if the folder does not exist."""
        try:
            return sorted(name.removesuffix("/") for name in self._entries(path, ""))
        except FileNotFoundError:
            return []

    def files(self, path: str) -> list[FileInfo]:
        """Return the files directly in a folder, sorted by name; empty if the folder does not exist."""
        try:
            return sorted(file for file in self._entries(path, "").values() if file is not None)
        except FileNotFoundError:
            return []

    def check_writable(self, path: str) -> None:
        """Raise an ``OSError``."""
        raise OSError("web servers are only read. Give a folder on another kind of storage")

    def walk(
        self, path: str, *, follow_links: bool = False, prune: Callable[[str], bool] | None = None
    ) -> Iterator[list[FileInfo]]:
        """Yield all files below a folder, reading one page of links at a time."""
        if "?" in path.partition(END_OF_URL)[0]:
            raise OSError("the URL of a folder has no query. Leave out the part from the question mark on")
        try:
            first = self._entries(path, "")
        except FileNotFoundError:
            if self.is_file(path):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
            raise
        yield from walk_folders(lambda folder: self._entries(path, folder) if folder else first, prune)

    def _entries(self, root: str, folder: str) -> Mapping[str, FileInfo | None]:
        """Return the links to the files and folders directly in a folder."""
        place = f"{root}/{folder}"
        page = _Links()
        page.feed(self.read(place, limit=MAX_BYTES).decode("utf-8", "replace"))
        found: dict[str, FileInfo | None] = {}
        base = _url(place)
        for link in page.links:
            try:
                url = urljoin(base, link)
            except ValueError:  # no URL
                continue
            name = _decoded(url).removeprefix(_decoded(base))
            # Other links lead to folders above, to other servers, or sort the page (?C=M).
            if not _decoded(url).startswith(_decoded(base)) or "?" in url or "#" in url or not name:
                continue
            path, is_folder = folder + name, name.endswith("/")
            if "/" not in name.removesuffix("/") and name not in ("./", "../"):
                found[path] = None if is_folder else FileInfo(path, UNKNOWN_SIZE)
        return found

    async def _get(self, path: str, limit: int | None = None, head: int | None = None, start: int = 0) -> bytes:
        """Return the content of a file of at most `limit` bytes, or its `head` bytes from `start` on."""
        options = dict(self.file_system.kwargs)
        if head is not None:
            options["headers"] = {**options.get("headers", {}), "Range": f"bytes={start}-{start + head - 1}"}
        data = bytearray()
        async with self._request(path, options) as response:
            if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return b""  # the file is empty
            response.raise_for_status()
            before = 0 if response.status == HTTPStatus.PARTIAL_CONTENT else start  # 200: the range is ignored
            async for chunk in response.content.iter_any():
                data += chunk[before:]
                before = max(before - len(chunk), 0)
                if head is not None and len(data) >= head:
                    return bytes(data[:head])
                if limit is not None and len(data) > limit:
                    raise too_large(path, limit)
        return bytes(data)

    async def _headers(self, path: str) -> FileInfo:
        async with self._request(path, dict(self.file_system.kwargs)) as response:  # not all servers know HEAD
            response.raise_for_status()
            size = response.content_length
            return FileInfo(path, UNKNOWN_SIZE if size is None else size, response.headers.get("ETag", "").strip('"'))

    @asynccontextmanager
    async def _request(self, path: str, options: dict[str, Any]) -> AsyncIterator[ClientResponse]:
        """Send a request, and raise its failure as an ``OSError``."""
        place = path.replace(END_OF_URL, "")
        # Sizes and ranges are those of the file, and not of a compressed answer.
        options["headers"] = {"Accept-Encoding": "identity", **options.get("headers", {})}
        try:
            session = await self.file_system.set_session()
            async with session.get(self.file_system.encode_url(_url(path)), **options) as response:
                yield response
        except TooManyRedirects as error:
            raise OSError(errno.ELOOP, f"more than {len(error.history) - 1} redirections", place) from error
        except ClientResponseError as error:
            if error.status in MISSING:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place) from error
            # The other errors of a client concern the file as well; those of a server may pass.
            refused = 400 <= error.status < 500 and error.status not in TRANSIENT
            kind = PermissionError if refused else ConnectionError
            raise kind(f"{place}: {error.status} {error.message}") from error
        except ClientConnectorError as error:  # one of a certificate is a ValueError, too
            raise UnreachableError(f"{error.host}:{error.port}", error.strerror or error) from error
        except ConnectionTimeoutError as error:
            raise UnreachableError(web_server(place), error) from error
        except ValueError as error:  # also InvalidURL, a ClientError: no host, or no such port
            raise FileNotFoundError(errno.ENOENT, f"no valid URL: {error}", place) from error
        except ClientError as error:
            raise ConnectionError(f"{place}: {str(error) or type(error).__name__}") from error


class _Links(HTMLParser):
    """The targets of the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]
