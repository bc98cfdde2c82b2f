"""What ``fruits cluster init`` does beside the stack: service-linked roles, and tags of subnets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from backends.aws.account.clients import Account, translated_errors
from backends.aws.account.subnets import Subnets
from backends.aws.account.tags import MANAGED, aws_tags

__all__ = ["SERVICE_LINKED", "Prerequisite", "prerequisites"]

# AWS creates them at the first use by a user who may create roles. A stack could not: it fails if one exists.
SERVICE_LINKED = ("elasticmapreduce.amazonaws.com", "spot.amazonaws.com", "ops.emr-serverless.amazonaws.com")


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """Something that the account needs."""

    description: str
    exists: bool
    create: Callable[[], None]


def prerequisites(account: Account, subnets: Subnets) -> Iterator[Prerequisite]:
    """Yield the prerequisites; each is created by its ``create``."""
    for service in SERVICE_LINKED:
        yield _service_linked(account, service)
    ec2 = account.client("ec2")

    def tag() -> None:
        with translated_errors("tag the subnets"):
            ec2.create_tags(Resources=list(subnets.untagged), Tags=aws_tags(dict([MANAGED])))

    yield Prerequisite(f"tag {MANAGED[0]} on {', '.join(subnets.identifiers)}", not subnets.untagged, tag)


def _service_linked(account: Account, service: str) -> Prerequisite:
    iam, role = account.client("iam"), f"service-linked role of {service}"

    def create() -> None:
        with translated_errors(f"create the {role}"):
            iam.create_service_linked_role(AWSServiceName=service)

    with translated_errors(f"look up the {role}"):
        found = iam.list_roles(PathPrefix=f"/aws-service-role/{service}/")["Roles"]
    return Prerequisite(role, bool(found), create)
