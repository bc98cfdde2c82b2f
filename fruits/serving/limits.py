"""Limits of the server: sizes, times and the length of the queue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one server.

    Attributes
    ----------
    body_bytes : int
        Largest body of a request; more is answered with 413.
    buffered_bytes : int
        Bodies of all requests together that are in memory at once; more is answered with 503.
    header_bytes : int
        Largest request line and headers, and most bytes between two pieces of a body; more is answered with 400.
    idle_seconds : float
        Longest pause in a body, and longest time for the headers; more is answered with 408.
    body_seconds : float
        Longest time for a whole body; more is answered with 408.
    answer_seconds : float
        Longest time from a whole request to the end of its answer, which a client may not receive; then the connection
        is closed.
    queue_per_worker : int
        Images for each worker that wait or are processed; more are answered with 503.
    wait_seconds : float
        Longest expected wait of an image in the queue; more is answered with 503, so that large images make the queue
        shorter. With the time of the image itself, answers take up to 0.2 s.
    refusal_seconds : float
        Pause before a full queue is answered with 503. Without it, 48 clients that ask again at once are refused 4,000
        times a second, which takes half of the CPU time from those that are served.
    queue_seconds : float
        Longest time in the queue; an image that waited longer is answered with 503.
    cpu_seconds : int
        CPU time for decoding one image; more is answered with 422. A photograph of 12 megapixels takes 0.05 s.
    decode_seconds : float
        Time for decoding one image; more is answered with 422.
    decode_bytes : int
        Private memory of a process that decodes; an image that needs more is answered with 413.
    images : int
        Largest number of images in one request of the Open Inference Protocol.
    """

    body_bytes: int = 20_000_000
    buffered_bytes: int = 100_000_000
    header_bytes: int = 65_536
    idle_seconds: float = 10.0
    body_seconds: float = 60.0
    answer_seconds: float = 60.0
    queue_per_worker: int = 12
    wait_seconds: float = 0.15
    refusal_seconds: float = 0.1
    queue_seconds: float = 5.0
    cpu_seconds: int = 5
    decode_seconds: float = 10.0
    decode_bytes: int = 256 << 20
    images: int = 8
