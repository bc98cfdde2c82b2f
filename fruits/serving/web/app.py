"""The ASGI application: the endpoints, the page, and the recogniser that is watched while it runs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fruits.recogniser.recogniser import Recogniser, Recognition
from fruits.serving.web import errors
from fruits.serving.web.guard import Guard
from fruits.serving.web.inference_protocol import protocol_routes
from fruits.serving.web.service import MODEL, Service

PAGE = {  # path → file and media type
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/openapi.json": ("openapi.json", "application/json"),
}
PUBLIC = {*PAGE, "/v2/health/live", "/v2/health/ready"}
TRUE = {"1", "true", "yes"}


def create_app(service: Service, token: str | None = None) -> ASGIApp:
    """Return the application.

    Parameters
    ----------
    service : Service
        State of the server; its workers are closed with the application.
    token : str, optional
        The token that requests must have, except for the page and the health of the server.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(service.current.watch(service.metrics))
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            await asyncio.to_thread(service.workers.close)

    workers, metrics = service.workers, service.metrics
    metrics.watch("fruits_queue_images", "Images in the queue and in the workers", lambda: workers.pending)
    metrics.watch(
        "fruits_queue_capacity", "Images that the queue and the workers have room for", lambda: workers.capacity
    )
    app = Starlette(
        routes=[*_routes(service), *_page_routes(service.software), *protocol_routes(service)],
        exception_handlers={HTTPException: _error, ClientDisconnect: _disconnected},
        lifespan=lifespan,
    )
    return Guard(app, metrics, token, PUBLIC)


async def _error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return errors.response(request.scope, error)


async def _disconnected(request: Request, error: Exception) -> Response:
    """Return an answer that nobody receives; it is counted."""
    return Response(status_code=400)


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), media_type="application/json", headers={"cache-control": "no-store"})


def _routes(service: Service) -> list[Route]:
    async def recognise(request: Request) -> Response:
        recogniser = service.recogniser
        if not service.workers.has_room(1):  # before the upload
            raise await service.refusal()
        async with service.uploads.image(request) as data:
            (answer,) = await service.recognise(recogniser, [data])
        nearest = request.query_params.get("nearest", "").lower() in TRUE
        return _json(_answer(recogniser, answer, nearest=nearest))

    async def model(request: Request) -> Response:
        recogniser = service.recogniser
        return _json({**_model(recogniser), "crops": recogniser.crops, "labels": recogniser.labels})

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    return [
        Route("/v1/recognise", recognise, methods=["POST"]),
        Route("/v1/model", model),
        Route("/metrics", metrics),
    ]


def _model(recogniser: Recogniser) -> dict[str, str]:
    return {"name": MODEL, "version": recogniser.version}


def _answer(recogniser: Recogniser, answer: Recognition, *, nearest: bool) -> dict[str, Any]:
    value: dict[str, Any] = {
        "label": answer.prediction,
        "confidence": answer.confidence,
        "unknown": answer.prediction is None,
        "reason": answer.reason,
        "predictions": [{"label": label, "score": score} for label, score in answer.top],
        "model": _model(recogniser),
    }
    if nearest:
        value["nearest"] = [
            {"label": neighbour.label, "image": _data_url(recogniser.thumbnails.get(neighbour.key))}
            for neighbour in answer.nearest
        ]
    return value


def _data_url(image: bytes | None) -> str | None:
    """Return a JPEG as a URL; an image element cannot send a token, so the answer contains it."""
    return None if image is None else "data:image/jpeg;base64," + base64.b64encode(image).decode()


def _page_routes(software: str) -> list[Route]:
    """Return a route for each file of the page, which is read once."""
    folder = files("fruits.serving.web") / "page"

    def route(path: str, name: str, media_type: str) -> Route:
        content = (folder / name).read_bytes()
        if name == "openapi.json":
            content = orjson.dumps(orjson.loads(content) | {"info": {"title": "Fruits", "version": software}})

        async def page(request: Request) -> Response:
            return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

        return Route(path, page)

    return [route(path, *file) for path, file in PAGE.items()]
