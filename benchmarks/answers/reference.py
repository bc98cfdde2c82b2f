"""Reference answers: features from the local backend, and a model and rows computed from them in this process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.inputs.images import original
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.model.moments import Moments
from fruits.model.scaled_pca import ScaledPCA
from fruits.model.solver import solve
from fruits.storage.parquet import vectors

Float32 = npt.NDArray[np.float32]


class Reference:
    """Expected answers for image sets made from the same originals.

    Parameters
    ----------
    features : Path
        Folder in which the local backend stored the features of the original images.
    """

    def __init__(self, features: Path) -> None:
        paths, values, _ = read_features(features)
        self._values = values
        self._row = {path: row for row, path in enumerate(paths)}

    def features(self, images: Path) -> tuple[list[str], Float32]:
        """Return the sorted paths of an image set, without rejects, and their features."""
        names = [image.path for image in Listing(open_source(str(images))) if original(image.path) in self._row]
        return names, self._values[[self._row[original(name)] for name in names]]

    @lru_cache(maxsize=4)  # noqa: B019 - a reference lives as long as the process
    def model(self, images: Path, components: int) -> ScaledPCA:
        """Return the model expected from a fit on an image set."""
        return solve(Moments.from_features(self.features(images)[1]), components)

    @lru_cache(maxsize=2)  # noqa: B019
    def rows(self, images: Path, model: ScaledPCA) -> dict[str, Float32]:
        """Return the columns expected in the rows of an image set, in the order of its paths."""
        values = self.features(images)[1]
        scaled, scores = model.transform(values)
        rows = {"scaled_features": scaled.astype(np.float32), "pca_features": scores.astype(np.float32)}
        return {"features": values, **rows}


def fit_parts(parts: list[Float32], components: int) -> ScaledPCA:
    """Fit a model to features in parts."""
    blocks = ((part, None) for part in parts)
    return solve(Moments.from_blocks(blocks, parts[0].shape[1]), components)


def read_parts(folder: Path) -> list[Float32]:
    """Return the features of each Parquet file of a folder, in stored order."""
    return [vectors(pq.read_table(path, columns=["features"])["features"]) for path in sorted(folder.glob("*.parquet"))]


def read_features(folder: Path) -> tuple[list[str], Float32, dict[str, Float32]]:
    """Read Parquet files of any of the compared tools, with vectors of fixed or variable size.

    Returns
    -------
    paths : list of str
        Sorted.
    features : ndarray of float32, shape (n, features)
        In the order of the paths.
    others : dict of str to ndarray
        Other columns of vectors, by name.
    """
    table = pq.read_table(folder, partitioning=None, use_threads=False)
    paths = table["path"].to_pylist()
    order = np.array(sorted(range(len(paths)), key=paths.__getitem__), np.int64)
    columns = {
        name: _matrix(table[name])[order]
        for name in ("features", "scaled_features", "pca_features")
        if name in table.column_names
    }
    features = columns.pop("features")
    return [paths[index] for index in order], features, columns


def _matrix(column: pa.ChunkedArray) -> Float32:
    if pa.types.is_fixed_size_list(column.type):
        return vectors(column)
    flat: Float32 = column.combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return flat.reshape(len(column), -1)
