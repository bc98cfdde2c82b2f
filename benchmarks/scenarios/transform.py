"""Images to rows, with a model that was fitted before."""

from __future__ import annotations

from benchmarks.child import Done, Task
from benchmarks.scenarios.jobs import run_job
from fruits.jobs import pipeline

BACKENDS = ("dask", "spark", "local")
DATA = "images"
ANSWER = "rows"


def run(task: Task) -> Done:
    """Do the job ``fruits transform``."""
    return run_job(task, pipeline.transform)
