"""The EC2 instances of a cluster: their types, sizes and numbers."""

from __future__ import annotations

from typing import NamedTuple

from fruits.clusters.clouds import DaskEc2Cluster, EmrCluster
from fruits.errors import SettingsError

VCPUS = {"large": 2, "xlarge": 4}  # and 4 times N for Nxlarge


class Nodes(NamedTuple):
    """The nodes of a cluster.

    Attributes
    ----------
    leader : str
        The instance type of the master node of EMR, or of the scheduler of Dask; one, on demand.
    workers : list of str
        The instance types of the workers, all of one size.
    steady, others : int
        The number of workers on demand, and of those that are Spot instances if the settings say so.
    """

    leader: str
    workers: list[str]
    steady: int
    others: int


def nodes_of(settings: EmrCluster | DaskEc2Cluster) -> Nodes:
    """Return the nodes of a cluster."""
    if isinstance(settings, EmrCluster):
        return Nodes(settings.master_type, settings.worker_types, settings.core_nodes, settings.task_nodes)
    return Nodes(settings.scheduler_type, [settings.worker_type], 0, settings.worker_nodes)


def vcpus(instance_type: str) -> int:
    """Return the number of vCPUs of an instance type, by its size.

    Raises
    ------
    SettingsError
        The size is not one of ``large``, ``xlarge``, ``2xlarge``, …
    """
    size = instance_type.partition(".")[2]
    if size in VCPUS:
        return VCPUS[size]
    number = size.removesuffix("xlarge")
    if not (size.endswith("xlarge") and number.isdecimal()):
        raise SettingsError(f"{instance_type}: unknown size. Allowed: large, xlarge, 2xlarge, ….")
    return 4 * int(number)
