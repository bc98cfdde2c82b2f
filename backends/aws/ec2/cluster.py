"""A Dask cluster of EC2 instances: dask-cloudprovider's ``EC2Cluster``, made safe and able to shrink.

The library's own cluster

- opens the scheduler to every address,
- installs the newest packages of the day instead of pinned ones,
- waits without a timeout for a scheduler that does not start,
- connects workers to the public address, which its own security group blocks,
- names workers differently from :class:`distributed.Adaptive`, so that no instance is ever released,
- leaves the cluster's private keys in Dask's configuration,
- leaves instances running when a start fails.
"""

from __future__ import annotations

import asyncio
import math
import time
from types import SimpleNamespace
from typing import Any

import dask
from botocore.exceptions import ClientError
from dask.utils import parse_timedelta
from dask_cloudprovider.aws.ec2 import EC2Cluster, EC2Scheduler, EC2Worker
from distributed import Adaptive
from distributed.deploy.cluster import Cluster as DistributedCluster
from distributed.security import Security

from backends.aws.account.policies import INSTANCE_PROFILE
from backends.aws.account.tags import aws_tags
from backends.aws.ec2.dask_node import PORT, node_of, worker_name
from backends.aws.ec2.launch import LaunchSettings
from fruits.errors import JobError

__all__ = ["DaskMachines"]

CONNECT_SECONDS = 5.0
START_SECONDS = 900.0  # an instance starts, and builds its environment from the wheelhouse
# An instance takes a minute to start and is paid by the second: neither start nor release one in haste.
ADAPTIVE = {"interval": "5s", "wait_count": 12, "target_duration": "60s"}
# EC2's error codes for missing Spot capacity: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
NO_SPOT = {
    "InsufficientInstanceCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
}


class _Machine:
    """An instance that reports its private address to other instances, and its public one to the client."""

    cluster: Any
    instance: Any
    spot: bool

    async def configure_vm(self, client: Any) -> tuple[str, str | None]:
        """Return the private address, and the public one if the cluster is public."""
        await super().configure_vm(client)  # type: ignore[misc]
        public = self.instance.get("PublicIpAddress") if self.cluster.launch.settings.public else None
        return self.instance["PrivateIpAddress"], public


class _Scheduler(_Machine, EC2Scheduler):  # type: ignore[misc]
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.name = f"{self.cluster.launch.name}-scheduler"
        self.script = self.cluster.launch.script()

    async def wait_for_scheduler(self) -> None:
        host = (self.external_address or self.address).rpartition("/")[2].rpartition(":")[0]
        await _wait_for_scheduler(host, self.instance["InstanceId"])


class _Worker(_Machine, EC2Worker):  # type: ignore[misc]
    def __init__(self, scheduler: str, *, name: object, **options: Any) -> None:
        super().__init__(scheduler, **options)
        launch = self.cluster.launch
        self.name = f"{launch.name}-{name}"
        self.script = launch.script(scheduler, name, launch.workers_per_node)

    async def create_vm(self) -> tuple[str, str | None]:
        try:
            return await super().create_vm()  # type: ignore[no-any-return]
        except ClientError as error:
            if not self.spot or error.response["Error"]["Code"] not in NO_SPOT:
                raise
        self.spot = False
        return await super().create_vm()  # type: ignore[no-any-return]


class DaskMachines(EC2Cluster):  # type: ignore[misc]
    """A cluster whose unit is the instance: each runs ``launch.workers_per_node`` workers, started and ended together.

    Parameters
    ----------
    launch : LaunchSettings
    security : distributed.Security
        The certificate that every connection requires.
    """

    # EC2Cluster assigns both in __init__, which also starts the cluster.
    scheduler_class = property(lambda self: _Scheduler, lambda self, kind: None)
    worker_class = property(lambda self: _Worker, lambda self, kind: None)

    def __init__(self, launch: LaunchSettings, security: Security) -> None:
        self.launch = launch
        settings = launch.settings
        super().__init__(
            region=launch.region,
            bootstrap=False,
            ami=launch.image,
            scheduler_instance_type=settings.scheduler_type,
            worker_instance_type=settings.worker_type,
            vpc=launch.subnets.vpc,
            subnet_id=launch.subnets.identifiers[0],
            security_groups=[launch.group],
            filesystem_size=settings.disk_gb,
            key_name=settings.key_pair,
            iam_instance_profile={"Name": INSTANCE_PROFILE},
            instance_tags=launch.tags,
            volume_tags=launch.tags,
            use_private_ip=not settings.public,
            spot=settings.spot,
            security=security,
        )
        self.new_spec["group"] = [worker_name("", index) for index in range(launch.workers_per_node)]

    @property
    def boto_session(self) -> Any:
        """The session that creates the cluster's clients."""
        return self._boto_session

    @boto_session.setter
    def boto_session(self, session: Any) -> None:
        self._boto_session = session
        session.register("before-parameter-build.ec2.RunInstances", self._complete)

    def _complete(self, params: dict[str, Any], **_: Any) -> None:
        """Complete a request for an instance: an encrypted root volume, no IMDSv1, tags on the network interface."""
        (root,) = params["BlockDeviceMappings"]
        root.pop("VirtualName")
        root["DeviceName"] = self.launch.root_device
        root["Ebs"]["Encrypted"] = True
        params["MetadataOptions"] = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
        params["TagSpecifications"] += [{"ResourceType": "network-interface", "Tags": aws_tags(self.launch.tags)}]

    def render_process_cloud_init(self, process: Any) -> str:
        """Return the user data of an instance."""
        return str(process.script)

    def adapt_to_load(self) -> None:
        """Add and remove instances with the load, between ``minimum`` and ``maximum`` of the settings."""
        settings, per_node = self.launch.settings, self.launch.workers_per_node
        self.adapt(
            _WholeInstances,
            minimum=settings.minimum * per_node,
            maximum=settings.maximum * per_node,
            worker_key=node_of,
            **ADAPTIVE,
        )

    def scale(self, n: int = 0, memory: str | None = None, cores: int | None = None) -> Any:
        """Request instances for `n` workers; :class:`distributed.Adaptive` counts workers."""
        instances = math.ceil(max(n, cores or 0) / self.launch.workers_per_node)
        return super().scale(instances, memory)

    def _update_worker_status(self, op: str, msg: Any) -> None:
        """Release an instance that has lost its last worker, as when Spot reclaims it; the scaling replaces it."""
        if op != "remove":
            super()._update_worker_status(op, msg)
            return
        node = node_of(SimpleNamespace(**self.scheduler_info["workers"][msg]))
        cluster: Any = self
        DistributedCluster._update_worker_status(cluster, op, msg)  # SpecCluster's version does not support groups

        def release() -> None:
            alive = {node_of(SimpleNamespace(**worker)) for worker in self.scheduler_info["workers"].values()}
            for name in [name for name in self.workers if str(name) == node and node not in alive]:
                self._futures.add(asyncio.ensure_future(self.workers.pop(name).close()))

        delay = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
        asyncio.get_running_loop().call_later(delay, release)


class _WholeInstances(Adaptive):
    """Adaptive scaling in whole instances: a single worker can be neither started nor stopped."""

    cluster: Any

    async def target(self) -> int:
        """Return the target number of workers, rounded up to whole instances."""
        per_node: int = self.cluster.launch.workers_per_node
        workers: int = await super().target()  # type: ignore[no-untyped-call]
        return math.ceil(workers / per_node) * per_node


async def _wait_for_scheduler(host: str, instance: str) -> None:
    """Wait until the scheduler accepts connections at `host`.

    Raises
    ------
    JobError
        The timeout has passed; names the instance and the command that shows its log.
    """
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, writer = await asyncio.open_connection(host, PORT)
        except OSError:  # includes TimeoutError
            await asyncio.sleep(1)
            continue
        writer.close()
        await writer.wait_closed()
        return
    raise JobError(
        f"The scheduler on {instance} did not answer at {host}:{PORT} within {START_SECONDS:g} s. Check that this "
        "machine can reach it (`public` in cluster.yaml), and that it can reach S3. Its log: "
        f"aws ec2 get-console-output --latest --output text --instance-id {instance}"
    )
