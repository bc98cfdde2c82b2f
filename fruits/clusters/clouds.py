"""What ``cluster.yaml`` may say of a cluster in a cloud: one model for each ``cloud``, all keys with their defaults.

It is imported by :mod:`fruits.clusters.config` and knows no cloud's library. What is made of the settings stands in
``backends.aws``.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

__all__ = ["AwsCluster", "CloudCluster", "DaskEc2Cluster", "EmrCluster", "Settings"]

S3_ADDRESS = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$"
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-types.html: family and generation, dot, size
INSTANCE_TYPE = r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$"
TAG = Annotated[str, Field(pattern=r"^[\w .:/=+@-]*$", max_length=256)]

Count = Annotated[int, Field(ge=0)]
InstanceType = Annotated[str, Field(pattern=INSTANCE_TYPE)]
INSTANCE = Field(description="an instance type such as c7i.4xlarge")  # what a message says that is allowed


class Settings(BaseModel):
    """Keys that are not known are refused, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AwsCluster(Settings):
    """What every cluster on AWS has.

    Attributes
    ----------
    backend : {"dask", "spark"}
        The engine.
    cloud : str
        Which kind of cluster it is.
    region : str, optional
        Default: that of the bucket.
    bucket : str, optional
        ``s3://name``, where the wheelhouse, the scripts and the logs lie, below ``fruits/``. Default: ``--bucket``, or
        the bucket of the job's ``--out``.
    subnet : str, optional
        The identifier of the subnet; default: those of the default VPC that ``fruits cluster init`` tagged.
    key_pair : str, optional
        An EC2 key pair to log in with; default: none, and sessions go through the Session Manager.
    idle_minutes : int, default 15
        The cluster ends itself when it had nothing to do for so long.
    tags : dict of str to str
        More tags of every resource, such as a cost centre.
    """

    backend: str
    cloud: str
    region: Annotated[
        Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] | None,
        Field(description="a region such as eu-west-3"),
    ] = None
    bucket: Annotated[
        Annotated[str, Field(pattern=S3_ADDRESS)] | None, Field(description="a bucket such as s3://my-fruits")
    ] = None
    subnet: Annotated[
        Annotated[str, Field(pattern=r"^subnet-[0-9a-f]+$")] | None, Field(description="a subnet such as subnet-0123ab")
    ] = None
    key_pair: Annotated[str, Field(min_length=1)] | None = None
    idle_minutes: Annotated[int, Field(ge=1, le=10_080)] = 15
    tags: dict[TAG, TAG] = {}


class EmrCluster(AwsCluster):
    """Spark on EMR: one cluster for each job, or a long-lived one with JupyterHub.

    Attributes
    ----------
    release : str
        A release label of EMR; :mod:`backends.aws.emr.releases` says which are known.
    master_type : str
        The EC2 instance type of the one node that leads.
    worker_types : list of str
        Those of the nodes that work, all with as many vCPUs. More than one kind finds Spot capacity more easily, but
        the last bits of an answer hold on one kind of processor alone.
    core_nodes : int, default 1
        On-demand nodes, of which one carries the driver.
    task_nodes : int, default 4
        At most so many more nodes; EMR's managed scaling adds and removes them.
    spot : bool, default True
        Whether task nodes are Spot, on-demand where there are none in ten minutes.
    disk_gb : int, default 64
        The gp3 volume of each node.
    security_configuration : str, optional
        The name of a security configuration of EMR.
    notebook : bool, default False
        JupyterHub, whose notebooks lie in the bucket.
    conf : dict of str to str
        Properties of Spark, as in spark-defaults.
    """

    backend: Literal["spark"]
    cloud: Literal["emr"]
    release: Annotated[str, Field(min_length=1)] = "emr-7.13.0"
    master_type: Annotated[InstanceType, INSTANCE] = "m7i.xlarge"
    worker_types: Annotated[list[InstanceType], Field(min_length=1, max_length=30), INSTANCE] = ["c7i.4xlarge"]
    core_nodes: PositiveInt = 1
    task_nodes: Count = 4
    spot: bool = True
    disk_gb: Annotated[int, Field(ge=16, le=16_384)] = 64
    security_configuration: Annotated[str, Field(min_length=1)] | None = None
    notebook: bool = False
    conf: dict[str, str] = {}


class DaskEc2Cluster(AwsCluster):
    """Dask on EC2: a scheduler and workers that are added and removed with the load; created for one job.

    Attributes
    ----------
    minimum, maximum : int, default 1 and 4
        The number of worker instances.
    spot : bool, default True
        Whether they are Spot, on-demand where there is none.
    public : bool, default False
        Whether the scheduler is reached from outside of the VPC, by its public address.
    client : str, optional
        The addresses that are let in to the scheduler, such as ``203.0.113.7/32``; default: that of this machine.
    scheduler_type : str
        The EC2 instance type of the scheduler.
    worker_type : str
        The EC2 instance type of the workers: one single-threaded worker process per vCPU.
    disk_gb : int, default 64
        The encrypted gp3 volume of each instance.
    image : str, optional
        The identifier of an Amazon Linux 2023 image; default: the newest, the same for all instances of a cluster.
    """

    backend: Literal["dask"]
    minimum: Count = 1
    maximum: PositiveInt = 4
    spot: bool = True
    public: bool = False
    client: Annotated[
        Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+\.\d+/([1-9]|[12]\d|3[0-2])$")] | None,
        Field(description="addresses such as 203.0.113.7/32"),
    ] = None
    cloud: Literal["dask-ec2"]
    scheduler_type: Annotated[InstanceType, INSTANCE] = "m7i.large"
    worker_type: Annotated[InstanceType, INSTANCE] = "c7i.4xlarge"
    disk_gb: Annotated[int, Field(ge=16, le=16_384)] = 64
    image: Annotated[
        Annotated[str, Field(pattern=r"^ami-[0-9a-f]+$")] | None, Field(description="an image such as ami-0123ab")
    ] = None

    @model_validator(mode="after")
    def _minimum_and_maximum(self) -> Self:
        if self.minimum > self.maximum:
            raise PydanticCustomError("range", "minimum is more than maximum: {maximum}", {"maximum": self.maximum})
        return self


CloudCluster = EmrCluster | DaskEc2Cluster
