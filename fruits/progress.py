"""How a job tells what it is doing: nothing, plain lines, a live bar on a terminal, or JSON lines."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Lines", "Progress", "Silent", "Stage", "Terminal", "duration", "to_stderr", "without_secrets"]

# Credentials in an address (a secret key may hold slashes), and what signs one.
SECRET = re.compile(
    r'(?<=://)[^\s"\']*:[^\s"\']*(?=@)|(?<=[?&])((?:X-Amz-)?(?:Signature|Security-Token|sig|token)=)[^&\s"\']*',
    re.IGNORECASE,
)
LINE_EVERY_SECONDS = 10.0  # between two plain lines of one stage; a log of an hour stays readable


class Stage(Protocol):
    """A stage that is under way."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done; may be called from any thread."""


class Progress(Protocol):
    """What the core tells about a job. One stage is under way at a time."""

    def stage(self, name: str, *, total: int | None, unit: str = "images") -> AbstractContextManager[Stage]:
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


@dataclass(slots=True)
class _Meter:
    """The count of one stage, and what follows from it. Times are in seconds on the clock of the reporter."""

    name: str
    total: int | None
    unit: str
    started: float
    last: float
    done: int = 0

    @property
    def rate(self) -> float:
        """Units per second up to the last that was counted: between two partitions it stands still."""
        return self.done / (self.last - self.started) if self.last > self.started else 0.0

    def left(self, now: float) -> float | None:
        """Return the seconds to go, or None where nothing is known yet."""
        if self.total is None or not self.rate:
            return None
        return max(0.0, (self.total - self.done) / self.rate - (now - self.last))

    def count(self) -> str:
        """Return what was counted; nothing for a stage that counts nothing."""
        if not self.done and self.total is None:
            return ""
        of = "" if self.total is None or self.done == self.total else f" of {self.total:,}"
        unit = self.unit.removesuffix("s") if self.done == 1 and not of else self.unit
        return f"{self.done:,}{of} {unit}"

    def speed(self) -> str:
        return f"{self.rate:,.{0 if self.rate >= 10 else 1}f} {self.unit}/s"


class Silent:
    """Tells nothing; what the Python API does unless it is asked for more."""

    @contextmanager
    def stage(self, name: str, *, total: int | None, unit: str = "images") -> Iterator[Stage]:
        """Return a stage that counts nothing."""
        yield self

    def advance(self, n: int = 1) -> None:
        """Take no notice."""

    def note(self, text: str) -> None:
        """Take no notice."""

    def event(self, name: str, text: str | None = None, **fields: Any) -> None:
        """Take no notice."""


class Lines:
    """Plain lines: where a stage starts and ends, and at most every ten seconds in between.

    Parameters
    ----------
    stream : text file, default ``sys.stderr``
        Where the lines go.
    clock : callable, default ``time.monotonic``
        Returns seconds.
    """

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock

    @contextmanager
    def stage(self, name: str, *, total: int | None, unit: str = "images") -> Iterator[Stage]:
        """Return a stage whose lines carry the count, the speed and the time to go."""
        now = self._clock()
        meter = _Meter(name, total, unit, started=now, last=now)
        try:
            with self._shown(meter) as advanced:
                yield _Counter(meter, self._clock, advanced)
        except BaseException:
            self._end(f"stopped {meter.count() and 'at '}{meter.count()}".rstrip(), meter, finished=False)
            raise
        self._end(meter.count() if meter.total != 0 else "nothing left to do", meter, finished=True)

    def note(self, text: str) -> None:
        """Write the text as a line."""
        self._stream.write(without_secrets(text) + "\n")  # at once: heartbeats come from another thread
        self._stream.flush()

    def event(self, name: str, text: str | None = None, **fields: Any) -> None:
        """Write the text of an event that has one."""
        if text is not None:
            self.note(text)

    @contextmanager
    def _shown(self, meter: _Meter) -> Iterator[Callable[[], None]]:
        """Show the stage while it lasts; what comes out is called, under a lock, after each advance."""
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

    def _end(self, outcome: str, meter: _Meter, *, finished: bool) -> None:
        self.note(f"{meter.name}: {outcome}{outcome and ' '}{self._took(meter)}")

    def _took(self, meter: _Meter) -> str:
        seconds = self._clock() - meter.started
        speed = f", {meter.done / seconds:,.0f} {meter.unit}/s" if meter.done and seconds >= 1 else ""
        return f"in {duration(seconds)}{speed}"


class Terminal(Lines):
    """A live bar for the stage that is under way; each finished stage leaves a line.

    Parameters
    ----------
    stream : text file, default ``sys.stderr``
        The terminal.
    clock : callable, default ``time.monotonic``
        Returns seconds.
    """

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console

        super().__init__(stream, clock=clock)
        self._console = Console(file=self._stream, highlight=False)

    def note(self, text: str) -> None:
        """Print the text above the bar."""
        self._console.print(f"  {without_secrets(text)}", markup=False, style="dim")

    @contextmanager
    def _shown(self, meter: _Meter) -> Iterator[Callable[[], None]]:
        from rich.live import Live

        with Live(
            console=self._console,
            get_renderable=lambda: self._bar(meter),
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,  # stdout belongs to the result
        ):
            yield lambda: None

    def _bar(self, meter: _Meter) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = self._clock()
        left = meter.left(now)
        pulse = not meter.done or meter.total is None
        grid = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, 1, None, None, None):
            grid.add_column(ratio=ratio, no_wrap=True)
        grid.add_row(
            Text(f"  {meter.name}", style="bold"),
            ProgressBar(total=meter.total, completed=meter.done, pulse=pulse, animation_time=now),
            Text(meter.count()),
            Text(meter.speed() if meter.rate else ""),
            Text(f"{duration(now - meter.started)}" if left is None else f"{duration(left)} left", style="cyan"),
        )
        return grid

    def _end(self, outcome: str, meter: _Meter, *, finished: bool) -> None:
        from rich.text import Text

        mark = ("✓ ", "green") if finished else ("✗ ", "red")
        took = f"{outcome and ' '}{self._took(meter)}"
        self._console.print(Text.assemble(mark, (f"{meter.name} ", "bold"), outcome, (took, "dim")))


class _Counter:
    """The stage that the core sees."""

    def __init__(self, meter: _Meter, clock: Callable[[], float], advanced: Callable[[], None]) -> None:
        self._meter = meter
        self._clock = clock
        self._advanced = advanced
        self._lock = threading.Lock()

    def advance(self, n: int = 1) -> None:
        with self._lock:
            self._meter.done += n
            self._meter.last = self._clock()
            self._advanced()


def to_stderr(*, quiet: bool = False, log_json: bool = False) -> Progress:
    """Return what suits this process: JSON lines or nothing if asked, a bar on a terminal, and else plain lines."""
    if log_json:
        from fruits.json_log import JsonLog

        return JsonLog()
    if quiet:
        return Silent()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Terminal()
    return Lines()


def without_secrets(text: str) -> str:
    """Return text with the credentials in its addresses, and what signs them, as asterisks."""
    return SECRET.sub(r"\1***", text)


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``9.8 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
