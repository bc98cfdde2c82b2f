"""Backends and clouds by name. A module is imported only when its backend or cloud is loaded."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from fruits.errors import SettingsError
from fruits.executor import Executor

if TYPE_CHECKING:
    from fruits.clusters.cluster import Cluster
    from fruits.jobs.job import Job
    from fruits.jobs.report import Report, SliceReport
    from fruits.progress.reporter import Progress

    # The arguments: the command (run, fit or transform), its job, the cluster with its cloud settings, the listener.
    RunJob = Callable[[str, Job, Cluster, Progress], Report | SliceReport]


def imported_on_use(module: str, names: Collection[str]) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` (PEP 562) that takes some names from another one, imported on first use."""

    def attribute(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module.rpartition('.')[0]!r} has no attribute {name!r}")
        return getattr(importlib.import_module(module), name)

    return attribute


class Entry(NamedTuple):
    """Location and requirements of an executor class, or of a function that runs a job on a cluster in a cloud."""

    module: str
    name: str
    requires: tuple[str, ...]  # import names
    extra: str | None  # the extra of this package that installs it


BACKENDS = {
    "dask": Entry("backends.dask.executor", "DaskExecutor", ("distributed", "cryptography"), "dask"),
    "spark": Entry("backends.spark.executor", "SparkExecutor", ("pyspark",), "spark"),
    "local": Entry("backends.local", "LocalExecutor", (), None),
}

CLOUDS = {
    "emr": Entry("backends.aws.emr.job", "run_job", ("boto3",), "aws"),
    "emr-serverless": Entry("backends.aws.serverless", "run_job", ("boto3",), "aws"),
    "dask-ec2": Entry("backends.aws.ec2.job", "run_job", ("boto3",), "aws"),
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
    installed = ", ".join(other for other, entry in BACKENDS.items() if not _missing(entry))
    return cast("type[Executor]", _load("backend", name, BACKENDS, f", or choose an installed backend: {installed}"))


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
    return cast("RunJob", _load("cloud", name, CLOUDS))


def _load(kind: str, name: str, table: Mapping[str, Entry], alternative: str = "") -> object:
    if name not in table:
        raise SettingsError(f"Unknown {kind} {name!r}. Allowed: {', '.join(table)}.")
    entry = table[name]
    if missing := _missing(entry):
        raise SettingsError(
            f"{kind.capitalize()} {name!r}: {missing[0]} is not installed. "
            f"Install it with: pip install 'fruits[{entry.extra}]'{alternative}."
        )
    return getattr(importlib.import_module(entry.module), entry.name)


def _missing(entry: Entry) -> list[str]:
    return [name for name in entry.requires if importlib.util.find_spec(name) is None]
