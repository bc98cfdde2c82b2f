"""Reading the body of a request within limits of size, time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from fruits.serving.limits import Limits
from fruits.serving.web import errors

FIELDS = 16  # of a form beside its image


class Uploads:
    """Bodies that are in memory; they count until the request is answered.

    Parameters
    ----------
    limits : Limits
        Sizes and times.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.buffered = 0  # bytes

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Return the whole body of a request.

        Raises
        ------
        HTTPException
            408, 413 or 503, as in :class:`fruits.serving.limits.Limits`.
        ClientDisconnect
            The client closed the connection.
        """
        with _Share(self) as share:
            yield b"".join([chunk async for chunk in self._chunks(request, share)])

    @asynccontextmanager
    async def image(self, request: Request) -> AsyncIterator[bytes]:
        """Return the image of a request: its body, or the file of its form.

        Raises
        ------
        HTTPException
            As in :meth:`body`, and 400 for a form without exactly one file.
        ClientDisconnect
            The client closed the connection.
        """
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            async with self.body(request) as data:
                yield data
            return
        with _Share(self) as share:
            yield await _file(request, self._chunks(request, share), self._limits)

    async def _chunks(self, request: Request, share: _Share) -> AsyncGenerator[bytes, None]:
        """Yield the body in the pieces in which it arrives."""
        limits = self._limits
        stated = request.headers.get("content-length", "")
        if stated.isdigit() and int(stated) > limits.body_bytes:
            raise errors.too_large(limits)
        clock = asyncio.get_running_loop().time
        end = clock() + limits.body_seconds
        more = True
        while more:
            try:
                async with asyncio.timeout_at(min(end, clock() + limits.idle_seconds)):
                    message = await request.receive()
            except TimeoutError:
                raise errors.slow(limits) from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk: bytes = message.get("body", b"")
            share.add(len(chunk), limits)
            more = message.get("more_body", False)
            yield chunk


class _Share:
    """The bytes of one request, which are returned at its end."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._bytes = 0

    def add(self, count: int, limits: Limits) -> None:
        self._bytes += count
        self._uploads.buffered += count
        if self._bytes > limits.body_bytes:
            raise errors.too_large(limits)
        if self._uploads.buffered > limits.buffered_bytes:
            raise errors.busy("Too many uploads at once.")

    def __enter__(self) -> _Share:
        return self

    def __exit__(self, *_: object) -> None:
        self._uploads.buffered -= self._bytes


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 30  # a form never reaches the disk, which may be full; its size is limited already


async def _file(request: Request, chunks: AsyncGenerator[bytes, None], limits: Limits) -> bytes:
    """Return the only file of a form."""
    parser = _InMemory(request.headers, chunks, max_files=1, max_fields=FIELDS, max_part_size=limits.header_bytes)
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:  # the latter for the charsets idna and undefined
        raise errors.bad_request(f"The form is not valid: {error} Send one file.") from error
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    if not files:
        raise errors.bad_request("The form has no file. Send one, in a field of any name.")
    try:
        return await files[0].read()
    finally:
        await form.close()
