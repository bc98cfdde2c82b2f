"""A server in a thread of this process, on a free port."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fruits.serving.connections import HttpServer
from fruits.serving.limits import Limits
from fruits.serving.server import bind, prepare
from fruits.serving.web.service import Service

WAIT_SECONDS = 60.0  # of what takes a second; most of a minute on a busy machine


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return orjson.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A server that runs in a thread."""

    port: int
    service: Service
    server: HttpServer

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request on a connection of its own; underscores in names of headers stand for hyphens."""
        connection = self.connect()
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def recognise(self, image: Any, query: str = "", **headers: str) -> Answer:
        """Send one image."""
        return self.request("POST", f"/v1/recognise{query}", image, **headers)

    def metric(self, line: str) -> float:
        """Return the value of a metric, given with its labels; 0 if it does not exist."""
        for each in self.service.metrics.text().decode().splitlines():
            if each.rpartition(" ")[0] == line:
                return float(each.rpartition(" ")[2])
        return 0.0


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until a condition is true; fail after WAIT_SECONDS."""
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.01)


@contextmanager
def run_server(
    folder: Path, *, token: str | None = None, workers: int = 1, limits: Limits | None = None
) -> Iterator[Running]:
    """Run a server until the end of the context."""
    with bind("127.0.0.1", 0, has_token=True) as bound:
        port = bound.getsockname()[1]
        server, service = prepare(str(folder), token=token, workers=workers, limits=limits or Limits())
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            wait_for(lambda: server.started or not thread.is_alive())
            yield Running(port, service, server)
        finally:
            server.should_exit = True
            thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
