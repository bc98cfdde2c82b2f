"""Time from the command to the first image's features: imports, engine start, network, one image."""

from __future__ import annotations

import dataclasses
import time

from benchmarks.scenarios import featurize
from benchmarks.scenarios.task import Task, Timings


def run(task: Task) -> Timings:
    """Store the features of the first image."""
    begin = time.perf_counter()
    import fruits.cli.main  # noqa: F401 - unused here, but a user waits for this import

    imported = time.perf_counter() - begin
    timings = featurize.run(dataclasses.replace(task, case=dataclasses.replace(task.case, partition_size=1)))
    start_up = timings.seconds["start-up"] + imported
    return dataclasses.replace(timings, seconds={**timings.seconds, "start-up": start_up})
