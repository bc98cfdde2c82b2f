"""Labelled images in, standardised PCA-reduced transfer-learning features out, the same on Dask and on Spark.

::

    import backends
    import fruits

    job = fruits.Job(images="photos", out="out", components=200)
    with backends.load("dask")(workers=4) as executor:
        report = fruits.run(job, executor)
    model = fruits.ScaledPCA.load("out")

What stands in ``__all__`` is the public surface. It is imported on first use, so that ``import fruits`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fruits.comparison import Comparison, compare
    from fruits.errors import FruitsError, InputError, JobError
    from fruits.executor import Executor
    from fruits.job import Job
    from fruits.pipeline import fit, run, transform
    from fruits.report import Report, SliceReport
    from fruits.scaled_pca import ScaledPCA

__all__ = [
    "Comparison",
    "Executor",
    "FruitsError",
    "InputError",
    "Job",
    "JobError",
    "Report",
    "ScaledPCA",
    "SliceReport",
    "compare",
    "fit",
    "run",
    "transform",
]

_HOMES = {
    "Comparison": "comparison",
    "Executor": "executor",
    "FruitsError": "errors",
    "InputError": "errors",
    "Job": "job",
    "JobError": "errors",
    "Report": "report",
    "ScaledPCA": "scaled_pca",
    "SliceReport": "report",
    "compare": "comparison",
    "fit": "pipeline",
    "run": "pipeline",
    "transform": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
