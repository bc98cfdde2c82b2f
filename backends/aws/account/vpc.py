"""Where clusters are put: subnets, and security groups that admit nothing from outside of the cluster.

EMR itself adds to the groups what its nodes need of each other: https://docs.aws.amazon.com/emr/latest/ManagementGuide/emr-man-sec-groups.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.aws.account.clients import Account, explained
from fruits.clusters.clouds import AwsCluster
from fruits.errors import SettingsError

__all__ = ["GROUPS", "Place", "Vpc", "find_network", "find_place", "groups_in"]

# What they are for, by name. The last is for EMR's own service, and used in private subnets alone.
GROUPS = {
    "fruits-master": "Fruits on EMR: the node that leads",
    "fruits-worker": "Fruits on EMR: the nodes that work",
    "fruits-service": "Fruits on EMR: the service, in private subnets",
}


@dataclass(frozen=True, slots=True)
class Vpc:
    """Where the nodes are, and what may reach them.

    Attributes
    ----------
    subnets : tuple of str
        EMR takes the one that has the capacity.
    master_group, worker_group : str
        Security groups.
    service_group : str, optional
        That of EMR's service; in private subnets alone.
    """

    subnets: tuple[str, ...]
    master_group: str
    worker_group: str
    service_group: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Subnets of one VPC.

    Attributes
    ----------
    vpc : str
    subnets : tuple of str
    private : bool
        Whether they have no way from the internet.
    """

    vpc: str
    subnets: tuple[str, ...]
    private: bool


def find_place(account: Account, settings: AwsCluster) -> Place:
    """Return the subnet of the settings, or those of the default VPC.

    Raises
    ------
    SettingsError
        There is none.
    """
    ec2 = account.client("ec2")
    wanted = {"SubnetIds": [settings.subnet]} if settings.subnet else {"Filters": _is("default-for-az", "true")}
    with explained("look up the subnets"):
        found = sorted(ec2.describe_subnets(**wanted)["Subnets"], key=lambda subnet: str(subnet["SubnetId"]))
    if not found:
        raise SettingsError(
            "The account has no default VPC in this region. Give a subnet: `subnet` of the cluster in cluster.yaml."
        )
    subnets = tuple(str(subnet["SubnetId"]) for subnet in found)
    vpc = str(found[0]["VpcId"])
    return Place(vpc, subnets, _is_private(ec2, vpc, subnets[0]))


def groups_in(account: Account, vpc: str) -> Mapping[str, str]:
    """Return the identifiers of our security groups in a VPC, by name."""
    with explained("look up the security groups"):
        answer = account.client("ec2").describe_security_groups(
            Filters=[*_is("vpc-id", vpc), {"Name": "group-name", "Values": list(GROUPS)}]
        )
    return {str(group["GroupName"]): str(group["GroupId"]) for group in answer["SecurityGroups"]}


def find_network(account: Account, settings: AwsCluster) -> Vpc:
    """Return where a cluster is put.

    Raises
    ------
    SettingsError
        ``fruits cluster init`` was not run for this region.
    """
    place = find_place(account, settings)
    groups = groups_in(account, place.vpc)
    needed = list(GROUPS) if place.private else list(GROUPS)[:2]
    missing = [name for name in needed if name not in groups]
    if missing:
        raise SettingsError(
            f"The security groups {', '.join(missing)} are not in {place.vpc}. Make them with: fruits cluster init."
        )
    master, worker, *service = (groups[name] for name in needed)
    return Vpc(place.subnets, master, worker, *service)


def _is_private(ec2: Any, vpc: str, subnet: str) -> bool:
    """Tell whether the routes of a subnet, or else the main ones of its VPC, lead through no internet gateway."""
    with explained("look up the routes"):
        tables = ec2.describe_route_tables(Filters=_is("association.subnet-id", subnet))["RouteTables"]
        if not tables:
            filters = [*_is("vpc-id", vpc), *_is("association.main", "true")]
            tables = ec2.describe_route_tables(Filters=filters)["RouteTables"]
    routes = [route for table in tables for route in table["Routes"]]
    return not any(str(route.get("GatewayId", "")).startswith("igw-") for route in routes)


def _is(name: str, value: str) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": [value]}]
