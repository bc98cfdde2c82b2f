"""Images to stored features: the first stage of every job, alone."""

from __future__ import annotations

import time
from collections import Counter

import backends
from benchmarks.scenarios.task import Task, Timings
from fruits.images.listing import Listing
from fruits.images.plan import make_plan
from fruits.jobs.tasks.featurize import FeaturizeSettings, PlannedPartition, featurize
from fruits.network.featurizer import compile_network
from fruits.storage.commits import OwnedFolder
from fruits.storage.folder import Folder


def run(task: Task) -> Timings:
    """Store the features of the images."""
    case = task.case
    out = Folder(task.out)
    begin = time.perf_counter()
    network = compile_network("MobileNetV2")
    with backends.load(case.backend)(workers=case.workers) as executor:  # type: ignore[call-arg]
        executor.start()
        started = time.perf_counter()
        plan = make_plan(Listing(task.data), case.partition_size, out / "plan")
        listed = time.perf_counter()
        settings = FeaturizeSettings(Folder.at(task.data), OwnedFolder(out), network)
        items = [PlannedPartition(partition) for partition in plan.partitions()]
        reports = executor.map(featurize, items, shared=settings)
        ended = time.perf_counter()
    steps: Counter[str] = Counter()
    for report in reports:
        steps.update(report.seconds)
    seconds = {"start-up": started - begin, "listing": listed - started, "featurize": ended - listed}
    return Timings(seconds=seconds, worker_seconds=dict(steps))
