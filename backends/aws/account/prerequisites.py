"""What ``fruits cluster init`` needs beside the stack: a user, service-linked roles, and tags of subnets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from backends.aws.account.clients import Account, translated_errors
from backends.aws.account.subnets import Subnets
from backends.aws.account.tags import MANAGED, aws_tags
from fruits.errors import SettingsError

# AWS creates them at the first use by a user who may create roles. A stack could not: it fails if one exists.
SERVICE_LINKED = ("elasticmapreduce.amazonaws.com", "spot.amazonaws.com", "ops.emr-serverless.amazonaws.com")


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """Something that the account needs and does not have, and the request that creates it."""

    description: str
    request: Callable[[], object]

    def create(self) -> None:
        """Create it."""
        with translated_errors(f"create the {self.description}"):
            self.request()


def check_user(account: Account, name: str) -> None:
    """Check that an IAM user exists; CloudFormation would fail in the middle of the deployment.

    Raises
    ------
    SettingsError
        The account has no user of this name.
    """
    iam = account.client("iam")
    with translated_errors(f"look up the IAM user {name}"):
        try:
            iam.get_user(UserName=name)
        except iam.exceptions.NoSuchEntityException as error:
            raise SettingsError(
                f"--user {name}: the account has no such IAM user. Allowed: one that `aws iam list-users` shows. "
                f"Create it with: aws iam create-user --user-name {name}, or omit --user."
            ) from error


def prerequisites(account: Account, subnets: Subnets) -> Iterator[Prerequisite]:
    """Yield the prerequisites that are missing."""
    iam, ec2 = account.client("iam"), account.client("ec2")
    for service in SERVICE_LINKED:
        role = f"service-linked role of {service}"
        with translated_errors(f"look up the {role}"):
            found = iam.list_roles(PathPrefix=f"/aws-service-role/{service}/")["Roles"]
        if not found:
            yield Prerequisite(role, partial(iam.create_service_linked_role, AWSServiceName=service))
    if subnets.untagged:
        tag = partial(ec2.create_tags, Resources=list(subnets.untagged), Tags=aws_tags(dict([MANAGED])))
        yield Prerequisite(f"tag {MANAGED[0]} on {', '.join(subnets.identifiers)}", tag)
