"""Models of the clusters in ``cluster.yaml`` that are created in a cloud, by their key ``cloud``.

No cloud library is imported here; ``backends.aws`` creates the clusters. The field descriptions are the reference at
the top of ``cluster.yaml``; see :mod:`fruits.clusters.reference`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from fruits.clusters.models import ClusterSettings

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-types.html: family and generation, dot, size
InstanceType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$")]
TagText = Annotated[str, Field(pattern=r"^[\w .:/=+@-]*$", max_length=256)]
Count = Annotated[int, Field(ge=0)]
DiskGb = Annotated[int, Field(ge=16, le=16_384)]


class AwsCluster(ClusterSettings):
    """The keys of every cluster on AWS."""

    cloud: str = Field(
        description="The kind of cluster: emr or emr-serverless (with backend: spark), or dask-ec2 (with backend: "
        "dask)."
    )
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] | None = Field(
        default=None, description="The AWS region. Default: the region of the bucket.", examples=["eu-west-3"]
    )
    bucket: Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$")] | None = Field(
        default=None,
        description="The bucket for wheels, scripts and logs, which are stored below fruits/. Default: --bucket, or "
        "the bucket of --out.",
        examples=["s3://my-fruits"],
    )
    idle_minutes: Annotated[int, Field(ge=1, le=10_080)] = Field(
        default=15, description="The cluster shuts down after this many idle minutes."
    )
    max_hours: Annotated[int, Field(ge=1, le=168)] = Field(
        default=12, description="The cluster shuts down after this many hours, whatever runs on it."
    )
    tags: dict[TagText, TagText] = Field(
        default={}, description='More tags of every resource, such as {cost-centre: "42"}.'
    )


class NodesCluster(AwsCluster):
    """The keys of every cluster of EC2 instances."""

    subnet: Annotated[str, Field(pattern=r"^subnet-[0-9a-f]+$")] | None = Field(
        default=None,
        description="The subnet of the nodes. Default: a subnet of the default VPC.",
        examples=["subnet-0123ab"],
    )
    key_pair: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="An EC2 key pair for SSH. Default: none; sessions use the AWS Session Manager."
    )


class EmrCluster(NodesCluster):
    """Spark on EMR: a cluster for each job, or a long-lived one with JupyterHub."""

    backend: Literal["spark"]
    cloud: Literal["emr"]
    release: Annotated[str, Field(min_length=1)] = Field(
        default="emr-7.13.0",
        description="The EMR release: emr-7.8.0 to emr-7.13.0, or emr-6.9.0, for which a Python must be staged "
        "(docs/aws.md).",
    )
    master_type: InstanceType = Field(
        default="m7i.xlarge", description="The instance type of the master node.", examples=["m7i.xlarge"]
    )
    worker_types: Annotated[list[InstanceType], Field(min_length=1, max_length=30)] = Field(
        default=["c7i.2xlarge"],
        description="The instance types of the worker nodes, all with the same number of vCPUs. More types find Spot "
        "capacity more easily; only one type guarantees bit-identical results.",
        examples=["c7i.2xlarge"],
    )
    core_nodes: Count = Field(
        default=1,
        description="On-demand worker nodes; one of them runs the driver. With 0, and task_nodes: 0, the master node "
        "does all work.",
    )
    task_nodes: Count = Field(
        default=2,
        description="Other worker nodes. In a long-lived cluster, at most this many, added and removed with the load.",
    )
    spot: bool = Field(
        default=True,
        description="Task nodes are Spot instances; if Spot has none within 10 minutes of the start, on-demand ones.",
    )
    disk_gb: DiskGb = Field(default=64, description="The size of each node's gp3 volume, in GB.")
    security_configuration: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="The name of an EMR security configuration. Default: that of init, which requires IMDSv2 and "
        "encrypts volumes.",
    )
    notebook: bool = Field(default=False, description="Adds JupyterHub; notebooks are stored in the bucket.")
    conf: dict[str, str] = Field(default={}, description="Spark properties; they override those that Fruits sets.")

    @model_validator(mode="after")
    def _task_nodes_need_a_core_node(self) -> Self:
        if self.task_nodes and not self.core_nodes:
            raise PydanticCustomError(
                "core", "task_nodes {task_nodes} need a core node. Set core_nodes: 1, or task_nodes: 0", dict(self)
            )
        return self


class EmrServerlessCluster(AwsCluster):
    """Spark on EMR Serverless: no nodes to choose; paid by the vCPU- and GB-second of a job."""

    backend: Literal["spark"]
    cloud: Literal["emr-serverless"]
    release: Annotated[str, Field(min_length=1)] = Field(
        default="emr-7.13.0", description="The EMR release: emr-7.8.0 to emr-7.13.0."
    )
    maximum_vcpus: Annotated[int, Field(ge=8, le=4_000)] = Field(
        default=16,
        description="The most vCPUs of the application, with those of the driver; 16 is a new account's quota.",
    )
    conf: dict[str, str] = Field(default={}, description="Spark properties; they override those that Fruits sets.")


class DaskEc2Cluster(NodesCluster):
    """Dask on EC2: a scheduler and worker instances, for one job."""

    backend: Literal["dask"]
    worker_nodes: PositiveInt = Field(default=4, description="Worker instances; reclaimed Spot instances are replaced.")
    spot: bool = Field(default=True, description="Worker instances are Spot instances; on-demand if Spot has none.")
    public: bool = Field(
        default=False, description="The client reaches the scheduler at its public address; true outside of the VPC."
    )
    client: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+\.\d+/([1-9]|[12]\d|3[0-2])$")] | None = Field(
        default=None,
        description="The addresses that may connect to the scheduler. Default: this machine only.",
        examples=["203.0.113.7/32"],
    )
    cloud: Literal["dask-ec2"]
    scheduler_type: InstanceType = Field(
        default="m7i.large", description="The instance type of the scheduler.", examples=["m7i.large"]
    )
    worker_type: InstanceType = Field(
        default="c7i.xlarge",
        description="The instance type of the workers; one single-threaded worker process per vCPU.",
        examples=["c7i.xlarge"],
    )
    disk_gb: DiskGb = Field(default=64, description="The size of each instance's encrypted gp3 volume, in GB.")
    image: Annotated[str, Field(pattern=r"^ami-[0-9a-f]+$")] | None = Field(
        default=None,
        description="An image of Amazon Linux 2023. Default: the newest, the same for all instances of a cluster.",
        examples=["ami-0123ab"],
    )


CloudCluster = EmrCluster | EmrServerlessCluster | DaskEc2Cluster
