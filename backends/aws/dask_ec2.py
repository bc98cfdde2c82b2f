"""A Dask cluster on EC2 machines, made for a job and ended after it: dask-cloudprovider's, with its traps closed.

What that library does by itself, and this does not: it opens the scheduler to the whole world, installs what the
package index has that day, waits for ever for a scheduler that does not come, sends workers to a public address that
its own security group shuts, knows workers by other names than :class:`distributed.Adaptive`, so that no machine is
ever given back, leaves a cluster's private keys in Dask's configuration, and leaves behind what a failed start began.
"""

from __future__ import annotations

import asyncio
import copy
import math
import re
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import dask
from botocore.exceptions import ClientError
from dask.utils import parse_timedelta
from dask_cloudprovider.aws.ec2 import EC2Cluster, EC2Scheduler, EC2Worker
from distributed import Adaptive, Client
from distributed.deploy.cluster import Cluster as DistributedCluster
from distributed.security import Security

from backends.aws.account import Account, bucket_of, explained, tags_of
from backends.aws.cleanup import end
from backends.aws.dask_node import PORT, ROLES, Secrets, node_of, worker_name
from backends.aws.network import find_place
from backends.aws.releases import Release
from backends.aws.roles import INSTANCE_PROFILE
from backends.aws.staged import Staged
from backends.aws.wheelhouse import is_staged, stage
from backends.aws.words import command_line
from backends.dask import DaskExecutor
from backends.dask_cluster import attach
from fruits import pipeline
from fruits.clouds import DaskEc2Cluster
from fruits.config import Cluster
from fruits.errors import JobError, SettingsError
from fruits.executor import Executor
from fruits.job import Job
from fruits.progress import Progress
from fruits.report import Report, SliceReport
from fruits.storage import Folder

__all__ = ["admit", "check_pins", "dask_ec2", "executor", "run"]

CONNECT_SECONDS = 5.0
START_SECONDS = 900.0  # a machine starts, and builds its environment from the wheelhouse
SECRETS = "secrets.json"
# What has to be the same on both sides; the scheduler is asked again when it is up.
MATCHED = ("cloudpickle", "dask", "distributed", "openvino")
# The Python that runs here, and the glibc of Amazon Linux 2023.
NODE = Release("none", "none", None, f"{sys.version_info.major}.{sys.version_info.minor}", (2, 34))
# Amazon Linux 2023: its repositories are in S3, so that a private subnet with an endpoint for S3 is enough.
IMAGE_OWNER, IMAGE_NAME = "amazon", "al2023-ami-2023.*-x86_64"
# What EC2 says where Spot has no machine of this type now: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
NO_SPOT = {
    "InsufficientInstanceCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
}
# A machine takes a minute to start and is paid by the second: no hurry to get one, and none to give it back.
ADAPTIVE = {"interval": "5s", "wait_count": 12, "target_duration": "60s"}
WHO_AM_I = "https://checkip.amazonaws.com"


def run(command: str, job: Job, cluster: Cluster, progress: Progress) -> Report | SliceReport:
    """Run a job on a cluster that is made for it, and return its report; see :func:`executor`.

    Parameters
    ----------
    command : {"run", "fit", "transform"}
    job : fruits.job.Job
    cluster : fruits.config.Cluster
    progress : fruits.progress.Progress
    """
    work = {"run": pipeline.run, "fit": pipeline.fit, "transform": pipeline.transform}[command]
    with executor(cluster, job, tell=progress.note) as machines:
        return work(job, machines, progress=progress)


@contextmanager
def executor(cluster: Cluster, job: Job, *, tell: Callable[[str], None]) -> Iterator[Executor]:
    """Yield the executor of a job, on a cluster that is made for it; see :func:`dask_ec2`.

    What the machines need is staged first, where it is missing or of other sources than these.

    Parameters
    ----------
    cluster : fruits.config.Cluster
        With the settings of Dask on EC2 in ``cloud``.
    job : fruits.job.Job
    tell : callable
        Is told what happens, in words.
    """
    settings = cluster.cloud
    if not isinstance(settings, DaskEc2Cluster):
        raise SettingsError(f"--cluster {cluster.name}: not a cluster of Dask on EC2.")
    command_line("run", job)  # refuses what the machines do not see
    bucket = bucket_of(settings, out=job.out)
    account = Account.of(settings, bucket)
    account.identity()
    staged = Staged.of(bucket, str(NODE.python))
    if not is_staged(account, staged, ()):
        staged = stage(account, bucket, NODE, backbones=(), tell=tell)
    name = f"{cluster.name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid4().hex[:4]}"
    tell(f"starting {name}; whatever happens here, it ends when it was idle for {settings.idle_minutes} minutes")
    with dask_ec2(settings, name=name, bucket=bucket, staged=staged, account=account) as client:
        yield DaskExecutor(client=client)


@contextmanager
def dask_ec2(settings: DaskEc2Cluster, *, name: str, bucket: str, staged: Staged, account: Account) -> Iterator[Client]:
    """Yield a client of a Dask cluster on EC2 that grows and shrinks with the work; end all of it afterwards.

    Parameters
    ----------
    settings : DaskEc2Cluster
    name : str
        Of the job; every machine, volume and security group is tagged with it.
    bucket : str
        Without ``s3://``; the machines find there what they share with this client.
    staged : Staged
        What ``fruits cluster stage`` has put into the bucket, for the Python that runs here.
    account : Account

    Raises
    ------
    SettingsError
        What is staged is not what runs here, or the settings cannot be met.
    JobError
        AWS refused something, or the scheduler did not come. What was begun is ended.
    """
    secrets = _secrets(settings)
    folder = Folder(f"s3://{bucket}/fruits/clusters/{name}")
    with ExitStack() as stack:
        stack.enter_context(_config())
        stack.callback(end, account, name)
        plan = _plan(account, settings, name, staged, f"{folder.address}/{SECRETS}")
        stack.callback(folder.remove, SECRETS)
        secrets.write(folder, SECRETS)
        with explained("start the cluster"):
            try:
                cluster = stack.enter_context(_Cluster(plan, _security(secrets)))
            except RuntimeError as error:  # what dask-cloudprovider makes of everything
                raise error.__cause__ or error from None
        client = stack.enter_context(attach(cluster.scheduler_address, _security(secrets)))
        per_node = plan.workers_per_node
        cluster.adapt(
            _WholeMachines,
            minimum=settings.minimum * per_node,
            maximum=settings.maximum * per_node,
            worker_key=node_of,
            **ADAPTIVE,
        )
        yield client


def check_pins(requirements: str) -> None:
    """Hold what the machines will install to what runs here.

    Parameters
    ----------
    requirements : str
        The ``requirements.txt`` of the wheelhouse.

    Raises
    ------
    SettingsError
        A version differs.
    """
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", requirements, re.MULTILINE))
    wrong = [
        f"{package} {pinned.get(package, 'none')} (here: {version(package)})"
        for package in MATCHED
        if pinned.get(package) != version(package)
    ]
    if wrong:
        raise SettingsError(
            f"The machines would get other versions: {'; '.join(wrong)}. Install here what the wheelhouse has: "
            "pip install --require-hashes -r requirements/light.txt, or run from the wheel that was staged."
        )


def admit(account: Account, vpc: str, name: str, client: str, tags: Mapping[str, str]) -> str:
    """Return a new security group that admits the cluster's machines to each other, and one client to the scheduler.

    Parameters
    ----------
    account : Account
    vpc, name : str
    client : str
        Its addresses, such as ``203.0.113.7/32``.
    tags : mapping of str to str

    Raises
    ------
    SettingsError
        The client's addresses are everybody's.
    """
    if ip_network(client).prefixlen == 0:
        raise SettingsError(f"client {client}: that is the whole world. Give the addresses of this machine alone.")
    ec2 = account.client("ec2")
    with explained("make the security group"):
        group = str(
            ec2.create_security_group(
                GroupName=f"fruits-{name}",
                Description="Fruits on Dask: the machines of one cluster, and its client",
                VpcId=vpc,
                TagSpecifications=[{"ResourceType": "security-group", "Tags": _aws(tags)}],
            )["GroupId"]
        )
        itself = [{"GroupId": group, "Description": "the cluster"}]
        alone = [{"CidrIp": client, "Description": "the client"}]
        ec2.authorize_security_group_ingress(
            GroupId=group,
            IpPermissions=[
                {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535, "UserIdGroupPairs": itself},
                {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "IpRanges": alone},
            ],
        )
    return group


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that was found out before the first machine is asked for."""

    settings: DaskEc2Cluster
    name: str
    tags: Mapping[str, str]
    region: str
    vpc: str
    subnet: str
    group: str
    image: str
    device: str  # the name of the image's root volume
    workers_per_node: int
    staged: Staged
    secrets: str

    def user_data(self, *words: object) -> str:
        """Return the script of a machine, which :mod:`backends.aws.dask_node` gets the words of; it holds no secret."""
        values = {
            "REGION": self.region,
            "PYTHON": self.staged.root.rpartition("-python")[2],
            "BOOTSTRAP": self.staged.bootstrap,
            "WHEELHOUSE": self.staged.wheelhouse,
            "SECRETS": self.secrets,
            "WORDS": " ".join(map(str, words)),
        }
        script = (files("backends.aws") / "dask_node.sh").read_text(encoding="utf-8")
        return re.sub("@([A-Z]+)@", lambda word: values[word[1]], script)


def _plan(account: Account, settings: DaskEc2Cluster, name: str, staged: Staged, secrets: str) -> _Plan:
    ec2 = account.client("ec2")
    wheelhouse = Folder(staged.wheelhouse)
    try:
        check_pins(wheelhouse.read("requirements.txt").decode())
    except FileNotFoundError as error:
        raise SettingsError(f"Nothing is staged at {staged.root}. Run: fruits cluster stage.") from error
    place = find_place(account, settings)
    with explained("look up the machines"):
        types = ec2.describe_instance_types(InstanceTypes=[settings.worker_type])["InstanceTypes"]
        newest: dict[str, Any] = {"Owners": [IMAGE_OWNER], "Filters": [{"Name": "name", "Values": [IMAGE_NAME]}]}
        images = ec2.describe_images(**{"ImageIds": [settings.image]} if settings.image else newest)["Images"]
    if not images:
        raise SettingsError(f"No image {settings.image or IMAGE_NAME} is there. Give one: `image` in cluster.yaml.")
    image = max(images, key=lambda image: str(image["CreationDate"]))
    tags = tags_of(name, settings.tags)
    client = settings.client or f"{_own_address(account, settings, place.subnets[0])}/32"
    return _Plan(
        settings=settings,
        name=name,
        tags=tags,
        region=str(ec2.meta.region_name),
        vpc=place.vpc,
        subnet=place.subnets[0],
        group=admit(account, place.vpc, name, client, tags),
        image=str(image["ImageId"]),
        device=str(image["RootDeviceName"]),
        workers_per_node=int(types[0]["VCpuInfo"]["DefaultVCpus"]),
        staged=staged,
        secrets=secrets,
    )


def _own_address(account: Account, settings: DaskEc2Cluster, subnet: str) -> str:
    """Return the address that this machine is seen with: by the subnet, or by the internet."""
    if settings.public:
        try:
            with urllib.request.urlopen(WHO_AM_I, timeout=10) as answer:  # nosec B310  # a constant, https
                return str(answer.read().decode().strip())
        except OSError as error:
            raise SettingsError(
                f"{WHO_AM_I} did not tell the address of this machine ({error}). "
                "Give it as `client` in cluster.yaml, such as 203.0.113.7/32."
            ) from error
    with explained("look up the subnet"):
        found = account.client("ec2").describe_subnets(SubnetIds=[subnet])["Subnets"][0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
        towards.connect((str(ip_network(found["CidrBlock"])[1]), PORT))  # sends nothing
        return str(towards.getsockname()[0])


def _secrets(settings: DaskEc2Cluster) -> Secrets:
    made = Security.temporary()
    return Secrets(made.tls_ca_file, made.tls_client_cert, made.tls_client_key, settings.idle_minutes * 60)


def _security(secrets: Secrets) -> Security:
    return Security(
        tls_ca_file=secrets.ca,
        require_encryption=True,
        **{f"tls_{role}_{part}": getattr(secrets, part) for role in ROLES for part in ("cert", "key")},
    )


@contextmanager
def _config() -> Iterator[None]:
    """Put Dask's configuration back in the end: dask-cloudprovider leaves a cluster's keys in it."""
    before = copy.deepcopy(dask.config.config)
    try:
        yield
    finally:
        dask.config.config.clear()
        dask.config.config.update(before)


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
        self.script = self.cluster.asked.user_data()

    async def wait_for_scheduler(self) -> None:
        host = (self.external_address or self.address).rpartition("/")[2].rpartition(":")[0]
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    _, writer = await asyncio.open_connection(host, PORT)
            except OSError:  # a timeout too
                await asyncio.sleep(1)
                continue
            writer.close()
            await writer.wait_closed()
            return
        machine = self.instance["InstanceId"]
        raise JobError(
            f"The scheduler on {machine} did not answer at {host}:{PORT} within {START_SECONDS:g} s. Is there a way to "
            "it from here (`public` in cluster.yaml), and from it to S3? Its log: "
            f"aws ec2 get-console-output --latest --output text --instance-id {machine}"
        )


class _Worker(_Machine, EC2Worker):  # type: ignore[misc]
    def __init__(self, scheduler: str, *, name: object, **options: Any) -> None:
        super().__init__(scheduler, **options)
        self.name = f"{self.cluster.asked.name}-{name}"
        self.script = self.cluster.asked.user_data(scheduler, name, self.cluster.asked.workers_per_node)

    async def create_vm(self) -> tuple[str, str | None]:
        try:
            return await super().create_vm()  # type: ignore[no-any-return]
        except ClientError as error:
            if not self.spot or error.response["Error"]["Code"] not in NO_SPOT:
                raise
        self.spot = False
        return await super().create_vm()  # type: ignore[no-any-return]


class _Cluster(EC2Cluster):  # type: ignore[misc]
    """dask-cloudprovider's cluster, with machines and scripts of ours."""

    # It sets them as it starts, and it starts as it is made.
    scheduler_class = property(lambda self: _Scheduler, lambda self, kind: None)
    worker_class = property(lambda self: _Worker, lambda self, kind: None)

    def __init__(self, plan: _Plan, security: Security) -> None:
        self.asked = plan
        settings = plan.settings
        super().__init__(
            region=plan.region,
            bootstrap=False,
            ami=plan.image,
            scheduler_instance_type=settings.scheduler_type,
            worker_instance_type=settings.worker_type,
            vpc=plan.vpc,
            subnet_id=plan.subnet,
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
        self.new_spec["group"] = [worker_name("", index) for index in range(plan.workers_per_node)]

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
        root["DeviceName"] = self.asked.device
        root["Ebs"]["Encrypted"] = True
        params["MetadataOptions"] = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
        params["TagSpecifications"] += [{"ResourceType": "network-interface", "Tags": _aws(self.asked.tags)}]

    def render_process_cloud_init(self, process: Any) -> str:
        """Return the user data of a machine."""
        return str(process.script)

    def scale(self, n: int = 0, memory: str | None = None, cores: int | None = None) -> Any:
        """Have machines for `n` workers; :class:`distributed.Adaptive` counts in workers."""
        return super().scale(math.ceil(max(n, cores or 0) / self.asked.workers_per_node), memory)

    def _update_worker_status(self, op: str, msg: Any) -> None:
        """Give up a machine of which no worker is left, as Spot takes them; another is asked for in its place."""
        if op != "remove":
            super()._update_worker_status(op, msg)
            return
        node = node_of(SimpleNamespace(**self.scheduler_info["workers"][msg]))
        DistributedCluster._update_worker_status(self, op, msg)  # SpecCluster's own knows no groups

        def give_up() -> None:
            left = {node_of(SimpleNamespace(**worker)) for worker in self.scheduler_info["workers"].values()}
            for name in [name for name in self.workers if str(name) == node and node not in left]:
                self._futures.add(asyncio.ensure_future(self.workers.pop(name).close()))

        delay = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
        asyncio.get_running_loop().call_later(delay, give_up)


class _WholeMachines(Adaptive):
    """Asks for whole machines: a worker by itself can neither be started nor given back."""

    cluster: Any

    async def target(self) -> int:
        """Return how many workers there should be."""
        each: int = self.cluster.asked.workers_per_node
        wanted: int = await super().target()  # type: ignore[no-untyped-call]
        return math.ceil(wanted / each) * each


def _aws(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
