"""State that the endpoints share: the current recogniser, the workers, uploads and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from fruits.images.decode import ImageError, is_image
from fruits.recogniser.recogniser import Recogniser, Recognition
from fruits.serving.current import CurrentRecogniser
from fruits.serving.limits import Limits
from fruits.serving.metrics import Metrics
from fruits.serving.web import errors
from fruits.serving.web.uploads import Uploads
from fruits.serving.workers import BusyError, Workers

MODEL = "fruits"  # its name in the Open Inference Protocol


@dataclass(frozen=True, slots=True)
class Service:
    """State of one server.

    Attributes
    ----------
    current : CurrentRecogniser
        The recogniser, which can change.
    workers : Workers
        The pool that recognises.
    uploads : Uploads
        Bodies of requests.
    metrics : Metrics
        Counters.
    limits : Limits
        Limits of the server.
    software : str
        Version of Fruits.
    """

    current: CurrentRecogniser
    workers: Workers
    uploads: Uploads
    metrics: Metrics
    limits: Limits
    software: str

    @property
    def recogniser(self) -> Recogniser:
        """The recogniser for a new request."""
        return self.current.value

    async def recognise(self, recogniser: Recogniser, images: Sequence[bytes]) -> list[Recognition]:
        """Return the answers to images.

        Raises
        ------
        HTTPException
            An image cannot be used, or the server is busy.
        """
        for data in images:
            if data and not is_image(data[:32]):  # without a place in the queue
                self.metrics.images.labels("not-an-image").inc()
                raise errors.not_an_image()
        try:
            return await self.workers.recognise(recogniser, images)
        except ImageError as error:
            raise errors.image_error(error) from error
        except BusyError as error:
            raise await self.refusal(str(error)) from error

    async def refusal(self, message: str = "The server is busy.") -> HTTPException:
        """Return the error for a request that finds no room, after a pause."""
        await asyncio.sleep(self.limits.refusal_seconds)
        return errors.busy(message)
