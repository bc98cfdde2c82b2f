"""Substitutes for the images, the network and the tasks, so that only the driver and the engine work.

A task writes minimal parts, and appends one byte to a ledger file: its size is the number of calls.
"""

import dataclasses
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import orjson

from fruits.executor import Executor
from fruits.images.sources.entries import ImageEntry, entry_tables
from fruits.jobs.tasks import moments as merging
from fruits.jobs.tasks.rejects import ACCOUNT, write_partition
from fruits.jobs.tasks.reports import MergeReport
from fruits.jobs.tasks.survey import survey, verify_parts
from fruits.model.moments import Moments
from fruits.storage.checksums import checksum

FEATURES = 4
LABEL_IMAGES = 1000


class Source:
    """Images that are not stored."""

    def __init__(self, address, options):
        self.address = address

    def tables(self, skipped, limit):
        return entry_tables(self.entries(limit))

    def entries(self, limit):
        for start in range(0, limit, LABEL_IMAGES):
            label = f"label {start:09d}/"
            for number in range(start, min(start + LABEL_IMAGES, limit)):
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

    def load(self):
        return lambda pixels: np.zeros((len(pixels), FEATURES), np.float32)


def featurize(item, settings):
    count("featurize", settings.out)
    name = settings.out.part("features", item.partition.index, "parquet")
    report = write_partition(settings.out, item.partition, [], name, b"")
    steps = dict.fromkeys(("load", "read", "decode", "network", "write"), 1e-9)
    return dataclasses.replace(report, seconds=steps)


def merge(item, settings):
    """Merge like the real task, but compute the first level from constant features, because none are stored."""
    count("merge", settings.out)
    if item.group.level > 1:
        return merging.merge(item, settings)
    images = sum(_images(settings.out, name) for name, _ in item.inputs)
    rows = np.resize(np.eye(FEATURES, dtype=np.float32), (images, FEATURES))
    data = Moments.from_features(rows).to_bytes()
    settings.out.write(item.name, data)
    return MergeReport({item.name: checksum(data)})


def _images(out, features):
    metadata = out.folder.read_table(features.replace("features/", "rejects/")).schema.metadata
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

    def outcomes(self, task, items, shared, retries):
        taken, completed = set(), 0

        class Items:
            def __len__(_):
                return len(items)

            def __getitem__(_, index):
                taken.add(index)
                self.held = max(self.held, len(taken) - completed)
                return items[index]

        with closing(self.inner.outcomes(STAND_INS[task.__name__], Items(), shared, retries)) as outcomes:
            for index, outcome in outcomes:
                completed += 1
                yield index, outcome
                if task.__name__ == "featurize" and completed == self.stop_at:
                    raise KeyboardInterrupt
