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

    cloud: str = Field(description="The kind of cluster: emr (with backend: spark) or dask-ec2 (with backend: dask).")
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] | None = Field(
        default=None, description="The AWS region. Default: the region of the bucket.", examples=["eu-west-3"]
    )
    bucket: Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$")] | None = Field(
        default=None,
        description="The bucket for wheels, scripts and logs, which are stored below fruits/. Default: --bucket, or "
        "the bucket of --out.",
        examples=["s3://my-fruits"],
    )
    subnet: Annotated[str, Field(pattern=r"^subnet-[0-9a-f]+$")] | None = Field(
        default=None,
        description="The subnet of the nodes. Default: a subnet of the default VPC.",
        examples=["subnet-0123ab"],
    )
    key_pair: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="An EC2 key pair for SSH. Default: none; sessions use the AWS Session Manager."
    )
    idle_minutes: Annotated[int, Field(ge=1, le=10_080)] = Field(
        default=15, description="The cluster shuts down after this many idle minutes."
    )
    tags: dict[TagText, TagText] = Field(
        default={}, description='More tags of every resource, such as {cost-centre: "42"}.'
    )


class EmrCluster(AwsCluster):
    """Spark on EMR: a cluster for each job, or a long-lived one with JupyterHub."""

    backend: Literal["spark"]
    cloud: Literal["emr"]
    release: Annotated[str, Field(min_length=1)] = Field(
        default="emr-7.13.0",
        description="The EMR release: emr-7.8.0 to emr-7.13.0, or emr-6.9.0 within limits (docs/aws.md).",
    )
    master_type: InstanceType = Field(
        default="m7i.xlarge", description="The instance type of the master node.", examples=["m7i.xlarge"]
    )
    worker_types: Annotated[list[InstanceType], Field(min_length=1, max_length=30)] = Field(
        default=["c7i.4xlarge"],
        description="The instance types of the worker nodes, all with the same number of vCPUs. More types find Spot "
        "capacity more easily; only one type guarantees bit-identical results.",
        examples=["c7i.4xlarge"],
    )
    core_nodes: PositiveInt = Field(default=1, description="On-demand worker nodes; one of them runs the driver.")
    task_nodes: Count = Field(
        default=4, description="At most this many other worker nodes, added and removed with the load."
    )
    spot: bool = Field(
        default=True, description="Task nodes are Spot instances; on-demand if Spot has none within 10 minutes."
    )
    disk_gb: DiskGb = Field(default=64, description="The size of each node's gp3 volume, in GB.")
    security_configuration: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="The name of an EMR security configuration. Default: none."
    )
    notebook: bool = Field(default=False, description="Adds JupyterHub; notebooks are stored in the bucket.")
    conf: dict[str, str] = Field(default={}, description="Spark properties; they override those that Fruits sets.")


class DaskEc2Cluster(AwsCluster):
    """Dask on EC2: a scheduler, and worker instances that are added and removed with the load; for one job."""

    backend: Literal["dask"]
    minimum: Count = Field(default=1, description="The smallest number of worker instances.")
    maximum: PositiveInt = Field(default=4, description="The largest number of worker instances.")
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
        default="c7i.4xlarge",
        description="The instance type of the workers; one single-threaded worker process per vCPU.",
        examples=["c7i.4xlarge"],
    )
    disk_gb: DiskGb = Field(default=64, description="The size of each instance's encrypted gp3 volume, in GB.")
    image: Annotated[str, Field(pattern=r"^ami-[0-9a-f]+$")] | None = Field(
        default=None,
        description="An image of Amazon Linux 2023. Default: the newest, the same for all instances of a cluster.",
        examples=["ami-0123ab"],
    )

    @model_validator(mode="after")
    def _minimum_is_at_most_maximum(self) -> Self:
        if self.minimum > self.maximum:
            raise PydanticCustomError(
                "range",
                "minimum {minimum} is larger than maximum {maximum}",
                {"minimum": self.minimum, "maximum": self.maximum},
            )
        return self


CloudCluster = EmrCluster | DaskEc2Cluster
