"""Progress in a notebook: a bar for the current stage, which its line replaces."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from fruits.progress.lines import Lines, Meter
from fruits.text import duration, printable_lines, without_secrets

EVERY_SECONDS = 0.25  # between two updates of a bar


class Shown:
    """A line of text, with a bar in front of it in HTML."""

    def __init__(self, text: str, bar: str = "") -> None:
        self._text = printable_lines(without_secrets(text))
        self._bar = bar

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return f"{self._bar}<code>{escape(self._text)}</code>"


class Notebook(Lines):
    """A progress listener for notebooks: a display for each stage, and a line for each note.

    Parameters
    ----------
    display : callable
        ``IPython.display.display``.
    clock : callable, default ``time.monotonic``
        Returns seconds.
    """

    def __init__(self, display: Callable[..., Any], *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock=clock)
        self._show = display
        self._handle: Any = None

    def note(self, text: str) -> None:
        """Display the text as a line."""
        self._show(Shown(text))

    @contextmanager
    def _display(self, meter: Meter) -> Iterator[Callable[[], None]]:
        self._handle = self._show(self._bar(meter), display_id=True)
        shown = meter.started

        def advanced() -> None:
            nonlocal shown
            if meter.last - shown >= EVERY_SECONDS or meter.done == meter.total:
                shown = meter.last
                self._handle.update(self._bar(meter))

        yield advanced

    def _bar(self, meter: Meter) -> Shown:
        left = meter.left(meter.last)
        parts = [meter.count(), meter.speed() if meter.rate else "", "" if left is None else f"{duration(left)} left"]
        text = f" {meter.name}: {', '.join(part for part in parts if part)}".rstrip(": ")
        known = "" if meter.total is None else f' value="{meter.done}" max="{meter.total}"'
        return Shown(text, f"<progress{known}></progress>")

    def _end(self, outcome: str, meter: Meter, *, finished: bool) -> None:
        mark = "✓" if finished else "✗"
        self._handle.update(Shown(f"{mark} {meter.name}: {outcome}{outcome and ' '}{self._took(meter)}"))
