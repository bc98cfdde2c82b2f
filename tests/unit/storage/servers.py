"""Servers for the tests of stores: folders of this machine over HTTP, FTP and WebHDFS."""

from __future__ import annotations

import json
import os
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlsplit

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it needs asyncore, which Python 3.12 removed
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import FTPServer


class _Files(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path

    def path_of(self, url: str) -> Path:
        return self.root / os.fsdecode(unquote_to_bytes(urlsplit(url).path)).lstrip("/")

    def answer(self, status: int, kind: str, data: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


class _Pages(_Files):
    """Shows folders as pages of links, as Apache and nginx do."""

    ranges = False

    def do_GET(self) -> None:
        place = self.path_of(self.path)
        if place.is_dir() and urlsplit(self.path).path.endswith("/"):
            names = sorted(os.fsencode(each.name) + b"/" * each.is_dir() for each in place.iterdir())
            links = [escape(quote(name)) for name in names]
            others = ["../", "/", "?C=N;O=D", "https://example.org/1.jpg", "#top", "mailto:a@example.org"]
            page = "".join(f'<a class="x" href="{link}">x http://example.org/text.jpg</a>\n' for link in others + links)
            self.answer(200, "text/html", page.encode())
        elif place.is_file() and not self.path.endswith("/"):
            data = place.read_bytes()
            if self.headers["Range"] and not data:
                self.answer(416, "text/plain", b"")
            elif self.headers["Range"] and self.ranges:
                start, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
                self.answer(206, "application/octet-stream", data[start : end + 1])
            else:
                self.answer(200, "application/octet-stream", data)  # the range is ignored, as it may be
        else:
            self.answer(404, "text/plain", b"no such file")


class _WebHdfs(_Files):
    """The operations of WebHDFS that reading needs."""

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        path = self.path_of(self.path.replace("/webhdfs/v1", "", 1))
        if not path.exists():
            remote = {"RemoteException": {"exception": "FileNotFoundException", "message": str(path)}}
            self.answer(404, "application/json", json.dumps(remote).encode())
        elif query["op"] == ["OPEN"] and "direct" not in query:
            self.answer(307, "text/plain", b"", Location=f"http://{self.headers['Host']}{self.path}&direct=1")
        elif query["op"] == ["OPEN"]:
            start = int(query["offset"][0])
            self.answer(200, "application/octet-stream", path.read_bytes()[start : start + int(query["length"][0])])
        elif query["op"] == ["GETFILESTATUS"]:
            self.answer(200, "application/json", json.dumps({"FileStatus": self.status(path, "")}).encode())
        else:
            statuses = [self.status(each, each.name) for each in path.iterdir()]
            self.answer(200, "application/json", json.dumps({"FileStatuses": {"FileStatus": statuses}}).encode())

    def status(self, path: Path, suffix: str) -> dict[str, Any]:
        kind, state = "DIRECTORY" if path.is_dir() else "FILE", path.stat()
        time = int(state.st_mtime * 1000)
        return {"type": kind, "length": state.st_size, "pathSuffix": suffix, "modificationTime": time}


@contextmanager
def _serving(handler: type[_Files], root: Path, tls: ssl.SSLContext | None = None, **settings: bool) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"root": root, **settings}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that do not trust it
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def http(root: Path, *, ranges: bool = False, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Yield the URL of a web server, which sends ranges or ignores them."""
    with _serving(_Pages, root, tls=tls, ranges=ranges) as host:
        yield f"http{'s' if tls else ''}://{host}"


@contextmanager
def webhdfs(root: Path) -> Iterator[str]:
    """Yield the URL of a stand-in for the name node and the data node of HDFS."""
    with _serving(_WebHdfs, root) as host:
        yield f"webhdfs://{host}"


@contextmanager
def ftp(root: Path, user: str, password: str, *, writable: bool = False) -> Iterator[str]:
    """Yield the URL of an FTP server."""
    authorizer = DummyAuthorizer()
    authorizer.add_user(user, password, str(root), perm="elradfmw" if writable else "elr")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer})
    server = FTPServer(("127.0.0.1", 0), handler)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.serve_forever(timeout=0.02, blocking=False, handle_exit=False)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"ftp://127.0.0.1:{server.address[1]}"
    finally:
        stop.set()
        thread.join()
        server.close_all()
