"""From the command to the first featurized image: the command line's imports, the engine, the network, one image."""

from __future__ import annotations

import dataclasses
import time

from benchmarks.child import Done, Task
from benchmarks.scenarios import featurize

BACKENDS = ("dask", "spark", "local")
DATA = "images"
ANSWER = "features"


def run(task: Task) -> Done:
    """Store the features of the first image."""
    begin = time.perf_counter()
    import fruits.cli.main  # noqa: F401 - it is not used, but a user waits for it

    imported = time.perf_counter() - begin
    done = featurize.run(dataclasses.replace(task, case=dataclasses.replace(task.case, partition_size=1)))
    return dataclasses.replace(done, seconds={**done.seconds, "start-up": done.seconds["start-up"] + imported})
