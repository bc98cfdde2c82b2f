"""What records say: medians with least and most, the noise, and who is ahead of whom beyond it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from benchmarks.cases import Case
from benchmarks.record import Record

__all__ = ["Side", "Spread", "noise", "noise_of", "ranking", "sides", "verdict"]

MOST_SPLITS = 20_000


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of some figures."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return the spread of at least one value."""
        known = list(values)
        return cls(statistics.median(known), min(known), max(known))


@dataclass(frozen=True, slots=True)
class Side:
    """One case of a group, and its runs.

    Attributes
    ----------
    group : str
    case : Case
    records : tuple of Record
        In the order in which they were run; the control is not among them.
    """

    group: str
    case: Case
    records: tuple[Record, ...]

    @property
    def ranked(self) -> bool:
        """Whether it may be ranked: all its runs were done, and none of their answers is wrong."""
        return all(record.ranked for record in self.records)

    @property
    def done(self) -> tuple[Record, ...]:
        """The runs that came to an end."""
        return tuple(record for record in self.records if record.status == "done")

    @property
    def trouble(self) -> str:
        """Why it is not ranked, in words; empty where it is."""
        for record in self.records:
            if record.status != "done":
                return f"{record.status}: {record.reason}"
            if record.answer is not None and record.answer.verdict == "wrong":
                return f"wrong answer: {record.answer.detail}"
        return ""

    def spread(self, figure: Callable[[Record], float]) -> Spread:
        """Return the spread of a figure over the runs that came to an end."""
        return Spread.of(figure(record) for record in self.done)

    @property
    def rate(self) -> Spread:
        """Images per second of work."""
        return self.spread(lambda record: record.images_per_second)


def sides(records: Sequence[Record], *, control: bool = False) -> list[Side]:
    """Return the sides of all groups, in the order in which they were first run; or the controls instead."""
    found: dict[tuple[str, Case], list[Record]] = {}
    for record in records:
        if record.control is control:
            found.setdefault((record.group, record.case), []).append(record)
    return [Side(group, case, tuple(runs)) for (group, case), runs in found.items()]


def noise(values: Sequence[float]) -> float:
    """Return by how much, as a share, two medians of equal things can differ by chance.

    The values are those of the same thing, measured twice as often as any other. They are split in two halves in
    every way that there is, and the largest difference of the two medians is what chance can do.
    """
    half = len(values) // 2
    if half == 0:
        return 0.0
    indices = range(len(values))
    widest = 0.0
    for chosen in islice(combinations(indices, half), MOST_SPLITS):
        one = statistics.median(values[index] for index in chosen)
        other = statistics.median(values[index] for index in indices if index not in chosen)
        widest = max(widest, abs(one - other))
    return widest / statistics.median(values)


def noise_of(records: Sequence[Record], group: str | None = None) -> float | None:
    """Return the noise of a group; where it had no control, and for None, the largest of all groups that had one.

    None where no group had one: nothing can be said then about small differences.
    """
    controls = {side.group: side for side in sides(records, control=True) if side.done}
    found = {}
    for side in sides(records):
        control = controls.get(side.group)
        if control is not None and control.case == side.case and side.done:
            found[side.group] = noise([record.work for record in (*side.done, *control.done)])
    if group in found:
        return found[group]
    return max(found.values(), default=None)


def ranking(group: Sequence[Side]) -> list[Side]:
    """Return the sides that may be ranked, the fastest first."""
    return sorted((side for side in group if side.ranked), key=lambda side: -side.rate.median)


def verdict(ratio: float, noise: float | None) -> str:
    """Return in words what a ratio of two medians means.

    Parameters
    ----------
    ratio : float
        How many times as fast.
    noise : float or None
        As :func:`noise_of` returns it.
    """
    if noise is not None and abs(ratio - 1) <= noise:
        return "the same (noise)"
    return f"{ratio:.2f} x{'' if noise is not None else ' (noise unknown)'}"
