"""Images to a fitted model."""

from __future__ import annotations

from benchmarks.child import Done, Task
from benchmarks.scenarios.jobs import run_job
from fruits.jobs import pipeline

BACKENDS = ("dask", "spark", "local")
DATA = "images"
ANSWER = "model"


def run(task: Task) -> Done:
    """Do the job ``fruits fit``."""
    return run_job(task, pipeline.fit)
