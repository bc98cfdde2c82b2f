"""What is left of ours in the account, found by its tags, and ended: ``fruits cluster down``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backends.aws.account import TAG, Account, explained
from backends.aws.emr_run import ACTIVE, clusters, end

__all__ = ["Found", "end_found", "find"]

ALIVE = ("pending", "running", "stopping", "stopped")


@dataclass(frozen=True, slots=True)
class Found:
    """Something that costs money while it is there.

    Attributes
    ----------
    name : str
        The job or the cluster that it belongs to.
    kind : {"cluster", "instance"}
        A cluster of EMR, or a machine of EC2 that belongs to none.
    identifier : str
        AWS' name of it.
    state : str
        In AWS' word.
    """

    name: str
    kind: str
    identifier: str
    state: str


def find(account: Account, name: str | None = None) -> list[Found]:
    """Return what is there of the job or the cluster `name`, or of all."""
    return [*_clusters(account, name), *_instances(account, name)]


def end_found(account: Account, found: Found) -> None:
    """End one thing; ending it twice does no harm."""
    if found.kind == "cluster":
        end(account, found.identifier)
        return
    with explained(f"end the machine {found.identifier}"):
        account.client("ec2").terminate_instances(InstanceIds=[found.identifier])


def _clusters(account: Account, name: str | None) -> Iterator[Found]:
    for cluster in clusters(account, name):
        state = str(cluster["Status"]["State"])
        if state in ACTIVE:
            yield Found(cluster["Tags"][TAG], "cluster", cluster["Id"], state)


def _instances(account: Account, name: str | None) -> Iterator[Found]:
    """Yield machines of ours; those of a cluster of EMR end with it."""
    filters = [
        {"Name": "tag-key", "Values": [TAG]} if name is None else {"Name": f"tag:{TAG}", "Values": [name]},
        {"Name": "instance-state-name", "Values": list(ALIVE)},
    ]
    with explained("look up the machines"):
        for page in account.client("ec2").get_paginator("describe_instances").paginate(Filters=filters):
            for reservation in page["Reservations"]:
                for instance in reservation["Instances"]:
                    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())}
                    if "aws:elasticmapreduce:job-flow-id" not in tags:
                        yield Found(tags[TAG], "instance", instance["InstanceId"], instance["State"]["Name"])
