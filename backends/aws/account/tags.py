"""Tags of the AWS resources that Fruits creates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

TAG = "fruits"  # on every resource: the name of its job or cluster
SETUP = "init"  # the value of TAG on the resources of `fruits cluster init`, which outlive clusters
BUCKET_TAG = "fruits-bucket"  # on the resources of a Dask cluster: the bucket with its secrets
# Required by AWS' managed policy for EMR:
# https://docs.aws.amazon.com/emr/latest/ManagementGuide/emr-managed-iam-policies.html
MANAGED = ("for-use-with-amazon-emr-managed-policies", "true")


def tags_of(name: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the tags of every resource of the job or cluster `name`."""
    return {**(more or {}), TAG: name, MANAGED[0]: MANAGED[1]}


def aws_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags in the form of the AWS APIs."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def parse_tags(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the tags of a response of an AWS API."""
    return {tag["Key"]: tag["Value"] for tag in tags}
