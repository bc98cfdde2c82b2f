"""Scores of a bounded sample of rows, from the stored parts of a finished job.

Parts are chosen by a hash of their number, whole, until the sample is full: at 100 million images as many are read as
at 100,000. A part contains consecutive paths, so that a label in the sample is represented by many of its images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fruits.errors import DamageError, OutputError
from fruits.jobs.job import FITTING
from fruits.jobs.stored import StoredJob, feature_source
from fruits.machine.cpus import available_cpus
from fruits.model.rows import decode_rows
from fruits.model.scaled_pca import ScaledPCA
from fruits.plan.partitions import Partition
from fruits.storage.checksums import checksum
from fruits.storage.parquet import read_table, vectors
from fruits.storage.prefetch import UNKNOWN_SIZE
from fruits.text import name_bytes

MOST_ROWS = 131_072
MOST_PARTS = 512
MOST_BYTES = 768 * 2**20  # of the parts that are read
AT_ONCE = 8  # parts that are decoded at the same time
MOST_COMPONENTS = 128  # that are examined: scores of 64 MB

Float32 = npt.NDArray[np.float32]
Decoder = Callable[[bytes, str], tuple[list[Any], list[Any], Float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """A sample of rows, in the order of their paths.

    Attributes
    ----------
    paths : list of str
        Empty texts if the rows have no paths.
    labels : list of str or None
    scores : ndarray of shape (n, k), float32
        The first principal components, at most 128.
    parts, of : int
        The number of parts that were read, and of those that the output has.
    """

    paths: list[str]
    labels: list[str | None]
    scores: Float32
    parts: int
    of: int

    def by_hash(self, most: int) -> npt.NDArray[np.int64]:
        """Return the numbers of at most `most` rows, chosen by a hash of the path."""
        return np.array(by_hash(range(len(self.paths)), lambda row: self.paths[row])[:most], np.int64)


def by_hash(things: Sequence[Any], key: Callable[[Any], str]) -> list[Any]:
    """Return things in the order of a hash of their key, which is the same in every process."""

    def order(thing: Any) -> bytes:
        return hashlib.blake2b(name_bytes(key(thing)), digest_size=8).digest()

    return sorted(things, key=order)


def feature_job(job: StoredJob) -> StoredJob | None:
    """Return the job that read the images of a job: itself, or its source; None if that is gone."""
    source = job.commit.job.get("source")
    if source is None:
        return job
    with suppress(OutputError, OSError):
        return feature_source(str(source))
    return None


def read_vectors(job: StoredJob, origin: StoredJob | None) -> Vectors | None:
    """Return the scores of a sample of the rows of a finished job; None if it stores none.

    Parameters
    ----------
    job : StoredJob
    origin : StoredJob or None
        Its :func:`feature_job`.
    """
    command = job.commit.job["command"]
    if command in FITTING and origin is not None and origin.has_features:
        model = ScaledPCA.load(job.owned.folder, job.owned.owner)
        return _read(origin, origin.features_name, _projection(model))
    if command != "fit" and "pca_features" in job.commit.job.get("columns", ()):
        return _read(job, job.rows_name, _scores)
    return None


def _read(job: StoredJob, name: Callable[[Partition], str], decode: Decoder) -> Vectors | None:
    parts: dict[int, tuple[list[Any], list[Any], Float32]] = {}
    contents = _contents(job, name)
    with ThreadPoolExecutor(available_cpus()) as pool:
        while some := list(islice(contents, AT_ONCE)):
            decoded = pool.map(lambda part: decode(part[2], part[1]), some)
            parts |= {partition.start: part for (partition, _, _), part in zip(some, decoded, strict=True)}
    if not any(len(scores) for _, _, scores in parts.values()):
        return None
    ordered = [parts[start] for start in sorted(parts)]
    return Vectors(
        [path or "" for paths, _, _ in ordered for path in paths],
        [label for _, labels, _ in ordered for label in labels],
        np.concatenate([scores for _, _, scores in ordered]),
        len(parts),
        sum(partition.images > 0 for partition in job.plan.partitions),
    )


def _contents(job: StoredJob, name: Callable[[Partition], str]) -> Iterator[tuple[Partition, str, bytes]]:
    """Yield the parts of the sample with their names and contents."""
    chosen = list(_chosen(job))
    names = [name(partition) for partition in chosen]
    contents = job.owned.folder.fetch((file, UNKNOWN_SIZE, "") for file in names)
    size = 0
    for partition, file, content in zip(chosen, names, contents, strict=True):
        if isinstance(content, OSError):
            raise content
        known = job.manifest.get(file)
        if known is not None and checksum(content) != known:
            raise DamageError(
                f"{job.owned.folder.address}/{file} is corrupt: its SHA-256 is not that in the manifest. Start the "
                "command that made the output again: it regenerates this part."
            )
        yield partition, file, content
        size += len(content)
        if size > MOST_BYTES:
            return


def _chosen(job: StoredJob) -> Iterator[Partition]:
    """Yield the partitions of the sample, by hash."""
    rows = 0
    filled = [partition for partition in job.plan.partitions if partition.images]
    for partition in by_hash(filled, lambda partition: str(partition.index))[:MOST_PARTS]:
        rows += partition.images
        if rows > MOST_ROWS and rows > partition.images:
            return
        yield partition


def _projection(model: ScaledPCA) -> Decoder:
    """Return the function from a part of features to scores: in float32, as a page needs no more."""
    components = model.components[:MOST_COMPONENTS]
    weights = np.divide(components, model.scale, out=np.zeros_like(components), where=model.scale > 0)
    offset = (weights @ model.mean).astype(np.float32)
    factors = weights.T.astype(np.float32)

    def decode(data: bytes, name: str) -> tuple[list[Any], list[Any], Float32]:
        table = read_table(data, ["path", "label", "features"])
        return _column(table, "path"), _column(table, "label"), vectors(table["features"]) @ factors - offset

    return decode


def _scores(data: bytes, name: str) -> tuple[list[Any], list[Any], Float32]:
    """Return the paths, labels and scores in a part of rows; columns that were not asked for are empty."""
    if name.endswith(".csv"):
        columns = decode_rows(data, name)
        scores = np.asarray(columns["pca_features"], np.float32)
        nothing = [None] * len(scores)
        paths, labels = (list(columns.get(each, nothing)) for each in ("path", "label"))
    else:
        table = read_table(data)
        scores = vectors(table["pca_features"])
        paths, labels = _column(table, "path"), _column(table, "label")
    return paths, labels, scores[:, :MOST_COMPONENTS].copy()


def _column(table: pa.Table, name: str) -> list[Any]:
    values: list[Any] = table[name].to_pylist() if name in table.column_names else [None] * table.num_rows
    return values
