"""Stored features to a fitted model: this library's exact solver, and the estimators that others have.

=============== ================================================================================================
local, dask     the exact solver on that backend: the tree of moments, and the eigenvectors
spark
dask-ml         its StandardScaler and PCA (``svd_solver="full"``), as ``--solver native`` uses them
spark-ml        its StandardScaler and PCA, likewise
scikit-learn    its StandardScaler and PCA (``svd_solver="covariance_eigh"``, the fastest of its exact ones), in memory
=============== ================================================================================================
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import backends
from benchmarks.child import Done, Task
from fruits.errors import DamageError
from fruits.jobs import tasks
from fruits.model.components import fix_signs
from fruits.model.moments import Moments, levels
from fruits.model.rows import features_table
from fruits.model.scaled_pca import ScaledPCA
from fruits.model.solver import solve
from fruits.storage.folder import Folder, part_name
from fruits.storage.parquet import vectors, write_table

BACKENDS = ("dask", "spark", "local", "dask-ml", "spark-ml", "scikit-learn")
DATA = "features"
ANSWER = "model"

NATIVE = {"dask-ml": "dask", "spark-ml": "spark"}
REQUIRES = {
    "dask": ("distributed",),
    "spark": ("pyspark",),
    "dask-ml": ("distributed", "dask_ml"),
    "spark-ml": ("pyspark",),
    "scikit-learn": ("sklearn",),
}
ROWS_PER_PART = 1024
FEATURES = 1280
FACTORS = 256


def features_set(rows: int, cache: Path) -> Path:
    """Return a folder of generated features, with a spectrum that falls as that of real ones does."""
    folder = cache / f"features-{rows}"
    if (folder / ".complete").exists():
        return folder
    rng = np.random.default_rng(0)
    factors = (rng.standard_normal((FACTORS, FEATURES)) * np.geomspace(1, 0.05, FACTORS)[:, None]).astype(np.float32)
    for index, start in enumerate(range(0, rows, ROWS_PER_PART)):
        count = min(ROWS_PER_PART, rows - start)
        features = rng.standard_normal((count, FACTORS), np.float32) @ factors
        features += 0.3 * rng.standard_normal((count, FEATURES), np.float32)
        names = [f"label/{start + number}" for number in range(count)]
        table = features_table(names, ["label"] * count, np.clip(features, 0, 6))  # the network ends in a ReLU6
        (Folder(str(folder)) / "features").write(part_name(index, "parquet"), write_table(table))
    (folder / ".complete").touch()
    return folder


def run(task: Task) -> Done:
    """Fit, and store the model."""
    case = task.case
    out = Folder(task.out)
    parts = sorted(Path(task.data, "features").glob("*.parquet"))
    rows = [pq.read_metadata(part).num_rows for part in parts]
    if case.backend == "scikit-learn":
        begin = started = time.perf_counter()
        model = _scikit_learn(parts, case.components)
        return _stored(model, out, begin, started)
    begin = time.perf_counter()
    engine = NATIVE.get(case.backend, case.backend)
    with backends.load(engine)(workers=case.workers) as executor:  # type: ignore[call-arg]
        executor.start()
        started = time.perf_counter()
        if case.backend in NATIVE:
            model = executor.fit_native([str(part) for part in parts], rows, case.components)
        else:
            Path(task.out).mkdir()
            Path(task.out, "features").symlink_to(Path(task.data, "features"))
            tree = levels(len(parts))
            for level in tree:
                for merged in executor.map(tasks.merge, level, shared=out):
                    if merged.damages:
                        raise DamageError(str(merged.damages[0]))
            model = solve(Moments.from_bytes(out.read(tasks.moments_name(len(tree), 0))), case.components)
        return _stored(model, out, begin, started)


def _stored(model: ScaledPCA, out: Folder, begin: float, started: float) -> Done:
    model.save(out / "model")
    return Done(seconds={"start-up": started - begin, "fit": time.perf_counter() - started})


def _scikit_learn(parts: list[Path], components: int) -> ScaledPCA:
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([vectors(pq.read_table(part, columns=["features"])["features"]) for part in parts])
    rows = len(features)
    scaler = StandardScaler().fit(features.astype(np.float64))
    pca = PCA(svd_solver="covariance_eigh").fit(scaler.transform(features.astype(np.float64)))
    to_sample = (rows - 1) / rows  # scikit-learn scales with n, this model with n - 1
    return ScaledPCA(
        mean=scaler.mean_,
        scale=scaler.scale_ / np.sqrt(to_sample),
        components=fix_signs(pca.components_[:components]),
        eigenvalues=pca.explained_variance_ * to_sample,
        rows=rows,
    )
