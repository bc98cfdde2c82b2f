"""Recognition off the event loop: a pool of threads, each with a decoding process and a request of the network.

The threads run native code without the interpreter's lock almost all of the time. The queue is bounded by the number of
its images and by the time that they are expected to take: an image that finds it full is refused.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fruits.images.decode import ImageError
from fruits.images.isolation import IsolatedDecoder
from fruits.network.backbones import backbone
from fruits.network.featurizer import Featurizer
from fruits.recogniser.recogniser import Recogniser, Recognition
from fruits.serving.limits import Limits
from fruits.serving.metrics import Metrics

ALWAYS = 4  # images for each worker
SMOOTHING = 0.1  # weight of the last image in the mean time of an image


class BusyError(Exception):
    """The queue is full, an image waited too long, or no decoding process can be started."""


class Workers:
    """A pool of workers, one for each decoder.

    Parameters
    ----------
    decoders : sequence of IsolatedDecoder
        Decoding processes; they are closed with the pool.
    featurizers : sequence of Featurizer
        As many requests of the network.
    limits : Limits
        Length of the queue.
    metrics : Metrics
        Where the time of each stage is recorded.

    Attributes
    ----------
    count : int
        Number of images that are processed at once.
    capacity : int
        Number of images that the queue and the workers have room for.
    pending : int
        Number of images in the queue and in the workers; changed on the event loop only.
    """

    def __init__(
        self,
        decoders: Sequence[IsolatedDecoder],
        featurizers: Sequence[Featurizer],
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self.count = len(decoders)
        self.capacity = self.count * limits.queue_per_worker
        self.pending = 0
        self._image_seconds = 0.0  # of a worker, exponentially smoothed
        self.decoders = tuple(decoders)
        self._limits = limits
        self._metrics = metrics
        self._own = threading.local()
        self._pairs = list(zip(decoders, featurizers, strict=True))
        self._threads = ThreadPoolExecutor(self.count, "fruits-worker", self._start_thread)

    def _start_thread(self) -> None:
        self._own.decoder, self._own.featurizer = self._pairs.pop()

    def close(self) -> None:
        """Finish the images in the queue, and stop threads and processes."""
        self._threads.shutdown()
        for decoder in self.decoders:
            decoder.close()

    async def recognise(self, recogniser: Recogniser, images: Sequence[bytes]) -> list[Recognition]:
        """Return the answer to each image.

        Raises
        ------
        BusyError
            The queue has no room for all of the images.
        ImageError
            The first of them that cannot be used.
        """
        if not self.has_room(len(images)):
            raise BusyError("The server is busy.")
        loop = asyncio.get_running_loop()
        submitted = time.perf_counter()
        futures = []
        for data in images:
            self.pending += 1
            future = loop.run_in_executor(self._threads, self._recognise, recogniser, data, submitted)
            future.add_done_callback(self._finished)
            futures.append(future)
        if len(futures) == 1:
            return [await futures[0]]
        return await asyncio.gather(*futures)

    def has_room(self, images: int) -> bool:
        """Return True if the queue has room for a number of images, and the first of them is not expected to wait long.

        `ALWAYS` images for each worker are accepted on the slowest machine.
        """
        wait = self.pending / self.count * self._image_seconds
        is_short = wait <= self._limits.wait_seconds or self.pending < self.count * ALWAYS
        return is_short and self.pending + images <= self.capacity

    def _finished(self, future: asyncio.Future[Recognition]) -> None:
        self.pending -= 1

    def _recognise(self, recogniser: Recogniser, data: bytes, submitted: float) -> Recognition:
        started = time.perf_counter()
        if started - submitted > self._limits.queue_seconds:
            raise BusyError("The image waited too long.")
        decoder: IsolatedDecoder = self._own.decoder
        featurizer: Featurizer = self._own.featurizer
        try:
            pixels = decoder(data, backbone(recogniser.network["backbone"]).size, recogniser.decoding)
        except ImageError as error:
            self._metrics.images.labels(error.reason).inc()
            raise
        except ChildProcessError as error:
            raise BusyError(f"No process to decode the image: {error}.") from error
        decoded = time.perf_counter()
        features = featurizer(pixels)
        featurized = time.perf_counter()
        (answer,) = recogniser.recognise_features(features[np.newaxis])
        ended = time.perf_counter()
        self._image_seconds += SMOOTHING * (ended - started - self._image_seconds)
        stages = {
            "queue": started - submitted,
            "decode": decoded - started,
            "network": featurized - decoded,
            "recognise": ended - featurized,
        }
        for stage, seconds in stages.items():
            self._metrics.stage_seconds.labels(stage).observe(seconds)
        self._metrics.images.labels(answer.reason or "recognised").inc()
        return answer
