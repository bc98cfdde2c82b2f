"""Generated features for the solvers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fruits.model.rows import features_table
from fruits.storage.folder import Folder, part_name
from fruits.storage.parquet import write_table

ROWS_PER_PART = 1024
FEATURES = 1280
FACTORS = 256


def generated_features(rows: int, cache: Path) -> Path:
    """Return a folder of generated features, whose eigenvalues decay as those of real features do."""
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
