"""A sign of life where nothing has finished for a while: that a stage is under way, and what it is waiting for."""

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
from fruits.text import duration

__all__ = ["SECONDS", "UnderWay", "Waiting", "heartbeat"]

SECONDS = 30.0  # without anything that finished, until the first beat and from one to the next
NAMED = 3  # items that are named in a beat


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a stage is waiting for.

    Attributes
    ----------
    under_way, to_come : int
        How many items are on workers, and how many come after them.
    workers : int or None
        How many there are; None where the engine cannot be asked.
    lowest : sequence of (str, float)
        The first items under way, each with the seconds since it was given to a worker.
    why : str, default ""
        Why the engine cannot be asked.
    """

    under_way: int
    to_come: int
    workers: int | None
    lowest: Sequence[tuple[str, float]]
    why: str = ""

    def __str__(self) -> str:
        there = f" on {self.workers:,} worker{'s' * (self.workers != 1)}" if self.workers is not None else ""
        named = "".join(f", {name} for {duration(seconds)}" for name, seconds in self.lowest)
        more = self.under_way - len(self.lowest)
        rest = (f", and {more:,} more" if more else "") + (f"; {self.to_come:,} to come" if self.to_come else "")
        return f"waiting{there} for {named.removeprefix(', ')}{rest}" + (f". {self.why}" if self.why else "")


class UnderWay:
    """The items of a map that are on workers, as far as the driver can tell: every engine takes them in order.

    Parameters
    ----------
    items : sequence
        What is mapped; ``str(item)`` names an item.
    workers : callable
        Returns how many tasks run at the same time; may raise a ``JobError``.
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
        """Take note that the item at this position is done."""
        self._finished.add(index)
        self._times.append(self._clock())

    def waiting(self) -> Waiting:
        """Return what there is to wait for now; it may be asked from another thread."""
        try:
            workers, why = self._workers(), ""
        except JobError as error:
            workers, why = None, str(error)
        now, width = self._clock(), workers or 1
        left = len(self._items) - len(self._finished)
        open_items = (index for index in range(len(self._items)) if index not in self._finished)
        lowest = [(str(self._items[i]), now - self._given(i, width)) for i in islice(open_items, min(NAMED, width))]
        under_way = min(width, left)
        return Waiting(under_way, left - under_way, workers, lowest, why)

    def _given(self, index: int, width: int) -> float:
        """Return when an item was given to a worker: at the start, or when so many before it were done."""
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
    """Tell `progress` of a stage each time that nothing has finished for :data:`SECONDS`, while the context lasts.

    Parameters
    ----------
    stage : str
        Its name.
    progress : Progress
        Is told, from a thread of its own, which ends with the context.
    waiting : callable, optional
        Returns what the stage is waiting for.
    clock : callable, default ``time.monotonic``
        Returns seconds.
    ended : threading.Event, optional
        Waited on from beat to beat, and set at the end.

    Yields
    ------
    callable
        To be called whenever something has finished.
    """
    ended = threading.Event() if ended is None else ended
    last = clock()

    def finished() -> None:
        nonlocal last
        last = clock()

    def beat() -> None:
        told = last
        while not ended.wait(max(0.0, max(last, told) + SECONDS - clock())):
            now = clock()
            if now < max(last, told) + SECONDS:
                continue
            told, idle = now, now - last
            found = waiting() if waiting is not None else None
            if ended.is_set():
                return
            fields = {} if found is None else _fields(found)
            text = f"{stage}: nothing has finished for {duration(idle)}; {found}"
            if found is None:
                text = f"{stage}: still at it, and nothing new for {duration(idle)}"
            progress.event("heartbeat", text, stage=stage, idle_seconds=round(idle, 1), **fields)

    thread = threading.Thread(target=beat, name=f"fruits-heartbeat-{stage}", daemon=True)
    thread.start()
    try:
        yield finished
    finally:
        ended.set()
        thread.join()


def _fields(found: Waiting) -> dict[str, Any]:
    return {
        "under_way": found.under_way,
        "to_come": found.to_come,
        "workers": found.workers,
        "waiting_for": [{"item": name, "seconds": round(seconds, 1)} for name, seconds in found.lowest],
    }
