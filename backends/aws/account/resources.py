"""What is left of ours in the account, found by its tags, and ended: ``fruits cluster down``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from backends.aws.account.clients import BUCKET_TAG, SETUP, TAG, Account, explained, split_address
from backends.aws.emr.steps import ACTIVE, clusters
from backends.aws.emr.steps import end as end_cluster

__all__ = ["Found", "end", "end_found", "find", "secrets_address"]

ALIVE = ("pending", "running", "stopping", "stopped")
ENDING = "shutting-down"


@dataclass(frozen=True, slots=True)
class Found:
    """Something of a job or a cluster that is there.

    Attributes
    ----------
    name : str
        The job or the cluster that it belongs to.
    kind : {"cluster", "instance", "security group"}
        An EMR cluster, an EC2 instance that belongs to none, or the group that protects such instances.
    identifier : str
        AWS' name of it.
    state : str
        In AWS' word.
    bucket : str, optional
        Where the secrets of the machines lie that a security group protects.
    """

    name: str
    kind: str
    identifier: str
    state: str
    bucket: str | None = None


def find(account: Account, name: str | None = None) -> list[Found]:
    """Return what is there of the job or the cluster `name`, or of all; what has to end first comes first."""
    return [*_clusters(account, name), *_instances(account, name, ALIVE), *_groups(account, name)]


def end_found(account: Account, found: Found) -> None:
    """End one thing; ending it twice does no harm."""
    if found.kind == "cluster":
        end_cluster(account, found.identifier)
        return
    ec2 = account.client("ec2")
    with explained(f"end the {found.kind} {found.identifier}"):
        if found.kind == "instance":
            ec2.terminate_instances(InstanceIds=[found.identifier])
            return
        # Machines hold their group until they are gone.
        if left := [each.identifier for each in _instances(account, found.name, (*ALIVE, ENDING))]:
            ec2.get_waiter("instance_terminated").wait(InstanceIds=left)
    if found.bucket is not None:
        _remove_secrets(account, found.bucket, found.name)
    with explained(f"end the {found.kind} {found.identifier}"):
        ec2.delete_security_group(GroupId=found.identifier)  # last: it alone still tells of the bucket


def end(account: Account, name: str) -> None:
    """End the machines of a job that are not EMR's, and then what protects them; twice does no harm.

    A step that fails does not keep the next from being taken; the first error is raised at the end.
    """
    first: Exception | None = None
    for step in (_end_machines, _end_groups):
        try:
            step(account, name)
        except Exception as error:
            first = first or error
    if first is not None:
        raise first


def secrets_address(bucket: str, name: str) -> str:
    """Return where the machines of a Dask cluster find what they share with their client."""
    return f"s3://{bucket}/fruits/clusters/{name}/secrets.json"


def _end_machines(account: Account, name: str) -> None:
    if machines := [each.identifier for each in _instances(account, name, ALIVE)]:
        with explained(f"end the machines of {name}"):
            account.client("ec2").terminate_instances(InstanceIds=machines)


def _end_groups(account: Account, name: str) -> None:
    for group in _groups(account, name):
        end_found(account, group)


def _remove_secrets(account: Account, bucket: str, name: str) -> None:
    s3 = account.client("s3")
    address = secrets_address(bucket, name)
    _, key = split_address(address)
    with explained(f"remove {address}"), suppress(s3.exceptions.NoSuchBucket):
        s3.delete_object(Bucket=bucket, Key=key)


def _clusters(account: Account, name: str | None) -> Iterator[Found]:
    for cluster in clusters(account, name):
        state = str(cluster["Status"]["State"])
        if state in ACTIVE:
            yield Found(cluster["Tags"][TAG], "cluster", cluster["Id"], state)


def _instances(account: Account, name: str | None, states: Sequence[str]) -> Iterator[Found]:
    """Yield machines of ours; those of a cluster of EMR end with it."""
    filters = [_tagged(name), {"Name": "instance-state-name", "Values": list(states)}]
    with explained("look up the machines"):
        for page in account.client("ec2").get_paginator("describe_instances").paginate(Filters=filters):
            for reservation in page["Reservations"]:
                for instance in reservation["Instances"]:
                    tags = _tags(instance)
                    if "aws:elasticmapreduce:job-flow-id" not in tags:
                        yield Found(tags[TAG], "instance", instance["InstanceId"], instance["State"]["Name"])


def _groups(account: Account, name: str | None) -> Iterator[Found]:
    """Yield the security groups that were made for one cluster; those that ``init`` made stay."""
    with explained("look up the security groups"):
        for page in account.client("ec2").get_paginator("describe_security_groups").paginate(Filters=[_tagged(name)]):
            for group in page["SecurityGroups"]:
                tags = _tags(group)
                if tags[TAG] != SETUP:
                    yield Found(tags[TAG], "security group", group["GroupId"], "there", tags.get(BUCKET_TAG))


def _tagged(name: str | None) -> dict[str, Any]:
    return {"Name": "tag-key", "Values": [TAG]} if name is None else {"Name": f"tag:{TAG}", "Values": [name]}


def _tags(thing: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags", ())}
