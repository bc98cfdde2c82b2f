"""What can be measured: a case is one way of doing one thing, a group is cases that are compared with each other."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["Case", "Group"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way of doing one thing.

    Attributes
    ----------
    scenario : str
        One of :data:`benchmarks.scenarios.SCENARIOS`.
    backend : str
        What does it: ``dask``, ``spark`` or ``local``; for a peer its own name; for `moments` also the libraries.
    workers : int
        How many cores it may use.
    images : int
        How many images, rows or keys.
    partition_size : int, default 512
        Images per partition: half of what ``fruits`` takes, so that the last ones keep all workers busy.
    components : int, default 200
        Components of the PCA.
    """

    scenario: str
    backend: str
    workers: int
    images: int
    partition_size: int = 512
    components: int = 200

    @property
    def name(self) -> str:
        """Return it in words, without the number of images: ``featurize on dask, 2 workers``."""
        what = self.scenario if self.scenario.endswith(self.backend) else f"{self.scenario} on {self.backend}"
        return f"{what}, {self.workers} worker{'s' if self.workers != 1 else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as values that JSON knows."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Return the case that a mapping, of these names and perhaps others, describes."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that are run in turn, A B A B, and compared with each other.

    Attributes
    ----------
    name : str
        Names the group in records and reports.
    cases : tuple of Case
        The first is the one that the others are compared with.
    repeats : int
        How often each is run.
    control : bool
        Whether the first is run twice in each turn, A B A' A B A': what A and A' differ by is the noise.
    """

    name: str
    cases: tuple[Case, ...]
    repeats: int = 5
    control: bool = True

    def turns(self) -> list[tuple[Case, int, bool]]:
        """Return every run in order: the case, the number of its repeat from 0, and whether it is the control."""
        control = [(self.cases[0], True)] if self.control else []
        turn = [(case, False) for case in self.cases] + control
        return [(case, repeat, is_control) for repeat in range(self.repeats) for case, is_control in turn]
