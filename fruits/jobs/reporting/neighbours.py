"""Near-duplicates and outliers among sampled rows, in the space of the principal components.

An exact search for near-duplicates compares all pairs. Here, rows are hashed so that close ones collide: each of
several tables divides the space by a few random directions into cells, and rows in one cell are compared with the next
few in it (Datar, Immorlica, Indyk and Mirrokni, "Locality-sensitive hashing scheme based on p-stable distributions",
2004). The work grows with the rows, also if all of them are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fruits.machine.cpus import available_cpus

# Of the typical distance of two images: the largest one of near-duplicates. Copies of 40 images of Fruits-360 that were
# saved again with quality 90, reduced to 90 %, or cropped by 3 % have a median of 0.19 to 0.21.
NEAR = 0.2
SAME = 1e-3  # of it: below, the images have the same features but for rounding
TABLES, DIRECTIONS = 24, 10
WIDTH = 4.0  # of a cell, in largest distances of near-duplicates
WINDOW = 8  # rows of a cell that a row is compared with
SCREEN = 16  # components that are compared first
CHUNK = 2**14  # pairs that are compared at once: 8 MB, so that they stay in the CPU cache
AT_ONCE = 6  # tables, between which equal pairs are removed
SMALLEST_LABEL = 5  # rows, of which a mean says something

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Pairs of near-duplicates, the closest first.

    Attributes
    ----------
    pairs : ndarray of shape (m, 2), int64
        The numbers of two rows, the smaller first.
    distances : ndarray of shape (m,), float64
        Their distance, in typical distances of two rows.
    """

    pairs: Int64
    distances: npt.NDArray[np.float64]

    def split(self, labels: Sequence[str | None]) -> tuple[Int64, Int64]:
        """Return the numbers of the pairs within a label, and of those across labels."""
        across = np.not_equal(*self._codes(labels))
        return np.flatnonzero(~across), np.flatnonzero(across)

    def closest(self, numbers: Int64, labels: Sequence[str | None], most: int) -> list[int]:
        """Return the closest of some pairs, one for each label, or for each two labels."""
        left, right = (each[numbers] for each in self._codes(labels))
        both = np.minimum(left, right) * (len(labels) + 1) + np.maximum(left, right)
        _, first = np.unique(both, return_index=True)
        chosen: list[int] = numbers[np.sort(first)[:most]].tolist()
        return chosen

    def _codes(self, labels: Sequence[str | None]) -> tuple[Int64, Int64]:
        """Return a number for the label of both rows of each pair."""
        known: dict[str | None, int] = {}
        codes = np.array([known.setdefault(label, len(known)) for label in labels], np.int64)
        return codes[self.pairs[:, 0]], codes[self.pairs[:, 1]]


@dataclass(frozen=True, slots=True)
class Outlier:
    """A row that is far from the mean of its label: its number, and its distance in median distances of the label."""

    row: int
    ratio: float


def find_neighbours(scores: Float32) -> Neighbours:
    """Return pairs of rows whose distance is at most a fifth of the typical one, the root mean square of all pairs.

    Two rows at the largest distance are in one cell of a direction with a probability of 0.80, and at half of it with
    0.90: of such pairs 93 and more than 99 of 100 share a cell of a table. In a cell of more than eight rows, some of
    them are not compared.

    Parameters
    ----------
    scores : ndarray of shape (n, k), float32
    """
    typical = float(np.sqrt(2.0 * scores.var(axis=0, dtype=np.float64).sum())) if len(scores) else 0.0
    if not typical > 0:
        return Neighbours(np.empty((0, 2), np.int64), np.empty(0))
    limit = np.float32(NEAR * typical)
    generator = np.random.default_rng(0)
    screened = np.ascontiguousarray(scores[:, :SCREEN])
    keys = np.empty(0, np.int64)  # left · n + right of the pairs found, sorted
    with ThreadPoolExecutor(available_cpus()) as pool:
        for _ in range(TABLES // AT_ONCE):
            directions = generator.standard_normal((scores.shape[1], AT_ONCE * DIRECTIONS)).astype(np.float32)
            places = scores @ directions / (limit * np.float32(WIDTH))
            places += generator.random(AT_ONCE * DIRECTIONS, np.float32)
            odd = generator.integers(0, 2**62, DIRECTIONS, np.int64) * 2 + 1
            tables = np.split(places, AT_ONCE, axis=1)
            found = pool.map(lambda places, odd=odd: _candidates(places, odd, screened, limit), tables)
            keys = _distinct(np.concatenate([keys, *found]))
    pairs = np.column_stack(np.divmod(keys, len(scores)))
    distances = _distances(scores, *pairs.T)
    near = np.flatnonzero(distances <= limit)
    ranked = near[np.argsort(distances[near], kind="stable")]
    return Neighbours(pairs[ranked], distances[ranked] / typical)


def _candidates(places: Float32, odd: Int64, screened: Float32, limit: np.float32) -> Int64:
    """Return the keys of pairs of rows in one cell of a table, next to each other or nearly so, and near in a part.

    A pair occurs once. Those of which the first components are farther apart than the limit are left out.
    """
    cells = (np.floor(places).astype(np.int64) * odd).sum(axis=1)  # wraps around, like any hash
    order = np.lexsort((places[:, 0], cells))
    cells = cells[order]
    found = [np.empty(0, np.int64)]
    for step in range(1, min(WINDOW, len(order) - 1) + 1):
        same = np.flatnonzero(cells[:-step] == cells[step:])
        left, right = order[same], order[same + step]
        near = _distances(screened, left, right) <= limit
        left, right = left[near], right[near]
        found.append(np.minimum(left, right) * len(order) + np.maximum(left, right))
    return np.concatenate(found)


def _distinct(values: Int64) -> Int64:
    """Return the distinct values, sorted; NumPy's `unique` needs 0.3 s for 400,000 of these keys."""
    values = np.sort(values)
    return values[np.diff(values, prepend=-1) > 0]


def _distances(scores: Float32, left: Int64, right: Int64) -> npt.NDArray[np.float64]:
    """Return the distances of pairs of rows."""
    found = np.empty(len(left))
    for start in range(0, len(left), CHUNK):
        some = slice(start, start + CHUNK)
        difference = scores[left[some]]
        difference -= scores[right[some]]
        found[some] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return found


def find_outliers(scores: Float32, labels: Sequence[str | None], most: int, per_label: int = 2) -> list[Outlier]:
    """Return the rows that are farthest from the mean of their label, compared with the other rows of it.

    Parameters
    ----------
    scores : ndarray of shape (n, k), float32
    labels : sequence of n (str or None)
        Rows without a label, and of labels with fewer than five rows, are left out.
    most, per_label : int
        The largest number of rows, of all labels and of each.
    """
    rows_of: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        if label:
            rows_of.setdefault(label, []).append(row)
    found: list[Outlier] = []
    for rows in rows_of.values():
        if len(rows) < SMALLEST_LABEL:
            continue
        own = scores[rows]
        distances = np.sqrt(np.square(own - own.mean(axis=0)).sum(axis=1))
        median = float(np.median(distances))
        if median > 0:
            farthest = np.argsort(-distances, kind="stable")[:per_label]
            found += [Outlier(rows[at], float(distances[at]) / median) for at in farthest]
    return sorted(found, key=lambda each: (-each.ratio, each.row))[:most]
