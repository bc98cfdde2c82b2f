"""Images to stored features: the first stage of every job, alone."""

from __future__ import annotations

import time
from collections import Counter

import backends
from benchmarks.scenarios.task import Task, Timings
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.jobs.tasks.featurize import FeaturizeSettings, PlannedPartition, featurize
from fruits.model.fingerprint import numeric_fingerprint
from fruits.network.featurizer import compile_network
from fruits.plan.pages import pages_of, write_list
from fruits.plan.partitions import Partition, even_partitions
from fruits.storage.commits import OwnedFolder
from fruits.storage.folder import Folder, part_name


def run(task: Task) -> Timings:
    """Store the features of the images."""
    case = task.case
    out = Folder(task.out)
    begin = time.perf_counter()
    network = compile_network("MobileNetV2")
    fingerprint = numeric_fingerprint(network.load())  # before the listing, as in a job
    with backends.load(case.backend)(workers=case.workers) as executor:  # type: ignore[call-arg]
        executor.start()
        started = time.perf_counter()
        images = write_list(Listing(open_source(task.data)).tables(), out / "plan").images
        listed = time.perf_counter()
        settings = FeaturizeSettings(open_source(task.data), OwnedFolder(out), network, fingerprint)
        items = [_planned(partition) for partition in even_partitions(images, case.partition_size)]
        reports = executor.map(featurize, items, shared=settings)
        ended = time.perf_counter()
    steps: Counter[str] = Counter()
    for report in reports:
        steps.update(report.seconds)
    seconds = {"start-up": started - begin, "listing": listed - started, "featurize": ended - listed}
    return Timings(seconds=seconds, worker_seconds=dict(steps))


def _planned(partition: Partition) -> PlannedPartition:
    numbers = pages_of(partition.start, partition.images)
    return PlannedPartition(partition, tuple((f"plan/{part_name(number, 'parquet')}", None) for number in numbers))
