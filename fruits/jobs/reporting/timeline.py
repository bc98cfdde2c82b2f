"""Throughput over time, in a bounded number of intervals."""

from __future__ import annotations

from typing import Any

MOST = 120  # intervals of a timeline
SHORTEST = 0.25  # seconds of an interval


class Timeline:
    """The images that were processed in each interval since the first stage started.

    A partition is spread evenly over its duration, because its end alone would show a peak for each.
    """

    def __init__(self) -> None:
        self._origin: float | None = None
        self._interval = SHORTEST
        self._images = [0.0]
        self._end = 0.0

    def add(self, images: int, stage_started: float, start: float, end: float) -> None:
        """Add the images of a partition that was processed from `start` to `end`, in seconds of one clock."""
        if self._origin is None:
            self._origin = stage_started
        # A worker's duration and the driver's clock may disagree by the time of a message.
        first, last = max(0.0, start - self._origin), max(0.0, end - self._origin)
        self._end = max(self._end, last)
        while last >= MOST * self._interval:
            self._images = [sum(self._images[at : at + 2]) for at in range(0, len(self._images), 2)]
            self._interval *= 2
        slots = range(int(first / self._interval), int(last / self._interval) + 1)
        self._images += [0.0] * (slots.stop - len(self._images))
        duration = last - first
        for slot in slots:
            begin, stop = max(first, slot * self._interval), min(last, (slot + 1) * self._interval)
            self._images[slot] += images * ((stop - begin) / duration if duration > 0 else 1 / len(slots))

    def to_dict(self) -> dict[str, Any]:
        """Return the seconds of all and of an interval, and the images in each; empty if there was no partition."""
        if self._origin is None:
            return {}
        images = [round(images, 2) for images in self._images]
        return {"seconds": round(self._end, 3), "interval": self._interval, "images": images}
