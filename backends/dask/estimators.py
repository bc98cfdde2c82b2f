"""dask-ml's StandardScaler and PCA, converted to the conventions of :mod:`fruits.model.scaled_pca`."""

from __future__ import annotations

from collections.abc import Sequence

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import delayed
from dask_ml.decomposition import PCA
from dask_ml.preprocessing import StandardScaler

from fruits.model.components import check_components, choose_components, fix_signs
from fruits.model.scaled_pca import ScaledPCA
from fruits.storage.folder import Folder
from fruits.storage.parquet import vectors

VALUES_PER_BLOCK = 2**24  # 128 MiB of float64; the QR decomposition reduces only blocks with more rows than columns


def fit(features: Sequence[str], rows: Sequence[int], components: int | float) -> ScaledPCA:
    """Return the model that dask-ml fits on the current client; see ``fruits.executor.NativeSolver.fit_native``."""
    parts = [(address, count) for address, count in zip(features, rows, strict=True) if count]
    count = sum(rows)
    width = _read(parts[0][0]).shape[1] if parts else 0
    check_components(components, count, width)

    read = delayed(_read)
    x = da.concatenate([da.from_delayed(read(address), (n, width), np.float64) for address, n in parts])
    x = x.rechunk((max(VALUES_PER_BLOCK // width, 4 * width), width))
    scaler = StandardScaler().fit(x)
    least, most = da.compute(x.min(axis=0), x.max(axis=0))
    varies = least < most  # dask's variance of equal values is not always 0, because of rounding
    to_sample = np.sqrt(count / (count - 1))  # dask-ml divides by n, this model by n - 1
    scaled = da.where(varies, scaler.transform(x) / to_sample, 0.0)
    pca = PCA(n_components=min(count, width), svd_solver="full").fit(scaled)

    eigenvalues = np.zeros(width)
    eigenvalues[: min(count, width)] = pca.explained_variance_
    kept = choose_components(eigenvalues / eigenvalues.sum(), components, count)
    return ScaledPCA(
        mean=np.asarray(scaler.mean_),
        scale=np.where(varies, np.asarray(scaler.scale_) * to_sample, 0.0),
        components=fix_signs(np.asarray(pca.components_)[:kept]),
        eigenvalues=eigenvalues,
        rows=count,
    )


def _read(address: str) -> npt.NDArray[np.float64]:
    folder, _, name = address.rpartition("/")
    return vectors(Folder(folder).read_table(name, ["features"])["features"]).astype(np.float64)
