"""Summaries of a source: moments by label and a sample, from its stored features, merged level by level on workers.

Moments are exact sums, and the sample is chosen by hashes, so that no bit of a summary depends on the partitions.

For n images, d features, c crops and g labels, a worker holds the features of 8,192 images or of one partition,
4 · 8,192 · c · d bytes, or two nodes and samples of 512 MiB. A node has moments of about 20 MB if d is 1,280, sums of
24 d bytes for each of its labels, and the sample of its labels, 256 MiB at most or one image a label. There are
n / 8,192 nodes of the first level; the driver reads one node of each source. For 100 million images and 10,000 labels,
12,208 nodes of 20 to 60 MB, about 0.5 TB, are written and read once, as much as the features themselves; through the
driver go only the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import safetensors.numpy

from fruits.errors import DamageError, DatasetError
from fruits.jobs.fitting import MOST_LABELS
from fruits.jobs.stages import Stage, StageRunner
from fruits.jobs.tasks.moments import Group, Input, levels
from fruits.jobs.tasks.reports import MergeReport, SurveyReport
from fruits.jobs.tasks.survey import PartBatch, verify_parts
from fruits.model.moments import Moments, representable
from fruits.recogniser.jobs.sources import FeatureSource
from fruits.recogniser.training.holdout import is_held_out
from fruits.recogniser.training.sample import Sample
from fruits.storage.checksums import Manifest, checksum, read_part
from fruits.storage.commits import OwnedFolder
from fruits.storage.folder import Folder
from fruits.storage.parquet import read_table, vectors

BATCH = 8  # nodes that one task verifies

Float32 = npt.NDArray[np.float32]


class Summary(NamedTuple):
    """Moments by label of the crops of images that are not held out, and of those that are; the sample of both."""

    fit: Moments
    held_out: Moments
    sample: Sample


@dataclass(frozen=True, slots=True)
class NodeItem:
    """A node of the merge tree: its name, and the features or nodes that it merges."""

    group: Group
    name: str
    inputs: tuple[Input, ...]

    def __str__(self) -> str:
        return f"summary {self.group.index} of level {self.group.level}"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The inputs that all nodes of a source share.

    Attributes
    ----------
    features : Folder
        The folder with the features.
    out : OwnedFolder
        The recogniser.
    dimension, crops : int
        The length of a feature vector, and the crops of an image.
    most : int
        The largest number of sampled images of a label.
    has_total : bool
        Whether the moments of all images are stored, so that only those of held-out images are needed.
    has_classes : bool
        Whether images need a label.
    """

    features: Folder
    out: OwnedFolder
    dimension: int
    crops: int
    most: int
    has_total: bool
    has_classes: bool


def summarize(
    source: FeatureSource, number: int, crops: int, most: int, out: OwnedFolder, manifest: Manifest, runner: StageRunner
) -> Summary:
    """Return the summary of a source; nodes that an earlier command stored in `out` are verified and used.

    Parameters
    ----------
    source : FeatureSource
    number : int
        The position of the source.
    crops : {1, 2}
        The crops of each image to use.
    most : int
        The largest number of sampled images of a label.
    out : OwnedFolder
        The recogniser.
    manifest : Manifest
        The checksums of the nodes in `out`.
    runner : StageRunner

    Raises
    ------
    DatasetError
        Images have no label, or lists of labels.
    """
    job = source.job
    # The moments of an output are those of the first crop, by label if there are not too many.
    total = job.moments() if crops == 1 and job.plan.labels <= MOST_LABELS else None
    dimension = int(source.features["length"])
    settings = NodeSettings(job.owned.folder, out, dimension, crops, most, total is not None, not source.is_unknown)
    # A node is that of some partitions: after an update, or another job on the same images, those are others.
    inputs_digest = checksum(f"{job.plan_digest} {settings.has_total}".encode()).hex()[:8]
    partitions = [each for each in job.plan.partitions if each.images]
    inputs: list[Input] = [(name := job.features_name(each), job.manifest.get(name)) for each in partitions]
    for level in levels([each.images for each in partitions]):
        kind = f"moments/source{number}_{inputs_digest}-{level[0].level}"
        names = [out.part(kind, group.index, "safetensors") for group in level]
        intact = _verified(names, out, manifest, runner)
        items = [
            NodeItem(group, name, tuple(inputs[group.start : group.stop]))
            for group, name in zip(level, names, strict=True)
            if name not in intact
        ]
        stage = Stage("summaries", summarize_node, settings, "groups", lambda _: 1)
        with manifest.flushed():
            runner.run(stage, items, lambda report: manifest.add(report.checksums))
        inputs = [(name, manifest.get(name)) for name in names]
    (root,) = inputs
    node = read_node(out.folder, root)
    fit = node.fit if total is None else total - node.held_out
    return Summary(fit, node.held_out, node.sample)


def _verified(names: Sequence[str], out: OwnedFolder, manifest: Manifest, runner: StageRunner) -> set[str]:
    """Return the names of the stored nodes that are intact."""
    listed = [(name, known) for name in names if (known := manifest.get(name)) is not None]
    corrupt: set[str] = set()

    def receive(report: SurveyReport) -> None:
        corrupt.update(part.name for part in report.corrupt)

    batches = [PartBatch(tuple(listed[start : start + BATCH])) for start in range(0, len(listed), BATCH)]
    runner.run(Stage("verify", verify_parts, out, "parts", len), batches, receive)
    return {name for name, _ in listed} - corrupt


def summarize_node(item: NodeItem, settings: NodeSettings) -> MergeReport:
    """Write a node from the features, or the nodes, below it."""
    if item.group.level == 1:
        node = _from_features(item, settings)
    else:
        node = _merged(item.inputs, settings)
    blobs = {name: np.frombuffer(part.to_bytes(), np.uint8) for name, part in node._asdict().items()}
    data = safetensors.numpy.save(blobs)
    settings.out.write(item.name, data)
    return MergeReport({item.name: checksum(data)})


def _merged(nodes: Sequence[Input], settings: NodeSettings) -> Summary:
    fit, held_out = Moments.empty(settings.dimension), Moments.empty(settings.dimension)

    def samples() -> Iterator[Sample]:
        nonlocal fit, held_out
        for name in nodes:
            node = read_node(settings.out.folder, name)
            fit, held_out = fit + node.fit, held_out + node.held_out
            yield node.sample

    sample = Sample.merge(samples(), settings.most)
    return Summary(fit, held_out, sample)


def read_node(folder: Folder, node: Input) -> Summary:
    """Return a stored node."""
    arrays = safetensors.numpy.load(read_part(folder, *node))
    return Summary(
        Moments.from_bytes(arrays["fit"].tobytes()),
        Moments.from_bytes(arrays["held_out"].tobytes()),
        Sample.from_bytes(arrays["sample"].tobytes()),
    )


def _from_features(item: NodeItem, settings: NodeSettings) -> Summary:
    """Return the node of some parts of features."""
    fit: list[tuple[Float32, list[str | None]]] = []
    held_out: list[tuple[Float32, list[str | None]]] = []
    samples = []
    for name, expected in item.inputs:
        paths, labels, features = read_features(read_part(settings.features, name, expected), name, settings.crops)
        if settings.has_classes and None in labels:
            path = paths[labels.index(None)]
            raise DatasetError(
                f"{path}: an image without a label in {settings.features.address}. Move it to a folder that is named "
                "after its label; images that belong to no class can be given as `unknown`."
            )
        held = np.array([is_held_out(path) for path in paths], bool)
        held_out.append(_rows(features, labels, held))
        if not settings.has_total:
            fit.append(_rows(features, labels, ~held))
        samples.append(Sample.choose(paths, [label or "" for label in labels], features, settings.most))
    return Summary(
        Moments.from_blocks(fit, settings.dimension),
        Moments.from_blocks(held_out, settings.dimension),
        Sample.merge(samples, settings.most),
    )


def _rows(
    features: Float32, labels: list[str | None], chosen: npt.NDArray[np.bool_]
) -> tuple[Float32, list[str | None]]:
    """Return the chosen images, a row for each crop."""
    rows = features[chosen].reshape(-1, features.shape[2])
    return rows, [labels[row] for row in np.flatnonzero(chosen).tolist() for _ in range(features.shape[1])]


def read_features(data: bytes, name: str, crops: int) -> tuple[list[str], list[str | None], Float32]:
    """Return paths, labels and features, (n, crops, d), of a part.

    Raises
    ------
    DatasetError
        The labels are lists.
    DamageError
        A feature is not finite, or too large.
    """
    table = read_table(data, ["path", "label", "features", "crop_features"][: 2 + crops])
    kind = table.schema.field("label").type
    if not pa.types.is_string(kind):
        raise DatasetError(f"{name}: its labels are of type {kind}. Allowed: one label for each image.")
    features = np.stack([vectors(table[column]) for column in table.column_names[2:]], axis=1)
    if not representable(features.reshape(-1, features.shape[2])).all():
        raise DamageError(f"{name} contains NaN, infinity, or a number of 2^19 or more. Make its output again.")
    return table["path"].to_pylist(), table["label"].to_pylist(), features
