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

__all__ = ["MOST_PER_LABEL", "SAMPLE_BYTES", "Sample", "rows_per_label"]

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
        digests = [hashlib.sha256(_bytes(path)).digest() for path in paths]
        order = sorted(range(len(paths)), key=lambda row: (labels[row], digests[row], paths[row]))
        kept: list[int] = []
        taken: dict[str, int] = {}
        for row in order:
            count = taken.get(labels[row], 0)
            if count < most:
                taken[labels[row]] = count + 1
                kept.append(row)
        return cls(tuple(paths[row] for row in kept), tuple(labels[row] for row in kept), features[kept])

    @classmethod
    def merge(cls, samples: Iterable[Sample], most: int) -> Sample:
        """Return the sample of the rows of all samples, at least one; two are in memory at a time."""
        merged: Sample | None = None
        for each in samples:
            if merged is None:
                merged = each
            else:
                features = np.concatenate([merged.features, each.features])
                merged = cls.choose(merged.paths + each.paths, merged.labels + each.labels, features, most)
        if merged is None:
            raise ValueError("no samples to merge; at least one is needed")
        return merged

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the sample as arrays for a safetensors file."""
        return {
            "features": np.ascontiguousarray(self.features),
            "paths": _texts(self.paths),
            "labels": _texts(self.labels),
        }

    def to_bytes(self) -> bytes:
        """Return the sample in the safetensors format; equal samples give equal bytes."""
        return safetensors.numpy.save(self.to_arrays())

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


def _texts(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(orjson.dumps(list(texts)), np.uint8)


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
