"""The JSON log: one object per line and event; docs/logs.md lists the events and their fields."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from fruits.progress.reporter import LockedCounter, StageCounter
from fruits.text import without_secrets

LEVELS = {"heartbeat": "warning", "error": "error"}  # all other events have the level info


class JsonLog:
    """A progress listener that writes each event as a JSON object on one line.

    Parameters
    ----------
    stream : text file, default ``sys.stderr``
        The destination.
    clock : callable, default ``time.monotonic``
        Returns seconds.
    now : callable
        Returns the current time; default: the system time in UTC.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str, *, total: int | None, unit: str = "images") -> Iterator[StageCounter]:
        """Return a stage whose start and end are written as events."""
        started, done = self._clock(), 0

        def count(n: int) -> None:
            nonlocal done
            done += n

        self.event("stage_start", stage=name, total=total, unit=unit)
        status = "stopped"
        try:
            yield LockedCounter(count)
            status = "done"
        finally:
            seconds = round(self._clock() - started, 3)
            self.event("stage_end", stage=name, status=status, done=done, unit=unit, seconds=seconds)

    def note(self, text: str) -> None:
        """Write an event of the name ``note``."""
        self.event("note", text)

    def event(self, name: str, text: str | None = None, **fields: Any) -> None:
        """Write one line: time, level, event, message for people, and the fields of the event."""
        time = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = {} if text is None else {"message": text}
        header = {"time": time, "level": LEVELS.get(name, "info"), "event": name} | message
        self._write(json.dumps(header | fields | header))  # the header stays first, and no field replaces its values

    def relay(self, line: str) -> None:
        """Write a line from another log: an event unchanged, any other text as a note."""
        if line.startswith("{"):
            self._write(line)
        else:
            self.note(line)

    def _write(self, line: str) -> None:
        with self._lock:
            self._stream.write(without_secrets(line) + "\n")
            self._stream.flush()
