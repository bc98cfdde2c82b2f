"""Spark ML's StandardScaler and PCA, converted to the conventions of :mod:`fruits.model.scaled_pca`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from pyspark.ml.feature import PCA, StandardScaler
from pyspark.ml.functions import array_to_vector
from pyspark.sql import SparkSession

from fruits.model.components import check_components, choose_components, fix_signs
from fruits.model.scaled_pca import ScaledPCA


def fit(session: SparkSession, features: Sequence[str], rows: Sequence[int], components: int | float) -> ScaledPCA:
    """Return the model that Spark ML fits; see ``fruits.executor.NativeSolver.fit_native``."""
    parts = [_path(address) for address, count in zip(features, rows, strict=True) if count]
    count = sum(rows)
    frame = session.read.parquet(*parts) if parts else None
    first = frame.first() if frame is not None else None
    width = len(first["features"]) if first is not None else 0
    check_components(components, count, width)

    assert frame is not None
    frame = frame.select(array_to_vector(frame["features"]).alias("features"))
    scaler = StandardScaler(withMean=True, inputCol="features", outputCol="scaled").fit(frame)
    pca = PCA(k=width, inputCol="scaled", outputCol="scores").fit(scaler.transform(frame))

    scale = scaler.std.toArray()
    ratio = pca.explainedVariance.toArray()
    kept = choose_components(ratio, components, count)
    return ScaledPCA(
        mean=scaler.mean.toArray(),
        scale=scale,
        components=fix_signs(pca.pc.toArray().T[:kept]),
        # Spark returns variance ratios only. A scaled feature has variance 1, or 0 if it is constant.
        eigenvalues=ratio * np.count_nonzero(scale),
        rows=count,
    )


def _path(address: str) -> str:
    """Return an address for Hadoop: S3 under its connector's scheme, glob characters escaped."""
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", re.sub("^s3://", "s3a://", address))
