"""The progress listener: the protocol that a job reports to, and the listener that ignores everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

__all__ = ["Progress", "Silent", "StageCounter"]


class StageCounter(Protocol):
    """A stage that is under way."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done; may be called from any thread."""


class Progress(Protocol):
    """What the core tells about a job. One stage is under way at a time."""

    def stage(self, name: str, *, total: int | None, unit: str = "images") -> AbstractContextManager[StageCounter]:
        """Return a context that lasts as long as the stage.

        Parameters
        ----------
        name : str
            One word: ``list``, ``featurize``, ``moments``, ...
        total : int or None
            How many units there are to do now; None where that is not known before the end.
        unit : str, default "images"
            What is counted, in the plural.
        """

    def note(self, text: str) -> None:
        """Tell one fact in a line."""

    def event(self, name: str, text: str | None = None, **fields: Any) -> None:
        """Tell what happened: in a line to people, where there is a `text`, and with all its fields to programs."""


class Silent:
    """Tells nothing; what the Python API does unless it is asked for more."""

    @contextmanager
    def stage(self, name: str, *, total: int | None, unit: str = "images") -> Iterator[StageCounter]:
        """Return a stage that counts nothing."""
        yield self

    def advance(self, n: int = 1) -> None:
        """Take no notice."""

    def note(self, text: str) -> None:
        """Take no notice."""

    def event(self, name: str, text: str | None = None, **fields: Any) -> None:
        """Take no notice."""
