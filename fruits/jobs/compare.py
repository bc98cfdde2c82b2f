"""Whether two outputs hold the same answer: to the last bit, or where and by how much they differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fruits.errors import OutputError
from fruits.jobs.report import finished
from fruits.model.rows import decode_rows
from fruits.model.scaled_pca import ScaledPCA
from fruits.storage.folder import Folder, part_name

__all__ = ["Comparison", "Difference", "compare"]

Columns = dict[str, list[str | None] | npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two outputs differ.

    Attributes
    ----------
    name : str
        The column of the rows, or ``model.`` and the name of the array.
    values : int
        How many values differ in at least one bit.
    largest : float
        The largest absolute difference; infinite where texts or shapes differ.
    first : str
        The first place at which they differ.
    """

    name: str
    values: int
    largest: float
    first: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found.

    Attributes
    ----------
    rows : int
        How many rows were compared.
    model : bool
        Whether both outputs hold a model; it was compared then.
    differences : tuple of Difference
        Empty where the two are identical to the last bit.
    """

    rows: int
    model: bool
    differences: tuple[Difference, ...]

    @property
    def identical(self) -> bool:
        """Whether not one bit differs."""
        return not self.differences

    @property
    def largest(self) -> float:
        """The largest absolute difference anywhere; 0 where there is none."""
        return max((difference.largest for difference in self.differences), default=0.0)


def compare(a: str, b: str) -> Comparison:
    """Return how the outputs at two addresses differ, in their models and row by row.

    The rows may be cut into other partitions, and be Parquet on one side and CSV on the other.

    Raises
    ------
    OutputError
        One of them is no finished output, or they hold different columns or different kinds of output.
    """
    left, right = finished(Folder.at(a)), finished(Folder.at(b))
    models = [side.exists("model/model.json") for side in (left, right)]
    parts = [(side / "rows").parts() for side in (left, right)]
    if models[0] != models[1] and not all(parts):
        raise OutputError(f"{a} and {b} have nothing in common: one holds a model, the other rows only.")
    differences: dict[str, Difference] = {}
    if all(models):
        _compare_models(ScaledPCA.load(left), ScaledPCA.load(right), differences)
    rows = 0
    if any(parts):
        if not all(parts):
            raise OutputError(f"{a if parts[1] else b} holds a model and no rows. Compare two runs, or two fits.")
        rows = _compare_rows(left, right, differences)
    return Comparison(rows, all(models), tuple(differences.values()))


def _compare_models(a: ScaledPCA, b: ScaledPCA, differences: dict[str, Difference]) -> None:
    for name in ("mean", "scale", "components", "eigenvalues"):
        _compare_arrays(f"model.{name}", getattr(a, name), getattr(b, name), "entry {}", differences)


def _compare_rows(a: Folder, b: Folder, differences: dict[str, Difference]) -> int:
    """Compare two sets of rows, however each is cut into parts; only a part of each is held at a time."""
    left, right = _parts(a), _parts(b)
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
                "Compare outputs with the same --columns."
            )
        count = min(_length(one), _length(two))
        for name in one:
            x, y = one[name][:count], two[name][:count]
            if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
                _compare_arrays(name, x, y, f"row {rows} + {{}}", differences)
            elif x != y:
                at = next(index for index in range(count) if x[index] != y[index])
                _note(
                    differences,
                    Difference(
                        name,
                        sum(p != q for p, q in zip(x, y, strict=True)),
                        float("inf"),
                        f"row {rows + at}: {x[at]!r} and {y[at]!r}",
                    ),
                )
        rows += count
        one = {name: values[count:] for name, values in one.items()}
        two = {name: values[count:] for name, values in two.items()}
    rest = [side for side, left_over in ((a, one), (b, two)) if left_over is not None]
    if rest:
        _note(differences, Difference("rows", 1, float("inf"), f"row {rows}: only {rest[0].address} goes on"))
    return rows


def _parts(side: Folder) -> Iterator[Columns]:
    folder = side / "rows"
    suffix = "csv" if any(name.endswith(".csv") for name in folder.names()) else "parquet"
    for index in folder.parts():
        name = part_name(index, suffix)
        yield decode_rows(folder.read(name), f"{folder.address}/{name}")


def _next(columns: Columns | None, parts: Iterator[Columns]) -> Columns | None:
    """Return the columns where rows are left in them, else those of the next part that has rows."""
    while columns is None or _length(columns) == 0:
        columns = next(parts, None)
        if columns is None:
            return None
    return columns


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _compare_arrays(
    name: str,
    a: npt.NDArray[np.floating[Any]],
    b: npt.NDArray[np.floating[Any]],
    place: str,
    differences: dict[str, Difference],
) -> None:
    if a.shape[1:] != b.shape[1:] or len(a) != len(b):
        _note(differences, Difference(name, 1, float("inf"), f"shapes {a.shape} and {b.shape}"))
        return
    bits = np.dtype(f"u{a.dtype.itemsize}")
    differ = np.ascontiguousarray(a).view(bits) != np.ascontiguousarray(b).view(bits)
    if differ.any():
        first = np.argwhere(differ)[0]
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64))[differ]
        largest = float(np.max(np.where(np.isnan(gap), np.inf, gap)))
        where = place.format(", ".join(map(str, first)))
        _note(differences, Difference(name, int(differ.sum()), largest, where))


def _note(differences: dict[str, Difference], found: Difference) -> None:
    known = differences.get(found.name)
    if known is None:
        differences[found.name] = found
    else:
        differences[found.name] = Difference(
            found.name, known.values + found.values, max(known.largest, found.largest), known.first
        )
