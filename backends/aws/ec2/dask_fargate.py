"""A Dask cluster on Fargate, made for a job and ended after it.

dask-cloudprovider's FargateCluster is not used. It opens the scheduler to the whole world, removes what it takes for
stale from the account at every start, makes roles of its own for each cluster, has no TLS unless an image carries the
keys, and asks AWS for the state of a task without a pause. What is left of it is small: one ECS cluster, one task
definition, and a task for the scheduler and for each node of workers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from distributed.deploy.spec import ProcessInterface, SpecCluster
from distributed.security import Security

from backends.aws.account.clients import Account, explained
from backends.aws.account.roles import ECS_PREFIX, EXECUTION_ROLE, LOG_GROUP, NODE_ROLE
from backends.aws.ec2 import machines as dask_machines
from backends.aws.ec2.dask_node import PORT
from backends.aws.ec2.machines import Machines, Plan, answers, plan_of
from backends.aws.staging.staged import StagedFiles
from fruits.clusters.clouds import DaskFargateCluster
from fruits.clusters.config import Cluster
from fruits.errors import JobError
from fruits.jobs.job import Job
from fruits.jobs.report import Report, SliceReport
from fruits.progress.reporter import Progress

__all__ = ["ecs_name", "run", "start", "task", "task_definition"]

CONTAINER = "dask"
SCHEDULER = {"cpu": "1024", "memory": "4096"}
GIB_PER_VCPU = 2  # which is allowed for every size: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
START_SECONDS = 300.0  # until a container runs
SECONDS = 3.0  # between two looks


def run(command: str, job: Job, cluster: Cluster, progress: Progress) -> Report | SliceReport:
    """Run a job on a cluster that is made for it; see :func:`backends.aws.ec2.machines.run`."""
    return dask_machines.run(start, command, job, cluster, progress)


def start(
    account: Account, settings: DaskFargateCluster, name: str, staged: StagedFiles, secrets: str, security: Security
) -> Machines:
    """Return a cluster whose scheduler answers; see :func:`backends.aws.ec2.machines.client_of`."""
    number = account.identity()
    plan = plan_of(account, settings, name, staged, secrets, workers_per_node=settings.vcpus)
    ecs = account.client("ecs")
    with explained("make the cluster"):
        ecs.create_cluster(clusterName=ecs_name(name), tags=_tags(plan), capacityProviders=["FARGATE", "FARGATE_SPOT"])
        ecs.register_task_definition(**task_definition(plan, settings, number))
    return _Cluster(plan, account, security)


def ecs_name(name: str) -> str:
    """Return what the ECS cluster of a job, and its task definition, are called."""
    return f"{ECS_PREFIX}{name}"


def task_definition(plan: Plan, settings: DaskFargateCluster, account: str) -> dict[str, Any]:
    """Return the keyword arguments of ``register_task_definition``.

    Parameters
    ----------
    plan : Plan
    settings : DaskFargateCluster
    account : str
        The number of the account.
    """
    log = {"awslogs-group": LOG_GROUP, "awslogs-region": plan.region, "awslogs-stream-prefix": plan.name}
    return {
        "family": ecs_name(plan.name),
        "taskRoleArn": f"arn:aws:iam::{account}:role/{NODE_ROLE}",
        "executionRoleArn": f"arn:aws:iam::{account}:role/{EXECUTION_ROLE}",
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "runtimePlatform": {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
        "cpu": str(settings.vcpus * 1024),
        "memory": str(settings.vcpus * GIB_PER_VCPU * 1024),
        "containerDefinitions": [
            {
                "name": CONTAINER,
                "image": settings.image,
                "essential": True,
                "memoryReservation": 512,  # at least; it has all that the task has
                "logConfiguration": {"logDriver": "awslogs", "options": log},
            }
        ],
        "tags": _tags(plan),
    }


def task(plan: Plan, *words: object, size: dict[str, str] | None = None, spot: bool = False) -> dict[str, Any]:
    """Return the keyword arguments of ``run_task``.

    Parameters
    ----------
    plan : Plan
    words : object
        What :mod:`backends.aws.ec2.dask_node` is told.
    size : dict of str to str, optional
        Its ``cpu`` and ``memory``; default: those of the task definition.
    spot : bool, default False
    """
    command = ["bash", "-c", plan.script("dask_task.sh", *words)]
    return {
        "cluster": ecs_name(plan.name),
        "taskDefinition": ecs_name(plan.name),
        "count": 1,
        "capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT" if spot else "FARGATE"}],
        "networkConfiguration": {
            "awsvpcConfiguration": {
                "subnets": list(plan.place.subnets),
                "securityGroups": [plan.group],
                # In a public subnet the only way out, to the image and to S3.
                "assignPublicIp": "DISABLED" if plan.place.private else "ENABLED",
            }
        },
        "overrides": {"containerOverrides": [{"name": CONTAINER, "command": command}], **(size or {})},
        "tags": _tags(plan),
    }


class _Task(ProcessInterface):
    """A task, from the request to its end."""

    def __init__(self, scheduler: str | None = None, name: object = None, *, plan: Plan, account: Account) -> None:
        super().__init__(scheduler, name)  # type: ignore[no-untyped-call]
        self.plan, self.ecs, self.ec2 = plan, account.client("ecs"), account.client("ec2")
        self.arn = ""

    async def begin(self, *words: object, spot: bool = False, size: dict[str, str] | None = None) -> None:
        for provider in (True, False) if spot else (False,):  # on-demand where there is no Spot
            answer = await _call(self.ecs.run_task, **task(self.plan, *words, size=size, spot=provider))
            if answer["tasks"]:
                self.arn = str(answer["tasks"][0]["taskArn"])
                return
        raise JobError(f"Fargate did not start a task: {answer['failures']}.")

    async def close(self) -> None:
        """End the task."""
        if self.arn:
            await _call(self.ecs.stop_task, cluster=ecs_name(self.plan.name), task=self.arn)
        await super().close()  # type: ignore[no-untyped-call]


class _Worker(_Task):
    def __init__(self, scheduler: str, name: object, **options: Any) -> None:
        super().__init__(scheduler, name, **options)
        self.words = (scheduler, name, self.plan.workers_per_node)

    async def start(self) -> None:
        await self.begin(*self.words, spot=self.plan.settings.spot)
        await super().start()  # type: ignore[no-untyped-call]


class _Scheduler(_Task):
    async def start(self) -> None:
        await self.begin(size=SCHEDULER)
        found = await self._running()
        details = {each["name"]: each["value"] for each in found["attachments"][0]["details"]}
        host = details["privateIPv4Address"]
        self.address = f"tls://{host}:{PORT}"
        if self.plan.settings.public:
            wanted = [details["networkInterfaceId"]]
            interfaces = await _call(self.ec2.describe_network_interfaces, NetworkInterfaceIds=wanted)
            host = str(interfaces["NetworkInterfaces"][0]["Association"]["PublicIp"])
            self.external_address = f"tls://{host}:{PORT}"
        log = f"aws logs tail {LOG_GROUP} --log-stream-name-prefix {self.plan.name}"
        await answers(host, who=self.arn.rpartition("/")[2], log=log)
        await super().start()  # type: ignore[no-untyped-call]

    async def _running(self) -> dict[str, Any]:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            answer = await _call(self.ecs.describe_tasks, cluster=ecs_name(self.plan.name), tasks=[self.arn])
            found: dict[str, Any] = answer["tasks"][0]
            if found["lastStatus"] == "RUNNING":
                return found
            if found["lastStatus"] == "STOPPED":
                raise JobError(f"The scheduler's task ended as it began: {found.get('stoppedReason')}.")
            await asyncio.sleep(SECONDS)
        raise JobError(f"The scheduler's task did not run within {START_SECONDS:g} s: it is {found['lastStatus']}.")


class _Cluster(Machines, SpecCluster):
    def __init__(self, plan: Plan, account: Account, security: Security) -> None:
        self.asked = plan
        options = {"plan": plan, "account": account}
        super().__init__(  # type: ignore[no-untyped-call]
            scheduler={"cls": _Scheduler, "options": options},
            worker={"cls": _Worker, "options": options, "group": self.group(plan.workers_per_node)},
            security=security,
        )


async def _call(method: Callable[..., Any], **given: Any) -> Any:
    """Ask AWS, which takes a moment, beside the event loop."""
    return await asyncio.to_thread(method, **given)


def _tags(plan: Plan) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in plan.tags.items()]
