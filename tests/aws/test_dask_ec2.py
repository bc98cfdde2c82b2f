"""Dask on EC2: the program in the user data of moto's instances runs as a local process."""

from __future__ import annotations

import asyncio
import base64
import copy
import dataclasses
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import dask
import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from distributed import Client, Scheduler

from backends.aws.account.clients import Account
from backends.aws.account.resources import end_resources_of, find_resources, secrets_address
from backends.aws.account.tags import TAG
from backends.aws.ec2 import dask_node
from backends.aws.ec2 import job as ec2_job
from backends.aws.ec2 import machines as ec2_machines
from backends.aws.ec2.job import check_versions
from backends.aws.ec2.launch import create_security_group, prepare_launch
from backends.aws.emr.releases import DEFAULT, release
from backends.aws.staging import stage as staging
from backends.aws.staging.staged_files import StagedFiles
from backends.local import LocalExecutor
from fruits.clusters.clouds import DaskEc2Cluster
from fruits.clusters.cluster import Cluster
from fruits.errors import FruitsError, InputError, JobError, SettingsError
from fruits.images.sample import generate
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.job import Job
from tests.aws.iam import action, document

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "my-fruits"
STAGED = StagedFiles.for_release(BUCKET, release(DEFAULT))
NAME = "a-job"
IMAGE = "ami-760aaa0f"
PINS = "".join(f"{name}=={version(name)} \\\n    --hash=sha256:00\n" for name in ec2_job.MATCHED)


@pytest.fixture
def settings(installed: Account) -> DaskEc2Cluster:
    """Settings in an account after ``init``, with a subnet of loopback addresses."""
    ec2, s3 = installed.client("ec2"), installed.client("s3")
    vpc = ec2.create_vpc(CidrBlock="127.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="127.0.9.0/24")["Subnet"]["SubnetId"]
    key = f"{STAGED.wheelhouse}/requirements.txt".removeprefix(f"s3://{BUCKET}/")
    s3.put_object(Bucket=BUCKET, Key=key, Body=PINS.encode())
    return DaskEc2Cluster(
        backend="dask",
        cloud="dask-ec2",
        region="eu-west-3",
        subnet=subnet,
        worker_type="c7i.large",
        worker_nodes=1,
        image=IMAGE,
        tags={"cost-centre": "42"},
    )


class LocalMachines:
    """Runs the last line of each instance's user data as a local process until the instance is terminated."""

    def __init__(self, account: Account) -> None:
        self.ec2 = account.client("ec2")
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.scripts: dict[str, str] = {}

    def described(self) -> dict[str, dict]:
        pages = self.ec2.describe_instances()["Reservations"]
        return {machine["InstanceId"]: machine for page in pages for machine in page["Instances"]}

    def follow(self) -> None:
        """Start the processes of new instances, and stop those of terminated ones."""
        for name, machine in self.described().items():
            alive = machine["State"]["Name"] in ("pending", "running")
            if alive and name not in self.scripts:
                data = self.ec2.describe_instance_attribute(InstanceId=name, Attribute="userData")["UserData"]["Value"]
                self.scripts[name] = base64.b64decode(data).decode()
                arguments = re.search(r"bin/python (-m .*)\n?$", self.scripts[name])[1]
                arguments = arguments.replace('"$host"', machine["PrivateIpAddress"]).split()
                environ = os.environ | {"PYTHONPATH": str(ROOT)}
                self.running[name] = subprocess.Popen([sys.executable, *arguments], env=environ)
            elif not alive and name in self.running:
                self.stop(self.running.pop(name))

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(120)


@pytest.fixture
def machines(account: Account, settings: DaskEc2Cluster) -> Iterator[LocalMachines]:
    machines = LocalMachines(account)
    stopped = threading.Event()

    def follow() -> None:
        while not stopped.wait(0.2):
            machines.follow()

    following = threading.Thread(target=follow)
    following.start()
    yield machines
    stopped.set()
    following.join()
    for process in machines.running.values():
        machines.stop(process)


@pytest.fixture
def job(account, settings, tmp_path):
    """A job that is complete on this machine; its images are also in the bucket."""
    generate(tmp_path / "images", images=24)
    job = Job(images=str(tmp_path / "images"), out=str(tmp_path / "out"), components=10, partition_size=8)
    with LocalExecutor() as executor:
        pipeline.run(job, executor)
    for path in (tmp_path / "images").rglob("*.*"):
        key = f"images/{path.relative_to(tmp_path / 'images').as_posix()}"
        account.client("s3").upload_file(str(path), BUCKET, key)
    return job


def test_a_job_runs_on_a_cluster_that_leaves_nothing(account, settings, machines, job, called, monkeypatch):
    # Staging is tested elsewhere; the local processes use the installed packages.
    monkeypatch.setattr(staging, "is_staged", lambda *_: True)
    monkeypatch.setattr(ec2_machines, "CHECK_SECONDS", 0.2)
    before = copy.deepcopy(dask.config.config)
    ec2, s3 = account.client("ec2"), account.client("s3")
    in_bucket = dataclasses.replace(job, images=f"s3://{BUCKET}/images", out=f"s3://{BUCKET}/out")
    messages = []
    with ec2_job.open_executor(place(settings), in_bucket, notify=messages.append) as executor:
        name = messages[0].split()[1].rstrip(";")
        tagged = [{"Name": f"tag:{TAG}", "Values": [name]}]
        wait_for(lambda: executor._client.nthreads())
        (first,) = workers(machines)
        # Spot reclaims the instance: another one takes its place, and the job runs on it.
        called.clear()
        ec2.terminate_instances(InstanceIds=[first])
        wait_for(lambda: workers(machines) and first not in workers(machines))
        pipeline.run(in_bucket, executor)
        (group,) = ec2.describe_security_groups(Filters=tagged)["SecurityGroups"]
        described = list(machines.described().values())
    assert compare(job.out, in_bucket.out).identical

    assert [rule["IpRanges"] for rule in group["IpPermissions"] if rule["IpRanges"]] == [
        [{"CidrIp": "127.0.0.1/32", "Description": "the client"}]
    ]
    assert {machine["InstanceType"]: machine.get("InstanceLifecycle") for machine in described} == {
        "m7i.large": None,
        "c7i.large": "spot",
    }
    for machine in described:
        tags = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
        assert (tags[TAG], tags["cost-centre"]) == (name, "42")
        assert machine["ImageId"] == IMAGE
        assert "PublicIpAddress" not in machine
    assert not any("PRIVATE KEY" in script for script in machines.scripts.values())
    assert all("shutdown -h +720" in script for script in machines.scripts.values())

    assert {machine["State"]["Name"] for machine in machines.described().values()} == {"terminated"}
    assert not ec2.describe_security_groups(Filters=tagged)["SecurityGroups"]
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix="fruits/clusters/")
    assert dask.config.config == before

    allowed = {name for each in document("UserPolicy", "DaskUserPolicy")["Statement"] for name in each["Action"]}
    called.discard(("ec2", "DescribeInstanceAttribute"))  # called by this test
    assert {action(*each) for each in called} - allowed == set()


def workers(machines):
    """Return the identifiers of the worker instances that are running."""
    return [
        name
        for name, machine in machines.described().items()
        if machine["InstanceType"] == "c7i.large" and machine["State"]["Name"] in ("pending", "running")
    ]


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_scheduler_ends_without_a_client_and_not_before(tmp_path):
    """A driver that lists images has no task, and yet its cluster must live."""

    async def run():
        async with Scheduler(port=0, dashboard=False) as scheduler:
            async with Client(scheduler.address, asynchronous=True, set_as_default=False) as client:
                watch = asyncio.create_task(dask_node._until_abandoned(scheduler, 1.0))
                done, _ = await asyncio.wait([watch], timeout=3)
                assert not done
                assert client.status == "running"
            await asyncio.wait_for(watch, 60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dask_node, "CHECK_SECONDS", 0.2)
        asyncio.run(run())


@pytest.mark.parametrize("code", sorted(ec2_machines.NO_SPOT))
def test_without_spot_capacity_workers_are_on_demand(account, settings, monkeypatch, code):
    ec2, notes = account.client("ec2"), []
    launch = prepare_launch(account, settings, NAME, STAGED, "s3://gone/s")
    run = ec2.run_instances

    def no_spot(**given):
        if "InstanceMarketOptions" in given:
            raise ClientError({"Error": {"Code": code, "Message": "No."}}, "RunInstances")
        return run(**given)

    monkeypatch.setattr(ec2, "run_instances", no_spot)
    with ec2_machines.Machines(account, launch, notes.append).workers("tls://127.0.9.1:8786"):
        (machine,) = LocalMachines(account).described().values()
    assert "InstanceLifecycle" not in machine
    assert notes == [f"Spot has no capacity for c7i.large ({code}); starting it on demand"]
    end_resources_of(account, NAME)


def test_instances_that_keep_ending_are_not_replaced_for_ever(account, settings, monkeypatch):
    ec2 = account.client("ec2")
    machines = ec2_machines.Machines(account, prepare_launch(account, settings, NAME, STAGED, "s3://gone/s"), print)
    for _ in range(ec2_machines.MOST_STARTS):
        machines._fill("tls://127.0.9.1:8786")
        ec2.terminate_instances(InstanceIds=workers(LocalMachines(account)))
    with pytest.raises(JobError, match=r"5 worker instances were started for 1, and 0 are running: no more are"):
        machines._fill("tls://127.0.9.1:8786")


def test_a_cluster_that_this_machine_cannot_reach_is_refused_before_it_starts(account, settings, job):
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    inner = ec2.create_subnet(VpcId=vpc, CidrBlock="10.20.9.0/24")["Subnet"]["SubnetId"]
    in_bucket = dataclasses.replace(job, images=f"s3://{BUCKET}/images", out=f"s3://{BUCKET}/out")
    for change, message in (
        ({"public": False}, r"this machine \([\d.]+\) is outside of the VPC .*Set public: true"),
        ({"public": True}, r"public: true, but the subnet .* has no route to the internet"),
    ):
        unreachable = settings.model_copy(update={"subnet": inner} | change)
        with (
            pytest.raises(SettingsError, match=message),
            ec2_job.open_executor(place(unreachable), in_bucket, notify=print),
        ):
            pytest.fail("the cluster started")
    assert left(account) == ([], [])
    assert LocalMachines(account).described() == {}


def place(settings):
    return Cluster(name="dask-ec2", backend="dask", workers=None, cloud=settings)


def client(account, settings, staged=STAGED):
    return ec2_job.open_client(account, settings, name=NAME, staged=staged, notify=print)


def left(account):
    """Return the instances and the security groups of the job."""
    ec2 = account.client("ec2")
    tagged = [{"Name": f"tag:{TAG}", "Values": [NAME]}]
    alive = [*tagged, {"Name": "instance-state-name", "Values": ["pending", "running"]}]
    groups = ec2.describe_security_groups(Filters=tagged)["SecurityGroups"]
    return ec2.describe_instances(Filters=alive)["Reservations"], groups


def test_a_scheduler_that_does_not_start_is_reported_and_ended(account, settings, monkeypatch):
    monkeypatch.setattr(ec2_machines, "START_SECONDS", 0.5)
    with (
        pytest.raises(
            JobError, match=r"i-[0-9a-f]+ did not answer at 127\.0\.9\.\d+:8786 .*`public`.*get-console-output"
        ),
        client(account, settings),
    ):
        pytest.fail("the cluster started")
    assert left(account) == ([], [])


def test_instances_have_encrypted_volumes_and_no_imdsv1(account, settings):
    launch = prepare_launch(account, settings, NAME, STAGED, "s3://gone/s")
    request = launch.request("worker", "c7i.large", 3, launch.script("tls://127.0.9.1:8786", 2))
    shape = account.client("ec2").meta.service_model.operation_model("RunInstances").input_shape
    assert ParamValidator().validate(request, shape).generate_report() == ""
    (volume,) = request["BlockDeviceMappings"]
    assert volume == {
        "DeviceName": "/dev/xvda",  # the root device of the image; another name would add a second volume
        "Ebs": {"DeleteOnTermination": True, "VolumeSize": 64, "VolumeType": "gp3", "Encrypted": True},
    }
    assert request["MetadataOptions"]["HttpTokens"] == "required"
    assert request["IamInstanceProfile"] == {"Name": "fruits-node-eu-west-3"}
    assert request["InstanceInitiatedShutdownBehavior"] == "terminate"
    kinds = {each["ResourceType"] for each in request["TagSpecifications"]}
    assert kinds == {"instance", "volume", "network-interface"}
    assert len(request["UserData"]) < 16_384
    end_resources_of(account, NAME)


def test_sigterm_ends_the_cluster(account, settings, machines):
    class Terminated(BaseException):  # as the command line raises it
        pass

    with pytest.raises(Terminated, match="running"), client(account, settings) as connected:
        raise Terminated(connected.status)
    assert left(account) == ([], [])


def test_a_failed_start_is_reported_and_leaves_nothing(account, settings):
    settings = settings.model_copy(update={"image": "ami-0badbadbadbadbad0"})
    with (
        pytest.raises(FruitsError, match="ami-0badbadbadbadbad0"),
        client(account, settings),
    ):
        pytest.fail("the cluster started")
    assert left(account) == ([], [])


def test_different_versions_are_rejected_before_the_start(account, settings):
    check_versions(PINS)
    with pytest.raises(SettingsError, match=r"dask 2020\.1\.0 \(here: .*distributed none \(here: "):
        check_versions(PINS.replace(f"dask=={version('dask')}", "dask==2020.1.0").replace("distributed==", "other=="))
    other = StagedFiles("s3://my-fruits/fruits/stage/other")
    with (
        pytest.raises(SettingsError, match=r"Nothing is staged at .*Run the same command again"),
        client(account, settings, other),
    ):
        pytest.fail("the cluster started")
    assert left(account) == ([], [])


def test_a_client_of_every_address_is_rejected(account, settings):
    vpc = account.client("ec2").describe_subnets(SubnetIds=[settings.subnet])["Subnets"][0]["VpcId"]
    with pytest.raises(SettingsError, match="admits every address"):
        create_security_group(account, vpc, NAME, "0.0.0.0/0", {})


def group_of(launch):
    """Return the identifier of the security group of a cluster."""
    return launch.common["NetworkInterfaces"][0]["Groups"][0]


def started(ec2, settings, group):
    """Start an instance of the job without its cluster, and return its identifier."""
    machine = ec2.run_instances(
        ImageId=IMAGE,
        MinCount=1,
        MaxCount=1,
        SecurityGroupIds=[group],
        SubnetId=settings.subnet,
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": TAG, "Value": NAME}]}],
    )
    return machine["Instances"][0]["InstanceId"]


def test_resources_of_a_killed_driver_are_found_and_ended(account, settings):
    ec2, s3 = account.client("ec2"), account.client("s3")
    address = secrets_address(BUCKET, NAME)
    key = address.removeprefix(f"s3://{BUCKET}/")
    for name in (key, key.replace(NAME, "another")):
        s3.put_object(Bucket=BUCKET, Key=name, Body=b"{}")
    group = group_of(prepare_launch(account, settings, NAME, STAGED, address))
    machine = started(ec2, settings, group)
    assert [(each.kind, each.identifier) for each in find_resources(account)] == [
        ("instance", machine),
        ("security group", group),
    ]
    end_resources_of(account, NAME)
    end_resources_of(account, NAME)
    assert find_resources(account) == []
    kept = [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET, Prefix="fruits/clusters/")["Contents"]]
    assert kept == [key.replace(NAME, "another")]


def test_a_security_group_is_deleted_even_if_its_bucket_is_gone(account, settings):
    address = secrets_address("gone", NAME)
    prepare_launch(account, settings, NAME, STAGED, address)
    end_resources_of(account, NAME)
    assert find_resources(account) == []


def test_ending_continues_after_a_failed_step(account, settings, monkeypatch):
    ec2 = account.client("ec2")
    group = group_of(prepare_launch(account, settings, NAME, STAGED, "s3://gone/s"))
    started(ec2, settings, group)

    terminate = ec2.terminate_instances

    def refused(operation):
        return ClientError({"Error": {"Code": "AccessDeniedException", "Message": "No."}}, operation)

    def terminate_and_fail(**arguments):
        terminate(**arguments)
        raise refused("TerminateInstances")

    def fail(operation):
        raise refused("DescribeInstances")

    with monkeypatch.context() as patch:
        patch.setattr(ec2, "terminate_instances", terminate_and_fail)
        with pytest.raises(InputError, match="Could not end the instances of a-job: TerminateInstances is not permit"):
            end_resources_of(account, NAME)
        assert left(account) == ([], [])
        patch.setattr(ec2, "get_paginator", fail)
        with pytest.raises(InputError, match="Could not look up the instances: DescribeInstances"):
            end_resources_of(account, NAME)


def test_local_images_are_rejected(settings):
    job = Job(images="/here/images", out=f"s3://{BUCKET}/out")
    with (
        pytest.raises(SettingsError, match="/here/images"),
        ec2_job.open_executor(place(settings), job, notify=print),
    ):
        pytest.fail("the cluster started")
