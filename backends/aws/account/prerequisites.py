"""What ``fruits cluster init`` does beside the stack: service-linked roles, tags of subnets, a key pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.aws.account.clients import Account, translated_errors
from backends.aws.account.subnets import Subnets
from backends.aws.account.tags import MANAGED, SETUP, aws_tags, tags_of
from fruits.errors import SettingsError

__all__ = ["SERVICE_LINKED", "Prerequisite", "prerequisites"]

# AWS creates them at the first use by a user who may create roles. A stack could not: it fails if one exists.
SERVICE_LINKED = ("elasticmapreduce.amazonaws.com", "spot.amazonaws.com", "ops.emr-serverless.amazonaws.com")


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """Something that the account needs."""

    description: str
    exists: bool
    create: Callable[[], None]


def prerequisites(account: Account, subnets: Subnets, key_pair: str | None = None) -> Iterator[Prerequisite]:
    """Yield the prerequisites; each is created by its ``create``.

    Parameters
    ----------
    account : Account
    subnets : Subnets
        EMR uses only tagged ones.
    key_pair : str, optional
        The name of a key pair. Its key is written to ``NAME.pem`` in the current folder, readable by the owner only.
    """
    for service in SERVICE_LINKED:
        yield _service_linked(account, service)
    ec2 = account.client("ec2")

    def tag() -> None:
        with translated_errors("tag the subnets"):
            ec2.create_tags(Resources=list(subnets.untagged), Tags=aws_tags(dict([MANAGED])))

    yield Prerequisite(f"tag {MANAGED[0]} on {', '.join(subnets.identifiers)}", not subnets.untagged, tag)
    if key_pair is not None:
        yield _key_pair(account, key_pair)


def _service_linked(account: Account, service: str) -> Prerequisite:
    iam, role = account.client("iam"), f"service-linked role of {service}"

    def create() -> None:
        with translated_errors(f"create the {role}"):
            iam.create_service_linked_role(AWSServiceName=service)

    with translated_errors(f"look up the {role}"):
        found = iam.list_roles(PathPrefix=f"/aws-service-role/{service}/")["Roles"]
    return Prerequisite(role, bool(found), create)


def _key_pair(account: Account, name: str) -> Prerequisite:
    ec2 = account.client("ec2")
    path = Path(f"{name}.pem")
    with translated_errors("look up the key pairs"):
        exists = bool(ec2.describe_key_pairs(Filters=[{"Name": "key-name", "Values": [name]}])["KeyPairs"])
    where = f"its key in {path}" if path.exists() or not exists else f"whose key is not in this folder as {path}"
    return Prerequisite(f"key pair {name}, {where}", exists, lambda: _create_key_pair(ec2, name, path))


def _create_key_pair(ec2: Any, name: str, path: Path) -> None:
    """Create a key pair and write its key. AWS returns the key once, so the file is created before the pair."""
    try:
        path.touch(0o600, exist_ok=False)
    except OSError as error:
        raise SettingsError(
            f"{path}: {error.strerror}. The key of the pair {name} is written to this new file. Move the existing "
            "file, give another name, or change to a writable folder."
        ) from error
    tags = [{"ResourceType": "key-pair", "Tags": aws_tags(tags_of(SETUP))}]
    try:
        with translated_errors(f"create the key pair {name}"):
            created = ec2.create_key_pair(KeyName=name, TagSpecifications=tags, KeyType="ed25519")
    except BaseException:
        path.unlink()
        raise
    try:
        path.write_text(created["KeyMaterial"], encoding="ascii")
    except OSError as error:
        with translated_errors(f"delete the key pair {name}, whose key could not be written to {path}"):
            ec2.delete_key_pair(KeyName=name)
        path.unlink()
        raise SettingsError(
            f"{path}: {error.strerror}. The key of the pair {name} could not be written, so the pair was deleted. "
            "Change to a writable folder and run the same command again."
        ) from error
