"""Count, sum and sum of outer products of features, as integers: their addition is associative and reversible.

The model is solved from one :class:`Moments`, for any number of rows. It does not depend on how the rows were cut into
parts, on the order of additions, on the CPU, or on rows that were added and removed before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
import safetensors.numpy

from fruits.errors import DamageError
from fruits.model.exact import derived, words
from fruits.model.exact.accumulator import Accumulator
from fruits.model.exact.accumulator import representable as representable
from fruits.model.exact.words import Int64
from fruits.text import name_text

MOST_ROWS = 2**39  # the sums of their products fit into the words

Float64 = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Label = str | None


@dataclass(frozen=True, slots=True, eq=False)
class ClassSums:
    """Number of rows of a class, and the sum of them on the grid: words of shape (w, d)."""

    count: int
    sums: Int64

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassSums) and self.count == other.count and np.array_equal(self.sums, other.sums)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """The first two moments of a set of rows, on the grid of t = round(x · 2^36).

    Arrays of integers are in words, see :mod:`fruits.model.exact.words`. Every set of rows has one representation.

    Attributes
    ----------
    count : int
        The number of rows.
    sums : ndarray of shape (words, d), int64
        The sum of t.
    products : ndarray of shape (words, d(d + 1)/2), int64
        The sums of t_i · t_j for i ≤ j, row by row.
    classes : mapping of (str or None) to ClassSums
        Count and sum of the rows of each label, in code-point order; None, for rows without a label, is first.
    """

    count: int
    sums: Int64
    products: Int64
    classes: Mapping[Label, ClassSums]

    @property
    def dimension(self) -> int:
        """The number of features, d."""
        return int(self.sums.shape[1])

    @classmethod
    def empty(cls, dimension: int) -> Moments:
        """Return the moments of no row."""
        return cls.from_blocks([], dimension)

    @classmethod
    def from_features(cls, features: Features, labels: Sequence[Label] | None = None) -> Moments:
        """Return the moments of features of shape (n, d); n may be 0. Without `labels`, all rows are of class None.

        Raises
        ------
        DamageError
            A value is NaN or infinite, or its magnitude is at least 2^19.
        """
        return cls.from_blocks([(features, labels)], features.shape[1])

    @classmethod
    def from_blocks(cls, blocks: Iterable[tuple[Features, Sequence[Label] | None]], dimension: int) -> Moments:
        """Return the moments of blocks of features, (n, d), and labels: faster than adding the moments of each.

        Raises
        ------
        DamageError
            As in :meth:`from_features`.
        """
        sums = Accumulator(dimension)
        for features, labels in blocks:
            if features.shape[1:] != (dimension,) or (labels is not None and len(labels) != len(features)):
                raise ValueError(
                    f"features of shape {features.shape} and {'no' if labels is None else len(labels)} labels; "
                    f"allowed: (n, {dimension}), and n labels or None"
                )
            sums.add(features, labels)
        classes = {label: ClassSums(*part) for label, part in sums.sums().items()}
        return cls._from_classes(classes, sums.products(), dimension)

    @classmethod
    def _from_classes(cls, classes: Mapping[Label, ClassSums], products: Int64, dimension: int) -> Moments:
        """Return moments whose count and sums are those of all classes."""
        count, sums = 0, words.Sum(dimension)
        for part in classes.values():
            count += part.count
            sums.add(part.sums)
        if count >= MOST_ROWS:
            raise OverflowError(f"moments of {count:,} rows; allowed: fewer than {MOST_ROWS:,}")
        ordered = {label: classes[label] for label in sorted(classes, key=_order)}
        return cls(count, sums.result(), products, ordered)

    @classmethod
    def sum_all(cls, parts: Iterable[Moments]) -> Moments:
        """Return the moments of the rows of all parts, at least one. With an iterator, two are in memory at a time."""
        total: _Total | None = None
        for part in parts:
            total = total or _Total(part.dimension)
            total.add(part)
        if total is None:
            raise ValueError("no moments to add; at least one is needed")
        return cls._from_classes(*total.result())

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of the rows of both."""
        return Moments.sum_all([self, other])

    def __sub__(self, other: Moments) -> Moments:
        """Return the moments of the rows of `self` without those of `other`.

        Raises
        ------
        DamageError
            `other` has rows that `self` does not have.
        """
        total = _Total(self.dimension)
        total.add(self)
        total.add(other, -1)
        return Moments._from_classes(*total.result())

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Moments)
            and self.count == other.count
            and np.array_equal(self.sums, other.sums)
            and np.array_equal(self.products, other.products)
            and self.classes == other.classes
        )

    __hash__ = None  # type: ignore[assignment]

    def mean(self) -> Float64:
        """Return the mean of each feature, (d,); zeros if there is no row."""
        return derived.mean(self.count, self.sums)

    def std(self) -> Float64:
        """Return the standard deviation (n - 1) of each feature, (d,); exactly 0 for a constant one."""
        return derived.std(self.count, self.sums, self.products)

    def covariance(self) -> Float64:
        """Return the covariance (n - 1) of the features, (d, d)."""
        return derived.covariance(self.count, self.sums, self.products)

    def correlation(self) -> Float64:
        """Return the covariance of the scaled features, (d, d); exactly 0 with a constant one."""
        return derived.correlation(self.count, self.sums, self.products)

    def class_means(self) -> Float64:
        """Return the mean of each feature in each class, (classes, d), in the order of `classes`."""
        means = [derived.mean(part.count, part.sums) for part in self.classes.values()]
        return np.array(means).reshape(-1, self.dimension)

    def to_bytes(self) -> bytes:
        """Return the moments in the safetensors format; equal moments give equal bytes."""
        classes = list(self.classes.values())
        class_sums = words.zeros(len(classes), self.dimension)
        for index, part in enumerate(classes):
            class_sums[: len(part.sums), index] = part.sums
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "count": np.array([self.count], np.int64),
            "sums": self.sums,
            "products": self.products,
            "labels": np.frombuffer(orjson.dumps(list(self.classes)), np.uint8),
            "class_counts": np.array([part.count for part in classes], np.int64),
            "class_sums": words.trimmed(class_sums),
        }
        return safetensors.numpy.save(arrays | {"sha256": _checksum(arrays)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Moments:
        """Return the moments encoded by :meth:`to_bytes`.

        Raises
        ------
        ValueError
            The data are corrupt.
        """
        try:
            arrays = safetensors.numpy.load(data)
            if not np.array_equal(arrays.pop("sha256"), _checksum(arrays)):
                raise ValueError("not moments: the SHA-256 of its arrays differs from the stated one")
        except (safetensors.SafetensorError, KeyError) as error:
            raise ValueError(f"not moments: {error}") from error
        labels = _checked_labels(arrays)
        sums, counts = arrays["class_sums"], arrays["class_counts"].tolist()
        parts = [words.trimmed(np.ascontiguousarray(sums[:, index])) for index in range(len(counts))]
        classes = dict(zip(labels, map(ClassSums, counts, parts), strict=True))
        moments = cls._from_classes(classes, arrays["products"], sums.shape[2])
        if moments.to_bytes() != data:
            raise ValueError("not moments: its arrays contradict each other")
        return moments


class _Total:
    """A running sum of moments."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._products = words.Sum(dimension * (dimension + 1) // 2)
        self._counts: dict[Label, int] = {}
        self._sums: dict[Label, words.Sum] = {}

    def add(self, part: Moments, sign: int = 1) -> None:
        if part.dimension != self._dimension:
            raise ValueError(f"moments of {part.dimension} features cannot be added to those of {self._dimension}")
        self._products.add(part.products, sign)
        for label, own in part.classes.items():
            self._counts[label] = self._counts.get(label, 0) + sign * own.count
            self._sums.setdefault(label, words.Sum(self._dimension)).add(own.sums, sign)

    def result(self) -> tuple[Mapping[Label, ClassSums], Int64, int]:
        """Return the classes, the products and the dimension."""
        classes = {label: ClassSums(count, self._sums[label].result()) for label, count in self._counts.items()}
        for label, part in classes.items():
            if part.count < 0 or (part.count == 0 and part.sums.any()):
                raise DamageError(
                    f"rows of class {name_text(label or 'None')} are subtracted from moments without them. "
                    "Stored moments are corrupt, or of another job. Start the job again with `overwrite`."
                )
        return {label: part for label, part in classes.items() if part.count}, self._products.result(), self._dimension


def _order(label: Label) -> tuple[bool, str]:
    return label is not None, label or ""


def _checksum(arrays: Mapping[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.uint8]:
    digest = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays)))
    return np.frombuffer(digest.digest(), np.uint8)


def _checked_labels(arrays: Mapping[str, npt.NDArray[np.generic]]) -> list[Label]:
    """Return the labels of stored arrays, after a check of the names, types, shapes and ranges of all arrays."""
    wanted = {"count": 1, "sums": 2, "products": 2, "labels": 1, "class_counts": 1, "class_sums": 3}
    if {name: array.ndim for name, array in arrays.items()} != wanted:
        raise ValueError(f"not moments: arrays {', '.join(sorted(arrays))}; allowed: {', '.join(sorted(wanted))}")
    for name, array in arrays.items():
        if array.dtype != (np.uint8 if name == "labels" else np.int64):
            raise ValueError(f"not moments: {name} of {array.dtype}")
    try:
        labels = orjson.loads(arrays["labels"].tobytes())
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not moments: labels: {error}") from error
    dimension = arrays["sums"].shape[1]
    shapes = {"products": (dimension * (dimension + 1) // 2,), "class_sums": (len(arrays["class_counts"]), dimension)}
    for name, shape in shapes.items():
        if arrays[name].shape[1:] != shape:
            raise ValueError(f"not moments: {name} of shape {arrays[name].shape} for {dimension} features")
    for name in ("sums", "products", "class_sums"):
        if not words.is_canonical(arrays[name].view(np.int64)):
            raise ValueError(f"not moments: {name} outside its range")
    if (
        not isinstance(labels, list)
        or not all(label is None or isinstance(label, str) for label in labels)
        or len(set(labels)) != len(arrays["class_counts"])
        or arrays["class_counts"].min(initial=1) < 1
    ):
        raise ValueError("not moments: its labels and their counts contradict each other")
    return labels
