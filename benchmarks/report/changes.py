"""Differences between two measurements, judged by the noise of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.record import Record
from benchmarks.report.summary import Side, noise_of, sides

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Change:
    """A case of both measurements.

    Attributes
    ----------
    name : str
    images : int
    old, new : float
        Median seconds of work.
    noise : float or None
        The larger noise of both, as a share; None if neither has a control.
    verdict : str
        ``faster``, ``slower``, ``the same``, ``unknown`` (without noise), or the fault of the new measurement.
    """

    name: str
    images: int
    old: float
    new: float
    noise: float | None
    verdict: str

    @property
    def speed(self) -> float:
        """Speed of the new measurement, relative to the old one."""
        return self.old / self.new


def changes(old: Sequence[Record], new: Sequence[Record]) -> list[Change]:
    """Return the change of each case completed in both measurements, in the order of the new one."""
    before = {(side.case, side.records[0].cold): side for side in sides(old) if side.done}
    result = []
    for side in sides(new):
        earlier = before.get((side.case, side.records[0].cold))
        if earlier is not None and side.done:
            both = [noise_of(old, earlier.group), noise_of(new, side.group)]
            larger = max((noise for noise in both if noise is not None), default=None)
            result.append(_change(earlier, side, larger))
    return result


def _change(old: Side, new: Side, noise: float | None) -> Change:
    seconds = [side.spread(lambda record: record.work).median for side in (old, new)]
    speed = seconds[0] / seconds[1]
    if not new.ranked:
        verdict = new.fault
    elif noise is None:
        verdict = "unknown"
    elif abs(speed - 1) <= noise:
        verdict = "the same"
    else:
        verdict = "faster" if speed > 1 else "slower"
    return Change(new.case.name, new.case.images, seconds[0], seconds[1], noise, verdict)


def changes_table(rows: Sequence[Change]) -> Table:
    """Return the changes as a table for the terminal."""
    from rich.table import Table

    table = Table("case", box=None, pad_edge=False)
    for title in ("images", "old, s", "new, s", "speed", "noise"):
        table.add_column(title, justify="right")
    table.add_column("")
    for change in rows:
        noise = "?" if change.noise is None else f"{change.noise:.1%}"
        figures = (f"{change.images:,}", f"{change.old:.2f}", f"{change.new:.2f}", f"{change.speed:.2f} x", noise)
        table.add_row(change.name, *figures, change.verdict)
    return table
