"""Time a training from stored features: ``python -m benchmarks.training OUTPUT --images 67692``.

The features of OUTPUT, a fit of labelled images with one crop, are repeated with noise, as further turns of the same
objects. Measured are the two steps that grow with the images: the summaries on workers, and the training on the driver.
The moments of all images are stored before, as those of a fit are.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator

import numpy as np

import backends
from fruits.executor import Executor
from fruits.jobs.stored import feature_source
from fruits.jobs.tasks.moments import Input, levels
from fruits.model.moments import Moments
from fruits.model.rows import features_table
from fruits.recogniser.jobs.summaries import NodeItem, NodeSettings, read_features, read_node, summarize_node
from fruits.recogniser.training.fitting import Source
from fruits.recogniser.training.sample import Sample, rows_per_label
from fruits.recogniser.training.training import Trained, train
from fruits.storage.checksums import read_part
from fruits.storage.commits import OwnedFolder
from fruits.storage.folder import Folder, part_name
from fruits.storage.parquet import write_table

ROWS_PER_PART = 1024
NOISE = 0.02  # standard deviation of a feature, beside 5 % of the length of the row


def read_rows(output: str) -> Sample:
    """Return the rows of the first crop of an output."""
    job = feature_source(output)
    if job is None:
        raise SystemExit(f"{output}: not an output with features.")
    parts = []
    for partition in job.plan.partitions:
        name = job.features_name(partition)
        paths, labels, features = read_features(read_part(job.owned.folder, name, job.manifest.get(name)), name, 1)
        parts.append(Sample(tuple(paths), tuple(label or "" for label in labels), features))
    return Sample(
        tuple(path for part in parts for path in part.paths),
        tuple(label for part in parts for label in part.labels),
        np.concatenate([part.features for part in parts]),
    )


def repeat(rows: Sample, count: int, folder: Folder) -> Moments:
    """Write `count` noisy repetitions of rows to parts of features, and return their moments by label."""
    random = np.random.default_rng(0)

    def blocks() -> Iterator[tuple[np.ndarray, list[str]]]:
        for part, start in enumerate(range(0, count, ROWS_PER_PART)):
            numbers = np.arange(start, min(start + ROWS_PER_PART, count))
            own = numbers % len(rows)
            features = rows.features[own, 0] * random.normal(1, 0.05, (len(own), 1)).astype(np.float32)
            features += random.normal(0, NOISE, features.shape).astype(np.float32)
            features = np.clip(features, 0, 6)  # the network ends in a ReLU6
            labels = [rows.labels[row] for row in own]
            turns, frames = (numbers // len(rows) + 1).tolist(), [_frame(rows.paths[row]) for row in own]
            paths = [f"{name}/r{turn}_{frame}_100.jpg" for name, turn, frame in zip(labels, turns, frames, strict=True)]
            (folder / "features").write(
                part_name(part, "parquet"), write_table(features_table(paths, labels, features))
            )
            yield features, labels

    return Moments.from_blocks(blocks(), rows.features.shape[2])


def _frame(path: str) -> str:
    """Return the number of the frame of an image of Fruits-360: 57 of ``r2_57_100.jpg``."""
    return path.rpartition("_100.jpg")[0].rpartition("_")[2]


def run(executor: Executor, folder: Folder, count: int, total: Moments) -> tuple[dict[str, float], Trained]:
    """Return the seconds of the steps, and the trained recogniser."""
    most = rows_per_label(len(total.classes), 4 * total.dimension)
    settings = NodeSettings(folder, OwnedFolder(folder), total.dimension, 1, most, has_total=True, has_classes=True)
    starts = range(0, count, ROWS_PER_PART)
    inputs: list[Input] = [(f"features/{part_name(part, 'parquet')}", None) for part in range(len(starts))]
    begin, cpu = time.perf_counter(), time.process_time()
    for level in levels([min(ROWS_PER_PART, count - start) for start in starts]):
        items = [
            NodeItem(group, f"moments/{group.level}-{group.index}", tuple(inputs[group.start : group.stop]))
            for group in level
        ]
        executor.map(summarize_node, items, shared=settings)
        inputs = [(item.name, None) for item in items]
    node = read_node(folder, inputs[0])
    seconds = {"summaries": time.perf_counter() - begin}
    begin, driver = time.perf_counter(), time.process_time()
    classes = {label or "": label or "" for label in total.classes}
    trained = train([Source(total - node.held_out, node.held_out, node.sample, 1, classes)])
    seconds["train"] = time.perf_counter() - begin
    ended = time.process_time()
    cpu_seconds = {"CPU time of the driver, summaries": driver - cpu, "CPU time of the driver, train": ended - driver}
    return seconds | cpu_seconds, trained


def main() -> None:
    """Print the seconds of each step, and the accuracy on the rows of OUTPUT, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output")
    parser.add_argument("--images", type=int, default=67_692)
    parser.add_argument("--backend", default="local", choices=list(backends.BACKENDS))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    rows = read_rows(options.output)
    with (
        tempfile.TemporaryDirectory(prefix="fruits-training-") as place,
        backends.load(options.backend)(workers=options.workers) as executor,  # type: ignore[call-arg]
    ):
        folder = Folder.at(place)
        total = repeat(rows, options.images, folder)
        executor.start()
        seconds, trained = run(executor, folder, options.images, total)
    best = trained.scorer.scores(rows.features, len(trained.labels)).similarity[:, :-1].argmax(axis=1)
    right = np.mean([trained.labels[one] == label for one, label in zip(best.tolist(), rows.labels, strict=True)])
    summary = {"images": options.images, "labels": len(trained.labels), "prototypes": len(trained.scorer.classes)}
    rounded = {name: round(value, 2) for name, value in seconds.items()}
    print(json.dumps(summary | {"seconds": rounded, "top-1 of OUTPUT": round(float(right), 4)}, indent=2))


if __name__ == "__main__":
    main()
