"""The process of one run: ``python -m benchmarks.child TASK.json RESULT.json``."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from benchmarks.cases import Case

__all__ = ["Done", "Task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a scenario is given.

    Attributes
    ----------
    case : Case
    data : str
        The folder of the images, or of the features, that it works on.
    out : str
        The folder that it may write to; it does not exist yet.
    model : str
        The folder of the fitted model, for a scenario that needs one; else empty.
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
class Done:
    """What a scenario returns.

    Attributes
    ----------
    seconds : dict of str to float
        By stage, of :data:`benchmarks.record.STAGES`; what is not in it counts as shutdown.
    worker_seconds : dict of str to float
        By step, added up over the workers.
    unmeasured : float
        Seconds that went into storing an answer which is only there to be checked; they count nowhere.
    """

    seconds: dict[str, float]
    worker_seconds: dict[str, float] = field(default_factory=dict)
    unmeasured: float = 0.0


def main() -> None:
    """Run the scenario of a task, and store what it returned."""
    task = Task.from_json(Path(sys.argv[1]).read_bytes())
    from benchmarks.scenarios import load

    scenario = load(task.case.scenario)
    began = time.monotonic() - float(os.environ["FRUITS_BENCH_STARTED"])  # the clock is the same in every process
    done = scenario.run(task)
    seconds = {**done.seconds, "start-up": began + done.seconds.get("start-up", 0.0)}
    result = {"seconds": seconds, "worker_seconds": done.worker_seconds, "unmeasured": done.unmeasured}
    Path(sys.argv[2]).write_bytes(orjson.dumps(result))


if __name__ == "__main__":
    main()
