"""The cluster that was selected for a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fruits.clusters.clouds import CloudCluster


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster that a job runs on.

    Attributes
    ----------
    name : str
        Its name in ``cluster.yaml``.
    backend : {"dask", "spark", "local"}
        The engine.
    workers : int or None
        The number of tasks that run at once; None for a running cluster or one in a cloud, which define their own.
    address : str or None
        The running cluster to attach to; None starts one on this machine.
    conf : mapping of str to str
        Properties of the Spark session.
    cloud : EmrCluster, DaskEc2Cluster or None
        The settings of a cluster that is created in a cloud.
    dashboard : str or None
        The address of the engine's web page, ``host:port``; None disables it.
    """

    name: str
    backend: str
    workers: int | None
    address: str | None = None
    conf: Mapping[str, str] = field(default_factory=dict)
    cloud: CloudCluster | None = None
    dashboard: str | None = None
