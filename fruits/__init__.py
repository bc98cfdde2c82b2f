"""Labelled images in, standardised PCA-reduced transfer-learning features out, the same on Dask and on Spark.

::

    import backends
    import fruits

    job = fruits.Job(images="photos", out="out", components=200)
    with backends.load("dask")(workers=4) as executor:
        report = fruits.run(job, executor)
    model = fruits.ScaledPCA.load("out")

``__all__`` is the public surface. Each name is imported on first use, so that ``import fruits`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fruits.errors import FruitsError, InputError, JobError
    from fruits.executor import Executor
    from fruits.image_features import features
    from fruits.jobs.inspect.compare import Comparison, compare
    from fruits.jobs.job import Job
    from fruits.jobs.pipeline import fit, run, transform
    from fruits.jobs.report import Report, SliceReport
    from fruits.model.scaled_pca import ScaledPCA
    from fruits.recogniser.jobs.evaluate import Evaluation, evaluate
    from fruits.recogniser.jobs.predict import predict
    from fruits.recogniser.jobs.report import write_report
    from fruits.recogniser.jobs.request import Training
    from fruits.recogniser.jobs.train import TrainingReport, train
    from fruits.recogniser.recogniser import Recogniser, Recognition

    __version__: str

__all__ = [
    "Comparison",
    "Evaluation",
    "Executor",
    "FruitsError",
    "InputError",
    "Job",
    "JobError",
    "Recogniser",
    "Recognition",
    "Report",
    "ScaledPCA",
    "SliceReport",
    "Training",
    "TrainingReport",
    "__version__",
    "compare",
    "evaluate",
    "features",
    "fit",
    "predict",
    "run",
    "train",
    "transform",
    "write_report",
]

_NAMES = {
    "errors": ("FruitsError", "InputError", "JobError"),
    "executor": ("Executor",),
    "image_features": ("features",),
    "jobs.inspect.compare": ("Comparison", "compare"),
    "jobs.job": ("Job",),
    "jobs.pipeline": ("fit", "run", "transform"),
    "jobs.report": ("Report", "SliceReport"),
    "model.scaled_pca": ("ScaledPCA",),
    "recogniser.jobs.evaluate": ("Evaluation", "evaluate"),
    "recogniser.jobs.predict": ("predict",),
    "recogniser.jobs.report": ("write_report",),
    "recogniser.jobs.request": ("Training",),
    "recogniser.jobs.train": ("TrainingReport", "train"),
    "recogniser.recogniser": ("Recogniser", "Recognition"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("fruits")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
