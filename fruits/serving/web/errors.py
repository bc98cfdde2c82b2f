"""Answers that are errors: a status, a message, and for a busy server the time after which to retry."""

from __future__ import annotations

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from fruits.images.decode import ImageError
from fruits.serving.limits import Limits

RETRY_SECONDS = 1
FORMATS = "Allowed: JPEG, PNG, WebP, BMP, TIFF, GIF."
STATUS = {"empty": 400, "not-an-image": 415, "too-large": 413}  # any other reason: 422


def bad_request(message: str) -> HTTPException:
    """Return the error for a request that is not understood."""
    return HTTPException(400, message)


def busy(message: str) -> HTTPException:
    """Return the error for a request that the server has no room for now."""
    headers = {"retry-after": str(RETRY_SECONDS)}
    return HTTPException(503, f"{message} Retry after {RETRY_SECONDS} s.", headers)


def encode(status: int, message: str) -> bytes:
    """Return the body of an error as JSON."""
    return orjson.dumps({"error": {"status": status, "message": message}})


def forbidden_host(host: str) -> HTTPException:
    """Return the error for a request to a server without a token under a name that is not loopback's."""
    return HTTPException(
        421,
        f"Host {host[:100]!r}: without a token, this server answers to localhost and 127.0.0.1 only. "
        "Start it with --token-file to use another name.",
    )


def image_error(error: ImageError) -> HTTPException:
    """Return the error for an image that cannot be used."""
    status = STATUS.get(error.reason, 422)
    hint = f" {FORMATS}" if status == 415 else ""
    return HTTPException(status, f"The image cannot be used: {error.reason}: {error.detail}.{hint}")


def not_an_image() -> HTTPException:
    """Return the error for a body without an image."""
    return HTTPException(415, f"The body is not an image. {FORMATS}")


def not_found(given: str, allowed: str) -> HTTPException:
    """Return the error for something that the server does not have."""
    return HTTPException(404, f"{given[:200]}: not here. Allowed: {allowed}.")


def response(scope: Scope, error: HTTPException) -> Response:
    """Return the answer to a request: JSON with a message, in the form of the protocol of its path."""
    flat = scope["path"].startswith("/v2")  # the Open Inference Protocol's form
    body = orjson.dumps({"error": error.detail}) if flat else encode(error.status_code, error.detail)
    return Response(body, error.status_code, error.headers, "application/json")


def slow(limits: Limits) -> HTTPException:
    """Return the error for a body that arrives too slowly."""
    return HTTPException(
        408,
        f"The body did not arrive. Allowed: pauses of {limits.idle_seconds:g} s, {limits.body_seconds:g} s in all.",
        {"connection": "close"},
    )


def too_large(limits: Limits) -> HTTPException:
    """Return the error for a body above the limit."""
    return HTTPException(413, f"The body is too large. Allowed: {limits.body_bytes / 1e6:g} MB. Send a smaller image.")


def too_many_connections() -> HTTPException:
    """Return the error for a connection above the limit, which it closes."""
    headers = {"retry-after": str(RETRY_SECONDS), "connection": "close"}
    return HTTPException(503, f"Too many connections. Retry after {RETRY_SECONDS} s.", headers)


def unauthorised() -> HTTPException:
    """Return the error for a missing or wrong token."""
    return HTTPException(
        401,
        "The token is missing or wrong. Send the header: Authorization: Bearer TOKEN",
        {"www-authenticate": 'Bearer realm="fruits"'},
    )
