"""Progress as plain lines, for logs and pipes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from fruits.progress.reporter import LockedCounter, StageCounter
from fruits.text import duration, per_second, printable_lines, without_secrets

LINE_EVERY_SECONDS = 10.0  # per stage: at most 360 lines in the log of an hour


@dataclass(slots=True)
class Meter:
    """Count, speed and time left of one stage. Times are in seconds, on the clock of the reporter."""

    name: str
    total: int | None
    unit: str
    started: float
    last: float
    done: int = 0

    @property
    def rate(self) -> float:
        """Units per second until the last count; constant between two counts."""
        return self.done / (self.last - self.started) if self.last > self.started else 0.0

    def left(self, now: float) -> float | None:
        """Return the estimated seconds left, or None if unknown."""
        if self.total is None or not self.rate:
            return None
        return max(0.0, (self.total - self.done) / self.rate - (now - self.last))

    def count(self) -> str:
        """Return the count with its unit: ``3,000 of 4,000 images``; empty for a stage without units."""
        if not self.done and self.total is None:
            return ""
        total = "" if self.total is None or self.done == self.total else f" of {self.total:,}"
        unit = self.unit.removesuffix("s") if self.done == 1 and not total else self.unit
        return f"{self.done:,}{total} {unit}"

    def speed(self) -> str:
        """Return the speed with its unit: ``226 images/s``."""
        return per_second(self.rate, self.unit)


class Lines:
    """A progress listener that writes a line when a stage starts and ends, and at most every ten seconds between.

    Parameters
    ----------
    stream : text file, default ``sys.stderr``
        The destination.
    clock : callable, default ``time.monotonic``
        Returns seconds.
    """

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock

    @contextmanager
    def stage(self, name: str, *, total: int | None, unit: str = "images") -> Iterator[StageCounter]:
        """Return a stage whose lines contain count, speed and time left."""
        now = self._clock()
        meter = Meter(name, total, unit, started=now, last=now)
        try:
            with self._display(meter) as advanced:

                def count(n: int) -> None:
                    meter.done += n
                    meter.last = self._clock()
                    advanced()

                yield LockedCounter(count)
        except BaseException:
            self._end(f"stopped {meter.count() and 'at '}{meter.count()}".rstrip(), meter, finished=False)
            raise
        self._end(meter.count() or "done" if meter.total != 0 else "nothing left to do", meter, finished=True)

    def note(self, text: str) -> None:
        """Write the text as a line."""
        self._stream.write(
            printable_lines(without_secrets(text)) + "\n"
        )  # one call, because heartbeats write from another thread
        self._stream.flush()

    def event(self, name: str, text: str | None = None, **fields: Any) -> None:
        """Write the text of an event, if it has one."""
        if text is not None:
            self.note(text)

    @contextmanager
    def _display(self, meter: Meter) -> Iterator[Callable[[], None]]:
        """Display a running stage; the yielded function is called after each advance, under a lock."""
        if meter.total != 0:
            self.note(meter.name + ("" if meter.total is None else f": {meter.total:,} to do"))
        written = meter.started

        def advanced() -> None:
            nonlocal written
            if meter.last - written < LINE_EVERY_SECONDS or meter.done == meter.total:
                return
            written = meter.last
            left = meter.left(written)
            self.note(
                f"{meter.name}: {meter.count()}, {meter.speed()}" + ("" if left is None else f", {duration(left)} left")
            )

        yield advanced

    def _end(self, outcome: str, meter: Meter, *, finished: bool) -> None:
        self.note(f"{meter.name}: {outcome}{outcome and ' '}{self._took(meter)}")

    def _took(self, meter: Meter) -> str:
        seconds = self._clock() - meter.started
        speed = f", {per_second(meter.done / seconds, meter.unit)}" if meter.done and seconds >= 1 else ""
        return f"in {duration(seconds)}{speed}"
