"""The task that a scenario is given, and the timings that it returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from benchmarks.cases import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run of a scenario.

    Attributes
    ----------
    case : Case
    data : str
        The input folder: images or stored features.
    out : str
        The output folder, which does not exist yet.
    model : str, default ""
        The folder of the fitted model, for scenarios that need one.
    """

    case: Case
    data: str
    out: str
    model: str = ""

    def to_json(self) -> bytes:
        """Return the task as JSON."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Task:
        """Return the task that :meth:`to_json` wrote."""
        values: dict[str, Any] = orjson.loads(data)
        return cls(**values | {"case": Case(**values["case"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds that a scenario took.

    Attributes
    ----------
    seconds : dict of str to float
        By stage, one of :data:`benchmarks.record.STAGES`. The rest of the run counts as shutdown.
    worker_seconds : dict of str to float
        By step within a stage, summed over the workers.
    unmeasured : float
        Seconds spent on storing an answer only to check it; excluded from all figures.
    """

    seconds: dict[str, float]
    worker_seconds: dict[str, float] = field(default_factory=dict)
    unmeasured: float = 0.0
