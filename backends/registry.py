"""Backends and clouds by name. A module is imported only when its backend or cloud is loaded."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fruits.errors import SettingsError
from fruits.executor import Executor

if TYPE_CHECKING:
    from fruits.clusters.cluster import Cluster
    from fruits.jobs.job import Job
    from fruits.jobs.report import Report, SliceReport
    from fruits.progress.reporter import Progress

    # The arguments: the command (run, fit or transform), its job, the cluster with its cloud settings, the listener.
    RunJob = Callable[[str, Job, Cluster, Progress], Report | SliceReport]

__all__ = ["BACKENDS", "CLOUDS", "Backend", "Cloud", "load", "load_cloud"]


class Backend(NamedTuple):
    """Location and requirements of an executor class."""

    module: str
    executor: str
    requires: str | None  # an import name
    extra: str | None  # the extra of this package that installs it


class Cloud(NamedTuple):
    """Location and requirements of a function that runs a job on a cluster in a cloud."""

    module: str
    function: str
    requires: str
    extra: str


BACKENDS = {
    "dask": Backend("backends.dask.executor", "DaskExecutor", "distributed", "dask"),
    "spark": Backend("backends.spark.executor", "SparkExecutor", "pyspark", "spark"),
    "local": Backend("backends.local", "LocalExecutor", None, None),
}

CLOUDS = {
    "emr": Cloud("backends.aws.emr.job", "run_job", "boto3", "aws"),
    "emr-serverless": Cloud("backends.aws.serverless", "run_job", "boto3", "aws"),
    "dask-ec2": Cloud("backends.aws.ec2.job", "run_job", "boto3", "aws"),
}


def load(name: str) -> type[Executor]:
    """Return the executor class of a backend.

    Parameters
    ----------
    name : str
        A key of ``BACKENDS``.

    Raises
    ------
    SettingsError
        The backend is unknown, or the package that it requires is not installed.
    """
    if name not in BACKENDS:
        raise SettingsError(f"Unknown backend {name!r}. Allowed: {', '.join(BACKENDS)}.")
    backend = BACKENDS[name]
    if not _is_installed(backend.requires):
        installed = [other for other, entry in BACKENDS.items() if _is_installed(entry.requires)]
        raise SettingsError(
            f"Backend {name!r}: {backend.requires} is not installed. "
            f"Install it with: pip install 'fruits[{backend.extra}]', or choose an installed backend: "
            f"{', '.join(installed)}."
        )
    executor: type[Executor] = getattr(importlib.import_module(backend.module), backend.executor)
    return executor


def load_cloud(name: str) -> RunJob:
    """Return the function that runs a job on a cluster of a cloud.

    Parameters
    ----------
    name : str
        A key of ``CLOUDS``.

    Raises
    ------
    SettingsError
        The cloud is unknown, or the package that it requires is not installed.
    """
    if name not in CLOUDS:
        raise SettingsError(f"Unknown cloud {name!r}. Allowed: {', '.join(CLOUDS)}.")
    cloud = CLOUDS[name]
    if not _is_installed(cloud.requires):
        raise SettingsError(
            f"Cloud {name!r}: {cloud.requires} is not installed. Install it with: pip install 'fruits[{cloud.extra}]'."
        )
    run_job: RunJob = getattr(importlib.import_module(cloud.module), cloud.function)
    return run_job


def _is_installed(package: str | None) -> bool:
    return package is None or importlib.util.find_spec(package) is not None
