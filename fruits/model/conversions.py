"""Conversions of a model into fitted estimators of scikit-learn and Spark ML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fruits.errors import SettingsError

if TYPE_CHECKING:
    import pyspark.ml
    import sklearn.pipeline

Float64 = npt.NDArray[np.float64]


def sklearn_pipeline(
    mean: Float64, scale: Float64, components: Float64, eigenvalues: Float64, rows: int
) -> sklearn.pipeline.Pipeline:
    """Return a fitted ``Pipeline(StandardScaler, PCA)``."""
    try:
        from sklearn.decomposition import PCA
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise SettingsError("to_sklearn: scikit-learn is not installed: pip install scikit-learn.") from error
    scaler = StandardScaler()
    scaler.mean_ = mean.copy()
    scaler.var_ = scale**2
    scaler.scale_ = np.where(scale > 0, scale, np.inf)  # scikit-learn divides by it: a constant feature becomes 0
    scaler.n_samples_seen_ = rows
    scaler.n_features_in_ = len(mean)
    kept = len(components)
    rest = min(rows - 1, len(mean)) - kept
    pca = PCA(n_components=kept, svd_solver="full")
    pca.n_components_ = kept
    pca.n_samples_ = rows
    pca.n_features_in_ = len(mean)
    pca.mean_ = np.zeros_like(mean)
    pca.components_ = components.copy()
    pca.explained_variance_ = eigenvalues[:kept].copy()
    pca.explained_variance_ratio_ = eigenvalues[:kept] / eigenvalues.sum()
    pca.singular_values_ = np.sqrt(np.maximum(eigenvalues[:kept], 0.0) * (rows - 1))
    pca.noise_variance_ = eigenvalues[kept:].sum() / rest if rest > 0 else 0.0
    return Pipeline([("scaler", scaler), ("pca", pca)])


def spark_pipeline(
    mean: Float64, scale: Float64, components: Float64, explained_variance_ratio: Float64
) -> pyspark.ml.PipelineModel:
    """Return a fitted ``PipelineModel(StandardScalerModel, PCAModel)``; a Spark session must be running."""
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
    kept, dimension = components.shape

    def fitted(kind: Any, *arrays: DenseVector | DenseMatrix) -> Any:
        java = getattr(jvm, kind.__name__)
        return kind(java(f"fruits_{kind.__name__}", *(_py2java(context, array) for array in arrays)))

    scaler = fitted(feature.StandardScalerModel, DenseVector(scale), DenseVector(mean))
    axes = DenseMatrix(dimension, kept, components.ravel(), isTransposed=False)
    pca = fitted(feature.PCAModel, axes, DenseVector(explained_variance_ratio))
    for model, source, target in ((scaler, "features", "scaled_features"), (pca, "scaled_features", "pca_features")):
        model._set(inputCol=source, outputCol=target)
    scaler._set(withMean=True, withStd=True)
    pca._set(k=kept)
    return PipelineModel([scaler, pca])
