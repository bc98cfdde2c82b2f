"""The outermost layer of the application: token, host, security headers, and the count of requests."""

from __future__ import annotations

import hmac
import time
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fruits.serving.metrics import Metrics
from fruits.serving.web import errors

_HEADERS = {
    # Pictures of the page are previews (blob:) and training images of an answer (data:).
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
SECURITY_HEADERS = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
LOOPBACK_NAMES = {"localhost", "127.0.0.1", "[::1]"}


def is_loopback_name(host: str) -> bool:
    """Return True if a Host header, with or without a port, names this machine."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower() in LOOPBACK_NAMES


class Guard:
    """An ASGI application around another one.

    Parameters
    ----------
    app : ASGI application
        The application. It raises no HTTPException.
    metrics : Metrics
        Where requests are counted.
    token : str, optional
        The token that requests must have, except those to `public` paths. Without one, requests must name a loopback
        host: a page on the internet whose name is resolved to 127.0.0.1 cannot use the server.
    public : collection of str
        Paths that need no token.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, token: str | None, public: Collection[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._token = None if token is None else token.encode()
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *SECURITY_HEADERS]
            await send(message)

        try:
            refused = self._refusal(scope)
            app = self._app if refused is None else errors.response(scope, refused)
            await app(scope, receive, send_guarded)
        finally:
            handler = scope.get("endpoint")  # set by the router
            endpoint = getattr(handler, "__name__", "none")
            self._metrics.requests.labels(endpoint, status).inc()
            self._metrics.request_seconds.labels(endpoint).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> HTTPException | None:
        headers = Headers(scope=scope)
        if self._token is None:
            host = headers.get("host", "")
            return None if is_loopback_name(host) else errors.forbidden_host(host)
        if scope["path"] in self._public:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("latin-1"), self._token)
        return None if same and scheme.lower() == "bearer" else errors.unauthorised()
