"""A Dask cluster on EC2 machines, made for a job and ended after it: dask-cloudprovider's, with its traps closed.

What that library does by itself, and this does not: it opens the scheduler to the whole world, installs what the
package index has that day, waits for ever for a scheduler that does not come, sends workers to a public address that
its own security group shuts, knows workers by other names than :class:`distributed.Adaptive`, so that no machine is
ever given back, leaves a cluster's private keys in Dask's configuration, and leaves behind what a failed start began.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError
from dask_cloudprovider.aws.ec2 import EC2Cluster, EC2Scheduler, EC2Worker
from distributed.security import Security

from backends.aws.account.clients import Account, explained
from backends.aws.account.roles import INSTANCE_PROFILE
from backends.aws.ec2 import machines as dask_machines
from backends.aws.ec2.machines import Machines, Plan, answers, aws_tags, plan_of
from backends.aws.staging.staged import StagedFiles
from fruits.clusters.clouds import DaskEc2Cluster
from fruits.clusters.config import Cluster
from fruits.errors import SettingsError
from fruits.jobs.job import Job
from fruits.jobs.report import Report, SliceReport
from fruits.progress.reporter import Progress

__all__ = ["run", "start"]

# Amazon Linux 2023: its repositories are in S3, so that a private subnet with an endpoint for S3 is enough.
IMAGE_OWNER, IMAGE_NAME = "amazon", "al2023-ami-2023.*-x86_64"
# What EC2 says where Spot has no machine of this type now: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
NO_SPOT = {
    "InsufficientInstanceCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
}
SCRIPT = "dask_node.sh"


def run(command: str, job: Job, cluster: Cluster, progress: Progress) -> Report | SliceReport:
    """Run a job on a cluster that is made for it; see :func:`backends.aws.ec2.machines.run`."""
    return dask_machines.run(start, command, job, cluster, progress)


def start(
    account: Account, settings: DaskEc2Cluster, name: str, staged: StagedFiles, secrets: str, security: Security
) -> Machines:
    """Return a cluster whose scheduler answers; see :func:`backends.aws.ec2.machines.client_of`."""
    ec2 = account.client("ec2")
    with explained("look up the machines"):
        types = ec2.describe_instance_types(InstanceTypes=[settings.worker_type])["InstanceTypes"]
        newest: dict[str, Any] = {"Owners": [IMAGE_OWNER], "Filters": [{"Name": "name", "Values": [IMAGE_NAME]}]}
        images = ec2.describe_images(**{"ImageIds": [settings.image]} if settings.image else newest)["Images"]
    if not images:
        raise SettingsError(f"No image {settings.image or IMAGE_NAME} is there. Give one: `image` in cluster.yaml.")
    image = max(images, key=lambda image: str(image["CreationDate"]))
    workers = int(types[0]["VCpuInfo"]["DefaultVCpus"])
    plan = plan_of(account, settings, name, staged, secrets, workers_per_node=workers)
    return _Cluster(plan, settings, image, security)


class _Machine:
    """What schedulers and workers share: how a machine is asked for, and which of its addresses is which."""

    cluster: Any
    instance: Any
    spot: bool

    async def configure_vm(self, client: Any) -> tuple[str, str | None]:
        """Return the private address, which the machines use, and where there is one the public, for the client."""
        await super().configure_vm(client)  # type: ignore[misc]
        public = self.instance.get("PublicIpAddress") if self.cluster.asked.settings.public else None
        return self.instance["PrivateIpAddress"], public


class _Scheduler(_Machine, EC2Scheduler):  # type: ignore[misc]
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.name = f"{self.cluster.asked.name}-scheduler"
        self.script = self.cluster.asked.script(SCRIPT)

    async def wait_for_scheduler(self) -> None:
        host = (self.external_address or self.address).rpartition("/")[2].rpartition(":")[0]
        machine = self.instance["InstanceId"]
        log = f"aws ec2 get-console-output --latest --output text --instance-id {machine}"
        await answers(host, who=machine, log=log)


class _Worker(_Machine, EC2Worker):  # type: ignore[misc]
    def __init__(self, scheduler: str, *, name: object, **options: Any) -> None:
        super().__init__(scheduler, **options)
        self.name = f"{self.cluster.asked.name}-{name}"
        self.script = self.cluster.asked.script(SCRIPT, scheduler, name, self.cluster.asked.workers_per_node)

    async def create_vm(self) -> tuple[str, str | None]:
        try:
            return await super().create_vm()  # type: ignore[no-any-return]
        except ClientError as error:
            if not self.spot or error.response["Error"]["Code"] not in NO_SPOT:
                raise
        self.spot = False
        return await super().create_vm()  # type: ignore[no-any-return]


class _Cluster(Machines, EC2Cluster):  # type: ignore[misc]
    """dask-cloudprovider's cluster, with machines and scripts of ours."""

    # It sets them as it starts, and it starts as it is made.
    scheduler_class = property(lambda self: _Scheduler, lambda self, kind: None)
    worker_class = property(lambda self: _Worker, lambda self, kind: None)

    def __init__(self, plan: Plan, settings: DaskEc2Cluster, image: dict[str, Any], security: Security) -> None:
        self.asked = plan
        self._device = str(image["RootDeviceName"])
        super().__init__(
            region=plan.region,
            bootstrap=False,
            ami=str(image["ImageId"]),
            scheduler_instance_type=settings.scheduler_type,
            worker_instance_type=settings.worker_type,
            vpc=plan.place.vpc,
            subnet_id=plan.place.subnets[0],
            security_groups=[plan.group],
            filesystem_size=settings.disk_gb,
            key_name=settings.key_pair,
            iam_instance_profile={"Name": INSTANCE_PROFILE},
            instance_tags=plan.tags,
            volume_tags=plan.tags,
            use_private_ip=not settings.public,
            spot=settings.spot,
            security=security,
        )
        self.new_spec["group"] = self.group(plan.workers_per_node)

    @property
    def boto_session(self) -> Any:
        """The session that its clients are made by."""
        return self._boto_session

    @boto_session.setter
    def boto_session(self, session: Any) -> None:
        self._boto_session = session
        session.register("before-parameter-build.ec2.RunInstances", self._complete)

    def _complete(self, params: dict[str, Any], **_: Any) -> None:
        """Complete a request for a machine: an encrypted root volume, no IMDSv1, and tags on all that comes with it."""
        (root,) = params["BlockDeviceMappings"]
        root.pop("VirtualName")
        root["DeviceName"] = self._device
        root["Ebs"]["Encrypted"] = True
        params["MetadataOptions"] = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
        params["TagSpecifications"] += [{"ResourceType": "network-interface", "Tags": aws_tags(self.asked.tags)}]

    def render_process_cloud_init(self, process: Any) -> str:
        """Return the user data of a machine."""
        return str(process.script)
