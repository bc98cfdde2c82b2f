"""Dask on Fargate: requests against botocore's model of ECS, and a job on tasks that run here what they are told."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import botocore.session
import pytest
from botocore.validate import ParamValidator
from moto.moto_api import state_manager

from backends.aws.account import setup
from backends.aws.account.clients import TAG
from backends.aws.account.resources import end, find
from backends.aws.account.roles import EXECUTION_ROLE, LOG_GROUP, NODE_ROLE, user_policy
from backends.aws.account.vpc import Place
from backends.aws.ec2 import dask_fargate
from backends.aws.ec2 import machines as dask_machines
from backends.aws.ec2.dask_fargate import ecs_name, task, task_definition
from backends.aws.ec2.machines import Plan
from backends.aws.staging.staged import StagedFiles
from backends.local import LocalExecutor
from fruits.clusters.clouds import DaskFargateCluster
from fruits.clusters.config import Cluster
from fruits.errors import JobError
from fruits.images.sample import generate
from fruits.jobs import pipeline
from fruits.jobs.compare import compare
from fruits.jobs.job import Job
from tests.aws.actions import action

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "my-fruits"
STAGED = StagedFiles.of(BUCKET, "3.11")
PINS = "".join(f"{name}=={dask_machines.version(name)} --hash=sha256:00\n" for name in dask_machines.MATCHED)
FARGATE = DaskFargateCluster(backend="dask", cloud="dask-fargate")
PLAN = Plan(
    FARGATE, "a-job", {TAG: "a-job"}, "eu-west-3", Place("vpc-1", ("subnet-1",), True), "sg-1", 4, STAGED, "s3://b/s"
)


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("RegisterTaskDefinition", task_definition(PLAN, FARGATE, "111122223333")),
        ("RunTask", task(PLAN, size=dask_fargate.SCHEDULER)),
        ("RunTask", task(PLAN, "tls://10.0.0.1:8786", 0, 4, spot=True)),
    ],
)
def test_every_request_is_one_of_ecs(operation, request_):
    shape = botocore.session.get_session().get_service_model("ecs").operation_model(operation).input_shape
    assert ParamValidator().validate(request_, shape).generate_report() == ""


@pytest.mark.parametrize("vcpus", [1, 2, 4, 8, 16])
def test_every_size_is_one_of_fargate(vcpus):
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html, in GiB
    allowed = {1: range(2, 9), 2: range(4, 17), 4: range(8, 31), 8: range(16, 61, 4), 16: range(32, 121, 8)}
    asked = task_definition(PLAN, FARGATE.model_copy(update={"vcpus": vcpus}), "1")
    assert asked["cpu"] == str(vcpus * 1024)
    assert int(asked["memory"]) // 1024 in allowed[vcpus]


def test_only_in_a_public_subnet_a_task_has_a_public_address():
    for private, assigned in ((True, "DISABLED"), (False, "ENABLED")):
        plan = dataclasses.replace(PLAN, place=Place("vpc-1", ("subnet-1",), private))
        assert task(plan)["networkConfiguration"]["awsvpcConfiguration"]["assignPublicIp"] == assigned


def test_the_script_of_a_task_is_one_of_bash():
    _, _, script = task(PLAN, "tls://10.0.0.1:8786", 0, 4)["overrides"]["containerOverrides"][0]["command"]
    assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0
    assert "@" not in script.replace('"$@"', "")
    assert len(str(task(PLAN)["overrides"])) < 8192  # what ECS takes


@pytest.fixture
def settings(account, monkeypatch):
    """An account that was set up; the addresses in its subnet are those of this machine's loopback."""
    ec2, s3 = account.client("ec2"), account.client("s3")
    vpc = ec2.create_vpc(CidrBlock="127.0.0.0/16")["Vpc"]["VpcId"]
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="127.0.8.0/24")["Subnet"]["SubnetId"]
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    key = f"{STAGED.wheelhouse}/requirements.txt".removeprefix(f"s3://{BUCKET}/")
    s3.put_object(Bucket=BUCKET, Key=key, Body=PINS.encode())
    numbers = itertools.count(10)
    monkeypatch.setattr("moto.ecs.models.random_private_ip", lambda *_: f"127.0.8.{next(numbers)}")
    # By itself moto ends a task when it was looked at once.
    state_manager.set_transition("ecs::task", transition={"progression": "manual", "times": 10**6})
    yield FARGATE.model_copy(update={"region": "eu-west-3", "subnet": subnet, "vcpus": 2, "minimum": 1, "maximum": 1})
    state_manager.unset_transition("ecs::task")


@pytest.fixture
def tasks(account, settings):
    """What runs in the tasks of an account: the last line of their script, as long as they are not stopped."""
    ecs, running, commands = account.client("ecs"), {}, []
    stopped = threading.Event()

    def alive():
        for cluster in ecs.list_clusters()["clusterArns"]:
            if names := ecs.list_tasks(cluster=cluster)["taskArns"]:
                for found in ecs.describe_tasks(cluster=cluster, tasks=names)["tasks"]:
                    if found["desiredStatus"] == "RUNNING":
                        yield found

    def follow():
        while not stopped.wait(0.2):
            found = {each["taskArn"]: each for each in alive()}
            for name in found.keys() - running.keys():
                (details,) = (each["details"] for each in found[name]["attachments"])
                host = next(each["value"] for each in details if each["name"] == "privateIPv4Address")
                script = found[name]["overrides"]["containerOverrides"][0]["command"][2]
                commands.append((script, found[name]))
                words = re.search(r"bin/python (-m .*)\n?$", script)[1].replace('"$host"', host).split()
                environ = os.environ | {"PYTHONPATH": str(ROOT)}
                running[name] = subprocess.Popen([sys.executable, *words], env=environ)
            for name in running.keys() - found.keys():
                finish(running.pop(name))

    def finish(process):
        process.terminate()
        process.wait(30)

    following = threading.Thread(target=follow)
    following.start()
    yield commands
    stopped.set()
    following.join()
    for process in running.values():
        finish(process)


def test_a_job_on_tasks_gives_the_bits_of_here_and_leaves_nothing(
    account, settings, tasks, called, monkeypatch, tmp_path
):
    monkeypatch.setattr(dask_machines, "is_staged", lambda *_: True)
    monkeypatch.setattr(dask_machines, "ADAPTIVE", {"interval": "200ms", "wait_count": 3, "target_duration": "1s"})
    monkeypatch.setattr(dask_fargate, "SECONDS", 0.1)
    generate(tmp_path / "images", images=24)
    job = Job(images=str(tmp_path / "images"), out=str(tmp_path / "out"), components=10, partition_size=8)
    with LocalExecutor() as executor:
        pipeline.run(job, executor)
    for path in (tmp_path / "images").rglob("*.*"):
        key = f"images/{path.relative_to(tmp_path / 'images').as_posix()}"
        account.client("s3").upload_file(str(path), BUCKET, key)
    there = dataclasses.replace(job, images=f"s3://{BUCKET}/images", out=f"s3://{BUCKET}/out")
    place = Cluster(name="dask-fargate", backend="dask", workers=None, cloud=settings)
    with dask_machines.executor(dask_fargate.start, place, there, tell=print) as executor:
        pipeline.run(there, executor)
        (cluster, group) = find(account)
    assert (cluster.kind, group.kind) == ("ECS cluster", "security group")
    assert compare(job.out, there.out).identical
    providers = [found["capacityProviderName"] for _, found in tasks]
    assert providers[0] == "FARGATE"
    assert set(providers[1:]) == {"FARGATE_SPOT"}
    assert not any("PRIVATE KEY" in script for script, _ in tasks)
    assert find(account) == []
    ecs = account.client("ecs")
    assert ecs.list_task_definitions(familyPrefix=cluster.identifier)["taskDefinitionArns"] == []
    assert "Contents" not in account.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="fruits/clusters/")

    policy = user_policy(BUCKET, "111122223333", "eu-west-3")
    allowed = {name for statement in policy["Statement"] for name in statement["Action"]}
    assert {action(*each) for each in called} - allowed == set()


def test_a_scheduler_that_does_not_come_is_ended_and_told_of(account, settings, monkeypatch):
    monkeypatch.setattr(dask_machines, "START_SECONDS", 0.5)
    begun = dask_machines.client_of(
        dask_fargate.start, settings, name="a-job", bucket=BUCKET, staged=STAGED, account=account
    )
    with pytest.raises(JobError, match=r"did not answer at 127\.0\.8\.\d+:8786 .*aws logs tail /fruits/fargate"), begun:
        pytest.fail("there is no cluster")
    assert find(account) == []


def test_what_a_killed_driver_left_is_found_and_ended(account, settings):
    plan = dask_machines.plan_of(account, settings, "a-job", STAGED, "s3://b/s", workers_per_node=2)
    ecs = account.client("ecs")
    tags = [{"key": TAG, "value": "a-job"}]
    ecs.create_cluster(clusterName=ecs_name("a-job"), tags=tags)
    ecs.create_cluster(clusterName="theirs")
    ecs.register_task_definition(**task_definition(plan, settings, "111122223333"))
    ecs.run_task(**task(plan))
    assert [each.kind for each in find(account)] == ["ECS cluster", "security group"]
    end(account, "a-job")
    end(account, "a-job")
    assert find(account) == []
    names = [ecs_name("a-job"), "theirs"]
    assert [each["status"] for each in ecs.describe_clusters(clusters=names)["clusters"]] == ["INACTIVE", "ACTIVE"]


def test_init_makes_what_fargate_needs_besides(account, settings):
    for _ in range(2):
        for thing in setup.needed(account, settings, BUCKET):
            thing.make()
    assert all(thing.there for thing in setup.needed(account, settings, BUCKET))
    iam = account.client("iam")
    (attached,) = iam.list_attached_role_policies(RoleName=EXECUTION_ROLE)["AttachedPolicies"]
    assert attached["PolicyName"] == "AmazonECSTaskExecutionRolePolicy"
    (statement,) = iam.get_role(RoleName=NODE_ROLE)["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert "ecs-tasks.amazonaws.com" in statement["Principal"]["Service"]
    (group,) = account.client("logs").describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"]
    assert group["retentionInDays"] == 30
