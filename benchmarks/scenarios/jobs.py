"""Whole jobs, as ``fruits fit``, ``fruits run`` and ``fruits transform`` do them."""

from __future__ import annotations

import time
from collections.abc import Callable

import backends
from benchmarks.child import Done, Task
from fruits.executor import Executor
from fruits.jobs import pipeline
from fruits.jobs.job import Job
from fruits.jobs.report import Report, SliceReport

__all__ = ["run_job"]

STAGES = {  # of a job, and what they are called here
    "network": "start-up",
    "engine": "start-up",
    "listing": "listing",
    "featurize": "featurize",
    "moments": "fit",
    "solve": "fit",
    "rows": "write",
    "transform": "transform",
}


def run_job(task: Task, command: Callable[[Job, Executor], Report | SliceReport]) -> Done:
    """Do a whole job with one of the three commands of :mod:`fruits.jobs.pipeline`."""
    case = task.case
    job = Job(
        images=task.data,
        out=task.out,
        components=case.components,
        partition_size=case.partition_size,
        model=task.model if command is pipeline.transform else None,
    )
    begin = time.perf_counter()
    with backends.load(case.backend)(workers=case.workers) as executor:  # type: ignore[call-arg]
        made = time.perf_counter()
        report = command(job, executor)
        ended = time.perf_counter()
    seconds = {"start-up": made - begin}
    for stage, taken in report.seconds.items():
        name = STAGES[stage]
        seconds[name] = seconds.get(name, 0.0) + taken
    # What no stage claims (the model, job.json, report.json) is written by the driver.
    seconds["write"] = seconds.get("write", 0.0) + max(0.0, ended - made - sum(report.seconds.values()))
    return Done(seconds=seconds, worker_seconds=report.worker_seconds)
