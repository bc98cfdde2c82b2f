"""What changed between two measurements, beyond the noise of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.record import Record
from benchmarks.summary import Side, noise_of, sides

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Change", "changes", "changes_table"]


@dataclass(frozen=True, slots=True)
class Change:
    """One case that both measurements have.

    Attributes
    ----------
    name : str
    images : int
    old, new : float
        Median seconds of work.
    noise : float or None
        The larger of both, as a share; None where neither has a control.
    verdict : str
        ``faster``, ``slower``, ``the same``, ``unknown`` (no noise is known), or what is wrong with the new one.
    """

    name: str
    images: int
    old: float
    new: float
    noise: float | None
    verdict: str

    @property
    def speed(self) -> float:
        """How many times as fast the new one is."""
        return self.old / self.new


def changes(old: Sequence[Record], new: Sequence[Record]) -> list[Change]:
    """Return how each case that both have done has changed, in the order of the new one."""
    before = {(side.case, side.records[0].cold): side for side in sides(old) if side.done}
    found = []
    for side in sides(new):
        earlier = before.get((side.case, side.records[0].cold))
        if earlier is not None and side.done:
            both = [noise_of(old, earlier.group), noise_of(new, side.group)]
            known = max((noise for noise in both if noise is not None), default=None)
            found.append(_change(earlier, side, known))
    return found


def _change(old: Side, new: Side, noise: float | None) -> Change:
    seconds = [side.spread(lambda record: record.work).median for side in (old, new)]
    speed = seconds[0] / seconds[1]
    if not new.ranked:
        verdict = new.trouble
    elif noise is None:
        verdict = "unknown"
    elif abs(speed - 1) <= noise:
        verdict = "the same"
    else:
        verdict = "faster" if speed > 1 else "slower"
    return Change(new.case.name, new.case.images, seconds[0], seconds[1], noise, verdict)


def changes_table(found: Sequence[Change]) -> Table:
    """Return the changes as a table for the terminal."""
    from rich.table import Table

    table = Table("case", box=None, pad_edge=False)
    for title in ("images", "old, s", "new, s", "speed", "noise"):
        table.add_column(title, justify="right")
    table.add_column("")
    for change in found:
        noise = "?" if change.noise is None else f"{change.noise:.1%}"
        figures = (f"{change.images:,}", f"{change.old:.2f}", f"{change.new:.2f}", f"{change.speed:.2f} x", noise)
        table.add_row(change.name, *figures, change.verdict)
    return table
