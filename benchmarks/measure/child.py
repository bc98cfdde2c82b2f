"""Run one scenario in its own process: ``python -m benchmarks.measure.child TASK.json RESULT.json``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import orjson

from benchmarks.scenarios.task import Task


def main() -> None:
    """Run the scenario of a task and store its timings."""
    task = Task.from_json(Path(sys.argv[1]).read_bytes())
    from benchmarks.scenarios import load  # the scenario's imports count as start-up

    scenario = load(task.case.scenario)
    # Linux's monotonic clock is shared by all processes.
    start_up = time.monotonic() - float(os.environ["FRUITS_BENCH_STARTED"])
    timings = scenario.run(task)
    seconds = {**timings.seconds, "start-up": start_up + timings.seconds.get("start-up", 0.0)}
    result = {"seconds": seconds, "worker_seconds": timings.worker_seconds, "unmeasured": timings.unmeasured}
    Path(sys.argv[2]).write_bytes(orjson.dumps(result))


if __name__ == "__main__":
    main()
