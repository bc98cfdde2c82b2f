"""Substitutes for the images, the network and the tasks, so that only the driver and the engine work.

A task writes minimal parts, and appends one byte to a ledger file: its size is the number of calls.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import orjson

from fruits.executor import Executor
from fruits.images.listing import ImageEntry
from fruits.jobs.tasks import moments as merging
from fruits.jobs.tasks.rejects import ACCOUNT, write_partition
from fruits.jobs.tasks.reports import MergeReport
from fruits.jobs.tasks.survey import survey, verify_parts
from fruits.model.moments import Moments
from fruits.storage.checksums import checksum

FEATURES = 4
LABEL_IMAGES = 1000


class Listing:
    """A listing of `limit` images that are not stored."""

    def __init__(self, address, *, limit, **options):
        self.address = address
        self.limit = limit
        self.labels = 0
        self.skipped = {}

    def describe_skipped(self):
        return []

    def __iter__(self):
        for start in range(0, self.limit, LABEL_IMAGES):
            label = f"label {start:09d}/"
            for number in range(start, min(start + LABEL_IMAGES, self.limit)):
                yield ImageEntry(f"{label}{number:09d}.jpg", 4000 + number % 3000, f"{number:032x}")


@dataclasses.dataclass(frozen=True)
class NeuralNetwork:
    """A value as large as a network, which is never run."""

    backbone: str = "MobileNetV2"
    engine: str = "openvino"
    package: str = "stand-in-1"
    weights_digest: str = "none"
    features: int = FEATURES
    weight: bytes = bytes(9_000_000)


def featurize(item, settings):
    count("featurize", settings.out)
    name = settings.out.part("features", item.partition.index, "parquet")
    report = write_partition(settings.out, item.partition, [], name, b"")
    steps = dict.fromkeys(("load", "read", "decode", "network", "write"), 1e-9)
    return dataclasses.replace(report, seconds=steps)


def merge(item, out):
    """Merge like the real task, but compute the first level from constant features, because none are stored."""
    count("merge", out)
    group = item.group
    if group.level > 1:
        return merging.merge(item, out)
    images = sum(_images(out, index) for index in range(group.start, group.stop))
    rows = np.resize(np.eye(FEATURES, dtype=np.float32), (images, FEATURES))
    merged = Moments.from_features(rows)
    name, data = merging.moments_name(out, 1, group.index), merged.to_bytes()
    out.write(name, data)
    return MergeReport({name: checksum(data)})


def _images(out, index):
    metadata = out.folder.read_table(out.part("rejects", index, "parquet")).schema.metadata
    return orjson.loads(metadata[ACCOUNT])["images"]


STAND_INS = {"featurize": featurize, "merge": merge, "survey": survey, "verify_parts": verify_parts}


def count(name, out):
    """Append one byte to the ledger of a task; concurrent processes may append."""
    ledger = os.open(f"{out.folder.address}.{name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, b".")
    os.close(ledger)


def counted(name, out):
    """Return the number of calls of a task."""
    ledger = Path(f"{out}.{name}")
    return ledger.stat().st_size if ledger.exists() else 0


class SimulatingExecutor(Executor):
    """An executor that replaces the tasks. With `stop_at`, it interrupts the job after that many partitions."""

    def __init__(self, inner, stop_at=None):
        self.inner = inner
        self.name = inner.name
        self.stop_at = stop_at
        self.held = 0  # the maximum of items taken by the engine and not yet returned

    parallelism = property(lambda self: self.inner.parallelism)

    @classmethod
    def from_cluster(cls, cluster):
        raise NotImplementedError

    def start(self):
        self.inner.start()

    def map(self, task, items, *, shared=None, retries=2, progress=None):
        taken, completed = set(), 0

        class Items:
            def __len__(_):
                return len(items)

            def __getitem__(_, index):
                taken.add(index)
                self.held = max(self.held, len(taken) - completed)
                return items[index]

        def count_completed(index, outcome):
            nonlocal completed
            completed += 1
            progress(index, outcome)
            if task.__name__ == "featurize" and completed == self.stop_at:
                raise KeyboardInterrupt

        stand_in = STAND_INS[task.__name__]
        return self.inner.map(stand_in, Items(), shared=shared, retries=retries, progress=count_completed)
