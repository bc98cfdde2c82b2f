"""Metrics of the server in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Counters of one server. No value of a request or name of a label becomes a label of a metric.

    Attributes
    ----------
    requests : Counter
        Requests by endpoint and status.
    request_seconds : Histogram
        Time of a request by endpoint, with its upload.
    stage_seconds : Histogram
        Time of an image by stage: queue, decode, network, recognise.
    images : Counter
        Images by result: ``recognised``, the reason of a rejection, or the reason why it cannot be used.
    reloads : Counter
        Changes of the recogniser by result: loaded or failed.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        counter = partial(Counter, registry=self._registry)
        histogram = partial(Histogram, buckets=SECONDS, registry=self._registry)
        self.requests = counter("fruits_requests", "Requests by endpoint and status", ["endpoint", "status"])
        self.request_seconds = histogram("fruits_request_seconds", "Seconds of a request", ["endpoint"])
        self.stage_seconds = histogram("fruits_stage_seconds", "Seconds of an image in a stage", ["stage"])
        self.images = counter("fruits_images", "Images by result", ["result"])
        self.reloads = counter("fruits_recogniser_reloads", "Changes of the recogniser by result", ["result"])

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is read when the metrics are."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
