"""Resources of jobs and clusters in the account: found by their tags, and ended by ``fruits cluster down``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from backends.aws.account.clients import Account, split_address, translated_errors
from backends.aws.account.tags import BUCKET_TAG, SETUP, TAG, parse_tags
from backends.aws.emr.clusters import ACTIVE, end_cluster, list_clusters

ALIVE = ("pending", "running", "stopping", "stopped")
ENDING = "shutting-down"
RUNNING = ["SUBMITTED", "PENDING", "SCHEDULED", "RUNNING", "QUEUED"]  # of a job on EMR Serverless


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of a job or a cluster.

    Attributes
    ----------
    name : str
        The job or the cluster that it belongs to.
    kind : {"cluster", "job run", "instance", "security group"}
        An EMR cluster, a job on EMR Serverless, an EC2 instance outside of EMR, or the group of such instances.
    identifier : str
        The identifier in AWS.
    state : str
        The state in AWS.
    detail : str, optional
        For a security group, the bucket with the secrets of its instances; for a job run, its application.
    """

    name: str
    kind: str
    identifier: str
    state: str
    detail: str | None = None


def find_resources(account: Account, name: str | None = None) -> list[Resource]:
    """Return the resources of the job or the cluster `name`, or of all, in the order in which they must be ended."""
    clusters, runs = _clusters(account, name), job_runs(account, name)
    return [*clusters, *runs, *_instances(account, name, ALIVE), *_security_groups(account, name)]


def end_resource(account: Account, resource: Resource) -> None:
    """End a resource. Ending it again has no effect."""
    if resource.kind == "cluster":
        end_cluster(account, resource.identifier)
        return
    if resource.kind == "job run":
        with translated_errors(f"cancel {resource.name}"):
            serverless = account.client("emr-serverless")
            serverless.cancel_job_run(applicationId=resource.detail, jobRunId=resource.identifier)
        return
    ec2 = account.client("ec2")
    with translated_errors(f"end the {resource.kind} {resource.identifier}"):
        if resource.kind == "instance":
            ec2.terminate_instances(InstanceIds=[resource.identifier])
            return
        # A group cannot be deleted before its instances are terminated.
        if waiting := [each.identifier for each in _instances(account, resource.name, (*ALIVE, ENDING))]:
            ec2.get_waiter("instance_terminated").wait(InstanceIds=waiting)
    if resource.detail is not None:
        address, s3 = secrets_address(resource.detail, resource.name), account.client("s3")
        bucket, key = split_address(address)
        with translated_errors(f"remove {address}"), suppress(s3.exceptions.NoSuchBucket):
            s3.delete_object(Bucket=bucket, Key=key)
    with translated_errors(f"end the {resource.kind} {resource.identifier}"):
        ec2.delete_security_group(GroupId=resource.identifier)  # last: only its tag names the bucket of the secrets


def end_resources_of(account: Account, name: str) -> None:
    """End the EC2 instances of a job and then their security groups. Ending them again has no effect.

    Every step is attempted; the first error is raised at the end.
    """
    first: Exception | None = None
    for step in (_end_instances, _end_security_groups):
        try:
            step(account, name)
        except Exception as error:
            first = first or error
    if first is not None:
        raise first


def secrets_address(bucket: str, name: str) -> str:
    """Return the address of the secrets that the instances of a Dask cluster share with the client."""
    return f"s3://{bucket}/fruits/clusters/{name}/secrets.json"


def _end_instances(account: Account, name: str) -> None:
    if instances := [each.identifier for each in _instances(account, name, ALIVE)]:
        with translated_errors(f"end the instances of {name}"):
            account.client("ec2").terminate_instances(InstanceIds=instances)


def _end_security_groups(account: Account, name: str) -> None:
    for group in _security_groups(account, name):
        end_resource(account, group)


def _clusters(account: Account, name: str | None) -> Iterator[Resource]:
    for cluster in list_clusters(account, name):
        state = str(cluster["Status"]["State"])
        if state in ACTIVE:
            yield Resource(cluster["Tags"][TAG], "cluster", cluster["Id"], state)


def job_runs(account: Account, name: str | None = None) -> Iterator[Resource]:
    """Yield the running job `name`, or all running jobs, on EMR Serverless."""
    serverless = account.client("emr-serverless")
    with translated_errors("look up the jobs on EMR Serverless"):
        for page in serverless.get_paginator("list_applications").paginate(states=["CREATED", "STARTING", "STARTED"]):
            for application in page["applications"]:
                if not str(application["name"]).startswith("fruits-"):
                    continue
                listed = serverless.get_paginator("list_job_runs")
                runs = listed.paginate(applicationId=application["id"], states=RUNNING)
                for run in (run for found in runs for run in found["jobRuns"]):
                    if name in (None, run["name"]):
                        yield Resource(run["name"], "job run", run["id"], run["state"], application["id"])


def _instances(account: Account, name: str | None, states: Sequence[str]) -> Iterator[Resource]:
    """Yield the instances that do not belong to an EMR cluster; EMR ends its own."""
    filters = [_tag_filter(name), {"Name": "instance-state-name", "Values": list(states)}]
    with translated_errors("look up the instances"):
        for page in account.client("ec2").get_paginator("describe_instances").paginate(Filters=filters):
            for reservation in page["Reservations"]:
                for instance in reservation["Instances"]:
                    tags = parse_tags(instance.get("Tags", ()))
                    if "aws:elasticmapreduce:job-flow-id" not in tags:
                        yield Resource(tags[TAG], "instance", instance["InstanceId"], instance["State"]["Name"])


def _security_groups(account: Account, name: str | None) -> Iterator[Resource]:
    """Yield the security groups of single clusters; those of ``init`` are permanent."""
    with translated_errors("look up the security groups"):
        pages = account.client("ec2").get_paginator("describe_security_groups").paginate(Filters=[_tag_filter(name)])
        for page in pages:
            for group in page["SecurityGroups"]:
                tags = parse_tags(group.get("Tags", ()))
                if tags[TAG] != SETUP:
                    yield Resource(tags[TAG], "security group", group["GroupId"], "there", tags.get(BUCKET_TAG))


def _tag_filter(name: str | None) -> dict[str, Any]:
    return {"Name": "tag-key", "Values": [TAG]} if name is None else {"Name": f"tag:{TAG}", "Values": [name]}
