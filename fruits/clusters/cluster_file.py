"""The model of a whole ``cluster.yaml``, and the built-in clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Field, Tag

from fruits.clusters.clouds import AwsCluster, DaskEc2Cluster, EmrCluster, EmrServerlessCluster
from fruits.clusters.models import ClusterSettings, DaskCluster, LocalCluster, SparkCluster, StrictModel

FILE_NAME = "cluster.yaml"

# The model of an entry: by its `cloud`, or else by its `backend`.
BACKENDS: dict[str, type[ClusterSettings]] = {"dask": DaskCluster, "spark": SparkCluster, "local": LocalCluster}
CLOUDS: dict[str, type[AwsCluster]] = {
    "emr": EmrCluster,
    "emr-serverless": EmrServerlessCluster,
    "dask-ec2": DaskEc2Cluster,
}


def _model_name(entry: object) -> str | None:
    """Return the key of an entry's model in :data:`CLOUDS` or :data:`BACKENDS`."""
    keys = entry if isinstance(entry, Mapping) else vars(entry) if isinstance(entry, ClusterSettings) else {}
    name = keys.get("cloud") or keys.get("backend")
    return name if isinstance(name, str) else None


ClusterEntry = Annotated[
    Annotated[LocalCluster, Tag("local")]
    | Annotated[DaskCluster, Tag("dask")]
    | Annotated[SparkCluster, Tag("spark")]
    | Annotated[EmrCluster, Tag("emr")]
    | Annotated[EmrServerlessCluster, Tag("emr-serverless")]
    | Annotated[DaskEc2Cluster, Tag("dask-ec2")],
    Discriminator(_model_name),
]


class ClusterFile(StrictModel):
    """The content of a ``cluster.yaml``.

    Attributes
    ----------
    default : str
        The name of the cluster that is used if no other source names one.
    clusters : dict of str to ClusterEntry
        The clusters by name.
    """

    default: str = "local-dask"
    clusters: dict[str, ClusterEntry] = Field(default_factory=dict)


BUILT_IN = ClusterFile(
    default="local-dask",
    clusters={
        "local-dask": DaskCluster(backend="dask"),
        "local-spark": SparkCluster(backend="spark"),
        "local": LocalCluster(backend="local"),
        "dask-address": DaskCluster(backend="dask", address="tcp://127.0.0.1:8786"),
        "spark-address": SparkCluster(backend="spark", address="spark://127.0.0.1:7077"),
        "spark-yarn": SparkCluster(backend="spark", address="yarn"),
        "emr": EmrCluster(backend="spark", cloud="emr"),
        "emr-notebook": EmrCluster(backend="spark", cloud="emr", notebook=True, idle_minutes=60),
        # The cluster of the original processing chain, with a staged Python.
        "emr-seed": EmrCluster(
            backend="spark",
            cloud="emr",
            release="emr-6.9.0",
            master_type="m5.xlarge",
            worker_types=["m5.xlarge"],
            core_nodes=1,
            task_nodes=0,
            notebook=True,
            idle_minutes=60,
        ),
        "emr-serverless": EmrServerlessCluster(backend="spark", cloud="emr-serverless"),
        "dask-ec2": DaskEc2Cluster(backend="dask", cloud="dask-ec2"),
    },
)
