"""Labelled images in, standardised PCA-reduced transfer-learning features out, the same on Dask and on Spark.

::

    import fruits
    from backends.dask import DaskExecutor

    with DaskExecutor(workers=4) as executor:
        report = fruits.run(fruits.Job(images="photos", out="out/photos"), executor)
    model = fruits.ScaledPCA.load("out/photos")

The names are loaded when they are first used: what a worker or the command line does not need, it does not wait for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fruits.errors import FruitsError
    from fruits.executor import Executor
    from fruits.job import Job
    from fruits.pipeline import Report, fit, run, transform
    from fruits.scaled_pca import ScaledPCA

__all__ = ["Executor", "FruitsError", "Job", "Report", "ScaledPCA", "fit", "run", "transform"]

_MODULES = {
    "Executor": "fruits.executor",
    "FruitsError": "fruits.errors",
    "Job": "fruits.job",
    "Report": "fruits.pipeline",
    "ScaledPCA": "fruits.scaled_pca",
    "fit": "fruits.pipeline",
    "run": "fruits.pipeline",
    "transform": "fruits.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
