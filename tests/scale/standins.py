"""What stands in for the images, the network and the tasks: the driver and the engine do all their work, others none.

A task writes parts as small as they can be, and one byte to a ledger, which so counts how often each task was run.
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
from fruits.jobs.tasks.rows import features_name
from fruits.jobs.tasks.survey import survey, verify_parts
from fruits.model.moments import Moments
from fruits.storage.checksums import checksum
from fruits.storage.folder import part_name

FEATURES = 4
LABEL_IMAGES = 1000


class Listing:
    """As many images as the limit says, which exist in a listing only."""

    def __init__(self, address, *, limit, follow_links):
        self.address = address
        self.limit = limit
        self.ignored = self.links_out = 0

    def __iter__(self):
        for start in range(0, self.limit, LABEL_IMAGES):
            label = f"label {start:09d}/"
            for number in range(start, min(start + LABEL_IMAGES, self.limit)):
                yield ImageEntry(f"{label}{number:09d}.jpg", 4000 + number % 3000, f"{number:032x}")


@dataclasses.dataclass(frozen=True)
class NeuralNetwork:
    """Is of some weight, as a network is, and is never run."""

    backbone: str = "MobileNetV2"
    engine: str = "openvino"
    package: str = "stand-in-1"
    weights_digest: str = "none"
    features: int = FEATURES
    weight: bytes = bytes(9_000_000)


def featurize(item, settings):
    count("featurize", settings.out)
    report = write_partition(settings.out, item.partition, [], features_name(item.partition.index), b"")
    steps = dict.fromkeys(("load", "read", "decode", "network", "write"), 1e-9)
    return dataclasses.replace(report, seconds=steps)


def merge(item, out):
    """Merge as the task does, but for the first level, whose features do not exist: each image has the same ones."""
    count("merge", out)
    group = item.group
    if group.level > 1:
        return merging.merge(item, out)
    images = sum(_images(out, index) for index in range(group.start, group.stop))
    merged = Moments(images, np.arange(FEATURES, dtype=np.float64), images * np.diag(np.arange(1.0, FEATURES + 1)))
    name, data = merging.moments_name(1, group.index), merged.to_bytes()
    out.write(name, data)
    return MergeReport({name: checksum(data)})


def _images(out, index):
    metadata = (out / "rejects").read_table(part_name(index, "parquet")).schema.metadata
    return orjson.loads(metadata[ACCOUNT])["images"]


STAND_INS = {"featurize": featurize, "merge": merge, "survey": survey, "verify_parts": verify_parts}


def count(name, out):
    """Add one to the ledger; writers on many processes do not disturb each other."""
    ledger = os.open(f"{out.address}.{name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, b".")
    os.close(ledger)


def counted(name, out):
    """Return how often a task was run."""
    ledger = Path(f"{out}.{name}")
    return ledger.stat().st_size if ledger.exists() else 0


class Watched(Executor):
    """An executor that is given stand-ins for the tasks; it can stop the job when so many partitions are done."""

    def __init__(self, inner, stop_at=None):
        self.inner = inner
        self.name = inner.name
        self.stop_at = stop_at
        self.held = 0  # the largest number of items that the engine had taken and not given back

    parallelism = property(lambda self: self.inner.parallelism)

    @classmethod
    def from_cluster(cls, cluster):
        raise NotImplementedError

    def start(self):
        self.inner.start()

    def map(self, task, items, *, shared=None, retries=2, progress=None):
        taken, told = set(), 0

        class Items:
            def __len__(_):
                return len(items)

            def __getitem__(_, index):
                taken.add(index)
                self.held = max(self.held, len(taken) - told)
                return items[index]

        def watch(index, outcome):
            nonlocal told
            told += 1
            progress(index, outcome)
            if task.__name__ == "featurize" and told == self.stop_at:
                raise KeyboardInterrupt

        stand_in = STAND_INS[task.__name__]
        return self.inner.map(stand_in, Items(), shared=shared, retries=retries, progress=watch)
