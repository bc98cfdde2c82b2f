"""What clusters of Dask on AWS share, on EC2 as on Fargate: who may reach them, their secrets, how they grow.

A cluster is made for a job and ended after it. Its machines (or tasks) run a single-threaded worker for each vCPU, and
come and go as wholes.
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
from dask.utils import parse_timedelta
from distributed import Adaptive, Client
from distributed.deploy.cluster import Cluster as DistributedCluster
from distributed.security import Security

from backends.aws.account.clients import BUCKET_TAG, Account, bucket_of, explained, split_address, tags_of
from backends.aws.account.resources import end, secrets_address
from backends.aws.account.vpc import Place, find_place
from backends.aws.ec2.dask_node import PORT, ROLES, Secrets, node_of, worker_name
from backends.aws.emr.releases import Release
from backends.aws.job_arguments import command_line
from backends.aws.staging.staged import StagedFiles
from backends.aws.staging.wheelhouse import is_staged, stage
from backends.dask.cluster import attach
from backends.dask.executor import DaskExecutor
from fruits.clusters.clouds import DaskCloudCluster
from fruits.clusters.config import Cluster
from fruits.errors import JobError, SettingsError
from fruits.executor import Executor
from fruits.jobs import pipeline
from fruits.jobs.job import Job
from fruits.jobs.report import Report, SliceReport
from fruits.progress.reporter import Progress
from fruits.storage.folder import Folder

__all__ = ["Machines", "Plan", "admit", "answers", "aws_tags", "check_pins", "client_of", "executor", "plan_of", "run"]

CONNECT_SECONDS = 5.0
START_SECONDS = 900.0  # a machine starts, and builds its environment from the wheelhouse
# What has to be the same on both sides; the scheduler is asked again when it is up.
MATCHED = ("cloudpickle", "dask", "distributed", "openvino")
# The Python that runs here, and the glibc of Amazon Linux 2023.
NODE = Release("none", "none", None, f"{sys.version_info.major}.{sys.version_info.minor}", (2, 34))
# A machine takes a minute to start and is paid by the second: no hurry to get one, and none to give it back.
ADAPTIVE = {"interval": "5s", "wait_count": 12, "target_duration": "60s"}
WHO_AM_I = "https://checkip.amazonaws.com"


@dataclass(frozen=True, slots=True)
class Plan:
    """All that was found out before the first machine is asked for.

    Attributes
    ----------
    settings : DaskCloudCluster
    name : str
        Of the job; everything is tagged with it.
    tags : mapping of str to str
    region : str
    place : Place
    group : str
        The security group.
    workers_per_node : int
    staged : StagedFiles
    secrets : str
        The address where the machines find what they share with the client.
    """

    settings: DaskCloudCluster
    name: str
    tags: Mapping[str, str]
    region: str
    place: Place
    group: str
    workers_per_node: int
    staged: StagedFiles
    secrets: str

    def script(self, name: str, *words: object) -> str:
        """Return the start script of a machine, which passes `words` to ``dask_node``; it contains no secret."""
        values = {
            "REGION": self.region,
            "PYTHON": self.staged.root.rpartition("-python")[2],
            "BOOTSTRAP": self.staged.bootstrap,
            "WHEELHOUSE": self.staged.wheelhouse,
            "SECRETS": self.secrets,
            "WORDS": " ".join(map(str, words)),
        }
        script = (files("backends.aws.ec2") / name).read_text(encoding="utf-8")
        return re.sub("@([A-Z]+)@", lambda word: values[word[1]], script)


# Starts a cluster of one kind: the account, its settings, its name, what is staged, where the secrets are, and TLS.
Start = Callable[[Account, Any, str, StagedFiles, str, Security], Any]


def run(start: Start, command: str, job: Job, cluster: Cluster, progress: Progress) -> Report | SliceReport:
    """Run a job on a cluster that is made for it, and return its report; see :func:`executor`.

    Parameters
    ----------
    start : callable
        Starts a cluster of one kind.
    command : {"run", "fit", "transform"}
    job : fruits.jobs.job.Job
    cluster : fruits.clusters.config.Cluster
    progress : fruits.progress.reporter.Progress
    """
    work = {"run": pipeline.run, "fit": pipeline.fit, "transform": pipeline.transform}[command]
    with executor(start, cluster, job, tell=progress.note) as machines:
        return work(job, machines, progress=progress)


@contextmanager
def executor(start: Start, cluster: Cluster, job: Job, *, tell: Callable[[str], None]) -> Iterator[Executor]:
    """Yield the executor of a job, on a cluster that is made for it; see :func:`client_of`.

    What the machines need is staged first, where it is missing or of other sources than these.

    Parameters
    ----------
    start : callable
    cluster : fruits.clusters.config.Cluster
        With the settings of Dask on AWS in ``cloud``.
    job : fruits.jobs.job.Job
    tell : callable
        Is told what happens, in words.
    """
    settings = cluster.cloud
    if not isinstance(settings, DaskCloudCluster):
        raise SettingsError(f"--cluster {cluster.name}: not a cluster of Dask on AWS.")
    command_line("run", job)  # refuses what the machines do not see
    bucket = bucket_of(settings, out=job.out)
    account = Account.of(settings, bucket)
    account.identity()
    staged = StagedFiles.of(bucket, str(NODE.python))
    if not is_staged(account, staged, ()):
        staged = stage(account, bucket, NODE, backbones=(), tell=tell)
    name = f"{cluster.name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid4().hex[:4]}"
    tell(f"starting {name}; whatever happens here, it ends when it was idle for {settings.idle_minutes} minutes")
    with client_of(start, settings, name=name, bucket=bucket, staged=staged, account=account) as client:
        yield DaskExecutor(client=client)


@contextmanager
def client_of(
    start: Start, settings: DaskCloudCluster, *, name: str, bucket: str, staged: StagedFiles, account: Account
) -> Iterator[Client]:
    """Yield a client of a cluster that grows and shrinks with the work; end all of it afterwards.

    Parameters
    ----------
    start : callable
    settings : DaskCloudCluster
    name : str
        Of the job; everything that is made is tagged with it.
    bucket : str
        Without ``s3://``; the machines find there what they share with this client.
    staged : StagedFiles
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
    address = secrets_address(bucket, name)
    folder, _, file = address.rpartition("/")
    with ExitStack() as stack:
        stack.enter_context(_config())
        try:
            check_pins(Folder(staged.wheelhouse).read("requirements.txt").decode())
        except FileNotFoundError as error:
            raise SettingsError(f"Nothing is staged at {staged.root}. Run: fruits cluster stage.") from error
        stack.callback(end, account, name)
        stack.callback(Folder(folder).remove, file)
        secrets.write(Folder(folder), file)
        security = _security(secrets)
        with explained("start the cluster"):
            try:
                cluster = stack.enter_context(start(account, settings, name, staged, address, security))
            except RuntimeError as error:  # what Dask makes of everything
                raise error.__cause__ or error from None
        client = stack.enter_context(attach(cluster.scheduler_address, security))
        per_node = cluster.asked.workers_per_node
        cluster.adapt(
            _WholeMachines,
            minimum=settings.minimum * per_node,
            maximum=settings.maximum * per_node,
            worker_key=node_of,
            **ADAPTIVE,
        )
        yield client


def plan_of(
    account: Account, settings: DaskCloudCluster, name: str, staged: StagedFiles, secrets: str, *, workers_per_node: int
) -> Plan:
    """Return the plan of a cluster, whose security group is made."""
    place = find_place(account, settings)
    tags = tags_of(name, {**settings.tags, BUCKET_TAG: split_address(secrets)[0]})
    client = settings.client or f"{_own_address(account, settings, place.subnets[0])}/32"
    return Plan(
        settings=settings,
        name=name,
        tags=tags,
        region=str(account.client("ec2").meta.region_name),
        place=place,
        group=admit(account, place.vpc, name, client, tags),
        workers_per_node=workers_per_node,
        staged=staged,
        secrets=secrets,
    )


class Machines:
    """What a SpecCluster becomes whose workers come and go by the machine, as many at once as :class:`Plan` says."""

    asked: Plan
    scheduler_info: Any
    workers: Any
    _futures: Any

    @staticmethod
    def group(workers: int) -> list[str]:
        """Return what the workers of a machine are called, after the machine itself."""
        return [worker_name("", index) for index in range(workers)]

    def scale(self, n: int = 0, memory: str | None = None, cores: int | None = None) -> Any:
        """Have machines for `n` workers; :class:`distributed.Adaptive` counts in workers."""
        wanted = math.ceil(max(n, cores or 0) / self.asked.workers_per_node)
        return super().scale(wanted, memory)  # type: ignore[misc]

    def _update_worker_status(self, op: str, msg: Any) -> None:
        """Give up a machine of which no worker is left, as Spot takes them; another is asked for in its place."""
        if op != "remove":
            super()._update_worker_status(op, msg)  # type: ignore[misc]
            return
        node = node_of(SimpleNamespace(**self.scheduler_info["workers"][msg]))
        cluster: Any = self
        DistributedCluster._update_worker_status(cluster, op, msg)  # SpecCluster's own knows no groups

        def give_up() -> None:
            left = {node_of(SimpleNamespace(**worker)) for worker in self.scheduler_info["workers"].values()}
            for name in [name for name in self.workers if str(name) == node and node not in left]:
                self._futures.add(asyncio.ensure_future(self.workers.pop(name).close()))

        delay = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
        asyncio.get_running_loop().call_later(delay, give_up)


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
                TagSpecifications=[{"ResourceType": "security-group", "Tags": aws_tags(tags)}],
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


async def answers(host: str, *, who: str, log: str) -> None:
    """Wait until the scheduler answers at `host`.

    Raises
    ------
    JobError
        It did not come; names the machine `who`, and the command that shows its `log`.
    """
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
    raise JobError(
        f"The scheduler on {who} did not answer at {host}:{PORT} within {START_SECONDS:g} s. Is there a way to "
        f"it from here (`public` in cluster.yaml), and from it to S3? Its log: {log}"
    )


def aws_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as most of AWS' services take them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _own_address(account: Account, settings: DaskCloudCluster, subnet: str) -> str:
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


def _secrets(settings: DaskCloudCluster) -> Secrets:
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


class _WholeMachines(Adaptive):
    """Asks for whole machines: a worker by itself can neither be started nor given back."""

    cluster: Any

    async def target(self) -> int:
        """Return how many workers there should be."""
        each: int = self.cluster.asked.workers_per_node
        wanted: int = await super().target()  # type: ignore[no-untyped-call]
        return math.ceil(wanted / each) * each
