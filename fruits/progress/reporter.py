"""The progress listener: the protocol that a job reports to, and the listener that ignores everything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol


class StageCounter(Protocol):
    """The counter of a running stage."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done; thread-safe."""


class LockedCounter:
    """A counter that calls a function with each number of units, one call at a time."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count
        self._lock = threading.Lock()

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""
        with self._lock:
            self._count(n)


class Progress(Protocol):
    """A progress listener. Stages, notes and events of a job are reported to it; one stage runs at a time."""

    def stage(self, name: str, *, total: int | None, unit: str = "images") -> AbstractContextManager[StageCounter]:
        """Return a context manager that is open while the stage runs.

        Parameters
        ----------
        name : str
            One word: ``list``, ``featurize``, ``moments``, ...
        total : int or None
            Number of units to process; None if unknown in advance.
        unit : str, default "images"
            Name of the units, in the plural.
        """

    def note(self, text: str) -> None:
        """Report one line of text."""

    def event(self, name: str, text: str | None = None, **fields: Any) -> None:
        """Report an event: `text` is shown to people, if given; name and fields go to the JSON log."""


class Silent:
    """A listener that ignores everything; the default of the Python API."""

    @contextmanager
    def stage(self, name: str, *, total: int | None, unit: str = "images") -> Iterator[StageCounter]:
        """Return a counter that does not count."""
        yield self

    def advance(self, n: int = 1) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def event(self, name: str, text: str | None = None, **fields: Any) -> None:
        """Do nothing."""
