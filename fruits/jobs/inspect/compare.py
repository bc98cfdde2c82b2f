"""Comparison of two outputs, bit by bit: identical, or the place and size of each difference."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fruits.errors import OutputError
from fruits.jobs.job import FITTING
from fruits.jobs.report import finished, reading, row_files
from fruits.model.model_files import ARRAYS
from fruits.model.rows import decode_rows
from fruits.model.scaled_pca import ScaledPCA
from fruits.storage.folder import Folder
from fruits.text import without_secrets

Array = npt.NDArray[np.floating[Any]]
Columns = dict[str, list[str | None] | npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between two outputs.

    Attributes
    ----------
    name : str
        The column of the rows, or ``model.`` and the name of the array.
    values : int
        The number of values that differ in at least one bit.
    largest : float
        The largest absolute difference; infinite if texts or shapes differ.
    first : str
        The place of the first difference.
    """

    name: str
    values: int
    largest: float
    first: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a comparison.

    Attributes
    ----------
    rows : int
        The number of compared rows.
    model : bool
        Whether both outputs contain a model, which was then compared.
    differences : tuple of Difference
        Empty if the outputs are identical to the last bit.
    """

    rows: int
    model: bool
    differences: tuple[Difference, ...]

    @property
    def identical(self) -> bool:
        """True if every bit is the same."""
        return not self.differences

    @property
    def largest(self) -> float:
        """The largest absolute difference; 0 if the outputs are identical."""
        return max((difference.largest for difference in self.differences), default=0.0)


def compare(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Comparison:
    """Compare the models and the rows of two finished outputs.

    Rows are matched by their path, if the rows contain it, and else by their order. The partitions may differ, and the
    rows may be Parquet on one side and CSV on the other.

    Raises
    ------
    OutputError
        One of them is not a finished output or cannot be read, or their columns or kinds of output differ.
    """
    left, right = Folder.at(a), Folder.at(b)
    with reading(f"{a} or {b}"):
        commits = finished(left), finished(right)
        models = [commit.job["command"] in FITTING for commit in commits]
        parts = [row_files(side, commit) for side, commit in zip((left, right), commits, strict=True)]
        if models[0] != models[1] and not all(parts):
            raise OutputError(f"{a} and {b} cannot be compared: one contains a model, the other only rows.")
        differences = _Differences()
        if all(models):
            one, two = ScaledPCA.load(left), ScaledPCA.load(right)
            for name in ARRAYS:
                differences.compare(f"model.{name}", getattr(one, name), getattr(two, name), "entry {}")
        rows = 0
        if any(parts):
            if not all(parts):
                raise OutputError(
                    f"{a if parts[1] else b} contains a model and no rows. Compare two runs, or two fits."
                )
            rows = _compare_rows(left, right, parts, differences)
    return Comparison(rows, all(models), tuple(differences.values()))


class _Differences(dict[str, Difference]):
    """The differences found so far, by name."""

    def add(self, name: str, values: int, largest: float, first: str) -> None:
        known = self.get(name, Difference(name, 0, 0.0, first))
        self[name] = Difference(name, known.values + values, max(known.largest, largest), known.first)

    def compare(self, name: str, a: Array, b: Array, place: str) -> None:
        """Add the difference between two arrays, if there is one; `place` formats the place of the first value."""
        if a.shape[1:] != b.shape[1:] or len(a) != len(b):
            self.add(name, 1, math.inf, f"shapes {a.shape} and {b.shape}")
            return
        bits = np.dtype(f"u{a.dtype.itemsize}")
        differ = np.ascontiguousarray(a).view(bits) != np.ascontiguousarray(b).view(bits)
        if differ.any():
            first = np.argwhere(differ)[0]
            gap = np.abs(a.astype(np.float64) - b.astype(np.float64))[differ]
            largest = float(np.max(np.where(np.isnan(gap), np.inf, gap)))
            self.add(name, int(differ.sum()), largest, place.format(", ".join(map(str, first))))


def _compare_rows(a: Folder, b: Folder, parts: Sequence[Sequence[str]], differences: _Differences) -> int:
    """Compare two sets of rows, one part of each in memory at a time, and return their number."""
    left, right = _columns(a, parts[0]), _columns(b, parts[1])
    one: Columns | None = None
    two: Columns | None = None
    rows = 0
    while True:
        one, two = _next(one, left), _next(two, right)
        if one is None or two is None:
            break
        if list(one) != list(two):
            raise OutputError(
                f"the rows of {a.address} have the columns {', '.join(one)}, those of {b.address} {', '.join(two)}. "
                "Compare outputs with the same `columns`."
            )
        count = _equal_paths(one, two)
        if count == 0:  # a row of one side only
            side, columns = (a, one) if str(one["path"][0]) < str(two["path"][0]) else (b, two)
            where = f"{columns['path'][0]}: only in {without_secrets(side.address)}"
            differences.add("rows", 1, math.inf, where)
            one, two = (_rest(one, 1), two) if columns is one else (one, _rest(two, 1))
            continue
        for name in one:
            x, y = one[name][:count], two[name][:count]
            if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
                differences.compare(name, x, y, f"row {rows} + {{}}")
            elif x != y:
                differ = [index for index in range(count) if x[index] != y[index]]
                at = differ[0]
                differences.add(name, len(differ), math.inf, f"row {rows + at}: {x[at]!r} and {y[at]!r}")
        rows += count
        one, two = _rest(one, count), _rest(two, count)
    for side, left_over, parts_left in ((a, one, left), (b, two, right)):
        while left_over is not None:
            where = f"row {rows}: only {without_secrets(side.address)} has more rows"
            differences.add("rows", _length(left_over), math.inf, where)
            left_over = _next(None, parts_left)
    return rows


def _equal_paths(one: Columns, two: Columns) -> int:
    """Return the number of first rows with equal paths; without paths, that of rows on both sides."""
    count = min(_length(one), _length(two))
    if "path" not in one or one["path"][:count] == two["path"][:count]:
        return count
    return next(index for index in range(count) if one["path"][index] != two["path"][index])


def _rest(columns: Columns, count: int) -> Columns:
    return {name: values[count:] for name, values in columns.items()}


def _columns(side: Folder, names: Iterable[str]) -> Iterator[Columns]:
    for name in names:
        yield decode_rows(side.read(name), f"{side.address}/{name}")


def _next(columns: Columns | None, parts: Iterator[Columns]) -> Columns | None:
    """Return the columns if they have rows left, otherwise those of the next part with rows."""
    while columns is None or _length(columns) == 0:
        columns = next(parts, None)
        if columns is None:
            return None
    return columns


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values())))
