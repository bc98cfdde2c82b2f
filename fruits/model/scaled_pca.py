"""Standardisation and PCA as one model.

Conventions on every backend: float64; standard deviation with n - 1; a constant feature scales to 0; components are
the eigenvectors of the covariance of the scaled features, by decreasing eigenvalue, each with its largest-magnitude
loading (the first of equals) positive; the training mean is subtracted.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from fruits.errors import ModelError
from fruits.model import conversions
from fruits.model.components import choose_components
from fruits.model.exact.product import product
from fruits.model.model_files import ARRAYS, StoredModel, encode_arrays, encode_model, read_model
from fruits.storage.folder import Folder

if TYPE_CHECKING:
    import dask.dataframe
    import pyspark.ml
    import pyspark.sql
    import sklearn.pipeline

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# By package of the DataFrames, the module with their `transform`. The model imports no engine, and one only has frames
# of an engine that is loaded.
FRAMES = {"dask": "backends.dask.frames", "pyspark": "backends.spark.frames"}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ScaledPCA:
    """A fitted standardisation and PCA.

    Attributes
    ----------
    mean : ndarray of shape (d,), float64
        The training mean of each feature.
    scale : ndarray of shape (d,), float64
        The standard deviation (n - 1) of each feature; 0 for a constant feature.
    components : ndarray of shape (k, d), float64
        The principal axes of the scaled features, one per row, by decreasing variance.
    eigenvalues : ndarray of shape (d,), float64
        The variance along every axis, decreasing; the first k belong to the components.
    rows : int
        The number of training rows.
    network : mapping of str to str
        The network that computed the features: ``backbone``, ``engine``, ``weights`` (a digest), and
        how images were decoded for it, ``decode``.
    """

    mean: Float64
    scale: Float64
    components: Float64
    eigenvalues: Float64
    rows: int
    network: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        components, features = self.components.shape
        return (
            f"ScaledPCA(features={features}, components={components}, rows={self.rows}, "
            f"explained_variance_ratio={self.explained_variance_ratio.sum():.4f}, "
            f"backbone={self.network.get('backbone')!r})"
        )

    @property
    def explained_variance(self) -> Float64:
        """The variance along each component, shape (k,)."""
        return self.eigenvalues[: len(self.components)]

    @property
    def explained_variance_ratio(self) -> Float64:
        """The fraction of the total variance along each component, shape (k,)."""
        ratio: Float64 = self.explained_variance / self.eigenvalues.sum()
        return ratio

    def components_reaching(self, fraction: float) -> int:
        """Return the number of components, kept or not, that reach a fraction of the variance in (0, 1]."""
        return choose_components(self.eigenvalues / self.eigenvalues.sum(), fraction, self.rows)

    @overload
    def transform(self, features: npt.NDArray[np.floating[Any]]) -> tuple[Float64, Float64]: ...

    @overload
    def transform(self, features: pyspark.sql.DataFrame) -> pyspark.sql.DataFrame: ...

    @overload
    def transform(self, features: dask.dataframe.DataFrame) -> dask.dataframe.DataFrame: ...

    def transform(self, features: Any) -> Any:
        """Return the scaled features, (n, d), and the scores, (n, k), both float64.

        Parameters
        ----------
        features : ndarray of shape (n, d), float32 or float64
            Or a DataFrame of Spark or Dask with the column ``features``. The result is then a DataFrame with two more
            columns, ``scaled_features`` and ``pca_features``: float32, with the bits of a job's rows. See
            ``backends.spark.transform`` and ``backends.dask.transform``, which take another name of the column.

        Raises
        ------
        ModelError
            The array contains no numbers or is not two-dimensional, or the model was fitted on another number of
            features.
        SettingsError
            A column of the DataFrame is missing, exists, or has another type.
        """
        package = type(features).__module__.partition(".")[0]
        if package in FRAMES and type(features).__name__ == "DataFrame":
            return importlib.import_module(FRAMES[package]).transform(features, self)
        try:
            features = np.asarray(features)
        except ValueError as error:  # rows of different lengths
            raise ModelError(f"features: {error}. Allowed: an array of shape (n, {len(self.mean)}).") from error
        if features.dtype.kind not in "fiu":
            raise ModelError(f"features of type {features.dtype}: not allowed. Allowed: float32 or float64.")
        if features.ndim != 2:
            raise ModelError(
                f"features of shape {features.shape}: not allowed. Allowed: (n, {len(self.mean)}), a row for each "
                "image. Give a single vector as vector[numpy.newaxis]."
            )
        if features.shape[1] != len(self.mean):
            raise ModelError(
                f"features of shape {features.shape} do not fit a model of {len(self.mean)} features. "
                "Use the backbone that the model was fitted with."
            )
        scaled = features - self.mean
        np.divide(scaled, self.scale, out=scaled, where=self.scale > 0)
        scaled[:, self.scale == 0] = 0.0
        return scaled, product(scaled, self.components)

    def digest(self) -> str:
        """Return the SHA-256 of the stored arrays: models with equal digests give equal rows."""
        return hashlib.sha256(encode_arrays(self._arrays())).hexdigest()

    def _arrays(self) -> dict[str, Float64]:
        return {name: getattr(self, name) for name in ARRAYS}

    def save(self, folder: str | Folder) -> None:
        """Write the model to a folder, as ``model.json`` and ``scaled_pca.safetensors``."""
        out = folder if isinstance(folder, Folder) else Folder.at(folder)
        for name, data in self.encode().items():
            out.write(name, data)

    def encode(self, owner: str = "") -> dict[str, bytes]:
        """Return the files of the model by name, in the order in which they must be written."""
        return encode_model(StoredModel(self._arrays(), self.rows, self.network), self.explained_variance_ratio, owner)

    @classmethod
    def load(cls, folder: str | os.PathLike[str] | Folder, owner: str | None = None) -> ScaledPCA:
        """Return the model stored by :meth:`save`.

        Parameters
        ----------
        folder : str, path object or Folder
            The folder of the model, or the output folder of the job that fitted it.
        owner : str, optional
            The owner in the names of its files in an output folder; default: that of the last commit.

        Raises
        ------
        ModelError
            The model is missing or corrupt, its schema is unknown, or its parts contradict each other.
        """
        stored = read_model(folder if isinstance(folder, Folder) else Folder.at(folder), owner)
        return cls(**stored.arrays, rows=stored.rows, network=stored.network)

    def to_sklearn(self) -> sklearn.pipeline.Pipeline:
        """Return a fitted ``Pipeline(StandardScaler, PCA)`` that gives the same scores.

        The ``scale_`` of a constant feature is infinite, so that the feature scales to 0 here too.

        Raises
        ------
        SettingsError
            scikit-learn is not installed.
        """
        return conversions.sklearn_pipeline(self.mean, self.scale, self.components, self.eigenvalues, self.rows)

    def to_spark(self) -> pyspark.ml.PipelineModel:
        """Return a fitted ``PipelineModel`` of a StandardScalerModel and a PCAModel that gives the same scores.

        It reads the column ``features`` (a vector) and adds ``scaled_features`` and ``pca_features``.

        Raises
        ------
        SettingsError
            PySpark is not installed, or no Spark session is running.
        """
        return conversions.spark_pipeline(self.mean, self.scale, self.components, self.explained_variance_ratio)
