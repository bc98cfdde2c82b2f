"""A proxy in front of an S3 server, which delays requests and lets some of them fail as S3 and networks do.

It runs in a thread of the tests, or by itself: ``python -m tests.s3.proxy 127.0.0.1:PORT --delay 0.03``.
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
    """What is done to requests, and what was done.

    Attributes
    ----------
    upstream : str
        ``host:port`` of the server.
    delay : float
        Seconds that every request waits.
    faults : float
        The share of requests that fail, each in one way of FAULTS.
    seed : int
        Which requests those are, and how they fail.
    answers : dict of str to bytes
        By a text in the request line: a whole answer to give in the server's place.
    seen : list of str
        The request lines.
    heads : list of str
        The same with all headers, in lower case.
    made : Counter of str
        The faults that were made.
    """

    upstream: str
    delay: float = 0.0
    faults: float = 0.0
    seed: int = 0
    answers: dict[str, bytes] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._at_once = 0
        self.endpoint = ""
        self.transports: list[asyncio.WriteTransport] = []

    async def serve(self) -> asyncio.Server:
        """Start on a free port of this machine."""
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, limit=HEAD_BYTES)
        host, port = server.sockets[0].getsockname()
        self.endpoint = f"http://{host}:{port}"
        return server

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.upstream.partition(":")
        there = await asyncio.open_connection(host, int(port), limit=HEAD_BYTES)
        self.transports += [writer.transport, there[1].transport]
        try:
            while await self._request((reader, writer), there):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # one of the two has gone, or the proxy ends
        finally:
            for end in (writer, there[1]):
                end.close()

    async def _request(self, here: Streams, there: Streams) -> bool:
        """Pass one request on, and tell whether the connection goes on."""
        head, length = await _head(here[0])
        if EXPECT.search(head):  # a client that waits for leave to send the body
            head = EXPECT.sub(b"\r\n", head)
            here[1].write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await here[0].readexactly(length or 0)
        line = head.split(b"\r\n", 1)[0].decode()
        self.seen.append(line)
        self.heads.append(head.decode().lower())
        fault = self._random.choice(FAULTS) if self._random.random() < self.faults else None
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self._at_once -= 1
        for text, answer in self.answers.items():
            if text in line:
                here[1].write(answer)
                await here[1].drain()
                return True
        if fault is not None:
            self.made[fault] += 1
        if fault == "slow down":
            status = b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n"
            here[1].write(status % len(SLOW_DOWN) + SLOW_DOWN * (not line.startswith("HEAD")))
            await here[1].drain()
            return True
        if fault == "reset before":
            here[1].transport.abort()
            return False
        there[1].write(head + body)
        answer, length = await _head(there[0])
        bodyless = line.startswith("HEAD") or answer.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304"))
        data = b"" if bodyless else await _body(there[0], answer, length)
        if fault == "reset after" or (fault == "truncated" and not data):
            here[1].transport.abort()
            return False
        here[1].write(answer)
        if fault == "truncated":
            here[1].write(data[: len(data) // 2])
            await here[1].drain()
            return False
        here[1].write(data)
        await here[1].drain()
        return True


async def _head(reader: asyncio.StreamReader) -> tuple[bytes, int | None]:
    """Return a head, and the length of the body that it tells; None where it does not."""
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
        for transport in proxy.transports:  # one that is closed may have bytes left to send
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
    """Run until it is interrupted; say where on stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("upstream", metavar="HOST:PORT")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--faults", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    async def forever() -> None:
        proxy = Proxy(given.upstream, given.delay, given.faults, given.seed)
        server = await proxy.serve()
        print(proxy.endpoint, flush=True)
        await server.serve_forever()

    with suppress(KeyboardInterrupt):
        asyncio.run(forever())


if __name__ == "__main__":
    main()
