"""Standardisation and PCA as one model: how it is solved, applied, stored, and handed to other libraries.

The conventions, which hold on every backend: float64; standard deviation with n - 1; a feature that does not vary
scales to 0; components are the eigenvectors of the covariance of the scaled features by decreasing eigenvalue, each
signed so that its loading of largest magnitude (the first of equals) is positive; the training mean is subtracted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson
import safetensors
import safetensors.numpy
from threadpoolctl import threadpool_limits

from fruits.errors import DatasetError, ModelError, SettingsError
from fruits.model.moments import Moments
from fruits.storage.folder import Folder

if TYPE_CHECKING:
    import pyspark.ml
    import sklearn.pipeline

__all__ = ["ScaledPCA", "check_components", "choose_components", "fix_signs", "solve"]

SCHEMA = "fruits.scaled_pca/1"
JSON_NAME = "model.json"
ARRAYS_NAME = "scaled_pca.safetensors"
ARRAYS = ("mean", "scale", "components", "eigenvalues")
MAX_JSON_BYTES = 16 * 2**20
MAX_ARRAYS_BYTES = 256 * 2**20  # 5,700 features with all their components
HEADER_BYTES = 2**16  # of a safetensors file: what there is before the arrays

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ScaledPCA:
    """A fitted standardisation and PCA.

    Attributes
    ----------
    mean : ndarray of shape (d,), float64
        The training mean of each feature.
    scale : ndarray of shape (d,), float64
        The standard deviation (n - 1) of each feature; 0 for one that does not vary.
    components : ndarray of shape (k, d), float64
        The principal axes of the scaled features, one a row, by decreasing variance.
    eigenvalues : ndarray of shape (d,), float64
        The variance along every axis, decreasing: those of the k components first, then those not kept.
    rows : int
        The number of training rows.
    network : mapping of str to str
        Which network the features come from: ``backbone``, ``engine`` and ``weights`` (their digest).
    """

    mean: Float64
    scale: Float64
    components: Float64
    eigenvalues: Float64
    rows: int
    network: Mapping[str, str] = field(default_factory=dict)

    @property
    def explained_variance(self) -> Float64:
        """The variance along each component, shape (k,)."""
        return self.eigenvalues[: len(self.components)]

    @property
    def explained_variance_ratio(self) -> Float64:
        """The share of the total variance along each component, shape (k,)."""
        ratio: Float64 = self.explained_variance / self.eigenvalues.sum()
        return ratio

    def components_reaching(self, fraction: float) -> int:
        """Return how many components, kept or not, it takes to reach a fraction of the variance, in (0, 1)."""
        return choose_components(self.eigenvalues / self.eigenvalues.sum(), fraction)

    def transform(self, features: npt.NDArray[np.floating[Any]]) -> tuple[Float64, Float64]:
        """Return the scaled features, (n, d), and the scores, (n, k), both float64.

        Parameters
        ----------
        features : ndarray of shape (n, d), float32 or float64

        Raises
        ------
        ModelError
            The features have another length than those that the model was fitted on.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ModelError(
                f"features of shape {features.shape} given to a model of {len(self.mean)} features. "
                "Use the backbone that the model was fitted with."
            )
        scaled = features - self.mean
        np.divide(scaled, self.scale, out=scaled, where=self.scale > 0)
        scaled[:, self.scale == 0] = 0.0
        return scaled, scaled @ self.components.T

    def digest(self) -> str:
        """Return the SHA-256 of the stored arrays: two models with one digest give the same rows."""
        return hashlib.sha256(self._arrays()).hexdigest()

    def _arrays(self) -> bytes:
        return safetensors.numpy.save({name: getattr(self, name) for name in ARRAYS})

    def save(self, folder: str | Folder) -> None:
        """Store the model in a folder, as ``model.json`` and ``scaled_pca.safetensors``."""
        out = folder if isinstance(folder, Folder) else Folder.at(folder)
        arrays = self._arrays()
        about: dict[str, object] = {
            "schema": SCHEMA,
            "rows": self.rows,
            "features": len(self.mean),
            "components": len(self.components),
            "explained_variance_ratio": self.explained_variance_ratio.tolist(),
            "network": dict(self.network),
            "arrays": {"file": ARRAYS_NAME, "sha256": hashlib.sha256(arrays).hexdigest()},
        }
        out.write(ARRAYS_NAME, arrays)
        out.write_json(JSON_NAME, about | {"sha256": _digest(about)})

    @classmethod
    def load(cls, folder: str | Folder) -> ScaledPCA:
        """Return the model that :meth:`save` stored.

        Parameters
        ----------
        folder : str or Folder
            The folder of the model, or that of the job whose ``model/`` it is.

        Raises
        ------
        ModelError
            There is no model, its schema is not known, a byte of it has changed, or its parts do not fit each other.
        """
        source = folder if isinstance(folder, Folder) else Folder.at(folder)
        if not source.exists(JSON_NAME) and source.exists(f"model/{JSON_NAME}"):
            source = source / "model"
        try:
            about = _about(source)
            arrays = source.read(ARRAYS_NAME, limit=_arrays_bytes(about) + HEADER_BYTES)
        except FileNotFoundError as error:
            raise ModelError(
                f"{source.address}: no model here ({JSON_NAME} and {ARRAYS_NAME} are needed). "
                "Give the --out of a finished fit or run, or its model/ folder."
            ) from error
        except OSError as error:
            raise ModelError(f"{source.address}: the model cannot be read: {error.strerror or error}.") from error
        if hashlib.sha256(arrays).hexdigest() != about["arrays"]["sha256"]:
            raise _damaged(source, ARRAYS_NAME, "its bytes do not have the digest that model.json states")
        try:
            loaded = safetensors.numpy.load(arrays)
        except Exception as error:  # SafetensorError, and KeyError where it does not know a type
            raise _damaged(source, ARRAYS_NAME, f"{type(error).__name__}: {error}") from error
        features, components = about["features"], about["components"]
        shapes = dict.fromkeys(ARRAYS, (features,)) | {"components": (components, features)}
        found = {name: (str(array.dtype), array.shape) for name, array in loaded.items()}
        if found != {name: ("float64", shape) for name, shape in shapes.items()}:
            raise _damaged(source, ARRAYS_NAME, f"it holds {found}; model.json says float64 of {shapes}")
        if not all(np.isfinite(array).all() for array in loaded.values()) or (loaded["scale"] < 0).any():
            raise _damaged(source, ARRAYS_NAME, "its numbers are not finite, or a standard deviation is negative")
        return cls(**loaded, rows=about["rows"], network=about["network"])

    def to_sklearn(self) -> sklearn.pipeline.Pipeline:
        """Return a fitted ``Pipeline(StandardScaler, PCA)`` that gives the same scores.

        A feature that does not vary gets an infinite ``scale_``, which scikit-learn divides by: it scales to 0 here
        too.
        """
        try:
            from sklearn.decomposition import PCA
            from sklearn.pipeline import Pipeline
            from sklearn.preprocessing import StandardScaler
        except ImportError as error:
            raise SettingsError("to_sklearn: scikit-learn is not installed: pip install scikit-learn.") from error
        scaler = StandardScaler()
        scaler.mean_ = self.mean.copy()
        scaler.var_ = self.scale**2
        scaler.scale_ = np.where(self.scale > 0, self.scale, np.inf)
        scaler.n_samples_seen_ = self.rows
        scaler.n_features_in_ = len(self.mean)
        kept = len(self.components)
        rest = min(self.rows - 1, len(self.mean)) - kept
        pca = PCA(n_components=kept, svd_solver="full")
        pca.n_components_ = kept
        pca.n_samples_ = self.rows
        pca.n_features_in_ = len(self.mean)
        pca.mean_ = np.zeros_like(self.mean)
        pca.components_ = self.components.copy()
        pca.explained_variance_ = self.explained_variance.copy()
        pca.explained_variance_ratio_ = self.explained_variance_ratio
        pca.singular_values_ = np.sqrt(np.maximum(self.explained_variance, 0.0) * (self.rows - 1))
        pca.noise_variance_ = self.eigenvalues[kept:].sum() / rest if rest > 0 else 0.0
        return Pipeline([("scaler", scaler), ("pca", pca)])

    def to_spark(self) -> pyspark.ml.PipelineModel:
        """Return a fitted ``PipelineModel`` of a StandardScalerModel and a PCAModel that gives the same scores.

        It reads the column ``features`` (a vector) and adds ``scaled_features`` and ``pca_features``. A Spark session
        has to be running.
        """
        try:
            from pyspark.ml import PipelineModel, feature
            from pyspark.ml.common import _py2java
            from pyspark.ml.linalg import DenseMatrix, DenseVector
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise SettingsError("to_spark: PySpark is not installed: pip install 'fruits[spark]'.") from error
        session = SparkSession.getActiveSession()
        if session is None:
            raise SettingsError("to_spark: no Spark session is running. Start one first.")
        context = session.sparkContext
        jvm = context._jvm.org.apache.spark.ml.feature  # type: ignore[union-attr]
        kept, dimension = self.components.shape

        def fitted(kind: Any, *arrays: DenseVector | DenseMatrix) -> Any:
            java = getattr(jvm, kind.__name__)
            return kind(java(f"fruits_{kind.__name__}", *(_py2java(context, array) for array in arrays)))

        scaler = fitted(feature.StandardScalerModel, DenseVector(self.scale), DenseVector(self.mean))
        axes = DenseMatrix(dimension, kept, self.components.ravel(), isTransposed=False)
        pca = fitted(feature.PCAModel, axes, DenseVector(self.explained_variance_ratio))
        for model, given, made in ((scaler, "features", "scaled_features"), (pca, "scaled_features", "pca_features")):
            model._set(inputCol=given, outputCol=made)
        scaler._set(withMean=True, withStd=True)
        pca._set(k=kept)
        return PipelineModel([scaler, pca])


def solve(moments: Moments, components: int | float, *, network: Mapping[str, str] | None = None) -> ScaledPCA:
    """Return the model of the rows that `moments` describes.

    Parameters
    ----------
    moments : Moments
        Of at least two rows.
    components : int or float
        A count of at most min(n - 1, d), or the fraction of variance to keep, in (0, 1).
    network : mapping, optional
        Which network the features come from.

    Raises
    ------
    DatasetError
        There are fewer than two rows, or no feature varies.
    SettingsError
        More components are asked for than there can be.
    """
    check_components(components, moments.count, len(moments.mean))
    scale = np.sqrt(np.diagonal(moments.scatter) / (moments.count - 1))
    varies = scale > 0
    if not varies.any():
        raise DatasetError(
            f"no feature varies over the {moments.count:,} images: they are all alike, and nothing can be reduced. "
            "Give images that differ."
        )
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=varies)
    covariance = moments.scatter / (moments.count - 1) * inverse[:, None] * inverse
    with threadpool_limits(1):  # more threads add in another order
        values, vectors = np.linalg.eigh(covariance)
    values = np.ascontiguousarray(
        np.maximum(values[::-1], 0.0)
    )  # a covariance has no negative eigenvalue; rounding gives some
    kept = choose_components(values / values.sum(), components)
    return ScaledPCA(
        mean=moments.mean,
        scale=scale,
        components=fix_signs(vectors.T[::-1][:kept]),
        eigenvalues=values,
        rows=moments.count,
        network=dict(network or {}),
    )


def check_components(components: int | float, rows: int, dimension: int) -> None:
    """Raise where so many components cannot come of `rows` rows of `dimension` features.

    Raises
    ------
    DatasetError
        There are fewer than two rows.
    SettingsError
        A count is over min(rows - 1, dimension).
    """
    if rows < 2:
        raise DatasetError(f"{rows} usable image: a model needs at least 2. Give more images.")
    most = min(rows - 1, dimension)
    if isinstance(components, int) and components > most:
        raise SettingsError(
            f"--components {components}: {rows:,} images of {dimension:,} features have at most {most:,} components. "
            f"Allowed: 1 to {most:,}, or a fraction of variance between 0 and 1."
        )


def choose_components(ratio: Float64, components: int | float) -> int:
    """Return how many components to keep: the count, or the fewest that reach the fraction of variance.

    Parameters
    ----------
    ratio : ndarray of shape (m,), float64
        The explained variance ratio of every component, decreasing.
    components : int or float
        A count, or a fraction in (0, 1).
    """
    if isinstance(components, int):
        return components
    reached = int(np.searchsorted(np.cumsum(ratio), components)) + 1
    return min(reached, len(ratio))


def fix_signs(components: Float64) -> Float64:
    """Return the components, (k, d), each with its loading of largest magnitude, the first of equals, positive."""
    largest = np.argmax(np.abs(components), axis=1)
    signs = np.where(components[np.arange(len(components)), largest] < 0, -1.0, 1.0)
    return np.ascontiguousarray(components * signs[:, None])


def _digest(about: Mapping[str, object]) -> str:
    return hashlib.sha256(orjson.dumps(about, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _about(source: Folder) -> dict[str, Any]:
    """Return what ``model.json`` says, where all that is needed of it is of its kind."""
    try:
        about = orjson.loads(source.read(JSON_NAME, limit=MAX_JSON_BYTES))
    except orjson.JSONDecodeError as error:
        raise _damaged(source, JSON_NAME, str(error)) from error
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        schema = about.get("schema") if isinstance(about, dict) else None
        raise ModelError(f"{source.address}: schema {schema!r} is not known here. Allowed: {SCHEMA!r}.")
    stated = about.pop("sha256", None)
    if stated != _digest(about):
        raise _damaged(source, JSON_NAME, f"its digest is {_digest(about)}, it states {stated}")
    counts = [about.get(name) for name in ("features", "components", "rows")]
    arrays, network = about.get("arrays"), about.get("network")
    if not (
        all(type(count) is int and count > 0 for count in counts)
        and isinstance(arrays, dict)
        and isinstance(network, dict)
        and all(isinstance(value, str) for value in (arrays.get("sha256"), *network.values()))
        and about["components"] <= about["features"]
    ):
        raise _damaged(source, JSON_NAME, "it does not say features, components, rows, arrays and network as it has to")
    if (size := _arrays_bytes(about)) > MAX_ARRAYS_BYTES:
        raise _damaged(source, JSON_NAME, f"its arrays have {size:,} bytes, of {MAX_ARRAYS_BYTES:,} at most")
    return about


def _arrays_bytes(about: Mapping[str, int]) -> int:
    return np.dtype(np.float64).itemsize * about["features"] * (about["components"] + 3)


def _damaged(source: Folder, name: str, how: str) -> ModelError:
    return ModelError(f"{source.address}/{name} is damaged: {how}. Copy it again, or fit again.")
