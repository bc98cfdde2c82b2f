"""Whole jobs: the commands ``fruits fit``, ``fruits run`` and ``fruits transform``."""

from __future__ import annotations

import time
from collections.abc import Callable

import backends
from benchmarks.scenarios.task import Task, Timings
from fruits.executor import Executor
from fruits.jobs import pipeline
from fruits.jobs.job import Job
from fruits.jobs.report import Report, SliceReport

COMMANDS: dict[str, Callable[[Job, Executor], Report | SliceReport]] = {
    "fit": pipeline.fit,
    "run": pipeline.run,
    "transform": pipeline.transform,
}
STAGES = {  # a job's stages → those of a record
    "model": "start-up",
    "engine": "start-up",
    "listing": "listing",
    "featurize": "featurize",
    "moments": "fit",
    "solve": "fit",
    "rows": "write",
    "transform": "transform",
}


def run(task: Task) -> Timings:
    """Run the command that the scenario is named after."""
    case = task.case
    job = Job(
        images=task.data,
        out=task.out,
        components=case.components,
        partition_size=case.partition_size,
        model=task.model if case.scenario == "transform" else None,
        report=False,  # the peers write none
    )
    begin = time.perf_counter()
    with backends.load(case.backend)(workers=case.workers) as executor:  # type: ignore[call-arg]
        created = time.perf_counter()
        report = COMMANDS[case.scenario](job, executor)
        ended = time.perf_counter()
    seconds = {"start-up": created - begin}
    for stage, taken in report.seconds.items():
        name = STAGES[stage]
        seconds[name] = seconds.get(name, 0.0) + taken
    # The driver writes the model, job.json and report.json outside all stages.
    seconds["write"] = seconds.get("write", 0.0) + max(0.0, ended - created - sum(report.seconds.values()))
    return Timings(seconds=seconds, worker_seconds=report.worker_seconds)
