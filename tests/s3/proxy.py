"""A proxy in front of an S3 server that delays requests and injects the failures of S3 and of networks.

It runs in a thread of the tests, or as a program: ``python -m tests.s3.proxy 127.0.0.1:PORT --delay 0.03``.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random

FAULTS = ("slow down", "reset before", "reset after", "truncated")
HEAD_BYTES = 2**20
EXPECT = re.compile(rb"\r\nexpect: 100-continue\r\n", re.IGNORECASE)
SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Proxy:
    """A proxy: its settings, and a record of its requests.

    Attributes
    ----------
    upstream : str
        ``host:port`` of the server.
    delay : float
        Delay of every request, in seconds.
    faults : float
        Fraction of requests that fail, each with one of FAULTS.
    seed : int
        Seed of the choice of requests and faults.
    together : int
        Number of concurrent requests that the first requests wait for, up to a minute.
    answers : dict of str to bytes
        Complete responses to return instead of the server's, by a substring of the request line.
    seen : list of str
        Request lines.
    heads : list of str
        Request lines with all headers, in lower case.
    made : Counter of str
        Number of injected faults of each kind.
    most_at_once : int
        Largest number of concurrent requests.
    """

    upstream: str
    delay: float = 0.0
    faults: float = 0.0
    seed: int = 0
    together: int = 1
    answers: dict[str, bytes] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._at_once = 0
        self._are_together = asyncio.Event()
        self.endpoint = ""
        self.transports: list[asyncio.WriteTransport] = []

    async def serve(self) -> asyncio.Server:
        """Start on a free local port."""
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, limit=HEAD_BYTES)
        host, port = server.sockets[0].getsockname()
        self.endpoint = f"http://{host}:{port}"
        return server

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.upstream.partition(":")
        upstream = await asyncio.open_connection(host, int(port), limit=HEAD_BYTES)
        self.transports += [writer.transport, upstream[1].transport]
        try:
            while await self._request((reader, writer), upstream):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # one side has disconnected, or the proxy ends
        finally:
            for end in (writer, upstream[1]):
                end.close()

    async def _request(self, client: Streams, upstream: Streams) -> bool:
        """Forward one request, and return whether the connection stays open."""
        head, length = await _head(client[0])
        if EXPECT.search(head):  # the client waits for permission to send the body
            head = EXPECT.sub(b"\r\n", head)
            client[1].write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await client[0].readexactly(length or 0)
        line = head.split(b"\r\n", 1)[0].decode()
        self.seen.append(line)
        self.heads.append(head.decode().lower())
        fault = self._random.choice(FAULTS) if self._random.random() < self.faults else None
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        if self._at_once == self.together:
            self._are_together.set()
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._are_together.wait(), 60)
            await asyncio.sleep(self.delay)
        finally:
            self._at_once -= 1
        for text, answer in self.answers.items():
            if text in line:
                client[1].write(answer)
                await client[1].drain()
                return True
        if fault is not None:
            self.made[fault] += 1
        if fault == "slow down":
            status = b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n"
            client[1].write(status % len(SLOW_DOWN) + SLOW_DOWN * (not line.startswith("HEAD")))
            await client[1].drain()
            return True
        if fault == "reset before":
            client[1].transport.abort()
            return False
        upstream[1].write(head + body)
        answer, length = await _head(upstream[0])
        bodyless = line.startswith("HEAD") or answer.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304"))
        data = b"" if bodyless else await _body(upstream[0], answer, length)
        if fault == "reset after" or (fault == "truncated" and not data):
            client[1].transport.abort()
            return False
        client[1].write(answer)
        if fault == "truncated":
            client[1].write(data[: len(data) // 2])
            await client[1].drain()
            return False
        client[1].write(data)
        await client[1].drain()
        return True


async def _head(reader: asyncio.StreamReader) -> tuple[bytes, int | None]:
    """Return a head and the Content-Length in it, or None."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head, int(line.partition(b":")[2])
    return head, None


async def _body(reader: asyncio.StreamReader, head: bytes, length: int | None) -> bytes:
    if length is not None:
        return await reader.readexactly(length)
    assert b"transfer-encoding: chunked" in head.lower(), head
    body = b""
    while not body.endswith(b"0\r\n\r\n"):
        size = await reader.readuntil(b"\r\n")
        body += size + await reader.readexactly(int(size, 16) + 2)
    return body


@contextmanager
def running(proxy: Proxy) -> Iterator[Proxy]:
    """Run a proxy in a thread until the end of the context."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxy")
    thread.start()

    async def end() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for transport in proxy.transports:  # a closed one may have unsent bytes
            transport.abort()
        await asyncio.sleep(0)

    server = asyncio.run_coroutine_threadsafe(proxy.serve(), loop).result()
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def main() -> None:
    """Run until interrupted; print the endpoint to stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("upstream", metavar="HOST:PORT")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--faults", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    async def forever() -> None:
        proxy = Proxy(arguments.upstream, arguments.delay, arguments.faults, arguments.seed)
        server = await proxy.serve()
        print(proxy.endpoint, flush=True)
        await server.serve_forever()

    with suppress(KeyboardInterrupt):
        asyncio.run(forever())


if __name__ == "__main__":
    main()
