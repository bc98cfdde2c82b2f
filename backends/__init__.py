"""The engines that Fruits runs on, and the clouds, by name; each is imported only when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fruits.errors import SettingsError
from fruits.executor import Executor

if TYPE_CHECKING:
    from fruits.clusters.config import Cluster
    from fruits.jobs.job import Job
    from fruits.jobs.report import Report, SliceReport
    from fruits.progress.reporter import Progress

    # The command, run, fit or transform; its job; the cluster, with its settings in `cloud`; who is told of it.
    Run = Callable[[str, Job, Cluster, Progress], Report | SliceReport]

__all__ = ["BACKENDS", "CLOUDS", "Backend", "Cloud", "load", "load_cloud"]


class Backend(NamedTuple):
    """Where an executor class lives, and what has to be installed for it."""

    module: str
    executor: str
    requires: str | None  # the importable name that tells whether the engine is installed
    extra: str | None  # the extra of this package that brings it


BACKENDS = {
    "dask": Backend("backends.dask.executor", "DaskExecutor", "distributed", "dask"),
    "spark": Backend("backends.spark.executor", "SparkExecutor", "pyspark", "spark"),
    "local": Backend("backends.local", "LocalExecutor", None, None),
}


class Cloud(NamedTuple):
    """The module whose ``run_job`` runs a job on a cluster in a cloud, and the package and extra that it needs."""

    module: str
    requires: str
    extra: str


CLOUDS = {
    "emr": Cloud("backends.aws.emr.job", "boto3", "aws"),
    "dask-ec2": Cloud("backends.aws.ec2.job", "dask_cloudprovider", "aws"),
}


def load(name: str) -> type[Executor]:
    """Return the executor class of the backend `name`.

    Raises
    ------
    SettingsError
        No backend has that name, or what it needs is not installed.
    """
    if name not in BACKENDS:
        raise SettingsError(f"--backend {name}: no such backend. Allowed: {', '.join(BACKENDS)}.")
    backend = BACKENDS[name]
    if backend.requires is not None and importlib.util.find_spec(backend.requires) is None:
        raise SettingsError(
            f"--backend {name}: {backend.requires} is not installed. "
            f"Install it with: pip install 'fruits[{backend.extra}]', or choose another backend: "
            f"{', '.join(other for other in BACKENDS if other != name)}."
        )
    executor: type[Executor] = getattr(importlib.import_module(backend.module), backend.executor)
    return executor


def load_cloud(name: str) -> Run:
    """Return the function that does a job on a cluster whose ``cloud`` is `name`.

    Raises
    ------
    SettingsError
        What it needs is not installed.
    """
    cloud = CLOUDS[name]
    if importlib.util.find_spec(cloud.requires) is None:
        raise SettingsError(f"{cloud.requires} is not installed. Install it with: pip install 'fruits[{cloud.extra}]'.")
    run: Run = importlib.import_module(cloud.module).run_job
    return run
