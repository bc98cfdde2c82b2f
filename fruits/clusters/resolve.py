"""Select the cluster of a job from the command line, the environment and ``cluster.yaml``.

The order of precedence is documented at the top of ``cluster.yaml``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from fruits.clusters.clouds import AwsCluster
from fruits.clusters.cluster import Cluster
from fruits.clusters.cluster_file import FILE_NAME, ClusterEntry, ClusterFile
from fruits.clusters.load import load
from fruits.clusters.models import MOST_WORKERS, AddressableCluster, SparkCluster
from fruits.errors import SettingsError
from fruits.machine.cpus import available_cpus
from fruits.text import brief

THIS_MACHINE = {"dask": "local-dask", "spark": "local-spark", "local": "local"}  # the cluster of a backend alone


def resolve(
    *,
    cluster: str | None = None,
    backend: str | None = None,
    workers: int | None = None,
    file: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Cluster:
    """Return the cluster that the command line, the environment and ``cluster.yaml`` select, in this order.

    Parameters
    ----------
    cluster, backend : str, optional
        The values of ``--cluster`` and ``--backend``.
    workers : int, optional
        The value of ``--workers``.
    file : str, optional
        The value of ``--cluster-file``.
    environ : mapping, default ``os.environ``
        Contains ``FRUITS_CLUSTER``, ``FRUITS_BACKEND``, ``FRUITS_WORKERS`` and ``FRUITS_CLUSTER_FILE``.

    Raises
    ------
    SettingsError
        The file is missing or not valid, a name is unknown, the backend is not that of the cluster, or the number of
        workers is not allowed.
    """
    settings = load(file, environ=environ)
    selection = _select(settings, cluster, backend, environ)
    name = selection.cluster
    if name not in settings.clusters:
        allowed = ", ".join(settings.clusters)
        raise SettingsError(f"{selection.source} {brief(name)}: no such cluster. Allowed: {allowed}.")
    entry = settings.clusters[name]
    _check_backend(settings, selection, entry)
    _check_workers(name, entry, workers)
    if isinstance(entry, AwsCluster):
        return Cluster(name=name, backend=entry.backend, workers=None, cloud=entry)
    address = entry.address if isinstance(entry, AddressableCluster) else None
    return Cluster(
        name=name,
        backend=entry.backend,
        workers=None if address is not None else _workers(workers, environ) or entry.workers or available_cpus(),
        address=address,
        conf=entry.conf if isinstance(entry, SparkCluster) else {},
        dashboard=entry.dashboard if isinstance(entry, AddressableCluster) else None,
    )


class _Selection(NamedTuple):
    cluster: str
    source: str  # the option, variable or key that named it
    backend: str | None = None  # that the cluster must have


def _select(settings: ClusterFile, cluster: str | None, backend: str | None, environ: Mapping[str, str]) -> _Selection:
    levels = (
        ("--cluster", cluster, "--backend", backend),
        ("FRUITS_CLUSTER", environ.get("FRUITS_CLUSTER"), "FRUITS_BACKEND", environ.get("FRUITS_BACKEND")),
    )
    for cluster_source, cluster_name, backend_source, backend_name in levels:
        if backend_name and backend_name not in THIS_MACHINE:
            allowed = ", ".join(THIS_MACHINE)
            raise SettingsError(f"{backend_source} {backend_name}: no such backend. Allowed: {allowed}.")
        if cluster_name:
            return _Selection(cluster_name, cluster_source, backend_name or None)
        if backend_name:
            return _Selection(THIS_MACHINE[backend_name], backend_source, backend_name)
    return _Selection(settings.default, f"{FILE_NAME}: default:")


def _check_backend(settings: ClusterFile, selection: _Selection, entry: ClusterEntry) -> None:
    name, wanted = selection.cluster, selection.backend
    if wanted and wanted != entry.backend:
        others = ", ".join(other for other, found in settings.clusters.items() if found.backend == wanted)
        raise SettingsError(
            f"The backend {wanted} cannot be combined with the cluster {name}, whose backend is {entry.backend}. "
            f"Omit one of them, or choose a cluster with the backend {wanted}: {others}."
        )


def _check_workers(name: str, entry: ClusterEntry, workers: int | None) -> None:
    if workers is None:
        return
    if isinstance(entry, AddressableCluster) and entry.address is not None:
        raise SettingsError(
            f"--workers {workers} cannot be combined with the cluster {name}, which is running at {entry.address}. "
            "Omit --workers, or choose a cluster without an address."
        )
    if isinstance(entry, AwsCluster):
        raise SettingsError(
            f"--workers {workers} cannot be combined with the cluster {name}: its entry in {FILE_NAME} sets its size. "
            "Omit --workers, or change the entry."
        )


def _workers(workers: int | None, environ: Mapping[str, str]) -> int | None:
    """Return the number of workers of the command line or the environment."""
    source, text = (
        ("--workers", str(workers)) if workers is not None else ("FRUITS_WORKERS", environ.get("FRUITS_WORKERS"))
    )
    if not text:
        return None
    if not (text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MOST_WORKERS):
        raise SettingsError(
            f"{source} {brief(text)}: not a count of workers. Allowed: a whole number, 1 to {MOST_WORKERS:,}."
        )
    return int(text)
