"""A bounded sample of the rows of each label: those whose path has the smallest SHA-256.

The choice depends on neither the order nor the partitions of the rows. The sample of a union is the sample of the
samples, so that parts are merged in any order, and rows can be added later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
import safetensors.numpy

from fruits.text import name_bytes

SAMPLE_BYTES = 256 * 2**20  # of the features of all labels together, unless each label has one row
MOST_PER_LABEL = 512

Float32 = npt.NDArray[np.float32]


def rows_per_label(labels: int, row_bytes: int) -> int:
    """Return the size of the sample of each label: 1 to 512 rows of `row_bytes` bytes, 256 MiB for all labels."""
    return max(1, min(MOST_PER_LABEL, SAMPLE_BYTES // (labels * row_bytes)))


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows by label, and by increasing SHA-256 of the path within a label.

    Attributes
    ----------
    paths : tuple of str
    labels : tuple of str
    features : ndarray of shape (n, crops, d), float32
    """

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    features: Float32

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def choose(cls, paths: Sequence[str], labels: Sequence[str], features: Float32, most: int) -> Sample:
        """Return the sample of rows: at most `most` of each label."""
        return _chosen([cls(tuple(paths), tuple(labels), features)], most)

    @classmethod
    def merge(cls, samples: Iterable[Sample], most: int) -> Sample:
        """Return the sample of the rows of samples, at least one; 512 MiB and one of them are in memory at a time."""
        merged: list[Sample] = []
        for each in samples:
            merged.append(each)
            if sum(one.features.nbytes for one in merged) > 2 * SAMPLE_BYTES:
                merged = [_chosen(merged, most)]
        if not merged:
            raise ValueError("no samples to merge; at least one is needed")
        return _chosen(merged, most)

    def to_bytes(self) -> bytes:
        """Return the sample in the safetensors format; equal samples give equal bytes."""
        return safetensors.numpy.save(
            {
                "features": np.ascontiguousarray(self.features),
                "paths": _texts(self.paths),
                "labels": _texts(self.labels),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Sample:
        """Return the sample encoded by :meth:`to_bytes`.

        Raises
        ------
        ValueError
            The data are corrupt.
        """
        try:
            arrays = safetensors.numpy.load(data)
            features = arrays["features"]
            paths, labels = (tuple(orjson.loads(arrays[name].tobytes())) for name in ("paths", "labels"))
        except (safetensors.SafetensorError, KeyError, TypeError, orjson.JSONDecodeError) as error:
            raise ValueError(f"not a sample: {error}") from error
        if (
            features.dtype != np.float32
            or features.ndim != 3
            or not len(features) == len(paths) == len(labels)
            or not all(isinstance(text, str) for text in paths + labels)
        ):
            raise ValueError("not a sample: its arrays contradict each other")
        return cls(paths, labels, features)


def _chosen(samples: Sequence[Sample], most: int) -> Sample:
    paths = [path for sample in samples for path in sample.paths]
    labels = [label for sample in samples for label in sample.labels]
    codes = {label: code for code, label in enumerate(sorted(set(labels)))}
    own = np.array([codes[label] for label in labels], np.int64)
    digests = b"".join(hashlib.sha256(name_bytes(path)).digest() for path in paths)
    words = np.frombuffer(digests, ">u8").reshape(-1, 4).astype(np.uint64)
    order = np.lexsort((*words.T[::-1], own))
    ranks = np.arange(len(order)) - np.searchsorted(own[order], own[order], side="left")
    kept = order[ranks < most]
    features = np.empty((len(kept), *samples[0].features.shape[1:]), np.float32)
    start = 0
    for sample in samples:  # without a copy of all of them
        here = (kept >= start) & (kept < start + len(sample))
        features[here] = sample.features[kept[here] - start]
        start += len(sample)
    rows = kept.tolist()
    return Sample(tuple(paths[row] for row in rows), tuple(labels[row] for row in rows), features)


def _texts(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(orjson.dumps(list(texts)), np.uint8)
