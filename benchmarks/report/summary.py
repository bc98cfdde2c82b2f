"""Statistics of records: medians with their range, the noise, and the ranking."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from benchmarks.cases import Case
from benchmarks.record import Record

MOST_SPLITS = 20_000


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, minimum and maximum."""

    median: float
    least: float
    most: float

    @classmethod
    def from_values(cls, values: Iterable[float]) -> Spread:
        """Return the spread of one or more values."""
        all_values = list(values)
        return cls(statistics.median(all_values), min(all_values), max(all_values))


@dataclass(frozen=True, slots=True)
class Side:
    """A case of a group with its runs.

    Attributes
    ----------
    group : str
    case : Case
    records : tuple of Record
        In the order of the runs, without the control.
    """

    group: str
    case: Case
    records: tuple[Record, ...]

    @property
    def ranked(self) -> bool:
        """True if all runs finished and no answer is wrong."""
        return all(record.ranked for record in self.records)

    @property
    def done(self) -> tuple[Record, ...]:
        """The finished runs."""
        return tuple(record for record in self.records if record.status == "done")

    @property
    def fault(self) -> str:
        """Reason for not being ranked; empty if ranked."""
        for record in self.records:
            if record.status != "done":
                return f"{record.status}: {record.reason}"
            if record.answer is not None and record.answer.verdict == "wrong":
                return f"wrong answer: {record.answer.detail}"
        return ""

    def spread(self, figure: Callable[[Record], float]) -> Spread:
        """Return the spread of a figure over the finished runs."""
        return Spread.from_values(figure(record) for record in self.done)

    @property
    def rate(self) -> Spread:
        """Images per second of work."""
        return self.spread(lambda record: record.images_per_second)


def sides(records: Sequence[Record], *, control: bool = False) -> list[Side]:
    """Return the sides of all groups in the order of their first runs; with `control`, the control runs instead."""
    runs_of: dict[tuple[str, Case], list[Record]] = {}
    for record in records:
        if record.control is control:
            runs_of.setdefault((record.group, record.case), []).append(record)
    return [Side(group, case, tuple(runs)) for (group, case), runs in runs_of.items()]


def noise(values: Sequence[float]) -> float:
    """Return the largest relative difference of two medians that chance can produce.

    The values are repeated measurements of one case. They are split into two halves in every possible way (at most
    20,000); the noise is the largest difference between the medians of the halves.
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
    """Return the noise of a group; without a control in it, or for None, the largest noise of all groups.

    None if no group has a control; small differences cannot be judged then.
    """
    controls = {side.group: side for side in sides(records, control=True) if side.done}
    measured = {}
    for side in sides(records):
        control = controls.get(side.group)
        if control is not None and control.case == side.case and side.done:
            measured[side.group] = noise([record.work for record in (*side.done, *control.done)])
    if group in measured:
        return measured[group]
    return max(measured.values(), default=None)


def ranking(group: Sequence[Side]) -> list[Side]:
    """Return the ranked sides, the fastest first."""
    return sorted((side for side in group if side.ranked), key=lambda side: -side.rate.median)


def verdict(ratio: float, noise: float | None) -> str:
    """Describe a ratio of two medians, given the noise.

    Parameters
    ----------
    ratio : float
        Relative speed.
    noise : float or None
        Result of :func:`noise_of`.
    """
    if noise is not None and abs(ratio - 1) <= noise:
        return "the same (noise)"
    return f"{ratio:.2f} x{'' if noise is not None else ' (noise unknown)'}"
