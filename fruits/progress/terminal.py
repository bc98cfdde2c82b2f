"""Progress on a terminal: a live bar for the current stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from fruits.progress.lines import Lines, Meter
from fruits.text import duration, without_secrets

if TYPE_CHECKING:
    from rich.console import RenderableType


NARROW = 72  # columns, of which count, speed and time take 50


class Terminal(Lines):
    """A progress listener that shows a live bar for the running stage and a line for each finished one.

    Parameters
    ----------
    stream : text file, default ``sys.stderr``
        The terminal.
    clock : callable, default ``time.monotonic``
        Returns seconds.
    """

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        from fruits.progress.console import SafeConsole

        super().__init__(stream, clock=clock)
        self._console = SafeConsole(file=self._stream)

    def note(self, text: str) -> None:
        """Print the text above the bar."""
        self._console.print(f"  {without_secrets(text)}", style="dim")

    @contextmanager
    def _display(self, meter: Meter) -> Iterator[Callable[[], None]]:
        from rich.live import Live

        with Live(
            console=self._console,
            get_renderable=lambda: self._bar(meter),
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,  # stdout belongs to the result
        ):
            yield lambda: None

    def _bar(self, meter: Meter) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = self._clock()
        left = meter.left(now)
        pulse = not meter.done or meter.total is None
        bar = ProgressBar(total=meter.total, completed=meter.done, pulse=pulse, animation_time=now)
        time = Text(f"{duration(now - meter.started)}" if left is None else f"{duration(left)} left", style="cyan")
        grid = Table.grid(padding=(0, 1), expand=True)
        if self._console.width < NARROW:
            share = Text(f"{meter.done / meter.total:.0%}" if meter.total else "")
            cells: list[RenderableType] = [Text(meter.name, style="bold"), bar, share, time]
        else:
            numbers = [Text(meter.count()), Text(meter.speed() if meter.rate else "")]
            cells = [Text(f"  {meter.name}", style="bold"), bar, *numbers, time]
        for cell in cells:
            grid.add_column(ratio=1 if cell is bar else None, no_wrap=True)
        grid.add_row(*cells)
        return grid

    def _end(self, outcome: str, meter: Meter, *, finished: bool) -> None:
        from rich.text import Text

        mark = ("✓ ", "green") if finished else ("✗ ", "red")
        took = f"{outcome and ' '}{self._took(meter)}"
        self._console.print(Text.assemble(mark, (f"{meter.name} ", "bold"), outcome, (took, "dim")))
