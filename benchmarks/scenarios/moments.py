"""Stored features to a fitted model: this project's exact solver and the estimators of other libraries.

=============== ================================================================================================
dask, spark     the exact solver on that backend: the tree of moments, then the eigenvectors
local
dask-ml         its StandardScaler and PCA (``svd_solver="full"``), as used by ``--solver native``
spark-ml        its StandardScaler and PCA, as used by ``--solver native``
scikit-learn    its StandardScaler and PCA (``svd_solver="covariance_eigh"``, its fastest exact solver), in memory
=============== ================================================================================================
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import backends
from benchmarks.scenarios.task import Task, Timings
from fruits.executor import native_solver
from fruits.jobs.tasks.moments import Input, MergeItem, MergeSettings, levels, merge
from fruits.model.components import fix_signs
from fruits.model.moments import Moments
from fruits.model.scaled_pca import ScaledPCA
from fruits.model.solver import solve
from fruits.storage.commits import OwnedFolder
from fruits.storage.folder import Folder
from fruits.storage.parquet import vectors

FEATURES = 1280  # of MobileNetV2
NATIVE = {"dask-ml": "dask", "spark-ml": "spark"}
REQUIRES = {
    "dask": ("distributed",),
    "spark": ("pyspark",),
    "dask-ml": ("distributed", "dask_ml"),
    "spark-ml": ("pyspark",),
    "scikit-learn": ("sklearn",),
}


def run(task: Task) -> Timings:
    """Fit the model and store it."""
    case = task.case
    out = Folder(task.out)
    parts = sorted(Path(task.data, "features").glob("*.parquet"))
    rows = [pq.read_metadata(part).num_rows for part in parts]
    if case.backend == "scikit-learn":
        begin = started = time.perf_counter()
        model = _fit_scikit_learn(parts, case.components)
        return _save(model, out, begin, started)
    begin = time.perf_counter()
    engine = NATIVE.get(case.backend, case.backend)
    with backends.load(engine)(workers=case.workers) as executor:  # type: ignore[call-arg]
        executor.start()
        started = time.perf_counter()
        if case.backend in NATIVE:
            model = native_solver(executor).fit_native([str(part) for part in parts], rows, case.components)
        else:
            settings = MergeSettings(Folder(task.data), FEATURES, OwnedFolder(out), by_label=True)
            inputs: list[Input] = [(f"features/{part.name}", None) for part in parts]
            for level in levels(rows):
                items = [
                    MergeItem(group, f"moments/{group.level}-{group.index}", tuple(inputs[group.start : group.stop]))
                    for group in level
                ]
                executor.map(merge, items, shared=settings)
                inputs = [(item.name, None) for item in items]
            model = solve(Moments.from_bytes(out.read(inputs[0][0])), case.components)
        return _save(model, out, begin, started)


def _save(model: ScaledPCA, out: Folder, begin: float, started: float) -> Timings:
    model.save(out / "model")
    return Timings(seconds={"start-up": started - begin, "fit": time.perf_counter() - started})


def _fit_scikit_learn(parts: list[Path], components: int) -> ScaledPCA:
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([vectors(pq.read_table(part, columns=["features"])["features"]) for part in parts])
    rows = len(features)
    scaler = StandardScaler().fit(features.astype(np.float64))
    pca = PCA(svd_solver="covariance_eigh").fit(scaler.transform(features.astype(np.float64)))
    to_sample = (rows - 1) / rows  # scikit-learn divides by n, ScaledPCA by n - 1
    return ScaledPCA(
        mean=scaler.mean_,
        scale=scaler.scale_ / np.sqrt(to_sample),
        components=fix_signs(pca.components_[:components]),
        eigenvalues=pca.explained_variance_ * to_sample,
        rows=rows,
    )
