"""Heartbeats: report the items that a stage is waiting for when no item has finished for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fruits.errors import JobError
from fruits.progress.reporter import Progress
from fruits.text import counted, duration

SECONDS = 30.0  # without a finished item, before the first heartbeat and between heartbeats
MAX_NAMED = 3  # items named in a heartbeat


@dataclass(frozen=True, slots=True)
class Waiting:
    """The unfinished items of a stage.

    Attributes
    ----------
    under_way, to_come : int
        Number of items running on workers, and number of items after them.
    workers : int or None
        Number of workers; None if the engine does not respond.
    lowest : sequence of (str, float)
        The first running items, each with the seconds since a worker received it.
    why : str, default ""
        The error, if the engine does not respond.
    """

    under_way: int
    to_come: int
    workers: int | None
    lowest: Sequence[tuple[str, float]]
    why: str = ""

    def __str__(self) -> str:
        workers = f" on {counted(self.workers, 'worker')}" if self.workers is not None else ""
        named = "".join(f", {name} for {duration(seconds)}" for name, seconds in self.lowest)
        more = self.under_way - len(self.lowest)
        rest = (f", and {more:,} more" if more else "") + (f"; {self.to_come:,} to come" if self.to_come else "")
        return f"waiting{workers} for {named.removeprefix(', ')}{rest}" + (f". {self.why}" if self.why else "")


class UnderWay:
    """The running items of a map, estimated on the driver: every engine starts items in order.

    Parameters
    ----------
    items : sequence
        The mapped items; ``str(item)`` names an item.
    workers : callable
        Returns the number of parallel tasks; may raise a ``JobError``.
    clock : callable, default ``time.monotonic``
        Returns seconds.
    """

    def __init__(
        self, items: Sequence[Any], workers: Callable[[], int], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._items = items
        self._workers = workers
        self._clock = clock
        self._started = clock()
        self._finished: set[int] = set()
        self._times: list[float] = []

    def finish(self, index: int) -> None:
        """Mark the item at this position as done."""
        self._finished.add(index)
        self._times.append(self._clock())

    def waiting(self) -> Waiting:
        """Return the unfinished items; may be called from another thread."""
        try:
            workers, why = self._workers(), ""
        except JobError as error:
            workers, why = None, str(error)
        now, width = self._clock(), workers or 1
        left = len(self._items) - len(self._finished)
        open_items = (index for index in range(len(self._items)) if index not in self._finished)
        lowest = [
            (str(self._items[i]), now - self._start_time(i, width)) for i in islice(open_items, min(MAX_NAMED, width))
        ]
        under_way = min(width, left)
        return Waiting(under_way, left - under_way, workers, lowest, why)

    def _start_time(self, index: int, width: int) -> float:
        """Return the start time of an item: at once for the first `width` items, else when a worker became free."""
        return self._started if index < width else self._times[min(index - width, len(self._times) - 1)]


@contextmanager
def heartbeat(
    stage: str,
    progress: Progress,
    waiting: Callable[[], Waiting] | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    ended: threading.Event | None = None,
) -> Iterator[Callable[[], None]]:
    """Report a heartbeat to the progress listener whenever nothing has finished for :data:`SECONDS`.

    Parameters
    ----------
    stage : str
        Name of the stage.
    progress : Progress
        The listener; called from a background thread, which ends with the context.
    waiting : callable, optional
        Returns the unfinished items of the stage.
    clock : callable, default ``time.monotonic``
        Returns seconds.
    ended : threading.Event, optional
        Set at the end; the background thread waits on it between heartbeats.

    Yields
    ------
    callable
        Must be called whenever an item has finished.
    """
    ended = threading.Event() if ended is None else ended
    last = clock()

    def finished() -> None:
        nonlocal last
        last = clock()

    def beat() -> None:
        reported = last
        while not ended.wait(max(0.0, max(last, reported) + SECONDS - clock())):
            now = clock()
            if now < max(last, reported) + SECONDS:
                continue
            reported, idle = now, now - last
            unfinished = waiting() if waiting is not None else None
            if ended.is_set():
                return
            fields = {} if unfinished is None else _fields(unfinished)
            items = "" if unfinished is None else f"; {unfinished}"
            text = f"{stage}: still running; no progress for {duration(idle)}{items}"
            progress.event("heartbeat", text, stage=stage, idle_seconds=round(idle, 1), **fields)

    thread = threading.Thread(target=beat, name=f"fruits-heartbeat-{stage}", daemon=True)
    thread.start()
    try:
        yield finished
    finally:
        ended.set()
        thread.join()


def _fields(unfinished: Waiting) -> dict[str, Any]:
    return {
        "under_way": unfinished.under_way,
        "to_come": unfinished.to_come,
        "workers": unfinished.workers,
        "waiting_for": [{"item": name, "seconds": round(seconds, 1)} for name, seconds in unfinished.lowest],
    }
