"""The HTTP server: uvicorn with limits for headers and slow connections, a log, and an end that answers first."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import stat
import sys
from typing import Any, TextIO

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fruits.serving.limits import Limits
from fruits.serving.web import errors

DRAIN_SECONDS = 30  # for requests in progress after SIGTERM
KEEP_ALIVE_SECONDS = 75  # longer than nginx keeps its connections (60 s), so that it never uses one that is closing
MAX_CONNECTIONS = 1000
PIPELINED = 16  # requests of a connection that wait for earlier answers; browsers and nginx send none
BACKLOG = 2048
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"()": f"{__name__}.LogHandler", "formatter": "line"}},
    "loggers": {
        "fruits.serving": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "uvicorn.access": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}

_log = logging.getLogger("fruits.serving")


class HttpServer(Server):
    """A uvicorn server for one application.

    Parameters
    ----------
    app : ASGI application
        The application.
    limits : Limits
        Limits of connections.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        protocol = type("LimitedProtocol", (_Connection,), {"limits": limits})
        config = Config(
            app,
            http=protocol,
            ws="none",
            lifespan="on",
            log_config=LOGGING,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        super().__init__(config)
        self._ready_text = ""

    def run_until_stopped(self, bound: socket.socket, ready_text: str) -> int:
        """Serve on a bound socket until SIGTERM or SIGINT; return the number of requests that were answered."""
        self._ready_text = ready_text
        # uvicorn repeats the signals after the last answer; they have been obeyed by then.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.run([bound])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return self.server_state.total_requests

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and report that."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # what was loaded stays; without it, a full collection takes 0.1 s
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # returns 10 MB that the compilation of the network used
        _log.info("%s", self._ready_text)
        _notify("READY=1")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer the requests in progress, then stop."""
        _notify("STOPPING=1")
        await super().shutdown(sockets)


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes lines to standard error; drops those that a full disk or a pipe that nobody reads has no room for."""

    def __init__(self) -> None:
        stream = sys.stderr
        with contextlib.suppress(OSError):  # it is closed, the pipe is another user's, or there is no /proc
            if stat.S_ISFIFO(os.fstat(2).st_mode):
                # Opened again, because the flag would hold for all processes that write to the same pipe.
                stream = open(os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK), "w", buffering=1)
        super().__init__(stream)

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop a line that cannot be written; logging would write its traceback to standard error."""


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer each request of a connection above the limit."""
    await errors.response(scope, errors.too_many_connections())(scope, receive, send)


def _notify(state: str) -> None:
    """Report a state to systemd, if it started this process as ``Type=notify``."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


class _Connection(HttpToolsProtocol):
    """A connection that is closed if a request does not arrive, or its answer is not received, in time.

    Bytes that are neither received nor discarded are bounded: headers, trailers, extensions of chunks, and requests
    before the answer to the last one.
    """

    limits: Limits
    _timer: asyncio.TimerHandle | None = None
    _in_headers = True
    _overhead = 0  # bytes since the last bytes of a body: the parser reports a header only when it is complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self.app = _refuse
        self._expect(self.limits.idle_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._expect(None)

    def data_received(self, data: bytes) -> None:
        self._overhead += len(data)
        if self._in_headers and self._timer is None:
            self._expect(self.limits.idle_seconds)
        super().data_received(data)
        if self._overhead > self.limits.header_bytes and not self.transport.is_closing():
            self.send_400_response(f"The headers are too large. Allowed: {self.limits.header_bytes} bytes.")

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be parsed, in JSON as in the application's errors."""
        body = errors.encode(400, msg)
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close"
        self.transport.write(head % len(body) + b"\r\n\r\n" + body)
        self.transport.close()

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests before their answers")  # the parser ends the connection with 400
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:  # else a trailer, which nothing reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_headers = False
        # The application answers 408 before; this ends the rest of a body that it did not want.
        self._expect(self.limits.body_seconds + self.limits.idle_seconds)

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_headers, self._overhead = True, 0
        self._expect_answer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_headers:  # else the rest of a body, which has a limit
            self._expect_answer()

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()  # closing would wait for a client that does not receive the last answers

    def _expect_answer(self) -> None:
        """Limit the time of an answer, and of sending the last one before the end of a connection."""
        is_sent = self.cycle.response_complete and not self.transport.is_closing()
        self._expect(None if is_sent else self.limits.answer_seconds)

    def _expect(self, seconds: float | None) -> None:
        """Close the connection after `seconds`, unless this is called again."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)
